"""The columns of MLflow's database that hold paths of artifacts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from lotto_mlflow.errors import RelocationError
from lotto_mlflow.layout import REGISTERED_MODEL
from lotto_mlflow.mirror import database

COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
"""Measured with MLflow 3.17: these and no others; MLflow has no call that changes them."""


def rewrite(path: Path, location: str) -> int:
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
    if not path.is_file():
        raise RelocationError(f"there is no embedded store at {path}", path=path)
    try:
        with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as opened:
            opened.execute("BEGIN IMMEDIATE")
            old = _location_of(opened, path)
            if old == location:
                return 0
            database.copy(path, "before-relocate")
            changed = sum(
                _replace(opened, table, column, old, location) for table, column in COLUMNS
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
