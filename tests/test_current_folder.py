"""Nothing in the current folder is executed by a command, nor by the processes that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lotto_mlflow import ModelManager
from lotto_mlflow.cli import server

SECONDS = 120.0
ROOT_DIR = Path(__file__).parents[1]
OTHERS = ("mlflow", "click", "sqlalchemy", "uvicorn", "fastapi", "flask", "requests", "yaml",
          "alembic", "multiprocessing", "usercustomize")  # fmt: skip
MODULES = (*OTHERS, "sitecustomize", "lotto_mlflow", "typer", "json", "runpy", "subprocess")


def lay_traps(names: tuple[str, ...]) -> Path:
    """Put modules in the current folder that leave a mark when they are executed."""
    mark = Path.cwd() / "marks.txt"
    for name in names:
        (Path.cwd() / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r})\n")
    return mark


@contextmanager
def started_ui(command: list[str], environment: dict[str, str]) -> Iterator[str]:
    """Run ``ui``, and yield the address that it prints."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().partition("/#/")[0]
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS)
        process.kill()
        process.communicate()


@pytest.mark.parametrize("way", ["script", "module"])
def test_ui_and_its_server_execute_nothing_from_the_current_folder(
    way: str, base_dir: Path, manager: ModelManager, tmp_path: Path
) -> None:
    manager.save_model({"a": 1}, "lotto_model_a", {"n": 1})
    script = tmp_path / "bin" / "lotto-mlflow"
    script.parent.mkdir()
    script.write_text(
        "import os\nfrom lotto_mlflow.cli import main\n"
        "os.environ['PYTHONPATH'] = os.environ.get('PYTHONPATH', '') + os.pathsep\n"
        "main()\n"
    )
    # `python -m` itself looks here for the package, and imports what that needs at once
    mark = lay_traps(MODULES if way == "script" else OTHERS)
    start = [str(script)] if way == "script" else ["-m", "lotto_mlflow"]
    command = [sys.executable, *start, "ui", "--no-browser", "--base-dir", str(base_dir)]
    environment = os.environ | {"PYTHONPATH": str(ROOT_DIR), "PYTHONUNBUFFERED": "1"}
    with started_ui(command, environment) as address:
        for page in (
            "/health",
            "/",
            "/api/2.0/mlflow/experiments/get-by-name?experiment_name=lotto_model",
        ):
            with urllib.request.urlopen(f"{address}{page}", timeout=SECONDS) as answer:
                assert answer.status == 200
    assert not mark.exists(), mark.read_text()
    subprocess.run([sys.executable, "-m", "click"], check=False)
    assert mark.read_text() == "click", "the traps are some"


@pytest.mark.parametrize("is_safe_path", [False, True], ids=["3.10", "3.11"])
def test_a_child_and_its_children_have_a_path_without_the_current_folder(
    is_safe_path: bool, tmp_path: Path
) -> None:
    """Python 3.10 knows no PYTHONSAFEPATH: there the command alone sees to it."""
    mark = lay_traps(("json", "runpy", "subprocess", "os", "victim"))
    modules_dir = tmp_path / "modules"
    modules_dir.mkdir()
    (modules_dir / "first.py").write_text(
        "import subprocess, sys\nassert sys.argv[1:] == ['a', '-m'], sys.argv\n"
        "import json, second\n"
        "command = [sys.executable, '-m', 'second', *sys.argv[1:]]\n"
        "done = subprocess.run(command, check=True, capture_output=True, text=True)\n"
        "print(done.stdout, end='')\n"
    )
    (modules_dir / "second.py").write_text(
        "import json, os, sys\n"
        "if __name__ == '__main__': print(sys.argv[1:], '' in sys.path, os.getcwd() in sys.path)\n"
        "try: import victim\n"
        "except ImportError: pass\n"
    )
    environment = os.environ | {"PYTHONPATH": str(modules_dir)}
    if is_safe_path:
        environment["PYTHONSAFEPATH"] = "1"
    command = [*server.child_command("first"), "a", "-m"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("['a', '-m'] False False\n", 0), done.stderr
    assert not mark.exists()


@pytest.mark.parametrize(
    "arguments", ["list", "verify", "sync", "latest --source registry", "version", "env"]
)
def test_no_command_executes_anything_from_the_current_folder(
    arguments: str, base_dir: Path, manager: ModelManager
) -> None:
    manager.save_model({"a": 1}, "lotto_model_a", {"n": 1})
    mark = lay_traps(OTHERS)
    command = [
        sys.executable,
        "-m",
        "lotto_mlflow",
        *arguments.split(),
        "--base-dir",
        str(base_dir),
    ]
    environment: dict[str, Any] = os.environ | {"PYTHONPATH": str(ROOT_DIR)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not mark.exists(), mark.read_text()
