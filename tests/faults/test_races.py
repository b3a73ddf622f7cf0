"""Many processes and threads on one folder, from its very first moment; readers never notice.

Processes come from a fork server that has imported MLflow and opened nothing, so that all of them
meet a folder without a database at the same instant.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import joblib
import pytest
from mlflow import MlflowClient

from lotto_mlflow import ModelManager
from lotto_mlflow.layout import Layout
from lotto_mlflow.settings import sqlite_uri

PROCESSES, SAVES = 8, 25
THREADS, SAVES_OF_THREAD = 8, 10
READERS = 2
PAUSE_SECONDS = 0.05
"""Between two rounds of a reader, so that readers do not take both cores from the savers."""
SHARED = "lotto_model_shared"
LIMIT_SECONDS = 280.0
"""How long the processes of one test may take, and what they left for MLflow afterwards."""

Names = Callable[[int], "str | None"]
Saved = tuple[str, int, int]
"""Returned path, who saved, and that one's how-manieth save it was."""


def generated(number: int) -> str | None:
    return None


def shared(number: int) -> str | None:
    return SHARED


def both(number: int) -> str | None:
    return SHARED if number % 2 else None


def _model(saver: int, number: int) -> dict[str, Any]:
    """Return an object that no other save has, large enough to be met half written."""
    return {"saver": saver, "number": number, "values": bytes([saver, number]) * 100_000}


def _is_whole(model: Any) -> bool:
    return bool(model == _model(model["saver"], model["number"]))


def _digest(saver: int, number: int) -> str:
    content = io.BytesIO()
    joblib.dump(_model(saver, number), content)
    return hashlib.sha256(content.getvalue()).hexdigest()


def _save(manager: ModelManager, saver: int, count: int, name_of: Names) -> list[Saved]:
    return [
        (manager.save_model(_model(saver, number), name_of(number), {"n": number}), saver, number)
        for number in range(count)
    ]


def _read(manager: ModelManager, base_dir: Path, is_over: Callable[[], bool]) -> list[str]:
    """Load the latest and the shared name again and again; return what went wrong."""
    shared_path = base_dir / "trained" / f"{SHARED}.pkl"
    problems, loads = [], 0
    while not is_over():
        try:
            latest = manager.get_latest_model_path()
            for path in (latest, str(shared_path) if shared_path.exists() else None):
                if path is not None:
                    loads += 1
                    if not _is_whole(manager.load_model(path)):
                        problems.append(f"{path}: half a file")
        except Exception as cause:  # noqa: BLE001 - whatever a reader meets is the finding
            problems.append(f"{type(cause).__name__}: {cause}")
        time.sleep(PAUSE_SECONDS)
    return problems if loads else ["nothing was ever read"]


def _saver_process(gate: Any, out: Any, base_dir: str, saver: int, name_of: Names) -> None:
    manager = ModelManager(base_dir)
    gate.wait(LIMIT_SECONDS)
    try:
        out.put((_save(manager, saver, SAVES, name_of), []))
    except Exception as cause:  # noqa: BLE001 - told to the test, which fails
        out.put(([], [f"saver {saver}: {type(cause).__name__}: {cause}"]))


def _reader_process(gate: Any, out: Any, base_dir: str, over: Any) -> None:
    manager = ModelManager(base_dir)
    gate.wait(LIMIT_SECONDS)
    out.put(([], _read(manager, Path(base_dir), over.is_set)))


@pytest.fixture
def processes() -> ForkServerContext:
    """Processes of a server that has imported what is slow to import, and has opened nothing."""
    context = multiprocessing.get_context("forkserver")
    # not this package: before Python 3.13 the server does not look for it where pytest does
    context.set_forkserver_preload(["mlflow.pyfunc", "joblib", "sklearn"])
    return context


def _race(context: ForkServerContext, base_dir: Path, name_of: Names) -> list[Saved]:
    """Let all of them go at once; return what was saved, after all have ended well."""
    gate, over, out = context.Barrier(PROCESSES + READERS), context.Event(), context.Queue()
    path = str(base_dir)
    savers = [
        context.Process(target=_saver_process, args=(gate, out, path, saver, name_of))
        for saver in range(PROCESSES)
    ]
    readers = [
        context.Process(target=_reader_process, args=(gate, out, path, over))
        for _ in range(READERS)
    ]
    try:
        for process in (*savers, *readers):
            process.start()
        told = [out.get(timeout=LIMIT_SECONDS) for _ in savers]
        over.set()
        told += [out.get(timeout=LIMIT_SECONDS) for _ in readers]
        for process in (*savers, *readers):
            process.join(LIMIT_SECONDS)
        assert {process.exitcode for process in (*savers, *readers)} == {0}
    finally:
        for process in (*savers, *readers):
            if process.pid is not None:
                process.kill()
                process.join()
    assert [problem for _, problems in told for problem in problems] == []
    return [item for saved, _ in told for item in saved]


def _lost(base_dir: Path, saved: Iterable[Saved]) -> int:
    """Count the saves whose bytes are not found exactly once in ``trained/`` and ``backups/``."""
    found = Counter(
        hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("trained", "backups")
        for path in (base_dir / folder).glob("*.pkl")
    )
    expected = {_digest(saver, number) for _, saver, number in saved}
    return sum(found.pop(digest, 0) != 1 for digest in expected) + sum(found.values())


