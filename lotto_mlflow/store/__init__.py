"""The disk view: atomic write, backup, metadata, lookup, digest."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lotto_mlflow import layout as names
from lotto_mlflow.errors import StoreError
from lotto_mlflow.files import link_or_copy, replace_content, sync_dir
from lotto_mlflow.layout import Layout
from lotto_mlflow.metadata import to_json
from lotto_mlflow.records import SaveRecord
from lotto_mlflow.store.pickles import Staged, dump, load, sha256_of_file

__all__ = ["Staged", "Store", "dump", "load", "make_dir", "sha256_of_file"]


class Store:
    """The specification's three folders.

    Parameters
    ----------
    layout : Layout
        Where they lie.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._clock_path = layout.mlflow_dir / "clock"

    def make_dirs(self) -> None:
        """Make the specification's folders where they are missing.

        Raises
        ------
        StoreError
            If one cannot be made.
        """
        folders = (self._layout.trained_dir, self._layout.metadata_dir, self._layout.backup_dir)
        for folder in folders:
            make_dir(folder)

    def stamp(self, path: Path) -> int:
        """Give a staged file the time of its save, later than every save before.

        Returns
        -------
        int
            Nanoseconds since 1970, as the file system keeps them. The last one given is the
            mtime of the file ``clock``, so that times increase where the clock steps back.
        """
        last = self._last_time_ns()
        wanted, step = max(time.time_ns(), last + 1), 1
        while True:
            os.utime(path, ns=(wanted, wanted))
            kept = path.stat().st_mtime_ns
            if kept > last:
                break
            step *= 10  # a file system with coarse times rounded it down
            wanted = last + step
        self._clock_path.touch()
        os.utime(self._clock_path, ns=(kept, kept))
        return kept

    def _last_time_ns(self) -> int:
        try:
            return self._clock_path.stat().st_mtime_ns
        except FileNotFoundError:
            return max((status.st_mtime_ns for _, status in self.files()), default=0)

    def back_up(self, name: str, stem: str, work_dir: Path) -> None:
        """Put second entries of a model and its metadata into ``backups/``, durably."""
        for original, backup in self._pairs(name, stem):
            if original.exists():
                link_or_copy(original, backup, work_dir)
        sync_dir(self._layout.backup_dir)

    def undo(self, record: SaveRecord) -> None:
        """Bring the folders back to what they were before a save that did not end."""
        for original, backup in self._pairs(record.name, record.backup or record.name):
            if record.backup is not None and backup.exists():
                if original.exists() and backup.samefile(original):
                    backup.unlink()
                else:
                    os.replace(backup, original)
            elif self._is_of(original, record):
                original.unlink()

    def _pairs(self, name: str, stem: str) -> tuple[tuple[Path, Path], tuple[Path, Path]]:
        layout = self._layout
        return (
            (layout.model_path(name), layout.backup_path(stem)),
            (layout.metadata_path(name), layout.backup_metadata_path(stem)),
        )

    def _is_of(self, path: Path, record: SaveRecord) -> bool:
        """Tell whether a file in place was put there by the save of a record."""
        with suppress(FileNotFoundError):
            if path.suffix == names.SUFFIX:
                return path.stat().st_mtime_ns == record.saved_at_ns
            return record.metadata is not None and path.read_bytes() == to_json(record.metadata)
        return False

    def put(self, staged: Path, name: str) -> None:
        """Put a staged file in place; this commits a save."""
        os.replace(staged, self._layout.model_path(name))

    def put_metadata(self, name: str, content: bytes | None, work_dir: Path) -> None:
        """Put metadata in place; ``None`` removes what an earlier save of the name left."""
        path = self._layout.metadata_path(name)
        if content is None:
            path.unlink(missing_ok=True)
        else:
            replace_content(path, content, work_dir)

    def sync(self) -> None:
        """Make the entries of ``trained/`` and ``metadata/`` durable."""
        sync_dir(self._layout.trained_dir)
        sync_dir(self._layout.metadata_dir)

    def has_something_to_back_up(self, name: str) -> bool:
        """Tell whether a save under this name would replace a model or its metadata."""
        return self._layout.model_path(name).exists() or self._layout.metadata_path(name).exists()

    def free_backup_stem(self, name: str) -> str:
        """Return the first backup name of a model that nothing in ``backups/`` has."""
        number = 1
        while True:
            stem = names.backup_names(name, number)
            paths = (self._layout.backup_path(stem), self._layout.backup_metadata_path(stem))
            if not any(path.exists() for path in paths):
                return stem
            number += 1

    def is_taken(self, name: str) -> bool:
        """Tell whether a model of this name is, or has been, in the folders."""
        layout = self._layout
        return layout.model_path(name).exists() or layout.backup_path(name).exists()

    def find(self, name: str, sha256: str, mtime_ns: int | None = None) -> Path | None:
        """Return the file with these bytes among those of a name in ``trained/`` and ``backups/``.

        Parameters
        ----------
        name, sha256 : str
            Name of the model and digest of the bytes.
        mtime_ns : int, optional
            Time the file must have, too.
        """
        for path in (self._layout.model_path(name), *self._backups_of(name)):
            with suppress(OSError):
                status = path.stat()
                if mtime_ns in (None, status.st_mtime_ns) and sha256_of_file(path) == sha256:
                    return path
        return None

    def take(self, record: SaveRecord, work_dir: Path) -> Path | None:
        """Give the bytes of a save an entry of their own in a workspace, named after the model.

        Notes
        -----
        The entry keeps its bytes when a later save replaces the file. A file with the time and
        the size of the save is taken for its own; any other only if its digest says so.
        """
        entry = work_dir / self._layout.model_path(record.name).name
        candidates = (self._layout.model_path(record.name), *self._backups_of(record.name))
        for is_of in (_has_time_and_size, _has_digest):
            for path in candidates:
                with suppress(OSError):
                    link_or_copy(path, entry, work_dir)
                    if is_of(entry, record):
                        return entry
                entry.unlink(missing_ok=True)
        return None

    def _backups_of(self, name: str) -> list[Path]:
        try:
            files = [self._layout.backup_dir / f for f in os.listdir(self._layout.backup_dir)]
        except FileNotFoundError:
            return []
        return [
            path
            for path in files
            if path.suffix == names.SUFFIX
            and name in (names.name_of(path), names.name_of_backup(path))
        ]

    def files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield the model files in ``trained/`` with their status, but not those that vanish."""
        with suppress(FileNotFoundError), os.scandir(self._layout.trained_dir) as entries:
            for entry in entries:
                if not entry.name.endswith(names.SUFFIX) or entry.name.startswith("."):
                    continue
                with suppress(FileNotFoundError):
                    if entry.is_file():
                        yield Path(entry.path), entry.stat()

    def latest(self) -> Path | None:
        """Return the newest ``lotto_model_*.pkl`` by mtime, ties by name; ``None`` without any."""
        newest: tuple[int, str] | None = None
        with suppress(FileNotFoundError), os.scandir(self._layout.trained_dir) as entries:
            for entry in entries:
                if names.is_lotto_model(entry.name):
                    with suppress(FileNotFoundError):
                        status = entry.stat()
                        found = (status.st_mtime_ns, entry.name)
                        if stat.S_ISREG(status.st_mode) and (newest is None or found > newest):
                            newest = found
        return None if newest is None else self._layout.trained_dir / newest[1]


def _has_time_and_size(path: Path, record: SaveRecord) -> bool:
    status = path.stat()
    return (status.st_mtime_ns, status.st_size) == (record.saved_at_ns, record.size)


def _has_digest(path: Path, record: SaveRecord) -> bool:
    return path.stat().st_size == record.size and sha256_of_file(path) == record.sha256


def make_dir(path: Path) -> None:
    """Make a folder and those above it.

    Raises
    ------
    StoreError
        If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise StoreError(
            f"the folder {path} could not be made: {cause}. Free its name, or grant the rights",
            path=path,
        ) from cause
