"""A folder says in which format its records are; one of a later release is left to that."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import LaterReleaseError


def format_of(base_dir: Path) -> Any:
    return json.loads((base_dir / "mlflow" / "format.json").read_text(encoding="utf-8"))


@pytest.fixture
def later_dir(base_dir: Path) -> Path:
    """A folder in which a later release saved last, by a record that this one cannot read."""
    manager = ModelManager(base_dir)
    manager.save_model({"a": 1}, "x", {"n": 1})
    (sent,) = (base_dir / "mlflow" / "sent").glob("*.json")
    sent.write_bytes(sent.read_bytes().replace(b'"format": 2', b'"format": 7'))
    waiting = base_dir / "mlflow" / "outbox" / sent.name.replace("~sent~x", "~pending~y")
    waiting.write_bytes(sent.read_bytes())
    later = {"format": 7, "release": "3.1.0"}
    (base_dir / "mlflow" / "format.json").write_text(json.dumps(later), encoding="utf-8")
    return base_dir


@pytest.mark.parametrize("noted", [None, "not JSON", '{"format": 1, "release": "0.1.0"}', "[]"])
def test_a_save_notes_the_format_where_it_is_missing_older_or_damaged(
    base_dir: Path, noted: str | None
) -> None:
    if noted is not None:
        (base_dir / "mlflow" / "format.json").write_text(noted, encoding="utf-8")
    ModelManager(base_dir, mirror="off").save_model({"a": 1}, "x", {"n": 1})
    assert format_of(base_dir) == {"format": 2, "release": "0.2.0"}


def test_a_save_into_a_folder_of_a_later_release_is_on_disk_and_not_mirrored(
    later_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = ModelManager(later_dir)
    caplog.clear()
    path = manager.save_model({"a": 2}, "x", {"n": 2})
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert "lotto-mlflow 3.1.0 or later" in warning
    assert manager.load_model(path) == {"a": 2}
    metadata = (later_dir / "metadata" / "x_metadata.json").read_text(encoding="utf-8")
    assert json.loads(metadata)["n"] == 2
    assert manager.load_model(later_dir / "backups" / "x.pkl") == {"a": 1}
    assert not manager.flush(1)
    assert manager.latest(source="registry") is None
    assert manager.get("x").version is None
    assert format_of(later_dir) == {"format": 7, "release": "3.1.0"}


def test_what_would_change_its_records_is_refused_with_the_release_that_can(
    later_dir: Path,
) -> None:
    before = {p: p.read_bytes() for p in (later_dir / "mlflow").glob("*/*.json")}
    manager = ModelManager(later_dir)
    for call in (manager.sync, lambda: manager.restore("x", source="registry")):
        with pytest.raises(LaterReleaseError, match=r"pip install 'lotto-mlflow>=3\.1\.0'"):
            call()
    assert {p: p.read_bytes() for p in (later_dir / "mlflow").glob("*/*.json")} == before


def test_records_of_a_later_release_are_neither_damaged_nor_put_aside(later_dir: Path) -> None:
    manager = ModelManager(later_dir)
    manager.save_model({"new": 1}, "z", {"n": 1})
    assert not list((later_dir / "mlflow" / "aside").iterdir())
    assert "damaged" not in {finding.kind for finding in manager.verify()}
    assert manager.load_model(later_dir / "trained" / "x.pkl") == {"a": 1}
    assert manager.get("x").name == "x"
    assert manager.load_model("models:/x/1") == {"a": 1}
