"""Restore: bring a model and its metadata back, verified, by the protocol of a save."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from lotto_mlflow import layout as names
from lotto_mlflow import metadata, regular
from lotto_mlflow.errors import (
    DigestMismatchError,
    Fix,
    InvalidReferenceError,
    ModelNotFoundError,
    SettingsError,
    StoreError,
)
from lotto_mlflow.files import copy_content, locked, mode_of, remove_file, temporary_for
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.kinds import recover
from lotto_mlflow.kinds.saves import END_OF_RESTORE, replaced
from lotto_mlflow.model_file import ModelFile
from lotto_mlflow.operations import find, gone, newest, restored, signed, versions
from lotto_mlflow.operations.load import fix_from_registry
from lotto_mlflow.operations.sources import Source, signed_pair
from lotto_mlflow.records import (
    RESTORE,
    MlflowIds,
    ModelRecord,
    Progress,
    Record,
    RestorePayload,
    RestoreRecord,
    arrived_of,
    new_id,
    no_progress,
)
from lotto_mlflow.references import VersionReference
from lotto_mlflow.settings import Target
from lotto_mlflow.store import sha256_of_file
from lotto_mlflow.store.commit import Protocol
from lotto_mlflow.text import composed, nearest, question

_logger = logging.getLogger("lotto_mlflow")
RestoreSource = Literal["backups", "registry"]


def restore(
    folder: ModelFolder,
    name_or_version: str | int,
    source: str,
    backup: str | None,
    progress: Progress | None,
) -> ModelRecord:
    """Bring a model and its metadata back into ``trained/`` and ``metadata/``."""
    _check(source, backup)
    report, target = progress or no_progress, folder.target()
    folder.check_format()
    errors = folder.disk_errors("the model could not be restored", "The folder is as it was")
    with errors, signed.mismatches_refused(folder):
        if source == "registry":
            version = _version(folder, target, name_or_version)
            folder.make_dirs()
            with (
                folder.workspace() as work_dir,
                folder.downloads.reading(lambda: _fetched(folder, target, version, report)) as path,
            ):
                found = _from_registry(folder, target, version, path, work_dir)
                _restore(folder, target, found, source, work_dir)
        else:
            _recover_first(folder)
            history = folder.history()
            file = _backup(folder, history, target, name_or_version, backup)
            folder.make_dirs()
            with folder.workspace() as work_dir:
                found = _from_backups(folder, history, file, report)
                _restore(folder, target, found, source, work_dir)
    report(1, 1, 0, "")
    return find.get(folder, folder.layout.model_path(found.name))


def _check(source: object, backup: object) -> None:
    """See that a source is one, and has such a backup as is named."""
    if not (backup is None or isinstance(backup, str)):
        raise InvalidReferenceError(f"backup is {backup!r:.100}; give the name of a file")
    if backup is not None and source == "registry":
        raise SettingsError(
            f"backup is {backup!r:.300}, and the registry has no backups; leave it out, or restore "
            "from backups",
            value=backup,
        )
    if source not in get_args(RestoreSource):
        allowed = ", ".join(get_args(RestoreSource))
        raise SettingsError(f"source is {source!r}; allowed are {allowed}", value=source)


def _recover_first(folder: ModelFolder) -> None:
    """Finish or drop what a dead process left, so that no half-made backup is chosen."""
    if folder.journal.pending():
        folder.make_dirs()
        with folder.workspace() as work_dir, locked(folder.lock()):
            recover(folder, work_dir)


def _restore(
    folder: ModelFolder, target: Target, found: Source, source: str, work_dir: Path
) -> None:
    """Copy the bytes beside their place, verify the copy, and put it there under the lock."""
    folder.store.check_places(found.name, is_save=False)
    staged = temporary_for(folder.layout.model_path(found.name), work_dir)
    try:
        copy_content(found.path, staged, durably=True)
        sha256 = sha256_of_file(staged)
        if found.expected and sha256 not in found.expected:
            raise DigestMismatchError.of_file(
                found.path,
                found.expected,
                sha256,
                "nothing was changed",
                fix_from_registry(folder.history(), target, found.name, "may have it intact")
                if source == "backups"
                else None,
            )
        found = replace(
            found, pair=signed_pair(folder, target, found, sha256, staged.stat().st_size)
        )
        with locked(folder.lock()):
            folder.note_format(work_dir)
            recover(folder, work_dir)
            id_time_ns = folder.store.stamp(staged, work_dir)
            os.utime(staged, ns=(found.time_ns, found.time_ns))
            record = _record(folder, target, found, staged, sha256, source, id_time_ns)
            Protocol(folder.store, folder.journal, work_dir).commit(
                record,
                staged,
                END_OF_RESTORE,
                metadata_mode=found.metadata_mode,
                pair=found.pair,
            )
    finally:
        remove_file(staged)


def _record(
    folder: ModelFolder,
    target: Target,
    found: Source,
    staged: Path,
    sha256: str,
    source: str,
    id_time_ns: int,
) -> RestoreRecord:
    import socket  # imported lazily

    status, history = staged.stat(), folder.history()
    time_ns = None if _loses_nothing(folder, found, sha256, status.st_size) else id_time_ns
    backup, is_damaged = replaced(folder, history, found.name, time_ns, hashes_all=True)
    payload = RestorePayload(
        name=found.name,
        sha256=sha256,
        size=status.st_size,
        file_time_ns=status.st_mtime_ns,
        source=source,
        save_id=found.save_id,
        metadata=found.metadata,
        backup=backup,
        replaced_damaged=is_damaged,
        replaced_sha256=history.unrecorded_digest(found.name),
        earlier_sha256=history.earlier_digests(found.name),
    )
    return Record(
        id=new_id(id_time_ns),
        kind=RESTORE,
        host=socket.gethostname(),
        target=target.name,
        payload=payload,
        mirrored=found.mirrored,
    )


def _loses_nothing(folder: ModelFolder, found: Source, sha256: str, size: int) -> bool:
    """Return whether what is in place is what will be, so that no backup is needed."""
    layout, name = folder.layout, found.name
    if not folder.store.has_model_or_metadata(name):
        return True
    path, metadata_path = layout.model_path(name), layout.metadata_path(name)
    status = regular.status_of(path)
    if os.path.lexists(metadata_path) and _content_of(metadata_path) != found.metadata:
        return False
    return status is not None and status.st_size == size and sha256_of_file(path) == sha256


def _content_of(metadata_path: Path) -> bytes | None:
    """Return what a file of metadata holds, ``None`` where it is none or too large to be ours."""
    if not regular.is_file(metadata_path):
        return None
    try:
        return regular.content_of(metadata_path, metadata.MAX_BYTES)
    except StoreError:
        return None


def _from_backups(
    folder: ModelFolder, history: History, file: ModelFile, report: Progress
) -> Source:
    name = history.name_of(file)
    report(0, 1, file.status.st_size, name)
    save = history.save_of(file)
    recorded = None if save is None else save.payload.metadata
    content, mode = _content_of(file.metadata_path), mode_of(file.metadata_path)
    if recorded is not None and metadata.strict(file.metadata) != recorded:  # damaged, or gone
        content = metadata.to_json(recorded)
    expected = history.expected(file)
    source = Source(name, file.path, expected, file.time_ns, content, None, metadata_mode=mode)
    if save is not None:
        return replace(source, save_id=save.id)
    earlier = restored.find(folder, history, file, asks=False)  # which another host saved
    if earlier is None:
        return source
    return replace(source, save_id=earlier.save_id, mirrored=earlier.record.mirrored)


def _fetched(folder: ModelFolder, target: Target, version: ModelRecord, report: Progress) -> Path:
    """Return a verified file with the bytes of a version."""
    report(0, 1, version.size or 0, version.name)
    arrived = arrived_of(report)
    return folder.mirror(target).file_of(version, folder.downloads, arrived=arrived)


def _from_registry(
    folder: ModelFolder, target: Target, version: ModelRecord, path: Path, work_dir: Path
) -> Source:
    save, mirror = folder.history().own_save_of_version(version), folder.mirror(target)
    pair = None
    if save is None:
        if folder.settings().trust != "signed":  # else it is looked for where it is checked
            pair = restored.pair_of(mirror, version, work_dir)
        time_ns = min(version.saved_at_ns or 0, time.time_ns())
        content = _believed(version, mirror.metadata_of(version, work_dir))
    else:
        recorded, time_ns = save.payload.metadata, save.payload.file_time_ns
        content = None if recorded is None else metadata.to_json(recorded)
    return Source(
        version.name,
        path,
        frozenset({str(version.sha256)}),
        time_ns,
        content,
        version.save_id if save is None else save.id,
        {
            target.name: MlflowIds(
                version=version.version or 0,
                run_id=version.run_id or "",
                model_id=version.model_id or "",
            )
        },
        pair=pair,
        version=version,
    )


def _believed(version: ModelRecord, content: bytes | None) -> bytes | None:
    """Return the metadata that MLflow has of a version, if it is that of the version's bytes."""
    if content is None or metadata.is_of(content, str(version.sha256), time.time_ns()):
        return content
    _logger.warning(
        "the metadata of version %s of %s in MLflow is not what was saved with it, and is left "
        "out; the model is restored without metadata",
        version.version,
        version.registered_model,
    )
    return None


