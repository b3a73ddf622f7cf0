"""`DownloadCache`: verified copies of models that lie only in the registry, and their room."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lotto_mlflow import files, regular, settings
from lotto_mlflow import layout as names
from lotto_mlflow.errors import SignatureError, StoreError
from lotto_mlflow.layout import Layout
from lotto_mlflow.records import is_save_id
from lotto_mlflow.settings import Settings
from lotto_mlflow.signing import Pair, pairs
from lotto_mlflow.store import make_real_dir

_WAIT_SECONDS = 600.0
"""How long a download waits for another of the same bytes, before it is made twice."""
_TRIES = 3
"""How often a file is looked for anew that was removed before it was opened."""
_PAIR_SUFFIXES = (names.STATEMENT_SUFFIX, names.SIGNATURE_SUFFIX)
_DIGEST = re.compile(r"[0-9a-f]{64}")


class DownloadCache:
    """The downloads of one folder of models, or those of a user who may only read the folder.

    Parameters
    ----------
    layout : Layout
        The folder.
    read_settings : callable
        Returns the current settings, each time it is called.
    wait_seconds : float
        How long to wait for another process that downloads the same bytes.

    Notes
    -----
    A download is ``{digest}/{name}.pkl``, in ``mlflow/downloads/`` or in the cache of
    `lotto_mlflow.settings.cache_dir`. It gets this name in one step, after its digest was
    compared; what is cut off before lies in a workspace, which the next download sweeps. Its
    modification time is that of the save; its access time is set to when it was used last. What is
    signed of it lies beside it, under the id of the save.
    """

    def __init__(
        self,
        layout: Layout,
        read_settings: Callable[[], Settings],
        wait_seconds: float = _WAIT_SECONDS,
    ) -> None:
        self._layout = layout
        self._settings = read_settings
        self._wait_seconds = wait_seconds

    def paths(self, sha256: str, name: str) -> Iterator[Path]:
        """Yield where a download of these bytes lies; nothing is hashed.

        Raises
        ------
        StoreError
            If a link, or anything else that is not ours, is in its place.
        """
        for downloads_dir in (self._layout.downloads_dir, settings.downloads_dir()):
            path = _path_in(downloads_dir, sha256, name)
            if regular.is_file(path):
                yield path

    def find(self, sha256: str, name: str) -> Path | None:
        """Return a download of these bytes, now noted as used; ``None`` where there is none."""
        path = next(self.paths(sha256, name), None)
        if path is not None:
            note_use(path)
        return path

    def get(
        self, sha256: str, name: str, time_ns: int | None, download: Callable[[Path], Path]
    ) -> tuple[Path, bool]:
        """Return a download of these bytes, made now where no other process was faster.

        Parameters
        ----------
        sha256 : str
            Their digest.
        name : str
            Name of the model.
        time_ns : int, optional
            Modification time that the file is to have.
        download : callable
            Downloads into the folder that it is given, verifies the file, and returns its path.

        Returns
        -------
        tuple of pathlib.Path and bool
            The file, and whether it was made and verified just now.

        Notes
        -----
        Of several processes and threads one downloads, and the others wait for it; the system
        releases the lock of one that dies. Afterwards those that were not used for longest are
        removed, until all of them have no more than ``LOTTO_DOWNLOADS_MAX`` bytes.
        """
        with self.place() as (downloads_dir, work_dir):
            target = _path_in(downloads_dir, sha256, name)
            with self._alone(downloads_dir, sha256):
                if regular.is_file(target):
                    note_use(target)
                    return target, False
                found = download(work_dir / "download")
                _finish(found, time_ns)
                target.parent.mkdir(parents=True, exist_ok=True)
                files.put(found, target, work_dir)
                files.sync_dir(target.parent)
            self._trim(downloads_dir, target)
        return target, True

    def pairs_of(self, sha256: str) -> Iterator[Pair]:
        """Yield what was kept as signed of downloads of these bytes; nothing of it is verified."""
        for downloads_dir in (self._layout.downloads_dir, settings.downloads_dir()):
            folder = downloads_dir / sha256
            if regular.is_folder(downloads_dir) and regular.is_folder(folder):
                for path in sorted(map(folder.joinpath, regular.names_in(folder))):
                    if path.suffix == names.STATEMENT_SUFFIX and is_save_id(path.stem):
                        with suppress(SignatureError):
                            pair = pairs.read(path, path.with_suffix(names.SIGNATURE_SUFFIX))
                            if pair is not None:
                                yield pair

    def keep_pair(self, sha256: str, save_id: str, pair: Pair) -> None:
        """Keep what is signed beside a download of these bytes, where there is one."""
        with self.place() as (downloads_dir, work_dir):
            folder = downloads_dir / sha256
            regular.check_folder(folder)
            if regular.is_folder(folder):
                paths = [folder / f"{save_id}{suffix}" for suffix in _PAIR_SUFFIXES]
                pairs.put(paths, pair, work_dir)

    @contextmanager
    def reading(self, find: Callable[[], Path]) -> Iterator[Path]:
        """Keep a file from being removed as a download until the block ends.

        Parameters
        ----------
        find : callable
            Returns the file; called again where that was removed before it could be locked.

        Yields
        ------
        pathlib.Path
            The file.
        """
        for is_last in (False,) * (_TRIES - 1) + (True,):
            path = find()
            try:
                file = regular.opened(path)
            except FileNotFoundError:
                if is_last:
                    raise
                continue
            with file:
                lock_for_reading(file)
                if is_last or regular.is_file(path):
                    yield path
                    return

    @contextmanager
    def place(self) -> Iterator[tuple[Path, Path]]:
        """Find where a download may be kept: in the folder, or in the cache of who only reads it.

        Yields
        ------
        tuple of pathlib.Path
            The folder of downloads, and a workspace on the same file system.

        Raises
        ------
        StoreError
            If neither can be written to.

        Notes
        -----
        What downloads of dead processes left is removed first.
        """
        layout = self._layout
        own, lock_path = layout.downloads_dir, layout.mlflow_dir / "store.lock"
        if all(map(files.may_write, (own, layout.tmp_dir, lock_path))):
            make_real_dir(own)
            make_real_dir(layout.tmp_dir)
            downloads_dir, tmp_dir = own, layout.tmp_dir
            others: tuple[Path, ...] = layout.swept_dirs
        else:
            others = ()
            downloads_dir, tmp_dir, lock_path = _cache_place(layout.mlflow_dir)
        guard = files.lock_at(lock_path)
        with files.locked(guard):
            files.sweep(tmp_dir, *others)
        with files.workspace(tmp_dir, guard) as work_dir:
            yield downloads_dir, work_dir

    @contextmanager
    def _alone(self, downloads_dir: Path, sha256: str) -> Iterator[None]:
        """Hold the lock of a digest, or go on without it where it cannot be had."""
        from filelock import Timeout  # imported lazily

        with ExitStack() as stack:
            with suppress(Timeout, StoreError):
                lock = files.lock_at(_lock_path(downloads_dir, sha256))
                stack.enter_context(files.locked(lock, self._wait_seconds))
            yield

    def _trim(self, downloads_dir: Path, newest: Path) -> None:
        """Remove the downloads that were not used for longest, until the others have room."""
        kept = sorted(_kept_in(downloads_dir), key=lambda one: one.used_ns)
        excess = sum(one.size for one in kept) - self._settings().downloads_max_bytes
        for one in kept:
            if excess <= 0:
                return
            if one.path != newest and _remove(downloads_dir, one.path):
                excess -= one.size


def lock_for_reading(file: BinaryIO) -> None:
    """Show that an open file is being read, until it is closed.

    Notes
    -----
    Where the system has no such locks it removes no open file (Windows), or there is nothing to
    hold it by; then what was opened can still be read to its end.
    """
    _flock(file, exclusively=False)


def note_use(path: Path) -> None:
    """Set the access time of a download, as far as that may be done; nothing else changes."""
    with suppress(OSError, NotImplementedError):
        follows = os.utime not in os.supports_follow_symlinks
        times_ns = (time.time_ns(), os.lstat(path).st_mtime_ns)
        os.utime(path, ns=times_ns, follow_symlinks=follows)


class _Kept(NamedTuple):
    """A download that is there."""

    path: Path
    size: int
    used_ns: int


def _kept_in(downloads_dir: Path) -> Iterator[_Kept]:
    """Yield the downloads in a folder: regular files with exactly the names that are given here."""
    if not regular.is_folder(downloads_dir):
        return
    for digest in regular.names_in(downloads_dir):
        folder = downloads_dir / digest
        if _DIGEST.fullmatch(digest) is None or not regular.is_folder(folder):
            continue
        for file_name in regular.names_in(folder):
            status = regular.status_of(folder / file_name)
            if status is not None and _is_download(file_name):
                yield _Kept(folder / file_name, status.st_size, status.st_atime_ns)


def _is_download(file_name: str) -> bool:
    stem = file_name.removesuffix(names.SUFFIX)
    return stem != file_name and names.is_plain(stem)


def _remove(downloads_dir: Path, path: Path) -> bool:
    """Remove a download, unless somebody reads it; return whether it is gone."""
    try:
        with regular.opened(path) as file:
            if not _flock(file, exclusively=True):
                return False
            if os.name != "nt":
                _unlink(downloads_dir, path)
        if os.name == "nt":  # which removes no open file
            path.unlink()
    except FileNotFoundError:
        return True
    except (OSError, StoreError):
        return False
    _remove_lock(downloads_dir, path.parent.name)
    return True


def _unlink(downloads_dir: Path, path: Path) -> None:
    """Unlink a download, and its folder if that is empty then; no link is followed on the way."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    top = os.open(downloads_dir, flags)
    try:
        folder = os.open(path.parent.name, flags, dir_fd=top)
        try:
            os.unlink(path.name, dir_fd=folder)
        finally:
            os.close(folder)
        with suppress(OSError):  # a download of another name has the same bytes
            remove_pairs_in(path.parent)
            os.rmdir(path.parent.name, dir_fd=top)
    finally:
        os.close(top)


