"""Values of any library as the plain ones of JSON, where their JSON form is obvious."""

from __future__ import annotations

import json
import logging
import math
import operator
import sys
from collections import UserString
from collections.abc import ItemsView, Iterable, KeysView, Mapping, Sequence, Set, ValuesView
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from lotto_mlflow.errors import InvalidMetadataError

_logger = logging.getLogger("lotto_mlflow")
MAX_DEPTH = 100
_PLAIN = frozenset({type(None), bool, int, float})
_AS_THEY_ARE = frozenset({str, dict, list, tuple})
"""Types whose values no conversion changes, but for what is in them."""
_NUMPY_NUMBERS = frozenset(
    ["bool", "bool_", "float16", "float32", "float64"]
    + [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
)
"""Types of numpy that are of one plain type; lists of many of them are usual."""
_LISTS = (Sequence, KeysView, ValuesView, ItemsView)
_BYTES = (bytes, bytearray, memoryview)
_MOST_CONVERSIONS = 10
"""Of one value: an Enum that holds an array of no dimension, which holds a frame."""
_DAY_SECONDS = 86_400
_SECOND, _MICROSECOND, _NANOSECOND = 10**18, 10**12, 10**9
"""In attoseconds, the shortest that numpy has."""
_UNITS = {"W": 7 * _DAY_SECONDS, "D": _DAY_SECONDS, "h": 3600, "m": 60, "s": 1}
_ATTOSECONDS = {unit: seconds * _SECOND for unit, seconds in _UNITS.items()}
_ATTOSECONDS |= {"ms": 10**15, "us": 10**12, "ns": 10**9, "ps": 10**6, "fs": 10**3, "as": 1}


class _Pairs(list[tuple[Any, Any]]):
    """Names and values, where a name may come twice."""


def plain_value(value: Any, place: str) -> Any:
    """Return a value made of dicts, lists, strings, numbers, booleans and ``None`` only.

    Parameters
    ----------
    value : object
        Numbers of any kind become numbers; arrays, Series without labels, tuples, sets and ranges
        lists; frames, Series with labels, records, namespaces and the classes of dataclasses,
        attrs and pydantic dicts; dates, times and durations texts of ISO 8601; paths, UUIDs,
        dtypes and time zones texts; what is masked, NaT or NA ``None``; an Enum what its member
        holds, or its name. NaN and infinities stay.
    place : str
        How the value is called in messages.

    Raises
    ------
    InvalidMetadataError
        If a value has no JSON form, contains itself, or raises an error when it is read. The
        message names the place.
    """
    return _plain(value, place, ())


def _plain(value: Any, place: str, parents: tuple[int, ...]) -> Any:
    if type(value) in _PLAIN:
        return value
    if id(value) in parents or len(parents) >= MAX_DEPTH:
        raise refused(place, "contains itself, or is nested too deeply")
    inside = (*parents, id(value))
    try:
        value = _converted(value)
        if type(value) in _PLAIN:
            return value
        if isinstance(value, str):
            return _text(value, place)
        if isinstance(value, _Pairs):
            return _dict(value, place, inside)
        if isinstance(value, Mapping):
            return _dict(value.items(), place, inside)
        if isinstance(value, _LISTS) and not isinstance(value, _BYTES):
            return [_plain(item, f"{place}[{i}]", inside) for i, item in enumerate(value)]
    except InvalidMetadataError:
        raise
    except Exception as cause:  # another library's code
        raise refused(place, f"cannot be read ({type(cause).__name__}: {cause})") from cause
    raise refused(place, f"is {type(value).__name__}, which JSON cannot hold")


def _converted(value: Any) -> Any:
    """Return a value that needs no conversion any more, except of what is in it."""
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind.__module__ == "numpy" and kind.__name__ in _NUMPY_NUMBERS:
        return value.item()
    for _ in range(_MOST_CONVERSIONS):
        given, value = value, _of_pandas(_of_numpy(_of_standard_library(value)))
        if value is given or type(value) in _PLAIN:
            break
    return value


def _of_standard_library(value: Any) -> Any:
    if isinstance(value, Enum):
        held = value.value
        return value.name if type(held) is object or callable(held) else held
    if isinstance(value, (str, bool)):
        return value
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat() if value == value else None  # NaT is not equal to itself
    if isinstance(value, timedelta):
        return _duration_of(value)
    if isinstance(value, (PurePath, UUID, UserString, tzinfo)):
        return str(value)
    if isinstance(value, (Fraction, Decimal)):
        return _number(value)
    if isinstance(value, Set) and not isinstance(value, (KeysView, ItemsView)):
        return _sorted(value)
    return _of_fields(value)


def _number(value: Fraction | Decimal) -> int | float:
    """Return a whole number where it is one, and else the nearest float."""
    if isinstance(value, Decimal):
        if not value.is_finite():  # a NaN that signals cannot be made a float
            return math.nan if value.is_nan() else float(value)
        is_whole = value.adjusted() < MAX_DEPTH and value == value.to_integral_value()
        return int(value) if is_whole else float(value)
    if value.denominator == 1:
        return int(value)
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _of_fields(value: Any) -> Any:
    """Return the fields of a class that declares them, as a dict."""
    if isinstance(value, type):
        return value
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, SimpleNamespace):
        return vars(value)
    declared = getattr(type(value), "__attrs_attrs__", None)
    if declared is not None:
        return {field.name: getattr(value, field.name) for field in declared}
    pydantic = _library("pydantic", value)
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return dict(value)
    return value


