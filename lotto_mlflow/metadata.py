"""The caller's metadata as plain values, and as the strict JSON that lies on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from lotto_mlflow import regular
from lotto_mlflow.errors import InvalidMetadataError
from lotto_mlflow.plain_values import MAX_DEPTH, plain_value, refused
from lotto_mlflow.records import is_nested_deeper
from lotto_mlflow.settings import CLOCK_TOLERANCE_SECONDS

MAX_BYTES = 64 << 20
"""More than any metadata that people write; a list of a million numbers has a third of it."""
_COMPLETION_BYTES = 1 << 14
_MAX_DEPTH_ON_DISK = 2 * MAX_DEPTH
"""What other programs wrote may be nested more deeply; Python's JSON ends at about a thousand."""


def plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata made of dicts, lists, strings, numbers, booleans and ``None`` only.

    Parameters
    ----------
    metadata : mapping of object to object
        What has an obvious JSON form is converted, as `lotto_mlflow.plain_values` says; NaN and
        infinities stay, for `to_json` to write as null.

    Raises
    ------
    InvalidMetadataError
        If a value has no JSON form. The message names the place.
    """
    if not isinstance(metadata, Mapping):
        raise InvalidMetadataError(
            f"metadata is {type(metadata).__name__}, not a dict; nothing was saved",
            place="metadata",
        )
    result: dict[str, Any] = plain_value(metadata, "metadata")
    return result


def writable(text: str) -> str:
    """Return a text that UTF-8 can write; half characters are shown by their number."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def strict(value: Any) -> Any:
    """Return plain values with NaN and infinities replaced by ``None``."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [strict(item) for item in value]
    return value


def to_json(metadata: Mapping[str, Any]) -> bytes:
    """Return the JSON of strict metadata: UTF-8, indented by 2, Korean as it is.

    Raises
    ------
    InvalidMetadataError
        If a number is too long for Python to write.
    """
    try:
        text = json.dumps(metadata, ensure_ascii=False, indent=2, allow_nan=False)
    except ValueError as cause:
        raise refused("metadata", f"cannot be written as JSON ({cause})") from cause
    return text.encode("utf-8")


def json_of(metadata: Mapping[str, Any] | None) -> bytes | None:
    """Return the JSON of strict metadata, ``None`` where there are none."""
    return None if metadata is None else to_json(metadata)


def check_size(metadata: Mapping[str, Any]) -> None:
    """See that metadata can be written, and read again once a save has completed them.

    Raises
    ------
    InvalidMetadataError
        If they cannot be written, or are larger than `MAX_BYTES`.
    """
    size = len(to_json(metadata)) + _COMPLETION_BYTES
    if size > MAX_BYTES:
        problem = f"is {size:,} bytes as JSON, and may have {MAX_BYTES:,}"
        raise refused("metadata", f"{problem}; large values can be given as artifacts")


def from_json(content: bytes) -> dict[str, Any] | None:
    """Return the metadata in a file's content, ``None`` where it is damaged.

    Notes
    -----
    JSON of other programs may escape half characters, which no file and no database accepts; they
    become question marks. NaN and infinities stay, for `strict` to replace.
    """
    try:
        value = json.loads(content.decode("utf-8-sig"))
        if b"\\u" in content:
            whole = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
            value = json.loads(whole)
    except (ValueError, RecursionError):
        return None
    is_usable = isinstance(value, dict) and not is_nested_deeper(value, _MAX_DEPTH_ON_DISK)
    return value if is_usable else None


def is_of(content: bytes, sha256: str, now_ns: int) -> bool:
    """Return whether a metadata JSON that others kept is strict, of these bytes, and not of later.

    Parameters
    ----------
    content : bytes
        The JSON.
    sha256 : str
        Digest of the model. JSON of another program may declare none, and no other.
    now_ns : int
        The present, in nanoseconds since 1970; ``saved_at`` must not lie after it.
    """
    if len(content) > MAX_BYTES:
        return False
    try:
        values = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    if not isinstance(values, dict) or is_nested_deeper(values, _MAX_DEPTH_ON_DISK):
        return False
    if values.get("sha256", sha256) != sha256:
        return False
    return not _is_future(values.get("saved_at"), now_ns)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def moment_of(saved_at: object) -> datetime | None:
    """Return the moment that ISO 8601 names, ``None`` for the caller's own words."""
    try:
        return datetime.fromisoformat(str(saved_at).replace("Z", "+00:00"))
    except ValueError:
        return None


def _is_future(saved_at: object, now_ns: int) -> bool:
    moment = moment_of(saved_at)
    if moment is None:
        return False
    if moment.tzinfo is None:  # of any zone: the one that is ahead of all others decides
        moment = moment.replace(tzinfo=timezone(timedelta(hours=14)))
    present = datetime.fromtimestamp(now_ns / 1e9, timezone.utc)
    return moment > present + timedelta(seconds=CLOCK_TOLERANCE_SECONDS)


def completed(
    metadata: Mapping[str, Any],
    *,
    name: str,
    model_type: str,
    saved_at: str,
    sha256: str,
    size: int,
) -> dict[str, Any]:
    """Return metadata as it goes to disk: the caller's, and what the save adds to it."""
    defaults = {"saved_at": saved_at, "model_type": model_type}
    last = {"model_version": name}
    given = {key: value for key, value in metadata.items() if key not in ("sha256", "size_bytes")}
    ours = {"sha256": sha256, "size_bytes": size}
    return defaults | given | {k: v for k, v in last.items() if k not in given} | ours


def read(path: Path) -> dict[str, Any] | None:
    """Return the metadata in a file, ``None`` where it is missing, damaged or no file."""
    content = content_of(path)
    return None if content is None else from_json(content)


def content_of(path: Path) -> bytes | None:
    """Return what a file of metadata holds, ``None`` where it cannot be read or is too large."""
    try:
        return regular.content_of(path, MAX_BYTES)
    except OSError:
        return None
