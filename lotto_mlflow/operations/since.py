"""Since when versions have their aliases, as the recorded moves say."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from lotto_mlflow import regular
from lotto_mlflow.errors import MirrorError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.records import AliasMove, ModelRecord, home_of, moves_in
from lotto_mlflow.settings import Target

_logger = logging.getLogger("lotto_mlflow")
_MOVES = (
    "SELECT key, value FROM params WHERE run_uuid = (SELECT run_uuid FROM runs JOIN experiments "
    "ON runs.experiment_id = experiments.experiment_id WHERE experiments.name = ? "
    "ORDER BY runs.start_time LIMIT 1)"
)
_SECONDS = 2.0


def filled(folder: ModelFolder, target: Target, found: list[ModelRecord]) -> list[ModelRecord]:
    """Return records that say since when they have their aliases, where that is to be had."""
    moves: dict[str, tuple[AliasMove, ...]] = {}
    holders: dict[str, dict[str, int | None]] = {}
    for record in found:
        if record.aliases:
            own = dict.fromkeys(record.aliases, record.version)
            holders.setdefault(record.registered_model, {}).update(own)
    for name, versions in holders.items():
        try:
            moves[name] = _moves(folder, target, name, versions)
        except MirrorError as cause:
            _logger.info("since when aliases stand is left out: %s", cause)
    return [
        replace(record, aliases_since=times)
        if (times := _times(record, moves.get(record.registered_model, ())))
        else record
        for record in found
    ]


def _times(record: ModelRecord, moves: tuple[AliasMove, ...]) -> dict[str, str]:
    """Return when the last move of each alias was made, if it was to this version."""
    last = {move.alias: move for move in moves}
    return {
        alias: str(move.when)
        for alias in record.aliases
        if (move := last.get(alias)) is not None
        and move.to is not None
        and move.to.version == record.version
        and record.save_id in (None, move.to.save_id)
    }


def _moves(
    folder: ModelFolder, target: Target, registered_model: str, holders: dict[str, int | None]
) -> tuple[AliasMove, ...]:
    """Return the moves of a registered model; MLflow is asked where no file has them."""
    path = target.database_path
    is_readable = path is not None and (regular.is_file(path) or not target.is_embedded)
    found = moves_in_file(path, registered_model) if path is not None and is_readable else None
    if found is not None:
        return found
    return folder.mirror(target).moves(registered_model, holders)


def moves_in_file(path: Path, registered_model: str) -> tuple[AliasMove, ...] | None:
    """Return the moves in an SQLite tracking store, ``None`` where MLflow has to be asked.

    Notes
    -----
    As with the aliases themselves: importing MLflow takes seconds, the file is only read, and
    tables that do not answer are no error here.
    """
    import sqlite3  # imported lazily

    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=_SECONDS)) as opened:
            params = dict(opened.execute(_MOVES, (home_of(registered_model),)))
        return moves_in({str(k): str(v) for k, v in params.items()}, registered_model)[0]
    except (sqlite3.Error, TypeError, ValueError):
        return None
