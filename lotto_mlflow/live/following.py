"""`Following`: the thread that checks, across forks and until the interpreter ends."""

from __future__ import annotations

import atexit
import importlib
import itertools
import os
import threading
import time
import weakref
from functools import cache, partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol

_SHORTEST_PAUSE = 0.1
"""Part of the time from check to check that lies between two, however long one lasts."""
_WAIT_SECONDS = 5.0
"""How long a fork, an end, and the exit of the interpreter wait for a check under way."""


class Checking(Protocol):
    """What is checked in the background."""

    checking: Any
    """The reentrant lock of whoever checks."""

    def check_in_background(self) -> None:
        """Check, unless somebody else does; raises nothing."""

    def begin(self) -> None:
        """Make its locks and its thread anew."""

    def end(self) -> None:
        """Have later checks do nothing."""


class Following:
    """A daemon thread that checks something until that is ended, or not used any more.

    Parameters
    ----------
    checked : Checking
        What is checked. Only the thread refers to it, and only during a check.

    Notes
    -----
    The thread waits on a `queue.SimpleQueue`: of what wakes a thread, that alone may be used by the
    callback of a weak reference, which the garbage collector calls at any moment.
    """

    def __init__(self, checked: Checking) -> None:
        self._key = next(_keys)
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.checked = weakref.ref(checked, partial(_forget, self._key, self._wakes))

    @classmethod
    def of(cls, checked: Checking, every_seconds: float) -> Following:
        """Start a thread whose checks begin so many seconds apart.

        Raises
        ------
        RuntimeError
            If no thread can be started.
        """
        _watch_process()
        following = cls(checked)
        _FOLLOWING[following._key] = following
        arguments = (following.checked, following._wakes, every_seconds)
        following._thread = threading.Thread(
            target=_check_again_and_again, args=arguments, name="lotto_mlflow-live", daemon=True
        )
        try:
            following._thread.start()
        except RuntimeError:
            _FOLLOWING.pop(following._key, None)
            raise
        return following

    def end(self) -> None:
        """Have the thread end, and wait for it, five seconds at most."""
        _forget(self._key, self._wakes)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_WAIT_SECONDS)


_FOLLOWING: dict[int, Following] = {}
"""Those whose threads run in this process."""
_keys = itertools.count()


def _forget(key: int, wakes: SimpleQueue[None], _reference: object = None) -> None:
    _FOLLOWING.pop(key, None)
    wakes.put(None)


def _check_again_and_again(
    reference: weakref.ref[Checking], wakes: SimpleQueue[None], every_seconds: float
) -> None:
    pause = every_seconds
    while not _is_woken(wakes, pause):
        start, checked = time.monotonic(), reference()
        if checked is None:
            return
        checked.check_in_background()
        del checked  # so that it goes where nobody else uses it
        left = every_seconds - (time.monotonic() - start)
        pause = max(left, every_seconds * _SHORTEST_PAUSE)


def _is_woken(wakes: SimpleQueue[None], seconds: float) -> bool:
    try:
        wakes.get(timeout=seconds)
    except Empty:
        return False
    return True


def _all() -> list[Checking]:
    found = (following.checked() for following in list(_FOLLOWING.values()))
    return [checked for checked in found if checked is not None]


class _Paused(threading.local):
    """The locks that a thread has while it forks."""

    locks: tuple[Any, ...] = ()


_paused = _Paused()


def _pause_all() -> None:
    """Have no check be under way, so that a child finds no lock of another library locked."""
    deadline, locks = time.monotonic() + _WAIT_SECONDS, []
    for checked in _all():
        lock = checked.checking
        if lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            locks.append(lock)
    _paused.locks = tuple(locks)


def _resume_all() -> None:
    locks, _paused.locks = _paused.locks, ()
    for lock in locks:
        lock.release()


def _begin_all() -> None:
    """Start the threads anew in a forked child, where none but the forking one lives on."""
    _paused.locks = ()
    found = _all()
    _FOLLOWING.clear()
    for checked in found:
        checked.begin()


def _end_all() -> None:
    """See that no thread is within another library when the interpreter is taken down."""
    deadline = time.monotonic() + _WAIT_SECONDS
    for following in list(_FOLLOWING.values()):
        checked = following.checked()
        if checked is not None:
            checked.end()
            if checked.checking.acquire(timeout=max(0.0, deadline - time.monotonic())):
                checked.checking.release()


@cache
def _watch_process() -> None:
    """Have checks waited for before a fork and at the interpreter's exit.

    Notes
    -----
    Of the hooks before a fork the one registered last is called first. That of filelock, which lets
    no thread but the forking one have a lock, is to come after ours.
    """
    importlib.import_module("filelock")
    atexit.register(_end_all)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_pause_all, after_in_parent=_resume_all, after_in_child=_begin_all
        )
