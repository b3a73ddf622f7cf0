"""A live model of the registry: aliases, outages, forks, and the workers of gunicorn."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from serving import free_port, running, tracking_server
from sklearn.dummy import DummyRegressor

from lotto_mlflow import LiveModel, ModelManager
from lotto_mlflow.errors import ModelNotFoundError

SOON = 0.05
NEVER = 3600.0
BOUND_SECONDS = 120.0
ROWS = np.zeros((2, 3))
CHAMPION = "models:/lotto_model@champion"


def save(manager: ModelManager, number: int, name: str | None = None) -> None:
    model = DummyRegressor(strategy="constant", constant=number).fit(ROWS, np.zeros(2))
    manager.save_model(model, name or f"lotto_model_{number:03d}", {"number": number})


def number_of(live: LiveModel) -> int:
    (number,) = set(live.predict(ROWS).ravel())
    return int(number)


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + BOUND_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [r for r in caplog.records if r.levelno >= logging.WARNING]
    return [r.getMessage() for r in found if "stays in use" in r.getMessage()]


@pytest.fixture
def client(base_dir: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")


@pytest.fixture
def three(manager: ModelManager, client: MlflowClient) -> ModelManager:
    """Three mirrored saves, of which the first is the champion."""
    for number in (1, 2, 3):
        save(manager, number)
    client.set_registered_model_alias("lotto_model", "champion", "1")
    return manager


def test_it_follows_an_alias_forth_and_back_and_records_what_is_in_use(
    three: ModelManager, client: MlflowClient
) -> None:
    numbers: list[int] = []
    with LiveModel(
        CHAMPION,
        manager=three,
        every_seconds=SOON,
        on_swap=lambda record: numbers.append(record.version),
    ) as live:
        assert (number_of(live), live.record.version) == (1, 1)
        for version in (2, 3, 1):
            client.set_registered_model_alias("lotto_model", "champion", str(version))
            until(lambda version=version: number_of(live) == version)  # type: ignore[misc]
            model, record = live.in_use
            assert model.constant == record.version == record.metadata["number"] == version
            assert record.aliases == ("champion",)
        save(three, 4)  # no move of the alias
        assert not live.refresh()
    assert numbers == [2, 3, 1]


def test_it_follows_the_latest_version_and_stays_with_a_number(
    three: ModelManager, client: MlflowClient, base_dir: Path
) -> None:
    save(three, 7, "other")
    with (
        LiveModel("models:/lotto_model/latest", manager=three, every_seconds=NEVER) as latest,
        LiveModel("models:/other/latest", manager=three, every_seconds=NEVER) as other,
        LiveModel("models:/lotto_model/2", manager=three, every_seconds=SOON) as fixed,
    ):
        assert len([t for t in threading.enumerate() if t.name == "lotto_mlflow-live"]) == 2
        checked = fixed.checked_at
        save(three, 4)
        save(three, 8, "other")
        assert (latest.refresh(), other.refresh(), fixed.refresh()) == (True, True, False)
        assert [number_of(live) for live in (latest, other, fixed)] == [4, 8, 2]
        client.delete_model_version("lotto_model", "4")
        assert latest.refresh()
        assert number_of(latest) == 3
        assert fixed.checked_at == checked
    path = base_dir / "trained" / "lotto_model_002.pkl"
    path.write_bytes(path.read_bytes()[:-1])
    with LiveModel("models:/lotto_model/2", manager=three) as fixed:  # from MLflow's copy
        assert number_of(fixed) == 2


def test_an_alias_that_goes_or_leads_to_what_is_not_ours_leaves_the_model_in_use(
    three: ModelManager, client: MlflowClient, base_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with LiveModel(CHAMPION, manager=three, every_seconds=NEVER) as live:
        client.delete_registered_model_alias("lotto_model", "champion")
        for _ in range(3):
            assert not live.refresh()
        assert "champion" in str(live.problem)
        client.create_registered_model("foreign")
        run = client.create_run("0")
        client.create_model_version("lotto_model", str(base_dir), run.info.run_id)
        client.set_registered_model_alias("lotto_model", "champion", "4")
        for _ in range(3):
            assert not live.refresh()
        assert "not made by lotto_mlflow" in str(live.problem)
        client.set_registered_model_alias("lotto_model", "champion", "2")
        for folder in ("trained", "mlflow/artifacts"):
            for path in (base_dir / folder).rglob("*.pkl"):
                path.write_bytes(path.read_bytes()[:-1] + b"!")
        for _ in range(3):
            assert not live.refresh()
        assert "damaged" in str(live.problem)
        assert len(warnings_in(caplog)) == 3
        assert number_of(live) == 1
        client.set_registered_model_alias("lotto_model", "champion", "1")
        assert not live.refresh()
        assert live.problem is None


def test_a_database_that_cannot_be_used_for_a_while_is_one_warning(
    three: ModelManager, base_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = base_dir / "mlflow" / "mlflow.db"
    with LiveModel(CHAMPION, manager=three, every_seconds=SOON) as live:
        away = database.rename(database.with_suffix(".away"))
        database.write_bytes(b"no database at all" * 100)
        until(lambda: live.problem is not None)
        checked = live.checked_at
        until(lambda: (live.checked_at - checked).total_seconds() > 10 * SOON)
        assert number_of(live) == 1
        assert not live.refresh()
        assert len(warnings_in(caplog)) == 1
        with closing(sqlite3.connect(away)) as opened:
            opened.execute("UPDATE registered_model_aliases SET version = 2")
            opened.commit()
        away.replace(database)
        until(lambda: number_of(live) == 2)
        assert live.problem is None


def test_a_server_that_goes_away_leaves_the_model_in_use(
    tmp_path: Path, migrated_database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "server").mkdir()
    database = shutil.copyfile(migrated_database, tmp_path / "server" / "server.db")
    with tracking_server(Path(database), tmp_path / "server" / "artifacts") as uri:
        manager = ModelManager(tmp_path / "ml", tracking_uri=uri)
        save(manager, 1)
        save(manager, 2)
        assert manager.flush(BOUND_SECONDS)
        server = MlflowClient(tracking_uri=uri)
        server.set_registered_model_alias("lotto_model", "champion", "1")
        elsewhere = ModelManager(tmp_path / "elsewhere", tracking_uri=uri)
        live = LiveModel(CHAMPION, manager=elsewhere, every_seconds=SOON)
        server.set_registered_model_alias("lotto_model", "champion", "2")
        until(lambda: number_of(live) == 2)
    until(lambda: live.problem is not None)
    checked = live.checked_at
    until(lambda: live.checked_at > checked)
    assert "does not answer" in str(live.problem)
    assert number_of(live) == 2
    assert len(warnings_in(caplog)) == 1
    live.close()
    with pytest.raises(OSError, match="does not answer"):
        LiveModel(CHAMPION, manager=elsewhere)


@pytest.mark.parametrize(
    ("reference", "questions"),
    [
        (CHAMPION, ["get_model_version_by_alias"]),
        ("models:/lotto_model/latest", ["search_model_versions"]),
    ],
)
def test_a_look_at_the_registry_asks_no_more_however_many_versions_there_are(
    three: ModelManager, monkeypatch: pytest.MonkeyPatch, reference: str, questions: list[str]
) -> None:
    asked: list[str] = []
    originals = dict(vars(MlflowClient))

    def counted(name: str) -> Callable[..., Any]:
        return lambda *given, **named: asked.append(name) or originals[name](*given, **named)

    for name in originals:
        if name.startswith(("get_", "search_")):
            monkeypatch.setattr(MlflowClient, name, counted(name))
    followed = three.follow(reference)
    mark = followed.look()
    asked.clear()
    assert followed.look() == mark
    assert asked == questions


def test_an_unknown_alias_is_refused_by_the_constructor(three: ModelManager) -> None:
    with pytest.raises(ModelNotFoundError, match="did you mean 'models:/lotto_model@champion'"):
        LiveModel("models:/lotto_model@champoin", manager=three)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of forks with threads
@pytest.mark.parametrize("reference", [None, CHAMPION])
def test_a_forked_child_follows_too_and_so_does_its_parent(
    three: ModelManager, client: MlflowClient, tmp_path: Path, reference: str | None
) -> None:
    """The child is forked in the middle of a check, whose locks it must not find locked."""
    is_in, go_on = threading.Event(), threading.Event()

    def warm(model: Any) -> None:
        if model.constant == 5:
            is_in.set()
            go_on.wait(0.5)

    def move(number: int) -> None:
        save(three, number)
        client.set_registered_model_alias("lotto_model", "champion", str(number))

    save(three, 4)
    client.set_registered_model_alias("lotto_model", "champion", "4")
    with LiveModel(reference, manager=three, every_seconds=SOON, warm=warm) as live:
        move(5)
        assert is_in.wait(BOUND_SECONDS)
        child = os.fork()  # waits for the check
        if child == 0:
            code = 1
            try:
                assert number_of(live) == 5
                until(lambda: number_of(live) == 6)
                assert not live.refresh()
                live.close()
                code = 0
            finally:
                os._exit(code)
        go_on.set()
        move(6)
        until(lambda: number_of(live) == 6)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_from_a_callback_does_not_wait_for_itself(three: ModelManager) -> None:
    codes: list[int] = []

    def on_swap(_: Any) -> None:
        child = os.fork()
        if child == 0:
            os._exit(7)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    with LiveModel(manager=three, every_seconds=SOON, on_swap=on_swap) as live:
        save(three, 4)
        until(lambda: codes == [7])
        save(three, 5)
        until(lambda: codes == [7, 7])
        assert number_of(live) == 5


APPLICATION = """
import json, os
import numpy as np
from lotto_mlflow import LiveModel, ModelManager

