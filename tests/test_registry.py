"""Latest and versions asked of the registry, and loaded from it."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import clocks
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import (
    DigestMismatchError,
    ForeignModelError,
    MirrorUnavailableError,
    ModelNotFoundError,
    PickleNotAllowedError,
)
from lotto_mlflow.mirror import version_tags


@pytest.fixture
def client(base_dir: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")


def _sha256(path: str | Path | None) -> str:
    assert path is not None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_nothing_registered_is_none_and_creates_nothing(tmp_path: Path) -> None:
    manager = ModelManager(tmp_path / "ml")
    assert manager.get_latest_model_path(source="registry") is None
    assert manager.latest(source="registry") is None
    assert not (tmp_path / "ml" / "mlflow" / "mlflow.db").exists()


def test_latest_is_the_file_in_trained_while_its_bytes_are_the_versions(
    manager: ModelManager, forest: RandomForestClassifier, regression: LogisticRegression
) -> None:
    manager.save_model(forest)
    path = manager.save_model(regression)
    assert manager.get_latest_model_path(source="registry") == path


def test_latest_is_the_artifact_when_the_file_is_gone_or_changed(
    manager: ModelManager, forest: RandomForestClassifier
) -> None:
    path = Path(manager.save_model(forest))
    digest = _sha256(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = manager.get_latest_model_path(source="registry")
    assert found is not None
    assert "artifacts" in found
    assert _sha256(found) == digest
    path.unlink()
    assert manager.get_latest_model_path(source="registry") == found
    assert manager.load_model(found).n_estimators == 5


def test_a_damaged_artifact_is_refused_before_it_is_unpickled(
    manager: ModelManager, base_dir: Path, forest: RandomForestClassifier
) -> None:
    path = Path(manager.save_model(forest))
    digest = _sha256(path)
    path.unlink()
    (artifact,) = (base_dir / "mlflow" / "artifacts").rglob("data/*.pkl")
    artifact.write_bytes(artifact.read_bytes()[:-1] + b"!")
    with pytest.raises(DigestMismatchError) as caught:
        manager.load_model("models:/lotto_model/1")
    assert str(artifact) in str(caught.value)
    assert digest in str(caught.value)
    with pytest.raises(DigestMismatchError):
        manager.load_model(artifact)
    with pytest.raises(OSError, match="was changed after it was saved"):
        mlflow.pyfunc.load_model(str(artifact.parent.parent))


def test_versions_aliases_and_latest_are_loaded_by_uri(
    manager: ModelManager,
    client: MlflowClient,
    forest: RandomForestClassifier,
    regression: LogisticRegression,
    rows: Any,
) -> None:
    manager.save_model(forest)
    manager.save_model(regression)
    client.set_registered_model_alias("lotto_model", "champion", "1")
    first = manager.load_model("models:/lotto_model/1")
    assert np.array_equal(first.predict_proba(rows[0]), forest.predict_proba(rows[0]))
    assert type(manager.load_model("models:/lotto_model@champion")) is RandomForestClassifier
    assert type(manager.load_model("models:/lotto_model/latest")) is LogisticRegression
    assert manager.get(1).aliases == ("champion",)
    assert manager.get("models:/lotto_model@champion").version == 1
    assert [record.aliases for record in manager.records()] == [(), ("champion",)]


@pytest.mark.parametrize("uri", ["models:/lotto_model/7", "models:/none/1", "models:/none/latest"])
def test_a_version_that_is_not_there_is_not_found(
    manager: ModelManager, forest: RandomForestClassifier, uri: str
) -> None:
    manager.save_model(forest)
    with pytest.raises(ModelNotFoundError, match=uri):
        manager.load_model(uri)
    with pytest.raises(FileNotFoundError):
        manager.load_model("models:/lotto_model@nobody")


@pytest.mark.parametrize("number", [0, -1, 99])
def test_a_number_that_no_version_has_is_not_read_as_the_latest(
    manager: ModelManager, number: int
) -> None:
    manager.save_model({"n": 1}, "lotto_model_1")
    for call in (manager.get, manager.promote):
        with pytest.raises(ModelNotFoundError, match=f"models:/lotto_model/{number} is not"):
            call(number)


def test_a_version_made_by_others_is_refused_with_the_call_to_use(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier
) -> None:
    path = manager.save_model(forest)
    client.create_model_version("lotto_model", "/somewhere/else")
    with pytest.raises(ForeignModelError, match=r"mlflow\.pyfunc\.load_model\('models:/"):
        manager.load_model("models:/lotto_model/2")
    assert manager.get_latest_model_path(source="registry") == path


@pytest.mark.parametrize("value", ["false", "False", "0"])
def test_mlflows_switch_against_pickles_is_obeyed_by_all_that_opens_a_mirrored_model(
    manager: ModelManager,
    base_dir: Path,
    forest: RandomForestClassifier,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
) -> None:
    path = manager.save_model(forest)
    (artifact,) = (base_dir / "mlflow" / "artifacts").rglob("data/*.pkl")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", value)
    for mirrored in ("models:/lotto_model/1", artifact):
        with pytest.raises(PickleNotAllowedError):
            manager.load_model(mirrored)
    with pytest.raises(OSError, match="MLFLOW_ALLOW_PICKLE_DESERIALIZATION"):
        mlflow.pyfunc.load_model(str(artifact.parent.parent))
    assert manager.load_model(path).n_estimators == 5  # a file of trained/ is no mirrored model


def test_every_load_tells_name_version_run_path_and_digest(
    manager: ModelManager, forest: RandomForestClassifier, caplog: pytest.LogCaptureFixture
) -> None:
    path = manager.save_model(forest, "told", {"a": 1})
    run_id = manager.get("told").run_id
    for given in (path, Path(path), "models:/told/1"):
        caplog.clear()
        with caplog.at_level(logging.INFO, "lotto_mlflow"):
            manager.load_model(given)
        (line,) = [r.getMessage() for r in caplog.records if r.name == "lotto_mlflow"]
        for part in ("told", "version=1", f"run_id={run_id}", path, _sha256(path)):
            assert part in line


def test_a_file_from_elsewhere_loads_as_unverified(
    manager: ModelManager,
    forest: RandomForestClassifier,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    elsewhere = tmp_path / "elsewhere.pkl"
    shutil.copyfile(manager.save_model(forest), elsewhere)
    with caplog.at_level(logging.INFO, "lotto_mlflow"):
        assert manager.load_model(elsewhere).n_estimators == 5
    assert "unverified" in caplog.text


def test_another_minor_version_of_scikit_learn_is_warned_of_once(
    manager: ModelManager,
    forest: RandomForestClassifier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import importlib.metadata

    path = manager.save_model(forest, "old")
    version_of = importlib.metadata.version
    for installed, warnings in (("0.24.2", 1), (version_of("scikit-learn"), 0)):
        monkeypatch.setattr(importlib.metadata, "version", lambda _, found=installed: found)
        for given in (path, "models:/old/1"):
            caplog.clear()
            manager.load_model(given)
            told = [r for r in caplog.records if r.levelno == logging.WARNING]
            assert len(told) == warnings
            assert all("scikit-learn" in r.getMessage() for r in told)


def test_a_damaged_backup_is_refused_and_an_intact_one_loads(
    manager: ModelManager, base_dir: Path, forest: RandomForestClassifier
) -> None:
    for number in range(3):
        manager.save_model(forest, "again", {"number": number} if number else None)
    backups = sorted((base_dir / "backups").glob("*.pkl"))
    assert [path.name for path in backups] == ["again.2.pkl", "again.pkl"]
    for path in backups:
        assert manager.load_model(path).n_estimators == 5
        path.write_bytes(path.read_bytes() + b"!")
        with pytest.raises(DigestMismatchError):
            manager.load_model(path)


def test_an_old_model_pushed_late_is_a_version_but_not_the_latest(
    base_dir: Path, forest: RandomForestClassifier, regression: LogisticRegression
) -> None:
    uri = f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"
    later = ModelManager(base_dir.parent / "later", tracking_uri=uri)
    with clocks.shifted(-120):
        ModelManager(base_dir, mirror="off").save_model(forest, "lotto_model_old")
    later.save_model(regression, "lotto_model_new")
    assert ModelManager(base_dir).flush()
    assert ModelManager(base_dir).get("models:/lotto_model/2").name == "lotto_model_old"
    assert later.latest(source="registry").name == "lotto_model_new"  # type: ignore[union-attr]


def test_a_registry_that_cannot_be_asked_is_an_error_and_never_none(
    tmp_path: Path, forest: RandomForestClassifier
) -> None:
    manager = ModelManager(tmp_path / "ml", tracking_uri="http://127.0.0.1:9", mirror="off")
    path = manager.save_model(forest)
    with pytest.raises(MirrorUnavailableError, match="does not answer"):
        manager.get_latest_model_path(source="registry")
    with pytest.raises(MirrorUnavailableError):
        manager.load_model("models:/lotto_model/latest")
    (record,) = manager.records()
    assert (str(record.path), record.aliases) == (path, ())


def test_a_save_with_mlflow_down_returns_warns_and_is_sent_by_a_later_one(
    base_dir: Path, forest: RandomForestClassifier, caplog: pytest.LogCaptureFixture
) -> None:
    down = ModelManager(base_dir, tracking_uri="http://127.0.0.1:9")
    path = down.save_model(forest, "kept", {"a": 1})
    assert Path(path).exists()
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "later" in warning.getMessage()
    assert len(list((base_dir / "mlflow" / "outbox").glob("*.json"))) == 1
    with pytest.raises(ModelNotFoundError):
        ModelManager(base_dir).load_model("models:/kept/1")  # it was meant for the other store


def test_what_was_saved_with_the_mirror_off_is_sent_in_order_by_the_next_save(
    base_dir: Path, forest: RandomForestClassifier
) -> None:
    silent = ModelManager(base_dir, mirror="off")
    names = [Path(silent.save_model(forest)).stem for _ in range(3)]
    manager = ModelManager(base_dir)
    names.append(Path(manager.save_model(forest)).stem)
    assert [manager.get(version).name for version in (1, 2, 3, 4)] == names
    assert not list((base_dir / "mlflow" / "outbox").iterdir())
    assert len(list((base_dir / "mlflow" / "sent").iterdir())) == 4


def test_a_background_save_does_not_wait_and_flush_does(
    base_dir: Path, forest: RandomForestClassifier
) -> None:
    manager = ModelManager(base_dir, mirror="background")
    for _ in range(3):
        manager.save_model(forest)
    assert manager.flush(60)
    assert [manager.get(version).version for version in (1, 2, 3)] == [1, 2, 3]


def test_an_id_in_the_digits_of_another_script_is_of_no_save() -> None:
    """As text it would be newer than every save."""
    tags = {
        "save_id": "\u0669" * 19 + "-00000000",
        "sha256": "0" * 64,
        "model_name": "lotto_model_x",
        "saved_at": "2026-01-01T00:00:00+09:00",
    }
    assert not version_tags.is_ours(tags)
    assert version_tags.is_ours(tags | {"save_id": "9" * 19 + "-00000000"})
