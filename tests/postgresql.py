"""A real PostgreSQL server for the tests: on loopback, on a free port, ended with its process."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from serving import free_port

USER, PASSWORD = "lotto", "secret-645"
_LIBRARIES = Path("/usr/lib/postgresql")


def _programs_dir() -> Path:
    """Return the folder of Debian's server programs, which is not on the PATH, or of others."""
    newest = sorted(_LIBRARIES.glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which("initdb")
    if not newest and not found:
        pytest.skip("no PostgreSQL server is installed here (Debian's postgresql)")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed here")
    return newest[-1] if newest else Path(str(found)).parent


class Server:
    """A running server.

    Parameters
    ----------
    port : int
        Where it listens, on 127.0.0.1.
    process : subprocess.Popen
        Its first process.
    """

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self._process = process

    def uri(self, database: str) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> Any:
        """Run one statement outside a transaction; return its first row, if it has any."""
        import psycopg

        with psycopg.connect(self.uri(database), autocommit=True, connect_timeout=10) as opened:
            cursor = opened.execute(statement.encode())
            return cursor.fetchone() if cursor.description else None

    def new_database(self, name: str, template: str = "template0") -> str:
        """Create a database; return its URI."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.uri(name)

    def pause(self) -> None:
        """Let it accept connections and never answer."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.go_on()
        self._process.send_signal(signal.SIGINT)  # it cuts its connections, then ends
        self._process.wait(30)


def _start(programs: Path, data_dir: Path, port: int, account: dict[str, Any]) -> Server:
    command = [str(programs / "postgres"), "-D", str(data_dir), "-p", str(port)]
    command += ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={data_dir}"]
    with (data_dir / "log.txt").open("wb") as log:
        server = Server(port, subprocess.Popen(command, stdout=log, stderr=log, **account))
    import psycopg

    for _ in range(300):
        with suppress(psycopg.OperationalError):  # it is still starting
            server.execute("SELECT 1")
            return server
        time.sleep(0.1)
    server.end()
    raise AssertionError((data_dir / "log.txt").read_text())


@contextmanager
def running() -> Iterator[Server]:
    """Start a server with an empty folder of its own, and end it."""
    programs = _programs_dir()
    # the server refuses to run as root; Debian's package brings an account for it
    account: dict[str, Any] = {"cwd": "/"}
    if os.name == "posix" and os.geteuid() == 0:
        account |= {"user": "postgres", "group": "postgres", "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="lotto-postgresql-"))  # short: a socket lies in it
    data_dir, password_file = folder / "data", folder / "password"
    password_file.write_text(PASSWORD)
    if "user" in account:
        for path in (folder, password_file):
            shutil.chown(path, "postgres", "postgres")
    command = [str(programs / "initdb"), "-D", str(data_dir), "-U", USER, "--no-sync"]
    command += ["--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8"]
    subprocess.run(command, check=True, capture_output=True, timeout=120, **account)
    port = free_port()
    try:
        server = _start(programs, data_dir, port, account)
        try:
            yield server
        finally:
            server.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
