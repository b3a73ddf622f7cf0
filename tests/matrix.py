"""Run a part of the tests with the lowest and the newest releases that pyproject.toml allows.

Run by ``make test-matrix``. Each row has an environment of its own in ``.matrix/``, made by uv,
which takes an interpreter of the machine, or downloads one. The two ends are tested with all of
`FULL`, what lies between them with `SHORT`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT_DIR = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
SHORT = ("artefacts", "format", "guards", "records", "store")
FULL = (
    *SHORT,
    "cli",
    "description",
    "examples",
    "hyperparameters",
    "keys",
    "live",
    "loading",
    "metadata",
    "mirror",
    "mlflow_cli",
    "plain_values",
    "predictions",
    "pushing",
    "registry",
    "restoring",
    "signing",
    "summary",
    "trust_signed",
)
EXTRAS = "test,plot,signing"
SHOWN = ("mlflow", "joblib", "scikit-learn", "scipy", "numpy", "pandas", "filelock", "typer")


@dataclass(frozen=True)
class Row:
    """An interpreter, which releases are installed for it, and what is tested with them."""

    python: str
    releases: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.python}-{self.releases}"


ROWS = (
    Row("3.10", "lowest", FULL),
    Row("3.13", "newest", FULL),
    Row("3.10", "newest", SHORT),
    Row("3.12", "newest", SHORT),
    Row("3.13", "lowest", SHORT),
)
_RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="matrix", description=__doc__)
    parser.add_argument("--rows", default="", help="names such as 3.10-lowest; all by default")
    wanted = parser.parse_args().rows.split(",")
    rows = [row for row in ROWS if wanted == [""] or row.name in wanted]
    if not rows:
        parser.error(f"no such row; there are {', '.join(row.name for row in ROWS)}")
    began, lines, failed = spent(), [], False
    for row in rows:
        started = spent()
        releases, is_passed = tested(row)
        failed |= not is_passed
        result = "passed" if is_passed else "FAILED"
        lines.append(f"{row.name:12} {result} in {since(started)}: {releases}")
    print("\n".join(["", *lines, f"all rows: {since(began)}"]))
    return int(failed)


def spent() -> tuple[float, float]:
    """Return the time, and the processor time of what has ended, in seconds."""
    of_children = os.times()
    return time.monotonic(), of_children.children_user + of_children.children_system


def since(started: tuple[float, float]) -> str:
    """Return what has passed since; on a busy machine only the processor's time is comparable."""
    seconds, of_processor = (now - then for now, then in zip(spent(), started, strict=True))
    return f"{seconds:.0f} s ({of_processor:.0f} s of processor time)"


def tested(row: Row) -> tuple[str, bool]:
    """Make the environment of a row, and return what is in it, and whether the tests passed."""
    print(f"\n== {row.name}", flush=True)
    environment_dir = ROOT_DIR / ".matrix" / row.name
    shutil.rmtree(environment_dir, ignore_errors=True)
    python = environment_dir / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    at = ("--python", str(python), "--quiet")
    # a bound whose release has no wheel is one that people cannot install
    how = ("--resolution", _RESOLUTIONS[row.releases], "--only-binary", ":all:")
    try:
        uv("venv", "--python", row.python, str(environment_dir))
        uv("pip", "install", *at, *how, "-e", f".[{EXTRAS}]")
    except subprocess.CalledProcessError as cause:
        return str(cause), False
    listed = json.loads(uv("pip", "list", *at, "--format", "json"))
    found = {one["name"]: one["version"] for one in listed}
    files = [f"tests/test_{name}.py" for name in row.tests]
    command = [str(python), "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *files], cwd=ROOT_DIR, check=False, env=clean()
    )
    return " ".join(f"{name} {found[name]}" for name in SHOWN), done.returncode == 0


def uv(*arguments: str) -> str:
    """Run uv in the checkout, and return what it printed; why it fails, it prints itself."""
    command = [str(UV), *arguments]
    done = subprocess.run(
        command, cwd=ROOT_DIR, check=True, env=clean(), stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def clean() -> dict[str, str]:
    """Return the environment without an active one, and with every interpreter of pyenv."""
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    if pyenv := shutil.which("pyenv"):
        versions = subprocess.run([pyenv, "versions", "--bare"], capture_output=True, text=True)
        environment["PYENV_VERSION"] = ":".join(versions.stdout.split())
    return environment


if __name__ == "__main__":
    raise SystemExit(main())
