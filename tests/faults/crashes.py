"""The harness of the crash points: children that are killed at each of their calls.

It runs in a process of its own, the warm parent, which has imported everything and has opened no
MLflow client and started no thread, so that a fork is safe and costs little.
"""

from __future__ import annotations

import builtins
import importlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import joblib
from mlflow import MlflowClient

from lotto_mlflow import ModelManager
from lotto_mlflow.mirror import probing
from lotto_mlflow.settings import sqlite_uri

CHILD_SECONDS = 60
PUSH_THREAD = "lotto_mlflow-push"
_CHANGES = frozenset(
    ("os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.utime", "os.truncate")
)


@dataclass
class Calls:
    """The calls of this process, counted thread by thread; one of them kills it.

    Threads that work beside each other have no order between them, but each has its own: a call
    is named ``<thread>.<number> <what>``, where a thread's name says which thread started it.
    Those are the calls that change something in a folder, with the moments after a file was put
    in place, made durable, or opened anew; every call of an MLflow client, before and after; and
    every commit of its database that writes. Calls that only read, or make a folder, are left out:
    a kill there leaves what a kill at the next change leaves, and which of two threads makes a
    folder that both need is chance.
    """

    folder: Path
    kill_at: str | None
    trace: list[str] = field(default_factory=list)
    is_counting: bool = True
    _lock: Any = field(default_factory=threading.Lock)
    _main_only_waits: bool = False
    _names: dict[int, str] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)

    def install(self) -> None:
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        sys.addaudithook(self._audited)
        for function in ("fsync", "replace", "link"):
            self._wrap(os, function)
        for module in (builtins, io):
            module.open = self._opening(module.open)
        for method in dir(MlflowClient):
            if not method.startswith("_") and callable(getattr(MlflowClient, method)):
                self._wrap(MlflowClient, method, before=True)
        event.listen(Engine, "commit", self._committing)
        start = threading.Thread.start

        def start_and_note(thread: threading.Thread) -> None:
            # the main thread only waits from here on: how often it looks is a matter of speed
            self._main_only_waits |= thread.name == PUSH_THREAD
            starter = self._name_of(threading.current_thread())
            with self._lock:
                self._counts[f"threads of {starter}"] += 1
                number = self._counts[f"threads of {starter}"]
                self._names[id(thread)] = f"{starter}-{number}"
            start(thread)

        threading.Thread.start = start_and_note  # type: ignore[method-assign]

    def hit(self, what: str) -> None:
        """Count a call, or die in it."""
        is_main = threading.current_thread() is threading.main_thread()
        if not self.is_counting or (is_main and self._main_only_waits):
            return
        name = self._name_of(threading.current_thread())
        with self._lock:
            self._counts[name] += 1
            point = f"{name}.{self._counts[name]:03d}"
            self.trace.append(f"{point} {what}")
            if point == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def _name_of(self, thread: threading.Thread) -> str:
        return self._names.get(id(thread), "main")

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        is_change = event in _CHANGES
        if event == "open" and not isinstance(arguments[0], int):
            is_change = arguments[2] & (os.O_WRONLY | os.O_RDWR) and (
                arguments[2] & os.O_TRUNC or not os.path.lexists(arguments[0])
            )
        if is_change and self._is_ours(arguments[0]):
            self.hit(f"{event} {_shown(arguments[0])}")

    def _committing(self, connection: Any) -> None:
        if connection.connection.in_transaction:  # SQLite begins one with the first change
            self.hit("commit")

    def _is_ours(self, path: Any) -> bool:
        """Tell whether a path is in the folder; a bare name is one relative to an open folder."""
        text = "" if isinstance(path, int) else os.fsdecode(path)
        return bool(text) and ("/" not in text or str(self.folder) in text)

    def _wrap(self, owner: Any, name: str, *, before: bool = False) -> None:
        original = getattr(owner, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            if before:
                self.hit(f"before {name}")
            result = original(*arguments, **named)
            self.hit(f"after {name}")
            return result

        setattr(owner, name, wrapped)

    def _opening(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            file = original(path, mode, *arguments, **named)
            if set(mode) & set("wxa+") and self._is_ours(path):
                self.hit(f"opened {_shown(path)}")
            return file

        return opened


def _shown(path: Any) -> str:
    return "/".join(os.fsdecode(path).split("/")[-2:])


def in_child(work: Callable[[], Any], answer_path: Path) -> tuple[int, Any]:
    """Do work in a forked child; return its exit code (-9: killed) and what the work returned."""
    answer_path.unlink(missing_ok=True)
    process_id = os.fork()
    if process_id == 0:
        signal.alarm(CHILD_SECONDS)
        try:
            answer_path.write_text(json.dumps(work()), encoding="utf-8")
        except BaseException:  # noqa: BLE001 - a child must not return into its parent's code
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])
    return code, json.loads(answer_path.read_text(encoding="utf-8")) if code == 0 else None


