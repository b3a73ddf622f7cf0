"""Which save is this file? One answer, from the records."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import joblib
import pytest

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import DigestMismatchError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.journal import Entry
from lotto_mlflow.layout import Layout
from lotto_mlflow.records import RESTORE


@pytest.fixture
def manager(tmp_path: Path) -> ModelManager:
    return ModelManager(tmp_path / "ml", mirror="off")


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return ModelFolder(Layout.under(tmp_path / "ml"))


def saved_number(folder: ModelFolder, path: Path) -> int | None:
    """Return which of a row of saves a file is of, by what its record says."""
    history = folder.history()
    save = history.save_of(history.file(path))
    return None if save is None else int(save.payload.description.metrics["n"][0][1])


def save_three(manager: ModelManager, name: str = "x") -> None:
    for number in range(3):
        manager.save_model({"n": number}, name, {"n": number})


def test_each_file_is_of_the_save_that_left_it(manager: ModelManager, folder: ModelFolder) -> None:
    save_three(manager)
    layout = folder.layout
    assert saved_number(folder, layout.model_path("x")) == 2
    assert saved_number(folder, layout.backup_path("x")) == 0
    assert saved_number(folder, layout.backup_path("x.2")) == 1


def test_a_restore_leaves_a_record_and_the_file_is_of_the_save_that_it_restored(
    manager: ModelManager, folder: ModelFolder
) -> None:
    save_three(manager)
    manager.restore("x", backup="x")
    assert saved_number(folder, folder.layout.model_path("x")) == 0
    restored = next(r for r in folder.history().records_of("x") if r.kind == RESTORE)
    first = next(reversed(list(folder.history().saves_of("x"))))
    assert restored.payload.save_id == first.id
    assert restored.payload.backup == "x.3"
    assert saved_number(folder, folder.layout.backup_path("x.3")) == 2
    assert {path.name.split("~")[1] for path in (folder.layout.mlflow_dir / "sent").iterdir()} == {
        "sent"
    }


def test_a_restored_file_from_before_the_package_is_not_taken_for_a_save_of_its_size(
    manager: ModelManager, folder: ModelFolder
) -> None:
    backup = folder.layout.backup_path("x")
    backup.parent.mkdir(parents=True)
    joblib.dump({"n": 9}, backup)
    os.utime(backup, (1_600_000_000, 1_600_000_000))
    manager.save_model({"n": 0}, "x", {"n": 0})
    assert backup.stat().st_size == folder.layout.model_path("x").stat().st_size
    manager.restore("x", backup="x")
    assert saved_number(folder, folder.layout.model_path("x")) is None
    assert manager.load_model(folder.layout.model_path("x")) == {"n": 9}


def test_a_copy_with_other_times_is_known_by_what_its_metadata_declares(
    manager: ModelManager, folder: ModelFolder
) -> None:
    save_three(manager)
    layout = folder.layout
    for path in (layout.model_path("x"), layout.backup_path("x")):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    assert saved_number(folder, layout.model_path("x")) == 2
    metadata = json.loads(layout.metadata_path("x").read_text(encoding="utf-8"))
    metadata["sha256"] = json.loads(layout.backup_metadata_path("x").read_bytes())["sha256"]
    layout.metadata_path("x").write_text(json.dumps(metadata), encoding="utf-8")
    assert saved_number(folder, layout.model_path("x")) == 0


def test_a_number_at_the_end_of_a_backup_is_told_from_one_in_a_name(
    manager: ModelManager, folder: ModelFolder
) -> None:
    save_three(manager, "x")
    save_three(manager, "x.2")
    history = folder.history()
    of = {file.stem: history.name_of(file) for file in history.backup_files}
    assert of == {"x": "x", "x.2": "x", "x.2.2": "x.2", "x.2.3": "x.2"}


def test_an_operation_reads_each_record_once(
    manager: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("x", "y", "z"):
        save_three(manager, name)
    read: list[Path] = []
    really = Entry.read

    def counted(entry: Entry) -> object:
        read.append(entry.path)
        return really(entry)

    monkeypatch.setattr(Entry, "read", counted)
    manager.verify()
    assert sorted(read) == sorted(set(read))
    assert len(read) == 9
    read.clear()
    manager.records()
    assert len(read) == len(set(read)) == 9
    read.clear()
    manager.get("x")
    assert len(read) == 3


def test_a_listing_is_made_again_only_when_a_folder_changed(
    manager: ModelManager, folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.save_model({"n": 1}, "x", {"n": 1})
    outbox = folder.layout.mlflow_dir / "outbox"
    for path in (folder.layout.mlflow_dir / name for name in ("outbox", "sent", "aside")):
        os.utime(path, (1_700_000_000, 1_700_000_000))  # as if nothing had happened for long
    assert len(folder.journal.entries("x")) == 1
    (waiting,) = outbox.iterdir()
    listed: list[str] = []
    really = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(str(path)) or really(path))
    for _ in range(5):
        assert len(folder.journal.entries("x")) == 1
    assert listed == []
    shutil.copyfile(waiting, outbox / f"{time.time_ns():019d}-00000000~committed~x.json")
    assert len(folder.journal.entries("x")) == 2
    assert listed == [str(outbox)]
    assert len(folder.journal.entries("x")) == 2
    assert listed == [str(outbox)] * 2  # it changed just now, and may change within the same tick


def test_a_copy_without_times_or_metadata_is_of_the_newest_record(
    manager: ModelManager, folder: ModelFolder
) -> None:
    """Two models of one size, and the older one restored: the restore is the newest record."""
    for number in range(2):
        manager.save_model({"n": number}, "x")
    first = manager.restore("x")
    path = folder.layout.model_path("x")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert manager.load_model(path) == {"n": 0}
    assert manager.get("x").sha256 == first.sha256


def test_a_record_overrules_what_replaced_metadata_declares(
    manager: ModelManager, folder: ModelFolder
) -> None:
    save_three(manager)
    path = folder.layout.model_path("x")
    joblib.dump({"n": "another"}, path)
    content = json.loads(folder.layout.metadata_path("x").read_text(encoding="utf-8"))
    content["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    folder.layout.metadata_path("x").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DigestMismatchError, match="changed after it was saved"):
        manager.load_model(path)
    assert ("damaged", "x") in {(f.kind, f.name) for f in manager.verify()}


def test_metadata_declares_the_digest_of_a_file_without_a_record(
    manager: ModelManager, folder: ModelFolder
) -> None:
    path, metadata_path = folder.layout.model_path("old"), folder.layout.metadata_path("old")
    path.parent.mkdir(parents=True)
    metadata_path.parent.mkdir()
    joblib.dump({"n": 1}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    metadata_path.write_text(json.dumps({"sha256": digest}), encoding="utf-8")
    assert manager.load_model(path) == {"n": 1}
    metadata_path.write_text(json.dumps({"sha256": "0" * 64}), encoding="utf-8")
    with pytest.raises(DigestMismatchError):
        manager.load_model(path)
