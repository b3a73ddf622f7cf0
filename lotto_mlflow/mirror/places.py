"""Where MLflow says that artifacts lie, and which of these places are believed."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import url2pathname

from lotto_mlflow.errors import MirrorUnavailableError
from lotto_mlflow.files import local_path
from lotto_mlflow.layout import REGISTERED_MODEL, Layout
from lotto_mlflow.mirror import probing
from lotto_mlflow.regular import real_path
from lotto_mlflow.settings import Target
from lotto_mlflow.text import masked, one_line

_ARTIFACTS = "artifacts"
_OBJECT_STORES = frozenset(
    {"s3", "r2", "b2", "gs", "wasb", "wasbs", "abfs", "abfss", "hdfs", "viewfs", "dbfs", "oss"}
)
"""Schemes of stores that are opened with credentials of their own, never with the tracking ones."""
_OF_THE_SERVER = frozenset({"http", "https", "mlflow-artifacts"})
_OF_SHARED_STORE = re.compile(rf"/mlflow/artifacts/{REGISTERED_MODEL}-[0-9a-f]{{8}}(/|$)")
"""The artifact folder, in whatever model folder, of a database that is in none."""
_PORTS = {"http": 80, "https": 443}
_MOST_SHOWN = 300
_HOST = re.compile(r"[^\s\\/@]*(@[^\s\\/@]*)?")
"""What stands for a host in an address that all programs read alike: with a backslash in it, one
goes to the host before, and another to the host after."""


class Places:
    """The places that artifacts of one tracking store may lie in.

    Parameters
    ----------
    layout : Layout
        The folder whose saves are mirrored.
    target : Target
        The tracking store.

    Attributes
    ----------
    own_dir : pathlib.Path
        Where artifacts are put whose place is not MLflow's to choose.
    is_beside_database : bool
        Whether that is beside the database, in the model folder whose store it is.
    is_served : bool
        Whether a tracking server answers, and not a store on this machine or a database.

    Notes
    -----
    MLflow answers with addresses, and its client opens whatever it is given: a folder of this
    machine, or another host, to which it sends the credentials of the tracking store. Here only
    these are opened: folders in ``mlflow/artifacts``, of this model folder or of the one whose
    database the target is, and those that were made for a database that is in none; the tracking
    server itself; object stores, which have credentials of their own; and what
    ``LOTTO_ARTIFACT_ROOTS`` names.
    """

    def __init__(self, layout: Layout, target: Target) -> None:
        self._target = target
        self._is_sql = probing.is_sql(target.tracking_uri)
        self.own_dir = layout.artifacts_dir
        database = target.database_path
        self.is_beside_database = (
            database is not None and database.parent.name == layout.mlflow_dir.name
        )
        if database is not None and self.is_beside_database:
            self.own_dir = database.parent / layout.artifacts_dir.name
        self._own_dirs = [layout.artifacts_dir, self.own_dir]
        file_store = local_path(target.tracking_uri)
        if file_store is not None:
            self._own_dirs.append(file_store)
        self.is_served = not self._is_sql and file_store is None

    def is_believed(self, uri: str, owner: str | None = None) -> bool:
        """Return whether an artifact location is one of the store's places; as in `readable`."""
        return _is_readable(uri) and _is_of(uri, owner) and self._is_believed(uri, local_path(uri))

    def readable(self, uri: str, owner: str | None = None) -> Path | None:
        """Return the folder on this machine that an artifact location means.

        Parameters
        ----------
        uri : str
            What MLflow answered.
        owner : str, optional
            The run or logged model whose location it must be.

        Returns
        -------
        pathlib.Path or None
            ``None`` where MLflow's client has to fetch it.

        Raises
        ------
        MirrorUnavailableError
            If it is a place that is not believed. Nothing was opened.
        """
        if not self.is_believed(uri, owner):
            of_whom = "" if owner is None else f" of {owner}"
            raise MirrorUnavailableError(
                f"{masked(self._target.tracking_uri)} answers that the artifacts{of_whom} lie in "
                f"{shown(uri)}, which is none of its places; nothing was read or written there. "
                "If the place is right, name its beginning in LOTTO_ARTIFACT_ROOTS",
                error_code=None,
                uri=shown(uri),
            )
        return local_path(uri)

    def writable(self, uri: str, owner: str) -> Path | None:
        """Return as `readable`, for a place that is to be written to.

        Notes
        -----
        A server's ids are its own choice: it could name the folder of another logged model.
        """
        folder = self.readable(uri, owner)
        if folder is not None and self.is_served and not self._is_configured(uri, folder):
            raise MirrorUnavailableError(
                f"{masked(self._target.tracking_uri)} answers that the artifacts of {owner} lie in "
                f"{shown(uri)}, on this machine; nothing was written there. Start the server with "
                "--serve-artifacts, or name the beginning of the place in LOTTO_ARTIFACT_ROOTS",
                error_code=None,
                uri=shown(uri),
            )
        return folder

    def _is_believed(self, uri: str, folder: Path | None) -> bool:
        if self._is_configured(uri, folder):
            return True
        if folder is not None:
            # of a path that is no URI, too, MLflow decodes what looks quoted
            decoded = folder if urlsplit(uri).scheme else Path(url2pathname(uri))
            return all(self._is_own(one) for one in {folder, decoded})
        parts = urlsplit(uri)
        if _climbs(parts):
            return False
        if parts.scheme in _OF_THE_SERVER:
            return self.is_served and self._is_of_the_server(parts)
        return parts.scheme in _OBJECT_STORES

    def _is_own(self, folder: Path) -> bool:
        """Return whether a folder of this machine is one where this package puts artifacts.

        Notes
        -----
        Model folders that share a database of their own keep its artifacts in the one which was
        there first, under a name that is for nothing else.
        """
        if any(_is_below(folder, own) for own in self._own_dirs):
            return True
        is_shared = self._is_sql and not self.is_beside_database
        return is_shared and _OF_SHARED_STORE.search(folder.resolve().as_posix()) is not None

    def _is_of_the_server(self, parts: SplitResult) -> bool:
        server = urlsplit(self._target.tracking_uri)
        if not parts.netloc:
            return parts.scheme == "mlflow-artifacts"
        if parts.scheme != "mlflow-artifacts":
            return _origin(parts, parts.scheme) == _origin(server, server.scheme)
        return _origin(parts, server.scheme)[1:] == _origin(server, server.scheme)[1:]

    def _is_configured(self, uri: str, folder: Path | None) -> bool:
        return any(_is_at_root(uri, folder, root) for root in self._target.artifact_roots)


