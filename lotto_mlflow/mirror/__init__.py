"""The MLflow view: push a save record, look one up, compare what is there with the folder."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lotto_mlflow import layout as names
from lotto_mlflow import model_dir, regular
from lotto_mlflow.errors import (
    Fix,
    ForeignModelError,
    LottoMlflowError,
    MirrorError,
    ModelNotFoundError,
)
from lotto_mlflow.layout import Layout
from lotto_mlflow.mirror import fetch, leftovers, model_folder, registry, removal, scores
from lotto_mlflow.mirror import push as pushing
from lotto_mlflow.mirror.alias_home import ALIASES_DIR, Ledger, names_of_homes
from lotto_mlflow.mirror.aliases import AliasBook
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.mirror.scores import Point
from lotto_mlflow.mirror.snapshots import is_read_as_copy
from lotto_mlflow.mirror.survey import Standing, Survey
from lotto_mlflow.mirror.version_tags import own_facts
from lotto_mlflow.model_dir import DATA_FILE
from lotto_mlflow.records import (
    Aliases,
    MlflowIds,
    ModelRecord,
    Note,
    SaveRecord,
    aliases_by_version,
)
from lotto_mlflow.references import VersionReference
from lotto_mlflow.settings import Target

__all__ = ["AliasBook", "Ledger", "Mirror", "Point", "Standing", "Survey", "is_read_as_copy"]


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
    def target_name(self) -> str:
        """Name of the tracking store, as records hold it."""
        return self._connection.target_name

    @property
    def is_stale(self) -> bool:
        """Whether a database failed under this mirror, and another is to be opened."""
        return self._connection.is_stale

    @property
    def keeps_files_elsewhere(self) -> bool:
        """Whether another machine, or another store, keeps the files of the models."""
        return self._connection.places.is_served

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

    def open(self, work_dir: Path) -> None:
        """Open the store and the registry, and do what MLflow does once a process.

        Parameters
        ----------
        work_dir : pathlib.Path
            The workspace for temporary files.

        Raises
        ------
        MirrorUnavailableError
            If one of the two is not to be had.

        Notes
        -----
        This is work, as importing MLflow is, and not bounded as a lookup is: whoever waits for it
        has a bound.
        """
        self._connection.prepare()
        with self._connection.guarded("opening the tracking store"):
            registry.newest_version(self._connection.client, names.REGISTERED_MODEL)
            self._connection.known_experiment_id()
            model_folder.warm_up(work_dir)

    def push(
        self,
        record: SaveRecord,
        pkl_path: Path,
        *,
        artifacts_dir: Path | None,
        begun: bool,
        note: Note,
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
                note=note,
                work_dir=work_dir,
            )

    def remove(self, save: SaveRecord, *, is_forced: bool) -> list[str]:
        """Remove a save; see `lotto_mlflow.mirror.removal`."""
        with self._connection.guarded(f"removing {save.name}"):
            return removal.remove(self._connection, self._layout, save, is_forced=is_forced)

    def size_of(self, ids: MlflowIds, record: SaveRecord) -> int:
        """Return the bytes that a save takes here; for stores elsewhere, those of its model."""
        found = removal.size_of(self._layout, ids) if self._connection.is_embedded else None
        return record.payload.size if found is None else found

    def log_scores(self, ids: MlflowIds, points: Iterable[Point]) -> bool:
        """Log how good predictions were, of a save that is called so; see `mirror.scores`."""
        with self._connection.guarded(f"logging the accuracy of version {ids.version}"):
            return scores.log(self._connection, ids, points)

    def latest(
        self, registered_model: str = names.REGISTERED_MODEL, own: SaveRecord | None = None
    ) -> ModelRecord | None:
        """Return the newest save that the registry has, ``None`` where it has none.

        The record of the newest save that this folder has pushed, `own`, goes before its tags:
        where only they hide that it is the newest, there is no answer.
        """

        def ask() -> ModelRecord | None:
            origin = self._connection.origin
            known = None if own is None else own_facts(own, self.target_name, origin)
            version = registry.newest_version(self._connection.client, registered_model, own=known)
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
            record = self.find(reference)
        if record is None:
            raise ModelNotFoundError(
                f"{reference} is not in the registry",
                fix=Fix("records", before="see", effect="or the MLflow UI for those there are"),
                reference=str(reference),
            )
        return record

    def find(self, reference: VersionReference) -> ModelRecord | None:
        """Return the version that a number or an alias names, ``None`` where there is none."""
        return self._connection.ask(lambda: self._get(reference), f"looking up {reference}", None)

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
            condition = "" if name is None else f'tags.{registry.MODEL_NAME_TAG} = "{name}"'
            found = registry.versions(self._connection.client, None, condition)
            newest_first = registry.newest_first(found)
            by_name = {v.tags[registry.MODEL_NAME_TAG]: v for v in reversed(newest_first)}
            latest = registry.newest_first(by_name.values())
            return [registry.as_record(v) for v in itertools.islice(latest, limit)]

        return self._connection.ask(ask, "listing the registry", [])

    def file_of(
        self, record: ModelRecord, find_place: fetch.FindPlace, *, verifies: bool = True
    ) -> Path:
        """Return a file with the bytes of a version; see `lotto_mlflow.mirror.fetch`."""
        return fetch.file_of(self._connection, self._layout, record, find_place, verifies=verifies)

    def file_of_save(self, record: SaveRecord, work_dir: Path) -> Path | None:
        """Return a file that the store itself has of a save, ``None`` where it has none."""
        ids = record.mirrored.get(self._connection.target_name)
        if ids is None:
            return None
        path = self._model_dir(ids.model_id) / DATA_FILE
        if self._connection.is_embedded and regular.is_file(path):
            return path
        name = names.registered_model_of(ids, record.name)
        with suppress(LottoMlflowError):
            version = self.find(VersionReference(name, version=ids.version))
            if version is not None:
                own = replace(version, name=record.name, sha256=record.payload.sha256)
                return self.file_of(own, lambda: (work_dir, work_dir / "fetched"))
        return None

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
            client = self._connection.client
            found = registry.existing(lambda: client.get_registered_model(registered_model))
            return {} if found is None else aliases_by_version(sorted(found.aliases.items()))

        doing = f"asking for the aliases of {registered_model}"
        return self._connection.ask(ask, doing, {})

    def alias_book(self, registered_model: str) -> AliasBook:
        """Return the aliases of a registered model, and the history of their moves."""
        return AliasBook(self._connection, registered_model)

    def models_with_moves(self) -> list[str]:
        """Return the registered models that have a history of their aliases."""
        doing = "looking for the histories of aliases"
        return self._connection.ask(lambda: names_of_homes(self._connection.client), doing, [])

    def reference_of(self, save: SaveRecord) -> VersionReference | None:
        """Return the version of a save, in whatever registered model it is now."""

        def ask() -> VersionReference | None:
            found = registry.version_of_save(self._connection.client, save)
            return None if found is None else VersionReference(found.name, int(found.version))

        return self._connection.ask(ask, f"looking for the version of {save.name}", None)

    def params_and_metrics_of_run(
        self, record: ModelRecord
    ) -> tuple[dict[str, str], dict[str, float]]:
        """Return the parameters and the last values of metrics of a version's run."""

        def ask() -> tuple[dict[str, str], dict[str, float]]:
            run = leftovers.run_of(self._connection, str(record.run_id))
            return ({}, {}) if run is None else (dict(run.data.params), dict(run.data.metrics))

        nothing: tuple[dict[str, str], dict[str, float]] = ({}, {})
        return self._connection.ask(ask, f"looking up the run of {record.name}", nothing)

    def survey(self) -> Survey:
        """Return what the store has of all saves, which is asked for where it is needed."""
        return Survey(self._connection)

    def has_bytes(self, model_id: str) -> bool:
        """Return whether the file of a logged model is there; true for stores elsewhere."""
        path = self._model_dir(model_id) / DATA_FILE
        return not self._connection.is_embedded or regular.is_file(path)

    def holds(self, ids: MlflowIds, record: SaveRecord) -> bool:
        """Return whether the version that is called so has the bytes of a save."""
        doing = f"looking for the bytes of {record.name}"
        return self._connection.ask(
            lambda: fetch.has_bytes(self._connection, ids, record), doing, False
        )

    def is_intact(self, ids: MlflowIds, sha256: str) -> bool:
        """Return whether the folder of a logged model is as it was pushed; true for elsewhere."""
        if not self._connection.is_embedded:
            return True
        folder = self._model_dir(ids.model_id)
        return model_dir.is_intact(folder, sha256, ids.files or model_dir.digests(folder))

    def _model_dir(self, model_id: str) -> Path:
        models_dir = self._layout.artifacts_dir / names.REGISTERED_MODEL / "models"
        return models_dir / model_id / "artifacts"

    def fetched_model_dir(self, ids: MlflowIds, work_dir: Path) -> Path | None:
        """Download the folder of a logged model; ``None`` where it lies on this machine."""
        return fetch.model_dir_of(self._connection, ids.model_id, work_dir)

    def orphan_folders(self, known_ids: set[str], survey: Survey) -> list[Path]:
        """Return the folders in the embedded store's artifacts that nothing in MLflow owns.

        Parameters
        ----------
        known_ids : set of str
            Runs and logged models that records name; MLflow is asked only where there are
            folders of others.
        survey : Survey
            What the store has.

        Notes
        -----
        That is the folder of a logged model that is not there and that no version uses, or of a
        run that is not there or is the deleted rest of a push that failed. A run that a person
        deleted can be brought back.
        """
        folder = self._layout.artifacts_dir / names.REGISTERED_MODEL
        if not self._connection.is_embedded or not folder.is_dir():
            return []
        models_dir = folder / "models"
        of_no_save = (models_dir, folder / ALIASES_DIR)
        found = [path for path in folder.iterdir() if path not in of_no_save]
        found += models_dir.iterdir() if models_dir.is_dir() else []
        unknown = (path for path in found if path.name not in known_ids)
        return sorted(path for path in unknown if not survey.refers_to(path.name))

    def moved_from(self) -> Path | None:
        """Return where the embedded store says its artifacts are, if that is elsewhere."""
        moved_from = self._connection.moved_from
        return self._connection.ask(moved_from, "asking where artifacts are", None)

    def _get(self, reference: VersionReference) -> ModelRecord | None:
        client, name = self._connection.client, reference.registered_model
        alias = reference.alias
        version = registry.existing(
            lambda: (
                client.get_model_version(name, str(reference.version))
                if alias is None
                else client.get_model_version_by_alias(name, alias)
            )
        )
        if version is None:
            return None
        number = version.version if reference.version is None else reference.version
        is_asked_for = (version.name, str(version.version)) == (name, str(number))
        if not is_asked_for or not registry.is_well_formed(version):
            raise MirrorError(
                f"the registry was asked for {reference}, and answers with version "
                f"{version.version} of {version.name}; nothing was loaded",
                error_code=None,
                reference=str(reference),
            )
        tags = version.tags
        if not registry.is_ours(tags):
            tags = registry.tags_of_logged_model(client, version)
        if tags is None:
            raise ForeignModelError(
                f"{reference} was not made by lotto_mlflow, so its digest is not known; open it "
                f"with mlflow.pyfunc.load_model({str(reference)!r})",
                reference=str(reference),
                run_id=version.run_id,
                version=int(version.version),
            )
        return registry.as_record(version, tags)

    def _full(self, registered_model: str, version: str | int) -> ModelRecord | None:
        """Return a version with its aliases, which a search leaves out."""
        return self._get(VersionReference(registered_model, version=int(version)))
