"""SQLite files as MLflow's stores: their URIs, creation, copies, upgrade, and paths inside."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import mlflow

from lotto_mlflow import regular
from lotto_mlflow.errors import Fix, MirrorUnavailableError, RelocationError
from lotto_mlflow.files import remove_file
from lotto_mlflow.layout import REGISTERED_MODEL
from lotto_mlflow.settings import sqlite_path, sqlite_uri

_SCHEME = "sqlite:///"
PATH_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
"""Columns with paths of artifacts: these and no others (measured with MLflow 3.17), and MLflow has
no call that changes them."""

_LOGGERS = (
    "mlflow.store.db.utils",
    "mlflow.store.tracking.sqlalchemy_store",
    "alembic.runtime.migration",
    "alembic.runtime.plugins",
)
"""Loggers that report each step of the creation and the upgrade of a database."""


@contextmanager
def without_progress_logs() -> Iterator[None]:
    """Leave out what MLflow and Alembic log below a warning while they work on an own database.

    Notes
    -----
    No level and no handler is changed, and what other threads log passes.
    """
    thread_id = threading.get_ident()

    def passes(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or threading.get_ident() != thread_id

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(passes)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(passes)


def uri_alias(uri: str, generation: int) -> str:
    """Return another URI of the same SQLite database: MLflow shares nothing between the two."""
    if generation == 0 or sqlite_path(uri) is None:
        return uri
    return f"{_SCHEME}{'/.' * generation}{uri.partition(':///')[2]}"


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
    if os.path.lexists(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent == own_dir:
        remove_left_overs(path)
    temporary = _unpublished(path)
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
    ``MlflowClient`` accepts no artifact root, and ``mlflow server`` would have to be started for
    it; so this opens MLflow's own store class once, and closes it again.
    """
    with without_progress_logs():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        store = SqlAlchemyStore(sqlite_uri(path), artifacts_dir.absolute().as_uri())
        store.engine.dispose()


def copy(path: Path, reason: str) -> Path:
    """Keep a copy of a database beside it, by SQLite's own backup.

    Returns
    -------
    pathlib.Path
        ``<name>.<reason>.bak``, with a number where that was there before.
    """
    number, target = 1, path.with_name(f"{path.name}.{reason}.bak")
    while os.path.lexists(target):
        number += 1
        target = path.with_name(f"{path.name}.{reason}.{number}.bak")
    with closing(sqlite3.connect(path)) as opened:
        _copy_content(opened, target)
    return target


def upgrade(path: Path) -> None:
    """Bring a database to the schema of the installed MLflow; the caller holds the lock.

    Raises
    ------
    MirrorUnavailableError
        If another program wrote to it meanwhile. Nothing was changed.

    Notes
    -----
    A migration that breaks or is killed would leave a database that no release opens. Hence a
    copy is migrated, which then replaces the content, not the file, in one transaction. What was
    there before is kept beside it.
    """
    remove_left_overs(path)
    migrated = _unpublished(path)
    try:
        with closing(sqlite3.connect(path)) as opened:
            version = opened.execute("PRAGMA data_version").fetchone()
            _copy_content(opened, migrated)
            _upgrade_in_place(migrated)
            kept = copy(path, "before-upgrade")
            if opened.execute("PRAGMA data_version").fetchone() != version:
                kept.unlink()
                raise MirrorUnavailableError(
                    f"{path} was written to while it was brought to the schema of MLflow "
                    f"{mlflow.__version__}",
                    fix=Fix("sync", before="the next save tries again, or", effect="does"),
                    error_code=None,
                )
            with closing(sqlite3.connect(migrated)) as source:
                source.backup(opened)
    finally:
        migrated.unlink(missing_ok=True)


def _upgrade_in_place(path: Path) -> None:
    with without_progress_logs():
        from mlflow.db import commands

        commands.main(["upgrade", sqlite_uri(path)], standalone_mode=False)


def _copy_content(opened: sqlite3.Connection, target: Path) -> None:
    with closing(sqlite3.connect(target)) as copied:
        opened.backup(copied)


def _unpublished(path: Path) -> Path:
    """Return a name beside a database, for one that is not yet complete."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")


def remove_left_overs(path: Path) -> None:
    """Remove the incomplete databases of processes that died; the caller holds the lock."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{32}}\.new(-journal|-wal|-shm)?")
    for file_name in os.listdir(path.parent):
        if pattern.fullmatch(file_name):
            remove_file(path.parent / file_name)


def rewrite_paths(path: Path, location: str) -> int:
    """Replace the beginning that the paths in a database have in common.

    Parameters
    ----------
    path : pathlib.Path
        The database, which may be in use.
    location : str
        New URI or path of the folder in which the experiment keeps its artifacts.

    Returns
    -------
    int
        Number of values rewritten.
    """
    if not regular.is_file(path):
        raise RelocationError(f"there is no embedded store at {path}", path=path)
    try:
        with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as opened:
            opened.execute("BEGIN IMMEDIATE")
            old = _location_of(opened, path)
            if old == location:
                return 0
            own = (path.parent / "artifacts").absolute().as_uri()
            if any(one.startswith(f"{old}/") for one in (location, own)):
                # a beginning of right paths, which are to stay: only the experiment's own goes
                old, location = f"{old}/{REGISTERED_MODEL}", f"{location}/{REGISTERED_MODEL}"
            copy(path, "before-relocate")
            changed = sum(
                _replace(opened, table, column, old, location) for table, column in PATH_COLUMNS
            )
            opened.execute("COMMIT")
            return changed
    except sqlite3.Error as cause:
        raise RelocationError(
            f"the paths in {path} could not be rewritten: {cause}; nothing was changed", path=path
        ) from cause


def _location_of(opened: sqlite3.Connection, path: Path) -> str:
    """Return where the database says that artifacts are."""
    found = opened.execute(
        "SELECT artifact_location FROM experiments WHERE name = ?", (REGISTERED_MODEL,)
    ).fetchone()
    ending = f"/{REGISTERED_MODEL}"
    if found is None or not str(found[0]).endswith(ending):
        raise RelocationError(
            f"{path} has no experiment {REGISTERED_MODEL} with artifacts of its own; "
            "there is nothing to relocate",
            path=path,
        )
    return str(found[0]).removesuffix(ending)


def _replace(opened: sqlite3.Connection, table: str, column: str, old: str, location: str) -> int:
    changed = opened.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 - names from above
        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
        (location, len(old) + 1, old, len(old) + 1, f"{old}/"),
    )
    return changed.rowcount
