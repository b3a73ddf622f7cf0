"""File systems that cannot do everything, and the advice that each of their refusals gets."""

from __future__ import annotations

import errno
import json
import os
import platform
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from lotto_mlflow import ModelManager, advice
from lotto_mlflow.errors import DumpError, StoreError

ROOT_DIR = Path(__file__).parents[1]

SAVE = """
import errno, json, os, sys
from lotto_mlflow import ModelManager
{before}
manager = ModelManager(sys.argv[1], mirror="off")
told = []
for act in (
    lambda: manager.save_model({{"n": 2}}, "x", {{"n": 2}}),
    lambda: manager.restore("x"),
    lambda: manager.sync(),
):
    try:
        act()
        told.append(["done", ""])
    except Exception as error:
        told.append([type(error).__name__, str(error)])
print(json.dumps(told))
"""

FOLDERS_CANNOT_BE_SYNCED = """
import stat
really, synced = os.fsync, []
def fsync(descriptor):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.{name}, os.strerror(errno.{name}))
    synced.append(descriptor)
    return really(descriptor)
os.fsync = fsync
"""

NO_LOCKS = """
import ctypes
class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte),
                ("k", ctypes.c_uint)]
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.POINTER(Instruction))]
instructions = (Instruction * 4)(
    Instruction(0x20, 0, 0, 0),  # load the number of the system call
    Instruction(0x15, 0, 1, {flock}),  # another one goes past the next line
    Instruction(0x06, 0, 0, 0x00050000 | errno.{name}),
    Instruction(0x06, 0, 0, 0x7FFF0000),
)
libc = ctypes.CDLL(None, use_errno=True)
program = Program(4, instructions)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, ctypes.get_errno()  # PR_SET_SECCOMP
"""
FLOCK = {"x86_64": 73, "aarch64": 32}
"""The number of the system call ``flock`` on Linux."""


def _in_child(base_dir: Path, before: str) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SAVE.format(before=before), str(base_dir)],
        env=os.environ | {"PYTHONPATH": str(ROOT_DIR)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told: list[list[str]] = json.loads(done.stdout)
    return told


@pytest.fixture
def saved(base_dir: Path) -> Path:
    """A folder with one save and its backup."""
    manager = ModelManager(base_dir)
    for number in (0, 1):
        manager.save_model({"n": number}, "x", {"n": number})
    assert manager.flush(60)
    return base_dir


@pytest.mark.parametrize("name", ["EINVAL", "ENOTSUP", "EBADF", "ENOSYS"])
def test_a_folder_that_cannot_be_synced_is_no_failure(saved: Path, name: str) -> None:
    """Old CIFS, and some mounts of FUSE and of containers, answer so."""
    told = _in_child(saved, FOLDERS_CANNOT_BE_SYNCED.format(name=name))
    assert told == [["done", ""]] * 3
    manager = ModelManager(saved)
    assert manager.load_model(saved / "trained" / "x.pkl") == {"n": 1}
    assert manager.load_model(saved / "backups" / "x.2.pkl") == {"n": 1}
    assert manager.verify() == []


@pytest.mark.parametrize(
    ("name", "words"), [("EIO", "disk"), ("ENOSPC", "room"), ("EROFS", "read-only")]
)
def test_a_folder_whose_sync_fails_is_a_failure(saved: Path, name: str, words: str) -> None:
    told = _in_child(saved, FOLDERS_CANNOT_BE_SYNCED.format(name=name))
    for kind, message in told[:2]:
        assert kind == "StoreError"
        assert words in message
        assert ("free some room" in message) == (name == "ENOSPC")
    assert ModelManager(saved).load_model(saved / "trained" / "x.pkl") == {"n": 1}
    ModelManager(saved).sync()
    assert ModelManager(saved).verify() == []


needs_seccomp = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in FLOCK,
    reason="system calls are filtered on Linux, by their numbers",
)


@needs_seccomp
@pytest.mark.parametrize("name", ["ENOLCK", "ENOTSUP", "EINVAL"])
def test_a_file_system_without_locks_gets_advice_of_its_own(saved: Path, name: str) -> None:
    before = NO_LOCKS.format(name=name, flock=FLOCK[platform.machine()])
    told = _in_child(saved, before)
    for kind, message in told:
        assert kind == "StoreError"
        assert ".lock could not be locked" in message
        assert "local disk" in message
        assert "NFS" in message
        assert "room" not in message
    manager = ModelManager(saved)
    assert manager.load_model(saved / "trained" / "x.pkl") == {"n": 1}
    assert manager.verify() == []
    assert not list((saved / "mlflow" / "tmp").glob("*/*"))


