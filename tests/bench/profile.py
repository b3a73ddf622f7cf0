"""Where the time of a small save goes: each call of MLflow's client, and what is left."""

from __future__ import annotations

from bench.measuring import Rooms
from bench.processes import Worker
from bench.rows import Side

SIDES = {
    "here": Side("ours:save", "forest_1mb"),
    "MLflow's best": Side("by_hand:dump_and_best", "forest_1mb"),
    "MLflow's best in a run": Side("by_hand:dump_and_best_in_run", "forest_1mb"),
}
_RUNS = 25


def measured(rooms: Rooms, runs: int = _RUNS) -> dict[str, dict[str, float]]:
    """Return, for each side, the median milliseconds of each call in one save, and of the rest."""
    found = {}
    rooms.work_dir.mkdir(parents=True, exist_ok=True)
    for name, side in SIDES.items():
        with Worker(rooms.subject(side)) as worker:
            worker.ask("time 3")
            found[name] = worker.ask(f"profile {runs}")["milliseconds"]
    return found
