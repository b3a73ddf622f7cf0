"""Files that others put in the folder: the records know better, and nothing of it is opened."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from faults.attackers import TITLE, Scene, attempted, evil_pickle
from mlflow import MlflowClient

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import DigestMismatchError, LottoMlflowError, UntrustedModelError
from lotto_mlflow.pyfunc_loader import MODULE_NAME

REAL = {"n": list(range(2_000))}


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, migrated_database: Path, forest: Any, rows: Any
) -> Path:
    """A folder with two saves of ``x``, one of them a backup, and a forest."""
    base_dir = tmp_path_factory.mktemp("prepared") / "ml"
    (base_dir / "mlflow").mkdir(parents=True)
    shutil.copyfile(migrated_database, base_dir / "mlflow" / "mlflow.db")
    manager = ModelManager(base_dir)
    manager.save_model({"old": REAL}, "x", {"n": 1})
    manager.save_model({"new": REAL}, "x", {"n": 2})
    manager.save_model(forest, "forest", {"n": 3}, input_example=rows[0][:2])
    assert manager.verify() == []
    return base_dir


@pytest.fixture
def scene(tmp_path: Path, prepared: Path) -> Scene:
    return Scene.at(tmp_path, prepared)


TIMES: dict[str, Callable[[int], int]] = {
    "now": lambda own: 0,
    "the save's": lambda own: own,
    "a nanosecond later": lambda own: own + 1,
    "of old": lambda own: 10**18,
    "the beginning": lambda own: 1,
    "to come": lambda own: 4 * 10**18,
}


def _replaced(scene: Scene, path: Path, time_ns: int, *, of_size: bool) -> None:
    """Put another model and its metadata in the place of one."""
    size = path.stat().st_size
    content = evil_pickle(scene.base_dir.parent / "evil.pkl", scene.mark)
    content += b"\0" * (size - len(content)) if of_size else b""
    path.write_bytes(content)
    if path.parent.name == "trained":
        beside = scene.base_dir / "metadata" / f"{path.stem}_metadata.json"
    else:
        beside = path.with_name(f"{path.stem}_metadata.json")
    values = json.loads(beside.read_text()) | {"sha256": hashlib.sha256(content).hexdigest()}
    beside.write_text(json.dumps(values | {"size_bytes": len(content)}))
    if time_ns:
        os.utime(path, ns=(time_ns, time_ns))
        os.utime(beside, ns=(time_ns, time_ns))


@pytest.mark.parametrize("of_size", [True, False], ids=["of its size", "of another size"])
@pytest.mark.parametrize("when", TIMES)
@pytest.mark.parametrize("where", ["trained", "backups"])
def test_a_model_and_its_metadata_replaced_together_are_not_opened_or_sent(
    where: str,
    when: str,
    of_size: bool,
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    figures: Callable[..., None],
) -> None:
    path = scene.base_dir / where / "x.pkl"
    _replaced(scene, path, TIMES[when](path.stat().st_mtime_ns), of_size=of_size)
    manager, lost = ModelManager(scene.base_dir), []
    client = MlflowClient(tracking_uri=f"sqlite:///{scene.base_dir / 'mlflow' / 'mlflow.db'}")
    versions = len(client.search_model_versions())
    for trust in ("any", "known"):
        monkeypatch.setenv("LOTTO_TRUST", trust)
        found = attempted(lambda: manager.load_model(path))
        lost += [] if isinstance(found, (DigestMismatchError, UntrustedModelError)) else [found]
        attempted(lambda: manager.get("x"))
        attempted(lambda: manager.latest())
        attempted(lambda: manager.latest(source="registry", download=True))
        for report in (
            manager.sync(),
            manager.sync(include_backups=True),
            manager.sync(resend=True, include_backups=True),
        ):
            lost += report.sent
        lost += [] if len(client.search_model_versions()) == versions else ["versions"]
        damaged = [f.path for f in manager.verify() if f.kind == "damaged"]
        lost += [] if path in damaged else [("not damaged", damaged)]
        lost += [] if attempted(lambda: manager.load_model("models:/x/2")) == {"new": REAL} else [2]
        lost += [] if attempted(lambda: manager.load_model("models:/x/1")) == {"old": REAL} else [1]
        lost += scene.harm()
    if where == "backups":
        restored = attempted(lambda: manager.restore("x"))
        lost += [] if isinstance(restored, LottoMlflowError) else ["restored"]
    else:
        manager.restore("x", source="registry")
        lost += [] if manager.load_model(path) == {"new": REAL} else ["not restored"]
    lost += scene.harm()
    figures(TITLE, tried=10, lost=len(lost))
    assert lost == []


@pytest.mark.parametrize("when", TIMES)
def test_what_is_replaced_before_it_is_sent_is_not_sent(
    when: str, scene: Scene, figures: Callable[..., None]
) -> None:
    path = Path(ModelManager(scene.base_dir, mirror="off").save_model({"y": REAL}, "y", {"n": 1}))
    _replaced(scene, path, TIMES[when](path.stat().st_mtime_ns), of_size=True)
    manager = ModelManager(scene.base_dir)
    sent = [*manager.sync().sent, *manager.sync(retry_aside=True, include_backups=True).sent]
    found = attempted(lambda: manager.load_model("models:/y/latest"))
    figures(TITLE, tried=1, lost=len(sent))
    assert sent == []
    assert isinstance(found, LottoMlflowError)
    assert scene.harm() == []


def _written(name: str, content: str = "import os\n") -> Callable[[Path, Scene], Any]:
    def change(folder: Path, _: Scene) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    return change


def _appended(name: str) -> Callable[[Path, Scene], Any]:
    def change(folder: Path, _: Scene) -> None:
        with (folder / name).open("a") as file:
            file.write("# changed\n")

    return change


def _linked(name: str) -> Callable[[Path, Scene], Any]:
    """Put a link in the place of a file, to another with the same content."""

    def change(folder: Path, scene: Scene) -> None:
        elsewhere = scene.base_dir.parent / "elsewhere"
        shutil.move(folder / name, elsewhere)
        (folder / name).symlink_to(elsewhere)

    return change


LOADER = f"code/{MODULE_NAME}/__init__.py"
CHANGES: dict[str, tuple[str, Callable[[Path, Scene], Any]]] = {
    "MLmodel changed": ("MLmodel", _appended("MLmodel")),
    "MLmodel gone": ("MLmodel", lambda folder, _: (folder / "MLmodel").unlink()),
    "MLmodel a link": ("MLmodel", _linked("MLmodel")),
    "MLmodel a pipe": (
        "MLmodel",
        lambda folder, _: [(folder / "MLmodel").unlink(), os.mkfifo(folder / "MLmodel")],
    ),
    "MLmodel a folder": (
        "MLmodel",
        lambda folder, _: [(folder / "MLmodel").unlink(), (folder / "MLmodel").mkdir()],
    ),
    "the loader changed": (LOADER, _appended(LOADER)),
    "the loader gone": (LOADER, lambda folder, _: (folder / LOADER).unlink()),
    "the loader a link": (LOADER, _linked(LOADER)),
    "a part of the loader changed": (
        f"code/{MODULE_NAME}/inputs.py",
        _appended(f"code/{MODULE_NAME}/inputs.py"),
    ),
    "a part of the loader hidden by a package": (
        f"code/{MODULE_NAME}/inputs/__init__.py",
        _written(f"code/{MODULE_NAME}/inputs/__init__.py"),
    ),
    "compiled code that is of no part of the loader": (
        f"code/{MODULE_NAME}/__pycache__/joblib.cpython-311.pyc",
        _written(f"code/{MODULE_NAME}/__pycache__/joblib.cpython-311.pyc"),
    ),
    "requirements.txt": ("requirements.txt", _appended("requirements.txt")),
    "conda.yaml": ("conda.yaml", _appended("conda.yaml")),
    "python_env.yaml": ("python_env.yaml", _appended("python_env.yaml")),
    "code added": ("code/x.py", _written("code/x.py")),
    "code added for every start": ("code/sitecustomize.py", _written("code/sitecustomize.py")),
    "a hidden file": ("code/.hidden.pth", _written("code/.hidden.pth")),
    "compiled code of another": (
        "code/__pycache__/joblib.cpython-311.pyc",
        _written("code/__pycache__/joblib.cpython-311.pyc"),
    ),
    "a link to a folder": (
        "code/joblib",
        lambda folder, scene: (folder / "code" / "joblib").symlink_to(scene.victims),
    ),
    "a link to nowhere": (
        "code/joblib.py",
        lambda folder, _: (folder / "code" / "joblib.py").symlink_to("/nowhere"),
    ),
    "a pipe": ("code/x.py", lambda folder, _: os.mkfifo(folder / "code" / "x.py")),
    "an example": ("input_example.json", _written("input_example.json", "{}")),
    "the model changed": (
        "data/model.pkl",
        lambda folder, scene: (folder / "data" / "model.pkl").write_bytes(
            evil_pickle(scene.base_dir.parent / "evil.pkl", scene.mark)
        ),
    ),
    "the model a folder": (
        "data/model.pkl",
        lambda folder, _: [
            (folder / "data" / "model.pkl").unlink(),
            (folder / "data" / "model.pkl").mkdir(),
        ],
    ),
    "the code a file": (
        LOADER,
        lambda folder, _: [shutil.rmtree(folder / "code"), (folder / "code").touch()],
    ),
    "the model a link": ("data/model.pkl", _linked("data/model.pkl")),
    "another model beside it": ("data/model2.pkl", _written("data/model2.pkl")),
    "the folder a link": (
        "",
        lambda folder, scene: [
            shutil.move(folder, scene.base_dir.parent / "elsewhere"),
            folder.symlink_to(scene.base_dir.parent / "elsewhere"),
        ],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_file_of_a_mirrored_folder_that_others_changed_is_named_and_brought_back(
    change: str, scene: Scene, figures: Callable[..., None]
) -> None:
    manager = ModelManager(scene.base_dir)
    record = manager.get("forest")
    (folder,) = scene.base_dir.glob(
        f"mlflow/artifacts/lotto_model/models/{record.model_id}/artifacts"
    )
    relative, make = CHANGES[change]
    make(folder, scene)
    found = [finding for finding in manager.verify() if finding.path == folder / relative]
    figures(TITLE, tried=1, lost=not found)
    assert {finding.kind for finding in found} == {"damaged"}
    for _ in range(3):
        for fix in {f.fix.as_call(): f.fix for f in manager.verify() if f.fix}.values():
            if fix.verb == "shell":
                assert os.system(fix.as_call()) == 0
            else:
                getattr(manager, fix.verb)(**fix.arguments)
    assert [str(finding) for finding in manager.verify()] == []
    assert manager.load_model(f"models:/forest/{record.version}") is not None
    assert not scene.mark.exists()


def test_a_mirrored_folder_that_mlflow_opened_is_as_it_was(scene: Scene, rows: Any) -> None:
    manager = ModelManager(scene.base_dir)
    record = manager.get("forest")
    folder = f"{scene.base_dir}/mlflow/artifacts/lotto_model/models/{record.model_id}/artifacts"
    assert len(mlflow.pyfunc.load_model(folder).predict(rows[0])) == len(rows[0])
    assert manager.verify() == []
