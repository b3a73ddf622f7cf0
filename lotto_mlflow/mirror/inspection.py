"""What only a check of the whole store asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlflow.entities import ViewType

from lotto_mlflow import layout as names
from lotto_mlflow.layout import Layout
from lotto_mlflow.mirror import model_folder, push, registry
from lotto_mlflow.mirror.connection import Connection


class Inspection:
    """Questions about a store and what lies beside it.

    Parameters
    ----------
    connection : Connection
        The store.
    layout : Layout
        The folder.
    """

    def __init__(self, connection: Connection, layout: Layout) -> None:
        self._connection = connection
        self._layout = layout

    def saves_in(self, registered_model: str) -> dict[int, str]:
        """Return the id of the save that each version of a registered model mirrors."""

        def ask() -> dict[int, str]:
            found = registry.versions(self._connection.client, registered_model)
            return {int(version.version): registry.save_id_of(version) for version in found}

        return self._connection.ask(ask, f"listing the versions of {registered_model}", {})

    def has_bytes(self, model_id: str) -> bool:
        """Tell whether the file of a logged model is there; for other stores, that is not known."""
        models_dir = self._layout.artifacts_dir / names.REGISTERED_MODEL / "models"
        path = models_dir / model_id / "artifacts" / model_folder.DATA_FILE
        return path.exists() or not self._connection.is_embedded

    def orphan_folders(self) -> list[Path]:
        """Return the folders in the embedded store's artifacts that nothing in MLflow owns.

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
        everything = {path.name for path in found}
        owned = self._connection.ask(self._owned_names, "listing runs and models", everything)
        return sorted(path for path in found if path.name not in owned)

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
            run.info.run_id for run in runs if not push.is_rest_of_failed_push(run)
        }

    def top_is_late(self, registered_model: str) -> bool:
        """Tell whether the highest version is one of an older save."""

        def ask() -> bool:
            found = registry.versions(self._connection.client, registered_model, first_page=1)
            top = next(found, None)
            return top is not None and registry.LATE_TAG in top.tags

        return self._connection.ask(ask, f"looking up the top of {registered_model}", False)

    def moved_from(self) -> Path | None:
        """Return where the embedded store says its artifacts are, if that is elsewhere."""
        moved_from = self._connection.moved_from
        return self._connection.ask(moved_from, "asking where artifacts are", None)


def _pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    """Yield what a search of MLflow's finds, page by page."""
    token = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return
