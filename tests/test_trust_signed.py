"""With keys that are trusted, nothing is unpickled that none of them signed, in either view."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forging
import pytest
from forging import Host
from typer.testing import CliRunner

from lotto_mlflow import LiveModel, ModelManager, model_utils
from lotto_mlflow.cli import app
from lotto_mlflow.cli.output import KEYS
from lotto_mlflow.errors import (
    LottoMlflowError,
    ModelNotFoundError,
    SettingsError,
    SignatureError,
    StoreError,
)
from lotto_mlflow.records import parse
from lotto_mlflow.signing import parse_statement

A, B = "lotto_model_a", "lotto_model_b"
LATEST = "models:/lotto_model/latest"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host.at(tmp_path / "host", monkeypatch)


@pytest.fixture
def saved(
    host: Host, manager: ModelManager, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> ModelManager:
    """A manager that has saved ``a``, and then ``b``, both signed and in MLflow."""
    for name, folder in (("TRAINED", "trained"), ("METADATA", "metadata"), ("BACKUP", "backups")):
        monkeypatch.setattr(model_utils, f"{name}_DIR", base_dir / folder)
    manager.save_model({"n": 1}, A, {"n": 1})
    manager.save_model({"n": 2}, B, {"n": 2})
    manager.promote(B)
    return manager


def path_of(manager: ModelManager, name: str) -> Path:
    path = manager.get(name).path
    assert path is not None
    return path


def signatures_of(base_dir: Path, name: str) -> tuple[Path, Path]:
    """Return the statement and the signature of the newest save of a name."""
    found = [
        path
        for path in sorted((base_dir / "mlflow" / "signatures").glob("*.json"))
        if parse_statement(path.read_bytes()).name == name
    ]
    return found[-1], found[-1].with_suffix(".sig")


def ways(manager: ModelManager, path: Path, name: str) -> dict[str, Callable[[], Any]]:
    """Return the ways to load a model whose file was the latest."""
    version = manager.get(name).version
    return {
        "path": lambda: manager.load_model(path),
        "function": lambda: model_utils.load_model(path),
        "version": lambda: manager.load_model(f"models:/lotto_model/{version}"),
        "latest": lambda: manager.load_model(LATEST),
        "alias": lambda: manager.load_model("models:/lotto_model@champion"),
        "stale": lambda: manager.load_model("models:/lotto_model@champion", stale_ok=True),
        "live": lambda: LiveModel(manager=manager),
        "live latest": lambda: LiveModel(LATEST, manager=manager),
        "live alias": lambda: LiveModel("models:/lotto_model@champion", manager=manager),
        "restore": lambda: manager.restore(f"models:/lotto_model/{version}", source="registry"),
    }


def refusals(calls: dict[str, Callable[[], Any]]) -> dict[str, str]:
    """Return what became of each call: how it was refused, or what it returned."""
    found = {}
    for name, call in calls.items():
        try:
            found[name] = f"returned {call()!r}"
        except LottoMlflowError as error:
            found[name] = type(error).__name__
    return found


def all_refused(calls: dict[str, Callable[[], Any]], host: Host) -> None:
    found = refusals(calls)
    assert found == dict.fromkeys(calls, "SignatureError")
    assert not host.mark.exists()


def test_what_is_signed_is_loaded_in_every_way(saved: ModelManager, host: Host) -> None:
    for call in list(ways(saved, path_of(saved, B), B).items()):
        found = call[1]()
        if isinstance(found, LiveModel):
            found.close()
            found = found.model
        assert found == {"n": 2} or found.name == B
    assert saved.load_model(path_of(saved, A)) == {"n": 1}
    assert saved.get_latest_model_path() == str(path_of(saved, B))
    assert saved.get_latest_model_path(source="registry") is not None
    assert saved.verify() == []
    assert saved.check().status == "ok"
    assert saved.sync(dry_run=True).failed == {}


@pytest.mark.parametrize("signs", [True, False], ids=["own key", "old signatures"])
def test_bytes_replaced_in_every_folder_database_and_tag_are_not_unpickled(
    saved: ModelManager, host: Host, base_dir: Path, *, signs: bool
) -> None:
    path = path_of(saved, B)
    calls = ways(saved, path, B)
    forging.replace_everywhere(base_dir, path, host.evil(), host.attacker_key if signs else None)
    for statement in forging.statements_in(base_dir) if signs else ():
        if parse_statement(statement.read_bytes()).name == B:
            digest = forging.sha256_of(host.evil())
            forging.change_statement(statement, sha256=digest, size=len(host.evil()))
    if signs:
        forging.sign_all(base_dir, host.attacker_key)
    all_refused(calls, host)
    with pytest.raises(SignatureError):
        saved.get_latest_model_path()
    with pytest.raises(SignatureError):
        saved.latest(source="registry", download=True)
    kinds = {finding.kind for finding in saved.verify()}
    assert ("unknown key" if signs else "bad signature") in kinds
    assert saved.check().status == "critical"
    assert not host.mark.exists()


@pytest.mark.parametrize("what", ["bytes", "metadata"])
def test_what_was_changed_since_it_was_signed_is_not_signed_again(
    saved: ModelManager, host: Host, base_dir: Path, what: str
) -> None:
    path = path_of(saved, B)
    signed = {pair: pair.read_bytes() for pair in (base_dir / "mlflow" / "signatures").iterdir()}
    if what == "bytes":
        forging.replace_everywhere(base_dir, path, host.evil(), None)
    else:
        (record,) = (base_dir / "mlflow" / "sent").glob(f"*{B}*.json")
        kept = parse(record.read_bytes()).payload.metadata
        forging.edit_record(record, metadata=kept | {"n": 3})
        forging.edit_json(base_dir / "metadata" / f"{B}_metadata.json", n=3)
    for pair, content in signed.items():
        pair.write_bytes(content)
    fresh = ModelManager(base_dir)
    with pytest.raises(SignatureError) as caught:
        fresh.load_model(path)
    assert "sign(" not in str(caught.value)
    assert not [f for f in fresh.verify() if f.fix is not None and f.fix.verb == "sign"]
    with pytest.raises(SignatureError, match="signed something else"):
        fresh.sign(B)
    assert {pair: pair.read_bytes() for pair in signed} == signed
    with pytest.raises(SignatureError):
        fresh.load_model(path)
    assert not host.mark.exists()


def test_the_attackers_bytes_are_unpickled_where_any_are_trusted(
    saved: ModelManager, host: Host, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attack works: without it, the refusals would show nothing."""
    path = path_of(saved, B)
    forging.replace_everywhere(base_dir, path, host.evil(), host.attacker_key)
    monkeypatch.setenv("LOTTO_TRUST", "known")
    saved.load_model(path)
    assert host.mark.exists()


