"""Tracking servers in trouble: silent, broken, forbidding, or cut off in mid-push."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from faults.trouble import (
    TITLE,
    Front,
    lookup_fails_in_time,
    lost,
    nothing_counts,
    records_in,
    saved_in_trouble,
)
from mlflow import MlflowClient
from serving import tracking_server

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import MirrorUnavailableError

PLAIN = """
import sys, mlflow
from sklearn.linear_model import LogisticRegression
mlflow.set_tracking_uri(sys.argv[1])
print("ready", flush=True)
mlflow.set_experiment("plain")
with mlflow.start_run():
    mlflow.sklearn.log_model(LogisticRegression(), name="model", registered_model_name="plain")
"""


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(migrated_database, folder / "server.db")
    with tracking_server(folder / "server.db", folder / "artifacts") as uri:
        front = Front(int(uri.rpartition(":")[2]))
        warm = ModelManager(folder / "ml", tracking_uri=front.uri)
        warm.save_model({"warm": "up"}, "warm", {"a": 1})
        assert warm.flush(120)
        yield front
        front.end()


@pytest.fixture
def served(front: Front, tmp_path: Path) -> Iterator[ModelManager]:
    """A manager with one save in the store, whose process and server are warm."""
    front.be("through")
    manager = ModelManager(tmp_path / "ml", tracking_uri=front.uri)
    manager.save_model({"n": 0}, metadata={"n": 0})
    assert manager.flush(60)
    yield manager
    front.be("through")
    manager.flush(60)


def test_what_listens_instead_of_a_server_is_not_believed_that_there_is_nothing(
    served: ModelManager, front: Front, tmp_path: Path
) -> None:
    reader = ModelManager(tmp_path / "reader", tracking_uri=front.uri)
    found = reader.latest(source="registry")
    assert found is not None
    front.be("other JSON")
    for call in (
        lambda: reader.latest(source="registry"),
        lambda: reader.get_latest_model_path(source="registry"),
        lambda: reader.records(source="registry"),
        lambda: reader.get(f"models:/lotto_model/{found.version}"),
    ):
        with pytest.raises(MirrorUnavailableError):
            call()


@pytest.mark.parametrize(
    ("mode", "told", "ending"),
    [
        ("closed", "does not answer", "sync"),
        ("silent", "does not answer", "save"),
        ("500", "HTTP 500", "sync"),
        ("401", "401", "save"),
        ("403", "not you", "sync"),
        ("garbage", "does not answer", "save"),
        ("a page", "JSON", "sync"),
        ("half JSON", "JSON", "save"),
        ("other JSON", "is no MLflow server: its /health answers with JSON", "sync"),
        ("429", "429", "save"),
    ],
)
def test_a_server_in_trouble_holds_no_save_and_gets_all_of_them_later(
    served: ModelManager,
    front: Front,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    told: str,
    ending: str,
    figures: Callable[..., None],
) -> None:
    base_dir = tmp_path / "ml"
    if mode == "429":  # else MLflow's own client asks again for four minutes
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    front.be(mode)
    for number in (1, 2):
        assert re.search(told, saved_in_trouble(served, caplog, base_dir, number))
    assert not list(Path.cwd().iterdir())
    lookup_fails_in_time(served)
    nothing_counts(served, base_dir, 2)
    front.be("through")
    if ending == "sync":
        assert len(served.sync().sent) == 2
    path = served.save_model({"n": 3}, metadata={"n": 3})
    assert served.flush(60)
    missing = lost(base_dir, front.uri, 4)
    figures(TITLE, tried=1, lost=missing)
    assert not missing
    assert served.get_latest_model_path(source="registry") == path


@pytest.mark.parametrize(
    ("mode", "passed"),
    [("stalled", 2), ("stalled", 7), ("stalled", 12), ("closed", 7), ("broken behind", 7)],
)
def test_a_push_cut_off_in_the_middle_holds_no_save_and_ends_later(
    served: ModelManager,
    front: Front,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    mode: str,
    passed: int,
    figures: Callable[..., None],
) -> None:
    base_dir = tmp_path / "ml"
    front.be(mode, passed)
    saved_in_trouble(served, caplog, base_dir, 1)
    assert front.passed == 0
    if mode == "stalled":
        if passed == 2:
            saved_in_trouble(served, caplog, base_dir, 2)
            lookup_fails_in_time(served, 10)  # it waits for what is queued first
        front.go_on()
    else:
        front.be("through")
    assert served.flush(90)
    assert not served.sync().sent
    missing = lost(base_dir, front.uri, 3 if (mode, passed) == ("stalled", 2) else 2)
    figures(TITLE, tried=1, lost=missing)
    assert not missing


def test_what_a_server_finds_too_large_is_set_aside_and_taken_back(
    served: ModelManager, front: Front, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """As with a reverse proxy that limits the size of what is uploaded."""
    base_dir = tmp_path / "ml"
    front.be("through", largest=100_000)
    served.save_model({"n": "x" * 300_000}, "lotto_model_large", {"n": 1})
    for number in range(3):
        served.save_model({"n": number}, f"lotto_model_small_{number}", {"n": number})
    served.flush(30)
    sent = [record.name for record in records_in(base_dir, "sent")[1:]]
    aside = records_in(base_dir, "aside")
    figures(TITLE, tried=1, lost=3 - len(sent))
    assert sent == [f"lotto_model_small_{number}" for number in range(3)]
    assert [(record.name, record.tries) for record in aside] == [("lotto_model_large", 3)]
    (stuck,) = [finding for finding in served.verify() if finding.kind == "stuck record"]
    assert "413" in stuck.detail
    front.be("through")
    assert served.sync(retry_aside=True).sent == ["lotto_model_large"]
    assert not records_in(base_dir, "aside")


def test_a_dead_server_loses_nothing_that_mlflow_alone_would_lose(
    served: ModelManager,
    front: Front,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    figures: Callable[..., None],
) -> None:
    """The same script with MLflow alone gets ten seconds, and is then stopped."""
    front.be("closed")
    saved_in_trouble(served, caplog, tmp_path / "ml", 1)
    plain = subprocess.Popen(
        [sys.executable, "-c", PLAIN, front.uri],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert plain.stdout is not None
    with plain, suppress(subprocess.TimeoutExpired):
        assert plain.stdout.readline() == "ready\n"
        try:
            plain.wait(10)
        finally:
            plain.kill()
    front.be("through")
    assert len(served.sync().sent) == 1
    client = MlflowClient(tracking_uri=front.uri)
    found = client.get_experiment_by_name("plain")
    runs = client.search_runs([found.experiment_id]) if found else []
    missing = lost(tmp_path / "ml", front.uri, 2)
    figures(TITLE, tried=1, lost=missing, plain_tried=1, plain_lost=1 - len(runs))
    assert not missing
