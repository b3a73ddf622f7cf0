"""Requirements that others wrote in a record or beside a model: pip gets none but names."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import joblib
import pytest
import yaml
from faults.attackers import TITLE
from packaging.requirements import Requirement

from lotto_mlflow import ModelManager
from lotto_mlflow.records import parse, render
from lotto_mlflow.requirements import plain

LINES = {
    "an index": "--index-url http://127.0.0.1:9/simple",
    "an index, joined": "--index-url=http://127.0.0.1:9/simple",
    "another index": "--extra-index-url http://127.0.0.1:9/simple",
    "a short option": "-i http://127.0.0.1:9/simple",
    "a file": "-r /etc/passwd",
    "a constraint": "-c evil.txt",
    "an editable": "-e .",
    "a folder": "./evil",
    "a wheel": "/tmp/evil-1.0-py3-none-any.whl",
    "an address": "http://127.0.0.1:9/evil-1.0.tar.gz",
    "a named address": "numpy @ http://127.0.0.1:9/numpy-9.tar.gz",
    "a named file": "numpy@file:///tmp/numpy",
    "a repository": "git+https://127.0.0.1:9/x.git#egg=numpy",
    "two lines": "numpy\n--index-url http://127.0.0.1:9/simple",
    "a line end of old": "numpy\r--index-url http://127.0.0.1:9/simple",
    "a line end after": "numpy==1.0\n",
    "a line that goes on": "numpy \\\n --index-url http://127.0.0.1:9",
    "two lines in a marker": 'numpy; python_version > "3\n--index-url http://127.0.0.1:9/simple"',
    "an option in a marker": 'numpy; python_version > "3 --index-url http://127.0.0.1:9 "',
    "a short option in a marker": "numpy; python_version > '3 -r evil.txt '",
    "an option after": "numpy==1.0 --config-settings=x=y",
    "a hash": "numpy==1.0 --hash=sha256:00",
    "a variable": 'numpy; python_version > "${HOME}"',
    "a command": "numpy; $(touch mark)",
    "a comment": "numpy # --index-url",
    "an escape": "numpy==1.0\x1b[31m",
    "a version that is none": "scikit-learn==1.5\n-r evil.txt",
    "any version": "numpy===http://127.0.0.1:9",
    "nothing": "",
    "very much": "numpy" + "x" * 100_000,
}
GOOD = [
    "mlflow==3.17.2",
    "scikit-learn>=1.5,<2",
    "pandas[parquet]~=2.2; python_version >= '3.10'",
    'torch==2.1.0+cpu ; sys_platform == "linux"',
    "zope.interface!=5.0",
]


@pytest.mark.parametrize("name", LINES)
def test_a_line_that_is_no_requirement_is_left_out(name: str, figures: Callable[..., None]) -> None:
    lost = plain([LINES[name], *GOOD]) != GOOD
    figures(TITLE, tried=1, lost=int(lost))
    assert not lost


@pytest.mark.parametrize("what", ["a number", "a list", "null"])
def test_what_is_no_text_is_no_requirement(what: str) -> None:
    value = {"a number": 1, "a list": ["numpy"], "null": None}[what]
    assert plain([value, "numpy"]) == ["numpy"]


def _listed(base_dir: Path) -> set[str]:
    """Return every line of the requirements of the mirrored folder, in both forms."""
    (text,) = base_dir.rglob("requirements.txt")
    (conda,) = base_dir.rglob("conda.yaml")
    dependencies = yaml.safe_load(conda.read_text())["dependencies"]
    (pip,) = (item["pip"] for item in dependencies if isinstance(item, dict))
    return {*text.read_text().splitlines(), *(line for item in pip for line in item.splitlines())}


def test_a_record_gives_pip_nothing_but_names(
    base_dir: Path, caplog: pytest.LogCaptureFixture, figures: Callable[..., None]
) -> None:
    ModelManager(base_dir, mirror="off").save_model({"a": 1}, "x", {"n": 1})
    (path,) = (base_dir / "mlflow" / "outbox").glob("*.json")
    record = parse(path.read_bytes())
    record.payload.description.requirements[:] = [*LINES.values(), *GOOD]
    path.write_bytes(render(record))
    with caplog.at_level(logging.INFO, "lotto_mlflow"):
        assert ModelManager(base_dir).sync().sent == ["x"]
    listed = {str(Requirement(line)) for line in _listed(base_dir)}
    figures(TITLE, tried=1, lost=len(listed - {str(Requirement(line)) for line in GOOD}))
    assert listed == {str(Requirement(line)) for line in GOOD}
    (line,) = [r.getMessage() for r in caplog.records if "name no distribution" in r.getMessage()]
    assert line.isprintable()
    assert "--index-url" in line
    assert ModelManager(base_dir).verify() == []


def test_a_record_without_one_requirement_that_is_one_is_sent(base_dir: Path) -> None:
    ModelManager(base_dir, mirror="off").save_model({"a": 1}, "x", {"n": 1})
    (path,) = (base_dir / "mlflow" / "outbox").glob("*.json")
    record = parse(path.read_bytes())
    record.payload.description.requirements[:] = list(LINES.values())
    path.write_bytes(render(record))
    manager = ModelManager(base_dir)
    assert manager.sync().sent == ["x"]
    assert all(line.startswith("mlflow") for line in _listed(base_dir))
    assert manager.load_model("models:/x/1") == {"a": 1}


def test_metadata_of_an_old_file_gives_pip_nothing_but_names(base_dir: Path) -> None:
    for folder in ("trained", "metadata"):
        (base_dir / folder).mkdir()
    joblib.dump({"a": 1}, base_dir / "trained" / "x.pkl")
    declared = {
        "requirements": list(LINES.values()),
        "sklearn_version": "1.5\n--index-url http://127.0.0.1:9",
        "numpy_version": "1.26 --index-url=http://127.0.0.1:9",
        "joblib_version": "1.4.2",
    }
    (base_dir / "metadata" / "x_metadata.json").write_text(json.dumps(declared))
    assert ModelManager(base_dir).sync().sent == ["x"]
    listed = _listed(base_dir)
    assert "joblib==1.4.2" in listed
    assert not any("--" in line or "127" in line for line in listed)
