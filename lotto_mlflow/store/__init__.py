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
from lotto_mlflow.files import link_or_copy, put, replace_content, sync_dir, temporary_for
from lotto_mlflow.layout import Layout
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
        self.folders = (layout.trained_dir, layout.metadata_dir, layout.backup_dir)

    def make_dirs(self) -> None:
        """Make the specification's folders where they are missing.

        Raises
        ------
        StoreError
            If one cannot be made.
        """
        for folder in self.folders:
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

    def back_up(self, record: SaveRecord, work_dir: Path) -> None:
        """Put what a save is about to replace into ``backups/`` too, durably."""
        if record.backup is None:
            return
        for original, backup in self._pairs(record):
            if original.exists():
                link_or_copy(original, backup, work_dir)
        sync_dir(self._layout.backup_dir)

    def take_back(self, record: SaveRecord, work_dir: Path) -> None:
        """Bring a save that failed half-way back to what it replaced; metadata comes first.

        Notes
        -----
        The model is what shows whether a save is committed, so it comes last: a process killed
        in between leaves a save that is finished, not one that is half undone.
        """
        if self.has_put(record):
            for original, backup in reversed(self._pairs(record)):
                if _is_same(original, backup, record.backup):
                    continue  # the step that failed did not get here
                if record.backup is not None and backup.exists():
                    temporary = temporary_for(original, work_dir)
                    link_or_copy(backup, temporary, work_dir)
                    put(temporary, original, work_dir)
                else:
                    original.unlink(missing_ok=True)
        self.drop_backup(record)

    def drop_backup(self, record: SaveRecord) -> None:
        """Remove the backup of a save that never was, where the original is still in place."""
        if record.backup is None:
            return
        for original, backup in self._pairs(record):
            with suppress(FileNotFoundError):
                kept, status = original.stat(), backup.stat()
                if (kept.st_mtime_ns, kept.st_size) == (status.st_mtime_ns, status.st_size):
                    backup.unlink()

    def has_put(self, record: SaveRecord) -> bool:
        """Tell whether the file in place has the time of a save, which no other save has."""
        with suppress(FileNotFoundError):
            return self._layout.model_path(record.name).stat().st_mtime_ns == record.saved_at_ns
        return False

    def _pairs(self, record: SaveRecord) -> tuple[tuple[Path, Path], tuple[Path, Path]]:
        """Return the model and its metadata, each with its entry in ``backups/``."""
        layout, stem = self._layout, record.backup or record.name
        return (
            (layout.model_path(record.name), layout.backup_path(stem)),
            (layout.metadata_path(record.name), layout.backup_metadata_path(stem)),
        )

    def put(self, staged: Path, name: str, work_dir: Path) -> None:
        """Put a staged file in place; this commits a save."""
        put(staged, self._layout.model_path(name), work_dir)

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
            if not any(os.path.lexists(path) for path in paths):
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
        for path in self._candidates(name):
            with suppress(OSError):
                status = path.stat()
                if mtime_ns in (None, status.st_mtime_ns) and sha256_of_file(path) == sha256:
                    return path
        return None

    def take(self, record: SaveRecord, work_dir: Path) -> Path | None:
        """Give the bytes of a save an entry of their own in a workspace, ``model.pkl``.

        Notes
        -----
        The entry keeps its bytes when a later save replaces the file. A file with the time and
        the size of the save is taken for its own; any other only if its digest says so.
        """
        entry = work_dir / "model.pkl"
        for is_of in (_has_time_and_size, _has_digest):
            for path in self._candidates(record.name):
                with suppress(OSError):
                    link_or_copy(path, entry, work_dir)
                    if is_of(entry, record):
                        return entry
                entry.unlink(missing_ok=True)
        return None

    def may_have(self, record: SaveRecord) -> bool:
        """Tell whether the bytes of a save are there under its name."""
        for path in self._candidates(record.name):
            with suppress(OSError):
                if _has_time_and_size(path, record) or _has_digest(path, record):
                    return True
        return False

    def backups_of(self, name: str) -> list[Path]:
        """Return the model files in ``backups/`` that may be of a name."""
        return [path for path in self._candidates(name) if path.parent == self._layout.backup_dir]

    def names_in_backups(self) -> list[str]:
        """Return the names of the models that have a backup, sorted."""
        with suppress(FileNotFoundError):
            listed = (self._layout.backup_dir / n for n in os.listdir(self._layout.backup_dir))
            return sorted({names.name_of_backup(p) for p in listed if p.suffix == names.SUFFIX})
        return []

    def _candidates(self, name: str) -> Iterator[Path]:
        """Yield the files that may hold a save of a name.

        Notes
        -----
        ``backups/`` is listed after the file in place was looked at: a save puts there what it
        replaces before it replaces it, so that the bytes looked for are met in one or the other.
        """
        yield self._layout.model_path(name)
        with suppress(FileNotFoundError):
            for file_name in os.listdir(self._layout.backup_dir):
                path = self._layout.backup_dir / file_name
                stems = (names.name_of(path), names.name_of_backup(path))
                if path.suffix == names.SUFFIX and name in stems:
                    yield path

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
        newest_ns, newest_name = 0, ""
        with suppress(FileNotFoundError), os.scandir(self._layout.trained_dir) as entries:
            for entry in entries:
                try:
                    status = entry.stat()
                except OSError:  # gone, or a link to nothing
                    continue
                # the rest is asked of the few that are newer than those before them
                if newest_name and status.st_mtime_ns < newest_ns:
                    continue
                found = (status.st_mtime_ns, entry.name)
                is_newer = not newest_name or found > (newest_ns, newest_name)
                if is_newer and names.is_lotto_model(entry.name) and stat.S_ISREG(status.st_mode):
                    newest_ns, newest_name = found
        return self._layout.trained_dir / newest_name if newest_name else None


def _is_same(original: Path, backup: Path, stem: str | None) -> bool:
    """Tell whether what is in place is still what the backup holds, or neither is there."""
    kept = original.stat() if os.path.lexists(original) else None
    copied = backup.stat() if stem is not None and os.path.lexists(backup) else None
    if kept is None or copied is None:
        return kept is None and copied is None
    return (kept.st_mtime_ns, kept.st_size) == (copied.st_mtime_ns, copied.st_size)


def _has_time_and_size(path: Path, record: SaveRecord) -> bool:
    status = path.stat()
    return (status.st_mtime_ns, status.st_size) == (record.file_time_ns, record.size)


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
