"""Moving to another store: everything is there, nothing is there twice, and nothing is lost."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import postgresql
import pytest
from integration.doors import Authority
from made import folder_with_store
from mlflow import MlflowClient
from predicting import BONUS, DRAWN, GAME, before, next_draw, travel
from serving import free_port, tracking_server
from typer.testing import CliRunner

from lotto_mlflow import ModelManager
from lotto_mlflow.cli import app
from lotto_mlflow.draws import closes_at
from lotto_mlflow.errors import (
    InvalidReferenceError,
    MirrorUnavailableError,
    ModelNotFoundError,
    OtherSchemaError,
    SettingsError,
    SyncRunningError,
)
from lotto_mlflow.files import lock_at, locked
from lotto_mlflow.records import RESTORE, AliasMove, MigrateReport, parse, render

OTHER, KOREAN, FIRST_NAME, NEW_NAME = "other", "두번째 모델", "renamed", "prod"
TEXT = "People wrote this.\n\nIn two lines."
ADDED = "\n\nSeen by people."


def embedded_uri(base_dir: Path) -> str:
    return f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"


def client_of(uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=uri)


def save_all(manager: ModelManager) -> None:
    """Save 14 models of four registered models."""
    for number in range(6):
        metadata = {"score": number / 10, "note": f"{number}"}
        manager.save_model({"model": number}, f"lotto_model_{number}", metadata)
    for number in range(3):
        manager.save_model(
            {"other": number}, OTHER, {"score": number}, artifacts={"a.txt": f"{number}"}
        )
    for number in range(2):
        manager.save_model({"korean": number}, KOREAN)
    for number in range(3):
        manager.save_model({"renamed": number}, FIRST_NAME, {"score": number})
    assert manager.flush(120)


def move_aliases(manager: ModelManager, client: MlflowClient) -> None:
    """Move aliases to and fro, then rename a model, and delete a version that was in use once."""
    manager.promote("lotto_model_0")
    manager.promote("lotto_model_2", reason="두번째")
    manager.promote("lotto_model_3", metric="score")
    manager.rollback(reason="worse")
    manager.promote("lotto_model_4")
    manager.promote("lotto_model_1", "challenger")
    manager.delete("lotto_model_2", dry_run=False)
    manager.promote(f"models:/{FIRST_NAME}/1")
    manager.promote(f"models:/{FIRST_NAME}/3")
    client.rename_registered_model(FIRST_NAME, NEW_NAME)
    client.set_registered_model_alias(OTHER, "shadow", "2")
    manager.delete(f"models:/{OTHER}/1", dry_run=False)
    manager.sync(resend=True)
    manager.promote(f"models:/{NEW_NAME}/2")


def add_tags(manager: ModelManager, client: MlflowClient) -> None:
    """Add what people add."""
    record = manager.get("lotto_model_1")
    client.set_model_version_tag("lotto_model", "2", "team", "청팀")
    client.set_tag(str(record.run_id), "reviewed", "yes")
    client.set_tag(str(record.run_id), "mlflow.note.content", TEXT)
    client.set_logged_model_tags(str(record.model_id), {"stage": "shadow"})
    client.set_registered_model_tag("lotto_model", "owner", "me")
    client.update_registered_model(KOREAN, TEXT)
    described = client.get_model_version("lotto_model", "5").description
    client.update_model_version("lotto_model", "5", described + ADDED)


def predict(manager: ModelManager, draw: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record a live prediction and a backtest, and what was drawn."""
    with monkeypatch.context() as patch:
        go = travel(patch)
        manager.record_prediction("lotto_model_4", draw, GAME)
        manager.record_prediction("lotto_model_4", 1000, GAME, made_at=before(1000))
        go(closes_at(draw) + timedelta(hours=2))
        manager.record_result(draw, DRAWN, BONUS)
        manager.record_result(1000, DRAWN, BONUS)
    assert manager.flush(120)


@pytest.fixture(scope="module")
def draw() -> int:
    return next_draw()


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path, draw: int) -> Path:
    """A folder with all that a store can hold; migrations from it leave it as it was."""
    base_dir = folder_with_store(tmp_path_factory.mktemp("grown") / "ml", migrated_database)
    manager, client = ModelManager(base_dir), client_of(embedded_uri(base_dir))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        save_all(manager)
        move_aliases(manager, client)
        add_tags(manager, client)
        predict(manager, draw, patch)
        for path in (base_dir / "backups").glob(f"{OTHER}*"):
            path.unlink()  # of an older save, only MLflow has the bytes
        assert manager.verify() == []
    return base_dir


@pytest.fixture(scope="module")
def database_server() -> Iterator[postgresql.Server]:
    with postgresql.running() as server:
        yield server


@pytest.fixture(params=["server", "postgresql"])
def target_uri(
    request: pytest.FixtureRequest, tmp_path: Path, migrated_database: Path
) -> Iterator[str]:
    if request.param == "postgresql":
        server = request.getfixturevalue("database_server")
        yield server.new_database(f"to_{os.urandom(4).hex()}")
        return
    shutil.copyfile(migrated_database, tmp_path / "server.db")
    with tracking_server(tmp_path / "server.db", tmp_path / "artifacts") as uri:
        yield uri


def contents(base_dir: Path, target: str) -> dict[str, Any]:
    """Return the digest of each file, and of records what they say but of one store."""
    found: dict[str, Any] = {}
    for path in sorted(base_dir.rglob("*")):
        name = path.relative_to(base_dir).as_posix()
        is_of_target = name.startswith("mlflow/artifacts/lotto_model-")
        if not path.is_file() or path.suffix == ".lock" or is_of_target:
            continue
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        if name.startswith("mlflow/sent/"):
            record = parse(path.read_bytes())
            others = {key: ids for key, ids in record.mirrored.items() if key != target}
            found[name] = replace(record, mirrored=others)
    return found


