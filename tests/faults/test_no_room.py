"""No room and no rights: limits, full file systems, folders that are read-only or in the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import DumpError, StoreError

TITLE = "Disks without room or rights"
FOLDERS = ("trained", "metadata", "backups", "mlflow")
OLD = {"saved_at": "2025-11-03T00:00:00+09:00", "accuracy": 0.5}
PAGE = 4096
NOBODY = 65534

CHILD = """
import json, os, resource, signal, sys, tempfile
import joblib
from lotto_mlflow import ModelManager
base_dir, work = sys.argv[1], json.loads(sys.argv[2])
with tempfile.TemporaryDirectory() as folder:  # the interpreter's own files may be root's alone
    ModelManager(folder, mirror="off").save_model({"warm": "up"}, metadata={"a": 1})
if work.get("user"):
    os.setgid(work["user"]); os.setuid(work["user"])
manager, hard = ModelManager(base_dir, mirror="off"), resource.RLIM_INFINITY
told = []
for limit, name, size in work["saves"]:
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        manager.save_model({"new": "x" * size}, name, {"a": 1})
        told.append(["saved", ""])
    except OSError as error:
        told.append([type(error).__name__, type(error.__cause__).__name__])
if work.get("plain"):
    try:
        joblib.dump({"new": "x" * 100000}, work["plain"])
    except OSError:
        pass
if not work.get("user"):
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(json.dumps(told))
"""


def _tree(base_dir: Path) -> dict[str, tuple[bytes, int]]:
    """The specification's folders, and what the records say."""
    kept = (*FOLDERS[:3], "mlflow/outbox", "mlflow/sent", "mlflow/aside")
    return {
        str(path.relative_to(base_dir)): (path.read_bytes(), path.stat().st_mtime_ns)
        for folder in kept
        for path in (base_dir / folder).rglob("*")
        if path.is_file()
    }


def _in_child(base_dir: Path, **work: Any) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(base_dir), json.dumps(work)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told: list[list[str]] = json.loads(done.stdout)
    return told


