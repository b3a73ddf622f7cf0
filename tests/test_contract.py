"""Disk and mirror answer the same questions in the same way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sklearn.ensemble import RandomForestClassifier

from lotto_mlflow import ModelManager, ModelRecord, settings
from lotto_mlflow.errors import ModelNotFoundError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.layout import Layout


class _DiskView:
    def __init__(self, manager: ModelManager) -> None:
        self.latest: Callable[[], ModelRecord | None] = manager.latest
        self.records = manager.records
        self.get: Callable[[str], ModelRecord] = manager.get


class _MirrorView:
    def __init__(self, manager: ModelManager, base_dir: Path) -> None:
        folder = ModelFolder(Layout.under(base_dir), partial(settings.read, environment={}))
        mirror = folder.mirror(folder.target())
        self.latest = mirror.latest
        self.records = mirror.records
        self._mirror = mirror

    def get(self, name: str) -> ModelRecord:
        found = self._mirror.records(name)
        if not found:
            raise ModelNotFoundError(name)
        return found[0]


@pytest.fixture(params=["disk", "mirror"])
def view(request: pytest.FixtureRequest, manager: ModelManager, base_dir: Path) -> Any:
    return _DiskView(manager) if request.param == "disk" else _MirrorView(manager, base_dir)


@pytest.fixture
def saved(manager: ModelManager, forest: RandomForestClassifier) -> list[str]:
    manager.save_model(forest, "lotto_model_b", {"round": 1})
    manager.save_model(forest, "other", {"round": 2})
    manager.save_model(forest, "lotto_model_a", {"round": 3})
    manager.save_model(forest, "lotto_model_b", {"round": 4})
    return ["lotto_model_b", "lotto_model_a", "other"]


def test_an_empty_view_has_no_latest_and_no_records(view: Any) -> None:
    assert view.latest() is None
    assert view.records() == []
    with pytest.raises(ModelNotFoundError):
        view.get("lotto_model_b")


def test_latest_is_the_newest_save_of_the_lotto_models(view: Any, saved: list[str]) -> None:
    assert view.latest().name == "lotto_model_b"
    assert view.latest().version == 3


def test_records_are_one_for_each_name_newest_first(view: Any, saved: list[str]) -> None:
    assert [record.name for record in view.records()] == saved
    assert [record.name for record in view.records(limit=2)] == saved[:2]
    assert [record.name for record in view.records("other")] == ["other"]
    assert view.records("nothing") == []


def test_a_record_tells_the_same_of_a_save(
    view: Any, saved: list[str], manager: ModelManager
) -> None:
    for name in saved:
        record, on_disk = view.get(name), manager.get(name)
        for fact in ("name", "sha256", "saved_at", "saved_at_ns", "registered_model", "version"):
            assert getattr(record, fact) == getattr(on_disk, fact)
        for fact in ("run_id", "model_id", "sklearn_version"):
            assert getattr(record, fact) == getattr(on_disk, fact)
