"""The one place where the errors of MLflow, and of what is below it, become ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from lotto_mlflow.errors import LottoMlflowError, MirrorError, MirrorUnavailableError

_T = TypeVar("_T")

_CONDEMNING = frozenset({"INVALID_PARAMETER_VALUE"})
"""Answers to a record that will be the same however often it is sent."""
_TOO_LARGE = 413


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn whatever MLflow raises into `MirrorError` or `MirrorUnavailableError`.

    Parameters
    ----------
    doing : str
        What was asked of MLflow, for the message.
    """
    try:
        yield
    except LottoMlflowError:
        raise
    except Exception as cause:
        code = getattr(cause, "error_code", None)
        status = getattr(getattr(cause, "response", None), "status_code", None)
        is_condemned = code in _CONDEMNING or status == _TOO_LARGE
        kind = MirrorError if is_condemned else MirrorUnavailableError
        first_line = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise kind(
            f"{doing} failed: {type(cause).__name__}: {first_line:.500}", error_code=code
        ) from cause


@contextmanager
def condemning(doing: str) -> Iterator[None]:
    """Turn a failure of work on a record, in which MLflow was not asked, into `MirrorError`.

    Parameters
    ----------
    doing : str
        What was done, for the message.
    """
    try:
        yield
    except (OSError, LottoMlflowError):
        raise  # the disk, which says nothing of the record
    except Exception as cause:
        raise MirrorError(
            f"{doing} failed: {type(cause).__name__}: {cause}", error_code=None
        ) from cause


def bounded(call: Callable[[], _T], seconds: float, doing: str) -> _T:
    """Return what a call returns, if it does within the time.

    Raises
    ------
    MirrorUnavailableError
        If it takes longer. MLflow's calls cannot be stopped: it goes on, unheeded, in a daemon
        thread.
    """
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["value"] = call()
        except BaseException as cause:  # noqa: BLE001 - handed over to the waiting thread
            outcome["error"] = cause

    thread = threading.Thread(target=run, name="lotto_mlflow-lookup", daemon=True)
    thread.start()
    thread.join(seconds)
    if "error" in outcome:
        raise outcome["error"]
    if "value" not in outcome:
        raise MirrorUnavailableError(f"{doing} got no answer within {seconds:g} s", error_code=None)
    value: _T = outcome["value"]
    return value
