"""What holds for the package as a whole: its surface, its floors, its weight, its tags."""

from __future__ import annotations

import ast
import copy
import importlib
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lotto_mlflow
from lotto_mlflow import errors, model_utils, pyfunc_loader
from lotto_mlflow.errors import LottoMlflowError

ROOT_DIR = Path(__file__).parents[1]
PACKAGE = "lotto_mlflow"
PACKAGE_DIR = ROOT_DIR / PACKAGE
MODULES = sorted(PACKAGE_DIR.rglob("*.py"))
MAX_LINES = 400
ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, BaseException)
]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield each module imported anywhere in a tree, ``from a import b`` as ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:  # test_map looks at the others
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(path: Path) -> str:
    """Return the room of a module: the name under the package, without what is inside it."""
    return path.relative_to(PACKAGE_DIR).with_suffix("").parts[0]


def importers_of(library: str) -> set[str]:
    return {
        room_of(path)
        for path in MODULES
        if any(name.partition(".")[0] == library for name in imported(tree_of(path)))
    }


def run(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE_DIR))


@pytest.mark.parametrize("module", [lotto_mlflow, model_utils], ids=lambda m: m.__name__)
def test_the_public_names_are_sorted_and_exist(module: ModuleType) -> None:
    assert module.__all__ == sorted(set(module.__all__))
    assert all(hasattr(module, name) for name in module.__all__)


def test_the_package_has_no_public_names_but_its_modules_and_those_it_lists() -> None:
    found = vars(lotto_mlflow).items()
    public = {n for n, v in found if not n.startswith("_") and not isinstance(v, ModuleType)}
    assert public == set(lotto_mlflow.__all__)


def test_model_utils_lists_what_it_defines() -> None:
    defined: set[str] = set()
    for node in tree_of(PACKAGE_DIR / "model_utils.py").body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    assert {name for name in defined if not name.startswith("_")} == set(model_utils.__all__)


def test_model_utils_has_the_specifications_constants() -> None:
    private = {"_CURRENT_FILE", "_APP_DIR"}
    public = {"MODEL_BASE_DIR", "TRAINED_DIR", "METADATA_DIR", "BACKUP_DIR"}
    assert all(isinstance(getattr(model_utils, name), Path) for name in private | public)


@pytest.mark.parametrize("module", ["lotto_mlflow", "lotto_mlflow.model_utils"])
def test_importing_the_package_loads_no_heavy_library(module: str) -> None:
    heavy = ("mlflow", "sklearn", "joblib", "numpy", "scipy", "pandas", "matplotlib")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    assert run(code).strip() == "[]"


def test_every_error_of_the_library_is_defined_in_one_module_and_has_one_base() -> None:
    assert all(issubclass(kind, LottoMlflowError) for kind in ERRORS)
    defined = {
        node.name
        for path in MODULES
        if room_of(path) != "demo"  # a program beside the library, with an error of its own
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Exception"))
    }
    assert defined == {kind.__name__ for kind in ERRORS}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_pickles_with_its_message_and_data(
    kind: type[LottoMlflowError], protocol: int
) -> None:
    data: dict[str, Any] = {"path": Path("모델.pkl"), "expected": "a", "error_code": None}
    error = kind("메시지: what happened, and what to do", **data)
    for twin in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
        assert type(twin) is kind
        assert str(twin) == twin.message == str(error)
        assert twin.args == error.args == (str(error),)
        assert {name: getattr(twin, name) for name in data} == data


def test_the_tree_in_the_docstring_is_the_tree_of_the_errors() -> None:
    line = re.compile(r"^ {4}((?:│ {3}| {4})*[├└]── )?(\w+Error)\b *(?:\(([\w, ]+)\))?", re.M)
    drawn: dict[str, tuple[str | None, set[str]]] = {}
    above: list[str] = []
    for match in line.finditer(str(errors.__doc__)):
        depth = len(match[1] or "") // 4
        above = [*above[:depth], match[2]]
        promised = {part.strip() for part in (match[3] or "").split(",")} - {""}
        drawn[match[2]] = (above[-2] if depth else None, promised)
    own = {kind.__name__ for kind in ERRORS}
    for kind in ERRORS:
        bases = {base.__name__ for base in kind.__bases__}
        parent = next(iter(bases & own), None)
        assert drawn.pop(kind.__name__) == (parent, bases - own - {"Exception"}), kind
    assert not drawn


