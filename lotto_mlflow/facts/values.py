"""One value as strict JSON: in full, or reduced to what its type says."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, tzinfo
from typing import Any

MAX_DEPTH = 40
MAX_SAMPLES = 1_000
"""Values of different form in one column or list; more than that are no table."""
_MAX_CELLS = 1_000
_INT64 = 2**63
_ONE_FORM = (str, bool, bytes, bytearray, date, type(None))
"""Types whose values are all alike to whoever infers a schema."""
_PLAIN = frozenset((str, bool, bytes, type(None), int, float))
_SAMPLES: dict[type, Any] = {
    str: "a",
    bool: True,
    bytes: b"a",
    bytearray: bytearray(b"a"),
    date: date(2000, 1, 1),
}
_BOUNDS = (-2 * _INT64, -_INT64, 0, _INT64, 2 * _INT64)
"""The smallest integers, but for the first, that pandas keeps in another type than those below."""


def instance_of(module: str, kind: str, value: Any) -> bool:
    """Check a type without importing its module: where there is such a value, it is loaded."""
    expected = getattr(sys.modules.get(module), kind, None)
    return isinstance(expected, type) and isinstance(value, expected)


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value in full, as JSON in which what has no form there is a dict with a ``kind``.

    Raises
    ------
    TypeError, ValueError
        If there is no such form, or the value is nested too deeply.
    """
    if isinstance(value, (list, tuple, dict)):
        _check_depth(value, depth)
    if isinstance(value, list):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, tuple):
        return {"kind": "tuple", "items": [plain(item, depth + 1) for item in value]}
    if isinstance(value, dict):
        items = [[plain(k, depth + 1), plain(v, depth + 1)] for k, v in value.items()]
        return {"kind": "dict", "items": items}
    if instance_of("numpy", "ndarray", value):
        shape = list(value.shape)
        return {"kind": "array", "dtype": dtype(value.dtype), "shape": shape} | {
            "values": array_values(value, depth + 1)
        }
    return _scalar(value)


def _check_depth(value: Any, depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise ValueError(f"a {type(value).__name__} in it is nested too deeply")


def _scalar(value: Any) -> Any:
    kind = type(value)
    if value is None or kind is bool:
        return value
    write = _SCALARS.get(kind)
    if write is not None:
        return write(value)
    for is_one, library_write in _OF_LIBRARIES:
        if is_one(value):
            return library_write(value)
    for base, as_base in _BASES.items():
        if isinstance(value, base):
            return {"kind": "subclass", "of": _scalar(as_base(value))}
    raise TypeError(f"a {kind.__name__} in it has no plain form")


def _text(value: str) -> Any:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return {"kind": "text", "value": _in_base64(value.encode("utf-8", "surrogatepass"))}
    return value


def _integer(value: int) -> Any:
    return value if -_INT64 <= value < 2 * _INT64 else {"kind": "int", "value": hex(value)}


def _float(value: float) -> Any:
    return value if math.isfinite(value) else {"kind": "float", "value": str(value)}


def _in_base64(value: bytes | bytearray) -> str:
    import base64  # imported lazily

    return base64.b64encode(value).decode("ascii")


def _moment(value: datetime) -> dict[str, Any]:
    naive = value.replace(tzinfo=None).isoformat()
    return {"kind": "datetime", "value": naive, "zone": zone(value.tzinfo, value)}


def zone(value: tzinfo | None, at: datetime | None = None) -> str | float | None:
    """Return a time zone's name, or the seconds from UTC of one that has none."""
    name = getattr(value, "key", None) or getattr(value, "zone", None)
    if value is None or isinstance(name, str):
        return name
    offset = value.utcoffset(at)
    return 0.0 if offset is None else offset.total_seconds()


_SCALARS: dict[type, Callable[[Any], Any]] = {
    str: _text,
    int: _integer,
    float: _float,
    bytes: lambda value: {"kind": "bytes", "value": _in_base64(value)},
    bytearray: lambda value: {"kind": "bytearray", "value": _in_base64(value)},
    date: lambda value: {"kind": "date", "value": value.isoformat()},
    datetime: _moment,
    object: lambda _: {"kind": "object"},
}
_BASES: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: lambda value: bytes(memoryview(value)),
    datetime: lambda value: datetime.combine(value.date(), value.time(), value.tzinfo),
}


