"""Saves and restores: how their records are recovered, pushed and verified."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotto_mlflow import trusted
from lotto_mlflow.errors import Fix, MirrorError, SignatureError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.journal import Entry, State
from lotto_mlflow.kinds.base import Kind, Verification
from lotto_mlflow.layout import registered_model_of
from lotto_mlflow.records import Finding, MlflowIds, Note, Record, SaveRecord
from lotto_mlflow.references import VersionReference
from lotto_mlflow.signing import Pair
from lotto_mlflow.store.commit import Protocol
from lotto_mlflow.store.signatures import read_pair

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror, Standing

_logger = logging.getLogger("lotto_mlflow")
END_OF_SAVE: State = "committed"
END_OF_RESTORE: State = "sent"
"""States of records whose work on disk is done."""


def replaced(
    folder: ModelFolder, history: History, name: str, time_ns: int | None, *, hashes_all: bool
) -> tuple[str | None, bool]:
    """Return the name under which what is replaced is kept, and whether it is damaged.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    history : History
        Its records.
    name : str
        The model.
    time_ns : int or None
        Time of the record, which no other record has; ``None`` where nothing is replaced.
    hashes_all : bool
        Whether a file that looks like the one that was saved is hashed, too.
    """
    if time_ns is None:
        return None, False
    if history.is_damaged_in_place(name, hashes_all=hashes_all):
        return f"{name}.{time_ns}", True
    return folder.store.free_backup_stem(name), False


def _recover(
    end: State, folder: ModelFolder, entry: Entry, record: Record[Any], work_dir: Path
) -> None:
    Protocol(folder.store, folder.journal, work_dir).recover(entry, record, end)


def _push_save(
    folder: ModelFolder,
    mirror: Mirror,
    record: SaveRecord,
    is_begun: bool,
    note: Note,
    work_dir: Path,
) -> MlflowIds:
    pair = pair_to_push(folder, record)
    for hashes_all in (False, True):
        pkl_path = folder.store.link_bytes_of(record.payload, work_dir, hashes_all=hashes_all)
        pkl_path = pkl_path or mirror.file_of_save(record, folder.downloads)
        pkl_path = pkl_path or _file_elsewhere(folder, mirror, record)
        if pkl_path is None:
            break
        try:
            return mirror.push(
                record,
                pkl_path,
                artifacts_dir=folder.journal.artifacts_dir(record.id),
                begun=is_begun,
                note=note,
                work_dir=work_dir,
                pair=pair,
            )
        except MirrorError as cause:
            if cause.data.get("error_code") != "BYTES_CHANGED" or hashes_all:
                raise
            is_begun = True
    layout = folder.layout
    raise MirrorError(
        f"the bytes of {record.name} with SHA-256 {record.payload.sha256} are neither in "
        f"{layout.trained_dir} nor in {layout.backup_dir}",
        error_code="BYTES_GONE",
    )


def pair_to_push(folder: ModelFolder, record: SaveRecord) -> Pair | None:
    """Return what is signed of a save, and its signature; ``None`` where it is not signed.

    Raises
    ------
    SignatureError
        If signatures are asked for, and no trusted key signed the save. That is no refusal of
        MLflow: the record goes on waiting.

    Notes
    -----
    It is copied to MLflow as it is. Where it cannot be read, the save goes without it, and whoever
    loads only what is signed refuses it.
    """
    trust = trusted.of_folder(folder)
    if trust is not None:
        return trust.of_record(record).pair
    try:
        return read_pair(folder.layout, record.id)
    except SignatureError as cause:
        _logger.warning("%s is sent to MLflow without its signature: %s", record.name, cause)
        return None


def _file_elsewhere(folder: ModelFolder, mirror: Mirror, record: SaveRecord) -> Path | None:
    """Return a file that another store with a known address has of a save, if one has any."""
    for target in folder.known_targets().values():
        if target.name in record.mirrored and target.name != mirror.target_name:
            found = folder.mirror(target).file_of_save(record, folder.downloads)
            if found is not None:
                return found
    return None


def _verify_save(verification: Verification, entry: Entry, record: SaveRecord) -> Iterator[Finding]:
    """Check that the bytes of a save are on disk, and in the current tracking store."""
    name = record.name
    if record.id in verification.going:  # the record of which says so
        return
    if entry.state == "aside" or record.tries:
        reason = record.reason or "it was set aside"
        sends = _sends(verification, record, Fix("sync", {"retry_aside": True}))
        yield Finding("stuck record", name, entry.path, reason, *sends)
    ids, standing = record.mirrored.get(verification.target.name), None
    if verification.survey is not None:
        standing = verification.survey.standing(record, ids)
    if not verification.history.has_bytes_of(record):
        yield from _missing_on_disk(verification, record, standing)
    yield from _verify_in_mlflow(verification, entry, record, standing)


def _sends(verification: Verification, record: SaveRecord, fix: Fix) -> tuple[str, Fix | None]:
    """Return the repair and the fix of a save that is to be sent; no sync sends what is gone."""
    ids, mirror = record.mirrored.get(verification.target.name), verification.mirror
    is_in_store = ids is not None and (mirror is None or mirror.has_bytes(ids.model_id))
    if is_in_store or verification.history.has_bytes_of(record):
        return "", fix
    folder, options = verification.folder, " and ".join(fix.arguments)
    free = folder.layout.backup_path(folder.store.free_backup_stem(record.name))
    return (
        "its bytes are gone, and there is nothing to send; an intact copy from elsewhere, put at "
        f"{free}, is sent by a sync{f' with {options}' if options else ''}"
    ), None


def _missing_on_disk(
    verification: Verification, record: SaveRecord, standing: Standing | None
) -> Iterator[Finding]:
    """Say that the bytes of a save are in neither folder, and how they come back.

    Notes
    -----
    An older save that MLflow has is not missed: bringing it back would put it in the place of a
    newer one.
    """
    name, target = record.name, verification.target.name
    newest = next(verification.history.records_of(name), record)
    is_newest = newest.payload.sha256 == record.payload.sha256
    ids, fix = record.mirrored.get(target), None
    if standing is not None and verification.mirror is not None:
        ids = standing.ids
        if ids is not None and not verification.mirror.has_bytes(ids.model_id):
            ids = None
        if ids is not None and not is_newest:
            return
    if ids is not None and is_newest:
        reference = VersionReference(registered_model_of(ids, name), version=ids.version)
        arguments = {"name_or_version": str(reference), "source": "registry"}
        fix = Fix("restore", arguments, effect="brings it back")
    path = verification.folder.layout.model_path(name)
    detail = f"the bytes of the save of {record.payload.saved_at} are in neither folder"
    repair = (
        ""
        if fix
        else "the current store has none, either; only a copy from elsewhere brings them back"
    )
    yield Finding("missing on disk", name, path, detail, repair, fix)


def _verify_in_mlflow(
    verification: Verification, entry: Entry, record: SaveRecord, standing: Standing | None
) -> Iterator[Finding]:
    """Check that a save is in the current tracking store, where its record says."""
    ids = record.mirrored.get(verification.target.name)
    if ids is None and (standing is None or standing.ids is None):
        if entry.state != "aside":
            detail = f"the save of {record.payload.saved_at} was not sent to the current store"
            sends = _sends(verification, record, Fix("sync"))
            yield Finding("missing in MLflow", record.name, entry.path, detail, *sends)
        return
    if standing is None or verification.mirror is None:
        return
    missing = standing.missing
    if standing.ids is not None and not missing:
        if standing.other_digest:
            detail = (
                f"the tags of version {standing.ids.version} say SHA-256 {standing.other_digest}, "
                f"and the record of its save {record.payload.sha256}"
            )
            fix = Fix("sync", {"resend": True}, effect="sets the tags right")
            yield Finding("damaged", record.name, entry.path, detail, fix=fix)
        if ids is None or not standing.is_at(ids):
            yield _moved_version(entry, record, standing.ids)
        elif not verification.mirror.has_bytes(ids.model_id):
            missing = f"the file of version {ids.version} is gone"
    if missing:
        sends = _sends(verification, record, Fix("sync", {"resend": True}))
        yield Finding("missing in MLflow", record.name, entry.path, missing, *sends)


def _moved_version(entry: Entry, record: SaveRecord, ids: MlflowIds) -> Finding:
    registered = registered_model_of(ids, record.name)
    detail = f"it is version {ids.version} of {registered} now, and its record does not say so"
    fix = Fix("sync", {"resend": True}, effect="notes that; nothing is sent twice")
    return Finding("moved version", record.name, entry.path, detail, fix=fix)


def _verify_nothing(*_: object) -> Iterator[Finding]:
    """Find nothing: a restore is of bytes that a save or a file is responsible for."""
    return iter(())


OF_SAVES = Kind(partial(_recover, END_OF_SAVE), _push_save, _verify_save)
OF_RESTORES = Kind(partial(_recover, END_OF_RESTORE), None, _verify_nothing)
