"""Where the time of a small save goes: each call of MLflow's client, and what is left."""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from typing import Any

from bench.measuring import Rooms
from bench.operations import Operation
from bench.processes import Worker
from bench.rows import Side

SIDES = {
    "here": Side("ours:save", "forest_1mb"),
    "MLflow's best": Side("by_hand:dump_and_best", "forest_1mb"),
    "MLflow's best in a run": Side("by_hand:dump_and_best_in_run", "forest_1mb"),
}
REST = "all else: dump, digest, disk, model folder"
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


def profiled(work: Operation, runs: int) -> dict[str, Any]:
    """Run an operation so many times, and time the outermost calls of MLflow's client."""
    import mlflow

    times: dict[str, list[float]] = defaultdict(list)
    inside = threading.local()

    def timed(name: str, method: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if getattr(inside, "is_one", False):
                return method(*arguments, **named)
            inside.is_one, start = True, time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                inside.is_one = False
                spent[name] += time.perf_counter() - start

        return call

    for name, method in list(vars(mlflow.MlflowClient).items()):
        if callable(method) and not name.startswith("__"):
            setattr(mlflow.MlflowClient, name, timed(name.lstrip("_"), method))
    for _ in range(runs):
        spent: dict[str, float] = defaultdict(float)
        start = time.perf_counter()
        work.run()
        spent[REST] = time.perf_counter() - start - sum(spent.values())
        for name, seconds in spent.items():
            times[name].append(seconds)
        work.after()
    usual = {name: values for name, values in times.items() if len(values) > runs // 2}
    return {"milliseconds": {n: statistics.median(v) * 1000 for n, v in usual.items()}}
