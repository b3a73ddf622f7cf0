"""What MLflow would run of a model: the check of its whole folder, and the serving of a copy."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
import pytest
import serving
import yaml
from made import folder_with_store
from mlflow import MlflowClient
from sklearn.ensemble import RandomForestClassifier
from typer.testing import CliRunner, Result

from lotto_mlflow import ModelManager, private_dirs, pyfunc_loader, signing
from lotto_mlflow.cli import app, output, server
from lotto_mlflow.errors import (
    ForeignModelError,
    InvalidReferenceError,
    ModelNotFoundError,
    SettingsError,
    SignatureError,
    StoreError,
)
from lotto_mlflow.model_dir import DATA_FILE
from lotto_mlflow.signing import Statement, loaders, model_folders, sha256_of_requirements

ROOT_DIR = Path(__file__).parents[1]
LOADERS_DIR = Path(__file__).parent / "loaders"
EXAMPLE_DIR = ROOT_DIR / "mlruns_example" / "mlflow" / "artifacts" / "lotto_model" / "models"
V1, V2 = "lotto_mlflow_loader_v1", "lotto_mlflow_loader_v2"
FRAME = pd.DataFrame({"길이": [1.0, 2.0, 3.0, 4.0], "b": [0.5, 0.25, 0.125, 0.0]})
Edit = Callable[[Path], Any]


def statement_of(folder: Path, **other: Any) -> Statement:
    """Return what would be signed of the model in a folder as it is."""
    flavour = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["lotto_mlflow"]
    lines = (folder / "requirements.txt").read_text().split("\n")
    statement = Statement(
        folder="0" * 32,
        name="lotto_model_a",
        registered_model="lotto_model",
        save_id=flavour["save_id"],
        saved_at="2026-11-27T09:00:00+09:00",
        saved_at_ns=int(flavour["save_id"].partition("-")[0]),
        sha256=flavour["sha256"],
        size=(folder / DATA_FILE).stat().st_size,
        metadata_sha256=None,
        requirements_sha256=sha256_of_requirements(lines),
    )
    return replace(statement, **other)


def model_dir_of(base_dir: Path, name: str) -> Path:
    model_id = str(ModelManager(base_dir).get(name).model_id)
    return base_dir / "mlflow" / "artifacts" / "lotto_model" / "models" / model_id / "artifacts"


@pytest.fixture(scope="module")
def pushed_dir(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Path:
    """A model with an input example of Korean columns, as a push wrote it; tests copy it."""
    base_dir = folder_with_store(tmp_path_factory.mktemp("gate") / "ml", migrated_database)
    forest = RandomForestClassifier(n_estimators=3, random_state=1).fit(FRAME, [0, 1, 0, 1])
    ModelManager(base_dir).save_model(forest, "lotto_model_a", input_example=FRAME)
    return model_dir_of(base_dir, "lotto_model_a")


@pytest.fixture
def model_dir(pushed_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pushed_dir, tmp_path / "model"))


def replaced(name: str, old: str, new: str) -> Edit:
    """Return the edit that puts a text in the place of another."""

    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text, (name, old, text)
        (folder / name).write_text(text.replace(old, new, 1))

    return edit


def appended(name: str, text: str) -> Edit:
    def edit(folder: Path) -> None:
        with (folder / name).open("a") as file:
            file.write(text)

    return edit


def added(name: str, text: str = "import os\n") -> Edit:
    def edit(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    return edit


def with_values(name: str, change: Callable[[Any], Any]) -> Edit:
    """Return the edit that changes the values in a YAML file."""

    def edit(folder: Path) -> None:
        values = yaml.safe_load((folder / name).read_text())
        change(values)
        (folder / name).write_text(yaml.safe_dump(values))

    return edit


def in_mlmodel(*keys: str, value: Any) -> Edit:
    def change(values: Any) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = value

    return with_values("MLmodel", change)


def in_function(key: str, value: Any) -> Edit:
    return in_mlmodel("flavors", "python_function", key, value=value)


def in_all_environments(old: str, new: str) -> Edit:
    """Return the edit of a requirement in both files that have it."""

    def edit(folder: Path) -> None:
        lines = (folder / "requirements.txt").read_text().split("\n")
        lines = [new if line.startswith(old) else line for line in lines]
        assert new in lines
        (folder / "requirements.txt").write_text("\n".join(lines))
        with_values("conda.yaml", lambda v: v["dependencies"][2].update(pip=lines))(folder)

    return edit


def as_old_loader(module: str, source: Path) -> Edit:
    """Return the edit that puts another loader in the place of the one that is there."""

    def edit(folder: Path) -> None:
        shutil.rmtree(folder / "code")
        (folder / "code").mkdir()
        shutil.copy(source, folder / "code" / f"{module}.py")
        in_function("loader_module", module)(folder)

    return edit


def removed(name: str) -> Edit:
    return lambda folder: (folder / name).unlink()


def linked(name: str) -> Edit:
    def edit(folder: Path) -> None:
        other = folder.parent / "elsewhere"
        (folder / name).rename(other)
        (folder / name).symlink_to(other)

    return edit


def all_of(*edits: Edit) -> Edit:
    def edit(folder: Path) -> None:
        for each in edits:
            each(folder)

    return edit


def bit_flipped(name: str) -> Edit:
    def edit(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return edit


def pipe_at(name: str) -> Edit:
    return lambda folder: os.mkfifo(folder / name)


INIT = f"code/{V2}/__init__.py"
FUNCTION = ("flavors", "python_function")
HOSTILE: dict[str, tuple[Edit, str]] = {
    # the loader, and what else Python would import
    "a changed loader": (bit_flipped(INIT), "code"),
    "a line at the end of the loader": (appended(INIT, "import os\n"), "code"),
    "a line at the end of another module": (appended(f"code/{V2}/inputs.py", "#"), "code"),
    "a loader without a module": (removed(f"code/{V2}/fitted.py"), "code"),
    "a module in code": (added("code/joblib.py"), "code/joblib.py"),
    "a package in code": (added("code/joblib/__init__.py"), "code/joblib"),
    "a module in the loader": (added(f"code/{V2}/os.py"), f"code/{V2}/os.py"),
    "a module started with Python": (added("code/sitecustomize.py"), "code/site"),
    "a path file": (added("code/evil.pth"), "code/evil.pth"),
    "an empty package": (lambda f: (f / "code" / "joblib").mkdir(), "code/joblib"),
    "what Python compiled of the loader": (
        added(f"code/{V2}/__pycache__/__init__.cpython-311.pyc"),
        f"code/{V2}/__pycache__",
    ),
    "what Python compiled of another": (
        added("code/__pycache__/os.cpython-311.pyc"),
        "code/__pycache__",
    ),
    "a compiled module": (added("code/joblib.pyc"), "code/joblib.pyc"),
    "another loader beside": (added(f"code/{V1}.py"), "code"),
    "the new loader's name on an old one": (
        as_old_loader(V2, LOADERS_DIR / f"{V1}.py"),
        f"code/{V2}.py",
    ),
    "an old loader's name on the new one": (
        as_old_loader(V1, ROOT_DIR / "lotto_mlflow" / "pyfunc_loader" / "__init__.py"),
        f"code/{V1}",
    ),
    "no code": (lambda f: shutil.rmtree(f / "code"), "code"),
    "a link for a module": (linked(f"code/{V2}/inputs.py"), "inputs.py"),
    "a link for code": (linked("code"), "code"),
    # what MLflow is told to do
    "another module": (in_function("loader_module", "os"), "MLmodel"),
    "another module of MLflow": (in_function("loader_module", "mlflow.sklearn"), "MLmodel"),
    "a part of the loader": (in_function("loader_module", f"{V2}.inputs"), "MLmodel"),
    "another loader": (in_function("loader_module", V1), "MLmodel"),
    "no module": (in_function("loader_module", None), "MLmodel"),
    "code elsewhere": (in_function("code", "../elsewhere"), "MLmodel"),
    "code in data": (in_function("code", "data"), "MLmodel"),
    "no code path": (in_function("code", None), "MLmodel"),
    "code at another spelling": (in_function("code", "./code"), "MLmodel"),
    "data elsewhere": (in_function("data", "../model.pkl"), "MLmodel"),
    "absolute data": (in_function("data", "/etc/passwd"), "MLmodel"),
    "data in our flavour elsewhere": (
        in_mlmodel("flavors", "lotto_mlflow", "data", value="data/other.pkl"),
        "MLmodel",
    ),
    "another method": (in_function("predict_fn", "get_raw_model"), "MLmodel"),
    "a stream": (in_function("streamable", True), "MLmodel"),
    "a stream by a number": (in_function("streamable", 0), "MLmodel"),
    "a model from code": (in_function("model_code_path", "code/x.py"), "MLmodel"),
    "artifacts": (in_function("artifacts", {"a": {"path": "x", "uri": "x"}}), "MLmodel"),
    "a Python model": (in_function("python_model", "python_model.pkl"), "MLmodel"),
    "another environment": (in_function("env", "evil.yaml"), "MLmodel"),
    "another file of conda": (
        in_mlmodel(*FUNCTION, "env", "conda", value="../conda.yaml"),
        "MLmodel",
    ),
    "another file of requirements": (
        in_mlmodel(*FUNCTION, "env", "virtualenv", value="data/env.yaml"),
        "MLmodel",
    ),
    "another environment more": (in_mlmodel(*FUNCTION, "env", "docker", value="x"), "MLmodel"),
    "a configuration": (in_function("config", {"model_config": "x"}), "MLmodel"),
    "another form": (in_function("config", {"form": "eval"}), "MLmodel"),
    "another unit": (in_function("config", {"times": {"a": "years"}}), "MLmodel"),
    "a Python that is none": (in_function("python_version", "3.11; rm -rf /"), "MLmodel"),
    "a flavour more": (in_mlmodel("flavors", "mlflow.sklearn", value={}), "MLmodel"),
    "sklearn": (
        in_mlmodel("flavors", "sklearn", value={"pickled_model": DATA_FILE, "code": "code"}),
        "MLmodel",
    ),
    "a program in R": (in_mlmodel("flavors", "crate", value={"model": "x"}), "MLmodel"),
    "resources": (in_mlmodel("resources", value={"api_version": "1"}), "MLmodel"),
    "an authority": (in_mlmodel("auth_policy", value={"system_auth_policy": {}}), "MLmodel"),
    "variables": (in_mlmodel("env_vars", value=["PATH"]), "MLmodel"),
    "prompts": (in_mlmodel("prompts", value=["prompts:/x/1"]), "MLmodel"),
    "metadata": (in_mlmodel("metadata", value={"mlflow.externalModel": True}), "MLmodel"),
    "an artifact path": (in_mlmodel("artifact_path", value="../x"), "MLmodel"),
    "a field of later": (in_mlmodel("hooks", value="os.system"), "MLmodel"),
    "type hints": (in_mlmodel("is_signature_from_type_hint", value=True), "MLmodel"),
    "type hints of the example": (in_mlmodel("type_hint_from_example", value=True), "MLmodel"),
    "another run": (in_mlmodel("run_id", value="../x"), "MLmodel"),
    "another parameter": (
        in_mlmodel("signature", "params", value='[{"name": "a", "type": "string"}]'),
        "MLmodel",
    ),
    "another default": (replaced("MLmodel", '"default": "predict"', '"default": "fit"'), "MLmodel"),
    "no schema": (in_mlmodel("signature", "inputs", value="print()"), "MLmodel"),
    "another example": (
        in_mlmodel("saved_input_example_info", "artifact_path", value="../example.json"),
        "MLmodel",
    ),
    "an example of another kind": (
        in_mlmodel("saved_input_example_info", "type", value="pickle"),
        "MLmodel",
    ),
    "an example not named": (in_mlmodel("saved_input_example_info", value=None), "input_example"),
    "an example missing": (removed("input_example.json"), "input_example.json"),
    # what stands for other saves
    "another digest": (
        in_mlmodel("flavors", "lotto_mlflow", "sha256", value="0" * 64),
        "MLmodel",
    ),
    "another save": (
        in_mlmodel("flavors", "lotto_mlflow", "save_id", value="1795739599160197195-00000000"),
        "MLmodel",
    ),
    "a line like a digest": (
        replaced(
            "MLmodel",
            "    model_type:",
            f"    model_type: 'x\n\n\n      sha256: {'1' * 64}\n\n\n      '\n    x:",
        ),
        "MLmodel",
    ),
    "another model": (bit_flipped(DATA_FILE), DATA_FILE),
    "a longer model": (appended(DATA_FILE, "."), DATA_FILE),
    "a link for the model": (linked(DATA_FILE), DATA_FILE),
    # what YAML can do
    "a tag": (appended("MLmodel", "x: !!python/object/apply:os.system ['true']\n"), "MLmodel"),
    "a plain tag": (replaced("MLmodel", "prompts: null", "prompts: !!null null"), "MLmodel"),
    "a key twice": (appended("MLmodel", "prompts: null\n"), "MLmodel"),
    "a flavour twice": (
        replaced("MLmodel", "  python_function:", "  lotto_mlflow: {}\n  python_function:"),
        "MLmodel",
    ),
    "a module twice": (
        replaced("MLmodel", "    loader_module:", "    loader_module: os\n    loader_module:"),
        "MLmodel",
    ),
    "an anchor": (replaced("MLmodel", "prompts: null", "prompts: &a null"), "MLmodel"),
    "an alias": (
        replaced("MLmodel", "prompts: null", "prompts: &a null\nresources: *a"),
        "MLmodel",
    ),
    "a merge": (replaced("MLmodel", "prompts: null", "<<: {loader_module: os}"), "MLmodel"),
    "a second document": (appended("MLmodel", "---\nflavors: {}\n"), "MLmodel"),
    "a directive": (
        lambda f: (f / "MLmodel").write_text("%YAML 1.1\n---\n" + (f / "MLmodel").read_text()),
        "MLmodel",
    ),
    "a key that is no text": (appended("MLmodel", "yes: null\n"), "MLmodel"),
    "a key that is a list": (appended("MLmodel", "? [a]\n: null\n"), "MLmodel"),
    "a character of control": (appended("MLmodel", "\x85x: null\n"), "MLmodel"),
    "a tab": (appended("MLmodel", "x:\tnull\n"), "MLmodel"),
    "no YAML": (added("MLmodel", "{"), "MLmodel"),
    "a list": (added("MLmodel", "- flavors\n"), "MLmodel"),
    "nothing": (added("MLmodel", ""), "MLmodel"),
    "depths": (added("MLmodel", "[" * 100_000), "MLmodel"),
    "no flavours": (in_mlmodel("flavors", value={}), "MLmodel"),
    "flavours that are none": (in_mlmodel("flavors", value="os"), "MLmodel"),
    # what pip and conda install
    "a package more": (appended("requirements.txt", "\nevil==1"), "requirements.txt"),
    "a package less": (replaced("requirements.txt", "joblib==", "jobiib=="), "requirements.txt"),
    "another release everywhere": (
        in_all_environments("joblib", "joblib==1.0"),
        "requirements.txt",
    ),
    "another MLflow everywhere": (
        in_all_environments("mlflow", "mlflow==2.0"),
        "requirements.txt",
    ),
    "another order": (
        lambda f: (f / "requirements.txt").write_text(
            "\n".join(reversed((f / "requirements.txt").read_text().split("\n")))
        ),
        "requirements.txt",
    ),
    "an index": (
        appended("requirements.txt", "\n--index-url https://example.org"),
        "requirements.txt",
    ),
    "an extra index": (
        appended("requirements.txt", "\n--extra-index-url=https://example.org"),
        "requirements.txt",
    ),
    "a trusted host": (
        appended("requirements.txt", "\n--trusted-host example.org"),
        "requirements.txt",
    ),
    "a file of requirements": (appended("requirements.txt", "\n-r evil.txt"), "requirements.txt"),
    "constraints": (appended("requirements.txt", "\n-c evil.txt"), "requirements.txt"),
    "an address": (
        appended("requirements.txt", "\nevil @ https://example.org/evil.zip"),
        "requirements.txt",
    ),
    "a bare address": (
        appended("requirements.txt", "\nhttps://example.org/evil.zip"),
        "requirements.txt",
    ),
    "a repository": (
        appended("requirements.txt", "\ngit+https://example.org/evil"),
        "requirements.txt",
    ),
    "a folder to build": (appended("requirements.txt", "\n-e ./code"), "requirements.txt"),
    "a path": (appended("requirements.txt", "\n./code"), "requirements.txt"),
    "an option of one": (
        appended("requirements.txt", "\njoblib==1.5 --config-settings=x"),
        "requirements.txt",
    ),
    "a line that goes on": (appended("requirements.txt", " \\\n-r evil.txt"), "requirements.txt"),
    "an empty line": (appended("requirements.txt", "\n\n"), "requirements.txt"),
    "a comment": (appended("requirements.txt", "\n# -*- coding: utf-7 -*-"), "requirements.txt"),
    "a variable": (appended("requirements.txt", "\n${EVIL}"), "requirements.txt"),
    "another line end": (appended("requirements.txt", "\revil"), "requirements.txt"),
    "no requirements": (added("requirements.txt", ""), "requirements.txt"),
    "other requirements of conda": (
        with_values("conda.yaml", lambda v: v["dependencies"][2]["pip"].append("evil")),
        "conda.yaml",
    ),
    "a channel": (
        with_values("conda.yaml", lambda v: v["channels"].insert(0, "https://example.org")),
        "conda.yaml",
    ),
    "a package of conda": (
        with_values("conda.yaml", lambda v: v["dependencies"].insert(1, "evil")),
        "conda.yaml",
    ),
    "an index of conda": (
        with_values("conda.yaml", lambda v: v["dependencies"][2]["pip"].insert(0, "-i x")),
        "conda.yaml",
    ),
    "variables of conda": (
        with_values("conda.yaml", lambda v: v.update(variables={"LD_PRELOAD": "x"})),
        "conda.yaml",
    ),
    "another Python of conda": (
        with_values("conda.yaml", lambda v: v["dependencies"].__setitem__(0, "python=2.7")),
        "conda.yaml",
    ),
    "another name of pip": (
        with_values("conda.yaml", lambda v: v["dependencies"].__setitem__(1, "pip-evil")),
        "conda.yaml",
    ),
    "a key of conda twice": (appended("conda.yaml", "name: mlflow-env\n"), "conda.yaml"),
    "something to build with": (
        with_values("python_env.yaml", lambda v: v["build_dependencies"].append("evil==1")),
        "python_env.yaml",
    ),
    "an address to build with": (
        with_values(
            "python_env.yaml",
            lambda v: v["build_dependencies"].__setitem__(0, "pip @ https://example.org/p.zip"),
        ),
        "python_env.yaml",
    ),
    "an option to build with": (
        with_values("python_env.yaml", lambda v: v["build_dependencies"].append("-r evil.txt")),
        "python_env.yaml",
    ),
    "other requirements": (
        with_values("python_env.yaml", lambda v: v.update(dependencies=["-r evil.txt"])),
        "python_env.yaml",
    ),
    "requirements more": (
        with_values("python_env.yaml", lambda v: v["dependencies"].append("evil")),
        "python_env.yaml",
    ),
    "another Python": (
        with_values("python_env.yaml", lambda v: v.update(python="3.9.9")),
        "python_env.yaml",
    ),
    "a Python that is a command": (
        all_of(
            with_values("python_env.yaml", lambda v: v.update(python="3.11; true")),
            in_function("python_version", "3.11; true"),
        ),
        "",
    ),
    # what else may lie there
    "a file": (added("evil.py"), "evil.py"),
    "a file beside the model": (added("data/evil.pkl"), "data/evil.pkl"),
    "a file beside the signature": (added("signature/evil"), "signature/evil"),
    "requirements of later": (added("constraints.txt"), "constraints.txt"),
    "a lock file": (added("uv.lock"), "uv.lock"),
    "a pipe": (pipe_at("pipe"), "pipe"),
    "a pipe for a file that may be missing": (
        all_of(removed("input_example.json"), pipe_at("input_example.json")),
        "input_example.json",
    ),
    "a link": (lambda f: (f / "registered_model_meta").symlink_to("/etc/passwd"), "registered"),
    "a hidden file": (added(".env"), ".env"),
    "a name of another case": (
        lambda f: (f / "requirements.txt").rename(f / "Requirements.txt"),
        "Requirements.txt",
    ),
    "no environment": (removed("python_env.yaml"), "python_env.yaml"),
}


def test_a_pushed_model_folder_is_accepted_as_it_is(model_dir: Path) -> None:
    model = model_folders.check(model_dir, statement_of(model_dir))
    assert (model.loader_module, model.has_example) == (pyfunc_loader.MODULE_NAME, True)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_model_folder_is_refused_where_anything_differs(case: str, model_dir: Path) -> None:
    edit, name = HOSTILE[case]
    statement = statement_of(model_dir)
    edit(model_dir)
    with pytest.raises(SignatureError) as caught:
        model_folders.check(model_dir, statement)
    assert caught.value.data["problem"] == "model folder"
    assert name in caught.value.data["file"]
    assert "nothing of the model was opened" in str(caught.value)


def test_the_names_are_enough_to_refuse_a_file_before_it_is_read(model_dir: Path) -> None:
    found = dict.fromkeys(p.relative_to(model_dir).as_posix() for p in model_dir.rglob("*.*"))
    found |= {"MLmodel": None}
    assert sorted(found) == model_folders.wanted_names(found, drops_compiled=True)
    for name in ("../evil", "/etc/passwd", "code/../evil.py", "code/", "", "code\\evil.py"):
        with pytest.raises(SignatureError):
            model_folders.wanted_names(found | {name: None}, drops_compiled=True)
    compiled = f"code/{V2}/__pycache__/__init__.cpython-311.pyc"
    more = found | {compiled: None, "registered_model_meta": None}
    assert sorted(found) == model_folders.wanted_names(more, drops_compiled=True)
    with pytest.raises(SignatureError, match="Delete the folders __pycache__"):
        model_folders.wanted_names(more, drops_compiled=False)


@pytest.mark.parametrize("part", ["sha256", "size", "save_id", "requirements_sha256"])
def test_a_model_folder_is_refused_for_the_statement_of_another_save(
    part: str, model_dir: Path
) -> None:
    other = {
        "sha256": "0" * 64,
        "size": 1,
        "save_id": "1795739599160197195-00000000",
        "requirements_sha256": "0" * 64,
    }
    with pytest.raises(SignatureError):
        model_folders.check(model_dir, statement_of(model_dir, **{part: other[part]}))


def test_mlflow_may_add_its_own_requirement_and_its_note_of_a_version(model_dir: Path) -> None:
    lines = (model_dir / "requirements.txt").read_text().split("\n")
    others = [line for line in lines if not line.startswith("mlflow==")]
    assert len(others) == len(lines) - 1
    own = statement_of(model_dir, requirements_sha256=sha256_of_requirements(others))
    added("registered_model_meta", "model_name: a\nmodel_version: '1'\n")(model_dir)
    model_folders.check(model_dir, own)
    in_all_environments("mlflow", "mlflow==3.0.0")(model_dir)
    with pytest.raises(SignatureError, match="not the requirements that were signed"):
        model_folders.check(model_dir, own)


@pytest.mark.parametrize("folder", sorted(EXAMPLE_DIR.glob("*/artifacts")), ids=str)
def test_the_models_of_the_example_store_are_accepted(folder: Path) -> None:
    assert model_folders.check(folder, statement_of(folder)).loader_module == V2


@pytest.mark.parametrize("source", sorted(LOADERS_DIR.rglob(f"{V1}.py")), ids=str)
def test_a_model_with_the_loader_of_an_earlier_release_is_accepted(
    source: Path, model_dir: Path
) -> None:
    as_old_loader(V1, source)(model_dir)
    assert model_folders.check(model_dir, statement_of(model_dir)).loader_module == V1
    appended(f"code/{V1}.py", "\n")(model_dir)
    with pytest.raises(SignatureError, match="not the loader of any release"):
        model_folders.check(model_dir, statement_of(model_dir))


def test_the_list_has_the_present_loader_and_the_earlier_ones() -> None:
    """If it fails, because the loader was changed: run `make loaders`."""
    assert loaders.is_released(pyfunc_loader.MODULE_NAME, loaders.present())
    assert loaders.LIST_PATH.read_text() == loaders.with_present()
    for path in LOADERS_DIR.rglob(f"{V1}.py"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert loaders.is_released(V1, {f"{V1}.py": digest})
    for folder in EXAMPLE_DIR.glob("*/artifacts/code"):
        names = (path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
        found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
        assert loaders.is_released(V2, found)


SAVED = ("lotto_model_a", "other_a")
SCRIPT = """
import os, sys
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from lotto_mlflow import ModelManager
frame = pd.DataFrame({frame!r})
manager = ModelManager(sys.argv[1])
for number, name in enumerate({names!r}):
    forest = RandomForestClassifier(n_estimators=3, random_state=number)
    manager.save_model(forest.fit(frame, [0, 1, 0, 1]), name, input_example=frame)
