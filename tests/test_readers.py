"""Readers without any right to write: everything is found and loaded, and nothing is changed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
from faults.disks import mounted_read_only, read_only
from users import FailedError, User, Users

from lotto_mlflow import ModelManager

pytestmark = [
    pytest.mark.skipif(
        not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become another user"
    ),
    pytest.mark.xdist_group("users"),
]

GROUP = 42_000
MAKER = User(42_001, 42_001, (GROUP,), 0o027)
READER = User(42_009, 42_009, (GROUP,))
ROOT = User(0, 0)

READ = """
import contextlib, io, sys
from lotto_mlflow import ModelManager
from lotto_mlflow.cli import main

manager = ModelManager(base_dir)
answer = {}

def command(*words):
    sys.argv, out, code = ["lotto-mlflow", *words, "--base-dir", base_dir], io.StringIO(), 0
    streams = sys.stdout, sys.stderr
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout, sys.stderr = streams
    return [code, "lotto_model_y" in out.getvalue() or words == ("verify",)]

newest = manager.latest(source="registry", download=True)
answer = {
    "version": manager.load_model("models:/lotto_model/1"),
    "newest": manager.load_model("models:/lotto_model/latest"),
    "path": manager.load_model(manager.get_latest_model_path(source="registry")),
    "on disk": manager.get_latest_model_path(),
    "records": sorted(record.name for record in manager.records()),
    "get": [manager.get(1).version, manager.get("lotto_model_x").version],
    "latest": [manager.latest().name, newest.name, newest.version],
    "verify": [finding.kind for finding in manager.verify()],
    "list": command("list"),
    "show": command("show", "4"),
    "latest, command": command("latest", "--source", "registry"),
    "verify, command": command("verify"),
}
if not is_gone:
    answer["file"] = manager.load_model(base_dir + "/trained/lotto_model_y.pkl")
"""


@pytest.fixture(scope="module")
def made(users: Users, place: Path) -> Path:
    """A folder of models whose group may read it, and nobody else."""
    base_dir = place / "made"
    base_dir.mkdir()
    os.chown(base_dir, MAKER.uid, GROUP)
    base_dir.chmod(0o2750)
    source = """
from lotto_mlflow import ModelManager
manager = ModelManager(base_dir)
for number in range(3):
    manager.save_model({"n": number}, "lotto_model_x", {"n": number}, artifacts={"a.txt": "text"})
manager.save_model({"n": 7}, "lotto_model_y", {"n": 7})
answer = manager.flush(60)
"""
    assert users.work(MAKER, source, base_dir=base_dir)
    return base_dir


@pytest.fixture
def folder(made: Path, place: Path) -> Iterator[Path]:
    """A copy of that folder at the place where it was made."""
    kept = place / "kept"
    shutil.copytree(made, kept, copy_function=_copied)
    yield made
    shutil.rmtree(made)
    kept.rename(made)
    _owned(made)


def _copied(source: str, target: str) -> str:
    shutil.copy2(source, target)
    return target


def _owned(base_dir: Path) -> None:
    for path in (base_dir, *base_dir.rglob("*")):
        os.chown(path, MAKER.uid, GROUP)
        path.chmod(0o2750 if path.is_dir() else 0o640)


def listing(base_dir: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(path.relative_to(base_dir)): (status.st_ino, status.st_size, status.st_mtime_ns)
        for path in (base_dir, *base_dir.rglob("*"))
        for status in [path.lstat()]
    }


def _left_by_a_writer(database: Path, mode: str) -> None:
    """Leave beside a database what a writer that was killed leaves there."""
    kept = database.parent.parent / "left"
    kept.mkdir()
    with closing(sqlite3.connect(database, isolation_level=None)) as opened:
        opened.execute(f"PRAGMA journal_mode={mode}")
        opened.execute("PRAGMA cache_size=1")
        if mode == "WAL":
            opened.execute("PRAGMA wal_autocheckpoint=0")
            opened.execute("CREATE TABLE other (a)")
        else:
            opened.execute("BEGIN")
            opened.execute("DELETE FROM model_versions")
            opened.execute("CREATE TABLE other (a)")
            opened.executemany("INSERT INTO other VALUES (?)", [("x" * 3000,)] * 500)
        for path in database.parent.glob(f"{database.name}*"):
            if not path.name.endswith("-shm"):
                shutil.copy2(path, kept)
    for path in kept.iterdir():
        shutil.copy2(path, database.parent)
    shutil.rmtree(kept)
    assert len(list(database.parent.glob(f"{database.name}*"))) == 2


def _prepare(base_dir: Path, state: str) -> None:
    database = base_dir / "mlflow" / "mlflow.db"
    if state == "WAL":
        with closing(sqlite3.connect(database)) as opened:
            opened.execute("PRAGMA journal_mode=WAL")
    elif state == "left WAL":
        _left_by_a_writer(database, "WAL")
    elif state == "left journal":
        _left_by_a_writer(database, "DELETE")
    elif state == "artifacts alone":
        (base_dir / "trained" / "lotto_model_y.pkl").unlink()
    elif state == "no locks":
        for path in (*(base_dir / "mlflow").glob("*.lock"), base_dir / "mlflow" / "clock"):
            path.unlink()
        (base_dir / "mlflow" / "tmp").rmdir()
    _owned(base_dir)


STATES = ("as saved", "WAL", "left WAL", "left journal", "artifacts alone", "no locks")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("reader", ["another user", "a read-only mount"])
def test_who_may_not_write_finds_and_loads_everything_and_changes_nothing(
    users: Users, folder: Path, state: str, reader: str
) -> None:
    _prepare(folder, state)
    before = listing(folder)
    is_gone = state == "artifacts alone"
    is_mount = reader == "a read-only mount"
    with read_only(folder) if is_mount else nullcontext():
        user = ROOT if is_mount else READER
        answer = users.work(user, READ, base_dir=folder, is_gone=is_gone)
    assert listing(folder) == before
    on_disk = "lotto_model_x" if is_gone else "lotto_model_y"
    done = [0, True]
    assert answer == {
        "version": {"n": 0},
        "newest": {"n": 7},
        "path": {"n": 7},
        "on disk": str(folder / "trained" / f"{on_disk}.pkl"),
        "records": ["lotto_model_x"] if is_gone else ["lotto_model_x", "lotto_model_y"],
        "get": [1, 3],
        "latest": [on_disk, "lotto_model_y", 4],
        "verify": ["orphan metadata", "missing on disk"] if is_gone else [],
        "list": [0, False] if is_gone else done,
        "show": done,
        "latest, command": done,
        "verify, command": [1, True] if is_gone else done,
    } | ({} if is_gone else {"file": {"n": 7}})


def test_nothing_is_pushed_to_a_copy_of_a_database_that_may_not_be_written(
    users: Users, folder: Path
) -> None:
    """Everything else may be written: the save stands, and waits in the outbox."""
    _prepare(folder, "WAL")
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o020)
    (folder / "mlflow" / "mlflow.db").chmod(0o640)
    source = """
