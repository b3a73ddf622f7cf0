"""Loader that travels inside every mirrored model: it verifies the file, and unpickles it.

MLflow imports this package, as the top-level package ``lotto_mlflow_loader_v2``, from the ``code``
folder of the model it opens; ours need not be installed there. It needs the standard library and
joblib only, and imports its other module relatively, since it has two names. Every mirrored model
in a process shares one entry in ``sys.modules``, so behaviour changes only together with the
version in that name: take the next version, and keep the files as they were under the last one in
``tests/loaders/``, where they are tried on.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import sys
import tempfile
import threading
from pathlib import Path
from queue import Queue
from typing import Any, BinaryIO

from .inputs import Predictor

MODULE_NAME = "lotto_mlflow_loader_v2"
MODULES = ("__init__", "fitted", "inputs")
"""All that travels, so that whoever checks a mirrored model knows what Python may compile."""
_SHA256_LINE = re.compile(r"""^\s+sha256:\s*['"]?([0-9a-f]{64})['"]?\s*$""", re.MULTILINE)
IN_MEMORY_BYTES = 256 << 20
"""Up to this size a model's file is read into memory before it is verified and unpickled."""
SIDE_FILES = (
    "is of a joblib before 0.10, which kept arrays in other files beside it; those cannot be "
    "verified, and were not opened. Load it with joblib itself, and save the object again"
)
_SIDE_FILE_CLASSES = frozenset({"NDArrayWrapper", "ZNDArrayWrapper"})
_MAIN_MODULES = frozenset({"__main__", "__mp_main__"})
"""What Python calls the program itself, and what multiprocessing calls it in its children."""
_OLD_COMPRESSED = b"ZF"
_MLMODEL_BYTES = 16 << 20
_BLOCK_BYTES = 1 << 20
_QUEUED_BLOCKS = 8
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)


def module_paths() -> list[Path]:
    """Return the files of this package."""
    return [Path(__file__).with_name(f"{name}.py") for name in MODULES]


