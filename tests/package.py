"""Build the wheel and the source distribution, check both, and try each in an empty environment.

Run by ``make package``. What is built lies in ``dist/``; the environments lie outside of the
repository, so that nothing is found that was not packaged.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterable
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

ROOT_DIR = Path(__file__).parents[1]
DIST_DIR = ROOT_DIR / "dist"
TOOLS_DIR = Path(sys.executable).parent
PACKAGE = "lotto_mlflow"
MAX_BYTES = 5 << 20
"""Of the larger of the two; an index has a limit, and so has the patience of who installs it."""
_SHOWN = ("summary", "keywords", "requires-python", "classifier", "description-content-type")
_ADDRESS = re.compile(r"https?://([^/\s)\"'`>:]+)")
_PLAIN_HOSTS = {"127.0.0.1", "localhost", "mlflow"}
"""What stands in examples, for a server of the reader's own."""


def main() -> int:
    began = time.monotonic()
    shutil.rmtree(DIST_DIR, ignore_errors=True)
    run(TOOLS_DIR / "uv", "build", "--quiet", "--out-dir", DIST_DIR, ROOT_DIR)
    (wheel,), (sdist,) = DIST_DIR.glob("*.whl"), DIST_DIR.glob("*.tar.gz")
    run(TOOLS_DIR / "twine", "check", "--strict", wheel, sdist)
    problems = [*problems_of_wheel(wheel), *problems_of_sdist(sdist)]
    if problems:
        print("error: not fit to be published:", *problems, sep="\n  ", file=sys.stderr)
        return 1
    for built in (wheel, sdist):
        print(f"{built.name}: {built.stat().st_size / 1e3:.0f} kB", flush=True)
        try_installed(built)
    print(f"built, checked and tried in {time.monotonic() - began:.0f} s")
    return 0


def problems_of_wheel(wheel: Path) -> Iterable[str]:
    """Yield what a wheel lacks, and what does not belong into it."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata_name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = BytesParser().parsebytes(archive.read(metadata_name))
    yield from differences("the wheel", names, tracked(PACKAGE))
    if f"{PACKAGE}/py.typed" not in names:
        yield "the wheel has no py.typed"
    yield from problems_of_metadata(metadata)


def problems_of_sdist(sdist: Path) -> Iterable[str]:
    """Yield what a source distribution lacks, and what does not belong into it."""
    if sdist.stat().st_size > MAX_BYTES:
        yield f"{sdist.name} has {sdist.stat().st_size:,} bytes, more than {MAX_BYTES:,}"
    with tarfile.open(sdist) as archive:
        found = {member.name.partition("/")[2] for member in archive.getmembers()}
    yield from differences("the source distribution", found - {"PKG-INFO"}, tracked("."))


def differences(what: str, found: set[str], expected: set[str]) -> Iterable[str]:
    """Yield each file that is in one of two sets only."""
    yield from (f"{what} lacks {name}" for name in sorted(expected - found))
    yield from (f"{what} has {name}, which git does not know" for name in sorted(found - expected))


def tracked(folder: str) -> set[str]:
    """Return the files in a folder that git knows and that are there."""
    listed = run("git", "-C", ROOT_DIR, "ls-files", "-z", "--", folder).split("\0")
    return {name for name in listed if name and (ROOT_DIR / name).is_file()}


def problems_of_metadata(metadata: Message) -> Iterable[str]:
    """Yield what an index would not show, or what it would show and no reader could use."""
    yield from (f"the metadata lacks {key}" for key in _SHOWN if not metadata[key])
    if metadata["version"] != source_version():
        yield f"the version is {metadata['version']}, and in the sources {source_version()}"
    description = str(metadata.get_payload())
    if not description.startswith("# lotto_mlflow"):
        yield "the description is not the README"
    for target in re.findall(r"\]\(([^)]*)\)", description):
        if not target.startswith("https://"):
            yield f"the description has a link that leads nowhere on an index: {target}"
    shown = "\n".join([description, *metadata.get_all("project-url", [])])
    for host in sorted(set(_ADDRESS.findall(shown)) - _PLAIN_HOSTS):
        yield f"the metadata names the host {host}"
    versions = {c.rpartition(" ")[2] for c in metadata.get_all("classifier", []) if "3." in c}
    oldest = str(metadata["requires-python"]).removeprefix(">=")
    if oldest not in versions:
        yield f"no classifier names Python {oldest}"


def source_version() -> str:
    """Return the version that the sources say."""
    text = (ROOT_DIR / PACKAGE / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    return found[1] if found else ""


def try_installed(built: Path) -> None:
    """Install what was built into an empty environment, and use it from another folder."""
    with tempfile.TemporaryDirectory(prefix="lotto-package-") as scratch:
        environment_dir, work_dir = Path(scratch) / "environment", Path(scratch) / "work"
        work_dir.mkdir()
        uv = TOOLS_DIR / "uv"
        run(uv, "venv", "--quiet", "--python", sys.executable, environment_dir)
        python = environment_dir / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        run(uv, "pip", "install", "--quiet", "--python", python, built)
        run(uv, "pip", "check", "--quiet", "--python", python)
        shutil.copy(ROOT_DIR / "tests" / "smoke.py", work_dir)
        print(run(python, "-I", "smoke.py", cwd=work_dir), end="", flush=True)


def run(*command: str | Path, cwd: Path = ROOT_DIR) -> str:
    """Return what a program prints; where it fails, end all with what it said."""
    left_out = ("VIRTUAL_ENV", "PYTHONPATH", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in left_out and not name.startswith("LOTTO_")
    }
    texts = [str(part) for part in command]
    done = subprocess.run(
        texts, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(texts)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