def _is_at_root(uri: str, folder: Path | None, root: str) -> bool:
    root_dir = local_path(root)
    if folder is not None:
        return root_dir is not None and _is_below(folder, root_dir)
    is_inside = f"{uri.rstrip('/')}/".startswith(f"{root.rstrip('/')}/")
    return root_dir is None and is_inside and not _climbs(urlsplit(uri))


def _is_below(folder: Path, root: Path) -> bool:
    inside, outside = real_path(folder), real_path(root)
    return inside != outside and inside.is_relative_to(outside)


def shown(uri: str) -> str:
    """Return an address for a message, as much of it as tells where it leads."""
    with suppress(ValueError):
        uri = masked(uri)
    return f"{one_line(uri):.{_MOST_SHOWN}}"


def _is_readable(uri: str) -> bool:
    """Return whether a text is an address that every program reads alike."""
    if any(ord(character) < ord(" ") for character in uri):
        return False
    try:
        return _HOST.fullmatch(urlsplit(uri).netloc) is not None
    except ValueError:  # of brackets, for one
        return False


def _is_of(uri: str, owner: str | None) -> bool:
    """Return whether a location ends in the artifacts of a run or logged model."""
    if owner is None:
        return True
    end = unquote(urlsplit(uri).path).rstrip("/").split("/")[-2:]
    return end == [owner, _ARTIFACTS]


def _climbs(parts: SplitResult) -> bool:
    """Return whether a path leads out of where it begins, however often it is quoted."""
    path = unquote(unquote(parts.path)).replace("\\", "/")
    return ".." in path.split("/")


def _origin(parts: SplitResult, scheme: str) -> tuple[str, str, int | None]:
    try:
        port = parts.port
    except ValueError:
        port = -1
    return scheme, (parts.hostname or "").lower(), port or _PORTS.get(scheme)
