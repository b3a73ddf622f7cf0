"""Databases of another release's schema, and records that MLflow condemns."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faults.trouble import TITLE, lookup_fails_in_time, lost, records_in, saved_in_trouble

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import MirrorUnavailableError
from lotto_mlflow.records import render

NEWER = "ffffffffffff"
KILLS = 12


@pytest.fixture
def saved(manager: ModelManager) -> ModelManager:
    """A manager with one save in its embedded store."""
    manager.save_model({"n": 0}, metadata={"n": 0})
    assert manager.flush(60)
    return manager


def _embedded(base_dir: Path) -> str:
    return f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"


def _revision(path: Path) -> str:
    with closing(sqlite3.connect(path)) as opened:
        return str(opened.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def _of_other_schema(path: Path, schema: str) -> None:
    """Replace a database by one that another release of MLflow would have made."""
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config
    from sqlalchemy import create_engine

    other = path.with_name("other.db")
    shutil.copyfile(path, other)
    if schema == "newer":
        with closing(sqlite3.connect(other)) as opened, opened:
            opened.execute("UPDATE alembic_version SET version_num = ?", [NEWER])
    else:
        engine = create_engine(f"sqlite:///{other}")
        config = _get_alembic_config(f"sqlite:///{other}")
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.downgrade(config, "-1")
        engine.dispose()
    os.replace(other, path)


@pytest.mark.parametrize("by", ["save", "sync"])
def test_an_embedded_store_of_an_older_schema_is_upgraded_once_in_place_and_never_by_a_reader(
    saved: ModelManager, base_dir: Path, by: str, figures: Callable[..., None]
) -> None:
    path = base_dir / "mlflow" / "mlflow.db"
    newest, kept = _revision(path), base_dir / "mlflow" / "mlflow.db.before-upgrade.bak"
    _of_other_schema(path, "older")
    older, before, inode = _revision(path), path.read_bytes(), path.stat().st_ino
    assert older != newest
    lookup_fails_in_time(saved)
    assert [f.kind for f in saved.verify()] == ["mlflow unavailable"]
    assert not saved.sync(dry_run=True).sent
    assert path.read_bytes() == before
    assert not kept.exists()
    if by == "sync":
        saved.sync()
    for number in (1, 2):
        last = saved.save_model({"n": number}, metadata={"n": number})
        assert saved.flush(60)
    assert (_revision(path), path.stat().st_ino) == (newest, inode)
    assert _revision(kept) == older
    assert sorted(p.name for p in kept.parent.glob("mlflow.db*")) == [path.name, kept.name]
    missing = lost(base_dir, _embedded(base_dir), 3)
    figures(TITLE, tried=1, lost=missing)
    assert not missing
    assert saved.get_latest_model_path(source="registry") == last


def _upgraded_in_a_child(base_dir: Path) -> Any:
    """Start a forked child that upgrades; it has MLflow imported already."""
    child = multiprocessing.get_context("fork").Process(target=ModelManager(base_dir).sync)
    child.start()
    return child


def test_an_upgrade_killed_at_any_moment_leaves_a_database_that_the_next_save_upgrades(
    saved: ModelManager, base_dir: Path, figures: Callable[..., None]
) -> None:
    path = base_dir / "mlflow" / "mlflow.db"
    newest = _revision(path)
    _of_other_schema(path, "older")
    older, before = _revision(path), path.read_bytes()
    begun = time.monotonic()
    child = _upgraded_in_a_child(base_dir)
    child.join(60)
    whole_seconds = time.monotonic() - begun
    assert (child.exitcode, _revision(path)) == (0, newest)
    found = set()
    for part in range(KILLS):
        path.write_bytes(before)
        child = _upgraded_in_a_child(base_dir)
        time.sleep(whole_seconds * part / KILLS)
        child.kill()
        child.join(60)
        with closing(sqlite3.connect(path)) as opened:  # rolls back what was cut off
            assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found.add(_revision(path))
    assert older in found <= {older, newest}
    path.write_bytes(before)
    saved.save_model({"n": 1}, metadata={"n": 1})
    assert saved.flush(60)
    assert _revision(path) == newest
    assert not list(path.parent.glob("*.new*"))
    missing = lost(base_dir, _embedded(base_dir), 2)
    figures(TITLE, tried=KILLS, lost=missing)
    assert not missing


@pytest.mark.parametrize(
    ("where", "schema"), [("elsewhere", "older"), ("elsewhere", "newer"), ("embedded", "newer")]
)
def test_a_store_that_is_not_ours_to_upgrade_is_left_alone_and_the_command_is_told(
    base_dir: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    where: str,
    schema: str,
    figures: Callable[..., None],
) -> None:
    path, uri = base_dir / "mlflow" / "mlflow.db", _embedded(base_dir)
    if where == "elsewhere":
        path = Path(shutil.copyfile(path, tmp_path / "store.db"))
        uri = f"sqlite:///{path}"
    manager = ModelManager(base_dir, tracking_uri=None if where == "embedded" else uri)
    manager.save_model({"n": 0}, metadata={"n": 0})
    assert manager.flush(60)
    content, newest = path.read_bytes(), _revision(path)
    _of_other_schema(path, schema)
    before = path.read_bytes()
    command = "pip install --upgrade mlflow" if schema == "newer" else f"mlflow db upgrade {uri}"
    for number in (1, 2):
        assert command in saved_in_trouble(manager, caplog, base_dir, number)
    for ask in (manager.sync, lambda: manager.get_latest_model_path(source="registry")):
        with pytest.raises(MirrorUnavailableError, match=re.escape(command)):
            ask()
    assert path.read_bytes() == before
    assert not [*path.parent.glob("*.bak*"), *path.parent.glob("*-journal")]
    if schema == "older":
        from mlflow.db import commands

        commands.main(["upgrade", uri], standalone_mode=False)
    else:
        path.write_bytes(content)
    assert _revision(path) == newest
    assert len(manager.sync().sent) == 2
    missing = lost(base_dir, uri, 3)
    figures(TITLE, tried=1, lost=missing)
    assert not missing


def test_a_record_that_mlflow_condemns_is_set_aside_and_does_not_block_those_behind_it(
    base_dir: Path, figures: Callable[..., None]
) -> None:
    """The record has a name that MLflow refuses, which a save would not have taken."""
    manager, bad = ModelManager(base_dir), "lotto_model:bad"
    path = Path(ModelManager(base_dir, mirror="off").save_model({"n": 0}, "good", {"n": 0}))
    (record,) = records_in(base_dir, "outbox")
    (file,) = (base_dir / "mlflow" / "outbox").iterdir()
    file.write_bytes(render(replace(record, payload=replace(record.payload, name=bad))))
    file.rename(file.with_name(file.name.replace("~good.json", f"~{bad}.json")))
    path.rename(path.with_name(f"{bad}.pkl"))
    for number in range(3):
        assert [r.tries for r in records_in(base_dir, "outbox")] == [number]
        manager.save_model({"n": number}, f"lotto_model_{number}", {"n": number})
        assert len(records_in(base_dir, "sent")) == number + 1
    assert manager.flush(60)
    (aside,) = records_in(base_dir, "aside")
    assert (aside.name, aside.tries) == (bad, 3)
    (stuck,) = [finding for finding in manager.verify() if finding.kind == "stuck record"]
    assert (stuck.name, stuck.detail) == (bad, aside.reason)
    assert "Invalid" in stuck.detail or "cannot" in stuck.detail
    assert "retry_aside=True" in stuck.repair
    assert not manager.sync().sent
    assert list(manager.sync(retry_aside=True).failed) == [bad]
    assert [r.tries for r in records_in(base_dir, "outbox")] == [1]
    (file,) = (base_dir / "mlflow" / "outbox").iterdir()
    file.unlink()
    good = replace(aside, payload=replace(aside.payload, name="good"))
    file = base_dir / "mlflow" / "aside" / f"{record.id}~aside~good.json"
    file.write_bytes(render(good))
    path.with_name(f"{bad}.pkl").rename(path)
    assert manager.sync(retry_aside=True).sent == ["good"]
    missing = lost(base_dir, _embedded(base_dir), 4, "lotto_model", "good")
    figures(TITLE, tried=1, lost=missing)
    assert not missing
