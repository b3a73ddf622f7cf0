"""A model in use that answers the threads of a server, with swaps beside that or without any."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench.operations import METADATA, Operation, Setup
from bench.ours import base_dir

THREADS = 8
PREDICTIONS = 10_000
SWAPS = 50
_PAUSE_SECONDS = 0.001


def without_swaps(setup: Setup) -> Operation:
    return serving(setup, 0)


def with_swaps(setup: Setup) -> Operation:
    return serving(setup, SWAPS)


def serving(setup: Setup, swaps: int) -> Operation:
    """Return the answering of all predictions across so many swaps."""
    from lotto_mlflow import LiveModel, ModelManager

    manager = ModelManager(base_dir(setup.folder), mirror="off")
    names = ("lotto_model_a", "lotto_model_b")
    paths = [Path(manager.save_model(setup.model(), name, METADATA)) for name in names]
    live = LiveModel(manager=manager, every_seconds=3600)
    return Operation(lambda: _answered(live, paths, swaps))


def _answered(live: Any, paths: list[Path], swaps: int) -> dict[str, float]:
    """Have threads predict, and swap at even distances; return the 99th percentile of their waits.

    Raises
    ------
    RuntimeError
        If a model was not swapped in: it would have been other work that was measured.
    """
    waits: list[list[float]] = [[] for _ in range(THREADS)]
    threads = [threading.Thread(target=_ask, args=(live, own)) for own in waits]
    for thread in threads:
        thread.start()
    for number in range(1, swaps + 1):
        while sum(map(len, waits)) < number * PREDICTIONS // (swaps + 1):
            time.sleep(_PAUSE_SECONDS)
        newest = time.time_ns()
        os.utime(paths[number % 2], ns=(newest, newest))  # the older becomes the newest
        if not live.refresh():
            raise RuntimeError(f"nothing was swapped in: {live.problem}")
    for thread in threads:
        thread.join()
    return {"p99_seconds": float(np.percentile(np.concatenate(waits), 99))}


def _ask(live: Any, waits: list[float]) -> None:
    rows = np.zeros((1, live.n_features_in_))
    for _ in range(PREDICTIONS // THREADS):
        start = time.perf_counter()
        live.predict(rows)
        waits.append(time.perf_counter() - start)
