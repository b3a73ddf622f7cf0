"""Loading: find what the bytes should be, verify them, unpickle them, say what was loaded."""

from __future__ import annotations

import logging
import os
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
from lotto_mlflow.manager.matching import record_with
from lotto_mlflow.manager.parts import Parts
from lotto_mlflow.pyfunc_loader import pickle_is_allowed, recorded_sha256, sha256_of
from lotto_mlflow.records import ModelRecord
from lotto_mlflow.requirements import version_in
from lotto_mlflow.store import sha256_of_file

_logger = logging.getLogger("lotto_mlflow")


def load_file(
    parts: Parts,
    target: str,
    given: str | os.PathLike[str],
    of_version: ModelRecord | None = None,
) -> Any:
    """Load a model file, verified where its digest is known.

    Parameters
    ----------
    parts : Parts
        The folder.
    target : str
        Tracking store whose version is told of what was loaded.
    given : str or path-like
        The file.
    of_version : ModelRecord, optional
        The version whose bytes the file must have.

    Notes
    -----
    The bytes that are hashed are the ones that are unpickled: the file is opened once, and a save
    that replaces it meanwhile does not change what is open here. Where the digest does not fit
    because a save is under way, file and digests are read again.
    """
    if not os.path.exists(given):  # noqa: PTH110 - of any text, as the specification has it
        raise ModelNotFoundError(f"Model file not found: {given}", path=given)
    path = Path(given)
    if (of_version is not None or _is_mirrored(parts, path)) and not pickle_is_allowed():
        raise PickleNotAllowedError(
            f"{path} is a mirrored pickle, and MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false forbids "
            "opening one; set it to true if you trust where the model comes from",
            path=path,
        )
    for is_last in (False, False, True):
        with _opened(parts, path) as file:
            found = sha256_of(file)
            known = {str(of_version.sha256)} if of_version else known_digests(parts, path)
            if not known and os.fstat(file.fileno()).st_size == 0:
                raise LoadError(f"{path} is empty. {_repair(parts, path)}", path=path)
            if not known or found in known:
                model = store.load(file, path)
                _report(parts, target, path, found, of_version, is_verified=bool(known))
                return model
            if is_last:
                raise _mismatch(parts, path, known, found)
    raise AssertionError("unreachable")


def _opened(parts: Parts, path: Path) -> Any:
    try:
        if path.is_dir():
            raise LoadError(f"{path} is a folder, not a model file; give the .pkl in it", path=path)
        return path.open("rb")
    except LoadError:
        raise
    except FileNotFoundError as cause:
        raise ModelNotFoundError(f"Model file not found: {path}", path=path) from cause
    except OSError as cause:
        raise LoadError(f"{path} could not be opened: {cause}", path=path) from cause


def _is_mirrored(parts: Parts, path: Path) -> bool:
    is_download = parts.folder_of(path) == parts.layout.downloads_dir
    return is_download or _model_dir_of(path) is not None


def _model_dir_of(path: Path) -> Path | None:
    """Return the MLflow model folder that a file is the data of, if it is one."""
    folder = path.resolve().parent.parent
    return folder if (folder / "MLmodel").is_file() else None


def known_digests(parts: Parts, path: Path) -> set[str]:
    """Return the digests that a file may have; none where nothing is known of it."""
    layout, folder = parts.layout, parts.folder_of(path)
    name = names.name_of(path)
    if folder == layout.downloads_dir:
        return {path.resolve().parent.name}
    if folder == layout.trained_dir:
        return _digests_of(parts, {name}, path, layout.metadata_path(name))
    if folder == layout.backup_dir:
        model_names = {name, names.name_of_backup(path)}
        if _is_older_than_its_records(parts, model_names, path):
            model_names = set()
        return _digests_of(parts, model_names, path, layout.backup_metadata_path(name))
    model_dir = _model_dir_of(path)
    recorded = recorded_sha256(model_dir) if model_dir is not None else None
    return {recorded} if recorded else set()


