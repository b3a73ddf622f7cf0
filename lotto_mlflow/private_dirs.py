"""Private folders in the system's temporary one, where nobody else can look in or write."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lotto_mlflow import regular
from lotto_mlflow.errors import StoreError
from lotto_mlflow.files import lock_at, locked, remove_tree

if TYPE_CHECKING:
    from filelock import FileLock

_PREFIX = "lotto_mlflow-copy-"
_NAME = re.compile(rf"{_PREFIX}[A-Za-z0-9_]{{1,20}}")
_LOCK = "lock"
_TRIES = 20
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@contextmanager
def made() -> Iterator[Path]:
    """Make a folder in which nobody else can write or read, and remove it at the end.

    Yields
    ------
    pathlib.Path
        The folder, in the system's temporary one (``TMPDIR``).

    Raises
    ------
    StoreError
        If it cannot be made, or others could exchange it.

    Notes
    -----
    A process that is killed leaves its folder behind, with a lock on it that died with the process.
    Before a new one is made, those are swept: of this user only, and where nobody holds the lock.
    """
    parent = Path(tempfile.gettempdir())
    _check_parent(parent)
    sweep()
    folder, lock = _locked_folder(parent)
    try:
        yield folder
    finally:
        remove_tree(folder)
        lock.release()


@contextmanager
def brief() -> Iterator[Path]:
    """Make such a folder for what lasts no longer than a moment; a kill may leave it behind.

    Yields
    ------
    pathlib.Path
        The folder.

    Raises
    ------
    StoreError
        If others could exchange it.
    """
    _check_parent(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix="lotto_mlflow-") as name:
        yield Path(name)


def _check_parent(parent: Path) -> None:
    """See that nobody else can rename a folder of ours, and put one of theirs in its place."""
    try:
        mode = parent.stat().st_mode
    except OSError:  # as making a folder there will say
        return
    if os.name != "nt" and mode & _WRITABLE_BY_OTHERS and not mode & stat.S_ISVTX:
        raise StoreError(
            f"others may rename what lies in {parent}, so nothing there is private; set TMPDIR "
            f"to a folder of your own, or run chmod +t {parent}",
            path=parent,
        )


def _locked_folder(parent: Path) -> tuple[Path, FileLock]:
    from filelock import Timeout  # imported lazily

    for _ in range(_TRIES):
        try:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))  # with the mode 0700
            before = os.lstat(folder)
        except OSError as cause:
            raise StoreError(
                f"no private folder could be made in {parent}: {cause}; set TMPDIR to a folder "
                "with room",
                path=parent,
            ) from cause
        lock = lock_at(folder / _LOCK)
        with suppress(Timeout, OSError):  # of the sweep of another process, which saw no lock yet
            lock.acquire(timeout=0)
            if _is_same(folder, before) and regular.is_file(folder / _LOCK):
                return folder, lock
        lock.release()
        remove_tree(folder)
    raise StoreError(f"no private folder in {parent} could be locked; set TMPDIR", path=parent)


def _is_same(folder: Path, before: os.stat_result) -> bool:
    after = os.lstat(folder)
    return (after.st_dev, after.st_ino, after.st_mode) == (
        before.st_dev,
        before.st_ino,
        before.st_mode,
    )


def sweep() -> None:
    """Remove the folders that processes of this user left which are gone."""
    from filelock import Timeout  # imported lazily

    parent = Path(tempfile.gettempdir())
    with suppress(OSError):
        for name in os.listdir(parent):
            folder = parent / name
            if not _NAME.fullmatch(name) or not _is_own(folder):
                continue
            with suppress(Timeout, OSError), locked(lock_at(folder / _LOCK), 0):
                remove_tree(folder)


def _is_own(folder: Path) -> bool:
    """Return whether this is a real folder of this user, who may remove it."""
    if not regular.is_folder(folder):
        return False
    with suppress(OSError):
        return not hasattr(os, "getuid") or os.lstat(folder).st_uid == os.getuid()
    return False
