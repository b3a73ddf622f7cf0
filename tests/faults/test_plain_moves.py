"""Registered models renamed, versions copied, runs deleted: nothing is lost, all is found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faults.attackers import Scene
from faults.moves import TITLE, Store, fix_by_calls, fix_by_commands, lost_by, open_findings
from made import folder_with_store
from serving import tracking_server

from lotto_mlflow import ModelManager

pytestmark = pytest.mark.usefixtures("patient_lookups")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Path:
    """A folder with two versions of ``x``, and two of ``lotto_model``."""
    base_dir = folder_with_store(tmp_path_factory.mktemp("prepared") / "ml", migrated_database)
    manager = ModelManager(base_dir)
    for number in (1, 2):
        manager.save_model({"x": number}, "x", {"n": number}, artifacts={"note.txt": "extra"})
        manager.save_model({"n": number}, f"lotto_model_{number}", {"n": number})
    assert manager.flush(120)
    return base_dir


def _delete_version(store: Store, number: int = 1, name: str = "x") -> None:
    store.client.delete_model_version(name, str(number))


def _copied(store: Store, name: str = "x", number: int = 1) -> None:
    store.client.copy_model_version(f"models:/x/{number}", name)


MOVES: dict[str, Callable[[Store], Any]] = {
    "renamed": lambda s: s.client.rename_registered_model("x", "renamed"),
    "renamed to another's name": lambda s: [
        s.client.rename_registered_model("x", "old"),
        s.client.rename_registered_model("lotto_model", "x"),
    ],
    "renamed and back": lambda s: [
        s.client.rename_registered_model("x", "renamed"),
        s.client.rename_registered_model("renamed", "x"),
    ],
    "copied": _copied,
    "copied on top of the latest": lambda s: s.client.copy_model_version(
        "models:/lotto_model/1", "lotto_model"
    ),
    "copied, original deleted": lambda s: [_copied(s, "copies"), _delete_version(s)],
    "copied in place, original deleted": lambda s: [_copied(s), _delete_version(s)],
    "copied twice, original and a copy deleted": lambda s: [
        _copied(s, "copies"),
        _copied(s, "others"),
        _delete_version(s),
        _delete_version(s, 1, "copies"),
    ],
    "registered again": lambda s: s.register_again(s.model_id(1), "again"),
    "registered again, original deleted": lambda s: [
        s.register_again(s.model_id(1), "again"),
        _delete_version(s),
    ],
    "registered again, original and logged model deleted": lambda s: [
        s.register_again(s.model_id(1), "again"),
        s.client.delete_logged_model(s.model_id(1)),
        _delete_version(s),
    ],
    "logged model deleted": lambda s: s.client.delete_logged_model(s.model_id(1)),
    "run deleted": lambda s: s.client.delete_run(s.version(1).run_id),
    "run and logged model deleted": lambda s: [
        s.client.delete_run(s.version(1).run_id),
        s.client.delete_logged_model(s.model_id(1)),
    ],
    "version deleted": _delete_version,
    "version and run deleted": lambda s: [
        s.client.delete_run(s.version(1).run_id),
        _delete_version(s),
    ],
    "version and logged model deleted": lambda s: [
        s.client.delete_logged_model(s.model_id(1)),
        _delete_version(s),
    ],
    "registered model deleted": lambda s: s.client.delete_registered_model("x"),
    "renamed, logged model deleted": lambda s: [
        s.client.delete_logged_model(s.model_id(2)),
        s.client.rename_registered_model("x", "renamed"),
    ],
    "renamed, run deleted": lambda s: [
        s.client.delete_run(s.version(2).run_id),
        s.client.rename_registered_model("x", "renamed"),
    ],
}
PASTED = (
    "renamed",
    "copied in place, original deleted",
    "registered again, original and logged model deleted",
    "run and logged model deleted",
    "version deleted",
)
WITH_GC = (
    "run and logged model deleted",
    "version and run deleted",
    "registered again, original and logged model deleted",
    "registered model deleted",
    "renamed, logged model deleted",
)


@pytest.fixture
def store(tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    scene = Scene.at(tmp_path, prepared)
    uri = f"sqlite:///{scene.base_dir / 'mlflow' / 'mlflow.db'}"
    return Store(scene.base_dir, uri, ModelManager(scene.base_dir), monkeypatch)


@pytest.mark.parametrize("move", MOVES)
def test_what_people_move_is_found_and_nothing_is_lost(
    move: str, store: Store, figures: Callable[..., None]
) -> None:
    lost = lost_by(store, MOVES[move], fix_by_calls)
    figures(TITLE, tried=1, lost=len(lost) > 0)
    assert lost == []


@pytest.mark.parametrize("move", PASTED)
def test_what_people_move_is_found_by_the_commands_that_are_printed(
    move: str, store: Store, figures: Callable[..., None]
) -> None:
    lost = lost_by(store, MOVES[move], fix_by_commands)
    figures(TITLE, tried=1, lost=len(lost) > 0)
    assert lost == []


@pytest.mark.parametrize("move", WITH_GC)
def test_what_mlflow_gc_removed_comes_back_from_the_disk(
    move: str, store: Store, figures: Callable[..., None]
) -> None:
    lost = lost_by(store, MOVES[move], fix_by_calls, collected=True)
    figures(TITLE, tried=1, lost=len(lost) > 0)
    assert lost == []


REACHED = ("relative", "a link to the database", "a link to the folder", "a server")


@pytest.fixture
def reached(
    request: pytest.FixtureRequest, store: Store, tmp_path: Path
) -> Iterator[tuple[str, Store]]:
    """Yield the store again, by another address."""
    base_dir, database = store.base_dir, store.base_dir / "mlflow" / "mlflow.db"
    how = request.param
    if how == "a server":
        # its experiment keeps artifacts in a folder, which no server may choose
        artifacts_uri = (base_dir / "mlflow" / "artifacts").as_uri()
        store.monkeypatch.setenv("LOTTO_ARTIFACT_ROOTS", artifacts_uri)
        with tracking_server(database) as uri:
            yield how, replace(store, uri=uri, manager=ModelManager(base_dir, tracking_uri=uri))
        return
    (tmp_path / "link").symlink_to(base_dir)
    if how == "a link to the folder":
        yield how, replace(store, manager=ModelManager(tmp_path / "link"))
        return
    beginning = os.path.relpath(base_dir) if how == "relative" else tmp_path / "link"
    uri = f"sqlite:///{beginning}/mlflow/mlflow.db"
    yield how, replace(store, manager=ModelManager(base_dir, tracking_uri=uri))


@pytest.mark.parametrize("reached", REACHED, indirect=True)
def test_the_same_database_by_another_address_gets_nothing_twice(
    reached: tuple[str, Store], figures: Callable[..., None]
) -> None:
    _, store = reached
    before = store.opened()
    lost = lost_by(store, MOVES["renamed"], fix_by_calls)
    lost += [] if len(store.versions()) == len(before) else ["versions were added"]
    path = store.manager.save_model({"x": 3}, "x", {"n": 3})
    lost += [] if store.manager.load_model("models:/x/1") == {"x": 3} else ["the new save"]
    lost += [str(finding) for finding in open_findings(store)]
    embedded = ModelManager(store.base_dir)
    lost += [f"sent by the embedded store: {name}" for name in embedded.sync().sent]
    lost += [] if embedded.load_model(path) == {"x": 3} else ["the file"]
    lost += [] if len(store.versions()) == len(before) + 1 else ["versions were added at last"]
    figures(TITLE, tried=1, lost=len(lost) > 0)
    assert lost == []
