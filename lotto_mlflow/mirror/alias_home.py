"""Where the moves of aliases are kept in MLflow: a run whose parameters nobody can overwrite."""

from __future__ import annotations

import os
import re
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage, Run, ViewType
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from lotto_mlflow import layout as names
from lotto_mlflow.errors import MirrorUnavailableError
from lotto_mlflow.mirror import entities, leftovers, probing, registry, version_tags
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.records import (
    HOMES,
    AliasHolder,
    AliasMove,
    Setter,
    home_of,
    late_setters,
    moves_in,
)
from lotto_mlflow.text import shell_command

_NOTE = (
    "The moves of the aliases of a registered model, written by lotto_mlflow: one parameter each, "
    "and another when it was done. Without this run, rollbacks are not possible."
)
ALIASES_DIR = "aliases"
"""Name of the folder where a history would have artifacts, beside those of the models."""
_PID = re.compile(r"[1-9][0-9]{0,8}")
_UNFINISHED_HOME = re.compile(r"[0-9a-f]{32}")
_FIRST_NAME_TAG = "lotto_mlflow.aliases_of"
_MAKER_TAG = "lotto_mlflow.made_by"
_LONGEST_MAKING_MS = 600_000
_NEWEST = 20
"""Versions of which the first name of their registered model is looked up."""
_MOST_LOOKED_AT = 5
"""Moves of another history that are looked at, to see whether it is of this registered model."""


class Ledger(NamedTuple):
    """The moves of a registered model's aliases, as they are recorded.

    Attributes
    ----------
    run_id : str or None
        The run that holds them, ``None`` where there is none yet.
    moves : tuple of AliasMove
        The moves of every alias, in the order of their numbers; without those that never took
        effect, because their version was deleted.
    next_number : int
        The number that no move has.
    late : tuple of Setter
        Who may still set an alias late.
    """

    run_id: str | None = None
    moves: tuple[AliasMove, ...] = ()
    next_number: int = 1
    late: tuple[Setter, ...] = ()

    def last(self, alias: str) -> AliasMove | None:
        """Return the newest move of an alias."""
        return next((move for move in reversed(self.moves) if move.alias == alias), None)

    def is_late(self, alias: str, holder: AliasHolder | None) -> bool:
        """Return whether an alias stands for what somebody set late, after the newest move."""
        newest, numbers = self.last(alias), {setter.number for setter in self.late}
        if holder is None or newest is None or holder.is_same(newest.to):
            return False
        late = (move for move in self.moves if move.alias == alias and move.number in numbers)
        return newest.is_done and any(holder.is_same(move.to) for move in late)


