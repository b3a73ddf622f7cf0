"""What the tests of predictions share: draws, games, moments, and what lies in a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from lotto_mlflow.draws import closes_at, newest_closed
from lotto_mlflow.operations import predict, recording

GAME = [3, 11, 19, 27, 35, 43]
OTHER_GAME = [1, 2, 3, 4, 5, 6]
DRAWN, BONUS = [3, 11, 19, 27, 40, 41], 35
"""Of `GAME`, four numbers and the bonus; of `OTHER_GAME`, one."""
SEOUL = timezone(timedelta(hours=9))
CHANCE = [6 / 45] * 45


def before(draw_no: int, **ago: float) -> datetime:
    """Return a moment before the sales of a draw close, an hour by default."""
    return closes_at(draw_no) - timedelta(**ago or {"hours": 1})


def next_draw() -> int:
    """Return the number of the draw that is held next."""
    return newest_closed(datetime.now(timezone.utc)) + 1


def travel(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Return what stops the clock that predictions and results are recorded by at a moment."""

    def to(moment: datetime) -> None:
        stopped = SimpleNamespace(time_ns=lambda: int(moment.timestamp()) * 10**9)
        for module in (predict, recording):
            monkeypatch.setattr(module, "time", stopped)

    return to


def files_in(base_dir: Path) -> dict[str, str]:
    """Return the digest of each file in a folder of models, but locks and the database."""
    return {
        str(path.relative_to(base_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(base_dir.rglob("*"))
        if path.is_file() and path.suffix not in (".lock", ".db") and path.name != "clock"
    }


def shown_in(base_dir: Path) -> list[str]:
    """Return the names of the files among the predictions, and of their backups."""
    folders = (base_dir / "metadata" / "predictions", base_dir / "backups" / "predictions")
    return [f"{f.parent.name}/{p.name}" for f in folders for p in sorted(f.glob("*"))]


def points(base_dir: Path, run_id: Any, key: str) -> list[tuple[int, float, int]]:
    """Return step, value and time of a metric in a run, by step."""
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    found = client.get_metric_history(str(run_id), key)
    return sorted((point.step, point.value, point.timestamp) for point in found)
