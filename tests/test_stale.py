"""Following an alias: what it costs, and what is loaded where the registry cannot be asked."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from aliased import Aliased
from made import folder_with_store
from mlflow import MlflowClient
from serving import tracking_server
from sqlalchemy import event
from sqlalchemy.engine import Engine

from lotto_mlflow import LiveModel, ModelManager, model_utils
from lotto_mlflow.errors import (
    DigestMismatchError,
    MirrorUnavailableError,
    ModelNotFoundError,
    PickleNotAllowedError,
    SettingsError,
)

ALIAS = "models:/lotto_model@champion"


@contextmanager
def counted() -> Iterator[list[str]]:
    """Note each statement that a database is sent from here, and each request to a server."""
    found: list[str] = []

    def note_statement(*arguments: Any) -> None:
        found.append(str(arguments[2]))

    original = requests.Session.request

    def note_request(self: Any, method: str, url: str, *arguments: Any, **named: Any) -> Any:
        found.append(f"{method} {url}")
        return original(self, method, url, *arguments, **named)

    event.listen(Engine, "before_cursor_execute", note_statement)
    requests.Session.request = note_request  # type: ignore[method-assign]
    try:
        yield found
    finally:
        requests.Session.request = original  # type: ignore[method-assign]
        event.remove(Engine, "before_cursor_execute", note_statement)


def add_versions(database: Path, name: str, count: int) -> None:
    """Give a registered model more versions, copies of its first one in the database."""
    with closing(sqlite3.connect(database)) as opened:
        opened.row_factory = sqlite3.Row
        (top,) = opened.execute(
            "SELECT max(version) FROM model_versions WHERE name = ?", (name,)
        ).fetchone()
        row = dict(opened.execute(
            "SELECT * FROM model_versions WHERE name = ? AND version = 1", (name,)
        ).fetchone())  # fmt: skip
        tags = [dict(tag) for tag in opened.execute(
            "SELECT * FROM model_version_tags WHERE name = ? AND version = 1", (name,)
        )]  # fmt: skip
        for number in range(top + 1, top + 1 + count):
            for table, values in (
                ("model_versions", row),
                *(("model_version_tags", t) for t in tags),
            ):
                values = values | {"version": number}
                marks = ", ".join("?" * len(values))
                opened.execute(
                    f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})",
                    tuple(values.values()),
                )
        opened.commit()


def costs(manager: ModelManager, name: str) -> tuple[int, int]:
    """Return how often the registry is asked by a load, and for a path."""
    found = []
    for call in (
        lambda: manager.load_model(f"models:/{name}@champion"),
        lambda: manager.get_latest_model_path(source="registry", alias="champion"),
    ):
        call()
        with counted() as asked:
            call()
        found.append(len(asked))
    return found[0], found[1]


@pytest.mark.parametrize("store", ["embedded", "server"])
def test_following_an_alias_costs_the_same_with_10_and_2000_versions(
    store: str, base_dir: Path, tmp_path: Path, migrated_database: Path
) -> None:
    database = base_dir / "mlflow" / "mlflow.db"
    if store == "embedded":
        _check_costs(ModelManager(base_dir), database)
        return
    database = tmp_path / "server.db"
    shutil.copyfile(migrated_database, database)
    with tracking_server(database, tmp_path / "artifacts") as uri:
        _check_costs(ModelManager(base_dir, tracking_uri=uri), database)


def _check_costs(manager: ModelManager, database: Path) -> None:
    for number in range(10):
        manager.save_model({"n": number}, f"lotto_model_{number}")
    assert manager.flush(120)
    manager.promote(3)
    few = costs(manager, "lotto_model")
    add_versions(database, "lotto_model", 1_990)
    assert manager.load_model(ALIAS) == {"n": 2}
    assert costs(manager, "lotto_model") == few
    assert max(few) <= 30


@pytest.fixture
def promoted(manager: ModelManager, base_dir: Path) -> ModelManager:
    """Three saves, of which the second is the champion; it was loaded once."""
    for number in (1, 2, 3):
        manager.save_model({"n": number}, f"lotto_model_{number}")
    assert manager.flush(120)
    manager.promote(2)
    assert manager.load_model(ALIAS) == {"n": 2}
    return manager


@contextmanager
def outage(base_dir: Path) -> Iterator[None]:
    """Have the embedded store not answer."""
    with closing(sqlite3.connect(base_dir / "mlflow" / "mlflow.db", isolation_level=None)) as held:
        held.execute("BEGIN EXCLUSIVE")
        yield


def test_where_the_registry_cannot_be_asked_the_last_holder_seen_is_loaded_with_a_warning(
    promoted: ModelManager, base_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with outage(base_dir):
        for call in (
            lambda: promoted.load_model(ALIAS),
            lambda: promoted.get_latest_model_path(source="registry", alias="champion"),
        ):
            with pytest.raises(MirrorUnavailableError):
                call()
        caplog.clear()
        assert promoted.load_model(ALIAS, stale_ok=True) == {"n": 2}
        (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert "was last seen to stand for: version 2" in warning.getMessage()
        path = promoted.get_latest_model_path(source="registry", alias="champion", stale_ok=True)
        assert path == str(base_dir / "trained" / "lotto_model_2.pkl")
    promoted.promote(3)
    with outage(base_dir):
        assert promoted.load_model(ALIAS, stale_ok=True) == {"n": 3}


def test_what_a_live_model_came_to_serve_is_loaded_where_the_registry_cannot_be_asked(
    promoted: ModelManager, base_dir: Path
) -> None:
    with LiveModel(ALIAS, manager=promoted, every_seconds=3_600) as live:
        promoted.load_model(ALIAS)
        uri = f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"
        MlflowClient(tracking_uri=uri).set_registered_model_alias("lotto_model", "champion", "3")
        assert live.refresh()
        with outage(base_dir):
            assert promoted.load_model(ALIAS, stale_ok=True) == live.model == {"n": 3}


def test_where_the_registry_answers_stale_ok_changes_nothing(
    promoted: ModelManager, caplog: pytest.LogCaptureFixture
) -> None:
    promoted.promote(3)
    assert promoted.load_model(ALIAS, stale_ok=True) == {"n": 3}
    assert "last seen" not in caplog.text
    with pytest.raises(ModelNotFoundError):
        promoted.load_model("models:/lotto_model@nobody", stale_ok=True)
    for alias in ("nobody", "챔피언"):
        with pytest.raises(ModelNotFoundError):
            promoted.get_latest_model_path(source="registry", alias=alias, stale_ok=True)
    with pytest.raises(SettingsError, match="files have no aliases"):
        promoted.get_latest_model_path(alias="champion")


def test_the_latest_is_kept_in_mind_too_and_a_version_that_was_never_seen_is_not(
    promoted: ModelManager, base_dir: Path
) -> None:
    assert promoted.get_latest_model_path(source="registry")
    with outage(base_dir):
        assert promoted.load_model("models:/lotto_model/latest", stale_ok=True) == {"n": 3}
        path = promoted.get_latest_model_path(source="registry", stale_ok=True)
        assert str(path).endswith("lotto_model_3.pkl")
        for reference in ("models:/lotto_model@challenger", "models:/x/latest"):
            with pytest.raises(MirrorUnavailableError, match="was never seen here"):
                promoted.load_model(reference, stale_ok=True)
        with pytest.raises(MirrorUnavailableError):
            promoted.load_model("models:/lotto_model/2", stale_ok=True)


def test_stale_bytes_are_found_wherever_this_machine_has_them_and_verified(
    promoted: ModelManager, base_dir: Path
) -> None:
    path = base_dir / "trained" / "lotto_model_2.pkl"
    promoted.save_model({"n": "other"}, "lotto_model_2")  # the champion goes to backups/
    assert promoted.flush(120)
    with outage(base_dir):
        assert promoted.load_model(ALIAS, stale_ok=True) == {"n": 2}
        found = promoted.get_latest_model_path(source="registry", alias="champion", stale_ok=True)
        assert found == str(base_dir / "backups" / "lotto_model_2.pkl")
        (base_dir / "backups" / "lotto_model_2.pkl").write_bytes(b"damaged")
        assert promoted.load_model(ALIAS, stale_ok=True) == {"n": 2}  # MLflow's own file
        found = promoted.get_latest_model_path(source="registry", alias="champion", stale_ok=True)
        assert "artifacts" in str(found)
        Path(str(found)).write_bytes(b"damaged")
        with pytest.raises(MirrorUnavailableError, match="has no file here"):
            promoted.load_model(ALIAS, stale_ok=True)
    assert path.exists()


def test_a_download_serves_where_a_server_is_gone(
    tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copyfile(migrated_database, tmp_path / "server.db")
    with tracking_server(tmp_path / "server.db", tmp_path / "artifacts") as uri:
        trainer = ModelManager(tmp_path / "trainer", tracking_uri=uri)
        for number in (1, 2):
            trainer.save_model({"n": number}, f"lotto_model_{number}")
        assert trainer.flush(120)
        trainer.promote(1)
        api = ModelManager(tmp_path / "api", tracking_uri=uri)
        assert api.load_model(ALIAS) == {"n": 1}
    assert api.load_model(ALIAS, stale_ok=True) == {"n": 1}
    with pytest.raises(MirrorUnavailableError):
        api.load_model(ALIAS)
    with pytest.raises(MirrorUnavailableError):
        api.promote("models:/lotto_model/2")
    (download,) = (tmp_path / "api" / "mlflow" / "downloads").rglob("*.pkl")
    assert api.get_latest_model_path(source="registry", alias="champion", stale_ok=True) == str(
        download
    )
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with pytest.raises(PickleNotAllowedError):
        api.load_model(ALIAS, stale_ok=True)


def test_a_note_says_which_version_and_never_what_its_bytes_are(
    promoted: ModelManager, base_dir: Path
) -> None:
    evil = base_dir / "trained" / "lotto_model_2.pkl"
    noted = base_dir / "mlflow" / "aliases.json"
    content = json.loads(noted.read_text())
    entry = content["stores"]["embedded"]["lotto_model"]["champion"]
    original = evil.read_bytes()
    evil.write_bytes(original + b"x")
    entry["sha256"] = hashlib.sha256(evil.read_bytes()).hexdigest()
    noted.write_text(json.dumps(content))
    with outage(base_dir):
        assert promoted.load_model(ALIAS, stale_ok=True) == {"n": 2}  # by the record, from MLflow's
    assert promoted.load_model(ALIAS) == {"n": 2}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{", b'{"stores": []}', b'{"stores": {"embedded": []}}',
        b'{"stores": {"embedded": {"lotto_model": {"champion": 3}}}}', b"[" * 100_000,
        b'{"stores": {"embedded": {"lotto_model": {"champion": {"name": "../../etc"}}}}}', b"\xff",
    ],
)  # fmt: skip
def test_a_note_that_is_none_stops_nobody_and_is_written_anew(
    promoted: ModelManager, base_dir: Path, content: bytes
) -> None:
    noted = base_dir / "mlflow" / "aliases.json"
    noted.write_bytes(content)
    with outage(base_dir), pytest.raises(MirrorUnavailableError):
        promoted.load_model(ALIAS, stale_ok=True)
    assert promoted.load_model(ALIAS) == {"n": 2}
    with outage(base_dir):
        assert promoted.load_model(ALIAS, stale_ok=True) == {"n": 2}


def test_a_link_in_the_place_of_the_note_is_not_followed(
    promoted: ModelManager, base_dir: Path, tmp_path: Path
) -> None:
    noted = base_dir / "mlflow" / "aliases.json"
    elsewhere = tmp_path / "elsewhere.json"
    noted.rename(elsewhere)
    noted.symlink_to(elsewhere)
    content = elsewhere.read_bytes()
    with outage(base_dir), pytest.raises(MirrorUnavailableError):
        promoted.load_model(ALIAS, stale_ok=True)
    promoted.promote(3)
    assert promoted.load_model(ALIAS) == {"n": 3}
    assert elsewhere.read_bytes() == content


@pytest.mark.parametrize("field", ["name", "sha256", "save_id", "version", "run_id", "model_id"])
def test_a_note_with_a_wrong_value_is_none(
    promoted: ModelManager, base_dir: Path, field: str
) -> None:
    noted = base_dir / "mlflow" / "aliases.json"
    content = json.loads(noted.read_text())
    content["stores"]["embedded"]["lotto_model"]["champion"][field] = "../x"
    noted.write_text(json.dumps(content))
    with outage(base_dir):
        if field == "save_id":  # the folder knows the version by its number and run
            assert promoted.load_model(ALIAS, stale_ok=True) == {"n": 2}
        else:
            with pytest.raises(MirrorUnavailableError):
                promoted.load_model(ALIAS, stale_ok=True)


READER = """
import os, sys
from lotto_mlflow import ModelManager
import lotto_mlflow.mirror, joblib  # what nobody may read here
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
manager = ModelManager(sys.argv[1])
for stale_ok in (False, True):
    try:
        print(manager.load_model("models:/lotto_model@champion", stale_ok=stale_ok))
    except Exception as cause:
        print(type(cause).__name__)
