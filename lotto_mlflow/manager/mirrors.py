"""The mirrors of a folder, one for each store that was in force; opening one imports MLflow."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from lotto_mlflow.errors import MirrorError
from lotto_mlflow.manager import aliases
from lotto_mlflow.manager.parts import Parts
from lotto_mlflow.records import Aliases, ModelRecord
from lotto_mlflow.settings import Settings, sqlite_path

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

_logger = logging.getLogger("lotto_mlflow")
_USES: dict[object, list[object]] = {}
"""For each store, the processes and database files it was used by and with; the place is the number
of the generation."""


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
        A client does not survive a fork, nor the replacement of the database's file, and one
        that was opened while the file was read-only never writes. One in which a database failed
        may hold on to what was damaged. After any of these, a mirror is opened that shares nothing
        with the one before.
        """
        from lotto_mlflow.mirror import Mirror

        store = (self._parts.layout, settings.tracking_uri, settings.registry_uri)
        use = (os.getpid(), self._file(settings))
        uses = _USES.setdefault(store, [])
        opened = self._opened.get((store, use))
        if opened is None or opened.is_stale:
            if opened is not None and uses[-1:] == [use]:
                uses[-1] = None  # nobody is given this number again
            if use not in uses:
                uses.append(use)
            opened = Mirror(self._parts.layout, settings, uses.index(use))
            self._opened[store, use] = opened
        return opened

    def _file(self, settings: Settings) -> tuple[int, int, bool] | None:
        """Return the SQLite file in force and whether it can be written, ``None`` without one."""
        path = self._parts.layout.database_path
        if settings.tracking_uri is not None:
            path = sqlite_path(settings.tracking_uri) or path
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, os.access(path, os.W_OK)

    def with_aliases(self, settings: Settings, records: Iterable[ModelRecord]) -> list[ModelRecord]:
        """Return records with their aliases, or without where MLflow cannot be asked."""
        found = list(records)
        mirrored = {r.registered_model for r in found if r.version is not None}
        if settings.mirror == "off" or not mirrored:
            return found
        try:
            told = self._aliases(settings, mirrored)
        except MirrorError as cause:
            _logger.info("aliases are left out: %s", cause)
            return found
        return [
            replace(r, aliases=told.get(r.registered_model, {}).get(r.version or 0, ()))
            for r in found
        ]

    def _aliases(self, settings: Settings, names: set[str]) -> dict[str, Aliases]:
        """Return the aliases of registered models; MLflow is asked where no file tells them."""
        uri = settings.registry_uri or settings.tracking_uri
        path = self._parts.layout.database_path if uri is None else sqlite_path(uri)
        told = None if path is None else aliases.read(path, names)
        if told is not None:
            return told
        mirror = self.of(settings)
        return {name: mirror.aliases(name) for name in names}
