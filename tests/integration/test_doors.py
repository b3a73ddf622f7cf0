"""Doors of a server: who has the right key comes in; who has not gets one clear warning."""

from __future__ import annotations

import base64
import json
import logging
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from integration.conftest import Serve
from integration.doors import Authority, Gate, gate
from integration.patience import patiently
from integration.servers import TrackingServer, proxied
from typer.testing import CliRunner

from lotto_mlflow import ModelManager
from lotto_mlflow.cli import app
from lotto_mlflow.errors import MirrorUnavailableError, ModelNotFoundError

ADMIN, TRAINER, READER, STRANGER = (
    f"pa55-w0rd-of-{who}-645" for who in ("admin", "trainer", "reader", "stranger")
)
TOKEN, EXPIRED = "t0ken-of-today-645", "t0ken-of-yesterday-645"
SECONDS = 30.0
"""How long a refusal may take on a busy machine; MLflow's own retries would be four minutes."""
SetEnv = Callable[..., None]


@pytest.fixture
def env(clean_surroundings: None, monkeypatch: pytest.MonkeyPatch) -> SetEnv:
    """Sets the settings by which MLflow's client shows who it is."""

    def put(**values: str | Path | None) -> None:
        for name, value in values.items():
            variable = f"MLFLOW_TRACKING_{name}"
            if value is None:
                monkeypatch.delenv(variable, raising=False)
            else:
                monkeypatch.setenv(variable, str(value))

    return put


def no_secret(secret: str, folder: Path, *texts: str) -> None:
    """See that no file and no text has a secret, in any of its spellings."""
    basic = [base64.b64encode(f"{u}:{secret}".encode()).decode() for u in ("trainer", "reader", "")]
    forms = {secret, quote(secret, safe=""), *basic}
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".json" for path in found), "there are records to look at"
    for form in forms:
        assert not [path for path in found if form.encode() in path.read_bytes()]
        assert not [text for text in texts if form in text]


def comes_in(manager: ModelManager, elsewhere: Path, forest: Any, rows: Any) -> None:
    """Save, verify, and load on another host."""
    path = manager.save_model(forest, metadata={"a": 1})
    assert manager.flush(60)
    record = manager.get(path)
    assert record.version is not None
    assert patiently(lambda: manager.verify(deep=True)) == []
    reader, uri = ModelManager(elsewhere), f"models:/{record.registered_model}/{record.version}"
    loaded = patiently(lambda: reader.load_model(uri))
    assert np.array_equal(loaded.predict(rows[0]), forest.predict(rows[0]))


def refused(manager: ModelManager, caplog: pytest.LogCaptureFixture, model: Any) -> str:
    """Save before a closed door; return the one warning. A lookup and ``sync`` say the same."""
    caplog.clear()
    begun = time.monotonic()
    path = manager.save_model(model, metadata={"a": 1})
    assert time.monotonic() - begun < SECONDS
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    ours = [r.getMessage() for r in warnings if r.name.startswith("lotto_mlflow")]
    assert len(ours) == 1, ours
    assert "will be mirrored to MLflow later" in ours[0]
    assert manager.load_model(path) is not None
    waiting = list((Path(path).parents[1] / "mlflow" / "outbox").glob("*.json"))
    assert len(waiting) == 1
    begun = time.monotonic()
    with pytest.raises(MirrorUnavailableError):
        manager.sync()
    assert time.monotonic() - begun < SECONDS
    assert json.loads(waiting[0].read_text()).get("tries", 0) == 0
    return ours[0]


