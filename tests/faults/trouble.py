"""What the tests of MLflow in trouble share: a port that misbehaves, and what they look at."""

from __future__ import annotations

import itertools
import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from serving import free_port

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import MirrorUnavailableError
from lotto_mlflow.records import Record, parse

TITLE = "Outages of MLflow"
SLACK_SECONDS = 3.0
"""What a busy machine may need beside the five seconds."""
_SPELLINGS = itertools.count(20)
PASSES = 8
"""With the two saves before them, ten tries."""


def _answer(status: str, body: str, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n{body}".encode()


ANSWERS = {
    "500": _answer("500 Internal Server Error", "oops", "text/plain"),
    "401": _answer("401 Unauthorized", "who are you?", "text/plain"),
    "403": _answer("403 Forbidden", '{"error_code": "PERMISSION_DENIED", "message": "not you"}'),
    "429": _answer("429 Too Many Requests", "slow down", "text/plain"),
    "garbage": b"\x00\xff\x7fnothing of HTTP\r\n\r\n\x00",
    "a page": _answer("200 OK", "<html>Log in first</html>", "text/html"),
    "half JSON": _answer("200 OK", '{"experiment": {"experiment_id": "1'),
    "other JSON": _answer("200 OK", '{"status": "up"}'),
}
TOO_LARGE = _answer("413 Content Too Large", "too large", "text/plain")
BROKEN = _answer("503 Service Unavailable", "later", "text/plain")


class Front:
    """A port before a real server, which passes everything on, or misbehaves."""

    def __init__(self, behind: int) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._behind = behind
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.be("through")

    def be(self, mode: str, passed: int = 0, largest: int = 10**9) -> None:
        """Change the mode; ``passed`` requests are still let through first."""
        self.mode, self.passed, self.largest = mode, passed, largest
        if mode != "stalled" and not passed:
            for one in list(self._open):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        if mode == "closed" and not passed:
            self._close()
        elif self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
            self._start(self._listen, self._listener)

    def go_on(self) -> None:
        """Let pass what was stalled, without cutting a connection."""
        self.mode = "through"

    def end(self) -> None:
        self.be("closed")
        for thread in self._threads:
            thread.join(10)

    def _close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _start(self, call: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=call, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                self._start(self._serve, listener.accept()[0])

    def _serve(self, caller: socket.socket) -> None:
        real: socket.socket | None = None
        given_up: set[socket.socket] = set()
        with closing(caller), suppress(OSError):
            self._open.add(caller)
            while content := caller.recv(65536):
                if re.match(rb"[A-Z]{3,7} /", content):
                    has_waited = self.mode == "stalled" and not self.passed
                    if not self._passes(caller, content):
                        break
                    if real is not None and (has_waited or real in given_up):
                        given_up.add(real)
                        real.close()
                        real = None
                if real is None:
                    real = socket.create_connection(("127.0.0.1", self._behind))
                    self._start(self._down, real, caller, given_up)
                real.sendall(content)
        self._open.discard(caller)
        if real is not None:
            with suppress(OSError):
                real.shutdown(socket.SHUT_RDWR)
            real.close()

    def _down(
        self, real: socket.socket, caller: socket.socket, given_up: set[socket.socket]
    ) -> None:
        with suppress(OSError):
            while content := real.recv(65536):
                caller.sendall(content)
        has_replaced_it = real in given_up
        given_up.add(real)  # the server has closed it, as it does after some seconds of silence
        if self.mode != "stalled" and not has_replaced_it:
            with suppress(OSError):
                caller.shutdown(socket.SHUT_RDWR)

    def _passes(self, caller: socket.socket, content: bytes) -> bool:
        """Tell whether a request may go on; else answer it as the mode has it."""
        length = re.search(rb"(?i)content-length: (\d+)", content)
        if length and int(length[1]) > self.largest:
            missing = int(length[1]) - len(content.partition(b"\r\n\r\n")[2])
            while missing > 0:
                missing -= len(caller.recv(65536)) or missing
            caller.sendall(TOO_LARGE)
            return False
        if self.mode == "through":
            return True
        if self.passed:
            self.passed -= 1
            return True
        is_health = b" /health" in content[:40]
        if self.mode in ("silent", "stalled"):
            deadline = time.monotonic() + 60
            while self.mode in ("silent", "stalled") and time.monotonic() < deadline:
                time.sleep(0.05)
            return self.mode == "through"
        if self.mode == "broken behind":
            if not is_health:
                caller.sendall(BROKEN)
            return is_health
        if self.mode == "closed":
            self._close()
        caller.sendall(ANSWERS.get(self.mode, b""))
        return False


def saved_in_trouble(
    manager: ModelManager, caplog: pytest.LogCaptureFixture, base_dir: Path, number: int
) -> str:
    """Save while MLflow is in trouble; return what the one warning says."""
    begun = time.monotonic()
    ModelManager(base_dir.parent / "beside", mirror="off").save_model({"n": 0}, metadata={"n": 0})
    disk_seconds = time.monotonic() - begun
    caplog.clear()
    begun = time.monotonic()
    path = manager.save_model({"n": number}, metadata={"n": number})
    assert time.monotonic() - begun < disk_seconds + 5 + SLACK_SECONDS
    assert manager.load_model(path) == {"n": number}
    (warning,) = [
        r for r in caplog.records if r.name == "lotto_mlflow" and r.levelno >= logging.WARNING
    ]
    assert path in warning.getMessage()
    assert "will be mirrored to MLflow later" in warning.getMessage()
    assert list((base_dir / "mlflow" / "outbox").glob(f"*~{Path(path).stem}.json"))
    return warning.getMessage()


def records_in(base_dir: Path, folder: str) -> list[Record[Any]]:
    """Return the records in a folder of the outbox, in save order."""
    found = sorted((base_dir / "mlflow" / folder).glob("*.json"))
    return [parse(path.read_bytes()) for path in found]


def lost(base_dir: Path, uri: str, saves: int, *registered: str) -> int:
    """Return how many saves are not in MLflow once, in order, with a run that is finished."""
    ids = [record.id for record in records_in(base_dir, "sent")]
    assert not list((base_dir / "mlflow" / "outbox").iterdir())
    if uri.startswith("sqlite:///"):  # another spelling shares no engine with what was replaced
        uri = f"sqlite:///{'/.' * next(_SPELLINGS)}{uri.removeprefix('sqlite:///')}"
    client = MlflowClient(tracking_uri=uri)
    ours = []
    for name in registered or ("lotto_model",):
        versions = client.search_model_versions(f"name = '{name}'", max_results=1000)
        found = [v for v in versions if v.tags["save_id"] in ids]
        in_order = [v.tags["save_id"] for v in sorted(found, key=lambda v: int(v.version))]
        assert in_order == sorted(in_order)
        assert not [v for v in found if "late" in v.tags]
        ours += in_order
    assert sorted(ours) == ids
    runs = client.search_runs([client.get_experiment_by_name("lotto_model").experiment_id])
    of_saves = [run for run in runs if run.data.tags["save_id"] in ids]
    assert {run.info.status for run in of_saves} == {"FINISHED"}
    return abs(saves - len(ids)) + abs(saves - len(ours)) + abs(saves - len(of_saves))


def lookup_fails_in_time(manager: ModelManager, seconds: float = 5) -> None:
    """Ask the registry, which must say that it cannot be asked."""
    begun = time.monotonic()
    with pytest.raises(MirrorUnavailableError):
        manager.get_latest_model_path(source="registry")
    assert time.monotonic() - begun < seconds + SLACK_SECONDS


def nothing_counts(manager: ModelManager, base_dir: Path, waiting: int) -> None:
    """Try to send again and again, which must not be held against the records."""
    for _ in range(PASSES):
        with pytest.raises(MirrorUnavailableError):
            manager.sync()
    assert [record.tries for record in records_in(base_dir, "outbox")] == [0] * waiting
    assert not list((base_dir / "mlflow" / "aside").iterdir())
