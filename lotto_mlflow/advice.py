"""What helps against what the system refused: advice by the number of an error."""

from __future__ import annotations

import errno
import os
import shlex  # noqa: F401 - by which commands are quoted: no time to look for it once files run out
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lotto_mlflow.text import shell_command

try:
    import pwd
except ImportError:  # Windows
    pwd = None  # type: ignore[assignment]

_NUMBERS = (
    (
        ("ENOSPC",),
        "free some room on its file system; where df -h shows room, df -i shows whether it has as "
        "many files as it can hold",
    ),
    (("EDQUOT",), "free some room: this user's quota there is used up"),
    (("EFBIG",), "raise the limit of a file's size (ulimit -f), or use a file system without it"),
    (("EROFS",), "it is mounted read-only: mount it for writing, or use another folder"),
    (("ENAMETOOLONG",), "give a shorter name, or use a folder with a shorter path"),
    (("EILSEQ",), "its file system cannot hold such a name: give a plainer one"),
    (
        ("EIO", "EUCLEAN", "ENXIO", "ENODEV", "ENOMEDIUM"),
        "the disk, or the way to it, is failing: see what the system says of it (dmesg), and copy "
        "the folder to another disk",
    ),
    (("EMFILE",), "this process has too many files open: close some, or raise ulimit -n"),
    (("ENFILE",), "the system has too many files open: end some programs, or raise fs.file-max"),
    (("ENOMEM", "ENOBUFS"), "free some memory"),
    (
        ("ESTALE", "ETIMEDOUT", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ECONNRESET",
         "ECONNABORTED", "ECONNREFUSED", "ENETDOWN", "ENETUNREACH", "EREMOTEIO", "ESHUTDOWN"),
        "the network file system lost it: see that its server answers, or mount it anew",
    ),
    (("ELOOP",), "links lead in a circle, or are not followed: put a real file or folder there"),
    (("ENOTDIR",), "what is no folder has the name of one: move it away"),
    (("EISDIR",), "a folder has the name of a file: move it away"),
    (("EEXIST", "ENOTEMPTY"), "something else has that name: move it away"),
    (("ENOENT",), "it was moved or removed meanwhile: bring it back, and try again"),
    (("ETXTBSY", "EBUSY"), "another program has it in use: end that, and try again"),
    (("EMLINK",), "its file system holds no more links to it, or folders in it: use another one"),
    (("ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EINVAL"),
     "its file system cannot do that: use a folder on a local disk"),
    (("EAGAIN", "EINTR"), "try again"),
)  # fmt: skip
_BY_NUMBER = {
    getattr(errno, name): text for names, text in _NUMBERS for name in names if hasattr(errno, name)
}
_NO_RIGHTS = (errno.EACCES, errno.EPERM)
_NO_LOCKS = tuple(
    getattr(errno, name)
    for name in ("ENOLCK", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EINVAL")
    if hasattr(errno, name)
)
_LOCKS = (
    "its file system has no locks, without which two processes would spoil each other's work: use "
    "a folder on a local disk, or mount it with locks (NFS: without nolock, and with rpc.statd or "
    "version 4; CIFS: without nobrl; Lustre: with flock)"
)
_OF_SQLITE = (
    ("readonly database", errno.EACCES),
    ("unable to open database", errno.EACCES),
    ("access permission", errno.EACCES),
    ("disk is full", errno.ENOSPC),
    ("disk I/O error", errno.EIO),
    ("locking protocol", errno.ENOLCK),
)
"""What SQLite says has no number of the system's; it puts these words into every message."""
_OTHERWISE = "try again"
_CAUSES = 10


def number_of(cause: BaseException | None) -> int | None:
    """Return the system's number of an error, or of one that led to it; ``None`` without any."""
    for one in _chain(cause):
        if isinstance(one, OSError) and one.errno is not None:
            return one.errno
        if isinstance(one, NotImplementedError):  # filelock says so where flock does not exist
            return errno.ENOSYS
        if type(one).__module__ == "sqlite3":
            return next((n for words, n in _OF_SQLITE if words in str(one)), None)
    return None


def _chain(cause: BaseException | None) -> Iterable[BaseException]:
    for _ in range(_CAUSES):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def of_error(
    cause: BaseException, *paths: Path | str, reads: bool = False, locks: bool = False
) -> str:
    """Return what helps against an error of the system, as the end of a sentence.

    Parameters
    ----------
    cause : BaseException
        The error, or one that it led to.
    *paths : path-like
        What was worked on, where the error does not say.
    reads : bool
        Whether it was only to be read.
    locks : bool
        Whether it was to be locked.

    Returns
    -------
    str
        Of missing rights it names the first file or folder that lacks one, and the command that
        grants it. Advice of no kind asks for a removal of what may hold a model.
    """
    number = number_of(cause)
    if number is None:
        return _OTHERWISE
    if (locks and number in _NO_LOCKS) or number == errno.ENOLCK:
        return _LOCKS
    if number in _NO_RIGHTS:
        return of_rights((*_paths_in(cause), *map(Path, paths)), reads=reads)
    return _BY_NUMBER.get(number) or _OTHERWISE


def _paths_in(cause: BaseException) -> Iterable[Path]:
    for one in _chain(cause):
        for name in (getattr(one, "filename", None), getattr(one, "filename2", None)):
            if isinstance(name, (str, bytes)):
                yield Path(os.fsdecode(name))


def of_rights(paths: Iterable[Path], *, reads: bool = False) -> str:
    """Return how the first right that lacks for one of these paths can be granted."""
    for path in dict.fromkeys(paths):
        with suppress(OSError, ValueError):
            found = _lacking(path, reads=reads)
            if found is not None:
                return found
    return "grant the rights, or see whether it may be changed at all (lsattr)"


def _lacking(path: Path, *, reads: bool) -> str | None:
    """Return what helps where a right for a path lacks: of a folder above, of itself, beside it."""
    for folder in reversed(path.absolute().parents):
        if os.path.lexists(folder) and not _may(folder, os.X_OK):
            return _granted(folder, "x" if reads else "wx")
    if _is_read_only(path) and not reads:
        return _BY_NUMBER[errno.EROFS]
    is_there = os.path.lexists(path)
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if is_there and not reads and _is_kept_by_sticky_bit(path, folder):
        return (
            "only its owner may replace a file there; let the group do so: "
            f"{shell_command(['chmod', '-t', str(folder)])}"
        )
    letters = "r" if reads else "rw"
    missing = _missing(path, f"{letters}x" if path.is_dir() else letters) if is_there else ""
    if missing:
        return _granted(path, missing)
    missing = "" if reads and is_there else _missing(folder, "rx" if reads else "wx")
    return _granted(folder, missing) if missing else None


def _missing(path: Path, letters: str) -> str:
    flags = {"r": os.R_OK, "w": os.W_OK, "x": os.X_OK}
    return "".join(letter for letter in letters if not _may(path, flags[letter]))


def _may(path: Path, flag: int) -> bool:
    return os.access(path, flag, effective_ids=os.access in os.supports_effective_ids)


def _is_read_only(path: Path) -> bool:
    there = next(one for one in (path, *path.absolute().parents) if os.path.lexists(one))
    return hasattr(os, "statvfs") and bool(os.statvfs(there).f_flag & os.ST_RDONLY)


def _is_kept_by_sticky_bit(path: Path, folder: Path) -> bool:
    if not hasattr(os, "geteuid"):  # Windows has no such bit
        return False
    status = folder.stat()
    is_own = os.geteuid() in (0, status.st_uid, os.lstat(path).st_uid)
    return bool(status.st_mode & stat.S_ISVTX) and not is_own


def _granted(path: Path, letters: str) -> str:
    """Return the command that grants rights, and who may call it."""
    status = path.stat()
    if not hasattr(os, "geteuid"):
        return f"grant the rights to {path}"
    if status.st_uid == os.geteuid():
        return f"grant the rights: {shell_command(['chmod', f'u+{letters}', str(path)])}"
    command = shell_command(["chmod", f"g+{letters}", str(path)])
    if status.st_gid not in (os.getegid(), *os.getgroups()):
        command = f"{shell_command(['chgrp', 'GROUP', str(path)])}; {command}"
        group = ", GROUP being one that both users are in"
    else:
        group = ""
    later = "" if "w" not in letters else "; whoever saves there needs umask 002"
    return f"its owner, {_user(status.st_uid)}, can grant the rights: {command}{group}{later}"


def _user(number: int) -> str:
    try:
        return f"{pwd.getpwuid(number).pw_name}"
    except (AttributeError, KeyError):
        return f"user {number}"