@pytest.mark.parametrize(
    "attack",
    ["stripped", "no statement", "other statement", "cut off", "empty", "a link", "huge", "json"],
)
def test_a_signature_that_is_missing_or_none_is_a_bad_one(
    saved: ModelManager, host: Host, base_dir: Path, attack: str
) -> None:
    path = path_of(saved, B)
    calls = ways(saved, path, B)
    statement, signature = signatures_of(base_dir, B)
    content = signature.read_bytes()
    if attack == "stripped":
        signature.unlink()
    elif attack == "no statement":
        statement.unlink()
    elif attack == "other statement":
        statement.write_bytes(signatures_of(base_dir, A)[0].read_bytes())
    elif attack == "a link":
        signature.rename(host.top / "kept.sig")
        signature.symlink_to(host.top / "kept.sig")
    else:
        other = {"cut off": content[:-9], "empty": b"", "huge": b" " * (1 << 20), "json": b"{}"}
        signature.write_bytes(other[attack])
    all_refused(calls, host)
    (finding,) = [f for f in saved.verify() if f.path == path]
    assert finding.kind == (
        "unsigned" if attack in ("stripped", "no statement") else "bad signature"
    )
    assert finding.fix is not None
    assert finding.fix.verb == "sign"
    if attack == "a link":
        signature.unlink()
    saved.sign(B)
    assert saved.verify() == []
    assert saved.load_model(path) == {"n": 2}


def test_metadata_in_a_record_that_are_not_those_signed_are_not_shown(
    saved: ModelManager, base_dir: Path
) -> None:
    (record,) = (base_dir / "mlflow" / "sent").glob(f"*{B}*.json")
    signed = parse(record.read_bytes()).payload.metadata
    forging.edit_record(record, metadata=signed | {"n": 3})
    with LiveModel(manager=ModelManager(base_dir)) as live:
        assert live.model == {"n": 2}
        assert live.record.metadata == signed


