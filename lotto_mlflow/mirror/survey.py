"""What a tracking store has of this folder's saves: asked for once, compared with the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.entities.model_registry import ModelVersion

from lotto_mlflow.layout import REGISTERED_MODEL, Layout, registered_model_of
from lotto_mlflow.mirror import registry, version_tags
from lotto_mlflow.mirror.alias_home import ALIASES_DIR
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.mirror.leftovers import is_rest_of_failed_push
from lotto_mlflow.mirror.lookups import listed
from lotto_mlflow.records import MlflowIds, PruneRecord, SaveRecord

_PAGE_SECONDS = 30.0
"""A page is of a thousand entries, and nobody's request waits for a survey."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Standing:
    """What a tracking store has of one save.

    Attributes
    ----------
    ids : MlflowIds or None
        What the save is called there; ``None`` where it has no version.
    missing : str
        What is not there, in words; empty where all is.
    other_digest : str
        What the tags of its version say of its bytes, where that is not what its record says.
    """

    ids: MlflowIds | None
    missing: str = ""
    other_digest: str = ""

    def is_at(self, ids: MlflowIds) -> bool:
        """Return whether the save is where its record says."""
        return _place_in(ids) == _place_in(self.ids or ids)


def _place_in(ids: MlflowIds) -> MlflowIds:
    """Return what a save is called, without what a push noted beside."""
    return replace(ids, files={}, push_delay_ms=None)


