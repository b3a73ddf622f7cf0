"""Verify and sync: what lies beside a version, elsewhere too, is what proves it to other hosts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import forging
import pytest
from forging import Host
from mlflow import MlflowClient
from serving import tracking_server

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import SignatureError
from lotto_mlflow.records import Finding, ModelRecord, parse, render
from lotto_mlflow.trusted import forget

NAME = "beside"
URI = f"models:/{NAME}/1"
METADATA = f"{NAME}_metadata.json"


@dataclass
class Store:
    """A tracking store that is not the embedded one, its files, and the keys of the hosts."""

    uri: str
    artifacts: Path
    host: Host


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[Store]:
    top = tmp_path_factory.mktemp("beside")
    shutil.copyfile(migrated_database, top / "server.db")
    with (
        pytest.MonkeyPatch.context() as patch,
        tracking_server(top / "server.db", top / "artifacts") as uri,
    ):
        yield Store(uri, top / "artifacts", Host.at(top / "host", patch))


@pytest.fixture
def store(served: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The server, with nothing of the tests before."""
    served.host.hold(monkeypatch)
    served.host.trust(monkeypatch)
    monkeypatch.setenv("LOTTO_STATE_DIR", str(tmp_path / "state"))
    forget()
    yield served
    client = MlflowClient(tracking_uri=served.uri)
    for registered in client.search_registered_models():
        client.delete_registered_model(registered.name)


@dataclass
class Saved:
    """A signed save that a store has, and the folder of whoever saved it."""

    manager: ModelManager
    record: ModelRecord
    artifacts: Path
    host: Host
    uri: str

    @property
    def model_dir(self) -> Path:
        (found,) = self.artifacts.rglob(f"{self.record.model_id}/artifacts")
        return found

    @property
    def metadata_path(self) -> Path:
        """Where the metadata JSON lies, or would, in the run."""
        return self.model_dir.parents[2] / str(self.record.run_id) / "artifacts" / METADATA

    def pair(self) -> tuple[Path, Path]:
        folder = self.model_dir / "signature"
        return folder / "statement.json", folder / "statement.sig"

    def findings(self) -> list[Finding]:
        return self.manager.verify(deep=True)

    def fresh(self, to: Path) -> ModelManager:
        """Return the manager of a host that knows nothing of the save, nor has seen anything."""
        forget()
        return ModelManager(to, tracking_uri=self.uri)


def saved_in(
    base_dir: Path, uri: str, artifacts: Path, host: Host, metadata: dict[str, int] | None
) -> Saved:
    manager = ModelManager(base_dir, tracking_uri=uri)
    manager.save_model({"n": 1}, NAME, metadata)
    assert manager.flush(300)
    return Saved(manager, manager.get(NAME), artifacts, host, uri)


@pytest.fixture
def saved(store: Store, tmp_path: Path) -> Saved:
    return saved_in(tmp_path / "trainer", store.uri, store.artifacts, store.host, {"n": 1})


def stripped(saved: Saved) -> None:
    saved.pair()[1].unlink()


def without_statement(saved: Saved) -> None:
    saved.pair()[0].unlink()


def without_folder(saved: Saved) -> None:
    shutil.rmtree(saved.pair()[0].parent)


def garbage(saved: Saved) -> None:
    saved.pair()[1].write_bytes(b"{}")


def no_json(saved: Saved) -> None:
    saved.pair()[0].write_bytes(b"\xff\x00")


def empty(saved: Saved) -> None:
    saved.pair()[1].write_bytes(b"")


def huge(saved: Saved) -> None:
    saved.pair()[1].write_bytes(b" " * (1 << 20))


def by_another_key(saved: Saved) -> None:
    statement, signature = saved.pair()
    signature.write_bytes(forging.sign(statement.read_bytes(), saved.host.attacker_key))


def other_statement(saved: Saved) -> None:
    forging.change_statement(saved.pair()[0], size=1)


def other_metadata(saved: Saved) -> None:
    forging.edit_json(saved.metadata_path, n=2)


def broken_metadata(saved: Saved) -> None:
    saved.metadata_path.write_bytes(b"{")


