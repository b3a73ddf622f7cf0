"""The mirrors of a folder, one for each store that was in force; opening one imports MLflow."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from lotto_mlflow.errors import MirrorError
from lotto_mlflow.manager.parts import Parts
from lotto_mlflow.records import ModelRecord
from lotto_mlflow.settings import Settings, sqlite_path

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

_logger = logging.getLogger("lotto_mlflow")
_USES: dict[object, list[object]] = {}
"""For each store, the processes and database files it was used by and with, in their order."""


class Mirrors:
    """Mirrors by tracking store and registry.

    Parameters
    ----------
    parts : Parts
        The folder.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._opened: dict[object, Mirror] = {}

    def of(self, settings: Settings) -> Mirror:
        """Return the mirror in the store in force.

        Notes
        -----
        A client does not survive a fork, nor the replacement of the database's file: after
        either, a mirror is opened that shares nothing with the one before.
        """
        from lotto_mlflow.mirror import Mirror

        store = (self._parts.layout, settings.tracking_uri, settings.registry_uri)
        use = (os.getpid(), self._file(settings))
        if (store, use) not in self._opened:
            uses = _USES.setdefault(store, [])
            if use not in uses:
                uses.append(use)
            self._opened[store, use] = Mirror(self._parts.layout, settings, uses.index(use))
        return self._opened[store, use]

    def _file(self, settings: Settings) -> tuple[int, int] | None:
        """Return the identity of the SQLite file in force, ``None`` where there is none yet."""
        path = self._parts.layout.database_path
        if settings.tracking_uri is not None:
            path = sqlite_path(settings.tracking_uri) or path
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

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
