"""What the README says is run, and found true."""

from __future__ import annotations

import builtins
import os
import re
import subprocess
import sys
from pathlib import Path

import lotto_mlflow.errors
from lotto_mlflow import settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_python_blocks_run_one_after_the_other(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 3
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "backend" / "app" / "models" / "ml" / "mlflow" / "mlflow.db").exists()


def test_it_names_every_setting_with_the_values_it_takes() -> None:
    for name in ("LOTTO_APP_DIR", "LOTTO_TIMEZONE", "LOTTO_MIRROR"):
        assert f"| `{name}` |" in README
    for mode in settings.MIRROR_MODES:
        assert f"`{mode}`" in README


def test_the_errors_it_names_exist_and_are_what_it_says() -> None:
    rows = re.findall(r"^\| ((?:`\w+Error`(?:, )?)+) \| ([^|]+) \|", README, flags=re.MULTILINE)
    assert rows
    for names, bases in rows:
        for name in re.findall(r"\w+", names):
            kind = getattr(lotto_mlflow.errors, name)
            for base in re.findall(r"`(\w+)`", bases):
                assert issubclass(kind, getattr(builtins, base))


def test_the_make_targets_it_names_are_listed_by_make_help() -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    targets = {line.split()[0] for line in listed.splitlines()}
    assert set(re.findall(r"`?make ([a-z]+)", README)) <= targets


def test_what_ci_installs_from_debian_is_named() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    packages = re.findall(r"missing\+=\((\S+)\)", script)
    assert packages
    for package in packages:
        assert f"`{package}`" in README
