"""The classes and functions that a pickle names, read from its bytes while joblib writes them."""

from __future__ import annotations

import copyreg
import io
import pickle
import re
import sys
from functools import lru_cache
from typing import Any, BinaryIO

from lotto_mlflow.store.hashed import HashingFile

_STOP, _MEMOIZE = 0x2E, 0x94
_SHORT_TEXT, _TEXT, _LONG_TEXT = 0x8C, 0x58, 0x8D
_GET, _LONG_GET, _STACK_GLOBAL = 0x68, 0x6A, 0x93
_EXTENSIONS = frozenset({0x82, 0x83, 0x84})
_NAMING = re.compile(rb"\A\x93|\x94\x93|h.\x93|j.{4}\x93", re.DOTALL)
"""What ``STACK_GLOBAL`` follows: a text, or its number in the memo, in this frame or the last."""
_MAX_WAITING_BYTES = 4 << 20
_PROTOCOL = b"\x80"
_LEAST_FRAME_BYTES = 4
_FRAME_HEADER_BYTES = 9
_Text = tuple[bytes | None, int]
_UNREAD: _Text = (None, -1)


class _Stream:
    """The opcodes of one pickle, given block by block.

    Parameters
    ----------
    found : dict of str to set of str
        What the pickle names is added here: names by module.
    kept : set of bytes
        Names of modules, and those in the program itself. A text among them may be fetched from
        the memo to name something, and is kept. Of another module a name may be left out.

    Notes
    -----
    Nothing is built. A global is the two texts before ``STACK_GLOBAL``, each written there or
    fetched from the memo, whose numbers count every ``MEMOIZE``.

    References
    ----------
    Python 3.14, pickletools: the opcodes. Python 3.14, pickle: ``save_global``.
    """

    def __init__(self, found: dict[str, set[str]], kept: set[bytes]) -> None:
        self._found, self._kept = found, kept
        self._memo: dict[int, bytes] = {}
        self._memoized = 0
        # the two newest texts on the stack, each with its number in the memo
        self._texts: tuple[_Text, _Text] = (_UNREAD, _UNREAD)
        self.missing_bytes = 0  # of a long value, whose rest comes with the next blocks
        self.is_ended = False

    def read(self, data: bytes) -> None:
        """Read a block of whole opcodes; only a long value may go on in the next blocks."""
        at, end = self.missing_bytes, len(data)
        first, second = self._texts
        kept, memo, memoized = self._kept, self._memo, self._memoized
        quiet = _quiet().match
        while at < end:
            code = data[at]
            if code == _SHORT_TEXT:
                start = at + 2
                at = start + data[at + 1]
                text = data[start:at]
                first, second = second, (text, memoized)
                if text in kept:
                    memo[memoized] = text
            elif code == _MEMOIZE:
                memoized += 1
                at += 1
            elif run := quiet(data, at):
                at = run.end()
            elif code == _GET:
                first, second = second, (memo.get(data[at + 1]), data[at + 1])
                at += 2
            else:
                self._texts, self._memoized = (first, second), memoized
                at = self._read_rare(data, at)
                first, second = self._texts
        self._texts, self._memoized = (first, second), memoized
        self.missing_bytes = at - end

    def _read_rare(self, data: bytes, at: int) -> int:
        """Read an opcode that is rare, or whose argument has its own size; return its end."""
        code, size = data[at], _fixed_sizes()[data[at]]
        if code == _STACK_GLOBAL:
            self._name()
        elif code == _LONG_GET:
            number = int.from_bytes(data[at + 1 : at + size], "little")
            self._texts = (self._texts[1], (self._memo.get(number), number))
        elif code in _EXTENSIONS:
            self._name_extension(data[at : at + size])
        elif code == _STOP:
            self.is_ended = True
        if size:
            return at + size
        width = _size_widths().get(code)
        if width is None:
            raise ValueError(f"opcode {code:#04x}")
        start = at + 1 + width
        end = start + int.from_bytes(data[at + 1 : start], "little")
        if code in (_TEXT, _LONG_TEXT):
            self._texts = (self._texts[1], (data[start:end], self._memoized))
        return end

    def _name(self) -> None:
        """Add the global that the two texts on the stack name."""
        (module, number), (name, _) = self._texts
        if module is None:
            raise ValueError("a module whose name was not read")
        self._memo[number] = module
        names = self._found.setdefault(module.decode("utf-8", "replace"), set())
        if name is not None:
            names.add(name.decode("utf-8", "replace"))

    def _name_extension(self, code: bytes) -> None:
        """Add a global that has a number in the registry of `copyreg`."""
        lookup = _ExtensionLookup(io.BytesIO(code + b"."))
        thing = lookup.load()
        module, name = lookup.found or (thing.__module__, thing.__qualname__)
        self._found.setdefault(module, set()).add(name)


class _ExtensionLookup(pickle.Unpickler):
    found: tuple[str, str] | None = None

    def find_class(self, module: str, name: str) -> Any:
        self.found = (module, name)
        return super().find_class(module, name)


