"""Use an installed package outside of its repository, as a newcomer would: see `tests/package.py`.

It needs nothing but the package and what that brings along, and ends with an error where something
is amiss. Run it without ``-O``: it asserts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from sklearn.linear_model import LogisticRegression

import lotto_mlflow
from lotto_mlflow import ModelManager, get_latest_model_path, load_model, model_utils, save_model

PROGRAM = Path(sysconfig.get_path("scripts")) / "lotto-mlflow"
ROWS, CLASSES = [[0.0, 1.0], [1.0, 0.0], [0.1, 0.9], [0.9, 0.2]], [0, 1, 0, 1]


def call(*arguments: str) -> str:
    """Return what a command prints."""
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Save, look up, load and check one model, in Python and by commands."""
    release = version("lotto-mlflow")
    assert Path(lotto_mlflow.__file__).is_relative_to(sys.prefix), lotto_mlflow.__file__
    assert lotto_mlflow.__version__ == release
    assert files("lotto_mlflow").joinpath("py.typed").is_file()

    assert get_latest_model_path() is None
    model = LogisticRegression().fit(ROWS, CLASSES)
    path = save_model(model, "lotto_model_smoke", {"accuracy": 1.0}, input_example=ROWS)
    assert lotto_mlflow.flush(300)
    base_dir = Path.cwd() / "backend" / "app" / "models" / "ml"
    assert base_dir == model_utils.MODEL_BASE_DIR
    assert path == str(base_dir / "trained" / "lotto_model_smoke.pkl")
    assert get_latest_model_path() == get_latest_model_path(source="registry") == path
    for reference in (path, "models:/lotto_model/1", "models:/lotto_model/latest"):
        assert list(load_model(reference).predict(ROWS)) == CLASSES

    assert release in call("version")
    (listed,) = json.loads(call("list", "--json"))
    assert (listed["name"], listed["version"]) == ("lotto_model_smoke", 1)
    assert "lotto_model_smoke" in call("show", "lotto_model_smoke")
    assert json.loads(call("verify", "--json")) == []
    assert ModelManager(base_dir).verify() == []
    predict_with_mlflow_alone(base_dir)
    print(f"lotto-mlflow {release} works with Python {sys.version.split()[0]}")


def predict_with_mlflow_alone(base_dir: Path) -> None:
    """Have MLflow open the model by the loader inside it."""
    code = (
        "import sys, mlflow, numpy\n"
        f"model = mlflow.pyfunc.load_model('models:/lotto_model/1')\n"
        f"assert list(model.predict(numpy.array({ROWS}))) == {CLASSES}\n"
        "assert 'lotto_mlflow' not in sys.modules\n"
    )
    store = f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "MLFLOW_REGISTRY_URI": store}
    subprocess.run([sys.executable, "-I", "-c", code], check=True, env=environment)


if __name__ == "__main__":
    main()
