"""A tracking store is resolved once, into a name that is recorded and an address that is opened."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy
from mlflow import MlflowClient
from sqlalchemy import make_url

from lotto_mlflow import ModelManager, records, settings
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.layout import Layout
from lotto_mlflow.settings import Target, sqlite_path, sqlite_uri

SECRET = "postgresql://lotto:s3cret@127.0.0.1:9/lotto?password=s3cret"


def target_of(base_dir: Path, **given: str) -> Target:
    folder = ModelFolder(Layout.under(base_dir), partial(settings.read, environment={}, **given))
    return folder.target()


@pytest.mark.parametrize(
    "path",
    [
        "/a/b.db",
        "/a b/c%20d.db",
        "/a?b/c.db",
        "/내 #1/x.db",
        "/a%/b.db",
        "/a+b/c&d=e.db",
        "/100%25/x",
    ],
)
def test_a_path_and_its_uri_are_the_same_for_sqlalchemy_and_here(path: str) -> None:
    if "?" in path and sqlalchemy.__version__.startswith("2.0."):
        return  # which opens no such path
    uri = sqlite_uri(Path(path))
    assert sqlite_path(uri) == Path(path)
    assert make_url(uri).database == path


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////a%20b.db",
        "sqlite:////a.db?timeout=3",
        "sqlite:////a#b.db",
        "sqlite:///a/b%25.db",
    ],
)
def test_a_uri_that_a_person_wrote_is_read_as_sqlalchemy_reads_it(uri: str) -> None:
    assert str(sqlite_path(uri)) == make_url(uri).database


@pytest.mark.parametrize(
    "uri", ["sqlite:///:memory:", "sqlite://", "http://a/b", "file:///a", SECRET]
)
def test_a_store_without_a_database_file_has_no_path(uri: str) -> None:
    assert sqlite_path(uri) is None


def test_the_name_of_a_target_has_no_secret_and_its_address_has(tmp_path: Path) -> None:
    target = target_of(tmp_path, tracking_uri=SECRET)
    assert target.name == "postgresql://***@127.0.0.1:9/lotto?password=***"
    assert target.tracking_uri == target.registry_uri == SECRET
    assert target.database_path is None


def test_the_embedded_store_has_one_name_however_it_is_reached(tmp_path: Path) -> None:
    database = tmp_path / "mlflow" / "mlflow.db"
    by_default = target_of(tmp_path)
    assert by_default == target_of(tmp_path, tracking_uri=f"sqlite:///{database}")
    assert by_default.name == "embedded"
    assert by_default.database_path == database


def test_the_name_of_another_store_is_never_opened_as_an_address(
    base_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Extra artifacts that only another store has are left there, with a warning."""
    manager = ModelManager(base_dir)
    manager.save_model({"a": 1}, "x", {"n": 1}, artifacts={"note.txt": "kept"})
    (sent,) = (base_dir / "mlflow" / "sent").glob("*.json")
    record = records.parse(sent.read_bytes())
    elsewhere = f"sqlite:///{base_dir / 'elsewhere.db'}"
    moved = replace(record, target=elsewhere, mirrored={elsewhere: record.mirrored["embedded"]})
    sent.write_bytes(records.render(moved))
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    client.delete_model_version("x", "1")
    assert manager.sync().sent == ["x"]
    assert "extra artifacts of x may be missing" in caplog.text
    assert not (base_dir / "elsewhere.db").exists()


def test_one_store_has_one_push_thread_whatever_the_time_zone(base_dir: Path) -> None:
    before = set(threading.enumerate())
    for number, zone in enumerate(("Asia/Seoul", "UTC", "Europe/Paris")):
        manager = ModelManager(base_dir, mirror="background", timezone=zone)
        manager.save_model({"n": number}, metadata={})
        started = set(threading.enumerate()) - before
        assert sum(thread.name == "lotto_mlflow-push" for thread in started) <= 1
    assert ModelManager(base_dir).flush(60)
    assert {record.version for record in ModelManager(base_dir).records()} == {1, 2, 3}


def test_a_database_whose_name_holds_a_percent_sign_is_mirrored_to(
    tmp_path: Path, migrated_database: Path
) -> None:
    database = tmp_path / "50% a%20b" / "store.db"
    database.parent.mkdir()
    database.write_bytes(migrated_database.read_bytes())
    manager = ModelManager(tmp_path / "ml", tracking_uri=sqlite_uri(database))
    manager.save_model({"a": 1}, "x", {"n": 1})
    assert manager.get("x").version == 1
    (sent,) = (tmp_path / "ml" / "mlflow" / "sent").glob("*.json")
    assert list(json.loads(sent.read_bytes())["mirrored"]) == [sqlite_uri(database)]
