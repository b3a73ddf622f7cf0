"""Save records for files that no save knows: models from before this package."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotto_mlflow import layout as names
from lotto_mlflow.description import described_by_metadata
from lotto_mlflow.manager.loading import is_changed, read_metadata
from lotto_mlflow.manager.matching import name_of_backup
from lotto_mlflow.manager.parts import Parts
from lotto_mlflow.metadata import strict
from lotto_mlflow.records import BACKFILL, SaveRecord
from lotto_mlflow.store import sha256_of_file

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_END_OF_NANOSECONDS = 2262
"""The year in which nanoseconds since 1970 need more than the 63 bits that file systems have."""


@dataclass(frozen=True)
class Unknown:
    """A model file that no record tells of.

    Attributes
    ----------
    name : str
        Name of the model.
    path : pathlib.Path
        The file.
    is_changed : bool
        Whether a digest is known that the file does not have: it is damaged, or another program
        wrote over it, and a save of it would make its bytes the ones to expect.
    """

    name: str
    path: Path
    is_changed: bool


def unknown_files(parts: Parts, *, include_backups: bool) -> Iterator[Unknown]:
    """Yield the model files that no record tells of, those of ``trained/`` first.

    Parameters
    ----------
    parts : Parts
        The folder.
    include_backups : bool
        Whether ``backups/`` is looked through, too.

    Notes
    -----
    A file with the time of a record of its name is that record's; only others are hashed. One
    that was sent stays known by the name of its record, even where the record is damaged.
    """
    folders = [parts.layout.trained_dir, *([parts.layout.backup_dir] if include_backups else [])]
    for folder in folders:
        for path in sorted(folder.glob(f"*{names.SUFFIX}")) if folder.is_dir() else []:
            if not path.is_file() or path.name.startswith("."):
                continue
            is_backup = folder == parts.layout.backup_dir
            name = name_of_backup(parts, path) if is_backup else names.name_of(path)
            model_names = {name, names.name_of(path)}
            if names.is_name(name) and not _is_recorded(parts, model_names, path):
                yield Unknown(name, path, is_changed(parts, path))


def _is_recorded(parts: Parts, model_names: set[str], path: Path) -> bool:
    time_ns = path.stat().st_mtime_ns
    entries = [entry for name in model_names for entry in parts.outbox.entries(name)]
    if any(entry.state == "sent" and entry.is_of_time(time_ns) for entry in entries):
        return True
    saves = [save for entry in entries if (save := parts.outbox.readable(entry)) is not None]
    if any(save.file_time_ns == time_ns for save in saves):
        return True
    return bool(saves) and sha256_of_file(path) in {save.sha256 for save in saves}


def record_of(parts: Parts, name: str, path: Path, target: str, timezone: ZoneInfo) -> SaveRecord:
    """Return a save record made from a file and its metadata; nothing is unpickled.

    Notes
    -----
    The time is the metadata's ``saved_at``, in the time zone given where it tells no offset, else
    the file's. The id is derived from time, name
    and digest, so that a folder that was brought in twice gives one version of each.
    """
    import hashlib  # here, because importing this package is to cost little
    import socket

    status, sha256 = path.stat(), sha256_of_file(path)
    is_backup = path.parent == parts.layout.backup_dir
    stem = names.name_of(path)
    metadata_path = (
        parts.layout.backup_metadata_path(stem) if is_backup else parts.layout.metadata_path(stem)
    )
    metadata = read_metadata(metadata_path)
    moment = _moment_of(metadata or {}, timezone)
    saved_at_ns = status.st_mtime_ns if moment is None else _nanoseconds(moment)
    if moment is None:
        moment = datetime.fromtimestamp(status.st_mtime, timezone)
    digest = hashlib.sha256(f"{name}\n{sha256}".encode()).hexdigest()
    return SaveRecord(
        id=f"{max(saved_at_ns, 0):019d}-{digest[:8]}",
        kind=BACKFILL,
        name=name,
        sha256=sha256,
        size=status.st_size,
        saved_at=moment.isoformat(),
        saved_at_ns=max(saved_at_ns, 0),
        mtime_ns=status.st_mtime_ns,
        host=socket.gethostname(),
        target=target,
        description=described_by_metadata(metadata or {}),
        metadata=None if metadata is None else strict(metadata),
    )


def _moment_of(metadata: dict[str, Any], timezone: ZoneInfo) -> datetime | None:
    """Return the ``saved_at`` of metadata as a moment that a file's time can have."""
    try:
        moment = datetime.fromisoformat(str(metadata["saved_at"]).replace("Z", "+00:00"))
    except (KeyError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone)
    return moment if 1970 < moment.year < _END_OF_NANOSECONDS else None


def _nanoseconds(moment: datetime) -> int:
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * 10**9 + moment.microsecond * 1000
