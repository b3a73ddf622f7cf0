"""Measuring a row: both sides in processes of their own, in turn, round by round."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import folders, objects
from bench.figures import Spread, Target, as_json, ratios, verdict
from bench.processes import Subject, Worker, whole_process
from bench.rows import Row, Side

OLD_FILE_BYTES = 100_000
MEGABYTE = 10**6
SYNC_MEMORY = Target(16, unit="MB more")
"""How much a sync may grow between its 200th file and its last."""
_SETTLED = 2
_KEPT = ("versions", "mirrored")


@dataclass(frozen=True)
class Rooms:
    """Where the harness keeps things: fitted objects and large folders for good, the rest not."""

    cache_dir: Path
    work_dir: Path

    def object_path(self, name: str) -> Path:
        return objects.path_of(name, self.cache_dir / "objects")

    def subject(self, side: Side) -> Subject:
        path = self.object_path(side.object) if side.object else None
        return Subject(side.operation, self.folder(side.folder), path)

    def folder(self, kind: str) -> Path:
        """Return a folder of a kind; one that no operation changes is made once, and kept."""
        name, _, number = kind.partition("_")
        count = int(number or 0)
        is_kept = name in _KEPT
        folder = (self.cache_dir if is_kept else self.work_dir) / kind
        whole = folder / "whole"
        if is_kept and whole.exists():
            return folder
        if folder.exists():
            shutil.rmtree(folder)
        if name == "versions":
            tiny, newest = self.object_path("tiny"), self.object_path("forest_1mb")
            _in_own_process(folders.with_versions, folder, count, tiny, newest)
            whole.touch()
        elif name == "mirrored":
            _in_own_process(folders.mirrored, folder, count, self.object_path("forest_1mb"))
            whole.touch()
        elif name == "copied":
            _in_own_process(folders.copied, self.folder(f"versions_{count}"), folder)
        elif name == "files":
            folders.with_files(folder, count, OLD_FILE_BYTES)
        else:
            folder = self.work_dir / f"new_{len(os.listdir(self.work_dir))}"
            folder.mkdir()
        return folder


def _in_own_process(make: Callable[..., Path], *arguments: Any) -> None:
    """Make a folder in a process that then ends: MLflow keeps the databases it opened open."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(make, *arguments).result()


def measure(row: Row, rooms: Rooms) -> list[dict[str, Any]]:
    """Measure a row; return it, and what else came out on the way, as they stand in the JSON."""
    shutil.rmtree(rooms.work_dir, ignore_errors=True)
    rooms.work_dir.mkdir(parents=True)
    try:
        measures: dict[str, Callable[[Row, Rooms], list[dict[str, Any]]]] = {
            "warm": _of_warm_processes,
            "fresh": _of_fresh_processes,
            "import": _of_imports,
            "memory": _of_memory,
            "bytes": _of_bytes,
            "sync": _of_sync,
            "p99": _of_percentiles,
        }
        return measures[row.measure](row, rooms)
    finally:
        shutil.rmtree(rooms.work_dir, ignore_errors=True)


def in_turn(
    runs: list[Callable[[], float]], rounds: int, work_dir: Path | None = None
) -> list[list[float]]:
    """Run each in every round, each time another first; disk and memory are quiet before each.

    Notes
    -----
    Where a folder is given, the memory in which the system caches the files that a run left there
    is given back: a run that had to be lent new memory by the machine's host would wait for that,
    two or three times as long as for its own work.
    """
    results: list[list[float]] = [[] for _ in runs]
    left = _large_files(work_dir)
    for number in range(rounds):
        for place in range(len(runs)):
            index = (number + place) % len(runs)
            os.sync()  # what one has left to write is not what the next one waits for
            results[index].append(runs[index]())
            found = _large_files(work_dir)
            _give_back(found - left)
            left = found
    return results


def _large_files(folder: Path | None) -> set[Path]:
    if folder is None or not hasattr(os, "posix_fadvise"):
        return set()
    found = set()
    for top, _, names in os.walk(folder):
        for path in (Path(top, name) for name in names):
            with suppress(FileNotFoundError):
                if path.stat().st_size > MEGABYTE and path.suffix != ".db":
                    found.add(path)
    return found


def _give_back(paths: set[Path]) -> None:
    os.sync()
    for path in paths:
        with suppress(FileNotFoundError), path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _of_warm_processes(row: Row, rooms: Rooms) -> list[dict[str, Any]]:
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(rooms.subject(side))) for side in _sides(row)]
        runs = [_asking(worker, row) for worker in workers]
        in_turn(runs, 1)  # imports, databases, caches
        seconds = in_turn(runs, row.rounds, rooms.work_dir)
        if row.base is None:
            alone = Spread.of([value * 1000 for value in seconds[0]])
            return [_told(row, alone, alone, None, "ms", judged_by=[alone])]
        return [_compared(row, *seconds, scale=1000, unit="ms")]


