"""No password reaches a file, a message, a record of the log or a terminal, whatever goes wrong."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from typer.testing import CliRunner

from lotto_mlflow import LottoMlflowError, ModelManager
from lotto_mlflow.cli import app
from lotto_mlflow.settings import Settings, Target, read
from lotto_mlflow.text import masked, traceback_of, without_secrets

PLAIN = "s3cr3t-pa55w0rd"
AWKWARD = "Gr4nd/m4#W0lf?w1th@Te3th"
SPACED = "two w0rds' and\"m0re"
AT_DISCARD = "127.0.0.1:9"
"""A port at which nobody listens."""


def forms_of(secret: str) -> set[str]:
    """Return the spellings of a secret that a file or message may have."""
    basic = {base64.b64encode(f"{user}:{secret}".encode()).decode() for user in ("lotto", "")}
    return {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe="")} | {
        quote(secret), quote_plus(secret), *basic
    }  # fmt: skip


def assert_no_secret(text: str | bytes, secret: str, where: object) -> None:
    content = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    for form in forms_of(secret):
        assert form.encode() not in content, (where, form)


def assert_no_secret_in_files(folder: Path, secret: str) -> None:
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".json" for path in found), "there are records to look at"
    for path in found:
        assert_no_secret(path.read_bytes(), secret, path)
        assert_no_secret(str(path), secret, path)


def refusal(call: Callable[[], object]) -> LottoMlflowError:
    with pytest.raises(LottoMlflowError) as caught:
        call()
    return caught.value


def everything_said(base_dir: Path, forest: Any) -> Iterator[str]:
    """Save, look up and check with the current settings, and yield all that is said of it."""
    manager = ModelManager(base_dir)
    manager.save_model(forest, "lotto_model_a", {"loss": 0.5})
    ModelManager(base_dir, mirror="background").save_model(forest, "b", {"loss": 0.5})
    manager.flush(60)
    for call in (
        manager.sync,
        lambda: manager.sync(retry_aside=True),
        lambda: manager.sync(retry_aside=True),
        lambda: manager.latest(source="registry"),
        lambda: manager.load_model("models:/lotto_model/1"),
        lambda: manager.restore("lotto_model_a", source="registry"),
    ):
        with suppress(LottoMlflowError):
            yield repr(call())
            continue
        error = refusal(call)
        yield f"{error} {error!r} {error.args} {traceback_of(error)}"
    yield repr(manager.verify())
    for command in ("list", "verify", "sync", "latest --source registry", "show b", "show 1"):
        for option in ("--json", "--debug"):
            arguments = [*command.split(), option, "--base-dir", str(base_dir)]
            done = CliRunner().invoke(app, arguments)
            yield f"{done.output} {done.exception!r}"
    settings = read()
    target = Target.from_settings(settings, base_dir / "mlflow" / "mlflow.db")
    yield f"{settings!r} {target!r} {target.name} {manager!r}"


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "lotto_mlflow")
    return caplog


@pytest.mark.parametrize("password", [PLAIN, AWKWARD, SPACED], ids=["plain", "awkward", "spaced"])
@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://lotto:{0}@" + AT_DISCARD + "/lotto?connect_timeout=2",
        "postgresql+psycopg://lotto:{0}@" + AT_DISCARD + "/lotto?password={1}&sslkey={1}",
        "postgresql://lotto:{0}@no-such-host.invalid:5432/lotto",
        "postgresql+nothing://lotto:{0}@" + AT_DISCARD + "/lotto",
        "mysql+pymysql://lotto:{0}@" + AT_DISCARD + "/lotto",
        "postgresql://lotto:{0}@[::1/lotto",
        "http://lotto:{0}@" + AT_DISCARD,
        "http://lotto:{1}@" + AT_DISCARD + "/?token={1}",
        "http://{1}@" + AT_DISCARD,
        "nothing://lotto:{0}@" + AT_DISCARD,
    ],
)
def test_a_password_in_a_uri_is_nowhere_after_an_outage(
    uri: str,
    password: str,
    base_dir: Path,
    forest: Any,
    monkeypatch: pytest.MonkeyPatch,
    logged: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(password, quote(password, safe="")))
    for text in everything_said(base_dir, forest):
        assert_no_secret(text, password, "said")
    assert_no_secret(logged.text, password, "logged")
    assert "not every save is in MLflow yet" in logged.text
    assert_no_secret_in_files(base_dir, password)
    printed = capfd.readouterr()
    assert_no_secret(printed.out + printed.err, password, "printed")


class _Echoing(BaseHTTPRequestHandler):
    """Refuses every login, and says which: a proxy that helps too much."""

    code = "INVALID_PARAMETER_VALUE"

    def do_GET(self) -> None:
        if self.path.endswith("/health"):
            self._answer(200, "OK", "text/plain")
            return
        header = self.headers.get("Authorization", "")
        decoded = ""
        with suppress(ValueError):
            decoded = base64.b64decode(header.partition(" ")[2]).decode()
        said = f"not for you: Authorization: {header}, that is {decoded!r}; {header} at {self.path}"
        body = json.dumps({"error_code": self.code, "message": said})
        self._answer(400, body, "application/json")

    do_POST = do_GET  # noqa: N815 - the name that the base class looks for

    def _answer(self, status: int, body: str, kind: str) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@contextmanager
def refusing_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echoing) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "environment",
    [
        {"MLFLOW_TRACKING_URI": f"http://lotto:{PLAIN}@{{}}"},
        {
            "MLFLOW_TRACKING_URI": "http://{}",
            "MLFLOW_TRACKING_USERNAME": "lotto",
            "MLFLOW_TRACKING_PASSWORD": PLAIN,
        },
        {"MLFLOW_TRACKING_URI": "http://{}", "MLFLOW_TRACKING_TOKEN": PLAIN},
    ],
    ids=["uri", "password", "token"],
)
def test_a_refused_login_is_recorded_without_the_password(
    environment: dict[str, str],
    base_dir: Path,
    forest: Any,
    monkeypatch: pytest.MonkeyPatch,
    logged: pytest.LogCaptureFixture,
) -> None:
    with refusing_server() as address:
        for name, value in environment.items():
            monkeypatch.setenv(name, value.format(address))
        for text in everything_said(base_dir, forest):
            assert_no_secret(text, PLAIN, "said")
    assert_no_secret(logged.text, PLAIN, "logged")
    assert_no_secret_in_files(base_dir, PLAIN)
    (record,) = (base_dir / "mlflow" / "aside").glob("*~lotto_model_a.json")
    reason = json.loads(record.read_bytes())["reason"]
    assert "not for you" in reason, "the server was asked, and its answer recorded"
    assert "***" in reason


def test_a_process_prints_no_password_whoever_prints(base_dir: Path, forest: Any) -> None:
    """What Python prints itself passes the same place: warnings, logs, uncaught errors."""
    ModelManager(base_dir, mirror="off").save_model(forest, "a", {"loss": 0.5})
    uri = f"postgresql://lotto:{PLAIN}@{AT_DISCARD}/lotto"
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "MLFLOW_TRACKING_TOKEN": AWKWARD}
    for arguments in ("sync", "sync --debug", "verify --debug"):
        command = [sys.executable, "-m", "lotto_mlflow", *arguments.split()]
        done = subprocess.run(
            [*command, "--base-dir", str(base_dir)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) == (arguments == "sync --debug")
        assert_no_secret(done.stdout + done.stderr, PLAIN, arguments)
    script = (
        "import logging, sys, warnings\n"
        "from lotto_mlflow.cli import application\n"
        "from lotto_mlflow.cli.application import app, calling\n"
        "@app.command('fail')\n"
        "def fail(kind: str) -> None:\n"
        "    import os\n"
        "    uri, token = (os.environ[f'MLFLOW_TRACKING_{n}'] for n in ('URI', 'TOKEN'))\n"
        "    said = f'{uri} {token}\\x9b'\n"
        "    if kind == 'error': raise RuntimeError(said) from ValueError(said)\n"
        "    with calling():\n"
        "        print(said); warnings.warn(said); logging.getLogger('mlflow').error(said)\n"
        "application.main()\n"
    )
    for kind, code in (("error", 1), ("others", 0)):
        done = subprocess.run(
            [sys.executable, "-c", script, "fail", kind],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (code, "")
        assert f"postgresql://***@{AT_DISCARD}/lotto ***\\x9b" in done.stderr
        for secret in (PLAIN, AWKWARD):
            assert_no_secret(done.stderr, secret, kind)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("postgresql://u:p@127.0.0.1:9/lotto?password=x", "postgresql://***@127.0.0.1:9/lotto?password=***"),
        ("postgresql+psycopg2://u:p/a#b?c@d@host:5432/db?password=x&sslkey=y", "postgresql+psycopg2://***@host:5432/db?password=***&sslkey=***"),
        ("postgresql://u:1/2@host/db", "postgresql://***@host/db"),
        ("postgresql://u:a?b=c@host/db", "postgresql://***@host/db"),
        ("postgresql://u:a b@host/db", "postgresql://***@host/db"),
        ("postgresql://u:%2F%40@host/db", "postgresql://***@host/db"),
        ("postgresql://host/db?user=a@b&password=a&b#c", "postgresql://host/db?user=***&password=***&***"),
        ("postgresql:///db?host=/run&password=x", "postgresql:///db?host=***&password=***"),
        ("mysql+pymysql://u:p@x@host:3306/db", "mysql+pymysql://***@host:3306/db"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dx", "mssql+pyodbc:///?odbc_connect=***"),
        ("http://token@host", "http://***@host"),
        ("http://u:p@host:5000/a/", "http://***@host:5000/a/"),
        ("https://u:p/a#b?c@d@host:5000/a", "https://***@host:5000/a"),
        ("http://u:p@[::1]:5000", "http://***@[::1]:5000"),
        ("http://host/?token=x&key=y", "http://host/?token=***&key=***"),
        ("postgresql://u:cut/off", "postgresql://***"),
    ],
)  # fmt: skip
def test_a_uri_is_masked_whatever_the_password_holds(uri: str, name: str) -> None:
    assert masked(uri) == masked(name) == name
    assert (
        without_secrets(f"could not open '{uri}' (really)") == f"could not open '{name}' (really)"
    )


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////a@b:c/x.db", "sqlite:////a#b.db", "sqlite:///:memory:", "file:///a b/c@d",
        "http://host", "http://host:5000/a@b/c", "http://[::1]:5000/x", "http://[::1", "databricks",
        "databricks://profile:prefix", "postgresql://host:5432/db", "models:/x/1", "/a/b", "s3://a/b",
        "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning",
    ],
)  # fmt: skip
def test_a_uri_without_secrets_keeps_its_name(uri: str) -> None:
    assert masked(uri) == uri
    assert without_secrets(uri) == uri


def test_stores_that_differ_in_the_secret_only_are_one_store(tmp_path: Path) -> None:
    uris = [f"postgresql://{user}@host/db?password=x{user[0]}" for user in ("a:b", "c:d/e#f", "g")]
    names = {
        Target.from_settings(read(tracking_uri=uri), tmp_path / "mlflow.db").name for uri in uris
    }
    assert names == {"postgresql://***@host/db?password=***"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("connect host=h password=abc user=u", "connect host=h password=*** user=u"),
        ("password='a b' x", "password=*** x"),
        ("{'password': 'a b', \"token\": \"x\"}", "{'password': ***, \"token\": ***}"),
        (r"b'{\"secret_key\": \"abc\"}'", r"b'{\"secret_key\": ***\"}'"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ("headers {'Authorization': 'Bearer a.b-c'}", "headers {'Authorization': 'Bearer ***'}"),
        ("sent Basic dXNlcjpwYXNz, was refused", "sent Basic ***, was refused"),
        ("s3://b/k?X-Amz-Credential=a%2Fb&X-Amz-Signature=c", "s3://b/k?X-Amz-Credential=***&X-Amz-Signature=***"),
        ("AccountName=a;AccountKey=b==;x", "AccountName=a;AccountKey=***;x"),
        ("see http://a:b@host: and http://c@d.", "see http://***@host: and http://***@d."),
        ("two words: postgresql://u:p w@host/db!", "two words: postgresql://***@host/db!"),
    ],
)  # fmt: skip
def test_a_secret_is_masked_in_the_middle_of_a_text(text: str, expected: str) -> None:
    assert without_secrets(text) == without_secrets(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "http://host:5000: no answer; ask a@b", "Basic authentication is needed", "a bearer token",
        "https://data.example/draws.csv?round=1100", "the tokenizer=x of TfidfVectorizer",
        "lotto_model_20251103.pkl", "/home/lotto/trained: Permission denied", "PWD=/home/lotto",
        "ModelManager.sync(resend=True)", "mlflow", "password authentication failed for user x",
    ],
)  # fmt: skip
def test_a_text_without_secrets_stays_as_it_is(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PASSWORD": "lotto", "TOKEN": "mlflow", "USERNAME": "host"}.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    monkeypatch.setenv("PGPASSWORD", "password")
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "name",
    ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY",
     "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCESS_KEY", "DATABRICKS_TOKEN", "PGPASSWORD"],
)  # fmt: skip
@pytest.mark.parametrize("secret", ["k3y+/=", PLAIN, AWKWARD, SPACED])
def test_the_secrets_of_the_environment_are_masked_in_every_spelling(
    name: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, secret)
    for form in {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe="")}:
        assert without_secrets(f"<{form}> was refused") == "<***> was refused"


def test_masking_a_long_text_takes_no_longer_than_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server answers may be made to be slow to search."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", PLAIN)
    for part in (
        "a.",
        "password=",
        "password='",
        "http://",
        "http://a:b",
        "?x",
        "token ",
        "{",
        "==",
    ):
        without_secrets(part * (200_000 // len(part)))


def test_an_error_keeps_what_caused_it_and_prints_it_masked(tmp_path: Path) -> None:
    manager = ModelManager(
        tmp_path, tracking_uri=f"postgresql+nothing://lotto:{AWKWARD}@{AT_DISCARD}/lotto"
    )
    manager.save_model({"a": 1}, "a", {"n": 1})
    error = refusal(manager.sync)
    assert error.__cause__ is not None
    assert type(error.__cause__).__name__ in traceback_of(error)
    assert "The above exception was the direct cause" in traceback_of(error)
    assert_no_secret(traceback_of(error), AWKWARD, "traceback")


def test_the_log_is_safe_for_every_handler_and_keeps_its_numbers(
    logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", PLAIN)
    logger = logging.getLogger("lotto_mlflow")
    evil = f"a\x1b[31m\n{PLAIN}\u202e\x9b"
    shown = r"a\x1b[31m\n***\u202e\x9b"
    logger.warning("%s of %d in %.1f s: %r", evil, 3, 0.25, Path(evil))
    logger.warning("%(what)s", {"what": evil})
    logger.warning(evil)
    try:
        raise ValueError(evil)
    except ValueError:
        logger.exception("%s", evil)
    messages = [record.getMessage() for record in logged.records]
    assert messages == [f"{shown} of 3 in 0.2 s: {shown!r}", shown, shown, shown]
    formatted = logging.Formatter().format(logged.records[-1])
    assert formatted.splitlines()[-2:] == [r"ValueError: a\x1b[31m", r"***\u202e\x9b"]


def test_settings_and_targets_are_shown_without_secrets(tmp_path: Path) -> None:
    settings = Settings(
        mirror="off",
        timezone=read().timezone,
        tracking_uri=f"http://lotto:{PLAIN}@host",
        registry_uri=f"http://{PLAIN}@other",
    )
    target = Target.from_settings(settings, tmp_path / "mlflow.db")
    assert "tracking_uri='http://***@host', registry_uri='http://***@other'" in repr(settings)
    assert "tracking_uri='http://***@host', registry_uri='http://***@other'" in repr(target)
    assert PLAIN not in f"{settings} {target!r} {ModelManager(tmp_path)!r}"
