"""Size and number: memory of uploads, saves that do not wait, a server restarted, many versions."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import postgresql
import pytest
from integration.conftest import Serve
from integration.figures import Figures
from integration.objects import SeaweedFS
from integration.relay import relay
from integration.servers import TrackingServer
from mlflow import MlflowClient
from serving import environment

from lotto_mlflow import ModelManager

LONG = bool(os.environ.get("LOTTO_SERVER_LONG"))  # read before each test's is cleared
MEGABYTE = 10**6
_GROWTH_BYTES = 64 * MEGABYTE
_PUSHING = """
import sys, time
from lotto_mlflow import ModelManager
manager = ModelManager(sys.argv[1])
manager.warm_up(wait=True)
begun = time.monotonic()
report = manager.sync()
seconds = time.monotonic() - begun
assert len(report.sent) == 1 and not report.failed, report
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak, seconds)
"""
_DOWNLOADING = """
import sys, time
from lotto_mlflow import ModelManager
manager = ModelManager(sys.argv[1])
manager.get(sys.argv[2])  # MLflow is imported
begun = time.monotonic()
model = manager.load_model(sys.argv[2])
print(len(model["weights"]), time.monotonic() - begun)
"""
_LOADING = """
import hashlib, sys, time
from lotto_mlflow import ModelManager
manager = ModelManager(sys.argv[1])
begun = time.monotonic()
path = manager.get_latest_model_path(source="registry")
print(time.monotonic() - begun)
print(hashlib.sha256(open(path, "rb").read()).hexdigest())
"""


def weights(megabytes: int) -> dict[str, Any]:
    """Return a model of that size, which no compression makes smaller."""
    random = np.random.default_rng(megabytes)
    return {"weights": random.integers(0, 256, megabytes * MEGABYTE, dtype=np.uint8)}


def in_child(program: str, folder: Path, uri: str, *arguments: str, **more: str) -> list[str]:
    told = environment(MLFLOW_TRACKING_URI=uri, **more)
    command = [sys.executable, "-c", program, str(folder), *arguments]
    done = subprocess.run(command, env=told, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("way", ["direct", "proxied"])
@pytest.mark.parametrize("megabytes", [100, 1_000] if LONG else [100])
def test_a_large_model_is_uploaded_in_flat_memory_and_comes_back_whole(
    request: pytest.FixtureRequest,
    host: Callable[[str], Path],
    object_store: SeaweedFS,
    figures: Figures,
    way: str,
    megabytes: int,
) -> None:
    server = request.getfixturevalue("direct_server" if way == "direct" else "proxy_server")
    keys = object_store.environment() if way == "direct" else {}
    peaks = []
    for size_name, model in (("small", {"n": 1}), ("large", weights(megabytes))):
        folder, name = host(f"{size_name}-{way}"), f"{size_name}-{way}-{megabytes}"
        saver = ModelManager(folder, mirror="off", tracking_uri=server.uri)
        path = Path(saver.save_model(model, name))
        size = path.stat().st_size
        told = in_child(_PUSHING, folder, server.uri, **keys)
        peak, seconds = told[-2:]  # after what MLflow says
        peaks.append(int(peak) * 1024)
    growth = peaks[1] - peaks[0]
    assert size > megabytes * MEGABYTE
    assert growth < _GROWTH_BYTES, f"{growth / MEGABYTE:.0f} MB more than for a small save"
    figures(
        f"upload of {megabytes:,} MB, {way}",
        f"{size / float(seconds) / 10**9:.2f} GB/s; {max(growth, 0) / MEGABYTE:.0f} MB of memory "
        "more than for a small save",
    )
    reader = host(f"reader-{way}")
    count, seconds = in_child(_DOWNLOADING, reader, server.uri, f"models:/{name}/1", **keys)[-2:]
    assert int(count) == megabytes * MEGABYTE
    figures(
        f"download of {megabytes:,} MB, {way}, verified and loaded",
        f"{size / float(seconds) / 10**9:.2f} GB/s",
    )


def test_a_background_save_returns_while_its_upload_stands_still(
    host: Callable[[str], Path], proxy_server: TrackingServer, figures: Figures
) -> None:
    """The upload is held in its middle until the save has returned."""
    released = threading.Event()
    with relay(proxy_server.port) as before:
        manager = ModelManager(host("one"), tracking_uri=before.uri, mirror="background")
        manager.warm_up(wait=True)
        before.after(5, lambda: bool(released.wait(120)) and None)
        path = manager.save_model(weights(20), "held")
        assert Path(path).stat().st_size > 20 * MEGABYTE
        assert not before.acted.is_set()
        assert manager.get("held").version is None
        released.set()
        assert manager.flush(120)
        assert before.acted.is_set()
        assert manager.get("held").version == 1
    ratios = []
    off = ModelManager(host("off"), mirror="off")
    model = weights(20)
    for number in range(5):
        times = []
        for one in (off, manager):
            begun = time.monotonic()
            one.save_model(model, f"timed-{number}")
            times.append(time.monotonic() - begun)
        ratios.append(times[1] / times[0])
    ratio = statistics.median(ratios)
    assert ratio < 5  # an upload that is waited for takes many times as long
    figures("LOTTO_MIRROR=background against off, save of 20 MB", f"{ratio:.2f}x the time")


def test_a_server_killed_and_started_again_in_mid_upload_costs_a_retry_and_no_model(
    host: Callable[[str], Path], serve: Serve
) -> None:
    server = serve("restarted")

    def restart() -> None:
        server.stop()
        server.start()

    with relay(server.port) as before:
        manager = ModelManager(host("one"), tracking_uri=before.uri)
        manager.save_model({"n": 1})
        assert manager.flush(60)
        before.after(30, restart)
        path = Path(manager.save_model(weights(100)))
        assert before.acted.wait(120)
        manager.flush(120)
        if manager.get(path).version is None:
            manager.sync()
        record = manager.get(path)
        assert record.version == 2
        assert manager.verify(deep=True) == []
        reader = ModelManager(host("two"), tracking_uri=server.uri)
        found = reader.get_latest_model_path(source="registry")
        assert Path(str(found)).read_bytes() == path.read_bytes()


_TWINS = """
INSERT INTO {table} ({columns})
SELECT {values} FROM {table} CROSS JOIN generate_series(2, {count}) AS g
WHERE name = 'lotto_model' AND version = 1
"""


def _multiply(database: postgresql.Server, name: str, count: int) -> None:
    """Copy the only version, with tags that order its copies after it."""
    for table in ("model_versions", "model_version_tags"):
        question = (
            "SELECT string_agg(column_name, ',') FROM information_schema.columns "
            f"WHERE table_schema = 'public' AND table_name = '{table}'"
        )
        (columns,) = database.execute(question, name)
        of_id = "lpad((split_part(value, '-', 1)::bigint + g)::text, 19, '0')"
        special = {
            "version": "g",
            "value": f"CASE WHEN key = 'save_id' THEN {of_id} || '-' || lpad(g::text, 8, '0') "
            "ELSE value END",
        }
        values = ",".join(special.get(column, column) for column in columns.split(","))
        database.execute(
            _TWINS.format(table=table, columns=columns, values=values, count=count), name
        )
    database.execute("ANALYZE", name)


def test_lookups_cost_as_much_at_ten_thousand_versions_as_at_one(
    host: Callable[[str], Path], serve: Serve, database: postgresql.Server, figures: Figures
) -> None:
    server = serve("many")
    saver = ModelManager(host("one"), tracking_uri=server.uri)
    saver.save_model({"n": 1}, metadata={"n": 1})
    assert saver.flush(60)
    reader = ModelManager(host("two"), tracking_uri=server.uri)

    def looked_up() -> tuple[int | None, float, float]:
        newest, times = reader.latest(source="registry"), []
        before = len(server.requests())
        for _ in range(20):
            begun = time.monotonic()
            newest = reader.latest(source="registry")
            times.append(time.monotonic() - begun)
        assert newest is not None
        return newest.version, min(times), (len(server.requests()) - before) / 20

    version, seconds, requests = looked_up()
    assert version == 1
    _multiply(database, "many", 10_000)
    version, later_seconds, later_requests = looked_up()
    assert version == 10_000
    assert later_requests == requests
    ratio = later_seconds / seconds
    listed = reader.records(source="registry", limit=5)  # all are read, a page in the time of one
    assert [record.version for record in listed] == [10_000]
    client, token, begun = MlflowClient(tracking_uri=server.uri), None, time.monotonic()
    while (page := client.search_model_versions("name = 'lotto_model'", 1_000, None, token)).token:
        token = page.token
    all_seconds = time.monotonic() - begun
    assert later_seconds < all_seconds / 5, (seconds, later_seconds, all_seconds)
    figures(
        "newest version over HTTP, 10,000 versions against 1",
        f"{ratio:.2f}x the time, {later_requests:g} requests at either; reading all of them takes "
        f"{all_seconds / later_seconds:.0f}x",
    )
    figures(
        "lookups a second of one reader, at best, of 10,000 versions", f"{1 / later_seconds:.0f}"
    )
