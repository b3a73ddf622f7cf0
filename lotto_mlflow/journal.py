"""The durable queue of what MLflow has still to get, and has got: records on disk, in order.

A record is one JSON file whose name is ``<id>~<state>~<name>.json``, so that order, state and name
are known from a listing, and a change of state is one rename:

``outbox/`` pending → committed → begun → ``sent/``

*pending* is written before the model is put in place, *committed* after; *begun* says that
something of it may already be in MLflow. ``aside/`` holds records that can never be pushed. The
caller's extra artifacts lie in a folder ``<id>`` beside the record until it is pushed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lotto_mlflow import records, regular
from lotto_mlflow.errors import LaterFormatError, StoreError
from lotto_mlflow.files import remove_tree, replace_content, sync_dir
from lotto_mlflow.layout import is_plain
from lotto_mlflow.metadata import MAX_BYTES
from lotto_mlflow.records import Record

State = Literal["pending", "committed", "begun", "sent", "aside"]
_LATER: tuple[State, ...] = ("committed", "begun", "sent", "aside")
_FILE_NAME = re.compile(
    r"(?P<id>\d{19}-[0-9a-f]{8})~(?P<state>pending|committed|begun|sent|aside)~(?P<name>.+)\.json",
    re.DOTALL,
)
COARSEST_NS = 2 * 10**9
"""No file system in use keeps the times of a folder more coarsely than to two seconds."""
MAX_RECORD_BYTES = 4 * MAX_BYTES
"""Metadata are in it as given and as MLflow gets them, and of a restore a third longer."""


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
        """Return whether the record is of this time in nanoseconds since 1970: its id says."""
        return self.id.startswith(f"{time_ns:019d}-")

    def read(self) -> Record[Any]:
        """Return the record in the file.

        Raises
        ------
        LaterFormatError
            If a later release wrote it.
        ValueError
            If the file is damaged, or is of another record than its name says.
        OSError
            If it cannot be read, or is no file or too large a one; FileNotFoundError where another
            process has moved it on.
        """
        record = records.parse(regular.content_of(self.path, MAX_RECORD_BYTES))
        backup = record.payload.backup
        if (record.id, record.name) != (self.id, self.name) or not (
            backup is None or is_plain(backup)
        ):
            raise ValueError(f"{self.path} holds another record than its name says")
        return record


class _Listing:
    """The records in one folder at one moment.

    Parameters
    ----------
    folder : pathlib.Path
        The folder.
    changed_ns : int
        Its modification time, asked before it was listed.
    """

    def __init__(self, folder: Path, changed_ns: int) -> None:
        self.changed_ns = changed_ns
        self.is_final = time.time_ns() - changed_ns > COARSEST_NS
        self._folder = folder
        try:
            self._file_names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            self._file_names = []

    def entries(self, name: str | None = None) -> list[Entry]:
        """Return the records, or those of one model name, in no order."""
        if name is None:
            found = self._file_names
        elif self.is_final:  # this listing serves later calls, too
            found = self._by_name.get(name, [])
        else:
            found = [file_name for file_name in self._file_names if f"~{name}.json" in file_name]
        entries = (_entry_of_file(self._folder / file_name) for file_name in found)
        return [entry for entry in entries if entry is not None and name in (None, entry.name)]

    def with_id(self, id: str) -> Entry | None:  # noqa: A002 - the field's name
        """Return the record of this id."""
        found = (_entry_of_file(self._folder / n) for n in self._file_names if n.startswith(id))
        return next((entry for entry in found if entry is not None and entry.id == id), None)

    def newest_first(self, beginning: str) -> Iterator[Entry]:
        """Yield the records of model names with this beginning, newest first."""
        for file_name in sorted(
            (n for n in self._file_names if f"~{beginning}" in n), reverse=True
        ):
            entry = _entry_of_file(self._folder / file_name)
            if entry is not None and entry.name.startswith(beginning):
                yield entry

    def names(self, beginning: str) -> set[str]:
        """Return the model names with this beginning."""
        found = (n for n in self._file_names if f"~{beginning}" in n)
        names = set(map(_name_in, found))
        return {name for name in names if name.startswith(beginning)}

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for file_name in self._file_names:
            found.setdefault(_name_in(file_name), []).append(file_name)
        return found


def _name_in(file_name: str) -> str:
    """Return the model name in a file name; nothing is checked, since thousands are looked at."""
    return file_name.removesuffix(".json").split("~", 2)[-1]


_LISTINGS: dict[Path, _Listing] = {}
"""The last listing of each folder in this process."""


def _listing_of(folder: Path) -> _Listing:
    """Return a listing of a folder, the last one where the folder has not changed since.

    Notes
    -----
    A folder that changed less than two seconds before it was listed may change again within one
    tick of its file system's clock, and is listed again.

    Raises
    ------
    StoreError
        If it is a link to a folder: what lies elsewhere is not believed, nor moved.
    """
    changed_ns = 0
    if os.path.islink(folder):  # noqa: PTH114 - a name in a file is no error here
        regular.check_folder(folder)
    with suppress(OSError):
        changed_ns = os.lstat(folder).st_mtime_ns
    last = _LISTINGS.get(folder)
    if last is not None and last.is_final and last.changed_ns == changed_ns:
        return last
    found = _LISTINGS[folder] = _Listing(folder, changed_ns)
    return found


def _entry_of_file(path: Path) -> Entry | None:
    """Return the entry of a file, ``None`` where its name is not that of a record."""
    match = _FILE_NAME.fullmatch(path.name)
    if match is None or not is_plain(match["name"]):
        return None
    return Entry(match["id"], match["state"], match["name"], path)


class Journal:
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
        self._dirs = (self._outbox_dir, self._sent_dir, self._aside_dir)

    def make_dirs(self) -> None:
        """Make the folders where they are missing.

        Raises
        ------
        StoreError
            If a link to a folder, or something else, has the name of one.
        """
        for folder in self._dirs:
            regular.check_folder(folder)
            folder.mkdir(parents=True, exist_ok=True)

    def odd_folders(self) -> list[Path]:
        """Return which of the folders are none, or links to some."""
        return [f for f in self._dirs if os.path.lexists(f) and not regular.is_folder(f)]

    def entry_of(self, record: Record[Any], state: State) -> Entry:
        """Return the entry that a record has, or would have, in a state."""
        return self._entry(record.id, state, record.name)

    def add(self, record: Record[Any], state: State, work_dir: Path) -> Entry:
        """Write a record durably, new or in place of what its file holds.

        Parameters
        ----------
        record : Record
            The record.
        state : {"pending", "committed", "begun", "sent", "aside"}
            Its state.
        work_dir : pathlib.Path
            The workspace for temporary files.
        """
        entry = self.entry_of(record, state)
        self.rewrite(entry, record, work_dir)
        return entry

    def rewrite(self, entry: Entry, record: Record[Any], work_dir: Path) -> None:
        """Give a record's file new content, durably.

        Raises
        ------
        StoreError
            If it would be too large to be read again.
        """
        regular.check_folder(entry.path.parent)
        content = records.render(record)
        if len(content) > MAX_RECORD_BYTES:
            raise StoreError(
                f"the record of {record.name} would have {len(content):,} bytes, and may have "
                f"{MAX_RECORD_BYTES:,}. Save with a shorter input_example and less metadata; what "
                "is large can be an artifact",
                path=entry.path,
            )
        replace_content(entry.path, content, work_dir)
        sync_dir(entry.path.parent)

    def mark(self, entry: Entry, state: State) -> Entry:
        """Change the state of a record, and nothing else of it.

        Notes
        -----
        *Begun* is durable before MLflow is asked anything. *Committed* and *sent* need not be: a
        record that a loss of power leaves pending is marked again by the recovery.
        """
        marked = self._entry(entry.id, state, entry.name)
        os.replace(entry.path, marked.path)
        if state == "begun":
            sync_dir(self._outbox_dir)
        return marked

    def move(
        self, entry: Entry, record: Record[Any], state: Literal["sent", "aside"], work_dir: Path
    ) -> None:
        """Move a record on to ``sent/`` or ``aside/`` with what is now known of it.

        Notes
        -----
        The caller's extra artifacts stay where they are until the record is sent.
        """
        moved = self.add(record, state, work_dir)
        if state == "sent":
            remove_tree(self.artifacts_dir(entry.id))
        if moved.path != entry.path:
            entry.path.unlink(missing_ok=True)

    def drop(self, entry: Entry) -> None:
        """Remove a record, and the artifacts beside it."""
        remove_tree(self.artifacts_dir(entry.id))
        entry.path.unlink(missing_ok=True)

    def requeue(self, entry: Entry) -> None:
        """Move a record from ``aside/`` back to the outbox, as one that may have been begun."""
        os.replace(entry.path, self._entry(entry.id, "begun", entry.name).path)
        sync_dir(self._outbox_dir)

    def quarantine(self, entry: Entry) -> None:
        """Move a record's file to ``aside/`` as it is, because it cannot be read.

        Notes
        -----
        A link is moved as a link. Where something there cannot be replaced, the file gets a name
        that no lookup reads.
        """
        path = self._entry(entry.id, "aside", entry.name).path
        regular.check_folder(path.parent)
        try:
            os.replace(entry.path, path)
        except FileNotFoundError:  # another process did so
            return
        except OSError:
            os.replace(entry.path, path.with_name(f"{entry.id}~{os.urandom(8).hex()}"))

    def artifacts_dir(self, id: str) -> Path:  # noqa: A002 - the field's name
        """Folder of the caller's extra artifacts of a save that is not yet pushed."""
        return self._outbox_dir / id

    def put_artifacts(self, record: Record[Any], folder: Path) -> None:
        """Put a folder of extra artifacts beside a record, to be pushed with it."""
        target = self.artifacts_dir(record.id)
        remove_tree(target)
        os.replace(folder, target)
        sync_dir(self._outbox_dir)

    def pending(self) -> list[Entry]:
        """Return the records of work that was not seen to end, oldest first."""
        return self._in_outbox("pending")

    def waiting(self) -> list[Entry]:
        """Return the committed records that have still to be pushed, oldest first."""
        return self._in_outbox("committed", "begun")

    def is_waiting(self, record: Record[Any]) -> bool:
        """Return whether a record is still to be pushed; nothing is listed."""
        states: tuple[State, ...] = ("committed", "begun")  # in the order in which it has them
        return any(regular.is_file(self.entry_of(record, state).path) for state in states)

    def _in_outbox(self, *states: State) -> list[Entry]:
        return sorted(e for e in _listing_of(self._outbox_dir).entries() if e.state in states)

    def names(self, beginning: str = "") -> set[str]:
        """Return every model name with this beginning that any record has."""
        return set().union(*(_listing_of(folder).names(beginning) for folder in self._dirs))

    def entries(self, name: str | None = None) -> list[Entry]:
        """Return every record, or those of one model name, newest first."""
        found = {e.id: e for folder in self._dirs for e in _listing_of(folder).entries(name)}
        return sorted(found.values(), reverse=True)

    def with_id(self, id: str) -> Entry | None:  # noqa: A002 - the field's name
        """Return the record of this id, whatever model it is of."""
        found = (_listing_of(folder).with_id(id) for folder in self._dirs)
        return next((entry for entry in found if entry is not None), None)

    def sent(self, beginning: str) -> Iterator[Entry]:
        """Yield the records of model names with this beginning that were pushed, newest first."""
        return _listing_of(self._sent_dir).newest_first(beginning)

    def current(self, entry: Entry) -> Entry | None:
        """Return where a record lies now, ``None`` where it is gone."""
        return next((found for found in self.entries(entry.name) if found.id == entry.id), None)

    def read(self, entry: Entry) -> Record[Any] | None:
        """Return the record of an entry, ``None`` where it cannot be read or is gone for good."""
        for candidate in self._where_it_may_be(entry):
            try:
                return candidate.read()
            except FileNotFoundError:
                continue
            except (ValueError, OSError):
                return None
        return None

    def is_of_later_release(self, entry: Entry) -> bool:
        """Return whether a record that cannot be read is not damaged, but of a later release."""
        try:
            entry.read()
        except LaterFormatError:
            return True
        except (ValueError, OSError):
            return False
        return False

    def _where_it_may_be(self, entry: Entry) -> Iterator[Entry]:
        yield entry
        for state in _LATER:  # another process may just have moved it on
            yield self._entry(entry.id, state, entry.name)

    def _entry(self, id: str, state: State, name: str) -> Entry:  # noqa: A002
        folder = {"sent": self._sent_dir, "aside": self._aside_dir}.get(state, self._outbox_dir)
        return Entry(id, state, name, folder / f"{id}~{state}~{name}.json")
