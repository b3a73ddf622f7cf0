"""What MLflow has still to be told, and has been told: save records on disk, in order.

A record is one JSON file whose name is ``<id>~<state>~<name>.json``, so that order, state and name
are known from a listing, and a change of state is one rename:

``outbox/`` pending → committed → begun → ``sent/``

*pending* is written before the model is put in place, *committed* after; *begun* says that
something of it may already be in MLflow. ``aside/`` holds records that can never be sent. The
caller's extra artifacts lie in a folder ``<id>`` beside the record until it is sent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lotto_mlflow import records
from lotto_mlflow.files import remove_tree, replace_content, sync_dir
from lotto_mlflow.records import SaveRecord

State = Literal["pending", "committed", "begun", "sent", "aside"]


@dataclass(frozen=True, order=True)
class Entry:
    """A record's file, as a listing shows it.

    Attributes
    ----------
    id, state, name : str
        The parts of the file's name.
    path : pathlib.Path
        The file.
    """

    id: str
    state: str
    name: str
    path: Path

    def is_of_time(self, time_ns: int) -> bool:
        """Tell whether the save was at this time, in nanoseconds since 1970; its id begins so."""
        return self.id.startswith(f"{time_ns:019d}-")

    def read(self) -> SaveRecord:
        """Return the record in the file.

        Raises
        ------
        ValueError
            If the file is damaged.
        OSError
            If it cannot be read; FileNotFoundError where another process has moved it on.
        """
        return records.parse(self.path.read_bytes())


class Outbox:
    """The folders ``outbox/``, ``sent/`` and ``aside/``.

    Parameters
    ----------
    mlflow_dir : pathlib.Path
        The adapter's own folder.
    """

    def __init__(self, mlflow_dir: Path) -> None:
        self._outbox_dir = mlflow_dir / "outbox"
        self._sent_dir = mlflow_dir / "sent"
        self._aside_dir = mlflow_dir / "aside"

    def make_dirs(self) -> None:
        """Make the folders where they are missing."""
        for folder in (self._outbox_dir, self._sent_dir, self._aside_dir):
            folder.mkdir(parents=True, exist_ok=True)

    def add_pending(self, record: SaveRecord, artifacts_dir: Path | None, work_dir: Path) -> None:
        """Write a record of a save that is about to happen, durably.

        Parameters
        ----------
        record : SaveRecord
            The save.
        artifacts_dir : pathlib.Path or None
            Folder of the caller's extra artifacts; it is moved beside the record.
        work_dir : pathlib.Path
            The workspace for temporary files.
        """
        replace_content(self.entry_of(record).path, records.render(record), work_dir)
        if artifacts_dir is not None:
            os.replace(artifacts_dir, self.artifacts_dir(record.id))
        sync_dir(self._outbox_dir)

    def entry_of(self, record: SaveRecord) -> Entry:
        """Return the entry that a record has, or would have, as pending."""
        return self._entry(record.id, "pending", record.name)

    def mark(self, entry: Entry, state: Literal["committed", "begun"]) -> Entry:
        """Change the state of a record.

        Notes
        -----
        *Begun* is durable before MLflow is told anything. *Committed* need not be: a record that
        a loss of power leaves pending is marked again by whoever finds its file in place.
        """
        marked = self._entry(entry.id, state, entry.name)
        os.replace(entry.path, marked.path)
        if state == "begun":
            sync_dir(self._outbox_dir)
        return marked

    def drop(self, entry: Entry) -> None:
        """Remove a record, and the artifacts beside it."""
        remove_tree(self.artifacts_dir(entry.id))
        entry.path.unlink(missing_ok=True)

    def move(
        self, entry: Entry, record: SaveRecord, state: Literal["sent", "aside"], work_dir: Path
    ) -> None:
        """Move a record on to ``sent/`` or ``aside/`` with what is now known of it.

        Notes
        -----
        The caller's extra artifacts stay where they are until the record is sent.
        """
        moved = self._entry(entry.id, state, entry.name)
        self.rewrite(moved, record, work_dir)
        if state == "sent":
            remove_tree(self.artifacts_dir(entry.id))
        if moved.path != entry.path:
            entry.path.unlink(missing_ok=True)

    def rewrite(self, entry: Entry, record: SaveRecord, work_dir: Path) -> None:
        """Give a record's file new content, durably."""
        replace_content(entry.path, records.render(record), work_dir)
        sync_dir(entry.path.parent)

    def take_back(self, entry: Entry) -> None:
        """Move a record from ``aside/`` back to the outbox, as one that may have been begun."""
        os.replace(entry.path, self._entry(entry.id, "begun", entry.name).path)
        sync_dir(self._outbox_dir)

    def add_committed(self, record: SaveRecord, work_dir: Path, *, begun: bool) -> Entry:
        """Write a record of a save whose file is in place already.

        Parameters
        ----------
        record : SaveRecord
            The save.
        work_dir : pathlib.Path
            The workspace for temporary files.
        begun : bool
            Whether something of it may already be in MLflow.
        """
        entry = self._entry(record.id, "begun" if begun else "committed", record.name)
        self.rewrite(entry, record, work_dir)
        return entry

    def current(self, entry: Entry) -> Entry | None:
        """Return where a record lies now, ``None`` where it is gone."""
        return next((found for found in self.entries(entry.name) if found.id == entry.id), None)

    def put_away(self, entry: Entry) -> None:
        """Move a record's file to ``aside/`` as it is, because it cannot be read."""
        os.replace(entry.path, self._entry(entry.id, "aside", entry.name).path)

    def artifacts_dir(self, id: str) -> Path:  # noqa: A002 - the field's name
        """Folder of the caller's extra artifacts of a save that is not yet sent."""
        return self._outbox_dir / id

    def put_artifacts(self, record: SaveRecord, folder: Path) -> None:
        """Put a folder of extra artifacts beside a record, to be sent with it again."""
        target = self.artifacts_dir(record.id)
        remove_tree(target)
        os.replace(folder, target)

    def pending(self) -> list[Entry]:
        """Return the records whose save was not seen to end, oldest first."""
        return [entry for entry in self._list(self._outbox_dir) if entry.state == "pending"]

    def waiting(self) -> list[Entry]:
        """Return the records of committed saves that MLflow has yet to be told, oldest first."""
        return [e for e in self._list(self._outbox_dir) if e.state in ("committed", "begun")]

    def is_waiting(self, id: str) -> bool:  # noqa: A002 - the field's name
        """Tell whether the record of a save is still to be sent."""
        return any(entry.id == id for entry in self._list(self._outbox_dir))

    def names(self, beginning: str) -> set[str]:
        """Return every model name with this beginning that any record has."""
        folders = (self._outbox_dir, self._sent_dir, self._aside_dir)
        found = {e.name for folder in folders for e in self._list(folder, f"~{beginning}")}
        return {name for name in found if name.startswith(beginning)}

    def entries(self, name: str | None = None) -> list[Entry]:
        """Return every record, or those of one model name, newest first."""
        folders = (self._outbox_dir, self._sent_dir, self._aside_dir)
        part = "" if name is None else f"~{name}.json"
        found = {e.id: e for folder in folders for e in self._list(folder, part)}
        return sorted((e for e in found.values() if name in (None, e.name)), reverse=True)

    def of_name(self, name: str) -> Iterator[SaveRecord]:
        """Yield the readable records of one model name, newest first."""
        for entry in self.entries(name):
            record = self.readable(entry)
            if record is not None:
                yield record

    def readable(self, entry: Entry) -> SaveRecord | None:
        """Return the record of an entry, ``None`` where it is damaged or gone for good."""
        later: tuple[State, ...] = ("committed", "begun", "sent", "aside")
        candidates = (entry, *(self._entry(entry.id, state, entry.name) for state in later))
        for candidate in candidates:  # another process may just have moved it on
            try:
                return candidate.read()
            except FileNotFoundError:
                continue
            except (ValueError, TypeError, KeyError, OSError):
                return None
        return None

    def _entry(self, id: str, state: State, name: str) -> Entry:  # noqa: A002
        folder = {"sent": self._sent_dir, "aside": self._aside_dir}.get(state, self._outbox_dir)
        return Entry(id, state, name, folder / f"{id}~{state}~{name}.json")

    def _list(self, folder: Path, part: str = "") -> list[Entry]:
        """Return the records in a folder, or only those with a part in their file's name.

        Notes
        -----
        ``sent/`` may hold tens of thousands: nothing is made of those that are not asked for.
        """
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        entries = []
        for file_name in names:
            if part not in file_name:
                continue
            parts = file_name.removesuffix(".json").split("~", 2)
            if file_name.endswith(".json") and len(parts) == 3:
                id_, state, name = parts
                entries.append(Entry(id_, state, name, folder / file_name))
        return sorted(entries)
