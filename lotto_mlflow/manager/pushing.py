"""The thread that tells MLflow what the outbox holds, oldest first."""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import threading
import time
import weakref
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from lotto_mlflow.errors import LottoMlflowError, MirrorError, MirrorUnavailableError
from lotto_mlflow.files import held
from lotto_mlflow.layout import Layout
from lotto_mlflow.manager.mirrors import Mirrors
from lotto_mlflow.manager.parts import Parts
from lotto_mlflow.manager.sending import send
from lotto_mlflow.outbox import Entry
from lotto_mlflow.records import SaveRecord
from lotto_mlflow.settings import Settings, target_of

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

_logger = logging.getLogger("lotto_mlflow")
WAIT_SECONDS = 5.0
"""How long a save waits for MLflow beyond its work on disk."""
_PREPARE_SECONDS = 120.0
_POLL_SECONDS = 0.02


class _Pass:
    """One life of the thread: it ends when nothing is left to send, or nothing can be sent."""

    def __init__(self, pusher: Pusher, settings: Settings) -> None:
        self._pusher = pusher  # which is waited for at exit as long as somebody holds it
        self._parts = pusher.parts
        self.settings = settings
        self._target = target_of(settings, self._parts.layout.database_path)
        self._guard = threading.Lock()
        self._sent_one = threading.Condition()
        self._asked_again = False
        self.prepared = threading.Event()
        self.ended = threading.Event()
        self.failures: dict[str, LottoMlflowError] = {}
        self.outage: LottoMlflowError | None = None
        self.is_reported = False
        thread = threading.Thread(target=self._run, name="lotto_mlflow-push", daemon=True)
        thread.start()

    def ask_again(self) -> bool:
        """Have the outbox looked at once more; false where the thread is past doing so."""
        with self._guard:
            self._asked_again = True
            return not self.ended.is_set()

    def ends_within(self, seconds: float) -> bool:
        """Wait for the end; importing MLflow and creating the database do not count."""
        self.prepared.wait(_PREPARE_SECONDS)
        return self.ended.wait(seconds)

    def has_sent_all(self, deadline: float) -> bool:
        """Wait for the end until a moment of the monotonic clock; tell whether nothing is left."""
        has_ended = self.ends_within(max(0.0, deadline - time.monotonic()))
        return has_ended and not (self.outage or self.failures)

    def _run(self) -> None:
        try:
            mirror = self._pusher.mirrors.of(self.settings)
            mirror.create()
            self.prepared.set()
            while not self._is_done():
                with held(self._parts.push_lock()):
                    self._send_all(mirror)
        except LottoMlflowError as cause:
            self.outage = cause
        except Exception as cause:  # noqa: BLE001 - the thread's last word, told by a waiting save
            self.outage = MirrorError(f"{type(cause).__name__}: {cause}", error_code=None)
        finally:
            self.prepared.set()
            with self._guard:
                self.ended.set()
            self._report()

    def _report(self) -> None:
        """Log what went wrong, once: a save that waits does it itself."""
        level = logging.WARNING if self.settings.mirror == "background" else logging.INFO
        for cause in (self.outage, *self.failures.values()):
            if cause is not None and not self.is_reported:
                _logger.log(level, "not every save is in MLflow yet, later ones send it: %s", cause)

    def _is_done(self) -> bool:
        with self._guard:
            if self._asked_again or any(True for _ in self._to_send()):
                self._asked_again = False
                return False
            self.ended.set()
            return True

    def _to_send(self) -> list[Entry]:
        waiting = (e for e in self._parts.outbox.waiting() if e.id not in self.failures)
        return [e for e in waiting if self._record_for_here(e) is not None]

    def _record_for_here(self, entry: Entry) -> SaveRecord | None:
        record = self._parts.outbox.readable(entry)
        return record if record is not None and record.target == self._target else None

    def _send_all(self, mirror: Mirror) -> None:
        for entry in self._to_send():
            record = self._record_for_here(entry)
            if record is None:
                continue
            try:
                send(self._parts, mirror, entry, record, self._target)
            except MirrorUnavailableError:
                raise
            except LottoMlflowError as cause:  # it condemns this record, not those behind it
                self.failures[entry.id] = cause
            with self._sent_one:
                self._sent_one.notify_all()

    def wait_a_moment(self) -> None:
        """Wait until something was sent here, or may have been sent by another process."""
        with self._sent_one:
            self._sent_one.wait(_POLL_SECONDS)