def test_two_signed_models_cannot_be_swapped(
    saved: ModelManager, host: Host, base_dir: Path
) -> None:
    """Their bytes, their metadata and their signatures are changed for each other."""
    a, b = path_of(saved, A), path_of(saved, B)
    calls = {
        **{f"a by {way}": call for way, call in ways(saved, a, A).items() if way == "path"},
        **{f"b by {way}": call for way, call in ways(saved, b, B).items() if way == "path"},
        "newest": lambda: LiveModel(manager=saved),
        "latest path": saved.get_latest_model_path,
    }
    swap(a, b)
    swap(base_dir / "metadata" / f"{A}_metadata.json", base_dir / "metadata" / f"{B}_metadata.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forging, "_TEXTS", (".json",))
        for record in (base_dir / "mlflow" / "sent").glob("*.json"):
            record.unlink()  # which would show that the digests are others
    all_refused(calls, host)
    for one, other in zip(signatures_of(base_dir, A), signatures_of(base_dir, B), strict=True):
        swap(one, other)
    all_refused(calls, host)


def swap(one: Path, other: Path) -> None:
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])


def test_a_signed_model_under_another_name_or_registered_model_is_refused(
    saved: ModelManager, host: Host, base_dir: Path
) -> None:
    a = path_of(saved, A)
    other = a.with_name("other.pkl")
    shutil.copy2(a, other)
    newest = a.with_name("lotto_model_zzz.pkl")
    shutil.copy2(a, newest)
    os.utime(newest)
    for name in ("other", "lotto_model_zzz"):
        shutil.copy2(
            base_dir / "metadata" / f"{A}_metadata.json",
            base_dir / "metadata" / f"{name}_metadata.json",
        )
    all_refused(
        {
            "other": lambda: saved.load_model(other),
            "newest": lambda: LiveModel(manager=saved),
            "latest": saved.get_latest_model_path,
        },
        host,
    )
    assert {f.name for f in saved.verify() if f.kind == "bad signature"} <= {
        "other",
        "lotto_model_zzz",
    }


@pytest.mark.parametrize("change", ["changed", "removed", "added", "a link", "of another save"])
def test_metadata_that_are_not_those_signed_keep_a_model_out(
    host: Host, manager: ModelManager, base_dir: Path, change: str
) -> None:
    metadata = None if change == "added" else {"n": 1}
    path = Path(manager.save_model({"n": 1}, A, metadata))
    manager.save_model({"n": 3}, B, {"n": 3})
    beside = base_dir / "metadata" / f"{A}_metadata.json"
    if change == "removed":
        beside.unlink()
    elif change == "a link":
        beside.rename(host.top / "kept.json")
        beside.symlink_to(host.top / "kept.json")
    elif change == "changed":
        forging.edit_json(beside, n=2)
    else:
        shutil.copy(base_dir / "metadata" / f"{B}_metadata.json", beside)
    all_refused(
        {
            "path": lambda: manager.load_model(path),
            "version": lambda: manager.load_model("models:/lotto_model/1"),
        },
        host,
    )
    assert "bad signature" in {f.kind for f in manager.verify() if f.name == A}


@pytest.mark.parametrize("knows", [True, False], ids=["with records", "without records"])
@pytest.mark.parametrize("file", ["requirements.txt", f"{B}_metadata.json"])
def test_requirements_and_metadata_in_mlflow_are_those_signed(
    saved: ModelManager, host: Host, base_dir: Path, file: str, *, knows: bool
) -> None:
    record = saved.get(B)
    reader = saved if knows else _without_records(saved, base_dir, host.top / "reader")
    uri = f"models:/lotto_model/{record.version}"
    assert reader.load_model(uri) == {"n": 2}
    top = Path(reader.verify.__self__._folder.layout.mlflow_dir)  # type: ignore[attr-defined]
    (path,) = [p for p in (top / "artifacts").rglob(file) if is_of(p, record)]
    path.write_text(path.read_text().replace('"n": 2', '"n": 3') + "\nevil==1\n")
    all_refused(
        {
            "version": lambda: reader.load_model(uri),
            "latest": lambda: reader.load_model(LATEST),
            "live": lambda: LiveModel("models:/lotto_model@champion", manager=reader),
        },
        host,
    )


def is_of(path: Path, record: Any) -> bool:
    return bool({record.run_id, record.model_id} & set(path.parts))


def _without_records(manager: ModelManager, base_dir: Path, to: Path) -> ModelManager:
    """Return a manager of a copy of a folder, of which only the store in it is left."""
    forging.copied(base_dir, to)
    for name in ("trained", "metadata", "backups", "mlflow/sent", "mlflow/signatures"):
        shutil.rmtree(to / name, ignore_errors=True)
    reader = ModelManager(to)
    reader.relocate()
    return reader


