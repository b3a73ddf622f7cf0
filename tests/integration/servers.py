"""MLflow's server over PostgreSQL and a bucket: started, killed, and started again on its port."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from integration.objects import BUCKET
from serving import MLFLOW, environment, free_port

_READY_SECONDS = 120.0
_REQUEST = re.compile(r'"(GET|POST|PUT|PATCH|DELETE) (\S+) HTTP')


def direct(name: str) -> list[str]:
    """Return the options of a server that sends its clients to the bucket."""
    return ["--default-artifact-root", f"s3://{BUCKET}/{name}", "--no-serve-artifacts"]


def proxied(name: str) -> list[str]:
    """Return the options of a server through which all artifacts go."""
    return ["--serve-artifacts", "--artifacts-destination", f"s3://{BUCKET}/{name}"]


class TrackingServer:
    """``mlflow server`` on loopback.

    Parameters
    ----------
    folder : pathlib.Path
        Where its log and whatever it writes lies.
    database_uri : str
        Its backend store.
    options : list of str
        Where its artifacts go, and whatever else.
    settings : mapping of str to str
        Its environment, beside that of this process.
    workers : int
        How many processes answer.
    scheme : str
        ``https`` where its options have certificates.
    """

    def __init__(
        self,
        folder: Path,
        database_uri: str,
        options: list[str],
        settings: Mapping[str, str],
        workers: int = 1,
        scheme: str = "http",
    ) -> None:
        self.port = free_port()
        self.uri = f"{scheme}://127.0.0.1:{self.port}"
        self.log_path = folder / "server.log"
        self._folder = folder
        self._settings = dict(settings)
        self.command = [*MLFLOW, "server", "--host", "127.0.0.1", "--port", str(self.port)]
        self.command += ["--workers", str(workers), "--backend-store-uri", database_uri, *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> TrackingServer:
        """Start it, and wait until it answers."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=environment(**self._settings),
                start_new_session=True,
            )
        deadline = time.monotonic() + _READY_SECONDS
        while not self._answers():
            log_text = self.log_path.read_text(errors="replace")[-5000:]
            assert self._process.poll() is None, log_text
            if time.monotonic() > deadline:
                pytest.fail(f"the server is not ready\n{log_text}")
            time.sleep(0.1)
        return self

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it and its workers, which are a process group of their own."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, how)
            process.wait(30)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
        except OSError as cause:
            # one that speaks TLS is up as soon as it refuses this
            return isinstance(getattr(cause, "reason", None), ssl.SSLError)
        return True

    def requests(self) -> list[tuple[str, str]]:
        """Return method and path of every request that it has answered, by its access log."""
        return _REQUEST.findall(self.log_path.read_text(errors="replace"))
