"""`PushWorker`: brings to MLflow what the journal holds for one tracking store, oldest first."""

from __future__ import annotations

import atexit
import gc
import importlib
import logging
import os
import sys
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

from lotto_mlflow.errors import (
    LottoMlflowError,
    MirrorError,
    MirrorUnavailableError,
    ModelInUseError,
)
from lotto_mlflow.files import locked
from lotto_mlflow.folder import MIRROR_ROOM, ModelFolder, import_mirror
from lotto_mlflow.journal import Entry
from lotto_mlflow.kinds import push
from lotto_mlflow.layout import Layout
from lotto_mlflow.records import Record
from lotto_mlflow.settings import Target

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

_logger = logging.getLogger("lotto_mlflow")
WAIT_SECONDS = 5.0
"""How long a save waits for MLflow beyond its work on disk."""
_PREPARE_SECONDS = 120.0
"""How long MLflow may take to be imported, and the store to be created and opened."""
_OTHERS_SECONDS = 0.05
"""How often a waiting save looks whether another process has pushed its record."""
_TURN_SECONDS = 0.02
"""How long the push lock is left to others between two rounds; they look for it every 5 ms."""


class Goal(Enum):
    """What the thread is to do."""

    IMPORT = "import MLflow"
    OPEN = "open the store, created where it is missing"
    PUSH = "push what waits"