def test_a_store_in_the_folder_proves_its_versions_itself_where_no_record_does(
    saved: ModelManager, host: Host, base_dir: Path
) -> None:
    reader = _without_records(saved, base_dir, host.top / "reader")
    assert reader.load_model(LATEST) == {"n": 2}
    for signature in (host.top / "reader" / "mlflow" / "artifacts").rglob("*.sig"):
        signature.unlink()
    version = saved.get(B).version
    all_refused(
        {
            "latest": lambda: reader.load_model(LATEST),
            "version": lambda: reader.load_model(f"models:/lotto_model/{version}"),
            "alias": lambda: reader.load_model("models:/lotto_model@champion"),
            "path": lambda: reader.get_latest_model_path(source="registry"),
            "restore": lambda: reader.restore(B, source="registry"),
        },
        host,
    )


def test_a_restored_version_is_trusted_by_its_path_from_then_on(
    saved: ModelManager, host: Host, base_dir: Path
) -> None:
    reader = _without_records(saved, base_dir, host.top / "reader")
    record = reader.restore(B, source="registry")
    assert reader.load_model(str(record.path)) == {"n": 2}
    assert reader.sync().failed == {}


def test_an_earlier_copy_of_the_whole_folder_is_not_the_latest(
    host: Host, manager: ModelManager, base_dir: Path
) -> None:
    manager.save_model({"n": 1}, A, {"n": 1})
    manager.promote(A)
    copy = forging.copied(base_dir, host.top / "copy")
    manager.save_model({"n": 2}, B, {"n": 2})
    live = LiveModel(manager=manager, every_seconds=3600)
    assert live.model == {"n": 2}
    forging.put_back(copy, base_dir)
    fresh = ModelManager(base_dir)
    latest = {
        "live": lambda: LiveModel(manager=fresh),
        "live latest": lambda: LiveModel(LATEST, manager=fresh),
        "latest path": fresh.get_latest_model_path,
        "latest": fresh.latest,
        "registry": lambda: fresh.latest(source="registry"),
        "registry path": lambda: fresh.get_latest_model_path(source="registry"),
        "load": lambda: fresh.load_model(LATEST),
        "restore": lambda: fresh.restore(LATEST, source="registry"),
        "stale": lambda: fresh.load_model(LATEST, stale_ok=True),
    }
    all_refused(latest, host)
    assert not live.refresh()
    assert live.model == {"n": 2}
    assert "rolled back" in str(live.problem)
    live.close()
    # what is asked for by its path, its number or its alias is not concerned
    assert fresh.load_model(base_dir / "trained" / f"{A}.pkl") == {"n": 1}
    assert fresh.load_model("models:/lotto_model/1") == {"n": 1}
    assert fresh.load_model("models:/lotto_model@champion") == {"n": 1}
    found = [f for f in fresh.verify() if f.kind == "rolled back"]
    assert len(found) == 2  # on disk, and in MLflow
    assert {f.fix.verb for f in found if f.fix} == {"trust"}
    assert fresh.check().status == "critical"
    assert [record.name for record in fresh.trust("lotto_model")] == [A, A]
    assert fresh.load_model(LATEST) == {"n": 1}
    assert fresh.get_latest_model_path() == str(base_dir / "trained" / f"{A}.pkl")
    assert fresh.verify() == []


def test_a_registry_that_was_rolled_back_is_noticed_where_the_disk_was_not(
    host: Host, manager: ModelManager, base_dir: Path
) -> None:
    manager.save_model({"n": 1}, A, {"n": 1})
    database = base_dir / "mlflow" / "mlflow.db"
    shutil.copy2(database, host.top / "old.db")
    manager.save_model({"n": 2}, B, {"n": 2})
    shutil.copy2(host.top / "old.db", database)
    shutil.rmtree(base_dir / "mlflow" / "sent")
    fresh = ModelManager(base_dir)
    all_refused(
        {
            "load": lambda: fresh.load_model(LATEST),
            "live": lambda: LiveModel(LATEST, manager=fresh),
            "path": lambda: fresh.get_latest_model_path(source="registry"),
        },
        host,
    )
    assert fresh.get_latest_model_path() == str(base_dir / "trained" / f"{B}.pkl")


def test_another_registered_model_has_a_latest_of_its_own(
    host: Host, manager: ModelManager, base_dir: Path
) -> None:
    manager.save_model({"n": 1}, "other", {"n": 1})
    copy = forging.copied(base_dir, host.top / "copy")
    manager.save_model({"n": 2}, "other", {"n": 2})
    manager.save_model({"n": 3}, A, {"n": 3})
    assert manager.load_model("models:/other/latest") == {"n": 2}
    assert manager.load_model(LATEST) == {"n": 3}
    forging.put_back(copy, base_dir)
    fresh = ModelManager(base_dir)
    all_refused(
        {
            "load": lambda: fresh.load_model("models:/other/latest"),
            "restore": lambda: fresh.restore("other", source="registry"),
        },
        host,
    )
    assert [record.version for record in fresh.trust("other")] == [1]
    assert fresh.load_model("models:/other/latest") == {"n": 1}


