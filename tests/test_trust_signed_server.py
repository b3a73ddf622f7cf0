"""A host that only reads, over a tracking server: what lies beside a version proves whose it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forging
import pytest
from forging import Host
from mlflow import MlflowClient
from serving import tracking_server

from lotto_mlflow import LiveModel, ModelManager
from lotto_mlflow.errors import LottoMlflowError, MirrorUnavailableError, SignatureError
from lotto_mlflow.records import ModelRecord
from lotto_mlflow.trusted import forget

A, B = "lotto_model_a", "lotto_model_b"
LATEST, ALIAS = "models:/lotto_model/latest", "models:/lotto_model@champion"


@dataclass
class Served:
    """A server with two signed models, its files, and a reading host for each test."""

    uri: str
    top: Path
    host: Host
    records: dict[str, ModelRecord]

    @property
    def database(self) -> Path:
        return self.top / "server.db"

    @property
    def artifacts(self) -> Path:
        return self.top / "artifacts"

    def folder_of(self, name: str) -> Path:
        """Return the folder of a logged model, as the server keeps it."""
        (found,) = self.artifacts.rglob(f"{self.records[name].model_id}/artifacts")
        return found


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[Served]:
    top = tmp_path_factory.mktemp("served")
    shutil.copyfile(migrated_database, top / "server.db")
    with (
        pytest.MonkeyPatch.context() as patch,
        tracking_server(top / "server.db", top / "artifacts") as uri,
    ):
        host = Host.at(top / "host", patch)
        trainer = ModelManager(top / "trainer", tracking_uri=uri)
        for number, name in enumerate((A, B), 1):
            trainer.save_model({"n": number}, name, {"n": number})
        assert trainer.flush(300)
        trainer.promote(B)
        records = {name: trainer.get(name) for name in (A, B)}
        shutil.copyfile(top / "server.db", top / "kept.db")
        shutil.copytree(top / "artifacts", top / "kept")
        yield Served(uri, top, host, records)


@pytest.fixture
def served(serving: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The server as it was at first, and a host that trusts, and has seen nothing yet."""
    serving.host.trust(monkeypatch)
    forget()
    yield serving
    for file in (serving.top / "kept").rglob("*"):
        if file.is_file():
            target = serving.artifacts / file.relative_to(serving.top / "kept")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    serving.host.mark.unlink(missing_ok=True)


@pytest.fixture
def reader(served: Served, tmp_path: Path) -> ModelManager:
    return ModelManager(tmp_path / "reader", tracking_uri=served.uri)


def ways(reader: ModelManager) -> dict[str, Callable[[], Any]]:
    return {
        "version": lambda: reader.load_model("models:/lotto_model/2"),
        "latest": lambda: reader.load_model(LATEST),
        "alias": lambda: reader.load_model(ALIAS),
        "stale": lambda: reader.load_model(ALIAS, stale_ok=True),
        "live": lambda: LiveModel(LATEST, manager=reader),
        "live alias": lambda: LiveModel(ALIAS, manager=reader),
        "restore": lambda: reader.restore(B, source="registry"),
        "restore latest": lambda: reader.restore(LATEST, source="registry"),
        "path": lambda: reader.get_latest_model_path(source="registry"),
        "latest record": lambda: reader.latest(source="registry", download=True),
    }


def all_refused(calls: dict[str, Callable[[], Any]], host: Host, *others: type[Exception]) -> None:
    for name, call in calls.items():
        try:
            found = call()
        except (SignatureError, *others):
            assert not host.mark.exists(), name
        else:
            pytest.fail(f"{name} was not refused, and returned {found!r}")


def test_what_is_signed_is_loaded_in_every_way(reader: ModelManager, served: Served) -> None:
    for call in ways(reader).values():
        found = call()
        if isinstance(found, LiveModel):
            found.close()
            found = found.model
        assert found == {"n": 2} or B in str(found)
    assert reader.load_model(tmp := reader.get(B).path or "") == {"n": 2}, tmp
    (download,) = (reader.load_model(path) for path in reader_downloads(reader))
    assert download == {"n": 2}
    assert reader.verify() == []
    assert reader.sync(dry_run=True).failed == {}


def reader_downloads(reader: ModelManager) -> list[Path]:
    path = reader.get_latest_model_path(source="registry")
    reader.load_model("models:/lotto_model/2")
    base_dir = Path(str(path)).parents[1]
    return sorted((base_dir / "mlflow" / "downloads").rglob("*.pkl"))


@pytest.mark.parametrize(
    "attack",
    ["stripped", "own key", "of another", "requirements", "metadata", "bytes", "old signature"],
)
def test_a_version_that_is_not_as_it_was_signed_is_refused(
    reader: ModelManager, served: Served, attack: str
) -> None:
    folder, evil = served.folder_of(B), served.host.evil()
    statement = folder / "signature" / "statement.json"
    signature = folder / "signature" / "statement.sig"
    if attack == "stripped":
        signature.unlink()
    elif attack == "requirements":
        path = folder / "requirements.txt"
        path.write_text(path.read_text() + "\nevil==1\n")
    elif attack == "metadata":
        (path,) = served.artifacts.rglob(f"{B}_metadata.json")
        path.write_text(path.read_text().replace('"n": 2', '"n": 3'))
    elif attack == "of another":
        for one in (statement, signature):
            one.write_bytes((served.folder_of(A) / "signature" / one.name).read_bytes())
    else:
        old = (folder / "data" / "model.pkl").read_bytes()
        (folder / "data" / "model.pkl").write_bytes(evil)
        new = forging.sha256_of(evil)
        if attack != "bytes":
            forging.change_statement(statement, sha256=new, size=len(evil))
        if attack == "own key":
            forging.sign_all(served.artifacts, served.host.attacker_key)
        forging.replace_in_database(served.database, forging.sha256_of(old), new)
    try:
        all_refused(ways(reader), served.host)
    finally:
        if attack in ("own key", "bytes", "old signature"):
            forging.replace_in_database(served.database, new, forging.sha256_of(old))


