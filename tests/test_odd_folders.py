"""Folders that were copied, or hold what nobody expects, and stores that were lost."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import MirrorUnavailableError


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def test_a_save_in_a_copied_folder_leaves_the_original_alone(
    base_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ModelManager(base_dir).save_model({"a": 1}, "x", {"n": 1})
    before = content(base_dir)
    copy = base_dir.with_name("copy 50% 한글")
    shutil.copytree(base_dir, copy)
    manager = ModelManager(copy)
    path = manager.save_model({"a": 2}, "x", {"n": 2})
    assert "call ModelManager.relocate()" in caplog.text
    with pytest.raises(MirrorUnavailableError, match="relocate"):
        manager.sync()
    assert content(base_dir) == before
    assert manager.relocate() > 0
    assert manager.sync().sent == ["x"]
    assert manager.verify() == []
    Path(path).unlink()
    assert manager.load_model("models:/x/2") == {"a": 2}
    assert content(base_dir) == before


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_folder_reached_by_a_link_is_no_moved_one(base_dir: Path, tmp_path: Path) -> None:
    ModelManager(base_dir).save_model({"a": 1}, "x", {"n": 1})
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    through_link = ModelManager(tmp_path / "link" / base_dir.name)
    through_link.save_model({"a": 2}, "x", {"n": 2})
    assert through_link.get("x").version == 2
    assert "moved store" not in {finding.kind for finding in through_link.verify()}


def test_paths_relative_to_another_folder_are_told_of(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manager = ModelManager(base_dir)
    manager.save_model({"a": 1}, "x", {"n": 1})
    monkeypatch.chdir(base_dir)
    manager.relocate(relative_to=base_dir)
    assert ModelManager(base_dir).verify() == []
    monkeypatch.chdir(tmp_path)
    (finding,) = ModelManager(base_dir).verify()
    assert finding.kind == "moved store"
    assert "relative to another folder" in finding.detail
    assert finding.repair.startswith("work from that folder")


def test_extra_artifacts_go_to_another_store_too(
    base_dir: Path, migrated_database: Path, tmp_path: Path
) -> None:
    ModelManager(base_dir).save_model({"a": 1}, "x", {"n": 1}, artifacts={"plot.txt": "precious"})
    shutil.copyfile(migrated_database, tmp_path / "other.db")
    uri = f"sqlite:///{tmp_path / 'other.db'}"
    other = ModelManager(base_dir, tracking_uri=uri)
    assert other.sync().sent == ["x"]
    run_id = str(other.get("x").run_id)
    found = {item.path for item in MlflowClient(tracking_uri=uri).list_artifacts(run_id)}
    assert found == {"plot.txt", "x_metadata.json"}


def test_a_lost_database_is_filled_anew_with_all_that_was_in_it(
    base_dir: Path, migrated_database: Path
) -> None:
    ModelManager(base_dir).save_model({"a": 1}, "x", {"n": 1}, artifacts={"plot.txt": "precious"})
    database = base_dir / "mlflow" / "mlflow.db"
    database.rename(database.with_name("lost.db"))
    shutil.copyfile(migrated_database, database)
    manager = ModelManager(base_dir)
    assert manager.sync(resend=True).resent == ["x"]
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir}/mlflow/./mlflow.db")
    found = {item.path for item in client.list_artifacts(str(manager.get("x").run_id))}
    assert found == {"plot.txt", "x_metadata.json"}


def test_a_folder_and_a_dead_link_among_the_models_stop_nothing(base_dir: Path) -> None:
    manager = ModelManager(base_dir)
    path = manager.save_model({"a": 1}, "lotto_model_x", {"n": 1})
    (base_dir / "trained" / "lotto_model_folder.pkl").mkdir()
    (base_dir / "trained" / "lotto_model_nowhere.pkl").symlink_to("nowhere")
    found = {(f.kind, f.name, f.detail) for f in manager.verify()}
    assert found == {
        ("damaged", "lotto_model_folder", "it is a folder, not a file"),
        ("damaged", "lotto_model_nowhere", "it is a link, not a file"),
    }
    assert manager.sync().sent == []
    assert manager.get_latest_model_path() == path
    assert [record.name for record in manager.records()] == ["lotto_model_x"]


def test_a_version_that_is_late_is_told_of_in_every_registered_model(base_dir: Path) -> None:
    ModelManager(base_dir, mirror="off").save_model({"a": 1}, "custom", {"n": 1})
    waiting = next((base_dir / "mlflow" / "outbox").glob("*.json"))
    waiting.rename(base_dir / waiting.name)
    manager = ModelManager(base_dir)
    manager.save_model({"a": 2}, "custom", {"n": 2})
    (base_dir / waiting.name).rename(waiting)
    manager.sync()
    assert [(f.kind, f.name) for f in manager.verify()] == [("late on top", "custom")]


def test_managers_of_one_folder_share_one_push_thread(base_dir: Path) -> None:
    before = set(threading.enumerate())
    for number in range(8):
        ModelManager(base_dir, mirror="background").save_model({"n": number}, metadata={})
        started = set(threading.enumerate()) - before
        assert sum(thread.name == "lotto_mlflow-push" for thread in started) <= 1
    record = ModelManager(base_dir).latest(source="registry")
    assert record is not None
    assert record.version == 8  # what other managers queued was waited for
