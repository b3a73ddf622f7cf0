"""Background saves in processes that skip exit hooks, and the recipes that bring them to MLflow."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made import folder_with_store
from serving import environment

from lotto_mlflow import ModelManager, files
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.layout import Layout

TESTS = Path(__file__).parent
OPERATIONS = (TESTS.parent / ".github" / "OPERATIONS.md").read_text(encoding="utf-8")
CELERY = [sys.executable, "-m", "celery", "-A", "celery_app"]
WAIT_SECONDS = 120.0


def wait_until(is_so: object, what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def outbox(base_dir: Path) -> list[str]:
    return os.listdir(base_dir / "mlflow" / "outbox")


def saved_by_celery(folder: Path, *, flushes: bool) -> None:
    """Have a real worker with a prefork pool run two tasks, and end it as an operator would.

    Notes
    -----
    Nobody pushes before the worker was asked to end; then who still wants to, may.
    """
    (folder / "queue").mkdir()
    (folder / "control").mkdir()
    more = {"CELERY_DIR": str(folder), "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    if flushes:
        more["CELERY_FLUSHES"] = "1"
    log_path, push_lock = folder / "log.txt", ModelFolder(Layout.under(folder / "ml")).push_lock()
    command = [*CELERY, "worker", "--pool", "prefork", "-c", "2", "--loglevel", "info"]
    with files.locked(push_lock), log_path.open("w") as log:
        pool = subprocess.Popen(command, env=environment(**more), stdout=log, stderr=log)
        try:
            for number in range(2):
                call = [*CELERY, "call", "celery_app.train", "--args", f"[{number}]"]
                subprocess.run(call, env=environment(**more), check=True, capture_output=True)
            wait_until(lambda: log_path.read_text().count(" succeeded in ") == 2, "the tasks")
            pool.terminate()
            wait_until(lambda: "Warm shutdown" in log_path.read_text(), "the shutdown")
            if not flushes:  # it ends by itself while nobody can push
                pool.wait(WAIT_SECONDS)
        except BaseException:
            pool.kill()
            raise
    pool.wait(WAIT_SECONDS)


@pytest.mark.timeout(600)
def test_what_celerys_children_saved_waits_in_the_outbox_until_the_next_sync(
    tmp_path: Path, migrated_database: Path
) -> None:
    base_dir = folder_with_store(tmp_path / "ml", migrated_database)
    saved_by_celery(tmp_path, flushes=False)
    assert len(outbox(base_dir)) == 2
    command = [sys.executable, "-m", "lotto_mlflow", "sync", "--base-dir", str(base_dir)]
    subprocess.run(command, check=True, capture_output=True)
    assert outbox(base_dir) == []
    manager = ModelManager(base_dir)
    assert [manager.get(f"x{number}").version for number in range(2)] == [1, 1]


@pytest.mark.timeout(600)
def test_with_the_recipe_celerys_children_push_what_they_saved(
    tmp_path: Path, migrated_database: Path
) -> None:
    base_dir = folder_with_store(tmp_path / "ml", migrated_database)
    saved_by_celery(tmp_path, flushes=True)
    assert outbox(base_dir) == []
    manager = ModelManager(base_dir)
    assert [manager.get(f"x{number}").version for number in range(2)] == [1, 1]


def test_the_recipe_is_the_one_that_the_page_on_operations_gives() -> None:
    (recipe,) = re.findall(r"`(worker_process_shutdown\.connect\(.*?weak=False\))`", OPERATIONS)
    assert f"    {recipe}\n" in (TESTS / "celery_app.py").read_text(encoding="utf-8")


def _save(base_dir: str, end: str) -> None:
    manager = ModelManager(base_dir, mirror="background")
    manager.save_model({"end": end}, end, {"a": 1})
    if end == "flushed":
        manager.flush(WAIT_SECONDS)
    if end != "returns":
        os._exit(0)


@pytest.mark.parametrize("end", ["returns", "skips", "flushed"])
def test_a_child_that_returns_or_flushes_has_pushed_and_one_that_skips_hooks_has_not(
    base_dir: Path, end: str
) -> None:
    """The bound at the exit is five seconds: who returns is waited for that long, and no longer."""
    folder = ModelFolder(Layout.under(base_dir))
    child = multiprocessing.get_context("spawn").Process(target=_save, args=(str(base_dir), end))
    if end == "skips":
        with files.locked(folder.push_lock()):
            child.start()
            child.join(WAIT_SECONDS)
    else:
        child.start()
        child.join(WAIT_SECONDS)
    assert child.exitcode == 0
    manager = ModelManager(base_dir)
    if end == "flushed":
        assert outbox(base_dir) == []
    if end == "skips":
        assert len(outbox(base_dir)) == 1
    assert manager.flush(WAIT_SECONDS)
    assert outbox(base_dir) == []
    assert manager.get(end).version == 1


def test_a_pool_that_is_terminated_leaves_its_saves_to_the_next_sync(base_dir: Path) -> None:
    push_lock = ModelFolder(Layout.under(base_dir)).push_lock()
    with files.locked(push_lock), multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(_save_in_pool, (str(base_dir),))
    assert len(outbox(base_dir)) == 1
    assert ModelManager(base_dir).sync().sent == ["pooled"]


def _save_in_pool(base_dir: str) -> None:
    ModelManager(base_dir, mirror="background").save_model({"a": 1}, "pooled", {"a": 1})
