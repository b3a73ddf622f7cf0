"""The mirrors of a folder, one for each store that was in force; opening one imports MLflow."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from lotto_mlflow.errors import MirrorError
from lotto_mlflow.manager.parts import Parts
from lotto_mlflow.records import ModelRecord
from lotto_mlflow.settings import Settings

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

_logger = logging.getLogger("lotto_mlflow")


class Mirrors:
    """Mirrors by tracking store and registry.

    Parameters
    ----------
    parts : Parts
        The folder.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._opened: dict[tuple[str | None, str | None], Mirror] = {}

    def of(self, settings: Settings) -> Mirror:
        """Return the mirror in the store in force."""
        from lotto_mlflow.mirror import Mirror

        key = (settings.tracking_uri, settings.registry_uri)
        if key not in self._opened:
            self._opened[key] = Mirror(self._parts.layout, settings)
        return self._opened[key]

    def with_aliases(self, settings: Settings, records: Iterable[ModelRecord]) -> list[ModelRecord]:
        """Return records with their aliases, or without where MLflow cannot be asked."""
        found = list(records)
        mirrored = {r.registered_model for r in found if r.version is not None}
        if settings.mirror == "off" or not mirrored:
            return found
        try:
            mirror = self.of(settings)
            aliases = {name: mirror.aliases(name) for name in mirrored}
        except MirrorError as cause:
            _logger.info("aliases are left out: %s", cause)
            return found
        return [
            replace(r, aliases=aliases.get(r.registered_model, {}).get(r.version or 0, ()))
            for r in found
        ]