def _sorted(values: Iterable[Any]) -> list[Any]:
    """Return the members of a set, whose own order differs from process to process."""
    try:
        return sorted(values)
    except Exception:  # noqa: BLE001 - values of several types, or of a type without an order
        return sorted(values, key=repr)


def _duration_of(value: timedelta) -> str:
    seconds = value.days * _DAY_SECONDS + value.seconds
    whole = seconds * _SECOND + value.microseconds * _MICROSECOND
    return _duration(whole + getattr(value, "nanoseconds", 0) * _NANOSECOND)  # those of pandas


def _duration(attoseconds: int) -> str:
    """Return a duration as ISO 8601 writes it: ``P1DT2H3M4.5S``."""
    sign, rest = ("-", -attoseconds) if attoseconds < 0 else ("", attoseconds)
    seconds, fraction = divmod(rest, _SECOND)
    days, seconds = divmod(seconds, _DAY_SECONDS)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    part = f"{seconds}.{fraction:018d}".rstrip("0") if fraction else str(seconds)
    clock = [(hours, f"{hours}H"), (minutes, f"{minutes}M"), (seconds or fraction, f"{part}S")]
    day_text = f"{days}D" if days else ""
    time_text = "".join(text for number, text in clock if number)
    if not day_text and not time_text:
        return "PT0S"
    return f"{sign}P{day_text}{'T' if time_text else ''}{time_text}"


def _library(name: str, value: Any) -> Any:
    """Return the library that a value is of, ``None`` where it is of none or another.

    Notes
    -----
    Where there is a value, its library is loaded. Another may be half imported, by a thread.
    """
    modules = (str(kind.__module__) for kind in type(value).__mro__)
    is_of = any(module.partition(".")[0] == name for module in modules)
    return sys.modules.get(name) if is_of else None


def _of_numpy(value: Any) -> Any:
    """Convert a numpy value without importing numpy."""
    numpy = _library("numpy", value)
    if numpy is None or isinstance(value, (str, int, float, Mapping, list, tuple)):
        is_scalar = numpy is not None and isinstance(value, numpy.generic)
        return value.item() if is_scalar else value
    if isinstance(value, numpy.ma.MaskedArray):
        if value.dtype.names:  # each field of a record may be masked
            return {n: value[n] for n in value.dtype.names} if not value.ndim else list(value)
        value = _with_none(numpy, value)
    if isinstance(value, numpy.ndarray):
        return _list_of_array(numpy, value)
    if isinstance(value, numpy.timedelta64):
        return _duration_of_numpy(numpy, value)
    if isinstance(value, numpy.datetime64):
        return None if numpy.isnat(value) else str(value)
    if isinstance(value, numpy.floating):
        return float(value)
    if isinstance(value, numpy.dtype):
        return str(value)
    if isinstance(value, numpy.void) and value.dtype.names:
        return {name: value[name] for name in value.dtype.names}
    return value.item() if isinstance(value, numpy.generic) else value


