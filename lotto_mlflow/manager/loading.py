"""Loading: find what the bytes should be, verify them, unpickle them, say what was loaded."""

from __future__ import annotations

import logging
import os
from importlib import metadata as distributions
from pathlib import Path
from typing import Any

from lotto_mlflow import layout as names
from lotto_mlflow import metadata, store
from lotto_mlflow.errors import (
    DigestMismatchError,
    LoadError,
    ModelNotFoundError,
    PickleNotAllowedError,
)
from lotto_mlflow.manager.parts import Parts
from lotto_mlflow.pyfunc_loader import pickle_is_allowed, recorded_sha256, sha256_of
from lotto_mlflow.records import ModelRecord, SaveRecord
from lotto_mlflow.requirements import version_in

_logger = logging.getLogger("lotto_mlflow")
_REPLACED_TRIES = 10


def load_file(parts: Parts, path: Path, of_version: ModelRecord | None = None) -> Any:
    """Load a model file, verified where its digest is known.

    Parameters
    ----------
    parts : Parts
        The folder.
    path : pathlib.Path
        The file.
    of_version : ModelRecord, optional
        The version whose bytes the file must have.

    Notes
    -----
    The bytes that are hashed are the ones that are unpickled: the file is opened once, and a save
    that replaces it meanwhile does not change what is open here. Where the digest does not fit
    because the file has been replaced, the new one is tried.
    """
    if (of_version is not None or _is_mirrored(parts, path)) and not pickle_is_allowed():
        raise PickleNotAllowedError(
            f"{path} is a mirrored pickle, and MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false forbids "
            "opening one; set it to true if you trust where the model comes from",
            path=path,
        )
    for _ in range(_REPLACED_TRIES):
        with _opened(path) as file:
            found = sha256_of(file)
            known = _known_digests(parts, path, of_version)
            if not known or found in known:
                model = store.load(file, path)
                _report(parts, path, found, of_version, is_verified=bool(known))
                return model
            if not _was_replaced(path, file.fileno()):
                break
    raise _mismatch(path, known, found)


def _opened(path: Path) -> Any:
    try:
        if path.is_dir():
            raise LoadError(f"{path} is a folder, not a model file; give the .pkl in it", path=path)
        if path.stat().st_size == 0:
            raise LoadError(f"{path} is empty; bring the file back from a backup", path=path)
        return path.open("rb")
    except FileNotFoundError as cause:
        raise ModelNotFoundError(f"Model file not found: {path}", path=path) from cause
    except LoadError:
        raise
    except (OSError, ValueError) as cause:
        raise LoadError(f"{path} could not be opened: {cause}", path=path) from cause


def _is_mirrored(parts: Parts, path: Path) -> bool:
    here = path.absolute()
    return _model_dir_of(path) is not None or parts.layout.downloads_dir.absolute() in here.parents


def _model_dir_of(path: Path) -> Path | None:
    """Return the MLflow model folder that a file is the data of, if it is one."""
    folder = path.absolute().parent.parent
    return folder if (folder / "MLmodel").is_file() else None


def _known_digests(parts: Parts, path: Path, of_version: ModelRecord | None) -> set[str]:
    if of_version is not None:
        return {str(of_version.sha256)}
    model_dir = _model_dir_of(path)
    if model_dir is not None:
        recorded = recorded_sha256(model_dir)
        return {recorded} if recorded else set()
    if parts.layout.downloads_dir.absolute() in path.absolute().parents:
        return {path.parent.name}
    metadata_path = parts.layout.metadata_of(path.absolute())
    if metadata_path is None:
        return set()
    return _digests_of_name(parts, path, metadata_path)


def _digests_of_name(parts: Parts, path: Path, metadata_path: Path) -> set[str]:
    """Return the digests in the metadata and in the records of a file's name."""
    model_names = {names.name_of(path)}
    if path.absolute().parent == parts.layout.backup_dir:
        model_names.add(names.name_of_backup(path))
    digests = {record.sha256 for name in model_names for record in parts.outbox.of_name(name)}
    on_disk = read_metadata(metadata_path) or {}
    if isinstance(on_disk.get("sha256"), str):
        digests.add(on_disk["sha256"])
    return digests


def read_metadata(path: Path) -> dict[str, Any] | None:
    """Return the metadata in a file, ``None`` where it is missing or damaged."""
    try:
        return metadata.from_json(path.read_bytes())
    except OSError:
        return None


def _was_replaced(path: Path, descriptor: int) -> bool:
    try:
        return not os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return True


def _mismatch(path: Path, known: set[str], found: str) -> DigestMismatchError:
    expected = " or ".join(sorted(known))
    return DigestMismatchError(
        f"{path} was changed after it was saved: expected SHA-256 {expected}, found {found}; "
        "nothing was unpickled. Bring the file back from backups/ or from the registry "
        "(get_latest_model_path(source='registry')), or save the model again",
        path=path,
        expected=expected,
        found=found,
    )


def _report(
    parts: Parts, path: Path, sha256: str, version: ModelRecord | None, *, is_verified: bool
) -> None:
    """Log what was loaded, and one warning where it was saved with another scikit-learn."""
    name = names.name_of(path) if version is None else version.name
    save = record_with(parts, name, sha256)
    known = version or save
    _logger.info(
        "loaded name=%s version=%s run_id=%s path=%s sha256=%s%s",
        name,
        known.version if known else None,
        known.run_id if known else None,
        path,
        sha256,
        "" if is_verified else " (unverified: no digest is known for this file)",
    )
    recorded = version.sklearn_version if version else None
    if recorded is None and save is not None:
        recorded = version_in(save.description.requirements, "scikit-learn")
    if recorded is not None:
        _warn_of_other_sklearn(path, recorded)


def record_with(parts: Parts, name: str, sha256: str) -> SaveRecord | None:
    """Return the newest record of a name that has these bytes."""
    found = (record for record in parts.outbox.of_name(name) if record.sha256 == sha256)
    return next(found, None)


def _warn_of_other_sklearn(path: Path, recorded: str) -> None:
    installed = distributions.version("scikit-learn")
    if recorded.split(".")[:2] != installed.split(".")[:2]:
        _logger.warning(
            "%s was saved with scikit-learn %s, and %s is installed; its predictions may differ",
            path,
            recorded,
            installed,
        )