def pickle_is_allowed() -> bool:
    """Return whether MLflow's own switch lets a pickle be opened; it does unless set to false.

    References
    ----------
    MLflow 3.17, environment variables: MLFLOW_ALLOW_PICKLE_DESERIALIZATION.
    """
    value = os.environ.get("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    return value.strip().lower() in ("true", "1")


def kind_of_mode(mode: int) -> str | None:
    """Return what a mode of the system's is of, in words; ``None`` for a regular file."""
    if stat.S_ISREG(mode):
        return None
    kinds = (
        (stat.S_ISLNK, "a link"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((words for is_one, words in kinds if is_one(mode)), "a device")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; a link is not followed, and nothing else is opened.

    Raises
    ------
    OSError
        Without a number, if it is something else; with the system's, if the system refuses.
    """
    kind = kind_of_mode(os.lstat(path).st_mode)  # opening a device may do something
    if kind is None:
        try:
            descriptor = os.open(path, _FLAGS)
        except OSError as cause:
            if cause.errno not in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
                raise
            kind = "a link"
        else:
            kind = kind_of_mode(os.fstat(descriptor).st_mode)
            if kind is None:
                return os.fdopen(descriptor, "rb")
            os.close(descriptor)
    raise OSError(f"{os.fspath(path)} is {kind}, not a file, and is not opened")


class _Digest:
    """SHA-256 of blocks, computed in a thread beside the one that reads them.

    Notes
    -----
    Where no thread can be started, as in a hook at the interpreter's exit, each block is hashed
    when it is given.
    """

    def __init__(self, size: int) -> None:
        import hashlib  # imported lazily

        self._sha256 = hashlib.sha256()
        self._blocks: Queue[Any] = Queue(_QUEUED_BLOCKS)
        self._thread: threading.Thread | None = None
        if size > _BLOCK_BYTES:
            thread = threading.Thread(target=self._run, daemon=True)
            try:
                thread.start()
                self._thread = thread
            except RuntimeError:
                pass

    def _run(self) -> None:
        while (block := self._blocks.get()) is not None:
            self._sha256.update(block)

    def update(self, block: Any) -> None:
        if self._thread is None:
            self._sha256.update(block)
        else:
            self._blocks.put(block)

    def end(self) -> str:
        if self._thread is not None:
            self._blocks.put(None)
            self._thread.join()
        return self._sha256.hexdigest()


def private_copy(file: BinaryIO) -> tuple[BinaryIO, str]:
    """Copy an open file to where nobody else can write, and hash the copy on the way.

    Parameters
    ----------
    file : binary file
        A regular file, at its start.

    Returns
    -------
    tuple of binary file and str
        The copy, at its start, and its SHA-256. What has this digest is what is read from the
        copy, whatever is written to the file meanwhile.

    Raises
    ------
    OSError
        If the file cannot be read, or the system's temporary folder has no room.

    Notes
    -----
    The copy of a file up to `IN_MEMORY_BYTES` is in memory; that of a larger one is a file in the
    system's temporary folder (``TMPDIR``) that has no name there.
    """
    size = os.fstat(file.fileno()).st_size
    digest = _Digest(size)
    try:
        if size <= IN_MEMORY_BYTES:
            copy = _copied_to_memory(file, size, digest)
        else:
            copy = _copied_to_disk(file, size, digest)
    finally:
        found = digest.end()
    return copy, found


def _copied_to_memory(file: BinaryIO, size: int, digest: _Digest) -> BinaryIO:
    memory, count = io.BytesIO(bytes(size)), 0
    with memory.getbuffer() as view:
        while count < size:
            read = file.readinto(view[count : count + _BLOCK_BYTES])  # type: ignore[attr-defined]
            if not read:  # somebody made it shorter meanwhile
                return io.BytesIO(bytes(view[:count]))
            digest.update(view[count : count + read])
            count += read
    return memory


def _copied_to_disk(file: BinaryIO, size: int, digest: _Digest) -> BinaryIO:
    copy = tempfile.TemporaryFile(prefix="lotto_mlflow-")  # noqa: SIM115 - the caller closes it
    left = size
    try:
        while block := file.read(min(_BLOCK_BYTES, left)):
            digest.update(block)
            copy.write(block)
            left -= len(block)
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return copy


_here = threading.local()
_watch_guard = threading.Lock()
_is_watching = False


def _refuse_side_files(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse, in a thread that `unpickle` runs in, the classes that stand for a file elsewhere."""
    if event != "pickle.find_class" or not getattr(_here, "is_unpickling", False):
        return
    _here.wanted = (str(arguments[0]), str(arguments[1]))
    if str(arguments[1]).rpartition(".")[2] in _SIDE_FILE_CLASSES:
        raise OSError(SIDE_FILES)


def _watch_unpickling() -> None:
    global _is_watching
    with _watch_guard:
        if not _is_watching:
            sys.addaudithook(_refuse_side_files)
            _is_watching = True


def missing_definition(wanted: tuple[str, str] | None) -> str | None:
    """Return what to do about a class or function that is not here, ``None`` if it is.

    Parameters
    ----------
    wanted : tuple of str and str, optional
        The module and the name that a pickle asked for last.
    """
    module, name = wanted or ("builtins", "")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None) if part else found
    if found is not None:
        return None
    if module in _MAIN_MODULES:
        return (
            f"the model needs {name!r}, which was defined in __main__, the script or notebook of "
            "the process that saved it, and is not in this one. Put the definition into a module "
            "that can be imported in both places, and save the model again from there; to open "
            f"this file, define {name!r} in the script that loads it"
        )
    if module in sys.modules:
        return (
            f"the model needs {name!r} of the module {module!r}, which is another release here; "
            "install the one that the model was saved with"
        )
    return (
        f"the model needs the module {module!r} (for {name!r}), which cannot be imported here; "
        "install what provides it, or put its file where Python finds it"
    )


def unpickle(copy: BinaryIO) -> Any:
    """Return the object in a verified copy.

    Raises
    ------
    OSError
        With `SIDE_FILES` as its text, if the object's arrays are in other files.
    AttributeError, ModuleNotFoundError
        If a class or function that the pickle names is not here; the message says what to do.
    Exception
        Whatever joblib, or the code that the pickle runs, raises.

    Notes
    -----
    joblib has no argument that keeps it from opening such files. What a pickle names is announced
    to the hooks of the system's audit; ours looks at the threads that are in this function, and
    leaves joblib as it is for everybody else.

    References
    ----------
    Python 3.13, audit events table: pickle.find_class. joblib 1.5, numpy_pickle_compat.
    """
    import joblib  # here, so that refusals need nothing installed

    is_old = copy.read(len(_OLD_COMPRESSED)) == _OLD_COMPRESSED
    copy.seek(0)
    if is_old:
        raise OSError(SIDE_FILES)
    _watch_unpickling()
    was_unpickling = getattr(_here, "is_unpickling", False)
    _here.is_unpickling = True
    _here.wanted = None
    try:
        return joblib.load(copy)
    except (AttributeError, ImportError) as cause:
        missing = missing_definition(_here.wanted)
        if missing is None:
            raise
        kind = AttributeError if isinstance(cause, AttributeError) else ModuleNotFoundError
        raise kind(f"{missing} ({cause})") from cause
    finally:
        _here.is_unpickling = was_unpickling


def recorded_sha256(model_dir: Path) -> str | None:
    """Return the digest in the ``MLmodel`` of a mirrored model folder, if it tells one."""
    with open_regular(model_dir / "MLmodel") as file:
        size = os.fstat(file.fileno()).st_size
        text = file.read(min(size, _MLMODEL_BYTES)).decode("utf-8", "replace")
    match = _SHA256_LINE.search(text)
    return match.group(1) if match else None


def load(path: str | os.PathLike[str]) -> Any:
    """Verify the file of a mirrored model against its ``MLmodel``, then unpickle it.

    Parameters
    ----------
    path : str or path-like
        The ``.pkl`` under ``data/`` of a mirrored model folder.

    Returns
    -------
    object
        The object that was saved.

    Raises
    ------
    OSError
        If pickles are not allowed, or the bytes are not the ones that were saved.

    Warnings
    --------
    Unpickling runs code. The digest shows that the bytes are unchanged, not that they are
    harmless.
    """
    if not pickle_is_allowed():
        raise OSError(
            f"{path} is a pickle, and MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false forbids opening "
            "one; set it to true if you trust where this model comes from"
        )
    file_path = Path(path)
    expected = recorded_sha256(file_path.parent.parent)
    with open_regular(file_path) as file:
        copy, found = private_copy(file)
    with copy:
        if found != expected:
            raise OSError(
                f"{file_path} was changed after it was saved: expected SHA-256 {expected}, "
                f"found {found}; nothing was unpickled. Delete this version in MLflow, and "
                "ModelManager.sync(resend=True) of lotto_mlflow sends the intact file on disk"
            )
        return unpickle(copy)


def _load_pyfunc(data_path: str, model_config: dict[str, Any] | None = None) -> Predictor:
    return Predictor(load(data_path), model_config)
