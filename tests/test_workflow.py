"""The workflow calls the make targets that people run, with the packages that `.ci/run` installs.

``make check`` compares it with the schema of workflows; what no schema knows is looked at here.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT_DIR = Path(__file__).parents[1]
WORKFLOW = ROOT_DIR / ".github" / "workflows" / "ci.yml"
CI = ROOT_DIR / ".ci" / "run"
MAKEFILE = (ROOT_DIR / "Makefile").read_text(encoding="utf-8")
CALLED = re.compile(r"^make ((?:[a-z-]+\b ?)+(?:[A-Z]+=\w+)?)", re.MULTILINE)
"""The targets of a line, and what one of them is given."""


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    """The jobs, by their ids."""
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert {"push", "pull_request"} <= workflow[True].keys()  # YAML 1.1 reads `on` so
    assert workflow["permissions"] == {"contents": "read"}
    return dict(workflow["jobs"])


def steps_of(jobs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in jobs.values():
        yield from job["steps"]


def targets_called(text: str) -> set[str]:
    return {word for line in CALLED.findall(text) for word in line.split() if "=" not in word}


def test_it_gives_the_targets_what_ci_gives_them(jobs: dict[str, Any]) -> None:
    def given(text: str) -> list[str]:
        return sorted(line.strip() for line in CALLED.findall(text) if "=" in line)

    assert given("\n".join(s.get("run", "") for s in steps_of(jobs))) == given(CI.read_text())


def test_every_target_that_is_called_is_one_of_those_that_make_help_lists(
    jobs: dict[str, Any],
) -> None:
    command = ["make", "--no-print-directory", "-C", str(ROOT_DIR), "help"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    known = {line.split()[0] for line in listed.splitlines()}
    for step in steps_of(jobs):
        if "make" in step.get("run", ""):
            assert (called := targets_called(step["run"]))
            assert called <= known


def test_it_calls_what_ci_calls_and_the_matrix_and_the_package(jobs: dict[str, Any]) -> None:
    called = {t for step in steps_of(jobs) for t in targets_called(step.get("run", ""))}
    of_ci = targets_called(CI.read_text(encoding="utf-8"))
    assert of_ci >= {"test", "test-server", "check", "faults"}
    assert called == of_ci | {"test-matrix", "package"}


def test_every_target_of_the_jobs_with_several_is_run_by_a_step(jobs: dict[str, Any]) -> None:
    rows = jobs["test"]["strategy"]["matrix"]["include"]
    for row in rows:
        condition = f"matrix.targets == '{row['targets']}'"
        run = [s["run"] for s in jobs["test"]["steps"] if s.get("if") == condition]
        assert [targets_called(one) for one in run] == [{name} for name in row["targets"].split()]
    conditions = {step["if"] for step in jobs["test"]["steps"] if "if" in step}
    assert conditions == {f"matrix.targets == '{row['targets']}'" for row in rows}


def test_it_installs_the_debian_packages_that_ci_installs(jobs: dict[str, Any]) -> None:
    of_ci = set(re.findall(r"missing\+=\(([a-z0-9-]+)\)", CI.read_text(encoding="utf-8")))
    assert of_ci
    (install,) = [s["run"] for s in steps_of(jobs) if "apt-get install" in s.get("run", "")]
    words = install.partition("apt-get install")[2].split()
    assert {word for word in words if not word.startswith("-")} == of_ci


def test_every_job_ends_and_every_action_has_a_version(jobs: dict[str, Any]) -> None:
    for job in jobs.values():
        assert 0 < job["timeout-minutes"] <= 90
    for step in steps_of(jobs):
        assert len(step.keys() & {"uses", "run"}) == 1
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "actions/any@v1"))


def test_every_target_is_listed_and_is_no_file() -> None:
    """Whatever can be called says what it does; the parts of `check` are said by that."""
    phony = set(" ".join(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)).split())
    listed = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
    (parts,) = re.findall(r"^check: (.*?)  ##", MAKEFILE, re.MULTILINE)
    assert phony == listed | set(parts.split())


def test_the_classifiers_name_the_releases_of_python_that_are_tested() -> None:
    text = (ROOT_DIR / "pyproject.toml").read_text(encoding="utf-8")
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)
    (oldest, newest) = re.findall(r'requires-python = ">=(3\.\d+)"  # tested to (3\.\d+)', text)[0]
    assert (named[0], named[-1]) == (oldest, newest)
    assert [int(one.partition(".")[2]) for one in named] == list(
        range(int(oldest[2:]), int(newest[2:]) + 1)
    )
    matrix = (ROOT_DIR / "tests" / "matrix.py").read_text(encoding="utf-8")
    for end in (oldest, newest):
        assert f'Row("{end}", ' in matrix
