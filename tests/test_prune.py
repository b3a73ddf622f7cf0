"""Prune: what goes from both views, what stays, and what is known of it afterwards."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from aliased import Aliased
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from predicting import BONUS, CHANCE, DRAWN, GAME, before
from serving import MLFLOW, free_port, served, tracking_server
from typer.testing import CliRunner

from lotto_mlflow import LiveModel, ModelManager, PruneReport
from lotto_mlflow.cli import app
from lotto_mlflow.errors import (
    DigestMismatchError,
    InvalidReferenceError,
    LoadError,
    MirrorUnavailableError,
    ModelInUseError,
    ModelNotFoundError,
    SettingsError,
)
from lotto_mlflow.records import PRUNE, parse, render
from lotto_mlflow.text import shell_command

DAY_NS = 86_400 * 10**9


class Store(Aliased):
    """A folder, its store, and where that keeps files."""

    artifacts_dir: Path

    def files(self, *folders: str) -> set[str]:
        """Return the files in folders of the model folder."""
        found = (p for f in folders for p in (self.base_dir / f).rglob("*") if p.is_file())
        return {str(path.relative_to(self.base_dir)) for path in found}

    def versions(self) -> list[int]:
        found = self.client.search_model_versions(f"name = '{self.name}'")
        return sorted(int(version.version) for version in found)

    def stored(self, *ids: str) -> dict[Path, int]:
        """Return the files of runs and logged models in the artifact store, with their sizes."""
        found = (p for p in self.artifacts_dir.rglob("*") if p.is_file())
        return {p: p.stat().st_size for p in found if any(one in p.parts for one in ids)}


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, migrated_database: Path
) -> Iterator[tuple[str, Path]]:
    server_dir = tmp_path_factory.mktemp("server")
    shutil.copyfile(migrated_database, server_dir / "server.db")
    with tracking_server(server_dir / "server.db", server_dir / "artifacts") as uri:
        yield uri, server_dir / "artifacts"


@pytest.fixture(params=["embedded", "server"])
def store(request: pytest.FixtureRequest, base_dir: Path) -> Store:
    uri, artifacts_dir = None, base_dir / "mlflow" / "artifacts"
    if request.param == "server":
        uri, artifacts_dir = request.getfixturevalue("server")
    made = Store(base_dir, uri, f"모델 {uuid.uuid4().hex[:12]}")
    made.artifacts_dir = artifacts_dir
    return made


@pytest.fixture
def embedded(base_dir: Path) -> Store:
    made = Store(base_dir, None, "other")
    made.artifacts_dir = base_dir / "mlflow" / "artifacts"
    return made


def prune(manager: ModelManager, **limits: Any) -> PruneReport:
    return manager.prune(dry_run=False, **limits)


def numbers(report: PruneReport) -> list[int | None]:
    return [one.version for one in report.pruned]


def snapshot(
    base_dir: Path, records: tuple[str, ...] = ("mlflow/sent", "mlflow/outbox")
) -> dict[str, tuple[int, int]]:
    """Return every file of models and records, with its size and time."""
    folders = ("trained", "metadata", "backups", "mlflow/artifacts")
    found = (p for f in (*folders, *records) for p in (base_dir / f).rglob("*") if p.is_file())
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in found}


def tombstones(base_dir: Path) -> list[Any]:
    found = (parse(p.read_bytes()) for p in (base_dir / "mlflow" / "sent").glob("*.json"))
    return [record for record in found if record.kind == PRUNE]


def test_a_prune_removes_a_save_from_every_place_and_nothing_else(store: Store) -> None:
    store.save(5, auc=0.5)
    records = [store.manager.get(store.reference(number)) for number in range(1, 6)]
    gone, kept = records[:3], records[3:]
    ids_gone = [i for r in gone for i in (str(r.run_id), str(r.model_id))]
    ids_kept = [i for r in kept for i in (str(r.run_id), str(r.model_id))]
    stored, on_disk = store.stored(*ids_kept), snapshot(store.base_dir)
    assert store.stored(*ids_gone)
    bytes_before = sum(size for size, _ in snapshot(store.base_dir, ()).values())

    would = store.manager.prune(keep_last=2)
    assert (would.dry_run, numbers(would), would.kept, would.failed) == (True, [1, 2, 3], [], {})
    assert snapshot(store.base_dir) == on_disk
    assert store.versions() == [1, 2, 3, 4, 5]

    calls: list[tuple[int, int, int, str]] = []
    report = prune(store.manager, keep_last=2, progress=lambda *call: calls.append(call))
    assert (report.pruned, report.size, report.left) == (would.pruned, would.size, [])
    assert [call[:2] for call in calls] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert store.versions() == [4, 5]
    assert store.stored(*ids_gone) == {}
    assert store.stored(*ids_kept) == stored
    assert len(store.files("backups", "trained")) == 3  # two models and metadata of one
    assert len(store.files("metadata")) == 1
    client = store.client
    for record in gone:
        assert client.get_run(str(record.run_id)).info.lifecycle_stage == "deleted"
        with pytest.raises(MlflowException):
            client.get_logged_model(str(record.model_id))
    for record in kept:
        assert client.get_run(str(record.run_id)).info.lifecycle_stage == "active"
        assert store.manager.load_model(store.reference(int(record.version or 0)))
    if store.uri is None:
        assert report.size == bytes_before - sum(
            size for size, _ in snapshot(store.base_dir, ()).values()
        )
    assert store.manager.verify() == []


def test_a_repeated_prune_does_nothing_and_sync_brings_nothing_back(store: Store) -> None:
    store.save(3)
    prune(store.manager, keep_last=1)
    before = snapshot(store.base_dir)
    assert prune(store.manager, keep_last=1) == PruneReport()
    for options in ({}, {"include_backups": True}, {"resend": True}, {"retry_aside": True}):
        report = store.manager.sync(**options)
        assert (report.sent, report.failed, report.found) == ([], {}, [])
    assert snapshot(store.base_dir) == before
    assert store.versions() == [3]
    assert store.save() == 4


def test_whoever_asks_for_what_is_gone_learns_when_and_why(store: Store) -> None:
    store.save(2)
    version = store.manager.get(store.reference(1))
    prune(store.manager, keep_last=1)
    (record,) = tombstones(store.base_dir)
    assert (record.id, record.name) == (version.save_id, store.name)
    assert record.payload.sha256 == version.sha256
    with pytest.raises(ModelNotFoundError, match=r"was pruned on .*keep_last=1") as caught:
        store.manager.get(store.reference(1))
    assert caught.value.data["when"] == record.payload.when
    with pytest.raises(ModelNotFoundError, match="was pruned on"):
        store.manager.load_model(store.reference(1))


def test_a_name_that_is_gone_says_so_and_is_not_generated_again(manager: ModelManager) -> None:
    first = Path(manager.save_model({"n": 1})).stem
    second = Path(manager.save_model({"n": 2})).stem
    prune(manager, keep_last=1)
    with pytest.raises(ModelNotFoundError, match=f"{first}.*was pruned on .*: keep_last=1"):
        manager.get(first)
    names = {Path(manager.save_model({"n": n})).stem for n in range(3)}
    assert not names & {first, second}
    assert manager.verify() == []


def test_either_limit_keeps(manager: ModelManager, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time_ns
    for days in (30, 20, 10, 5, 0):
        monkeypatch.setattr(time, "time_ns", lambda days=days: real() - days * DAY_NS)
        manager.save_model({"days": days}, f"lotto_model_{days}")
    monkeypatch.setattr(time, "time_ns", real)

    def names(**limits: Any) -> list[str]:
        return [one.name.removeprefix("lotto_model_") for one in manager.prune(**limits).pruned]

    assert names(keep_days=15) == ["30", "20"]
    assert names(keep_last=4) == ["30"]
    assert names(keep_last=4, keep_days=15) == ["30"]
    assert names(keep_last=1, keep_days=7.5) == ["30", "20", "10"]
    assert names(keep_last=0) == names(keep_days=0) == ["30", "20", "10", "5"]  # not the newest
    assert names(keep_last=99) == names(keep_days=99) == []
    assert manager.prune(keep_days=15).pruned[0].why == "keep_days=15"


def test_each_registered_model_counts_by_itself(manager: ModelManager) -> None:
    for number in range(2):
        for name in ("one", "two", f"lotto_model_{number}"):
            manager.save_model({"n": number}, name)
    report = prune(manager, keep_last=1)
    assert sorted((one.name, one.version) for one in report.pruned) == [
        ("lotto_model_0", 1),
        ("one", 1),
        ("two", 1),
    ]
    assert manager.verify() == []


def test_what_an_alias_stands_for_stays_and_what_a_rollback_goes_back_to(store: Store) -> None:
    store.save(8)
    for version in (1, 2, 3):
        store.promote(version)
    store.set_outside(4, "shadow")
    report = prune(store.manager, keep_last=1)
    assert numbers(report) == [1, 5, 6, 7]
    assert {one.version: one.why for one in report.kept} == {
        2: "a rollback of champion goes back to it",
        3: "the alias champion stands for it",
        4: "the alias shadow stands for it",
    }
    store.rollback()
    assert store.holder() == 2
    assert store.manager.verify() == []


@pytest.mark.parametrize("how", ["deleted by force", "alias removed with MLflow"])
def test_what_an_alias_without_a_holder_can_be_rolled_back_to_stays(store: Store, how: str) -> None:
    store.save(5)
    for version in (1, 2, 3):
        store.promote(version)
    if how == "deleted by force":
        store.manager.delete(store.reference(3), force=True, reason="bad")
        expected = 2
    else:
        store.client.delete_registered_model_alias(store.name, "champion")
        expected = 3
    report = prune(store.manager, keep_last=1)
    assert {one.version: one.why for one in report.kept} == {
        expected: "a rollback of champion goes back to it"
    }
    assert store.versions() == [expected, 5]
    store.rollback()
    assert store.holder() == expected
    assert store.manager.verify() == []


def test_each_alias_that_was_rolled_back_and_lost_its_holder_is_looked_at(store: Store) -> None:
    store.save(6)
    for version in (1, 2, 3):
        store.promote(version)
    store.rollback()  # to 2, below which is 1
    store.promote(4, "shadow")
    store.promote(5, "shadow")
    for version in (2, 5):
        store.manager.delete(store.reference(version), force=True)
    assert numbers(prune(store.manager, keep_last=1)) == [3]
    store.rollback()
    store.rollback("shadow")
    assert (store.holder(), store.holder("shadow")) == (1, 4)


def test_a_rollback_passes_over_what_went_and_so_does_what_protects(store: Store) -> None:
    store.save(5)
    for version in (1, 2, 3):
        store.promote(version)
    store.manager.delete(store.reference(2))
    store.manager.delete(store.reference(3), force=True)
    assert numbers(prune(store.manager, keep_last=1)) == [4]
    store.rollback()
    assert store.holder() == 1


def test_what_another_version_refers_to_stays(store: Store) -> None:
    store.save(4)
    client, copy = store.client, f"copy {uuid.uuid4().hex}"
    client.copy_model_version(store.reference(1), copy)
    other = store.manager.get(store.reference(2))
    again = f"again {uuid.uuid4().hex}"
    client.create_registered_model(again)
    source = client.get_model_version(store.name, "2").source
    client.create_model_version(again, source, run_id=other.run_id, model_id=other.model_id)
    report = prune(store.manager, keep_last=1)
    assert numbers(report) == [3]
    reasons = [one.why for one in report.kept]
    assert reasons == [f"version 1 of {name} refers to its files" for name in (copy, again)]
    assert store.manager.load_model(f"models:/{copy}/1")


def test_a_renamed_registered_model_is_left_alone_until_its_record_says_so(store: Store) -> None:
    store.save(2)
    name = store.name
    store.client.rename_registered_model(name, f"{name} new")
    assert numbers(prune(store.manager, keep_last=1)) == []
    store.manager.sync(resend=True)
    report = prune(store.manager, keep_last=1)
    assert [(one.registered_model, one.version) for one in report.pruned] == [(f"{name} new", 1)]
    assert store.manager.verify() == []


def test_what_waits_stays(base_dir: Path) -> None:
    manager = ModelManager(base_dir, tracking_uri=f"http://127.0.0.1:{free_port()}")
    for number in range(3):
        manager.save_model({"n": number}, "waits")
    before = snapshot(base_dir)
    report = prune(manager, keep_last=1)
    assert report.pruned == []
    assert all("still waits for http://127.0.0.1" in one.why for one in report.kept)
    assert len(report.kept) == 2
    assert snapshot(base_dir) == before


def test_what_only_another_store_has_stays(base_dir: Path, tmp_path: Path) -> None:
    Aliased(base_dir, None, "there").save(3)
    other = ModelManager(base_dir, tracking_uri=f"sqlite:///{tmp_path / 'other.db'}")
    report = prune(other, keep_last=1)
    assert report.pruned == []
    assert {one.why for one in report.kept} == {"the current tracking store does not have it yet"}
    other.sync()
    assert len(prune(other, keep_last=1).pruned) == 2
    assert other.verify() == []


@pytest.mark.parametrize("dry_run", [True, False])
def test_nothing_goes_while_the_registry_cannot_be_asked(embedded: Store, dry_run: bool) -> None:
    embedded.save(3)
    before = snapshot(embedded.base_dir)
    database = embedded.base_dir / "mlflow" / "mlflow.db"
    content = database.read_bytes()
    database.write_bytes(b"no database" * 1000)
    with pytest.raises(MirrorUnavailableError):
        embedded.manager.prune(keep_last=1, dry_run=dry_run)
    with pytest.raises(MirrorUnavailableError):
        ModelManager(embedded.base_dir, mirror="off").prune(keep_last=1, dry_run=dry_run)
    assert snapshot(embedded.base_dir) == before
    database.write_bytes(content)
    assert len(prune(embedded.manager, keep_last=1).pruned) == 2


def test_with_mirroring_off_the_disk_alone_is_pruned_and_mlflow_is_not_imported(
    disk_manager: ModelManager, tmp_path: Path
) -> None:
    base_dir = tmp_path / "ml"
    for number in range(3):
        disk_manager.save_model({"n": number}, "mine", {"n": number}, artifacts={"a": "text"})
    code = (
        f"import sys, lotto_mlflow as l; m = l.ModelManager({str(base_dir)!r}, mirror='off'); "
        "r = m.prune(keep_last=1, dry_run=False); assert len(r.pruned) == 2, r; "
        "assert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    assert not list((base_dir / "backups").iterdir())
    outbox = list((base_dir / "mlflow" / "outbox").iterdir())
    assert sorted(path.suffix for path in outbox) == ["", ".json"]  # of the newest save
    mirrored = ModelManager(base_dir)
    assert len(mirrored.sync().sent) == 1
    assert mirrored.verify() == []


def test_a_save_that_is_pushed_while_a_prune_runs_goes_from_mlflow_too(base_dir: Path) -> None:
    disk_alone = ModelManager(base_dir, mirror="off")
    for number in range(3):
        disk_alone.save_model({"n": number}, "mine", {"n": number})
    mirrored, client = ModelManager(base_dir), Aliased(base_dir, None, "mine").client

    def push_all(done: int, *_: object) -> None:
        if done == 0:
            assert len(mirrored.sync().sent) == 3

    assert len(prune(disk_alone, keep_last=1, progress=push_all).pruned) == 2
    assert [version.version for version in client.search_model_versions()] == [3]
    artifacts_dir = base_dir / "mlflow" / "artifacts"
    assert len(list(artifacts_dir.rglob("*.pkl"))) == 1
    assert mirrored.verify() == []


def test_a_removal_that_another_store_waits_for_names_that_store(
    embedded: Store, tmp_path: Path
) -> None:
    embedded.save(2)
    database = tmp_path / "elsewhere.db"
    other = ModelManager(embedded.base_dir, tracking_uri=f"sqlite:///{database}")
    assert len(other.sync().sent) == 2
    content = database.read_bytes()
    with pytest.raises(MirrorUnavailableError, match="is decided to go"):
        prune(other, keep_last=1, progress=lambda *_: database.write_bytes(b"none" * 1000))
    embedded.manager.sync()
    found = [one for one in embedded.manager.verify() if one.kind == "stuck record"]
    ((fix, repair),) = [(one.fix, one.repair) for one in found]
    assert (fix, "elsewhere.db" in repair) == (None, True)
    database.write_bytes(content)
    assert [one.fix and one.fix.verb for one in other.verify()] == ["sync"]
    other.sync()
    assert list((embedded.base_dir / "mlflow" / "outbox").iterdir()) == []
    assert other.verify() == []


def test_a_file_that_is_put_back_does_not_come_into_mlflow_again(manager: ModelManager) -> None:
    path = Path(manager.save_model({"n": 1}, "lotto_model_1", {"n": 1}))
    copy = shutil.copy2(path, path.parents[2] / "copy.pkl")
    manager.save_model({"n": 2}, "lotto_model_2")
    prune(manager, keep_last=1)
    for keeps_time in (True, False):
        shutil.copyfile(copy, path)
        os.utime(path, ns=(Path(copy).stat().st_mtime_ns - (0 if keeps_time else 10**9),) * 2)
        report = manager.sync(include_backups=True)
        assert (report.sent, report.backfilled, report.failed) == ([], [], {})
        assert manager.load_model(path) == {"n": 1}
        assert manager.get("lotto_model_1").version is None
        assert manager.verify() == []
    path.write_bytes(b"something else")
    assert [finding.kind for finding in manager.verify()] == ["damaged"]


def test_predictions_and_how_good_they_were_stay(manager: ModelManager, base_dir: Path) -> None:
    manager.save_model({"n": 1}, "lotto_model_1")
    manager.record_prediction("lotto_model_1", 1000, GAME, scores=CHANCE, made_at=before(1000))
    manager.record_prediction("lotto_model_1", 1001, GAME, scores=CHANCE, made_at=before(1001))
    manager.record_result(1000, DRAWN, BONUS)
    manager.save_model({"n": 2}, "lotto_model_2")
    predictions, accuracy = manager.predictions(), manager.accuracy()
    assert len(prune(manager, keep_last=1).pruned) == 1
    assert manager.predictions() == predictions
    assert manager.accuracy() == accuracy
    manager.record_result(1001, DRAWN, BONUS)
    (row,) = manager.accuracy()
    assert (row.model, row.version, row.draws) == ("lotto_model_1", 1, 2)
    assert manager.flush(120)
    assert list((base_dir / "mlflow" / "outbox").iterdir()) == []
    assert manager.verify() == []
    manager.sync()
    assert manager.verify() == []


def test_versions_of_other_folders_are_not_touched(store: Store, tmp_path: Path) -> None:
    store.save(2)
    embedded = f"sqlite:///{store.base_dir / 'mlflow' / 'mlflow.db'}"
    other = ModelManager(tmp_path / "else", tracking_uri=store.uri or embedded)
    for number in range(3):
        other.save_model({"else": number}, store.name)
    assert numbers(prune(store.manager, keep_last=1)) == [1]
    assert store.versions() == [2, 3, 4, 5]
    with pytest.raises(InvalidReferenceError, match="was not saved in this folder"):
        store.manager.delete(store.reference(4))
    assert numbers(prune(other, keep_last=1)) == [3, 4]
    assert store.versions() == [2, 5]


def test_a_restored_save_that_is_in_place_stays(embedded: Store) -> None:
    embedded.save(3)
    embedded.manager.restore(embedded.reference(1), source="registry")
    report = prune(embedded.manager, keep_last=1)
    assert numbers(report) == [2]
    assert embedded.manager.get(embedded.name).version == 1
    assert embedded.manager.verify() == []


def test_a_save_that_only_mlflow_has_goes_too(embedded: Store) -> None:
    embedded.save(3)
    for path in (embedded.base_dir / "backups").iterdir():
        path.unlink()
    assert numbers(prune(embedded.manager, keep_last=1)) == [1, 2]
    assert embedded.versions() == [3]
    assert embedded.manager.verify() == []


def test_a_save_that_is_gone_from_mlflow_goes_from_disk(embedded: Store) -> None:
    embedded.save(3)
    record = embedded.manager.get(embedded.reference(1))
    client = embedded.client
    client.delete_model_version(embedded.name, "1")
    client.delete_logged_model(str(record.model_id))
    client.delete_run(str(record.run_id))
    assert numbers(prune(embedded.manager, keep_last=1)) == [1, 2]
    assert embedded.stored(str(record.run_id), str(record.model_id)) == {}
    assert embedded.manager.verify() == []


@pytest.mark.parametrize("is_embedded", [True, False], ids=["embedded", "another"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_without_the_database_nobody_says_what_is_in_use_and_nothing_goes(
    base_dir: Path, tmp_path: Path, *, dry_run: bool, is_embedded: bool
) -> None:
    database = base_dir / "mlflow" / "mlflow.db"
    if not is_embedded:
        database = Path(shutil.copy(database, tmp_path / "another.db"))
    uri = None if is_embedded else f"sqlite:///{database}"
    manager = ModelManager(base_dir, tracking_uri=uri)
    for number in (1, 2, 3):
        manager.save_model({"n": number}, f"lotto_model_{number}")
    assert manager.promote(1).to.version == 1
    database.unlink()
    files = sorted(base_dir.rglob("*.pkl"))
    for remove in (
        lambda: manager.prune(keep_last=1, dry_run=dry_run),
        lambda: manager.prune(keep_days=0, dry_run=dry_run),
        lambda: manager.delete("lotto_model_1", dry_run=dry_run),
        lambda: manager.delete("lotto_model_1", force=True, dry_run=dry_run),
    ):
        with pytest.raises(MirrorUnavailableError, match="nothing was removed") as caught:
            remove()
        assert str(database) in str(caught.value)
        assert (caught.value.fix.verb, caught.value.fix.arguments) == ("sync", {"resend": True})
    assert sorted(base_dir.rglob("*.pkl")) == files
    assert len(manager.records()) == 3
    assert manager.prune(keep_last=3).pruned == []
    manager.sync(resend=True)
    manager.promote("lotto_model_1")
    assert [one.name for one in manager.prune(keep_last=1).pruned] == ["lotto_model_2"]


def test_downloads_go_and_a_damaged_file_is_put_aside(embedded: Store) -> None:
    embedded.save(3)
    record = embedded.manager.get(embedded.reference(1))
    downloads = embedded.base_dir / "mlflow" / "downloads" / str(record.sha256)
    downloads.mkdir(parents=True)
    (backup,) = [
        path
        for path in (embedded.base_dir / "backups").glob("*.pkl")
        if path.stat().st_mtime_ns == record.saved_at_ns
    ]
    shutil.copy2(backup, downloads / f"{embedded.name}.pkl")
    status = backup.stat()
    backup.write_bytes(b"x" * status.st_size)
    os.utime(backup, ns=(status.st_mtime_ns,) * 2)
    assert numbers(prune(embedded.manager, keep_last=1)) == [1, 2]
    assert not downloads.exists()
    assert embedded.files("backups") == set()
    aside = [p for p in (embedded.base_dir / "mlflow" / "aside").iterdir() if p.suffix == ".pkl"]
    assert [path.read_bytes() for path in aside] == [b"x" * status.st_size]
    assert embedded.manager.verify() == []


def test_of_two_saves_with_the_same_bytes_the_other_stays(manager: ModelManager) -> None:
    for name in ("same", "same", "lotto_model_1", "lotto_model_2"):
        manager.save_model({"same": 1}, name)
    assert len(prune(manager, keep_last=1).pruned) == 2
    for name in ("same", "lotto_model_2"):
        assert manager.load_model(manager.get(name).path) == {"same": 1}
    assert manager.verify() == []


def test_in_a_copied_folder_files_are_known_by_their_bytes(tmp_path: Path) -> None:
    first = ModelManager(tmp_path / "first", mirror="off")
    for number in range(3):
        first.save_model({"n": number}, f"lotto_model_{number}", {"n": number})
    shutil.copytree(tmp_path / "first", tmp_path / "copy", copy_function=shutil.copyfile)
    for number in range(3):  # of other times, and in the same order
        path = tmp_path / "copy" / "trained" / f"lotto_model_{number}.pkl"
        os.utime(path, ns=(10**18 + number,) * 2)
    copy = ModelManager(tmp_path / "copy", mirror="off")
    assert len(prune(copy, keep_last=1).pruned) == 2
    assert [p.name for p in (tmp_path / "copy" / "trained").iterdir()] == ["lotto_model_2.pkl"]
    assert len(list((tmp_path / "copy" / "metadata").glob("*.json"))) == 1


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"keep_last": -1},
        {"keep_days": -1},
        {"keep_days": -0.5},
        {"keep_last": 1.5},
        {"keep_last": True},
        {"keep_days": False},
        {"keep_last": "3"},
        {"keep_days": "3"},
        {"keep_days": float("nan")},
        {"keep_days": float("inf")},
        {"keep_days": 10**400},
        {"keep_days": -(10**400)},
        {"keep_last": 1, "keep_days": -1},
        {"keep_last": -(10**5000)},
        {"keep_days": 10**5000},
        {"keep_days": -(10**5000)},
        {"keep_last": np.int64(-1)},
        {"keep_last": np.bool_(True)},
        {"keep_last": np.float64(1)},
    ],
    ids=lambda limits: ", ".join(limits) or "none",
)
def test_a_limit_that_is_none_is_refused(manager: ModelManager, limits: dict[str, Any]) -> None:
    manager.save_model({"n": 1}, "lotto_model_1")
    manager.save_model({"n": 2}, "lotto_model_2")
    for dry_run in (True, False):
        with pytest.raises(SettingsError):
            manager.prune(dry_run=dry_run, **limits)
    assert len(manager.records()) == 2


def test_an_empty_folder_has_nothing_to_prune(tmp_path: Path) -> None:
    manager = ModelManager(tmp_path / "none")
    assert manager.prune(keep_last=1) == PruneReport(dry_run=True)
    assert not (tmp_path / "none").exists()
    assert prune(manager, keep_last=1) == PruneReport()


def test_a_place_outside_of_the_folder_is_not_emptied(embedded: Store, tmp_path: Path) -> None:
    embedded.save(2)
    record = embedded.manager.get(embedded.reference(1))
    outside = tmp_path / "outside" / str(record.model_id) / "artifacts"
    outside.mkdir(parents=True)
    (outside / "theirs.txt").write_text("theirs")
    with closing(sqlite3.connect(embedded.base_dir / "mlflow" / "mlflow.db")) as database:
        database.execute(
            "UPDATE logged_models SET artifact_location = ? WHERE model_id = ?",
            (outside.as_uri(), record.model_id),
        )
        database.commit()
    report = prune(embedded.manager, keep_last=1)
    assert (outside / "theirs.txt").read_text() == "theirs"
    assert numbers(report) == [1]
    (left,) = report.left
    assert f"mlflow gc --logged-model-ids {record.model_id}" in left
    assert tombstones(embedded.base_dir)[0].payload.left == report.left


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("leads", ["to another", "outside"])
@pytest.mark.parametrize("link", [".", "artifacts"], ids=["folder", "artifacts"])
@pytest.mark.parametrize("owner", ["logged model", "run"])
def test_a_link_to_the_files_of_another_is_not_followed(
    embedded: Store, tmp_path: Path, owner: str, link: str, leads: str, is_known: bool
) -> None:
    embedded.save(2)
    first, second = (embedded.manager.get(embedded.reference(n)) for n in (1, 2))
    is_model, root = owner == "logged model", embedded.artifacts_dir / "lotto_model"
    own, other = (
        root / "models" / str(one.model_id) if is_model else root / str(one.run_id)
        for one in (first, second)
    )
    (other / "artifacts").mkdir(parents=True, exist_ok=True)
    (other / "artifacts" / "thesis.txt").write_text("the only copy")
    if leads == "outside":
        outside = tmp_path / "outside" / "theirs"
        shutil.copytree(other, outside)
        other = outside
    own_id = str(first.model_id if is_model else first.run_id)
    if not is_known:
        table, column = ("logged_models", "model_id") if is_model else ("runs", "run_uuid")
        with closing(sqlite3.connect(embedded.base_dir / "mlflow" / "mlflow.db")) as database:
            database.execute(f"DELETE FROM {table} WHERE {column} = ?", (own_id,))
            database.commit()
    if own.exists():
        shutil.rmtree(own)
    (own / link).parent.mkdir(parents=True, exist_ok=True)
    (own / link).symlink_to(other / link)
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    report = prune(embedded.manager, keep_last=1)
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before
    assert (own / link).is_symlink()
    assert numbers(report) == [1]
    (left,) = report.left
    assert own_id in left
    assert "mlflow gc" not in left  # that would follow it
    assert embedded.manager.load_model(embedded.reference(2))


def test_a_record_that_is_not_of_the_save_removes_nothing(embedded: Store) -> None:
    embedded.save(2)
    prune(embedded.manager, keep_last=1)
    version = embedded.manager.get(embedded.reference(2))
    (gone,) = tombstones(embedded.base_dir)
    payload = replace(gone.payload, save_id=str(version.save_id))
    forged = replace(gone, id=f"{time.time_ns():019d}-00000000", payload=payload)
    outbox = embedded.base_dir / "mlflow" / "outbox"
    for state in ("pending", "committed"):
        path = outbox / f"{forged.id}~{state}~{forged.name}.json"
        path.write_bytes(render(forged))
        embedded.manager.sync()
        assert embedded.manager.load_model(embedded.reference(2))
        assert embedded.manager.verify() == []


class Outage:
    """A tracking server at one address, that can be stopped and started."""

    def __init__(self, folder: Path, database: Path) -> None:
        folder.mkdir()
        shutil.copyfile(database, folder / "server.db")
        self._folder = folder
        self._stack = ExitStack()
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        command = [*MLFLOW, "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri"]
        command += [f"sqlite:///{self._folder / 'server.db'}"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        self._stack.enter_context(served(command, f"{self.uri}/health", self._folder / "log"))

    def stop(self) -> None:
        self._stack.close()


@pytest.fixture
def outage(tmp_path: Path, migrated_database: Path) -> Iterator[Outage]:
    made = Outage(tmp_path / "outage", migrated_database)
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize("finished_by", ["save", "sync", "prune", "promotion"])
def test_an_outage_in_the_middle_is_finished_later_unless_the_version_came_into_use(
    base_dir: Path, outage: Outage, finished_by: str
) -> None:
    store = Store(base_dir, outage.uri, "kept")
    store.save(4)

    def stop_at_the_second(done: int, *_: object) -> None:
        if done == 1:
            outage.stop()

    with pytest.raises(MirrorUnavailableError, match="1 of 3 saves are gone"):
        prune(store.manager, keep_last=1, progress=stop_at_the_second)
    with pytest.raises(MirrorUnavailableError):  # and no other one is decided
        prune(store.manager, keep_last=1)
    assert len(list((base_dir / "backups").glob("*.pkl"))) == 2
    assert len(list((base_dir / "mlflow" / "outbox").iterdir())) == 1
    assert "stuck record" in {finding.kind for finding in store.manager.verify()}
    outage.start()
    if finished_by == "promotion":
        store.set_outside(2)
    if finished_by == "sync":
        assert store.manager.sync().failed == {}
    elif finished_by == "prune":
        prune(store.manager, keep_last=99)
    else:
        store.manager.save_model({"next": 1}, "next")
        assert store.manager.flush(120)
    assert store.versions() == ([2, 3, 4] if finished_by == "promotion" else [3, 4])
    assert len(list((base_dir / "mlflow" / "outbox").iterdir())) == 0
    assert {f.kind for f in store.manager.verify()} <= {"changed outside"}
    for version in store.versions():
        assert store.manager.load_model(store.reference(version))
    assert len(list((base_dir / "backups").glob("*.pkl"))) == len(store.versions()) - 1


def test_a_live_model_serves_on_what_is_pruned(manager: ModelManager) -> None:
    for number in range(3):
        manager.save_model({"n": number}, f"lotto_model_{number}")
    with LiveModel("models:/lotto_model/1", manager=manager, every_seconds=3600) as live:
        prune(manager, keep_last=1)
        assert live.refresh() is False
        assert live.model == {"n": 0}
        live.refresh()
        assert live.model == {"n": 0}
    with pytest.raises(ModelNotFoundError, match="was pruned on"):
        LiveModel("models:/lotto_model/1", manager=manager)


def test_saves_go_on_while_a_prune_runs(base_dir: Path) -> None:
    manager = ModelManager(base_dir)
    for number in range(10):
        manager.save_model({"n": number}, f"lotto_model_{number}")
        manager.save_model({"n": number}, "again")
    saved: list[str] = []
    is_over = threading.Event()

    def save() -> None:
        while not is_over.is_set():
            number = len(saved)
            saved.append(manager.save_model({"new": number}, f"lotto_model_{number % 10}"))
            manager.save_model({"new": number}, "again")

    thread = threading.Thread(target=save)
    thread.start()
    try:
        for keep_last in (8, 4, 2):
            assert prune(ModelManager(base_dir), keep_last=keep_last).failed == {}
    finally:
        is_over.set()
        thread.join(300)
    assert manager.flush(120)
    assert saved
    prune(manager, keep_last=1)
    assert manager.verify() == []
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    found = client.search_model_versions("name = 'again'")
    assert len(found) == 1
    assert manager.load_model(manager.get("again").path) == {"new": len(saved) - 1}


def test_a_deletion_removes_one_bad_save_and_says_why(store: Store) -> None:
    store.save(3)
    would = store.manager.delete(store.reference(2), reason="bad", dry_run=True)
    assert (numbers(would), store.versions()) == ([2], [1, 2, 3])
    report = store.manager.delete(store.reference(2), reason="trained on last year's draws")
    assert numbers(report) == [2]
    assert store.versions() == [1, 3]
    with pytest.raises(ModelNotFoundError, match=r"deleted on .*: trained on last year's draws"):
        store.manager.get(store.reference(2))
    with pytest.raises(ModelNotFoundError, match="deleted on"):
        store.manager.delete(store.reference(2))
    assert store.manager.verify() == []
    store.manager.delete(store.name)  # the newest, which is in trained/
    assert store.versions() == [1]
    assert store.manager.verify() == []
    store.manager.delete(store.name)  # and then the one in backups/
    assert store.versions() == []
    with pytest.raises(ModelNotFoundError, match="no reason was given"):
        store.manager.delete(store.name)
    assert store.manager.verify() == []
    assert store.files("trained", "backups", "metadata") == set()


def test_an_alias_holder_is_deleted_by_force_alone(store: Store) -> None:
    store.save(3)
    store.promote(1)
    store.promote(2)
    store.set_outside(2, "shadow")
    before = snapshot(store.base_dir)
    with pytest.raises(ModelInUseError, match="has the alias champion, shadow") as refused:
        store.manager.delete(store.reference(2), reason="bad")
    arguments = {"model": store.reference(2), "reason": "bad", "force": True}
    assert refused.value.fix is not None
    assert (refused.value.fix.verb, refused.value.fix.arguments) == ("delete", arguments)
    assert snapshot(store.base_dir) == before
    assert (store.versions(), store.holder()) == ([1, 2, 3], 2)
    (gone,) = store.manager.delete(store.reference(2), force=True).pruned
    assert gone.aliases == ("champion", "shadow")
    assert (store.versions(), store.holder()) == ([1, 3], None)
    assert store.manager.verify() == []
    store.rollback()
    assert store.holder() == 1


def test_a_copy_and_what_is_copied_are_not_deleted(store: Store) -> None:
    store.save(2)
    copy = f"copy {uuid.uuid4().hex}"
    store.client.copy_model_version(store.reference(1), copy)
    with pytest.raises(InvalidReferenceError, match="is another version of the save"):
        store.manager.delete(f"models:/{copy}/1")
    for force in (False, True):
        with pytest.raises(ModelInUseError, match=f"version 1 of {copy} refers to the files"):
            store.manager.delete(store.reference(1), force=force)
    assert store.versions() == [1, 2]
    assert store.manager.load_model(f"models:/{copy}/1")


def test_the_latest_is_right_after_the_newest_was_deleted(manager: ModelManager) -> None:
    for number in range(3):
        manager.save_model({"n": number}, f"lotto_model_{number}")
    manager.delete("lotto_model_2", reason="bad")
    assert manager.latest().name == "lotto_model_1"
    assert manager.latest(source="registry").name == "lotto_model_1"
    assert manager.get("models:/lotto_model/latest").version == 2
    manager.save_model({"n": 3}, "lotto_model_3")
    assert manager.latest(source="registry").version == 4
    assert manager.verify() == []


@pytest.mark.parametrize("name", ["lotto_model_9", "none", "models:/none/1", 99, "../x", ""])
def test_what_is_not_there_cannot_be_deleted(manager: ModelManager, name: Any) -> None:
    manager.save_model({"n": 1}, "lotto_model_1")
    with pytest.raises((ModelNotFoundError, InvalidReferenceError)):
        manager.delete(name)
    assert len(manager.records()) == 1


@pytest.mark.parametrize(
    "count", [10**5000, 2**63, np.int64(2), np.uint8(2)], ids=lambda one: type(one).__name__
)
def test_a_limit_may_be_a_whole_number_of_any_kind(manager: ModelManager, count: Any) -> None:
    for number in (1, 2, 3):
        manager.save_model({"n": number}, f"lotto_model_{number}")
    goes = ["lotto_model_1"] if count == 2 else []
    assert [one.name for one in manager.prune(keep_last=count).pruned] == goes
    assert len(manager.records(limit=count)) == 3 - len(goes)
    assert [one.name for one in prune(manager, keep_last=count).pruned] == goes
    assert len(manager.records()) == 3 - len(goes)


def test_a_version_may_be_a_whole_number_of_any_kind(manager: ModelManager) -> None:
    for number in (1, 2):
        manager.save_model({"n": number}, f"lotto_model_{number}", {"auc": number})
    second = np.int64(2)
    assert manager.get(second).name == "lotto_model_2"
    assert manager.promote(second).to.version == 2
    with pytest.raises(ModelInUseError, match=r"delete\(2, force=True\)"):
        manager.delete(second)
    assert [one.version for one in manager.delete(np.int32(1)).pruned] == [1]


@pytest.mark.parametrize(
    "reference",
    [True, False, np.bool_(True), 10**5000, -(10**5000), 2.0],
    ids=lambda one: type(one).__name__,
)
def test_a_truth_value_or_an_endless_number_names_no_version(
    manager: ModelManager, reference: Any
) -> None:
    manager.save_model({"n": 1}, "lotto_model_1")
    calls = (manager.get, manager.promote, manager.delete, manager.restore, manager.predictions)
    for call in calls:
        with pytest.raises(InvalidReferenceError, match="names no model"):
            call(reference)
    with pytest.raises(SettingsError):
        manager.promote(1, metric="auc", min_gain=10**5000)
    with pytest.raises(SettingsError):
        manager.promote(1, metric=10**5000)
    with pytest.raises(SettingsError):
        manager.promote(1, reason=10**5000)
    assert len(manager.records()) == 1


def test_what_waits_cannot_be_deleted_unless_mirroring_is_off(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    manager = ModelManager(base_dir, tracking_uri=uri)
    path = Path(manager.save_model({"n": 1}, "waits"))
    with pytest.raises(MirrorUnavailableError, match="still waits for"):
        manager.delete("waits")
    assert path.exists()
    ModelManager(base_dir, tracking_uri=uri, mirror="off").delete("waits")
    assert not path.exists()
    assert list((base_dir / "mlflow" / "outbox").iterdir()) == []


def test_a_file_without_a_record_is_not_deleted(manager: ModelManager, tmp_path: Path) -> None:
    path = Path(manager.save_model({"n": 1}, "lotto_model_1"))
    shutil.copyfile(path, path.with_name("lotto_model_old.pkl"))
    with pytest.raises(ModelNotFoundError, match="no record says"):
        manager.delete("lotto_model_old")
    assert prune(manager, keep_last=0).pruned == []
    assert path.with_name("lotto_model_old.pkl").exists()


OF_ANOTHER_HOST = "was made on another host, and only restored in this folder"


def test_what_another_host_saved_is_not_deleted_where_it_was_only_restored(
    server: tuple[str, Path], tmp_path: Path
) -> None:
    name = f"shared {uuid.uuid4().hex}"
    hosts = {host: ModelManager(tmp_path / host, tracking_uri=server[0]) for host in "ABC"}
    first, second, reader = hosts.values()
    first.save_model({"of": "A"}, name, {"n": 1})
    assert first.flush(120)
    reader.restore(name, source="registry")
    second.save_model({"of": "B"}, name, {"n": 2})
    assert second.flush(120)
    second.restore(f"models:/{name}/1", source="registry")
    shutil.copytree(tmp_path / "C", tmp_path / "copy", copy_function=shutil.copyfile)
    hosts["copy"] = ModelManager(tmp_path / "copy", tracking_uri=server[0])
    for host in ("B", "C", "copy"):
        manager, path = hosts[host], tmp_path / host / "trained" / f"{name}.pkl"
        for dry_run in (True, False):
            with pytest.raises(InvalidReferenceError, match=OF_ANOTHER_HOST):
                manager.delete(name, dry_run=dry_run)
        assert manager.load_model(path) == {"of": "A"}
        assert manager.sync().failed == {}
    second.restore(name)  # its own, over which the other was restored
    second.restore(name, backup=f"{name}.2.pkl")  # and that of the other host again
    with pytest.raises(InvalidReferenceError, match=OF_ANOTHER_HOST):
        second.delete(name)
    assert [one.version for one in second.delete(f"models:/{name}/2").pruned] == [2]
    first.delete(name)


def test_a_file_that_was_put_where_a_deleted_one_was_is_not_said_to_be_for_sync(
    manager: ModelManager, base_dir: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        manager.save_model({"n": number}, "x", {"n": number})
    manager.restore("models:/x/2", source="registry")
    path = base_dir / "trained" / "x.pkl"
    kept = shutil.copy2(path, tmp_path / "kept.pkl")
    manager.delete("models:/x/2", reason="bad")
    for copy in (shutil.copy2, shutil.copyfile):
        copy(kept, path)
        with pytest.raises(ModelNotFoundError, match=r"deleted on .*: bad; .* was put there since"):
            manager.delete("x")
    path.write_bytes(b"of nobody")
    with pytest.raises(ModelNotFoundError, match="those of no save of x") as refused:
        manager.delete("x")
    assert refused.value.fix is not None
    assert refused.value.fix.verb == "shell"
    subprocess.run(refused.value.fix.arguments["command"], check=True)
    assert [one.version for one in manager.delete("x").pruned] == [1]


def restores(findings: Iterable[Any]) -> list[str]:
    """Return what advises a restore, among findings or errors."""
    return [str(one) for one in findings if one.fix is not None and one.fix.verb == "restore"]


@pytest.mark.parametrize("is_pruned", [True, False], ids=["pruned", "deleted"])
@pytest.mark.parametrize("content", [b"other", b""], ids=["other bytes", "empty"])
def test_no_restore_is_advised_of_what_was_removed(
    store: Store, is_pruned: bool, content: bytes
) -> None:
    last = store.save(3)
    path, manager = store.base_dir / "trained" / f"{store.name}.pkl", store.manager
    manager.restore(store.reference(1), source="registry")
    manager.restore(store.reference(last), source="registry")
    if is_pruned:
        assert numbers(prune(manager, keep_last=1)) == [1, 2]
    for _ in manager.records(store.name, source="registry") if is_pruned else range(last):
        manager.delete(store.name, reason="bad")
    assert not store.files("trained", "backups")
    path.write_bytes(content)
    (store.base_dir / "metadata" / f"{store.name}_metadata.json").write_text("{", "utf-8")
    with pytest.raises(DigestMismatchError, match="move it away") as refused:
        manager.load_model(path)
    with pytest.raises(ModelNotFoundError) as nothing:
        manager.restore(store.name)
    assert restores([refused.value, nothing.value, *manager.verify(deep=True)]) == []
    report = manager.sync()
    assert list(report.failed) == [store.name]
    assert "restore(" not in report.failed[store.name]
    assert report.fixes == {}
    with pytest.raises(ModelNotFoundError, match="deleted on"):
        manager.restore(store.name, source="registry")


def test_a_restore_is_advised_where_an_older_save_is_left(store: Store) -> None:
    store.save(2)
    path, manager = store.base_dir / "trained" / f"{store.name}.pkl", store.manager
    manager.delete(path, reason="bad")
    path.write_bytes(b"other")
    with pytest.raises(DigestMismatchError) as refused:
        manager.load_model(path)
    fix = refused.value.fix
    assert fix is not None
    assert manager.restore(**fix.arguments).version == 1
    assert manager.load_model(path)


def test_no_restore_is_advised_of_an_empty_file_of_nobody(
    manager: ModelManager, base_dir: Path
) -> None:
    saved = Path(manager.save_model({"n": 1}, "lotto_model_1"))
    empty = saved.with_name("lotto_model_2.pkl")
    with LiveModel(manager=manager, every_seconds=3600) as live:
        empty.touch()
        live.refresh()
        assert live.problem is not None
        assert "is empty; " in live.problem
        assert "restore(" not in live.problem
        assert live.record.name == "lotto_model_1"
    with pytest.raises(LoadError, match="move it away") as refused:
        manager.load_model(empty)
    health = manager.check()
    assert health.status == "critical"
    assert restores([refused.value, *health.findings, *manager.verify()]) == []
    with pytest.raises(ModelNotFoundError) as nothing:
        manager.restore("lotto_model_2")
    assert restores([nothing.value]) == []


def test_of_an_empty_file_another_host_may_have_the_model(
    server: tuple[str, Path], tmp_path: Path
) -> None:
    name = f"shared {uuid.uuid4().hex}"
    trainer, reader = (ModelManager(tmp_path / one, tracking_uri=server[0]) for one in "AB")
    trainer.save_model({"n": 1}, name)
    assert trainer.flush(120)
    path = tmp_path / "B" / "trained" / f"{name}.pkl"
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(LoadError) as refused:
        reader.load_model(path)
    fix = refused.value.fix
    assert fix is not None
    reader.restore(**fix.arguments)
    assert reader.load_model(path) == {"n": 1}


class Moved(NamedTuple):
    """A folder whose three saves were migrated from the store inside it to another."""

    here: ModelManager
    there: ModelManager
    client: MlflowClient
    artifacts_dir: Path
    name: str
    uri: str

    def reference(self, version: int) -> str:
        return f"models:/{self.name}/{version}"

    def versions(self) -> list[int]:
        found = self.client.search_model_versions(f"name = '{self.name}'")
        return sorted(int(version.version) for version in found)


@pytest.fixture
def moved(base_dir: Path, server: tuple[str, Path]) -> Moved:
    uri, artifacts_dir = server
    name = f"moved {uuid.uuid4().hex[:12]}"
    here, there = ModelManager(base_dir), ModelManager(base_dir, tracking_uri=uri)
    for number in (1, 2, 3):
        here.save_model({"n": number}, name, {"n": number})
    here.promote(f"models:/{name}/2")
    here.promote(f"models:/{name}/3")
    assert here.migrate(uri).failed == {}
    return Moved(here, there, MlflowClient(tracking_uri=uri), artifacts_dir, name, uri)


def test_what_was_deleted_before_or_after_a_migration_is_deleted_there_too(moved: Moved) -> None:
    here, there = moved.here, moved.there
    record = there.get(moved.reference(1))
    ids = {str(record.run_id), str(record.model_id)}

    def stored() -> list[Path]:
        return [p for p in moved.artifacts_dir.rglob("*") if p.is_file() and ids & {*p.parts}]

    assert stored()
    here.delete(moved.reference(1), reason="bad")
    assert here.verify() == []
    assert moved.versions() == [1, 2, 3]
    (finding,) = there.verify()
    assert (finding.kind, finding.name) == ("stuck record", moved.name)
    assert finding.fix is not None
    assert (finding.fix.verb, finding.fix.arguments) == ("delete", {"model": moved.reference(1)})
    again = here.migrate(moved.uri)
    assert list(again.left) == [moved.reference(1)]
    assert "it is still there" in again.left[moved.reference(1)]
    assert again.sent == []
    would = there.delete(moved.reference(1), dry_run=True)
    assert (numbers(would), moved.versions()) == ([1], [1, 2, 3])
    assert there.load_model(moved.reference(1)) == {"n": 1}  # which leaves a download
    report = there.delete(moved.reference(1), reason="bad there, too")
    assert (numbers(report), report.left, report.failed) == ([1], [], {})
    assert moved.versions() == [2, 3]
    assert stored() == []
    assert moved.client.get_run(str(record.run_id)).info.lifecycle_stage == "deleted"
    with pytest.raises(MlflowException):
        moved.client.get_logged_model(str(record.model_id))
    for call in (there.get, there.delete, there.promote, there.load_model):
        with pytest.raises(ModelNotFoundError, match=r"deleted on .*: bad"):
            call(moved.reference(1))
    assert there.sync().sent == []
    assert here.migrate(moved.uri).left == {}
    assert (there.verify(), here.verify()) == ([], [])
    assert [one.version for one in there.records(moved.name)] == [3]


def test_an_alias_goes_there_by_force_alone_and_its_history_says_so(moved: Moved) -> None:
    here, there = moved.here, moved.there
    here.delete(moved.reference(3), reason="bad", force=True)
    here.rollback(registered_model=moved.name)
    with pytest.raises(ModelInUseError, match="has the alias champion"):
        there.delete(moved.reference(3))
    assert moved.versions() == [1, 2, 3]
    (gone,) = there.delete(moved.reference(3), force=True).pruned
    assert gone.aliases == ("champion",)
    assert there.history(registered_model=moved.name)[-1].kind == "deleted"
    assert there.verify() == []
    assert there.rollback(registered_model=moved.name).to.version == 2
    assert (there.verify(), here.verify()) == ([], [])


def test_what_was_pruned_can_be_deleted_there_and_its_file_goes_again(
    moved: Moved, base_dir: Path
) -> None:
    assert numbers(prune(moved.here, keep_last=1)) == [1]
    moved.there.restore(moved.reference(1), source="registry")
    path = base_dir / "trained" / f"{moved.name}.pkl"
    assert moved.there.load_model(path) == {"n": 1}
    assert numbers(moved.there.delete(moved.reference(1))) == [1]
    assert not path.exists()
    assert moved.versions() == [2, 3]
    assert moved.there.get(moved.reference(2)).version == 2


def test_a_deletion_there_that_was_killed_is_finished_by_the_next_sync(
    moved: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved.here.delete(moved.reference(1), reason="bad")
    run_id = str(moved.there.get(moved.reference(1)).run_id)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "delete_run", killed)
        with pytest.raises(KeyboardInterrupt):
            moved.there.delete(moved.reference(1))
    assert moved.versions() == [2, 3]
    assert moved.client.get_run(run_id).info.lifecycle_stage == "active"
    (finding,) = moved.there.verify()
    assert (finding.kind, finding.fix and finding.fix.verb) == ("stuck record", "sync")
    moved.there.sync()
    assert moved.client.get_run(run_id).info.lifecycle_stage == "deleted"
    assert moved.there.verify() == []


def test_a_copy_of_what_was_deleted_elsewhere_stays_and_is_named(moved: Moved) -> None:
    moved.here.delete(moved.reference(1), reason="bad")
    copy = f"copy {uuid.uuid4().hex}"
    moved.client.copy_model_version(moved.reference(1), copy)
    with pytest.raises(InvalidReferenceError, match="is another version of the save"):
        moved.there.delete(f"models:/{copy}/1")
    with pytest.raises(ModelInUseError, match=f"version 1 of {copy}"):
        moved.there.delete(moved.reference(1))
    assert moved.versions() == [1, 2, 3]
    found = moved.there.verify()
    assert [one.fix is None for one in found] == [True, False]
    moved.client.delete_model_version(copy, "1")
    assert numbers(moved.there.delete(moved.reference(1))) == [1]
    assert moved.there.verify() == []


def command(base_dir: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--base-dir", str(base_dir)])


def test_the_command_prunes_with_yes_alone(embedded: Store) -> None:
    embedded.save(3)
    embedded.promote(1)
    would = command(embedded.base_dir, "prune", "--keep-last", "1")
    assert would.exit_code == 0
    assert "would remove 1 save, " in would.stdout
    assert "stays: other, version 1 of other, the alias champion stands for it" in would.stdout
    assert embedded.versions() == [1, 2, 3]
    done = command(embedded.base_dir, "prune", "--keep-last", "1", "--yes")
    assert (done.exit_code, embedded.versions()) == (0, [1, 3])
    assert "removed 1 save, " in done.stdout
    again = command(embedded.base_dir, "prune", "--keep-days", "0", "--yes", "--json")
    found = json.loads(again.stdout)
    assert (found["pruned"], found["dry_run"], found["size"]) == ([], False, 0)
    assert [(one["version"], one["why"]) for one in found["kept"]] == [
        (1, "the alias champion stands for it"),
        (3, "it is the newest"),
    ]


def test_the_command_deletes_with_yes_alone_and_says_that_an_alias_goes(embedded: Store) -> None:
    embedded.save(2)
    embedded.promote(1)
    reference = embedded.reference(1)
    refused = command(embedded.base_dir, "delete", reference, "--yes")
    assert refused.exit_code == 1
    assert "has the alias champion" in refused.stderr
    fix = shell_command(
        ["lotto-mlflow", "delete", reference, "--force", "--base-dir", str(embedded.base_dir)]
    )
    assert f"`{fix}` removes the alias, too" in refused.stderr
    assert "force=True" not in refused.stderr
    would = command(embedded.base_dir, "delete", reference, "--force")
    assert "the alias champion would go with it" in would.stdout
    assert embedded.versions() == [1, 2]
    done = command(embedded.base_dir, "delete", reference, "--force", "--yes", "--reason", "bad")
    assert "the alias champion went with it" in done.stdout
    assert embedded.versions() == [2]
    shown = command(embedded.base_dir, "show", reference)
    assert (shown.exit_code, "was deleted on" in shown.stderr) == (1, True)
    assert command(embedded.base_dir, "delete", "none", "--yes").exit_code == 1


@pytest.mark.parametrize(
    "options", [(), ("--yes",), ("--keep-last", "-1"), ("--keep-days", "-1"), ("--keep-last", "x")]
)
def test_a_prune_without_a_limit_is_wrong_usage(base_dir: Path, options: tuple[str, ...]) -> None:
    assert command(base_dir, "prune", *options).exit_code == 2


def test_of_two_prunes_at_once_each_save_goes_once(base_dir: Path) -> None:
    manager = ModelManager(base_dir)
    for number in range(8):
        manager.save_model({"n": number}, f"lotto_model_{number}")
    reports: list[PruneReport] = []

    def run() -> None:
        reports.append(prune(ModelManager(base_dir), keep_last=1))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    gone = [one.name for report in reports for one in report.pruned]
    assert sorted(gone) == [f"lotto_model_{number}" for number in range(7)]
    assert [report.failed for report in reports] == [{}, {}, {}]
    assert manager.verify() == []