def _backup(
    folder: ModelFolder,
    history: History,
    target: Target,
    name_or_version: str | int,
    backup: str | None,
) -> ModelFile:
    """Return the file in ``backups/`` that is meant."""
    reference = versions.version_reference(folder, name_or_version)
    name = composed(str(name_or_version))
    if reference is not None and not folder.store.backups_of(name):
        return _backup_of_version(folder, history, target, reference)
    of_name = [file for file in history.backups_of(name) if history.name_of(file) == name]
    stem = None if backup is None else names.name_of(Path(backup))
    found = [file for file in of_name if stem in (None, file.stem)]
    if not found:
        wanted = "backup" if backup is None else f"backup {backup!r}"
        if of_name:
            near = nearest(str(backup), (file.stem for file in of_name))
        else:
            if not folder.store.has_model_or_metadata(name):
                gone.check_name(history, name)
            near = nearest(name, find.other_names(folder, name))
        raise ModelNotFoundError(
            f"there is no {wanted} of {name!r} in {folder.layout.backup_dir}{question(near)}",
            fix=fix_from_registry(history, target, name, "may find it in MLflow"),
            name=name,
            suggestions=near,
        )
    newest_ns = max(file.time_ns for file in found)
    newest = [file for file in found if file.time_ns == newest_ns]
    # an earlier restore may have put a damaged file of the same time there
    intact = (file for file in reversed(newest) if not history.is_changed(file))
    return newest[0] if len(newest) == 1 else next(intact, newest[-1])


