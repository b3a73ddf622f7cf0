"""Verify: compare both views and the digests, and change nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lotto_mlflow import advice, metadata, regular
from lotto_mlflow import layout as names
from lotto_mlflow.errors import Fix, MirrorError, MirrorUnavailableError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.journal import Entry
from lotto_mlflow.kinds import KINDS, Verification
from lotto_mlflow.model_dir import DATA_FILE, differing, is_data_intact
from lotto_mlflow.model_file import ModelFile
from lotto_mlflow.operations import prediction_files, verify_aliases, verify_signatures
from lotto_mlflow.operations.digests import digests, moved_away
from lotto_mlflow.operations.load import NO_COPY, fix_from_registry, fix_of_name
from lotto_mlflow.records import (
    Finding,
    MlflowIds,
    Progress,
    SaveRecord,
    has_name_of_draws,
    no_progress,
)
from lotto_mlflow.settings import Target
from lotto_mlflow.text import composed, counted

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

_logger = logging.getLogger("lotto_mlflow")


def verify(folder: ModelFolder, progress: Progress | None, *, deep: bool) -> list[Finding]:
    """Compare disk, records and MLflow, and return every difference."""
    with folder.disk_errors("verify could not be done", "Nothing was changed"):
        return list(_findings(folder, progress or no_progress, deep=deep))


def _findings(folder: ModelFolder, report: Progress, *, deep: bool) -> Iterator[Finding]:
    history, target = folder.history(), folder.target()
    yield from _folders(folder)
    if folder.journal.odd_folders():
        return  # nothing in what they link to is believed, and the rest is known by the records
    entries = list(reversed(history.entries()))
    of_draws = list(reversed(folder.journal.of_draws()))
    yield from _odd_files(folder)
    yield from _hidden(history)
    yield from digests(folder, history, entries, report)
    yield from verify_signatures.on_disk(folder, history)
    yield from _metadata(folder, history, target)
    yield from prediction_files.findings(folder)
    try:
        mirror = folder.mirror(target)
        moved_from = mirror.moved_from()
    except MirrorError as cause:
        without_mlflow = Verification(folder, history, target, None)
        yield from _of_records(without_mlflow, [*entries, *of_draws])
        yield from _unknown(history, target)
        yield _unavailable(cause)
        return
    if moved_from is not None:
        yield _moved(folder, moved_from)
    verification = Verification(folder, history, target, mirror)
    try:
        yield from _of_records(verification, [*entries, *of_draws])
        yield from _unknown(history, target)
        yield from _in_mlflow(verification, entries)
        saves = _mirrored(verification, entries)
        yield from verify_signatures.in_mlflow(folder, target, saves, deep=deep)
        yield from _elsewhere(verification, saves, report, deep=deep)
    except MirrorError as cause:
        yield _unavailable(cause)


def _unavailable(cause: MirrorError) -> Finding:
    repair = "" if cause.fix is not None else "try again later"
    return Finding("mlflow unavailable", "", None, cause.summary, repair, cause.fix)


def _folders(folder: ModelFolder) -> Iterator[Finding]:
    for path in (*folder.store.folders, folder.layout.mlflow_dir):
        if path.exists() and not path.is_dir():
            detail = "it is no folder, and models belong in one"
            yield Finding("damaged", "", path, detail, fix=moved_away(path))
    for path in (*folder.journal.odd_folders(), *folder.odd_work_folders()):
        detail = f"it is {regular.odd_kind(path) or 'a file'}, not a folder"
        yield Finding("damaged", "", path, detail, fix=moved_away(path))


def _odd_files(folder: ModelFolder) -> Iterator[Finding]:
    """Find what has the name of a file and is a link, a pipe or the like; none is followed."""
    layout, aside_dir = folder.layout, folder.layout.aside_dir
    all_in = (layout.artifacts_dir, layout.downloads_dir, layout.signatures_dir)
    for path, kind in folder.odd_files():
        is_in = any(path.is_relative_to(one) for one in all_in)  # there it would be found again
        away = aside_dir / f"{path.name}-{time.time_ns()}" if is_in else None
        fix = moved_away(path, away)
        yield Finding("damaged", names.name_of(path), path, f"it is {kind}, not a file", fix=fix)


def _hidden(history: History) -> Iterator[Finding]:
    """Find the files whose names differ from those of others in their form of Unicode alone."""
    for path in history.hidden_files():
        name = names.name_of(path)
        detail = "another file has this name, in another form of Unicode, and lookups find that one"
        yield Finding(
            "same name", name, path, detail, fix=moved_away(path, history.free_path(path))
        )


def _metadata(folder: ModelFolder, history: History, target: Target) -> Iterator[Finding]:
    layout = folder.layout
    trained = {file.stem: file for file in history.trained_files}
    backups = {file.stem: file for file in history.backup_files}
    for metadata_dir, files in ((layout.metadata_dir, trained), (layout.backup_dir, backups)):
        for path in _below_top(metadata_dir, f"*{names.METADATA_SUFFIX}"):
            stem = composed(path.name.removesuffix(names.METADATA_SUFFIX))
            if stem in files:
                yield from _metadata_file(history, target, path, files[stem])
            elif metadata_dir == layout.metadata_dir:
                # in backups/, a restore backs up the metadata of a model that is gone
                detail = "there is no model of this name"
                fix = fix_of_name(history, stem)
                repair = "" if fix else "nothing brings its model back; the file can go"
                yield Finding("orphan metadata", stem, path, detail, repair, fix)


def _below_top(folder: Path, pattern: str) -> list[Path]:
    found = folder.glob(pattern) if folder.is_dir() else ()
    return sorted(path for path in found if regular.is_file(path))


def _metadata_file(
    history: History, target: Target, path: Path, file: ModelFile
) -> Iterator[Finding]:
    save, found = history.save_of(file), file.metadata
    refusal = None if found is not None else regular.refusal(path)
    if refusal is not None:
        helps = advice.of_error(refusal, path, reads=True)
        yield Finding("damaged", file.stem, path, f"it cannot be read: {refusal}", helps)
        return
    if found is not None and (save is None or metadata.strict(found) == save.payload.metadata):
        return
    detail = "it is no JSON object" if found is None else "it is not the metadata saved"
    if file.is_backup:
        repair = "none is needed where the save is known: a restore uses what its record has"
        yield Finding("changed", file.stem, path, detail, repair)
    else:
        fix = fix_from_registry(history, target, file.stem, "")
        if fix is None and save is not None and history.has_bytes_of(save):
            fix = Fix("sync", effect="pushes the save, from which a restore brings it back")
        yield Finding("changed", file.stem, path, detail, "" if fix else NO_COPY, fix)


def _of_records(verification: Verification, entries: list[Entry]) -> Iterator[Finding]:
    """Check the records themselves, and what each is about."""
    journal = verification.folder.journal
    for entry in entries:
        record = verification.history.read(entry)
        if record is not None and entry.state == "pending":
            detail = "it was not seen to end"
            end = Fix("sync", before="the next save finishes or drops it, or", effect="does")
            yield Finding("stuck record", entry.name, entry.path, detail, fix=end)
        elif record is not None:
            yield from KINDS[record.kind].verify(verification, entry, record)
        elif (refusal := journal.refusal(entry)) is not None:
            what, _, helps = refusal.summary.partition("; ")
            yield Finding("damaged", entry.name, entry.path, what, helps)
        elif not journal.is_of_later_release(entry):
            fix: Fix | None = None
            if has_name_of_draws(entry.name):
                repair = "nothing brings it back; record it again, and delete the file"
            else:
                repair = "none is needed: it only noted what was saved to MLflow, or restored"
                effect = "sends the model without it; delete the file then"
                fix = None if entry.state == "sent" else Fix("sync", effect=effect)
            kind = regular.odd_kind(entry.path)
            detail = f"the record is {kind}, not a file" if kind else "the record cannot be read"
            yield Finding("damaged", entry.name, entry.path, detail, repair, fix)


def _unknown(history: History, target: Target) -> Iterator[Finding]:
    for file in history.unknown_files(target, include_backups=False):
        if not history.is_changed(file):  # which is reported as damaged
            detail = "the file is older than its records, or has none"
            name = history.name_of(file)
            yield Finding("missing in MLflow", name, file.path, detail, fix=Fix("sync"))


def _moved(folder: ModelFolder, moved_from: Path) -> Finding:
    detail, before = f"its database keeps artifacts in {moved_from}", ""
    if not moved_from.is_absolute():
        detail += ", relative to another folder than this one"
        before = "work from that folder, or"
    fix = Fix("relocate", before=before)
    return Finding("moved store", "", folder.layout.database_path, detail, fix=fix)


def _in_mlflow(verification: Verification, entries: list[Entry]) -> Iterator[Finding]:
    mirror, survey = verification.mirror, verification.survey
    if mirror is None or survey is None:
        return
    layout = verification.folder.layout
    for folder in survey.orphan_folders(layout, _known_ids(verification, entries)):
        fix = moved_away(folder, layout.aside_dir / folder.name)
        yield Finding("orphan artifact", "", folder, "no logged model owns it", fix=fix)
    registered = {names.registered_model(entry.name) for entry in entries}
    for name in survey.late_on_top():
        if name in registered:
            detail = "the highest version is an older save; /latest of MLflow itself would load it"
            repair = "none is needed: this package looks past it"
            yield Finding("late on top", name, None, detail, repair)
    yield from verify_aliases.findings(verification, registered)


def _mirrored(verification: Verification, entries: list[Entry]) -> list[SaveRecord]:
    """Return the saves that the current store has."""
    records, name = map(verification.history.read, entries), verification.target.name
    return [r for r in records if r is not None and r.is_save and name in r.mirrored]


def _elsewhere(
    verification: Verification, saves: list[SaveRecord], report: Progress, *, deep: bool
) -> Iterator[Finding]:
    """Check the model folders that another machine keeps, or say that they were not looked at."""
    mirror, target = verification.mirror, verification.target
    if mirror is None or not mirror.keeps_files_elsewhere:
        return
    if saves and not deep:
        _logger.warning(
            "the files of %s in %s were not looked at; verify(deep=True), on the command line "
            "verify --deep, downloads and checks them",
            counted(len(saves), "version"),
            target.name,
        )
        return
    for number, save in enumerate(saves):
        report(number, len(saves), save.payload.size, save.name)
        yield from _fetched(verification.folder, mirror, save, save.mirrored[target.name])
    report(len(saves), len(saves), 0, "")


def _fetched(
    folder: ModelFolder, mirror: Mirror, save: SaveRecord, ids: MlflowIds
) -> Iterator[Finding]:
    fix = Fix("sync", {"resend": True}, before="delete the version in MLflow, then")
    with folder.downloads.place() as (_, work_dir):
        try:
            model_dir = mirror.fetched_model_dir(ids, work_dir)
        except MirrorUnavailableError as cause:
            detail = f"version {ids.version} could not be fetched: {cause.summary}"
            yield Finding("missing in MLflow", save.name, None, detail, fix=fix)
            return
        if model_dir is None:
            return
        found = [] if is_data_intact(model_dir, save.payload.sha256) else [DATA_FILE]
        found += differing(model_dir, ids.files) if ids.files else []
        for name in found:
            detail = f"{name} of version {ids.version} is not the file that was pushed"
            yield Finding("damaged", save.name, None, detail, fix=fix)


def _known_ids(verification: Verification, entries: list[Entry]) -> set[str]:
    """Return the runs and logged models of the saves that the current store has, or had.

    Notes
    -----
    What lies in their folders may be all that is left of a save, or of its extra artifacts.
    """
    found: set[str] = set()
    for entry in entries:
        record = verification.history.read(entry)
        ids = None if record is None else record.mirrored.get(verification.target.name)
        if ids is not None:
            found |= {ids.run_id, ids.model_id}
    return found
