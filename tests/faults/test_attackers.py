"""MLflow's answers: wherever they say that artifacts lie, nothing is touched or sent there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.attackers import TITLE, TOKEN, OtherHost, Scene, attempted, killed_in
from made import folder_with_store

from lotto_mlflow import ModelManager

PLACES = {
    "another folder": "file://{victims}/{id}/artifacts",
    "another folder as a path": "{victims}/{id}/artifacts",
    "another folder without slashes": "file:{victims}/{id}/artifacts",
    "another folder of this host": "file://localhost{victims}/{id}/artifacts",
    "another folder in capitals": "FILE://{victims}/{id}/artifacts",
    "a folder with a name alike": "file://{base}-victims/{id}/artifacts",
    "another model folder": "file://{other}/models/{id}/artifacts",
    "the run of another model folder": "file://{other}/{id}/artifacts",
    "up": "file://{own}/lotto_model/../../../../victims/{id}/artifacts",
    "up, quoted": "file://{own}/%2e%2e/%2e%2e/%2E%2E/victims/{id}/artifacts",
    "up, quoted twice": "file://{own}/%252e%252e/%252e%252e/%252e%252e/victims/{id}/artifacts",
    "up, quoted in a path": "{own}/%2e%2e/%2e%2e/%2e%2e/victims/{id}/artifacts",
    "up, slashes quoted": "file://{own}/..%2f..%2f..%2fvictims/{id}/artifacts",
    "up, with a tab": "file://{own}/.\t./.\t./.\t./victims/{id}/artifacts",
    "up, parameters": "file://{own}/../../../victims/{id}/artifacts;{id}/artifacts",
    "a link": "file://{own}/link/{id}/artifacts",
    "relative": "../victims/{id}/artifacts",
    "relative, quoted": "%2e%2e/victims/{id}/artifacts",
    "a share": "file://{netloc}{victims}/{id}/artifacts",
    "another host": "http://{netloc}/api/2.0/mlflow-artifacts/artifacts/{id}/artifacts",
    "another host, safely": "https://{netloc}/api/2.0/mlflow-artifacts/artifacts/{id}/artifacts",
    "another server": "mlflow-artifacts://{netloc}/{id}/artifacts",
    "no server": "mlflow-artifacts:/{id}/artifacts",
    "an old protocol": "ftp://{netloc}/{id}/artifacts",
    "a login": "sftp://{netloc}/{id}/artifacts",
    "a version": "models:/begun/1/{id}/artifacts",
    "a run": "runs:/{id}/artifacts",
    "the root": "file:///",
    "all artifacts": "file://{own}",
    "nothing": "",
    "no text": "\x00",
    "very much": "file:///" + "a" * 100_000 + "/{id}/artifacts",
}
WHOSE = {
    "logged models, versions and runs": (
        ("logged_models", "artifact_location", "model_id"),
        ("model_versions", "storage_location", "run_id"),
        ("runs", "artifact_uri", "run_uuid"),
    ),
    "experiments": (("experiments", "artifact_location", "'lotto_model'"),),
}
OF_EXPERIMENTS = ("another folder", "up, quoted", "another host", "no text", "all artifacts")
"""Places that an experiment is tried with, too: what it says decides for what is new alone."""


@pytest.fixture(scope="module")
def other_host() -> Iterator[OtherHost]:
    with OtherHost().serving() as host:
        yield host


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Path:
    """A folder with two versions, and a third save whose push was killed before its version."""
    base_dir = folder_with_store(tmp_path_factory.mktemp("prepared") / "ml", migrated_database)
    manager = ModelManager(base_dir)
    manager.save_model({"n": 1}, "x", {"n": 1})
    manager.save_model({"n": 2}, "x", {"n": 2}, artifacts={"note.txt": "extra"})
    killed_in(base_dir, "registry.create_version")
    return base_dir


def _verbs(scene: Scene) -> dict[str, Callable[[], Any]]:
    manager = ModelManager(scene.base_dir)
    uri = f"sqlite:///{scene.base_dir / 'mlflow' / 'mlflow.db'}"
    stranger = ModelManager(scene.base_dir.parent / "stranger", tracking_uri=uri)
    return {
        "load": lambda: manager.load_model("models:/x/1"),
        "load elsewhere": lambda: stranger.load_model("models:/x/1"),
        "latest elsewhere": lambda: stranger.latest(source="registry", download=True),
        "restore": lambda: manager.restore("x", source="registry"),
        "restore elsewhere": lambda: stranger.restore("x", source="registry"),
        "verify": lambda: manager.verify(deep=True),
        "sync": manager.sync,
        "save": lambda: manager.save_model({"n": 3}, "y", {"n": 3}),
        "sync with resend": lambda: manager.sync(resend=True, retry_aside=True),
        "relocate": manager.relocate,
        "sync after relocate": lambda: manager.sync(resend=True, retry_aside=True),
    }


def _said(scene: Scene, host: OtherHost, place: str) -> str:
    """Return what the database is to say; ``{id}`` in it stands for whose place it is."""
    own = scene.base_dir / "mlflow" / "artifacts"
    (own / "link").symlink_to(scene.victims)
    return place.format(
        victims=scene.victims,
        base=scene.base_dir,
        own=own,
        other=scene.base_dir.parent / "other" / "mlflow" / "artifacts" / "lotto_model",
        netloc=host.uri.removeprefix("http://"),
        id="{id}",
    )


def _cases() -> Iterator[tuple[str, str]]:
    for place in PLACES:
        yield place, "logged models, versions and runs"
    for place in OF_EXPERIMENTS:
        yield place, "experiments"


@pytest.mark.parametrize(("place", "whose"), list(_cases()))
def test_a_database_that_names_other_places_gets_nobody_there(
    place: str,
    whose: str,
    tmp_path: Path,
    prepared: Path,
    other_host: OtherHost,
    monkeypatch: pytest.MonkeyPatch,
    figures: Callable[..., None],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    scene, seen, harmed = Scene.at(tmp_path, prepared), len(other_host.requests), {}
    said = _said(scene, other_host, PLACES[place])
    for table, field, key in WHOSE[whose]:
        statement = f"UPDATE {table} SET {field} = replace(?, '{{id}}', coalesce({key}, ''))"
        scene.sql((statement, (said,)))
    verbs = _verbs(scene)
    for verb, call in verbs.items():
        attempted(call)
        if scene.harm() or len(other_host.requests) > seen:
            harmed[verb] = [*scene.harm(), *other_host.requests[seen:]]
            break
    figures(TITLE, tried=len(verbs), lost=len(harmed))
    assert harmed == {}
    manager = ModelManager(scene.base_dir)
    assert manager.load_model(scene.base_dir / "trained" / "begun.pkl") == {"begun": 1}
    assert manager.load_model(scene.base_dir / "trained" / "x.pkl") == {"n": 2}


@pytest.mark.parametrize("beginning", ["file://", "file:///tmp", "file:{base}", "file://{base}"])
def test_an_experiment_that_names_a_beginning_of_all_places_spoils_none(
    beginning: str, tmp_path: Path, prepared: Path, figures: Callable[..., None]
) -> None:
    scene = Scene.at(tmp_path, prepared)
    said = beginning.format(base=scene.base_dir) + "/lotto_model"
    statement = "UPDATE experiments SET artifact_location = ? WHERE name = 'lotto_model'"
    scene.sql((statement, (said,)))
    manager = ModelManager(scene.base_dir)
    attempted(manager.relocate)
    found = [attempted(lambda n=n: manager.load_model(f"models:/x/{n}")) for n in (1, 2)]
    figures(TITLE, tried=1, lost=found != [{"n": 1}, {"n": 2}])
    assert found == [{"n": 1}, {"n": 2}]
    assert scene.harm() == []
