"""An installation of MLflow that cannot be imported: every call says so, and changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import MirrorUnavailableError

BREAKS = {
    "import": "raise ImportError('broken installation')",
    "other": "raise RuntimeError('broken installation')",
    "hidden": "import sys; sys.modules['mlflow'] = None",
}
CALLS = """
import sys
from lotto_mlflow import LiveModel, ModelManager
from lotto_mlflow.errors import MirrorUnavailableError
manager = ModelManager(sys.argv[1])
champion = "models:/lotto_model@champion"
calls = {
    "promote": lambda: manager.promote(1),
    "rollback": lambda: manager.rollback(),
    "history": lambda: manager.history(),
    "prune": lambda: manager.prune(keep_last=1),
    "dry prune": lambda: manager.prune(keep_last=1, dry_run=True),
    "delete": lambda: manager.delete(1),
    "delete by name": lambda: manager.delete("lotto_model_a"),
    "get": lambda: manager.get(champion),
    "load": lambda: manager.load_model(champion),
    "latest": lambda: manager.latest(source="registry"),
    "latest by alias": lambda: manager.get_latest_model_path(
        source="registry", alias="champion"
    ),
    "records": lambda: manager.records(source="registry"),
    "restore": lambda: manager.restore("models:/lotto_model/1"),
    "sync": lambda: manager.sync(),
    "relocate": lambda: manager.relocate(),
    "live": lambda: LiveModel(champion, manager=manager),
}
for name, call in calls.items():
    try:
        print(name, "returned", call())
    except MirrorUnavailableError as error:
        assert "MLflow cannot be imported: " in str(error), error
        assert "nothing was" in str(error), error
        assert "pip install --force-reinstall mlflow" in str(error), error
    except BaseException as error:
        print(name, type(error).__name__, error)
"""


def environment_of(tmp_path: Path, how: str) -> dict[str, str]:
    """Return the environment of a process in which MLflow cannot be imported."""
    broken_dir = tmp_path / "broken"
    file = "sitecustomize.py" if how == "hidden" else "mlflow/__init__.py"
    (broken_dir / file).parent.mkdir(parents=True)
    (broken_dir / file).write_text(BREAKS[how])
    path = os.pathsep.join([str(broken_dir), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "LOTTO_MIRROR": "sync"}


@pytest.fixture
def with_champion(base_dir: Path) -> Path:
    manager = ModelManager(base_dir)
    for name in ("lotto_model_a", "lotto_model_b"):
        manager.save_model({"name": name}, name, {"a": 1})
    manager.promote("lotto_model_a")
    return base_dir


def files_in(base_dir: Path) -> set[Path]:
    folders = ("trained", "metadata", "backups", "mlflow/sent", "mlflow/aside", "mlflow/outbox")
    return {p for f in folders for p in (base_dir / f).glob("*")}


def run(*arguments: object, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.mark.parametrize("how", BREAKS)
def test_every_call_that_asks_mlflow_says_that_it_cannot_be_imported(
    with_champion: Path, tmp_path: Path, how: str
) -> None:
    before = files_in(with_champion)
    done = run("-c", CALLS, with_champion, env=environment_of(tmp_path, how))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert files_in(with_champion) == before
    assert ModelManager(with_champion).get("lotto_model_a").aliases == ("champion",)


@pytest.mark.parametrize(
    "command",
    [
        ["promote", "1"],
        ["rollback"],
        ["history"],
        ["prune", "--keep-last", "1", "--yes"],
        ["delete", "1", "--yes"],
        ["sync"],
    ],
    ids=lambda command: command[0],
)
def test_a_command_that_asks_mlflow_prints_one_line(
    with_champion: Path, tmp_path: Path, command: list[str]
) -> None:
    environment = environment_of(tmp_path, "import")
    done = run("-m", "lotto_mlflow", *command, "--base-dir", with_champion, env=environment)
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert "MLflow cannot be imported: ImportError: broken installation; nothing was" in line
    assert "pip install --force-reinstall mlflow" in line


def test_what_was_last_seen_is_loaded_where_a_stale_answer_will_do(
    with_champion: Path, tmp_path: Path
) -> None:
    ModelManager(with_champion).load_model("models:/lotto_model@champion")
    code = (
        "import sys; from lotto_mlflow import ModelManager\n"
        "manager = ModelManager(sys.argv[1])\n"
        "print(manager.load_model('models:/lotto_model@champion', stale_ok=True))\n"
        "path = manager.get_latest_model_path(source='registry', alias='champion', stale_ok=True)\n"
        "print(path.rpartition('/')[2])\n"
        "print([f.kind for f in manager.verify()], manager.get('lotto_model_a').name)\n"
    )
    done = run("-c", code, with_champion, env=environment_of(tmp_path, "import"))
    assert done.stdout.splitlines() == [
        "{'name': 'lotto_model_a'}",
        "lotto_model_a.pkl",
        "['mlflow unavailable'] lotto_model_a",
    ], done.stderr


def test_a_model_that_waits_for_mlflow_is_not_promoted(base_dir: Path, tmp_path: Path) -> None:
    ModelManager(base_dir, mirror="off").save_model({"a": 1}, "lotto_model_a", {"a": 1})
    code = (
        "import sys; from lotto_mlflow import ModelManager; from lotto_mlflow.errors import *\n"
        "try: ModelManager(sys.argv[1]).promote('lotto_model_a')\n"
        f"except {MirrorUnavailableError.__name__} as error: print(error)\n"
    )
    done = run("-c", code, base_dir, env=environment_of(tmp_path, "import"))
    assert "MLflow cannot be imported" in done.stdout, done.stderr
