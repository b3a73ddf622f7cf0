"""Reaching the tracking store and the registry in force, without touching global state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import mlflow
import requests
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException

from lotto_mlflow.errors import MirrorUnavailableError, OtherSchemaError
from lotto_mlflow.files import held, lock_at
from lotto_mlflow.layout import REGISTERED_MODEL, Layout
from lotto_mlflow.mirror import database
from lotto_mlflow.mirror.translate import bounded, translated
from lotto_mlflow.settings import EMBEDDED, Settings, masked, target_of

EXPERIMENT = REGISTERED_MODEL
_PROBE_SECONDS = 2.0
_LOOKUP_SECONDS = 5.0
_T = TypeVar("_T")
_DIRECT_SCHEMES = ("sqlite:", "postgresql", "mysql", "mssql")
_OTHER_SCHEMA = "out-of-date database schema"


class Connection:
    """A client of one tracking store and registry.

    Parameters
    ----------
    layout : Layout
        The folder whose saves are mirrored.
    settings : Settings
        The URIs in force.
    generation : int
        A number that no other living connection of this process to the same store has, if that
        one's client must not be shared: MLflow keeps one database engine for each spelling of a
        URI, with connections that neither a fork nor a replaced file leaves usable.
    """

    def __init__(self, layout: Layout, settings: Settings, generation: int = 0) -> None:
        self._layout = layout
        self._target = target_of(settings, layout.database_path)
        self.is_embedded = self._target == EMBEDDED
        own = database.uri_of(layout.database_path.absolute())
        tracking_uri = own if self.is_embedded else str(settings.tracking_uri)
        registry_uri = settings.registry_uri or tracking_uri
        self.tracking_uri = database.respelled(tracking_uri, generation)
        self.registry_uri = database.respelled(registry_uri, generation)
        self.has_own_registry = registry_uri != tracking_uri
        self._experiment_id: str | None = None

    @cached_property
    def client(self) -> MlflowClient:
        """The client; it leaves MLflow's global state alone."""
        with translated(f"opening {masked(self.tracking_uri)}"):
            try:
                return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.registry_uri)
            except MlflowException as cause:
                if _OTHER_SCHEMA not in str(cause):
                    raise
                raise OtherSchemaError(self._advice(), error_code=None) from cause

    def _advice(self) -> str:
        uri = masked(self.tracking_uri)
        told = f"the database schema of {uri} is not that of the installed MLflow"
        if self.is_embedded:
            return f"{told} {mlflow.__version__}; the next save, or sync(), upgrades it"
        return f"{told} {mlflow.__version__}: run mlflow db upgrade {uri}"

    def exists(self) -> bool:
        """Tell whether there is anything to ask; a reader never creates a database."""
        paths = map(database.path_of, (self.tracking_uri, self.registry_uri))
        return all(path is None or path.exists() for path in paths)

    def create(self) -> None:
        """Create the SQLite databases that do not exist yet; any number of processes may."""
        for uri in dict.fromkeys((self.tracking_uri, self.registry_uri)):
            path = database.path_of(uri)
            if path is not None and not path.exists():
                with translated(f"creating {path}"), held(self._database_lock()):
                    database.create(path, self._layout.artifacts_dir, self._layout.mlflow_dir)

    def upgrade(self) -> None:
        """Bring the embedded database to the schema of the installed MLflow, keeping a copy.

        Raises
        ------
        MirrorUnavailableError
            If another store has another schema, or the embedded one a newer one; the message has
            the command that helps.
        """
        try:
            _ = self.client
        except OtherSchemaError:
            if not self.is_embedded:
                raise
            with translated(f"upgrading {self.tracking_uri}"), held(self._database_lock()):
                try:
                    _ = self.client  # another process may have upgraded it meanwhile
                except OtherSchemaError:
                    database.upgrade(self._layout.database_path.absolute())

    def _database_lock(self) -> FileLock:
        return lock_at(self._layout.mlflow_dir / "database.lock")

    def probe(self, *, for_writing: bool) -> None:
        """Refuse a store that does not answer at once; MLflow itself would retry for minutes.

        Raises
        ------
        MirrorUnavailableError
            If a server gives no HTTP answer within two seconds, or one that says it is broken;
            if an SQLite file is no database, or is locked.
        """
        for uri in dict.fromkeys((self.tracking_uri, self.registry_uri)):
            path = database.path_of(uri)
            if uri.startswith(("http://", "https://")):
                _probe_server(uri)
            elif path is not None:
                database.probe(path, for_writing=for_writing)

    def ask(self, call: Callable[[], _T], doing: str) -> _T:
        """Return the answer to a question, bounded in time.

        Raises
        ------
        MirrorUnavailableError
            If MLflow could not be asked, or did not answer in time.
        """

        def asked() -> _T:
            self.probe(for_writing=False)
            with translated(doing):
                return call()

        return bounded(asked, _LOOKUP_SECONDS, doing)

    def experiment_id(self) -> str:
        """Return the id of the experiment, which is created where it is missing.

        Notes
        -----
        A database without a server of its own would put artifacts under the current folder of
        whoever comes first; here they go to ``mlflow/artifacts``.
        """
        if self._experiment_id is None:
            self._experiment_id = self._find_experiment() or self._create_experiment()
        return self._experiment_id

    def known_experiment_id(self) -> str | None:
        """Return the id of the experiment, ``None`` where there is none."""
        found = self.client.get_experiment_by_name(EXPERIMENT)
        return None if found is None else str(found.experiment_id)

    def artifact_location(self) -> str | None:
        """Return where the experiment of the embedded store says its artifacts are."""
        found = self.client.get_experiment_by_name(EXPERIMENT) if self.is_embedded else None
        return None if found is None else str(found.artifact_location)

    def _artifacts_name(self) -> str:
        """Return the artifact folder of the store in force, which no other store shares."""
        if self.is_embedded:
            return EXPERIMENT
        digest = hashlib.sha256(self._target.encode("utf-8")).hexdigest()
        return f"{EXPERIMENT}-{digest[:8]}"

    def _find_experiment(self) -> str | None:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is not None and found.lifecycle_stage == LifecycleStage.DELETED:
            raise MirrorUnavailableError(
                f"the experiment {EXPERIMENT} was deleted in {masked(self.tracking_uri)}; bring it "
                f"back with: mlflow experiments restore -x {found.experiment_id}",
                error_code=None,
            )
        return None if found is None else str(found.experiment_id)

    def _create_experiment(self) -> str:
        location = None
        if self.tracking_uri.startswith(_DIRECT_SCHEMES):
            location = (self._layout.artifacts_dir.absolute() / self._artifacts_name()).as_uri()
        try:
            return str(self.client.create_experiment(EXPERIMENT, artifact_location=location))
        except MlflowException as cause:
            found = self._find_experiment()
            if cause.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
            return found


def _probe_server(uri: str) -> None:
    try:
        answer = requests.get(f"{uri}/health", timeout=_PROBE_SECONDS, stream=True)
        answer.close()
    except requests.exceptions.SSLError:
        return  # it answered: MLflow has settings of its own for certificates
    except requests.RequestException as cause:
        raise MirrorUnavailableError(
            f"{masked(uri)} does not answer: {type(cause).__name__}", error_code=None
        ) from cause
    if answer.status_code >= 500:
        raise MirrorUnavailableError(
            f"{masked(uri)} answers with HTTP {answer.status_code}", error_code=None
        )
