"""Values of any library as the plain ones of JSON, where their JSON form is obvious."""

from __future__ import annotations

import json
import logging
import sys
from collections import deque
from collections.abc import Iterable, KeysView, Mapping, Set, ValuesView
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

from lotto_mlflow.errors import InvalidMetadataError

_logger = logging.getLogger("lotto_mlflow")
MAX_DEPTH = 100
_LISTS = (list, tuple, range, deque, KeysView, ValuesView)
_DAY_SECONDS = 86_400
_NS = 10**9
_UNIT_SECONDS = {"W": 7 * _DAY_SECONDS, "D": _DAY_SECONDS, "h": 3600, "m": 60, "s": 1}
_UNIT_ATTOSECONDS = {"ms": 10**15, "us": 10**12, "ns": 10**9, "ps": 10**6, "fs": 10**3, "as": 1}


def plain_value(value: Any, place: str) -> Any:
    """Return a value made of dicts, lists, strings, numbers, booleans and ``None`` only.

    Parameters
    ----------
    value : object
        Numbers of any kind become numbers; arrays, Series without labels, tuples, sets and ranges
        lists; frames, Series with labels and dataclasses dicts; dates, times and durations texts
        of ISO 8601; paths and UUIDs texts; what is masked, NaT or NA ``None``; an Enum what its
        member holds. NaN and infinities stay.
    place : str
        How the value is called in messages.

    Raises
    ------
    InvalidMetadataError
        If a value has no JSON form, or contains itself. The message names the place.
    """
    return _plain(value, place, ())


def _plain(value: Any, place: str, parents: tuple[int, ...]) -> Any:
    value = _of_standard_library(_of_pandas(_of_numpy(value)))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, place)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, (Mapping, *_LISTS)):
        if id(value) in parents or len(parents) >= MAX_DEPTH:
            raise refused(place, "contains itself, or is nested too deeply")
        inside = (*parents, id(value))
        if isinstance(value, Mapping):
            return _dict(value, place, inside)
        return [_plain(item, f"{place}[{i}]", inside) for i, item in enumerate(value)]
    raise refused(place, f"is {type(value).__name__}, which JSON cannot hold")


def _of_standard_library(value: Any) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, (datetime, date, time)):
        return value.isoformat() if value == value else None  # NaT is not equal to itself
    if isinstance(value, timedelta):
        whole = (value.days * _DAY_SECONDS + value.seconds) * _NS
        return _duration(whole + value.microseconds * 1000)
    if isinstance(value, (PurePath, UUID)):
        return str(value)
    if isinstance(value, Fraction):
        return float(value)
    if isinstance(value, Decimal):
        is_whole = value.is_finite() and value == value.to_integral_value()
        return int(value) if is_whole and value.adjusted() < MAX_DEPTH else float(value)
    if isinstance(value, Set) and not isinstance(value, KeysView):
        return _sorted(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return value


def _sorted(values: Iterable[Any]) -> list[Any]:
    """Return the members of a set, whose own order differs from process to process."""
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=repr)


def _duration(nanoseconds: int) -> str:
    """Return a duration as ISO 8601 writes it: ``P1DT2H3M4.5S``."""
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    seconds, fraction = divmod(rest, _NS)
    days, seconds = divmod(seconds, _DAY_SECONDS)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    part = f"{seconds}.{fraction:09d}".rstrip("0") if fraction else str(seconds)
    clock = [(hours, f"{hours}H"), (minutes, f"{minutes}M"), (seconds or fraction, f"{part}S")]
    day_text = f"{days}D" if days else ""
    time_text = "".join(text for number, text in clock if number)
    if not day_text and not time_text:
        return "PT0S"
    return f"{sign}P{day_text}{'T' if time_text else ''}{time_text}"


def _of_numpy(value: Any) -> Any:
    """Convert a numpy value without importing numpy: where there is one, numpy is loaded."""
    numpy = sys.modules.get("numpy")
    if numpy is None or isinstance(value, (str, int, float, Mapping, list, tuple)):
        is_scalar = numpy is not None and isinstance(value, numpy.generic)
        return value.item() if is_scalar else value
    if isinstance(value, numpy.ma.MaskedArray):
        value = _with_none(numpy, value)
    if isinstance(value, numpy.ndarray):
        return _list_of_array(numpy, value)
    if isinstance(value, numpy.timedelta64):
        return _duration_of_numpy(numpy, value)
    if isinstance(value, numpy.datetime64):
        return None if numpy.isnat(value) else str(value)
    if isinstance(value, numpy.floating):
        return float(value)
    if isinstance(value, numpy.void) and value.dtype.names:
        return {name: value[name] for name in value.dtype.names}
    return value.item() if isinstance(value, numpy.generic) else value


