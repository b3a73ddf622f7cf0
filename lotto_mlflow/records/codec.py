"""The JSON of the journal's records: written in one format, read in every earlier one, strictly."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any

from lotto_mlflow.errors import LaterFormatError
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
_PAYLOADS: dict[str, type[SavePayload] | type[RestorePayload]] = {
    SAVE: SavePayload,
    BACKFILL: SavePayload,
    RESTORE: RestorePayload,
}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,127})?")
"""What MLflow calls a run or a logged model: one plain name, in a path or a query."""
_END_OF_COUNT = 2**63
_MAX_DEPTH = 210
"""Metadata may be nested 200 times, and lies inside the record."""
_CHECKSUM, _END = b',\n  "checksum": "', b'"\n}'
"""The last key of a record's JSON, whose value is the digest of all bytes before it."""


def render(record: Record[Any]) -> bytes:
    """Return the JSON of a record, with a digest over itself; `parse` is its inverse."""
    payload = _values(record.payload)
    if isinstance(record.payload, SavePayload):
        payload["description"] = _values(record.payload.description)
    elif record.payload.metadata is not None:
        payload["metadata"] = _in_base64(record.payload.metadata)
    places = {
        key: {target: _known(ids) for target, ids in found.items()}
        for key, found in (("mirrored", record.mirrored), ("attempts", record.attempts))
    }
    values = {"format": FORMAT} | _values(record) | {"payload": payload} | places
    text = json.dumps(values, ensure_ascii=False, indent=2).encode("utf-8")
    head = text.removesuffix(b"\n}")
    return b"".join((head, _CHECKSUM, _sha256(head).encode("ascii"), _END))


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
    head, _, end = content.rpartition(_CHECKSUM)
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
    envelope = _CHECKS[Record].keys() - {"payload"}
    payload = {key: value for key, value in values.items() if key not in envelope}
    return {key: values[key] for key in envelope & values.keys()} | {"payload": payload}


def _record(values: dict[str, Any]) -> Record[Any]:
    kind, payload = values.get("kind"), values.get("payload")
    if not isinstance(kind, str) or not isinstance(payload, dict):
        raise ValueError("the record has no kind, or no payload")
    if kind not in _PAYLOADS:
        raise LaterFormatError(f"record kind {kind!r} is of a later release")
    made = _checked(_PAYLOADS[kind], payload)
    if kind != RESTORE:
        made["description"] = Description(**_checked(Description, made["description"]))
    elif made.get("metadata") is not None:
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
    checks, known, extra = _CHECKS[kind], {}, {}
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


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _END_OF_COUNT


def _is_file_time(value: Any) -> bool:
    return type(value) is int and abs(value) < _END_OF_COUNT


def is_digest(value: Any) -> bool:
    """Return whether a value is a SHA-256: 64 hexadecimal digits."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def is_id(value: Any) -> bool:
    """Return whether a value is an id of a run or a logged model; empty stands for none."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _is_list_of_digests(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_digest, value))


def _are_digests(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_digest, value.values()))


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _is_dict_of_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _is_dict_of_dicts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, dict) for item in value.values())


def _are_metrics(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(points, list) and all(map(_is_point, points)) for points in value.values()
    )


def _is_point(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(number, (int, float)) for number in value)
        and all(abs(number) <= sys.float_info.max for number in value)
    )


def _are_facts(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("kind"), str)


def _is_example(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"input", "output"}
        and _are_facts(value["input"])
        and (value["output"] is None or _are_facts(value["output"]))
    )


def _is_signature(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_or_none(_is_text), value.values()))


def _is_dataset(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and {"context", "digest"} <= value.keys()
        and all(check(value[key]) for key, check in _DATASET.items() if key in value)
    )


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


_DATASET: dict[str, Callable[[Any], bool]] = {
    "context": _is_text,
    "digest": _is_text,
    "name": _is_text,
    "source": _is_text,
    "source_type": _is_text,
    "schema": _or_none(_is_text),
    "profile": _or_none(_is_text),
    "shape": _or_none(_is_shape),
    "facts": _or_none(_are_facts),
}
_CHECKS: dict[Any, dict[str, Callable[[Any], bool]]] = {
    Record: {
        "id": _is_text,
        "kind": _is_text,
        "target": _is_text,
        "host": _is_text,
        "payload": _is_dict,
        "mirrored": _is_dict_of_dicts,
        "attempts": _is_dict_of_dicts,
        "tries": _is_count,
        "reason": _or_none(_is_text),
    },
    MlflowIds: {
        "version": _is_count,
        "run_id": is_id,
        "model_id": is_id,
        "registered_model": _or_none(_is_text),
        "files": _are_digests,
    },
    Attempt: {"run_id": is_id, "model_id": is_id},
    SavePayload: {
        "name": _is_text,
        "sha256": is_digest,
        "size": _is_count,
        "saved_at": _is_text,
        "saved_at_ns": _is_count,
        "description": _is_dict,
        "metadata": _or_none(_is_dict),
        "backup": _or_none(_is_text),
        "replaced_damaged": _is_bool,
        "replaced_sha256": _or_none(is_digest),
        "earlier_sha256": _or_none(_is_list_of_digests),
        "mtime_ns": _or_none(_is_file_time),
        "started_at_ns": _or_none(_is_count),
    },
    RestorePayload: {
        "name": _is_text,
        "sha256": is_digest,
        "size": _is_count,
        "file_time_ns": _is_file_time,
        "source": _is_text,
        "save_id": _or_none(_is_text),
        "metadata": _or_none(_is_text),
        "backup": _or_none(_is_text),
        "replaced_damaged": _is_bool,
        "replaced_sha256": _or_none(is_digest),
        "earlier_sha256": _or_none(_is_list_of_digests),
    },
    Description: {
        "model_type": _is_text,
        "params": _is_dict_of_texts,
        "metrics": _are_metrics,
        "tags": _is_dict_of_texts,
        "requirements": lambda value: isinstance(value, list) and all(map(_is_text, value)),
        "predicts": _is_bool,
        "example": _or_none(_is_example),
        "datasets": lambda value: isinstance(value, list) and all(map(_is_dataset, value)),
        "signature": _or_none(_is_signature),
        "input_example": _or_none(_are_facts),
        "parent_run_id": _or_none(_is_text),
    },
}


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