@needs_seccomp
def test_a_system_without_flock_is_saved_to_or_told_of(saved: Path) -> None:
    """There, filelock has locks of another kind: a file left from before is locked for ever."""
    told = _in_child(saved, NO_LOCKS.format(name="ENOSYS", flock=FLOCK[platform.machine()]))
    for kind, message in told:
        assert kind == "StoreError"
        assert "local disk" in message
    assert ModelManager(saved).verify() == []


def test_too_many_open_files_are_told_of_and_damage_nothing(saved: Path) -> None:
    """What cannot be read for want of a descriptor is not taken for damaged."""
    outbox = saved / "mlflow" / "outbox"
    sent = sorted((saved / "mlflow" / "sent").iterdir())
    pending = outbox / sent[-1].name.replace("sent", "pending")
    sent[-1].rename(pending)
    for limit in (5, 7, 9, 11):
        told = _in_child(saved, MANY_OPEN.format(limit=limit))
        for kind, message in told:
            assert kind in ("done", "StoreError", "DumpError", "MirrorUnavailableError"), message
            if kind in ("StoreError", "DumpError"):
                assert "open files" in message or "files open" in message, message
    assert not list((saved / "mlflow" / "aside").iterdir())
    manager = ModelManager(saved)
    manager.sync()
    assert [finding.kind for finding in manager.verify()] == []


MANY_OPEN = """
import resource
warm = ModelManager(sys.argv[1] + "-warm", mirror="off")
for _ in range(2):
    warm.save_model({{"n": 1}}, "x", {{}})
warm.restore("x")
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
"""


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "free some room"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "read-only"),
        (errno.ENAMETOOLONG, "shorter"),
        (errno.EIO, "disk"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "file-max"),
        (errno.ENOMEM, "memory"),
        (errno.ESTALE, "network file system"),
        (errno.ETIMEDOUT, "network file system"),
        (errno.ELOOP, "circle"),
        (errno.ENOTDIR, "folder"),
        (errno.EISDIR, "folder"),
        (errno.ETXTBSY, "in use"),
        (errno.EBUSY, "in use"),
        (errno.ENOLCK, "locks"),
        (errno.ENOTSUP, "local disk"),
        (errno.EACCES, "rights"),
        (errno.EPERM, "rights"),
        (errno.EILSEQ, "name"),
        (errno.ENOENT, "removed"),
    ],
)
def test_each_number_has_its_own_advice(number: int, words: str) -> None:
    error = OSError(number, os.strerror(number))
    wrapped = StoreError("it failed")
    wrapped.__cause__ = error
    for cause in (error, wrapped):
        found = advice.of_error(cause)
        assert words in found
        assert ("room" in found) == (number in (errno.ENOSPC, errno.EDQUOT))


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_no_advice_removes_anything(number: int) -> None:
    for options in ({}, {"reads": True}, {"locks": True}):
        found = advice.of_error(OSError(number, os.strerror(number)), **options)
        assert found
        assert not {"rm", "delete", "remove"} & set(found.split())


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("attempt to write a readonly database", "rights"),
        ("unable to open database file", "rights"),
        ("database or disk is full", "free some room"),
        ("disk I/O error", "disk"),
    ],
)
def test_what_sqlite_refuses_has_advice_too(message: str, words: str) -> None:
    assert words in advice.of_error(sqlite3.OperationalError(message))
    assert advice.number_of(sqlite3.OperationalError("no such table: runs")) is None


def test_a_name_that_is_too_long_for_the_path_is_told_of(tmp_path: Path) -> None:
    deep = tmp_path
    while len(str(deep)) < os.pathconf(tmp_path, "PC_PATH_MAX") - 300:
        deep = deep / ("d" * 200)
    deep.mkdir(parents=True)
    manager = ModelManager(deep, mirror="off")
    with pytest.raises((StoreError, DumpError)) as caught:
        manager.save_model({"n": 1}, "m" * 200, {})
    assert "shorter" in str(caught.value)
    assert not list(deep.glob("*/*.pkl"))