class AliasHome:
    """The experiment and the run that hold the moves of one registered model's aliases.

    Parameters
    ----------
    connection : Connection
        The store; every call is made inside its `ask`, or after its `prepare`.
    registered_model : str
        The registered model.
    """

    def __init__(self, connection: Connection, registered_model: str) -> None:
        self._connection = connection
        self._name = registered_model
        self._run_id: str | None = None
        self._writable_run_id: str | None = None

    @property
    def _client(self) -> MlflowClient:
        return self._connection.client

    def run(self, *, is_by_name: bool = False) -> Run | None:
        """Return the run that holds the history, deleted or not; ``None`` where there is none.

        Parameters
        ----------
        is_by_name : bool
            As in `lotto_mlflow.mirror.aliases.AliasBook.read`.
        """
        if self._run_id is not None:
            return leftovers.run_of(self._connection, self._run_id)
        home = self._find() or (None if is_by_name else self._of_earlier_name())
        run = None if home is None else self._run_in(home)
        if run is not None:
            self._run_id = str(run.info.run_id)
        return run

    def _find(self) -> Experiment | None:
        """Return the experiment of the history, deleted or not."""
        return self._client.get_experiment_by_name(home_of(self._name))

    def _run_in(self, home: Experiment) -> Run | None:
        """Return the run of a history; the oldest one, should others have made more there."""
        found = self._client.search_runs(
            [home.experiment_id],
            run_view_type=ViewType.ALL,
            order_by=["attributes.start_time ASC"],
            max_results=1,
        )
        return found[0] if found else None

    def _of_earlier_name(self) -> Experiment | None:
        """Return the history that the registered model had before somebody renamed it.

        Notes
        -----
        Experiment and versions keep the name that the registered model had at first.
        """
        for first_name in self._first_names():
            condition = f'tags.`{_FIRST_NAME_TAG}` = "{first_name}"'
            for home in self._client.search_experiments(filter_string=condition):
                earlier = str(home.name).removeprefix(HOMES)
                if not home.name.startswith(HOMES) or "/" in earlier or earlier == self._name:
                    continue
                run = self._run_in(home)
                moves = () if run is None else ledger_of(run, earlier).moves
                is_of = partial(_is_of, self._client, moves)
                if is_of(self._name) and not is_of(earlier):
                    return home
        return None

    def _first_names(self) -> list[str]:
        """Return what the registered model was called when its newest versions were made."""
        page = next(registry.pages(self._client, self._name, first_page=_NEWEST), [])
        own = (v.tags[version_tags.MODEL_NAME_TAG] for v in page if version_tags.is_ours(v.tags))
        return list(dict.fromkeys(names.registered_model(name) for name in own))

    def run_id_to_write(self) -> str:
        """Return the run that holds the history, made where there is none.

        Raises
        ------
        MirrorUnavailableError
            If somebody deleted it; the message says how to bring it back.
        """
        if self._writable_run_id is not None:
            return self._writable_run_id
        home = self._find()
        if home is None:
            earlier = self._of_earlier_name()
            if earlier is not None:
                self._rename(earlier.experiment_id)
                home = self._find()
        if home is None:
            home = self._made()
        _check_not_deleted(home)
        run = self._run_in(home)
        if run is None or leftovers.is_deleted(run):
            raise _no_run(home, run)
        self._remove_unfinished()
        self._run_id = self._writable_run_id = str(run.info.run_id)
        return self._writable_run_id

    def _rename(self, experiment_id: str) -> bool:
        """Give an experiment the name of the history; false where another has it."""
        try:
            self._client.rename_experiment(experiment_id, home_of(self._name))
        except MlflowException:
            if self._find() is None:
                raise
            return False
        return True

    def _made(self) -> Experiment:
        """Return the experiment of a new history; its run is in it before it has its name."""
        experiment_id = None
        try:
            experiment_id = self._client.create_experiment(
                f"{home_of(self._name)}/{uuid.uuid4().hex}",
                artifact_location=self._location(),
                tags={
                    _FIRST_NAME_TAG: next(iter(self._first_names()), self._name),
                    _MAKER_TAG: f"{socket.gethostname()} {os.getpid()}",
                },
            )
            tags = {entities.NOTE_TAG: _NOTE}
            run = self._client.create_run(experiment_id, run_name=home_of(self._name), tags=tags)
            self._client.set_terminated(run.info.run_id, "FINISHED")
            is_first = self._rename(experiment_id)
        except MlflowException:  # who was first may have removed what is not finished
            home = self._find()
            if home is None:
                raise
            is_first = home.experiment_id == experiment_id
        if not is_first and experiment_id is not None:
            with suppress(MlflowException):
                self._client.delete_experiment(experiment_id)
        home = self._find()
        if home is None:
            raise MirrorUnavailableError(
                f"the experiment {home_of(self._name)} was made, and is not there", error_code=None
            )
        return home

    def _location(self) -> str | None:
        """Return where the artifacts of a history would lie, which has none.

        Notes
        -----
        MLflow itself would name a folder under the current one.
        """
        if not probing.is_sql(self._connection.tracking_uri):
            return None
        of_models = self._client.get_experiment(self._connection.experiment_id())
        return f"{str(of_models.artifact_location).rstrip('/')}/{ALIASES_DIR}"

    def _remove_unfinished(self) -> None:
        """Remove what promoters left that were killed before their experiment had its name."""
        beginning = f"{home_of(self._name)}/"
        with suppress(MlflowException):
            for found in _homes(self._client, beginning):
                end = str(found.name).removeprefix(beginning)
                if _UNFINISHED_HOME.fullmatch(end) and _is_abandoned(found):
                    with suppress(MlflowException):
                        self._client.delete_experiment(found.experiment_id)


