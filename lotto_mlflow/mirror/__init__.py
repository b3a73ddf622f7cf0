"""The MLflow view: push a save record, look one up, compare what is there with the folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from lotto_mlflow import layout as names
from lotto_mlflow.errors import Fix, ForeignModelError, ModelNotFoundError
from lotto_mlflow.layout import Layout
from lotto_mlflow.mirror import fetch, model_folder, registry
from lotto_mlflow.mirror import push as pushing
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.records import Aliases, MlflowIds, ModelRecord, SaveRecord, aliases_by_version
from lotto_mlflow.references import VersionReference
from lotto_mlflow.settings import Target

__all__ = ["Mirror"]

_MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})


class Mirror:
    """One folder's saves in one tracking store and registry.

    Parameters
    ----------
    layout : Layout
        The folder.
    target : Target
        The tracking store and registry.
    generation : int
        As in `lotto_mlflow.mirror.connection.Connection`.

    Notes
    -----
    Every lookup is bounded in time, and raises `MirrorUnavailableError` where MLflow could not be
    asked; none creates anything.
    """

    def __init__(self, layout: Layout, target: Target, generation: int = 0) -> None:
        self._layout = layout
        self._connection = Connection(layout, target, generation)

    @property
    def is_stale(self) -> bool:
        """Whether a database failed under this mirror, and another is to be opened."""
        return self._connection.is_stale

    def create(self) -> None:
        """Create the SQLite databases that do not exist yet."""
        self._connection.create()

    def prepare(self) -> None:
        """See that the store can be written to, and has the schema of the installed MLflow.

        Raises
        ------
        MirrorUnavailableError
            At once, where one or the other is not to be had.
        """
        self._connection.prepare()

    def push(
        self,
        record: SaveRecord,
        pkl_path: Path,
        *,
        artifacts_dir: Path | None,
        begun: bool,
        work_dir: Path,
    ) -> MlflowIds:
        """Mirror one save; see `lotto_mlflow.mirror.push.push`."""
        with self._connection.guarded(f"mirroring {record.name}"):
            return pushing.push(
                self._connection,
                record,
                pkl_path,
                artifacts_dir=artifacts_dir,
                begun=begun,
                work_dir=work_dir,
            )

    def latest(self, registered_model: str = names.REGISTERED_MODEL) -> ModelRecord | None:
        """Return the newest save that the registry has, ``None`` where it has none."""

        def ask() -> ModelRecord | None:
            version = registry.newest_version(self._connection.client, registered_model)
            return None if version is None else self._full(version.name, version.version)

        return self._connection.ask(ask, f"looking up the latest {registered_model}", None)

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
        else:
            doing = f"looking up {reference}"
            record = self._connection.ask(lambda: self._get(reference), doing, None)
        if record is None:
            raise ModelNotFoundError(
                f"{reference} is not in the registry",
                fix=Fix("records", before="see", effect="or the MLflow UI for those there are"),
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
            condition = "" if name is None else f'tags.{registry.MODEL_NAME_TAG} = "{name}"'
            found = registry.versions(self._connection.client, registered, condition)
            newest_first = sorted(found, key=registry.save_id_of, reverse=True)
            by_name = {v.tags[registry.MODEL_NAME_TAG]: v for v in reversed(newest_first)}
            latest = sorted(by_name.values(), key=registry.save_id_of, reverse=True)
            return [registry.as_record(v) for v in itertools.islice(latest, limit)]

        return self._connection.ask(ask, "listing the registry", [])

    def file_of(self, record: ModelRecord, work_dir: Path) -> Path:
        """Return a verified file with the bytes of a version; see `lotto_mlflow.mirror.fetch`."""
        return fetch.file_of(self._connection, self._layout, record, work_dir)

    def metadata_of(self, record: ModelRecord, work_dir: Path) -> bytes | None:
        """Return the metadata JSON among the artifacts of a version's run, if there is one."""
        return fetch.metadata_of(self._connection, record, work_dir)

    def artifacts_of_run(self, run_id: str, target_dir: Path) -> Path | None:
        """Copy the artifacts of a run; ``None`` where it has none any more."""
        return fetch.artifacts_of_run(self._connection, self._layout, run_id, target_dir)

    def has_backfills(self) -> bool:
        """Return whether the registry has a version of a file that no save knew."""

        def ask() -> bool:
            condition = f"tags.{registry.BACKFILLED_TAG} = 'true'"
            return any(True for _ in registry.versions(self._connection.client, None, condition, 1))

        return self._connection.ask(ask, "looking for files brought in before", False)

    def aliases(self, registered_model: str) -> Aliases:
        """Return the aliases of each version of a registered model that has any."""

        def ask() -> Aliases:
            try:
                found = self._connection.client.get_registered_model(registered_model).aliases
            except MlflowException as cause:
                if cause.error_code in _MISSING:
                    return {}
                raise
            return aliases_by_version(sorted(found.items()))

        doing = f"asking for the aliases of {registered_model}"
        return self._connection.ask(ask, doing, {})

    def params_and_metrics_of_run(
        self, record: ModelRecord
    ) -> tuple[dict[str, str], dict[str, float]]:
        """Return the parameters and the last values of metrics of a version's run."""

        def ask() -> tuple[dict[str, str], dict[str, float]]:
            try:
                data = self._connection.client.get_run(str(record.run_id)).data
            except MlflowException as cause:
                if cause.error_code in _MISSING:
                    return {}, {}
                raise
            return dict(data.params), dict(data.metrics)

        nothing: tuple[dict[str, str], dict[str, float]] = ({}, {})
        return self._connection.ask(ask, f"looking up the run of {record.name}", nothing)

    def saves_in(self, registered_model: str) -> dict[int, str]:
        """Return the id of the save that each version of a registered model mirrors."""

        def ask() -> dict[int, str]:
            found = registry.versions(self._connection.client, registered_model)
            return {int(version.version): registry.save_id_of(version) for version in found}

        return self._connection.ask(ask, f"listing the versions of {registered_model}", {})

    def has_bytes(self, model_id: str) -> bool:
        """Return whether the file of a logged model is there; true for stores elsewhere."""
        models_dir = self._layout.artifacts_dir / names.REGISTERED_MODEL / "models"
        path = models_dir / model_id / "artifacts" / model_folder.DATA_FILE
        return path.exists() or not self._connection.is_embedded

    def orphan_folders(self, known_ids: set[str]) -> list[Path]:
        """Return the folders in the embedded store's artifacts that nothing in MLflow owns.

        Parameters
        ----------
        known_ids : set of str
            Runs and logged models that records name; MLflow is asked only where there are
            folders of others.

        Notes
        -----
        That is the folder of a logged model that is not there, or of a run that is not there or
        is the deleted rest of a push that failed. A run that a person deleted can be brought back.
        """
        folder = self._layout.artifacts_dir / names.REGISTERED_MODEL
        if not self._connection.is_embedded or not folder.is_dir():
            return []
        models_dir = folder / "models"
        found = [path for path in folder.iterdir() if path != models_dir]
        found += models_dir.iterdir() if models_dir.is_dir() else []
        found = [path for path in found if path.name not in known_ids]
        if not found:
            return []
        everything = {path.name for path in found}
        owned = self._connection.ask(self._owned_names, "listing runs and models", everything)
        return sorted(path for path in found if path.name not in owned)

    def top_is_late(self, registered_model: str) -> bool:
        """Return whether the highest version is one of an older save."""

        def ask() -> bool:
            found = registry.versions(self._connection.client, registered_model, first_page=1)
            top = next(found, None)
            return top is not None and registry.LATE_TAG in top.tags

        return self._connection.ask(ask, f"looking up the top of {registered_model}", False)

    def moved_from(self) -> Path | None:
        """Return where the embedded store says its artifacts are, if that is elsewhere."""
        moved_from = self._connection.moved_from
        return self._connection.ask(moved_from, "asking where artifacts are", None)

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
        if not registry.is_ours(version):
            raise ForeignModelError(
                f"{reference} was not made by lotto_mlflow, so its digest is not known; open it "
                f"with mlflow.pyfunc.load_model({str(reference)!r})",
                reference=str(reference),
            )
        return registry.as_record(version)

    def _full(self, registered_model: str, version: str | int) -> ModelRecord:
        """Return a version with its aliases, which a search leaves out."""
        found = self._connection.client.get_model_version(registered_model, str(version))
        return registry.as_record(found)

    def _owned_names(self) -> set[str]:
        """Return the ids of the logged models and runs that may still be used."""
        client, experiment_id = self._connection.client, self._connection.known_experiment_id()
        if experiment_id is None:
            return set()
        models = _pages(
            lambda token: client.search_logged_models([experiment_id], page_token=token)
        )
        runs = _pages(
            lambda token: client.search_runs(
                [experiment_id], run_view_type=ViewType.ALL, page_token=token
            )
        )
        return {model.model_id for model in models} | {
            run.info.run_id for run in runs if not pushing.is_rest_of_failed_push(run)
        }


def _pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    """Yield what a search of MLflow's finds, page by page."""
    token = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return
