"""Versions: which one a reference names, and a file with its bytes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from lotto_mlflow import layout as names
from lotto_mlflow import references, regular
from lotto_mlflow.errors import ForeignModelError, InvalidReferenceError, ModelNotFoundError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.operations import gone, last_seen, newest
from lotto_mlflow.plain_values import plain_integer, shown
from lotto_mlflow.push import PushWorker
from lotto_mlflow.records import Arrived, MlflowIds, ModelRecord, SaveRecord
from lotto_mlflow.references import VersionReference
from lotto_mlflow.requirements import version_in
from lotto_mlflow.settings import Target
from lotto_mlflow.text import forms, nearest, question

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

_TOO_LARGE = 1 << 63
"""No database has such a number."""


def latest_version(folder: ModelFolder, target: Target) -> ModelRecord | None:
    """Return the newest save that the registry has, ``None`` where it has none; it is noted.

    Notes
    -----
    A save of this folder that is newer than what the registry shows as such is asked for by the
    number in its record.
    """
    found = newest.version(
        folder, target, names.REGISTERED_MODEL, lambda: _latest_version(folder, target)
    )
    if found is not None:
        last_seen.note(folder, target, VersionReference(names.REGISTERED_MODEL), found)
    return found


def unchecked(
    folder: ModelFolder, target: Target, reference: VersionReference
) -> ModelRecord | None:
    """Return what a registry has as the latest, of which nobody looks whether it was rolled back.

    Raises
    ------
    ModelNotFoundError
        If there is no version of the registered model.
    """
    if reference == VersionReference(names.REGISTERED_MODEL):
        return _latest_version(folder, target)
    return _version(folder, target, reference, None)


def newest_of_name(folder: ModelFolder, target: Target, name: str) -> ModelRecord | None:
    """Return the newest version of a model name, ``None`` where the registry has none of it."""
    wait_for_queued(folder, target)
    mirror, history = folder.mirror(target), folder.history()
    for form in forms(name) if names.is_name(name) else ():
        version = mirror.newest_of_name(form)
        if version is not None:
            return history.corrected(version, target)
    return None


def wait_for_queued(folder: ModelFolder, target: Target) -> None:
    """Wait for the saves of this process that are on their way to the registry."""
    PushWorker.of(folder, target).wait_for_queued()


def _latest_version(folder: ModelFolder, target: Target) -> ModelRecord | None:
    wait_for_queued(folder, target)
    mirror, history = folder.mirror(target), folder.history()
    own = history.newest_sent(names.REGISTERED_MODEL, target)
    found = mirror.latest(own=own)
    found = None if found is None else history.corrected(found, target)
    if own is not None and _is_older_save(history, found, own):
        number = own.mirrored[target.name].version
        version = mirror.find(VersionReference(names.REGISTERED_MODEL, version=number))
        version = None if version is None else history.corrected(version, target)
        if version is not None and version.save_id == own.id:
            return version
        if found is None:
            found = mirror.latest()
            return None if found is None else history.corrected(found, target)
    return found


def _is_older_save(history: History, found: ModelRecord | None, own: SaveRecord) -> bool:
    """Return whether what the registry shows as the newest is an older save of this folder.

    Notes
    -----
    Ids of one folder are of one clock. The registry's own order says where the saves of others
    stand, whose clocks may be slow or fast.
    """
    if found is None:
        return True
    return history.own_save_of_version(found) is not None and str(found.save_id) < own.id


def of_version(
    folder: ModelFolder, target: Target, reference: VersionReference, given: str | None = None
) -> ModelRecord:
    """Return what the registry knows of a version; what a record of its save says goes before.

    Raises
    ------
    ModelNotFoundError
        If there is none; the message suggests what may have been meant.
    """
    if reference == VersionReference(names.REGISTERED_MODEL):
        found = latest_version(folder, target)
        if found is not None:
            return found
    if reference.version is None and reference.alias is None:
        found = newest.version(
            folder,
            target,
            reference.registered_model,
            lambda: _version(folder, target, reference, given),
        )
        assert found is not None  # noqa: S101 - for the type checker: an error says that it is not
        return found
    return _version(folder, target, reference, given)


def _version(
    folder: ModelFolder, target: Target, reference: VersionReference, given: str | None
) -> ModelRecord:
    wait_for_queued(folder, target)
    mirror, history = folder.mirror(target), folder.history()
    try:
        version = history.corrected(_in_any_form(mirror, reference), target)
        last_seen.note(folder, target, reference, version)
        return version
    except ModelNotFoundError as cause:
        gone.check_version(history, target, reference)
        near = _near_versions(folder, mirror, given or str(reference), reference)
        summary = f"{cause.summary}{question(near)}"
        data = cause.data | {"suggestions": near}
        raise ModelNotFoundError(summary, fix=cause.fix, **data) from cause
    except ForeignModelError as cause:
        save = history.save_of_run(target, str(cause.data["run_id"]))
        if save is None:
            raise
        return _of_own_save(save, save.mirrored[target.name], reference, cause.data["version"])


def with_aliases(folder: ModelFolder, target: Target, record: ModelRecord) -> ModelRecord:
    """Return the record of a version with its aliases, which a query by its number returns."""
    reference = VersionReference(record.registered_model, version=record.version)
    try:
        found = folder.mirror(target).find(reference)
    except ForeignModelError:  # without tags, which a record of this folder made up for
        return record
    if found is None:
        return record
    return replace(record, aliases=found.aliases, host=record.host or found.host)


def _in_any_form(mirror: Mirror, reference: VersionReference) -> ModelRecord:
    """Return the version that a reference names; an earlier release took names as they came."""
    composed, *others = forms(reference.registered_model)
    for name in others:
        with suppress(ModelNotFoundError):
            return mirror.get(replace(reference, registered_model=composed))
        with suppress(ModelNotFoundError):
            return mirror.get(replace(reference, registered_model=name))
    return mirror.get(reference)


def _of_own_save(
    save: SaveRecord, ids: MlflowIds, reference: VersionReference, version: int
) -> ModelRecord:
    """Describe a version without tags that a record proves to be of one of this folder's saves."""
    return ModelRecord(
        name=save.name,
        sha256=save.payload.sha256,
        saved_at=save.payload.saved_at,
        saved_at_ns=save.payload.saved_at_ns,
        registered_model=reference.registered_model,
        version=version,
        run_id=ids.run_id,
        model_id=ids.model_id,
        sklearn_version=version_in(save.payload.description.requirements, "scikit-learn"),
        save_id=save.id,
    )


