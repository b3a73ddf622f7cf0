"""The MLflow view: push a save record, look one up, compare what is there with the folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lotto_mlflow import layout as names
from lotto_mlflow import model_dir, regular
from lotto_mlflow.errors import Fix, LottoMlflowError, ModelNotFoundError
from lotto_mlflow.layout import Layout
from lotto_mlflow.mirror import fetch, lookups, model_folder, registry, removal, scores
from lotto_mlflow.mirror import push as pushing
from lotto_mlflow.mirror.alias_home import Ledger, names_of_homes
from lotto_mlflow.mirror.aliases import AliasBook
from lotto_mlflow.mirror.beside import Beside, beside
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.mirror.copies import Copies
from lotto_mlflow.mirror.memory import MoveMemory, RunMemory
from lotto_mlflow.mirror.scores import Point
from lotto_mlflow.mirror.signed import StoredPairs
from lotto_mlflow.mirror.snapshots import is_read_as_copy
from lotto_mlflow.mirror.survey import Standing, Survey
from lotto_mlflow.mirror.version_tags import BACKFILLED_TAG, as_record, own_facts
from lotto_mlflow.model_dir import DATA_FILE
from lotto_mlflow.records import (
    Aliases,
    AliasMove,
    Arrived,
    MlflowIds,
    ModelRecord,
    Note,
    PruneRecord,
    SaveRecord,
)
from lotto_mlflow.references import VersionReference
from lotto_mlflow.settings import Target
from lotto_mlflow.signing import Pair

if TYPE_CHECKING:
    from lotto_mlflow.downloads import DownloadCache

__all__ = [
    "AliasBook",
    "Beside",
    "Ledger",
    "Mirror",
    "Point",
    "Standing",
    "Survey",
    "is_read_as_copy",
]


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
        self._runs = RunMemory(self._connection)
        self._moves = MoveMemory(self._connection)
        self.signed = StoredPairs(self._connection, layout)

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
        pair: Pair | None = None,
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
                pair=pair,
            )

    def remove(self, save: SaveRecord | PruneRecord, *, is_forced: bool) -> list[str]:
        """Remove a save; see `lotto_mlflow.mirror.removal`."""
        with self._connection.guarded(f"removing {save.name}"):
            return removal.remove(self._connection, save, is_forced=is_forced)

    def size_of(self, ids: MlflowIds, record: SaveRecord | PruneRecord) -> int:
        """Return the bytes that a save takes here; for stores elsewhere, those of its model."""
        found = removal.size_of(self._layout, ids) if self._connection.is_embedded else None
        return record.payload.size if found is None else found

    def log_scores(self, ids: MlflowIds, points: Iterable[Point]) -> bool:
        """Log how good predictions were, of a save that is called so; see `mirror.scores`."""
        self._runs.forget(ids.run_id)
        with self._connection.guarded(f"logging the accuracy of version {ids.version}"):
            return scores.log(self._connection, ids, points)

    def latest(
        self, registered_model: str = names.REGISTERED_MODEL, own: SaveRecord | None = None
    ) -> ModelRecord | None:
        """Return the newest save that the registry has, ``None`` where it has none.

        One query finds it, which leaves out its aliases; `find` returns those. The record of the
        newest save that this folder has pushed, `own`, goes before its tags: where only they hide
        that it is the newest, there is no answer.
        """

        def ask() -> ModelRecord | None:
            origin = self._connection.origin
            known = None if own is None else own_facts(own, self.target_name, origin)
            version = registry.newest_version(self._connection.client, registered_model, own=known)
            return None if version is None else as_record(version)

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

        def ask() -> ModelRecord | None:
            return lookups.version(self._connection.client, reference)

        return self._connection.ask(ask, f"looking up {reference}", None)

    def records(self, name: str | None = None) -> list[ModelRecord]:
        """Return the newest version of each model name from each folder, newest save first.

        Parameters
        ----------
        name : str, optional
            Only the model of this name.
        """
        found = lookups.newest_of_names(self._connection, name, "listing the registry")
        return [as_record(version) for version in found]

    def newest_of_name(self, name: str) -> ModelRecord | None:
        """Return the newest version of a model name, ``None`` where there is none."""

        def ask() -> ModelRecord | None:
            newest = lookups.newest_of_name(self._connection.client, name)
            return None if newest is None else as_record(newest)

        return self._connection.ask(ask, f"looking up {name}", None)

    def file_of(
        self,
        record: ModelRecord,
        downloads: DownloadCache,
        *,
        verifies: bool = True,
        arrived: Arrived | None = None,
    ) -> Path:
        """Return a file with the bytes of a version; see `lotto_mlflow.mirror.fetch`."""
        return fetch.file_of(
            self._connection, self._layout, record, downloads, verifies=verifies, arrived=arrived
        )

    def local_file_of(self, record: ModelRecord) -> Path | None:
        """Return the verified local artifact of a version, ``None`` where it lies elsewhere."""
        return fetch.local_file_of(self._connection, self._layout, record)[1]

    def file_of_save(self, record: SaveRecord, downloads: DownloadCache) -> Path | None:
        """Return a file that the store itself has of a save, ``None`` where it has none."""
        ids = record.mirrored.get(self._connection.target_name)
        if ids is None:
            return None
        path = self._layout.model_dir(ids.model_id) / DATA_FILE
        if self._connection.is_embedded and regular.is_file(path):
            return path
        name = names.registered_model_of(ids, record.name)
        with suppress(LottoMlflowError):
            version = self.find(VersionReference(name, version=ids.version))
            if version is not None:
                own = replace(version, name=record.name, sha256=record.payload.sha256)
                return self.file_of(own, downloads)
        return None

    def beside(self, record: ModelRecord, work_dir: Path) -> Beside:
        """Return what lies beside the bytes of a version; see `lotto_mlflow.mirror.beside`."""
        return beside(self._connection, self._layout, record, work_dir)

    def metadata_of(self, record: ModelRecord, work_dir: Path) -> bytes | None:
        """Return the metadata JSON among the artifacts of a version's run, if there is one."""
        return fetch.metadata_of(self._connection, record, work_dir)

    def artifacts_of_run(self, run_id: str, target_dir: Path) -> Path | None:
        """Copy the artifacts of a run; ``None`` where it has none any more."""
        return fetch.artifacts_of_run(self._connection, self._layout, run_id, target_dir)

    def has_backfills(self) -> bool:
        """Return whether the registry has a version of a file that no save knew."""

        def ask() -> bool:
            condition = f"tags.{BACKFILLED_TAG} = 'true'"
            return any(True for _ in registry.versions(self._connection.client, None, condition, 1))

        return self._connection.ask(ask, "looking for files brought in before", False)

    def aliases(self, registered_model: str) -> Aliases:
        """Return the aliases of each version of a registered model that has any."""
        return self.aliases_of([registered_model]).get(registered_model, {})

    def aliases_of(self, registered_models: Collection[str]) -> dict[str, Aliases]:
        """Return the aliases of each version of registered models that has any."""
        doing = f"asking for the aliases of {', '.join(sorted(registered_models)):.300}"
        return self._connection.ask(
            lambda: lookups.aliases(self._connection.client, registered_models), doing, {}
        )

    def runs(self, records: Collection[ModelRecord]) -> dict[str, lookups.Ran]:
        """Return the parameters and the last values of metrics of runs, by their ids."""
        doing = f"looking up the runs of {len(records)} versions"
        return self._connection.ask(lambda: lookups.runs(self._connection, records), doing, {})

    def alias_book(self, registered_model: str) -> AliasBook:
        """Return the aliases of a registered model, and the history of their moves."""
        return AliasBook(self._connection, registered_model)

    def moves(
        self, registered_model: str, holders: Mapping[str, int | None]
    ) -> tuple[AliasMove, ...]:
        """Return the moves of a registered model's aliases, to be shown; see `MoveMemory`."""
        return self._moves.of(registered_model, holders)

    def copies_from(self, source: Mirror) -> Copies:
        """Return what copies to this store what people added to saves in another one."""
        return Copies(source._connection, self._connection)

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

    def params_and_metrics_of_run(self, record: ModelRecord) -> lookups.Ran:
        """Return the parameters and the last values of metrics of a version's run.

        Notes
        -----
        What was asked half a minute ago or less is not asked again.
        """
        return self._runs.of(record)

    def survey(self) -> Survey:
        """Return what the store has of all saves, which is asked for where it is needed."""
        return Survey(self._connection)

    def has_bytes(self, model_id: str) -> bool:
        """Return whether the file of a logged model is there; true for stores elsewhere."""
        path = self._layout.model_dir(model_id) / DATA_FILE
        return not self._connection.is_embedded or regular.is_file(path)

    def holds(self, ids: MlflowIds, record: SaveRecord) -> bool:
        """Return whether the version that is called so has the bytes of a save."""
        connection, doing = self._connection, f"looking for the bytes of {record.name}"
        return connection.ask(lambda: fetch.has_bytes(connection, ids, record), doing, False)

    def is_intact(self, ids: MlflowIds, record: SaveRecord, pair: Pair | None) -> bool:
        """Return whether a version is as it was pushed; of one elsewhere, what proves it."""
        if pair is not None and not self.signed.is_beside(ids, record, pair):
            return False
        folder = self._layout.model_dir(ids.model_id)
        return not self._connection.is_embedded or model_dir.is_intact(
            folder, record.payload.sha256, ids.files or model_dir.digests(folder)
        )

    def fetched_model_dir(self, ids: MlflowIds, work_dir: Path) -> Path | None:
        """Download the folder of a logged model; ``None`` where it lies on this machine."""
        return fetch.model_dir_of(self._connection, ids.model_id, work_dir)

    def moved_from(self) -> Path | None:
        """Return where the embedded store says its artifacts are, if that is elsewhere."""
        return self._connection.ask(self._connection.moved_from, "asking where artifacts are", None)
