"""Disks that refuse: limits, small file systems, folders that are read-only or in the way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

FOLDERS = ("trained", "metadata", "backups", "mlflow")
PAGE = 4096

CHILD = """
import json, os, resource, signal, sys, tempfile
import joblib
from lotto_mlflow import ModelManager
base_dir, work = sys.argv[1], json.loads(sys.argv[2])
with tempfile.TemporaryDirectory() as folder:  # the interpreter's own files may be root's alone
    manager = ModelManager(folder, mirror="off")
    for _ in range(2):
        manager.save_model({"warm": "up"}, "x", {"a": 1})
    manager.restore("x")
if work.get("user"):
    os.setgid(work["user"]); os.setuid(work["user"])
manager, hard = ModelManager(base_dir, mirror="off"), resource.RLIM_INFINITY
told = []
def attempt(limit, done, act, *arguments):
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        act(*arguments)
        told.append([done, ""])
    except OSError as error:
        told.append([type(error).__name__, type(error.__cause__).__name__])
for limit, name, size in work.get("saves", ()):
    attempt(limit, "saved", manager.save_model, {"new": "x" * size}, name, {"a": 1})
for limit, name in work.get("restores", ()):
    attempt(limit, "restored", manager.restore, name)
if work.get("plain"):
    try:
        joblib.dump({"new": "x" * 100000}, work["plain"])
    except OSError:
        pass
if not work.get("user"):
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(json.dumps(told))
"""


def tree(base_dir: Path) -> dict[str, tuple[bytes, int]]:
    """The specification's folders, and what the records say."""
    kept = (*FOLDERS[:3], "mlflow/outbox", "mlflow/sent", "mlflow/aside")
    return {
        str(path.relative_to(base_dir)): (path.read_bytes(), path.stat().st_mtime_ns)
        for folder in kept
        for path in (base_dir / folder).rglob("*")
        if path.is_file()
    }


def in_child(base_dir: Path, **work: Any) -> list[list[str]]:
    """Save and restore in a process of its own, under limits or as another user.

    Returns
    -------
    list of [str, str]
        For each call ``["saved", ""]``, ``["restored", ""]``, or the names of the error's class
        and its cause's.
    """
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(base_dir), json.dumps(work)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told: list[list[str]] = json.loads(done.stdout)
    return told


def _mounted(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@contextmanager
def small_disk(path: Path, options: str) -> Iterator[None]:
    path.mkdir()
    _mounted("-t", "tmpfs", "-o", options, "tmpfs", str(path))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    with mounted_read_only(path, path):
        yield


@contextmanager
def mounted_read_only(path: Path, place: Path) -> Iterator[None]:
    """Mount a folder once more, at a place where nothing can be written to it."""
    _mounted("--bind", str(path), str(place))
    try:
        _mounted("-o", "remount,ro,bind", str(place))
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def a_file_instead(path: Path) -> Iterator[None]:
    away = path.with_name(f"{path.name}.away")
    path.rename(away)
    path.write_text("in the way")
    try:
        yield
    finally:
        path.unlink()
        away.rename(path)


def fill(folder: Path) -> list[Path]:
    """Fill a file system to its last page, or its last inode."""
    folder.mkdir()
    fillers: list[Path] = []
    with suppress(OSError):
        while len(fillers) < 10_000:
            fillers.append(folder / str(len(fillers)))
            with fillers[-1].open("wb", buffering=0) as file:
                file.write(b"f" * PAGE)
    assert len(fillers) < 10_000
    return [path for path in fillers if path.exists()]