def is_changed(parts: Parts, path: Path) -> bool:
    """Tell whether digests are known that a file may have, and it has none of them."""
    known = known_digests(parts, path)
    return bool(known) and sha256_of_file(path) not in known


def _is_older_than_its_records(parts: Parts, model_names: set[str], path: Path) -> bool:
    """Tell whether a backup is from before the first save that is known of its name."""
    saves = [save for name in model_names for save in parts.outbox.of_name(name)]
    replaced = {save.replaced_sha256 for save in saves} - {None}
    first = min((save.file_time_ns for save in saves), default=None)
    return first is not None and not replaced and path.stat().st_mtime_ns < first


def _digests_of(parts: Parts, model_names: set[str], path: Path, metadata_path: Path) -> set[str]:
    """Return the digests in the records of model names, and in a file's metadata.

    Notes
    -----
    Where the record of the very file is damaged, those of other saves say nothing of it.
    """
    entries = [entry for name in model_names for entry in parts.outbox.entries(name)]
    saves = [parts.outbox.readable(entry) for entry in entries]
    time_ns = path.stat().st_mtime_ns
    is_lost = any(
        save is None and entry.is_of_time(time_ns)
        for entry, save in zip(entries, saves, strict=True)
    )
    told = [] if is_lost else [save for save in saves if save is not None]
    digests = {digest for save in told for digest in (save.sha256, save.replaced_sha256)}
    in_metadata = (read_metadata(metadata_path) or {}).get("sha256")
    return {digest for digest in (*digests, in_metadata) if isinstance(digest, str)}


def read_metadata(path: Path) -> dict[str, Any] | None:
    """Return the metadata in a file, ``None`` where it is missing or damaged."""
    try:
        return metadata.from_json(path.read_bytes())
    except OSError:
        return None


def _mismatch(parts: Parts, path: Path, known: set[str], found: str) -> DigestMismatchError:
    expected = " or ".join(sorted(known))
    return DigestMismatchError(
        f"{path} was changed after it was saved: expected SHA-256 {expected}, found {found}; "
        f"nothing was unpickled. {_repair(parts, path)}",
        path=path,
        expected=expected,
        found=found,
    )


def _repair(parts: Parts, path: Path) -> str:
    """Return the call that mends a damaged file."""
    if _model_dir_of(path) is not None:
        return (
            "Delete the version in MLflow, and ModelManager.sync(resend=True) sends the intact "
            "file on disk"
        )
    if parts.folder_of(path) == parts.layout.downloads_dir:
        return "Delete it, and ModelManager.latest(source='registry', download=True) fetches it"
    name = names.name_of_backup(path)
    return f"ModelManager.restore({name!r}), or with source='registry', brings the model back"


def _report(
    parts: Parts,
    target: str,
    path: Path,
    sha256: str,
    version: ModelRecord | None,
    *,
    is_verified: bool,
) -> None:
    """Log what was loaded, and one warning where it was saved with another scikit-learn."""
    name = names.name_of(path) if version is None else version.name
    knows_all = version is not None and version.sklearn_version is not None
    save = None if knows_all else record_with(parts, name, sha256)
    place = save.mirrored.get(target, {}) if save else {}
    _logger.info(
        "loaded name=%s version=%s run_id=%s path=%s sha256=%s%s",
        name,
        version.version if version else place.get("version"),
        version.run_id if version else place.get("run_id"),
        path,
        sha256,
        "" if is_verified else " (unverified: no digest is known for this file)",
    )
    recorded = version.sklearn_version if version else None
    if recorded is None and save is not None:
        recorded = version_in(save.description.requirements, "scikit-learn")
    if recorded is not None:
        _warn_of_other_sklearn(path, recorded)


def _warn_of_other_sklearn(path: Path, recorded: str) -> None:
    from importlib import metadata as distributions  # here, because it takes long to import

    installed = distributions.version("scikit-learn")
    if recorded.split(".")[:2] != installed.split(".")[:2]:
        _logger.warning(
            "%s was saved with scikit-learn %s, and %s is installed; its predictions may differ",
            path,
            recorded,
            installed,
        )
