"""Small file operations that hold across crashes: durable writes, links, workspaces, locks."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lotto_mlflow import advice, regular
from lotto_mlflow.errors import StoreError

if TYPE_CHECKING:
    from filelock import FileLock

_POLL_SECONDS = 0.005
_FOLDERS_CANNOT_BE_SYNCED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS)
"""What a file system answers that has no such call for folders; EIO is a real failure."""
_COPY_BYTES = 1 << 30
_BLOCK_BYTES = 1 << 20
_LOCK_OF_WORKSPACE = re.compile(r"([0-9a-f]{12})\.lock")


def lock_at(path: Path) -> FileLock:
    """Return an inter-process lock.

    Parameters
    ----------
    path : pathlib.Path
        The lock file; its folder is made if need be. The operating system lets go of the lock
        when its holder dies. Who may lock it is whom the umask of its maker lets write it.

    Notes
    -----
    Where there is no ``flock``, filelock's other lock would wait for ever: it takes a file that is
    left from before for one that is locked. Hence such a file system is refused.
    """
    from filelock import FileLock  # imported lazily

    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, fallback_to_soft=False)


@contextmanager
def locked(lock: FileLock, timeout_seconds: float = -1) -> Iterator[None]:
    """Hold a lock; negative seconds wait for ever.

    Raises
    ------
    filelock.Timeout
        If the lock was not had in time.
    StoreError
        If its file cannot be one, may not be written, or the file system has no locks.
    """
    _acquire(lock, timeout_seconds)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, timeout_seconds: float = -1) -> None:
    from filelock import Timeout  # imported lazily

    path = Path(lock.lock_file)
    regular.check_file(path)
    try:
        lock.acquire(timeout=timeout_seconds, poll_interval=_POLL_SECONDS)
    except Timeout:
        raise
    except (OSError, NotImplementedError) as cause:
        helps = advice.of_error(cause, path, locks=True)
        raise StoreError(f"{path} could not be locked: {cause}; {helps}", path=path) from cause


def sync_dir(path: Path) -> None:
    """Make the entries of a folder durable, where the system and the file system can do so."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as cause:
        if cause.errno not in _FOLDERS_CANNOT_BE_SYNCED:
            raise