def _homes(client: MlflowClient, beginning: str) -> Iterator[Experiment]:
    """Yield the experiments whose names begin so."""
    token = None
    while True:
        page = client.search_experiments(filter_string=f"name LIKE '{HOMES}%'", page_token=token)
        yield from (found for found in page if found.name.startswith(beginning))
        token = page.token
        if not token:
            return


def _is_abandoned(home: Experiment) -> bool:
    """Return whether nobody goes on making a history.

    Notes
    -----
    A server answers whoever goes on with an experiment that was deleted with a code after which
    MLflow's client tries again for minutes (3.17, ``INVALID_STATE`` as HTTP 500).
    """
    host, _, pid = home.tags.get(_MAKER_TAG, "").rpartition(" ")
    if os.name == "posix" and host == socket.gethostname() and _PID.fullmatch(pid):
        try:
            os.kill(int(pid), 0)  # which only asks for it
        except ProcessLookupError:
            return True
        except OSError:  # it is another user's
            pass
    return time.time() * 1_000 - (home.creation_time or 0) > _LONGEST_MAKING_MS


def names_of_homes(client: MlflowClient) -> list[str]:
    """Return the registered models that have a history under their name."""
    found = (str(home.name).removeprefix(HOMES) for home in _homes(client, HOMES))
    return sorted(name for name in found if name and "/" not in name)


def version_of(client: MlflowClient, registered_model: str, number: int) -> ModelVersion | None:
    """Return a version, ``None`` where it is not there."""
    return registry.existing(lambda: client.get_model_version(registered_model, str(number)))


def _is_of(client: MlflowClient, moves: Iterable[AliasMove], registered_model: str) -> bool:
    """Return whether a history is of a registered model, by the newest version in it."""
    held = [move.to for move in moves if move.to is not None and move.to.save_id is not None]
    for holder in list(dict.fromkeys(reversed(held)))[:_MOST_LOOKED_AT]:
        found = version_of(client, registered_model, holder.version)
        if found is not None:
            return bool(found.tags.get(version_tags.SAVE_ID_TAG) == holder.save_id)
    return False


def ledger_of(run: Run, registered_model: str) -> Ledger:
    """Return the moves in the parameters of a run."""
    moves, next_number = moves_in(run.data.params, registered_model)
    late = late_setters(run.data.params, datetime.now(timezone.utc))
    return Ledger(str(run.info.run_id), moves, next_number, tuple(late))


def _check_not_deleted(home: Experiment) -> None:
    if home.lifecycle_stage == LifecycleStage.DELETED:
        command = ["mlflow", "experiments", "restore", "-x", str(home.experiment_id)]
        raise MirrorUnavailableError(
            f"the experiment {home.name}, which holds the history of the aliases, was deleted, and "
            f'nothing was moved; bring it back, after eval "$(lotto-mlflow env)", with: '
            f"{shell_command(command)}",
            error_code=None,
        )


def _no_run(home: Experiment, run: Run | None) -> MirrorUnavailableError:
    if run is None:
        what, command = (
            "is gone; rename the experiment, and a new history is begun",
            ["mlflow", "experiments", "rename", "-x", home.experiment_id, "-n", f"{home.name}.old"],
        )
    else:
        what, command = (
            "was deleted; bring it back",
            ["mlflow", "runs", "restore", "--run-id", run.info.run_id],
        )
    return MirrorUnavailableError(
        f"the run in the experiment {home.name}, which holds the history of the aliases, {what}, "
        f'after eval "$(lotto-mlflow env)", with: {shell_command(command)}; nothing was moved',
        error_code=None,
    )
