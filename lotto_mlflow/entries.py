"""The files of records: their names, and the listings of the folders that they lie in."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lotto_mlflow import records, regular
from lotto_mlflow.layout import is_plain, registered_model_of
from lotto_mlflow.metadata import MAX_BYTES
from lotto_mlflow.records import SAVE_ID, Record, has_name_of_draws
from lotto_mlflow.text import composed

State = Literal["pending", "committed", "begun", "sent", "aside"]
_FILE_NAME = re.compile(
    rf"(?P<id>{SAVE_ID})~(?P<state>pending|committed|begun|sent|aside)~(?P<name>.+)\.json",
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
        The parts of the file's name, whose form on disk may be another.
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
        record = _named(records.parse(regular.content_of(self.path, MAX_RECORD_BYTES)))
        backup = record.payload.backup
        if (record.id, record.name) != (self.id, self.name) or not (
            backup is None or is_plain(backup)
        ):
            raise ValueError(f"{self.path} holds another record than its name says")
        return record


def _named(record: Record[Any]) -> Record[Any]:
    """Return a record with its name in the form that names have here.

    Notes
    -----
    An earlier release took names as they came, and MLflow has them so.
    """
    name = record.name
    if composed(name) == name or has_name_of_draws(name):
        return record
    mirrored = {
        target: replace(ids, registered_model=registered_model_of(ids, name))
        for target, ids in record.mirrored.items()
    }
    payload = replace(record.payload, name=composed(name))
    return replace(record, payload=payload, mirrored=mirrored)


class Listing:
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
        found = regular.names_in(folder)
        self._file_names: list[str] = []
        self._of_draws: list[str] = []
        """Predictions and results, which lookups of models pass over: there may be thousands."""
        for name in map(composed, found):
            is_of_draws = "@" in name and has_name_of_draws(_name_in(name))
            (self._of_draws if is_of_draws else self._file_names).append(name)
        self._on_disk = {composed(one): one for one in found if composed(one) != one}

    def _entry(self, file_name: str) -> Entry | None:
        on_disk = self._on_disk.get(file_name, file_name) if self._on_disk else file_name
        return _entry_of_file(file_name, self._folder / on_disk)

    def entries(self, name: str | None = None) -> list[Entry]:
        """Return the records, or those of one model name, in no order."""
        if name is None:
            found = self._file_names
        elif self.is_final:  # this listing serves later calls, too
            by_name = self._of_draws_by_name if has_name_of_draws(name) else self._by_name
            found = by_name.get(name, [])
        else:
            listed = self._of_draws if has_name_of_draws(name) else self._file_names
            found = [file_name for file_name in listed if f"~{name}.json" in file_name]
        entries = map(self._entry, found)
        return [entry for entry in entries if entry is not None and name in (None, entry.name)]

    def in_states(self, *states: State) -> list[Entry]:
        """Return the records of every kind that are in one of these states, in no order."""
        parts = tuple(f"~{state}~" for state in states)
        names = (*self._file_names, *self._of_draws)
        found = (self._entry(name) for name in names if any(part in name for part in parts))
        return [entry for entry in found if entry is not None and entry.state in states]

    def of_draws(self) -> Iterator[Entry]:
        """Yield the records of predictions and results, in no order."""
        found = map(self._entry, self._of_draws)
        return (entry for entry in found if entry is not None)

    def names_of_draws(self) -> Iterable[str]:
        """Return the names of the records of predictions and results."""
        return self._of_draws_by_name.keys()

    def with_id(self, id: str) -> Entry | None:  # noqa: A002 - the field's name
        """Return the record of a save or a restore with this id."""
        found = (self._entry(n) for n in self._file_names if n.startswith(id))
        return next((entry for entry in found if entry is not None and entry.id == id), None)

    def newest_first(self, beginning: str) -> Iterator[Entry]:
        """Yield the records of model names with this beginning, newest first."""
        for file_name in sorted(
            (n for n in self._file_names if f"~{beginning}" in n), reverse=True
        ):
            entry = self._entry(file_name)
            if entry is not None and entry.name.startswith(beginning):
                yield entry

    def names(self, beginning: str) -> set[str]:
        """Return the model names with this beginning."""
        found = (n for n in self._file_names if f"~{beginning}" in n)
        names = set(map(_name_in, found))
        return {name for name in names if name.startswith(beginning)}

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return _by_name(self._file_names)

    @cached_property
    def _of_draws_by_name(self) -> dict[str, list[str]]:
        return _by_name(self._of_draws)


def _by_name(file_names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file_name in file_names:
        found.setdefault(_name_in(file_name), []).append(file_name)
    return found


def _name_in(file_name: str) -> str:
    """Return the model name in a file name; nothing is checked, since thousands are looked at."""
    return file_name.removesuffix(".json").split("~", 2)[-1]


_LISTINGS: dict[Path, Listing] = {}
"""The last listing of each folder in this process."""


def listing_of(folder: Path) -> Listing:
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
    found = _LISTINGS[folder] = Listing(folder, changed_ns)
    return found


def _entry_of_file(file_name: str, path: Path) -> Entry | None:
    """Return the entry of a file, ``None`` where its name is not that of a record."""
    match = _FILE_NAME.fullmatch(file_name)
    if match is None or not is_plain(match["name"]):
        return None
    return Entry(match["id"], match["state"], match["name"], path)
