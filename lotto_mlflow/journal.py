"""The durable queue of what MLflow has still to get, and has got: records on disk, in order.

A record is one JSON file whose name is ``<id>~<state>~<name>.json``, so that order, state and name
are known from a listing, and a change of state is one rename:

``outbox/`` pending → committed → begun → ``sent/``

*pending* is written before the model is put in place, *committed* after; *begun* says that
something of it may already be in MLflow. ``aside/`` holds records that can never be pushed. The
caller's extra artifacts lie in a folder ``<id>`` beside the record until it is pushed.
"""

from __future__ import annotations

import errno
import heapq
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from lotto_mlflow import advice, records, regular
from lotto_mlflow.entries import MAX_RECORD_BYTES, Entry, State, listing_of
from lotto_mlflow.errors import LaterFormatError, StoreError
from lotto_mlflow.files import remove_tree, replace_content, sync_dir
from lotto_mlflow.records import Record
from lotto_mlflow.text import composed

__all__ = ["MAX_RECORD_BYTES", "Entry", "Journal", "State"]

_LATER: tuple[State, ...] = ("committed", "begun", "sent", "aside")


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
        try:
            entry.path.unlink(missing_ok=True)
        except OSError as cause:
            if cause.errno != errno.ENAMETOOLONG:  # then there is none of this name
                raise

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

    def drop_left_artifacts(self) -> None:
        """Remove artifacts that a process fetched for a record that is sent, and that died then.

        Notes
        -----
        The caller sees to it that nobody pushes meanwhile.
        """
        for folder in self._outbox_dir.iterdir():
            if regular.is_folder(folder):
                entry = self.with_id(folder.name)
                if entry is not None and entry.state == "sent":
                    remove_tree(folder)

    def pending(self) -> list[Entry]:
        """Return the records of work that was not seen to end, oldest first."""
        return self._in_outbox("pending")

    def waiting(self) -> list[Entry]:
        """Return the committed records that have still to be pushed, oldest first."""
        return self._in_outbox("committed", "begun")

    def aside(self) -> list[Entry]:
        """Return the records that were put aside, oldest first."""
        return sorted(listing_of(self._aside_dir).in_states("aside"))

    def is_waiting(self, record: Record[Any]) -> bool:
        """Return whether a record is still to be pushed; nothing is listed."""
        states: tuple[State, ...] = ("committed", "begun")  # in the order in which it has them
        return any(regular.is_file(self.entry_of(record, state).path) for state in states)

    def _in_outbox(self, *states: State) -> list[Entry]:
        return sorted(listing_of(self._outbox_dir).in_states(*states))

    def names(self, beginning: str = "") -> set[str]:
        """Return every model name with this beginning that any record has."""
        return set().union(*(listing_of(folder).names(beginning) for folder in self._dirs))

    def entries(self, name: str | None = None) -> list[Entry]:
        """Return every save and restore, or the records of one name, newest first."""
        name = None if name is None else composed(name)
        found = {e.id: e for folder in self._dirs for e in listing_of(folder).entries(name)}
        return sorted(found.values(), reverse=True)

    def of_draws(self) -> list[Entry]:
        """Return the records of predictions and results, newest first."""
        found = {e.id: e for folder in self._dirs for e in listing_of(folder).of_draws()}
        return sorted(found.values(), reverse=True)

    def names_of_draws(self) -> set[str]:
        """Return the names of the records of predictions and results."""
        return set().union(*(listing_of(folder).names_of_draws() for folder in self._dirs))

    def with_id(self, id: str) -> Entry | None:  # noqa: A002 - the field's name
        """Return the record of this id, whatever model it is of."""
        found = (listing_of(folder).with_id(id) for folder in self._dirs)
        return next((entry for entry in found if entry is not None), None)

    def sent(self, beginning: str) -> Iterator[Entry]:
        """Yield the records of model names with this beginning that were pushed, newest first."""
        return listing_of(self._sent_dir).newest_first(beginning)

    def newest_first(self, beginning: str) -> Iterator[Entry]:
        """Yield the records of model names with this beginning, in any state, newest first."""
        found = (listing_of(folder).newest_first(beginning) for folder in self._dirs)
        return heapq.merge(*found, reverse=True)

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

    def refusal(self, entry: Entry) -> StoreError | None:
        """Return the error of a record that the system does not let be read, if it does not.

        Notes
        -----
        Nothing is known of such a record: it may be as it should be, so it is not moved, and what
        it is of is not taken for unrecorded.
        """
        for candidate in self._where_it_may_be(entry):
            try:
                regular.content_of(candidate.path, MAX_RECORD_BYTES)
            except (FileNotFoundError, StoreError):
                continue
            except OSError as cause:
                helps = advice.of_error(cause, candidate.path, reads=True)
                return StoreError(
                    f"the record {candidate.path} could not be read: {cause}; {helps}",
                    path=candidate.path,
                )
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
