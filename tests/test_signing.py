"""Signed saves: what is signed of them, where the signatures lie, and that they go along."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from made import folder_with_store
from mlflow import MlflowClient
from typer.testing import CliRunner

from lotto_mlflow import ModelManager
from lotto_mlflow.cli import app
from lotto_mlflow.errors import (
    DigestMismatchError,
    DumpError,
    InvalidReferenceError,
    LoadError,
    ModelNotFoundError,
    SettingsError,
    StoreError,
)
from lotto_mlflow.layout import Layout
from lotto_mlflow.model_dir import SIGNATURE_FILE, STATEMENT_FILE
from lotto_mlflow.records import parse
from lotto_mlflow.requirements import plain
from lotto_mlflow.signing import (
    Pair,
    SigningKey,
    Statement,
    check_signing_key,
    new_key,
    parse_statement,
    sha256_of_requirements,
    verified,
)
from lotto_mlflow.store import commit
from lotto_mlflow.store.signatures import ids_of_pairs, read_pair

NAME = "lotto_model_서명"


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    (tmp_path / "keys").mkdir()
    new_key(tmp_path / "keys" / "sign.pem", None)
    return check_signing_key(tmp_path / "keys" / "sign.pem")


@pytest.fixture
def signing(key: SigningKey, monkeypatch: pytest.MonkeyPatch) -> SigningKey:
    """The key, with which saves are signed."""
    monkeypatch.setenv("LOTTO_SIGNING_KEY", str(key.path))
    return key


@pytest.fixture(params=["embedded", "server"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """The tracking store: the embedded one, or a server that keeps the files."""
    if request.param == "embedded":
        return None
    uri = str(request.getfixturevalue("server_uri"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pairs(base_dir: Path) -> dict[str, Pair]:
    """Return the pairs on disk by save; there is nothing else in the folder."""
    layout = Layout.under(base_dir)
    found = {save_id: read_pair(layout, save_id) for save_id in ids_of_pairs(layout)}
    names = set() if not layout.signatures_dir.exists() else set(os.listdir(layout.signatures_dir))
    assert names == {f"{save_id}{end}" for save_id in found for end in (".json", ".sig")}
    return {save_id: pair for save_id, pair in found.items() if pair is not None}


def statements(base_dir: Path, key: SigningKey) -> list[Statement]:
    """Return what the key signed, oldest save first."""
    found = pairs(base_dir)
    assert all(
        parse_statement(content).save_id == save_id for save_id, (content, _) in found.items()
    )
    return [verified(*found[save_id], key.as_trusted()) for save_id in sorted(found)]


def client_of(base_dir: Path, uri: str | None) -> MlflowClient:
    return MlflowClient(tracking_uri=uri or f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")


def in_mlflow(base_dir: Path, uri: str | None, tmp_path: Path) -> dict[str, Pair]:
    """Return the pairs beside the models in MLflow by save, as its own client downloads them."""
    client, found = client_of(base_dir, uri), {}
    for version in client.search_model_versions():
        folder = tmp_path / "downloaded" / f"{version.name}-{version.version}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        items = client.list_logged_model_artifacts(version.tags["model_id"], "signature")
        if items:
            for name in (STATEMENT_FILE, SIGNATURE_FILE):
                model = client.get_logged_model(version.tags["model_id"])
                from mlflow.artifacts import download_artifacts

                download_artifacts(
                    artifact_uri=f"{model.artifact_location}/{name}",
                    dst_path=str(folder / "signature"),
                    tracking_uri=uri,
                )
            content = (folder / STATEMENT_FILE).read_bytes()
            found[version.tags["save_id"]] = (content, (folder / SIGNATURE_FILE).read_bytes())
    return found


def test_a_save_is_signed_with_all_that_a_reader_relies_on(
    disk_manager: ModelManager, tmp_path: Path, signing: SigningKey
) -> None:
    base_dir = tmp_path / "ml"
    for number in (1, 2):
        path = Path(disk_manager.save_model({"n": number}, NAME, {"accuracy": 0.5, "note": "값"}))
    disk_manager.save_model({"n": 3}, "other")
    old, new, bare = statements(base_dir, signing)
    (record,) = [r for r in disk_manager.records(NAME) if r.name == NAME]
    metadata_path = base_dir / "metadata" / f"{NAME}_metadata.json"
    assert (new.name, new.registered_model) == (NAME, "lotto_model")
    assert (new.save_id, new.saved_at, new.saved_at_ns) == (
        record.save_id, record.saved_at, record.saved_at_ns
    )  # fmt: skip
    assert (new.sha256, new.size) == (sha256(path), path.stat().st_size)
    assert new.metadata_sha256 == sha256(metadata_path)
    assert new.signed_at is None
    (backup,) = (base_dir / "backups").glob("*.pkl")
    assert old.sha256 == sha256(backup)
    assert old.metadata_sha256 == sha256(backup.with_name(f"{backup.stem}_metadata.json"))
    assert (bare.name, bare.registered_model, bare.metadata_sha256) == ("other", "other", None)
    assert old.folder == new.folder == bare.folder
    noted = json.loads((base_dir / "mlflow" / "format.json").read_text())
    assert noted["folder"] == new.folder
    entry = next((base_dir / "mlflow" / "outbox").glob(f"{new.save_id}*"))
    needs = plain(parse(entry.read_bytes()).payload.description.requirements)
    assert needs
    assert new.requirements_sha256 == sha256_of_requirements(needs)
    assert disk_manager.load_model(path) == {"n": 2}


def test_model_signings_own_command_accepts_a_save_and_its_backup(
    disk_manager: ModelManager, tmp_path: Path, signing: SigningKey
) -> None:
    for number in (1, 2):
        disk_manager.save_model({"n": number}, NAME)
    layout = Layout.under(tmp_path / "ml")
    for save_id in pairs(tmp_path / "ml"):
        command = [sys.executable, "-m", "model_signing", "verify", "key"]
        command += ["--signature", str(layout.signature_path(save_id))]
        command += ["--public_key", f"{signing.path}.pub", str(layout.statement_path(save_id))]
        done = run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_signature_goes_with_its_save_to_mlflow(
    base_dir: Path, tmp_path: Path, signing: SigningKey, store: str | None
) -> None:
    manager = ModelManager(base_dir)
    manager.save_model({"n": 1}, NAME, {"n": 1})
    assert manager.flush(120)
    found = pairs(base_dir)
    assert len(found) == 1
    assert {i: p for i, p in in_mlflow(base_dir, store, tmp_path).items() if i in found} == found
    assert manager.verify() == []


def test_another_process_pushes_a_signature_without_the_key_and_without_the_library(
    base_dir: Path, tmp_path: Path, signing: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    ModelManager(base_dir, mirror="off").save_model({"n": 1}, NAME)
    monkeypatch.delenv("LOTTO_SIGNING_KEY")
    program = (
        "import sys; sys.modules['model_signing'] = None\n"
        "from lotto_mlflow import ModelManager\n"
        f"assert ModelManager({str(base_dir)!r}).flush(120)"
    )
    done = run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert in_mlflow(base_dir, None, tmp_path) == pairs(base_dir) != {}


@pytest.mark.parametrize("damage", ["version", "model", "loader", "signature", "link", "more"])
def test_what_sync_repairs_gets_its_signature_back(
    base_dir: Path, tmp_path: Path, signing: SigningKey, damage: str
) -> None:
    manager = ModelManager(base_dir)
    manager.save_model({"n": 1}, NAME)
    assert manager.flush(120)
    client = client_of(base_dir, None)
    (version,) = client.search_model_versions()
    (folder,) = base_dir.glob("mlflow/artifacts/lotto_model/models/*/artifacts")
    if damage == "version":
        client.delete_model_version(version.name, version.version)
    elif damage == "model":
        (folder / "data" / "model.pkl").write_bytes(b"other")
        shutil.rmtree(folder / "signature")
    elif damage == "loader":
        (folder / "MLmodel").unlink()
        (folder / STATEMENT_FILE).write_bytes(b"{}")
    elif damage == "signature":
        (folder / SIGNATURE_FILE).unlink()
    elif damage == "link":
        elsewhere = (folder / "signature").rename(tmp_path / "elsewhere")
        (folder / "signature").symlink_to(elsewhere)
    else:
        (folder / "signature" / "more").write_bytes(b"x")
    assert manager.sync(resend=True).resent == [NAME]
    assert in_mlflow(base_dir, None, tmp_path) == pairs(base_dir) != {}
    assert not (folder / "signature" / "more").exists()
    assert not (folder / "signature").is_symlink()
    assert manager.verify() == []
    assert manager.sync(resend=True).resent == []


def test_a_migration_takes_the_signatures_along(
    base_dir: Path, tmp_path: Path, signing: SigningKey, server_uri: str
) -> None:
    manager = ModelManager(base_dir)
    for number in (1, 2):
        manager.save_model({"n": number}, NAME)
    assert manager.flush(120)
    assert manager.migrate(server_uri).failed == {}
    found = pairs(base_dir)
    there = in_mlflow(base_dir, server_uri, tmp_path)
    assert {save_id: there.get(save_id) for save_id in found} == found
    assert len(found) == 2


def test_a_restore_of_another_host_brings_the_signature(
    base_dir: Path,
    tmp_path: Path,
    signing: SigningKey,
    server_uri: str,
    migrated_database: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server_uri)
    name = "모델 of another host"
    ModelManager(base_dir).save_model({"n": 1}, name, {"n": 1})
    monkeypatch.delenv("LOTTO_SIGNING_KEY")
    other_dir = folder_with_store(tmp_path / "other", migrated_database)
    other = ModelManager(other_dir)
    record = other.restore(name, source="registry")
    assert pairs(other_dir) == pairs(base_dir) != {}
    (statement,) = statements(other_dir, signing)
    assert statement.sha256 == sha256(Path(str(record.path)))
    assert statement.metadata_sha256 == sha256(other_dir / "metadata" / f"{name}_metadata.json")
    other.restore(name, source="registry")  # what is there stays
    assert pairs(other_dir) == pairs(base_dir)


def test_a_restore_that_fails_leaves_no_signature(
    base_dir: Path,
    tmp_path: Path,
    signing: SigningKey,
    server_uri: str,
    migrated_database: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server_uri)
    ModelManager(base_dir).save_model({"n": 1}, "모델 not restored")
    other_dir = folder_with_store(tmp_path / "other", migrated_database)
    monkeypatch.setattr(commit, "put", _refusing)
    with pytest.raises(StoreError, match="the model could not be restored"):
        ModelManager(other_dir).restore("모델 not restored", source="registry")
    assert pairs(other_dir) == {}


def test_a_signature_of_another_save_is_not_restored(
    base_dir: Path, tmp_path: Path, signing: SigningKey, migrated_database: Path
) -> None:
    """Whoever reaches the store can put any pair beside a model."""
    manager = ModelManager(base_dir)
    for name in ("one", "two"):
        manager.save_model({"n": name}, name)
    assert manager.flush(120)
    client = client_of(base_dir, None)
    folders = {
        v.name: base_dir / f"mlflow/artifacts/lotto_model/models/{v.tags['model_id']}/artifacts"
        for v in client.search_model_versions()
    }
    for name in (STATEMENT_FILE, SIGNATURE_FILE):
        shutil.copyfile(folders["two"] / name, folders["one"] / name)
    (folders["two"] / SIGNATURE_FILE).unlink()
    os.mkfifo(folders["two"] / SIGNATURE_FILE)
    for path in (base_dir / "mlflow").glob("*/*~*.json"):
        path.unlink()  # as on a host that has no records
    shutil.rmtree(base_dir / "mlflow" / "signatures")
    for name in ("one", "two"):
        manager.restore(name, source="registry")
    assert pairs(base_dir) == {}


def _refusing(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_save_that_fails_leaves_no_signature(
    disk_manager: ModelManager,
    tmp_path: Path,
    signing: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk_manager.save_model({"n": 1}, NAME)
    kept = pairs(tmp_path / "ml")
    with pytest.raises(DumpError):
        disk_manager.save_model(lambda: 1, NAME)
    for step in ("put", "replace_content", "sync_dir"):
        with monkeypatch.context() as patched:
            patched.setattr(commit, step, _refusing)
            with pytest.raises(StoreError, match="could not be saved"):
                disk_manager.save_model({"n": 2}, NAME, {"n": 2})
        assert pairs(tmp_path / "ml") == kept
    assert len(kept) == 1
    assert disk_manager.load_model(tmp_path / "ml" / "trained" / f"{NAME}.pkl") == {"n": 1}


@pytest.mark.parametrize("is_renamed", [False, True], ids=["before", "after"])
def test_a_save_killed_at_its_rename_has_its_signature_or_leaves_none(
    disk_manager: ModelManager, tmp_path: Path, signing: SigningKey, is_renamed: bool
) -> None:
    """The signature is there before what commits, and is removed where nothing was committed."""
    path = Path(disk_manager.save_model({"n": 1}, NAME, {"n": 1}))
    kept = pairs(tmp_path / "ml")
    program = f"""