class PushWorker:
    """The thread of this process that pushes one folder's records to one target.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    target : Target
        The tracking store.

    Notes
    -----
    Each request gets a number; the thread looks at the journal until it has answered the last
    number, and ends. What is pushed, refused or unavailable is known under one condition, which
    whoever waits is notified of.
    """

    def __init__(self, folder: ModelFolder, target: Target) -> None:
        self._folder = folder
        self._target = target
        self.forget()

    @classmethod
    def of(cls, folder: ModelFolder, target: Target) -> PushWorker:
        """Return the worker of a folder and target, which all managers in the process share."""
        with _workers_guard:
            return _WORKERS.setdefault((folder.layout, target), cls(folder, target))

    def forget(self) -> None:
        """Begin anew: in a forked child the thread is not there, and its locks never open."""
        self._changed = threading.Condition()
        self._requested = 0
        self._answered = 0
        self._goals: set[Goal] = set()
        self._is_prepared = False
        self._warns = False
        self._thread: threading.Thread | None = None
        self._waited_for: threading.Thread | None = None
        self._refusals: dict[str, LottoMlflowError] = {}
        self._outage: LottoMlflowError | None = None
        self._pushing: str | None = None

    def request(self, goal: Goal = Goal.PUSH, *, warns: bool = False) -> int:
        """Have the thread do something, by default push the journal; returns at once.

        Parameters
        ----------
        goal : Goal
            What to do. Where MLflow cannot be imported, `Goal.IMPORT` says nothing: whoever needs
            it says so.
        warns : bool
            Whether what goes wrong is logged as a warning, because nobody waits for it.

        Returns
        -------
        int
            Number of the request, for `wait_for`.
        """
        _watch_process()
        with self._changed:
            self._requested += 1
            self._goals.add(goal)
            self._warns |= warns
            request, refusal = self._requested, None
            if self._thread is None or not self._thread.is_alive():
                refusal = self._start_thread()
        if refusal is not None:
            self._end(refusal)
        return request

    def _start_thread(self) -> LottoMlflowError | None:
        """Start the thread, or return why none can be started; the caller holds the condition."""
        self._is_prepared = False
        thread = threading.Thread(target=self._run, name="lotto_mlflow-push", daemon=True)
        try:
            thread.start()
        except RuntimeError as cause:  # the interpreter is ending
            return MirrorUnavailableError(f"no thread can be started: {cause}", error_code=None)
        self._thread = thread
        return None

    def _run(self) -> None:
        try:
            import_mirror()
            rounds = _Rounds()
            while not self._has_answered_all(rounds):
                pass
        except LottoMlflowError as cause:
            self._end(cause)
        except BaseException as cause:  # noqa: BLE001 - handed to whoever waits
            self._end(MirrorError(f"{type(cause).__name__}: {cause}", error_code=None))

    def _has_answered_all(self, rounds: _Rounds) -> bool:
        """Do what is asked for; return whether nothing was asked meanwhile, and the thread ends."""
        with self._changed:
            request, goals = self._requested, set(self._goals)
        if goals & {Goal.OPEN, Goal.PUSH} and rounds.mirror is None:
            self._folder.mirror(self._target).create()
            rounds.mirror = self._folder.mirror(self._target)  # it goes by the database's file
            self._note_prepared()
        if Goal.OPEN in goals and rounds.mirror is not None and not rounds.is_open:
            with self._folder.workspace() as work_dir:
                rounds.mirror.open(work_dir)
            rounds.is_open = True
            _shorten_collections()
        if Goal.PUSH in goals and rounds.mirror is not None:
            self._push_waiting(rounds.mirror, rounds.refused)
        with self._changed:
            is_last = self._requested == request
            if is_last:
                end = self._note_end(None)
            else:
                self._outage, self._answered = None, request
                self._changed.notify_all()
        if is_last:
            _log(*end)
        elif Goal.PUSH in goals:
            time.sleep(_TURN_SECONDS)
        return is_last

    def _push_waiting(self, mirror: Mirror, refused: set[str]) -> None:
        with locked(self._folder.push_lock()):
            waiting = self._waiting()
            with self._changed:
                ids = {entry.id for entry, _ in waiting}
                self._refusals = {i: e for i, e in self._refusals.items() if i in ids}
            for entry, record in waiting:
                if entry.id not in refused:
                    self._push(mirror, entry, record, refused)

    def _waiting(self) -> list[tuple[Entry, Record[Any]]]:
        """Return the records that wait for this target, oldest first."""
        found = [(e, self._folder.journal.read(e)) for e in self._folder.journal.waiting()]
        return [(e, r) for e, r in found if r is not None and r.target == self._target.name]

    def _push(self, mirror: Mirror, entry: Entry, record: Record[Any], refused: set[str]) -> None:
        with self._changed:
            self._pushing = entry.id
        try:
            push(self._folder, mirror, entry, record, self._target)
            refusal = None
        except MirrorUnavailableError:
            raise
        except ModelInUseError as cause:  # which was to go, and stays
            _logger.warning("%s", cause)
            refusal = None
        except LottoMlflowError as cause:  # of this record alone, not of those behind it
            refusal = cause
            refused.add(entry.id)
        with self._changed:
            self._pushing = None
            self._refusals.pop(entry.id, None)
            if refusal is not None:
                self._refusals[entry.id] = refusal
            self._changed.notify_all()

    def _note_prepared(self) -> None:
        with self._changed:
            self._is_prepared = True
            self._changed.notify_all()

    def _end(self, outage: LottoMlflowError) -> None:
        """Answer every request with an outage, and log it."""
        with self._changed:
            end = self._note_end(outage)
        _log(*end)

    def _note_end(self, outage: LottoMlflowError | None) -> tuple[int, str, list[LottoMlflowError]]:
        """Answer every request; the caller holds the condition, and logs what is returned.

        Notes
        -----
        A handler of log records may take long, or fork, or save: it must find nothing locked.
        """
        self._outage, self._answered, self._thread = outage, self._requested, None
        self._pushing = None
        level = logging.WARNING if self._warns else logging.INFO
        message = next((_MESSAGES[goal] for goal in _MESSAGES if goal in self._goals), "")
        self._warns, self._goals = False, set()
        self._changed.notify_all()
        causes = list(self._refusals.values())
        return level, message, causes if outage is None else [outage, *causes]

    def wait_for(self, request: int, record: Record[Any]) -> LottoMlflowError | None:
        """Wait until a record is pushed, five seconds at most; return what went wrong, if it did.

        Notes
        -----
        Importing MLflow and creating the database come before the five seconds. A thread that has
        pushed the record is waited for until it has removed its temporary files, too, so that the
        folder can be copied.
        """
        self._wait_until_prepared(request)
        deadline = time.monotonic() + WAIT_SECONDS
        while self._folder.journal.is_waiting(record) or self._pushing == record.id:
            left = deadline - time.monotonic()
            with self._changed:
                if self._answered >= request:
                    return self._refusals.get(record.id) or self._outage
                if left > 0:
                    self._changed.wait(min(left, _OTHERS_SECONDS))
            if left <= 0:
                return MirrorUnavailableError(
                    f"MLflow did not finish within {WAIT_SECONDS:g} s; pushing goes on",
                    error_code=None,
                )
        with self._changed:
            return self._refusals.get(record.id)

    def _wait_until_prepared(self, request: int) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_prepared or self._answered >= request, _PREPARE_SECONDS
            )

    def _has_pushed_all(self, request: int, seconds: float) -> bool:
        """Wait for the answer to a request; return whether nothing is left for this target."""
        with self._changed:
            is_answered = self._changed.wait_for(lambda: self._answered >= request, seconds)
            return is_answered and self._outage is None and not self._refusals

    def flush(self, timeout_seconds: float) -> bool:
        """Push what waits, and wait for it; return whether nothing is left for this target.

        Notes
        -----
        A thread that was under way may have met a trouble that is over by now: then a second one
        is started.
        """
        deadline = time.monotonic() + timeout_seconds
        was_under_way = self._thread is not None
        has_pushed_all = self._has_pushed_all(self.request(), timeout_seconds)
        left = deadline - time.monotonic()
        if was_under_way and not has_pushed_all and left > 0:
            has_pushed_all = self._has_pushed_all(self.request(), left)
        return has_pushed_all

    def begin_importing(self) -> None:
        """Have MLflow imported, in the first call of this process; returns at once."""
        global _has_begun_importing
        if not _has_begun_importing and MIRROR_ROOM not in sys.modules:
            _has_begun_importing = True
            self.request(Goal.IMPORT)

    def wait_until_open(self, request: int) -> LottoMlflowError | None:
        """Wait until a request for `Goal.OPEN` is answered; return what went wrong, if it did."""
        with self._changed:
            if self._changed.wait_for(lambda: self._answered >= request, _PREPARE_SECONDS):
                return self._outage
        return MirrorUnavailableError(
            f"MLflow was not ready within {_PREPARE_SECONDS:g} s; opening goes on", error_code=None
        )

    def wait_for_queued(self) -> None:
        """Wait, five seconds at most, for what this process has queued, before MLflow is asked."""
        with self._changed:
            request, is_under_way = self._requested, self._thread is not None
        if is_under_way:
            self._wait_until_prepared(request)
            self._has_pushed_all(request, WAIT_SECONDS)

    def finish(self) -> None:
        """Wait for the thread: before the interpreter ends, and before a fork."""
        thread = self._thread
        if thread is not None and thread is not self._waited_for:
            self._waited_for = thread  # one that hangs is waited for once, not at each fork
            self.wait_for_queued()


