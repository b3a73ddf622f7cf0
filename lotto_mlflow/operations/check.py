"""Check: how old and how sound the model in use is, and what waits; for monitoring, and cheap."""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from lotto_mlflow import advice, references, regular, trusted
from lotto_mlflow import layout as names
from lotto_mlflow.distributions import version_of
from lotto_mlflow.errors import (
    DigestMismatchError,
    Fix,
    ForeignModelError,
    ModelNotFoundError,
    SignatureError,
)
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.journal import Entry
from lotto_mlflow.kinds.base import going
from lotto_mlflow.model_file import ModelFile
from lotto_mlflow.operations import digests, find, load, signed, verify_signatures, versions
from lotto_mlflow.operations.health import WAIT_SECONDS, Report, in_words, seconds_of
from lotto_mlflow.records import BACKFILL, PRUNE, Finding, Health, HealthStatus, ModelRecord
from lotto_mlflow.references import VersionReference
from lotto_mlflow.requirements import is_other_minor, version_in
from lotto_mlflow.settings import CLOCK_TOLERANCE_SECONDS, Target
from lotto_mlflow.text import size_as_text

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

_OF_A_DAMAGED_DISK = tuple(
    getattr(errno, name) for name in ("EIO", "EUCLEAN", "EBADMSG") if hasattr(errno, name)
)
_FILES_OF_A_SAVE = 20
_GRAVE = {
    "damaged": "damaged",
    "unsigned": "not signed",
    "bad signature": "not what was signed",
    "unknown key": "signed by an unknown key",
    "rolled back": "rolled back",
}
"""Findings about the model in use that are critical, and what is said of it."""


def check(
    folder: ModelFolder, max_age: timedelta | float | str | None, alias: str | None, *, deep: bool
) -> Health:
    """Return whether the newest model, or an alias's, is there, fresh and sound."""
    report = Report(seconds_of(max_age))
    if alias is not None:
        references.check_alias(alias)
    target, layout = folder.target(), folder.layout
    with report.looking("the newest model", layout.trained_dir):
        _newest(folder, target, report, is_subject=alias is None)
    with report.looking("the saves", layout.mlflow_dir):
        _missing(folder, report)
    if alias is not None:
        with report.looking(f"the alias {alias}"):
            _holder(folder, target, report, alias)
    with report.looking("what waits for MLflow", layout.mlflow_dir):
        _waiting(folder, report)
        _aside(folder, report)
    with report.looking("the room on the disk", layout.trained_dir):
        _room(folder, report)
    if deep:
        with report.looking("all of the folder"):
            _all(folder, report)
    return report.health()


def _newest(folder: ModelFolder, target: Target, report: Report, *, is_subject: bool) -> None:
    """Look at the newest model on disk; where an alias is asked for, its age does not matter."""
    for is_last in (False, False, True):
        path = folder.store.latest()
        if path is None:
            break
        history = folder.history()
        try:
            file = history.file(path)
            found = _found_in(folder, history, file) + _unsigned(folder, history, file)
        except FileNotFoundError:
            if is_last:
                raise
            continue
        if is_last or not any(one.kind in _GRAVE for one in found):  # else a save is under way
            record = _described(history, target, file)
            report.size_bytes = file.status.st_size
            _note(report, found)
            if is_subject:
                _fresh(report, record, "newest")
            _sklearn(report, record)
            return
    if is_subject:
        trained_dir = folder.layout.trained_dir
        detail = f"there is no model in {trained_dir}"
        helps = "save one" if target.is_embedded else "save one, or ask for an alias, too"
        report.add("critical", Finding("no model", "", trained_dir, detail, helps))


def _described(history: History, target: Target, file: ModelFile) -> ModelRecord:
    """Describe a file by its save; that of a restored copy with another time has its bytes."""
    record = find.record_of(history, target, file)
    if record.save_id is not None:
        return record
    with suppress(OSError):
        save = history.save_with(file.stem, file.sha256)
        if save is not None:
            ids = save.mirrored.get(target.name)
            return replace(
                record,
                saved_at_ns=save.payload.saved_at_ns,
                version=record.version if ids is None else ids.version,
                sklearn_version=version_in(save.payload.description.requirements, "scikit-learn"),
            )
    return record


def _found_in(folder: ModelFolder, history: History, file: ModelFile) -> list[Finding]:
    """Return what is wrong with the bytes and the time of a file.

    Raises
    ------
    OSError
        If the file, or a record of its name, may not be read.
    """
    found: str | OSError
    try:
        found = file.sha256  # first: a save writes its record before it replaces the file
    except OSError as cause:
        if cause.errno not in _OF_A_DAMAGED_DISK:
            raise
        found = cause
    for entry in history.entries_of(file.stem):
        refusal = None if history.read(entry) else folder.journal.refusal(entry)
        if refusal is not None:
            raise refusal
    findings = list(digests.of_model_file(history, file, found))
    if file.status.st_size == 0 and not findings and not history.expected(file):
        fix = load.fix_of_file(history, folder.target(), file)
        repair = "" if fix else load.NO_COPY
        findings.append(Finding("damaged", file.stem, file.path, "it is empty", repair, fix))
    return findings


