"""Prune: remove the saves that no limit keeps, from disk and MLflow at once."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lotto_mlflow.errors import MirrorUnavailableError, SettingsError
from lotto_mlflow.files import locked
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.journal import Entry
from lotto_mlflow.kinds import recover
from lotto_mlflow.kinds.base import going
from lotto_mlflow.kinds.in_use import protected_versions
from lotto_mlflow.layout import registered_model_of
from lotto_mlflow.operations.removals import Chosen, check_database, described, finish, remove
from lotto_mlflow.operations.restored import is_of_another_host
from lotto_mlflow.plain_values import plain_integer, shown
from lotto_mlflow.push import PushWorker
from lotto_mlflow.records import Progress, PrunedSave, PruneReport, SaveRecord, no_progress
from lotto_mlflow.settings import Settings, Target, as_number
from lotto_mlflow.text import masked

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

_NS_PER_DAY = 86_400 * 10**9
_Save = tuple[Entry, SaveRecord]


@dataclass(frozen=True)
class _Limits:
    """What keeps a save: either is enough."""

    keep_last: int | None
    keep_days: float | None

    def keeps(self, number: int, save: SaveRecord, now_ns: int) -> bool:
        """Return whether the save of this number, counted from the newest, is kept."""
        if self.keep_last is not None and number < self.keep_last:
            return True
        if self.keep_days is None:
            return False
        return save.payload.saved_at_ns >= now_ns - self.keep_days * _NS_PER_DAY

    def __str__(self) -> str:
        given = {"keep_last": self.keep_last, "keep_days": self.keep_days}
        return ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)


def prune(
    folder: ModelFolder,
    *,
    keep_last: int | None,
    keep_days: float | None,
    dry_run: bool,
    progress: Progress | None,
) -> PruneReport:
    """Remove the saves that no limit keeps, or say which these are."""
    limits = _limits(keep_last, keep_days)
    target = folder.target()
    on_progress = progress or no_progress
    report = PruneReport(dry_run=dry_run)
    outcome = "What was removed before that is gone from both views"
    with folder.disk_errors("models could not be pruned", outcome):
        PushWorker.of(folder, target).wait_for_queued()
        if not dry_run:
            begin(folder, target, report)
        chosen, report.kept = _plan(folder, target, limits)
        for number, one in enumerate(chosen):
            on_progress(number, len(chosen), one.save.payload.size, one.save.name)
            if dry_run:
                report.add(described(folder, folder.history(), target, one))
            else:
                _remove(folder, target, one, report, len(chosen))
        on_progress(len(chosen), len(chosen), 0, "")
    return report


def begin(folder: ModelFolder, target: Target, report: PruneReport) -> None:
    """See that the folder may be changed, and finish what was begun before."""
    folder.check_format()
    folder.make_dirs()
    with locked(folder.push_lock()):
        with folder.workspace() as work_dir, locked(folder.lock()):
            folder.note_format(work_dir)
            recover(folder, work_dir)
        if going(folder.history()):
            mirror = folder.mirror(target)
            finish(folder, mirror, target, lambda name, why, _: _fail(report, name, why))


def _fail(report: PruneReport, name: str, why: str) -> None:
    report.failed[name] = why


def _remove(
    folder: ModelFolder, target: Target, one: Chosen, report: PruneReport, total: int
) -> None:
    try:
        remove(folder, target, one, report)
    except MirrorUnavailableError as cause:
        raise MirrorUnavailableError(
            f"{len(report.pruned)} of {total} saves are gone, and then: {cause.summary}",
            error_code=cause.data.get("error_code"),
        ) from cause


def _limits(keep_last: object, keep_days: object) -> _Limits:
    """Return the limits that were given.

    Raises
    ------
    SettingsError
        If there is none, or one that makes no sense.
    """
    if keep_last is None and keep_days is None:
        raise SettingsError(
            "prune needs a limit: keep_last, how many saves stay, or keep_days, how old they may be"
        )
    last = plain_integer(keep_last)
    is_count = isinstance(last, int) and not isinstance(last, bool) and last >= 0
    if keep_last is not None and not is_count:
        raise SettingsError(
            f"keep_last is {shown(keep_last)}; give how many saves stay, 0 or more", value=keep_last
        )
    days = as_number(keep_days)
    if keep_days is not None and not 0 <= days < math.inf:
        raise SettingsError(
            f"keep_days is {shown(keep_days)}; give a number of days, 0 or more", value=keep_days
        )
    most = None if keep_last is None else min(last, sys.maxsize)
    return _Limits(most, None if keep_days is None else _plain(days))


def _plain(days: float) -> float:
    return int(days) if days == int(days) else days


def _plan(
    folder: ModelFolder, target: Target, limits: _Limits
) -> tuple[list[Chosen], list[PrunedSave]]:
    """Return the saves that go, oldest first, and those that stay although no limit keeps them."""
    history, now_ns = folder.history(), time.time_ns()
    current = folder.settings()
    past: list[_Save] = []
    stays: dict[str, str] = {}
    for saves in _by_registered_model(history, target).values():
        beyond = [s for n, s in enumerate(saves) if not limits.keeps(n, s[1], now_ns)]
        newest = {saves[0][1].id, _in_place(folder, history, saves)}
        for entry, save in beyond:
            why = (
                "it is the newest"
                if save.id in newest
                else _why_it_waits(current, target, entry, save)
            )
            if why is not None:
                stays[save.id] = why
        past += beyond
    past.sort(key=lambda item: item[1].id)
    rest = [save for _, save in past if save.id not in stays]
    check_database(target, rest)
    if any(target.name in save.mirrored for save in rest):
        stays |= dict(_in_use(folder.mirror(target), target, rest))
    chosen = [Chosen(save, str(limits)) for _, save in past if save.id not in stays]
    kept = [
        described(folder, history, target, Chosen(save, stays[save.id]), has_size=False)
        for _, save in past
        if save.id in stays
    ]
    return chosen, kept


def _by_registered_model(history: History, target: Target) -> dict[str, list[_Save]]:
    """Return the saves that are there by registered model, the newest first."""
    found: dict[str, list[_Save]] = {}
    leaving = going(history)
    for entry in history.entries():  # newest first
        save = None if entry.state == "pending" else history.read(entry)
        is_own = save is not None and save.is_save and not is_of_another_host(history, save)
        if save is not None and is_own and save.id not in leaving:
            name = registered_model_of(save.mirrored.get(target.name), save.name)
            found.setdefault(name, []).append((entry, save))
    return found


def _in_place(folder: ModelFolder, history: History, saves: list[_Save]) -> str | None:
    """Return the save of the newest file in ``trained/`` of a registered model."""
    names = {save.name for _, save in saves}
    files = [file for file in history.trained_files if file.stem in names]
    newest = max(files, key=lambda file: (file.time_ns, file.path.name), default=None)
    if newest is None:
        return None
    save, restored = history.save_of(newest), history.restore_of(newest)
    if save is not None:
        return save.id
    return None if restored is None else restored.payload.save_id


def _why_it_waits(current: Settings, target: Target, entry: Entry, save: SaveRecord) -> str | None:
    """Return why a save that MLflow has still to get stays, ``None`` where it may go."""
    if target.name in save.mirrored and entry.state not in ("committed", "begun"):
        return None
    if entry.state == "aside":
        return None
    if entry.state == "sent":
        return "the current tracking store does not have it yet"
    is_of_disk_alone = entry.state == "committed" and not (save.mirrored or save.attempts)
    if current.mirror == "off" and is_of_disk_alone:
        return None
    return f"it still waits for {masked(save.target)}"


def _in_use(mirror: Mirror, target: Target, saves: list[SaveRecord]) -> Iterator[tuple[str, str]]:
    """Yield the saves whose versions are in use in MLflow, and how."""
    survey = mirror.survey()
    by_model: dict[str, dict[int, str]] = {}
    for save in saves:
        ids = save.mirrored.get(target.name)
        if ids is None:
            continue
        name = registered_model_of(ids, save.name)
        if name not in by_model:
            by_model[name] = protected_versions(mirror, name)
        others = survey.others_of(save, ids)
        if ids.version in by_model[name]:
            yield save.id, by_model[name][ids.version]
        elif others:
            yield save.id, f"{', '.join(others)} refers to its files"
