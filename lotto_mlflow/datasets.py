"""The data sets that a model was trained and tested on: checked, digested and recorded.

Nothing here needs MLflow, so that they are refused or recorded whatever state MLflow is in.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any
from unicodedata import category

from lotto_mlflow import facts
from lotto_mlflow.errors import InvalidDatasetError
from lotto_mlflow.metadata import writable

_logger = logging.getLogger("lotto_mlflow")
DEFAULT_NAME = "train"
"""Name of a data set that is given without one."""
MAX_NAME = 250
_BLOCK_BYTES = 2**23
_DIGITS = 16
"""MLflow 3.17 accepts 36 characters; these are enough to tell apart what one project trains on."""
_LIMITS = {"name": 500, "digest": 36, "source": 65_535, "source_type": 36}
"""Characters that MLflow 3.17 accepts (mlflow.utils.validation)."""


def checked(dataset: Any) -> dict[str, Any]:
    """Return each data set by its name.

    Parameters
    ----------
    dataset : DataFrame, ndarray, list of rows, mlflow.data Dataset, or mapping of name to these
        One data set is named `DEFAULT_NAME`. A Series becomes a DataFrame, a list an array.

    Raises
    ------
    InvalidDatasetError
        If there is none, or a name or a value is not one. Nothing has been touched.
    """
    named = dataset if isinstance(dataset, Mapping) else {DEFAULT_NAME: dataset}
    if not named:
        raise _refused("dataset", "is an empty dict; give one data set at least, or leave it out")
    return {_name(name): _data(name, value) for name, value in named.items()}


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise _refused("dataset", f"has the name {name!r:.200}, which is no text")
    if len(name) > MAX_NAME or any(category(character) in ("Cc", "Cs") for character in name):
        raise _refused(
            "dataset", f"has the name {name!r:.200}; give {MAX_NAME} plain characters at most"
        )
    return str.__str__(name)


def _data(name: str, value: Any) -> Any:
    if is_frame(value) or is_described(value):
        return value
    if facts.instance_of("pandas", "Series", value):
        return value.to_frame()
    if isinstance(value, list) and value:
        value = _array(name, value)
    if is_array(value) and value.ndim:
        return value
    raise _refused(
        f"dataset {name!r}",
        f"is {type(value).__name__}; give a pandas DataFrame, a numpy array with a row for each "
        "sample, or a dict of name to these",
    )


def _array(name: str, rows: list[Any]) -> Any:
    import numpy

    try:
        array = numpy.asarray(rows)
    except ValueError as cause:
        raise _refused(f"dataset {name!r}", f"is no table: {cause}") from cause
    if array.dtype.hasobject:
        raise _refused(f"dataset {name!r}", "is a list of things that are no numbers or text")
    return array


def is_frame(value: Any) -> bool:
    """Return whether a value is a pandas DataFrame, without importing pandas."""
    return facts.instance_of("pandas", "DataFrame", value)


def is_array(value: Any) -> bool:
    """Return whether a value is a numpy array, without importing numpy."""
    return facts.instance_of("numpy", "ndarray", value)


def is_described(value: Any) -> bool:
    """Return whether a value is a data set that the caller made with `mlflow.data`."""
    return facts.instance_of("mlflow.data.dataset", "Dataset", value)


def _refused(what: str, problem: str) -> InvalidDatasetError:
    return InvalidDatasetError(f"{what} {problem}; nothing was saved")


def recorded(named: Mapping[str, Any], source: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what a save record keeps of data sets.

    Parameters
    ----------
    named : mapping of str to object
        What `checked` returned.
    source : mapping of str to str
        The program that saves, as `lotto_mlflow.description.source_tags` returns it; the source of
        a data set that names none. The folders of a machine are left out.

    Returns
    -------
    list of dict
        ``context``, ``name``, ``digest``, ``source``, ``source_type`` and ``shape``; ``facts`` of
        its columns, in the form of `lotto_mlflow.facts.of`, of which MLflow makes schema and
        profile at the push; of one that `mlflow.data` made, ``schema`` and ``profile`` themselves.

    Notes
    -----
    One that cannot be described is left out with a warning: a data set never fails a save.
    """
    name = PurePath(source["mlflow.source.name"])
    program = dict(source) | {"mlflow.source.name": name.name if name.is_absolute() else str(name)}
    found = []
    for context, data in named.items():
        try:
            found.append(_recorded(context, data, program))
        except Exception as cause:  # noqa: BLE001 - another library's code; a save goes on without
            _logger.warning(
                "dataset %r is not recorded, because it cannot be described: %s: %s",
                context,
                type(cause).__name__,
                cause,
            )
    return found


