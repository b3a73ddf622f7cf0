"""An input example and the model's answer to it, recorded while the model is at hand."""

from __future__ import annotations

import logging
import warnings
from copy import copy
from typing import Any

from lotto_mlflow import facts

_logger = logging.getLogger("lotto_mlflow")


def recorded(model: Any, input_example: Any) -> dict[str, Any] | None:
    """Return what a save record keeps of an input example: facts of ``input`` and ``output``.

    Parameters
    ----------
    model : object
        The live model; its ``predict`` is called once.
    input_example : object
        Rows that the model can predict.

    Returns
    -------
    dict or None
        Facts in the form of `lotto_mlflow.facts.of`; ``output`` is ``None`` where the answer has
        none.

    Notes
    -----
    MLflow is not needed: it makes a signature of the facts when the save is pushed. Where
    prediction fails there is ``None`` and a warning, where the example cannot be recorded a line
    of information: an example never fails a save.
    """
    try:
        given = facts.of(input_example)
    except Exception as cause:  # noqa: BLE001 - another library's code; a save goes on without
        _log_unrecorded("input_example", cause)
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what libraries advise about few rows, at every save
            answer = _predicted(model, input_example)
    except Exception as cause:  # noqa: BLE001 - the model's code; a save goes on without
        _logger.warning(
            "no signature could be inferred from input_example, so the model is saved without "
            "one: %s: %s",
            type(cause).__name__,
            cause,
        )
        return None
    return {"input": given, "output": _answered(answer)}


def _answered(answer: Any) -> dict[str, Any] | None:
    if answer is None:
        return None
    try:
        return facts.of(answer)
    except Exception as cause:  # noqa: BLE001 - another library's code; a save goes on without
        _log_unrecorded("the model's answer to input_example", cause)
        return None


def _log_unrecorded(what: str, cause: Exception) -> None:
    _logger.info(
        "%s cannot be recorded, so that the signature in MLflow says nothing of it: %s: %s",
        what,
        type(cause).__name__,
        cause,
    )


def _predicted(model: Any, input_example: Any) -> Any:
    """Predict without the caller's autologging noting it in the run in which the model was fitted.

    Notes
    -----
    Autologging finds that run by an attribute that it sets (mlflow.sklearn of MLflow 3.17); there
    is no public way to silence it for one call.
    """
    unknown = copy(model)
    getattr(unknown, "__dict__", {}).pop("_mlflow_run_id", None)
    return unknown.predict(input_example)
