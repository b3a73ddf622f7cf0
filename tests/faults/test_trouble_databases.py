"""Databases and artifact folders in trouble: locked, read-only, damaged, full."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from faults.trouble import (
    TITLE,
    lookup_fails_in_time,
    lost,
    nothing_counts,
    saved_in_trouble,
)

from lotto_mlflow import ModelManager

LOCK = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1], isolation_level=None) as held:
    held.execute("BEGIN EXCLUSIVE")
    print("locked", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def _locked(base_dir: Path) -> Iterator[None]:
    command = [sys.executable, "-c", LOCK, str(base_dir / "mlflow" / "mlflow.db")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        yield
        holder.communicate("\n", timeout=10)


@contextmanager
def _mounted(path: Path, *arguments: str) -> Iterator[None]:
    done = subprocess.run(["mount", *arguments, str(path)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)  # MLflow keeps files open


def _read_only(relative: str) -> Callable[[Path], Any]:
    @contextmanager
    def trouble(base_dir: Path) -> Iterator[None]:
        path = base_dir / relative
        if path.is_file():  # as after a restart: what was open for writing would stay so
            shutil.copyfile(path, path.with_name("copy"))
            os.replace(path.with_name("copy"), path)
        with _mounted(path, "--bind", str(path)):
            subprocess.run(["mount", "-o", "remount,ro,bind", str(path)], check=True)
            yield

    return trouble


@contextmanager
def _artifacts_are_a_file(base_dir: Path) -> Iterator[None]:
    path = base_dir / "mlflow" / "artifacts"
    away = path.rename(path.with_name("artifacts.away"))
    path.touch()
    yield
    path.unlink()
    away.rename(path)


def _damaged(damage: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    @contextmanager
    def trouble(base_dir: Path) -> Iterator[None]:
        path = base_dir / "mlflow" / "mlflow.db"
        content = path.read_bytes()
        path.write_bytes(damage(content))
        yield
        path.write_bytes(content)

    return trouble


def _random_bytes(content: bytes) -> bytes:
    return random.Random(645).randbytes(len(content))


def _damaged_experiments(content: bytes) -> bytes:
    """Damage the page that the table of experiments begins with; the schema stays readable."""
    copy = Path.cwd() / "copy.db"
    copy.write_bytes(content)
    with closing(sqlite3.connect(copy)) as opened:
        size = opened.execute("PRAGMA page_size").fetchone()[0]
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'experiments'"
        page = opened.execute(query).fetchone()[0]
    copy.unlink()
    begin = (page - 1) * size
    return content[:begin] + b"\x07" * size + content[begin + size :]


TROUBLES = {
    "locked": (_locked, "locked", False),
    "read-only": (_read_only("mlflow/mlflow.db"), "readonly", True),
    "truncated": (_damaged(lambda content: content[: len(content) // 2]), "malformed", False),
    "random bytes": (_damaged(_random_bytes), "not a database", False),
    "empty": (_damaged(lambda _: b""), "no such table", False),
    "a damaged page": (_damaged(_damaged_experiments), "malformed", False),
    "artifacts read-only": (_read_only("mlflow/artifacts"), "Read-only", True),
    "artifacts a file": (_artifacts_are_a_file, "Not a directory|File exists", True),
}


@pytest.fixture
def saved(manager: ModelManager) -> ModelManager:
    """A manager with one save in its embedded store."""
    manager.save_model({"n": 0}, metadata={"n": 0})
    assert manager.flush(60)
    return manager


@pytest.mark.parametrize("ending", ["save", "sync"])
@pytest.mark.parametrize("name", TROUBLES)
def test_a_database_in_trouble_holds_no_save_and_gets_all_of_them_later(
    saved: ModelManager,
    base_dir: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    ending: str,
    figures: Callable[..., None],
) -> None:
    trouble, told, is_readable = TROUBLES[name]
    first = saved.get_latest_model_path(source="registry")
    with trouble(base_dir):
        for number in (1, 2):
            assert re.search(told, saved_in_trouble(saved, caplog, base_dir, number))
        if is_readable:
            assert saved.get_latest_model_path(source="registry") == first
        else:
            lookup_fails_in_time(saved)
        nothing_counts(saved, base_dir, 2)
    if ending == "save":
        saved.save_model({"n": 3}, metadata={"n": 3})
        assert saved.flush(60)
    else:
        assert len(saved.sync().sent) == 2
    missing = lost(base_dir, _embedded(base_dir), 4 if ending == "save" else 3)
    figures(TITLE, tried=1, lost=missing)
    assert not missing


def _embedded(base_dir: Path) -> str:
    return f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"


def test_a_damaged_database_moved_away_is_made_anew_as_the_message_says(
    saved: ModelManager,
    base_dir: Path,
    caplog: pytest.LogCaptureFixture,
    figures: Callable[..., None],
) -> None:
    path = base_dir / "mlflow" / "mlflow.db"
    path.write_bytes(_random_bytes(path.read_bytes()))
    told = saved_in_trouble(saved, caplog, base_dir, 1)
    path.rename(base_dir / "damaged.db")
    call = re.search(
        r"move it away: a new one is made, and ModelManager\.sync\((.*?)\) fills it", told
    )
    assert call
    saved.sync(resend="resend=True" in call[1])
    missing = lost(base_dir, _embedded(base_dir), 2)
    figures(TITLE, tried=1, lost=missing)
    assert not missing


def test_a_store_on_a_full_disk_holds_no_save_and_gets_all_of_them_later(
    tmp_path: Path,
    migrated_database: Path,
    caplog: pytest.LogCaptureFixture,
    figures: Callable[..., None],
) -> None:
    disk, base_dir = tmp_path / "disk", tmp_path / "ml"
    disk.mkdir()
    size = migrated_database.stat().st_size + 2**20
    with _mounted(disk, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        shutil.copyfile(migrated_database, disk / "store.db")
        uri = f"sqlite:///{disk / 'store.db'}"
        manager = ModelManager(base_dir, tracking_uri=uri)
        manager.save_model({"n": 0}, metadata={"n": 0})
        assert manager.flush(60)
        filler = disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"f" * 4096):
                assert filler.stat().st_size < size
        for number in (1, 2):
            assert re.search("full|I/O", saved_in_trouble(manager, caplog, base_dir, number))
        nothing_counts(manager, base_dir, 2)
        filler.unlink()
        manager.save_model({"n": 3}, metadata={"n": 3})
        assert manager.flush(60)
        missing = lost(base_dir, uri, 4)
        figures(TITLE, tried=1, lost=missing)
        assert not missing
