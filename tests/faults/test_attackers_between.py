"""A server, or who sits before it, that answers with other places, other ids, other versions."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.attackers import TITLE, TOKEN, Answer, Between, OtherHost, Scene, attempted
from serving import tracking_server

from lotto_mlflow import ModelManager
from lotto_mlflow.records import parse

_NUMBERS = itertools.count()
PLACES = {
    "another folder": "file://{victims}/{id}/artifacts",
    "another folder as a path": "{victims}/{id}/artifacts",
    "another model folder": "file://{other}/models/{id}/artifacts",
    "this model folder": "file://{own}/lotto_model/models/{id}/artifacts",
    "up, quoted": "file://{own}/%2e%2e/%2e%2e/%2E%2E/victims/{id}/artifacts",
    "up, quoted in a path": "{own}/%2e%2e/%2e%2e/%2e%2e/victims/{id}/artifacts",
    "relative": "../victims/{id}/artifacts",
    "another host": "http://{netloc}/api/2.0/mlflow-artifacts/artifacts/{id}/artifacts",
    "another host, safely": "https://{netloc}/api/2.0/mlflow-artifacts/artifacts/{id}/artifacts",
    "another server": "mlflow-artifacts://{netloc}/{id}/artifacts",
    "another host after the server": "http://{server}@{netloc}"
    "/api/2.0/mlflow-artifacts/artifacts/{id}/artifacts",
    "another host before the server": "http://{netloc}\\@{server}"
    "/api/2.0/mlflow-artifacts/artifacts/{id}/artifacts",
    "another server before the server": "mlflow-artifacts://{netloc}\\@{server}/{id}/artifacts",
    "another host, with a slash": "http://{netloc}\\/@{server}"
    "/api/2.0/mlflow-artifacts/artifacts/{id}/artifacts",
    "another host, with a number sign": "http://{netloc}#@{server}"
    "/api/2.0/mlflow-artifacts/artifacts/{id}/artifacts",
    "another port": "mlflow-artifacts://127.0.0.1:{port}/{id}/artifacts",
    "a number that is no port": "mlflow-artifacts://127.0.0.1:port/{id}/artifacts",
    "brackets": "http://[127.0.0.1/{id}/artifacts",
    "an old protocol": "ftp://{netloc}/{id}/artifacts",
    "a version": "models:/lotto_model/1/{id}/artifacts",
}

THE_SECOND_TIME = ("another folder", "another host", "another server before the server")
"""Places that are answered only after the right one was: between a check and its use."""


@pytest.fixture(scope="module")
def other_host() -> Iterator[OtherHost]:
    with OtherHost().serving() as host:
        yield host


@pytest.fixture(scope="module")
def between(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[Between]:
    folder = tmp_path_factory.mktemp("server")
    database = Path(shutil.copyfile(migrated_database, folder / "server.db"))
    with tracking_server(database, folder / "artifacts") as uri, Between(uri).serving() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory, between: Between) -> Path:
    """A folder with two versions on the server."""
    base_dir = tmp_path_factory.mktemp("pushed") / "ml"
    manager = ModelManager(base_dir, tracking_uri=between.uri)
    for number in (1, 2):
        manager.save_model({"n": number}, "x", {"n": number}, artifacts={"note.txt": "extra"})
    assert manager.flush(60)
    assert manager.verify(deep=True) == []
    return base_dir


def _verbs(scene: Scene, between: Between) -> dict[str, Callable[[], Any]]:
    manager = ModelManager(scene.base_dir, tracking_uri=between.uri)
    stranger = ModelManager(scene.base_dir.parent / "stranger", tracking_uri=between.uri)
    number = next(_NUMBERS)
    return {
        "load elsewhere": lambda: stranger.load_model("models:/x/1"),
        "restore elsewhere": lambda: stranger.restore("x", source="registry"),
        "verify": lambda: manager.verify(deep=True),
        "save": lambda: manager.save_model(
            {"y": number}, f"y{number}", {"n": number}, artifacts={"note.txt": "extra"}
        ),
        "sync with resend": lambda: manager.sync(resend=True),
    }


def _failures(scene: Scene, between: Between, host: OtherHost, attack: Any) -> dict[str, Any]:
    """Return what harm each verb did; after the attack everything has to work again."""
    seen, harmed, verbs = len(host.requests), {}, _verbs(scene, between)
    with between.attacked(attack):
        for verb, call in verbs.items():
            attempted(call)
            if scene.harm() or len(host.requests) > seen:
                harmed[verb] = scene.harm() + host.requests[seen:]
                break
    for path in (scene.base_dir / "mlflow").glob("*/*~*.json"):
        parse(path.read_bytes())
    return harmed


def _cases() -> Iterator[Any]:
    for place in PLACES:
        yield pytest.param(place, False, id=place)
    for place in THE_SECOND_TIME:
        yield pytest.param(place, True, id=f"{place}, the second time")


@pytest.mark.parametrize(("place", "is_second"), list(_cases()))
def test_a_server_that_names_other_places_gets_nobody_there(
    place: str,
    is_second: bool,
    tmp_path: Path,
    pushed: Path,
    between: Between,
    other_host: OtherHost,
    monkeypatch: pytest.MonkeyPatch,
    figures: Callable[..., None],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    scene = Scene.at(tmp_path, pushed)
    host = other_host.uri.removeprefix("http://")
    asked: set[str] = set()

    def attack(answer: Answer) -> None:
        def change(key: str, value: Any, beside: dict[str, Any]) -> Any:
            if key not in ("artifact_location", "artifact_uri"):
                return value
            owner = beside.get("model_id") or beside.get("run_id") or scene.model_id
            if is_second and owner not in asked:
                asked.add(owner)
                return value
            return PLACES[place].format(
                victims=scene.victims,
                own=scene.base_dir / "mlflow" / "artifacts",
                other=scene.base_dir.parent / "other" / "mlflow" / "artifacts" / "lotto_model",
                netloc=host,
                port=other_host.server_port,
                server=between.uri.removeprefix("http://"),
                id=owner,
            )

        answer.rewrite(change)

    harmed = _failures(scene, between, other_host, attack)
    figures(TITLE, tried=5, lost=len(harmed))
    assert harmed == {}


IDS = {
    "a path": "../../victims/{id}",
    "an absolute path": "{victims}/{id}",
    "a glob": "*",
    "up": "..",
    "nothing": "",
    "null": None,
    "a number": 7,
    "another run": "{run_id}",
    "another logged model": "{model_id}",
    "a path, of a model": "../../victims/{id}",
    "a quote": "x' OR name != '",
    "a line end": "x\n\x1b[31m",
    "very much": "m-" + "e" * 100_000,
}

OF_MODELS = {"a path, of a model", "another logged model", "a quote", "very much"}
"""Where the runs keep their ids, so that there is a run before there is a logged model."""


@pytest.mark.parametrize("name", IDS)
def test_a_server_that_answers_with_other_ids_harms_nobody(
    name: str,
    tmp_path: Path,
    pushed: Path,
    between: Between,
    other_host: OtherHost,
    figures: Callable[..., None],
) -> None:
    scene = Scene.at(tmp_path, pushed)
    run_id, model_id = scene.ids
    keys = ("model_id",) if name in OF_MODELS else ("run_id", "run_uuid", "model_id")

    def attack(answer: Answer) -> None:
        def change(key: str, value: Any, _: dict[str, Any]) -> Any:
            said, is_id = IDS[name], key in keys
            if not (is_id and isinstance(said, str)):
                return said if is_id else value
            return said.format(id=value, victims=scene.victims, run_id=run_id, model_id=model_id)

        answer.rewrite(change)

    harmed = _failures(scene, between, other_host, attack)
    figures(TITLE, tried=5, lost=len(harmed))
    assert harmed == {}
    manager = ModelManager(scene.base_dir, tracking_uri=between.uri)
    assert manager.sync(resend=True, retry_aside=True).failed == {}
    assert manager.load_model("models:/x/1") == {"n": 1}
    assert json.dumps([str(finding) for finding in manager.verify(deep=True)]) == "[]"