def _with_none(numpy: Any, masked: Any) -> Any:
    """Return an array of objects in which ``None`` stands for what is masked."""
    data, mask = numpy.asarray(masked.data), numpy.ma.getmaskarray(masked)
    found = numpy.empty(data.shape, dtype=object)
    for place in numpy.ndindex(data.shape):  # numpy's own conversion makes numbers of times
        found[place] = None if mask[place] else data[place]
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
    return _duration(count * _ATTOSECONDS[unit])


def _of_pandas(value: Any) -> Any:
    """Convert a pandas value, or one that gives itself as an array, without importing either."""
    pandas = _library("pandas", value)
    if pandas is not None:
        if value is pandas.NA or value is pandas.NaT:
            return None
        if isinstance(value, pandas.Timedelta):
            return _duration_of(value)
        if isinstance(
            value, (pandas.Period, pandas.Interval, pandas.api.extensions.ExtensionDtype)
        ):
            return str(value)
        if isinstance(value, pandas.tseries.offsets.BaseOffset):
            return value.freqstr
        if isinstance(value, pandas.DataFrame):
            return _Pairs((name, value.iloc[:, i]) for i, name in enumerate(value.columns))
        if isinstance(value, pandas.Series):
            items = _items_of_series(value)
            is_plain = isinstance(value.index, pandas.RangeIndex)
            return items if is_plain else _Pairs(zip(value.index, items, strict=True))
        if isinstance(value, (pandas.Index, pandas.api.extensions.ExtensionArray)):
            return list(value)
    for name in ("to_pydict", "to_pylist", "as_py"):  # of Arrow, whose missing values are no NaN
        if type(value).__module__.startswith("pyarrow.") and hasattr(value, name):
            return getattr(value, name)()
    if "numpy" in sys.modules and hasattr(type(value), "__array__"):
        import numpy  # whole, where another thread is importing it

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


def _dict(pairs: Iterable[tuple[Any, Any]], place: str, inside: tuple[int, ...]) -> dict[str, Any]:
    named = [(_key(key, place), item) for key, item in pairs]
    free = free_names([name for name, _ in named])
    return {
        name: _plain(item, f"{place}[{name!r}]", inside)
        for name, (_, item) in zip(free, named, strict=True)
    }


def free_names(names: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """Return names of which none comes twice, and warn where that needs a number.

    Parameters
    ----------
    names : sequence of str
        The names as they were given; of equal ones the first stays as it is.
    taken : iterable of str
        Names that no name becomes by a number.
    """
    given = {*names, *taken}
    numbers: dict[str, int] = {}  # the last one that was given to a name
    found: dict[str, None] = {}
    for name in names:
        free, is_first = name, name not in numbers
        while free in found or (free != name and free in given):
            numbers[name] = numbers.get(name, 1) + 1
            free = f"{name}_{numbers[name]}"
        if free != name and is_first:
            _warn_of_two(name, free)
        found[free] = None
    return list(found)


def _warn_of_two(name: str, other: str) -> None:
    _logger.warning("metadata has two values named %r; one is kept as %r", name, other)


def _key(key: Any, place: str) -> str:
    if isinstance(key, type) or (callable(key) and hasattr(key, "__qualname__")):
        return _text(key.__qualname__, place)
    plain = key if isinstance(key, str) else _plain(key, place, ())
    if isinstance(plain, str):
        return _text(plain, place)
    if isinstance(plain, list):
        return _text(str(_as_tuple(plain)), place)
    try:
        return json.dumps(plain)
    except ValueError as cause:
        raise refused(place, f"has a key that JSON cannot hold ({cause})") from cause


def _as_tuple(values: list[Any]) -> tuple[Any, ...]:
    return tuple(_as_tuple(value) if isinstance(value, list) else value for value in values)


def _text(value: str, place: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as cause:
        raise refused(place, "holds characters that UTF-8 cannot write") from cause
    return str.__str__(value)  # of an Enum that is a str, its value


def refused(place: str, problem: str) -> InvalidMetadataError:
    """Return the error about a value at a place."""
    return InvalidMetadataError(f"{place} {problem}; nothing was saved", place=place)


def plain_integer(value: Any) -> Any:
    """Return a whole number of any library as an ``int``; a truth value, or another, as it is."""
    if type(value) is int or isinstance(value, bool):
        return value
    try:
        return operator.index(value)
    except TypeError:
        return value


def shown(value: object) -> str:
    """Return the first of a value's characters for a message; Python writes no endless number."""
    try:
        return f"{value!r:.100}"
    except ValueError:
        return "a number of too many digits"