manager = ModelManager({base_dir!r})
live = LiveModel({reference!r}, manager=manager, every_seconds={every})

def app(environ, start_response):
    model, record = live.in_use
    number = int(live.predict(np.zeros((1, 3)))[0])
    same = bool(model.constant == record.metadata["number"])
    body = json.dumps({{"pid": os.getpid(), "number": number, "same": same}}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Connection", "close")])
    return [body]
"""


def ask(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


@pytest.fixture(params=["--preload", "--keep-alive=2"], ids=["preload", "each on its own"])
def gunicorn(
    request: pytest.FixtureRequest, three: ModelManager, base_dir: Path, tmp_path: Path
) -> Iterator[str]:
    """The address of gunicorn with two workers, whose application has a live model."""
    folder = tmp_path / "application"
    folder.mkdir()
    text = APPLICATION.format(base_dir=str(base_dir), reference=CHAMPION, every=EVERY)
    (folder / "application.py").write_text(text, encoding="utf-8")
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--workers", "2", request.param]
    command += ["--bind", f"127.0.0.1:{port}", "--chdir", str(folder), "application:app"]
    command += ["--timeout", "120", "--worker-tmp-dir", str(folder), "--no-control-socket"]
    url = f"http://127.0.0.1:{port}/"

    def both_answer() -> bool:
        try:
            return len({ask(url)["pid"] for _ in range(20)}) == 2
        except OSError:
            return False

    root = str(Path(sys.modules["lotto_mlflow"].__file__ or "").parents[1])
    with running(command, folder / "log.txt", both_answer, PYTHONPATH=root):
        yield url


EVERY = 1.0
BUSY_SECONDS = 30.0
"""What a busy machine may need beyond the time between two checks."""


def test_a_moved_alias_reaches_both_workers_of_gunicorn(
    gunicorn: str, client: MlflowClient
) -> None:
    for number in (2, 3, 1):
        client.set_registered_model_alias("lotto_model", "champion", str(number))
        moved = time.monotonic()
        numbers: dict[int, int] = {}
        while set(numbers.values()) != {number} or len(numbers) < 2:
            assert time.monotonic() < moved + EVERY + BUSY_SECONDS, numbers
            answer = ask(gunicorn)
            assert answer["same"]
            numbers[answer["pid"]] = answer["number"]
