"""What others write on versions: the record of a save goes before its tags."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.attackers import TITLE, Scene, attempted, evil_pickle
from made import folder_with_store
from mlflow import MlflowClient

from lotto_mlflow import ModelManager

SECONDS = 10**9


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Path:
    """A folder with three versions of ``lotto_model``, and one of ``x``."""
    base_dir = folder_with_store(tmp_path_factory.mktemp("prepared") / "ml", migrated_database)
    manager = ModelManager(base_dir)
    for number in (1, 2, 3):
        manager.save_model({"n": number}, f"lotto_model_{number}", {"n": number})
    manager.save_model({"x": 1}, "x", {"n": 1})
    return base_dir


@pytest.fixture
def scene(tmp_path: Path, prepared: Path) -> Scene:
    return Scene.at(tmp_path, prepared)


def _client(scene: Scene) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{scene.base_dir / 'mlflow' / 'mlflow.db'}")


def _data_file(scene: Scene, version: int, registered: str = "lotto_model") -> Path:
    uri = _client(scene).get_model_version_download_uri(registered, str(version))
    return Path(uri.removeprefix("file://")) / "data" / "model.pkl"


def _stranger(scene: Scene) -> ModelManager:
    """Return a manager on a host without records, with the same store."""
    uri = f"sqlite:///{scene.base_dir / 'mlflow' / 'mlflow.db'}"
    return ModelManager(scene.base_dir.parent / "stranger", tracking_uri=uri)


def _id_at(time_ns: int) -> str:
    return f"{time_ns:019d}-0badbad0"


def _ids(scene: Scene) -> list[str]:
    return [v.tags["save_id"] for v in sorted(_of_client(scene), key=lambda v: int(v.version))]


def _of_client(scene: Scene) -> list[Any]:
    return list(_client(scene).search_model_versions("name = 'lotto_model'"))


OTHER_TAGS: dict[str, Callable[[list[str]], dict[str, str | None]]] = {
    "the digest": lambda ids: {},
    "the digest and an unknown save": lambda ids: {"save_id": _id_at(int(ids[0][:19]) + 1)},
    "the digest and a save to come": lambda ids: {"save_id": _id_at(time.time_ns() + 10**16)},
    "the digest and a save of old": lambda ids: {"save_id": _id_at(5)},
    "the digest and another save of ours": lambda ids: {"save_id": ids[1]},
    "the digest and the name of another": lambda ids: {"model_name": "x", "save_id": _id_at(7)},
    "the digest and a name that is a path": lambda ids: {"model_name": "../victims/x"},
    "no save": lambda ids: {"save_id": None},
    "nothing but the digest": lambda ids: {
        "save_id": None,
        "model_name": None,
        "saved_at": None,
        "model_id": None,
    },
    "another logged model": lambda ids: {"model_id": "../../../victims"},
    "a digest that is none": lambda ids: {"sha256": "*"},
}


@pytest.mark.parametrize("has_model", [True, False], ids=["trained", "only mirrored"])
@pytest.mark.parametrize("name", OTHER_TAGS)
def test_tags_that_agree_with_other_bytes_do_not_get_them_opened(
    name: str,
    has_model: bool,
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    figures: Callable[..., None],
) -> None:
    client, data_file = _client(scene), _data_file(scene, 1)
    content = evil_pickle(scene.victims / "evil.pkl", scene.mark)
    scene.before = scene._looked_at()
    sha256 = hashlib.sha256(content).hexdigest()
    recorded = hashlib.sha256(data_file.read_bytes()).hexdigest()
    data_file.write_bytes(content)
    ml_model = data_file.parent.parent / "MLmodel"
    ml_model.write_text(ml_model.read_text().replace(recorded, sha256))
    tags = {"sha256": sha256} | OTHER_TAGS[name](_ids(scene))
    for key, value in tags.items():
        if value is None:
            client.delete_model_version_tag("lotto_model", "1", key)
        else:
            client.set_model_version_tag("lotto_model", "1", key, value)
    logged = client.get_model_version("lotto_model", "1").tags.get("model_id")
    if not has_model:
        (scene.base_dir / "trained" / "lotto_model_1.pkl").unlink()
    manager, lost = ModelManager(scene.base_dir), 0
    kept = {path.name: path.read_bytes() for path in (scene.base_dir / "trained").iterdir()}
    for call in (
        lambda: manager.load_model("models:/lotto_model/1"),
        lambda: manager.load_model("models:/lotto_model/01"),
        lambda: manager.restore("models:/lotto_model/1", source="registry"),
        lambda: manager.restore("lotto_model_1", source="registry"),
        lambda: manager.latest(source="registry", download=True),
    ):
        found = attempted(call)
        lost += bool(scene.harm()) or found in ({"n": 2}, {"n": 3}, {"x": 1})
        latest = manager.latest(source="registry")
        lost += latest is None or latest.name != "lotto_model_3"
    now = {path.name: path.read_bytes() for path in (scene.base_dir / "trained").iterdir()}
    lost += now != kept
    kinds = {finding.kind for finding in manager.verify()}
    lost += "damaged" not in kinds
    assert logged is not None or "model_id" in tags
    figures(TITLE, tried=8, lost=lost)
    assert lost == 0, (now.keys(), kinds)
    manager.sync(resend=True)
    assert [str(f) for f in manager.verify() if f.kind != "missing on disk"] == [] or not has_model
    if has_model:
        number = manager.get("lotto_model_1").version
        assert manager.load_model(f"models:/lotto_model/{number}") == {"n": 1}


LATE: dict[str, Callable[[MlflowClient, list[str]], None]] = {
    "the newest is called late": lambda c, ids: c.set_model_version_tag(
        "lotto_model", "3", "late", "true"
    ),
    "all are called late": lambda c, ids: [
        c.set_model_version_tag("lotto_model", n, "late", "true") for n in "123"
    ],
    "an old one has a save to come": lambda c, ids: c.set_model_version_tag(
        "lotto_model", "1", "save_id", _id_at(time.time_ns() + 10**18)
    ),
    "an old one has the greatest id": lambda c, ids: c.set_model_version_tag(
        "lotto_model", "1", "save_id", f"{'9' * 19}-ffffffff"
    ),
    "an old one has the newest's id": lambda c, ids: c.set_model_version_tag(
        "lotto_model", "1", "save_id", ids[2]
    ),
    "the newest has an old id": lambda c, ids: c.set_model_version_tag(
        "lotto_model", "3", "save_id", _id_at(5)
    ),
    "the newest has the oldest's id": lambda c, ids: c.set_model_version_tag(
        "lotto_model", "3", "save_id", ids[0]
    ),
    "the newest has no tags": lambda c, ids: [
        c.delete_model_version_tag("lotto_model", "3", key)
        for key in ("save_id", "sha256", "model_name", "saved_at")
    ],
    "copied once": lambda c, ids: _copied(c, 1, 1),
    "copied 30 times": lambda c, ids: _copied(c, 30, 1),
    "copied 30 times, by turns": lambda c, ids: _copied(c, 30, 1, 2),
    "copied to another and back": lambda c, ids: [
        c.copy_model_version("models:/lotto_model/1", "elsewhere"),
        c.copy_model_version("models:/elsewhere/1", "lotto_model"),
    ],
    "foreign versions": lambda c, ids: [
        c.create_model_version("lotto_model", "/nowhere") for _ in range(30)
    ],
}
OF_OLD = {
    "the newest has an old id",
    "the newest has the oldest's id",
    "the newest has no tags",
    "an old one has the newest's id",
}


def _copied(client: MlflowClient, times: int, *numbers: int) -> None:
    for turn in range(times):
        uri = f"models:/lotto_model/{numbers[turn % len(numbers)]}"
        client.copy_model_version(uri, "lotto_model")


@pytest.mark.parametrize("name", LATE)
def test_the_newest_save_stays_the_latest_whatever_versions_say(
    name: str, scene: Scene, figures: Callable[..., None]
) -> None:
    LATE[name](_client(scene), _ids(scene))
    manager, lost = ModelManager(scene.base_dir), 0
    latest = manager.latest(source="registry")
    lost += latest is None or (latest.name, latest.version) != ("lotto_model_3", 3)
    lost += attempted(lambda: manager.load_model("models:/lotto_model/latest")) != {"n": 3}
    if name not in OF_OLD:  # where no record says so, the tags of that version are believed
        lost += attempted(lambda: _stranger(scene).load_model("models:/lotto_model/latest")) != {
            "n": 3
        }
    path = Path(manager.save_model({"n": 4}, "lotto_model_4", {"n": 4}))
    latest = manager.latest(source="registry")
    lost += latest is None or latest.name != path.stem
    if name not in OF_OLD:
        found = _stranger(scene).latest(source="registry")
        lost += found is None or found.name != path.stem
    figures(TITLE, tried=5, lost=lost)
    assert lost == 0
    assert len({v.run_id for v in _of_client(scene) if v.run_id}) == 4
    manager.sync(resend=True)
    assert manager.load_model("models:/lotto_model/latest") == {"n": 4}


SERVED: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "no JSON": lambda m: b"\x80\x05.",
    "nothing": lambda m: b"",
    "half": lambda m: json.dumps(m).encode()[:-5],
    "NaN": lambda m: json.dumps(m | {"n": float("nan")}).encode(),
    "infinite": lambda m: json.dumps(m | {"n": float("-inf")}).encode(),
    "200 MB": lambda m: json.dumps(m | {"n": "a" * 200_000_000}).encode(),
    "deep": lambda m: b'{"n":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep dicts": lambda m: b'{"n":' * 100_000 + b"1" + b"}" * 100_000,
    "another digest": lambda m: json.dumps(m | {"sha256": "0" * 64}).encode(),
    "a digest that is no text": lambda m: json.dumps(m | {"sha256": [m["sha256"]]}).encode(),
    "of the year 2999": lambda m: json.dumps(
        m | {"saved_at": "2999-01-01T00:00:00+09:00"}
    ).encode(),
    "of tomorrow": lambda m: json.dumps(
        m | {"saved_at": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 86400))}
    ).encode(),
    "a list": lambda m: json.dumps([m]).encode(),
    "a text": lambda m: json.dumps("saved").encode(),
    "null": lambda m: b"null",
    "a mark before it": lambda m: b"\xef\xbb\xbf" + json.dumps(m).encode(),
    "another encoding": lambda m: json.dumps(m).encode("utf-16"),
    "a number too long": lambda m: b'{"n": ' + b"9" * 100_000 + b"}",
}


@pytest.mark.parametrize("name", SERVED)
def test_metadata_that_others_made_is_not_restored(
    name: str, scene: Scene, figures: Callable[..., None]
) -> None:
    (served,) = scene.base_dir.glob("mlflow/artifacts/lotto_model/*/artifacts/x_metadata.json")
    served.write_bytes(SERVED[name](json.loads(served.read_bytes())))
    stranger = _stranger(scene)
    stranger.restore("x", source="registry")
    base_dir = scene.base_dir.parent / "stranger"
    is_there = (base_dir / "metadata" / "x_metadata.json").exists()
    modified = (base_dir / "trained" / "x.pkl").stat().st_mtime_ns
    figures(TITLE, tried=2, lost=is_there + (modified > time.time_ns()))
    assert not is_there
    assert modified <= time.time_ns()
    assert stranger.load_model(base_dir / "trained" / "x.pkl") == {"x": 1}


@pytest.mark.parametrize("seconds", [3600, 10**9, 8 * 10**9])
def test_a_restored_file_is_not_of_the_future(
    seconds: int, scene: Scene, figures: Callable[..., None]
) -> None:
    save_id = _id_at(time.time_ns() + seconds * SECONDS)
    _client(scene).set_model_version_tag("x", "1", "save_id", save_id)
    _stranger(scene).restore("x", source="registry")
    restored = scene.base_dir.parent / "stranger" / "trained" / "x.pkl"
    lost = restored.stat().st_mtime_ns > time.time_ns()
    figures(TITLE, tried=1, lost=int(lost))
    assert not lost
