"""Those who say things that are not true: in a database, between a server and us, on a host."""

from __future__ import annotations

import http.client
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import joblib
from serving import environment

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import LottoMlflowError
from lotto_mlflow.records import parse

TITLE = "Attackers (what others say)"
TOKEN = "not-for-others"
_HOP = frozenset({"connection", "transfer-encoding", "content-length", "content-encoding"})
Change = Callable[[str, Any, dict[str, Any]], Any]
_EVIL_MODEL_ID = f"m-{'e' * 32}"


class Mark:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


def evil_pickle(path: Path, mark: Path) -> bytes:
    """Write a pickle that shows when it is opened, and return its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(Mark(mark), path)
    return path.read_bytes()


@dataclass
class Answer:
    """What a server answered, for an attacker to change."""

    method: str
    path: str
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def rewrite(self, change: Change) -> None:
        """Replace values of a JSON answer: ``change(key, value, beside)`` is said instead."""
        with suppress(ValueError):
            self.body = json.dumps(_changed(json.loads(self.body), change)).encode()


def _changed(value: Any, change: Change) -> Any:
    if isinstance(value, dict):
        return {key: _changed(change(key, item, value), change) for key, item in value.items()}
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    return value


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.uri = f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def serving(self) -> Iterator[Any]:
        thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join(10)
            self.server_close()


class Between(_Server):
    """A proxy before a real MLflow server, which may change what that answers."""

    def __init__(self, behind_uri: str) -> None:
        self.behind = urlsplit(behind_uri).netloc
        self.attack: Callable[[Answer], None] | None = None
        super().__init__(_Passing)

    @contextmanager
    def attacked(self, attack: Callable[[Answer], None]) -> Iterator[None]:
        """Change answers until the block ends."""
        self.attack = attack
        try:
            yield
        finally:
            self.attack = None


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Between

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _pass(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length) if length else self._chunks()
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP | {"host"}}
        headers["Accept-Encoding"] = "identity"
        with closing(http.client.HTTPConnection(self.server.behind, timeout=60)) as real:
            real.request(self.command, self.path, body=sent or None, headers=headers)
            found = real.getresponse()
            answer = Answer(self.command, self.path, found.status, found.read())
            answer.headers = {k: v for k, v in found.getheaders() if k.lower() not in _HOP}
        if self.server.attack is not None:
            self.server.attack(answer)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _chunks(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return b""
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    # the names that the standard library asks for
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _pass  # noqa: N815


class OtherHost(_Server):
    """A host that has nothing to do with us, and notes who comes."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str | None]] = []
        self.body = b"{}"
        super().__init__(_Noting)


class _Noting(BaseHTTPRequestHandler):
    server: OtherHost

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _note(self) -> None:
        auth = self.headers.get("Authorization")
        self.server.requests.append((self.command, self.path, auth))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    # the names that the standard library asks for
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _note  # noqa: N815


@dataclass
class Scene:
    """A model folder, and beside it what is none of our business."""

    base_dir: Path
    victims: Path
    mark: Path
    before: dict[str, tuple[bytes | None, int]] = field(default_factory=dict)
    ids: tuple[str, str] = ("", "")

    @classmethod
    def at(cls, tmp_path: Path, template: Path) -> Scene:
        """Copy a prepared folder to ``ml``, with victims around it."""
        scene = cls(tmp_path / "ml", tmp_path / "victims", tmp_path / "mark")
        shutil.copytree(template, scene.base_dir, copy_function=shutil.copy2)
        with suppress(LottoMlflowError):
            ModelManager(scene.base_dir).relocate()
        for bak in (scene.base_dir / "mlflow").glob("*.bak"):
            bak.unlink()
        records = sorted((scene.base_dir / "mlflow").glob("*/*~*.json"), key=lambda path: path.name)
        record = parse(records[-1].read_bytes())
        ids = next(iter({**record.mirrored, **record.attempts}.values()))
        scene.ids = (ids.run_id, ids.model_id)
        scene._plant_victims()
        return scene

    def _plant_victims(self) -> None:
        evil_pickle(self.victims / "data" / "model.pkl", self.mark)
        for run in (self.run_id, self.model_id, _EVIL_MODEL_ID):
            folder = self.victims / run / "artifacts"
            evil_pickle(folder / "data" / "model.pkl", self.mark)
            (folder / "thesis.txt").write_text("the only copy")
        other = self.base_dir.parent / "other" / "mlflow" / "artifacts" / "lotto_model"
        evil_pickle(other / "models" / self.model_id / "artifacts" / "data/model.pkl", self.mark)
        evil_pickle(other / self.run_id / "artifacts" / "precious.pkl", self.mark)
        shutil.copytree(self.victims, self.base_dir.parent / "ml-victims")
        self.before = self._looked_at()

    @property
    def run_id(self) -> str:
        """The run of the newest record, sent or begun."""
        return self.ids[0]

    @property
    def model_id(self) -> str:
        """The logged model of the newest record, sent or begun."""
        return self.ids[1]

    def _looked_at(self) -> dict[str, tuple[bytes | None, int]]:
        found: dict[str, tuple[bytes | None, int]] = {}
        for folder in ("victims", "ml-victims", "other"):
            for path in sorted((self.base_dir.parent / folder).rglob("*")):
                content = path.read_bytes() if path.is_file() else None
                found[str(path)] = (content, path.stat().st_mtime_ns)
        return found

    def harm(self) -> list[str]:
        """Return what was done to the victims; nothing was where all is well."""
        now = self._looked_at()
        found = [path for path in now | self.before if now.get(path) != self.before.get(path)]
        return found + ([str(self.mark)] if self.mark.exists() else [])

    def sql(self, *statements: tuple[str, tuple[Any, ...]]) -> None:
        """Change the embedded database, as anybody who reaches it can."""
        with closing(sqlite3.connect(self.base_dir / "mlflow" / "mlflow.db", timeout=20)) as opened:
            for statement, values in statements:
                opened.execute(statement, values)
            opened.commit()


def attempted(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or the error of this package; any other error passes."""
    try:
        return call()
    except LottoMlflowError as refusal:
        return refusal


def killed_in(base_dir: Path, at: str, **more: str) -> None:
    """Save in a process that dies when it comes to a call of the mirror, such as ``registry.x``."""
    module, _, name = at.rpartition(".")
    script = (
        "import os, sys\n"
        "from lotto_mlflow import ModelManager\n"
        f"from lotto_mlflow.mirror import {module} as module\n"
        f"module.{name} = lambda *a, **k: os._exit(9)\n"
        "manager = ModelManager(sys.argv[1])\n"
        "manager.save_model({'begun': 1}, 'begun', {'n': 1}, artifacts={'note.txt': 'extra'})\n"
        "manager.flush(120)\n"
    )
    command = [sys.executable, "-c", script, str(base_dir)]
    ended = subprocess.run(command, env=environment(**more), capture_output=True, check=False)
    assert ended.returncode == 9, ended.stderr.decode()
    assert list((base_dir / "mlflow" / "outbox").glob("*~begun~*.json"))