def without_versions(moves: list[AliasMove]) -> list[AliasMove]:
    def plain(holder: Any) -> Any:
        return None if holder is None else replace(holder, version=1)

    return [replace(move, from_=plain(move.from_), to=plain(move.to)) for move in moves]


def versions_of(manager: ModelManager, alias: str, name: str) -> list[tuple[Any, Any]]:
    moves = manager.history(alias, registered_model=name)
    return [(m.from_ and m.from_.version, m.to and m.to.version) for m in moves]


def save_ids(uri: str) -> dict[str, list[str]]:
    """Return the saves of each registered model, by the numbers of their versions."""
    found: dict[str, list[tuple[int, str]]] = {}
    for version in client_of(uri).search_model_versions():
        item = (int(version.version), version.tags.get("save_id", ""))
        found.setdefault(version.name, []).append(item)
    return {name: [save_id for _, save_id in sorted(items)] for name, items in found.items()}


def test_everything_is_there_and_the_original_is_as_it_was(
    grown: Path, target_uri: str, draw: int
) -> None:
    here, there = ModelManager(grown), ModelManager(grown, tracking_uri=target_uri)
    seen: list[tuple[int, int, int, str]] = []
    before_it = contents(grown, "")
    report = here.migrate(target_uri, progress=lambda *values: seen.append(values))
    assert contents(grown, report.to) == before_it
    assert "secret" not in report.to
    assert (report.failed, report.left, len(report.sent)) == ({}, {}, 12)
    assert (report.verified, report.moves) == (12, 9)
    assert report.aliases == [
        f"{NEW_NAME}@champion",
        "lotto_model@challenger",
        "lotto_model@champion",
        f"{OTHER}@shadow",
    ]
    assert [done for done, *_ in seen] == list(range(37))
    assert {total for _, total, *_ in seen} == {36}
    check_saves(grown, target_uri)
    check_aliases(here, there)
    shown = call(grown, target_uri, "history")
    assert "deleted" in shown.stdout
    check_notes(there, target_uri)
    check_predictions(there, target_uri, draw)
    assert there.verify(deep=True) == []
    assert here.verify() == []
    again = here.migrate(target_uri)
    assert again == MigrateReport(to=report.to, verified=12)
    there.rollback()
    there.rollback(registered_model=NEW_NAME)
    assert versions_of(there, "champion", "lotto_model")[-1] == (4, 1)
    assert versions_of(there, "champion", NEW_NAME)[-1] == (2, 3)
    with pytest.raises(ModelNotFoundError):
        there.rollback()
    # what was moved there since stays moved
    assert here.migrate(target_uri) == again
    assert there.get("models:/lotto_model@champion").name == "lotto_model_0"
    assert there.verify() == []


def check_saves(grown: Path, target_uri: str) -> None:
    found, source = save_ids(target_uri), save_ids(embedded_uri(grown))
    assert {name: ids for name, ids in source.items() if ids} == found
    assert all(ids == sorted(ids) for ids in found.values())
    assert {name: len(ids) for name, ids in found.items()} == {
        "lotto_model": 5,
        OTHER: 2,
        KOREAN: 2,
        NEW_NAME: 3,
    }
    manager = ModelManager(grown, tracking_uri=target_uri)
    assert manager.load_model(f"models:/{NEW_NAME}@champion") == {"renamed": 1}
    assert manager.load_model(f"models:/{OTHER}/1") == {"other": 1}
    client = client_of(target_uri)
    version = client.get_model_version(NEW_NAME, "1")
    assert f"lotto_mlflow.load_model('models:/{NEW_NAME}/1')" in version.description
    run_id = str(client.get_model_version(OTHER, "1").run_id)
    assert "a.txt" in [item.path for item in client.list_artifacts(run_id)]


def check_aliases(here: ModelManager, there: ModelManager) -> None:
    aliases = (
        ("champion", "lotto_model"),
        ("challenger", "lotto_model"),
        ("champion", NEW_NAME),
        ("shadow", OTHER),
    )
    for alias, name in aliases:
        moves = there.history(alias, registered_model=name)
        original = here.history(alias, registered_model=name)
        assert without_versions(moves) == without_versions(original)
        reference = f"models:/{name}@{alias}"
        assert there.get(reference).save_id == here.get(reference).save_id
        assert there.get(reference).aliases_since == here.get(reference).aliases_since
    # the second version was deleted, and those after it have other numbers
    champion = [(None, 1), (1, 0), (0, 3), (3, 0), (0, 4)]
    assert versions_of(there, "champion", "lotto_model") == champion
    assert versions_of(here, "champion", "lotto_model")[-1] == (3, 5)
    move = there.history()[2]
    assert (move.metric, move.from_value, move.to_value) == ("score", 0.2, 0.3)


def call(base_dir: Path, uri: str | None, *arguments: str) -> Any:
    environment = {} if uri is None else {"MLFLOW_TRACKING_URI": uri}
    return CliRunner().invoke(app, ["--base-dir", str(base_dir), *arguments], env=environment)


def check_notes(there: ModelManager, target_uri: str) -> None:
    client, record = client_of(target_uri), there.get("lotto_model_1")
    version = client.get_model_version("lotto_model", "2")
    assert version.tags["team"] == "청팀"
    run = client.get_run(str(record.run_id))
    assert run.data.tags["reviewed"] == "yes"
    assert run.data.tags["mlflow.note.content"] == TEXT
    model = client.get_logged_model(str(record.model_id))
    assert model.tags["stage"] == "shadow"
    assert model.tags["mlflow.note.content"] != TEXT
    assert client.get_registered_model("lotto_model").tags["owner"] == "me"
    assert client.get_registered_model(KOREAN).description == TEXT
    # what was version 5 is version 4 there, and its text says so
    described = client.get_model_version("lotto_model", "4").description
    assert described.startswith("Alias `champion` since ")
    assert "lotto_mlflow.load_model('models:/lotto_model/4')" in described
    assert "models:/lotto_model/5" not in described
    assert str(there.get("lotto_model_4").model_id) in described
    assert described.endswith(ADDED)


