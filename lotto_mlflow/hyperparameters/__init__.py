"""The hyperparameters of an estimator, as texts that can be compared."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lotto_mlflow.hyperparameters.texts import constructor_values, is_estimator, text_of
from lotto_mlflow.metadata import writable
from lotto_mlflow.text import safe_line

__all__ = ["of"]

_logger = logging.getLogger("lotto_mlflow")
_MAX_DEPTH = 20
"""Estimators inside estimators."""


def of(model: Any) -> dict[str, str]:
    """Return the text of each hyperparameter of an estimator, those of the estimators in it too.

    Parameters
    ----------
    model : object
        Any object; one without ``get_params`` has none.

    Returns
    -------
    dict of str to str
        Named as scikit-learn names them: ``C``, ``classify__C``. Texts are as
        `lotto_mlflow.hyperparameters.texts.text_of` writes them.

    Notes
    -----
    Never raises. What an estimator of one's own does not give is left out with a warning, and the
    others are kept.
    """
    if isinstance(model, type) or not is_estimator(model):
        return {}
    values = _with_inner(model, ())
    own_entry = frozenset(id(value) for value in values.values() if is_estimator(value))
    return {writable(name): writable(text_of(value, own_entry)) for name, value in values.items()}


def _with_inner(estimator: Any, parents: tuple[int, ...]) -> dict[str, Any]:
    """Return the hyperparameters of an estimator, and below them those of the ones inside it."""
    values = _asked(estimator)
    if len(parents) >= _MAX_DEPTH:
        return values
    parents = (*parents, id(estimator))
    for key, value in list(values.items()):
        for name, inner in _estimators_in(key, value):
            is_given = any(other.startswith(f"{name}__") for other in values)
            if id(inner) in parents or is_given or values.get(name, inner) is not inner:
                continue
            values[name] = inner
            below = _with_inner(inner, parents)
            values |= {f"{name}__{key_below}": one for key_below, one in below.items()}
    return values


def _estimators_in(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield an estimator, or the named ones of a pipeline's steps, by the names of scikit-learn."""
    if is_estimator(value):
        yield key, value
    elif type(value) is list:
        above, separator, _ = key.rpartition("__")
        for item in value:
            is_named = type(item) is tuple and len(item) > 1 and type(item[0]) is str
            if is_named and is_estimator(item[1]):
                yield f"{above}{separator}{item[0]}", item[1]


def _asked(estimator: Any) -> dict[str, Any]:
    """Return what an estimator answers, however it wants to be asked.

    Notes
    -----
    Of scikit-learn's own ``get_params(deep=True)`` nothing comes back where one estimator inside
    takes no ``deep``, or raises.
    """
    ways: tuple[Callable[[], Any], ...] = (
        lambda: estimator.get_params(deep=True),
        lambda: estimator.get_params(deep=False),
        lambda: estimator.get_params(),
    )
    problem = ""
    for ask in ways:
        try:
            found = ask()
            if isinstance(found, Mapping):
                return {str(key): value for key, value in found.items()}
            problem = problem or f"get_params gives {type(found).__name__}, not a dict"
        except Exception as cause:  # noqa: BLE001 - another library's code; a save goes on without
            problem = _as_text(cause)
    found = constructor_values(estimator)
    _logger.warning(
        "%s gives no hyperparameters (%s); those that its attributes show are kept: %s",
        type(estimator).__name__,
        problem,
        safe_line(", ".join(found)) or "none",
    )
    return found


def _as_text(cause: Exception) -> str:
    try:
        return safe_line(f"{type(cause).__name__}: {cause}")[:300]
    except Exception:  # noqa: BLE001 - an error of one's own, whose text raises another
        return type(cause).__name__
