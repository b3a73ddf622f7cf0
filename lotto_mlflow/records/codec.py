"""The JSON of the journal's records: written in one format, read in every earlier one, strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any

from lotto_mlflow.errors import LaterFormatError
from lotto_mlflow.records.checks import CHECKS
from lotto_mlflow.records.draws import PREDICTION, RESULT, PredictionPayload, ResultPayload
from lotto_mlflow.records.prunes import PRUNE, PrunePayload
from lotto_mlflow.records.types import (
    BACKFILL,
    RESTORE,
    SAVE,
    Attempt,
    Description,
    MlflowIds,
    Record,
    RestorePayload,
    SavePayload,
)

FORMAT = 2
"""Format of the records on disk.

A field may be added without a new number: readers keep fields that they do not know. A kind that
is added, or a field that changes its meaning, takes the next number; `parse` then reads both, and
a file of the earlier format is kept among the tests.
"""
FORMAT_RELEASE = "0.2.0"
"""First release of this package that reads and writes that format."""
_PAYLOADS: dict[str, type[Any]] = {
    SAVE: SavePayload,
    BACKFILL: SavePayload,
    RESTORE: RestorePayload,
    PREDICTION: PredictionPayload,
    RESULT: ResultPayload,
    PRUNE: PrunePayload,
}
_MAX_DEPTH = 210
"""Metadata may be nested 200 times, and lies inside the record."""
CHECKSUM, _END = b',\n  "checksum": "', b'"\n}'
"""The last key of a record's JSON, whose value is the digest of all bytes before it."""


def render(record: Record[Any]) -> bytes:
    """Return the JSON of a record, with a digest over itself; `parse` is its inverse."""
    payload = _values(record.payload)
    if isinstance(record.payload, SavePayload):
        payload["description"] = _values(record.payload.description)
    elif isinstance(record.payload, RestorePayload) and record.payload.metadata is not None:
        payload["metadata"] = _in_base64(record.payload.metadata)
    places = {
        key: {target: _known(ids) for target, ids in found.items()}
        for key, found in (("mirrored", record.mirrored), ("attempts", record.attempts))
    }
    values = {"format": FORMAT} | _values(record) | {"payload": payload} | places
    text = json.dumps(values, ensure_ascii=False, indent=2).encode("utf-8")
    head = text.removesuffix(b"\n}")
    return b"".join((head, CHECKSUM, _sha256(head).encode("ascii"), _END))


def _known(ids: MlflowIds | Attempt) -> dict[str, Any]:
    return {key: value for key, value in vars(ids).items() if value not in (None, {})}


def _values(part: Any) -> dict[str, Any]:
    values = dict(vars(part))
    extra: dict[str, Any] = values.pop("extra")
    return values | extra


def parse(content: bytes) -> Record[Any]:
    """Return the record that `render` wrote, in this release or an earlier one.

    Raises
    ------
    LaterFormatError
        If a later release wrote it.
    ValueError
        If the content is not the one that was written, or a value has another form than it must.
    """
    try:
        values = json.loads(content.decode("utf-8"))
    except RecursionError as cause:
        raise ValueError("the record is nested too deeply") from cause
    if not isinstance(values, dict):
        raise ValueError("the record is no JSON object")
    if is_nested_deeper(values, _MAX_DEPTH):
        raise ValueError("the record is nested too deeply")
    if b"\\u" in content:  # of half characters, which no file and no database accepts
        json.dumps(values, ensure_ascii=False).encode("utf-8")
    checksum, number = values.pop("checksum", None), values.get("format")
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"unknown record format {number!r}")
    if number > FORMAT:
        raise LaterFormatError(f"record format {number} is of a later release")
    head, _, end = content.rpartition(CHECKSUM)
    found = _checksum_of_format_1(values) if number == 1 else _sha256(head)
    if checksum != found or (number > 1 and end != checksum.encode("ascii") + _END):
        raise ValueError("the record's checksum does not match its content")
    values.pop("format")
    return _record(_from_format_1(values) if number == 1 else values)


def is_nested_deeper(value: dict[str, Any], levels: int) -> bool:
    """Return whether JSON values have more levels; far more would be too many for Python."""
    level: list[Any] = [value]
    for _ in range(levels):
        inside = (v.values() if isinstance(v, dict) else v for v in level)
        level = [item for items in inside for item in items if isinstance(item, (dict, list))]
        if not level:
            return False
    return True


def _from_format_1(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a record of the first format, which had no payload of its own."""
    envelope = CHECKS[Record].keys() - {"payload"}
    payload = {key: value for key, value in values.items() if key not in envelope}
    return {key: values[key] for key in envelope & values.keys()} | {"payload": payload}


def _record(values: dict[str, Any]) -> Record[Any]:
    kind, payload = values.get("kind"), values.get("payload")
    if not isinstance(kind, str) or not isinstance(payload, dict):
        raise ValueError("the record has no kind, or no payload")
    if kind not in _PAYLOADS:
        raise LaterFormatError(f"record kind {kind!r} is of a later release")
    made = _checked(_PAYLOADS[kind], payload)
    if _PAYLOADS[kind] is SavePayload:
        made["description"] = Description(**_checked(Description, made["description"]))
    elif kind == RESTORE and made.get("metadata") is not None:
        made["metadata"] = _from_base64(made["metadata"])
    envelope = _checked(Record, values)
    envelope["payload"] = _PAYLOADS[kind](**made)
    for key, kind_of_ids in (("mirrored", MlflowIds), ("attempts", Attempt)):
        envelope[key] = {
            target: kind_of_ids(**_checked(kind_of_ids, ids, keeps_extra=False))
            for target, ids in envelope.get(key, {}).items()
        }
    return Record(**envelope)


def _checked(kind: Any, values: dict[str, Any], *, keeps_extra: bool = True) -> dict[str, Any]:
    """Return the fields of a class, and under ``extra`` those that it does not know.

    Raises
    ------
    ValueError
        If a field has another form than it must, or is missing.
    """
    checks, known, extra = CHECKS[kind], {}, {}
    for key, value in values.items():
        check = checks.get(key)
        if check is None:
            extra[key] = value
        elif check(value):
            known[key] = value
        else:
            raise ValueError(f"the record's {key} is not of the form it must have")
    missing = _required_fields(kind) - known.keys()
    if missing:
        raise ValueError(f"the record has no {', '.join(sorted(missing))}")
    return known | {"extra": extra} if keeps_extra else known


@cache
def _required_fields(kind: Any) -> frozenset[str]:
    found = (f for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)
    return frozenset(f.name for f in found)


def _in_base64(content: bytes) -> str:
    import base64  # imported lazily

    return base64.b64encode(content).decode("ascii")


def _from_base64(text: str) -> bytes:
    import base64  # imported lazily

    return base64.b64decode(text, validate=True)


def _checksum_of_format_1(values: Mapping[str, Any]) -> str:
    return _sha256(json.dumps(values, ensure_ascii=False, sort_keys=True).encode("utf-8"))


def _sha256(content: bytes) -> str:
    import hashlib  # imported lazily

    return hashlib.sha256(content).hexdigest()