import os
from pathlib import Path
from lotto_mlflow import ModelManager
from lotto_mlflow.store import commit
put = commit.put
def killed(*given):
    if {is_renamed}:
        put(*given)
    os._exit(9)
commit.put = killed
ModelManager(Path({str(tmp_path / "ml")!r}), mirror="off").save_model({{"n": 2}}, {NAME!r}, {{}})
"""
    done = run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    left = pairs(tmp_path / "ml")
    assert len(left) == 2
    assert all(left[save_id] == pair for save_id, pair in kept.items())
    ModelManager(tmp_path / "ml", mirror="off").save_model({"n": 3}, "next")
    signed = {one.name: one for one in statements(tmp_path / "ml", signing) if one.name == NAME}
    assert disk_manager.load_model(path) == {"n": 2 if is_renamed else 1}
    assert signed[NAME].sha256 == sha256(path)
    of_name = [one for one in statements(tmp_path / "ml", signing) if one.name == NAME]
    assert len(of_name) == (2 if is_renamed else 1)
    metadata_path = tmp_path / "ml" / "metadata" / f"{NAME}_metadata.json"
    assert signed[NAME].metadata_sha256 == sha256(metadata_path)


def test_a_folder_in_which_no_signature_can_lie_refuses_the_save(
    disk_manager: ModelManager, tmp_path: Path, signing: SigningKey
) -> None:
    disk_manager.save_model({"n": 1}, NAME)
    folder = tmp_path / "ml" / "mlflow" / "signatures"
    shutil.rmtree(folder)
    folder.symlink_to(tmp_path / "keys")
    before = sorted(os.listdir(tmp_path / "keys"))
    with pytest.raises(StoreError, match="not a folder"):
        disk_manager.save_model({"n": 2}, NAME)
    assert sorted(os.listdir(tmp_path / "keys")) == before
    assert disk_manager.load_model(tmp_path / "ml" / "trained" / f"{NAME}.pkl") == {"n": 1}


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_what_is_odd_among_the_signatures_is_found_and_moved_away(
    base_dir: Path, tmp_path: Path, signing: SigningKey, kind: str
) -> None:
    manager = ModelManager(base_dir)
    manager.save_model({"n": 1}, NAME)
    assert manager.flush(120)
    folder = base_dir / "mlflow" / "signatures"
    path = next(folder.glob("*.sig"))
    if kind == "folder":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
        path = folder
    elif kind == "link":
        path.rename(tmp_path / "kept")
        path.symlink_to(tmp_path / "kept")
    else:
        path.unlink()
        os.mkfifo(path)
    (finding,) = [f for f in manager.verify() if f.kind == "damaged"]
    assert finding.path == path
    assert finding.fix is not None
    run(finding.fix.arguments["command"], check=True)
    assert not os.path.lexists(path)
    assert manager.sign(NAME).is_new
    assert len(statements(base_dir, signing)) == 1
    assert [f for f in manager.verify() if f.kind == "damaged"] == []


def test_without_a_key_the_library_is_not_imported_and_with_one_beside_the_dump(
    tmp_path: Path, key: SigningKey
) -> None:
    program = """
