"""A process beside the test that uses the package, and can be killed, restarted, or held short.

A warm parent, which has imported everything and opened nothing, forks one child at a time: the
*actor*. It keeps its caches from one call to the next, as a backend does, until it ends or is
killed; the next call then comes from a new process.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import resource
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from faults import crashes

from lotto_mlflow import push as pushing
from lotto_mlflow.errors import LottoMlflowError

CALL_SECONDS = 120
_PUSH_SECONDS = 60.0


@dataclass(frozen=True)
class Held:
    """How a call is held short.

    Attributes
    ----------
    kill_at : str or None
        The call, as in `faults.crashes.Calls`, that kills the process.
    file_bytes : int or None
        Size from which the disk refuses to let a file grow.
    """

    kill_at: str | None = None
    file_bytes: int | None = None


@dataclass(frozen=True)
class Answer:
    """What a call came to.

    Attributes
    ----------
    outcome : str
        ``done``; ``refused`` by an error of the package; ``foreign``, by another exception;
        ``killed``.
    value : object
        What the call returned; of an error its class and text, or its traceback.
    """

    outcome: str
    value: Any = None

    @property
    def is_done(self) -> bool:
        """Whether the call returned."""
        return self.outcome == "done"


class Actor:
    """The process, started with its warm parent when it is first needed."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._parent = context.Process(target=_serve, args=(other,), daemon=True)
        self._parent.start()
        other.close()
        self._is_up = False

    def ask(
        self, function: Callable[..., Any], *arguments: Any, held: Held | None = None
    ) -> Answer:
        """Call a function there; a new process is started where there is none."""
        if not self._is_up:
            self._connection.send(None)
            self._is_up = True
        self._connection.send((function, arguments, held or Held()))
        answer = self._received()
        if isinstance(answer, int):  # the exit code
            self._is_up = False
            assert answer == -signal.SIGKILL, f"the process ended with {answer}"
            return Answer("killed")
        if held is not None and held.kill_at is not None:  # its calls are counted: it is used up
            self.end()
        return answer

    def end(self) -> None:
        """End the process as one ends that has nothing left to do."""
        if self._is_up:
            self._connection.send(None)
            assert self._received() == 0
            self._is_up = False

    def close(self) -> None:
        """End the process and its warm parent."""
        self._connection.close()
        self._parent.join(CALL_SECONDS)

    def _received(self) -> Any:
        assert self._connection.poll(2 * CALL_SECONDS), "the process hangs"
        return self._connection.recv()


def _serve(connection: Connection) -> None:
    """Be the warm parent: fork actors one after another, and tell how each ended."""
    logging.disable(logging.CRITICAL)  # what they log of broken stores would fill pages
    crashes.warm_up()
    importlib.import_module("faults.acts")  # once, and not in each child
    pushing.WAIT_SECONDS = _PUSH_SECONDS  # a busy machine may be slow
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        process_id = os.fork()
        if process_id == 0:
            _act(connection)
        code = os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])
        with suppress(BrokenPipeError):  # where the caller is gone
            connection.send(code)


def _act(connection: Connection) -> None:
    """Be the actor, until it is told to end or its caller is gone."""
    try:
        while (asked := connection.recv()) is not None:
            signal.alarm(CALL_SECONDS)
            connection.send(_answer(*asked))
            signal.alarm(0)
    except EOFError:
        pass
    except BaseException:  # noqa: BLE001 - a child must not return into its parent's code
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...], held: Held) -> Answer:
    calls = None
    if held.kill_at is not None:
        calls = crashes.Calls(Path(arguments[0]), held.kill_at)
        calls.install()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if held.file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (held.file_bytes, hard))
    try:
        return Answer("done", function(*arguments))
    except LottoMlflowError as error:
        return Answer("refused", (type(error).__name__, str(error)))
    except BaseException:  # noqa: BLE001 - whatever it is, it is what is looked for
        return Answer("foreign", traceback.format_exc())
    finally:
        crashes.join_pushes()
        if calls is not None:
            calls.is_counting = False
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