def check_predictions(there: ModelManager, target_uri: str, draw: int) -> None:
    run_id, client = str(there.get("lotto_model_4").run_id), client_of(target_uri)
    for kind, number in (("live", draw), ("backtest", 1000)):
        points = client.get_metric_history(run_id, f"{kind}.hits_per_game")
        assert [(point.step, point.value) for point in points] == [(number, 4.0)]


@pytest.fixture
def small(tmp_path: Path, migrated_database: Path) -> ModelManager:
    """A manager of a folder with three saves, an alias with two moves, and a tag."""
    base_dir = folder_with_store(tmp_path / "small", migrated_database)
    manager = ModelManager(base_dir)
    for number in range(3):
        manager.save_model({"n": number}, f"lotto_model_{number}", {"score": number})
    assert manager.flush(120)
    manager.promote("lotto_model_0")
    manager.promote("lotto_model_1", reason="better")
    client_of(embedded_uri(base_dir)).set_model_version_tag("lotto_model", "3", "team", "red")
    return manager


@pytest.fixture
def small_dir(small: ModelManager, tmp_path: Path) -> Path:
    return tmp_path / "small"


@pytest.fixture
def empty_uri(tmp_path: Path, migrated_database: Path) -> str:
    """The address of an SQLite store in which nothing is."""
    shutil.copyfile(migrated_database, tmp_path / "to.db")
    return f"sqlite:///{tmp_path / 'to.db'}"


