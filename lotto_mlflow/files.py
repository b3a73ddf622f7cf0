"""Small file operations that hold across crashes: durable writes, links, workspaces, locks."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import FileLock

_POLL_SECONDS = 0.005
_FOLDERS_CANNOT_BE_SYNCED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""What a file system answers that has no such call for folders; EIO is a real failure."""
_COPY_BYTES = 1 << 30


def lock_at(path: Path) -> FileLock:
    """Return an inter-process lock.

    Parameters
    ----------
    path : pathlib.Path
        The lock file; its folder is made if need be. The operating system lets go of the lock
        when its holder dies.
    """
    from filelock import FileLock  # imported lazily

    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


@contextmanager
def locked(lock: FileLock, timeout_seconds: float = -1) -> Iterator[None]:
    """Hold a lock; negative seconds wait for ever.

    Raises
    ------
    filelock.Timeout
        If the lock was not had in time.
    """
    with lock.acquire(timeout=timeout_seconds, poll_interval=_POLL_SECONDS):
        yield


def sync_dir(path: Path) -> None:
    """Make the entries of a folder durable, where the system and the file system can do so."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as cause:
        if cause.errno not in _FOLDERS_CANNOT_BE_SYNCED:
            raise
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Write a new file and make its content durable; its entry in the folder is not yet."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_content(path: Path, content: bytes, workspace_dir: Path) -> None:
    """Give a file new content in one step, by way of a file beside or in the workspace."""
    temporary = temporary_for(path, workspace_dir)
    try:
        write_durably(temporary, content)
        put(temporary, path, workspace_dir)
    finally:
        remove_file(temporary)


def temporary_for(path: Path, workspace_dir: Path) -> Path:
    """Return an unused path from which a file can be renamed to the one given.

    That is in the workspace, or, where the target lies on another file system, beside the target
    under a hidden name that carries the name of the workspace, for `sweep` to find.
    """
    if path.parent.stat().st_dev == workspace_dir.stat().st_dev:
        return workspace_dir / _random_name()
    return _beside(path, workspace_dir)


def _random_name() -> str:
    return os.urandom(16).hex()


def _beside(path: Path, workspace_dir: Path) -> Path:
    return path.parent / f".{workspace_dir.name}.{_random_name()}.tmp"


def put(temporary: Path, path: Path, workspace_dir: Path) -> None:
    """Rename a file from where `temporary_for` put it; the step is atomic.

    Notes
    -----
    Two mounts of one file system have the same number, and still cannot be renamed across; there
    the file is copied first, to beside its target.
    """
    try:
        os.replace(temporary, path)
    except OSError as cause:
        if cause.errno != errno.EXDEV:
            raise
        beside = _beside(path, workspace_dir)
        try:
            _copy_durably(temporary, beside)
            os.replace(beside, path)
        finally:
            remove_file(beside)


def link_or_copy(source: Path, target: Path, workspace_dir: Path) -> None:
    """Put a second entry of a file at a new path, by a link, or by a durable copy.

    Raises
    ------
    FileExistsError
        If there is something at the new path.
    """
    original = source.resolve(strict=True)
    try:
        os.link(original, target)
    except FileExistsError:
        raise
    except OSError:  # no hard links here, or none between these two folders
        if os.path.lexists(target):
            raise FileExistsError(f"{target} exists") from None
        temporary = temporary_for(target, workspace_dir)
        try:
            _copy_durably(original, temporary)
            put(temporary, target, workspace_dir)
        finally:
            remove_file(temporary)


def copy_content(source: Path, target: Path) -> None:
    """Copy the content of a file to a new file, which shares its blocks where they can be shared.

    Notes
    -----
    XFS and Btrfs then copy nothing, and give each file blocks of its own once one is written to.
    """
    if not hasattr(os, "copy_file_range"):
        _copy_bytes(source, target)
        return
    with source.open("rb") as read, target.open("wb") as written:
        try:
            while os.copy_file_range(read.fileno(), written.fileno(), _COPY_BYTES):
                pass
        except OSError:  # not between these two file systems, or not on this one
            _copy_bytes(source, target)


def _copy_bytes(source: Path, target: Path) -> None:
    from shutil import copyfile  # imported lazily

    copyfile(source, target)


def remove_file(path: Path) -> None:
    """Remove a temporary file, as far as that can be done; `sweep` removes what is left."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that can be done."""
    from shutil import rmtree  # imported lazily

    rmtree(folder, ignore_errors=True)


def _copy_durably(source: Path, target: Path) -> None:
    copy_content(source, target)
    status = source.stat()
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    with target.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def workspace(tmp_dir: Path, guard: FileLock) -> Iterator[Path]:
    """Make a folder that is this process's own until the block ends.

    Parameters
    ----------
    tmp_dir : pathlib.Path
        Where the folder is made, beside a lock file of the same name that shows it is in use.
    guard : filelock.FileLock
        Locked while the two are made, so that `sweep`, which runs under it too, sees both or none.

    Yields
    ------
    pathlib.Path
        The folder; it is removed at the end.
    """
    name = _random_name()[:12]
    folder, in_use = tmp_dir / name, lock_at(tmp_dir / f"{name}.lock")
    try:
        with locked(guard):
            in_use.acquire()
            folder.mkdir()
        yield folder
    finally:
        remove_tree(folder)
        in_use.release()
        remove_file(tmp_dir / f"{name}.lock")


def sweep(tmp_dir: Path, *others: Path) -> None:
    """Remove the workspaces of processes that are gone; the caller holds the guard.

    Parameters
    ----------
    tmp_dir : pathlib.Path
        Folder of the workspaces.
    *others : pathlib.Path
        Folders where `temporary_for` and `put` may have left files.
    """
    from filelock import FileLock, Timeout

    for lock_path in tmp_dir.glob("*.lock"):
        in_use = FileLock(lock_path)
        with suppress(Timeout, OSError):
            in_use.acquire(timeout=0)
            for folder in others:
                for left_over in folder.glob(f".{lock_path.stem}.*.tmp"):
                    left_over.unlink(missing_ok=True)
            remove_tree(tmp_dir / lock_path.stem)
            in_use.release()
            lock_path.unlink(missing_ok=True)


def local_path(uri: str) -> Path | None:
    """Return the folder that an artifact URI means on this machine, ``None`` for a remote one."""
    from urllib.parse import urlsplit  # imported lazily
    from urllib.request import url2pathname

    if not uri:
        return None
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(url2pathname(parts.path))
    is_plain = not parts.scheme or len(parts.scheme) == 1  # one letter is a drive of Windows
    return Path(uri) if is_plain else None