def test_two_signed_versions_cannot_be_swapped(reader: ModelManager, served: Served) -> None:
    """Version 2 is made to lie where version 1 does, and its tags to say so."""
    a, b = served.records[A], served.records[B]
    digests = str(b.sha256), str(a.sha256)
    folder = served.folder_of(B)
    kept = folder.parent.parent / "kept"
    shutil.copytree(folder, kept)
    try:
        shutil.rmtree(folder)
        shutil.copytree(served.folder_of(A), folder)
        forging.replace_in_database(served.database, *digests)
        all_refused(ways(reader), served.host)
    finally:
        shutil.rmtree(folder)
        shutil.move(kept, folder)
        shutil.copyfile(served.top / "kept.db", served.database)


def test_a_registry_that_was_rolled_back_has_no_latest(
    reader: ModelManager, served: Served
) -> None:
    from mlflow import MlflowClient

    assert reader.load_model(LATEST) == {"n": 2}
    live = LiveModel(LATEST, manager=reader, every_seconds=3600)
    client = MlflowClient(tracking_uri=served.uri)
    shutil.copyfile(served.database, served.top / "before.db")
    try:
        client.delete_model_version("lotto_model", "2")
        calls = ways(reader)
        latest = ("latest", "live", "path", "latest record", "restore latest")
        all_refused({name: calls[name] for name in latest}, served.host)
        live.refresh()
        assert live.model == {"n": 2}
        assert "rolled back" in str(live.problem)
        assert reader.load_model("models:/lotto_model/1") == {"n": 1}
        assert [record.name for record in reader.trust("lotto_model")] == [A]
        assert reader.load_model(LATEST) == {"n": 1}
    finally:
        live.close()
        shutil.copyfile(served.top / "before.db", served.database)


def test_a_save_that_another_trainer_pushes_after_a_newer_one_is_no_rollback(
    served: Served, reader: ModelManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of a server decides, and not the times of two hosts, whose clocks may differ."""
    served.host.hold(monkeypatch)
    latest = "models:/shared/latest"
    first, second = (ModelManager(tmp_path / name, tracking_uri=served.uri) for name in "ab")
    monkeypatch.setenv("LOTTO_MIRROR", "off")
    first.save_model({"of": "first"}, "shared")
    monkeypatch.setenv("LOTTO_MIRROR", "sync")
    second.save_model({"of": "second"}, "shared")
    assert second.flush(300)
    assert reader.load_model(latest) == {"of": "second"}
    assert first.sync().failed == {}
    assert reader.load_model("models:/shared/2") == {"of": "first"}
    assert reader.load_model(latest) == {"of": "first"}
    second.save_model({"of": "second again"}, "shared")
    assert second.flush(300)
    assert reader.load_model(latest) == {"of": "second again"}
    client = MlflowClient(tracking_uri=served.uri)
    client.delete_model_version("shared", "3")  # a step back of the second trainer's saves
    client.delete_model_version("shared", "2")
    with pytest.raises(SignatureError, match="was rolled back"):
        reader.load_model(latest)


def test_a_signature_is_kept_with_a_download_and_serves_when_the_server_is_gone(
    reader: ModelManager, served: Served, tmp_path: Path
) -> None:
    assert reader.load_model(ALIAS) == {"n": 2}
    forget()
    (kept,) = (tmp_path / "reader" / "mlflow" / "downloads").rglob("*.sig")
    gone = ModelManager(tmp_path / "reader", tracking_uri="http://127.0.0.1:9")
    with pytest.raises(MirrorUnavailableError):
        gone.load_model(ALIAS)
    for download in (tmp_path / "reader" / "mlflow" / "downloads").rglob("*.pkl"):
        assert gone.load_model(download) == {"n": 2}
        kept.unlink()
        with pytest.raises(SignatureError):
            gone.load_model(download)


def test_a_download_that_was_replaced_is_refused(
    reader: ModelManager, served: Served, tmp_path: Path
) -> None:
    assert reader.load_model(ALIAS) == {"n": 2}
    evil = served.host.evil()
    downloads = tmp_path / "reader" / "mlflow" / "downloads"
    (download,) = downloads.rglob("*.pkl")
    folder = downloads / forging.sha256_of(evil)
    shutil.copytree(download.parent, folder)
    (folder / download.name).write_bytes(evil)
    for path in (folder / download.name, download):
        path.write_bytes(evil)
        with pytest.raises(LottoMlflowError):
            reader.load_model(path)
    assert not served.host.mark.exists()
    all_refused({"alias": lambda: reader.load_model(ALIAS)}, served.host, LottoMlflowError)
