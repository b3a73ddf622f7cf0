"""`ModelManager.restore`: bring a file and its metadata back, verified."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from lotto_mlflow import layout as names
from lotto_mlflow import text
from lotto_mlflow.errors import (
    DigestMismatchError,
    ModelNotFoundError,
    SettingsError,
)
from lotto_mlflow.files import (
    copy_content,
    held,
    link_or_copy,
    put,
    replace_content,
    sync_dir,
    temporary_for,
)
from lotto_mlflow.manager import lookup, missing, saving
from lotto_mlflow.manager.loading import is_changed, known_digests, read_metadata
from lotto_mlflow.manager.matching import name_of_backup, save_of, save_of_version
from lotto_mlflow.manager.parts import Parts, disk_errors
from lotto_mlflow.metadata import strict, to_json
from lotto_mlflow.records import ModelRecord, Progress, quiet
from lotto_mlflow.references import VersionReference
from lotto_mlflow.store import sha256_of_file

if TYPE_CHECKING:
    from lotto_mlflow.manager import ModelManager

RestoreSource = Literal["backups", "registry"]


@dataclass(frozen=True)
class _Found:
    """Verified bytes and metadata that are to be put in place."""

    name: str
    path: Path
    sha256: str
    mtime_ns: int
    metadata: bytes | None


def restore(
    self: ModelManager,
    name_or_version: str | int,
    *,
    source: RestoreSource = "backups",
    backup: str | None = None,
    progress: Progress | None = None,
) -> ModelRecord:
    """Bring a model and its metadata back into ``trained/`` and ``metadata/``.

    Parameters
    ----------
    name_or_version : str or int
        A name; from the registry also a version number of ``lotto_model``, or a ``models:/`` URI.
    source : {"backups", "registry"}
        Where it is taken from.
    backup : str, optional
        Which backup, by its file name or stem; the newest of the name by default.
    progress : callable, optional
        As in `lotto_mlflow.records.Progress`; once before the model is fetched, and
        once at the end.

    Returns
    -------
    ModelRecord
        What is in place now.

    Raises
    ------
    ModelNotFoundError
        If there is no such name, version or backup. Nothing was changed.
    DigestMismatchError
        If the source is damaged. Nothing was changed.
    SettingsError
        If the source is neither.
    StoreError
        If the disk refuses. Nothing was changed.

    Notes
    -----
    What is in the way goes to ``backups/`` first, and the source stays where it is. The file keeps
    its own time, so that an old model does not become the latest; it is no new save.
    """
    if source not in get_args(RestoreSource):
        allowed = ", ".join(get_args(RestoreSource))
        raise SettingsError(f"source is {source!r}; allowed are {allowed}", value=source)
    with disk_errors(self._parts, "the model could not be restored"):
        return _restored(self, name_or_version, source, backup, progress or quiet)


def _restored(
    manager: ModelManager,
    name_or_version: str | int,
    source: RestoreSource,
    backup: str | None,
    report: Progress,
) -> ModelRecord:
    parts = manager._parts
    reference = lookup.version_reference(parts, name_or_version)
    if source == "registry":
        version = _version(manager, name_or_version, reference)
    elif reference is None or parts.store.backups_of(str(name_or_version)):
        path = _backup_of(parts, str(name_or_version), backup)
    else:
        path = _backup_of_version(manager, reference)
    parts.make_dirs()
    with parts.workspace() as work_dir:
        if source == "registry":
            found = _from_registry(manager, version, work_dir, report)
        else:
            found = _from_backups(parts, path, report)
        staged = temporary_for(parts.layout.model_path(found.name), work_dir)
        try:
            copy_content(found.path, staged)
            _check(staged, {found.sha256}, found.path)
            os.utime(staged, ns=(found.mtime_ns, found.mtime_ns))
            with staged.open("rb+") as file:
                os.fsync(file.fileno())
            with held(parts.lock()):
                saving.settle(parts, work_dir)
                _put(parts, found, staged, work_dir)
        finally:
            staged.unlink(missing_ok=True)
    report(1, 1, 0, "")
    return manager.get(found.name)


def _put(parts: Parts, found: _Found, staged: Path, work_dir: Path) -> None:
    layout, name = parts.layout, found.name
    model_path, metadata_path = layout.model_path(name), layout.metadata_path(name)
    pairs = ((model_path, layout.backup_path), (metadata_path, layout.backup_metadata_path))
    is_there = model_path.exists() and sha256_of_file(model_path) == found.sha256
    told = metadata_path.read_bytes() if metadata_path.exists() else None
    loses_nothing = is_there and told in (None, found.metadata)
    if not loses_nothing and parts.store.has_something_to_back_up(name):
        stem = parts.store.free_backup_stem(name)
        for original, backup_path in pairs:
            if original.exists():
                link_or_copy(original, backup_path(stem), work_dir)
        sync_dir(layout.backup_dir)
    put(staged, model_path, work_dir)
    if found.metadata is None:
        metadata_path.unlink(missing_ok=True)
    else:
        replace_content(metadata_path, found.metadata, work_dir)
    parts.store.sync()


def _from_backups(parts: Parts, path: Path, report: Progress) -> _Found:
    name = name_of_backup(parts, path)
    report(0, 1, path.stat().st_size, name)
    known, sha256 = known_digests(parts, path), sha256_of_file(path)
    _check(path, known or {sha256}, path)
    metadata_path = parts.layout.backup_metadata_path(names.name_of(path))
    metadata = metadata_path.read_bytes() if metadata_path.exists() else None
    save = save_of(parts, path)
    told = None if save is None else save.metadata
    if told is not None and strict(read_metadata(metadata_path)) != told:  # damaged, or gone
        metadata = to_json(told)
    return _Found(name, path, sha256, path.stat().st_mtime_ns, metadata)


def _backup_of(parts: Parts, name: str, backup: str | None) -> Path:
    candidates = parts.store.backups_of(name)
    of_name = found = [path for path in candidates if name_of_backup(parts, path) == name]
    if backup is not None:
        stem = Path(backup).name.removesuffix(names.SUFFIX)
        found = [path for path in found if names.name_of(path) == stem]
    if not found:
        wanted = f"backup {backup!r}" if backup is not None else "backup"
        if of_name:
            near = text.nearest(str(backup), map(names.name_of, of_name))
        else:
            near = text.nearest(name, missing.other_names(parts, name))
        raise ModelNotFoundError(
            f"there is no {wanted} of {name!r} in {parts.layout.backup_dir}"
            f"{text.question(near)}; source='registry' may have it",
            name=name,
            suggestions=near,
        )
    newest_ns = max(path.stat().st_mtime_ns for path in found)
    newest = [path for path in sorted(found) if path.stat().st_mtime_ns == newest_ns]
    # an earlier restore may have put a damaged file of the same time there
    return next((path for path in reversed(newest) if not is_changed(parts, path)), newest[-1])


def _backup_of_version(manager: ModelManager, reference: VersionReference) -> Path:
    """Return the backup that holds the bytes of a version."""
    parts, record = manager._parts, lookup.of_version(manager, reference)
    for path in parts.store.backups_of(record.name):
        if sha256_of_file(path) == record.sha256:
            return path
    raise ModelNotFoundError(
        f"no file in {parts.layout.backup_dir} has the bytes of {reference}; "
        "source='registry' brings them back",
        name=record.name,
        reference=str(reference),
    )


def _version(
    manager: ModelManager, name_or_version: str | int, reference: VersionReference | None
) -> ModelRecord:
    """Return the version that is meant, of a name the newest."""
    if reference is not None:
        return lookup.of_version(manager, reference)
    manager._pusher.wait_for_queued()
    versions = manager._mirror().records(str(name_or_version), 1)
    if not versions:
        near = text.nearest(
            str(name_or_version), missing.other_names(manager._parts, str(name_or_version))
        )
        raise ModelNotFoundError(
            f"the registry has no version of {name_or_version!r}{text.question(near)}",
            name=name_or_version,
            suggestions=near,
        )
    return versions[0]


def _from_registry(
    manager: ModelManager, record: ModelRecord, work_dir: Path, report: Progress
) -> _Found:
    parts, mirror = manager._parts, manager._mirror()
    sha256, saved_at_ns = str(record.sha256), record.saved_at_ns or 0
    save = save_of_version(parts, record)
    report(0, 1, 0 if save is None else save.size, record.name)
    return _Found(
        record.name,
        mirror.file_of(record, work_dir),
        sha256,
        save.file_time_ns if save is not None else saved_at_ns,
        mirror.metadata_of(record, work_dir),
    )


def _check(path: Path, known: set[str], named: Path) -> None:
    found = sha256_of_file(path)
    if found not in known:
        expected = " or ".join(sorted(known))
        raise DigestMismatchError(
            f"{named} is damaged: expected SHA-256 {expected}, found {found}; nothing was changed. "
            "Name another backup, or take source='registry'",
            path=named,
            expected=expected,
            found=found,
        )