def without_metadata(saved: Saved) -> None:
    saved.metadata_path.unlink()


def other_requirements(saved: Saved) -> None:
    path = saved.model_dir / "requirements.txt"
    path.write_text(path.read_text() + "\nevil==1\n")


Attack = Callable[[Saved], None]
ATTACKS: dict[Attack, str] = {
    stripped: "unsigned",
    without_statement: "unsigned",
    without_folder: "unsigned",
    garbage: "bad signature",
    no_json: "bad signature",
    empty: "bad signature",
    huge: "bad signature",
    by_another_key: "unknown key",
    other_statement: "bad signature",
    other_metadata: "bad signature",
    broken_metadata: "bad signature",
    without_metadata: "bad signature",
    other_requirements: "bad signature",
}
of_each_attack = pytest.mark.parametrize(
    ("attack", "kind"), ATTACKS.items(), ids=[attack.__name__ for attack in ATTACKS]
)


def check_found_and_put_right(saved: Saved, kind: str, top: Path) -> None:
    with pytest.raises(SignatureError):
        saved.fresh(top / "refused").load_model(URI)
    (finding,) = [found for found in saved.findings() if found.kind == kind]
    assert finding.name == NAME
    assert finding.detail
    assert finding.fix is not None
    assert finding.fix.as_call() == "ModelManager.sync(resend=True)"
    saved.manager.sync(dry_run=True, resend=True)
    assert saved.findings(), "a dry run changes nothing"
    report = saved.manager.sync(resend=True)
    assert (report.resent, report.failed) == ([NAME], {})
    check_as_saved(saved, top)


def check_as_saved(saved: Saved, top: Path) -> None:
    assert saved.findings() == []
    assert saved.fresh(top / "fresh").load_model(URI) == {"n": 1}
    assert saved.manager.sync(resend=True).sent == []
    client = MlflowClient(tracking_uri=saved.uri)
    assert len(client.search_model_versions(f"name='{NAME}'")) == 1


@of_each_attack
def test_what_a_server_has_beside_a_version_is_verified_and_put_back(
    saved: Saved, tmp_path: Path, attack: Attack, kind: str
) -> None:
    assert saved.findings() == []
    attack(saved)
    check_found_and_put_right(saved, kind, tmp_path)


def test_metadata_that_somebody_added_to_a_save_without_any_are_found_and_put_aside(
    store: Store, tmp_path: Path
) -> None:
    saved = saved_in(tmp_path / "trainer", store.uri, store.artifacts, store.host, None)
    assert saved.findings() == []
    saved.metadata_path.parent.mkdir(parents=True, exist_ok=True)
    saved.metadata_path.write_bytes(b'{"n": 2}')
    check_found_and_put_right(saved, "bad signature", tmp_path)
    (aside,) = (tmp_path / "trainer" / "mlflow" / "aside").glob(f"{METADATA}*")
    assert aside.read_bytes() == b'{"n": 2}'


def test_without_deep_nothing_is_fetched_of_a_server(
    saved: Saved, caplog: pytest.LogCaptureFixture
) -> None:
    stripped(saved)
    assert saved.manager.verify() == []
    assert "were not looked at" in caplog.text


@pytest.mark.parametrize("attack", [stripped, other_metadata], ids=lambda a: a.__name__)
def test_a_save_whose_record_names_no_files_gets_no_second_version(
    saved: Saved, tmp_path: Path, attack: Attack
) -> None:
    """Its version was found in the store, and not pushed from here."""
    (path,) = (tmp_path / "trainer" / "mlflow" / "sent").glob(f"*{NAME}*.json")
    record = parse(path.read_bytes())
    mirrored = {name: replace(ids, files={}) for name, ids in record.mirrored.items()}
    path.write_bytes(render(replace(record, mirrored=mirrored)))
    attack(saved)
    check_found_and_put_right(saved, ATTACKS[attack], tmp_path)


