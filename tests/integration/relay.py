"""A port before a server, which passes bytes on and does something in the middle of them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_CHUNK = 1 << 16


class Relay:
    """Passes everything on; after so many bytes of one direction, calls something, once.

    Parameters
    ----------
    behind : int
        The port of the server behind it, on 127.0.0.1.
    """

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
        self._guard = threading.Lock()
        self._act: Callable[[], None] | None = None
        self._left = {"up": 0, "down": 0}
        self._direction = "up"
        self.acted = threading.Event()
        """Set once what was to be done in the middle is done."""
        threading.Thread(target=self._listen, daemon=True).start()

    def after(self, megabytes: int, act: Callable[[], None], direction: str = "up") -> None:
        """Call something after so many bytes to the server, or ``down`` from it, and cut there."""
        with self._guard:
            self.acted.clear()
            self._direction, self._act = direction, act
            self._left = {"up": 0, "down": 0, direction: megabytes * 10**6}

    def end(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                caller = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        try:
            real = socket.create_connection(("127.0.0.1", self._behind), timeout=10)
        except OSError:
            caller.close()
            return
        real.settimeout(None)
        back = threading.Thread(target=self._pump, args=(real, caller, "down"), daemon=True)
        back.start()
        self._pump(caller, real, "up")
        back.join()
        caller.close()
        real.close()

    def _pump(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        with suppress(OSError):
            while content := source.recv(_CHUNK):
                if self._is_time(direction, len(content)):
                    for one in (source, target):
                        with suppress(OSError):
                            one.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(content)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _is_time(self, direction: str, count: int) -> bool:
        with self._guard:
            if self._act is None or direction != self._direction:
                return False
            self._left[direction] -= count
            if self._left[direction] > 0:
                return False
            act, self._act = self._act, None
        act()
        self.acted.set()
        return True


@contextmanager
def relay(behind: int) -> Iterator[Relay]:
    """Run a relay until the block ends."""
    opened = Relay(behind)
    try:
        yield opened
    finally:
        opened.end()
