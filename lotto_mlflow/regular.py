"""Regular files and real folders: links are not followed, pipes and devices are not opened.

Whoever may write to a folder of models may put there a link to a file elsewhere, a pipe that never
answers, or a folder where a file belongs. Every read of what lies there goes through this module.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lotto_mlflow import advice, pyfunc_loader
from lotto_mlflow.errors import StoreError
from lotto_mlflow.text import composed

_BLOCK_BYTES = 1 << 20


def opened(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises
    ------
    StoreError
        If something else has its name. It was not opened.
    OSError
        If there is nothing of that name, or it may not be read.
    """
    try:
        return pyfunc_loader.open_regular(path)
    except OSError as cause:
        if cause.errno is None:  # the system's own refusals have a number
            raise _odd(path, odd_kind(path) or "no file") from cause
        raise


def content_of(path: Path, max_bytes: int) -> bytes:
    """Return what a regular file holds.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    max_bytes : int
        How large it may be; no more than this is read.

    Raises
    ------
    StoreError
        If it is larger, or no regular file.
    OSError
        As `opened` does.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise StoreError(
                f"{path} has {size:,} bytes, more than {max_bytes:,}, and was not read", path=path
            )
        return file.read(size)


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a regular file, 64 hexadecimal digits."""
    import hashlib  # imported lazily

    digest = hashlib.sha256()
    with opened(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def refusal(path: Path) -> OSError | None:
    """Return why the system does not let a file be read, ``None`` where it does."""
    try:
        opened(path).close()
    except StoreError:  # it is no file
        return None
    except OSError as cause:
        return cause
    return None


def is_one_file(one: Path | None, other: Path | None) -> bool:
    """Return whether two paths, of which links may be a part, lead to one file that is there."""
    try:
        return one is not None and other is not None and one.samefile(other)
    except (OSError, ValueError):
        return False


def real_path(path: Path) -> Path:
    """Return a path without links; ``Path.resolve`` raises where links lead in a circle.

    Notes
    -----
    A relative path leads nowhere where the current folder was deleted, and stays as it is.
    """
    try:
        return Path(os.path.realpath(path))
    except FileNotFoundError:
        return path


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return a path as it is seen from every folder.

    Raises
    ------
    StoreError
        If it is relative, and the current folder was deleted.
    """
    try:
        return Path(path).absolute()
    except FileNotFoundError as cause:
        raise StoreError(
            f"{os.fspath(path)} leads nowhere, since the current folder was deleted; change to a "
            "folder that exists, or give an absolute path, in LOTTO_APP_DIR for the default folder",
            path=Path(path),
        ) from cause


def as_named(path: Path) -> Path:
    """Return the path of what has this name, in whatever normal form of Unicode.

    Parameters
    ----------
    path : pathlib.Path
        A path. Where there is nothing, its last part is looked for in the other forms, and those
        before it where they, too, are missing.

    Returns
    -------
    pathlib.Path
        The path itself, where there is something or in no form anything. Of several forms the
        same one each time.

    Notes
    -----
    macOS hands out names in decomposed form, and what copies files from there keeps it; here names
    are composed. Nothing is listed for a name of ASCII.
    """
    if str(path).isascii() or os.path.lexists(path) or path.parent == path:
        return path
    folder = as_named(path.parent)
    if path.name.isascii():
        return folder / path.name
    wanted = composed(path.name)
    try:
        found = [name for name in os.listdir(folder) if composed(name) == wanted]
    except (OSError, ValueError):
        found = []
    return folder / min(found, default=path.name)


def is_below(place: Path, *folders: Path) -> bool:
    """Return whether a folder is one of these or below one, whatever links lead there."""
    place = real_path(place)
    return any(real_path(folder) in (place, *place.parents) for folder in folders)


def status_of(path: Path) -> os.stat_result | None:
    """Return the status of a regular file, ``None`` where there is nothing or something else."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):  # a name that no file can have
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def is_file(path: Path) -> bool:
    """Return whether a path is that of a regular file; a link is none."""
    return status_of(path) is not None


def is_folder(path: Path) -> bool:
    """Return whether a path is that of a folder; a link to one is none."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def odd_kind(path: Path) -> str | None:
    """Return what has the name of a file and is none, such as ``"a link"``, else ``None``."""
    try:
        return pyfunc_loader.kind_of_mode(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return None


def check_file(path: Path) -> None:
    """See that a path is free, or that of a regular file.

    Raises
    ------
    StoreError
        If it is that of something else, which was left as it is.
    """
    kind = odd_kind(path)
    if kind is not None:
        raise _odd(path, kind)


def _odd(path: Path, kind: str) -> StoreError:
    return StoreError(
        f"{path} is {kind}, not a file, and was left as it is. Move it away, or put a file in "
        "its place",
        path=path,
    )


def check_folder(path: Path) -> None:
    """See that a path is free, or that of a real folder.

    Raises
    ------
    StoreError
        If it is that of something else, such as a link to a folder. Nothing in it was touched.
    """
    if os.path.lexists(path) and not is_folder(path):
        kind = odd_kind(path) or "a file"
        raise StoreError(
            f"{path} is {kind}, not a folder, and nothing in it was touched. Move it away: files "
            "are moved and removed there, so only a real folder will do",
            path=path,
        )


@contextmanager
def scanned(folder: Path, *, must_be_folder: bool = False) -> Iterator[Iterator[os.DirEntry[str]]]:
    """List a folder, in no order, and look at what is in it; one that is missing is empty.

    Parameters
    ----------
    folder : pathlib.Path
        The folder.
    must_be_folder : bool
        Whether something else of its name is an error, and not as good as none.

    Yields
    ------
    iterator of os.DirEntry
        What lies in it.

    Raises
    ------
    StoreError
        If it cannot be listed, or what is in it cannot be looked at.
    """
    try:
        entries = os.scandir(folder)
    except OSError as cause:
        none = FileNotFoundError if must_be_folder else (FileNotFoundError, NotADirectoryError)
        if isinstance(cause, none):
            yield iter(())
            return
        raise _unlisted(folder, cause) from cause
    with entries:
        try:
            yield entries
        except PermissionError as cause:
            raise _unlisted(folder, cause) from cause


def names_in(folder: Path) -> list[str]:
    """Return what a folder holds, as `scanned` does."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as cause:
        raise _unlisted(folder, cause) from cause


def _unlisted(folder: Path, cause: OSError) -> StoreError:
    helps = advice.of_error(cause, folder, reads=True)
    return StoreError(f"{folder} could not be listed: {cause}; {helps}", path=folder)


def below(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield what lies in a folder and the real folders below it, by name, except those folders.

    Yields
    ------
    tuple of pathlib.Path and (str or None)
        A path, and what it is where it is no regular file.
    """
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted([*files, *(n for n in folders if Path(parent, n).is_symlink())]):
            path = Path(parent, name)
            yield path, odd_kind(path)