"""


def test_a_reader_who_may_not_write_uses_what_others_noted(migrated_database: Path) -> None:
    shared_dir = Path(tempfile.mkdtemp(prefix="lotto-reader-"))  # pytest's own is for one user
    try:
        manager = ModelManager(folder_with_store(shared_dir / "ml", migrated_database))
        for number in (1, 2):
            manager.save_model({"n": number}, f"lotto_model_{number}")
        assert manager.flush(120)
        manager.promote(1)
        (shared_dir / "ml" / "mlflow" / "mlflow.db").write_bytes(b"broken" * 1_000)
        before = (shared_dir / "ml" / "mlflow" / "aliases.json").stat()
        for path in (shared_dir, *shared_dir.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        command = [sys.executable, "-c", READER, str(shared_dir / "ml")]
        environment = os.environ | {"HOME": "/nonexistent"}
        done = subprocess.run(
            command, cwd="/", env=environment, capture_output=True, text=True, check=False
        )
        assert done.stdout.split("\n")[:2] == ["MirrorUnavailableError", "{'n': 1}"], done.stderr
        after = (shared_dir / "ml" / "mlflow" / "aliases.json").stat()
        assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    finally:
        for path in (shared_dir, *shared_dir.rglob("*")):
            path.chmod(0o755)
        shutil.rmtree(shared_dir)


def test_loading_what_is_noted_already_writes_nothing(
    promoted: ModelManager, base_dir: Path
) -> None:
    noted = base_dir / "mlflow" / "aliases.json"
    before = noted.stat()
    for _ in range(3):
        promoted.load_model(ALIAS)
    after = noted.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_damaged_bytes_are_not_loaded_stale_or_not(promoted: ModelManager, base_dir: Path) -> None:
    for path in (*base_dir.rglob("model.pkl"), base_dir / "trained" / "lotto_model_2.pkl"):
        path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DigestMismatchError):
        promoted.load_model(ALIAS, stale_ok=True)
    with outage(base_dir), pytest.raises(MirrorUnavailableError):
        promoted.load_model(ALIAS, stale_ok=True)


def test_the_functions_of_the_module_follow_an_alias_too(
    promoted: ModelManager, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_utils, "MODEL_BASE_DIR", base_dir)
    expected = str(base_dir / "trained" / "lotto_model_2.pkl")
    find = model_utils.get_latest_model_path
    assert find(source="registry", alias="champion") == expected
    assert model_utils.load_model(ALIAS) == {"n": 2}
    with outage(base_dir):
        assert model_utils.load_model(ALIAS, stale_ok=True) == {"n": 2}
        assert find(source="registry", alias="champion", stale_ok=True) == expected
    with pytest.raises(TypeError):
        find("registry")  # type: ignore[misc]


def test_a_korean_registered_model_is_followed(base_dir: Path) -> None:
    aliased = Aliased(base_dir, None, f"내 모델 {uuid.uuid4().hex[:6]}")
    aliased.save(2)
    aliased.promote(1)
    reference = f"models:/{aliased.name}@champion"
    model = aliased.manager.load_model(reference)
    with outage(base_dir):
        assert aliased.manager.load_model(reference, stale_ok=True) == model
