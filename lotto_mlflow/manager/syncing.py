"""`ModelManager.sync`: bring MLflow to what the folder holds."""

from __future__ import annotations

import functools
import logging
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lotto_mlflow.errors import (
    LottoMlflowError,
    MirrorError,
    MirrorUnavailableError,
    SyncRunningError,
)
from lotto_mlflow.files import held, lock_at, sweep
from lotto_mlflow.layout import registered_model
from lotto_mlflow.manager import backfill, saving, sending
from lotto_mlflow.manager.parts import Parts, disk_errors
from lotto_mlflow.outbox import Entry
from lotto_mlflow.records import Progress, SaveRecord

if TYPE_CHECKING:
    from lotto_mlflow.manager import ModelManager
    from lotto_mlflow.mirror import Mirror

_logger = logging.getLogger("lotto_mlflow")


@dataclass
class SyncReport:
    """What a sync did, or would do.

    Attributes
    ----------
    sent : list of str
        Names of the saves that were sent, in save order.
    backfilled : list of str
        Names of the files among them that no save knew.
    resent : list of str
        Names of the saves among them that had been deleted in MLflow.
    failed : dict of str to str
        Reason for each save that MLflow refused, and for each file that was changed after it was
        saved, by name.
    dry_run : bool
        Whether nothing was done.
    """

    sent: list[str] = field(default_factory=list)
    backfilled: list[str] = field(default_factory=list)
    resent: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    dry_run: bool = False


@dataclass(frozen=True)
class _Work:
    """One record to send; ``entry`` is missing for a file that no record tells of yet."""

    record: SaveRecord
    entry: Entry | None
    is_resent: bool = False
    may_be_mirrored: bool = False


def sync(
    self: ModelManager,
    *,
    dry_run: bool = False,
    include_backups: bool = False,
    resend: bool = False,
    retry_aside: bool = False,
    progress: Progress | None = None,
) -> SyncReport:
    """Send MLflow everything that the store in force lacks, in save order.

    That is the outbox, saves that were recorded for another store, and model files that no record
    knows: hundreds of files from before this package come in with one call.

    Parameters
    ----------
    dry_run : bool
        Only tell what would be sent.
    include_backups : bool
        Bring in unknown files of ``backups/``, too.
    resend : bool
        Send again what was sent and then deleted in MLflow, which otherwise stays deleted.
    retry_aside : bool
        Try the records again that were set aside.
    progress : callable, optional
        As in `lotto_mlflow.records.Progress`.

    Returns
    -------
    SyncReport
        What was done.

    Raises
    ------
    SyncRunningError
        If another sync of the folder is running. Nothing was changed.
    MirrorUnavailableError
        If MLflow cannot be asked; what was sent before that stays sent.

    Notes
    -----
    Idempotent. Nothing is unpickled. Saves go on meanwhile. An unknown file has the time in its
    metadata, else its own, as the start of its run, and the tag ``backfilled``.
    """
    parts, target = self._parts, self._target()
    with ExitStack() as stack:
        stack.enter_context(disk_errors(parts, "sync could not be done"))
        if not dry_run:
            parts.make_dirs()
            _take_turn(stack, parts)
            _settle(parts, retry_aside=retry_aside)
        mirror = self._mirror()
        if not dry_run:
            mirror.create()
            mirror.prepare()
        report = SyncReport(dry_run=dry_run)
        work = _known(parts, mirror, target, resend=resend)
        work += _unknown(self, mirror, report, include_backups=include_backups)
        work.sort(key=lambda item: item.record.id)
        for number, item in enumerate(work):
            if progress is not None:
                progress(number, len(work), item.record.size, item.record.name)
            _do(self, mirror, target, item, report)
        if progress is not None:
            progress(len(work), len(work), 0, "")
    return report


def _take_turn(stack: ExitStack, parts: Parts) -> None:
    from filelock import Timeout

    try:
        stack.enter_context(held(lock_at(parts.layout.mlflow_dir / "sync.lock"), 0))
    except Timeout as cause:
        raise SyncRunningError(
            f"another sync of {parts.layout.trained_dir.parent} is running; wait until it ends",
        ) from cause
    stack.enter_context(held(parts.push_lock()))


