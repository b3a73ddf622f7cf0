"""The peers: installed in environments of their own, measured in turn, and looked into."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import machine, objects
from bench.figures import Spread, as_json
from bench.measuring import in_turn
from bench.processes import Subject, Worker, WorkError, counted_calls, whole_process

_SHARED = ("scikit-learn", "joblib", "numpy")
_ROUNDS = 5
_MODEL, _SMALL = "forest_100mb", "array_1mb"
_INSTALL_SECONDS = 900


@dataclass(frozen=True)
class Peer:
    """A way to save a model, and to load it.

    Attributes
    ----------
    name : str
        What the table calls it.
    save, load : str
        Its operations.
    package : str or None
        The distribution to install; ``None`` for what the package needs anyhow.
    environment : str
        Which of the environments has it.
    """

    name: str
    save: str
    load: str
    package: str | None = None
    environment: str = "peers"


PEERS = (
    Peer("lotto_mlflow", "ours:save", "ours:load"),
    Peer("joblib.dump + fsync", "by_hand:dump_durably", "by_hand:load"),
    Peer("the same + MLflow's best", "by_hand:dump_and_best", "by_hand:load_registered"),
    Peer("joblib + MLflow inferring", "by_hand:dump_and_inferred", "by_hand:load_registered"),
    Peer("pins", "peers:pins_save", "peers:pins_load", "pins"),
    Peer("modelstore", "peers:modelstore_save", "peers:modelstore_load", "modelstore"),
    Peer("skops", "peers:skops_save", "peers:skops_load", "skops"),
    Peer("BentoML", "peers:bentoml_save", "peers:bentoml_load", "bentoml", "bentoml"),
)


def measure_all(cache_dir: Path, *, install: bool) -> list[dict[str, Any]]:
    """Measure every peer that is there, or can be installed; tell of the others why not."""
    work_dir = cache_dir / "work"
    shutil.rmtree(work_dir, ignore_errors=True)
    work_dir.mkdir(parents=True)
    told: dict[str, dict[str, Any]] = {}
    subjects: dict[str, tuple[Subject, Subject, Subject]] = {}
    for peer in PEERS:
        told[peer.name] = {"name": peer.name, "version": None, "problem": None}
        try:
            python = _interpreter(peer, cache_dir, install=install)
            told[peer.name]["version"] = _version(peer, python)
            subjects[peer.name] = _subjects(peer, python, cache_dir, work_dir)
            told[peer.name] |= _looked_into(*subjects[peer.name], work_dir)
        except (WorkError, subprocess.SubprocessError, OSError) as cause:
            told[peer.name]["problem"] = _reason(cause)
            subjects.pop(peer.name, None)
            print(f"{peer.name} is left out: {_reason(cause)}\n{cause}", file=sys.stderr)
    for key, index in (("save", 0), ("load", 1)):
        for name, spread in _timed({n: s[index] for n, s in subjects.items()}, work_dir):
            told[name][key] = as_json(spread)
    shutil.rmtree(work_dir, ignore_errors=True)
    return list(told.values())


def _reason(cause: Exception) -> str:
    if isinstance(cause, subprocess.SubprocessError):
        return "could not be installed here"
    return f"failed here: {str(cause).splitlines()[-1]:.120}"


def _interpreter(peer: Peer, cache_dir: Path, *, install: bool) -> str:
    """Return the interpreter of the environment that has a peer, once it is installed there."""
    if peer.package is None:
        return sys.executable
    folder = cache_dir / f"venv-{peer.environment}"
    python = folder / "bin" / "python"
    if not install and not python.exists():
        raise WorkError("not installed: make bench-peers does it")
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(folder)])
    same = [f"{name}=={version}" for name, version in machine.versions(_SHARED).items()]
    if install:
        _run([str(python), "-m", "pip", "install", "--quiet", peer.package, *same])
    return str(python)


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS
    )
    return done.stdout.strip()


def _version(peer: Peer, python: str) -> str | None:
    if peer.package is None:
        return None
    code = f"from importlib.metadata import version; print(version({peer.package!r}))"
    return _run([python, "-c", code])


def _subjects(
    peer: Peer, python: str, cache_dir: Path, work_dir: Path
) -> tuple[Subject, Subject, Subject]:
    """Return a peer's save and load of the large object, and its save of a small one."""
    folder = work_dir / "".join(c if c.isalnum() else "_" for c in peer.name)
    large, small = (objects.path_of(n, cache_dir / "objects") for n in (_MODEL, _SMALL))
    return (
        Subject(peer.save, folder / "large", large, python),
        Subject(peer.load, folder / "large", large, python),
        Subject(peer.save, folder / "small", small, python),
    )


def _looked_into(save: Subject, load: Subject, small: Subject, work_dir: Path) -> dict[str, Any]:
    """Return what a peer really does: bytes, calls, and whether it notices a changed bit."""
    assert save.object_path is not None
    with Worker(save) as worker:
        worker.ask("time")
        written = worker.ask("time")["written_bytes"]
    return {
        "written": None if written is None else written / save.object_path.stat().st_size,
        "calls": counted_calls(save, work_dir / "calls.txt"),
        "digest": _notices_a_changed_bit(small, load.operation),
    }


def _notices_a_changed_bit(save: Subject, load: str) -> str:
    """Change one bit of the array in the stored file, and load it in another process."""
    with Worker(save) as worker:
        worker.ask("time")
    loading = Subject(load, save.folder, None, save.python)
    whole_process(loading.command(once=1), loading)
    files = [p for p in save.folder.rglob("*") if p.is_file() and not p.is_symlink()]
    sizes = {path: path.stat().st_size for path in files if path.suffix != ".db"}
    for path in (path for path, size in sizes.items() if size == max(sizes.values())):
        _change_a_bit(path)  # of the stored file, and of copies left elsewhere
    try:
        whole_process(loading.command(once=1), loading)
    except WorkError:
        return "yes"
    return "no"


def _change_a_bit(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def _timed(subjects: dict[str, Subject], work_dir: Path) -> Iterator[tuple[str, Spread]]:
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(subject)) for subject in subjects.values()]
        runs = [lambda w=worker: float(w.ask("time")["seconds"]) * 1000 for worker in workers]
        in_turn(runs, 1)
        results = in_turn(runs, _ROUNDS, work_dir)
    yield from zip(subjects, map(Spread.of, results), strict=True)
