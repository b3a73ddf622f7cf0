"""Arrays, frames and matrices of any library as shape, type and a digest of every cell."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from typing import Any

from lotto_mlflow.facts import instance_of

_DIGITS = 8
_FEW = 10
"""Values, columns or types that are shown one by one."""
_BLOCK_BYTES = 2**23
_WIDEST = {"f": 8, "c": 16}
"""Bytes of the widest numbers of which every bit counts."""
WholeText = Callable[[Any], str]
"""Returns the whole text of a value, in which nothing is left out."""


def is_table(value: Any) -> bool:
    """Return whether a value is an array, frame, Series, index or matrix of any library."""
    kind = type(value)
    if isinstance(value, type) or instance_of("numpy", "generic", value):
        return False
    return hasattr(kind, "__array__") or _is_sparse(value)


def text_of(value: Any, whole: WholeText) -> str:
    """Return a text by which tables that differ in a cell differ: type, shape, dtype and digest.

    Parameters
    ----------
    value : array, frame or matrix
        A value of which `is_table` holds.
    whole : callable
        Gives the texts of cells that are objects.

    Notes
    -----
    Equal tables have one text, in whatever order their cells lie in memory.
    """
    if _is_sparse(value):
        return _text_of_sparse(value)
    if instance_of("pandas", "DataFrame", value):
        return _text_of_frame(value, whole)
    if instance_of("pandas", "Series", value):
        hasher = hashlib.sha256()
        _add_series(hasher, value, whole)
        _add_index(hasher, value.index, whole)
        return _summary("Series", value.shape, value.dtype, hasher)
    return _text_of_array(value, whole)


def _is_sparse(value: Any) -> bool:
    is_sparse = getattr(sys.modules.get("scipy.sparse"), "issparse", None)
    return is_sparse is not None and bool(is_sparse(value))


def _summary(name: str, shape: Any, dtype: Any, hasher: Any, values: str = "") -> str:
    lengths = tuple(map(int, shape))
    digest = hasher.hexdigest()[:_DIGITS]
    return f"{name}({values}shape={lengths}, dtype={dtype}, digest={digest})"


def _text_of_array(value: Any, whole: WholeText) -> str:
    import numpy

    is_own = isinstance(value, numpy.ndarray)
    array = value if is_own else numpy.asarray(value)
    name = type(value).__name__
    if is_own:
        name = "masked_array" if isinstance(value, numpy.ma.MaskedArray) else "array"
    hasher = hashlib.sha256()
    _add_array(hasher, array, whole)
    values = f"{whole(array.tolist())}, " if array.size <= _FEW and array.ndim else ""
    values = values or (f"{whole(array[()])}, " if not array.ndim else "")
    return _summary(name, array.shape, _native(array.dtype), hasher, values)


def _text_of_frame(frame: Any, whole: WholeText) -> str:
    hasher = hashlib.sha256()
    hasher.update(_in_bytes(whole(list(frame.columns))))
    for number in range(frame.shape[1]):
        _add_series(hasher, frame.iloc[:, number], whole)
    _add_index(hasher, frame.index, whole)
    kinds = sorted({str(kind) for kind in frame.dtypes})
    shown = "/".join(kinds[:_FEW]) or "none"
    few = frame.shape[1] <= _FEW
    columns = f"columns={whole(list(frame.columns))}, " if few else ""
    return _summary("DataFrame", frame.shape, shown, hasher, columns)


def _text_of_sparse(matrix: Any) -> str:
    import numpy

    plain = matrix.tocoo(copy=True)
    plain.sum_duplicates()
    plain.eliminate_zeros()
    places = getattr(plain, "coords", None) or (plain.row, plain.col)
    order = numpy.lexsort(places)
    hasher = hashlib.sha256(repr(tuple(map(int, plain.shape))).encode())
    for one in places:
        _add_array(hasher, numpy.asarray(one, "int64")[order], repr)
    _add_array(hasher, numpy.asarray(plain.data)[order], repr)
    return _summary("sparse", plain.shape, plain.dtype, hasher, f"stored={len(order)}, ")


def _add_series(hasher: Any, series: Any, whole: WholeText) -> None:
    import numpy

    if isinstance(series.dtype, numpy.dtype):
        _add_array(hasher, series.to_numpy(), whole)
        return
    hasher.update(_in_bytes(str(series.dtype)))
    _add_row_hashes(hasher, series, whole)


def _add_index(hasher: Any, index: Any, whole: WholeText) -> None:
    if index.nlevels > 1:
        _add_row_hashes(hasher, index, whole)
    else:
        _add_series(hasher, index.to_series(), whole)


def _add_row_hashes(hasher: Any, values: Any, whole: WholeText) -> None:
    from pandas.util import hash_pandas_object

    try:
        hashes = hash_pandas_object(values, index=False)
    except TypeError:  # of cells such as lists
        hasher.update(_in_bytes(whole(list(values))))
        return
    hasher.update(hashes.to_numpy(dtype="uint64").tobytes())


def _add_array(hasher: Any, array: Any, whole: WholeText) -> None:
    """Add type, shape and all cells in row order, a block at a time."""
    import numpy

    kind = _native(array.dtype)
    hasher.update(_in_bytes(f"{kind} {tuple(array.shape)}"))
    if isinstance(array, numpy.ma.MaskedArray):  # what lies under the mask does not count
        mask = numpy.ma.getmaskarray(array)
        array = numpy.array(array.data, copy=True)
        array[mask] = numpy.zeros((), array.dtype)
        _add_array(hasher, mask, whole)
    array = numpy.atleast_1d(numpy.asarray(array))
    if kind.names:  # between the fields may lie bytes that say nothing
        for name in kind.names:
            _add_array(hasher, array[name], whole)
    elif kind.hasobject or kind.itemsize > _WIDEST.get(kind.kind, kind.itemsize):
        hasher.update(_in_bytes(whole(list(array.ravel()))))
    else:
        step = max(1, _BLOCK_BYTES * len(array) // max(1, array.nbytes))
        for start in range(0, len(array), step):
            hasher.update(_cells(array[start : start + step], kind).tobytes())


def _cells(block: Any, kind: Any) -> Any:
    """Return a part of an array such that equal numbers are equal bytes."""
    import numpy

    native = numpy.ascontiguousarray(block, dtype=kind)
    if kind.kind not in "fc":
        return native
    if kind.kind == "c":
        native = native.view(f"f{kind.itemsize // 2}")
    with numpy.errstate(all="ignore"):
        positive = native + native.dtype.type(0)  # there are two zeros, and many NaN
    positive[positive != positive] = numpy.nan
    return positive


def _native(kind: Any) -> Any:
    return kind.newbyteorder("=")


def _in_bytes(text: str) -> bytes:
    return f"{text}\n".encode("utf-8", "surrogatepass")