def comes_later(manager: ModelManager) -> None:
    """What waited is brought by the next push, once."""
    assert len(manager.sync().sent) == 1
    assert patiently(manager.verify) == []
    assert len([r for r in manager.records() if r.version is not None]) == 1


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, serve: Serve) -> TrackingServer:
    """MLflow's own basic auth, with a trainer, and a reader who has no other rights."""
    pytest.importorskip("flask_wtf", reason="MLflow's basic auth needs Flask-WTF")
    folder = tmp_path_factory.mktemp("accounts")
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\n"
        f"database_uri = sqlite:///{folder}/accounts.db\nadmin_username = admin\n"
        f"admin_password = {ADMIN}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "auth_cache_ttl_seconds = 60\n"  # else each request takes what a password's hash takes
    )
    settings = {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini")}
    settings |= {"MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-forms-645"}
    server = serve("guarded", [*proxied("guarded"), "--app-name", "basic-auth"], settings)
    for name, password in (("trainer", TRAINER), ("reader", READER)):
        told = json.dumps({"username": name, "password": password}).encode()
        basic = base64.b64encode(f"admin:{ADMIN}".encode()).decode()
        request = urllib.request.Request(
            f"{server.uri}/api/2.0/mlflow/users/create",
            data=told,
            headers={"Authorization": f"Basic {basic}", "Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=60).close()
    return server


def test_basic_auth_lets_a_trainer_save_and_keeps_the_save_of_one_with_a_wrong_password(
    guarded: TrackingServer,
    host: Callable[[str], Path],
    env: SetEnv,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    forest: Any,
    rows: Any,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded.uri)
    env(USERNAME="trainer", PASSWORD=TRAINER)
    comes_in(ModelManager(host("one")), host("two"), forest, rows)
    manager = ModelManager(host("three"))
    env(PASSWORD=STRANGER)
    told = refused(manager, caplog, forest)
    assert "401" in told
    assert "MLFLOW_TRACKING_PASSWORD" in told
    with pytest.raises(MirrorUnavailableError, match="MLFLOW_TRACKING_PASSWORD"):
        patiently(lambda: manager.latest(source="registry"))
    shown = caplog.text
    env(PASSWORD=TRAINER)
    comes_later(manager)
    for secret in (STRANGER, TRAINER):
        no_secret(secret, host("three"), shown, caplog.text)


def test_a_reader_of_basic_auth_looks_up_and_loads_and_its_saves_wait(
    guarded: TrackingServer,
    host: Callable[[str], Path],
    env: SetEnv,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    forest: Any,
    rows: Any,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded.uri)
    env(USERNAME="trainer", PASSWORD=TRAINER)
    trainer = ModelManager(host("trainer"))
    record = trainer.get(trainer.save_model(forest, metadata={"a": 1}))
    assert trainer.flush(60)
    record = trainer.get(record.name)
    patiently(lambda: trainer.promote(record.name, "production"))
    env(USERNAME="reader", PASSWORD=READER)
    reader = ModelManager(host("reader"))
    newest = patiently(lambda: reader.latest(source="registry"))
    assert newest is not None
    assert newest.sha256 == record.sha256
    for uri in ("models:/lotto_model/latest", f"models:/lotto_model/{record.version}"):
        loaded = patiently(partial(reader.load_model, uri))
        assert np.array_equal(loaded.predict(rows[0]), forest.predict(rows[0]))
    assert patiently(partial(reader.load_model, "models:/lotto_model@production")) is not None
    assert patiently(reader.verify) == []
    version = record.version
    assert version is not None
    patiently(lambda: reader.restore(version, source="registry"))
    for command in (["check"], ["list"], ["history"], ["latest", "--source", "registry"]):
        done = CliRunner().invoke(app, [*command, "--base-dir", str(host("reader"))])
        assert done.exit_code in (0, 1), (command, done.output)
        assert "Traceback" not in done.output
        assert "PERMISSION" not in done.output
        assert READER not in done.output
    told = refused(reader, caplog, forest)
    assert "403" in told or "PERMISSION_DENIED" in told
    assert "does not allow it" in told
    no_secret(READER, host("reader"), caplog.text)


def test_a_reader_who_promotes_is_refused_and_leaves_nothing_behind(
    guarded: TrackingServer,
    host: Callable[[str], Path],
    env: SetEnv,
    monkeypatch: pytest.MonkeyPatch,
    forest: Any,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded.uri)
    env(USERNAME="trainer", PASSWORD=TRAINER)
    trainer = ModelManager(host("trainer"))
    trainer.save_model(forest, "other_a", metadata={"a": 1})  # the first of its registered model
    assert trainer.flush(60)
    env(USERNAME="reader", PASSWORD=READER)
    reader = ModelManager(host("reader"))
    uri = "models:/other_a/1"
    with pytest.raises(MirrorUnavailableError, match=r"nothing was moved.*does not allow it"):
        patiently(lambda: reader.promote(uri, "champion"))
    assert patiently(lambda: reader.history(registered_model="other_a")) == []
    env(USERNAME="trainer", PASSWORD=TRAINER)
    move = patiently(lambda: trainer.promote(uri, "staging"))
    assert move.is_done
    moves = patiently(lambda: trainer.history("staging", registered_model="other_a"))
    assert [m.number for m in moves] == [1]
    env(USERNAME="reader", PASSWORD=READER)
    with pytest.raises(MirrorUnavailableError, match="does not allow it"):
        patiently(lambda: reader.promote(uri, "champion"))
    with pytest.raises(ModelNotFoundError):
        patiently(lambda: reader.rollback("staging", registered_model="other_a"))


@pytest.fixture
def token_gate(proxy_server: TrackingServer) -> Iterator[Gate]:
    with gate(proxy_server.port, TOKEN) as opened:
        yield opened


def test_a_bearer_token_opens_and_an_expired_one_keeps_the_save(
    token_gate: Gate,
    host: Callable[[str], Path],
    env: SetEnv,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    forest: Any,
    rows: Any,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", token_gate.uri)
    env(TOKEN=TOKEN)
    comes_in(ModelManager(host("one")), host("two"), forest, rows)
    manager = ModelManager(host("three"))
    env(TOKEN=EXPIRED)
    told = refused(manager, caplog, forest)
    assert "401" in told
    assert "MLFLOW_TRACKING_TOKEN, which may have expired" in told
    assert token_gate.refused
    shown = caplog.text
    token_gate.token = EXPIRED  # it is good again: the same as a new token everywhere
    comes_later(manager)
    for secret in (TOKEN, EXPIRED):
        no_secret(secret, host("three"), shown, caplog.text)
    env(TOKEN=None)
    with pytest.raises(MirrorUnavailableError, match="does not know who asks"):
        patiently(lambda: manager.latest(source="registry"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "ours")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "theirs")


def with_tls(serve: Serve, name: str, authority: Authority, *more: str) -> TrackingServer:
    own = authority.issue("server")
    options = " ".join((f"--ssl-certfile={own}", f"--ssl-keyfile={own}", *more))
    return serve(name, [*proxied(name), "--uvicorn-opts", options], scheme="https")


def test_a_server_with_a_private_authority_is_trusted_by_mlflows_setting_alone(
    serve: Serve,
    authority: Authority,
    other: Authority,
    host: Callable[[str], Path],
    env: SetEnv,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    forest: Any,
    rows: Any,
) -> None:
    server = with_tls(serve, "encrypted", authority)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    manager = ModelManager(host("three"))
    told = refused(manager, caplog, forest)
    for path, said in ((other.path, "CERTIFICATE_VERIFY_FAILED"), ("/none.pem", "/none.pem")):
        assert "do not trust each other" in told
        assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in told
        env(SERVER_CERT_PATH=path)
        with pytest.raises(MirrorUnavailableError, match=said) as caught:
            patiently(lambda: manager.latest(source="registry"))
        told = str(caught.value)
    env(SERVER_CERT_PATH=authority.path)
    comes_later(manager)
    comes_in(ModelManager(host("one")), host("two"), forest, rows)


def test_a_server_asks_for_certificates_of_its_clients(
    serve: Serve,
    authority: Authority,
    other: Authority,
    host: Callable[[str], Path],
    env: SetEnv,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    forest: Any,
    rows: Any,
) -> None:
    more = (f"--ssl-ca-certs={authority.path}", "--ssl-cert-reqs=2")
    server = with_tls(serve, "both", authority, *more)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    env(SERVER_CERT_PATH=authority.path)
    manager = ModelManager(host("three"))
    told = refused(manager, caplog, forest)
    for path in (other.issue("stranger"), authority.issue("late", days=-1), "/none.pem"):
        assert "MLFLOW_TRACKING_CLIENT_CERT_PATH" in told
        env(CLIENT_CERT_PATH=path)
        with pytest.raises(MirrorUnavailableError) as caught:
            patiently(lambda: manager.latest(source="registry"))
        told = str(caught.value)
    assert "/none.pem" in told
    mine = authority.issue("trainer")
    env(CLIENT_CERT_PATH=mine)
    comes_later(manager)
    comes_in(ModelManager(host("one")), host("two"), forest, rows)
    key = mine.read_text().split("PRIVATE KEY-----\n")[1].splitlines()[0]
    no_secret(key, host("three"), caplog.text)
