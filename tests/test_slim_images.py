"""Where modules are installed without a word of their versions: slim images, frozen programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest

import lotto_mlflow

ROOT_DIR = Path(__file__).parents[1]
SITE_DIR = Path(sysconfig.get_paths()["purelib"])
OURS = ("joblib", "lotto_mlflow", "numpy", "pandas", "scikit_learn", "scipy", "sqlalchemy")
"""Without these, MLflow works; without its own, it takes itself for another edition."""
TOLD = ("lotto-mlflow", "mlflow", "scikit-learn", "joblib")

SAVED_AND_LOADED = """
import logging, sys
logging.basicConfig(format="%(levelname)s %(message)s")
from sklearn.tree import DecisionTreeClassifier
from lotto_mlflow import ModelManager
base_dir, mirror = sys.argv[1:]
manager = ModelManager(base_dir, mirror=mirror)
model = DecisionTreeClassifier(max_depth=2).fit([[0, 0], [1, 1]], [0, 1])
path = manager.save_model(model, "tree", {"depth": 2})
assert manager.flush(120) or mirror == "off"
assert list(manager.load_model(path).predict([[1, 1]])) == [1]
if mirror != "off":
    assert list(manager.load_model("models:/tree/1").predict([[1, 1]])) == [1]
    assert manager.get("tree").sklearn_version
    assert not manager.verify()
"""


def _site_without(tmp_path: Path, *, keeps_mlflow: bool) -> Path:
    """Return a folder with all that is installed, but not what tells the versions of it."""
    found = tmp_path / "site"
    found.mkdir()
    for path in SITE_DIR.iterdir():
        is_kept = keeps_mlflow and path.name.partition("-")[0].lower() not in OURS
        if path.suffix == ".pth" or (path.suffix == ".dist-info" and not is_kept):
            continue
        (found / path.name).symlink_to(path)
    return found


def _run(site_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT_DIR), str(site_dir)])
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("mirror", ["sync", "off"])
def test_a_model_is_saved_and_loaded_and_its_versions_come_from_the_modules(
    tmp_path: Path, mirror: str
) -> None:
    site_dir = _site_without(tmp_path, keeps_mlflow=mirror == "sync")
    told = _run(site_dir, "-c", "from importlib.metadata import version; version('scikit-learn')")
    assert "PackageNotFoundError" in told.stderr, "nothing is hidden"
    answer = _run(site_dir, "-c", SAVED_AND_LOADED, str(tmp_path / "ml"), mirror)
    assert answer.returncode == 0, answer.stderr
    ours = [line for line in answer.stderr.splitlines() if "lotto" in line or "tree" in line]
    assert not ours
    libraries = ("joblib", "mlflow", "numpy", "scikit-learn", "scipy")
    (record,) = (tmp_path / "ml" / "mlflow").glob(
        "*/*~*.json" if mirror == "off" else "sent/*.json"
    )
    text = record.read_text(encoding="utf-8")
    for name in libraries:
        pin = f"{name}=={version(name)}" if mirror == "sync" or name != "mlflow" else "mlflow"
        assert f'"{pin}"' in text


def test_another_scikit_learn_is_still_warned_of(tmp_path: Path) -> None:
    site_dir = _site_without(tmp_path, keeps_mlflow=False)
    base_dir = str(tmp_path / "ml")
    assert _run(site_dir, "-c", SAVED_AND_LOADED, base_dir, "off").returncode == 0
    code = (
        "import sklearn; sklearn.__version__ = '0.24.2'; from lotto_mlflow import ModelManager\n"
        f"ModelManager({base_dir!r}, mirror='off').load_model({base_dir + '/trained/tree.pkl'!r})"
    )
    answer = _run(site_dir, "-c", code)
    assert answer.returncode == 0, answer.stderr
    assert f"saved with scikit-learn {version('scikit-learn')}, and 0.24.2" in answer.stderr


def test_a_model_of_no_scikit_learn_loads_where_there_is_none(tmp_path: Path) -> None:
    base_dir, site_dir = str(tmp_path / "ml"), _site_without(tmp_path, keeps_mlflow=False)
    save = (
        "from lotto_mlflow import ModelManager; from sklearn.tree import DecisionTreeClassifier\n"
        f"m = ModelManager({base_dir!r}, mirror='off'); m.save_model({{'n': 1}}, 'd', {{}})\n"
        "m.save_model([DecisionTreeClassifier()], 't', {})"
    )
    assert _run(site_dir, "-c", save).returncode == 0
    (site_dir / "sklearn").unlink()
    code = f"from lotto_mlflow import ModelManager; m = ModelManager({base_dir!r}, mirror='off')\n"
    assert (
        _run(site_dir, "-c", code + f"print(m.load_model({base_dir!r} + '/trained/d.pkl'))").stdout
        == "{'n': 1}\n"
    )
    answer = _run(site_dir, "-c", code + f"m.load_model({base_dir!r} + '/trained/t.pkl')")
    assert "LoadError" in answer.stderr
    assert "sklearn" in answer.stderr


@pytest.mark.parametrize("keeps_mlflow", [False, True])
def test_version_tells_what_the_modules_say(tmp_path: Path, keeps_mlflow: bool) -> None:
    site_dir = _site_without(tmp_path, keeps_mlflow=keeps_mlflow)
    answer = _run(site_dir, "-m", "lotto_mlflow", "version", "--json")
    found = json.loads(answer.stdout)
    assert {name: found[name] for name in TOLD} == {name: version(name) for name in TOLD}
    (site_dir / "sklearn").unlink()
    answer = _run(site_dir, "-m", "lotto_mlflow", "version")
    assert re.search(r"^scikit-learn +-$", answer.stdout, re.MULTILINE), answer.stderr
    answer = _run(site_dir, "-m", "lotto_mlflow", "version", "--json")
    assert json.loads(answer.stdout)["scikit-learn"] is None


def test_a_path_with_a_question_mark_is_opened_by_what_sqlalchemy_says_of_itself(
    tmp_path: Path,
) -> None:
    site_dir = _site_without(tmp_path, keeps_mlflow=False)
    code = "from lotto_mlflow.settings import sqlite_uri, sqlite_path; from pathlib import Path\n"
    code += "print(sqlite_path(sqlite_uri(Path('/a/100%25?'))))"
    answer = _run(site_dir, "-c", code)
    assert answer.stdout == "/a/100%25?\n", answer.stderr


def test_the_package_tells_the_version_that_it_is_built_as() -> None:
    text = (ROOT_DIR / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{lotto_mlflow.__version__}"\n' in text