def _settle(parts: Parts, *, retry_aside: bool) -> None:
    with parts.workspace() as work_dir, held(parts.lock()):
        sweep(parts.layout.tmp_dir, *parts.store.folders)
        saving.settle(parts, work_dir)
        if retry_aside:
            for entry in parts.outbox.entries():
                record = parts.outbox.readable(entry) if entry.state == "aside" else None
                if record is not None:
                    parts.outbox.rewrite(entry, replace(record, tries=0), work_dir)
                    parts.outbox.take_back(entry)


def _known(parts: Parts, mirror: Mirror, target: str, *, resend: bool) -> list[_Work]:
    """Return the recorded saves that the store in force lacks."""
    work, saves_in = [], functools.cache(mirror.saves_in)
    waiting = {entry.id: entry for entry in parts.outbox.waiting()}
    for found in parts.outbox.entries():
        # one that was killed on its way to sent/ lies in both folders, and is sent once more
        entry = waiting.get(found.id, found)
        record = parts.outbox.readable(entry)
        if record is None or entry.state in ("pending", "aside"):
            continue
        place = record.mirrored.get(target)
        is_waiting = entry.state in ("committed", "begun") and record.target == target
        if place is None or is_waiting:
            work.append(_Work(record, entry))
        elif resend and saves_in(registered_model(record.name)).get(place["version"]) != record.id:
            work.append(_Work(record, entry, is_resent=True))
    return work


def _unknown(
    manager: ModelManager, mirror: Mirror, report: SyncReport, *, include_backups: bool
) -> list[_Work]:
    """Return the files that no record tells of, each name and content once."""
    parts, target, timezone = manager._parts, manager._target(), manager._settings().timezone
    unknown = list(backfill.unknown_files(parts, include_backups=include_backups))
    # where the store has not one such file, none of these need be looked for before it is sent
    may_be = bool(unknown) and mirror.has_backfills()
    found: dict[tuple[str, str], _Work] = {}
    for file in unknown:
        if file.is_changed:
            report.failed[file.name] = (
                f"{file.path} was changed after it was saved, and is not sent; "
                f"ModelManager.restore({file.name!r}), or with source='registry', brings the "
                "model back"
            )
            continue
        record = backfill.record_of(parts, file.name, file.path, target, timezone)
        work = _Work(record, None, may_be_mirrored=may_be)
        found.setdefault((record.name, record.sha256), work)
    return list(found.values())


def _do(
    manager: ModelManager, mirror: Mirror, target: str, item: _Work, report: SyncReport
) -> None:
    parts, record, entry = manager._parts, item.record, item.entry
    if not report.dry_run:
        if entry is None:
            with parts.workspace() as work_dir:
                entry = parts.outbox.add_committed(record, work_dir, begun=item.may_be_mirrored)
        try:
            if entry.state == "sent":
                _take_artifacts(manager, mirror, record, target)
            sending.send(parts, mirror, entry, record, target)
        except MirrorUnavailableError:
            raise
        except LottoMlflowError as cause:
            report.failed[record.name] = str(cause)
            return
    report.sent.append(record.name)
    if item.entry is None:
        report.backfilled.append(record.name)
    if item.is_resent:
        report.resent.append(record.name)


def _take_artifacts(manager: ModelManager, mirror: Mirror, record: SaveRecord, target: str) -> None:
    """Take the caller's extra artifacts, which only MLflow has, from the run of an earlier push."""
    parts = manager._parts
    for told, place in record.mirrored.items():
        try:
            holder = mirror if told == target else manager._mirror_of(told)
            with parts.workspace() as work_dir:
                folder = holder.artifacts_of_run(place["run_id"], work_dir / "artifacts")
                if folder is not None:
                    parts.outbox.put_artifacts(record, folder)
                    return
        except MirrorError as cause:
            _logger.warning("extra artifacts of %s may be missing: %s", record.name, cause)