@lru_cache(maxsize=1)
def _quiet() -> re.Pattern[bytes]:
    """Return what matches a run of opcodes that name nothing: most of them, in most pickles.

    Notes
    -----
    A value is fetched from the memo to name something only where one more text at most stands
    between it and ``STACK_GLOBAL``. A frame may begin anywhere in between.
    """
    loud = {_MEMOIZE, _STACK_GLOBAL, _STOP, _GET}
    singles = bytes(c for c, size in enumerate(_fixed_sizes()) if size == 1 and c not in loud)
    operands = rb"\x8cX\x8dhj\x93\x95"
    unused = rb"h.(?=[^%b]|h.[^\x93\x95])" % operands
    return re.compile(rb"(?:[%b]|K.|M..|J.{4}|G.{8}|%b)+" % (re.escape(singles), unused), re.DOTALL)


@lru_cache(maxsize=1)
def _fixed_sizes() -> list[int]:
    """Return the size of each opcode with its argument; 0 of those of no fixed size."""
    from pickletools import opcodes  # imported lazily

    sizes = [0] * 256
    for opcode in opcodes:
        size = opcode.arg.n if opcode.arg is not None else 0
        sizes[ord(opcode.code)] = 1 + size if size >= 0 else 0
    return sizes


@lru_cache(maxsize=1)
def _size_widths() -> dict[int, int]:
    """Return how many bytes hold the size of a value, by opcode."""
    from pickletools import opcodes  # imported lazily

    widths = {-2: 1, -3: 4, -4: 4, -5: 8}  # as pickletools numbers them
    found = {ord(o.code): widths.get(o.arg.n) for o in opcodes if o.arg is not None}
    return {code: width for code, width in found.items() if width is not None}


class NamingFile:
    """A file that joblib dumps into, which reads what the pickle names on the way.

    Parameters
    ----------
    file : binary file
        Where the bytes go, unchanged.

    Attributes
    ----------
    found : dict of str to set of str
        The names of classes and functions, by module.
    problem : str or None
        Why not all names were read; ``None`` where they were.

    Notes
    -----
    joblib's pickler, which is Python's own, gives each frame as a view of its memory, after a
    block of bytes with the frame's length. What lies between frames, as raw arrays, is bytes.
    A frame that names nothing is read only when a later one may refer to it.
    Before it writes the items of an array joblib asks for the position. It does not where they
    are objects: those are a pickle of their own, and C writes that as bytes.

    References
    ----------
    joblib 1.5, numpy_pickle: ``NumpyArrayWrapper.write_array``. Python 3.14, pickle: ``_Framer``.
    """

    def __init__(self, file: BinaryIO | HashingFile) -> None:
        self._write, self._tell = file.write, file.tell
        self.found: dict[str, set[str]] = {}
        self.problem: str | None = None
        self._kept = _names_to_keep()
        self._outer = _Stream(self.found, self._kept)
        self._inner: _Stream | None = None
        self._header = b""
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._has_extensions = bool(getattr(copyreg, "_extension_registry", True))
        self._is_after_frame = False

    def write(self, block: Any) -> int:
        """Write a block, and read it if it is of a pickle."""
        if isinstance(block, memoryview) or self._is_after_frame or self._inner is not None:
            if self.problem is None:
                try:
                    self._read(block)
                except Exception as cause:  # noqa: BLE001 - a save goes on without
                    self.problem = f"{type(cause).__name__}: {cause}"
        elif len(block) == _FRAME_HEADER_BYTES:
            self._header = block
        return self._write(block)

    def tell(self) -> int:
        """Return the position, which joblib aligns arrays by."""
        self._is_after_frame = False
        return self._tell()

    def end(self) -> None:
        """See that the pickle was read to its end."""
        is_ended = self._waiting[-1].endswith(b".") if self._waiting else self._outer.is_ended
        if self.problem is None and not is_ended:
            self.problem = "its end was not seen"

    def _read(self, block: Any) -> None:
        if self._inner is not None:
            self._read_items(bytes(block), self._inner)
        elif isinstance(block, memoryview):
            self._is_after_frame = True
            self._read_frame(bytes(block))
        else:
            self._is_after_frame = False
            if block[:1] == _PROTOCOL:
                self._inner = _Stream(self.found, self._kept)
                self._read_items(bytes(block), self._inner)
            elif len(block) == _FRAME_HEADER_BYTES:
                self._header = block

    def _read_frame(self, frame: bytes) -> None:
        size = len(frame)
        if size >= _LEAST_FRAME_BYTES and int.from_bytes(self._header[1:], "little") != size:
            raise ValueError("a frame without its length")
        self._waiting.append(frame)
        self._waiting_bytes += size
        if (
            (b"\x93" in frame and _NAMING.search(frame) is not None)
            or self._waiting_bytes > _MAX_WAITING_BYTES
            or self._has_extensions
        ):
            self._read_waiting()

    def _read_waiting(self) -> None:
        """Read the frames that were put off: those before a frame that names something."""
        frames, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for frame in frames:
            self._outer.read(frame)
            if self._outer.missing_bytes:
                raise ValueError("a frame that ends within an opcode")

    def _read_items(self, block: bytes, stream: _Stream) -> None:
        """Read a block of the pickle that holds the items of an array of objects."""
        if len(block) <= stream.missing_bytes:
            stream.missing_bytes -= len(block)
            return
        stream.read(block)
        if stream.missing_bytes and stream.is_ended:
            raise ValueError("a pickle that goes on after its end")
        if stream.is_ended:
            self._inner = None


def _names_to_keep() -> set[bytes]:
    """Return the names of all modules, and of what the program itself defines."""
    program = getattr(sys.modules.get("__main__"), "__dict__", {})
    names = [*list(sys.modules), *list(program)]
    return {name.encode("utf-8", "replace") for name in names if isinstance(name, str)}
