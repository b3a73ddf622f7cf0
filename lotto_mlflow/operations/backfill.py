"""Backfill: the record of a file from before this package."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from lotto_mlflow.description import describe_by_metadata
from lotto_mlflow.metadata import moment_of, strict
from lotto_mlflow.model_file import ModelFile
from lotto_mlflow.records import BACKFILL, Record, SavePayload, SaveRecord
from lotto_mlflow.run_times import training_started_ns
from lotto_mlflow.settings import Target

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_END_OF_NANOSECONDS = 2262
"""The year in which nanoseconds since 1970 need more than the 63 bits that file systems have."""


def backfill_record(
    name: str,
    file: ModelFile,
    target: Target,
    timezone: ZoneInfo,
    earlier_sha256: list[str] | None,
) -> SaveRecord:
    """Return a record made from a file and its metadata; nothing is unpickled.

    Notes
    -----
    The time is the metadata's ``saved_at``, in the time zone given where it has no offset, else
    the file's. The id is derived from time, name and digest, so that a folder that was brought in
    twice gives one version of each.
    """
    import socket  # imported lazily

    metadata = file.metadata or {}
    moment = _moment_of(metadata, timezone)
    saved_at_ns = file.time_ns if moment is None else nanoseconds(moment)
    if moment is None:
        moment = datetime.fromtimestamp(file.status.st_mtime, timezone)
    payload = SavePayload(
        name=name,
        sha256=file.sha256,
        size=file.status.st_size,
        saved_at=moment.isoformat(),
        saved_at_ns=max(saved_at_ns, 0),
        mtime_ns=file.time_ns,
        description=describe_by_metadata(metadata),
        metadata=None if file.metadata is None else strict(metadata),
        earlier_sha256=earlier_sha256,
        started_at_ns=training_started_ns(metadata, max(saved_at_ns, 0), timezone),
    )
    return Record(
        id=id_of_backfill(name, file.sha256, payload.saved_at_ns),
        kind=BACKFILL,
        host=socket.gethostname(),
        target=target.name,
        payload=payload,
    )


def id_of_backfill(name: str, sha256: str, saved_at_ns: int) -> str:
    """Return the id that the record of a file gets, in whatever folder it is found."""
    import hashlib  # imported lazily

    digest = hashlib.sha256(f"{name}\n{sha256}".encode()).hexdigest()
    return f"{saved_at_ns:019d}-{digest[:8]}"


def _moment_of(metadata: dict[str, Any], timezone: ZoneInfo) -> datetime | None:
    """Return the ``saved_at`` of metadata as a moment that a file's time can have."""
    moment = moment_of(metadata.get("saved_at"))
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone)
    return moment if 1970 < moment.year < _END_OF_NANOSECONDS else None


def nanoseconds(moment: datetime) -> int:
    """Return a moment in nanoseconds since 1970."""
    return int(moment.replace(microsecond=0).timestamp()) * 10**9 + moment.microsecond * 1000
