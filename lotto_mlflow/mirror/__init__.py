"""The MLflow view: push a save record, look one up."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import mlflow.artifacts
from mlflow.exceptions import MlflowException

from lotto_mlflow import layout as names
from lotto_mlflow.errors import DigestMismatchError, ForeignModelError, ModelNotFoundError
from lotto_mlflow.layout import Layout
from lotto_mlflow.mirror import lookup, model_folder
from lotto_mlflow.mirror import push as pushing
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.mirror.places import local_path
from lotto_mlflow.mirror.translate import bounded, translated
from lotto_mlflow.pyfunc_loader import sha256_of
from lotto_mlflow.records import ModelRecord, Place, SaveRecord
from lotto_mlflow.references import VersionReference
from lotto_mlflow.settings import Settings

__all__ = ["Mirror"]

LOOKUP_SECONDS = 5.0
_T = TypeVar("_T")
_MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})


class Mirror:
    """One folder's saves in one tracking store and registry.

    Parameters
    ----------
    layout : Layout
        The folder.
    settings : Settings
        The URIs in force.
    generation : int
        As in `lotto_mlflow.mirror.connection.Connection`.

    Notes
    -----
    Every lookup is bounded in time, and raises `MirrorUnavailableError` where MLflow could not be
    asked; none creates anything.
    """

    def __init__(self, layout: Layout, settings: Settings, generation: int = 0) -> None:
        self._layout = layout
        self._connection = Connection(layout, settings, generation)

    def create(self) -> None:
        """Create the SQLite databases that do not exist yet."""
        self._connection.create()

    def upgrade(self) -> None:
        """Bring the embedded database to the schema of the installed MLflow."""
        self._connection.upgrade()

    def push(
        self,
        record: SaveRecord,
        pkl_path: Path,
        *,
        artifacts_dir: Path | None,
        begun: bool,
        work_dir: Path,
    ) -> Place:
        """Mirror one save; `lotto_mlflow.mirror.push.push` tells how."""
        with translated(f"mirroring {record.name}"):
            return pushing.push(
                self._connection,
                record,
                pkl_path,
                artifacts_dir=artifacts_dir,
                begun=begun,
                work_dir=work_dir,
            )

    def probe(self) -> None:
        """Raise `MirrorUnavailableError` at once where the store cannot be written to."""
        self._connection.probe(for_writing=True)

    def latest(self, registered_model: str = names.REGISTERED_MODEL) -> ModelRecord | None:
        """Return the newest save that the registry has, ``None`` where it has none."""

        def ask() -> ModelRecord | None:
            version = lookup.newest_version(self._connection.client, registered_model)
            return None if version is None else self._full(version.name, version.version)

        return (
            self._ask(ask, f"looking up the latest {registered_model}") if self._exists() else None
        )

    def get(self, reference: VersionReference) -> ModelRecord:
        """Return the version that a reference names.

        Raises
        ------
        ModelNotFoundError
            If there is no such version.
        ForeignModelError
            If it was not made by this package.
        """
        if reference.version is None and reference.alias is None:
            record = self.latest(reference.registered_model)
        elif self._exists():
            record = self._ask(lambda: self._get(reference), f"looking up {reference}")
        else:
            record = None
        if record is None:
            raise ModelNotFoundError(
                f"{reference} is not in the registry; look at what is there with "
                "ModelManager.records() or in the MLflow UI",
                reference=str(reference),
            )
        return record

    def records(self, name: str | None = None, limit: int | None = None) -> list[ModelRecord]:
        """Return the newest version of each model name, newest save first.

        Parameters
        ----------
        name : str, optional
            Only the model of this name.
        limit : int, optional
            At most so many.
        """

        def ask() -> list[ModelRecord]:
            registered = None if name is None else names.registered_model(name)
            condition = "" if name is None else f'tags.{lookup.MODEL_NAME_TAG} = "{name}"'
            found = lookup.versions(self._connection.client, registered, condition)
            newest_first = sorted(found, key=lookup.save_id_of, reverse=True)
            by_name = {v.tags[lookup.MODEL_NAME_TAG]: v for v in reversed(newest_first)}
            latest = sorted(by_name.values(), key=lookup.save_id_of, reverse=True)
            return [lookup.as_record(v) for v in itertools.islice(latest, limit)]

        return self._ask(ask, "listing the registry") if self._exists() else []

    def aliases(self, registered_model: str) -> dict[int, tuple[str, ...]]:
        """Return the aliases of each version of a registered model that has any."""

        def ask() -> dict[int, tuple[str, ...]]:
            try:
                found = self._connection.client.get_registered_model(registered_model).aliases
            except MlflowException as cause:
                if cause.error_code in _MISSING:
                    return {}
                raise
            by_version: dict[int, tuple[str, ...]] = {}
            for alias, version in sorted(found.items()):
                by_version[int(version)] = (*by_version.get(int(version), ()), alias)
            return by_version

        doing = f"asking for the aliases of {registered_model}"
        return self._ask(ask, doing) if self._exists() else {}

    def file_of(self, record: ModelRecord, work_dir: Path) -> Path:
        """Return a file with the bytes of a version: the local artifact, or a verified download.

        Raises
        ------
        DigestMismatchError
            If the artifact was changed after it was mirrored.
        """
        doing = f"fetching version {record.version} of {record.registered_model}"
        client, version = self._connection.client, str(record.version)
        uri = self._ask(
            lambda: client.get_model_version_download_uri(record.registered_model, version), doing
        )
        folder = local_path(uri)
        if folder is not None:
            return _verified(folder / model_folder.DATA_FILE, record)
        with translated(doing):
            return self._downloaded(uri, record, work_dir)

    def _downloaded(self, uri: str, record: ModelRecord, work_dir: Path) -> Path:
        target = self._layout.downloads_dir / str(record.sha256) / f"{record.name}.pkl"
        if target.exists():
            return _verified(target, record)
        found = mlflow.artifacts.download_artifacts(
            artifact_uri=f"{uri.rstrip('/')}/{model_folder.DATA_FILE}",
            dst_path=str(work_dir / "download"),
            tracking_uri=self._connection.tracking_uri,
            registry_uri=self._connection.registry_uri,
        )
        path = _verified(Path(found), record)
        if record.saved_at_ns is not None:
            os.utime(path, ns=(record.saved_at_ns, record.saved_at_ns))
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
        return target

    def _get(self, reference: VersionReference) -> ModelRecord | None:
        client, name = self._connection.client, reference.registered_model
        try:
            if reference.alias is None:
                version = client.get_model_version(name, str(reference.version))
            else:
                version = client.get_model_version_by_alias(name, reference.alias)
        except MlflowException as cause:
            if cause.error_code in _MISSING:
                return None
            raise
        if not lookup.is_ours(version):
            raise ForeignModelError(
                f"{reference} was not made by lotto_mlflow, so its digest is not known; open it "
                f"with mlflow.pyfunc.load_model({str(reference)!r})",
                reference=str(reference),
            )
        return lookup.as_record(version)

    def _full(self, registered_model: str, version: str | int) -> ModelRecord:
        """Return a version with its aliases, which a search leaves out."""
        found = self._connection.client.get_model_version(registered_model, str(version))
        return lookup.as_record(found)

    def _exists(self) -> bool:
        return self._connection.exists()

    def _ask(self, call: Callable[[], _T], doing: str) -> _T:
        def asked() -> _T:
            self._connection.probe(for_writing=False)
            with translated(doing):
                return call()

        return bounded(asked, LOOKUP_SECONDS, doing)


def _verified(path: Path, record: ModelRecord) -> Path:
    try:
        with path.open("rb") as file:
            found = sha256_of(file)
    except FileNotFoundError as cause:
        raise ModelNotFoundError(
            f"{path} is missing, though version {record.version} of {record.registered_model} "
            "says that it lies there; if the folder was moved, its database still has the old path",
            path=path,
        ) from cause
    if found != record.sha256:
        raise DigestMismatchError(
            f"{path} was changed after it was saved: expected SHA-256 {record.sha256}, found "
            f"{found}; nothing was unpickled. Save the model again, or copy the intact file back",
            path=path,
            expected=record.sha256,
            found=found,
        )
    return path