"""


@pytest.fixture(scope="module")
def keys_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys of those who save, and of a stranger."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "stranger"):
        signing.new_key(folder / name, None)
    return folder


@pytest.fixture(scope="module")
def signed_dir(
    tmp_path_factory: pytest.TempPathFactory, migrated_database: Path, keys_dir: Path
) -> Path:
    """Two registered models, each with a signed version, and one that is not signed."""
    base_dir = folder_with_store(tmp_path_factory.mktemp("signed") / "ml", migrated_database)
    _save(base_dir, LOTTO_SIGNING_KEY=str(keys_dir / "ours"))
    return base_dir


def _save(base_dir: Path, names: tuple[str, ...] = SAVED, **environment: str) -> None:
    """Save models in a process of its own, so that no setting of it reaches this one."""
    code = SCRIPT.format(frame=FRAME.to_dict("list"), names=names)
    command = [sys.executable, "-c", code, str(base_dir)]
    given = {"LOTTO_MIRROR": "background"} | environment
    subprocess.run(command, env=os.environ | given, check=True, timeout=300)
    assert ModelManager(base_dir, tracking_uri=environment.get("MLFLOW_TRACKING_URI")).flush(300)


@pytest.fixture
def copied(signed_dir: Path, tmp_path: Path) -> Path:
    """The folder of these models, of which nothing else uses the copy."""
    base_dir = Path(shutil.copytree(signed_dir, tmp_path / "copied"))
    ModelManager(base_dir).relocate()
    return base_dir


@pytest.fixture
def trusted(keys_dir: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have our public key trusted."""
    path = str(keys_dir / "ours.pub")
    monkeypatch.setenv("LOTTO_TRUSTED_KEYS", path)
    return path


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def kinds_in(base_dir: Path, uri: str) -> list[str]:
    """Return the kinds of what ``verify URI --json`` finds."""
    done = call("verify", uri, "--json", "--base-dir", base_dir)
    found = json.loads(done.stdout)
    assert done.exit_code == bool(found), done.output
    return [finding["kind"] for finding in found]


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("uri", ["models:/lotto_model/1", "models:/lotto_model/latest"])
def test_verify_accepts_a_signed_version_and_says_which_it_is(copied: Path, uri: str) -> None:
    done = call("verify", uri, "--base-dir", copied)
    assert done.exit_code == 0, done.output
    signed = ModelManager(copied).verify_version(uri).statement
    assert done.stdout == (
        f"models:/lotto_model/1 is lotto_model_a of {signed.saved_at}, signed, "
        f"sha256 {signed.sha256}\n"
    )
    assert kinds_in(copied, uri) == []