class Survey:
    """The versions, runs and logged models of one tracking store at one moment.

    Parameters
    ----------
    connection : Connection
        The store.

    Notes
    -----
    With MLflow's own commands people rename registered models, copy versions, register a logged
    model again, and delete one of several things that belong together. Each of these leaves the
    save's id or its run, by which it is found here.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @cached_property
    def _versions(self) -> list[ModelVersion]:
        def pages() -> Iterator[list[ModelVersion]]:
            yield from registry.pages(self._connection.client, None)

        return list(self._listed(pages(), "listing the versions"))

    @cached_property
    def _by_save_id(self) -> dict[str, list[ModelVersion]]:
        found: dict[str, list[ModelVersion]] = {}
        for version in self._versions:
            if version_tags.is_ours(version.tags):
                found.setdefault(version_tags.save_id_of(version), []).append(version)
        return found

    @cached_property
    def _by_run_id(self) -> dict[str, list[ModelVersion]]:
        found: dict[str, list[ModelVersion]] = {}
        for version in self._versions:
            found.setdefault(version.run_id or "", []).append(version)
        return found

    @cached_property
    def _by_model_id(self) -> dict[str, list[ModelVersion]]:
        found: dict[str, list[ModelVersion]] = {}
        for version in self._versions:
            found.setdefault(version_tags.model_id_of(version), []).append(version)
        return found

    def others_of(self, record: SaveRecord | PruneRecord, ids: MlflowIds) -> list[str]:
        """Return the versions, but its own, that use the run or the logged model of a save."""
        own = (registered_model_of(ids, record.name), ids.version)
        found = self._by_run_id.get(ids.run_id, []) if ids.run_id else []
        found = [*found, *(self._by_model_id.get(ids.model_id, []) if ids.model_id else [])]
        places = {(version.name, int(version.version)) for version in found} - {own}
        return [f"version {number} of {name}" for name, number in sorted(places)]

    def places_of_run(self, run_id: str) -> list[tuple[str, int]]:
        """Return the registered models and numbers of the versions that are of a run."""
        found = self._by_run_id.get(run_id, []) if run_id else []
        return sorted((version.name, int(version.version)) for version in found)

    @cached_property
    def _runs(self) -> dict[str, Any]:
        """The runs of the experiment by id, deleted ones among them."""

        def search(client: MlflowClient, experiment_id: str, token: str | None) -> Any:
            view = ViewType.ALL
            return client.search_runs([experiment_id], run_view_type=view, page_token=token)

        runs = self._listed(self._pages_of_experiment(search), "listing the runs")
        return {run.info.run_id: run for run in runs}

    @cached_property
    def _model_ids(self) -> set[str]:
        """The logged models of the experiment that are not deleted."""

        def search(client: MlflowClient, experiment_id: str, token: str | None) -> Any:
            return client.search_logged_models([experiment_id], page_token=token)

        models = self._listed(self._pages_of_experiment(search), "listing the logged models")
        return {model.model_id for model in models}

    def _listed(self, pages: Iterator[Iterable[_T]], doing: str) -> Iterator[_T]:
        return listed(self._connection, pages, doing, seconds=_PAGE_SECONDS)

    def _pages_of_experiment(
        self, search: Callable[[MlflowClient, str, str | None], Any]
    ) -> Iterator[Any]:
        """Yield the pages of a search in the experiment, if there is one."""
        experiment_id, token = self._connection.known_experiment_id(), None
        while experiment_id is not None:
            page = search(self._connection.client, experiment_id, token)
            yield page
            token = page.token
            if not token:
                return

    def standing(self, record: SaveRecord, ids: MlflowIds | None) -> Standing:
        """Return what there is of a save.

        Parameters
        ----------
        record : SaveRecord
            The save.
        ids : MlflowIds or None
            What it is called there, as its record says.
        """
        own = None if ids is None else self._at(record, ids)
        version = own or registry.first_of(record, self._of_save(record, ids))
        if version is None:
            number = "" if ids is None else f" {ids.version}"
            return Standing(None, missing=f"version{number} was deleted")
        declared = version.tags.get(version_tags.SHA256_TAG, "")
        is_other = own is not None and _contradicts(record, version)
        found = ids if own is not None and ids is not None else version_tags.ids_of(version, record)
        return Standing(found, self._missing_beside(found), declared or "none" if is_other else "")

    def ids_of_save(self, save_id: str, sha256: str) -> MlflowIds | None:
        """Return what a save that another folder made is called here; nothing is listed."""
        connection = self._connection
        condition = f"tags.{version_tags.SAVE_ID_TAG} = '{save_id}'"

        def ask() -> MlflowIds | None:
            found = registry.versions(connection.client, None, condition)
            own = (v for v in found if v.tags[version_tags.SHA256_TAG] == sha256)
            first = min(own, key=lambda version: (version.name, int(version.version)), default=None)
            if first is None:
                return None
            return MlflowIds(
                version=int(first.version),
                run_id=first.run_id or "",
                model_id=version_tags.model_id_of(first),
            )

        return connection.ask(ask, f"looking for the save {save_id}", None)

    def _at(self, record: SaveRecord, ids: MlflowIds) -> ModelVersion | None:
        """Return the version that a record names, if it is of the record's run or save."""
        name = registered_model_of(ids, record.name)
        found = [*self._by_run_id.get(ids.run_id, ()), *self._by_save_id.get(record.id, ())]
        return next((v for v in found if (v.name, int(v.version)) == (name, ids.version)), None)

    def _of_save(self, record: SaveRecord, ids: MlflowIds | None) -> Iterator[ModelVersion]:
        """Yield the versions with the save's id, and untagged ones of its run and logged model."""
        for version in self._by_save_id.get(record.id, ()):
            if version.tags[version_tags.SHA256_TAG] == record.payload.sha256:
                yield version
        if ids is not None and ids.run_id:
            for version in self._by_run_id.get(ids.run_id, ()):
                is_tagged = version_tags.is_ours(version.tags)
                if not is_tagged and version_tags.model_id_of(version) == ids.model_id:
                    yield version

    def _missing_beside(self, ids: MlflowIds) -> str:
        """Return which part of a version's surroundings is not there any more."""
        still = f"; version {ids.version} works until mlflow gc removes its files"
        if ids.model_id and ids.model_id not in self._model_ids:
            return f"the logged model {ids.model_id} was deleted{still}"
        run = self._runs.get(ids.run_id)
        if run is None:
            return f"the run {ids.run_id} is gone"
        return f"the run {ids.run_id} was deleted" if run.info.lifecycle_stage == "deleted" else ""

    def refers_to(self, name: str) -> bool:
        """Return whether a run, a logged model or a version is, or uses, what has this id."""
        run = self._runs.get(name)
        if run is not None and not is_rest_of_failed_push(run):
            return True
        if name in self._model_ids or name in self._by_run_id:
            return True
        return any(version_tags.model_id_of(v) == name or name in v.source for v in self._versions)

    def orphan_folders(self, layout: Layout, known_ids: set[str]) -> list[Path]:
        """Return the folders in the embedded store's artifacts that nothing in MLflow owns.

        Parameters
        ----------
        layout : Layout
            The folder of models.
        known_ids : set of str
            Runs and logged models that records name; MLflow is asked only where there are
            folders of others.

        Notes
        -----
        That is the folder of a logged model that is not there and that no version uses, or of a
        run that is not there or is the deleted rest of a push that failed. A run that a person
        deleted can be brought back.
        """
        folder = layout.artifacts_dir / REGISTERED_MODEL
        if not self._connection.is_embedded or not folder.is_dir():
            return []
        models_dir = folder / "models"
        of_no_save = (models_dir, folder / ALIASES_DIR)
        found = [path for path in folder.iterdir() if path not in of_no_save]
        found += models_dir.iterdir() if models_dir.is_dir() else []
        unknown = (path for path in found if path.name not in known_ids)
        return sorted(path for path in unknown if not self.refers_to(path.name))

    def with_copies(self, registered_models: Mapping[str, str]) -> dict[str, int]:
        """Return how many versions of saves other registered models have, by their names.

        Parameters
        ----------
        registered_models : mapping of str to str
            The registered model that each save is in, by the id of the save.
        """
        found = (
            version.name
            for save_id, own in registered_models.items()
            for version in self._by_save_id.get(save_id, ())
            if version.name != own
        )
        return dict(Counter(found))

    def late_on_top(self) -> Iterator[str]:
        """Yield the registered models whose highest version is of an older save."""
        by_model: dict[str, list[ModelVersion]] = {}
        for found in self._by_save_id.values():
            for version in found:
                by_model.setdefault(version.name, []).append(version)
        for name, found in sorted(by_model.items()):
            top = max(found, key=lambda version: int(version.version))
            if registry.newest_of(found) is not top:
                yield name


def _contradicts(record: SaveRecord, version: ModelVersion) -> bool:
    """Return whether a version says other things than a record; one without tags says nothing."""
    tags = version.tags
    says_something = version_tags.SAVE_ID_TAG in tags or version_tags.SHA256_TAG in tags
    return says_something and not version_tags.has_tags_of(record, tags)