def test_the_command_says_what_it_did_and_how_to_go_on(
    small: ModelManager, small_dir: Path, empty_uri: str
) -> None:
    done = call(small_dir, None, "migrate", "--to", empty_uri, "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert (len(answer["sent"]), answer["moves"], answer["verified"]) == (3, 2, 3)
    assert answer["aliases"] == ["lotto_model@champion"]
    assert set(answer) == {field.name for field in fields(MigrateReport)}
    done = call(small_dir, None, "migrate", "--to", empty_uri)
    assert f"export MLFLOW_TRACKING_URI={empty_uri}" in done.stdout


@pytest.mark.parametrize(
    "to",
    [
        "",
        "  ",
        "here",
        "embedded",
        "./mlruns",
        "/tmp/mlruns",
        "file:///tmp/mlruns",
        "databricks",
        "http:127.0.0.1",
        "http://",
        "ftp://lotto:secret-645@127.0.0.1/x",
        "postgres://lotto:secret-645@127.0.0.1/x",
        "sqlite://",
        "sqlite:///",
        "sqlite:///?timeout=3",
        "sqlite:///:memory:",
        "sqlite+pysqlite:///:memory:",
        "sqlite:/mlflow.db",
        "sqlite://lotto/mlflow.db",
        7,
        None,
    ],
)
def test_what_is_no_address_of_a_store_is_refused(
    small: ModelManager, small_dir: Path, to: Any
) -> None:
    before_it = contents(small_dir, "")
    with pytest.raises(SettingsError, match="nothing was migrated") as caught:
        small.migrate(to)
    assert "secret-645" not in str(caught.value)
    assert contents(small_dir, "") == before_it


def test_the_current_store_is_refused_by_whatever_address(
    small: ModelManager, small_dir: Path, server_uri: str
) -> None:
    for to in (embedded_uri(small_dir), f"{embedded_uri(small_dir)}?timeout=3"):
        with pytest.raises(SettingsError, match="the current store"):
            small.migrate(to)
    small.migrate(server_uri)
    there = ModelManager(small_dir, tracking_uri=server_uri)
    before_it = contents(small_dir, "")
    with pytest.raises(SettingsError, match="the store inside the folder"):
        there.migrate(embedded_uri(small_dir))
    with pytest.raises(SettingsError, match="is the current store"):
        there.migrate(f"{server_uri}/")
    with pytest.raises(SettingsError, match="the same store by another address"):
        there.migrate(server_uri.replace("127.0.0.1", "localhost"))
    assert contents(small_dir, "") == before_it


@pytest.fixture
def reader_dir(tmp_path: Path) -> Path:
    """A folder that has saved nothing."""
    return tmp_path / "reader"


def test_the_current_store_is_refused_where_only_others_saved(
    small: ModelManager, server_uri: str, reader_dir: Path
) -> None:
    small.migrate(server_uri)
    reader = ModelManager(reader_dir, tracking_uri=server_uri)
    reader.restore("lotto_model_1", source="registry")
    before_it = contents(reader_dir, "")
    with pytest.raises(SettingsError, match="the same store by another address"):
        reader.migrate(server_uri.replace("127.0.0.1", "localhost"))
    assert contents(reader_dir, "") == before_it


def test_one_file_is_one_store_by_whatever_path(
    small: ModelManager, small_dir: Path, reader_dir: Path, tmp_path: Path
) -> None:
    database = small_dir / "mlflow" / "mlflow.db"
    (tmp_path / "linked").symlink_to(small_dir)
    (tmp_path / "link.db").symlink_to(database)
    (tmp_path / "hard.db").hardlink_to(database)
    reader = ModelManager(reader_dir, tracking_uri=embedded_uri(small_dir))
    assert reader.get("models:/lotto_model/1").name == "lotto_model_0"
    same = (tmp_path / "linked" / "mlflow" / "mlflow.db", tmp_path / "link.db")
    for path in (*same, tmp_path / "hard.db"):
        for manager in (small, reader):
            with pytest.raises(SettingsError, match="is the current store; nothing was migrated"):
                manager.migrate(f"sqlite:///{path}")
    shutil.copyfile(database, tmp_path / "copy.db")
    with pytest.raises(SettingsError, match="or a copy of it; nothing was migrated"):
        reader.migrate(f"sqlite:///{tmp_path / 'copy.db'}")
    moved = ModelManager(small_dir, tracking_uri=f"sqlite:///{tmp_path / 'new.db'}")
    with pytest.raises(SettingsError, match="the store inside the folder"):
        moved.migrate(f"sqlite:///{tmp_path / 'link.db'}")


def test_a_registry_that_two_stores_share_makes_them_not_one(
    small: ModelManager, small_dir: Path, reader_dir: Path, empty_uri: str, tmp_path: Path
) -> None:
    shutil.copyfile(tmp_path / "to.db", tmp_path / "tracking.db")
    shared = embedded_uri(small_dir)
    source = {"tracking_uri": f"sqlite:///{tmp_path / 'tracking.db'}", "registry_uri": shared}
    one = ModelManager(reader_dir, **source)
    assert one.get("models:/lotto_model/1").name == "lotto_model_0"
    assert one.migrate(shared).failed == {}


@contextmanager
def silent_port() -> Iterator[int]:
    """Listen, and never answer."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield int(listening.getsockname()[1])


@pytest.mark.parametrize(
    "to",
    [
        "http://no-such-host.invalid:5000",
        "http://lotto:secret-645@127.0.0.1:{free}",
        "http://127.0.0.1:{silent}",
        "postgresql://lotto:secret-645@no-such-host.invalid/mlflow",
        "postgresql://lotto:secret-645@127.0.0.1:{free}/mlflow",
        "postgresql://lotto:secret-645@127.0.0.1:{silent}/mlflow",
        "postgresql+nothing://lotto:secret-645@127.0.0.1/mlflow",
        "sqlite:////dev/null/mlflow.db",
    ],
)
def test_a_store_that_does_not_answer_is_said_at_once_and_nothing_is_done(
    small: ModelManager, small_dir: Path, to: str
) -> None:
    before_it, begin = contents(small_dir, ""), time.monotonic()
    with silent_port() as port:
        address = to.format(free=free_port(), silent=port)
        with pytest.raises(MirrorUnavailableError, match=r"; nothing was migrated$") as caught:
            small.migrate(address)
        done = call(small_dir, None, "migrate", "--to", address)
    assert time.monotonic() - begin < 60
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert "secret-645" not in f"{caught.value}{done.output}"
    assert contents(small_dir, "") == before_it
    assert small.verify() == []


class _Answers(http.server.BaseHTTPRequestHandler):
    version = ""
    token = ""
    other = (404, "")
    is_endless = False

    def do_GET(self) -> None:
        text = {"/health": "OK", "/version": self.version or None}.get(self.path)
        if self.path != "/health" and self.token not in self.headers.get("Authorization", ""):
            text, status = None, 401
        else:
            status = self.other[0] if text is None else 200
        self.send_response(status)
        self.end_headers()
        self.wfile.write((self.other[1] if text is None else text).encode())
        while self.is_endless and self.path == "/version":
            self.wfile.write(b"0" * 65_536)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def answering(tls: ssl.SSLContext | None = None, **how: Any) -> Iterator[str]:
    """Run a server that is none of this MLflow; yield its address."""
    handler = type("Handler", (_Answers,), how)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http{'' if tls is None else 's'}://127.0.0.1:{server.server_port}"
        server.shutdown()


OLD_AND_NEW = [
    ("2.22.1", "has MLflow 2.22.1, which has no logged models, and this client"),
    ("17.0.0.dev0+ours", "has MLflow 17.0.0.dev0, which is of a newer major version, and this"),
]


@pytest.mark.parametrize(("version", "said"), OLD_AND_NEW)
def test_a_server_of_another_mlflow_is_refused_and_named(
    small: ModelManager, small_dir: Path, reader_dir: Path, version: str, said: str
) -> None:
    before_it = contents(small_dir, "")
    with answering(version=version) as uri:
        with pytest.raises(MirrorUnavailableError, match=said) as caught:
            small.migrate(uri)
        ModelManager(reader_dir, tracking_uri=uri).save_model({"n": 3}, "later", {"n": 3})
        with pytest.raises(MirrorUnavailableError, match=said):  # a push that asked changes nothing
            small.migrate(uri)
    assert re.search(r"install mlflow\S+ (here|there); nothing was migrated$", str(caught.value))
    assert contents(small_dir, "") == before_it


@pytest.mark.parametrize(("version", "said"), OLD_AND_NEW)
def test_a_server_of_another_mlflow_is_refused_behind_a_private_authority_and_a_token(
    small: ModelManager,
    small_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    said: str,
) -> None:
    authority = Authority(tmp_path, "ours")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority.issue("server"))
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority.path))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-645")
    before_it = contents(small_dir, "")
    with (
        answering(tls, version=version, token="Bearer t0ken-645") as uri,
        pytest.raises(MirrorUnavailableError, match=said),
    ):
        small.migrate(uri)
    assert contents(small_dir, "") == before_it


def test_of_what_a_server_says_it_is_only_the_beginning_is_read(small: ModelManager) -> None:
    begin = time.monotonic()
    with (
        answering(version="3.", is_endless=True) as uri,
        pytest.raises(MirrorUnavailableError, match="no MLflow server at http"),
    ):
        small.migrate(uri)
    assert time.monotonic() - begin < 60


PAGE = "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"


@pytest.mark.parametrize(
    "other", [(404, PAGE), (405, PAGE), (200, PAGE), (404, '{"detail": "Not Found"}'), (404, "")]
)
def test_an_address_without_an_mlflow_server_is_named_as_such(
    small: ModelManager, small_dir: Path, other: tuple[int, str]
) -> None:
    before_it = contents(small_dir, "")
    with answering(other=other) as uri, pytest.raises(MirrorUnavailableError) as caught:
        small.migrate(f"{uri}/wrong")
    said = f"there is no MLflow server at {uri}/wrong; check the address; nothing was migrated"
    assert str(caught.value) == said
    assert contents(small_dir, "") == before_it


def test_a_path_that_the_server_does_not_serve_is_named_as_such(
    small: ModelManager, small_dir: Path, server_uri: str
) -> None:
    before_it = contents(small_dir, "")
    for path in ("wrong", "a/b"):
        with pytest.raises(MirrorUnavailableError, match="there is no MLflow server at http"):
            small.migrate(f"{server_uri}/{path}")
    assert contents(small_dir, "") == before_it


def test_who_is_refused_by_a_server_is_not_said_that_it_is_none(small: ModelManager) -> None:
    with (
        answering(version="3.17.2", token="Bearer t0ken-645", other=(401, PAGE)) as uri,
        pytest.raises(MirrorUnavailableError, match="does not know who asks") as caught,
    ):
        small.migrate(uri)
    assert "no MLflow server" not in str(caught.value)
    assert str(caught.value).endswith("; nothing was migrated")


def test_a_file_that_is_no_database_is_left_and_another_migration_is_advised(
    small: ModelManager, small_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "junk.db"
    path.write_bytes(b"this is no database" * 100)
    before_it = contents(small_dir, "")
    with pytest.raises(MirrorUnavailableError, match="; nothing was migrated; ") as caught:
        small.migrate(f"sqlite:///{path}")
    done = call(small_dir, None, "migrate", "--to", f"sqlite:///{path}")
    for text in (str(caught.value), done.output):
        assert "sync" not in text
        assert "call migrate again" in text
    assert f"migrate --to sqlite:///{path}" in done.output
    assert path.read_bytes() == b"this is no database" * 100
    assert contents(small_dir, "") == before_it
    path.unlink()
    assert small.migrate(f"sqlite:///{path}").verified == 3


def test_what_is_one_is_called_one(small: ModelManager, small_dir: Path, empty_uri: str) -> None:
    small.delete("lotto_model_2", dry_run=False)
    client = client_of(embedded_uri(small_dir))
    client.set_model_version_tag("lotto_model", "1", "team", "red")
    client.copy_model_version("models:/lotto_model/1", "staged")
    done = call(small_dir, None, "migrate", "--to", empty_uri)
    assert "\n2 moves of aliases copied\n1 alias set\n" in done.stdout
    assert "\n1 tag or description copied\n" in done.stdout
    assert "1 of its versions is a copy of what other" in done.stdout
    small.save_model({"n": 4}, "lotto_model_4")
    assert small.flush(120)
    done = call(small_dir, None, "migrate", "--to", empty_uri)
    assert "1 save sent\n" in done.stdout
    assert not re.findall(r"^1 \w+s\b.*", done.stdout, re.MULTILINE)


def test_one_version_is_compared_with_its_digest(tmp_path: Path, empty_uri: str) -> None:
    manager = ModelManager(tmp_path / "one", mirror="off")
    manager.save_model({"n": 1}, "lotto_model_1")
    done = call(tmp_path / "one", None, "migrate", "--to", empty_uri)
    assert "1 save sent\n1 version compared with the digest of its save\n" in done.stdout
    done = call(tmp_path / "one", None, "migrate", "--to", empty_uri)
    assert done.stdout.startswith("0 saves sent\n")


@pytest.mark.parametrize("revision", ["89d4b8295536", "ffffffffffff"])
def test_a_database_of_another_schema_is_refused_and_left_as_it_was(
    small: ModelManager, small_dir: Path, empty_uri: str, tmp_path: Path, revision: str
) -> None:
    with closing(sqlite3.connect(tmp_path / "to.db")) as opened, opened:
        opened.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    digest = hashlib.sha256((tmp_path / "to.db").read_bytes()).hexdigest()
    before_it = contents(small_dir, "")
    with pytest.raises(OtherSchemaError, match="MLflow than the installed"):
        small.migrate(empty_uri)
    assert hashlib.sha256((tmp_path / "to.db").read_bytes()).hexdigest() == digest
    assert contents(small_dir, "") == before_it


def test_a_store_that_may_only_be_read_gets_nothing_and_gets_it_all_later(
    small: ModelManager, small_dir: Path, database_server: postgresql.Server
) -> None:
    uri = database_server.new_database("read_only")
    client_of(uri).search_experiments()  # makes the tables
    read_only = 'ALTER DATABASE "read_only" SET default_transaction_read_only = '
    database_server.execute(f"{read_only} on")
    before_it = contents(small_dir, "")
    with pytest.raises(MirrorUnavailableError, match="read-only") as caught:
        small.migrate(uri)
    assert postgresql.PASSWORD not in str(caught.value)
    assert str(caught.value).endswith("; nothing was migrated")
    assert contents(small_dir, "") == before_it
    database_server.execute(f"{read_only} off")
    report = small.migrate(uri)
    assert (report.failed, len(report.sent), report.verified) == ({}, 3, 3)
    done = call(small_dir, None, "migrate", "--to", uri)
    assert postgresql.PASSWORD not in done.output
    assert "with its secrets in the place of ***" in done.output


def test_models_of_others_are_left_alone_and_ours_come_after_them(
    small: ModelManager, small_dir: Path, empty_uri: str
) -> None:
    client = client_of(empty_uri)
    client.create_registered_model("lotto_model", description="of others")
    for number in range(2):
        run = client.create_run("0")
        client.create_model_version("lotto_model", f"{run.info.artifact_uri}/{number}", None)
    client.set_registered_model_alias("lotto_model", "champion", "2")
    client.set_registered_model_alias("lotto_model", "theirs", "1")
    report = small.migrate(empty_uri)
    assert report.sent == [f"lotto_model_{number}" for number in range(3)]
    ours = [client.get_model_version("lotto_model", str(n)).tags["model_name"] for n in (3, 4, 5)]
    assert ours == report.sent
    model = client.get_registered_model("lotto_model")
    assert (model.description, model.aliases) == ("of others", {"champion": 2, "theirs": 1})
    assert all(not client.get_model_version("lotto_model", n).tags for n in ("1", "2"))
    assert list(report.failed) == ["lotto_model@champion"]
    assert "version 2 there" in report.failed["lotto_model@champion"]
    assert call(small_dir, None, "migrate", "--to", empty_uri).exit_code == 1
    client.delete_registered_model_alias("lotto_model", "champion")
    done = call(small_dir, None, "migrate", "--to", empty_uri)
    assert done.exit_code == 0, done.output
    there = ModelManager(small_dir, tracking_uri=empty_uri)
    assert there.get("models:/lotto_model@champion").name == "lotto_model_1"
    assert there.verify() == []
    assert there.rollback().to.version == 3  # type: ignore[union-attr]


def test_an_alias_that_was_moved_since_follows_unless_it_was_moved_there(
    small: ModelManager, small_dir: Path, empty_uri: str
) -> None:
    small.migrate(empty_uri)
    there = ModelManager(small_dir, tracking_uri=empty_uri)
    small.promote("lotto_model_2")
    small.rollback()
    small.promote("lotto_model_0")
    report = small.migrate(empty_uri)
    assert (report.moves, report.aliases) == (3, ["lotto_model@champion"])
    assert report.failed == {}
    assert there.get("models:/lotto_model@champion").name == "lotto_model_0"
    assert [move.kind for move in there.history()] == [move.kind for move in small.history()]
    assert there.verify() == []
    texts = [v.description for v in client_of(empty_uri).search_model_versions()]
    assert len([text for text in texts if "champion" in text]) == 1
    client_of(empty_uri).set_registered_model_alias("lotto_model", "champion", "2")
    small.promote("lotto_model_2")
    report = small.migrate(empty_uri)
    assert list(report.failed) == ["lotto_model@champion"]
    assert there.get("models:/lotto_model@champion").version == 2
    assert [move.to.version for move in there.history() if move.to][-2:] == [3, 2]
    there.promote("lotto_model_2")  # what was moved there by hand is no obstacle


def test_a_registered_model_that_was_renamed_there_stops_nothing_and_is_named(
    small: ModelManager, small_dir: Path, empty_uri: str
) -> None:
    small.migrate(empty_uri)
    client_of(empty_uri).rename_registered_model("lotto_model", "renamed")
    small.promote("lotto_model_2")
    report = small.migrate(empty_uri)
    assert "renamed or deleted there" in report.failed["lotto_model"]
    assert report.verified == 3
    assert client_of(empty_uri).get_model_version_by_alias("renamed", "champion").version == 2


def test_a_history_that_goes_on_there_by_itself_gets_nothing_added(
    small: ModelManager, small_dir: Path, empty_uri: str
) -> None:
    small.migrate(empty_uri)
    there = ModelManager(small_dir, tracking_uri=empty_uri)
    there.promote("lotto_model_2")
    small.promote("lotto_model_0", reason="later here")
    moves = there.history()
    report = small.migrate(empty_uri)
    assert "move 3" in report.failed["lotto_model"]
    assert (report.moves, report.aliases) == (0, [])
    assert there.history() == moves
    assert there.get("models:/lotto_model@champion").name == "lotto_model_2"


def test_an_alias_of_a_version_of_others_stays_behind_and_is_named(
    small: ModelManager, small_dir: Path, empty_uri: str
) -> None:
    client = client_of(embedded_uri(small_dir))
    run = client.create_run("0")
    client.create_model_version("lotto_model", f"{run.info.artifact_uri}/x", run.info.run_id)
    client.set_registered_model_alias("lotto_model", "theirs", "4")
    report = small.migrate(empty_uri)
    assert (report.failed, list(report.left)) == ({}, ["lotto_model@theirs"])
    assert call(small_dir, None, "migrate", "--to", empty_uri).exit_code == 0


def test_what_was_changed_there_is_found_by_its_digest(
    small: ModelManager, small_dir: Path, empty_uri: str
) -> None:
    small.migrate(empty_uri)
    model_id = ModelManager(small_dir, tracking_uri=empty_uri).get("lotto_model_2").model_id
    (path,) = (small_dir / "mlflow" / "artifacts").glob(f"lotto_model-*/models/{model_id}/**/*.pkl")
    path.write_bytes(b"changed" + path.read_bytes())
    report = small.migrate(empty_uri)
    assert (report.verified, list(report.failed)) == (2, ["models:/lotto_model/3"])
    done = call(small_dir, None, "migrate", "--to", empty_uri)
    assert done.exit_code == 1
    assert "sync --resend" in done.stdout
    client_of(empty_uri).delete_model_version("lotto_model", "3")
    call(small_dir, empty_uri, "sync", "--resend")
    assert small.migrate(empty_uri).verified == 3


def test_what_people_changed_there_stays(
    small: ModelManager, small_dir: Path, empty_uri: str
) -> None:
    small.migrate(empty_uri)
    client = client_of(empty_uri)
    client.set_model_version_tag("lotto_model", "3", "team", "blue")
    client.update_model_version("lotto_model", "3", "new there")
    here = client_of(embedded_uri(small_dir))
    here.update_model_version("lotto_model", "3", "new here")
    here.set_model_version_tag("lotto_model", "3", "more", "later")
    assert small.migrate(empty_uri).notes == 1
    version = client.get_model_version("lotto_model", "3")
    assert (version.tags["team"], version.tags["more"]) == ("blue", "later")
    assert version.description == "new there"


def test_a_model_that_was_renamed_after_its_last_move_keeps_its_history(
    small: ModelManager, small_dir: Path, empty_uri: str
) -> None:
    client_of(embedded_uri(small_dir)).rename_registered_model("lotto_model", "prod")
    report = small.migrate(empty_uri)
    assert (report.failed, report.moves, report.aliases) == ({}, 2, ["prod@champion"])
    there = ModelManager(small_dir, tracking_uri=empty_uri)
    assert versions_of(there, "champion", "prod") == [(None, 1), (1, 2)]
    assert there.history() == []
    assert there.verify() == []
    there.save_model({"n": 3}, "lotto_model_3", {"score": 3})
    assert there.get("lotto_model_3").registered_model == "lotto_model"


def test_artifacts_that_a_killed_migration_fetched_go_with_the_next(
    small: ModelManager, small_dir: Path, empty_uri: str
) -> None:
    outbox, save_id = small_dir / "mlflow" / "outbox", small.get("lotto_model_0").save_id
    small.migrate(empty_uri)
    for name in (str(save_id), "of another"):
        (outbox / name).mkdir()
        (outbox / name / "extra.txt").write_text("fetched")
    small.migrate(empty_uri)
    assert [path.name for path in outbox.iterdir()] == ["of another"]


def test_a_folder_that_mlflow_never_saw_is_migrated_and_no_store_is_made_in_it(
    tmp_path: Path, empty_uri: str
) -> None:
    manager = ModelManager(tmp_path / "disk", mirror="off")
    manager.save_model({"n": 1}, "lotto_model_1", {"score": 1})
    (tmp_path / "disk" / "trained" / "old.pkl").write_bytes(b"from before this package")
    report = manager.migrate(empty_uri)
    assert (report.failed, report.verified) == ({}, 2)
    assert report.backfilled == ["old"]
    assert not (tmp_path / "disk" / "mlflow" / "mlflow.db").exists()


def test_copies_of_versions_stay_behind_and_are_named(
    small: ModelManager, small_dir: Path, empty_uri: str
) -> None:
    client = client_of(embedded_uri(small_dir))
    client.copy_model_version("models:/lotto_model/1", "staged")
    client.copy_model_version("models:/lotto_model/2", "staged")
    report = small.migrate(empty_uri)
    assert (report.failed, list(report.left), report.verified) == ({}, ["staged"], 3)
    assert "2 of its versions are copies" in report.left["staged"]
    assert list(save_ids(empty_uri)) == ["lotto_model"]


def test_a_save_that_was_set_aside_is_named(
    small: ModelManager, small_dir: Path, empty_uri: str
) -> None:
    save_id = small.get("lotto_model_2").save_id
    (path,) = (small_dir / "mlflow" / "sent").glob(f"{save_id}*")
    aside = small_dir / "mlflow" / "aside" / path.name.replace("~sent~", "~aside~")
    path.rename(aside)
    report = small.migrate(empty_uri)
    assert list(report.failed) == ["lotto_model_2"]
    assert report.fixes["lotto_model_2"].arguments == {"retry_aside": True}
    assert report.verified == 2


def test_two_migrations_at_once_are_one(
    small: ModelManager, small_dir: Path, empty_uri: str
) -> None:
    with locked(lock_at(small_dir / "mlflow" / "migrate.lock")), pytest.raises(SyncRunningError):
        small.migrate(empty_uri)
    assert save_ids(empty_uri) == {}


@pytest.fixture
def two_hosts(tmp_path: Path, server_uri: str) -> tuple[ModelManager, ModelManager, str]:
    """The managers of two folders that save to one server, and the name of a model of theirs."""
    name = f"shared {os.urandom(4).hex()}"
    one, other = (ModelManager(tmp_path / host, tracking_uri=server_uri) for host in "ab")
    one.save_model({"host": "a"}, name, {"score": 1})
    assert one.flush(120)
    other.save_model({"host": "b"}, name, {"score": 2})
    assert other.flush(120)
    return one, other, name


def test_an_alias_waits_for_the_save_of_another_host(
    two_hosts: tuple[ModelManager, ModelManager, str], tmp_path: Path, empty_uri: str
) -> None:
    one, other, name = two_hosts
    one.promote(f"models:/{name}/1")
    one.promote(f"models:/{name}/2")
    first = one.migrate(empty_uri)
    assert list(first.failed) == [name]
    assert "migrate the folder that saved it" in first.failed[name]
    second = other.migrate(empty_uri)
    assert (second.failed, second.moves, second.aliases) == ({}, 1, [f"{name}@champion"])
    assert one.migrate(empty_uri).failed == {}
    for host in "ab":
        there = ModelManager(tmp_path / host, tracking_uri=empty_uri)
        assert versions_of(there, "champion", name) == [(None, 1), (1, 2)]
        assert there.verify() == []
    assert there.rollback(registered_model=name).to.version == 1  # type: ignore[union-attr]


def test_a_prediction_of_the_save_of_another_host_reaches_its_run_before_and_after(
    two_hosts: tuple[ModelManager, ModelManager, str],
    tmp_path: Path,
    server_uri: str,
    migrated_database: Path,
) -> None:
    one, other, name = two_hosts
    one.record_prediction(f"models:/{name}/2", 1000, GAME, made_at=before(1000))
    one.record_result(1000, DRAWN, BONUS)
    one.record_prediction(f"models:/{name}/2", 1001, GAME, made_at=before(1001))
    assert one.flush(120)
    assert steps(server_uri, name) == [1000]
    shutil.copyfile(migrated_database, tmp_path / "new.db")
    with tracking_server(tmp_path / "new.db", tmp_path / "artifacts") as uri:
        assert one.migrate(uri).predictions == []  # the other host has still to come
        assert other.migrate(uri).failed == {}
        report = one.migrate(uri)
        assert report.failed == {}
        assert report.predictions == [f"{name}@1000"]
        assert steps(uri, name) == [1000]
        moved = ModelManager(tmp_path / "a", tracking_uri=uri)
        moved.record_result(1001, DRAWN, BONUS)
        assert moved.flush(120)
        assert steps(uri, name) == [1000, 1001]
        assert moved.verify(deep=True) == []
        assert one.migrate(uri).predictions == []


def steps(uri: str, name: str) -> list[int]:
    """Return the draws for which the run of the other host's save shows how good it was."""
    client = client_of(uri)
    (version,) = (
        v for v in client.search_model_versions(f"name = '{name}'") if "score 2" in v.description
    )
    found = client.get_metric_history(str(version.run_id), "backtest.hits_per_game")
    return sorted(point.step for point in found)


@pytest.fixture
def restoring(tmp_path: Path, server_uri: str) -> tuple[ModelManager, ModelManager, str]:
    """The managers of a folder that saved a model, and of one that restored it; and its name."""
    name = f"restored {os.urandom(4).hex()}"
    saving = ModelManager(tmp_path / "b", tracking_uri=server_uri)
    saving.save_model({"host": "b"}, name, {"score": 2})
    assert saving.flush(120)
    restoring = ModelManager(tmp_path / "r", tracking_uri=server_uri)
    restoring.restore(name, source="registry")
    return saving, restoring, name


def forget_saves(base_dir: Path) -> None:
    """Have the records of restores as an earlier release wrote them."""
    for path in (base_dir / "mlflow" / "sent").glob("*.json"):
        record = parse(path.read_bytes())
        if record.kind == RESTORE:
            payload = replace(record.payload, save_id=None)
            path.write_bytes(render(replace(record, payload=payload)))


def places(uri: str, name: str) -> list[tuple[str, str, bool]]:
    """Return the number, the save and whether it is late of each version of a model."""
    found = client_of(uri).search_model_versions(f"name = '{name}'")
    return sorted((str(v.version), v.tags["save_id"], "late" in v.tags) for v in found)


@pytest.mark.parametrize("is_old", [False, True])
def test_a_prediction_of_a_restored_file_is_of_the_save_of_the_other_host(
    restoring: tuple[ModelManager, ModelManager, str], tmp_path: Path, server_uri: str, is_old: bool
) -> None:
    saving, reader, name = restoring
    if is_old:
        forget_saves(tmp_path / "r")
    save_id = saving.get(name).save_id
    made = reader.record_prediction(name, 1000, GAME, made_at=before(1000))
    assert (made.save_id, made.version, made.sha256) == (save_id, 1, saving.get(name).sha256)
    reader.record_result(1000, DRAWN, BONUS)
    assert reader.flush(120)
    assert steps(server_uri, name) == [1000]
    assert is_old or reader.get(name).save_id == save_id
    assert reader.sync().sent == []
    assert reader.verify(deep=True) == []
    assert places(server_uri, name) == [("1", save_id, False)]


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("is_saving_first", [False, True])
def test_a_restored_file_and_its_save_are_one_version_whichever_host_migrates_first(
    restoring: tuple[ModelManager, ModelManager, str],
    tmp_path: Path,
    server_uri: str,
    empty_uri: str,
    is_saving_first: bool,
    is_old: bool,
) -> None:
    saving, reader, name = restoring
    if is_old:
        forget_saves(tmp_path / "r")
    hosts = [saving, reader] if is_saving_first else [reader, saving]
    first, second = (host.migrate(empty_uri) for host in hosts)
    assert (first.sent, first.failed) == ([name], {})
    assert (second.sent, second.found, second.failed) == ([], [name], {})
    save_id = saving.get(name).save_id
    assert places(empty_uri, name) == [("1", save_id, False)]
    again = [host.migrate(empty_uri) for host in hosts]
    assert [(report.sent, report.found) for report in again] == [([], []), ([], [])]
    for folder in "rb":
        here = ModelManager(tmp_path / folder, tracking_uri=server_uri)
        there = ModelManager(tmp_path / folder, tracking_uri=empty_uri)
        for manager in (here, there):
            assert manager.verify(deep=True) == []
            assert manager.sync().sent == []
            path = str(manager.get(name).path)
            assert (manager.get(name).version, manager.load_model(path)) == (1, {"host": "b"})
    moved = ModelManager(tmp_path / "r", tracking_uri=empty_uri)
    assert moved.record_prediction(name, 1000, GAME, made_at=before(1000)).save_id == save_id
    moved.record_result(1000, DRAWN, BONUS)
    assert moved.flush(120)
    assert steps(empty_uri, name) == [1000]
    assert places(server_uri, name) == places(empty_uri, name) == [("1", save_id, False)]


@pytest.mark.parametrize("is_forced", [False, True])
def test_a_host_that_restored_a_save_and_migrated_it_first_never_deletes_it(
    restoring: tuple[ModelManager, ModelManager, str],
    tmp_path: Path,
    server_uri: str,
    empty_uri: str,
    is_forced: bool,
) -> None:
    _, reader, name = restoring
    reader.migrate(empty_uri)
    reader.save_model({"host": "r"}, name, {"score": 3})
    assert reader.flush(120)
    for uri in (server_uri, empty_uri):
        manager = ModelManager(tmp_path / "r", tracking_uri=uri)
        with pytest.raises(InvalidReferenceError, match="another host"):
            manager.delete(f"models:/{name}/1", dry_run=False, force=is_forced)
        manager.prune(keep_last=1, dry_run=False)
        assert "1" in {number for number, *_ in places(uri, name)}


def test_a_restored_file_that_was_changed_is_of_no_save_of_the_other_host(
    restoring: tuple[ModelManager, ModelManager, str], tmp_path: Path, empty_uri: str
) -> None:
    saving, reader, name = restoring
    path = Path(str(reader.get(name).path))
    time_ns = path.stat().st_mtime_ns
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b" ")
    os.utime(path, ns=(time_ns, time_ns))
    report = reader.migrate(empty_uri)
    assert report.sent == []
    assert places(empty_uri, name) == []
    made = reader.record_prediction(name, 1000, GAME, made_at=before(1000))
    assert made.save_id != saving.get(name).save_id
    assert made.version is None


def test_a_restored_file_that_comes_back_from_the_backups_is_still_of_its_save(
    restoring: tuple[ModelManager, ModelManager, str], empty_uri: str
) -> None:
    saving, reader, name = restoring
    reader.save_model({"host": "r"}, name, {"score": 3})
    assert reader.flush(120)
    back = reader.restore(name)
    assert (back.version, back.save_id) == (1, saving.get(name).save_id)
    assert reader.load_model(str(back.path)) == {"host": "b"}
    assert sorted(reader.migrate(empty_uri).sent) == [name, name]
    assert saving.migrate(empty_uri).found == [name]
    assert len(places(empty_uri, name)) == 2
