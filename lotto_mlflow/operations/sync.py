"""Sync: bring MLflow to what the folder holds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lotto_mlflow import trusted
from lotto_mlflow.errors import (
    Fix,
    LottoMlflowError,
    MirrorError,
    MirrorUnavailableError,
    SignatureError,
    SyncRunningError,
)
from lotto_mlflow.files import lock_at, locked
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.journal import Entry, State
from lotto_mlflow.kinds import push, recover
from lotto_mlflow.kinds.base import going
from lotto_mlflow.kinds.saves import pair_to_push
from lotto_mlflow.model_file import ModelFile
from lotto_mlflow.operations import prediction_files, removals, restored, signed
from lotto_mlflow.operations.backfill import backfill_record
from lotto_mlflow.operations.load import NO_COPY, fix_of_file
from lotto_mlflow.push import PushWorker
from lotto_mlflow.records import (
    MlflowIds,
    Progress,
    Record,
    SaveRecord,
    SyncReport,
    no_progress,
)
from lotto_mlflow.settings import Settings, Target
from lotto_mlflow.signing import Pair, Statement
from lotto_mlflow.trusted import Trusted

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror, Standing

_logger = logging.getLogger("lotto_mlflow")


@dataclass(frozen=True)
class _Work:
    """One record to push; ``entry`` is missing for a file that no record knows yet.

    ``found`` is where the store has it already, for the record to say so; that may be the record
    of a restore.
    """

    record: Record[Any]
    entry: Entry | None
    is_resent: bool = False
    may_be_mirrored: bool = False
    found: MlflowIds | None = None


def sync(
    folder: ModelFolder,
    *,
    dry_run: bool,
    include_backups: bool,
    resend: bool,
    retry_aside: bool,
    progress: Progress | None,
    to: Target | None = None,
) -> SyncReport:
    """Push everything that a store, by default the current one, lacks, in save order."""
    current = folder.settings()
    target = to or folder.target(current)
    folder.check_format()
    with ExitStack() as stack:
        stack.enter_context(
            folder.disk_errors("sync could not be done", "What was sent before that stays sent")
        )
        if not dry_run:
            folder.make_dirs()
            lock_alone(stack, folder, "sync.lock", "sync")
            stack.enter_context(locked(folder.push_lock()))
            _recover(folder, retry_aside=retry_aside)
        report = SyncReport(dry_run=dry_run)
        prediction_files.put_right(folder, report)
        mirror = folder.mirror(target)
        if not dry_run:
            mirror.create()
            mirror.prepare()
            removals.finish(folder, mirror, target, report.fail)
        history = folder.history()
        _note_unreadable(folder, history, report)
        work = _recorded(folder, history, mirror, target, resend=resend)
        unknown = list(history.unknown_files(target, include_backups=include_backups))
        work += _unrecorded(folder, history, mirror, target, current, unknown, report)
        work.sort(key=lambda item: item.record.id)
        _push_all(folder, mirror, target, work, report, progress or no_progress)
        prediction_files.send(folder, mirror, target, report, resend=resend)
    return report


def _push_all(
    folder: ModelFolder,
    mirror: Mirror,
    target: Target,
    work: list[_Work],
    report: SyncReport,
    on_progress: Progress,
) -> None:
    trust = trusted.of_folder(folder)
    for number, item in enumerate(work):
        on_progress(number, len(work), item.record.payload.size, item.record.name)
        if trust is None or _is_signed(trust, item, report):
            _push(folder, mirror, target, item, report)
    on_progress(len(work), len(work), 0, "")


def _is_signed(trust: Trusted, item: _Work, report: SyncReport) -> bool:
    """Return whether a trusted key signed what is to be sent; why not, is reported."""
    if item.found is not None:  # and nothing is sent
        return True
    try:
        trust.of_record(item.record)
    except SignatureError as cause:
        report.fail(
            item.record.name, f"{signed.detail_of(cause)}; it is not sent", _fix_of(item, cause)
        )
        return False
    return True


def _fix_of(item: _Work, cause: SignatureError) -> Fix | None:
    if cause.data.get("problem") != "missing":
        return cause.fix
    return Fix("sign", {"model": item.record.name}, before=signed.IF_YOURS)


def lock_alone(stack: ExitStack, folder: ModelFolder, file_name: str, what: str) -> None:
    """Lock a folder against another call of the same kind, until a stack is closed.

    Raises
    ------
    SyncRunningError
        If there is one.
    """
    from filelock import Timeout

    try:
        stack.enter_context(locked(lock_at(folder.layout.mlflow_dir / file_name), 0))
    except Timeout as cause:
        raise SyncRunningError(
            f"another {what} of {folder.layout.trained_dir.parent} is running; wait until it ends",
        ) from cause


def _recover(folder: ModelFolder, *, retry_aside: bool) -> None:
    journal = folder.journal
    with folder.workspace() as work_dir, locked(folder.lock()):
        folder.note_format(work_dir)
        recover(folder, work_dir)
        journal.drop_left_artifacts()
        if retry_aside:
            for entry in (*journal.entries(), *journal.of_draws()):
                record = journal.read(entry) if entry.state == "aside" else None
                if record is not None:
                    journal.rewrite(entry, replace(record, tries=0), work_dir)
                    journal.requeue(entry)


def _note_unreadable(folder: ModelFolder, history: History, report: SyncReport) -> None:
    """Note the saves whose records the system does not let be read: they may have to be sent."""
    for entry in history.entries():
        if entry.state in ("committed", "begun") and history.read(entry) is None:
            refusal = folder.journal.refusal(entry)
            if refusal is not None:
                report.fail(entry.name, refusal.summary, refusal.fix)


def _recorded(
    folder: ModelFolder, history: History, mirror: Mirror, target: Target, *, resend: bool
) -> list[_Work]:
    """Return the recorded saves that the current store lacks, or has elsewhere than recorded."""
    work, survey = [], mirror.survey()
    waiting = {entry.id: entry for entry in folder.journal.waiting()}
    leaving = going(history)
    for found in history.entries():
        # one that was killed on its way to sent/ lies in both folders, and is pushed once more
        entry = waiting.get(found.id, found)
        record = None if entry.state in ("pending", "aside") else history.read(entry)
        if record is None or not record.is_save or record.id in leaving:
            continue
        ids = record.mirrored.get(target.name)
        is_waiting = entry.state in ("committed", "begun") and record.target == target.name
        if is_waiting:
            work.append(_Work(record, entry))
        elif ids is None:
            there = survey.standing(record, None).ids
            is_there = there is not None and mirror.holds(there, record)
            work.append(_Work(record, entry, found=there if is_there else None))
        elif resend:
            work += _resent(folder, mirror, record, entry, ids, survey.standing(record, ids))
    return work


def _resent(
    folder: ModelFolder,
    mirror: Mirror,
    record: SaveRecord,
    entry: Entry,
    ids: MlflowIds,
    standing: Standing,
) -> Iterator[_Work]:
    """Yield what is to be done for a save that is not in MLflow as its record says."""
    if standing.ids is None or standing.missing or standing.other_digest:
        yield _Work(record, entry, is_resent=True)
    elif not standing.is_at(ids):
        if mirror.holds(standing.ids, record):
            files = ids.files if ids.model_id == standing.ids.model_id else {}
            yield _Work(record, entry, found=replace(standing.ids, files=files))
        else:
            yield _Work(record, entry, is_resent=True)
    elif not mirror.is_intact(ids, record, _pair_of(folder, record)):
        yield _Work(record, entry, is_resent=True)


def _pair_of(folder: ModelFolder, record: SaveRecord) -> Pair | None:
    with suppress(SignatureError):
        return pair_to_push(folder, record)
    return None


def _unrecorded(
    folder: ModelFolder,
    history: History,
    mirror: Mirror,
    target: Target,
    current: Settings,
    unknown: list[ModelFile],
    report: SyncReport,
) -> list[_Work]:
    """Return the files that no record knows, each name and content once."""
    # where the store has not one such file, none of these need be looked for before it is pushed
    trust = trusted.of_folder(folder)
    may_be = bool(unknown) and mirror.has_backfills()
    found: dict[tuple[str, str], _Work] = {}
    for file in unknown:
        name = history.name_of(file)
        if current.trust == "known" and not history.known(file, strictly=True):
            reason = f"{file.path} is in no record, and LOTTO_TRUST=known sends only what is"
            report.fail(name, f"{reason}; to bring it in, sync once with LOTTO_TRUST=any", None)
            continue
        if history.is_changed(file):
            fix = fix_of_file(history, target, file)
            reason = f"{file.path} was changed after it was saved, and is not sent"
            report.fail(name, f"{reason}; {NO_COPY if fix is None else fix.in_words()}", fix)
            continue
        earlier = history.earlier_digests(name)
        record = backfill_record(name, file, target, current.timezone, earlier)
        work = _of_another_host(folder, history, mirror, file, record)
        if trust is not None and (work is None or work.found is None):
            try:
                own = trust.of_file(history, file, file.sha256, file.status.st_size)
            except SignatureError as cause:
                restoring = fix_of_file(history, target, file)
                fix = signed.fix_of(history, file, file.sha256, cause, restoring)
                report.fail(name, f"{signed.detail_of(cause)}; it is not sent", fix)
                continue
            work = _of_statement(folder, mirror, record, own.statement)
        work = work or _Work(record, None, may_be_mirrored=may_be)
        found.setdefault((name, file.sha256), work)
    return list(found.values())


def _of_statement(
    folder: ModelFolder, mirror: Mirror, backfilled: SaveRecord, statement: Statement
) -> _Work:
    """Return what is to be done for a file whose record is gone, and which was signed.

    Notes
    -----
    Its record has the id of its save again, and its version, where the store has it.
    """
    payload = replace(
        backfilled.payload, saved_at=statement.saved_at, saved_at_ns=statement.saved_at_ns
    )
    save = replace(backfilled, id=statement.save_id, payload=payload)
    there = mirror.survey().standing(save, None).ids
    is_there = there is not None and mirror.holds(there, save)
    return _Work(save, None, may_be_mirrored=True, found=there if is_there else None)


def _of_another_host(
    folder: ModelFolder,
    history: History,
    mirror: Mirror,
    file: ModelFile,
    backfilled: SaveRecord,
) -> _Work | None:
    """Return what is to be done for a file from a registry; ``None`` where it is none.

    Notes
    -----
    It keeps the id of its save, so that the store gets one version of it, whoever comes first.
    """
    own = restored.find(folder, history, file, asks=True)
    save = None if own is None else own.as_save(backfilled)
    if own is None or save is None or folder.journal.with_id(save.id) is not None:
        return None
    there = mirror.survey().standing(save, None).ids
    if there is not None and mirror.holds(there, save):
        return _Work(own.record, own.entry, found=there)
    return _Work(save, None, may_be_mirrored=True)


def _push(
    folder: ModelFolder, mirror: Mirror, target: Target, item: _Work, report: SyncReport
) -> None:
    record, entry = item.record, item.entry
    if item.found is not None:
        if not report.dry_run and (entry is None or entry.state != "pending"):
            with folder.workspace() as work_dir:
                noted = replace(record, mirrored=record.mirrored | {target.name: item.found})
                if entry is None:
                    folder.journal.add(noted, "sent", work_dir)
                else:
                    folder.journal.rewrite(entry, noted, work_dir)
        report.found.append(record.name)
        return
    if not report.dry_run:
        if entry is None:
            with folder.workspace() as work_dir:
                state: State = "begun" if item.may_be_mirrored else "committed"
                entry = folder.journal.add(record, state, work_dir)
        try:
            if entry.state == "sent":
                _fetch_artifacts(folder, mirror, target, record)
            push(folder, mirror, entry, record, target)
        except MirrorUnavailableError:
            raise
        except LottoMlflowError as cause:
            report.fail(record.name, str(cause), cause.fix)
            return
    report.sent.append(record.name)
    if item.entry is None:
        report.backfilled.append(record.name)
    if item.is_resent:
        report.resent.append(record.name)


def _fetch_artifacts(
    folder: ModelFolder, mirror: Mirror, target: Target, record: SaveRecord
) -> None:
    """Fetch the caller's extra artifacts, which only MLflow has, from the run of an earlier push.

    Notes
    -----
    Only the current store, the embedded one, and the one that it goes to have a known address: the
    name of a store in a record is none.
    """
    known = folder.known_targets() | {target.name: target}
    for name, ids in record.mirrored.items():
        try:
            if name not in known:
                raise MirrorError(
                    f"they are in {name}, which is not the current store", error_code=None
                )
            holder = mirror if name == target.name else folder.mirror(known[name])
            with folder.workspace() as work_dir:
                found = holder.artifacts_of_run(ids.run_id, work_dir / "artifacts")
                if found is not None:
                    folder.journal.put_artifacts(record, found)
                    return
        except MirrorError as cause:
            _logger.warning("extra artifacts of %s may be missing: %s", record.name, cause)


def flush(folder: ModelFolder, timeout_seconds: float) -> bool:
    """Push what waits for the current store, and wait for it; return whether nothing is left."""
    current = folder.settings()
    if current.mirror == "off" or folder.later_release is not None:
        return not folder.journal.waiting()
    return PushWorker.of(folder, folder.target(current)).flush(timeout_seconds)