def version_reference(
    folder: ModelFolder, reference: str | int | os.PathLike[str]
) -> VersionReference | None:
    """Return the version that a reference names, ``None`` where it names a file."""
    number = plain_integer(reference)
    is_number = isinstance(number, int) and not isinstance(number, bool)
    if is_number and abs(number) < _TOO_LARGE:
        return VersionReference(names.REGISTERED_MODEL, version=number)
    if not isinstance(reference, (str, os.PathLike)):
        raise InvalidReferenceError(
            f"{shown(reference)} names no model; give a name, a path, a version or a models:/ URI"
        )
    text = os.fspath(reference)
    if text.startswith(references.SCHEME):
        return references.parse(text)
    if references.is_version(text) and not regular.is_file(folder.layout.model_path(text)):
        return VersionReference(names.REGISTERED_MODEL, version=int(text))
    return None


def file_of_version(
    folder: ModelFolder, target: Target, record: ModelRecord, arrived: Arrived | None = None
) -> Path:
    """Find a file with the bytes of a version: in ``trained/``, else what the mirror has."""
    path = folder.layout.model_path(record.name)
    is_there = has_bytes_of(folder.history(), path, record)
    return path if is_there else _fetched(folder, target, record, arrived, verifies=True)


def path_of_version(
    folder: ModelFolder, target: Target, record: ModelRecord, arrived: Arrived | None = None
) -> Path:
    """Find the file of a version as `file_of_version` does, and hash nothing that is there already.

    Notes
    -----
    Whoever loads the file verifies it; what has to be downloaded is verified then. A file in
    ``trained/`` whose time is not that of its record was changed or copied: what the mirror has
    is preferred to it.
    """
    path = folder.layout.model_path(record.name)
    is_there = is_file_of(folder.history(), path, record, is_sure=True)
    return path if is_there else _fetched(folder, target, record, arrived, verifies=False)


