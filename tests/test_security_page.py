"""The page on security: each promise names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT_DIR = Path(__file__).parents[1]
PAGE = (ROOT_DIR / ".github" / "SECURITY.md").read_text(encoding="utf-8")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and "|---" not in line
][1:]
NAMED = sorted(set(_TEST.findall(PAGE)))


def defined_in(path: Path) -> set[str]:
    """Return the names of the tests in a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


def test_the_page_has_a_table_of_attackers_capabilities_and_promises() -> None:
    assert len(ROWS) > 15
    assert ROWS[0][0]
    assert all(len(row) == 4 and all(row[1:]) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1][:60])
def test_each_promise_names_its_tests_and_nothing_else_as_its_proof(row: list[str]) -> None:
    named = _TEST.findall(row[3])
    assert named
    assert ", ".join(f"`{path}::{name}`" for path, name in named) == row[3]


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_each_test_that_is_named_is_there(path: str, name: str) -> None:
    assert name.startswith("test_")
    assert (ROOT_DIR / path).is_file(), path
    assert name in defined_in(ROOT_DIR / path)


def test_the_page_says_what_is_out_of_scope_and_how_to_report() -> None:
    headings = re.findall(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    assert {"How to report", "What is out of scope"} <= set(headings)
    scope = PAGE.partition("## What is out of scope")[2]
    for words in ("Plain MLflow", "stolen", "owned", "seen nothing", "Denial of service", "gap"):
        assert words in scope
