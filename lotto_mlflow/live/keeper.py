"""`Keeper`: has a model in use, asks whether its reference means another, and swaps that in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from lotto_mlflow.errors import LoadError
from lotto_mlflow.live.following import Following
from lotto_mlflow.live.trouble import Trouble, said
from lotto_mlflow.records import ModelRecord

if TYPE_CHECKING:
    from lotto_mlflow.operations.follow import Followed, Loaded, Mark

_logger = logging.getLogger("lotto_mlflow")
_TRIES = 3
"""How often a check begins again where the reference has moved on while it was loaded."""
_FAILURES = (Exception, SystemExit)
"""What the code of a model, or of a caller, raises; an exit that it calls is not one of ours."""


class InUse(NamedTuple):
    """A model and what is known of it, which are swapped together.

    Attributes
    ----------
    model : object
        The model.
    record : ModelRecord
        What was known of it when it was loaded.
    """

    model: Any
    record: ModelRecord


class Keeper:
    """What is behind a `lotto_mlflow.LiveModel`, and does not know it.

    Parameters
    ----------
    followed : Followed
        What the reference means.
    every_seconds : float
        Seconds from one check to the next.
    warm, on_swap : callable or None
        As in `lotto_mlflow.LiveModel`.

    Attributes
    ----------
    in_use : InUse
        The model in use and its record; replaced whole, and read once by each call.
    trouble : Trouble
        What keeps a model out.
    checked_at : datetime.datetime
        When the last check ended.
    checking : lock
        Held by the one thread that checks.
    """

    def __init__(
        self,
        followed: Followed,
        every_seconds: float,
        warm: Callable[[Any], object] | None,
        on_swap: Callable[[ModelRecord], object] | None,
    ) -> None:
        self._followed, self._every_seconds = followed, every_seconds
        self._warm, self._on_swap = warm, on_swap
        self._is_closed = False
        self._swaps = 0
        self._following: Following | None = None
        self.trouble = Trouble(every_seconds)
        loaded = self._load(followed.look(thoroughly=True))
        self.in_use, self._mark = InUse(loaded.model, loaded.record), loaded.mark
        self.checked_at = datetime.now(timezone.utc)

    def begin(self) -> None:
        """Check from now on; in a forked child with locks that nobody holds, and a new thread."""
        self.checking, self._guard = threading.RLock(), threading.Lock()
        self._is_checking = False
        if self._is_ended:
            return
        try:
            self._following = Following.of(self, self._every_seconds)
        except RuntimeError as cause:  # no more threads, or the interpreter is ending
            self._note(None, cause)

    def refresh(self) -> bool:
        """Check now, and wait; return whether another model serves than when this was called."""
        if self._is_ended:
            return False
        swaps = self._swaps
        with self.checking:
            if not self._is_checking:
                self._check(thoroughly=True)
        return self._swaps != swaps

    @property
    def _is_ended(self) -> bool:
        return self._is_closed or self._followed.is_fixed

    def check_in_background(self) -> None:
        """Check, unless somebody else does."""
        if not self.checking.acquire(blocking=False):
            return
        try:
            self._check(thoroughly=False)
        except BaseException as cause:  # noqa: BLE001 - the thread goes on checking
            self._note(None, cause)
        finally:
            self.checking.release()

    def end(self) -> None:
        """Swap no more."""
        with self._guard:
            self._is_closed = True

    def close(self) -> None:
        """Swap no more, end the thread, and wait for it."""
        self.end()
        if self._following is not None:
            self._following.end()

    def _check(self, *, thoroughly: bool) -> None:
        """Ask what the reference means, and swap in another model; the caller has the lock."""
        if self._is_ended:
            return
        self._is_checking = True
        try:
            for _ in range(_TRIES):
                if not self._has_moved_on(thoroughly=thoroughly):
                    break
        finally:
            self._is_checking = False
            self.checked_at = datetime.now(timezone.utc)

    def _has_moved_on(self, *, thoroughly: bool) -> bool:
        """Check once; return whether the reference moved on from a model that was not to be had."""
        try:
            mark = self._followed.look(thoroughly=thoroughly)
        except Exception as cause:  # noqa: BLE001 - whatever it is, the model in use serves on
            self._note(None, cause)
            return False
        self.trouble.note_answer()
        if mark == self._mark:
            self.trouble.note_end()
        elif thoroughly or not self.trouble.is_to_wait(mark):
            try:
                self._swap(self._load(mark))
            except _FAILURES as cause:
                if self._means_another_than(mark):
                    return True
                self._note(mark, cause)
        return False

    def _means_another_than(self, mark: Mark) -> bool:
        try:
            return self._followed.look(thoroughly=True) != mark
        except Exception:  # noqa: BLE001 - what went wrong before is what is said
            return False

    def _load(self, mark: Mark) -> Loaded:
        loaded = self._followed.load(mark)
        if self._warm is not None:
            try:
                self._warm(loaded.model)
            except _FAILURES as cause:
                raise LoadError(
                    f"{loaded.record.name} was loaded, but warm failed with it: {said(cause)}",
                    path=loaded.record.path,
                ) from cause
        return loaded

    def _swap(self, loaded: Loaded) -> None:
        record = loaded.record
        with self._guard:
            if self._is_closed:
                return
            self.in_use, self._mark = InUse(loaded.model, record), loaded.mark
            self._swaps += 1
        self.trouble.note_end()
        _logger.info("swapped in name=%s version=%s", record.name, record.version)
        if self._on_swap is not None:
            try:
                self._on_swap(record)
            except _FAILURES:
                _logger.exception("%s is in use, but on_swap failed", record.name)

    def _note(self, mark: Mark | None, cause: BaseException) -> None:
        self.trouble.note(mark, cause, self.in_use.record.name)
