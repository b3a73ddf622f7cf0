"""When a draw is held, and what it makes of a prediction."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

Game: TypeAlias = tuple[int, ...]
"""Six different numbers from 1 to 45, ascending."""

BALLS = 45
PICKED = 6
RANKS = (1, 2, 3, 4, 5)
CHANCE_LOG_LOSS = 0.3927
"""Log loss of scores that are 6/45 for each number."""
SCORE_TOLERANCE = 1e-6
"""How far a sum of scores may be off, and how near to 0 and 1 a score counts in the log loss."""

_FIRST_DATE = date(2002, 12, 7)
_CLOSING_TIME = time_of_day(20)
_ZONE = "Asia/Seoul"


@dataclass(frozen=True)
class Draw:
    """What was drawn.

    Attributes
    ----------
    draw_no : int
        Number of the draw, from 1.
    numbers : tuple of int
        The six winning numbers, ascending.
    bonus : int
        The bonus number.
    line : int or None
        The line of the CSV file that it was read from, if it was.
    """

    draw_no: int
    numbers: Game
    bonus: int
    line: int | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Score:
    """What a draw makes of one prediction.

    Attributes
    ----------
    hits : tuple of int
        Winning numbers in each game.
    bonus_hits : tuple of bool
        Whether each game holds the bonus number.
    ranks : tuple of int or None
        Prize rank of each game: 1 for six, 2 for five and the bonus, 3 for five, 4 for four, 5
        for three, ``None`` for less.
    best_hits : int
        The most winning numbers in one game.
    hits_per_game : float
        Winning numbers in a game, on average.
    log_loss : float or None
        Mean over the 45 numbers of ``-(y ln p + (1 - y) ln (1 - p))``, with p clipped to
        [1e-6, 1 - 1e-6]; ``None`` without scores.
    """

    hits: tuple[int, ...]
    bonus_hits: tuple[bool, ...]
    ranks: tuple[int | None, ...]
    best_hits: int
    hits_per_game: float
    log_loss: float | None


@cache
def _zone() -> ZoneInfo:
    from zoneinfo import ZoneInfo  # imported lazily

    return ZoneInfo(_ZONE)


def date_of(draw_no: int) -> date:
    """Return the Saturday on which a draw is held."""
    return _FIRST_DATE + timedelta(days=7 * (draw_no - 1))


def closes_at(draw_no: int) -> datetime:
    """Return when the sales of a draw close: 20:00 in Seoul, whatever zone the settings name.

    Parameters
    ----------
    draw_no : int
        Number of the draw, from 1.

    Returns
    -------
    datetime.datetime
        The moment, with its time zone. What is made at this moment is too late.
    """
    return datetime.combine(date_of(draw_no), _CLOSING_TIME, _zone())


def newest_closed(now: datetime) -> int:
    """Return the number of the newest draw whose sales have closed; 0 before the first.

    Parameters
    ----------
    now : datetime.datetime
        A moment, with its time zone.
    """
    there = now.astimezone(_zone())
    weeks, days = divmod((there.date() - _FIRST_DATE).days, 7)
    is_before_closing = days == 0 and there.time() < _CLOSING_TIME
    return max(0, weeks if is_before_closing else weeks + 1)


def score(games: Iterable[Game], scores: Iterable[float] | None, draw: Draw) -> Score:
    """Return what a draw makes of a prediction.

    Parameters
    ----------
    games : iterable of tuple of int
        Games as `checked_games` returns them; at least one.
    scores : iterable of float or None
        Probabilities as `checked_scores` returns them.
    draw : Draw
        What was drawn.
    """
    winning = frozenset(draw.numbers)
    played = tuple(games)
    hits = tuple(len(winning.intersection(game)) for game in played)
    bonus_hits = tuple(draw.bonus in game for game in played)
    return Score(
        hits=hits,
        bonus_hits=bonus_hits,
        ranks=tuple(rank_of(*of_game) for of_game in zip(hits, bonus_hits, strict=True)),
        best_hits=max(hits),
        hits_per_game=sum(hits) / len(hits),
        log_loss=None if scores is None else log_loss(scores, winning),
    )


def rank_of(hits: int, bonus_hit: bool) -> int | None:
    """Return the prize rank of a game, 1 to 5, or ``None``."""
    if hits == PICKED - 1:
        return 2 if bonus_hit else 3
    return {6: 1, 4: 4, 3: 5}.get(hits)


def log_loss(scores: Iterable[float], winning: Iterable[int]) -> float:
    """Return the mean over the 45 numbers of the log loss of their probabilities."""
    drawn = set(winning)
    clipped = [min(max(value, SCORE_TOLERANCE), 1 - SCORE_TOLERANCE) for value in scores]
    losses = (
        -math.log(p if number in drawn else 1 - p) for number, p in enumerate(clipped, start=1)
    )
    return math.fsum(losses) / BALLS
