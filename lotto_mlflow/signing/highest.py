"""The newest signed save that this host has seen: whatever is older was rolled back.

A signature proves who saved a model, and not that it is the newest: whoever puts an earlier copy of
a whole folder in its place has every signature of it. Only the host that has seen a newer one can
tell, and keeps it where those who write to models do not write.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lotto_mlflow import advice, files, regular
from lotto_mlflow.errors import Fix, LottoMlflowError, StoreError
from lotto_mlflow.records import is_save_id
from lotto_mlflow.signing.statements import Statement

_FORMAT = 1
_MAX_BYTES = 1 << 20
_MOST_KEPT = 1_000
_LOCK_SECONDS = 10.0
_END_OF_NANOSECONDS = 2**63
_FOLDER_ID = re.compile(r"[0-9a-f]{32}")
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")


@dataclass(frozen=True, kw_only=True)
class SeenSave:
    """The newest save that was seen of one folder of models in one place.

    Attributes
    ----------
    place : str
        Where it was looked up: the path of a folder of models, or the name of a tracking store.
    folder : str
        Id of the folder that it was made in, as its statement says.
    save_id : str
        The save.
    saved_at_ns : int
        Its time in nanoseconds since 1970.
    accepted_up_to_ns : int
        Saves up to this time that were seen elsewhere do not count here any more: somebody went
        back on purpose; 0 where nobody did.
    """

    place: str
    folder: str
    save_id: str
    saved_at_ns: int
    accepted_up_to_ns: int = 0

    def __post_init__(self) -> None:
        """See that it is one.

        Raises
        ------
        ValueError
            If a value is none.
        """
        times = (self.saved_at_ns, self.accepted_up_to_ns)
        if not all(type(time) is int and 0 <= time < _END_OF_NANOSECONDS for time in times):
            raise ValueError("a time is none")
        if not isinstance(self.folder, str) or not _FOLDER_ID.fullmatch(self.folder):
            raise ValueError("the id of a folder is none")
        if not isinstance(self.place, str) or not self.place or not is_save_id(self.save_id):
            raise ValueError("a place or a save is none")


class SeenSaves:
    """What this host has seen, a file for each registered model.

    Parameters
    ----------
    state_dir : pathlib.Path
        The folder of this host's state.

    Notes
    -----
    A save counts for a lookup that was seen in the same place, or that was made in the same folder:
    a folder that was moved keeps its id, and one that was put in the place of another its path.
    What was seen is replaced in one step, under a lock between processes. Nothing is deleted, but
    that of a thousand the one that was changed first gives way to a new one.
    """

    def __init__(self, state_dir: Path) -> None:
        self._dir = state_dir / "seen"

    def highest(self, registered_model: str, place: str, folder: str) -> SeenSave | None:
        """Return the newest save that counts for a lookup, ``None`` where none was seen.

        Parameters
        ----------
        registered_model : str
            Name of the registered model.
        place : str
            Where it is looked up.
        folder : str
            Id of the folder that what was found there is of.

        Raises
        ------
        StoreError
            If what was seen cannot be read, or is damaged.
        """
        return highest_of(self.read(registered_model), place, folder)

    def read(self, registered_model: str) -> list[SeenSave]:
        """Return all that was seen of a registered model.

        Raises
        ------
        StoreError
            As `highest` does.
        """
        return self._read(registered_model)

    def note(self, statement: Statement, place: str) -> None:
        """Keep a save as seen, where no newer one of its folder was seen in that place.

        Raises
        ------
        StoreError
            If it cannot be kept, or what was seen before is damaged.
        """
        name, own = statement.registered_model, _seen(statement, place)
        before = self._read(name)
        if _with(before, own) != before:
            with self._changing():
                self._write(name, _with(self._read(name), own))

    def accept(self, statement: Statement, place: str) -> None:
        """Have a save be the newest one that was seen in a place, whatever was seen before.

        Raises
        ------
        StoreError
            If that cannot be kept.

        Notes
        -----
        What was seen in other places stays, and goes on counting there. A file that is damaged is
        written anew.
        """
        name, own = statement.registered_model, _seen(statement, place)
        with self._changing():
            before = self._read(name, is_damaged_empty=True)
            counting = [one for one in before if place == one.place or own.folder == one.folder]
            up_to_ns = max(one.saved_at_ns for one in (*counting, own))
            others = [one for one in before if one.place != place]
            self._write(name, [*others, replace(own, accepted_up_to_ns=up_to_ns)])

    def _path(self, registered_model: str) -> Path:
        digest = hashlib.sha256(registered_model.encode("utf-8", "surrogatepass")).hexdigest()
        return self._dir / f"{digest[:32]}.json"

    def _read(self, registered_model: str, *, is_damaged_empty: bool = False) -> list[SeenSave]:
        """Return all that was seen of a registered model, what was changed last at the end."""
        path = self._path(registered_model)
        regular.check_folder(self._dir)
        try:
            return _parsed(regular.content_of(path, _MAX_BYTES), registered_model)
        except FileNotFoundError:
            return []
        except LottoMlflowError:
            raise
        except OSError as cause:
            helps = advice.of_error(cause, path, reads=True)
            raise StoreError(
                f"{path}, which holds what this host has seen of {registered_model}, could not be "
                f"read: {cause}; {helps}",
                path=path,
            ) from cause
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as cause:
            if is_damaged_empty:
                return []
            raise StoreError(
                f"{path}, which holds what this host has seen of {registered_model}, is damaged: "
                f"{cause!s:.200}",
                fix=Fix(
                    "trust",
                    {"accept": registered_model},
                    before="if what is the latest now is what it should be,",
                    effect="writes it anew",
                ),
                path=path,
            ) from cause

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock under which the files are changed, and turn refusals into one error."""
        from filelock import Timeout  # imported lazily

        try:
            regular.check_folder(self._dir)
            self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            with files.locked(files.lock_at(self._dir / "seen.lock"), _LOCK_SECONDS):
                for file_name in regular.names_in(self._dir):
                    if _TEMPORARY.fullmatch(file_name):  # of a process that died
                        files.remove_file(self._dir / file_name)
                yield
        except LottoMlflowError:
            raise
        except (OSError, Timeout) as cause:
            helps = advice.of_error(cause, self._dir) if isinstance(cause, OSError) else "try again"
            raise StoreError(
                f"what this host has seen could not be kept in {self._dir}: {cause}; {helps}, or "
                "set LOTTO_STATE_DIR to a folder of this host",
                path=self._dir,
            ) from cause

    def _write(self, registered_model: str, seen: list[SeenSave]) -> None:
        """Replace what was seen of a registered model; the caller holds the lock."""
        kept = [asdict(one) for one in seen[-_MOST_KEPT:]]
        values = {"format": _FORMAT, "registered_model": registered_model, "seen": kept}
        path, temporary = self._path(registered_model), self._dir / f".{os.urandom(16).hex()}.tmp"
        regular.check_file(path)
        try:
            files.write_durably(temporary, json.dumps(values, indent=2).encode("ascii"), 0o600)
            os.replace(temporary, path)
        finally:
            files.remove_file(temporary)


