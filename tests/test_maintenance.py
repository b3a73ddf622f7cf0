"""Sync, verify, restore, relocate: differences are found, told, and mended."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shlex
import shutil
import sqlite3
import subprocess
import threading
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from lotto_mlflow import ModelManager, settings
from lotto_mlflow import push as pushing
from lotto_mlflow.errors import (
    DigestMismatchError,
    MirrorUnavailableError,
    ModelNotFoundError,
    RelocationError,
    SettingsError,
    SyncRunningError,
)
from lotto_mlflow.files import lock_at, locked
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.layout import Layout
from lotto_mlflow.mirror import connection


def _client(base_dir: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")


def _kinds(manager: ModelManager) -> list[str]:
    return sorted(finding.kind for finding in manager.verify())


def _digests(base_dir: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (base_dir / "trained").iterdir()
    }


@pytest.fixture
def old_folder(base_dir: Path, forest: Any) -> Path:
    """Twelve models from before this package, half of them with metadata."""
    for folder in ("trained", "metadata", "backups"):
        (base_dir / folder).mkdir()
    for number in range(12):
        name = f"lotto_model_202401{number + 1:02d}"
        path = base_dir / "trained" / f"{name}.pkl"
        joblib.dump(forest if number == 0 else {"number": number}, path)
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
        if number % 2 == 0:
            metadata = {
                "saved_at": f"2024-01-{number + 1:02d}T00:00:00+09:00",
                "model_type": "RandomForestClassifier",
                "accuracy": number / 20,
                "requirements": ["scikit-learn==1.5.0", "numpy==1.26.0"],
            }
            (base_dir / "metadata" / f"{name}_metadata.json").write_text(json.dumps(metadata))
    joblib.dump({"replaced": True}, base_dir / "backups" / "lotto_model_20240101.pkl")
    os.utime(base_dir / "backups" / "lotto_model_20240101.pkl", (1_600_000_000, 1_600_000_000))
    return base_dir


def test_an_old_folder_comes_in_with_one_call_and_a_second_does_nothing(
    old_folder: Path, forest: Any, rows: Any
) -> None:
    before = _digests(old_folder)
    manager = ModelManager(old_folder)
    steps: list[tuple[int, int, int, str]] = []
    dry = manager.sync(dry_run=True)
    assert (len(dry.sent), dry.dry_run) == (12, True)
    assert _client(old_folder).search_registered_models() == []
    report = manager.sync(progress=lambda *step: steps.append(step))
    assert report.sent == dry.sent == report.backfilled
    assert report.failed == {}
    assert [step[:2] for step in steps] == [(number, 12) for number in range(13)]
    assert manager.sync().sent == []
    assert _digests(old_folder) == before
    client = _client(old_folder)
    versions = [client.get_model_version("lotto_model", str(v + 1)) for v in range(12)]
    times = [client.get_run(version.run_id).info.start_time for version in versions]
    assert times == sorted(times)
    by_name = {version.tags["model_name"]: version for version in versions}
    assert all(version.tags["backfilled"] == "true" for version in versions)
    first = by_name["lotto_model_20240101"]
    run = client.get_run(first.run_id)
    assert first.tags["saved_at"] == "2024-01-01T00:00:00+09:00"
    assert (run.info.start_time, run.data.metrics["accuracy"]) == (1_704_034_800_000, 0.0)
    second = by_name["lotto_model_20240102"]
    assert client.get_run(second.run_id).info.start_time == 1_700_000_001_000
    model = client.get_logged_model(first.tags["model_id"])
    assert (model.tags["backfilled"], model.tags["saved_at"]) == ("true", first.tags["saved_at"])
    loaded = mlflow.pyfunc.load_model(str(Path(model.artifact_location.removeprefix("file://"))))
    assert np.array_equal(
        loaded.predict(rows[0], params={"predict_method": "predict_proba"}),
        forest.predict_proba(rows[0]),
    )
    listed = Path(model.artifact_location.removeprefix("file://")) / "requirements.txt"
    assert {"scikit-learn==1.5.0", "numpy==1.26.0"} <= set(listed.read_text().split())


def test_backups_come_in_when_asked_for(old_folder: Path) -> None:
    manager = ModelManager(old_folder)
    assert len(manager.sync(include_backups=True).backfilled) == 13
    oldest = manager.get("models:/lotto_model/1")
    assert oldest.name == "lotto_model_20240101"
    assert manager.load_model("models:/lotto_model/1") == {"replaced": True}
    assert manager.sync(include_backups=True).sent == []


def test_nothing_is_unpickled_by_sync_or_verify(base_dir: Path, tmp_path: Path) -> None:
    (base_dir / "trained").mkdir()
    marker = tmp_path / "unpickled"
    joblib.dump(_Touch(str(marker)), base_dir / "trained" / "lotto_model_x.pkl")
    manager = ModelManager(base_dir)
    assert manager.sync().backfilled == ["lotto_model_x"]
    assert manager.verify() == []
    manager.restore(1, source="registry")
    assert not marker.exists()
    manager.load_model(base_dir / "trained" / "lotto_model_x.pkl")
    assert marker.exists()


class _Touch:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)


def test_what_is_saved_after_old_models_came_in_is_the_latest(old_folder: Path) -> None:
    manager = ModelManager(old_folder)
    path = manager.save_model({"new": True}, metadata={"a": 1})
    manager.sync()
    assert manager.get_latest_model_path(source="registry") == path
    assert _kinds(manager) == ["late on top"]


def test_another_store_is_filled_in_save_order_from_trained_and_backups(
    base_dir: Path, tmp_path: Path, migrated_database: Path
) -> None:
    first = ModelManager(base_dir)
    for number in range(3):
        first.save_model({"number": number}, "lotto_model_x", {"number": number})
        first.save_model({"other": number}, metadata={"number": number})
    shutil.copyfile(migrated_database, tmp_path / "other.db")
    other = ModelManager(base_dir, tracking_uri=f"sqlite:///{tmp_path / 'other.db'}")
    assert other.get_latest_model_path(source="registry") is None
    assert _kinds(other) == ["missing in MLflow"] * 6
    assert len(other.sync().sent) == 6
    assert other.verify() == []
    assert other.sync().sent == []
    for version in range(1, 7):
        assert other.get(version).sha256 == first.get(version).sha256
    assert [record.version for record in first.records()] == [6, 5, 4, 2]
    assert first.verify() == []


def test_a_save_meant_for_a_store_that_is_down_is_not_lost_to_another(
    base_dir: Path, tmp_path: Path, migrated_database: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'later.db'}"
    ModelManager(base_dir, tracking_uri=uri, mirror="off").save_model({"a": 1}, "x", {"a": 1})
    assert ModelManager(base_dir).sync().sent == ["x"]
    assert ModelManager(base_dir).sync().sent == []
    shutil.copyfile(migrated_database, tmp_path / "later.db")
    later = ModelManager(base_dir, tracking_uri=uri)
    assert later.flush(30)
    assert later.get("x").version == 1
    assert not list((base_dir / "mlflow" / "outbox").iterdir())


def test_a_version_deleted_on_purpose_comes_back_only_when_asked_for(
    manager: ModelManager, base_dir: Path
) -> None:
    manager.save_model({"a": 1}, "x", {"a": 1}, artifacts={"plots/note.txt": "kept"})
    client = _client(base_dir)
    client.delete_model_version("x", "1")
    assert manager.sync().sent == []
    assert _kinds(manager) == ["missing in MLflow"]
    assert manager.sync(resend=True).resent == ["x"]
    assert manager.load_model("models:/x/2") == {"a": 1}
    assert Path(client.download_artifacts(manager.get("x").run_id, "plots/note.txt")).read_text()
    assert manager.verify() == []
    client.delete_model_version("x", "2")
    run_id = manager.get("x").run_id
    client.delete_run(run_id)
    shutil.rmtree(base_dir / "mlflow" / "artifacts" / "lotto_model" / run_id)
    assert manager.sync(resend=True).resent == ["x"]


def test_verify_names_each_difference_and_the_call_that_mends_it(
    manager: ModelManager, base_dir: Path
) -> None:
    paths = {
        name: Path(manager.save_model({name: 1}, name, {"a": 1}))
        for name in ("whole", "damaged", "gone", "changed", "future")
    }
    assert manager.verify() == []
    paths["damaged"].write_bytes(b"not a model")
    paths["gone"].unlink()
    metadata_dir = base_dir / "metadata"
    (metadata_dir / "changed_metadata.json").write_text("{}")
    (metadata_dir / "orphan_metadata.json").write_text("{}")
    os.utime(paths["future"], (4_000_000_000, 4_000_000_000))
    (base_dir / "mlflow" / "artifacts" / "lotto_model" / "models" / "m-nobody").mkdir()
    record_path = next((base_dir / "mlflow" / "sent").glob("*~whole.json"))
    record_path.write_bytes(record_path.read_bytes().replace(b"whole", b"whale"))
    joblib.dump({"unknown": 1}, base_dir / "trained" / "unknown.pkl")
    before = {p: p.read_bytes() for p in base_dir.rglob("*") if p.is_file() and p.suffix != ".lock"}
    findings = manager.verify()
    after = {p: p.read_bytes() for p in base_dir.rglob("*") if p.is_file() and p.suffix != ".lock"}
    assert before == after
    assert {(finding.kind, finding.name) for finding in findings} >= {
        ("damaged", "damaged"),
        ("damaged", "whole"),
        ("missing on disk", "gone"),
        ("orphan metadata", "gone"),
        ("orphan metadata", "orphan"),
        ("changed", "changed"),
        ("clock in the future", "future"),
        ("orphan artifact", ""),
        ("missing in MLflow", "unknown"),
    }
    assert all(finding.detail and finding.repair for finding in findings)


def _artifact_dirs(base_dir: Path) -> dict[str, Path]:
    models_dir = base_dir / "mlflow" / "artifacts" / "lotto_model" / "models"
    versions = _client(base_dir).search_model_versions()
    return {v.tags["model_name"]: models_dir / v.tags["model_id"] / "artifacts" for v in versions}


def test_verify_tells_of_mirrored_files_that_are_changed_or_gone(
    manager: ModelManager, base_dir: Path
) -> None:
    for name in ("whole", "told wrong", "unreadable", "bytes gone", "folder gone"):
        manager.save_model({name: 1}, name, {"a": 1})
    found = _artifact_dirs(base_dir)
    told_wrong = found["told wrong"] / "MLmodel"
    digest = manager.get("told wrong").sha256
    told_wrong.write_text(told_wrong.read_text().replace(digest, "0" * 64))
    (found["unreadable"] / "MLmodel").write_bytes(b"\xff\xfe\x00")
    (found["bytes gone"] / "data" / "model.pkl").unlink()
    shutil.rmtree(found["folder gone"].parent)
    findings = manager.verify()
    assert sorted((finding.kind, finding.name) for finding in findings) == [
        ("damaged", "told wrong"),
        ("damaged", "unreadable"),
        ("missing in MLflow", "bytes gone"),
        ("missing in MLflow", "folder gone"),
    ]
    for finding in findings:
        _client(base_dir).delete_model_version(finding.name, "1")
    assert len(manager.sync(resend=True).resent) == 4
    assert [finding.kind for finding in manager.verify()] == []


def test_verify_tells_of_the_folder_of_a_run_whose_push_failed(
    manager: ModelManager, base_dir: Path
) -> None:
    """A run that a person deleted keeps its folder: it can be brought back."""
    manager.save_model({"a": 1}, "kept", {"a": 1}, artifacts={"note.txt": "kept"})
    client = _client(base_dir)
    kept = manager.get("kept").run_id
    client.delete_run(kept)
    experiment_id = client.get_experiment_by_name("lotto_model").experiment_id
    rest = client.create_run(experiment_id, tags={"save_id": "of a push that broke"}).info
    client.log_text(rest.run_id, "rest", "note.txt")
    client.set_terminated(rest.run_id, "FAILED")
    client.delete_run(rest.run_id)
    deleted, finding = manager.verify()
    assert (deleted.kind, deleted.name) == ("missing in MLflow", "kept")
    assert deleted.detail == f"the run {kept} was deleted"
    folder = _folder_of_run(base_dir, rest)
    assert (finding.kind, finding.path) == ("orphan artifact", folder)
    aside = base_dir / "mlflow" / "aside" / folder.name
    assert shlex.split(finding.repair) == ["mv", str(folder), str(aside)]
    subprocess.run(shlex.split(finding.repair), check=True)
    assert manager.sync(resend=True).resent == ["kept"]
    assert manager.verify() == []
    assert client.get_run(str(kept)).info.lifecycle_stage == "active"
    assert (_folder_of_run(base_dir, client.get_run(str(kept)).info) / "artifacts").is_dir()


def _folder_of_run(base_dir: Path, info: Any) -> Path:
    return base_dir / "mlflow" / "artifacts" / "lotto_model" / str(info.run_id)


def test_restore_brings_the_newest_backup_or_the_named_one(
    manager: ModelManager, base_dir: Path
) -> None:
    for number in range(3):
        path = Path(manager.save_model({"n": number}, "x", {"n": number} if number else None))
    times = {n: p.stat().st_mtime_ns for n, p in enumerate(sorted(base_dir.glob("backups/*.pkl")))}
    record = manager.restore("x")
    assert (manager.load_model(path), record.metadata["n"]) == ({"n": 1}, 1)  # type: ignore[index]
    assert path.stat().st_mtime_ns == times[0]  # x.2.pkl sorts before x.pkl
    assert record.version == 2
    record = manager.restore("x", backup="x.pkl")
    assert (manager.load_model(path), record.metadata) == ({"n": 0}, None)
    assert record.version == 1
    found = [joblib.load(p) for p in base_dir.glob("backups/*.pkl")]
    assert all({"n": n} in found for n in range(3))
    assert manager.verify() == []


def test_everything_comes_back_from_the_registry(manager: ModelManager, base_dir: Path) -> None:
    for number in range(4):
        manager.save_model({"n": number}, metadata={"n": number, "설명": "모델"})
    manager.save_model({"other": 1}, "other")
    before, latest = _digests(base_dir), manager.get_latest_model_path()
    json_before = {p.name: p.read_bytes() for p in (base_dir / "metadata").iterdir()}
    shutil.rmtree(base_dir / "trained")
    shutil.rmtree(base_dir / "metadata")
    for version in (3, 1, 4, 2):
        manager.restore(version, source="registry")
    manager.restore("other", source="registry")
    assert _digests(base_dir) == before
    assert {p.name: p.read_bytes() for p in (base_dir / "metadata").iterdir()} == json_before
    assert manager.get_latest_model_path() == latest
    assert manager.verify() == []


def test_a_restore_that_cannot_be_done_changes_nothing(
    manager: ModelManager, base_dir: Path
) -> None:
    for number in range(2):
        manager.save_model({"n": number}, "x", {"n": number})
    backup = base_dir / "backups" / "x.pkl"
    backup.write_bytes(backup.read_bytes()[:-1])
    (artifact,) = {
        p
        for p in (base_dir / "mlflow" / "artifacts").rglob("data/*.pkl")
        if joblib.load(p) == {"n": 1}
    }
    artifact.write_bytes(b"damaged")
    before = {p: p.read_bytes() for p in base_dir.rglob("*") if p.is_file() and p.suffix != ".lock"}
    with pytest.raises(DigestMismatchError, match=r"x\.pkl is damaged"):
        manager.restore("x")
    with pytest.raises(DigestMismatchError):
        manager.restore("models:/x/2", source="registry")
    for name, arguments in (
        ("none", {}),
        ("x", {"backup": "x.7"}),
        ("none", {"source": "registry"}),
        (7, {"source": "registry"}),
    ):
        with pytest.raises(ModelNotFoundError):
            manager.restore(name, **arguments)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="backups, registry"):
        manager.restore("x", source="tape")  # type: ignore[arg-type]
    after = {p: p.read_bytes() for p in base_dir.rglob("*") if p.is_file() and p.suffix != ".lock"}
    assert before == after


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_folder_that_was_moved_or_copied_works_again_after_relocate(
    manager: ModelManager, base_dir: Path, tmp_path: Path, how: str
) -> None:
    manager.save_model({"a": 1}, "x", {"accuracy": 0.5})
    new_dir = tmp_path / "새 폴더"
    if how == "moved":
        base_dir.rename(new_dir)
    else:
        shutil.copytree(base_dir, new_dir)
        shutil.rmtree(base_dir / "mlflow" / "artifacts")
    moved = ModelManager(new_dir)
    assert _kinds(moved) == ["moved store"]
    (new_dir / "trained" / "x.pkl").unlink()
    with pytest.raises(ModelNotFoundError, match=r"relocate\(\)"):
        moved.load_model("models:/x/1")
    assert moved.relocate() > 0
    assert moved.relocate() == 0
    assert (new_dir / "mlflow" / "mlflow.db.before-relocate.bak").exists()
    assert moved.load_model("models:/x/1") == {"a": 1}
    moved.restore("x", source="registry")
    assert moved.verify() == []
    run_id = moved.get("x").run_id
    (artifact,) = _client(new_dir).list_artifacts(str(run_id))
    assert artifact.path == "x_metadata.json"
    moved.save_model({"a": 2}, "x", {"accuracy": 0.6})
    assert moved.get("x").version == 2


def test_paths_can_be_made_relative_to_a_folder_from_which_mlflow_then_opens_them(
    manager: ModelManager, base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.save_model({"a": 1}, "x", {"a": 1})
    assert manager.relocate(relative_to=tmp_path) > 0
    monkeypatch.chdir(tmp_path)
    client = MlflowClient(tracking_uri="sqlite:///ml/mlflow/mlflow.db")
    version = client.get_model_version("x", "1")
    assert version.source.startswith("ml/mlflow/artifacts/lotto_model/")
    assert [item.path for item in client.list_artifacts(version.run_id)] == ["x_metadata.json"]
    folder = Path(version.source)
    assert (folder / "data" / "model.pkl").is_file()
    assert manager.relocate() > 0
    assert client.get_model_version("x", "1").source.startswith("file:///")


def test_relocate_without_a_store_is_refused(tmp_path: Path) -> None:
    manager = ModelManager(tmp_path / "ml", mirror="off")
    with pytest.raises(RelocationError, match="no embedded store"):
        manager.relocate()
    manager.save_model({"a": 1}, "x")
    (tmp_path / "ml" / "mlflow" / "mlflow.db").write_bytes(b"not a database, but long enough" * 9)
    with pytest.raises(RelocationError, match="could not be rewritten"):
        manager.relocate()


def _hold_sync(base_dir: str, is_held: Any, done: Any) -> None:
    with locked(lock_at(Path(base_dir) / "mlflow" / "sync.lock")):
        is_held.set()
        done.wait(30)


def test_a_sync_while_another_runs_is_refused(manager: ModelManager, base_dir: Path) -> None:
    processes = multiprocessing.get_context("spawn")
    is_held, done = processes.Event(), processes.Event()
    other = processes.Process(target=_hold_sync, args=(str(base_dir), is_held, done))
    other.start()
    try:
        assert is_held.wait(30)
        with pytest.raises(SyncRunningError, match="another sync"):
            manager.sync()
    finally:
        done.set()
        other.join(30)
    assert manager.sync().sent == []


def test_saves_go_on_during_a_sync(old_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "WAIT_SECONDS", 1.0)  # the sync is what MLflow is busy with
    manager = ModelManager(old_folder)
    saved: list[str] = []

    def save(done: int, total: int, size: int, name: str) -> None:
        if done == 3:
            thread = threading.Thread(target=lambda: saved.append(manager.save_model({"new": 1})))
            thread.start()
            thread.join(30)
            assert saved

    assert len(manager.sync(progress=save).sent) == 12
    assert manager.flush(30)
    assert manager.get(saved[0]).version == 13
    assert manager.get_latest_model_path(source="registry") == saved[0]


def test_a_long_listing_is_no_outage_as_long_as_each_page_is_answered(
    manager: ModelManager, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        manager.save_model({"n": number}, f"x{number}", {"n": number})
    really = MlflowClient.search_model_versions

    def slowly(client: MlflowClient, *arguments: Any, **options: Any) -> Any:
        time.sleep(1)  # all of them take longer than one answer may
        return really(client, *arguments, **options | {"max_results": 1})

    monkeypatch.setattr(MlflowClient, "search_model_versions", slowly)
    assert manager.verify() == []


def test_a_page_of_a_survey_has_more_time_than_a_lookup(
    manager: ModelManager, base_dir: Path, forest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.save_model(forest, "lotto_model_a")
    folder = ModelFolder(Layout.under(base_dir), partial(settings.read, environment={}))
    mirror = folder.mirror(folder.target())
    (saved,) = folder.history().saves_of("lotto_model_a")
    monkeypatch.setattr(connection, "LOOKUP_SECONDS", 0.1)
    database = base_dir / "mlflow" / "mlflow.db"
    with closing(sqlite3.connect(database, isolation_level=None, check_same_thread=False)) as held:
        held.execute("BEGIN EXCLUSIVE")
        with pytest.raises(MirrorUnavailableError, match="no answer"):
            mirror.latest()
        released = threading.Timer(1, held.rollback)
        released.start()
        standing = mirror.survey().standing(saved, None)
        released.join()
    assert standing.ids is not None
    assert not standing.missing
