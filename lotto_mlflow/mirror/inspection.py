"""What only a check of the whole store asks for."""

from __future__ import annotations

from pathlib import Path

from lotto_mlflow import layout as names
from lotto_mlflow.layout import Layout
from lotto_mlflow.mirror import lookup
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.mirror.places import local_path


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

    def orphan_folders(self) -> list[Path]:
        """Return the model folders of the embedded store that no logged model owns."""
        folder = self._layout.artifacts_dir / names.REGISTERED_MODEL / "models"
        is_own = self._connection.is_embedded and self._connection.exists()
        if not is_own or not folder.is_dir():
            return []
        client, experiment_id = self._connection.client, self._connection.known_experiment_id()

        def ask() -> set[str]:
            ids: set[str] = set()
            token = None
            while experiment_id is not None:
                page = client.search_logged_models([experiment_id], page_token=token)
                ids |= {model.model_id for model in page}
                token = page.token
                if not token:
                    break
            return ids

        owned = self._connection.ask(ask, "listing the logged models")
        return sorted(path for path in folder.iterdir() if path.name not in owned)

    def top_is_late(self, registered_model: str = names.REGISTERED_MODEL) -> bool:
        """Tell whether the highest version is one of an older save."""
        found = lookup.versions(self._connection.client, registered_model, first_page=1)

        def ask() -> bool:
            top = next(found, None)
            return top is not None and lookup.LATE_TAG in top.tags

        doing = f"looking up the top of {registered_model}"
        return self._connection.exists() and self._connection.ask(ask, doing)

    def moved_from(self) -> Path | None:
        """Return where the embedded store says its artifacts are, if that is elsewhere."""
        if not self._connection.exists():
            return None
        location = self._connection.artifact_location
        found = self._connection.ask(location, "asking where artifacts are")
        told = None if found is None else local_path(found)
        here = self._layout.artifacts_dir.absolute() / names.REGISTERED_MODEL
        return None if told is None or told.absolute() == here else told
