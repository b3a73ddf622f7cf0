"""What a lookup tells of a model besides where it is, and of one that is not there."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from mlflow import MlflowClient

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import DigestMismatchError, ModelNotFoundError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.layout import Layout
from lotto_mlflow.operations import find
from lotto_mlflow.text import nearest

OPENED: list[list[str]] = []


def _note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if OPENED and event == "open" and str(arguments[0]).endswith(".pkl"):
        OPENED[-1].append(str(arguments[0]))


sys.addaudithook(_note_opened)


@contextmanager
def opened_models() -> Iterator[list[str]]:
    """Note each model file that is opened, by whatever call."""
    OPENED.append([])
    try:
        yield OPENED[-1]
    finally:
        OPENED.pop()


METADATA = {"accuracy": 0.5, "loss": [0.9, 0.4], "note": "a", "nested": {"depth": 3}}
METRICS = {"accuracy": 0.5, "loss": 0.4, "nested.depth": 3.0}


def _client(base_dir: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")


def test_a_record_has_the_parameters_and_metrics_that_mlflow_shows(
    manager: ModelManager, base_dir: Path, forest: Any
) -> None:
    manager.save_model(forest, "lotto_model_a", METADATA)
    assert manager.flush(60)
    data = _client(base_dir).get_run(str(manager.get(1).run_id)).data
    for record in (manager.get("lotto_model_a"), manager.get(1), manager.records()[0]):
        assert record.params == data.params
        assert record.metrics == data.metrics == METRICS
        assert (record.params["note"], record.params["max_depth"]) == ("a", "3")


def test_a_machine_that_did_not_save_it_is_told_the_same(
    manager: ModelManager, base_dir: Path, tmp_path: Path, forest: Any
) -> None:
    manager.save_model(forest, "lotto_model_a", METADATA)
    assert manager.flush(60)
    uri = f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"
    elsewhere = ModelManager(tmp_path / "elsewhere", tracking_uri=uri)
    there, here = elsewhere.get(1), manager.get(1)
    assert (there.params, there.metrics, there.path) == (here.params, here.metrics, None)


def test_a_file_from_before_this_package_tells_what_its_metadata_has(tmp_path: Path) -> None:
    for folder in ("trained", "metadata"):
        (tmp_path / folder).mkdir()
    joblib.dump({"a": 1}, tmp_path / "trained" / "lotto_model_a.pkl")
    path = tmp_path / "metadata" / "lotto_model_a_metadata.json"
    path.write_text(json.dumps(METADATA | {"sha256": "0" * 64, "size_bytes": 1}))
    record = ModelManager(tmp_path, mirror="off").get("lotto_model_a")
    assert (record.params, record.metrics) == ({"note": "a"}, METRICS)


def test_two_saves_of_the_same_bytes_keep_their_own_parameters(manager: ModelManager) -> None:
    for note in ("first", "second"):
        manager.save_model({"same": "bytes"}, "lotto_model_a", {"note": note})
    assert manager.flush(60)
    for version, note in ((1, "first"), (2, "second")):
        record = manager.get(version)
        assert record.params == {"note": note}
        assert (record.metadata or {})["note"] == note


def test_aliases_read_from_the_file_are_those_that_mlflow_tells(
    manager: ModelManager, base_dir: Path
) -> None:
    for number in range(2):
        manager.save_model({"n": number}, f"lotto_model_{number}")
    manager.save_model({"n": 2}, "other")
    assert manager.flush(60)
    client = _client(base_dir)
    for alias, version in (("champion", "2"), ("best", "2"), ("old", "1")):
        client.set_registered_model_alias("lotto_model", alias, version)
    folder, known = ModelFolder(Layout.under(base_dir)), ["lotto_model", "other"]
    mirror = folder.mirror(folder.target())
    expected = {1: ("old",), 2: ("best", "champion")}
    read = find.aliases_in_file(folder.layout.database_path, known)
    assert read == {name: mirror.aliases(name) for name in known}
    assert read == {"lotto_model": expected, "other": {}}
    assert {r.version: r.aliases for r in manager.records() if r.name != "other"} == expected


def test_aliases_that_the_file_does_not_tell_are_asked_of_mlflow(
    manager: ModelManager, base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.save_model({"a": 1}, "lotto_model_a")
    assert manager.flush(60)
    _client(base_dir).set_registered_model_alias("lotto_model", "champion", "1")
    copy = tmp_path / "copy.db"
    shutil.copyfile(base_dir / "mlflow" / "mlflow.db", copy)
    with closing(sqlite3.connect(copy)) as opened:
        opened.execute("ALTER TABLE registered_model_aliases RENAME TO elsewhere")
    for missing in (copy, tmp_path / "none.db"):
        assert find.aliases_in_file(missing, ["lotto_model"]) is None
    assert not (tmp_path / "none.db").exists()
    monkeypatch.setattr(find, "_ALIASES", "SELECT nothing FROM nowhere WHERE name = ?")
    assert manager.get("lotto_model_a").aliases == ("champion",)


def test_verify_and_restore_tell_how_far_they_are(manager: ModelManager, base_dir: Path) -> None:
    path = Path(manager.save_model({"a": 1}, "lotto_model_a"))
    manager.save_model({"a": 2}, "lotto_model_a")
    assert manager.flush(60)
    steps: list[tuple[int, int, int, str]] = []

    def report(*step: Any) -> None:
        steps.append(step)

    assert manager.verify(progress=report) == []
    assert [step[:2] for step in steps] == [(number, 4) for number in range(5)]
    assert steps[0][2:] == (path.stat().st_size, "lotto_model_a")
    assert steps[-1] == (4, 4, 0, "")
    size = (base_dir / "backups" / "lotto_model_a.pkl").stat().st_size
    for reference, source in (("lotto_model_a", "backups"), (2, "registry")):
        steps.clear()
        manager.restore(reference, source=source, progress=report)  # type: ignore[arg-type]
        assert steps == [(0, 1, size, "lotto_model_a"), (1, 1, 0, "")]


def test_a_missing_model_is_told_with_the_nearest_names(manager: ModelManager) -> None:
    for day in (1, 2, 13):
        manager.save_model({"day": day}, f"lotto_model_202511{day:02d}")
    assert manager.flush(60)
    for reference, expected in (
        ("lotto_model_20251103", "lotto_model_20251113"),
        ("20251113", "lotto_model_20251113"),
        ("models:/lotto_modell/1", "models:/lotto_model/1"),
    ):
        with pytest.raises(ModelNotFoundError, match="did you mean") as caught:
            manager.get(reference)
        assert expected in caught.value.data["suggestions"]
    with pytest.raises(ModelNotFoundError) as caught:
        manager.get("nothing like it")
    assert caught.value.data["suggestions"] == ()
    assert "did you mean" not in str(caught.value)


def test_the_nearest_names_come_first_and_are_few() -> None:
    known = [f"lotto_model_2025110{digit}" for digit in range(9)]
    assert len(nearest("lotto_model_20251109", known)) == 3
    assert nearest("0251104", known)[0] == known[4]
    assert nearest("", known) == nearest("모델", known) == ()


def test_a_lookup_in_the_registry_reads_no_model_and_a_load_verifies_it(
    base_dir: Path, manager: ModelManager
) -> None:
    """Neither the file in place nor the artifact is read, however large."""
    rows = np.random.default_rng(1).normal(size=(4_000_000,))  # 32 MB
    path = Path(manager.save_model(rows, "lotto_model_a", {"n": 1}))
    copied = base_dir.parent / "copied"
    shutil.copytree(base_dir, copied)
    os.utime(copied / "trained" / path.name)  # as if the copying had not kept the time
    ModelManager(copied).relocate()
    for place in (base_dir, copied):
        other, held = ModelManager(place), place / "trained" / path.name
        with opened_models() as opened:
            found = str(other.get_latest_model_path(source="registry"))
            latest = other.latest(source="registry", download=True)
            assert latest is not None
            assert str(latest.path) == found
            assert other.get(1).path == held
        assert opened == []
        assert (found == str(held)) == (place == base_dir)
        held.unlink()
        with opened_models() as opened:
            artifact = Path(str(other.get_latest_model_path(source="registry")))
        assert opened == []
        assert artifact.is_relative_to(place / "mlflow" / "artifacts")
        with opened_models() as opened:
            assert len(other.load_model(artifact)) == len(rows)
        assert str(artifact) in opened
        artifact.write_bytes(b"changed")
        with pytest.raises(DigestMismatchError):
            other.load_model(str(other.get_latest_model_path(source="registry")))
