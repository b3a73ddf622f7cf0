"""The thread that sends: at exits and forks, after deletions, and where something breaks."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from lotto_mlflow import ModelManager, files
from lotto_mlflow import push as worker
from lotto_mlflow.mirror import Mirror
from lotto_mlflow.mirror import push as pushing

SAVE_AND_END = """
import sys
from lotto_mlflow import ModelManager, push
push.WAIT_SECONDS = 300.0
manager = ModelManager(sys.argv[1], mirror="background")
for number in range(3):
    manager.save_model({"number": number}, metadata={"number": number})
"""


def _client(base_dir: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")


def _runs(base_dir: Path) -> list[Any]:
    client = _client(base_dir)
    experiment = client.get_experiment_by_name("lotto_model")
    return list(client.search_runs([experiment.experiment_id]))


def test_a_script_that_ends_right_after_background_saves_has_told_mlflow(base_dir: Path) -> None:
    """The wait at the end is bounded; the script has a bound that a busy machine keeps, too."""
    done = subprocess.run(
        [sys.executable, "-c", SAVE_AND_END, str(base_dir)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in done.stderr
    assert len(list((base_dir / "mlflow" / "sent").iterdir())) == 3
    assert [run.info.status for run in _runs(base_dir)] == ["FINISHED"] * 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("mode", ["sync", "background"])
@pytest.mark.timeout(300)  # a fork waits for the push, and must hold nothing that the push needs
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of forks with threads
def test_a_fork_right_after_a_save_can_save_too(base_dir: Path, mode: str) -> None:
    manager = ModelManager(base_dir, mirror=mode)
    for number in range(3):
        manager.save_model({"parent": number}, metadata={"number": number})
        child = os.fork()
        if child == 0:
            manager.save_model({"child": number}, metadata={"number": number})
            os._exit(0 if manager.flush(120) else 1)
        manager.save_model({"again": number}, metadata={"number": number})
        assert os.waitpid(child, 0)[1] == 0
    assert manager.flush(120)
    runs = _runs(base_dir)
    assert [run.info.status for run in runs] == ["FINISHED"] * 9
    assert len(_client(base_dir).search_model_versions("name = 'lotto_model'")) == 9


def test_a_folder_deleted_while_the_process_lives_is_begun_anew(
    base_dir: Path, migrated_database: Path
) -> None:
    manager = ModelManager(base_dir)
    manager.save_model({"a": 1}, "x")
    shutil.rmtree(base_dir)
    (base_dir / "mlflow").mkdir(parents=True)
    shutil.copyfile(migrated_database, base_dir / "mlflow" / "mlflow.db")
    manager.save_model({"a": 2}, "x")
    assert manager.get("x").version == 1
    assert manager.load_model("models:/x/1") == {"a": 2}


@pytest.mark.parametrize("step", ["finalize_logged_model", "create_model_version", "log_batch"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_push_that_breaks_is_finished_later_and_gives_one_version(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch, step: str, moment: str
) -> None:
    """The failure is injected into one call of a real client on a real store."""
    really = getattr(MlflowClient, step)

    def broken(client: MlflowClient, *arguments: Any, **named: Any) -> Any:
        if moment == "after":
            really(client, *arguments, **named)
        raise OSError("the connection broke")

    manager = ModelManager(base_dir)
    monkeypatch.setattr(MlflowClient, step, broken)
    manager.save_model({"a": 1}, "x", {"accuracy": 0.5})
    assert not [run for run in _runs(base_dir) if run.info.status == "RUNNING"]
    monkeypatch.setattr(MlflowClient, step, really)
    assert manager.flush(120)
    (run,) = _runs(base_dir)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"accuracy": 0.5})
    (version,) = _client(base_dir).search_model_versions("name = 'x'")
    assert version.run_id == run.info.run_id == manager.get("x").run_id
    models = _client(base_dir).search_logged_models([run.info.experiment_id])
    assert [model.status for model in models] == ["READY"]


@pytest.mark.parametrize("cause", [OSError("it broke"), MlflowException("it is not allowed")])
def test_a_number_that_could_not_be_corrected_is_corrected_later_or_left(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch, cause: Exception
) -> None:
    really = MlflowClient.update_model_version

    def broken(*_: Any, **__: Any) -> None:
        raise cause

    manager = ModelManager(base_dir)
    manager.save_model({"a": 1}, "x", {})
    client = _client(base_dir)
    first = client.get_model_version("x", "1")
    client.create_model_version("x", first.source, first.run_id)  # by another machine
    monkeypatch.setattr(MlflowClient, "update_model_version", broken)
    manager.save_model({"a": 2}, "x", {})
    monkeypatch.setattr(MlflowClient, "update_model_version", really)
    assert manager.flush(120)
    record = manager.get("x")
    assert record.version == 3
    assert client.get_run(str(record.run_id)).info.status == "FINISHED"
    expected = 3 if isinstance(cause, OSError) else 2
    assert f"opens version {expected}" in client.get_model_version("x", "3").description
    assert len(client.search_model_versions("name = 'x'")) == 3
    assert client.get_model_version("x", "2").description in (None, "")


def test_a_run_that_could_not_be_ended_is_ended_later(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = MlflowClient.set_terminated

    def broken(client: MlflowClient, run_id: str, status: str, **named: Any) -> None:
        if status == "FINISHED":
            raise OSError("the connection broke")
        really(client, run_id, status, **named)

    manager = ModelManager(base_dir)
    monkeypatch.setattr(MlflowClient, "set_terminated", broken)
    manager.save_model({"a": 1}, "x")
    monkeypatch.setattr(MlflowClient, "set_terminated", really)
    assert manager.flush(120)
    (run,) = _runs(base_dir)
    assert (run.info.status, run.info.lifecycle_stage) == ("FINISHED", "active")
    assert manager.get("x").version == 1


def test_a_record_that_cannot_be_built_does_not_block_those_behind_it(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    really = pushing.model_folder.build

    def build(record: Any, *arguments: Any) -> None:
        if record.name == "bad":
            raise TypeError("this one cannot be built")
        really(record, *arguments)

    monkeypatch.setattr(pushing.model_folder, "build", build)
    manager = ModelManager(base_dir)
    manager.save_model({"a": 1}, "bad")
    assert "this one cannot be built" in caplog.text
    caplog.clear()
    manager.save_model({"a": 2}, "good", {"a": 1})
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert manager.get("good").version == 1
    assert manager.get("bad").version is None
    monkeypatch.setattr(pushing.model_folder, "build", really)
    assert manager.flush(120)
    assert manager.get("bad").version == 1


def test_an_experiment_deleted_in_mlflow_is_told_with_the_command_that_brings_it_back(
    base_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ModelManager(base_dir).save_model({"a": 1}, "x", {"a": 1})
    client = _client(base_dir)
    experiment = client.get_experiment_by_name("lotto_model")
    client.delete_experiment(experiment.experiment_id)
    manager = ModelManager(base_dir)
    manager.save_model({"a": 2}, "x", {"a": 1})
    assert f"mlflow experiments restore -x {experiment.experiment_id}" in caplog.text
    client.restore_experiment(experiment.experiment_id)
    assert manager.flush(120)
    assert manager.get("x").version == 2


def test_a_store_that_cannot_be_created_fails_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    manager = ModelManager(tmp_path / "ml", tracking_uri=f"sqlite:///{in_the_way}/store.db")
    manager.save_model({"a": 1}, "warm up the import")
    caplog.clear()
    begun = time.monotonic()
    manager.save_model({"a": 1}, "x", {"a": 1})
    assert time.monotonic() - begun < worker.WAIT_SECONDS / 2
    (warning,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert "mirrored to MLflow later" in warning.getMessage()


@pytest.mark.parametrize("name", ["내 모델 #1", "a%20b", "with space", "semi;colon&=+"])
def test_the_folder_may_have_any_name(tmp_path: Path, migrated_database: Path, name: str) -> None:
    base_dir = tmp_path / name
    (base_dir / "mlflow").mkdir(parents=True)
    shutil.copyfile(migrated_database, base_dir / "mlflow" / "mlflow.db")
    manager = ModelManager(base_dir)
    path = Path(manager.save_model({"a": 1}, metadata={"a": 1}))
    path.unlink()
    assert manager.load_model("models:/lotto_model/latest") == {"a": 1}


def test_whatever_ends_the_thread_another_one_is_started(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Libraries raise errors that are no `Exception`, and some end their thread."""
    monkeypatch.setattr(worker, "WAIT_SECONDS", 300.0)
    really, broken = MlflowClient.create_run, [SystemExit(1), KeyboardInterrupt(), GeneratorExit()]

    def create_run(client: MlflowClient, *arguments: Any, **named: Any) -> Any:
        if broken:
            raise broken.pop()
        return really(client, *arguments, **named)

    monkeypatch.setattr(MlflowClient, "create_run", create_run)
    manager = ModelManager(base_dir)
    for number in range(3):
        begun = time.monotonic()
        manager.save_model({"n": number}, "x", {"n": number})
        assert time.monotonic() - begun < 150  # it was told at once
    assert "GeneratorExit" in caplog.text
    assert manager.flush(60)
    assert manager.get("x").version == 3


