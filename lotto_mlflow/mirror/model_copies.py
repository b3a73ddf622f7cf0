"""The whole model folder of a version, copied to where nobody else can write."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path

from lotto_mlflow import advice, regular
from lotto_mlflow.errors import ForeignModelError, LottoMlflowError, StoreError
from lotto_mlflow.files import copy_content
from lotto_mlflow.layout import Layout
from lotto_mlflow.mirror import fetch, room
from lotto_mlflow.mirror.connection import Connection, translated
from lotto_mlflow.records import ModelRecord

_MAX_FILES = 200
"""A push writes a dozen; a store that lists without end is asked no longer."""


class ModelCopy:
    """The model folder of a version, listed, and then copied file by file.

    Parameters
    ----------
    connection : Connection
        The store.
    layout : Layout
        The folder of models.
    record : ModelRecord
        The version.

    Notes
    -----
    MLflow's own download of a folder writes whatever the store lists. Here whoever copies says
    which of the files are wanted, before a byte of one is fetched.
    """

    def __init__(self, connection: Connection, layout: Layout, record: ModelRecord) -> None:
        self._connection = connection
        self._record = record
        self._what = f"version {record.version} of {record.registered_model}"
        self._uri, self._folder = fetch.folder_of(connection, layout, record)

    def names(self) -> dict[str, str | None]:
        """Return each path in the folder, and what it is where it is no regular file.

        Raises
        ------
        ForeignModelError
            If there are far more than a push writes.
        """
        if self._folder is not None:
            return self._bounded(_found_in(self._folder))
        none: dict[str, str | None] = {}
        return self._connection.ask(
            lambda: self._bounded(_listed(self._connection, self._uri)),
            f"listing {self._what}",
            none,
        )

    def _bounded(self, found: Iterable[tuple[str, str | None]]) -> dict[str, str | None]:
        names: dict[str, str | None] = {}
        for name, odd in found:
            names[name] = odd
            if len(names) > _MAX_FILES:
                raise ForeignModelError(
                    f"{self._what} has more than {_MAX_FILES} files in its model folder; it was "
                    "not made by lotto_mlflow"
                )
        return names

    def copy_to(self, target_dir: Path, names: Iterable[str]) -> None:
        """Copy files of the folder to a new folder.

        Parameters
        ----------
        target_dir : pathlib.Path
            The folder to make, below one that keeps others out.
        names : iterable of str
            The files, each relative and without ``..``.

        Raises
        ------
        StoreError
            If a file is a link or the like by now, or the disk has no room.
        MirrorError
            If the store does not give one. The copy is incomplete then.
        """
        target_dir.mkdir(mode=0o700)
        if self._folder is None:
            room.check(self._connection, self._uri, self._record, target_dir)
        for name in names:
            if posixpath.isabs(name) or ".." in name.split("/"):
                raise ForeignModelError(f"{name} is no file in a model folder")
            self._copy(name, target_dir / name)

    def _copy(self, name: str, path: Path) -> None:
        doing = f"copying {name} of {self._what}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if self._folder is not None:
                copy_content(self._folder / name, path)
                return
            with translated(doing):
                _download(self._connection, self._uri, name, path)
        except LottoMlflowError:
            raise
        except OSError as cause:
            helps = advice.of_error(cause, path)
            summary = f"{doing} failed: {cause}; nothing of it was opened; {helps}"
            raise StoreError(summary, path=path) from cause


def _found_in(folder: Path) -> Iterator[tuple[str, str | None]]:
    for path, odd in regular.below(folder) if regular.is_folder(folder) else ():
        yield path.relative_to(folder).as_posix(), odd


def _listed(connection: Connection, uri: str) -> Iterator[tuple[str, None]]:
    """Yield the files that a store lists in a place, folder by folder."""
    repository = connection.repository(uri)
    folders, count = [""], 0
    while folders and count < _MAX_FILES:
        count += 1
        for each in repository.list_artifacts(folders.pop() or None):
            if each.is_dir:
                folders.append(str(each.path))
            else:
                yield str(each.path), None


def _download(connection: Connection, uri: str, name: str, path: Path) -> None:
    """Download one file into a folder of its own, where it alone is looked for."""
    alone = path.parent / f".{path.name}.part"
    alone.mkdir()
    fetch.download(connection, uri, alone, name)
    (alone / path.name).rename(path)
    alone.rmdir()
