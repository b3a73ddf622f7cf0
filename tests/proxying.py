"""A proxy before a server: it notes each request, and slows down or cuts off answers."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_BLOCK_BYTES = 1 << 16
_OF_A_MODEL = "data/model.pkl"


class Proxy:
    """What a proxy has seen, and how it is to behave.

    Attributes
    ----------
    uri : str
        Its address.
    requests : list of str
        Method and path of each request.
    pause_seconds : float
        How long it waits between the blocks of a model's bytes.
    cut_after_bytes : int or None
        How many bytes of a model pass before the connection is cut.
    """

    def __init__(self) -> None:
        self.uri = ""
        self.requests: list[str] = []
        self.pause_seconds = 0.0
        self.cut_after_bytes: int | None = None

    def downloads(self) -> list[str]:
        """Return the requests for the bytes of models."""
        return [one for one in self.requests if one.startswith("GET") and _OF_A_MODEL in one]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: who asked may be gone, and so may be where errors were written to."""


@contextmanager
def proxied(server_uri: str) -> Iterator[Proxy]:
    """Run a proxy before a server until the block ends."""
    proxy, upstream = Proxy(), urlsplit(server_uri)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

        def forward(self) -> None:
            path = self.path.partition("?")[0]
            proxy.requests.append(f"{self.command} {path}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = http.client.HTTPConnection(str(upstream.hostname), upstream.port, timeout=300)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            asked.request(self.command, self.path, body, headers)
            answer = asked.getresponse()
            content = answer.read()
            asked.close()
            self.send_response(answer.status)
            kept = {"content-type": answer.headers.get("Content-Type", "text/plain")}
            for name, value in (kept | {"content-length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            is_model = self.command == "GET" and path.endswith(_OF_A_MODEL)
            self._send(content, is_model=is_model)

        def _send(self, content: bytes, *, is_model: bool) -> None:
            for start in range(0, len(content), _BLOCK_BYTES):
                cut = proxy.cut_after_bytes
                if is_model and cut is not None and start >= cut:
                    self.close_connection = True
                    self.connection.shutdown(2)
                    return
                with suppress(OSError):  # who asked may be dead
                    self.wfile.write(content[start : start + _BLOCK_BYTES])
                    self.wfile.flush()
                if is_model:
                    time.sleep(proxy.pause_seconds)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do_HEAD = forward  # noqa: N815

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    proxy.uri = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
