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
from lotto_mlflow.records import Finding, Note, PruneRecord, SaveRecord
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
    """Remove a save from MLflow, and then from the disk."""
    save = _save_of(folder, record)
    if save is not None:
        try:
            _check_is_not_protected(mirror, record, save)
            left = mirror.remove(save, is_forced=record.payload.is_forced)
        except ModelInUseError:  # nothing was removed
            folder.journal.drop(folder.journal.entry_of(record, "begun"))
            raise
        for text in left:
            _logger.warning("of %s, which was %s: %s", record.name, record.payload.verb, text)
        record = replace(record, payload=replace(record.payload, left=left))
    with locked(folder.lock()):
        _remove_from_disk(folder, record, save, work_dir)


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


OF_PRUNES = Kind(_recover, _push, _verify, leaves_record=False)