@pytest.mark.usefixtures("trusted")
def test_verify_looks_at_that_version_alone(copied: Path) -> None:
    appended(INIT, "import os\n")(model_dir_of(copied, "other_a"))
    assert kinds_in(copied, "models:/lotto_model/1") == []
    assert kinds_in(copied, "models:/other_a/1") == ["damaged"]
    done = call("verify", "models:/other_a/1", "--base-dir", copied)
    assert done.exit_code == 1
    assert "not the loader of any release" in done.stdout
    assert "    fix: use another version, or" in done.stdout


def test_without_trusted_keys_nothing_is_verified_or_served(copied: Path) -> None:
    for command in ("verify", "serve"):
        done = call(command, "models:/lotto_model/1", "--base-dir", copied)
        assert done.exit_code == 1
        assert "LOTTO_TRUSTED_KEYS" in done.stderr
    with pytest.raises(SettingsError, match="no key is trusted"):
        ModelManager(copied).verify_version("models:/lotto_model/1")


@pytest.mark.usefixtures("trusted")
def test_what_names_no_version_is_refused(copied: Path) -> None:
    manager = ModelManager(copied)
    for uri in ("lotto_model_a", "1", "runs:/1/model", str(copied / "trained")):
        with pytest.raises(InvalidReferenceError):
            manager.verify_version(uri)
    for uri in ("models:/lotto_model/9", "models:/lotto_model@champion"):
        with pytest.raises(ModelNotFoundError):
            manager.verify_version(uri)
    assert call("verify", "models:/a/1", "--deep", "--base-dir", copied).exit_code == 2