from lotto_mlflow import ModelManager
manager = ModelManager(base_dir)
assert manager.load_model("models:/lotto_model/1") == {"n": 0}
manager.save_model({"n": 8}, "lotto_model_z", {"n": 8})
answer = [manager.flush(60), manager.latest(source="registry").name]
"""
    assert users.work(READER, source, base_dir=folder) == [False, "lotto_model_y"]
    assert not list((folder / "mlflow" / "sent").glob("*lotto_model_z*"))
    sync = "from lotto_mlflow import ModelManager; answer = ModelManager(base_dir).sync().sent"
    with pytest.raises(FailedError, match=r"chmod g\+w \S+mlflow.db"):
        users.work(READER, sync, base_dir=folder)
    (folder / "mlflow" / "mlflow.db").chmod(0o660)
    assert users.work(READER, sync, base_dir=folder) == ["lotto_model_z"]


def test_a_copy_of_a_database_follows_what_others_write(folder: Path, tmp_path: Path) -> None:
    """The same folder is mounted a second time, where nothing can be written."""
    _prepare(folder, "WAL")
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    writer = ModelManager(folder)
    with mounted_read_only(folder, mounted):
        reader = ModelManager(mounted)
        for number in (8, 9):
            writer.save_model({"n": number}, "lotto_model_z", {})
            assert writer.flush(60)
            with closing(sqlite3.connect(folder / "mlflow" / "mlflow.db")) as opened:
                opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            newest = reader.latest(source="registry")
            assert newest is not None
            assert (newest.name, newest.version) == ("lotto_model_z", number - 3)
            assert reader.load_model("models:/lotto_model/1") == {"n": 0}
            assert reader.load_model("models:/lotto_model/latest") == {"n": number}


def test_who_may_not_write_is_told_none_where_there_is_none(users: Users, place: Path) -> None:
    empty = place / "empty"
    empty.mkdir()
    source = """
from lotto_mlflow import ModelManager
manager = ModelManager(base_dir)
answer = [
    manager.get_latest_model_path(),
    manager.get_latest_model_path(source="registry"),
    manager.latest(),
    manager.latest(source="registry"),
    manager.records(),
    manager.verify(),
]
"""
    assert users.work(READER, source, base_dir=empty) == [None, None, None, None, [], []]
    assert not list(empty.iterdir())


def test_a_pipe_in_the_place_of_the_database_keeps_no_reader_waiting(
    users: Users, place: Path
) -> None:
    base_dir = Path(tempfile.mkdtemp(dir=place))
    base_dir.chmod(0o755)
    (base_dir / "mlflow").mkdir()
    os.mkfifo(base_dir / "mlflow" / "mlflow.db", 0o644)
    ask = """
from lotto_mlflow import ModelManager
from lotto_mlflow.errors import LottoMlflowError
try:
    answer = ModelManager(base_dir).get_latest_model_path(source="registry")
except LottoMlflowError as error:
    answer = str(error)
"""
    assert "a pipe" in users.work(MAKER, ask, base_dir=base_dir)
