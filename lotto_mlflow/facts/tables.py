"""What a schema is inferred from, and the first rows: arrays, frames, lists and the like.

The facts of a table are enough to infer the schema of *all* its rows: beside the first rows they
hold one value for each form that only other rows show, such as a missing value in row 100.
"""

from __future__ import annotations

import json
from typing import Any

from lotto_mlflow.facts.values import (
    array_values,
    dtype,
    instance_of,
    plain,
    reduced,
    samples,
    zone,
)

ROWS = 5
"""Rows of an input example that are kept."""
_MAX_CHARACTERS = 2**22
_MAX_CATEGORIES = 100


def of(value: Any, rows: int | None = ROWS) -> dict[str, Any]:
    """Return the facts of a value: ``kind``, ``rows`` and what belongs to that kind.

    Parameters
    ----------
    value : array, DataFrame, Series, csr_matrix, csc_matrix, list, dict or scalar
        Anything that a model takes or answers.
    rows : int or None
        How many first rows are kept in full; ``None`` keeps none of any.

    Returns
    -------
    dict
        Strict JSON. Its ``rows`` is ``None`` where no row is kept, too, because the rows are too
        large, or have no plain form.

    Raises
    ------
    TypeError, ValueError
        If it has no plain form.
    """
    facts = _of(value, rows)
    if len(_json(facts)) > _MAX_CHARACTERS and rows is not None:
        facts = _of(value, None)
    if len(_json(facts)) > _MAX_CHARACTERS:
        raise ValueError("its schema is too large")
    return facts


def _json(facts: dict[str, Any]) -> str:
    return json.dumps(facts, allow_nan=False)


def _of(value: Any, rows: int | None) -> dict[str, Any]:
    if instance_of("pandas", "DataFrame", value):
        return _frame(value, rows)
    if instance_of("pandas", "Series", value):
        names_rows = _kept(rows, len(value))
        column = _column(value, value.name, names_rows)
        return {"kind": "series", "rows": names_rows, "shape": [len(value)], "columns": [column]}
    if instance_of("numpy", "ndarray", value):
        return _array(value, rows)
    for kind in ("csr", "csc"):
        if instance_of("scipy.sparse", f"{kind}_matrix", value):
            return _matrix(value, kind, rows)
    if isinstance(value, list):
        kept = _kept(rows, len(value))
        facts = {"kind": "list", "rows": kept, "shape": [len(value)]}
        return facts | {"values": _values(value, kept)}
    if isinstance(value, dict) and value and all(map(_is_array, value.values())):
        arrays = [[plain(name), _array(array, rows)] for name, array in value.items()]
        is_kept = all(facts["rows"] is not None for _, facts in arrays)
        return {"kind": "arrays", "rows": rows if is_kept else None, "items": arrays}
    found = reduced(value) if rows is None else plain(value)
    return {"kind": "value", "rows": rows, "value": found}


def _is_array(value: Any) -> bool:
    return instance_of("numpy", "ndarray", value)


def _kept(rows: int | None, length: int) -> int | None:
    return None if rows is None else min(rows, length)


def _values(values: list[Any], rows: int | None) -> list[Any]:
    """Return the first values in full, and one for each form that only later ones have."""
    first = values[: rows or 0]
    shown = {json.dumps(fact) for fact in samples(first)}
    later = [fact for fact in samples(values) if json.dumps(fact) not in shown]
    return [*map(plain, first), *later]


def _array(array: Any, rows: int | None) -> dict[str, Any]:
    facts = {"kind": "array", "dtype": dtype(array.dtype), "shape": list(array.shape)}
    facts["bytes"] = array.nbytes
    try:
        first = None if rows is None or not array.ndim else array_values(array[:rows])
    except (TypeError, ValueError):
        first = None
    rows = None if first is None else _kept(rows, len(array))
    return facts | {"rows": rows, "values": first}


def _matrix(matrix: Any, kind: str, rows: int | None) -> dict[str, Any]:
    facts = {"kind": kind, "dtype": dtype(matrix.dtype), "shape": list(matrix.shape)}
    rows = _kept(rows, matrix.shape[0])
    if rows is None:
        return facts | {"rows": None, "row": [], "column": [], "values": []}
    first = matrix[:rows].tocoo()
    places = {"row": first.row.tolist(), "column": first.col.tolist()}
    return facts | {"rows": rows} | places | {"values": array_values(first.data)}