import sys, threading
from pathlib import Path
importing = []
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("model_signing", "sigstore", "OpenSSL"):
            importing.append(threading.current_thread() is threading.main_thread())
sys.meta_path.insert(0, Finder())
from lotto_mlflow import ModelManager
manager = ModelManager(Path(sys.argv[1]), mirror="off")
path = manager.save_model({"a": 1}, "m")
manager.load_model(path)
assert importing == [], importing
assert not {"model_signing", "cryptography"} & set(sys.modules)
import os
os.environ["LOTTO_SIGNING_KEY"] = sys.argv[2]
manager.save_model({"a": 2}, "m")
assert "model_signing.verifying" in sys.modules
library = [is_main for is_main in importing[2:]]  # it was looked for first, whether it is there
assert library and not any(library), importing
"""
    done = run(
        [sys.executable, "-c", program, tmp_path / "ml", key.path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_library_that_is_broken_refuses_the_save_and_the_old_model_stays(
    disk_manager: ModelManager, tmp_path: Path, key: SigningKey
) -> None:
    path = disk_manager.save_model({"a": 1}, "m")
    (tmp_path / "broken" / "model_signing").mkdir(parents=True)
    (tmp_path / "broken" / "model_signing" / "__init__.py").write_text("raise RuntimeError('x')")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'broken')!r})\n"
        "from pathlib import Path\n"
        "from lotto_mlflow import ModelManager\n"
        f"ModelManager(Path({str(tmp_path / 'ml')!r}), mirror='off').save_model({{'a': 2}}, 'm')"
    )
    environment = os.environ | {"LOTTO_SIGNING_KEY": str(key.path)}
    done = run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert "SettingsError: the libraries that make and check signatures" in done.stderr
    assert disk_manager.load_model(path) == {"a": 1}
    assert pairs(tmp_path / "ml") == {}
    assert not list((tmp_path / "ml" / "mlflow" / "tmp").iterdir())


def test_the_signature_of_a_save_that_goes_goes_with_it(
    base_dir: Path, signing: SigningKey
) -> None:
    manager = ModelManager(base_dir)
    for number in range(4):
        manager.save_model({"n": number}, NAME)
    assert manager.flush(120)
    found = pairs(base_dir)
    assert len(found) == 4
    assert len(manager.prune(keep_last=2, dry_run=False).pruned) == 2
    newest = sorted(found)[2:]
    assert pairs(base_dir) == {save_id: found[save_id] for save_id in newest}
    manager.delete(3, dry_run=False)
    assert sorted(pairs(base_dir)) == newest[1:]
    assert manager.verify() == []


def test_an_old_save_is_signed_later_and_said_to_be(
    base_dir: Path,
    tmp_path: Path,
    key: SigningKey,
    store: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In MLflow, too, where it is already; and once is enough."""
    manager, name = ModelManager(base_dir), "모델 signed later"
    for number in (1, 2):
        manager.save_model({"n": number}, name, {"n": number})
    assert manager.flush(120)
    monkeypatch.setenv("LOTTO_SIGNING_KEY", str(key.path))
    assert manager.verify() == []
    report = manager.sign(name)
    assert (report.name, report.is_new, report.key) == (name, True, key.hint)
    assert (len(report.stores), report.failed) == (1, {})
    (statement,) = statements(base_dir, key)
    assert statement.signed_at == report.signed_at is not None
    assert statement.sha256 == sha256(base_dir / "trained" / f"{name}.pkl") == report.sha256
    assert statement.metadata_sha256 == sha256(base_dir / "metadata" / f"{name}_metadata.json")
    found = pairs(base_dir)
    there = in_mlflow(base_dir, store, tmp_path)
    assert {save_id: there.get(save_id) for save_id in found} == found
    assert manager.verify(deep=True) == []
    again = manager.sign(base_dir / "trained" / f"{name}.pkl")
    assert (again.is_new, again.signed_at) == (False, report.signed_at)
    assert pairs(base_dir) == found
    (backup,) = (base_dir / "backups").glob("*.pkl")
    assert manager.sign(backup).sha256 == sha256(backup)
    assert len(statements(base_dir, key)) == 2