def remove_pairs_in(folder: Path) -> None:
    """Remove what is signed of the downloads in a folder, once none of them is left in it."""
    found = regular.names_in(folder)
    if not any(file_name.endswith(names.SUFFIX) for file_name in found):
        for path in map(folder.joinpath, found):
            if path.suffix in _PAIR_SUFFIXES and is_save_id(path.stem):
                files.remove_file(path)


def _remove_lock(downloads_dir: Path, sha256: str) -> None:
    """Remove the lock file of a digest, unless somebody holds it."""
    from filelock import Timeout  # imported lazily

    path = _lock_path(downloads_dir, sha256)
    with suppress(Timeout, OSError, StoreError):
        if regular.is_file(path):
            with files.locked(files.lock_at(path), 0):
                files.remove_file(path)


def _flock(file: BinaryIO, *, exclusively: bool) -> bool:
    """Lock an open file without waiting; return false where others have locked it."""
    try:
        import fcntl
    except ImportError:
        return True
    kind = fcntl.LOCK_EX if exclusively else fcntl.LOCK_SH
    try:
        fcntl.flock(file.fileno(), kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no locks
        return True
    return True


def _finish(path: Path, time_ns: int | None) -> None:
    """Give a verified file its times, and make it durable."""
    with path.open("rb+") as file:
        now_ns = time.time_ns()
        os.utime(path, ns=(now_ns, now_ns if time_ns is None else time_ns))
        os.fsync(file.fileno())


def _lock_path(downloads_dir: Path, sha256: str) -> Path:
    return downloads_dir / f"{sha256}.lock"


def _path_in(downloads_dir: Path, sha256: str, name: str) -> Path:
    target = downloads_dir / sha256 / f"{name}{names.SUFFIX}"
    regular.check_folder(downloads_dir)
    regular.check_folder(target.parent)
    regular.check_file(target)
    return target


def _cache_place(mlflow_dir: Path) -> tuple[Path, Path, Path]:
    """Return the folders of downloads and of workspaces in the cache, made, and their lock."""
    cache = settings.cache_dir()
    tmp_dir, lock_path = cache / "tmp", cache / "cache.lock"
    try:
        make_real_dir(settings.downloads_dir())
        make_real_dir(tmp_dir)
        with files.locked(files.lock_at(lock_path)):
            pass
    except OSError as cause:
        raise StoreError(
            f"nothing can be downloaded: {mlflow_dir} may not be written to, and the cache "
            f"could not be used: {cause}. Set LOTTO_CACHE_DIR to a folder that may be written to",
            path=cache,
        ) from cause
    return settings.downloads_dir(), tmp_dir, lock_path
