"""A PostgreSQL server as the tracking store: empty, of another schema, locked, silent, gone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import postgresql
import pytest
from faults.trouble import (
    TITLE,
    lookup_fails_in_time,
    lost,
    nothing_counts,
    records_in,
    saved_in_trouble,
)

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import MirrorUnavailableError

MIGRATED = "migrated"
_REVISION = "SELECT version_num FROM alembic_version"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgresql.Server]:
    with postgresql.running() as server:
        uri = server.new_database(MIGRATED)
        manager = ModelManager(tmp_path_factory.mktemp("first") / "ml", tracking_uri=uri)
        manager.save_model({"warm": "up"}, "warm", {"a": 1})
        assert manager.flush(120)
        _close_connections(server, MIGRATED)  # a database in use is no template
        yield server


def _close_connections(server: postgresql.Server, database: str) -> None:
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
    server.execute(f"{query}'{database}'")


@pytest.fixture
def uri(server: postgresql.Server, request: pytest.FixtureRequest) -> str:
    """The URI of a database that MLflow has filled with its tables."""
    return server.new_database(f"copy-{abs(hash(request.node.name))}", MIGRATED)


@pytest.fixture
def saved(uri: str, tmp_path: Path) -> ModelManager:
    manager = ModelManager(tmp_path / "ml", tracking_uri=uri)
    manager.save_model({"n": 0}, metadata={"n": 0})
    assert manager.flush(60)
    return manager


def _database(uri: str) -> str:
    return uri.rpartition("/")[2]


@contextmanager
def _paused(server: postgresql.Server, uri: str) -> Iterator[None]:
    server.pause()
    _close = server.go_on
    try:
        yield
    finally:
        _close()


@contextmanager
def _closed_to_all(server: postgresql.Server, uri: str) -> Iterator[None]:
    """Refuse every connection, as while a server is taken down for maintenance."""
    name = _database(uri)
    server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    _close_connections(server, name)
    yield
    server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


@contextmanager
def _locked(server: postgresql.Server, uri: str) -> Iterator[None]:
    import psycopg

    with psycopg.connect(uri) as holder:
        holder.execute("LOCK TABLE runs, experiments, model_versions IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def _read_only(server: postgresql.Server, uri: str) -> Iterator[None]:
    """Refuse every write, as a stand-by does that was not promoted."""
    name = _database(uri)
    server.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    _close_connections(server, name)
    yield
    server.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    _close_connections(server, name)


@pytest.mark.parametrize("ending", ["save", "sync"])
@pytest.mark.parametrize(
    ("trouble", "told", "is_readable"),
    [
        (_paused, "cannot be used|within 5 s", False),
        (_closed_to_all, "not currently accepting connections", False),
        (_locked, "within 5 s", False),
        (_read_only, "read-only", True),
    ],
)
def test_a_database_server_in_trouble_holds_no_save_and_gets_all_of_them_later(
    server: postgresql.Server,
    uri: str,
    saved: ModelManager,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    trouble: Callable[..., Any],
    told: str,
    is_readable: bool,
    ending: str,
    figures: Callable[..., None],
) -> None:
    first = saved.get_latest_model_path(source="registry")
    with trouble(server, uri):
        for number in (1, 2):
            warning = saved_in_trouble(saved, caplog, tmp_path / "ml", number)
            assert re.search(told, warning)
            assert postgresql.PASSWORD not in warning
        if is_readable:
            assert saved.get_latest_model_path(source="registry") == first
        else:
            lookup_fails_in_time(saved, 10)  # it waits for what is queued first
        if trouble is not _locked:  # there, each try waits for the one that is under way
            nothing_counts(saved, tmp_path / "ml", 2)
    if ending == "save":
        saved.save_model({"n": 3}, metadata={"n": 3})
    assert saved.flush(60)
    saved.sync()
    missing = lost(tmp_path / "ml", uri, 4 if ending == "save" else 3)
    figures(TITLE, tried=1, lost=missing)
    assert not missing


def test_an_empty_database_gets_its_tables_by_a_save_and_never_by_a_reader(
    server: postgresql.Server, tmp_path: Path, figures: Callable[..., None]
) -> None:
    uri = server.new_database("empty")
    manager = ModelManager(tmp_path / "ml", tracking_uri=uri)
    assert manager.get_latest_model_path(source="registry") is None
    assert manager.verify() == []
    assert server.execute("SELECT to_regclass('alembic_version')", "empty") == (None,)
    path = manager.save_model({"n": 0}, metadata={"n": 0})
    assert manager.flush(60)
    assert manager.get_latest_model_path(source="registry") == path
    missing = lost(tmp_path / "ml", uri, 1)
    figures(TITLE, tried=1, lost=missing)
    assert not missing
    told = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.json")]
    assert told
    assert not [text for text in told if postgresql.PASSWORD in text]


@pytest.mark.parametrize("schema", ["older", "newer"])
def test_a_database_of_another_schema_is_left_alone_and_the_command_is_told(
    server: postgresql.Server,
    uri: str,
    saved: ModelManager,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    schema: str,
    figures: Callable[..., None],
) -> None:
    from alembic import command
    from mlflow.db import commands
    from mlflow.store.db.utils import _get_alembic_config
    from sqlalchemy import create_engine

    name = _database(uri)
    (newest,) = server.execute(_REVISION, name)
    if schema == "older":
        config = _get_alembic_config(uri)
        engine = create_engine(uri)
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.downgrade(config, "-1")
        engine.dispose()
        told = "mlflow db upgrade postgresql://"
    else:
        server.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'", name)
        told = "pip install --upgrade mlflow"
    (other,) = server.execute(_REVISION, name)
    for number in (1, 2):
        warning = saved_in_trouble(saved, caplog, tmp_path / "ml", number)
        assert told in warning
        assert postgresql.PASSWORD not in warning
    for ask in (saved.sync, lambda: saved.get_latest_model_path(source="registry")):
        with pytest.raises(MirrorUnavailableError, match=re.escape(told)):
            ask()
    assert [record.tries for record in records_in(tmp_path / "ml", "outbox")] == [0, 0]
    assert server.execute(_REVISION, name) == (other,)
    if schema == "older":
        commands.main(["upgrade", uri], standalone_mode=False)
    else:
        server.execute(f"UPDATE alembic_version SET version_num = '{newest}'", name)
    assert len(saved.sync().sent) == 2
    missing = lost(tmp_path / "ml", uri, 3)
    figures(TITLE, tried=1, lost=missing)
    assert not missing


def test_a_server_that_nobody_listens_at_any_more_holds_no_save(
    uri: str,
    saved: ModelManager,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    figures: Callable[..., None],
) -> None:
    with postgresql.running() as gone:
        there = gone.new_database("short-lived")
    manager = ModelManager(tmp_path / "ml", tracking_uri=there)
    assert "cannot be used" in saved_in_trouble(manager, caplog, tmp_path / "ml", 1)
    lookup_fails_in_time(manager)
    nothing_counts(manager, tmp_path / "ml", 1)
    assert saved.sync().sent == ["lotto_model_" + Path(manager.latest().path).stem[12:]]
    figures(TITLE, tried=1, lost=0)
