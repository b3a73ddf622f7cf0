"""What each alias was last seen to stand for, for when the registry cannot be asked."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lotto_mlflow import files, regular
from lotto_mlflow import layout as names
from lotto_mlflow.errors import LottoMlflowError, MirrorUnavailableError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.model_dir import DATA_FILE
from lotto_mlflow.operations import newest
from lotto_mlflow.records import ModelRecord, is_digest, is_id
from lotto_mlflow.references import VersionReference
from lotto_mlflow.settings import Target
from lotto_mlflow.store import make_real_dir

_MAX_BYTES = 1 << 22
_LATEST = "latest"
"""Key of what has no alias; MLflow has none of this name."""
_LOCK_SECONDS = 1.0
_TEXTS = ("name", "sha256", "save_id", "saved_at", "run_id", "model_id", "noted_at")
_logger = logging.getLogger("lotto_mlflow")


def note(
    folder: ModelFolder, target: Target, reference: VersionReference, version: ModelRecord
) -> None:
    """Keep what an alias, or the latest, stands for now, where this process may write.

    Notes
    -----
    Nothing is written where the file says so already. A failure is none of whoever only loads.
    """
    if reference.version is not None or version.save_id is None:
        return
    seen = {
        "name": version.name,
        "version": version.version,
        "save_id": version.save_id,
        "sha256": version.sha256,
        "saved_at": version.saved_at,
        "saved_at_ns": version.saved_at_ns,
        "run_id": version.run_id,
        "model_id": version.model_id,
    }
    before = _entry(_content(folder), target, reference)
    if before is not None and {k: v for k, v in before.items() if k != "noted_at"} == seen:
        return
    layout = folder.layout
    if not all(map(files.may_write, (layout.aliases_path, layout.mlflow_dir, layout.tmp_dir))):
        return
    seen["noted_at"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        if folder.later_release is None:
            _write(folder, target, reference, seen)
    except (LottoMlflowError, OSError) as cause:
        _logger.info("what %s stands for could not be noted: %s", reference, cause)


def _write(
    folder: ModelFolder, target: Target, reference: VersionReference, seen: dict[str, Any]
) -> None:
    from filelock import Timeout  # imported lazily

    make_real_dir(folder.layout.tmp_dir)
    with (
        suppress(Timeout),
        folder.workspace() as work_dir,
        files.locked(folder.lock(), _LOCK_SECONDS),
    ):
        content = _content(folder)
        stores = content.setdefault("stores", {})
        models = stores.setdefault(target.name, {})
        models.setdefault(reference.registered_model, {})[_key(reference)] = seen
        text = json.dumps({"format": 1} | content, ensure_ascii=True, indent=2)
        files.replace_content(folder.layout.aliases_path, text.encode("ascii"), work_dir)


def _key(reference: VersionReference) -> str:
    return reference.alias or _LATEST


def _content(folder: ModelFolder) -> dict[str, Any]:
    """Return what is noted, as far as it has the form that `note` gives it."""
    try:
        found = json.loads(regular.content_of(folder.layout.aliases_path, _MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    stores = found.get("stores") if isinstance(found, dict) else None
    if not isinstance(stores, dict) or not all(map(_is_store, stores.values())):
        return {}
    return {"stores": stores}


def _is_store(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(models, dict) for models in value.values())


def _entry(
    content: dict[str, Any], target: Target, reference: VersionReference
) -> dict[str, Any] | None:
    models = content.get("stores", {}).get(target.name, {})
    found = models.get(reference.registered_model, {}).get(_key(reference))
    return found if isinstance(found, dict) else None


def recalled(
    folder: ModelFolder, target: Target, reference: VersionReference, cause: Exception
) -> tuple[ModelRecord, Path]:
    """Return the version that a reference was last seen to mean, and a file with its bytes.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    target : Target
        The store that cannot be asked.
    reference : VersionReference
        An alias, or the latest.
    cause : Exception
        Why it cannot be asked.

    Raises
    ------
    MirrorUnavailableError
        If none was seen, or no file of this machine has its bytes.

    Notes
    -----
    Whoever may write to the folder may have written the note. It says only which version is meant:
    the bytes are those of the record of the save, or have the digest that was seen.
    """
    entry = _entry(_content(folder), target, reference)
    version = None if entry is None else _version(entry, reference)
    if version is None or entry is None:
        raise _unavailable(cause, f"what {reference} stands for was never seen here")
    version = folder.history().corrected(version, target)
    if reference.alias is None:  # whoever writes the note cannot go back with it
        newest.version(folder, target, reference.registered_model, lambda: version)
    path = next(_files_with(folder, version), None)
    if path is None:
        raise _unavailable(
            cause,
            f"version {version.version}, for which {reference} was last seen to stand, has no file "
            "here",
        )
    _logger.warning(
        "the registry could not be asked (%s); %s is taken for what it was last seen to stand "
        "for: version %s, save %s, noted at %s",
        cause,
        reference,
        version.version,
        version.save_id,
        entry.get("noted_at"),
    )
    return version, path


def _unavailable(cause: Exception, what: str) -> MirrorUnavailableError:
    code = cause.data.get("error_code") if isinstance(cause, LottoMlflowError) else None
    said = cause.summary if isinstance(cause, LottoMlflowError) else str(cause)
    error = MirrorUnavailableError(f"{said}; {what}", error_code=code)
    error.__cause__ = cause
    return error


def _version(entry: dict[str, Any], reference: VersionReference) -> ModelRecord | None:
    """Return what a note says of a version, ``None`` where it is not of the right form."""
    number, saved_at_ns = entry.get("version"), entry.get("saved_at_ns")
    if any(not isinstance(entry.get(key, ""), (str, type(None))) for key in _TEXTS):
        return None
    if type(number) is not int or not (saved_at_ns is None or type(saved_at_ns) is int):
        return None
    ids = (entry.get("run_id") or "", entry.get("model_id") or "")
    if not (names.is_name(entry.get("name")) and is_digest(entry.get("sha256"))):
        return None
    if not (entry.get("save_id") and all(map(is_id, ids))):
        return None
    return ModelRecord(
        name=entry["name"],
        sha256=entry["sha256"],
        saved_at=entry.get("saved_at"),
        saved_at_ns=saved_at_ns,
        registered_model=reference.registered_model,
        version=number,
        run_id=ids[0] or None,
        model_id=ids[1] or None,
        save_id=entry["save_id"],
        aliases=() if reference.alias is None else (reference.alias,),
    )


def _files_with(folder: ModelFolder, version: ModelRecord) -> Iterator[Path]:
    """Yield the files of this machine that have the bytes of a version; each is hashed."""
    for path in _candidates(folder, version):
        with suppress(OSError):
            status = regular.status_of(path)
            if status is not None and regular.sha256_of_file(path) == version.sha256:
                yield path


def _candidates(folder: ModelFolder, version: ModelRecord) -> Iterator[Path]:
    layout, history = folder.layout, folder.history()
    yield layout.model_path(version.name)
    with suppress(OSError):
        yield from (file.path for file in history.backups_of(version.name))
    if version.model_id:
        yield layout.model_dir(version.model_id) / DATA_FILE
    with suppress(OSError):
        yield from folder.downloads.paths(str(version.sha256), version.name)