def test_a_file_of_another_save_of_its_name_is_loaded_whole_or_not_at_all(
    host: Host, manager: ModelManager, base_dir: Path
) -> None:
    path = Path(manager.save_model({"n": 1}, A, {"n": 1}))
    old, old_metadata = path.read_bytes(), (base_dir / "metadata" / f"{A}_metadata.json")
    kept = old_metadata.read_bytes()
    manager.save_model({"n": 2}, A, {"n": 2})
    path.write_bytes(old)
    with pytest.raises(SignatureError, match="metadata"):
        manager.load_model(path)  # the old bytes with the new metadata
    old_metadata.write_bytes(kept)
    assert manager.load_model(path) == {"n": 1}  # that older save, whole, as it was asked for
    with pytest.raises(SignatureError, match="rolled back"):
        LiveModel(manager=manager)


def test_a_file_without_metadata_is_the_latest_only_with_the_bytes_that_were_saved_last(
    host: Host, manager: ModelManager, base_dir: Path
) -> None:
    path = Path(manager.save_model({"n": 1}, A))
    old = path.read_bytes()
    manager.save_model({"n": 2}, A)
    assert manager.get_latest_model_path() == str(path)
    assert path.stat().st_size == len(old)
    path.write_bytes(old)
    for latest in (manager.get_latest_model_path, lambda: LiveModel(manager=manager)):
        with pytest.raises(SignatureError, match="rolled back"):
            latest()
    path.write_bytes(old[:-1] + b"x")
    with pytest.raises(SignatureError, match="SHA-256"):
        manager.get_latest_model_path()


def test_what_was_remembered_of_an_alias_is_checked_as_well(
    saved: ModelManager, host: Host, base_dir: Path
) -> None:
    alias = "models:/lotto_model@champion"
    assert saved.load_model(LATEST) == saved.load_model(alias) == {"n": 2}
    first = saved.get(A)
    aliases = base_dir / "mlflow" / "aliases.json"
    noted = json.loads(aliases.read_text())
    for seen in noted["stores"]["embedded"]["lotto_model"].values():
        seen |= {
            "name": A,
            "version": first.version,
            "save_id": first.save_id,
            "sha256": first.sha256,
            "saved_at_ns": first.saved_at_ns,
            "run_id": first.run_id,
            "model_id": first.model_id,
        }
    aliases.write_text(json.dumps(noted))
    (base_dir / "mlflow" / "mlflow.db").write_bytes(b"no database")
    fresh = ModelManager(base_dir)
    with pytest.raises(SignatureError, match="rolled back"):
        fresh.load_model(LATEST, stale_ok=True)
    assert fresh.load_model(alias, stale_ok=True) == {"n": 1}  # signed, and nobody's latest
    forging.strip(base_dir)
    with pytest.raises(SignatureError):
        fresh.load_model(alias, stale_ok=True)


