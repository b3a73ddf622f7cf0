"""MLflow's own programs, started and ended as a person at a terminal would."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

MLFLOW = [sys.executable, "-m", "mlflow"]
ANSWER_SECONDS = 300.0
END_SECONDS = 30.0


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment, with the programs of its interpreter on the PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it runs uvicorn
    return os.environ | {"PATH": path} | more


@contextmanager
def served(command: list[str], url: str, log_path: Path, **more: str) -> Iterator[str]:
    """Run a server until the block ends; yield its address once ``url`` answers."""
    with running(command, log_path, lambda: _answers(url), **more):
        yield url.rpartition("/")[0]


@contextmanager
def running(
    command: list[str],
    log_path: Path,
    ready: Callable[[], Any],
    end_signal: signal.Signals = signal.SIGTERM,
    **more: str,
) -> Iterator[Any]:
    """Run a program until the block ends; yield what ``ready`` returns, once that is something."""
    with log_path.open("w") as log:
        program = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment(**more), start_new_session=True
        )
        try:
            deadline = time.monotonic() + ANSWER_SECONDS
            while not (found := ready()):
                assert program.poll() is None, log_path.read_text()
                if time.monotonic() > deadline:
                    pytest.fail(f"{command} is not ready\n{log_path.read_text()}")
                time.sleep(0.1)
            yield found
        finally:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, end_signal)
            program.wait(END_SECONDS)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except OSError:
        return False
    return True


@contextmanager
def tracking_server(database_path: Path, artifacts_dir: Path | None = None) -> Iterator[str]:
    """Run ``mlflow server`` on a database; with a folder, artifacts go only through it."""
    port = free_port()
    command = [*MLFLOW, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{database_path}"]
    if artifacts_dir is not None:
        command += ["--artifacts-destination", str(artifacts_dir)]
    log_path = database_path.with_name("server.log")
    with served(command, f"http://127.0.0.1:{port}/health", log_path) as uri:
        yield uri