@dataclass
class _Rounds:
    """What one thread keeps from round to round."""

    mirror: Mirror | None = None
    is_open: bool = False
    refused: set[str] = field(default_factory=set)


_WORKERS: weakref.WeakValueDictionary[tuple[Layout, Target], PushWorker] = (
    weakref.WeakValueDictionary()
)
_workers_guard = threading.Lock()
_has_begun_importing = False
NOT_READY = "MLflow is not ready, and saves will wait for it in the outbox: %s"
_MESSAGES = {
    Goal.PUSH: "not every save is in MLflow yet, later ones push it: %s",
    Goal.OPEN: NOT_READY,
}
"""What is said where a goal was not reached; of several, the first."""


def _log(level: int, message: str, causes: list[LottoMlflowError]) -> None:
    if message:
        for cause in causes:
            _logger.log(level, message, cause)


def _finish_all() -> None:
    for worker in list(_WORKERS.values()):
        worker.finish()


def _forget_all() -> None:
    global _workers_guard
    _workers_guard = threading.Lock()
    for worker in list(_WORKERS.values()):
        worker.forget()


@cache
def _shorten_collections() -> None:
    """Leave out what is in memory now of garbage collections to come.

    Notes
    -----
    MLflow brings 300,000 objects that stay. A full collection goes through all of them, in 0.2 s
    during which no other thread runs, an event loop included; and pushes cause some.
    """
    gc.collect()
    gc.freeze()


@cache
def _watch_process() -> None:
    """Have pushes waited for before a fork, and when the main thread ends.

    Notes
    -----
    After ``threading`` has shut down, no executor accepts work, and MLflow uploads with executors.
    ``atexit`` comes later than that; what comes before has no public name in Python 3.10 to 3.13.
    Of hooks the one registered last is called first. Hence those come before ours that must be
    called after: that of the executors, and that of filelock 4.2, which lets no thread but the
    forking one have a lock. A process that never pushes need not import either.
    """
    for module in ("concurrent.futures.thread", "filelock"):
        importlib.import_module(module)
    register = getattr(threading, "_register_atexit", atexit.register)
    with suppress(RuntimeError):  # it is ending already: a save made by a hook at exit
        register(_finish_all)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_finish_all, after_in_child=_forget_all)
