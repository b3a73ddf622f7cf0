"""Bringing old files into MLflow: whatever lies in the folder and its metadata."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import joblib
import pytest
from mlflow import MlflowClient

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import DigestMismatchError

OLD = 1_700_000_000


@pytest.fixture
def client(base_dir: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")


def old_file(
    base_dir: Path, name: str, metadata: dict[str, Any] | str | None = None, folder: str = "trained"
) -> Path:
    path = base_dir / folder / f"{name}.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump({"name": name}, path)
    os.utime(path, (OLD, OLD))
    if metadata is not None:
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        (base_dir / "metadata").mkdir(exist_ok=True)
        (base_dir / "metadata" / f"{name}_metadata.json").write_text(text, encoding="utf-8")
    return path


def requirements_of(base_dir: Path, client: MlflowClient, name: str) -> list[str]:
    model_id = str(ModelManager(base_dir).get(name).model_id)
    location = client.get_logged_model(model_id).artifact_location
    text = Path(location.removeprefix("file://"), "requirements.txt").read_text(encoding="utf-8")
    return text.splitlines()


@pytest.mark.parametrize("change", ["overwritten", "cut", "emptied"])
def test_a_changed_file_is_never_made_the_intact_one(base_dir: Path, change: str) -> None:
    manager = ModelManager(base_dir)
    path = Path(manager.save_model({"a": 1}, "lotto_model_x", {"n": 1}))
    content = path.read_bytes()
    changed = {"overwritten": b"x" + content, "cut": content[:-3], "emptied": b""}[change]
    path.write_bytes(changed)
    for dry_run in (True, False):
        report = manager.sync(dry_run=dry_run)
        assert report.sent == []
        assert "was changed after it was saved, and is not sent" in report.failed["lotto_model_x"]
    with pytest.raises(DigestMismatchError, match=r"expected SHA-256 .* found .*restore"):
        manager.load_model(path)
    assert "damaged" in {finding.kind for finding in manager.verify()}


def test_a_file_that_its_own_metadata_disowns_is_not_brought_in(base_dir: Path) -> None:
    old_file(base_dir, "lotto_model_x", {"sha256": "0" * 64})
    old_file(base_dir, "lotto_model_y", {"accuracy": 0.5})
    report = ModelManager(base_dir).sync()
    assert (report.sent, list(report.failed)) == (["lotto_model_y"], ["lotto_model_x"])


def test_the_same_file_in_two_folders_comes_in_once(base_dir: Path) -> None:
    old_file(base_dir, "lotto_model_x")
    backup = old_file(base_dir, "lotto_model_x", folder="backups")
    os.utime(backup, (OLD - 5, OLD - 5))
    manager = ModelManager(base_dir)
    assert manager.sync(include_backups=True).sent == ["lotto_model_x"]
    assert manager.sync(include_backups=True).sent == []


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"requirements": ["numpy==1.26.0", "-r other.txt", "not a pin!!"]}, "numpy==1.26.0"),
        ({"requirements": "numpy==1.26.0\nscikit-learn>=1.5"}, "scikit-learn>=1.5"),
        ({"requirements": {"scikit-learn": "1.5.0"}}, "scikit-learn==1.5.0"),
        ({"pip_requirements": ["joblib==1.4.2"]}, "joblib==1.4.2"),
        ({"sklearn_version": "1.5.2"}, "scikit-learn==1.5.2"),
        ({"requirements": ["x @ file:///etc"], "numpy_version": "2.0.1"}, "numpy==2.0.1"),
        ({"requirements": ["git+https://example.invalid/x.git"]}, "scikit-learn"),
        ({"requirements": 5, "sklearn_version": None}, "scikit-learn"),
    ],
)
def test_requirements_are_taken_where_they_are_told(
    base_dir: Path, client: MlflowClient, metadata: dict[str, Any], expected: str
) -> None:
    old_file(base_dir, "lotto_model_x", metadata)
    assert ModelManager(base_dir).sync().failed == {}
    found = requirements_of(base_dir, client, "lotto_model_x")
    assert expected in found
    assert not [line for line in found if "/" in line or "!" in line or line.startswith("-")]


def test_no_metadata_file_holds_up_those_behind_it(base_dir: Path) -> None:
    old_file(base_dir, "lotto_model_1", {"requirements": ["-r requirements.txt"]})
    old_file(base_dir, "lotto_model_2", '{"note": "\\ud83d", "\\udc00": [1]}')
    old_file(base_dir, "lotto_model_3", '{"accuracy": NaN, "loss": [1, Infinity]}')
    old_file(base_dir, "lotto_model_4", '\ufeff{"accuracy": 0.5}')
    old_file(base_dir, "lotto_model_5", "[1, 2")
    old_file(base_dir, "lotto_model_6")
    manager = ModelManager(base_dir)
    report = manager.sync()
    assert (len(report.sent), report.failed) == (6, {})
    assert manager.sync().sent == []
    assert [(f.kind, f.name) for f in manager.verify()] == [("changed", "lotto_model_5")]
    assert manager.get("lotto_model_4").metrics == {"accuracy": 0.5}


@pytest.mark.parametrize(
    ("saved_at", "expected"),
    [
        ("2024-05-01T12:00:00+00:00", "2024-05-01T12:00:00+00:00"),
        ("2024-05-01T12:00:00Z", "2024-05-01T12:00:00+00:00"),
        ("2024-05-01T12:00:00", "2024-05-01T12:00:00+02:00"),
        ("2024-05-01 12:00:00.250000", "2024-05-01T12:00:00.250000+02:00"),
        ("9999-12-31T00:00:00+00:00", "2023-11-14T23:13:20+01:00"),
        ("yesterday", "2023-11-14T23:13:20+01:00"),
        (1_714_564_800, "2023-11-14T23:13:20+01:00"),
    ],
)
def test_a_time_without_an_offset_is_of_the_set_zone(
    base_dir: Path, saved_at: Any, expected: str
) -> None:
    old_file(base_dir, "lotto_model_x", {"saved_at": saved_at})
    manager = ModelManager(base_dir, timezone="Europe/Berlin")
    manager.sync()
    assert manager.get("models:/lotto_model/1").saved_at == expected
    assert manager.sync(resend=True).sent == []
