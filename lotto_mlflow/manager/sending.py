"""Sending one record: from the outbox to MLflow, and on to where it stays."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lotto_mlflow.errors import MirrorError, MirrorUnavailableError
from lotto_mlflow.manager.parts import Parts
from lotto_mlflow.outbox import Entry
from lotto_mlflow.records import SaveRecord

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

MAX_TRIES = 3
"""Refusals after which a record is set aside; being unable to ask is no refusal."""


def send(parts: Parts, mirror: Mirror, entry: Entry, record: SaveRecord, target: str) -> SaveRecord:
    """Tell MLflow of one save; the caller holds the push lock.

    Parameters
    ----------
    parts : Parts
        The folder.
    mirror : Mirror
        The store in force.
    entry : Entry
        Where the record lies, in ``outbox/`` or, when another store is told too, in ``sent/``.
    record : SaveRecord
        The record.
    target : str
        Name of the store in force, under which the record notes where the save lies.

    Returns
    -------
    SaveRecord
        The record as it lies in ``sent/`` now.

    Raises
    ------
    MirrorUnavailableError
        If MLflow could not be asked; the record stays where it is.
    MirrorError
        If MLflow refuses this record, or its bytes are gone; it counts as a try.
    """
    mirror.prepare()
    with parts.workspace() as work_dir:
        try:
            return _sent(parts, mirror, entry, record, target, work_dir)
        except MirrorUnavailableError:
            raise
        except MirrorError as cause:
            _note(parts, entry, record, cause, work_dir)
            raise


def _sent(
    parts: Parts, mirror: Mirror, entry: Entry, record: SaveRecord, target: str, work_dir: Path
) -> SaveRecord:
    pkl_path = parts.store.take(record, work_dir)
    if pkl_path is None:
        layout = parts.layout
        raise MirrorError(
            f"the bytes of {record.name} with SHA-256 {record.sha256} are neither in "
            f"{layout.trained_dir} nor in {layout.backup_dir}",
            error_code="BYTES_GONE",
        )
    begun = entry.state != "committed"
    if not begun:
        entry = parts.outbox.mark(entry, "begun")
    place = mirror.push(
        record,
        pkl_path,
        artifacts_dir=parts.outbox.artifacts_dir(record.id),
        begun=begun,
        work_dir=work_dir,
    )
    told = record.mirrored | {target: asdict(place)}
    sent = replace(record, mirrored=told, tries=0, reason=None)
    if record.target in told or entry.state == "sent":
        parts.outbox.move(entry, sent, "sent", work_dir)
    else:  # the store that it was meant for has still to be told
        parts.outbox.rewrite(entry, sent, work_dir)
    return sent


def _note(
    parts: Parts, entry: Entry, record: SaveRecord, cause: MirrorError, work_dir: Path
) -> None:
    """Count a refusal, and set the record aside where it is one too many."""
    current = parts.outbox.current(entry)
    if current is None or current.state not in ("committed", "begun"):
        return
    refused = replace(record, tries=record.tries + 1, reason=str(cause))
    is_hopeless = cause.data.get("error_code") == "BYTES_GONE" or refused.tries >= MAX_TRIES
    if is_hopeless:
        parts.outbox.move(current, refused, "aside", work_dir)
    else:
        parts.outbox.rewrite(current, refused, work_dir)
