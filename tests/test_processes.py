"""Several processes and threads on one folder."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from lotto_mlflow import ModelManager

PROCESSES = 6


@pytest.fixture(scope="module")
def processes() -> BaseContext:
    """Processes that begin from nothing, as a cron job's do."""
    return multiprocessing.get_context("spawn")


def _save_some(arguments: tuple[str, int, int, str | None]) -> list[tuple[str, str]]:
    base_dir, seed, count, uri = arguments
    manager = ModelManager(base_dir, tracking_uri=uri)
    saved = []
    for number in range(count):
        name = "lotto_model_shared" if number % 2 else None
        path = manager.save_model({"seed": seed, "number": number}, name, {"number": number})
        saved.append((path, f"{seed} {number}"))
    return saved


def _counts(base_dir: Path, uri: str) -> tuple[int, int, int]:
    files = [*(base_dir / "trained").iterdir(), *(base_dir / "backups").glob("*.pkl")]
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("lotto_model")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    versions = client.search_model_versions("name = 'lotto_model'", max_results=1000)
    assert {run.info.status for run in runs} == {"FINISHED"}
    return len(files), len(runs), len(versions)


@pytest.mark.parametrize("store", ["embedded", "elsewhere"])
def test_six_first_users_at_once_save_everything_exactly_once(
    tmp_path: Path, processes: BaseContext, store: str
) -> None:
    base_dir = tmp_path / "ml"
    embedded = f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"
    uri = None if store == "embedded" else f"sqlite:///{tmp_path / 'new' / 'store.db'}"
    with processes.Pool(PROCESSES) as pool:
        work = [(str(base_dir), seed, 4, uri) for seed in range(PROCESSES)]
        saved = [item for part in pool.map(_save_some, work, chunksize=1) for item in part]
    manager = ModelManager(base_dir, tracking_uri=uri)
    assert manager.flush(60)
    assert _counts(base_dir, uri or embedded) == (24, 24, 24)
    contents = Counter(
        f"{model['seed']} {model['number']}"
        for folder in ("trained", "backups")
        for path in (base_dir / folder).glob("*.pkl")
        for model in [manager.load_model(path)]
    )
    assert contents == Counter(what for _, what in saved)
    for path, what in saved:
        if "shared" not in path:
            model = manager.load_model(path)
            assert f"{model['seed']} {model['number']}" == what


def test_versions_come_in_the_order_of_the_saves(tmp_path: Path, processes: BaseContext) -> None:
    base_dir = tmp_path / "ml"
    with processes.Pool(3) as pool:
        pool.map(_save_some, [(str(base_dir), seed, 4, None) for seed in range(3)], chunksize=1)
    manager = ModelManager(base_dir)
    assert manager.flush(60)
    records: list[Any] = [manager.get(version) for version in range(1, 13)]
    times = [record.saved_at_ns for record in records]
    assert times == sorted(times)


def test_threads_of_one_process_share_a_manager(base_dir: Path) -> None:
    manager = ModelManager(base_dir)

    def save(number: int) -> str:
        return manager.save_model({"number": number}, metadata={"number": number})

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(save, range(16)))
    assert manager.flush(60)
    assert [manager.load_model(path)["number"] for path in paths] == list(range(16))
    assert _counts(base_dir, f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}") == (16, 16, 16)


def test_fifty_mixed_saves_are_fifty_files_runs_and_versions(
    base_dir: Path, regression: Any
) -> None:
    manager = ModelManager(base_dir)
    for number in range(50):
        name = f"lotto_model_{number % 7}" if number % 3 else None
        metadata = {"number": number} if number % 4 else None
        manager.save_model(regression, name, metadata)
    assert manager.flush(60)
    assert _counts(base_dir, f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}") == (50, 50, 50)
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    on_disk = Counter(
        hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("trained", "backups")
        for path in (base_dir / folder).glob("*.pkl")
    )
    versions = client.search_model_versions("name = 'lotto_model'", max_results=1000)
    assert on_disk == Counter(version.tags["sha256"] for version in versions)
