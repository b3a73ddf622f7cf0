"""Twenty trainers at once, each a process with a folder of its own, through one MLflow server."""

from __future__ import annotations

import multiprocessing
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import mlflow.exceptions
import numpy as np
import postgresql
import pytest
from mlflow import MlflowClient
from serving import MLFLOW, free_port, served, tracking_server

from lotto_mlflow import ModelManager
from lotto_mlflow.mirror import creating

TRAINERS, SAVES = 20, 3
LIMIT_SECONDS = 400.0


def _train(gate: Any, out: Any, base_dir: str, uri: str) -> None:
    try:
        manager = ModelManager(base_dir, tracking_uri=uri)
        name = Path(base_dir).name
        gate.wait(LIMIT_SECONDS)
        for number in range(SAVES):
            manager.save_model(
                {"by": name, "number": number},
                metadata={"by": name, "n": number},
                dataset=np.arange(20 + 2 * number).reshape(-1, 2),  # the same for all
            )
        out.put((name, manager.flush(LIMIT_SECONDS)))
    except Exception as cause:  # noqa: BLE001 - told to the test, which fails
        out.put((name, f"{type(cause).__name__}: {cause}"))


def _race(context: ForkServerContext, folder: Path, uri: str) -> dict[str, Any]:
    """Let all trainers go at once; return of each whether all that it saved is in MLflow."""
    gate, out = context.Barrier(TRAINERS), context.Queue()
    trainers = [
        context.Process(target=_train, args=(gate, out, str(folder / f"trainer-{n}"), uri))
        for n in range(TRAINERS)
    ]
    try:
        for trainer in trainers:
            trainer.start()
        return dict(out.get(timeout=LIMIT_SECONDS) for _ in trainers)
    finally:
        for trainer in trainers:
            if trainer.pid is not None:
                trainer.kill()
                trainer.join()


def _check(folder: Path, uri: str) -> None:
    context = multiprocessing.get_context("forkserver")
    # not this package: before Python 3.13 the server does not look for it where pytest does
    context.set_forkserver_preload(["mlflow.pyfunc", "joblib"])
    has_pushed_all = _race(context, folder, uri)
    assert has_pushed_all == {f"trainer-{n}": True for n in range(TRAINERS)}
    client = MlflowClient(tracking_uri=uri)
    versions = client.search_model_versions("name = 'lotto_model'", max_results=1000)
    assert sorted(int(version.version) for version in versions) == [*range(1, TRAINERS * SAVES + 1)]
    assert len({version.tags["save_id"] for version in versions}) == TRAINERS * SAVES
    assert len({version.run_id for version in versions}) == TRAINERS * SAVES
    assert set(Counter(version.tags["origin"] for version in versions).values()) == {SAVES}
    (experiment,) = client.search_experiments(filter_string="name = 'lotto_model'")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert [run.info.status for run in runs] == ["FINISHED"] * (TRAINERS * SAVES)
    used = Counter(one.dataset.digest for run in runs for one in run.inputs.dataset_inputs)
    assert list(used.values()) == [TRAINERS] * SAVES
    assert not list(folder.glob("trainer-*/mlflow/outbox/*.json"))
    assert not list(folder.glob("trainer-*/mlflow/aside/*.json"))
    reader = ModelManager(folder / "reader", tracking_uri=uri, mirror="off")
    newest = reader.latest(source="registry")
    assert newest is not None
    assert newest.version == TRAINERS * SAVES


def test_twenty_trainers_at_once_lose_nothing_through_a_server(
    tmp_path: Path, migrated_database: Path
) -> None:
    shutil.copyfile(migrated_database, tmp_path / "server.db")
    with tracking_server(tmp_path / "server.db", tmp_path / "artifacts") as uri:
        _check(tmp_path, uri)


@contextmanager
def _server_on(database_uri: str, folder: Path) -> Iterator[str]:
    port = free_port()
    command = [*MLFLOW, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"]
    command += ["--backend-store-uri", database_uri]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with served(command, f"http://127.0.0.1:{port}/health", folder / "server.log") as uri:
        yield uri


def test_twenty_trainers_at_once_lose_nothing_through_a_server_on_postgresql(
    tmp_path: Path,
) -> None:
    with postgresql.running() as server:
        database_uri = server.new_database("trainers")
        MlflowClient(tracking_uri=database_uri).search_experiments()  # two workers make no tables
        with _server_on(database_uri, tmp_path) as uri:
            _check(tmp_path, uri)


RACES = {
    "gives up": "Model Version creation error (name=lotto_model). Giving up after 3 attempts.",
    "raw": "(sqlite3.IntegrityError) UNIQUE constraint failed: model_versions.name",
    "of PostgreSQL": '(psycopg.errors.UniqueViolation) duplicate key value violates unique "a"',
    "deadlock": "(psycopg.errors.DeadlockDetected) deadlock detected",
}


@pytest.mark.parametrize("call", ["create_model_version", "log_inputs"])
@pytest.mark.parametrize("name", RACES)
def test_a_write_that_another_writer_was_faster_with_is_done_again_in_the_same_flush(
    name: str, call: str, manager: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = getattr(MlflowClient, call), []

    def refuse_twice(self: Any, *arguments: Any, **named: Any) -> Any:
        if len(refused) < 2:
            refused.append(name)
            raise mlflow.exceptions.MlflowException(RACES[name])
        return real(self, *arguments, **named)

    monkeypatch.setattr(MlflowClient, call, refuse_twice)
    manager.save_model({"n": 1}, "lotto_model_1", {"n": 1}, dataset=np.eye(2))
    assert manager.flush(60)
    assert len(refused) == 2
    assert manager.get("lotto_model_1").version == 1


def test_a_version_that_was_made_although_the_answer_was_a_refusal_is_not_made_twice(
    manager: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = MlflowClient.create_model_version, []

    def make_and_refuse(self: Any, *arguments: Any, **named: Any) -> Any:
        made = real(self, *arguments, **named)
        if not refused:
            refused.append(made)
            raise mlflow.exceptions.MlflowException(RACES["gives up"])
        return made

    monkeypatch.setattr(MlflowClient, "create_model_version", make_and_refuse)
    manager.save_model({"n": 1}, "lotto_model_1", {"n": 1})
    assert manager.flush(60)
    assert manager.get("lotto_model_1").version == 1
    assert len(refused) == 1
    with pytest.raises(FileNotFoundError):
        manager.get("models:/lotto_model/2")


def test_a_race_that_goes_on_for_ever_ends_and_the_save_waits_for_a_later_push(
    manager: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise mlflow.exceptions.MlflowException(RACES["gives up"])

    monkeypatch.setattr(creating, "PAUSES_SECONDS", (0.0, 0.0))
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", refuse)
        manager.save_model({"n": 1}, "lotto_model_1", {"n": 1})
        assert not manager.flush(60)
    assert manager.flush(60)
    assert manager.get("lotto_model_1").version == 1