class Pusher:
    """The passes of this process over one folder's outbox, one at a time for each store.

    Parameters
    ----------
    parts : Parts
        The folder.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.mirrors = Mirrors(parts)
        self._forget()

    @classmethod
    def of(cls, parts: Parts) -> Pusher:
        """Return the pusher of a folder, which all managers of the folder share."""
        return _PUSHERS.setdefault(parts.layout, cls(parts))

    def _forget(self) -> None:
        """Begin anew: in a forked child the threads are not there, and their locks never open."""
        self._guard = threading.Lock()
        self._passes: dict[Settings, _Pass] = {}
        self._waited_for: weakref.WeakSet[_Pass] = weakref.WeakSet()

    def start(self, settings: Settings) -> _Pass:
        """Have the outbox sent; returns at once."""
        _watch_process()
        with self._guard:
            current = self._passes.get(settings)
            if current is None or not current.ask_again():
                current = self._passes[settings] = _Pass(self, settings)
        return current

    def _under_way(self) -> list[_Pass]:
        return [one for one in list(self._passes.values()) if not one.ended.is_set()]

    def wait_for(self, current: _Pass, save_id: str) -> LottoMlflowError | None:
        """Wait until a save is mirrored, five seconds at most; return what went wrong, if it did.

        Notes
        -----
        Importing MLflow and creating the database come before the five seconds.
        """
        current.prepared.wait(_PREPARE_SECONDS)
        deadline = time.monotonic() + WAIT_SECONDS
        while self.parts.outbox.is_waiting(save_id):
            if current.ended.is_set():
                break
            current.wait_a_moment()
            if time.monotonic() > deadline:
                current.is_reported = True
                return MirrorUnavailableError(
                    f"MLflow did not take it within {WAIT_SECONDS:g} s; sending goes on",
                    error_code=None,
                )
        failure = current.failures.get(save_id) or current.outage
        if failure is None or not self.parts.outbox.is_waiting(save_id):
            return current.failures.get(save_id)
        current.is_reported = True
        return failure

    def flush(self, settings: Settings, timeout_seconds: float) -> bool:
        """Send the outbox and wait for it; tell whether nothing is left for the store in force.

        Notes
        -----
        A pass that was under way may have met a trouble that is over by now: it gets a second.
        """
        deadline = time.monotonic() + timeout_seconds
        joined = self._passes.get(settings)
        current = self.start(settings)
        if current is joined and not current.has_sent_all(deadline):
            current = self.start(settings)
        return current.has_sent_all(deadline)

    def wait_for_queued(self) -> None:
        """Wait, five seconds at most, for what this process has queued, before it asks MLflow."""
        deadline = time.monotonic() + WAIT_SECONDS
        for one in self._under_way():
            one.has_sent_all(deadline)

    def finish(self) -> None:
        """Wait for a push under way: before the interpreter ends, and before a fork."""
        for one in self._under_way():
            if one not in self._waited_for:
                self._waited_for.add(one)  # one that hangs is waited for once, not at each fork
                one.ends_within(WAIT_SECONDS)


_PUSHERS: weakref.WeakValueDictionary[Layout, Pusher] = weakref.WeakValueDictionary()


def _finish_all() -> None:
    for pusher in list(_PUSHERS.values()):
        pusher.finish()


def _forget_all() -> None:
    for pusher in list(_PUSHERS.values()):
        pusher._forget()


@cache
def _watch_process() -> None:
    """Have pushes waited for before a fork, and when the main thread ends.

    Notes
    -----
    After ``threading`` has shut down, no executor takes work, and MLflow uploads with executors.
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
