"""Private copies of SQLite files that whoever only reads them cannot open where they lie.

SQLite writes even to read: a file in WAL mode has another beside it by which its readers are
counted, and what a writer that died left has to be undone first. Where neither can be written, on a
read-only mount or without the rights, a copy is read that is this process's own.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path

from lotto_mlflow import advice, regular
from lotto_mlflow.errors import MirrorUnavailableError
from lotto_mlflow.files import copy_content, remove_tree
from lotto_mlflow.settings import sqlite_path, sqlite_uri

_COMPANIONS = ("", "-wal", "-journal")
_WAL = b"\2"
_PLACE_OF_MODE, _HEADER_BYTES = 18, 20
_TRIES = 5
_Key = tuple[tuple[int, int, int] | None, ...]

_COPIES: dict[tuple[int, Path], tuple[Path, _Key]] = {}
"""By process and file, the copy, and the state of the files that it was made from."""


def address(uri: str) -> str:
    """Return the URI by which a store can be read: its own, or that of an up-to-date copy.

    Raises
    ------
    MirrorUnavailableError
        If a copy is needed, and cannot be made.

    Notes
    -----
    Nothing may be written by it.
    """
    path = sqlite_path(uri)
    return uri if path is None or not is_read_as_copy(path) else sqlite_uri(_copy_of(path))


def is_read_as_copy(path: Path | None) -> bool:
    """Return whether a file is one of SQLite's that can be read only as a copy."""
    if path is None or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        return False
    if not os.access(path, os.R_OK) or not _wants_to_be_written(path):
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as opened:
            opened.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as cause:
        return advice.number_of(cause) is not None
    return False


def _wants_to_be_written(path: Path) -> bool:
    with suppress(OSError), regular.opened(path) as file:
        if file.read(_HEADER_BYTES)[_PLACE_OF_MODE:] == 2 * _WAL:
            return True
    return any(_size_of(path, companion) for companion in _COMPANIONS[1:])


def _size_of(path: Path, companion: str) -> int:
    status = regular.status_of(path.with_name(path.name + companion))
    return 0 if status is None else status.st_size


def _copy_of(path: Path) -> Path:
    """Return the copy of a file, brought up to date where the file has changed."""
    made = _COPIES.get((os.getpid(), path))
    key = _key_of(path)
    if made is not None and made[1] == key:
        return made[0]
    try:
        if made is None:
            made = _new_place(path), ()
        key = _refresh(path, made[0])
    except (OSError, sqlite3.Error) as cause:
        raise MirrorUnavailableError(
            f"the database {path} can be read only as a copy, since neither it nor its folder may "
            f"be written to, and none could be made in the system's temporary folder, which "
            f"TMPDIR sets: {cause}; {advice.of_error(cause)}",
            error_code=None,
        ) from cause
    _COPIES[os.getpid(), path] = made[0], key
    return made[0]


def _new_place(path: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="lotto_mlflow-"))
    atexit.register(_remove, folder, os.getpid())
    return folder / path.name


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        remove_tree(folder)


def _key_of(path: Path) -> _Key:
    found = (regular.status_of(path.with_name(path.name + c)) for c in _COMPANIONS)
    return tuple(s and (s.st_ino, s.st_size, s.st_mtime_ns) for s in found)


def _refresh(path: Path, target: Path) -> _Key:
    """Copy a file and what its writers left beside it, and have SQLite make one file of these.

    Notes
    -----
    The copy is changed in one transaction, since it may be in use. A file that changes meanwhile is
    copied again.
    """
    for _ in range(_TRIES):
        key = _key_of(path)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            copied = Path(folder, path.name)
            for companion in _COMPANIONS:
                with suppress(FileNotFoundError):
                    beside = path.with_name(path.name + companion)
                    copy_content(beside, copied.with_name(copied.name + companion))
            if _key_of(path) != key:
                continue
            for one in Path(folder).iterdir():
                one.chmod(0o600)
            with (
                closing(sqlite3.connect(copied)) as source,
                closing(sqlite3.connect(target)) as opened,
            ):
                source.execute("PRAGMA journal_mode=DELETE")
                source.backup(opened)
            return key
    raise sqlite3.OperationalError("it was written to all the time")