def write_durably(path: Path, content: bytes, mode: int | None = None) -> None:
    """Write a new file and make its content durable; its entry in the folder is not yet."""
    with path.open("xb") as file:
        if mode is not None:
            _set_mode(file, path, mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _set_mode(file: BinaryIO, path: Path, mode: int) -> None:
    if hasattr(os, "fchmod"):
        os.fchmod(file.fileno(), mode)
    else:
        path.chmod(mode)


def mode_of(path: Path) -> int | None:
    """Return who may read and write a regular file, ``None`` where there is none."""
    status = regular.status_of(path)
    return None if status is None else stat.S_IMODE(status.st_mode) & 0o777


def replace_content(
    path: Path, content: bytes, workspace_dir: Path, mode: int | None = None
) -> None:
    """Give a file new content in one step, by way of a file beside or in the workspace.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    content : bytes
        What it is to hold.
    workspace_dir : pathlib.Path
        The workspace for temporary files.
    mode : int, optional
        Who may read and write it; by default who might before, of a new file who the system says.
    """
    temporary = temporary_for(path, workspace_dir)
    try:
        write_durably(temporary, content, mode_of(path) if mode is None else mode)
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
            copy_content(temporary, beside, durably=True)
            os.replace(beside, path)
        finally:
            remove_file(beside)


def link_or_copy(source: Path, target: Path, workspace_dir: Path) -> None:
    """Put a second entry of a file at a new path, by a link, or by a durable copy.

    Raises
    ------
    FileExistsError
        If there is something at the new path.
    StoreError
        If the source is no regular file; a link is not followed.
    """
    regular.check_file(source)
    try:
        os.link(source, target)
        if not regular.is_file(target):  # it was exchanged in this very moment
            remove_file(target)
            regular.check_file(source)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
    except (FileExistsError, FileNotFoundError, StoreError):
        raise
    except OSError:  # no hard links here, or none between these two folders
        if os.path.lexists(target):
            raise FileExistsError(f"{target} exists") from None
        temporary = temporary_for(target, workspace_dir)
        try:
            copy_content(source, temporary, durably=True)
            put(temporary, target, workspace_dir)
        finally:
            remove_file(temporary)


def copy_content(source: Path, target: Path, *, durably: bool = False) -> None:
    """Copy a regular file to a new file, which shares its blocks where they can be shared.

    Parameters
    ----------
    source, target : pathlib.Path
        The file, and the one to make. Who may read and write the one may do so with the other.
    durably : bool
        Whether the copy has the file's time, too, and is on the disk when this returns.

    Notes
    -----
    XFS and Btrfs then copy nothing, and give each file blocks of its own once one is written to.
    """
    with regular.opened(source) as read, _new_file(target) as written:
        status = os.fstat(read.fileno())
        _set_mode(written, target, stat.S_IMODE(status.st_mode) & 0o777)
        _copy_bytes(read, written)
        if durably:
            written.flush()
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(written.fileno())


def _new_file(path: Path) -> BinaryIO:
    """Open a new file that nobody else can read yet."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _copy_bytes(read: BinaryIO, written: BinaryIO) -> None:
    if hasattr(os, "copy_file_range"):
        try:
            while os.copy_file_range(read.fileno(), written.fileno(), _COPY_BYTES):
                pass
            return
        except OSError:  # not between these two file systems, or not on this one
            read.seek(0)
            written.truncate(0)
            written.seek(0)
    while block := read.read(_BLOCK_BYTES):
        written.write(block)


def copy_tree(source: Path, target: Path) -> list[Path]:
    """Copy the regular files of a folder, and of the real folders below it, into a folder.

    Parameters
    ----------
    source, target : pathlib.Path
        The folder, and the one that gets its files; those are new there.

    Returns
    -------
    list of pathlib.Path
        What was left out, because it is a link, a pipe, or something else that is no file.
    """
    if not regular.is_folder(source):
        return [source]
    target.mkdir(parents=True, exist_ok=True)
    left_out = []
    for path, odd_kind in regular.below(source):
        copy = target / path.relative_to(source)
        if odd_kind is None:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy_content(path, copy)
        else:
            left_out.append(path)
    return left_out


def may_write(path: Path) -> bool:
    """Return whether a file or folder may be written to, or made where it is missing."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return os.access(path, os.W_OK)


def remove_file(path: Path) -> None:
    """Remove a temporary file, as far as that can be done; `sweep` removes what is left."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that can be done; of a link, the link."""
    from shutil import rmtree  # imported lazily

    if regular.is_folder(folder):
        rmtree(folder, ignore_errors=True)
    else:
        remove_file(folder)


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
    regular.check_folder(tmp_dir)
    name = _random_name()[:12]
    folder, in_use = tmp_dir / name, lock_at(tmp_dir / f"{name}.lock")
    try:
        with locked(guard):
            _acquire(in_use)
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

    Notes
    -----
    Only what has exactly the name that this module gives is removed: a name is no path here, and
    no pattern.
    """
    from filelock import Timeout

    regular.check_folder(tmp_dir)
    for file_name in _names_in(tmp_dir):
        match = _LOCK_OF_WORKSPACE.fullmatch(file_name)
        if match is None or not regular.is_file(tmp_dir / file_name):
            continue
        with suppress(Timeout, OSError):
            with locked(lock_at(tmp_dir / file_name), 0):
                for folder in others:
                    _remove_left_overs(folder, match[1])
                remove_tree(tmp_dir / match[1])
            remove_file(tmp_dir / file_name)


def _remove_left_overs(folder: Path, workspace_name: str) -> None:
    pattern = re.compile(rf"\.{workspace_name}\.[0-9a-f]{{32}}\.tmp")
    for file_name in _names_in(folder):
        if pattern.fullmatch(file_name):
            remove_file(folder / file_name)


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def local_path(uri: str) -> Path | None:
    """Return the folder that an artifact URI means on this machine, ``None`` for a remote one."""
    from urllib.parse import urlsplit  # imported lazily
    from urllib.request import url2pathname

    if not uri:
        return None
    try:
        parts = urlsplit(uri)
    except ValueError:  # no URI at all, as whoever opens it will say
        return None
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(url2pathname(parts.path))
    is_plain = not parts.scheme or len(parts.scheme) == 1  # one letter is a drive of Windows
    return Path(uri) if is_plain else None
