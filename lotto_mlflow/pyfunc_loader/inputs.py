"""Data on their way to an estimator: as they came, and in another form only on evidence.

What an estimator answers to data as they came is the answer. Another form is tried where that
raises an error, and only where the error, or the estimator itself, says which: names that it was
fitted with and the data lack, arrays that it was fitted on. Where the other form fails, too, the
first error is the one that is raised.

Two things are changed before: what MLflow made of JSON's values, and tables for estimators that
read texts or dicts, or the reverse. Those would iterate over the names of the columns, and answer
something.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from . import fitted

_METHODS = frozenset({"apply", "decision_function", "score_samples", "transform"})


class Predictor:
    """An estimator behind MLflow's ``predict(data, params)``.

    Parameters
    ----------
    model : object
        The unpickled object, with a ``predict`` method.
    example : mapping, optional
        What is known of the input example: ``form``, which is ``list`` or ``series`` where it was
        one, of single values, and ``times``, the unit of each column of times, by name.
    """

    def __init__(self, model: Any, example: Mapping[str, Any] | None = None) -> None:
        self._model = model
        self._example = example or {}

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """Call the method that ``params["predict_method"]`` names, ``predict`` by default.

        Parameters
        ----------
        data : array-like, DataFrame or list of shape (n_samples, n_features)
            What the estimator takes.
        params : dict, optional
            ``predict_method``: ``predict``, any method whose name begins with ``predict_``,
            ``decision_function``, ``score_samples``, ``transform`` or ``apply``.

        Returns
        -------
        object
            What the estimator's method returns; classifiers return shape (n_samples,) from
            ``predict`` and (n_samples, n_classes) from ``predict_proba``.

        Raises
        ------
        ValueError
            If the name is not one of those, or the estimator has no such method.
        """
        name = str((params or {}).get("predict_method") or "predict")
        allowed = name == "predict" or name.startswith("predict_") or name in _METHODS
        method = getattr(self._model, name, None) if allowed else None
        if not callable(method):
            raise ValueError(
                f"{type(self._model).__name__} cannot answer predict_method={name!r}; "
                f"it has {', '.join(self._methods())}"
            )
        given = _in_unit(_unwrapped(data), self._example.get("times") or {})
        return _answer(
            method, self._model, _readable(self._model, given, self._example.get("form"))
        )

    def get_raw_model(self) -> Any:
        """Return the unpickled object itself."""
        return self._model

    def _methods(self) -> list[str]:
        names = {name for name in dir(type(self._model)) if name.startswith("predict_")}
        candidates = sorted(names | _METHODS | {"predict"})
        return [name for name in candidates if callable(getattr(self._model, name, None))]


def _answer(method: Any, model: Any, data: Any) -> Any:
    try:
        return method(data)
    except Exception as error:
        with suppress(Exception):  # the first error is the one to show
            for form in _other_forms(model, data, error):
                with suppress(Exception):
                    return _answer(method, model, form)
        raise


def _other_forms(model: Any, data: Any, error: Exception) -> Iterator[Any]:
    """Yield the forms in which an estimator may accept data that it refused with an error."""
    if isinstance(error, MemoryError):
        return
    names = fitted.names(model)
    if isinstance(data, dict) or _is_rows_of_dicts(data):
        yield _frame_of_dicts(data, names)
    elif names and _can_be_named(model, data, len(names)):
        yield _named(model, data, names)
    elif _is_frame(data):
        if not names and _wants_array(model, data, error):
            yield data.to_numpy()
        yield from _with_categories(data, fitted.categories(model))
    elif _width(data) == 1 and fitted.first_reader(model) is not None:
        yield [row[0] for row in data]
    elif isinstance(error, AttributeError):
        yield from _as_pandas(data, error)
    if fitted.is_booster(model) and not type(data).__name__.endswith("DMatrix"):
        yield sys.modules["xgboost"].DMatrix(data, enable_categorical=True)


def _with_categories(frame: Any, known: list[Any] | None) -> Iterator[Any]:
    """Yield a frame with its texts as the categories of the fit, if the two are as many."""
    import pandas  # MLflow, which calls this, has it

    texts = [name for name, kind in frame.dtypes.items() if kind.kind == "O"] if known else []
    if known and len(texts) == len(known):
        kinds = map(pandas.CategoricalDtype, known)
        yield frame.astype(dict(zip(texts, kinds, strict=True)))


def _wants_array(model: Any, frame: Any, error: Exception) -> bool:
    """Return whether an error over a frame says that the model works with arrays.

    Notes
    -----
    A column that is missing says nothing of the kind: by position, a model would answer with
    another one.
    """
    if isinstance(error, Warning):
        return "fitted without feature names" in str(error)
    if isinstance(error, AttributeError):
        is_of_frame = hasattr(error.obj, "to_numpy")
        return is_of_frame and hasattr(frame.to_numpy(), error.name or "")
    if isinstance(error, KeyError):
        return not isinstance(error.args[0] if error.args else "", str)
    if isinstance(error, TypeError) and "DataFrame" in str(error):
        return True
    is_bad_index = type(error).__name__ == "InvalidIndexError"  # of pandas: X[:, 0]
    return is_bad_index or fitted.has_generated_names(model)


def _as_pandas(data: Any, error: AttributeError) -> Iterator[Any]:
    """Yield data as what has an attribute that they lack: a frame, or a series."""
    import pandas

    if not isinstance(data, (list, tuple)) and not _is_array(data):
        return
    dimensions = data.ndim if _is_array(data) else 2 if _width(data) else 1
    kind = {1: pandas.Series, 2: pandas.DataFrame}.get(dimensions)
    if kind is not None and hasattr(kind, error.name or ""):
        yield kind(data)


def _is_array(data: Any) -> bool:
    return type(data).__module__ == "numpy" and type(data).__name__ == "ndarray"


def _is_frame(data: Any) -> bool:
    return hasattr(data, "columns") and hasattr(data, "to_numpy")


def _is_rows_of_dicts(data: Any) -> bool:
    return isinstance(data, list) and len(data) > 0 and all(isinstance(row, dict) for row in data)


def _can_be_named(model: Any, data: Any, width: int) -> bool:
    """Return whether data lack names and have as many columns as a model.

    Notes
    -----
    What a matrix leaves out is missing for XGBoost, and zero in a frame.
    """
    if _width(data) != width or (hasattr(data, "tocsr") and fitted.is_of_xgboost(model)):
        return False
    return not _is_frame(data) or all(isinstance(column, int) for column in data.columns)


def _width(data: Any) -> int | None:
    """Return how many columns data have, ``None`` where they are no table."""
    shape = getattr(data, "shape", None)
    if shape is not None:
        return int(shape[1]) if len(shape) == 2 else None
    is_table = isinstance(data, (list, tuple)) and len(data) > 0
    return len(data[0]) if is_table and isinstance(data[0], (list, tuple)) else None


def _named(model: Any, data: Any, names: list[str]) -> Any:
    """Return a frame with the names that a model was fitted with.

    Notes
    -----
    One array has one type: CatBoost's categories are integers or text, so that whole numbers in
    such a column were integers.
    """
    import pandas

    if _is_frame(data):
        frame = data.set_axis(names, axis=1)
    elif hasattr(data, "tocsr"):
        return pandas.DataFrame.sparse.from_spmatrix(data, columns=names)
    else:
        frame = pandas.DataFrame(data, columns=names).infer_objects()
    places = model.get_cat_feature_indices() if hasattr(model, "get_cat_feature_indices") else ()
    for name in (names[place] for place in places):
        column = frame[name]
        if column.dtype.kind == "f" and (column % 1 == 0).all():
            frame = frame.assign(**{name: column.astype("int64")})
    return frame


def _frame_of_dicts(data: Any, names: list[str] | None) -> Any:
    """Return a dict of columns, or rows that are dicts, as a frame: their order says nothing."""
    import pandas

    is_row = isinstance(data, dict) and not any(map(_is_sequence, data.values()))
    frame = pandas.DataFrame([data] if is_row else data)
    return frame[names] if names and set(names) == set(frame.columns) else frame


def _is_sequence(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, (str, bytes, dict))


def _unwrapped(data: Any) -> Any:
    """Return what JSON held of data: MLflow makes an array of each value of a dict.

    References
    ----------
    MLflow 3.17, scoring server: ``inputs`` with a list of dicts, and without a signature.
    """
    if isinstance(data, dict) and any(map(_is_wrapped, data.values())):
        return {key: _bare(value) for key, value in data.items()}
    if _is_rows_of_dicts(data) and any(_is_wrapped(v) for row in data for v in row.values()):
        return [{key: _bare(value) for key, value in row.items()} for row in data]
    return data


def _is_wrapped(value: Any) -> bool:
    return _is_array(value) and bool(value.ndim == 0)


def _bare(value: Any) -> Any:
    if not _is_wrapped(value):
        return value
    return value[()] if value.dtype.kind in "mM" else value.item()


def _in_unit(data: Any, units: Mapping[str, str]) -> Any:
    """Return a frame with times in the units of the example: MLflow makes nanoseconds of all."""
    if not units or not _is_frame(data):
        return data
    made = {
        name: f"datetime64[{unit}]"
        for name, unit in units.items()
        if name in data.columns and str(data[name].dtype) == "datetime64[ns]"
    }
    return data.astype(made) if made else data


def _readable(model: Any, data: Any, form: str | None) -> Any:
    """Return a table as the texts or dicts that a model reads, and dicts as the table.

    Notes
    -----
    An estimator that was fitted on a table may take a dict for one with a row for each column.
    """
    is_rows = _is_rows_of_dicts(data)
    if not _is_frame(data) and not is_rows and not (isinstance(data, dict) and data):
        return data
    before, reads = (None, form) if form else fitted.first_reader(model) or (None, None)
    if is_rows and reads == fitted.DICTS:
        return data
    if not reads and not _is_frame(data) and fitted.is_fitted_on_table(model):
        return _frame_of_dicts(data, fitted.names(model))
    frame = _frame_of_items(data, is_single=reads == fitted.DICTS) if reads else None
    if frame is None or (before and _are_rows(before, frame)):
        return data
    if reads == fitted.DICTS:
        return _dicts(frame)
    if frame.shape[1] == 1:
        return frame.iloc[:, 0].tolist() if form == "list" else frame.iloc[:, 0]
    if before or form:
        return data
    raise ValueError(
        f"{type(model).__name__} reads one column of texts, and the data have {frame.shape[1]}: "
        f"{', '.join(map(str, frame.columns))}. Give it the column with the texts only"
    )


def _frame_of_items(data: Any, *, is_single: bool) -> Any:
    """Return a table as a frame, ``None`` for a dict that is none.

    Parameters
    ----------
    data : DataFrame, dict or list of dict
        The data.
    is_single : bool
        Whether the model reads one dict for one row: then only arrays in it are columns.
    """
    if isinstance(data, list):
        return _frame_of_dicts(data, None)
    if isinstance(data, dict):
        kinds = map(_is_array if is_single else _is_sequence, data.values())
        return _frame_of_dicts(data, None) if all(kinds) else None
    return data if hasattr(data, "iloc") else data.to_pandas()


def _dicts(frame: Any) -> list[dict[str, Any]]:
    """Return the rows of a frame as dicts, without what is missing: the row had no such key."""
    there = frame.notna().to_numpy()
    rows = frame.to_dict("records")
    return [
        {key: value for (key, value), is_there in zip(row.items(), kept, strict=True) if is_there}
        for row, kept in zip(rows, there, strict=True)
    ]


def _are_rows(steps: list[Any], frame: Any) -> bool:
    """Return whether steps of a pipeline make one thing of each row of a frame.

    Notes
    -----
    Steps that read texts make one of each column. A frame of so many rows that the two differ
    tells them apart, whatever the caller's has.
    """
    import pandas

    few = frame.head(2)
    rows = pandas.concat([few] * (2 + frame.shape[1] // max(1, len(few))))
    try:
        made: Any = rows
        for step in steps:
            made = step.transform(made)
        count = made.shape[0] if hasattr(made, "shape") else len(made)
    except Exception:  # noqa: BLE001 - whatever a step says of a frame, it cannot use it
        return False
    return bool(count == len(rows))
