"""The journal as the saves of each model: the one answer to which save a file is of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lotto_mlflow import layout as names
from lotto_mlflow import regular
from lotto_mlflow.journal import Entry, Journal
from lotto_mlflow.model_dir import recorded_save_id
from lotto_mlflow.model_file import ModelFile, ModelFiles
from lotto_mlflow.pyfunc_loader import recorded_sha256
from lotto_mlflow.records import (
    PRUNE,
    RESTORE,
    ModelRecord,
    Record,
    RestoreRecord,
    SaveRecord,
    has_name_of_draws,
)
from lotto_mlflow.regular import real_path
from lotto_mlflow.requirements import version_in
from lotto_mlflow.settings import Target
from lotto_mlflow.store import Store
from lotto_mlflow.text import composed


class History(ModelFiles):
    """The records of a folder, read once each, and what they say of its files.

    Parameters
    ----------
    store : Store
        The files.
    journal : Journal
        The records.

    Notes
    -----
    It serves one operation: what is written after a record or a folder was read is not seen.
    """

    def __init__(self, store: Store, journal: Journal) -> None:
        super().__init__(store)
        self._journal = journal
        self._records: dict[Entry, Record[Any] | None] = {}
        self._entries: dict[str, list[Entry]] = {}
        self._all: list[Entry] | None = None

    def entries(self) -> list[Entry]:
        """Return the entry of each save and restore, newest first; nothing is listed again."""
        if self._all is None:
            self._all, self._entries = self._journal.entries(), {}
            for entry in self._all:
                self._entries.setdefault(entry.name, []).append(entry)
        return self._all

    def entries_of(self, name: str) -> list[Entry]:
        """Return the entries of one model name, newest first."""
        name = composed(name)
        if name not in self._entries and (self._all is None or has_name_of_draws(name)):
            self._entries[name] = self._journal.entries(name)
        return self._entries.get(name, [])

    def _entries_for(self, file: ModelFile) -> list[Entry]:
        return [entry for name in file.possible_names for entry in self.entries_of(name)]

    def read(self, entry: Entry) -> Record[Any] | None:
        """Return the record of an entry, ``None`` where it cannot be read."""
        if entry not in self._records:
            self._records[entry] = self._journal.read(entry)
        return self._records[entry]

    def records_of(self, *model_names: str) -> Iterator[Record[Any]]:
        """Yield the readable records of files of model names, newest first for each."""
        for name in model_names:
            for entry in self.entries_of(name):
                record = self.read(entry)
                if record is not None and record.is_of_file:
                    yield record

    def saves_of(self, *model_names: str) -> Iterator[SaveRecord]:
        """Yield the saves among the readable records of model names, newest first for each."""
        return (record for record in self.records_of(*model_names) if record.is_save)

    @cached_property
    def _files_by_name(self) -> dict[str, list[ModelFile]]:
        found: dict[str, list[ModelFile]] = {}
        for file in (*self.trained_files, *self.backup_files):
            for name in file.possible_names:
                found.setdefault(name, []).append(file)
        return found

    def has_bytes_of(self, save: SaveRecord) -> bool:
        """Return whether the bytes of a save are in ``trained/`` or ``backups/`` under its name.

        Notes
        -----
        The digest alone says so: a failing disk changes bytes, and leaves size and time.
        """
        payload = save.payload
        for file in self._files_by_name.get(payload.name, []):
            with suppress(OSError):  # one that cannot be read is no help
                if file.status.st_size == payload.size and file.sha256 == payload.sha256:
                    return True
        return False

    def save_of(self, file: ModelFile) -> SaveRecord | None:
        """Return the save that left a file in ``trained/`` or ``backups/``.

        Notes
        -----
        That is the save of its name with its time. A copy of the folder has other times: there
        the digest that its metadata declares decides, or else the newest record with its size, a
        save or a restore. Nothing is hashed.
        """
        records = list(self.records_of(*sorted(file.possible_names)))
        of_time = [r for r in records if r.payload.file_time_ns == file.time_ns]
        if of_time or file.is_backup:
            return next((record for record in of_time if record.is_save), None)
        sha256 = file.declared_sha256
        if sha256 is None:
            alike = (r.payload for r in records if r.payload.size == file.status.st_size)
            sha256 = next((payload.sha256 for payload in alike), None)
        saves = (record for record in records if record.is_save)
        return next((save for save in saves if save.payload.sha256 == sha256), None)

    def restore_of(self, file: ModelFile) -> RestoreRecord | None:
        """Return the restore that left a file in ``trained/``, if one did."""
        restores = (r for r in self.records_of(file.stem) if r.kind == RESTORE)
        return next((r for r in restores if r.payload.file_time_ns == file.time_ns), None)

    def id_of_save(self, file: ModelFile) -> str | None:
        """Return the save that a file in ``trained/`` is of, as far as records say."""
        save, restored = self.save_of(file), self.restore_of(file)
        return save.id if save else restored.payload.save_id if restored else None

    def save_with(self, name: str, sha256: str) -> SaveRecord | None:
        """Return the newest save of a name with these bytes."""
        return next((s for s in self.saves_of(name) if s.payload.sha256 == sha256), None)

    def own_save_of_version(self, version: ModelRecord) -> SaveRecord | None:
        """Return the save that a version mirrors, ``None`` where another folder made it."""
        return self.save_with_id(version.save_id)

    def save_with_id(self, save_id: str | None) -> SaveRecord | None:
        """Return the save of this id, ``None`` where there is none, or none any more."""
        entry = None if save_id is None else self._journal.with_id(save_id)
        record = None if entry is None else self.read(entry)
        return record if record is not None and record.is_save else None

    def _save_named(self, version: ModelRecord, target: Target) -> SaveRecord | None:
        """Return the save of which a record says that it is this version, whatever its tags say."""
        place = (version.registered_model, version.version)
        for record in self._mirrored_in(target):
            ids = record.mirrored[target.name]
            name = names.registered_model_of(ids, record.name)
            is_same = ids.run_id == version.run_id or ids.model_id == version.model_id
            if (name, ids.version) == place and is_same:
                return record
        return None

    def _mirrored_in(self, target: Target) -> Iterator[SaveRecord]:
        """Yield the saves that a target has; every record is read for it."""
        for entry in self.entries():
            record = self.read(entry)
            if record is not None and record.is_save and target.name in record.mirrored:
                yield record

    def _save_in(self, model_dir: Path) -> SaveRecord | None:
        """Return the save that a mirrored model folder is of, by its logged model or its text."""
        save = self.save_with_id(recorded_save_id(model_dir))
        if save is not None:
            return save
        for entry in self.entries():  # its text may be anybody's
            record = self.read(entry)
            of_record = () if record is None or not record.is_save else record.mirrored.values()
            if any(ids.model_id == model_dir.parent.name for ids in of_record):
                return record
        return None

    def corrected(self, version: ModelRecord, target: Target) -> ModelRecord:
        """Return a version with what the record of its save says, where this folder has one.

        Parameters
        ----------
        version : ModelRecord
            What the tags of the version say, which whoever reaches the registry can set.
        target : Target
            The store that has it.
        """
        save = self.own_save_of_version(version)
        ids = None if save is None else save.mirrored.get(target.name)
        if ids is None or (ids.version, ids.run_id) != (version.version, version.run_id):
            save = self._save_named(version, target) or save
        if save is None:
            return version
        return replace(
            version,
            save_id=save.id,
            name=save.name,
            sha256=save.payload.sha256,
            saved_at=save.payload.saved_at,
            saved_at_ns=save.payload.saved_at_ns,
            sklearn_version=version_in(save.payload.description.requirements, "scikit-learn"),
            size=save.payload.size,
            host=save.host,
        )

    def newest_sent(self, registered: str, target: Target) -> SaveRecord | None:
        """Return the newest save in a registered model that was pushed to a target from here."""
        beginning = names.PREFIX if registered == names.REGISTERED_MODEL else registered
        for entry in self._journal.sent(beginning):
            if names.registered_model(entry.name) == registered:
                record = self.read(entry)
                ids = record.mirrored.get(target.name) if record and record.is_save else None
                if ids is not None:
                    return record if ids.registered_model in (None, registered) else None
        return None

    def save_of_run(self, target: Target, run_id: str) -> SaveRecord | None:
        """Return the save that a run of a target is of; every record is read for it."""
        saves = self._mirrored_in(target)
        return next((s for s in saves if s.mirrored[target.name].run_id == run_id), None)

    def expected(self, file: ModelFile) -> frozenset[str]:
        """Return the digests that a file may have; none where nothing is known of it."""
        return self.known(file) or self._declared(file)

    def known(self, file: ModelFile, *, strictly: bool = False) -> frozenset[str]:
        """Return the digests that records say a file may have; none where no record is of it.

        Parameters
        ----------
        file : ModelFile
            The file.
        strictly : bool
            Leave out digests that were only found on disk when a record was made.

        Notes
        -----
        Where the record of the very file is damaged, those of other saves say nothing of it.
        """
        if file.is_trained or file.is_backup:
            entries = self._entries_for(file)
            if any(e.is_of_time(file.time_ns) and self.read(e) is None for e in entries):
                return frozenset()
            records = list(self.records_of(*file.possible_names))
            is_older = file.is_backup and _is_older_than_records(file, records)
            return frozenset() if is_older else _digests_in(records, strictly=strictly)
        if file.model_dir is not None:
            save = self._save_in(file.model_dir)
            return frozenset() if save is None else frozenset({save.payload.sha256})
        if file.is_download:
            own = _digests_in(list(self.records_of(file.stem)), strictly=strictly)
            return own & self._declared(file)
        return frozenset()

    def _declared(self, file: ModelFile) -> frozenset[str]:
        """Return the digest that stands beside a file, where whoever wrote it could write it."""
        if file.is_download:
            declared: str | None = real_path(file.path).parent.name
        elif file.is_trained or file.is_backup:
            declared = file.declared_sha256
        else:
            declared = recorded_sha256(file.model_dir) if file.model_dir is not None else None
        return frozenset({declared} if declared else ())

    def is_changed(self, file: ModelFile) -> bool:
        """Return whether digests are known that a file may have, and it has none of them."""
        known = self.expected(file)
        return bool(known) and file.sha256 not in known

    def is_damaged_in_place(self, name: str, *, hashes_all: bool) -> bool:
        """Return whether the file in ``trained/`` of a name has bytes that no record knows.

        Parameters
        ----------
        name : str
            The name.
        hashes_all : bool
            Whether a file with the time of a record is hashed, too.
        """
        path = self.layout.model_path(name)
        if not self.entries_of(name) or not regular.is_file(path):
            return False
        file = self.file(path)
        times = {record.payload.file_time_ns for record in self.records_of(name)}
        return (hashes_all or file.time_ns not in times) and self.is_changed(file)

    def is_in_journal(self, file: ModelFile, target: Target) -> bool:
        """Return whether a file is of a save that MLflow has or will get: by its time or its bytes.

        Notes
        -----
        A file with the time of a record of its name is that record's; only others are hashed. One
        that was pushed stays known by the name of its record, even where that is damaged; one that
        may not be read may be of any file. A restore may be of a file that no save knows, and
        MLflow has it only if it came from there. One of a save that was pruned is not to come back.
        """
        entries = self._entries_for(file)
        if any(entry.state == "sent" and entry.is_of_time(file.time_ns) for entry in entries):
            return True
        if any(self.read(entry) is None and self._journal.refusal(entry) for entry in entries):
            return True
        payloads = [
            record.payload
            for record in self.records_of(*file.possible_names)
            if record.is_save or record.kind == PRUNE or target.name in record.mirrored
        ]
        if any(payload.file_time_ns == file.time_ns for payload in payloads):
            return True
        return bool(payloads) and file.sha256 in {payload.sha256 for payload in payloads}

    def unknown_files(self, target: Target, *, include_backups: bool) -> Iterator[ModelFile]:
        """Yield the model files that no save knows, those of ``trained/`` first.

        Parameters
        ----------
        target : Target
            The current tracking store.
        include_backups : bool
            Whether those of ``backups/`` are looked at, too.
        """
        for file in (*self.trained_files, *(self.backup_files if include_backups else ())):
            if names.is_name(self.name_of(file)) and not self.is_in_journal(file, target):
                yield file

    def unrecorded_digest(self, name: str) -> str | None:
        """Return the digest of a file in ``trained/`` of a name without records, if there is one.

        Notes
        -----
        Such a file is older than this package. Whatever replaces it gives its name a record, and
        without its digest in that record its backup would look changed.
        """
        path = self.layout.model_path(name)
        status = None if self.entries_of(name) else regular.status_of(path)
        return None if status is None else self.file(path, status).sha256

    def earlier_digests(self, name: str) -> list[str] | None:
        """Return the digests of the backups of a name without records, ``None`` for any other."""
        if self.entries_of(name):
            return None
        return sorted({f.sha256 for f in self.backups_of(name) if self.name_of(f) == name})

    def name_of(self, file: ModelFile) -> str:
        """Return the name of the model that a file is of.

        Notes
        -----
        ``x.2.pkl`` in ``backups/`` may be the second backup of ``x``, or the first of a model
        named ``x.2``. The records know: that of the save with the file's time, or that of the
        save or restore which put it there. Without them it is a model's own name if there is
        such a model.
        """
        own, numbered = file.stem, names.name_of_backup(file.path)
        if not file.is_backup or own == numbered:
            return own
        save = self.save_of(file)
        if save is not None:
            return save.name
        if any(record.payload.backup == own for record in self.records_of(numbered)):
            return numbered
        is_own = regular.is_file(self.layout.model_path(own)) or any(self.records_of(own))
        return own if is_own else numbered


def _digests_in(records: Iterable[Record[Any]], *, strictly: bool) -> frozenset[str]:
    """Return the digests in records; strictly, only those of saves and of what MLflow had."""
    found: set[str] = set()
    for record in records:
        payload = record.payload
        if record.kind != RESTORE or record.mirrored or not strictly:
            found.add(payload.sha256)
        if not strictly:
            found.update(payload.earlier_sha256 or ())
            found.update(filter(None, [payload.replaced_sha256]))
    return frozenset(found)


def _is_older_than_records(file: ModelFile, records: list[Record[Any]]) -> bool:
    """Return whether a backup is from before the first save of its name, and no record knows it.

    Notes
    -----
    Only the records of an earlier release do not say which files were there before them.
    """
    payloads = [record.payload for record in records]
    if any(payload.earlier_sha256 is not None for payload in payloads):
        return False
    if any(file.stem == p.backup or file.time_ns == p.file_time_ns for p in payloads):
        return False
    return all(file.time_ns < r.payload.file_time_ns for r in records if r.is_save)