def private_names_of_others(tree: ast.Module) -> Iterator[str]:
    """Yield each private name that a module uses without defining it."""
    nodes = list(ast.walk(tree))
    defined = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    defined |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    attributes = [n for n in nodes if isinstance(n, ast.Attribute)]
    defined |= {n.attr for n in attributes if isinstance(n.ctx, ast.Store)}
    used = [n.attr for n in attributes]
    used += [alias.name for n in nodes if isinstance(n, ast.ImportFrom) for alias in n.names]
    for name in used:
        is_private = name.startswith("_") and not name.endswith("__")
        if is_private and name not in defined:
            yield name


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_private_name_crosses_a_module(path: Path) -> None:
    assert list(private_names_of_others(tree_of(path))) == []


def test_the_guard_of_private_names_sees_one() -> None:
    tree = ast.parse("from a import _b\nclass C:\n def _own(self): self._x = other._y; self._own()")
    assert list(private_names_of_others(tree)) == ["_y", "_b"]


def test_only_the_store_and_the_travelling_loader_import_joblib() -> None:
    assert importers_of("joblib") == {"store", "pyfunc_loader"}


def test_only_the_mirror_imports_mlflow() -> None:
    assert importers_of("mlflow") == {"mirror"}


def test_the_travelling_loader_needs_the_standard_library_and_joblib_only() -> None:
    trees = [tree_of(path) for path in pyfunc_loader.module_paths()]
    tops = {name.partition(".")[0] for tree in trees for name in imported(tree)}
    assert tops - sys.stdlib_module_names == {"joblib", "pandas"}
    for tree in trees:
        at_import = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        tops = {name.partition(".")[0] for name in imported(ast.Module(at_import, []))}
        assert tops <= sys.stdlib_module_names


def test_all_of_the_loader_travels() -> None:
    there = set((PACKAGE_DIR / "pyfunc_loader").rglob("*.py"))
    assert set(pyfunc_loader.module_paths()) == there


def test_the_travelling_loader_stands_alone(tmp_path: Path) -> None:
    name = "lotto_mlflow_loader_v2"
    shutil.copytree(PACKAGE_DIR / "pyfunc_loader", tmp_path / name)
    code = (
        f"import shutil, sys; sys.path.insert(0, {str(tmp_path)!r}); import {name} as loader;"
        f"shutil.rmtree({str(tmp_path)!r});"  # of a download; another model uses the module on
        "loader.Predictor(loader, {}).get_raw_model();"
        "print(loader.MODULE_NAME, any(m.startswith('lotto_mlflow.') for m in sys.modules))"
    )
    assert run(code).split() == [name, "False"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without those of its docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function) is not None
    of_docstring = int(first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
    return int(function.end_lineno or 0) - function.lineno + 1 - of_docstring


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_function_can_be_seen_at_once(path: Path) -> None:
    functions = (
        node
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    long = {node.name: length_of(node) for node in functions if length_of(node) >= 40}
    assert not long


@pytest.mark.parametrize("path", [p for p in MODULES if p.stem != "__main__"], ids=name_of)
def test_a_module_says_what_it_is_for_and_can_be_imported_first(path: Path) -> None:
    parts = path.relative_to(ROOT_DIR).with_suffix("").parts
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    assert module.__doc__


@pytest.mark.parametrize(
    ("tag", "file"),
    [
        ("@CODE", "lotto_mlflow/__init__.py"),
        ("@CODE", "lotto_mlflow/model_utils.py"),
        ("@TEST", "tests/services/ml/test_model_utils.py"),
        ("@DOC", "README.md"),
    ],
)
def test_the_specifications_chain_of_tags_is_whole(tag: str, file: str) -> None:
    assert f"{tag}:LOTTO-ML-INFRA-001" in (ROOT_DIR / file).read_text(encoding="utf-8")
