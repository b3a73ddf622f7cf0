"""The one commit protocol: how a model and its metadata are replaced, by a save or a restore.

The steps, under the store's lock: write the record as pending; link what is about to be replaced
into ``backups/``; put the signature where it belongs; rename the model into place, which commits;
put its metadata in place; mark the record. A process that dies in between leaves a pending record,
which `recover` finishes or drops. A step that fails is rolled back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lotto_mlflow import advice, regular
from lotto_mlflow.errors import StoreError
from lotto_mlflow.files import (
    link_or_copy,
    mode_of,
    put,
    replace_content,
    sync_dir,
    temporary_for,
)
from lotto_mlflow.journal import Entry, Journal, State
from lotto_mlflow.metadata import MAX_BYTES, json_of
from lotto_mlflow.records import Record, RestorePayload, SavePayload
from lotto_mlflow.signing import Pair
from lotto_mlflow.store import Store, sha256_of_file
from lotto_mlflow.store.signatures import remove_pairs, writing_pair


@dataclass(frozen=True)
class Protocol:
    """The protocol over one folder; whoever uses it holds the store's lock.

    Attributes
    ----------
    store : Store
        The folders.
    journal : Journal
        Their records.
    work_dir : pathlib.Path
        The workspace for temporary files.
    """

    store: Store
    journal: Journal
    work_dir: Path

    def commit(
        self,
        record: Record[Any],
        staged: Path,
        state: State,
        artifacts_dir: Path | None = None,
        metadata_mode: int | None = None,
        pair: Pair | None = None,
    ) -> Entry:
        """Put a staged model and its metadata in place.

        Parameters
        ----------
        record : Record
            The save or the restore.
        staged : pathlib.Path
            The model's file: whole, durable, and with its time.
        state : {"committed", "sent"}
            State of the record in the end.
        artifacts_dir : pathlib.Path, optional
            Folder of the caller's extra artifacts; it is moved beside the record.
        metadata_mode : int, optional
            Who may read and write the metadata; by default who might before.
        pair : tuple of bytes, optional
            What is signed of the save, and its signature; one that is there already stays.

        Raises
        ------
        OSError
            If the disk refuses a step; all is as it was.
        StoreError
            If it refuses to have a step undone, too. The record stays pending, and the next
            save, restore or sync finishes or drops it.
        """
        payload = record.payload
        self.store.check_places(payload.name, is_save=record.is_save)
        entry = self.journal.entry_of(record, "pending")
        before = [_identity(path) for path, _ in self._pairs(payload)]
        signed_id = self._id_to_sign(record, pair)
        layout = self.store.layout
        try:
            with writing_pair(layout, signed_id, pair, self.work_dir) as put_pair:
                self.journal.add(record, "pending", self.work_dir)
                if artifacts_dir is not None:
                    self.journal.put_artifacts(record, artifacts_dir)
                self._back_up(payload)
                put_pair()
                put(staged, layout.model_path(payload.name), self.work_dir)
                sync_dir(layout.trained_dir)  # before the metadata: what commits comes first
                self._put_metadata(payload, metadata_mode)
                return self.journal.mark(entry, state)
        except BaseException as cause:
            entries = entry, self.journal.entry_of(record, state)
            self._roll_back(payload, entries, before, signed_id, cause)
            raise

    def _id_to_sign(self, record: Record[Any], pair: Pair | None) -> str | None:
        """Return the save whose signature is to be written, ``None`` where nothing is."""
        save_id: str | None = record.id if record.is_save else record.payload.save_id
        if pair is None or save_id is None:
            return None
        layout = self.store.layout
        paths = layout.statement_path(save_id), layout.signature_path(save_id)
        return None if all(map(os.path.lexists, paths)) else save_id

    def recover(self, entry: Entry, record: Record[Any], state: State) -> None:
        """Finish what a dead process left, or drop it.

        Parameters
        ----------
        entry : Entry
            The pending record's file.
        record : Record
            What it holds.
        state : {"committed", "sent"}
            State of the record once it is finished.

        Notes
        -----
        A save or restore is committed once its file is in place, with its time and its bytes, and
        then only rolls forward. A save that was replaced since lies in ``backups/``; a restore
        holds the lock that whoever replaces it recovers under.
        """
        payload = record.payload
        model_path = self.store.layout.model_path(payload.name)
        is_in_place = _is_of(model_path, payload)
        if is_in_place:
            self._back_up_metadata_left(payload)
            self._put_metadata(payload)
        elif not (record.is_save and self._is_in_backups(payload)):
            self._drop_backup(payload)
            if record.is_save:
                remove_pairs(self.store.layout, [record.id])
            self.journal.drop(entry)
            return
        self.journal.mark(entry, state)

    def _pairs(self, payload: SavePayload | RestorePayload) -> tuple[tuple[Path, Path], ...]:
        """Return the model and its metadata, each with where it is kept once it is replaced."""
        layout, stem = self.store.layout, payload.backup or payload.name
        if payload.replaced_damaged:
            kept = layout.aside_path(stem), layout.aside_metadata_path(stem)
        else:
            kept = layout.backup_path(stem), layout.backup_metadata_path(stem)
        model_path, metadata_path = self.store.places_of(payload.name)
        return (model_path, kept[0]), (metadata_path, kept[1])

    def _back_up(self, payload: SavePayload | RestorePayload) -> None:
        """Put what is about to be replaced into ``backups/`` too, durably; what is there stays."""
        if payload.backup is None:
            return
        for original, backup in self._pairs(payload):
            if regular.is_file(original) and not os.path.lexists(backup):
                link_or_copy(original, backup, self.work_dir)
                sync_dir(backup.parent)

    def _back_up_metadata_left(self, payload: SavePayload | RestorePayload) -> None:
        """Back up metadata that a process which died left in place.

        Notes
        -----
        A restore of the very bytes that are in place counts as committed from its first moment,
        and may have died before it backed anything up.
        """
        _, (original, backup) = self._pairs(payload)
        if payload.backup is None or os.path.lexists(backup) or not regular.is_file(original):
            return
        try:
            is_left = regular.content_of(original, MAX_BYTES) != metadata_of(payload)
        except StoreError:  # it is larger
            is_left = True
        if is_left:
            self._back_up(payload)

    def _put_metadata(self, payload: SavePayload | RestorePayload, mode: int | None = None) -> None:
        """Put the metadata in place, or remove what another save of the name left."""
        path, content = self.store.layout.metadata_path(payload.name), metadata_of(payload)
        if content is None:
            path.unlink(missing_ok=True)
        else:
            replace_content(path, content, self.work_dir, self._metadata_mode(payload, mode))
        sync_dir(self.store.layout.metadata_dir)

    def _metadata_mode(self, payload: SavePayload | RestorePayload, mode: int | None) -> int | None:
        """Return who may read and write metadata: nobody who could not do so with its model.

        Notes
        -----
        A process that finishes another's work knows only what is in place.
        """
        model_path, path = self.store.places_of(payload.name)
        of_model, before = mode_of(model_path), mode_of(path) if mode is None else mode
        if before is None or of_model is None:
            return before if of_model is None else of_model & 0o666
        return before & of_model

    def _roll_back(
        self,
        payload: SavePayload | RestorePayload,
        entries: Iterable[Entry],
        before: list[tuple[int, int, int] | None],
        signed_id: str | None,
        cause: BaseException,
    ) -> None:
        """Bring back what was there; metadata comes first.

        Notes
        -----
        The model is what shows whether a record is committed, so it comes last: a process killed
        in between leaves work that is finished, not work that is half undone.
        """
        try:
            for (original, backup), identity in reversed(
                list(zip(self._pairs(payload), before, strict=True))
            ):
                self._bring_back(original, backup if payload.backup else None, identity)
            self._drop_backup(payload)
            if signed_id is not None:
                remove_pairs(self.store.layout, [signed_id])
            for entry in entries:
                self.journal.drop(entry)
        except OSError as refusal:
            path = self.store.layout.model_path(payload.name)
            raise StoreError(
                f"{path} could not be replaced: {cause}; and the disk refused to have that undone: "
                f"{refusal}. The old model or the new one is in place, whole; the next save, "
                f"restore or sync finishes or undoes the work; {advice.of_error(refusal, path)}",
                path=path,
            ) from cause

    def _bring_back(
        self, original: Path, backup: Path | None, before: tuple[int, int, int] | None
    ) -> None:
        if _identity(original) == before:
            return  # the step that failed did not get here
        if before is None:
            original.unlink(missing_ok=True)
        elif backup is not None and os.path.lexists(backup):
            temporary = temporary_for(original, self.work_dir)
            link_or_copy(backup, temporary, self.work_dir)
            put(temporary, original, self.work_dir)
        else:  # the same bytes were put over it, so that nothing was backed up
            _, time_ns, _ = before
            os.utime(original, ns=(time_ns, time_ns))

    def _drop_backup(self, payload: SavePayload | RestorePayload) -> None:
        """Remove the backup of work that never was, where the original is still in place."""
        if payload.backup is None:
            return
        for original, backup in self._pairs(payload):
            kept, status = regular.status_of(original), regular.status_of(backup)
            if kept is None or status is None:
                continue
            if (kept.st_mtime_ns, kept.st_size) == (status.st_mtime_ns, status.st_size):
                backup.unlink(missing_ok=True)

    def _is_in_backups(self, payload: SavePayload | RestorePayload) -> bool:
        return any(_is_of(path, payload) for path in self.store.backups_of(payload.name))


def metadata_of(payload: SavePayload | RestorePayload) -> bytes | None:
    """Return the content of the metadata file that belongs to a model, ``None`` for none."""
    values = payload.metadata
    return values if isinstance(values, bytes) else json_of(values)


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return what a file has and none that replaces it, ``None`` where there is none."""
    status = regular.status_of(path)
    if status is None:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _is_of(path: Path, payload: SavePayload | RestorePayload) -> bool:
    status = regular.status_of(path)
    if status is None or status.st_mtime_ns != payload.file_time_ns:
        return False
    with suppress(FileNotFoundError):
        return sha256_of_file(path) == payload.sha256
    return False
