"""Migrate: bring all that a folder has in its current store to another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from lotto_mlflow import regular, settings
from lotto_mlflow.errors import (
    Fix,
    LottoMlflowError,
    MirrorError,
    MirrorUnavailableError,
    SettingsError,
)
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.layout import registered_model, registered_model_of
from lotto_mlflow.operations import sync
from lotto_mlflow.records import (
    PRUNE,
    MigrateReport,
    MlflowIds,
    Progress,
    SaveRecord,
    SyncReport,
    no_progress,
)
from lotto_mlflow.references import VersionReference
from lotto_mlflow.settings import EMBEDDED, Target
from lotto_mlflow.text import masked, remember, safe_line

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Survey
    from lotto_mlflow.mirror.copies import Copies

_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
_T = TypeVar("_T")
_ROUNDS = 2
"""How often each save is looked at after it was sent: for its tags, and for its digest."""


@dataclass
class _Migration:
    """What a migration has done so far.

    Attributes
    ----------
    copies : Copies
        Copies what people added.
    report : Progress
        Whom to tell how far it is.
    done, total : int
        How far it is: each save is looked at again after it was sent.
    """

    copies: Copies
    report: Progress
    done: int = 0
    total: int = 0
    moves: int = 0
    notes: int = 0
    verified: int = 0
    aliases: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    fixes: dict[str, Fix] = field(default_factory=dict)

    def step(self, size_bytes: int, name: str) -> None:
        """Say that the next save is looked at."""
        self.report(self.done, self.total, size_bytes, name)
        self.done += 1

    def attempt(self, name: str, call: Callable[[], _T], fix: Fix | None = None) -> _T | None:
        """Return what a call returns; ``None``, and note it, where MLflow refuses it.

        Raises
        ------
        MirrorUnavailableError
            If it is not there to be asked any more.
        """
        try:
            return call()
        except MirrorUnavailableError:
            raise
        except LottoMlflowError as cause:
            self.fail(name, str(cause), cause.fix or fix)
            return None

    def fail(self, name: str, reason: str, fix: Fix | None = None) -> None:
        """Note what could not be migrated, and what helps."""
        self.failed[name] = safe_line(reason)
        if fix is not None:
            self.fixes[name] = fix


def migrate(folder: ModelFolder, to: object, progress: Progress | None) -> MigrateReport:
    """Bring saves, aliases and what people added to another store, and compare the digests there.

    Notes
    -----
    Each step looks for what is there already, so that whoever is killed is followed by one that
    goes on.
    """
    source = folder.target()
    target = _target(folder, source, to)
    folder.check_format()
    with _nothing_migrated():
        here, there = folder.mirror(source), folder.mirror(target)
        copies = there.copies_from(here)
        copies.check(_newest_mirrored(folder, source))
    with ExitStack() as stack:
        what = f"the migration to {target.name} could not be done"
        outcome = "What was migrated before that stays, and the next one goes on"
        stack.enter_context(folder.disk_errors(what, outcome))
        folder.make_dirs()
        sync.lock_alone(stack, folder, "migrate.lock", "migration")
        with _nothing_migrated():
            there.create()
            there.prepare()
        history, survey = folder.history(), here.survey()
        placed = _placed(history, source, survey)
        copies.register_as(_renamed(history, source, placed))
        work = _Migration(copies, progress or no_progress)
        _note_others(work, history, survey, placed)
        _note_deleted(work, history, target, there.survey())
        synced = _sync(folder, target, work, len(placed))
        saves = _saves(folder.history(), target)
        work.total = work.done + _ROUNDS * len(saves)
        _copy_notes(work, target, saves, placed)
        _copy_aliases(work, folder, target, saves, placed)
        _compare(work, folder, target, saves)
        work.step(0, "")
    return _reported(target, synced, work)


@contextmanager
def _nothing_migrated() -> Iterator[None]:
    """Have what MLflow refuses before anything was written end with that."""
    try:
        yield
    except MirrorError as cause:
        summary = f"{cause.summary}; nothing was migrated"
        raise type(cause)(summary, fix=cause.fix, **cause.data) from cause


def _target(folder: ModelFolder, source: Target, to: object) -> Target:
    """Return the store that an address names.

    Raises
    ------
    SettingsError
        If it is none, or the current store, or the one inside the folder.
    """
    text = to.strip() if isinstance(to, str) else ""
    remember(text or None)
    scheme = text.partition(":")[0].partition("+")[0].lower()
    shown = f"{masked(text) if text else to!r:.300}"
    if scheme not in _SCHEMES or ":/" not in text or text.endswith("://"):
        raise SettingsError(
            f"{shown} is no address of a tracking store; give that of an MLflow server, as in "
            "http://127.0.0.1:5000, or of a database, as in postgresql://host/name or "
            "sqlite:////path/to/mlflow.db; nothing was migrated",
            value=shown,
        )
    uri = settings.read(tracking_uri=text).tracking_uri
    if scheme == "sqlite" and settings.sqlite_path(uri or "") is None:
        raise SettingsError(
            f"{shown} names no database file; give its path, as in sqlite:////path/to/mlflow.db; "
            "nothing was migrated",
            value=shown,
        )
    chosen = replace(folder.settings(), tracking_uri=uri, registry_uri=None)
    target = folder.target(chosen)
    is_same = source.name == target.name or source.tracking_uri == target.tracking_uri
    if is_same or regular.is_one_file(source.database_path, target.database_path):
        raise SettingsError(
            f"{shown} is the current store; nothing was migrated. Give the address of another one",
            value=shown,
        )
    if target.name == EMBEDDED or regular.is_one_file(
        folder.layout.database_path, target.database_path
    ):
        raise SettingsError(
            f"{shown} is the store inside the folder, and a migration leads to one outside; "
            "nothing was migrated. sync brings saves there, without MLFLOW_TRACKING_URI",
            value=shown,
        )
    return target


def _records(history: History) -> Iterator[SaveRecord]:
    """Yield the readable saves of a folder, oldest first."""
    for entry in reversed(history.entries()):
        record = None if entry.state == "pending" else history.read(entry)
        if record is not None and record.is_save:
            yield record


def _newest_mirrored(folder: ModelFolder, source: Target) -> Iterator[MlflowIds]:
    history = folder.history()
    for entry in history.entries():
        record = history.read(entry)
        if record is not None and record.is_save and source.name in record.mirrored:
            yield record.mirrored[source.name]


def _note_others(
    work: _Migration, history: History, survey: Survey, placed: dict[str, MlflowIds]
) -> None:
    """Note what is not migrated: copies of versions, and saves that were set aside."""
    own = {
        r.id: registered_model_of(placed[r.id], r.name) for r in _records(history) if r.id in placed
    }
    for name, count in sorted(survey.with_copies(own).items()):
        what = (
            "1 of its versions is a copy" if count == 1 else f"{count} of its versions are copies"
        )
        again = "make that there again, with MLflow, if it is needed"
        work.left[name] = f"{what} of what other registered models have; {again}"
    for entry in history.entries():
        record = history.read(entry) if entry.state == "aside" else None
        if record is not None and record.is_save:
            fix = Fix("sync", {"retry_aside": True}, before="to have it tried again, call")
            reason = record.reason or "MLflow refused it"
            work.fail(record.name, f"it was set aside: {reason}; {fix.in_words()}", fix)


def _note_deleted(work: _Migration, history: History, target: Target, there: Survey) -> None:
    """Note what an earlier migration brought there, and was deleted here since."""
    for entry in history.entries():
        record = history.read(entry) if entry.state == "sent" else None
        if record is None or record.kind != PRUNE or not record.payload.is_deletion:
            continue
        ids = record.mirrored.get(target.name)
        for name, version in () if ids is None else there.places_of_run(ids.run_id):
            place = str(VersionReference(name, version=version))
            fix = Fix("delete", {"model": place}, before="once that store is current,")
            why = f"its save was deleted here on {record.payload.when}, and it is still there"
            work.left[place] = f"{why}; {fix.in_words()}"


def _placed(history: History, source: Target, survey: Survey) -> dict[str, MlflowIds]:
    """Return what each save is called in the source, wherever it is there now, by its id."""
    found = {}
    for record in _records(history):
        ids = survey.standing(record, record.mirrored.get(source.name)).ids
        if ids is not None:
            found[record.id] = ids
    return found


def _renamed(history: History, source: Target, placed: dict[str, MlflowIds]) -> dict[str, str]:
    """Return the registered models of saves whose own was renamed, by their ids.

    Notes
    -----
    Whoever reaches a registry can give any version the tags of a save; one that was renamed has
    still the run that the record names.
    """
    found = {}
    for record in _records(history):
        recorded, ids = record.mirrored.get(source.name), placed.get(record.id)
        is_same = recorded is not None and ids is not None and recorded.run_id == ids.run_id
        name = ids.registered_model if ids is not None and is_same else None
        if name not in (None, registered_model(record.name)):
            found[record.id] = str(name)
    return found


def _sync(folder: ModelFolder, target: Target, work: _Migration, count: int) -> SyncReport:
    """Push what the target lacks; the bar goes on afterwards."""

    def progress(done: int, total: int, size_bytes: int, name: str) -> None:
        work.done, work.total = done, total + _ROUNDS * count
        if name:
            work.report(work.done, work.total, size_bytes, name)

    return sync.sync(
        folder,
        dry_run=False,
        include_backups=False,
        resend=False,
        retry_aside=False,
        progress=progress,
        to=target,
    )


def _saves(history: History, target: Target) -> list[SaveRecord]:
    """Return the saves that the target has, oldest first."""
    return [record for record in _records(history) if target.name in record.mirrored]


def _reference(record: SaveRecord, ids: MlflowIds) -> str:
    return str(VersionReference(registered_model_of(ids, record.name), version=ids.version))


def _copy_notes(
    work: _Migration, target: Target, saves: list[SaveRecord], placed: dict[str, MlflowIds]
) -> None:
    """Copy the tags and descriptions of people."""
    for record in saves:
        work.step(0, record.name)
        here, there = placed.get(record.id), record.mirrored[target.name]
        if here is not None:
            copy = partial(work.copies.copy_notes, record, here, there)
            work.notes += work.attempt(_reference(record, there), copy) or 0
    for name in _models(saves, target):
        work.notes += work.attempt(name, partial(work.copies.copy_model, name)) or 0


def _models(saves: list[SaveRecord], target: Target) -> list[str]:
    """Return the registered models of saves in the target, those that were renamed first.

    Notes
    -----
    The history of a model that was renamed has the name that it had before, until its next move.
    """
    ids = [(registered_model_of(r.mirrored[target.name], r.name), r.name) for r in saves]
    renamed = {name: None for name, own in ids if name != registered_model(own)}
    return list(dict.fromkeys([*renamed, *(name for name, _ in ids)]))


def _copy_aliases(
    work: _Migration,
    folder: ModelFolder,
    target: Target,
    saves: list[SaveRecord],
    placed: dict[str, MlflowIds],
) -> None:
    """Copy the aliases of each registered model, those of which every save was deleted, too."""
    versions: dict[str, dict[str, int]] = {name: {} for name in _models(saves, target)}
    for record in saves:
        ids = record.mirrored[target.name]
        versions[registered_model_of(ids, record.name)][record.id] = ids.version
    for ids, name in ((placed[r.id], r.name) for r in saves if r.id in placed):
        versions.setdefault(registered_model_of(ids, name), {})
    for name in _models_of_deleted(folder.history()):
        versions.setdefault(name, {})
    for name, known in versions.items():
        copied = work.attempt(name, partial(work.copies.copy_aliases, name, known))
        if copied is not None:
            work.moves += copied.moves
            work.aliases += [f"{name}@{alias}" for alias in copied.aliases]
            for alias, reason in copied.failed.items():
                work.fail(f"{name}@{alias}".rstrip("@"), reason)
            for alias, reason in copied.left.items():
                work.left[f"{name}@{alias}"] = safe_line(reason)


def _models_of_deleted(history: History) -> Iterator[str]:
    for entry in history.entries():
        record = history.read(entry)
        if record is not None and record.kind == PRUNE:
            yield record.payload.registered_model


def _compare(
    work: _Migration, folder: ModelFolder, target: Target, saves: list[SaveRecord]
) -> None:
    """Compare the bytes of each version with the digest of its save."""
    for record in saves:
        work.step(record.payload.size, record.name)
        there = record.mirrored[target.name]
        name = _reference(record, there)
        before = f"delete {name} there with MLflow, set MLFLOW_TRACKING_URI to {target.name}, and"
        fix = Fix("sync", {"resend": True}, before=before, effect="sends the intact bytes")
        has_bytes = work.attempt(name, partial(_has_bytes, work, folder, record, there), fix)
        work.verified += has_bytes or 0
        if has_bytes is False:
            expected = record.payload.sha256
            reason = f"the bytes of {name} there are not those of the save, SHA-256 {expected}"
            work.fail(name, f"{reason}; {fix.in_words()}", fix)


def _has_bytes(work: _Migration, folder: ModelFolder, record: SaveRecord, there: MlflowIds) -> bool:
    with folder.workspace() as work_dir:
        return work.copies.has_bytes(record, there, work_dir)


def _reported(target: Target, synced: SyncReport, work: _Migration) -> MigrateReport:
    return MigrateReport(
        to=target.name,
        sent=synced.sent,
        backfilled=synced.backfilled,
        found=synced.found,
        aliases=work.aliases,
        moves=work.moves,
        notes=work.notes,
        predictions=synced.predictions,
        verified=work.verified,
        left=work.left,
        failed=synced.failed | work.failed,
        fixes=synced.fixes | work.fixes,
    )