def _recorded(context: str, data: Any, source: dict[str, str]) -> dict[str, Any]:
    if is_described(data):
        values = _described(data)
    else:
        values = {
            "name": context,
            "digest": digest_of(data),
            "source": json.dumps({"tags": source}),
            "source_type": "code",
            "facts": _facts(data),
        }
    for key, limit in _LIMITS.items():
        if not isinstance(values[key], str):
            raise TypeError(f"its {key} is no text")
        if len(values[key]) > limit:
            raise ValueError(f"its {key} is longer than the {limit} characters that MLflow accepts")
    shape = getattr(data, "shape", None)
    return values | {"context": context, "shape": None if shape is None else list(shape)}


def _described(data: Any) -> dict[str, Any]:
    """Return what a data set that `mlflow.data` made says of itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's hints on integers, at every save
        described = data.to_dict()
    keys = ("name", "digest", "source", "source_type", "schema", "profile")
    values = {key: described.get(key) for key in keys}
    return {key: writable(v) if isinstance(v, str) else None for key, v in values.items()}


def _facts(data: Any) -> dict[str, Any] | None:
    """Return the facts of a table without any row; ``None`` where MLflow knows no such table."""
    if is_frame(data) and data.columns.nlevels == 1:  # the UI expects text as names
        data = data.copy(deep=False)
        data.columns = [str(column) for column in data.columns]
    try:
        return facts.of(data, None)
    except Exception:  # noqa: BLE001 - another library's code; the shape is recorded in any case
        return (
            {"kind": "frame", "shape": list(data.shape), "columns": None}
            if is_frame(data)
            else None
        )


def digest_of(data: Any) -> str:
    """Return a digest over all values of a DataFrame or array, its column names and its shape.

    Notes
    -----
    MLflow 3.17 looks at the first 10,000 rows or values only (``mlflow.data.digest_utils``), so a
    history that was corrected further on would seem unchanged.
    """
    import hashlib  # imported lazily

    hasher = hashlib.sha256()
    if is_frame(data):
        _add_frame(hasher, data)
    elif data.dtype.hasobject or data.dtype.kind not in "biufcSUMmV":
        _add_objects(hasher, data)
    else:
        _add_array(hasher, data)
    return hasher.hexdigest()[:_DIGITS]


def _add_frame(hasher: Any, frame: Any) -> None:
    """Add the values; their dtypes show in the hashes, and their names vary between releases."""
    hasher.update(json.dumps([[str(column) for column in frame.columns], frame.shape]).encode())
    hasher.update(_row_hashes(frame))


def _add_objects(hasher: Any, array: Any) -> None:
    import pandas

    _add_shape(hasher, array)
    hasher.update(_row_hashes(pandas.Series(array.astype(object).ravel())))


def _row_hashes(table: Any) -> bytes:
    """Return pandas' hashes of the rows, which depend on the order of the columns, too."""
    from pandas.util import hash_pandas_object

    try:
        hashes = hash_pandas_object(table)
    except TypeError:  # a cell such as a list cannot be hashed, and is hashed as text then
        hashes = hash_pandas_object(table.astype(str))
    content: bytes = hashes.to_numpy(dtype="uint64").tobytes()
    return content


def _add_array(hasher: Any, array: Any) -> None:
    """Add the bytes in row order, a block at a time: a copy of the whole may not fit in memory."""
    import numpy

    _add_shape(hasher, array)
    if isinstance(array, numpy.ma.MaskedArray):  # whose bytes do not show which of them count
        _add_array(hasher, numpy.ma.getmaskarray(array))
    row_bytes = max(1, array.nbytes // max(1, len(array)))
    step = max(1, _BLOCK_BYTES // row_bytes)
    for start in range(0, len(array), step):
        block = numpy.ascontiguousarray(array[start : start + step])
        hasher.update(block.tobytes())


def _add_shape(hasher: Any, array: Any) -> None:
    hasher.update(json.dumps([str(array.dtype), array.shape]).encode())
