"""The connection to tracking store and registry: reached, bounded, its errors made ours."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from lotto_mlflow import regular
from lotto_mlflow.current_folder import existing_current_folder
from lotto_mlflow.errors import (
    Fix,
    LottoMlflowError,
    MirrorError,
    MirrorUnavailableError,
    OtherSchemaError,
)
from lotto_mlflow.files import local_path, lock_at, locked
from lotto_mlflow.layout import REGISTERED_MODEL, Layout, registered_model
from lotto_mlflow.mirror import database, probing, refusals, snapshots
from lotto_mlflow.mirror.ordering import NewestVersion
from lotto_mlflow.mirror.places import Places
from lotto_mlflow.records import SaveRecord
from lotto_mlflow.settings import Target, sqlite_path
from lotto_mlflow.text import masked
from lotto_mlflow.threads import bounded

EXPERIMENT = REGISTERED_MODEL
LOOKUP_SECONDS = 5.0
"""How long a question to MLflow may take."""
_PERMANENT = frozenset({"INVALID_PARAMETER_VALUE"})
"""Answers to a record that will be the same however often it is sent."""
_TOO_LARGE = 413
_T = TypeVar("_T")


@contextmanager
def translated(doing: str, explain: Callable[[], str] = str) -> Iterator[None]:
    """Turn whatever MLflow raises into `MirrorError` or `MirrorUnavailableError`.

    Parameters
    ----------
    doing : str
        What was asked of MLflow, for the message.
    explain : callable
        Returns what may be behind an error that says nothing of it, or nothing.
    """
    try:
        with existing_current_folder():
            yield
    except LottoMlflowError:
        raise
    except Exception as cause:
        code = getattr(cause, "error_code", None)
        status = getattr(getattr(cause, "response", None), "status_code", None)
        is_permanent = code in _PERMANENT or status == _TOO_LARGE
        kind = MirrorError if is_permanent else MirrorUnavailableError
        helps = refusals.end_of_message(cause, explain)
        raise kind(f"{doing} failed: {refusals.said(cause)}{helps}", error_code=code) from cause


@contextmanager
def permanent_errors(doing: str) -> Iterator[None]:
    """Turn an error of work on a record, in which MLflow was not asked, into `MirrorError`.

    Such an error is permanent. An error of the disk, which says nothing of the record, is not, and
    passes unchanged.

    Parameters
    ----------
    doing : str
        What was done, for the message.
    """
    try:
        yield
    except (OSError, LottoMlflowError):
        raise
    except Exception as cause:
        raise MirrorError(f"{doing} failed: {refusals.said(cause)}", error_code=None) from cause


class Connection:
    """A client of one tracking store and registry.

    Parameters
    ----------
    layout : Layout
        The folder whose saves are mirrored.
    target : Target
        The tracking store and registry.
    generation : int
        A number that no other living connection of this process to the same store has, if that
        one's client must not be shared: MLflow keeps one database engine for each spelling of a
        URI, with connections that neither a fork nor a replaced file leaves usable.
    """

    def __init__(self, layout: Layout, target: Target, generation: int = 0) -> None:
        self._layout = layout
        self._target = target
        self.target_name = target.name
        self.is_embedded = target.is_embedded
        self.places = Places(layout, target)
        self._uris = list(dict.fromkeys((target.tracking_uri, target.registry_uri)))
        self._shown = masked(target.tracking_uri)
        self._generation = generation
        self.has_own_registry = target.registry_uri != target.tracking_uri
        self._experiment_id: str | None = None
        self.newest_versions: dict[str, NewestVersion] = {}
        """By registered model, the newest version that was made here."""
        self.registered_as: dict[str, str] = {}
        """By id of a save, the registered model that it goes to, if its name gives another."""
        self.is_stale = False

    @cached_property
    def tracking_uri(self) -> str:
        """The address of the tracking store, which may be that of a copy for reading alone."""
        return self._address(self._target.tracking_uri)

    @cached_property
    def origin(self) -> str:
        """What tells the folder from others that push to the same store: a digest.

        Notes
        -----
        A copy of a folder is another one, whose saves get their times from another clock; hence
        the inode. Hosts may have folders of one path and one inode.
        """
        folder = regular.real_path(self._layout.mlflow_dir)
        try:
            inode = folder.stat().st_ino
        except OSError:
            inode = 0
        text = f"{socket.gethostname()}\n{folder}\n{inode}"
        return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]

    @cached_property
    def registry_uri(self) -> str:
        """The address of the registry, as that of the tracking store."""
        return self._address(self._target.registry_uri)

    def _address(self, uri: str) -> str:
        return database.uri_alias(snapshots.address(uri), self._generation)

    @cached_property
    def client(self) -> MlflowClient:
        """The client, for after `prepare` or inside `ask`; it leaves global state alone."""
        own = database.without_progress_logs() if self.is_embedded else nullcontext()
        with translated(f"opening {self._shown}"), own:
            return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.registry_uri)

    def registered_model_of(self, record: SaveRecord) -> str:
        """Return the registered model that a save that is pushed becomes a version of."""
        return self.registered_as.get(record.id) or registered_model(record.name)

    def create(self) -> None:
        """Create the databases that do not exist yet; any number of processes may."""
        self._check_own_file()
        for uri in self._uris:
            path = sqlite_path(uri)
            if path is not None and not path.exists():
                with translated(f"creating {path}"), locked(self._database_lock()):
                    database.create(path, self._layout.artifacts_dir, self._layout.mlflow_dir)

    def prepare(self) -> None:
        """See that the store can be written to, and has the schema of the installed MLflow.

        Raises
        ------
        MirrorUnavailableError
            If it cannot be written to now; if a store that is not the embedded one has another
            schema, or the embedded one a newer schema. The message has the command that helps.

        Notes
        -----
        The embedded database is upgraded after a copy was kept; an empty database on a server
        gets its tables.
        """
        try:
            is_there = self._probed(for_writing=True)
        except OtherSchemaError as cause:
            if not self._is_ours_to_upgrade(cause):
                raise
            with translated(f"upgrading {self._shown}"), locked(self._database_lock()):
                self._upgrade()
            return
        if not is_there:
            with locked(self._database_lock()):
                _ = self.client  # which fills it

    def _is_ours_to_upgrade(self, found: OtherSchemaError) -> bool:
        own = self._layout.database_path.absolute()
        return bool(self.is_embedded and found.data["is_older"] and found.data["path"] == own)

    def _upgrade(self) -> None:
        try:
            self._probed(for_writing=True)  # another process may have upgraded it meanwhile
        except OtherSchemaError:
            database.upgrade(self._layout.database_path.absolute())

    def _database_lock(self) -> FileLock:
        return lock_at(self._layout.mlflow_dir / "database.lock")

    def _probed(self, *, for_writing: bool) -> bool:
        """Return whether there is a store; `probing.is_there` says what it refuses."""
        self._check_own_file()
        doing = f"reaching {self._shown}"
        with translated(doing):
            uris = self._uris if for_writing else map(snapshots.address, self._uris)
            found = [probing.is_there(uri, for_writing=for_writing) for uri in uris]
        return all(found)

    def _check_own_file(self) -> None:
        """See that the embedded database is a file of the folder, and no link out of it."""
        path = self._layout.database_path
        kind = regular.odd_kind(path) if self.is_embedded else None
        if kind is not None:
            raise MirrorUnavailableError(
                f"{path} is {kind}, not a database, and was left as it is. Move it away; a "
                "database elsewhere is used where MLFLOW_TRACKING_URI names it",
                error_code=None,
            )

    def ask(
        self, call: Callable[[], _T], doing: str, missing: _T, *, seconds: float | None = None
    ) -> _T:
        """Return the answer to a question, bounded in time.

        Parameters
        ----------
        call : callable
            Asks MLflow.
        doing : str
            What is asked, for the message of an error.
        missing : object
            The answer where there is no store yet; a reader never creates one.
        seconds : float, optional
            How long to wait for the answer, where that is not as long as for every lookup.

        Raises
        ------
        MirrorUnavailableError
            If MLflow could not be asked, or did not answer in time.
        """
        uris = tuple(self._uris)

        def asked() -> _T:
            if probing.answers_still(uris):
                with self.guarded(doing):
                    return self._believed(call, missing)
            try:
                is_there = self._probed(for_writing=False)
            except OtherSchemaError as cause:
                if not self._is_ours_to_upgrade(cause):
                    raise
                effect = "or save: both keep a copy and do the same"
                fix = Fix("sync", before="or call", effect=effect)
                raise OtherSchemaError(cause.summary, fix=fix, **cause.data) from cause
            with self.guarded(doing):
                return call() if is_there else missing

        with probing.answers_noted(uris):
            return bounded(asked, seconds or LOOKUP_SECONDS, doing)

    def _believed(self, call: Callable[[], _T], missing: _T) -> _T:
        """Return an answer; that there is nothing, which another program may say, after a probe."""
        try:
            answer = call()
        except LottoMlflowError:
            self._probed(for_writing=False)
            raise
        # entities of MLflow 3.17 cannot be compared with None
        if answer is None or (missing is not None and answer == missing):
            self._probed(for_writing=False)
        return answer

    @contextmanager
    def guarded(self, doing: str) -> Iterator[None]:
        """Do as `translated`, and note where a database failed that a probe had found usable."""
        try:
            with translated(doing, partial(probing.other_releases, self._uris)):
                yield
        except MirrorUnavailableError:
            self.is_stale = self.is_stale or probing.is_sql(self.tracking_uri)
            raise

    def experiment_id(self) -> str:
        """Return the id of the experiment, which is created where it is missing.

        Notes
        -----
        A database without a server of its own would put artifacts under the current folder of
        whoever comes first; here they go to ``mlflow/artifacts``.
        """
        if self._experiment_id is None:
            moved_from = self.moved_from()
            if moved_from is not None:
                where, before = "not beside itself: the folder was moved or copied", "call"
                if not moved_from.is_absolute():
                    where = "relative to another folder than this one"
                    before = "work from there, or call"
                raise MirrorUnavailableError(
                    f"{self._shown} keeps artifacts in {moved_from}, {where}",
                    fix=Fix("relocate", before=before),
                    error_code=None,
                )
            self._experiment_id = self._find_experiment() or self._create_experiment()
        return self._experiment_id

    def refresh_experiment(self) -> None:
        """Ask for the experiment anew, because MLflow refused it; raises if it was deleted."""
        self._experiment_id = None
        self.experiment_id()

    def known_experiment_id(self) -> str | None:
        """Return the id of the experiment, ``None`` where there is none."""
        found = self.client.get_experiment_by_name(EXPERIMENT)
        return None if found is None else str(found.experiment_id)

    def moved_from(self) -> Path | None:
        """Return where the embedded store says its artifacts are, if that is elsewhere.

        Notes
        -----
        The artifacts of a store that was made from another folder lie there, under another name.
        """
        found = self.client.get_experiment_by_name(EXPERIMENT) if self.is_embedded else None
        recorded = None if found is None else local_path(str(found.artifact_location))
        if recorded is None or recorded.name != EXPERIMENT:
            return None
        here = self._layout.artifacts_dir / EXPERIMENT
        return recorded if regular.real_path(recorded) != regular.real_path(here) else None

    def repository(self, location: str) -> ArtifactRepository:
        """Return MLflow's access to the artifacts in a place that `places` believed.

        Notes
        -----
        By the id of a run or logged model, MLflow's client would ask for the place once more, and
        open whatever is answered then; it has no public call for a place that is known.
        """
        return get_artifact_repository(
            location, tracking_uri=self.tracking_uri, registry_uri=self.registry_uri
        )

    def put_aside(self, folder: Path, name: str) -> None:
        """Move a folder of artifacts to where nothing looks for it."""
        regular.check_folder(self._layout.aside_dir)
        os.replace(folder, self._layout.aside_dir / f"{name}-{time.time_ns()}")

    def _artifacts_name(self) -> str:
        """Return the artifact folder of the current store, which no other store shares."""
        if self.places.is_beside_database:
            return EXPERIMENT
        digest = hashlib.sha256(self._target.name.encode("utf-8")).hexdigest()
        return f"{EXPERIMENT}-{digest[:8]}"

    def _find_experiment(self) -> str | None:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is not None and not found.experiment_id:
            raise MirrorUnavailableError(
                f"{self._shown} answers, but not as MLflow does; check the address",
                error_code=None,
            )
        if found is not None and found.lifecycle_stage == LifecycleStage.DELETED:
            raise MirrorUnavailableError(
                f"the experiment {EXPERIMENT} was deleted in {self._shown}; bring it back, after "
                f'eval "$(lotto-mlflow env)", with: mlflow experiments restore -x '
                f"{found.experiment_id}",
                error_code=None,
            )
        if found is None:
            return None
        self.places.readable(str(found.artifact_location))
        return str(found.experiment_id)

    def _create_experiment(self) -> str:
        location = None
        if probing.is_sql(self.tracking_uri):
            location = (self.places.own_dir.absolute() / self._artifacts_name()).as_uri()
        try:
            return str(self.client.create_experiment(EXPERIMENT, artifact_location=location))
        except MlflowException as cause:
            found = self._find_experiment()
            if cause.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
            return found