def _unsigned(folder: ModelFolder, history: History, file: ModelFile) -> list[Finding]:
    """Return whether the newest file was signed and is not rolled back, where that is asked for."""
    trust = trusted.of_folder(folder)
    if trust is None:
        return []
    try:
        found = trust.of_file(history, file, file.sha256, file.status.st_size)
    except SignatureError:
        return list(verify_signatures.of_file(trust, history, file))
    return list(verify_signatures.rolled_back(folder, None, found.statement))


def _note(report: Report, found: list[Finding]) -> None:
    for one in found:
        if one.kind in _GRAVE:
            report.add("critical", one, f"{one.name} is {_GRAVE[one.kind]}")
        else:
            report.add("warning", one, f"{one.name}: {one.detail}")


def _fresh(report: Report, record: ModelRecord, role: str) -> None:
    """Say how old the model is that the check is about, and whether that is too old."""
    version = "" if record.version is None else f" (version {record.version})"
    subject = f"{role} {record.name}{version}"
    if record.saved_at_ns is None:
        report.model = f"{subject} is of an unknown time"
        if report.max_age_seconds is not None:
            detail = f"when {record.name} was saved is not known"
            report.add("unknown", Finding("not looked at", record.name, record.path, detail))
        return
    seconds = (_now_ns() - record.saved_at_ns) / 10**9
    if seconds < -CLOCK_TOLERANCE_SECONDS:
        _of_the_future(report, record.name, record.path)
    report.age_seconds = max(seconds, 0.0)
    report.model = f"{subject} is {in_words(report.age_seconds)} old"
    limit = report.max_age_seconds
    if limit is not None and report.age_seconds > limit:
        detail, report.model = f"{report.model}, more than {in_words(limit)}", ""
        repair = "train and save a new one"
        report.add("critical", Finding("too old", record.name, record.path, detail, repair))


def _of_the_future(report: Report, name: str, path: Path | None) -> None:
    detail = f"{name} is of a time that has not come yet"
    repair = "set the clock right; the next save made then is not older than this one"
    report.add("warning", Finding("clock in the future", name, path, detail, repair))


def _sklearn(report: Report, record: ModelRecord) -> None:
    installed = version_of("scikit-learn")
    recorded = record.sklearn_version
    if installed is None or recorded is None or not is_other_minor(recorded, installed):
        return
    detail = f"{record.name} is of scikit-learn {recorded}, and {installed} is installed"
    repair = f"install scikit-learn {recorded}, or train and save it again"
    report.add("warning", Finding("other scikit-learn", record.name, record.path, detail, repair))


def _missing(folder: ModelFolder, report: Report) -> None:
    """See that the file of the newest save is there: without it, an older model is the newest."""
    history, gone = folder.history(), set[str]()
    leaving = going(history)
    for entry in folder.journal.newest_first(names.PREFIX):
        record = None if entry.state == "pending" else history.read(entry)
        if record is None or entry.name in gone:
            continue
        is_gone = record.kind == PRUNE and entry.state == "sent"
        if is_gone or record.id in leaving:  # with the file; an older save of its name has none
            gone.add(entry.name)
        elif record.is_save:
            path = folder.layout.model_path(entry.name)
            if not _is_there(path):
                detail = f"the newest save, {entry.name}, is not in {path.parent}"
                fix = load.fix_of_name(history, entry.name)
                repair = "" if fix else "nothing brings it back; train and save it again"
                finding = Finding("missing on disk", entry.name, path, detail, repair, fix)
                report.add("critical", finding)
            return


