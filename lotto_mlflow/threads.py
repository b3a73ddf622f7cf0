"""Calls in threads of their own: beside other work, or bounded in time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from lotto_mlflow.errors import MirrorUnavailableError

_T = TypeVar("_T")


def started(call: Callable[[], _T]) -> Callable[[], _T]:
    """Begin a call in a thread.

    Parameters
    ----------
    call : callable
        What to do.

    Returns
    -------
    callable
        Waits for the end of the call, and returns what it returned or raises what it raised.

    Notes
    -----
    Where no thread can be started, as in a hook at the interpreter's exit, the call is made when
    it is waited for.
    """
    from concurrent.futures import Future  # imported lazily

    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as cause:  # noqa: BLE001 - raised again where it is waited for
            future.set_exception(cause)

    try:
        threading.Thread(target=run, daemon=True).start()
    except RuntimeError:
        return call
    return future.result


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
