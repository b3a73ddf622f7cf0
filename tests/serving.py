"""MLflow's own programs, started and ended as a person at a terminal would."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

MLFLOW = [sys.executable, "-m", "mlflow"]
ANSWER_SECONDS = 120.0
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
    with log_path.open("w") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment(**more), start_new_session=True
        )
        try:
            deadline = time.monotonic() + ANSWER_SECONDS
            while not _answers(url):
                assert server.poll() is None, log_path.read_text()
                if time.monotonic() > deadline:
                    pytest.fail(f"{url} did not answer\n{log_path.read_text()}")
                time.sleep(0.1)
            yield url.rpartition("/")[0]
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, 15)
            server.wait(END_SECONDS)


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