@contextmanager
def warm_parent() -> Iterator[Pool]:
    """Start a process that has imported everything, from which children are forked."""
    with multiprocessing.get_context("spawn").Pool(1, warm_up) as pool:
        yield pool


def warm_up() -> None:
    """Import what children need, and make the one slow table of MLflow's, before any fork."""
    for name in [n for n in os.environ if n.startswith(("LOTTO_", "MLFLOW_"))]:
        del os.environ[name]
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:

        def first_use() -> list[str]:
            manager = ModelManager(Path(folder) / "ml")
            path = manager.save_model({"first": 1}, metadata={"use": 1})
            manager.record_result(1, [10, 23, 29, 33, 37, 40], 16)
            manager.record_prediction(path, 1, [1, 2, 3, 4, 5, 6])
            join_pushes()
            manager.save_model({"second": 2}, "lotto_model_second")
            manager.promote("lotto_model_second")
            manager.prune(keep_last=1, dry_run=False)
            manager.sync()
            manager.verify()
            return sorted(sys.modules)

        _, modules = in_child(first_use, Path(folder) / "answer.json")
        for name in modules:
            if name not in sys.modules:
                try:
                    importlib.import_module(name)
                except ImportError:
                    continue
        database_path = Path(folder) / "ml" / "mlflow" / "mlflow.db"
        probing.is_there(sqlite_uri(database_path), for_writing=False)  # reads migrations
        data_path = Path(folder) / "data"
        data_path.touch()
        sys.modules["mlflow.pyfunc"].save_model(
            path=str(Path(folder) / "model"),
            loader_module="lotto_mlflow.pyfunc_loader",
            data_path=str(data_path),
            pip_requirements=[f"joblib=={joblib.__version__}"],
        )
    sys.modules["sqlalchemy.orm"].configure_mappers()
    assert threading.active_count() == 1


def join_pushes() -> None:
    """Wait for the push thread, as the end of an interpreter does."""
    for thread in threading.enumerate():
        if thread.name == PUSH_THREAD:
            thread.join()


@dataclass
class Outcome:
    """What killing children came to.

    Attributes
    ----------
    calls : int
        Calls that an unkilled child makes.
    chosen : int
        How many of them a child is killed at.
    tried : int
        Children killed.
    problems : list of str
        One for each that left something wrong, with the call it was killed at.
    """

    calls: int
    chosen: int = 0
    tried: int = 0
    problems: list[str] = field(default_factory=list)


def make_template(work_dir: Path, prepare: Callable[[Path], object]) -> None:
    """Have a child make the folder ``ml`` in an empty one; keep a copy as ``template``."""
    code, _ = in_child(lambda: prepare(work_dir / "ml") and None, work_dir / "answer")
    assert code == 0, "the folder could not be prepared"
    shutil.copytree(work_dir / "ml", work_dir / "template", symlinks=True)


