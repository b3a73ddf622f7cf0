"""Processes whose current folder was deleted, that have no arguments, no file, or no streams."""

from __future__ import annotations

import os
import subprocess
import sys
import zipapp
from pathlib import Path
from typing import Any

import mlflow
import pytest

from lotto_mlflow import ModelManager, settings

ROOT_DIR = Path(__file__).parents[1]

DELETED = """
import os, tempfile
os.chdir(folder := tempfile.mkdtemp())
os.rmdir(folder)
"""
NAMELESS = """
import sys
sys.argv = []
sys.modules["__main__"].__dict__.pop("__file__", None)
"""
WITHOUT_ARGV = "import sys; del sys.argv"
WITHOUT_STREAMS = "import sys; sys.stdin = sys.stdout = sys.stderr = None"

EVERYTHING = """
import os, sys
from pathlib import Path
import numpy as np
from sklearn.naive_bayes import GaussianNB
from lotto_mlflow import ModelManager, get_latest_model_path, load_model, model_utils, save_model
from lotto_mlflow.errors import LottoMlflowError, ModelNotFoundError

rows = np.array([[0.0], [1.0], [0.1], [0.9]])
model = GaussianNB().fit(rows, [0, 1, 0, 1])
name = "lotto_model_x"
path = save_model(model, name, {"n": 1}, input_example=rows, artifacts={"a.txt": "text"},
                  dataset={"train": rows})
manager = ModelManager(model_utils.MODEL_BASE_DIR)
assert manager.flush(60)
assert list(load_model(path).predict(rows)) == [0, 1, 0, 1]
assert get_latest_model_path() == get_latest_model_path(source="registry") == path
assert list(load_model("models:/lotto_model/1").predict(rows)) == [0, 1, 0, 1]
assert [record.version for record in manager.records()] == [1]
assert manager.get(name).version == manager.get(1).version == manager.latest().version == 1
manager.save_model({"n": 2}, name)
manager.restore(name)
manager.restore(name, source="registry")
Path(path).unlink()
assert manager.load_model("models:/lotto_model/latest") == {"n": 2}
manager.restore(name, source="registry")
assert manager.sync(resend=True).failed == {}
assert manager.verify() == []
for missing in ("nothing.pkl", "../nothing.pkl"):
    for act in (load_model, manager.get):
        try:
            act(missing)
        except ModelNotFoundError:
            pass
        else:
            raise AssertionError(missing)
manager.relocate()
"""
DONE = """
import pathlib
pathlib.Path(os.environ["DONE"]).write_text("done")
"""
COMMANDS = """
import sys
from lotto_mlflow.cli import main
for words in ("list", "latest --source registry", "show 1", "verify", "env", "version"):
    sys.argv = ["lotto-mlflow", *words.split()]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
"""


def _run(
    command: list[str], tmp_path: Path, database: Path, **arguments: Any
) -> subprocess.CompletedProcess[str]:
    from made import folder_with_store

    app_dir = tmp_path / "app"
    folder_with_store(app_dir / "models" / "ml", database)
    environment = {"LOTTO_APP_DIR": str(app_dir), "DONE": str(tmp_path / "done")}
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT_DIR)} | environment,
        capture_output=True,
        text=True,
        check=False,
        **arguments,
    )
    return done


@pytest.mark.skipif(os.name == "nt", reason="a current folder is not deleted on Windows")
@pytest.mark.parametrize(
    "before",
    [DELETED, NAMELESS, DELETED + NAMELESS, DELETED + WITHOUT_ARGV, WITHOUT_STREAMS],
    ids=["deleted", "nameless", "deleted, nameless", "deleted, no argv", "no streams"],
)
def test_everything_works_in_an_odd_process(
    before: str, tmp_path: Path, migrated_database: Path
) -> None:
    commands = COMMANDS if before == DELETED else ""
    source = before + EVERYTHING + commands + DONE
    done = _run([sys.executable, "-c", source], tmp_path, migrated_database)
    assert (tmp_path / "done").exists(), done.stderr
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_everything_works_in_a_program_read_from_a_pipe(
    tmp_path: Path, migrated_database: Path
) -> None:
    source = EVERYTHING + DONE
    done = _run([sys.executable, "-"], tmp_path, migrated_database, input=source)
    assert (tmp_path / "done").exists(), done.stderr


def test_everything_works_in_an_archive_that_is_executed(
    tmp_path: Path, migrated_database: Path
) -> None:
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "__main__.py").write_text(EVERYTHING + DONE)
    zipapp.create_archive(tmp_path / "program", tmp_path / "program.pyz")
    done = _run([sys.executable, str(tmp_path / "program.pyz")], tmp_path, migrated_database)
    assert (tmp_path / "done").exists(), done.stderr


@pytest.mark.parametrize("app_dir", [None, "relative/app"])
def test_a_deleted_current_folder_is_named_where_the_models_should_be_in_it(
    app_dir: str | None, tmp_path: Path
) -> None:
    """Importing works, and so does everything by an absolute path."""
    source = f"""{DELETED}
from lotto_mlflow import ModelManager, get_latest_model_path, load_model, save_model
from lotto_mlflow.errors import StoreError
path = ModelManager({str(tmp_path / "ml")!r}, mirror="off").save_model({{"n": 1}}, "x")
for act in (lambda: save_model({{"n": 1}}, "x"), get_latest_model_path, lambda: load_model(path),
            lambda: ModelManager("ml")):
    try:
        act()
    except StoreError as error:
        assert "current folder was deleted" in str(error), error
        assert "absolute" in str(error), error
    else:
        raise AssertionError
print("done")
"""
    environment = {} if app_dir is None else {"LOTTO_APP_DIR": app_dir}
    done = subprocess.run(
        [sys.executable, "-c", source],
        env=os.environ | {"PYTHONPATH": str(ROOT_DIR)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr


def test_the_current_folder_of_the_caller_is_what_it_was(
    manager: ModelManager, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        manager.save_model({"n": 1}, "x")
        assert manager.flush(60)
        assert manager.load_model("models:/x/1") == {"n": 1}
        with pytest.raises(FileNotFoundError):
            os.getcwd()  # noqa: PTH109 - the very call is what fails
        assert os.path.samestat(os.stat("."), os.stat("/proc/self/cwd"))  # noqa: PTH116
        assert os.stat(".").st_nlink == 0  # noqa: PTH116
    finally:
        os.chdir(tmp_path)


def test_the_registry_uri_is_asked_only_where_a_tracking_uri_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def fails() -> str:
        asked.append(1)
        raise RuntimeError("no current folder")

    monkeypatch.setattr(mlflow, "get_registry_uri", fails)
    monkeypatch.setattr(mlflow, "is_tracking_uri_set", lambda: False)
    assert settings.read().registry_uri is None
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://registry")
    assert settings.read().registry_uri == "http://registry"
    assert asked == []
    monkeypatch.setattr(mlflow, "is_tracking_uri_set", lambda: True)
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "http://tracking")
    current = settings.read()
    assert (current.tracking_uri, current.registry_uri) == ("http://tracking", None)
    assert asked == [1]


def test_the_cache_of_a_user_without_a_home_is_no_folder_named_tilde(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    found = settings.cache_dir()
    assert found.is_absolute()
    assert "~" not in found.parts
    assert Path.cwd() not in found.parents