@pytest.mark.usefixtures("trusted")
def test_a_version_is_refused_whose_signature_is_missing_or_of_a_stranger(
    copied: Path, keys_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied / "mlflow" / "signatures"
    first, second = (
        sorted(folder.glob(f"*{end}"), key=lambda path: path.name) for end in (".json", ".sig")
    )
    monkeypatch.setenv("LOTTO_TRUSTED_KEYS", str(keys_dir / "stranger.pub"))
    assert kinds_in(copied, "models:/lotto_model/1") == ["unknown key"]
    monkeypatch.setenv("LOTTO_TRUSTED_KEYS", str(keys_dir / "ours.pub"))
    shutil.copy(first[1], first[0])
    shutil.copy(second[1], second[0])
    assert kinds_in(copied, "models:/lotto_model/1") == ["bad signature"]
    second[0].unlink()
    assert kinds_in(copied, "models:/lotto_model/1") == ["unsigned"]


@pytest.fixture(scope="module")
def shared(
    migrated_database: Path, keys_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """A tracking server with two signed versions, and the folder in which it keeps the files."""
    folder, key = tmp_path_factory.mktemp("shared"), str(keys_dir / "ours")
    shutil.copyfile(migrated_database, folder / "server.db")
    with serving.tracking_server(folder / "server.db", folder / "artifacts") as uri:
        _save(folder / "ml", MLFLOW_TRACKING_URI=uri, LOTTO_SIGNING_KEY=key)
        yield uri, folder / "artifacts"


@pytest.fixture
def of_server(shared: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Have the server be the tracking store; return the folder that it keeps of a version."""
    uri, artifacts_dir = shared
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)

    def folder_of(name: str) -> Path:
        version = MlflowClient(tracking_uri=uri).get_model_version(name, "1")
        (found,) = artifacts_dir.rglob(f"{version.tags['model_id']}/artifacts")
        return Path(found)

    return folder_of


@contextmanager
def edited(folder: Path, *edits: Edit) -> Iterator[None]:
    """Edit a folder until the block ends."""
    with tempfile.TemporaryDirectory() as kept:
        shutil.copytree(folder, kept, dirs_exist_ok=True, symlinks=True)
        try:
            all_of(*edits)(folder)
            yield
        finally:
            shutil.rmtree(folder)
            shutil.copytree(kept, folder, symlinks=True)


@pytest.mark.usefixtures("trusted")
def test_a_version_with_other_metadata_than_were_signed_is_refused(copied: Path) -> None:
    run_id = ModelManager(copied).get("models:/other_a/1").run_id
    folder = copied / "mlflow" / "artifacts" / "lotto_model" / str(run_id) / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "other_a_metadata.json").write_text('{"accuracy": 1.0}')
    assert kinds_in(copied, "models:/other_a/1") == ["bad signature"]
    assert kinds_in(copied, "models:/lotto_model/1") == []


@pytest.mark.usefixtures("trusted")
def test_a_host_without_records_refuses_other_metadata_than_were_signed(
    of_server: Callable[[str], Path], tmp_path: Path
) -> None:
    model_dir, host_dir = of_server("other_a"), tmp_path / "new host"
    host_dir.mkdir()
    run_id = ModelManager(host_dir).get("models:/other_a/1").run_id
    folder = model_dir.parents[2] / str(run_id) / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "other_a_metadata.json"
    assert kinds_in(host_dir, "models:/other_a/1") == []
    ModelManager(host_dir).load_model("models:/other_a/1")  # and keeps the signature
    path.write_text('{"accuracy": 1.0}')
    try:
        assert kinds_in(host_dir, "models:/other_a/1") == ["bad signature"]
    finally:
        path.unlink()
    assert kinds_in(host_dir, "models:/other_a/1") == []


def with_pair_of(other: Path) -> Edit:
    def edit(folder: Path) -> None:
        for name in ("statement.json", "statement.sig"):
            shutil.copy(other / "signature" / name, folder / "signature" / name)

    return edit


@pytest.mark.usefixtures("trusted")
def test_a_host_that_has_no_record_verifies_what_a_server_keeps(
    of_server: Callable[[str], Path], tmp_path: Path
) -> None:
    """One after the other, since each waits for the server of the module."""
    uri, host_dir = "models:/lotto_model/1", tmp_path / "another host"
    host_dir.mkdir()
    folder, other = of_server("lotto_model"), of_server("other_a")
    assert kinds_in(host_dir, uri) == []
    assert ModelManager(host_dir).verify_version(uri).statement.name == "lotto_model_a"
    for edits, kinds in (
        ([lambda f: shutil.rmtree(f / "signature")], ["unsigned"]),
        ([removed("signature/statement.sig")], ["unsigned"]),
        ([with_pair_of(other)], ["bad signature"]),
        ([appended("signature/statement.json", " ")], ["bad signature"]),
        ([added("signature/statement.sig", "{}")], ["bad signature"]),
        ([added("code/joblib.py")], ["damaged"]),
        ([bit_flipped(DATA_FILE)], ["damaged"]),
        ([bit_flipped(INIT)], ["damaged"]),
        ([in_function("loader_module", "os")], ["damaged"]),
        ([added(f"code/{V2}/__pycache__/inputs.cpython-313.pyc")], ["damaged"]),
    ):
        with edited(folder, *edits):
            assert kinds_in(host_dir, uri) == kinds, kinds
    with edited(folder, lambda f: shutil.rmtree(f), lambda f: shutil.copytree(other, f)):
        assert kinds_in(host_dir, uri) == ["bad signature"]  # a signed model under another name
    many = edited(folder, *(added(f"data/{number}") for number in range(300)))
    with many, pytest.raises(ForeignModelError, match="more than 200 files"):
        ModelManager(host_dir).verify_version(uri)
    assert kinds_in(host_dir, uri) == []


@pytest.mark.usefixtures("trusted")
def test_a_verified_copy_has_nothing_that_python_compiled_and_nobody_else_reaches_it(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, uri = model_dir_of(copied, "lotto_model_a"), "models:/lotto_model/1"
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}
    code = f"import mlflow.pyfunc; mlflow.pyfunc.load_model({str(source)!r})"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)
    assert list(source.rglob("*.pyc"))
    assert kinds_in(copied, uri) == ["damaged"]
    with ModelManager(copied).verified_copy(uri) as verified:
        found = verified.model_dir
        assert found is not None
        assert not list(found.rglob("*.pyc"))
        assert stat.S_IMODE(found.parent.stat().st_mode) == 0o700
        bit_flipped(DATA_FILE)(source)  # what happens there later is nothing to the copy
        model_folders.check(found, verified.statement)
        assert list(mlflow.pyfunc.load_model(str(found)).predict(FRAME)) == [0, 1, 0, 1]
    assert not found.parent.exists()


@pytest.mark.usefixtures("trusted")
def test_a_model_without_a_predict_is_verified_and_not_served(
    copied: Path, keys_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOTTO_SIGNING_KEY", str(keys_dir / "ours"))
    ModelManager(copied).save_model({"numbers": [1, 2, 3]}, "table_a")
    assert kinds_in(copied, "models:/table_a/1") == []
    done = call("serve", "models:/table_a/1", "--base-dir", copied, "--port", serving.free_port())
    assert done.exit_code == 1
    assert "has no predict method" in done.stderr


def test_folders_of_dead_processes_are_swept_and_those_of_living_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import os, signal, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from lotto_mlflow import private_dirs\n"
        "with private_dirs.made() as folder:\n"
        "    (folder / 'model').mkdir(); print(folder, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    dead = Path(subprocess.run(command, capture_output=True, text=True).stdout.strip())
    assert (dead / "model").is_dir()
    other = tmp_path / "lotto_mlflow-copy-link"
    other.symlink_to(tmp_path / "current")
    with private_dirs.made() as living:
        assert not dead.exists()
        with private_dirs.made() as second:
            assert living.is_dir()
            assert living != second
    assert not living.exists()
    assert (tmp_path / "current").is_dir()
    assert other.is_symlink()


def test_no_private_folder_is_made_where_others_can_exchange_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "open"))
    with pytest.raises(StoreError, match="nothing there is private"), private_dirs.made():
        pass
    (tmp_path / "open").chmod(0o1777)
    with private_dirs.made() as folder:
        assert folder.parent == tmp_path / "open"


MARKING = "import os; open(os.environ['LOTTO_TEST_MARK'], 'a').write('run')\n"


class Served:
    """``lotto-mlflow serve`` as a person starts it, with a temporary folder of its own."""

    def __init__(self, tmp_path: Path, *arguments: str | Path, **environment: str) -> None:
        self.tmp_dir, self.mark = tmp_path / "tmp", tmp_path / "mark"
        self.tmp_dir.mkdir(exist_ok=True)
        self.log_path, self.out_path = tmp_path / "serve.log", tmp_path / "serve.out"
        self.port = serving.free_port()
        command = [sys.executable, "-m", "lotto_mlflow", "serve", *map(str, arguments)]
        more = {"TMPDIR": str(self.tmp_dir), "LOTTO_TEST_MARK": str(self.mark)}
        with self.log_path.open("wb") as log, self.out_path.open("wb") as out:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)],
                stdout=out,
                stderr=log,
                env=serving.environment(PYTHONPATH=str(ROOT_DIR), **more, **environment),
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def wait_until(self, is_so: Callable[[], Any]) -> None:
        deadline = time.monotonic() + serving.ANSWER_SECONDS
        while not is_so():
            assert time.monotonic() < deadline, self.log
            time.sleep(0.1)

    def wait_until_it_answers(self) -> dict[str, Any]:
        self.wait_until(lambda: self.out_path.stat().st_size or self.process.poll() is not None)
        assert self.process.poll() is None, self.log
        return dict(json.loads(self.out_path.read_text()))

    def predictions(self) -> list[int]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/invocations",
            json.dumps({"dataframe_split": FRAME.to_dict("split")}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=serving.ANSWER_SECONDS) as answer:
            return list(json.load(answer)["predictions"])

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def is_opening(self, folder: Path) -> bool:
        """Return whether MLflow was told to serve this folder."""
        lines = subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True).stdout
        return f"models serve --model-uri {folder} --env-manager local" in lines

    def copies(self) -> list[Path]:
        return sorted(self.tmp_dir.glob("lotto_mlflow-copy-*"))

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(serving.ANSWER_SECONDS)


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Start servings, and end those that are left."""
    started: list[Served] = []

    def start(*arguments: Any, **environment: str) -> Served:
        started.append(Served(*arguments, **environment))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.end(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_serve_answers_from_the_verified_copy_and_leaves_nothing_behind(
    number: signal.Signals,
    copied: Path,
    trusted: str,
    tmp_path: Path,
    serve: Callable[..., Served],
) -> None:
    """Modules in the current folder have the names of what MLflow imports; none is run."""
    for name in (V2, "joblib", "uvicorn", "mlflow", "sitecustomize"):
        Path(f"{name}.py").write_text(MARKING)
    source = model_dir_of(copied, "lotto_model_a")
    served = serve(
        tmp_path,
        "models:/lotto_model/1",
        "--json",
        "--base-dir",
        copied,
        "--workers",
        "2",
        LOTTO_TRUSTED_KEYS=trusted,
    )
    said = served.wait_until_it_answers()
    (copy,) = served.copies()
    assert tuple(said) == output.KEYS["serve"]
    assert said["link"] == f"http://127.0.0.1:{served.port}"
    assert (said["model_uri"], said["name"]) == ("models:/lotto_model/1", "lotto_model_a")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o700
    assert served.is_opening(copy / "model")
    (source / INIT).write_text(MARKING)
    shutil.rmtree(source / "data")
    assert served.predictions() == [0, 1, 0, 1]
    code = served.end(number)
    served.wait_until(lambda: not served.answers())
    assert not served.mark.exists()
    if number is signal.SIGKILL:
        assert served.copies() == [copy]
        other = serve(
            tmp_path,
            "models:/other_a/1",
            "--json",
            "--base-dir",
            copied,
            LOTTO_TRUSTED_KEYS=trusted,
        )
        other.wait_until_it_answers()
        assert copy not in other.copies()
        assert other.predictions() == [0, 1, 0, 1]
    else:
        assert code == 0
        assert served.copies() == []


def test_serve_that_is_ended_before_it_answers_leaves_nothing_behind(
    copied: Path, trusted: str, tmp_path: Path, serve: Callable[..., Served]
) -> None:
    served = serve(
        tmp_path, "models:/lotto_model/1", "--base-dir", copied, LOTTO_TRUSTED_KEYS=trusted
    )
    served.wait_until(served.copies)
    assert served.end(signal.SIGTERM) == 0, served.log
    assert served.copies() == []
    assert not served.answers()


def test_what_a_library_makes_of_an_end_that_was_asked_for_is_no_error() -> None:
    with server.ending_on_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(serving.ANSWER_SECONDS)
        except KeyboardInterrupt as cause:
            raise SettingsError("the library cannot be imported") from cause
    with pytest.raises(SettingsError), server.ending_on_signals():
        raise SettingsError("the library cannot be imported")


def test_serve_runs_nothing_of_a_hostile_version_and_serves_a_good_one_of_a_server(
    of_server: Callable[[str], Path],
    trusted: str,
    tmp_path: Path,
    serve: Callable[..., Served],
) -> None:
    folder, host_dir = of_server("other_a"), tmp_path / "new host"
    host_dir.mkdir()
    arguments = (tmp_path, "models:/other_a/1", "--json", "--base-dir", host_dir)
    hostile = all_of(appended(INIT, MARKING), added(f"code/{V2}/__main__.py", MARKING))
    for edit in (appended(INIT, MARKING), added("code/joblib.py", MARKING), hostile):
        with edited(folder, edit):
            served = serve(*arguments, LOTTO_TRUSTED_KEYS=trusted)
            assert served.process.wait(serving.ANSWER_SECONDS) == 1
        assert "nothing of the model was opened" in served.log
        assert served.copies() == []
        assert not served.mark.exists()
    served = serve(*arguments, LOTTO_TRUSTED_KEYS=trusted)
    served.wait_until_it_answers()
    assert served.predictions() == [0, 1, 0, 1]


def test_serve_does_not_take_another_programs_answers_for_its_own(
    copied: Path, trusted: str, tmp_path: Path, serve: Callable[..., Served]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = call("serve", "models:/lotto_model/1", "--base-dir", copied, "--port", str(port))
    assert done.exit_code == 1
    assert "give another --port" in done.stderr
    assert trusted
