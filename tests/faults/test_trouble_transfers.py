"""Servers killed and started again, and connections cut, in the middle of uploads and downloads."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from faults.trouble import lost
from integration.relay import Relay, relay
from integration.servers import TrackingServer

from lotto_mlflow import LottoMlflowError, ModelManager

TITLE = "Servers restarted, uploads and downloads cut"
SIZE = 8_000_000
POINTS = (1, 4, 7)
"""After how many megabytes of a model it happens."""


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, migrated_database: Path
) -> Iterator[TrackingServer]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(migrated_database, folder / "server.db")
    options = ["--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    server = TrackingServer(folder, f"sqlite:///{folder}/server.db", options, {})
    yield server.start()
    server.stop()


@pytest.fixture
def before(server: TrackingServer) -> Iterator[Relay]:
    with relay(server.port) as opened:
        yield opened


def _interrupt(server: TrackingServer, how: str) -> None:
    """Do what interrupts a transfer, beside the connection that is cut."""
    if how == "restarted":
        server.stop()
        server.start()


def _model(number: int) -> dict[str, bytes]:
    return {"weights": bytes([number]) * SIZE}


@pytest.mark.parametrize("megabytes", POINTS)
@pytest.mark.parametrize("how", ["restarted", "cut"])
def test_an_upload_that_is_interrupted_costs_a_retry_and_no_model(
    server: TrackingServer,
    before: Relay,
    tmp_path: Path,
    megabytes: int,
    how: str,
    figures: Callable[..., None],
) -> None:
    base_dir, name = tmp_path / "ml", f"lotto_model_{how}_{megabytes}"
    manager = ModelManager(base_dir, tracking_uri=before.uri)

    manager.warm_up(wait=True)
    before.after(megabytes, partial(_interrupt, server, how))
    manager.save_model(_model(megabytes), name, {"n": megabytes})
    assert before.acted.wait(120)
    if not manager.flush(120):
        manager.sync()
    missing = lost(base_dir, server.uri, 1)
    figures(TITLE, tried=1, lost=missing)
    assert not missing
    assert manager.verify(deep=True) == []


@pytest.mark.parametrize("megabytes", POINTS)
@pytest.mark.parametrize("how", ["restarted", "cut"])
def test_a_download_that_is_interrupted_leaves_nothing_and_the_next_one_is_whole(
    server: TrackingServer,
    before: Relay,
    tmp_path: Path,
    megabytes: int,
    how: str,
    figures: Callable[..., None],
) -> None:
    name = f"fetched-{how}-{megabytes}"
    saver = ModelManager(tmp_path / "saver", tracking_uri=server.uri)
    path = Path(saver.save_model(_model(megabytes), name, {"n": 1}))
    assert saver.flush(120)
    base_dir = tmp_path / "reader"
    reader = ModelManager(base_dir, tracking_uri=before.uri)

    before.after(megabytes, partial(_interrupt, server, how), "down")
    with suppress(LottoMlflowError):
        assert reader.load_model(f"models:/{name}/1") == _model(megabytes)
    assert before.acted.wait(120)
    whole = path.read_bytes()
    parts = [
        found
        for found in (base_dir / "mlflow").rglob("*")
        if found.is_file() and found.stat().st_size > 10**6 and found.read_bytes() != whole
    ]
    is_wrong = reader.load_model(f"models:/{name}/1") != _model(megabytes)
    figures(TITLE, tried=1, lost=int(bool(parts) or is_wrong))
    assert not parts
    assert not is_wrong