def path_to_load(
    folder: ModelFolder, target: Target, record: ModelRecord, arrived: Arrived | None = None
) -> Path:
    """Find the file of a version for whoever verifies it, and takes `file_of_version` else.

    Notes
    -----
    A file in ``trained/`` is hashed where no record says of which save it is; nothing else is.
    """
    history, path = folder.history(), folder.layout.model_path(record.name)
    is_there = is_file_of(history, path, record)
    status = None if is_there else regular.status_of(path)
    if status is not None:
        file = history.file(path, status)
        recorded = history.save_of(file) or history.restore_of(file)
        is_other = recorded is not None and recorded.payload.file_time_ns == file.time_ns
        is_there = not is_other and file.sha256 == record.sha256
    return path if is_there else _fetched(folder, target, record, arrived, verifies=False)


def _fetched(
    folder: ModelFolder,
    target: Target,
    record: ModelRecord,
    arrived: Arrived | None,
    *,
    verifies: bool,
) -> Path:
    mirror = folder.mirror(target)
    return mirror.file_of(record, folder.downloads, verifies=verifies, arrived=arrived)


def has_bytes_of(history: History, path: Path, record: ModelRecord) -> bool:
    """Return whether a file is there and has the bytes of a version."""
    status = regular.status_of(path)
    return status is not None and history.file(path, status).sha256 == record.sha256


def is_file_of(history: History, path: Path, record: ModelRecord, *, is_sure: bool = False) -> bool:
    """Return whether a file is there and is of a version, as far as can be told without hashing.

    Parameters
    ----------
    history : History
        The records.
    path : pathlib.Path
        The file.
    record : ModelRecord
        The version.
    is_sure : bool
        Whether a file that a record knows must have the time that it has there, too.
    """
    status = regular.status_of(path)
    if status is None:
        return False
    file = history.file(path, status)
    recorded = history.save_of(file) or history.restore_of(file)
    if recorded is not None:
        payload = recorded.payload
        has_time = payload.file_time_ns == file.time_ns or not is_sure
        return has_time and (payload.sha256, payload.size) == (record.sha256, file.status.st_size)
    declared_size = (file.metadata or {}).get("size_bytes", file.status.st_size)
    return (file.declared_sha256, declared_size) == (record.sha256, file.status.st_size)


def _near_versions(
    folder: ModelFolder, mirror: Mirror, given: str, version: VersionReference
) -> tuple[str, ...]:
    """Return what may have been meant by a version that is not there."""
    on_disk = names_on_disk(folder)
    models = sorted({names.registered_model(name) for name in on_disk})
    if references.is_version(given):
        return nearest(given, on_disk)
    if version.registered_model not in models:
        found = nearest(version.registered_model, models)
        return tuple(str(replace(version, registered_model=name)) for name in found)
    if version.alias is not None:
        aliases = chain.from_iterable(mirror.aliases(version.registered_model).values())
        found = nearest(version.alias, aliases)
        return tuple(str(replace(version, alias=alias)) for alias in found)
    return ()


def names_on_disk(folder: ModelFolder) -> list[str]:
    """Return the names in ``trained/``, newest first."""
    found = folder.store.files_in(folder.layout.trained_dir)
    newest_first = sorted(found, key=lambda item: item[1].st_mtime_ns, reverse=True)
    return [names.name_of(path) for path, _ in newest_first]