def test_a_slow_log_handler_holds_up_no_save(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, done = threading.Event(), threading.Event()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if threading.current_thread().name == "lotto_mlflow-push":
                started.set()
                done.wait(300)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("MLflow is down")

    monkeypatch.setattr(MlflowClient, "create_run", refuse)
    manager, handler = ModelManager(base_dir, mirror="background"), Slow(logging.WARNING)
    logging.getLogger("lotto_mlflow").addHandler(handler)
    try:
        manager.save_model({"n": 1}, "x", {"n": 1})
        assert started.wait(120)
        saving = threading.Thread(target=manager.save_model, args=({"n": 2}, "x", {"n": 2}))
        saving.start()
        saving.join(120)
        assert not saving.is_alive()
    finally:
        done.set()
        logging.getLogger("lotto_mlflow").removeHandler(handler)


def test_flush_waits_no_longer_than_it_is_given(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, really = threading.Event(), Mirror.create

    def create(mirror: Mirror) -> None:
        done.wait(300)
        really(mirror)

    monkeypatch.setattr(Mirror, "create", create)
    manager = ModelManager(base_dir, mirror="background")
    manager.save_model({"n": 1}, "x", {"n": 1})
    begun = time.monotonic()
    assert not manager.flush(0.5)
    assert time.monotonic() - begun < 150
    done.set()
    assert manager.flush(60)


def test_nothing_that_a_record_names_is_advised_to_be_removed(
    base_dir: Path, migrated_database: Path
) -> None:
    """After a database was lost, its folders may hold the only bytes of a save."""
    manager = ModelManager(base_dir)
    path = manager.save_model({"n": 1}, "x", {"n": 1}, artifacts={"note.txt": "kept"})
    shutil.copyfile(migrated_database, base_dir / "mlflow" / "mlflow.db")
    Path(path).unlink()
    found = ModelManager(base_dir).verify()
    assert "missing on disk" in {finding.kind for finding in found}
    assert not [finding for finding in found if finding.repair.startswith("rm")]


def test_a_folder_can_be_copied_right_after_a_save_that_waited(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pushed the save has removed its temporary files, however busy the machine is."""
    really = files.remove_tree

    def slowly(folder: Path) -> None:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.3)
        really(folder)

    monkeypatch.setattr(files, "remove_tree", slowly)
    manager = ModelManager(base_dir)
    for number in range(3):
        manager.save_model({"n": number}, f"x{number}", {"n": number})
        assert not list((base_dir / "mlflow" / "tmp").iterdir())