def _check_mlflow(base_dir: Path, saved: list[Saved]) -> None:
    """Check that versions, finished runs and saves are one to one, in save order."""
    client = MlflowClient(tracking_uri=sqlite_uri(base_dir / "mlflow" / "mlflow.db"))
    experiment = client.get_experiment_by_name("lotto_model")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    versions = client.search_model_versions("name = 'lotto_model'", max_results=1000)
    assert [run.info.status for run in runs] == ["FINISHED"] * len(saved)
    assert len({run.data.tags["save_id"] for run in runs}) == len(saved)
    expected = Counter(_digest(saver, number) for _, saver, number in saved)
    assert Counter(version.tags["sha256"] for version in versions) == expected
    assert {version.run_id for version in versions} == {run.info.run_id for run in runs}
    in_order = sorted(versions, key=lambda version: int(version.version))
    on_time = [v.tags["save_id"] for v in in_order if "late" not in v.tags]
    assert on_time == sorted(on_time)


def _check(base_dir: Path, saved: list[Saved], count: int) -> int:
    """Check a folder in which a race is over; return how many saves are lost."""
    assert len(saved) == count
    manager = ModelManager(base_dir)
    assert manager.flush(LIMIT_SECONDS)
    assert manager.sync().sent == []  # and sweeps what pushes cut off by an exit have left
    layout = Layout.under(base_dir)
    assert list((layout.mlflow_dir / "outbox").iterdir()) == []
    assert list(layout.tmp_dir.iterdir()) == []
    lost = _lost(base_dir, saved)
    assert lost == 0
    own_paths = [(path, *who) for path, *who in saved if Path(path).stem != SHARED]
    assert len({path for path, *_ in own_paths}) == len(own_paths)
    for path, saver, number in own_paths:
        assert manager.load_model(path) == _model(saver, number)
    _check_mlflow(base_dir, saved)
    return lost


@pytest.mark.parametrize("name_of", [generated, shared, both], ids=lambda names: names.__name__)
def test_eight_first_users_lose_no_save_and_readers_meet_only_whole_models(
    tmp_path: Path, processes: ForkServerContext, figures: Callable[..., None], name_of: Names
) -> None:
    base_dir = tmp_path / "ml"
    saved = _race(processes, base_dir, name_of)
    lost = _check(base_dir, saved, PROCESSES * SAVES)
    figures(f"Saves raced by {PROCESSES} processes", tried=len(saved), lost=lost)


def test_threads_of_one_process_lose_no_save_and_readers_meet_only_whole_models(
    tmp_path: Path,
) -> None:
    base_dir = tmp_path / "ml"
    manager, over = ModelManager(base_dir), threading.Event()

    with ThreadPoolExecutor(THREADS + READERS) as pool:
        readers = [pool.submit(_read, manager, base_dir, over.is_set) for _ in range(READERS)]
        try:
            savers = [
                pool.submit(_save, manager, saver, SAVES_OF_THREAD, both)
                for saver in range(THREADS)
            ]
            saved = [item for saver in savers for item in saver.result(LIMIT_SECONDS)]
        finally:
            over.set()
        assert [problem for reader in readers for problem in reader.result()] == []
    _check(base_dir, saved, THREADS * SAVES_OF_THREAD)


PLAIN_PROCESSES, PLAIN_SAVES, PLAIN_SECONDS = 4, 5, 30.0


def _plain_process(gate: Any, out: Any, folder: str, saver: int) -> None:
    """Save as is done without this package: onto the shared path, and a run for each save."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/plain.db")
    gate.wait(LIMIT_SECONDS)
    for number in range(PLAIN_SAVES):
        joblib.dump(_model(saver, number), f"{folder}/shared.pkl")
        try:
            with mlflow.start_run():
                mlflow.log_param("save", f"{saver} {number}")
            out.put((saver, number))
        except Exception:  # noqa: BLE001 - a run that was not made is what is counted
            continue


def test_plain_code_is_raced_for_comparison(
    tmp_path: Path, processes: ForkServerContext, figures: Callable[..., None]
) -> None:
    gate, out = processes.Barrier(PLAIN_PROCESSES), processes.Queue()
    savers = [
        processes.Process(target=_plain_process, args=(gate, out, str(tmp_path), saver))
        for saver in range(PLAIN_PROCESSES)
    ]
    try:
        for process in savers:
            process.start()
        deadline = time.monotonic() + PLAIN_SECONDS
        for process in savers:  # MLflow goes on trying a store that its creation broke
            process.join(max(0.1, deadline - time.monotonic()))
    finally:
        for process in savers:
            if process.pid is not None:
                process.kill()
                process.join()
    has_run = set()
    while not out.empty():
        has_run.add(out.get(timeout=5))
    on_disk = hashlib.sha256((tmp_path / "shared.pkl").read_bytes()).hexdigest()
    kept = [save for save in has_run if _digest(*save) == on_disk]
    tried = PLAIN_PROCESSES * PLAIN_SAVES
    figures(
        f"Saves raced by {PROCESSES} processes",
        tried=0,
        lost=0,
        plain_tried=tried,
        plain_lost=tried - len(kept),
    )
