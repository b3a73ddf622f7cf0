"""Work done beside other work, while that waits for the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

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
    from concurrent.futures import Future  # here, because importing this package costs little

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
