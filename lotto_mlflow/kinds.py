"""What is done with each kind of record: how it is recovered, pushed and verified.

A new kind adds its payload to `lotto_mlflow.records`, and an entry to `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotto_mlflow.errors import Fix, MirrorError
from lotto_mlflow.files import sweep
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.journal import Entry, State
from lotto_mlflow.layout import registered_model
from lotto_mlflow.records import (
    BACKFILL,
    RESTORE,
    SAVE,
    Finding,
    MlflowIds,
    Record,
    SaveRecord,
)
from lotto_mlflow.references import restore_from_registry
from lotto_mlflow.settings import Target
from lotto_mlflow.store.commit import Protocol

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror


class Verification:
    """What the verification of one record may ask.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    history : History
        Its records.
    target : Target
        The current tracking store.
    mirror : Mirror or None
        The MLflow view there, ``None`` where MLflow cannot be asked.
    """

    def __init__(
        self, folder: ModelFolder, history: History, target: Target, mirror: Mirror | None
    ) -> None:
        self.folder = folder
        self.history = history
        self.target = target
        self.mirror = mirror
        self.save_ids = cache(self._save_ids)

    def _save_ids(self, registered: str) -> dict[int, str]:
        """Return the id of the save that each version of a registered model mirrors."""
        return {} if self.mirror is None else self.mirror.saves_in(registered)


@dataclass(frozen=True)
class Kind:
    """The three functions of one kind of record.

    Attributes
    ----------
    end : str
        State of a record of this kind once its work on disk is done.
    push : callable or None
        ``push(folder, mirror, record, is_begun, work_dir)`` brings it to MLflow and returns the
        ids there; ``None`` where MLflow gets nothing. ``is_begun`` says whether an earlier push
        of the record may have got somewhere.
    verify : callable
        ``verify(verification, entry, record)`` yields the findings about it.
    """

    end: State
    push: Callable[[ModelFolder, Mirror, Record[Any], bool, Path], MlflowIds] | None
    verify: Callable[[Verification, Entry, Record[Any]], Iterator[Finding]]

    def recover(self, protocol: Protocol, entry: Entry, record: Record[Any]) -> None:
        """Finish or drop what a dead process left."""
        protocol.recover(entry, record, self.end)


def recover(folder: ModelFolder, work_dir: Path) -> None:
    """Finish or drop the work of processes that died; the caller holds the folder's lock."""
    sweep(folder.layout.tmp_dir, *folder.store.folders)
    protocol = Protocol(folder.store, folder.journal, work_dir)
    for entry in folder.journal.pending():
        record = folder.journal.read(entry)
        if record is not None:
            KINDS[record.kind].recover(protocol, entry, record)
        elif not folder.journal.is_of_later_release(entry):
            folder.journal.quarantine(entry)


def _push_save(
    folder: ModelFolder, mirror: Mirror, record: SaveRecord, is_begun: bool, work_dir: Path
) -> MlflowIds:
    pkl_path = folder.store.link_bytes_of(record.payload, work_dir)
    if pkl_path is None:
        layout = folder.layout
        raise MirrorError(
            f"the bytes of {record.name} with SHA-256 {record.payload.sha256} are neither in "
            f"{layout.trained_dir} nor in {layout.backup_dir}",
            error_code="BYTES_GONE",
        )
    return mirror.push(
        record,
        pkl_path,
        artifacts_dir=folder.journal.artifacts_dir(record.id),
        begun=is_begun,
        work_dir=work_dir,
    )


def _verify_save(verification: Verification, entry: Entry, record: SaveRecord) -> Iterator[Finding]:
    """Check that the bytes of a save are on disk, and in the current tracking store."""
    name = record.name
    if entry.state == "aside" or record.tries:
        reason = record.reason or "it was set aside"
        fix = Fix("sync", {"retry_aside": True})
        yield Finding("stuck record", name, entry.path, reason, fix=fix)
    if not verification.history.has_bytes_of(record):
        yield Finding(
            "missing on disk",
            name,
            verification.folder.layout.model_path(name),
            f"the bytes of the save of {record.payload.saved_at} are in neither folder",
            fix=restore_from_registry(name),
        )
    ids = record.mirrored.get(verification.target.name)
    if ids is not None:
        yield from _verify_in_mlflow(verification, entry, record, ids)
    elif entry.state != "aside":
        detail = f"the save of {record.payload.saved_at} was not sent to the current store"
        yield Finding("missing in MLflow", name, entry.path, detail, fix=Fix("sync"))


def _verify_in_mlflow(
    verification: Verification, entry: Entry, record: SaveRecord, ids: MlflowIds
) -> Iterator[Finding]:
    mirror = verification.mirror
    if mirror is None:
        return
    fix = Fix("sync", {"resend": True})
    if verification.save_ids(registered_model(record.name)).get(ids.version) != record.id:
        detail = f"version {ids.version} was deleted"
    elif not mirror.has_bytes(ids.model_id):
        detail = f"the file of version {ids.version} is gone"
        fix = replace(fix, before="delete the version in MLflow, then")
    else:
        return
    yield Finding("missing in MLflow", record.name, entry.path, detail, fix=fix)


def _verify_nothing(*_: object) -> Iterator[Finding]:
    """Find nothing: a restore is of bytes that a save or a file is responsible for."""
    return iter(())


KINDS = {
    SAVE: Kind("committed", _push_save, _verify_save),
    BACKFILL: Kind("committed", _push_save, _verify_save),
    RESTORE: Kind("sent", None, _verify_nothing),
}