def _with_none(numpy: Any, masked: Any) -> Any:
    """Return an array of objects in which ``None`` stands for what is masked."""
    found = numpy.array(masked.data, dtype=object, copy=True)
    found[numpy.ma.getmaskarray(masked)] = None
    return found


def _list_of_array(numpy: Any, array: Any) -> Any:
    plain = numpy.asarray(array)  # rows of a matrix are matrices, without end
    if not plain.ndim:
        return _of_numpy(plain[()])
    if plain.dtype.kind in "biuU" or plain.dtype in (numpy.float64, numpy.float32, numpy.float16):
        return plain.tolist()
    return list(plain)


def _duration_of_numpy(numpy: Any, value: Any) -> Any:
    if numpy.isnat(value):
        return None
    unit, factor = numpy.datetime_data(value.dtype)
    count = int(value.astype("int64")) * factor
    if unit in ("Y", "M"):  # which have no length of their own
        return f"{'-' if count < 0 else ''}P{abs(count)}{unit}"
    if unit == "generic":
        return count
    if unit in _UNIT_SECONDS:
        return _duration(count * _UNIT_SECONDS[unit] * _NS)
    return _duration(count * _UNIT_ATTOSECONDS[unit] // _UNIT_ATTOSECONDS["ns"])


def _of_pandas(value: Any) -> Any:
    """Convert a pandas value, or one that gives itself as an array, without importing either."""
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        if value is pandas.NA or value is pandas.NaT:
            return None
        if isinstance(value, pandas.Timedelta):
            micro = (value.days * _DAY_SECONDS + value.seconds) * 10**6 + value.microseconds
            return _duration(micro * 1000 + value.nanoseconds)
        if isinstance(value, (pandas.Period, pandas.Interval)):
            return str(value)
        if isinstance(value, pandas.DataFrame):
            return {name: value.iloc[:, i] for i, name in enumerate(value.columns)}
        if isinstance(value, pandas.Series):
            items = _items_of_series(value)
            is_plain = isinstance(value.index, pandas.RangeIndex)
            return items if is_plain else dict(zip(value.index, items, strict=True))
        if isinstance(value, (pandas.Index, pandas.api.extensions.ExtensionArray)):
            return list(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(type(value), "__array__"):
        try:
            array = numpy.asarray(value)
        except Exception:  # noqa: BLE001 - another library's code; the value is refused then
            return value
        return value if array.dtype.hasobject and not array.ndim else _of_numpy(array)
    return value


def _items_of_series(series: Any) -> list[Any]:
    """Return the values of a Series; in one that is not of floats, NaN only says “missing”."""
    if getattr(series.dtype, "kind", "") == "f":
        return list(series)
    return [None if isinstance(item, float) and item != item else item for item in series]


def _dict(value: Mapping[Any, Any], place: str, inside: tuple[int, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in value.items():
        name = _key(key, place)
        found[free_name(name, found)] = _plain(item, f"{place}[{name!r}]", inside)
    return found


def free_name(name: str, used: Mapping[str, Any]) -> str:
    """Return a name, with a number where something else has it already, and a warning."""
    if name not in used:
        return name
    number = 2
    while f"{name}_{number}" in used:
        number += 1
    _logger.warning("metadata has two values named %r; one is kept as %r", name, f"{name}_{number}")
    return f"{name}_{number}"


def _key(key: Any, place: str) -> str:
    plain = key if isinstance(key, str) else _plain(key, place, ())
    if isinstance(plain, str):
        return _text(plain, place)
    if isinstance(plain, list):
        return str(tuple(plain))
    try:
        return json.dumps(plain)
    except ValueError as cause:
        raise refused(place, f"has a key that JSON cannot hold ({cause})") from cause


def _text(value: str, place: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as cause:
        raise refused(place, "holds characters that UTF-8 cannot write") from cause
    return str.__str__(value)  # of an Enum that is a str, its value


def refused(place: str, problem: str) -> InvalidMetadataError:
    """Return the error about a value at a place."""
    return InvalidMetadataError(f"{place} {problem}; nothing was saved", place=place)
