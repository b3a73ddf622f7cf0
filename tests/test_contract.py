"""Store and mirror, each asked by itself, give the same answers about the same saves."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import pytest

from lotto_mlflow import ModelManager, metadata, settings
from lotto_mlflow.errors import ModelNotFoundError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.layout import Layout, name_of
from lotto_mlflow.mirror import Mirror
from lotto_mlflow.references import VersionReference
from lotto_mlflow.store import Store, sha256_of_file


@dataclass(frozen=True)
class Saved:
    """What either view says of a save, and what the test knows of it."""

    name: str
    sha256: str
    saved_at_ns: int


class View(ABC):
    """The questions that both views answer."""

    @abstractmethod
    def latest(self) -> Saved | None:
        """Return the newest save of the lotto models."""

    @abstractmethod
    def newest(self) -> list[Saved]:
        """Return the newest save of each name, the newest first."""

    @abstractmethod
    def content(self, name: str) -> tuple[bytes, dict[str, Any] | None]:
        """Return the bytes and the metadata of the newest save of a name."""


class StoreView(View):
    """The view on disk, asked of `Store` alone: no record is read."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _saved(self, path: Path) -> Saved:
        return Saved(name_of(path), sha256_of_file(path), path.stat().st_mtime_ns)

    def latest(self) -> Saved | None:
        path = self._store.latest()
        return None if path is None else self._saved(path)

    def newest(self) -> list[Saved]:
        found = self._store.files_in(self._store.layout.trained_dir)
        saved = [self._saved(path) for path, _ in found]
        return sorted(saved, key=lambda one: one.saved_at_ns, reverse=True)

    def content(self, name: str) -> tuple[bytes, dict[str, Any] | None]:
        path = next(self._store.candidates(name))
        if not path.exists():
            raise ModelNotFoundError(name)
        return path.read_bytes(), metadata.read(self._store.layout.metadata_path(name))


class MirrorView(View):
    """The view in MLflow, asked of `Mirror` alone: no file of the store is read."""

    def __init__(self, mirror: Mirror, work_dir: Path) -> None:
        self._mirror = mirror
        self._work_dir = work_dir

    def latest(self) -> Saved | None:
        found = self._mirror.latest()
        by_reference = VersionReference("lotto_model")
        if found is None:
            with pytest.raises(ModelNotFoundError):
                self._mirror.get(by_reference)
            return None
        assert self._mirror.get(by_reference) == found
        return Saved(found.name, str(found.sha256), int(found.saved_at_ns or 0))

    def newest(self) -> list[Saved]:
        found = self._mirror.records()
        return [Saved(one.name, str(one.sha256), int(one.saved_at_ns or 0)) for one in found]

    def content(self, name: str) -> tuple[bytes, dict[str, Any] | None]:
        found = self._mirror.records(name)
        if not found:
            raise ModelNotFoundError(name)
        (record,) = found
        written = self._mirror.metadata_of(record, self._work_dir)
        content = self._mirror.file_of(record, self._work_dir).read_bytes()
        return content, None if written is None else json.loads(written)


@pytest.fixture(params=["store", "mirror"])
def view(request: pytest.FixtureRequest, base_dir: Path, tmp_path: Path) -> View:
    """Either view of a folder, by objects that no manager shares."""
    folder = ModelFolder(Layout.under(base_dir), partial(settings.read, environment={}))
    if request.param == "store":
        return StoreView(Store(folder.layout))
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    return MirrorView(Mirror(folder.layout, folder.target()), work_dir)


def save(manager: ModelManager, name: str, model: Any, *, note: str | None = None) -> Saved:
    """Save a model, and return what is true of the save by what was written."""
    path = Path(manager.save_model(model, name, None if note is None else {"note": note}))
    content = path.read_bytes()
    assert joblib.load(path) == model
    return Saved(name, hashlib.sha256(content).hexdigest(), path.stat().st_mtime_ns)


def test_a_view_of_nothing_is_empty(view: View) -> None:
    assert view.latest() is None
    assert view.newest() == []
    with pytest.raises(ModelNotFoundError):
        view.content("lotto_model_b")


def test_a_view_has_each_names_newest_save_newest_first(view: View, manager: ModelManager) -> None:
    save(manager, "lotto_model_b", {"round": 1})
    other = save(manager, "other", {"round": 2})
    a = save(manager, "lotto_model_a", {"round": 3})
    b = save(manager, "lotto_model_b", {"round": 4})
    last = save(manager, "zz", {"round": 5})
    assert view.newest() == [last, b, a, other]
    assert view.latest() == b


def test_a_view_has_the_bytes_and_the_metadata_that_were_saved(
    view: View, manager: ModelManager
) -> None:
    expected = {}
    for name, note in (("lotto_model_a", "첫째"), ("내 모델", "둘째"), ("lotto_model_a", "셋째")):
        expected[name] = (save(manager, name, {"note": note}, note=note), note)
    for name, (saved, note) in expected.items():
        content, values = view.content(name)
        assert hashlib.sha256(content).hexdigest() == saved.sha256
        assert values is not None
        assert (values["note"], values["sha256"]) == (note, saved.sha256)


def test_a_view_of_saves_that_were_pushed_late_has_their_order(
    view: View, manager: ModelManager, base_dir: Path
) -> None:
    early = save(ModelManager(base_dir, mirror="off"), "lotto_model_early", {"round": 1})
    late = save(manager, "lotto_model_late", {"round": 2})
    assert manager.flush(120)
    manager.sync()
    assert view.latest() == late
    assert view.newest() == [late, early]


def test_the_same_bytes_saved_twice_are_two_saves(view: View, manager: ModelManager) -> None:
    first = save(manager, "lotto_model_a", {"round": 1})
    again = save(manager, "lotto_model_a", {"round": 1})
    assert first.sha256 == again.sha256
    assert view.newest() == [again]
    second = save(manager, "lotto_model_b", {"round": 1})
    assert view.latest() == second
    assert view.newest() == [second, again]
