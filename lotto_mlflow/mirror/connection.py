"""Reaching the tracking store and the registry in force, without touching global state."""

from __future__ import annotations

import os
import uuid
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import requests
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url

from lotto_mlflow.errors import MirrorUnavailableError
from lotto_mlflow.files import held, lock_at
from lotto_mlflow.layout import REGISTERED_MODEL, Layout
from lotto_mlflow.mirror.translate import translated
from lotto_mlflow.settings import Settings, masked

EXPERIMENT = REGISTERED_MODEL
_PROBE_SECONDS = 2.0
_SQLITE = "sqlite:///"
_DIRECT_SCHEMES = ("sqlite:", "postgresql", "mysql", "mssql")


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
        embedded = sqlite_uri(layout.database_path.absolute())
        tracking_uri = settings.tracking_uri or embedded
        registry_uri = settings.registry_uri or tracking_uri
        self.tracking_uri = _respelled(tracking_uri, generation)
        self.registry_uri = _respelled(registry_uri, generation)
        self.has_own_registry = registry_uri != tracking_uri
        self._experiment_id: str | None = None

    @cached_property
    def client(self) -> MlflowClient:
        """The client; it leaves MLflow's global state alone."""
        with translated(f"opening {masked(self.tracking_uri)}"):
            return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.registry_uri)

    def exists(self) -> bool:
        """Tell whether there is anything to ask; a reader never creates a database."""
        paths = (database_path(self.tracking_uri), database_path(self.registry_uri))
        return all(path is None or path.exists() for path in paths)

    def create(self) -> None:
        """Create the SQLite databases that do not exist yet.

        Notes
        -----
        MLflow's own creation breaks when several processes open one new file. Hence each is
        created under another name and published complete, by a link that fails where another
        process was faster.
        """
        for uri in dict.fromkeys((self.tracking_uri, self.registry_uri)):
            path = database_path(uri)
            if path is None or path.exists():
                continue
            with (
                translated(f"creating {path}"),
                held(lock_at(self._layout.mlflow_dir / "database.lock")),
            ):
                if not path.exists():
                    self._publish_database(path)

    def _publish_database(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left_over in self._layout.mlflow_dir.glob(f".{path.name}.*.new*"):
            left_over.unlink()  # of a process that died here: this one holds the lock
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
        temporary.touch(exist_ok=False)  # fails at once where MLflow would retry for minutes
        try:
            _create_database(temporary, self._layout.artifacts_dir)
            try:
                os.link(temporary, path)
            except FileExistsError:
                pass  # another folder's process, which has another lock, was faster
            except OSError:  # no hard links on this file system
                temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)

    def probe(self) -> None:
        """Refuse a server that does not answer at once; MLflow itself would retry for minutes.

        Raises
        ------
        MirrorUnavailableError
            If there is no HTTP answer, whatever it says, within two seconds.
        """
        for uri in dict.fromkeys((self.tracking_uri, self.registry_uri)):
            if not uri.startswith(("http://", "https://")):
                continue
            try:
                requests.get(f"{uri}/health", timeout=_PROBE_SECONDS, stream=True).close()
            except requests.exceptions.SSLError:
                continue  # it answered: MLflow has settings of its own for certificates
            except requests.RequestException as cause:
                raise MirrorUnavailableError(
                    f"{masked(uri)} does not answer: {type(cause).__name__}", error_code=None
                ) from cause

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
            location = (self._layout.artifacts_dir.absolute() / EXPERIMENT).as_uri()
        try:
            return str(self.client.create_experiment(EXPERIMENT, artifact_location=location))
        except MlflowException as cause:
            found = self._find_experiment()
            if cause.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
            return found


def sqlite_uri(path: Path) -> str:
    """Return the URI by which SQLAlchemy opens a database file.

    Notes
    -----
    SQLAlchemy 2.1 reads ``%20`` in the path as a space, 2.0 does not.
    """
    plain = f"{_SQLITE}{path}"
    return plain if make_url(plain).database == str(path) else f"{_SQLITE}{quote(str(path))}"


def database_path(uri: str) -> Path | None:
    """Return the database file of an SQLite URI, ``None`` for a store of another kind."""
    if not uri.startswith("sqlite:"):
        return None
    found = make_url(uri).database
    return None if found in (None, "", ":memory:") else Path(str(found))


def _respelled(uri: str, generation: int) -> str:
    """Return another URI of the same SQLite database: MLflow shares nothing between the two."""
    if generation == 0 or database_path(uri) is None:
        return uri
    return f"{_SQLITE}{'/.' * generation}{uri.removeprefix(_SQLITE)}"


def _create_database(path: Path, artifacts_dir: Path) -> None:
    """Create a migrated database whose default experiment does not point to the current folder.

    Notes
    -----
    ``MlflowClient`` takes no artifact root, and ``mlflow server`` would have to be started for
    it; so this opens MLflow's own store class once, and closes it again.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(sqlite_uri(path), artifacts_dir.absolute().as_uri())
    store.engine.dispose()