def _backup_of_version(
    folder: ModelFolder, history: History, target: Target, reference: VersionReference
) -> ModelFile:
    """Return the backup that holds the bytes of a version."""
    record = versions.of_version(folder, target, reference)
    own = history.own_save_of_version(record)
    files = [f for f in history.backups_of(record.name) if history.name_of(f) == record.name]
    # saves of the same bytes are several files: the version's own comes first
    files.sort(key=lambda file: own is None or file.time_ns != own.payload.file_time_ns)
    for file in files:
        if file.sha256 == record.sha256:
            return file
    raise ModelNotFoundError(
        f"no file in {folder.layout.backup_dir} has the bytes of {reference}",
        fix=Fix(
            "restore",
            {"name_or_version": str(reference), "source": "registry"},
            effect="brings them back",
        ),
        name=record.name,
        reference=str(reference),
    )


def _version(folder: ModelFolder, target: Target, name_or_version: str | int) -> ModelRecord:
    """Return the version that is meant, of a name the newest."""
    reference = versions.version_reference(folder, name_or_version)
    if reference is not None:
        return versions.of_version(folder, target, reference)
    name = composed(str(name_or_version))
    if names.registered_model(name) == names.REGISTERED_MODEL:
        found = versions.newest_of_name(folder, target, name)
    else:  # it has a latest of its own
        found = newest.version(
            folder,
            target,
            names.registered_model(name),
            lambda: versions.newest_of_name(folder, target, name),
        )
    if found is None:
        gone.check_name(folder.history(), name)
        near = nearest(name, find.other_names(folder, name))
        raise ModelNotFoundError(
            f"the registry has no version of {name!r}{question(near)}",
            name=name_or_version,
            suggestions=near,
        )
    return found
