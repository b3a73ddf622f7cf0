"""What is done with each kind of record: how it is recovered, pushed and verified.

A new kind adds its payload to `lotto_mlflow.records`, and an entry to `KINDS`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotto_mlflow.errors import MirrorError, MirrorUnavailableError
from lotto_mlflow.files import sweep
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.journal import Entry
from lotto_mlflow.kinds.base import Kind, Verification
from lotto_mlflow.kinds.draws import OF_PREDICTIONS, OF_RESULTS
from lotto_mlflow.kinds.prunes import OF_PRUNES
from lotto_mlflow.kinds.saves import OF_RESTORES, OF_SAVES
from lotto_mlflow.records import (
    BACKFILL,
    PREDICTION,
    PRUNE,
    RESTORE,
    RESULT,
    SAVE,
    Attempt,
    Record,
)
from lotto_mlflow.settings import Target

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

__all__ = ["KINDS", "Kind", "Verification", "push", "recover"]

MAX_TRIES = 3
"""Refusals after which a record is set aside; being unable to ask is no refusal."""
KINDS = {
    SAVE: OF_SAVES,
    BACKFILL: OF_SAVES,
    RESTORE: OF_RESTORES,
    PREDICTION: OF_PREDICTIONS,
    RESULT: OF_RESULTS,
    PRUNE: OF_PRUNES,
}


def recover(folder: ModelFolder, work_dir: Path) -> None:
    """Finish or drop the work of processes that died; the caller holds the folder's lock.

    Raises
    ------
    StoreError
        If a record of such work cannot be read now, by another user's choice for one.
    """
    sweep(folder.layout.tmp_dir, *folder.layout.swept_dirs)
    for entry in folder.journal.pending():
        record = folder.journal.read(entry)
        if record is not None:
            KINDS[record.kind].recover(folder, entry, record, work_dir)
            continue
        refusal = folder.journal.refusal(entry)
        if refusal is not None:
            raise refusal
        if not folder.journal.is_of_later_release(entry):
            folder.journal.quarantine(entry)


def push(
    folder: ModelFolder, mirror: Mirror, entry: Entry, record: Record[Any], target: Target
) -> Record[Any]:
    """Bring one record to MLflow, and move it on; the caller holds the push lock.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    mirror : Mirror
        The MLflow view in the target.
    entry : Entry
        Where the record lies: in ``outbox/``, or, when another store gets it too, in ``sent/``.
    record : Record
        The record.
    target : Target
        The store.

    Returns
    -------
    Record
        The record as it lies on disk now.

    Raises
    ------
    MirrorUnavailableError
        If MLflow could not be asked; the record stays where it is.
    MirrorError
        If MLflow refuses this record, or its bytes are gone; it counts as a try.
    """
    mirror.prepare()
    with folder.workspace() as work_dir:
        try:
            return _pushed(folder, mirror, entry, record, target, work_dir)
        except MirrorUnavailableError:
            raise
        except MirrorError as cause:
            _count_refusal(folder, entry, record, cause, work_dir)
            raise


def _pushed(
    folder: ModelFolder,
    mirror: Mirror,
    entry: Entry,
    record: Record[Any],
    target: Target,
    work_dir: Path,
) -> Record[Any]:
    kind, journal = KINDS[record.kind], folder.journal
    if kind.waits is not None and kind.waits(folder, record, target.name):
        return record
    is_begun = entry.state != "committed"
    pushed = replace(record, tries=0, reason=None)
    if kind.push is not None:
        if not is_begun:
            entry = journal.mark(entry, "begun")
        at, noted = entry, record

        def note(attempt: Attempt) -> Record[Any]:
            nonlocal noted
            noted = replace(noted, attempts=noted.attempts | {target.name: attempt})
            journal.rewrite(at, noted, work_dir)
            return noted

        ids = kind.push(folder, mirror, record, is_begun, note, work_dir)
        attempts = {name: one for name, one in noted.attempts.items() if name != target.name}
        mirrored = record.mirrored | ({} if ids is None else {target.name: ids})
        pushed = replace(pushed, mirrored=mirrored, attempts=attempts)
    if not kind.leaves_record:
        journal.drop(entry)
        return pushed
    has_no_ids = kind.push is None or (not record.is_save and record.target == target.name)
    is_done = has_no_ids or record.target in pushed.mirrored
    if is_done or entry.state == "sent":
        journal.move(entry, pushed, "sent", work_dir)
    else:  # the store that it was meant for has still to get it
        journal.rewrite(entry, pushed, work_dir)
    return pushed


def _count_refusal(
    folder: ModelFolder, entry: Entry, record: Record[Any], cause: MirrorError, work_dir: Path
) -> None:
    """Count a refusal, and set the record aside where it is one too many."""
    current = folder.journal.current(entry)
    if current is None or current.state not in ("committed", "begun"):
        return
    record = folder.journal.read(current) or record  # which may have been noted something
    refused = replace(record, tries=record.tries + 1, reason=str(cause))
    is_hopeless = cause.data.get("error_code") == "BYTES_GONE" or refused.tries >= MAX_TRIES
    if is_hopeless:
        folder.journal.move(current, refused, "aside", work_dir)
    else:
        folder.journal.rewrite(current, refused, work_dir)