def _is_there(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _holder(folder: ModelFolder, target: Target, report: Report, alias: str) -> None:
    """Look at the model that an alias stands for."""
    reference = VersionReference(names.REGISTERED_MODEL, alias=alias)
    mirror = folder.mirror(target)
    try:
        record = _version(folder, target, mirror, reference)
    except ModelNotFoundError as cause:
        report.add("critical", Finding("no model", "", None, cause.summary, fix=cause.fix))
        return
    _fresh(report, record, f"{alias}:")
    _sklearn(report, record)
    trust = trusted.of_folder(folder)
    try:
        if trust is not None:
            trust.of_version(target, record)
        _note(report, _found_in_version(folder, mirror, record))
    except SignatureError as cause:
        kind = signed.kind_of(cause)
        _note(report, [Finding(kind, record.name, None, cause.summary, fix=cause.fix)])
    except DigestMismatchError as cause:
        path = cause.data.get("path")
        _note(report, [Finding("damaged", record.name, path, cause.summary, fix=cause.fix)])
    except ModelNotFoundError as cause:
        found = Finding("missing on disk", record.name, None, cause.summary, fix=cause.fix)
        report.add("critical", found)


def _version(
    folder: ModelFolder, target: Target, mirror: Mirror, reference: VersionReference
) -> ModelRecord:
    """Return the version that an alias stands for; nothing is noted of it, as a lookup may."""
    try:
        return folder.history().corrected(mirror.get(reference), target)
    except (ForeignModelError, ModelNotFoundError):  # a record may know it, or what was meant
        return versions.of_version(folder, target, reference)


def _found_in_version(folder: ModelFolder, mirror: Mirror, record: ModelRecord) -> list[Finding]:
    """Return what is wrong with the bytes of a version on this machine; nothing is fetched.

    Raises
    ------
    DigestMismatchError, ModelNotFoundError
        If the mirror's own file is damaged, or not there.
    """
    path = folder.layout.model_path(record.name)
    for is_last in (False, True):
        history = folder.history()
        status = regular.status_of(path)
        if status is None:
            break
        file = history.file(path, status)
        if file.sha256 == record.sha256:
            return []
        save = history.save_of(file)
        if save is None or (save.id, save.payload.file_time_ns) != (record.save_id, file.time_ns):
            break  # of another save of its name
        if is_last:
            return _found_in(folder, history, file)
    if not mirror.keeps_files_elsewhere:
        mirror.local_file_of(record)
    return []


def _waiting(folder: ModelFolder, report: Report) -> None:
    """Count what waits for MLflow, and see how long the first of it has waited."""
    entries = sorted([*folder.journal.pending(), *folder.journal.waiting()])
    longest = 0.0
    for entry in entries:
        since_ns, is_exact = _waits_since(folder, entry)
        longest = max(longest, (_now_ns() - since_ns) / 10**9)
        if is_exact:
            break  # the others came later
    report.waiting, report.waiting_seconds = len(entries), longest
    if longest > WAIT_SECONDS:
        detail = f"{len(entries)} records wait for MLflow, the first for {in_words(longest)}"
        if len(entries) == 1:
            detail = f"1 record waits for MLflow for {in_words(longest)}"
        path = entries[0].path.parent
        report.add("warning", Finding("waiting", "", path, detail, fix=Fix("sync")))


def _aside(folder: ModelFolder, report: Report) -> None:
    """Count the records that were put aside: nothing brings what they are of to MLflow."""
    count = len(folder.journal.aside())
    if count:
        what = "1 record was" if count == 1 else f"{count} records were"
        detail = f"{what} put aside, refused by MLflow or damaged"
        path, fix = folder.layout.aside_dir, Fix("verify", effect="says what helps")
        report.add("warning", Finding("stuck record", "", path, detail, fix=fix))


def _waits_since(folder: ModelFolder, entry: Entry) -> tuple[int, bool]:
    """Return when a record was made, and whether ids sort it by that.

    Notes
    -----
    The id of a file that was brought in is of the time of the file, years ago perhaps.
    """
    record = folder.journal.read(entry)
    if record is None or record.kind != BACKFILL:
        return int(entry.id.partition("-")[0]), True
    status = regular.status_of(entry.path)
    return (_now_ns() if status is None else status.st_mtime_ns), False


def _room(folder: ModelFolder, report: Report) -> None:
    """See that the disks have room for two models like the newest one."""
    layout = folder.layout
    ask = getattr(os, "statvfs", None)
    for path in (layout.trained_dir, layout.backup_dir, layout.mlflow_dir):
        if ask is None or not path.is_dir():
            continue
        status = ask(path)
        if not status.f_blocks:
            continue  # a file system without a size
        free = status.f_bavail * status.f_frsize
        report.free_bytes = min(free, free if report.free_bytes is None else report.free_bytes)
        size = report.size_bytes or 0
        repair = advice.of_error(OSError(errno.ENOSPC, ""))
        if free < 2 * size:
            detail = f"{size_as_text(free)} free in {path}, less than two models"
            report.add("warning", Finding("little room", "", path, detail, repair))
        elif status.f_files and status.f_favail < _FILES_OF_A_SAVE:
            detail = f"room for {status.f_favail} more files in {path}"
            report.add("warning", Finding("little room", "", path, detail, repair))


def _all(folder: ModelFolder, report: Report) -> None:
    from lotto_mlflow.operations import verify  # imported lazily

    for found in verify.verify(folder, None, deep=True):
        subject = found.name or str(found.path or found.detail)
        report.add(_weight(folder, found), found, f"{found.kind}: {subject}".rstrip(": "))


def _weight(folder: ModelFolder, found: Finding) -> HealthStatus:
    """Return how bad a finding of a verification is."""
    if found.kind == "mlflow unavailable":
        return "unknown"
    if found.kind in _GRAVE or found.kind == "missing on disk":
        refusal = None if found.path is None else regular.refusal(found.path)
        return "unknown" if isinstance(refusal, PermissionError) else "critical"
    outbox_dir = folder.layout.mlflow_dir / "outbox"
    is_waiting = found.path is not None and found.path.parent == outbox_dir  # which has its limit
    return "ok" if is_waiting or found.kind == "late on top" else "warning"


def _now_ns() -> int:
    return time.time_ns()
