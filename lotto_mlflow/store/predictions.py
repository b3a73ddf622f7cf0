"""The commit protocol of predictions and results: the records first, then the files that show them.

The steps, under the store's lock: write the record as pending; link what is about to be replaced
into ``backups/predictions/``; put the new file in place; mark the record. The record holds all of
it, so a process that dies in between leaves work that is finished by the next. A step that fails
is rolled back.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lotto_mlflow import regular
from lotto_mlflow.draws import render_results
from lotto_mlflow.errors import StoreError
from lotto_mlflow.files import link_or_copy, put, replace_content, sync_dir, temporary_for
from lotto_mlflow.journal import Entry, Journal, State
from lotto_mlflow.layout import Layout, backup_names
from lotto_mlflow.metadata import content_of
from lotto_mlflow.predicted import Predictions, shown_json
from lotto_mlflow.records import PredictionPayload, Record
from lotto_mlflow.store import make_real_dir


@dataclass(frozen=True)
class Change:
    """What a record does to the folder of predictions.

    Attributes
    ----------
    path : pathlib.Path
        The file that shows it.
    content : bytes or None
        What that file is to hold; ``None`` where it goes on showing something else.
    backup_path : pathlib.Path or None
        Where the file is kept that is replaced.
    source_path, source_backup_path : pathlib.Path or None
        The older file that a prediction was read from, and where it is kept.
    """

    path: Path
    content: bytes | None
    backup_path: Path | None = None
    source_path: Path | None = None
    source_backup_path: Path | None = None

    @property
    def moves(self) -> list[tuple[Path, Path | None]]:
        """The files that are replaced or go, each with where it is kept."""
        shown = [(self.path, self.backup_path)] if self.content is not None else []
        is_other = self.source_path is not None and self.source_path != self.path
        if self.source_path is None or not (is_other or self.content is None):
            return shown
        return [*shown, (self.source_path, self.source_backup_path)]


@dataclass(frozen=True)
class PredictionProtocol:
    """The protocol over one folder; whoever uses it holds the store's lock.

    Attributes
    ----------
    layout : Layout
        Where the files lie.
    journal : Journal
        Their records.
    work_dir : pathlib.Path
        The workspace for temporary files.
    """

    layout: Layout
    journal: Journal
    work_dir: Path

    def free_backup(self, path: Path) -> str:
        """Return the first name in ``backups/predictions/`` that a file can be kept under."""
        number = 1
        while True:
            name = f"{backup_names(path.stem, number)}{path.suffix}"
            if not os.path.lexists(self.layout.prediction_backup_dir / name):
                return name
            number += 1

    def check_place(self, path: Path) -> None:
        """See that a file can be put in place: that nothing but a file has its name.

        Raises
        ------
        StoreError
            If something else has it, or the name of one of the folders.
        """
        for folder in (path.parent, self.layout.prediction_backup_dir):
            regular.check_folder(folder)
        regular.check_file(path)

    def change_by(self, record: Record[Any]) -> Change:
        """Return what a record does to the folder; what others recorded is read."""
        payload, found = record.payload, Predictions(self.journal)
        backup_dir = self.layout.prediction_backup_dir
        backup_path = None if payload.backup is None else backup_dir / payload.backup
        if not isinstance(payload, PredictionPayload):
            content = render_results(found.results(record).values())
            return Change(self.layout.results_path, content, backup_path)
        path = self.layout.prediction_path(payload.model, payload.draw_no)
        shown = found.named(payload.model, payload.draw_no, record).shown
        is_shown = shown is not None and shown.id == record.id
        source_path = source_backup_path = None
        if payload.source is not None and payload.source_backup is not None:
            source_path = self.layout.predictions_dir / payload.source
            source_backup_path = backup_dir / payload.source_backup
        return Change(
            path,
            shown_json(record) if is_shown else None,
            backup_path,
            source_path,
            source_backup_path,
        )

    def backup_for(self, record: Record[Any]) -> str | None:
        """Return the name under which what a record replaces is kept, ``None`` for nothing."""
        change = self.change_by(record)
        is_replaced = change.content is not None and content_of(change.path) != change.content
        if is_replaced and os.path.lexists(change.path):
            return self.free_backup(change.path)
        return None

    def commit(self, record: Record[Any], state: State) -> Entry:
        """Write a record, and the file that shows it.

        Parameters
        ----------
        record : Record
            The prediction or the result.
        state : {"committed", "sent"}
            State of the record in the end.

        Raises
        ------
        OSError
            If the disk refuses a step; all is as it was.
        StoreError
            If it refuses to have a step undone, too. The record stays pending, and the next save,
            prediction or sync finishes it.
        """
        change = self.change_by(record)
        self.check_place(change.path)
        kept = self._kept(change)
        entry = self.journal.entry_of(record, "pending")
        try:
            self.journal.add(record, "pending", self.work_dir)
            self._apply(change)
            return self.journal.mark(entry, state)
        except BaseException as cause:
            self._roll_back(record, state, change, kept, cause)
            raise

    def recover(self, entry: Entry, record: Record[Any], state: State) -> None:
        """Finish what a dead process left.

        Notes
        -----
        Something that is no file, or no folder, in the place of one is left as it is: no save is
        to fail because of it, and `verify` finds it.
        """
        change = self.change_by(record)
        try:
            self.check_place(change.path)
        except StoreError:
            pass
        else:
            self._apply(change)
        self.journal.mark(entry, state)

    def show(self, path: Path, content: bytes) -> None:
        """Put a file right that is not what the records say; what is there is kept.

        Raises
        ------
        StoreError
            If something else has its name, or the disk refuses.
        """
        self.check_place(path)
        backup_path = None
        if os.path.lexists(path):
            backup_path = self.layout.prediction_backup_dir / self.free_backup(path)
        self._apply(Change(path, content, backup_path))

    def _kept(self, change: Change) -> dict[Path, Path]:
        """Give what is replaced or goes a second entry in the workspace, to be brought back."""
        kept: dict[Path, Path] = {}
        for path, _ in change.moves:
            if regular.is_file(path):
                kept[path] = self.work_dir / f"before-{len(kept)}"
                link_or_copy(path, kept[path], self.work_dir)
        return kept

    def _apply(self, change: Change) -> None:
        """Take the steps after the record; those that were taken before are not taken again."""
        for path, backup_path in change.moves:
            is_done = path == change.path and content_of(path) == change.content
            if backup_path is not None and regular.is_file(path) and not is_done:
                make_real_dir(backup_path.parent)
                if not os.path.lexists(backup_path):
                    link_or_copy(path, backup_path, self.work_dir)
                    sync_dir(backup_path.parent)
        if change.content is not None and content_of(change.path) != change.content:
            make_real_dir(change.path.parent)
            replace_content(change.path, change.content, self.work_dir)
            sync_dir(change.path.parent)
        for path, _ in change.moves:
            if path != change.path or change.content is None:
                path.unlink(missing_ok=True)

    def _roll_back(
        self,
        record: Record[Any],
        state: State,
        change: Change,
        kept: dict[Path, Path],
        cause: BaseException,
    ) -> None:
        """Bring back what was there; the record goes last, since it is what is recovered by."""
        try:
            for path, backup_path in change.moves:
                if path in kept:
                    self._bring_back(path, kept[path])
                elif path == change.path:
                    path.unlink(missing_ok=True)
                if backup_path is not None and path in kept:
                    backup_path.unlink(missing_ok=True)
            for entry in (self.journal.entry_of(record, s) for s in (state, "pending")):
                self.journal.drop(entry)
        except OSError as refusal:
            raise StoreError(
                f"{change.path} could not be written: {cause}; and the disk refused to have that "
                f"undone: {refusal}. The next save, prediction or sync finishes the work",
                path=change.path,
            ) from cause

    def _bring_back(self, path: Path, kept: Path) -> None:
        with suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(path), os.lstat(kept)):
                return  # the step that failed did not get here
        temporary = temporary_for(path, self.work_dir)
        link_or_copy(kept, temporary, self.work_dir)
        put(temporary, path, self.work_dir)
