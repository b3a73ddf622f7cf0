"""A model whose classes are not where it is opened says which, and what to do."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import pytest

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import LoadError

MAIN = "defined in __main__, the script or notebook of the process that saved it"
ADVICE = "Put the definition into a module that can be imported in both places"
TRAIN = """
import multiprocessing, sys
import numpy as np
from lotto_mlflow import ModelManager

class Rounded:
    class Inside:
        pass

    def predict(self, rows):
        return np.round(rows)

def scale(rows):
    return rows

def save():
    model = {model}
    print(ModelManager(sys.argv[1]).save_model(model, "own", {{"n": 1}}))

if __name__ == "__main__":
    {run}
"""
IN_CHILD = """child = multiprocessing.get_context("spawn").Process(target=save)
    child.start()
    child.join()"""


def _run(tmp_path: Path, code: str, *arguments: str) -> str:
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("model", "run", "name"),
    [
        ("Rounded()", "save()", "Rounded"),
        ("Rounded.Inside()", "save()", "Rounded.Inside"),
        ("[scale]", "save()", "scale"),
        ("np.array([Rounded()], dtype=object)", "save()", "Rounded"),
        ("Rounded()", IN_CHILD, "Rounded"),
    ],
    ids=["class", "class inside", "function", "array of objects", "process of a pool"],
)
def test_a_class_of_the_script_that_saved_is_named_where_it_is_not(
    base_dir: Path, tmp_path: Path, model: str, run: str, name: str
) -> None:
    said = _run(tmp_path, TRAIN.format(model=model, run=run), str(base_dir))
    assert f"defined in __main__ ({name})" in said
    manager = ModelManager(base_dir)
    for given in (base_dir / "trained" / "own.pkl", "models:/own/1"):
        with pytest.raises(LoadError) as caught:
            manager.load_model(given)
        said = str(caught.value)
        assert f"needs {name!r}, which was {MAIN}" in said
        assert ADVICE in said
        assert isinstance(pickle.loads(pickle.dumps(caught.value)), LoadError)


def test_mlflow_s_own_users_read_it_too(base_dir: Path, tmp_path: Path) -> None:
    _run(tmp_path, TRAIN.format(model="Rounded()", run="save()"), str(base_dir))
    code = (
        "import mlflow\n"
        f"mlflow.set_tracking_uri('sqlite:///{base_dir}/mlflow/mlflow.db')\n"
        "mlflow.pyfunc.load_model('models:/own/1')\n"
    )
    said = _run(tmp_path, code)
    assert f"needs 'Rounded', which was {MAIN}" in said
    assert ADVICE in said


def test_a_program_that_defines_the_class_itself_opens_the_model(
    base_dir: Path, tmp_path: Path
) -> None:
    _run(tmp_path, TRAIN.format(model="Rounded()", run="save()"), str(base_dir))
    path = str(base_dir / "trained" / "own.pkl")
    load = f"print(ModelManager(sys.argv[1]).load_model({path!r}).predict([1.4]))"
    said = _run(tmp_path, TRAIN.format(model="None", run=load), str(base_dir))
    assert "[1.]" in said


def test_a_module_or_a_name_that_is_not_here_is_told(
    disk_manager: ModelManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "drawing_of_lotto.py"
    source.write_text("class Wheel: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import drawing_of_lotto  # type: ignore[import-not-found]

    path = disk_manager.save_model(drawing_of_lotto.Wheel(), "wheel", {"n": 1})
    del drawing_of_lotto.Wheel
    with pytest.raises(LoadError, match="'Wheel' of the module 'drawing_of_lotto'"):
        disk_manager.load_model(path)
    del sys.modules["drawing_of_lotto"]
    source.unlink()
    with pytest.raises(LoadError, match=r"needs the module 'drawing_of_lotto'.*cannot be imported"):
        disk_manager.load_model(path)


class Raising:
    """A model whose own code fails when it is opened."""

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}

    def __setstate__(self, state: dict[str, int]) -> None:
        raise AttributeError("no such state")


def test_an_error_of_the_model_s_own_code_is_left_as_it_is(
    disk_manager: ModelManager, tmp_path: Path
) -> None:
    path = disk_manager.save_model(Raising(), "raising", {"n": 1})
    with pytest.raises(LoadError, match="AttributeError: no such state") as caught:
        disk_manager.load_model(path)
    assert "needs" not in str(caught.value).partition("no such state")[0]
    with pytest.raises(AttributeError):
        joblib.load(path)
