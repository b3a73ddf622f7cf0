"""A server that saves in the background holds its event loop no longer than it must."""

from __future__ import annotations

from pathlib import Path

import pytest
from event_loop.measuring import HELD_SECONDS, Seen, measure, ratio

from lotto_mlflow import ModelManager

SECONDS = 3.0
TRIES = 3


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """The event loops of the app without saves."""
    folder = tmp_path_factory.mktemp("loop") / "base"
    return measure(folder, saves=False, warms_up=False, seconds=SECONDS)


@pytest.mark.timeout(900)
def test_saves_at_fifty_requests_a_second_hold_no_event_loop_after_warm_up(
    tmp_path: Path, base: Seen
) -> None:
    for number in range(TRIES):  # the clock of a process counts its work beside the loop, too
        folder = tmp_path / str(number)
        seen = measure(folder, saves=True, warms_up=True, seconds=SECONDS)
        print(f"without saves: {base}\nwith saves: {seen}; {ratio(seen, base):.1f} times as late")
        if seen.held[-1] < HELD_SECONDS:
            break
    assert seen.held[-1] < HELD_SECONDS, str(seen)
    manager = ModelManager(folder / "app" / "models" / "ml")
    manager.sync()
    saved = {Path(path).stem for path in seen.paths}
    records = {record.name: record.version for record in manager.records()}
    assert len(saved) == len(seen.paths)
    assert saved <= records.keys()
    assert sorted(records.values()) == list(range(1, len(records) + 1))
    assert any(manager.get(name).metadata["reason"] == "schedule" for name in records)


@pytest.mark.timeout(600)
def test_without_warm_up_the_same_measure_sees_the_loop_held(tmp_path: Path) -> None:
    seen = measure(tmp_path / "cold", saves=True, warms_up=False, seconds=SECONDS)
    assert seen.held[-1] > HELD_SECONDS, str(seen)
