"""Removing saves that were chosen: one record each, by which a killed removal is finished."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from lotto_mlflow.errors import Fix, LottoMlflowError, MirrorUnavailableError
from lotto_mlflow.files import locked
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.kinds import KINDS, push
from lotto_mlflow.kinds.save_files import files_of
from lotto_mlflow.layout import registered_model_of
from lotto_mlflow.records import (
    PRUNE,
    MlflowIds,
    PrunedSave,
    PrunePayload,
    PruneRecord,
    PruneReport,
    Record,
    SaveRecord,
    new_id,
)
from lotto_mlflow.settings import Target, sqlite_path

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

Removable = SaveRecord | PruneRecord
"""A save; or the record that it was removed, where a store has kept what it had of it."""
_TURN_SECONDS = 0.02
"""How long the push lock is left to saves between two removals; they look for it every 5 ms."""
Fail = Callable[[str, str, "Fix | None"], None]


@dataclass(frozen=True)
class Chosen:
    """A save that is to go.

    Attributes
    ----------
    save : SaveRecord or PruneRecord
        Its record, or that of its end.
    why : str
        Why it goes.
    aliases : tuple of str
        Aliases that go with it.
    is_deletion : bool
        Whether somebody named it.
    """

    save: Removable
    why: str
    aliases: tuple[str, ...] = ()
    is_deletion: bool = False

    def ids(self, target: Target) -> MlflowIds | None:
        """Return what it is called in a store."""
        return self.save.mirrored.get(target.name)

    def needs_mlflow(self, target: Target) -> bool:
        """Return whether a store has something of it, or may have."""
        return target.name in self.save.mirrored or target.name in self.save.attempts


def check_database(target: Target, saves: Iterable[Removable]) -> None:
    """See that the database is there that says which saves are in use, if it is to have some.

    Raises
    ------
    MirrorUnavailableError
        If its file is lost: MLflow would answer that there are no aliases, and no versions.
    """
    mirrored = [save for save in saves if target.name in save.mirrored]
    paths = (target.database_path, sqlite_path(target.registry_uri))
    lost = next((path for path in paths if path is not None and not path.exists()), None)
    if mirrored and lost is not None:
        raise MirrorUnavailableError(
            f"there is no file {lost}, and by the records {mirrored[0].name} is in it, so nobody "
            "can say which saves are in use; nothing was removed",
            fix=Fix(
                "sync",
                {"resend": True},
                before="put the file back where there is a copy of it, else call",
                effect="which pushes all saves again, without their aliases",
            ),
            error_code=None,
        )


def described(
    folder: ModelFolder, history: History, target: Target, one: Chosen, *, has_size: bool = True
) -> PrunedSave:
    """Return what a report says of a save; its size is that of all its files."""
    save, ids, size = one.save, one.ids(target), 0
    if has_size:
        size = files_of(history, save.id, save.payload, hashes=False).size
        size += 0 if ids is None else folder.mirror(target).size_of(ids, save)
    return PrunedSave(
        name=save.name,
        registered_model=registered_model_of(ids, save.name),
        version=None if ids is None else ids.version,
        save_id=save.id,
        sha256=save.payload.sha256,
        saved_at=save.payload.saved_at,
        size=size,
        why=one.why,
        aliases=one.aliases,
    )


def remove(folder: ModelFolder, target: Target, one: Chosen, report: PruneReport) -> None:
    """Remove a save from both views, and note that in a report.

    Raises
    ------
    MirrorUnavailableError
        If MLflow cannot be asked any more; the removal is decided, and is finished later.
    """
    with locked(folder.push_lock()):
        save = current(folder, one.save)
        if save is not None:  # which other processes may have removed meanwhile, or pushed
            _remove(folder, target, replace(one, save=save), report)
    time.sleep(_TURN_SECONDS)


def current(folder: ModelFolder, save: Removable) -> Removable | None:
    """Return the record of a save, or of its end, as it is now; ``None`` where that has changed."""
    entry = folder.journal.with_id(save.id)
    found = None if entry is None else folder.journal.read(entry)
    is_same = found is not None and found.is_save == save.is_save
    return found if is_same and (found is None or found.is_save or found.kind == PRUNE) else None


def _remove(folder: ModelFolder, target: Target, one: Chosen, report: PruneReport) -> None:
    seen = described(folder, folder.history(), target, one)
    record = _record(folder, target, one, seen)
    needs_mlflow = one.needs_mlflow(target)
    journal = folder.journal
    with folder.workspace() as work_dir, locked(folder.lock()):
        entry = journal.add(record, "committed" if needs_mlflow else "pending", work_dir)
        if not needs_mlflow:
            KINDS[PRUNE].recover(folder, entry, record, work_dir)
    if needs_mlflow:
        try:
            push(folder, folder.mirror(target), entry, record, target)
        except MirrorUnavailableError as cause:
            raise MirrorUnavailableError(
                f"{cause.summary}; {record.name} is decided to go, and the next save, sync or "
                "prune that reaches MLflow removes it",
                error_code=cause.data.get("error_code"),
            ) from cause
        except LottoMlflowError as cause:
            report.failed[one.save.id] = str(cause)
            return
    end = journal.with_id(one.save.id)
    found = None if end is None else journal.read(end)
    if found is None or found.kind != PRUNE:
        report.failed[one.save.id] = f"{one.save.name} could not be removed from the disk"
        return
    known = one.save.payload.left if isinstance(one.save.payload, PrunePayload) else ()
    report.left += [text for text in found.payload.left if text not in known]
    report.add(seen)


def _record(folder: ModelFolder, target: Target, one: Chosen, seen: PrunedSave) -> PruneRecord:
    payload, now = one.save.payload, time.time_ns()
    moment = datetime.fromtimestamp(now // 10**9, folder.settings().timezone)
    return Record(
        id=new_id(now),
        kind=PRUNE,
        target=target.name,
        host=socket.gethostname(),
        payload=PrunePayload(
            name=payload.name,
            sha256=payload.sha256,
            size=payload.size,
            saved_at=payload.saved_at,
            saved_at_ns=payload.saved_at_ns,
            file_time_ns=payload.file_time_ns,
            save_id=one.save.id,
            registered_model=seen.registered_model,
            when=moment.isoformat(),
            why=one.why,
            is_deletion=one.is_deletion,
            is_forced=bool(one.aliases),
            backup=payload.backup,
            replaced_sha256=payload.replaced_sha256,
            earlier_sha256=payload.earlier_sha256,
        ),
    )


def finish(folder: ModelFolder, mirror: Mirror, target: Target, fail: Fail) -> None:
    """Finish the removals that were decided before; the caller holds the push lock.

    Raises
    ------
    MirrorUnavailableError
        If MLflow cannot be asked.
    """
    for entry in folder.journal.waiting():
        record = folder.journal.read(entry)
        if record is None or record.kind != PRUNE or record.target != target.name:
            continue
        try:
            push(folder, mirror, entry, record, target)
        except MirrorUnavailableError:
            raise
        except LottoMlflowError as cause:
            fail(record.name, str(cause), cause.fix)