@pytest.mark.parametrize("attack", [stripped, by_another_key, other_metadata])
def test_whoever_saved_a_version_verifies_it_by_what_the_registry_has(
    saved: Saved, attack: Attack
) -> None:
    assert saved.manager.verify_version(URI).statement.name == NAME
    attack(saved)
    with pytest.raises(SignatureError) as caught:
        saved.manager.verify_version(URI)
    assert caught.value.fix is not None
    assert caught.value.fix.as_call() == "ModelManager.sync(resend=True)"
    saved.manager.sync(resend=True)
    assert saved.manager.verify_version(URI).statement.name == NAME


def test_a_trainer_without_trusted_keys_puts_back_what_it_signed(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage(saved)
    other_metadata(saved)
    with monkeypatch.context() as patch:
        patch.delenv("LOTTO_TRUSTED_KEYS")
        assert saved.manager.sync(resend=True).resent == [NAME]
    check_as_saved(saved, tmp_path)


def test_a_host_that_only_reads_verifies_the_latest_anew(store: Store, tmp_path: Path) -> None:
    """What it found of a version before proves nothing of what lies there now."""
    trainer = ModelManager(tmp_path / "trainer", tracking_uri=store.uri)
    trainer.save_model({"n": 1}, "lotto_model_a", {"n": 1})
    assert trainer.flush(300)
    reader = ModelManager(tmp_path / "reader", tracking_uri=store.uri)
    assert reader.load_model("models:/lotto_model/latest") == {"n": 1}
    assert reader.verify(deep=True) == []
    record = trainer.get("lotto_model_a")
    stripped(Saved(trainer, record, store.artifacts, store.host, store.uri))
    (finding,) = reader.verify(deep=True)
    assert (finding.kind, finding.name) == ("unsigned", "lotto_model")
    assert finding.fix is not None
    assert finding.fix.before == "on the host that saved it, call"
    assert trainer.sync(resend=True).resent == ["lotto_model_a"]
    assert reader.verify(deep=True) == []


@pytest.mark.parametrize("attack", [stripped, garbage, by_another_key, other_metadata])
def test_a_database_elsewhere_is_verified_so_too(
    store: Store, tmp_path: Path, migrated_database: Path, attack: Attack
) -> None:
    database = tmp_path / "elsewhere.db"
    shutil.copyfile(migrated_database, database)
    base_dir = tmp_path / "trainer"
    saved = saved_in(
        base_dir, f"sqlite:///{database}", base_dir / "mlflow" / "artifacts", store.host, {"n": 1}
    )
    attack(saved)
    (finding,) = [one for one in saved.findings() if one.kind == ATTACKS[attack]]
    assert finding.fix is not None
    assert saved.manager.sync(resend=True).resent == [NAME]
    assert saved.findings() == []


@pytest.mark.parametrize(
    "attack", [stripped, garbage, other_metadata, broken_metadata, without_metadata, None]
)
def test_the_embedded_store_has_any_version_verified_and_put_back(
    store: Store, tmp_path: Path, attack: Attack | None
) -> None:
    """The latest, and the one before it; ``None`` is of metadata where there were none."""
    base_dir, metadata = tmp_path / "trainer", None if attack is None else {"n": 1}
    manager, uri = ModelManager(base_dir), f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"
    for number in (1, 2):
        manager.save_model({"n": number}, f"lotto_model_{number}", metadata)
    assert manager.flush(300)
    assert manager.verify() == []
    for number in (1, 2):
        record = manager.get(f"lotto_model_{number}")
        one = Saved(manager, record, base_dir / "mlflow" / "artifacts", store.host, uri)
        path = one.metadata_path.with_name(f"{record.name}_metadata.json")
        if attack in (other_metadata, broken_metadata, None):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"{" if attack is broken_metadata else b'{"n": 3}')
        elif attack is without_metadata:
            path.unlink()
        elif attack is not None:
            attack(one)
        kind = "bad signature" if attack is None else ATTACKS[attack]
        (finding,) = manager.verify()
        assert (finding.kind, finding.name) == (kind, record.name)
        assert finding.fix is not None
        assert finding.fix.as_call() == "ModelManager.sync(resend=True)"
        assert manager.sync(resend=True).resent == [record.name]
        assert manager.verify() == []
    found = MlflowClient(tracking_uri=uri).search_model_versions()
    assert len(found) == 2
