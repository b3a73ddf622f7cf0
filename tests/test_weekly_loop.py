"""The weekly loop of a backend, over the last 100 draws of the history."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from predicting import points

from lotto_mlflow import ModelManager, accuracy, model_utils, predictions, record_result
from lotto_mlflow.demo import draws
from lotto_mlflow.draws import Draw, closes_at, parse_results

NAME = "lotto_model_frequency"
WEEKS = 100


def history() -> list[Draw]:
    """Return the draws of the file that ``LOTTO_DRAWS_CSV`` names, or simulated ones."""
    path = os.environ.get("LOTTO_DRAWS_CSV")
    if path is not None:
        return parse_results(Path(path).read_bytes(), Path(path), datetime.now(timezone.utc))
    games = draws.simulated(2 * WEEKS, 645).tolist()
    bonus = [next(number for number in range(1, 46) if number not in game) for game in games]
    rows = enumerate(zip(games, bonus, strict=True), start=1000)
    return [Draw(draw_no, tuple(game), extra) for draw_no, (game, extra) in rows]


def loop_of_the_readme() -> Callable[[list[tuple[int, ...]], int, datetime], None]:
    """Return the function with which the README goes through a week."""
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", readme, flags=re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if "def one_week(" in block)
    names: dict[str, Any] = {}
    exec(block.partition("\n\n\none_week(")[0], names)
    return names["one_week"]


@pytest.mark.timeout(600)
def test_the_readmes_weekly_loop_runs_over_the_last_hundred_draws(
    manager: ModelManager, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_utils, "MODEL_BASE_DIR", base_dir)
    monkeypatch.setenv("LOTTO_MIRROR", "background")
    one_week = loop_of_the_readme()
    past, last = history()[:-WEEKS], history()[-WEEKS:]
    games = [draw.numbers for draw in past]
    for draw in last:
        one_week(games, draw.draw_no, closes_at(draw.draw_no) - timedelta(hours=2))
        record_result(draw.draw_no, list(draw.numbers), draw.bonus)
        games.append(draw.numbers)
    assert manager.flush(timeout=300)
    found = predictions(NAME)
    assert len(found) == WEEKS
    assert all(p.counts and p.is_backtest and p.hits is not None for p in found)
    rows = accuracy()
    assert len(rows) == WEEKS  # each week has a save of its own
    assert sum(row.games for row in rows) == 2 * WEEKS
    hits = sum(row.hits_per_game * row.games for row in rows)
    assert 100 < hits < 230  # chance gives 160, and a standard deviation of 11
    for row in rows:
        assert row.log_loss == pytest.approx(0.3927, abs=0.05)
        assert 0 <= row.p_value <= row.p_adjusted <= 1
    newest = manager.get(NAME)
    steps = [step for step, _, _ in points(base_dir, newest.run_id, "backtest.hits_per_game")]
    assert steps == [last[-1].draw_no]
    assert manager.verify() == []