def _is_generic(value: Any) -> bool:
    return instance_of("numpy", "generic", value)


def _generic(value: Any) -> dict[str, Any]:
    """Return a scalar of numpy: type and value."""
    kind, found = value.dtype.kind, value
    if kind in "biufSU" and not (kind == "f" and value.dtype.itemsize > 8):
        found = _scalar(value.item())
    elif kind in "mM":
        found = int(value.astype("int64"))
    else:
        raise TypeError(f"a {type(value).__name__} in it has no plain form")
    return {"kind": "numpy", "dtype": value.dtype.str, "value": found}


def _is_missing(value: Any) -> bool:
    if not type(value).__module__.startswith("pandas."):
        return False
    pandas = sys.modules["pandas"]
    return value is pandas.NaT or value is pandas.NA


def _missing(value: Any) -> dict[str, Any]:
    return {"kind": "NaT" if value is sys.modules["pandas"].NaT else "NA"}


def _timestamp(value: Any) -> dict[str, Any]:
    count, named = int(value.asm8.astype("int64")), zone(value.tzinfo, value)
    return {"kind": "timestamp", "value": count, "unit": value.unit, "zone": named}


_OF_LIBRARIES: tuple[tuple[Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    (_is_generic, _generic),
    (_is_missing, _missing),
    (lambda value: instance_of("pandas", "Timestamp", value), _timestamp),
    (
        lambda value: instance_of("pandas", "Period", value),
        lambda value: {"kind": "period", "value": value.ordinal, "freq": value.freqstr},
    ),
)


def dtype(value: Any) -> Any:
    """Return a dtype of numpy: its text, or the fields of a structured one."""
    if value.kind not in "biufcmMSUVO":
        raise TypeError(f"the dtype {value} has no plain form")
    return plain(value.descr) if value.names else value.str


def array_values(array: Any, depth: int = 0) -> Any:
    """Return the values of an array, in lists as deep as it has dimensions; times as counts."""
    kind = array.dtype.kind
    if kind in "mM":
        return array.astype("int64").tolist()
    if kind in "biu":
        return array.tolist()
    if kind == "f" and array.dtype.itemsize <= 8:
        values = array.tolist()
        is_finite = bool(sys.modules["numpy"].isfinite(array).all())
        return values if is_finite else plain(values, depth)
    return plain(array.tolist(), depth)


def reduced(value: Any, depth: int = 0) -> Any:
    """Return a value of the same form, as `plain` does, with nothing of its content but that.

    Notes
    -----
    MLflow 3.17 (``mlflow.types.utils``) infers the same schema from it: the type of each scalar,
    how large an integer is, whether a float is NaN, the keys of dicts, what stands in lists.
    """
    if isinstance(value, (list, tuple, dict)):
        _check_depth(value, depth)
    if isinstance(value, list):
        return samples(value, depth + 1)
    if isinstance(value, tuple):
        return {"kind": "tuple", "items": [reduced(item, depth + 1) for item in value]}
    if isinstance(value, dict):
        items = [[plain(k, depth + 1), reduced(v, depth + 1)] for k, v in value.items()]
        return {"kind": "dict", "items": items}
    if instance_of("numpy", "ndarray", value):
        return _reduced_array(value, depth)
    return _form(value)


def _form(value: Any) -> Any:
    """Return what stands for all scalars of one form."""
    kind: Any = type(value)
    if kind in _SAMPLES:
        return _scalar(_SAMPLES[kind])
    if kind is int:
        return _integer(_BOUNDS[sum(value >= bound for bound in _BOUNDS[1:])])
    if kind is float:
        return _float(value if math.isnan(value) else 0.0)
    if kind is datetime:
        return _moment(datetime(2000, 1, 1, tzinfo=value.tzinfo))
    fact = _scalar(value)
    if not isinstance(fact, dict):
        return fact
    if fact["kind"] in ("timestamp", "period"):
        return fact | {"value": 0}
    if fact["kind"] == "numpy":
        return _generic_form(value, fact)
    if fact["kind"] == "subclass":
        base = next(base for base in _BASES if isinstance(value, base))
        return {"kind": "subclass", "of": _form(_BASES[base](value))}
    return fact


def _generic_form(value: Any, fact: dict[str, Any]) -> dict[str, Any]:
    kind = value.dtype.kind
    if kind in "US":
        return fact | {"dtype": f"{kind}1", "value": _form(value.item())}
    if kind in "mM":
        return fact | {"value": -_INT64 if value != value else 0}
    return fact | {"value": _form(value.item())}


def _reduced_array(array: Any, depth: int) -> Any:
    numpy = sys.modules["numpy"]
    if array.dtype.kind == "O" and array.ndim == 1:
        values = samples(array.tolist(), depth + 1)
        return {"kind": "array", "dtype": "|O", "shape": [len(values)], "values": values}
    if array.dtype.kind in "OV" or not array.ndim:
        if array.size > _MAX_CELLS:
            raise ValueError("an array of objects in it is too large")
        return plain(array, depth)
    shape = [min(length, 1) for length in array.shape]
    kept = numpy.zeros(shape, array.dtype)
    if array.dtype.kind == "f" and array.size:
        is_nan = numpy.isnan(array)
        if is_nan.any():
            found = numpy.asarray([numpy.nan] if is_nan.all() else [0.0, numpy.nan], array.dtype)
            kept = found.reshape([1] * (array.ndim - 1) + [-1])
    return plain(kept, depth)


def samples(values: Any, depth: int = 0) -> list[Any]:
    """Return each different form among values, `reduced`, in the order in which they come."""
    _check_depth(values, depth)
    found: dict[str, Any] = {}
    for kind in dict.fromkeys(map(type, values)):
        for value in _of_type(kind, values):
            fact = reduced(value, depth)
            found.setdefault(json.dumps(fact), fact)
    kept = _telling(list(found.values()))
    if len(kept) > MAX_SAMPLES:
        raise ValueError(f"it has more than {MAX_SAMPLES} values of different form")
    return kept


def _of_type(kind: type, values: Iterable[Any]) -> Iterable[Any]:
    """Return the values of a type; few of them where a few show all forms that there are."""
    mine: Iterator[Any] = (value for value in values if type(value) is kind)
    if kind in _ONE_FORM:
        return [next(mine)]
    if kind is int:
        found = list(mine)
        return [min(found), max(found)]
    if kind is float:
        return {math.isnan(value): value for value in mine}.values()
    if kind is datetime or kind is getattr(sys.modules.get("pandas"), "Timestamp", None):
        return {(v.tzinfo, getattr(v, "unit", None)): v for v in mine}.values()
    if kind in (list, dict):
        return _of_other_forms(mine)
    if issubclass(kind, getattr(sys.modules.get("numpy"), "generic", ())):
        return {(v.dtype, _generic_trait(v)): v for v in mine}.values()
    return mine


def _generic_trait(value: Any) -> bool:
    kind = value.dtype.kind
    if kind in "iu":
        return bool(value < 0 if kind == "i" else value >= _INT64)
    return bool(kind in "fmM" and value != value)


def _of_other_forms(values: Iterable[Any]) -> Iterator[Any]:
    """Leave out lists and dicts of plain scalars that look like one before; most do, in a table."""
    seen: set[Any] = set()
    for value in values:
        items = value if type(value) is list else value.values()
        types = tuple(map(type, items))
        if not _PLAIN.issuperset(types):
            yield value
            continue
        keys = tuple(value) if type(value) is dict else None
        traits = tuple(
            (t, x != x if t is float else _INT64 > x >= -_INT64)
            for t, x in zip(types, items, strict=True)
            if t in (int, float)
        )
        form = (keys, types, traits) if keys else (keys, frozenset(types), frozenset(traits))
        if form not in seen:
            seen.add(form)
            yield value


def _telling(found: list[Any]) -> list[Any]:
    """Leave out the dicts of which others show each key with its value, and each key's absence."""
    contents = {
        index: {json.dumps(key): json.dumps(value) for key, value in fact["items"]}
        for index, fact in enumerate(found)
        if isinstance(fact, dict) and fact["kind"] == "dict"
    }
    keys = {key for content in contents.values() for key in content}
    shown: set[Any] = set()
    kept = []
    for index, fact in enumerate(found):
        content = contents.get(index)
        if content:
            shows = set(content.items()) | (keys - content.keys())
            if shows <= shown:
                continue
            shown |= shows
        kept.append(fact)
    return kept
