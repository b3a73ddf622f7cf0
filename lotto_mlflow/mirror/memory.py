"""What MLflow was asked a moment ago, and is not asked again by each lookup."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from lotto_mlflow.mirror import leftovers
from lotto_mlflow.mirror.aliases import AliasBook
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.mirror.lookups import Ran
from lotto_mlflow.records import AliasMove, ModelRecord

_KEPT_SECONDS, _MOST_KEPT = 30.0, 1_000
_Moves = tuple[AliasMove, ...]


class RunMemory:
    """What runs had when they were asked a moment ago.

    Parameters
    ----------
    connection : Connection
        The store.

    Notes
    -----
    A run that is finished keeps its parameters; only the figures of its predictions are added
    later, at most once a draw.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._found: dict[str, tuple[float, Ran]] = {}

    def of(self, record: ModelRecord) -> Ran:
        """Return what the run of a version has; nothing, where it was removed for good."""
        run_id = str(record.run_id)
        asked_at, (params, metrics) = self._found.get(run_id, (-math.inf, ({}, {})))
        if time.monotonic() - asked_at >= _KEPT_SECONDS:
            doing = f"looking up the run of {record.name}"
            run = self._connection.ask(
                lambda: leftovers.run_of(self._connection, run_id), doing, None
            )
            params, metrics = ({}, {}) if run is None else (run.data.params, run.data.metrics)
            if len(self._found) >= _MOST_KEPT:
                self._found.clear()
            self._found[run_id] = (time.monotonic(), (params, metrics))
        return dict(params), dict(metrics)

    def forget(self, run_id: str) -> None:
        """Have a run asked again, since it was changed."""
        self._found.pop(run_id, None)


class MoveMemory:
    """The moves of aliases that were read a moment ago, to be shown.

    Parameters
    ----------
    connection : Connection
        The store.

    Notes
    -----
    The run that holds them is looked for by name, and only until it was found.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._books: dict[str, AliasBook] = {}
        self._found: dict[str, tuple[float, _Moves]] = {}

    def of(self, registered_model: str, holders: Mapping[str, int | None]) -> _Moves:
        """Return the moves of a registered model's aliases.

        Parameters
        ----------
        registered_model : str
            The registered model.
        holders : mapping of str to int
            The versions that aliases stand for now. Moves that were read a moment ago are read
            again, where they say otherwise.
        """
        asked_at, moves = self._found.get(registered_model, (-math.inf, ()))
        is_old = time.monotonic() - asked_at >= _KEPT_SECONDS
        if is_old or not holders.items() <= _holders_by(moves).items():
            asked_at, moves = time.monotonic(), self._read(registered_model)
            self._found[registered_model] = (asked_at, moves)
        return moves

    def _read(self, registered_model: str) -> _Moves:
        book = self._books.get(registered_model) or AliasBook(self._connection, registered_model)
        ledger = book.read(is_by_name=True)
        if ledger.run_id is None:
            self._books.pop(registered_model, None)
        else:
            self._books[registered_model] = book
        return ledger.moves


def _holders_by(moves: _Moves) -> dict[str, int | None]:
    return {move.alias: None if move.to is None else move.to.version for move in moves}