def _frame(frame: Any, rows: int | None) -> dict[str, Any]:
    rows = _kept(rows, len(frame))
    columns = [_column(frame.iloc[:, i], name, rows) for i, name in enumerate(frame.columns)]
    facts = {"kind": "frame", "rows": rows, "shape": list(frame.shape)}
    return facts | {"levels": frame.columns.nlevels, "columns": columns}


def _column(series: Any, name: Any, rows: int | None) -> dict[str, Any]:
    """Return a column: its name, its type, its first values, and what only later ones show."""
    named = plain(_without_numpy(name))
    kind, first = series.dtype, rows or 0
    if instance_of("numpy", "dtype", kind) and kind.kind == "O":
        return {"name": named, "dtype": "|O", "values": _values(series.tolist(), rows)}
    missing = _missing(series)
    is_new = bool(missing[first:].any() and not missing[:first].any())
    is_first_present = bool(missing[:first].all() and not missing.all())
    kept = [*range(first)] + ([int(missing.argmax())] if is_new else [])
    any_value = [0] if len(series) else []  # where no row is kept, one says that there are some
    if instance_of("pandas", "CategoricalDtype", kind):
        return {"name": named} | _categories(series, kept, first)
    if instance_of("numpy", "dtype", kind):
        values = array_values(series.iloc[kept].to_numpy())
        return {"name": named, "dtype": _dtype(kind), "values": values or any_value}
    if instance_of("pandas", "DatetimeTZDtype", kind):
        values = array_values(series.iloc[kept].to_numpy(dtype=f"datetime64[{kind.unit}]"))
        return {"name": named, "dtype": _dtype(kind), "values": values or any_value}
    values = [plain(value) for value in series.iloc[kept].tolist()]
    if is_first_present:
        values += samples([series.iloc[int(missing.argmin())]])
    return {"name": named, "dtype": _dtype(kind), "values": values}


def _dtype(kind: Any) -> Any:
    """Return a dtype of pandas, but for a categorical one."""
    if instance_of("numpy", "dtype", kind):
        return dtype(kind)
    if instance_of("pandas", "DatetimeTZDtype", kind):
        return {"kind": "zoned", "unit": kind.unit, "zone": zone(kind.tz)}
    return {"kind": "extension", "name": str(kind)}


def _without_numpy(name: Any) -> Any:
    """Return a column's name as JSON would write it, so that a schema with it can be written."""
    if isinstance(name, tuple):
        return tuple(map(_without_numpy, name))
    is_number = instance_of("numpy", "generic", name) and name.dtype.kind in "biufUS"
    return name.item() if is_number else name


def _missing(series: Any) -> Any:
    """Return which values are missing; NaN counts, also where a type tells it from missing."""
    missing = series.isna().to_numpy(dtype=bool)
    if series.dtype.kind != "f":
        return missing
    return missing | (series != series).to_numpy(dtype=bool, na_value=True)


def _categories(series: Any, kept: list[int], first: int) -> dict[str, Any]:
    """Return a categorical column: its categories, and for each value the place of its own.

    Notes
    -----
    The categories of the first rows are kept, and all where they are few; then one for each form
    that only other categories have.
    """
    codes, named = series.cat.codes.to_numpy(), series.cat.categories.tolist()
    used, seen = set(series.cat.codes.unique().tolist()) - {-1}, set(codes[:first].tolist()) - {-1}
    is_short = bool(first) and len(named) <= _MAX_CATEGORIES
    wanted = range(len(named)) if is_short else sorted(seen)
    place = {code: index for index, code in enumerate(wanted)}
    values = [place.get(code, -1) for code in codes[kept].tolist()]
    categories = [plain(named[code]) for code in wanted]
    if is_short:
        values += sorted(used - seen)
    else:
        shown = {json.dumps(fact) for fact in samples([named[code] for code in wanted])}
        forms = samples([named[code] for code in sorted(used)])
        categories += [fact for fact in forms if json.dumps(fact) not in shown]
        values += range(len(wanted), len(categories))
    typed = {"kind": "category", "ordered": bool(series.cat.ordered), "categories": categories}
    return {"dtype": typed | {"type": _dtype(series.cat.categories.dtype)}, "values": values}