def _mounted(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@contextmanager
def _small_disk(path: Path, options: str) -> Iterator[None]:
    path.mkdir()
    _mounted("-t", "tmpfs", "-o", options, "tmpfs", str(path))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextmanager
def _read_only(path: Path) -> Iterator[None]:
    _mounted("--bind", str(path), str(path))
    try:
        _mounted("-o", "remount,ro,bind", str(path))
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextmanager
def _a_file_instead(path: Path) -> Iterator[None]:
    away = path.with_name(f"{path.name}.away")
    path.rename(away)
    path.write_text("in the way")
    try:
        yield
    finally:
        path.unlink()
        away.rename(path)


@pytest.fixture
def shared_dir() -> Iterator[Path]:
    """A folder that other users reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="lotto-rights-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _a_save_works(manager: ModelManager, base_dir: Path, path: Path) -> None:
    assert not [p for p in (base_dir / "mlflow" / "tmp").iterdir() if p.is_dir()]
    assert manager.load_model(path) == {"old": 1}
    assert manager.save_model({"now": 1}, "x", {"a": 2}) == str(path)
    assert manager.load_model(path) == {"now": 1}
    assert manager.load_model(base_dir / "backups" / "x.pkl") == {"old": 1}
    assert [f.kind for f in manager.verify() if f.kind != "missing in MLflow"] == []


def test_a_file_size_limit_leaves_the_folder_as_it_was(
    disk_manager: ModelManager, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """The limits cut the dump short, or only the record that is written after it."""
    import joblib

    base_dir, plain = tmp_path / "ml", tmp_path / "plain.pkl"
    path = Path(disk_manager.save_model({"old": 1}, "x", OLD))
    joblib.dump({"old": 1}, plain)
    before = _tree(base_dir)
    cut = [(limit, name, 100_000) for limit in (0, 1, 5_000, 99_000) for name in ("x", "new")]
    later = [(limit, name, 10) for limit in (200, 700) for name in ("x", "new")]
    told = _in_child(base_dir, saves=[*cut, *later, (700, "new", 10)], plain=str(plain))
    assert told[: len(cut)] == [["DumpError", "OSError"]] * len(cut)
    assert told[len(cut) :] == [["StoreError", "OSError"]] * (len(later) + 1)
    lost = int(_tree(base_dir) != before)
    figures(TITLE, tried=len(told), lost=lost, plain_tried=1, plain_lost=_is_lost(plain))
    assert not lost
    _a_save_works(disk_manager, base_dir, path)


def _is_lost(path: Path) -> int:
    import joblib

    try:
        return int(joblib.load(path) != {"old": 1})
    except Exception:  # noqa: BLE001 - whatever half a pickle raises
        return 1


@pytest.mark.parametrize("options", ["size=2m", "size=8m,nr_inodes=60"], ids=["full", "inodes"])
@pytest.mark.parametrize("metadata", [{"text": "y" * 9_000}, None], ids=["metadata", "none"])
def test_a_full_file_system_fails_a_save_at_any_step_and_leaves_the_folder_as_it_was(
    tmp_path: Path, options: str, metadata: dict[str, Any] | None, figures: Callable[..., None]
) -> None:
    """From nothing free upward, page by page or inode by inode, until a save goes through."""
    disk, tried = tmp_path / "disk", 0
    with _small_disk(disk, options):
        base_dir = disk / "ml"
        manager = ModelManager(base_dir, mirror="off")
        path = Path(manager.save_model({"old": 1}, "x", OLD))
        fillers = _fill(disk / "fillers")
        before = _tree(base_dir)
        while fillers:
            refusal = _refusal(manager, {"new": "x" * 9_000}, metadata)
            if refusal is None:
                break
            assert isinstance(refusal.__cause__, OSError)
            tried += 1
            assert _tree(base_dir) == before
            assert manager.load_model(path) == {"old": 1}
            fillers.pop().unlink()
        assert tried > 3
        assert manager.load_model(path) == {"new": "x" * 9_000}
        assert manager.load_model(base_dir / "backups" / "x.pkl") == {"old": 1}
        assert not list((base_dir / "mlflow" / "tmp").iterdir())
    figures(TITLE, tried=tried, lost=0)


def _refusal(
    manager: ModelManager, model: Any, metadata: dict[str, Any] | None
) -> DumpError | StoreError | None:
    try:
        manager.save_model(model, "x", metadata)
    except (DumpError, StoreError) as error:
        return error
    return None


def _fill(folder: Path) -> list[Path]:
    """Fill a file system to its last page, or its last inode."""
    folder.mkdir()
    fillers: list[Path] = []
    with suppress(OSError):
        while len(fillers) < 10_000:
            fillers.append(folder / str(len(fillers)))
            with fillers[-1].open("wb", buffering=0) as file:
                file.write(b"f" * PAGE)
    assert len(fillers) < 10_000
    return [path for path in fillers if path.exists()]


@pytest.mark.parametrize("folder", [*FOLDERS, "."])
@pytest.mark.parametrize("trouble", [_read_only, _a_file_instead], ids=["read-only", "a file"])
def test_a_folder_that_cannot_be_written_to_fails_the_save_and_nothing_else(
    manager: ModelManager,
    base_dir: Path,
    folder: str,
    trouble: Callable[[Path], Any],
    figures: Callable[..., None],
) -> None:
    path = Path(manager.save_model({"old": 1}, "x", OLD))
    before = _tree(base_dir)
    is_needed_for_new = (folder, trouble) != ("backups", _read_only)
    with trouble((base_dir / folder).resolve()):
        for name in ("x", "new", None) if is_needed_for_new else ("x",):
            with pytest.raises(StoreError) as caught:
                manager.save_model({"new": 2}, name, {"a": 1})
            assert isinstance(caught.value.__cause__, OSError)
            assert str(base_dir) in str(caught.value)
        if path.exists():
            assert manager.load_model(path) == {"old": 1}
    lost = int(_tree(base_dir) != before)
    figures(TITLE, tried=3, lost=lost)
    assert not lost
    _a_save_works(manager, base_dir, path)
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    assert len(client.search_model_versions("name = 'x'")) == 2


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("folder", [*FOLDERS, "."])
def test_a_folder_without_rights_fails_the_save_and_nothing_else(
    shared_dir: Path, folder: str, figures: Callable[..., None]
) -> None:
    base_dir = shared_dir / "ml"
    manager = ModelManager(base_dir, mirror="off")
    path = Path(manager.save_model({"old": 1}, "x", OLD))
    for owned in (base_dir, *base_dir.rglob("*")):
        os.chown(owned, NOBODY, NOBODY)
    forbidden = (base_dir / folder).resolve()
    inside = [forbidden, *forbidden.rglob("*")]
    for owned in inside:
        os.chown(owned, 0, 0)
    before = _tree(base_dir)
    saves = [(None, "x", 10), (None, "new", 10), (None, None, 10)]
    told = _in_child(base_dir, saves=saves, user=NOBODY)
    if folder == "backups":  # there, only what replaces something has to write
        assert told == [["StoreError", "PermissionError"], ["saved", ""], ["saved", ""]]
        assert before.items() <= _tree(base_dir).items()
    else:
        assert told == [["StoreError", "PermissionError"]] * 3
        assert _tree(base_dir) == before
    figures(TITLE, tried=3, lost=0)
    assert manager.load_model(path) == {"old": 1}
    for owned in inside:
        os.chown(owned, NOBODY, NOBODY)
    assert _in_child(base_dir, saves=saves[:1], user=NOBODY) == [["saved", ""]]
    assert manager.load_model(path) == {"new": "x" * 10}
    assert manager.load_model(base_dir / "backups" / "x.pkl") == {"old": 1}
