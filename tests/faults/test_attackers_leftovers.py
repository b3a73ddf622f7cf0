"""What others made under the id of our save: it stays theirs when a broken push is cleaned up."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faults.attackers import TITLE, Scene, attempted, killed_in
from mlflow import MlflowClient
from mlflow.entities import LoggedModel

from lotto_mlflow import ModelManager
from lotto_mlflow.records import SaveRecord, parse

AT = ("registry.create_version", "model_folder.build", "leftovers.finish_run")
"""Where the push is killed: before its version, before its files, after its version."""


@pytest.fixture(scope="module", params=AT)
def prepared(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    migrated_database: Path,
) -> Path:
    base_dir = tmp_path_factory.mktemp("prepared") / "ml"
    (base_dir / "mlflow").mkdir(parents=True)
    shutil.copyfile(migrated_database, base_dir / "mlflow" / "mlflow.db")
    manager = ModelManager(base_dir)
    manager.save_model({"x": 1}, "x", {"n": 1})
    assert manager.flush(120)
    killed_in(base_dir, request.param)
    return base_dir


@dataclass
class Others:
    """People who share the store, and give what is theirs the tags of our save."""

    client: MlflowClient
    record: SaveRecord
    experiment_id: str

    @property
    def tags(self) -> dict[str, str]:
        payload = self.record.payload
        own = {"sha256": payload.sha256, "saved_at": payload.saved_at}
        return {"save_id": self.record.id, "model_name": payload.name} | own

    def run(self, status: str = "RUNNING", *, has_files: bool = True) -> str:
        start_time = self.record.payload.saved_at_ns // 10**6
        run = self.client.create_run(self.experiment_id, start_time, self.tags)
        if has_files:
            folder = Path(run.info.artifact_uri.removeprefix("file://"))
            folder.mkdir(parents=True)
            (folder / "thesis.txt").write_text("the only copy")
        if status != "RUNNING":
            self.client.set_terminated(run.info.run_id, status)
        return str(run.info.run_id)

    def model(self, status: str | None = None) -> LoggedModel:
        model = self.client.create_logged_model(
            self.experiment_id, "theirs", self.run("FINISHED"), tags=self.tags
        )
        folder = Path(model.artifact_location.removeprefix("file://"))
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "model.pkl").write_text("the only copy")
        if status:
            self.client.finalize_logged_model(model.model_id, status)
        return model

    def version(self, name: str, model: LoggedModel | Any, run_id: str, **more: str) -> None:
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name)
        source = model if isinstance(model, str) else model.artifact_location
        tags = self.tags | more
        self.client.create_model_version(name, source, run_id, tags)


def _of_x(others: Others, name: str, **more: str) -> None:
    """Give the tags of our save to another version of what another save pushed."""
    own = others.client.get_model_version("x", "1")
    others.version(name, own.source, own.run_id, model_id=own.tags["model_id"], **more)


MADE: dict[str, Callable[[Others], Any]] = {
    "a run": lambda o: o.run(),
    "a run that ended": lambda o: o.run("FINISHED"),
    "a run that failed": lambda o: o.run("FAILED"),
    "a logged model": lambda o: o.model(),
    "a logged model that is ready": lambda o: o.model("READY"),
    "a logged model that failed": lambda o: o.model("FAILED"),
    "a version of it": lambda o: o.version("theirs", (m := o.model("READY")), m.source_run_id),
    "a version of it under our name": lambda o: o.version(
        "begun", (m := o.model("READY")), m.source_run_id
    ),
    "a version of it with its id": lambda o: o.version(
        "begun", (m := o.model("READY")), m.source_run_id, model_id=m.model_id
    ),
    "a version of a run": lambda o: o.version("begun", "/nowhere", o.run()),
    "a version of another save": lambda o: _of_x(o, "begun"),
    "a version of another save elsewhere": lambda o: _of_x(o, "a"),
    "a version of another save as its own": lambda o: [
        o.client.set_model_version_tag("x", "1", key, value) for key, value in o.tags.items()
    ],
    "a run and a version of it": lambda o: o.version("z", "/nowhere", o.run(has_files=False)),
}


def _looked_at(client: MlflowClient, scene: Scene, kept: set[str]) -> dict[str, Any]:
    """Return all that is not ours: files, runs, logged models, versions."""
    experiment = client.get_experiment_by_name("lotto_model").experiment_id
    found: dict[str, Any] = {}
    for run in client.search_runs([experiment]):
        if run.info.run_id in kept:
            found[run.info.run_id] = (run.info.status, run.info.lifecycle_stage)
    for model in client.search_logged_models([experiment]):
        if model.model_id in kept:
            found[model.model_id] = model.status
    for version in client.search_model_versions():
        found[f"{version.name}/{version.version}"] = (version.source, version.run_id)
    for path in (scene.base_dir / "mlflow" / "artifacts").rglob("*"):
        if path.is_file() and kept & set(path.parts):
            found[str(path)] = path.read_bytes()
    return found


@pytest.mark.parametrize("made", MADE)
def test_what_others_made_under_our_id_stays_theirs(
    made: str, tmp_path: Path, prepared: Path, figures: Callable[..., None]
) -> None:
    scene = Scene.at(tmp_path, prepared)
    client = MlflowClient(tracking_uri=f"sqlite:///{scene.base_dir / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lotto_model").experiment_id
    (path,) = (scene.base_dir / "mlflow" / "outbox").glob("*~begun~*.json")
    own = set(scene.ids)
    MADE[made](Others(client, parse(path.read_bytes()), experiment))
    kept = {run.info.run_id for run in client.search_runs([experiment])} - own
    kept |= {model.model_id for model in client.search_logged_models([experiment])} - own
    before = _looked_at(client, scene, kept)
    manager = ModelManager(scene.base_dir)
    for call in (manager.sync, lambda: manager.sync(resend=True), manager.verify):
        attempted(call)
    after = _looked_at(client, scene, kept)
    lost = {
        key: (value, after.get(key)) for key, value in before.items() if after.get(key) != value
    }
    figures(TITLE, tried=1, lost=len(lost) > 0)
    assert lost == {}
    number = manager.get("begun").version
    assert manager.load_model(f"models:/begun/{number}") == {"begun": 1}
    assert manager.load_model("models:/x/1") == {"x": 1}
    assert [str(f) for f in manager.verify() if "tags of version" not in f.detail] == []


REFERRED: dict[str, Callable[[MlflowClient, str, str, str], Any]] = {
    "by its run": lambda c, run, model, folder: c.create_model_version("z", "/nowhere", run),
    "by its folder": lambda c, run, model, folder: c.create_model_version("z", folder),
    "by a folder in it": lambda c, run, model, folder: c.create_model_version(
        "z", f"{folder}/data"
    ),
    "by the artifacts of its run": lambda c, run, model, folder: c.create_model_version(
        "z", c.get_run(run).info.artifact_uri
    ),
    "by a copy, whose original is gone": lambda c, run, model, folder: [
        c.create_model_version("z", folder),
        c.copy_model_version("models:/z/1", "y"),
        c.delete_model_version("z", "1"),
    ],
    "by its logged model": lambda c, run, model, folder: c.create_model_version(
        "z", folder, model_id=model, run_id=run
    ),
}


@pytest.mark.parametrize("how", REFERRED)
def test_what_a_version_refers_to_is_not_removed(
    how: str, tmp_path: Path, prepared: Path, figures: Callable[..., None]
) -> None:
    scene = Scene.at(tmp_path, prepared)
    client = MlflowClient(tracking_uri=f"sqlite:///{scene.base_dir / 'mlflow' / 'mlflow.db'}")
    run_id, model_id = scene.ids
    client.create_registered_model("z")
    location = client.get_logged_model(model_id).artifact_location
    REFERRED[how](client, run_id, model_id, location)
    folders = [Path(location.removeprefix("file://"))]
    folders.append(Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://")))
    before = {p: p.read_bytes() for d in folders for p in d.rglob("*") if p.is_file()}
    manager = ModelManager(scene.base_dir)
    manager.sync()
    manager.sync(resend=True)
    # what has its version is finished, and then its MLmodel gets another time
    changed = [p for p, content in before.items() if p.exists() and p.read_bytes() != content]
    lost = [path for path in before if not path.exists()]
    lost += [path for path in changed if path.name != "MLmodel"]
    is_deleted = client.get_run(run_id).info.lifecycle_stage == "deleted"
    figures(TITLE, tried=1, lost=len(lost) > 0 or is_deleted)
    assert lost == []
    assert not is_deleted
    number = manager.get("begun").version
    assert manager.load_model(f"models:/begun/{number}") == {"begun": 1}


@pytest.mark.parametrize("prepared", AT[:2], indirect=True)
@pytest.mark.parametrize("link", [".", "artifacts"], ids=["folder", "artifacts"])
@pytest.mark.parametrize("owner", ["logged model", "run"])
@pytest.mark.parametrize("is_known", [True, False], ids=["known", "unknown"])
def test_a_link_to_the_files_of_another_is_not_followed(
    owner: str,
    link: str,
    is_known: bool,
    tmp_path: Path,
    prepared: Path,
    figures: Callable[..., None],
) -> None:
    scene = Scene.at(tmp_path, prepared)
    manager = ModelManager(scene.base_dir)
    run_id, model_id = scene.ids
    x, root = manager.get("x"), scene.base_dir / "mlflow" / "artifacts" / "lotto_model"
    own, other = (
        (root / "models" / model_id, root / "models" / str(x.model_id))
        if owner == "logged model"
        else (root / run_id, root / str(x.run_id))
    )
    if not is_known:
        client = MlflowClient(tracking_uri=f"sqlite:///{scene.base_dir / 'mlflow' / 'mlflow.db'}")
        client.delete_logged_model(model_id)
        client.delete_run(run_id)
    (other / "artifacts").mkdir(parents=True, exist_ok=True)
    (other / "artifacts" / "thesis.txt").write_text("the only copy")
    shutil.rmtree(own, ignore_errors=True)
    (own / link).parent.mkdir(parents=True, exist_ok=True)
    (own / link).symlink_to(other / link)
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    attempted(manager.sync)
    after = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    figures(TITLE, tried=1, lost=after != before)
    assert after == before
    assert manager.load_model("models:/x/1") == {"x": 1}
