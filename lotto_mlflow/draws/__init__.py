"""The rules of lotto 6/45: dates, games and scores; checks of what callers give; results as CSV."""

from lotto_mlflow.draws.checks import (
    are_scores,
    checked_draw,
    checked_draw_no,
    checked_games,
    checked_scores,
    is_game,
)
from lotto_mlflow.draws.results import COLUMNS, parse_results, render_results
from lotto_mlflow.draws.rules import (
    BALLS,
    CHANCE_LOG_LOSS,
    PICKED,
    RANKS,
    Draw,
    Game,
    Score,
    closes_at,
    date_of,
    log_loss,
    newest_closed,
    rank_of,
    score,
)

__all__ = [
    "BALLS",
    "CHANCE_LOG_LOSS",
    "COLUMNS",
    "PICKED",
    "RANKS",
    "Draw",
    "Game",
    "Score",
    "are_scores",
    "checked_draw",
    "checked_draw_no",
    "checked_games",
    "checked_scores",
    "closes_at",
    "date_of",
    "is_game",
    "log_loss",
    "newest_closed",
    "parse_results",
    "rank_of",
    "render_results",
    "score",
]
