"""SQLite files as MLflow's stores: their URIs, creation, health and schema."""

from __future__ import annotations

import os
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import mlflow
from sqlalchemy.engine import make_url

from lotto_mlflow.errors import MirrorUnavailableError

_SCHEME = "sqlite:///"
_BUSY_SECONDS = 2.0


def uri_of(path: Path) -> str:
    """Return the URI by which SQLAlchemy opens a database file.

    Notes
    -----
    SQLAlchemy 2.1 reads ``%20`` in the path as a space, 2.0 does not.
    """
    plain = f"{_SCHEME}{path}"
    return plain if make_url(plain).database == str(path) else f"{_SCHEME}{quote(str(path))}"


def path_of(uri: str) -> Path | None:
    """Return the database file of an SQLite URI, ``None`` for a store of another kind."""
    if not uri.startswith("sqlite:"):
        return None
    found = make_url(uri).database
    return None if found in (None, "", ":memory:") else Path(str(found))


def respelled(uri: str, generation: int) -> str:
    """Return another URI of the same SQLite database: MLflow shares nothing between the two."""
    if generation == 0 or path_of(uri) is None:
        return uri
    return f"{_SCHEME}{'/.' * generation}{uri.removeprefix(_SCHEME)}"


def create(path: Path, artifacts_dir: Path, own_dir: Path) -> None:
    """Create a migrated database; the caller holds this folder's database lock.

    Parameters
    ----------
    path : pathlib.Path
        The file to create, if it does not exist.
    artifacts_dir : pathlib.Path
        Where its default experiment keeps artifacts.
    own_dir : pathlib.Path
        The adapter's folder, in which nobody else creates databases.

    Notes
    -----
    MLflow's own creation breaks when several processes open one new file. Hence it is created
    under another name and published complete, by a link that fails where another process was
    faster.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    for left_over in own_dir.glob(f".{path.name}.*.new*"):
        left_over.unlink()  # of a process that died here: this one holds the lock
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    temporary.touch(exist_ok=False)  # fails at once where MLflow would retry for minutes
    try:
        _migrate(temporary, artifacts_dir)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass  # another folder's process, which has another lock, was faster
        except OSError:  # no hard links on this file system
            temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def _migrate(path: Path, artifacts_dir: Path) -> None:
    """Fill an empty database whose default experiment does not point to the current folder.

    Notes
    -----
    ``MlflowClient`` takes no artifact root, and ``mlflow server`` would have to be started for
    it; so this opens MLflow's own store class once, and closes it again.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(uri_of(path), artifacts_dir.absolute().as_uri())
    store.engine.dispose()


def probe(path: Path, *, for_writing: bool) -> None:
    """Refuse at once a file that MLflow would try to open for minutes.

    Parameters
    ----------
    path : pathlib.Path
        The database.
    for_writing : bool
        Whether it must be possible to write, too.

    Raises
    ------
    MirrorUnavailableError
        If the file is no database, or is locked.
    """
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)) as opened:
            opened.execute("BEGIN IMMEDIATE" if for_writing else "BEGIN")
            opened.execute("SELECT version_num FROM alembic_version").fetchone()
            opened.execute("ROLLBACK")
    except sqlite3.Error as cause:
        raise MirrorUnavailableError(
            f"the database {path} cannot be used: {cause}. If it is damaged, bring it back from a "
            "copy, or move it away: a new one is made, and sync() fills it",
            error_code=None,
        ) from cause


def copy(path: Path, reason: str) -> Path:
    """Keep a copy of a database beside it, by SQLite's own backup.

    Returns
    -------
    pathlib.Path
        ``<name>.<reason>.bak``, with a number where that was there before.
    """
    number, target = 1, path.with_name(f"{path.name}.{reason}.bak")
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.{reason}.{number}.bak")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as kept:
        source.backup(kept)
    return target


def upgrade(path: Path) -> None:
    """Bring a database to the schema of the installed MLflow; the caller holds the lock.

    Raises
    ------
    MirrorUnavailableError
        If the schema is newer than the installed MLflow.
    """
    from alembic.util import CommandError
    from mlflow.db import commands

    kept = copy(path, "before-upgrade")
    try:
        commands.main(["upgrade", uri_of(path)], standalone_mode=False)
    except CommandError as cause:
        kept.unlink()
        raise MirrorUnavailableError(
            f"{path} was written by a newer MLflow than the installed {mlflow.__version__}: "
            "run pip install --upgrade mlflow",
            error_code=None,
        ) from cause
