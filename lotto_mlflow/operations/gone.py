"""Saves that were pruned or deleted: whoever asks for one learns when it went, and why."""

from __future__ import annotations

from lotto_mlflow.errors import ModelNotFoundError
from lotto_mlflow.history import History
from lotto_mlflow.layout import registered_model_of
from lotto_mlflow.records import PRUNE, ModelRecord, PruneRecord
from lotto_mlflow.references import VersionReference
from lotto_mlflow.settings import Target


def check_name(history: History, name: str) -> None:
    """See that a model that is not on disk is not one that was removed.

    Raises
    ------
    ModelNotFoundError
        If the newest save of the name was; the message says when and why.
    """
    entries = (entry for entry in history.entries_of(name) if entry.state == "sent")
    records = (history.read(entry) for entry in entries)
    saves = (one for one in records if one is not None and (one.is_save or one.kind == PRUNE))
    newest = next(saves, None)
    if newest is not None and newest.kind == PRUNE:
        raise error_of(newest)


def check_version(history: History, target: Target, reference: VersionReference) -> None:
    """See that a version that is not in the registry is not one that was removed.

    Raises
    ------
    ModelNotFoundError
        If it was; the message says when and why.

    Notes
    -----
    Every record is read for it.
    """
    wanted = (reference.registered_model, reference.version)
    for entry in history.entries() if reference.version is not None else ():
        record = history.read(entry)
        if record is None or record.kind != PRUNE:
            continue
        ids = record.mirrored.get(target.name)
        if ids is not None and (registered_model_of(ids, record.name), ids.version) == wanted:
            raise error_of(record)


def end_of_version(history: History, target: Target, version: ModelRecord) -> PruneRecord | None:
    """Return the record of a removed save that a version is of; the store kept what it has of it.

    Notes
    -----
    A save that several stores have is removed from the one that is current then. The run says
    which version is of it, and not its tags, which whoever reaches the store can set. Every
    record is read for it.
    """
    for entry in history.entries() if version.run_id else ():
        record = history.read(entry) if entry.state == "sent" else None
        if record is None or record.kind != PRUNE:
            continue
        ids = record.mirrored.get(target.name)
        if ids is not None and ids.run_id == version.run_id:
            return record
    return None


def error_of(record: PruneRecord) -> ModelNotFoundError:
    """Return the error of who asks for a save that was removed."""
    payload, ids = record.payload, record.mirrored.get(record.target)
    version = "" if ids is None else f", version {ids.version} of {payload.registered_model},"
    return ModelNotFoundError(
        f"the save of {payload.saved_at} of {record.name}{version} was {payload.verb} on "
        f"{payload.when}: {payload.why}",
        name=record.name,
        when=payload.when,
        why=payload.why,
    )