def run(work_dir: Path, act: Callable[[Path], object], kill_at: str | None) -> tuple[int, Any]:
    """Put ``ml`` back to its template and have a child act in it, until it ends or is killed.

    Returns
    -------
    code : int
        Exit code of the child.
    trace : list of str
        The calls that it made, sorted, if it was not killed.
    """
    base_dir = work_dir / "ml"
    shutil.rmtree(base_dir)
    shutil.copytree(work_dir / "template", base_dir, symlinks=True)

    def acting() -> list[str]:
        calls = Calls(base_dir, kill_at)
        calls.install()
        act(base_dir)
        join_pushes()
        calls.is_counting = False
        return sorted(calls.trace)

    return in_child(acting, work_dir / "answer")


def killed_when(
    work_dir: Path, act: Callable[[Path], object], is_reached: Callable[[Path], bool]
) -> str:
    """Leave ``ml`` as the first kill does that reaches a state; return the call it was at."""
    code, trace = run(work_dir, act, None)
    assert code == 0, "what nobody kills failed"
    for call in trace:
        run(work_dir, act, call.split()[0])
        if is_reached(work_dir / "ml"):
            return str(call)
    raise AssertionError("no kill leaves that state")


def killed_at_every_call(
    work_dir: Path,
    prepare: Callable[[Path], object],
    act: Callable[[Path], object],
    look: Callable[[Path], list[str]],
    *,
    part: tuple[int, int],
    thread: str | None = None,
) -> Outcome:
    """Kill a child at each of its calls in turn, and have another look at what is left.

    Parameters
    ----------
    work_dir : pathlib.Path
        An empty folder; its ``ml`` is put back to what ``prepare`` made of it before each child,
        under the same path, which the database holds.
    prepare, act, look : callable
        Given that folder: make it; save or restore in it; tell what is wrong with it after a kill.
    part : tuple of int
        First call and step: ``(1, 2)`` kills at every odd one. ``LOTTO_FAULTS_EVERY=N`` chooses one
        in N of these, others in each scenario.
    thread : str, optional
        Only the calls of this thread.
    """
    make_template(work_dir, prepare)
    code, trace = run(work_dir, act, None)
    assert code == 0, "what nobody kills failed"
    again = run(work_dir, act, None)
    assert again == (0, trace) or _same_steps(again[1], trace), "calls differ from child to child"
    trace = [call for call in trace if thread in (None, call.partition(".")[0])]
    first, step = part
    numbers = range(first, len(trace) + 1, step)
    every = min(int(os.environ.get("LOTTO_FAULTS_EVERY") or 1), len(numbers) or 1)
    numbers = numbers[zlib.crc32("".join(trace).encode()) % every :: every]
    outcome = Outcome(calls=len(trace), chosen=len(numbers))
    for number in numbers:
        killed, _ = run(work_dir, act, trace[number - 1].split()[0])
        outcome.tried += 1
        problems = [] if killed == -signal.SIGKILL else [f"the child was not killed: {killed}"]
        seen, found = in_child(lambda: look(work_dir / "ml"), work_dir / "answer")
        problems += found if seen == 0 else [f"looking failed: exit code {seen}"]
        if problems:
            outcome.problems.append(f"{trace[number - 1]}: {'; '.join(problems)}")
    return outcome


def _same_steps(some: list[str] | None, others: list[str]) -> bool:
    """Tell whether two traces have the same calls, whatever the random names in them."""
    return some is not None and [s.split()[:2] for s in some] == [o.split()[:2] for o in others]


def is_copy(old: Path, new: Path) -> bool:
    """Tell whether two files have the same bytes and time, or both are not there."""
    if not (old.exists() and new.exists()):
        return old.exists() == new.exists()
    is_same_time = old.stat().st_mtime_ns == new.stat().st_mtime_ns
    return is_same_time and old.read_bytes() == new.read_bytes()
