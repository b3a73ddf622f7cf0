"""Model files: written by joblib and hashed on the way, or read back."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lotto_mlflow.errors import DumpError, LoadError
from lotto_mlflow.pyfunc_loader import sha256_of


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
    """

    path: Path
    sha256: str
    size: int


class _HashingFile:
    """A binary file that hashes what is written to it; joblib asks for nothing more."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._file.write(view)
        self._digest.update(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        return self.size

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def dump(model: Any, path: Path) -> Staged:
    """Write a model to a new file with joblib, hashing on the way, and make it durable.

    Raises
    ------
    DumpError
        If the model cannot be pickled, or the disk refuses; the file is gone again.
    """
    import joblib  # here, because importing this package is to cost little

    try:
        with path.open("xb") as file:
            hashing = _HashingFile(file)
            joblib.dump(model, hashing)
            file.flush()
            os.fsync(file.fileno())
    except Exception as cause:
        path.unlink(missing_ok=True)
        raise DumpError(
            f"{type(model).__name__} could not be written to {path.parent}: "
            f"{type(cause).__name__}: {cause}. Nothing was saved; the folder is as it was",
            path=path,
        ) from cause
    return Staged(path, hashing.hexdigest(), hashing.size)


def load(file: BinaryIO, path: Path) -> Any:
    """Unpickle an open file whose digest has been checked.

    Raises
    ------
    LoadError
        If joblib cannot read it.
    """
    import joblib  # here, because importing this package is to cost little

    try:
        return joblib.load(file)
    except Exception as cause:
        raise LoadError(
            f"{path} could not be read by joblib: {type(cause).__name__}: {cause}. "
            "It is not a whole joblib file, or what it needs is not installed here",
            path=path,
        ) from cause


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return sha256_of(file)
