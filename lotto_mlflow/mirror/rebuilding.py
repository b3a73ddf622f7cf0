"""Values made again from the facts that a save recorded; `lotto_mlflow.facts` made those.

Records are data of other people: a type is looked up in a list here, never imported by its name,
and nothing is made that would not fit in memory.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import numpy
import pandas

_MAX_ITEM_BYTES, _MAX_BYTES, _MAX_CELLS, _MAX_COLUMNS = 2**24, 2**26, 10**7, 2**24
_MAX_ROWS = 1_000
_UNITS = ("s", "ms", "us", "ns")
_EXTENSIONS = re.compile(
    r"U?Int(8|16|32|64)|Float(32|64)|boolean|str|string(\[(python|pyarrow)\])?"
    r"|period\[[A-Za-z0-9-]{1,20}\]|Sparse\[[A-Za-z0-9.]+, [A-Za-z0-9.-]+\]"
    r"|[a-z0-9_]{1,20}(\[(s|ms|us|ns|day|ms)\])?\[pyarrow\]"
)
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,3}")
_SUBCLASSES = {base: type(base.__name__.title(), (base,), {}) for base in (str, int, float, bytes)}


def of_all_rows(facts: dict[str, Any]) -> Any:
    """Return a value of which MLflow infers the schema of the whole that was recorded.

    Raises
    ------
    Exception
        Of any kind, where the facts are not of the form that they must have.
    """
    return _STAND_INS[facts["kind"]](facts)


def first_rows(facts: dict[str, Any]) -> Any:
    """Return the first rows as they were given, ``None`` where they were not kept.

    Raises
    ------
    Exception
        As `of_all_rows`.
    """
    rows = facts["rows"]
    if rows is None:
        return None
    if type(rows) is not int or not 0 <= rows <= _MAX_ROWS:
        raise ValueError(f"{rows!r:.100} is no number of rows")
    return _FIRST_ROWS[facts["kind"]](facts)


def value(fact: Any) -> Any:
    """Return the value that `lotto_mlflow.facts.values.plain` wrote."""
    if isinstance(fact, list):
        return [value(item) for item in fact]
    return _VALUES[fact["kind"]](fact) if isinstance(fact, dict) else fact


def _from_base64(fact: dict[str, Any]) -> bytes:
    return base64.b64decode(fact["value"], validate=True)


def _moment(fact: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(fact["value"]).replace(tzinfo=_zone(fact["zone"]))


def _zone(named: Any) -> tzinfo | None:
    if named is None:
        return None
    if isinstance(named, str):
        if not _ZONE.fullmatch(named):  # pandas would open a file of any path
            raise ValueError(f"{named!r:.100} is no time zone")
        return ZoneInfo(named)
    return timezone(timedelta(seconds=named))


def _timestamp(fact: dict[str, Any]) -> Any:
    moment = pandas.Timestamp(_times([fact["value"]], _unit(fact))[0])
    zone = _zone(fact["zone"])
    return moment if zone is None else moment.tz_localize("UTC").tz_convert(zone)


def _times(counts: Any, unit: str) -> Any:
    return numpy.array(counts, "int64").view(f"datetime64[{unit}]")


def _unit(fact: dict[str, Any]) -> str:
    return str(_UNITS[_UNITS.index(fact["unit"])])


def _generic(fact: dict[str, Any]) -> Any:
    kind = _dtype(fact["dtype"])
    return numpy.array([value(fact["value"])], _counted(kind)).view(kind)[0]


def _subclass(fact: dict[str, Any]) -> Any:
    found = value(fact["of"])
    return _SUBCLASSES[type(found)](found)


def _inner_array(fact: dict[str, Any]) -> Any:
    return _filled(_dtype(fact["dtype"]), _shape(fact["shape"]), fact["values"])


_VALUES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "text": lambda fact: _from_base64(fact).decode("utf-8", "surrogatepass"),
    "int": lambda fact: int(fact["value"], 16),
    "float": lambda fact: float(fact["value"]),
    "bytes": _from_base64,
    "bytearray": lambda fact: bytearray(_from_base64(fact)),
    "date": lambda fact: date.fromisoformat(fact["value"]),
    "datetime": _moment,
    "timestamp": _timestamp,
    "period": lambda fact: pandas.Period(ordinal=fact["value"], freq=fact["freq"]),
    "object": lambda _: object(),
    "NaT": lambda _: pandas.NaT,
    "NA": lambda _: pandas.NA,
    "numpy": _generic,
    "subclass": _subclass,
    "tuple": lambda fact: tuple(map(value, fact["items"])),
    "dict": lambda fact: {value(key): value(item) for key, item in fact["items"]},
    "array": _inner_array,
}


def _dtype(fact: Any) -> Any:
    made = numpy.dtype(value(fact) if isinstance(fact, list) else str(fact))
    if made.itemsize > _MAX_ITEM_BYTES:
        raise ValueError("a dtype is too large")
    return made


def _counted(kind: Any) -> Any:
    """Return the dtype in which the values of another are written: times are counts."""
    return numpy.dtype("int64").newbyteorder(kind.byteorder) if kind.kind in "mM" else kind


def _shape(fact: Any) -> tuple[int, ...]:
    if any(type(length) is not int or length < 0 for length in fact):
        raise ValueError("a shape is none")
    return tuple(fact)


def _filled(kind: Any, shape: tuple[int, ...], values: Any) -> Any:
    if math.prod(max(1, length) for length in shape) * max(1, kind.itemsize) > _MAX_BYTES:
        raise ValueError("an array is too large")
    if kind.kind != "O":
        return numpy.array(value(values), _counted(kind)).view(kind).reshape(shape)
    array, flat = numpy.empty(shape, object), [values]
    for _ in shape:
        flat = [item for part in flat for item in part]
    places = array.reshape(-1)
    if len(flat) != len(places):
        raise ValueError("an array has not as many values as its shape says")
    for place, item in enumerate(flat):
        places[place] = value(item)
    return array


def _any_array(facts: dict[str, Any]) -> Any:
    """Return an array of a dtype and shape, which needs no memory."""
    return numpy.broadcast_to(numpy.zeros((), _dtype(facts["dtype"])), _shape(facts["shape"]))


def _array(facts: dict[str, Any]) -> Any:
    shape = (facts["rows"], *facts["shape"][1:])
    return _filled(_dtype(facts["dtype"]), _shape(shape), facts["values"])


def _any_matrix(facts: dict[str, Any]) -> Any:
    """Return a matrix of a dtype and width; in rows, because columns without values need memory."""
    from scipy.sparse import csr_matrix

    return csr_matrix((1, _shape(facts["shape"])[1]), dtype=_dtype(facts["dtype"]))


def _matrix(facts: dict[str, Any]) -> Any:
    from scipy import sparse

    shape = _shape([facts["rows"], facts["shape"][1]])
    if facts["kind"] == "csc" and shape[1] > _MAX_COLUMNS:
        raise ValueError("a matrix is too wide")
    values = numpy.array(value(facts["values"]), _dtype(facts["dtype"]))
    make = sparse.csc_matrix if facts["kind"] == "csc" else sparse.csr_matrix
    return make((values, (facts["row"], facts["column"])), shape)


def _series(column: dict[str, Any]) -> Any:
    """Return all values of a column that are known."""
    kind, values = column["dtype"], column["values"]
    if isinstance(kind, dict):
        return pandas.Series(_EXTENDED[kind["kind"]](kind, values))
    array = _filled(_dtype(kind), (len(values),), values)
    return pandas.Series(array, dtype=array.dtype)


def _extension(kind: dict[str, Any], values: Any) -> Any:
    if not _EXTENSIONS.fullmatch(kind["name"]):
        raise ValueError(f"{kind['name']!r:.100} is no type of a column")
    return pandas.array(value(values), dtype=kind["name"])


def _zoned(kind: dict[str, Any], values: Any) -> Any:
    moments = pandas.DatetimeIndex(_times(values, _unit(kind)))
    return moments.tz_localize("UTC").tz_convert(_zone(kind["zone"]))


def _category(kind: dict[str, Any], values: Any) -> Any:
    named, typed = value(kind["categories"]), kind["type"]
    if not isinstance(typed, dict):
        index = pandas.Index(named, dtype=_dtype(typed))
    elif typed["kind"] == "zoned":
        index = pandas.DatetimeIndex(named)
    else:
        index = pandas.Index(_extension(typed, kind["categories"]))
    return pandas.Categorical.from_codes(values, categories=index, ordered=kind["ordered"])


_EXTENDED: dict[str, Callable[[dict[str, Any], Any], Any]] = {
    "extension": _extension,
    "zoned": _zoned,
    "category": _category,
}


def _frame(facts: dict[str, Any], length: int) -> Any:
    """Return a frame of so many rows; a column that has fewer repeats its last value."""
    columns = facts["columns"]
    if length * len(columns) > _MAX_CELLS:
        raise ValueError("a frame is too large")
    made = {}
    for index, column in enumerate(columns):
        series = _series(column)
        places = [min(place, len(series) - 1) for place in range(length)]
        made[index] = series.iloc[places].reset_index(drop=True)
    frame = pandas.DataFrame(made, index=pandas.RangeIndex(length))
    names = [value(column["name"]) for column in columns]
    if facts["levels"] > 1:
        frame.columns = pandas.MultiIndex.from_tuples(names)
    elif names:
        frame.columns = pandas.Index(names, tupleize_cols=False)
    return frame


def _any_frame(facts: dict[str, Any]) -> Any:
    return _frame(facts, max((len(column["values"]) for column in facts["columns"]), default=0))


def _any_series(facts: dict[str, Any]) -> Any:
    (column,) = facts["columns"]
    return _series(column).rename(value(column["name"]))


_STAND_INS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "array": _any_array,
    "arrays": lambda facts: {value(name): _any_array(one) for name, one in facts["items"]},
    "csr": _any_matrix,
    "csc": _any_matrix,
    "frame": _any_frame,
    "series": _any_series,
    "list": lambda facts: value(facts["values"]),
    "value": lambda facts: value(facts["value"]),
}
_FIRST_ROWS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "array": _array,
    "arrays": lambda facts: {value(name): _array(one) for name, one in facts["items"]},
    "csr": _matrix,
    "csc": _matrix,
    "frame": lambda facts: _frame(facts, facts["rows"]),
    "series": lambda facts: _any_series(facts).iloc[: facts["rows"]],
    "list": lambda facts: value(facts["values"][: facts["rows"]]),
    "value": lambda facts: value(facts["value"]),
}