def test_a_signature_that_a_store_has_lost_comes_back_by_signing_again(
    base_dir: Path,
    tmp_path: Path,
    signing: SigningKey,
    server_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manager = ModelManager(base_dir)
    manager.save_model({"n": 1}, NAME)
    assert manager.flush(120)
    (folder,) = base_dir.glob("mlflow/artifacts/lotto_model/models/*/artifacts")
    shutil.rmtree(folder / "signature")
    assert manager.sign(1).is_new is False
    assert in_mlflow(base_dir, None, tmp_path) == pairs(base_dir)
    shutil.move(base_dir / "mlflow" / "mlflow.db", tmp_path / "mlflow.db")
    (base_dir / "mlflow" / "mlflow.db").write_bytes(b"no database")
    report = manager.sign(NAME)
    assert (report.stores, list(report.failed)) == ([], ["embedded"])
    assert "has no signature yet" in report.failed["embedded"]


def test_a_save_that_waits_takes_a_later_signature_along(
    base_dir: Path, tmp_path: Path, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    ModelManager(base_dir, mirror="off").save_model({"n": 1}, NAME)
    monkeypatch.setenv("LOTTO_SIGNING_KEY", str(key.path))
    assert ModelManager(base_dir).sign(NAME).stores == []
    monkeypatch.delenv("LOTTO_SIGNING_KEY")
    assert ModelManager(base_dir).flush(120)
    assert in_mlflow(base_dir, None, tmp_path) == pairs(base_dir) != {}


def test_another_key_replaces_a_signature(
    disk_manager: ModelManager,
    tmp_path: Path,
    signing: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the old one is trusted, what is signed stays, so that it does not count as later."""
    disk_manager.save_model({"n": 1}, NAME)
    (before,) = pairs(tmp_path / "ml").values()
    for is_trusted in (True, False):
        path = tmp_path / "keys" / f"new {is_trusted}"
        new_key(path, None)
        monkeypatch.setenv("LOTTO_SIGNING_KEY", str(path))
        if is_trusted:
            monkeypatch.setenv("LOTTO_TRUSTED_KEYS", f"{signing.path}.pub")
            monkeypatch.setenv("LOTTO_TRUST", "any")
        report = disk_manager.sign(NAME)
        assert report.is_new
        (statement,) = statements(tmp_path / "ml", check_signing_key(path))
        assert (statement.signed_at is None) == is_trusted
        ((content, _),) = pairs(tmp_path / "ml").values()
        assert (content == before[0]) == is_trusted


def test_a_pair_that_was_changed_is_signed_anew(
    disk_manager: ModelManager, tmp_path: Path, signing: SigningKey
) -> None:
    disk_manager.save_model({"n": 1}, NAME)
    (statement,) = statements(tmp_path / "ml", signing)
    layout = Layout.under(tmp_path / "ml")
    path = layout.statement_path(statement.save_id)
    path.write_bytes(path.read_bytes().replace(b"lotto_model_", b"lotto_model-"))
    assert disk_manager.sign(NAME).is_new
    (again,) = statements(tmp_path / "ml", signing)
    assert again.name == NAME
    layout.signature_path(statement.save_id).unlink()
    assert disk_manager.sign(NAME).is_new


def test_what_is_not_as_it_was_saved_is_not_signed(
    disk_manager: ModelManager, tmp_path: Path, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(disk_manager.save_model({"n": 1}, NAME, {"n": 1}))
    monkeypatch.setenv("LOTTO_SIGNING_KEY", str(key.path))
    content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(content[:-1] + b"x")
    os.utime(path, ns=times)
    with pytest.raises(DigestMismatchError, match="nothing was signed"):
        disk_manager.sign(NAME)
    path.write_bytes(content)
    os.utime(path, ns=times)
    metadata_path = tmp_path / "ml" / "metadata" / f"{NAME}_metadata.json"
    metadata = metadata_path.read_bytes()
    metadata_path.write_bytes(metadata.replace(b'"n": 1', b'"n": 2'))
    with pytest.raises(LoadError, match="is not the metadata that was saved"):
        disk_manager.sign(NAME)
    metadata_path.write_bytes(b"no json")
    with pytest.raises(LoadError, match="is not the metadata that was saved"):
        disk_manager.sign(NAME)
    assert pairs(tmp_path / "ml") == {}
    for content in (json.dumps(json.loads(metadata)).encode(), None):
        metadata_path.unlink()
        if content is not None:  # it says the same in another way
            metadata_path.write_bytes(content)
        disk_manager.sign(NAME)
        assert metadata_path.read_bytes() == metadata
        (statement,) = statements(tmp_path / "ml", key)
        assert statement.metadata_sha256 == sha256(metadata_path)


def test_a_file_that_no_record_knows_is_not_signed_before_it_is_recorded(
    base_dir: Path, tmp_path: Path, signing: SigningKey, forest: Any
) -> None:
    import joblib

    manager = ModelManager(base_dir)
    (base_dir / "trained").mkdir()
    (base_dir / "metadata").mkdir()
    path, text = base_dir / "trained" / "old.pkl", '{"accuracy": 0.5, "saved_at": "2024-01-01"}'
    joblib.dump(forest, path)
    (base_dir / "metadata" / "old_metadata.json").write_text(text)
    with pytest.raises(ModelNotFoundError, match=r"sync.*records it"):
        manager.sign("old")
    assert manager.sync().backfilled == ["old"]
    assert manager.sign("old").is_new
    (statement,) = statements(base_dir, signing)
    assert statement.sha256 == sha256(path)
    assert statement.metadata_sha256 == sha256(base_dir / "metadata" / "old_metadata.json")
    assert json.loads((base_dir / "metadata" / "old_metadata.json").read_text()) == json.loads(text)
    assert in_mlflow(base_dir, None, tmp_path) == pairs(base_dir)


def test_what_another_host_saved_is_signed_there(
    base_dir: Path,
    tmp_path: Path,
    key: SigningKey,
    server_uri: str,
    migrated_database: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server_uri)
    ModelManager(base_dir).save_model({"n": 1}, "모델 of there")
    other = ModelManager(folder_with_store(tmp_path / "other", migrated_database))
    record = other.restore("모델 of there", source="registry")
    monkeypatch.setenv("LOTTO_SIGNING_KEY", str(key.path))
    for model in ("모델 of there", record.path, f"models:/{record.registered_model}/1"):
        with pytest.raises(InvalidReferenceError, match="sign it where it was saved"):
            other.sign(str(model))
    assert pairs(tmp_path / "other") == {}


def test_nothing_is_signed_without_a_key_or_a_model(
    disk_manager: ModelManager, signing: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in ("nothing", "/nowhere/x.pkl", "a\0b"):
        with pytest.raises(ModelNotFoundError):
            disk_manager.sign(model)
    with pytest.raises(InvalidReferenceError):
        disk_manager.sign(None)  # type: ignore[arg-type]
    monkeypatch.delenv("LOTTO_SIGNING_KEY")
    with pytest.raises(SettingsError, match="set LOTTO_SIGNING_KEY"):
        disk_manager.sign("nothing")


def test_the_command_signs_and_says_where(
    base_dir: Path, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = ModelManager(base_dir)
    manager.save_model({"n": 1}, NAME)
    assert manager.flush(120)
    monkeypatch.setenv("LOTTO_SIGNING_KEY", str(key.path))
    arguments = ["sign", NAME, "--base-dir", str(base_dir)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"signed: {NAME}")
    assert "in embedded, too" in done.output
    assert CliRunner().invoke(app, arguments).output.startswith(f"signed already: {NAME}")
    printed = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert (printed["key"], printed["is_new"]) == (key.hint, False)


def test_the_id_of_a_folder_stays_when_its_format_is_noted_anew(
    disk_manager: ModelManager, tmp_path: Path, signing: SigningKey
) -> None:
    disk_manager.save_model({"n": 1}, NAME)
    path = tmp_path / "ml" / "mlflow" / "format.json"
    noted = json.loads(path.read_text())
    path.write_text(json.dumps({**noted, "format": 1, "of others": "kept"}))
    disk_manager.save_model({"n": 2}, NAME)
    assert json.loads(path.read_text()) == {**noted, "of others": "kept"}
    path.write_text("{}")  # damaged: it is another folder from now on
    disk_manager.save_model({"n": 3}, NAME)
    assert len({statement.folder for statement in statements(tmp_path / "ml", signing)}) == 2
