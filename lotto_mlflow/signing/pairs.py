"""What is signed of a save, and its signature, in two files: on disk, and beside a model in MLflow.

Nothing is verified here. Whoever may write models may have put anything there: only regular files
in a real folder are read, and no more of them than a pair can have.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lotto_mlflow import files, model_dir, regular
from lotto_mlflow.errors import SignatureError, StoreError
from lotto_mlflow.files import remove_file, temporary_for
from lotto_mlflow.signing.signatures import MAX_SIGNATURE_BYTES, Pair
from lotto_mlflow.signing.statements import MAX_STATEMENT_BYTES


def read(statement_path: Path, signature_path: Path) -> Pair | None:
    """Return what two files of one folder hold, ``None`` where one of them is missing.

    Raises
    ------
    SignatureError
        If one is a link, a pipe or the like, too large, or cannot be read.
    """
    statement = _content(statement_path, MAX_STATEMENT_BYTES)
    signature = _content(signature_path, MAX_SIGNATURE_BYTES)
    return None if statement is None or signature is None else (statement, signature)


def read_beside_model(folder: Path) -> Pair | None:
    """Return the pair in an MLflow model folder, as `read` does."""
    return read(folder / model_dir.STATEMENT_FILE, folder / model_dir.SIGNATURE_FILE)


def put_beside_model(folder: Path, pair: Pair, work_dir: Path) -> None:
    """Write a pair into an MLflow model folder, each file in one step.

    Parameters
    ----------
    folder : pathlib.Path
        The model folder.
    pair : tuple of bytes
        What is signed, and the signature.
    work_dir : pathlib.Path
        The workspace for temporary files.

    Raises
    ------
    StoreError
        If a link or the like has the name of the folder or of a file.
    """
    put([folder / model_dir.STATEMENT_FILE, folder / model_dir.SIGNATURE_FILE], pair, work_dir)


def put(paths: Sequence[Path], pair: Pair, work_dir: Path) -> None:
    """Write a pair to two paths, as `put_beside_model` does."""
    for path, content in zip(paths, pair, strict=True):
        regular.check_folder(path.parent)
        regular.check_file(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_for(path, work_dir)
        try:
            temporary.write_bytes(content)
            files.put(temporary, path, work_dir)
        finally:
            remove_file(temporary)


def _content(path: Path, max_bytes: int) -> bytes | None:
    try:
        regular.check_folder(path.parent)
        return regular.content_of(path, max_bytes)
    except FileNotFoundError:
        return None
    except OSError as cause:
        summary = cause.summary if isinstance(cause, StoreError) else f"{path}: {cause}"
        raise SignatureError(
            f"a signature could not be read: {summary}", problem="bad", path=path
        ) from cause
