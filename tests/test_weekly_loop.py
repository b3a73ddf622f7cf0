"""The weekly loop of a backend, over the last 100 draws of the history."""

from __future__ import annotations

import os
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from predicting import points

from lotto_mlflow import ModelManager
from lotto_mlflow.demo import draws
from lotto_mlflow.draws import Draw, closes_at, parse_results

NAME = "lotto_model_frequency"
WEEKS, RETRAINED = 100, 20


def history() -> list[Draw]:
    """Return the draws of the file that ``LOTTO_DRAWS_CSV`` names, or simulated ones."""
    path = os.environ.get("LOTTO_DRAWS_CSV")
    if path is not None:
        return parse_results(Path(path).read_bytes(), Path(path), datetime.now(timezone.utc))
    games = draws.simulated(2 * WEEKS, 645).tolist()
    bonus = [next(number for number in range(1, 46) if number not in game) for game in games]
    rows = enumerate(zip(games, bonus, strict=True), start=1000)
    return [Draw(draw_no, tuple(game), extra) for draw_no, (game, extra) in rows]


def trained(past: list[Draw]) -> dict[int, float]:
    """Return how often each number was drawn, which is all that this model knows."""
    counts = Counter(number for draw in past for number in draw.numbers)
    return {number: counts[number] / sum(counts.values()) for number in range(1, 46)}


@pytest.mark.timeout(600)
def test_the_weekly_loop_runs_over_the_last_hundred_draws(
    manager: ModelManager, base_dir: Path
) -> None:
    past, last = history()[:-WEEKS], history()[-WEEKS:]
    for week, draw in enumerate(last):
        if week % RETRAINED == 0:
            model = trained(past + last[:week])
            manager.save_model(model, NAME, {"draws": len(past) + week})
        likely = sorted(model, key=lambda number: -model[number])
        manager.record_prediction(
            NAME,
            draw.draw_no,
            [likely[:6], likely[6:12]],
            scores=[model[number] for number in range(1, 46)],
            made_at=closes_at(draw.draw_no) - timedelta(hours=2),
        )
        manager.record_result(draw.draw_no, list(draw.numbers), draw.bonus)
    assert manager.flush(timeout=300)
    found = manager.predictions(NAME)
    assert len(found) == WEEKS
    assert all(p.counts and p.is_backtest and p.hits is not None for p in found)
    rows = manager.accuracy()
    assert sum(row.draws for row in rows) == WEEKS
    assert sum(row.games for row in rows) == 2 * WEEKS
    assert len(rows) == WEEKS // RETRAINED
    for row in rows:
        assert 0.2 < row.hits_per_game < 1.6
        assert row.log_loss == pytest.approx(0.3927, abs=0.02)
        assert 0 <= row.p_value <= row.p_adjusted <= 1
    newest = manager.get(NAME)
    steps = [step for step, _, _ in points(base_dir, newest.run_id, "backtest.hits_per_game")]
    assert steps == [draw.draw_no for draw in last[-RETRAINED:]]
    assert manager.verify() == []
