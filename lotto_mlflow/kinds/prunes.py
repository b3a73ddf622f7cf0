"""Saves that go: how the records of what is pruned are recovered, pushed and verified.

Once such a record is durable, the save goes, and nothing but its coming into use stops that: first
from MLflow, then from the disk, and in the end a record of it takes the place of the save's own. A
save that no tracking store has had is removed by whoever recovers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lotto_mlflow import regular
from lotto_mlflow.errors import Fix, ModelInUseError
from lotto_mlflow.files import locked
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.journal import Entry
from lotto_mlflow.kinds import in_use, save_files
from lotto_mlflow.kinds.base import UNDER_WAY, Kind, Verification
from lotto_mlflow.layout import registered_model_of
from lotto_mlflow.records import PRUNE, Finding, Note, PruneRecord, SaveRecord
from lotto_mlflow.references import VersionReference
from lotto_mlflow.store.signatures import remove_pairs
from lotto_mlflow.text import masked

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

_logger = logging.getLogger("lotto_mlflow")


def _save_of(folder: ModelFolder, record: PruneRecord) -> SaveRecord | None:
    """Return the record of the save that goes, ``None`` where it is gone already."""
    save = folder.history().save_with_id(record.payload.save_id)
    if save is None:
        return None
    own = (save.name, save.payload.sha256)
    return save if own == (record.name, record.payload.sha256) else None


def _remove_from_disk(
    folder: ModelFolder, record: PruneRecord, save: SaveRecord | None, work_dir: Path
) -> None:
    """Remove the files of a save, and put the record of its end in the place of its own.

    Notes
    -----
    The caller holds the folder's lock. Only what the record of the save proves is removed; where
    that is gone, all of this was done before.
    """
    journal = folder.journal
    end = replace(record, id=record.payload.save_id, attempts={}, tries=0, reason=None)
    if save is not None:
        history = folder.history()
        save_files.remove(history, save_files.files_of(history, save.id, save.payload))
        remove_pairs(folder.layout, [save.id])
        mirrored = {target: replace(ids, files={}) for target, ids in save.mirrored.items()}
        end = replace(end, mirrored=mirrored)
        journal.add(end, "sent", work_dir)
        _logger.info("%s %s: %s", end.payload.verb, end.name, end.payload.why)
    if regular.is_file(journal.entry_of(end, "sent").path):
        for state in UNDER_WAY:
            journal.drop(journal.entry_of(end, state))


def _recover(folder: ModelFolder, entry: Entry, record: PruneRecord, work_dir: Path) -> None:
    """Remove a save that no tracking store has; one that cannot be removed waits."""
    try:
        _remove_from_disk(folder, record, _save_of(folder, record), work_dir)
    except OSError as cause:
        _logger.warning("%s could not be removed, and is tried again: %s", record.name, cause)
        return
    folder.journal.drop(entry)


def _push(
    folder: ModelFolder,
    mirror: Mirror,
    record: PruneRecord,
    is_begun: bool,
    note: Note,
    work_dir: Path,
) -> None:
    """Remove a save from MLflow, and then from the disk.

    Notes
    -----
    One that is gone by its record may still be in this store: it was removed from another one.
    """
    save = _save_of(folder, record)
    end = _end_of(folder, record, mirror) if save is None else None
    known = save or end
    if known is not None:
        try:
            if save is not None:
                _check_is_not_protected(mirror, record, save)
            left = mirror.remove(known, is_forced=record.payload.is_forced)
        except ModelInUseError:  # nothing was removed
            folder.journal.drop(folder.journal.entry_of(record, "begun"))
            raise
        for text in left:
            _logger.warning("of %s, which was %s: %s", record.name, record.payload.verb, text)
        record = replace(record, payload=replace(record.payload, left=left))
    with locked(folder.lock()):
        if end is not None:
            _note_end(folder, end, record, work_dir)
        _remove_from_disk(folder, record, save, work_dir)


def _end_of(folder: ModelFolder, record: PruneRecord, mirror: Mirror) -> PruneRecord | None:
    """Return the record that a save is gone, if a store had the save by then, and it was named."""
    entry = folder.journal.with_id(record.payload.save_id)
    end = None if entry is None else folder.journal.read(entry)
    if end is None or end.kind != PRUNE or not record.payload.is_deletion:
        return None
    own = (end.name, end.payload.sha256)
    is_its = own == (record.name, record.payload.sha256) and mirror.target_name in end.mirrored
    return end if is_its else None


def _note_end(folder: ModelFolder, end: PruneRecord, record: PruneRecord, work_dir: Path) -> None:
    """Remove what of a save came back to the disk, and note what was left and taken in MLflow."""
    history = folder.history()
    save_files.remove(history, save_files.files_of(history, end.id, end.payload))
    remove_pairs(folder.layout, [end.id])
    payload = replace(
        end.payload,
        is_forced=end.payload.is_forced or record.payload.is_forced,
        left=list(dict.fromkeys([*end.payload.left, *record.payload.left])),
    )
    folder.journal.add(replace(end, payload=payload), "sent", work_dir)


def _check_is_not_protected(mirror: Mirror, record: PruneRecord, save: SaveRecord) -> None:
    """See that a version that a limit chose has not come into use since."""
    ids = save.mirrored.get(mirror.target_name)
    if ids is None or record.payload.is_deletion:
        return
    name = registered_model_of(ids, save.name)
    why = in_use.protected_versions(mirror, name).get(ids.version)
    if why is not None:
        raise ModelInUseError(
            f"version {ids.version} of {name} stays, {why}; nothing of {save.name} was removed",
            name=save.name,
        )


def _verify(verification: Verification, entry: Entry, record: PruneRecord) -> Iterator[Finding]:
    """Find what was decided to go and did not; nothing is missed of what is gone."""
    if entry.state == "sent":
        yield from _verify_end(verification, record)
        return
    detail = f"it is to be {record.payload.verb}, and that was not seen to end"
    if record.reason is not None:
        detail = f"{detail}: {record.reason}"
    if record.target != verification.target.name:
        repair = f"select the tracking store {masked(record.target)}, then sync"
        yield Finding("stuck record", record.name, entry.path, detail, repair)
        return
    fix = Fix("sync", {"retry_aside": True} if entry.state == "aside" else {}, effect="does it")
    yield Finding("stuck record", record.name, entry.path, detail, fix=fix)


def _verify_end(verification: Verification, record: PruneRecord) -> Iterator[Finding]:
    """Find what was deleted from one store, and is in the current one still."""
    ids = record.mirrored.get(verification.target.name)
    is_open = record.payload.is_deletion and record.id not in verification.going
    if ids is None or verification.survey is None or not is_open:
        return
    own = (registered_model_of(ids, record.name), ids.version)
    for name, number in verification.survey.places_of_run(ids.run_id):
        place = str(VersionReference(name, version=number))
        detail = (
            f"its save was deleted on {record.payload.when} where {masked(record.target)} was "
            f"current, and {place} is still in {verification.target.name}"
        )
        if (name, number) == own:
            fix = Fix("delete", {"model": place}, effect="removes it there, too")
            yield Finding("stuck record", record.name, None, detail, fix=fix)
        else:
            repair = "it was renamed or copied there; delete it with MLflow"
            yield Finding("stuck record", record.name, None, detail, repair)


OF_PRUNES = Kind(_recover, _push, _verify, leaves_record=False)
