"""Aliases read straight from an SQLite registry, because importing MLflow takes seconds."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from lotto_mlflow.records import Aliases, aliases_by_version

_QUERY = "SELECT alias, version FROM registered_model_aliases WHERE name = ? ORDER BY alias"
_SECONDS = 2.0


def read(path: Path, registered_models: Iterable[str]) -> dict[str, Aliases] | None:
    """Return the aliases of registered models, ``None`` where MLflow has to be asked for them.

    Parameters
    ----------
    path : pathlib.Path
        The registry's database.
    registered_models : iterable of str
        Their names.

    Notes
    -----
    The file is opened for reading only. The table is as MLflow 2.3 brought it in, and 3.17 has it;
    one that does not answer, in another release perhaps, is no error here.
    """
    import sqlite3

    found: dict[str, Aliases] = {}
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=_SECONDS)) as opened:
            for name in registered_models:
                found[name] = aliases_by_version(opened.execute(_QUERY, (name,)))
    except (sqlite3.Error, TypeError, ValueError):
        return None
    return found
