"""Save records for files that no save knows: models from before this package."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lotto_mlflow import layout as names
from lotto_mlflow.description import described_by_metadata
from lotto_mlflow.manager.loading import read_metadata
from lotto_mlflow.manager.parts import Parts
from lotto_mlflow.records import BACKFILL, SaveRecord
from lotto_mlflow.store import sha256_of_file


def unknown_files(parts: Parts, *, include_backups: bool) -> Iterator[tuple[str, Path]]:
    """Yield name and path of the model files that no record tells of, by their times.

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
    found = [
        (path.stat().st_mtime_ns, path.name, path)
        for folder in folders
        if folder.is_dir()
        for path in folder.glob(f"*{names.SUFFIX}")
        if path.is_file() and not path.name.startswith(".")
    ]
    for time_ns, _, path in sorted(found):
        is_backup = path.parent == parts.layout.backup_dir
        name = names.name_of_backup(path) if is_backup else names.name_of(path)
        if names.is_name(name) and not _is_recorded(
            parts, {name, names.name_of(path)}, path, time_ns
        ):
            yield name, path


def _is_recorded(parts: Parts, model_names: set[str], path: Path, time_ns: int) -> bool:
    entries = [entry for name in model_names for entry in parts.outbox.entries(name)]
    if any(entry.state == "sent" and entry.is_of_time(time_ns) for entry in entries):
        return True
    saves = [save for entry in entries if (save := parts.outbox.readable(entry)) is not None]
    if any(save.file_time_ns == time_ns for save in saves):
        return True
    return bool(saves) and sha256_of_file(path) in {save.sha256 for save in saves}


def record_of(parts: Parts, name: str, path: Path, target: str) -> SaveRecord:
    """Return a save record made from a file and its metadata; nothing is unpickled.

    Notes
    -----
    The time is the metadata's ``saved_at``, else the file's. The id is derived from time, name
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
    moment = _moment_of(metadata or {})
    saved_at_ns = status.st_mtime_ns if moment is None else _nanoseconds(moment)
    if moment is None:
        moment = datetime.fromtimestamp(status.st_mtime, timezone.utc)
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
        metadata=metadata,
    )


def _moment_of(metadata: dict[str, Any]) -> datetime | None:
    """Return the ``saved_at`` of metadata as a moment, if it tells one with its offset."""
    try:
        text = str(metadata["saved_at"]).replace("Z", "+00:00")
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo is not None and moment.year > 1970 else None
    except (KeyError, ValueError):
        return None


def _nanoseconds(moment: datetime) -> int:
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * 10**9 + moment.microsecond * 1000