def _seen(statement: Statement, place: str) -> SeenSave:
    return SeenSave(
        place=place,
        folder=statement.folder,
        save_id=statement.save_id,
        saved_at_ns=statement.saved_at_ns,
    )


def highest_of(seen: Iterable[SeenSave], place: str, folder: str) -> SeenSave | None:
    """Return the newest that counts: elsewhere, only what is newer than was accepted here."""
    seen = list(seen)
    own = [one for one in seen if one.place == place]
    up_to_ns = max((one.accepted_up_to_ns for one in own), default=0)
    others = [one for one in seen if one.folder == folder and one.saved_at_ns > up_to_ns]
    return max((*own, *others), key=lambda one: one.saved_at_ns, default=None)


def _with(seen: list[SeenSave], own: SeenSave) -> list[SeenSave]:
    """Return what is seen once a save was, too."""
    pair = (own.place, own.folder)
    before = next((one for one in seen if (one.place, one.folder) == pair), None)
    if before is None:
        return [*seen, own]
    if before.saved_at_ns >= own.saved_at_ns:
        return seen
    own = replace(own, accepted_up_to_ns=before.accepted_up_to_ns)
    return [*(one for one in seen if one is not before), own]


def _parsed(content: bytes, registered_model: str) -> list[SeenSave]:
    values = json.loads(content)
    if values["format"] != _FORMAT or values["registered_model"] != registered_model:
        raise ValueError("it is of another format, or of another registered model")
    found = [SeenSave(**one) for one in values["seen"]]
    if len({(one.place, one.folder) for one in found}) != len(found):
        raise ValueError("a place stands in it twice")
    return found
