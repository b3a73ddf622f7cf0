"""Reaching the tracking store and the registry in force, without touching global state."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from functools import cached_property
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from lotto_mlflow.errors import MirrorUnavailableError
from lotto_mlflow.files import held, lock_at
from lotto_mlflow.layout import REGISTERED_MODEL, Layout
from lotto_mlflow.mirror.translate import translated
from lotto_mlflow.settings import Settings, masked, sqlite_path

EXPERIMENT = REGISTERED_MODEL
_PROBE_SECONDS = 2.0
_DIRECT_SCHEMES = ("sqlite:", "postgresql", "mysql", "mssql")


class Connection:
    """A client of one tracking store and registry.

    Parameters
    ----------
    layout : Layout
        The folder whose saves are mirrored.
    settings : Settings
        The URIs in force.
    """

    def __init__(self, layout: Layout, settings: Settings) -> None:
        self._layout = layout
        embedded = f"sqlite:///{layout.database_path.absolute()}"
        self.tracking_uri = settings.tracking_uri or embedded
        self.registry_uri = settings.registry_uri or self.tracking_uri
        self._experiment_id: str | None = None

    @cached_property
    def client(self) -> MlflowClient:
        """The client; it leaves MLflow's global state alone."""
        with translated(f"opening {masked(self.tracking_uri)}"):
            return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.registry_uri)

    def exists(self) -> bool:
        """Tell whether there is anything to ask; a reader never creates a database."""
        paths = (sqlite_path(self.tracking_uri), sqlite_path(self.registry_uri))
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
            path = sqlite_path(uri)
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
        temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
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
                urllib.request.urlopen(f"{uri}/health", timeout=_PROBE_SECONDS).close()  # noqa: S310
            except urllib.error.HTTPError:
                continue  # it answered: what it thinks of /health is not the question
            except OSError as cause:
                raise MirrorUnavailableError(
                    f"{masked(uri)} does not answer: {cause}", error_code=None
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


def _create_database(path: Path, artifacts_dir: Path) -> None:
    """Create a migrated database whose default experiment does not point to the current folder.

    Notes
    -----
    ``MlflowClient`` takes no artifact root, and ``mlflow server`` would have to be started for
    it; so this opens MLflow's own store class once, and closes it again.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(f"sqlite:///{path}", artifacts_dir.absolute().as_uri())
    store.engine.dispose()
