"""The digest of what is written to a file, made in a thread beside the writing.

What is hashed is what this process writes, and not what lies in the file: whoever may write to the
folder may have changed that by then, and would have his own bytes recorded, and signed.
"""

from __future__ import annotations

import queue
from typing import Any, BinaryIO

from lotto_mlflow.threads import started

_BLOCK_BYTES = 1 << 20
"""Hashed at once: each block takes the interpreter from the thread that pickles."""
_MOST_WAITING = 4


class HashingFile:
    """A file that is written to from its beginning, and hashed on the way.

    Parameters
    ----------
    file : binary file
        A new file, where the bytes go unchanged. It is not sought in.

    Notes
    -----
    Small blocks are put together before they are handed to the thread. A large one is hashed while
    it is written, and is not kept any longer than that.
    """

    def __init__(self, file: BinaryIO) -> None:
        import hashlib  # imported lazily

        self._write = file.write
        self.tell = file.tell
        self._digest, self._size = hashlib.sha256(), 0
        self._small: list[bytes] = []
        self._small_bytes = 0
        self._blocks: queue.Queue[Any] = queue.Queue(_MOST_WAITING)
        self._wait = started(self._hash_all)
        # where no thread can be started, as in a hook at the interpreter's exit
        self._has_thread = self._wait != self._hash_all

    def write(self, block: Any) -> int:
        """Write a block, which is bytes or a view of some."""
        size = memoryview(block).nbytes
        if size >= _BLOCK_BYTES:
            self._hand_over_small()
            self._hand_over(block)
            written = self._write(block)
            self._blocks.join()
            return written
        self._small.append(bytes(block))  # of a view, the memory may be used again
        self._small_bytes += size
        if self._small_bytes >= _BLOCK_BYTES:
            self._hand_over_small()
        return self._write(block)

    def end(self) -> tuple[str, int]:
        """Return the SHA-256 and the number of the bytes that were written; call it once."""
        self._hand_over_small()
        if self._has_thread:
            self._blocks.put(None)
            self._wait()
        return self._digest.hexdigest(), self._size

    def _hand_over_small(self) -> None:
        if self._small:
            self._hand_over(b"".join(self._small))
            self._small, self._small_bytes = [], 0

    def _hand_over(self, block: Any) -> None:
        if self._has_thread:
            self._blocks.put(block)
        else:
            self._hash(block)

    def _hash_all(self) -> None:
        while (block := self._blocks.get()) is not None:
            self._hash(block)
            self._blocks.task_done()

    def _hash(self, block: Any) -> None:
        self._digest.update(block)
        self._size += memoryview(block).nbytes
