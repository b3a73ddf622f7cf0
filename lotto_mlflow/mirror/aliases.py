"""Aliases in MLflow: moved step by step, so that whoever comes later finishes what was begun."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from lotto_mlflow.errors import MirrorUnavailableError
from lotto_mlflow.mirror import entities, leftovers, registry
from lotto_mlflow.mirror.alias_home import AliasHome, Ledger, ledger_of, version_of
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.records import (
    DONE,
    VOID,
    AliasMove,
    Setter,
    key_of,
    parse_move,
    render_move,
    token_of,
)
from lotto_mlflow.threads import bounded

_OPEN_SECONDS = 60.0
"""Opening a store for the first time takes seconds of work, more where a machine is busy."""
_WRITE_SECONDS = 25.0
"""A database that others write to is waited for 20 s by MLflow itself."""
_SET, _ENDED = "set", "ended"
_NO_TAG = "lotto_mlflow.no_tag"
"""A tag that no registered model has."""
_MOST_ROUNDS = 100
_MAX_DESCRIPTION = 5_000
"""Characters that MLflow's database keeps of a version's description (3.17)."""
_logger = logging.getLogger("lotto_mlflow")
_T = TypeVar("_T")


class AliasBook:
    """The aliases of one registered model in one tracking store and registry.

    Parameters
    ----------
    connection : Connection
        The store.
    registered_model : str
        The registered model.

    Notes
    -----
    A move is claimed under the next number, by a parameter that MLflow lets nobody overwrite; then
    the alias is set, the descriptions of the versions say so, and the move is marked as done.
    Whoever comes later finishes what was claimed and is not done.
    """

    def __init__(self, connection: Connection, registered_model: str) -> None:
        self._connection = connection
        self._name = registered_model
        self._home = AliasHome(connection, registered_model)
        self._claimed: dict[int, str] = {}
        self._may_move = False

    def _write(self, call: Callable[[], _T], doing: str) -> _T:
        """Have MLflow write something, bounded in time."""

        def written() -> _T:
            self._connection.prepare()
            with self._connection.guarded(doing):
                return call()

        return bounded(written, _WRITE_SECONDS, doing)

    @property
    def _client(self) -> MlflowClient:
        return self._connection.client

    def read(self, *, is_by_name: bool = False) -> Ledger:
        """Return the moves that are recorded; nothing is created.

        Parameters
        ----------
        is_by_name : bool
            Whether to be content with the history that has the registered model's name, and not to
            look for one that it had under another name.
        """
        doing = f"asking for the moves of the aliases of {self._name}"
        seconds = None if is_by_name else _WRITE_SECONDS  # which only adds to a list
        call = partial(self._read, is_by_name=is_by_name)
        return self._connection.ask(call, doing, Ledger(), seconds=seconds)

    def _read(self, *, is_by_name: bool = False) -> Ledger:
        run = self._home.run(is_by_name=is_by_name)
        return Ledger() if run is None else ledger_of(run, self._name)

    def _version(self, number: int) -> ModelVersion | None:
        return version_of(self._client, self._name, number)

    def open(self) -> None:
        """Have the store opened, which takes longer than what is asked of it afterwards."""
        self._connection.ask(
            lambda: self._client, f"asking for {self._name}", None, seconds=_OPEN_SECONDS
        )

    def recovered(self) -> Ledger:
        """Return the moves that are recorded, once all are done: others are finished here.

        Raises
        ------
        MirrorUnavailableError
            If others claim new ones all the time.
        """
        for _ in range(_MOST_ROUNDS):
            ledger = self.read()
            pending = [move for move in ledger.moves if not move.is_done]
            if not pending:
                return ledger
            self.check_may_move()
            for move in pending:
                self.finish(move)
        raise MirrorUnavailableError(
            f"so many others move aliases of {self._name} that they could not be finished; nothing "
            "was moved",
            error_code=None,
        )

    def check_may_move(self) -> None:
        """See that this account may change the registered model, by a change that does nothing.

        Raises
        ------
        MirrorUnavailableError
            If it may not.

        Notes
        -----
        Else a move could be recorded by one who may not make it, for others to finish; and MLflow's
        basic auth would give the history to whoever made its experiment.
        """
        if not self._may_move:
            doing = f"nothing was moved: asking for the right to move aliases of {self._name}"
            self._write(
                lambda: self._client.delete_registered_model_tag(self._name, _NO_TAG), doing
            )
            self._may_move = True

    def metric(self, run_id: str, name: str) -> float | None:
        """Return the last value of a metric of a run, ``None`` where it has none."""

        def ask() -> float | None:
            run = leftovers.run_of(self._connection, run_id)
            values = {} if run is None else run.data.metrics
            found = values.get(name, values.get(entities.legal_names([name])[name]))
            return None if found is None else float(found)

        return self._connection.ask(ask, f"asking for the metric {name}", None)

    def claim(self, move: AliasMove) -> AliasMove | None:
        """Record a move under its number, unless another has it.

        Returns
        -------
        AliasMove or None
            The move as it is recorded; ``None`` where somebody was faster.
        """
        token = uuid.uuid4().hex
        text = render_move(move, token)
        number = int(move.number or 0)

        def claim() -> bool:
            run_id = self._home.run_id_to_write()
            try:
                self._client.log_param(run_id, key_of(number), text, synchronous=True)
            except MlflowException:
                found = self._client.get_run(run_id).data.params.get(key_of(number))
                if found is None:
                    raise
                return token_of(found) == token
            return True

        if not self._write(claim, f"recording a move of {move.alias}"):
            return None
        self._claimed[number] = token
        return parse_move(text, self._name, number, is_done=False)

    def finish(self, move: AliasMove) -> bool:
        """Set the alias as a claimed move says, and mark the move as done.

        Returns
        -------
        bool
            False where that was not possible, since its version is not there any more.

        Notes
        -----
        Of several moves that are not done, only the newest one is set. Who did not claim the move
        says first that it helps, and sets nothing where the move is done by then. Who is not the
        first to mark the move may have been late, and sets, in the end, what a newer move says.
        """

        def set_alias() -> bool:
            setter = self._setter(move)
            newest = self._read().last(move.alias) or move
            if int(newest.number or 0) < setter.number:  # another has found its version gone
                return False
            is_first = newest.number == move.number and not newest.is_done
            is_there = not is_first or self._set(move)
            if not self._mark(setter, _SET if is_there else VOID):
                self._set_newest(move, setter)
            return is_there

        return self._write(set_alias, f"setting {move.alias}")

    def corrected(self, alias: str, ledger: Ledger) -> None:
        """Set an alias as its newest move says, after somebody set it late who may be dead."""
        newest = ledger.last(alias)
        if newest is None:
            return

        def set_alias() -> None:
            self._set_newest(newest, Setter(int(newest.number or 0), uuid.uuid4().hex), first=True)
            for setter in ledger.late:
                self._log(setter.end_key, _ENDED)

        self._write(set_alias, f"setting {alias}")

    def _setter(self, move: AliasMove) -> Setter:
        """Return whoever sets the alias for a move, which this one did not claim unless it did."""
        number = int(move.number or 0)
        token = self._claimed.get(number)
        setter = Setter(number, token or uuid.uuid4().hex)
        if token is None:
            self._log(setter.help_key, _now())
        return setter

    def _set_newest(self, move: AliasMove, setter: Setter, *, first: bool = False) -> None:
        """Set what the newest move says, until none is newer than the one that was set.

        Parameters
        ----------
        move : AliasMove
            The move that was set.
        setter : Setter
            Who set it.
        first : bool
            Whether it has still to be set.
        """
        joined = [] if first else [setter]
        for _ in range(_MOST_ROUNDS):
            newest = self._read().last(move.alias) or move
            if newest.number == move.number and not first:
                break
            setter = Setter(int(newest.number or 0), setter.token)
            self._log(setter.help_key, _now())
            joined.append(setter)
            seen = self._read().last(move.alias)
            if seen is not None and seen.number == newest.number:  # nobody claimed one before
                self._set(newest)
            move, first = newest, False
        for setter in joined:
            self._log(setter.end_key, _ENDED)

    def _log(self, key: str, value: str) -> bool:
        """Log a parameter; return whether nobody had logged another value under its key."""
        try:
            self._client.log_param(self._home.run_id_to_write(), key, value, synchronous=True)
        except MlflowException as cause:
            if cause.error_code != "INVALID_PARAMETER_VALUE":
                raise
            return False
        return True

    def adopt(self, alias: str, version: int, move: AliasMove | None) -> None:
        """Set an alias as another store has it, after its moves were copied from there.

        Parameters
        ----------
        alias : str
            The alias.
        version : int
            What it stands for.
        move : AliasMove or None
            Its last move, if that is recorded, and ends with this version.
        """

        def set_alias() -> None:
            self._set_alias(alias, str(version))
            newest = self._read(is_by_name=True).last(alias)
            if move is not None and newest is not None and newest.number != move.number:
                self._set(newest)  # of a promoter who came in between

        self._write(set_alias, f"setting {alias}")
        if move is not None:
            self.describe(version, move)

    def describe(self, version: int, move: AliasMove) -> None:
        """Have the description of a version say since when it has an alias, by its last move."""
        self._write(partial(self._describe, version, move), f"describing version {version}")

    def _mark(self, setter: Setter, outcome: str) -> bool:
        """Mark a move as done; return whether nobody had done so."""
        value = outcome if outcome == VOID else f"{outcome} {setter.token}"
        return self._log(f"{key_of(setter.number)}{DONE}", value)

    def _set(self, move: AliasMove) -> bool:
        if move.to is None or self._version(move.to.version) is None:
            return False
        self._set_alias(move.alias, str(move.to.version))
        for holder in (move.from_, move.to):
            if holder is not None:
                self._describe(holder.version, move)
        return True

    def _set_alias(self, alias: str, version: str) -> None:
        """Set an alias; anew where another promoter has just made it.

        Notes
        -----
        MLflow looks for the row of an alias, and inserts one where there is none (3.17): of two
        that make an alias at once, one is refused by the database.
        """
        call = partial(self._client.set_registered_model_alias, self._name, alias, version)
        try:
            call()
        except MlflowException:
            ask = partial(self._client.get_model_version_by_alias, self._name, alias)
            if registry.existing(ask) is None:
                raise
            call()

    def _describe(self, number: int, move: AliasMove) -> None:
        """Have the description of a version say since when it has an alias, or nothing of it."""
        is_holder = move.to is not None and move.to.version == number
        try:
            version = self._version(number)
            if version is None:
                return
            text = version.description or ""
            described = _with_alias(text, move.alias, move.when if is_holder else None)
            if described != text and len(described) <= _MAX_DESCRIPTION:
                self._client.update_model_version(self._name, str(number), described)
        except MlflowException as cause:  # the move counts, and not what is said of it
            _logger.info("version %d of %s is not described: %s", number, self._name, cause)


def split_description(description: str) -> tuple[str, str]:
    """Return the lines of a description that say since when a version has aliases, and the rest."""
    of_all = re.match(r"(?:Alias `[\w-]+` since [^\n]*(?:\n|$))*", description)
    lines = of_all[0] if of_all else ""
    return lines, description[len(lines) :].lstrip("\n") if lines else description


def _with_alias(description: str, alias: str, since: str | None) -> str:
    """Return a description that says since when a version has an alias, or nothing of it."""
    own = re.compile(rf"Alias `{re.escape(alias)}` since [^\n]*(?:\n|$)")
    lines, rest = split_description(description)
    lines = own.sub("", lines)
    if since is not None:
        lines = f"{lines}Alias `{alias}` since {_time_as_text(since)}\n"
    return f"{lines}\n{rest}" if lines else rest


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _time_as_text(when: str) -> str:
    with suppress(ValueError):
        when = datetime.fromisoformat(when).isoformat(sep=" ", timespec="seconds")
    return re.sub(r"[^0-9A-Za-z:+. -]", "", when)[:40]
