"""Restored: which save of another host a file from the registry is of."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lotto_mlflow.errors import LottoMlflowError, SignatureError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.journal import Entry
from lotto_mlflow.layout import registered_model_of
from lotto_mlflow.model_file import ModelFile
from lotto_mlflow.operations.backfill import id_of_backfill
from lotto_mlflow.records import (
    BACKFILL,
    RESTORE,
    ModelRecord,
    PruneRecord,
    RestoreRecord,
    SaveRecord,
    is_save_id,
)
from lotto_mlflow.references import VersionReference
from lotto_mlflow.signing import Pair, parse_statement

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

_logger = logging.getLogger("lotto_mlflow")
_END_OF_NANOSECONDS = 2**63


@dataclass(frozen=True)
class Restored:
    """A restore that left a file, and the save that the file is of.

    Attributes
    ----------
    entry : Entry
        Where the record of the restore lies.
    record : RestoreRecord
        The restore.
    save_id : str or None
        The save; ``None`` where nobody can be asked for it.
    """

    entry: Entry
    record: RestoreRecord
    save_id: str | None

    def as_save(self, backfilled: SaveRecord) -> SaveRecord | None:
        """Return the record of a file as that of its save; ``None`` where no save is known.

        Parameters
        ----------
        backfilled : SaveRecord
            The record that the file would get otherwise.
        """
        if self.save_id is None:
            return None
        payload = replace(backfilled.payload, saved_at_ns=_time_of(self.save_id))
        mirrored = dict(self.record.mirrored)
        return replace(backfilled, id=self.save_id, payload=payload, mirrored=mirrored)


def find(folder: ModelFolder, history: History, file: ModelFile, *, asks: bool) -> Restored | None:
    """Return the restore from a registry that left the very bytes of a file, if one did.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    history : History
        Its records.
    file : ModelFile
        The file.
    asks : bool
        Whether MLflow may be asked for the save.

    Notes
    -----
    The time of the file chooses among several, and then the newest. The record of an earlier
    release does not hold the save of another host; the version that it names does, where its
    store can be asked.
    """
    candidates = list(_restores(history, file))
    of_time = [one for one in candidates if one[1].payload.file_time_ns == file.time_ns]
    for entry, record in (*of_time, *candidates):
        if record.payload.sha256 == file.sha256:
            return Restored(entry, record, _save_id(folder, record, asks=asks))
    return None


def _restores(history: History, file: ModelFile) -> Iterator[tuple[Entry, RestoreRecord]]:
    """Yield the restores of the name of a file of what a registry had, newest first."""
    for entry in history.entries_of(history.name_of(file)):
        record = history.read(entry)
        if record is not None and record.kind == RESTORE and record.mirrored:
            yield entry, record


def _save_id(folder: ModelFolder, record: RestoreRecord, *, asks: bool) -> str | None:
    save_id = record.payload.save_id
    if save_id is None and asks:
        save_id = _asked_for(folder, record)
    is_usable = is_save_id(save_id) and _time_of(str(save_id)) < _END_OF_NANOSECONDS
    return save_id if is_usable else None


def _asked_for(folder: ModelFolder, record: RestoreRecord) -> str | None:
    """Return the save of the version that was restored, as its store says.

    Notes
    -----
    Only the current store and the embedded one have a known address.
    """
    known = folder.known_targets()
    for name, ids in record.mirrored.items():
        if name not in known:
            continue
        place = VersionReference(registered_model_of(ids, record.name), version=ids.version)
        try:
            version = folder.mirror(known[name]).find(place)
        except LottoMlflowError:  # it cannot be asked, or has another version there
            continue
        wanted = (record.name, record.payload.sha256, ids.run_id)
        if version is not None and (version.name, version.sha256, version.run_id) == wanted:
            return version.save_id
    return None


def pair_of(mirror: Mirror, version: ModelRecord, work_dir: Path) -> Pair | None:
    """Return what a store has as signed of the save of another host, and as its signature.

    Returns
    -------
    tuple of bytes or None
        ``None`` where it is not signed, or where what is signed is not of that save. Nothing is
        verified: that is for whoever loads the file.

    Raises
    ------
    MirrorUnavailableError
        If the store cannot be asked.
    """
    try:
        pair = mirror.signed.of_version(version, work_dir)
        statement = None if pair is None else parse_statement(pair[0])
    except SignatureError as cause:
        _logger.warning("%s is restored without its signature: %s", version.name, cause)
        return None
    own = (version.save_id, version.name, version.sha256)
    if statement is None or (statement.save_id, statement.name, statement.sha256) == own:
        return pair
    _logger.warning(
        "%s is restored without its signature: what MLflow has beside version %s of %s is signed "
        "of another save",
        version.name,
        version.version,
        version.registered_model,
    )
    return None


def _time_of(save_id: str) -> int:
    return int(save_id.partition("-")[0])


def is_of_another_host(history: History, save: SaveRecord | PruneRecord) -> bool:
    """Return whether a save was made by another host, and this folder only restored its file.

    Notes
    -----
    Such a record is written where this folder brings the file to a store before that host does.
    """
    payload = save.payload
    if save.kind != BACKFILL or save.id == id_of_backfill(
        save.name, payload.sha256, payload.saved_at_ns
    ):
        return False
    restores = (r for r in history.records_of(save.name) if r.kind == RESTORE)
    return any(r.mirrored and r.payload.sha256 == payload.sha256 for r in restores)
