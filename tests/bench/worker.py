"""A process in which one operation is run as often as the harness says, and measured.

Started with a JSON order as its argument, it prepares the operation, and then answers each line on
its standard input with a line of JSON on its standard output.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from bench.operations import Operation, Setup

BEGIN, END = "lotto-benchmark-begins", "lotto-benchmark-ends"
"""Renaming these, which are not there, marks a stretch in what strace shows."""
REST = "all else: dump, digest, disk, model folder"
"""Of a profile, what is not spent in a call of MLflow's client."""


def operation(named: str, setup: Setup) -> Operation:
    """Return the operation ``module:function``."""
    module, _, function = named.partition(":")
    found: Operation = getattr(importlib.import_module(f"bench.{module}"), function)(setup)
    return found


def resident_bytes(key: str = "VmRSS") -> int | None:
    """Return the memory of this process, or with ``VmHWM`` the most it had; Linux only."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return None


def written_bytes() -> int | None:
    """Return the bytes that this process has given to write calls of any kind; Linux only."""
    with suppress(OSError):
        for line in Path("/proc/self/io").read_text(encoding="utf-8").splitlines():
            if line.startswith("wchar:"):
                return int(line.split()[1])
    return None


def timed(work: Operation, times: int = 1) -> dict[str, Any]:
    """Run an operation so many times; return the seconds that one took."""
    before, start = written_bytes(), time.perf_counter()
    for _ in range(times):
        returned = work.run()
    seconds = (time.perf_counter() - start) / times
    work.after()
    after = written_bytes()
    written = None if before is None or after is None else after - before
    shown = returned if isinstance(returned, dict) else None
    return {"seconds": seconds, "written_bytes": written, "returned": shown}


def marked(work: Operation) -> dict[str, Any]:
    """Run an operation between two marks for strace."""
    for mark in (BEGIN, END):
        with suppress(FileNotFoundError):
            Path(mark).rename(mark)
        if mark == BEGIN:
            work.run()
            work.after()
    return {}


def peak(work: Operation) -> dict[str, Any]:
    """Tell how far an operation drives the memory of this process up at its worst."""
    before = resident_bytes()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forgets the last peak
    work.run()
    highest = resident_bytes("VmHWM")
    work.after()
    known = before is not None and highest is not None
    return {"peak_bytes": highest - before if known else None}  # type: ignore[operator]


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


def serve(work: Operation, orders: TextIO, answers: TextIO) -> None:
    calls: dict[str, Callable[..., dict[str, Any]]]
    calls = {"time": timed, "mark": marked, "peak": peak, "profile": profiled}
    for order in orders:
        name, *numbers = order.split()
        print(json.dumps(calls[name](work, *map(int, numbers))), file=answers, flush=True)


def prepared(order: dict[str, Any], key: str) -> Operation:
    object_path = Path(order[key]) if order.get(key) else None
    return operation(order["operation"], Setup(Path(order["folder"]), object_path))


def main() -> None:
    order = json.loads(sys.argv[1])
    # whatever the libraries print goes to the log, and only answers to the harness
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if order.get("warm_object"):
        first = prepared(order, "warm_object")
        first.run()
        first.after()
    work = prepared(order, "object")
    if order.get("once"):
        work.run()
        return
    print("{}", file=answers, flush=True)
    serve(work, sys.stdin, answers)


if __name__ == "__main__":
    main()
