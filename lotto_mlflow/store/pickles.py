"""Model files: written by joblib and hashed on the way, or read back."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from lotto_mlflow import advice, pyfunc_loader
from lotto_mlflow.errors import DumpError, LoadError
from lotto_mlflow.files import remove_file
from lotto_mlflow.store.hashed import HashingFile
from lotto_mlflow.store.named import NamingFile
from lotto_mlflow.threads import started

_logger = logging.getLogger("lotto_mlflow")
_UNREADABLE = ". It is not a whole joblib file, or what it needs is not installed here"
_SYNC_BYTES = 1 << 24
_PAUSE_SECONDS = 0.002


@dataclass(frozen=True)
class Staged:
    """A model file that is complete and durable, but not yet in place.

    Attributes
    ----------
    path : pathlib.Path
        Where it lies.
    sha256 : str
        Digest of its bytes.
    size : int
        Bytes in it.
    names : mapping of str to set of str
        The classes and functions that it names, by module.
    """

    path: Path
    sha256: str
    size: int
    names: Mapping[str, Set[str]]


def dump(model: Any, path: Path, *, beside: Callable[[], object] | None = None) -> Staged:
    """Write a model to a new file with joblib, and make it durable.

    Parameters
    ----------
    model : object
        The model.
    path : pathlib.Path
        The new file.
    beside : callable, optional
        Called when the writing begins, to start what can be done meanwhile.

    Raises
    ------
    DumpError
        If the model cannot be pickled, or the disk refuses; the file is gone again.

    Notes
    -----
    Two threads work while joblib writes: one hashes the blocks that it writes, never what lies in
    the file, where others may have written by then; the other has the disk take it. So little of
    either is left to do at the end. What the pickle names is read as it passes by.
    """
    import joblib  # imported lazily

    written = threading.Event()
    try:
        with path.open("xb") as file:
            hashing = HashingFile(file)
            durable = started(partial(_sync_growing, file.fileno(), written))
            try:
                if beside is not None:
                    beside()
                naming = NamingFile(hashing)
                joblib.dump(model, naming)
                naming.end()
                file.flush()
            finally:
                written.set()
                digest, size = hashing.end()
                durable()
    except Exception as cause:
        remove_file(path)
        is_refused = advice.number_of(cause) is not None
        helps = f"; {advice.of_error(cause, path)}" if is_refused else ""
        raise DumpError(
            f"{type(model).__name__} could not be written to {path.parent}: "
            f"{type(cause).__name__}: {cause}. Nothing was saved; the folder is as it was{helps}",
            path=path,
        ) from cause
    if naming.problem is not None:
        _logger.warning(
            "not all classes and functions that %s needs could be found (%s); see that the "
            "requirements of its version in MLflow are complete",
            type(model).__name__,
            naming.problem,
        )
    return Staged(path, digest, size, naming.found)


def _sync_growing(descriptor: int, written: threading.Event) -> None:
    """Make a file durable that grows until it is written, part by part."""
    durable = 0
    while not written.wait(_PAUSE_SECONDS):
        size = os.fstat(descriptor).st_size
        if size - durable >= _SYNC_BYTES:
            os.fsync(descriptor)
            durable = size
    os.fsync(descriptor)


def private_copy(file: BinaryIO, path: Path) -> tuple[BinaryIO, str]:
    """Copy an open model file to where nobody else can write; return the copy and its SHA-256.

    Raises
    ------
    LoadError
        If it cannot be read, or there is no room for the copy of a large one.
    """
    try:
        return pyfunc_loader.private_copy(file)
    except (OSError, MemoryError) as cause:
        helps = "free some memory"
        if isinstance(cause, OSError):
            helps = advice.of_error(cause)
        raise LoadError(
            f"{path} could not be copied to be verified: {type(cause).__name__}: {cause}. Above "
            f"{pyfunc_loader.IN_MEMORY_BYTES >> 20} MB the copy lies in the system's temporary "
            f"folder, which TMPDIR sets, and else in memory; {helps}",
            path=path,
        ) from cause


def load(copy: BinaryIO, path: Path) -> Any:
    """Unpickle a private copy whose digest has been checked.

    Parameters
    ----------
    copy : binary file
        What `private_copy` returned.
    path : pathlib.Path
        The file that it was copied from.

    Raises
    ------
    LoadError
        If joblib cannot read it, or its arrays are in other files, which are not opened.
    """
    try:
        return pyfunc_loader.unpickle(copy)
    except Exception as cause:
        if str(cause) == pyfunc_loader.SIDE_FILES:
            raise LoadError(f"{path} {pyfunc_loader.SIDE_FILES}", path=path) from cause
        # the loader says what is missing, and what to do about that
        advice = "" if isinstance(cause, (AttributeError, ImportError)) else _UNREADABLE
        raise LoadError(
            f"{path} could not be read by joblib: {type(cause).__name__}: {cause}{advice}",
            path=path,
        ) from cause
