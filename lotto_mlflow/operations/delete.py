"""Delete: remove one save that somebody names, from disk and MLflow at once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lotto_mlflow import push as pushing
from lotto_mlflow.errors import (
    Fix,
    InvalidReferenceError,
    MirrorError,
    MirrorUnavailableError,
    ModelInUseError,
    ModelNotFoundError,
)
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.layout import is_plain, registered_model_of
from lotto_mlflow.model_file import ModelFile
from lotto_mlflow.operations import find, gone, restored, versions
from lotto_mlflow.operations.aliases import check_reason
from lotto_mlflow.operations.digests import moved_away
from lotto_mlflow.operations.prune import begin
from lotto_mlflow.operations.removals import (
    Chosen,
    Removable,
    check_database,
    current,
    described,
    remove,
)
from lotto_mlflow.plain_values import plain_integer
from lotto_mlflow.push import PushWorker
from lotto_mlflow.records import (
    PRUNE,
    MlflowIds,
    ModelRecord,
    PruneRecord,
    PruneReport,
    RestoreRecord,
    SaveRecord,
)
from lotto_mlflow.references import VersionReference
from lotto_mlflow.settings import Target
from lotto_mlflow.text import composed, masked

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

_NO_REASON = "no reason was given"


def delete(
    folder: ModelFolder,
    model: str | int | os.PathLike[str],
    *,
    reason: str | None,
    force: bool,
    dry_run: bool,
) -> PruneReport:
    """Remove one save, or say what would go."""
    check_reason(reason)
    target, report = folder.target(), PruneReport(dry_run=dry_run)
    outcome = "What was decided to go is removed by the next save or sync"
    with folder.disk_errors("the model could not be deleted", outcome):
        save = _pushed(folder, target, _own(folder, _meant(folder, target, model)))
        if not dry_run:
            begin(folder, target, report)
            save = _again(folder, save)
        check_database(target, [save])
        ids = save.mirrored.get(target.name)
        aliases = () if ids is None else _aliases(folder.mirror(target), save, ids)
        if ids is not None and aliases and not force:
            raise _in_use(model, save, ids, aliases, reason)
        one = Chosen(save, (reason or "").strip() or _NO_REASON, aliases, is_deletion=True)
        if dry_run:
            report.add(described(folder, folder.history(), target, one))
        else:
            remove(folder, target, one, report)
    if save.id in report.failed:
        raise MirrorError(report.failed[save.id], error_code=None, name=save.name)
    return report


def _meant(folder: ModelFolder, target: Target, model: str | int | os.PathLike[str]) -> Removable:
    """Return the save that is named: of a name, the one in ``trained/``, else its newest.

    Raises
    ------
    ModelNotFoundError
        If there is none, or no record says what it is.
    """
    history = folder.history()
    reference = versions.version_reference(folder, model)
    if reference is not None:
        return _of_version(
            history, target, versions.of_version(folder, target, reference, str(model))
        )
    try:
        record = find.get(folder, model, with_aliases=False)
    except ModelNotFoundError:
        name = composed(os.fspath(model)) if isinstance(model, (str, os.PathLike)) else ""
        save = next(history.saves_of(name), None) if is_plain(name) else None
        if save is None:
            raise
        return save
    if record.path is None:  # another machine saved it
        return _of_version(history, target, record)
    return _of_file(folder, history, record)


def _of_file(folder: ModelFolder, history: History, record: ModelRecord) -> SaveRecord:
    """Return the save that a file in ``trained/`` is of.

    Raises
    ------
    InvalidReferenceError
        If the file only came here from another host's save.
    ModelNotFoundError
        If no record says which save it is of.
    """
    file = history.file(folder.layout.model_path(record.name))
    restore = history.restore_of(file)
    save_id = record.save_id or (restore and restore.payload.save_id)
    found = next((s for s in history.saves_of(record.name) if s.id == save_id), None)
    if found is not None:
        return found
    if restore is None:  # in a copy of the folder files have other times
        of_bytes = restored.find(folder, history, file, asks=False)
        restore = None if of_bytes is None else of_bytes.record
    end = _end_of(history, file, restore)
    if end is not None:
        raise ModelNotFoundError(
            f"{gone.error_of(end).summary}; {file.path} was put there since, and was left as it is",
            fix=moved_away(file.path, history.aside_path(file)),
            name=record.name,
        )
    if restore is not None and restore.mirrored:
        raise _of_another_host(f"the save of {file.path}", record.name)
    what = f"no record says which save {file.path} is of, so nothing of it was deleted"
    if history.is_changed(file):
        raise ModelNotFoundError(
            f"{what}; its bytes are those of no save of {record.name}",
            fix=moved_away(file.path, history.aside_path(file)),
            name=record.name,
        )
    fix = Fix("sync", effect="records it, if no save made it")
    raise ModelNotFoundError(what, fix=fix, name=record.name)


def _end_of(history: History, file: ModelFile, restore: RestoreRecord | None) -> PruneRecord | None:
    """Return the record of a save that is gone, and whose file somebody put there again."""
    for record in history.records_of(file.stem):
        if record.kind != PRUNE:
            continue
        is_of_bytes = restore is None and record.payload.sha256 == file.sha256
        if is_of_bytes or (restore and restore.payload.save_id) == record.payload.save_id:
            return record
    return None


def _own(folder: ModelFolder, save: Removable) -> Removable:
    """Return a save that this folder made.

    Raises
    ------
    InvalidReferenceError
        If another host made it, and this folder only restored it. Nothing was deleted.
    """
    if restored.is_of_another_host(folder.history(), save):
        raise _of_another_host(f"the save of {save.name} of {save.payload.saved_at}", save.name)
    return save


def _of_another_host(what: str, name: str) -> InvalidReferenceError:
    return InvalidReferenceError(
        f"{what} was made on another host, and only restored in this folder; it was left as it "
        "is, delete it where it was saved",
        reference=name,
    )


def _of_version(history: History, target: Target, version: ModelRecord) -> Removable:
    """Return the save that a version is of, if this folder made it, and it is no copy.

    Of a save that was deleted from another store, and that the current one has kept, the record of
    its end is returned.

    Raises
    ------
    InvalidReferenceError
        If it is another folder's, or a copy. Nothing was deleted.
    """
    save = history.own_save_of_version(version) or gone.end_of_version(history, target, version)
    ids = None if save is None else save.mirrored.get(target.name)
    place = VersionReference(version.registered_model, version=version.version)
    if save is None or ids is None:
        raise InvalidReferenceError(
            f"{place} was not saved in this folder, and was left as it is; delete it where it was "
            "saved, or with MLflow",
            reference=str(place),
        )
    own = VersionReference(registered_model_of(ids, save.name), version=ids.version)
    if place != own:
        raise InvalidReferenceError(
            f"{place} is another version of the save that is {own}, and was left as it is; delete "
            "it with MLflow",
            reference=str(place),
        )
    return save


def _pushed(folder: ModelFolder, target: Target, save: Removable) -> Removable:
    """Return a save once it no longer waits for MLflow, five seconds at most.

    Raises
    ------
    MirrorUnavailableError
        If it goes on waiting, or another tracking store has it. Nothing was deleted.
    """
    entry = folder.journal.with_id(save.id)
    is_waiting = entry is not None and entry.state in ("committed", "begun")
    is_off = folder.settings().mirror == "off"
    if is_waiting and not is_off:
        PushWorker.of(folder, target).flush(pushing.WAIT_SECONDS)
        save = _again(folder, save)
        entry = folder.journal.with_id(save.id)
        is_waiting = entry is not None and entry.state in ("committed", "begun")
    is_of_disk_alone = is_off and not (save.mirrored or save.attempts)
    if is_waiting and not is_of_disk_alone:
        raise MirrorUnavailableError(
            f"{save.name} still waits for {masked(save.target)}; nothing was deleted. Try again "
            "once it can be reached",
            error_code=None,
        )
    if save.mirrored and target.name not in save.mirrored:
        stores = ", ".join(map(masked, save.mirrored))
        raise MirrorUnavailableError(
            f"{save.name} is in {stores}, and not in the current tracking store; nothing was "
            "deleted. Select that store, or sync first",
            error_code=None,
        )
    return save


def _again(folder: ModelFolder, save: Removable) -> Removable:
    """Return the record of a save as it is now.

    Raises
    ------
    ModelNotFoundError
        If another process has removed the save meanwhile.
    """
    found = current(folder, save)
    if found is None:
        raise ModelNotFoundError(
            f"{save.name} was removed by another process meanwhile", name=save.name
        )
    return found


def _aliases(mirror: Mirror, save: Removable, ids: MlflowIds) -> tuple[str, ...]:
    """Return the aliases that stand for a save.

    Raises
    ------
    ModelInUseError
        If another version needs its files.
    """
    name = registered_model_of(ids, save.name)
    others = mirror.survey().others_of(save, ids)
    if others:
        raise ModelInUseError(
            f"{', '.join(others)} refers to the files of {save.name}; nothing was deleted. Delete "
            "that first, with MLflow",
            name=save.name,
        )
    return mirror.aliases(name).get(ids.version, ())


def _in_use(
    model: str | int | os.PathLike[str],
    save: Removable,
    ids: MlflowIds,
    aliases: tuple[str, ...],
    reason: str | None,
) -> ModelInUseError:
    number = plain_integer(model)
    arguments = {"model": number if isinstance(number, int) else os.fspath(number)}
    arguments |= {} if reason is None else {"reason": reason}
    return ModelInUseError(
        f"version {ids.version} of {registered_model_of(ids, save.name)} has the alias "
        f"{', '.join(aliases)}; nothing was deleted",
        fix=Fix(
            "delete",
            arguments | {"force": True},
            before="promote another model or roll back first;",
            effect="removes the alias, too",
        ),
        name=save.name,
        aliases=aliases,
    )
