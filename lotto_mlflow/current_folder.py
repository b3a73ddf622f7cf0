"""A current folder for MLflow, in a process whose own was deleted.

MLflow asks for the current folder when it is imported, opens a database or makes an experiment,
absolute as every path given to it may be, and fails where there is none.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class _Borrowed:
    """The folder that is current as long as somebody needs one."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, as a forked child does: nobody in it works with MLflow yet."""
        self._guard = threading.Lock()
        self._users = 0
        self._before: int | None = None
        self._folder = ""

    def enter(self) -> bool:
        """Return whether there was no current folder, and now is one, until `leave`."""
        with self._guard:
            if self._users == 0 and _has_current_folder():
                return False
            if self._users == 0:
                # nobody else can write to it: Python may import what lies in the current folder
                self._folder = tempfile.mkdtemp(prefix="lotto_mlflow-")
                self._before = os.open(".", os.O_RDONLY)
                os.chdir(self._folder)
            self._users += 1
            return True

    def leave(self) -> None:
        """Give the process back what it had."""
        with self._guard:
            self._users -= 1
            if self._users == 0 and self._before is not None:
                os.fchdir(self._before)
                os.close(self._before)
                self._before = None
                with suppress(OSError):  # what another thread put there stays
                    os.rmdir(self._folder)  # noqa: PTH106 - a name


def _has_current_folder() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 - nothing is done with it
    except FileNotFoundError:
        return False
    return True


_BORROWED = _Borrowed()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_BORROWED.forget)


@contextmanager
def existing_current_folder() -> Iterator[None]:
    """Have a current folder while MLflow is called; where there is one, nothing is done.

    Notes
    -----
    It is one for all threads: a new and empty one meanwhile, and the deleted one again in the end.
    """
    is_borrowed = _BORROWED.enter()
    try:
        yield
    finally:
        if is_borrowed:
            _BORROWED.leave()