def test_bytes_that_are_swapped_after_the_lookup_are_refused(
    saved: ModelManager, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a lookup found, the bytes that are unpickled are those that are verified."""
    from lotto_mlflow.operations import versions

    path = path_of(saved, B)
    evil = host.evil()
    original = versions.path_to_load

    def swapping(*arguments: Any) -> Any:
        found = original(*arguments)
        status = path.stat()
        path.write_bytes(evil)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return found

    monkeypatch.setattr(versions, "path_to_load", swapping)
    try:
        found = saved.load_model(LATEST)
    except LottoMlflowError:
        found = {"n": 2}
    assert found == {"n": 2}
    assert not host.mark.exists()


def test_an_attackers_file_is_neither_restored_nor_sent_nor_brought_in(
    saved: ModelManager, host: Host, base_dir: Path
) -> None:
    evil, trained = host.evil(), base_dir / "trained"
    (trained / "lotto_model_evil.pkl").write_bytes(evil)
    (base_dir / "backups" / f"{A}.pkl").write_bytes(evil)
    reports = [saved.sync(dry_run=True), saved.sync(), saved.sync(include_backups=True)]
    for report in reports:
        assert report.sent == []
        assert "not what a trusted key signed" in report.failed["lotto_model_evil"]
    calls = {
        "restore": lambda: saved.restore(A),
        "path": lambda: saved.load_model(trained / "lotto_model_evil.pkl"),
        "live": lambda: LiveModel(manager=saved),
    }
    found = refusals(calls)
    assert set(found.values()) == {"SignatureError"}
    assert not host.mark.exists()
    assert saved.load_model(path_of(saved, A)) == {"n": 1}
    (unsigned,) = [
        f for f in saved.verify() if f.name == "lotto_model_evil" and f.kind == "unsigned"
    ]
    assert unsigned.fix is not None
    assert "LOTTO_TRUST=any" in unsigned.repair


@pytest.mark.parametrize("part", ["model", "metadata", "signature"])
def test_a_backup_is_restored_as_it_was_signed_or_not_at_all(
    host: Host, manager: ModelManager, base_dir: Path, part: str
) -> None:
    manager.save_model({"n": 1}, A, {"n": 1})
    statement = signatures_of(base_dir, A)[0]
    manager.save_model({"n": 2}, A, {"n": 2})
    shutil.rmtree(base_dir / "mlflow" / "sent")
    before = (base_dir / "trained" / f"{A}.pkl").read_bytes()
    if part == "model":
        (base_dir / "backups" / f"{A}.pkl").write_bytes(host.evil())
    elif part == "metadata":
        forging.edit_json(base_dir / "backups" / f"{A}_metadata.json", n=3)
    else:
        statement.with_suffix(".sig").unlink()
    with pytest.raises(SignatureError, match="nothing was changed"):
        manager.restore(A)
    assert (base_dir / "trained" / f"{A}.pkl").read_bytes() == before
    assert not host.mark.exists()


def test_a_backup_that_is_as_it_was_signed_is_restored_without_its_record(
    host: Host, manager: ModelManager, base_dir: Path
) -> None:
    path = manager.save_model({"n": 1}, A, {"n": 1})
    manager.save_model({"n": 2}, A, {"n": 2})
    shutil.rmtree(base_dir / "mlflow" / "sent")
    manager.restore(A)
    assert manager.load_model(path) == {"n": 1}


def test_a_save_is_sent_only_if_a_trusted_key_signed_what_its_record_says(
    host: Host, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = ModelManager(base_dir, mirror="off")
    off.save_model({"n": 1}, A, {"n": 1})
    monkeypatch.delenv("LOTTO_SIGNING_KEY")
    off.save_model({"n": 2}, B, {"n": 2})
    host.hold(monkeypatch)
    off.save_model({"n": 3}, "lotto_model_c", {"n": 3})
    (record,) = (base_dir / "mlflow" / "outbox").glob("*lotto_model_c*.json")
    description = parse(record.read_bytes()).payload.description
    evil = replace(description, requirements=["evil==1", *description.requirements])
    forging.edit_record(record, description=evil)
    on = ModelManager(base_dir)
    report = on.sync()
    assert report.sent == [A]
    assert set(report.failed) == {B, "lotto_model_c"}
    assert report.fixes[B].verb == "sign"
    assert len(list((base_dir / "mlflow" / "outbox").glob("*.json"))) == 2
    assert not on.flush(30)  # the thread that pushes refuses them, too
    on.sign(B)
    assert on.sync().sent == [B]


def test_a_file_whose_record_is_gone_keeps_the_save_and_the_version_that_were_signed(
    saved: ModelManager, host: Host, base_dir: Path
) -> None:
    before = {name: saved.get(name) for name in (A, B)}
    shutil.rmtree(base_dir / "mlflow" / "sent")
    fresh = ModelManager(base_dir)
    report = fresh.sync()
    assert report.failed == {}
    assert sorted(report.found) == [A, B]
    assert report.sent == []
    for name, record in before.items():
        found = fresh.get(name)
        assert (found.save_id, found.version) == (record.save_id, record.version)
        assert fresh.load_model(f"models:/lotto_model/{record.version}") == {
            "n": int(record.metrics["n"])
        }
    assert len(fresh.records(source="registry")) == 2


def test_a_migration_takes_along_what_is_signed_and_reports_the_rest(
    saved: ModelManager, host: Host, base_dir: Path, tmp_path: Path
) -> None:
    signatures_of(base_dir, A)[1].unlink()
    report = saved.migrate(f"sqlite:///{tmp_path / 'other.db'}")
    assert report.sent == [B]
    assert "not what a trusted key signed" in report.failed[A]


@pytest.mark.parametrize("key", ["removed", "added"])
def test_keys_are_rotated_by_their_files(
    saved: ModelManager, host: Host, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, trusted = path_of(saved, B), host.top / "trusted"
    shutil.copy(host.top / "attacker.key.pub", trusted / "second.pub")
    assert saved.load_model(path) == {"n": 2}
    monkeypatch.setenv("LOTTO_SIGNING_KEY", str(host.top / "attacker.key"))
    newer = saved.save_model({"n": 3}, "lotto_model_c", {"n": 3})
    (trusted / ("own.pub" if key == "removed" else "second.pub")).unlink()
    refused, loaded = (path, newer) if key == "removed" else (newer, path)
    with pytest.raises(SignatureError, match="not trusted") as raised:
        saved.load_model(refused)
    assert raised.value.data["problem"] == "unknown key"
    assert saved.load_model(loaded) in ({"n": 2}, {"n": 3})
    assert "unknown key" in {finding.kind for finding in saved.verify()}


@pytest.mark.parametrize("trust", ["any", "known"])
def test_nothing_is_asked_of_signatures_where_others_are_trusted_too(
    saved: ModelManager, host: Host, base_dir: Path, trust: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forging.strip(base_dir)
    monkeypatch.setenv("LOTTO_TRUST", trust)
    for reference in (path_of(saved, B), LATEST, "models:/lotto_model/1"):
        saved.load_model(reference)
    assert saved.verify() == []
    with pytest.raises(SettingsError, match="signatures are not asked for"):
        saved.trust("lotto_model")


def test_without_keys_the_library_is_not_imported(tmp_path: Path, manager: ModelManager) -> None:
    code = (
        "import sys\nfrom lotto_mlflow import ModelManager\n"
        f"manager = ModelManager({str(tmp_path / 'plain')!r}, mirror='off')\n"
        "path = manager.save_model({'n': 1}, 'lotto_model_a', {'n': 1})\n"
        "manager.load_model(path); manager.get_latest_model_path(); manager.check()\n"
        "print([m for m in ('model_signing', 'OpenSSL', 'cryptography') if m in sys.modules])"
    )
    import subprocess

    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_this_host_has_seen_must_not_lie_among_the_models(
    saved: ModelManager, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOTTO_STATE_DIR", str(base_dir / "state"))
    for call in (saved.get_latest_model_path, lambda: saved.load_model(LATEST)):
        with pytest.raises(SettingsError, match="LOTTO_STATE_DIR"):
            call()


def test_a_damaged_state_keeps_the_latest_out_until_it_is_accepted(
    saved: ModelManager, host: Host
) -> None:
    (state,) = (host.top / "state" / "seen").glob("*.json")
    state.write_text("{}")
    for call in (
        saved.get_latest_model_path,
        lambda: saved.load_model(LATEST),
        lambda: LiveModel(manager=saved),
    ):
        with pytest.raises(StoreError, match="damaged"):
            call()
    assert saved.load_model(path_of(saved, B)) == {"n": 2}
    assert state.name in {f.path.name for f in saved.verify() if f.path}
    saved.trust("lotto_model")
    assert saved.load_model(LATEST) == {"n": 2}


def test_a_state_that_cannot_be_written_is_warned_of_once(
    saved: ModelManager, host: Host, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    (host.top / "full").mkdir()
    (host.top / "full" / "seen").symlink_to(host.top)  # not even root writes through it
    monkeypatch.setenv("LOTTO_STATE_DIR", str(host.top / "nowhere"))
    (host.top / "nowhere").mkdir()
    (host.top / "nowhere" / "seen").mkdir()
    (host.top / "nowhere" / "seen" / "seen.lock").mkdir()
    with caplog.at_level(logging.WARNING, "lotto_mlflow"):
        assert saved.load_model(LATEST) == {"n": 2}
        assert saved.get_latest_model_path() == str(path_of(saved, B))
    assert [r.message for r in caplog.records if "rollback" in r.message] != []
    assert len([r for r in caplog.records if "rollback" in r.message]) == 1


def test_accepting_what_no_trusted_key_signed_is_refused(
    saved: ModelManager, host: Host, base_dir: Path
) -> None:
    forging.strip(base_dir)
    with pytest.raises(SignatureError):
        saved.trust("lotto_model")
    with pytest.raises(ModelNotFoundError):
        saved.trust("nothing")


def test_the_command_accepts_a_step_back(host: Host, manager: ModelManager, base_dir: Path) -> None:
    manager.save_model({"n": 1}, A, {"n": 1})
    copy = forging.copied(base_dir, host.top / "copy")
    manager.save_model({"n": 2}, B, {"n": 2})
    forging.put_back(copy, base_dir)
    base = ["--base-dir", str(base_dir)]
    refused = CliRunner().invoke(app, ["latest", *base])
    assert refused.exit_code == 1
    assert "lotto-mlflow" in refused.output
    assert "trust --accept lotto_model" in refused.output
    done = CliRunner().invoke(app, ["trust", "--accept", "lotto_model", *base])
    assert done.exit_code == 0, done.output
    assert done.output.count(A) == 2
    (printed, _) = json.loads(
        CliRunner().invoke(app, ["trust", "--accept", A, "--json", *base]).stdout
    )
    assert tuple(printed) == KEYS["trust"]
    assert CliRunner().invoke(app, ["latest", *base]).exit_code == 0
    assert CliRunner().invoke(app, ["check", *base]).exit_code == 0


def test_saves_under_way_make_nothing_look_rolled_back_or_unsigned(
    host: Host, base_dir: Path
) -> None:
    manager = ModelManager(base_dir, mirror="off")
    path = manager.save_model({"n": 0}, A, {"n": 0})

    def save() -> None:
        for number in range(1, 13):
            ModelManager(base_dir, mirror="off").save_model({"n": number}, A, {"n": number})

    saving = threading.Thread(target=save)
    saving.start()
    try:
        while saving.is_alive():
            manager.load_model(path)
            assert manager.get_latest_model_path() == path
            LiveModel(manager=manager, every_seconds=3600).close()
    finally:
        saving.join()
    assert manager.load_model(path) == {"n": 12}


class Attacker:
    """An object during whose pickling somebody writes over the beginning of the staged file."""

    def __init__(self, tmp_dir: Path, evil: bytes) -> None:
        self.tmp_dir, self.evil = tmp_dir, evil

    def __reduce__(self) -> tuple[Any, ...]:
        staged = [path for path in self.tmp_dir.rglob("*") if path.is_file()]
        for path in staged:
            if path.stat().st_size >= len(self.evil):
                with path.open("r+b") as file:
                    file.write(self.evil)
        return dict, ()


def test_bytes_that_others_write_into_a_model_while_it_is_saved_are_not_signed(
    host: Host, manager: ModelManager, base_dir: Path
) -> None:
    """What is hashed, and signed, is what was pickled, and not what lies in the folder by then."""
    attacker = Attacker(base_dir / "mlflow" / "tmp", host.evil())
    path = Path(manager.save_model({"large": "x" * 5_000_000, "attacker": attacker}, A))
    assert path.read_bytes().startswith(host.evil())
    all_refused({"path": lambda: manager.load_model(path)}, host)


def test_a_clock_in_the_folder_that_was_set_ahead_makes_no_save_the_latest_for_years(
    host: Host, saved: ModelManager, base_dir: Path
) -> None:
    """The time of a save is later than all before it, which whoever writes there may change."""
    clock = base_dir / "mlflow" / "clock"
    ahead_ns = time.time_ns() + 10 * 365 * 86_400 * 10**9
    os.utime(clock, ns=(ahead_ns, ahead_ns))
    path = saved.save_model({"n": 3}, "lotto_model_ahead", {"n": 3})
    assert saved.load_model(path) == {"n": 3}
    with pytest.raises(SignatureError, match="which has not come by this host's clock"):
        saved.latest()
    with pytest.raises(SignatureError, match="which has not come"):
        saved.load_model(LATEST)
    with pytest.raises(SignatureError, match="which has not come"):
        saved.trust("lotto_model")  # it would be the newest that was seen, for years
    found = [finding for finding in saved.verify() if finding.kind == "bad signature"]
    assert len(found) == 2  # on disk, and in MLflow
    assert all(str(clock) in one.repair for one in found)
    assert saved.check().status == "critical"
    clock.unlink()  # as the error advises
    saved.delete("lotto_model_ahead", reason="of a wrong clock", dry_run=False)
    assert saved.trust("lotto_model")
    path = saved.save_model({"n": 4}, "lotto_model_later", {"n": 4})
    assert saved.load_model(saved.latest().path) == {"n": 4}


@pytest.mark.parametrize("name", ["LOTTO_TRUSTED_KEYS", "LOTTO_SIGNING_KEY"])
def test_a_setting_of_keys_that_is_empty_is_no_way_to_go_without(
    saved: ModelManager, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = path_of(saved, A)
    monkeypatch.setenv(name, "")
    with pytest.raises(SettingsError, match=f"{name} is set, and is empty"):
        saved.load_model(path)
