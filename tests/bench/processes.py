"""Worker processes, seen from the harness: started, asked, bounded in time, ended."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.worker import BEGIN, END

_SECONDS = 900.0
_TESTS_DIR = Path(__file__).parents[1]
_COUNTED = ("fsync", "fdatasync", "rename", "renameat", "renameat2", "link", "linkat")


class WorkError(Exception):
    """An operation failed, or took too long; the message has the end of its log."""


@dataclass(frozen=True)
class Subject:
    """One operation on one object in one folder.

    Attributes
    ----------
    operation : str
        ``module:function``.
    folder : pathlib.Path
        Where it works.
    object_path : pathlib.Path or None
        The fitted object.
    python : str
        The interpreter whose environment has what it needs.
    environment : mapping of str to str
        Settings on top of the harness's own.
    """

    operation: str
    folder: Path
    object_path: Path | None = None
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, **more: Any) -> list[str]:
        order = {"operation": self.operation, "folder": str(self.folder)}
        order |= {"object": str(self.object_path)} if self.object_path else {}
        order |= {name: str(value) for name, value in more.items()}
        return [self.python, "-m", "bench.worker", json.dumps(order)]

    def surroundings(self) -> dict[str, str]:
        # an installed package has its bytecode at hand; here the warm-up writes it
        dropped = ("LOTTO_", "MLFLOW_", "BENTOML_", "PYTHONDONTWRITEBYTECODE")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        # the package of this checkout, whichever one the environment has installed
        found_first = os.pathsep.join([str(_TESTS_DIR), str(_TESTS_DIR.parent)])
        own = {"PYTHONPATH": found_first, "MLFLOW_DISABLE_TELEMETRY": "true"}
        return kept | own | dict(self.environment)


class Worker:
    """A process that has prepared an operation, and runs it when asked."""

    def __init__(self, subject: Subject, *, prefix: list[str] | None = None, **more: Any) -> None:
        self._subject = subject
        subject.folder.mkdir(parents=True, exist_ok=True)
        self._log_path = subject.folder.parent / f"{subject.folder.name}.log"
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*(prefix or []), *subject.command(**more)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=subject.folder,
                env=subject.surroundings(),
            )
        try:
            self._answer()
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ask(self, order: str) -> dict[str, Any]:
        """Have the operation run once, and return what was measured."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{order}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure("ended") from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _SECONDS)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise self._failure("failed" if ready else f"took more than {_SECONDS:g} s")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failure(self, what: str) -> WorkError:
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        end = "\n".join(lines[-5:])
        return WorkError(f"{self._subject.operation} {what}:\n{end}")

    def end(self) -> None:
        """End the process: by the end of its input, else by force."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def whole_process(command: list[str], subject: Subject) -> float:
    """Run a command to its end; return the seconds from start to exit."""
    start = time.perf_counter()
    done = subprocess.run(
        command,
        capture_output=True,
        env=subject.surroundings(),
        cwd=subject.folder,
        timeout=_SECONDS,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        end = done.stderr.decode(errors="replace").splitlines()[-5:]
        raise WorkError("\n".join([f"{subject.operation} failed:", *end]))
    return seconds


def counted_calls(subject: Subject, log_path: Path) -> dict[str, int] | None:
    """Count the calls that make an operation durable and atomic; ``None`` without strace.

    Notes
    -----
    All threads and child processes are counted, and what native libraries such as SQLite call.
    """
    if shutil.which("strace") is None:
        return None
    quick = "--seccomp-bpf"  # stops at the calls that are counted, not at every one
    shown = ["-e", f"trace={','.join(_COUNTED)}"]
    prefix = ["strace", "-f", quick, "-qq", "-o", str(log_path), *shown]
    with Worker(subject, prefix=prefix) as worker:
        worker.ask("time")  # the first run creates databases, and is not what is counted
        worker.ask("mark")
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    begin = next(i for i, line in enumerate(lines) if BEGIN in line)
    end = next(i for i, line in enumerate(lines) if END in line)
    names = Counter(line.split(maxsplit=1)[1].partition("(")[0] for line in lines[begin + 1 : end])
    return {
        "fsyncs": names["fsync"] + names["fdatasync"],
        "renames": sum(names[n] for n in _COUNTED if n.startswith("rename")),
        "links": names["link"] + names["linkat"],
    }
