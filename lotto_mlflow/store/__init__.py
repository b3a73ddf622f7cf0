"""The disk view: what lies in the specification's three folders."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lotto_mlflow import advice, regular
from lotto_mlflow import layout as names
from lotto_mlflow.errors import StoreError
from lotto_mlflow.files import link_or_copy, put, remove_file, temporary_for
from lotto_mlflow.layout import Layout
from lotto_mlflow.records import SavePayload
from lotto_mlflow.regular import sha256_of_file
from lotto_mlflow.store.pickles import Staged, dump, load, private_copy
from lotto_mlflow.text import composed

__all__ = [
    "Staged",
    "Store",
    "dump",
    "load",
    "make_dir",
    "make_real_dir",
    "private_copy",
    "sha256_of_file",
]


class Store:
    """The files of models, their metadata and their backups.

    Parameters
    ----------
    layout : Layout
        Where they lie.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._clock_path = layout.clock_path
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

    def stamp(self, path: Path, work_dir: Path) -> int:
        """Give a staged file a time that is later than every one given before.

        Parameters
        ----------
        path : pathlib.Path
            The file.
        work_dir : pathlib.Path
            The workspace for temporary files.

        Returns
        -------
        int
            Nanoseconds since 1970, as the file system keeps them. The last one given is the
            mtime of the file ``clock``, so that times increase where the clock steps back. It is
            replaced each time: the time of a file can be set by its owner alone.

        Raises
        ------
        StoreError
            If ``clock`` is no file; what it links to keeps its time.
        """
        regular.check_file(self._clock_path)
        last = self._last_time_ns()
        wanted, step = max(time.time_ns(), last + 1), 1
        while True:
            os.utime(path, ns=(wanted, wanted))
            kept = path.stat().st_mtime_ns
            if kept > last:
                break
            step *= 10  # a file system with coarse times rounded it down
            wanted = last + step
        self._note_time_ns(kept, work_dir)
        return kept

    def _note_time_ns(self, time_ns: int, work_dir: Path) -> None:
        temporary = temporary_for(self._clock_path, work_dir)
        try:
            temporary.touch(exist_ok=False)
            os.utime(temporary, ns=(time_ns, time_ns))
            put(temporary, self._clock_path, work_dir)
        finally:
            remove_file(temporary)

    def _last_time_ns(self) -> int:
        noted = regular.status_of(self._clock_path)
        if noted is not None:
            return noted.st_mtime_ns
        found = self.files_in(self.layout.trained_dir)
        return max((status.st_mtime_ns for _, status in found), default=0)

    def has_model_or_metadata(self, name: str) -> bool:
        """Return whether a save under this name would replace a model or its metadata."""
        return any(map(os.path.lexists, self.places_of(name)))

    def places_of(self, name: str) -> tuple[Path, Path]:
        """Return where the model of a name and its metadata are put."""
        return self.layout.model_path(name), self.layout.metadata_path(name)

    def check_places(self, name: str, *, is_save: bool) -> None:
        """See that a save or a restore of a name would replace files, and nothing else.

        Raises
        ------
        StoreError
            If a link, a folder or the like has the name of the model or of its metadata.
        """
        for path in self.places_of(name):
            try:
                regular.check_file(path)
            except StoreError as cause:
                doing = "saved" if is_save else "restored"
                summary = f"the model could not be {doing}: {cause.summary}"
                raise StoreError(summary, path=path) from cause

    def free_backup_stem(self, name: str) -> str:
        """Return the first backup name of a model that nothing in ``backups/`` has."""
        number = 1
        while True:
            stem = names.backup_names(name, number)
            paths = (self.layout.backup_path(stem), self.layout.backup_metadata_path(stem))
            if not any(os.path.lexists(path) for path in paths):
                return stem
            number += 1

    def is_taken(self, name: str) -> bool:
        """Return whether a model of this name is, or has been, in the folders."""
        model_path, metadata_path = self.places_of(name)
        in_use = map(os.path.lexists, (model_path, self.layout.backup_path(name)))
        return any(in_use) or regular.odd_kind(metadata_path) is not None

    def link_bytes_of(
        self, save: SavePayload, work_dir: Path, *, hashes_all: bool = False
    ) -> Path | None:
        """Give the bytes of a save an entry of their own in a workspace, ``model.pkl``.

        Parameters
        ----------
        save : SavePayload
            The save.
        work_dir : pathlib.Path
            The workspace.
        hashes_all : bool
            Whether a file with the time and the size of the save is hashed, too.

        Returns
        -------
        pathlib.Path or None
            ``None`` where no file of its name has them.

        Raises
        ------
        StoreError
            If none was found that has them, and one could not be read.

        Notes
        -----
        The entry keeps its bytes when a later save replaces the file, but not when a program
        writes over it: whoever copies it hashes the copy.
        """
        entry, refusals = work_dir / "model.pkl", list[tuple[Path, OSError]]()
        for is_of in (_has_digest,) if hashes_all else (_has_time_and_size, _has_digest):
            for path in self.candidates(save.name):
                entry.unlink(missing_ok=True)
                try:
                    link_or_copy(path, entry, work_dir)
                    if is_of(entry, save):
                        return entry
                except OSError as cause:
                    if cause.errno not in (None, errno.ENOENT, errno.ENOTDIR):
                        refusals.append((path, cause))
        entry.unlink(missing_ok=True)
        for refused, error in refusals:  # the bytes may be there, and are not gone
            helps = advice.of_error(error, refused, reads=True)
            summary = f"{refused} could not be read: {error}; {helps}"
            raise StoreError(summary, path=refused) from error
        return None

    def names_in_backups(self) -> list[str]:
        """Return the names of the models that have a backup, sorted."""
        found = self.files_in(self.layout.backup_dir)
        return sorted({names.name_of_backup(path) for path, _ in found})

    def backups_of(self, name: str) -> list[Path]:
        """Return the model files in ``backups/`` that may be of a name."""
        found, name = [], composed(name)
        with regular.scanned(self.layout.backup_dir, must_be_folder=True) as entries:
            for entry in entries:
                path = self.layout.backup_dir / entry.name
                stems = (names.name_of(path), names.name_of_backup(path))
                if path.suffix == names.SUFFIX and name in stems and regular.is_file(path):
                    found.append(path)
        return found

    def candidates(self, name: str) -> Iterator[Path]:
        """Yield the files that may hold a save of a name.

        Notes
        -----
        ``backups/`` is listed after the file in place was looked at: a save puts there what it
        replaces before it replaces it, so that the bytes looked for are met in one or the other.
        """
        yield self.layout.model_path(name)
        try:
            yield from self.backups_of(name)
        except StoreError as error:
            if not isinstance(error.__cause__, NotADirectoryError):
                raise

    def files_in(self, folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield the model files in a folder with their status, but not those that vanish.

        Notes
        -----
        Links, pipes, folders and the like are none, whatever they are called.
        """
        with regular.scanned(folder) as entries:
            for entry in entries:
                if not entry.name.endswith(names.SUFFIX) or entry.name.startswith("."):
                    continue
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield folder / entry.name, status

    def latest(self) -> Path | None:
        """Return the newest ``lotto_model_*.pkl`` by mtime, ties by name; ``None`` without any."""
        newest_ns, newest_name, folder = 0, "", self.layout.trained_dir
        with regular.scanned(folder) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                # the rest is asked of the few that are newer than those before them
                if newest_name and status.st_mtime_ns < newest_ns:
                    continue
                found = (status.st_mtime_ns, entry.name)
                is_newer = not newest_name or found > (newest_ns, newest_name)
                if is_newer and names.is_lotto_model(entry.name) and stat.S_ISREG(status.st_mode):
                    newest_ns, newest_name = found
        return folder / newest_name if newest_name else None

    def odd_names(self) -> Iterator[tuple[Path, str]]:
        """Yield what has the name of a model or of metadata and is no file, and what it is."""
        endings = (names.SUFFIX, names.METADATA_SUFFIX)
        for folder in self.folders:
            with suppress(OSError):
                for file_name in sorted(os.listdir(folder)):
                    kind = regular.odd_kind(folder / file_name)
                    if kind is not None and file_name.endswith(endings):
                        yield folder / file_name, kind


def _has_time_and_size(path: Path, save: SavePayload) -> bool:
    status = path.stat()
    return (status.st_mtime_ns, status.st_size) == (save.file_time_ns, save.size)


def _has_digest(path: Path, save: SavePayload) -> bool:
    return path.stat().st_size == save.size and sha256_of_file(path) == save.sha256


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
            f"the folder {path} could not be made: {cause}; {advice.of_error(cause, path)}",
            path=path,
        ) from cause


def make_real_dir(path: Path) -> None:
    """Make a folder in which files are moved and removed: a link to one will not do.

    Raises
    ------
    StoreError
        If it cannot be made, or something else has its name.
    """
    regular.check_folder(path)
    make_dir(path)