def _asking(worker: Worker, row: Row) -> Callable[[], float]:
    """Return a call that has an operation run, and returns the seconds of a run or of a model."""

    def run() -> float:
        answer = worker.ask(f"time {row.times}")
        models = answer["returned"]["models"] if row.per_model else 1
        return float(answer["seconds"]) / float(models)

    return run


def _of_percentiles(row: Row, rooms: Rooms) -> list[dict[str, Any]]:
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(rooms.subject(side))) for side in _sides(row)]

        def asking(worker: Worker) -> Callable[[], float]:
            return lambda: float(worker.ask("time")["returned"]["p99_seconds"])

        runs = [asking(worker) for worker in workers]
        in_turn(runs, 1)
        return [_compared(row, *in_turn(runs, row.rounds), scale=1000, unit="ms")]


def _of_fresh_processes(row: Row, rooms: Rooms) -> list[dict[str, Any]]:
    subjects = [rooms.subject(side) for side in _sides(row)]
    return [_of_commands(row, [(s.command(once=1), s) for s in subjects])]


def _of_imports(row: Row, rooms: Rooms) -> list[dict[str, Any]]:
    subjects = [Subject(side.operation, rooms.work_dir) for side in _sides(row)]
    return [_of_commands(row, [([s.python, "-c", f"import {s.operation}"], s) for s in subjects])]


def _of_commands(row: Row, commands: list[tuple[list[str], Subject]]) -> dict[str, Any]:
    runs = [_running(command, subject) for command, subject in commands]
    in_turn(runs, 1)
    return _compared(row, *in_turn(runs, row.rounds), scale=1000, unit="ms")


def _running(command: list[str], subject: Subject) -> Callable[[], float]:
    return lambda: whole_process(command, subject)


def _of_memory(row: Row, rooms: Rooms) -> list[dict[str, Any]]:
    def of(side: Side) -> float:
        with Worker(rooms.subject(side), warm_object=rooms.object_path("tiny")) as worker:
            found = worker.ask("peak")["peak_bytes"]
        return float("nan") if found is None else found / MEGABYTE

    ours, base = in_turn([lambda: of(row.ours), lambda: of(_sides(row)[1])], row.rounds)
    more = Spread.of([a - b for a, b in zip(ours, base, strict=True)])
    return [_told(row, more, Spread.of(ours), Spread.of(base), "MB")]


def _of_bytes(row: Row, rooms: Rooms) -> list[dict[str, Any]]:
    subject = rooms.subject(row.ours)
    with Worker(subject) as worker:
        worker.ask("time")
        written = [worker.ask("time")["written_bytes"] for _ in range(row.rounds)]
    assert subject.object_path is not None
    size = subject.object_path.stat().st_size
    found = [float("nan") if n is None else n / MEGABYTE for n in written]
    result = Spread.of([n * MEGABYTE / size for n in found])
    return [_told(row, result, Spread.of(found), Spread.of([size / MEGABYTE]), "MB")]


def _of_sync(row: Row, rooms: Rooms) -> list[dict[str, Any]]:
    with Worker(rooms.subject(row.ours)) as worker:
        answer = worker.ask("time")
    returned = answer["returned"]
    rate = Spread.of([returned["files"] / answer["seconds"]])
    memory = [n / MEGABYTE for n in returned["memory"] if n is not None] or [float("nan")]
    settled = memory[min(_SETTLED, len(memory) - 1) :]
    grown = Row(
        row.id, "memory during it, from its 200th file on", "nothing", SYNC_MEMORY, row.ours
    )
    return [
        _told(row, rate, Spread.of([answer["seconds"]]), None, "s"),
        _told(grown, Spread.of([max(settled) - settled[0]]), Spread.of(memory), None, "MB"),
    ]


def _sides(row: Row) -> list[Side]:
    return [side for side in (row.ours, row.base) if side is not None]


def _compared(
    row: Row, ours: list[float], base: list[float], *, scale: float, unit: str
) -> dict[str, Any]:
    sides = [Spread.of([value * scale for value in side]) for side in (ours, base)]
    result = ratios(ours, base)
    if row.target.unit == f"{unit} more":
        result = Spread.of([(a - b) * scale for a, b in zip(ours, base, strict=True)])
    return _told(row, result, *sides, unit, judged_by=sides)


def _told(
    row: Row,
    result: Spread,
    ours: Spread,
    base: Spread | None,
    unit: str,
    *,
    judged_by: list[Spread] | None = None,
) -> dict[str, Any]:
    return {
        "id": row.id,
        "work": row.work,
        "against": row.against,
        "target": {
            "limit": row.target.limit,
            "at_most": row.target.at_most,
            "unit": row.target.unit,
        },
        "unit": unit,
        "ours": as_json(ours),
        "base": None if base is None else as_json(base),
        "result": as_json(result),
        "verdict": verdict(row.target, result, *(judged_by or ())),
    }
