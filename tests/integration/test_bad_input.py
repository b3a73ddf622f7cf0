"""Servers and stores that are other than they should be: told what is wrong, nothing half done."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from faults.disks import small_disk
from integration.objects import ObjectStore, SeaweedFS, moto
from integration.relay import relay
from integration.servers import TrackingServer
from integration.test_load import in_child, weights

from lotto_mlflow import LottoMlflowError, ModelManager
from lotto_mlflow.errors import MirrorUnavailableError

SECONDS = 60.0
_THROUGH_SERVER = "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"
"""False has MLflow's client download through the server, and not by signed URLs of the bucket."""


def warned(caplog: pytest.LogCaptureFixture) -> str:
    """Return the one warning of this package."""
    found = [r for r in caplog.records if r.levelno >= logging.WARNING]
    ours = [r.getMessage() for r in found if r.name.startswith("lotto_mlflow")]
    assert len(ours) == 1, ours
    return ours[0]


def waiting(folder: Path) -> list[Path]:
    return list((folder / "mlflow" / "outbox").glob("*.json"))


class OtherRelease(ThreadingHTTPServer):
    """Answers as a server of another release does to calls that it does not know."""

    daemon_threads = True

    def __init__(self, release: str) -> None:
        super().__init__(("127.0.0.1", 0), _Unknowing)
        self.release = release
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked: list[tuple[str, str]] = []


class _Unknowing(BaseHTTPRequestHandler):
    server: OtherRelease

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path))
        known = {"/health": "OK", "/version": self.server.release}
        found = known.get(self.path)
        body = (found or "<title>404 Not Found</title>").encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = _answer  # noqa: N815 - its base's names

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def other_release(release: str) -> Iterator[OtherRelease]:
    with OtherRelease(release) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ("2.22.1", "has MLflow 2.22.1, which has no logged models"),
        ("3.1.0", "the server has MLflow 3.1.0 and this client"),
        ("4.0.0", "the server has MLflow 4.0.0 and this client"),
    ],
)
def test_a_server_of_another_mlflow_is_told_and_keeps_the_save(
    host: Callable[[str], Path], caplog: pytest.LogCaptureFixture, release: str, said: str
) -> None:
    with other_release(release) as server:
        manager = ModelManager(host("one"), tracking_uri=server.uri)
        path = manager.save_model({"n": 1}, metadata={"n": 1})
        told = warned(caplog)
        assert said in told
        assert "install mlflow" in told
        assert manager.load_model(path) == {"n": 1}
        assert len(waiting(host("one"))) == 1
        assert not [method for method, _ in server.asked if method != "GET"]
        with pytest.raises(MirrorUnavailableError, match=release.replace(".", r"\.")):
            manager.latest(source="registry")
        with pytest.raises(MirrorUnavailableError, match=release.replace(".", r"\.")):
            manager.sync()
    assert json.loads(waiting(host("one"))[0].read_text()).get("tries", 0) == 0


def test_a_tracking_host_that_nobody_knows_is_named_at_once(
    host: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    manager = ModelManager(host("one"), tracking_uri="http://no-such-host.invalid:5000")
    begun = time.monotonic()
    manager.save_model({"n": 1}, metadata={"n": 1})
    assert time.monotonic() - begun < SECONDS
    assert "http://no-such-host.invalid:5000 does not answer" in warned(caplog)
    assert "known" in warned(caplog) or "resol" in warned(caplog)
    assert len(waiting(host("one"))) == 1
    with pytest.raises(MirrorUnavailableError, match="no-such-host"):
        manager.sync()


_SAVING = """
import logging, sys
from lotto_mlflow import ModelManager
logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(name)s %(message)s")
manager = ModelManager(sys.argv[1])
if sys.argv[2:]:
    print("saved", manager.save_model({"n": 1}, "refused", {"n": 1}))
try:
    print("sent", manager.sync().sent)
except OSError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_a_store_that_turns_a_client_away_in_mid_upload_gets_the_save_later(
    host: Callable[[str], Path],
    direct_server: TrackingServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    allowed: int,
) -> None:
    """Moto answers so many requests, and refuses each one after them."""
    with moto(tmp_path) as store:
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        manager = ModelManager(host("one"), tracking_uri=direct_server.uri)
        store.allow(allowed)
        manager.save_model({"n": allowed}, f"away {allowed}", {"n": 1}, artifacts={"a.txt": "b"})
        assert not manager.flush(SECONDS)
        assert len(waiting(host("one"))) == 1
        store.allow("inf")
        assert manager.sync().sent == [f"away {allowed}"]
        assert manager.verify(deep=True) == []
        reader = ModelManager(host("two"), tracking_uri=direct_server.uri)
        assert reader.load_model(f"models:/away {allowed}/1") == {"n": allowed}


def test_a_bucket_that_refuses_is_told_and_gets_the_save_with_the_right_keys(
    host: Callable[[str], Path], direct_server: TrackingServer, object_store: ObjectStore
) -> None:
    wrong = "a-wrong-s3-secret-645"
    keys = object_store.environment(wrong)
    text = " ".join(in_child(_SAVING, host("one"), direct_server.uri, "saves", **keys))
    assert "saved" in text
    assert text.count("will be mirrored to MLflow later") == 1
    for name in ("the object store refuses", "AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"):
        assert name in text
    assert wrong not in text
    assert len(waiting(host("one"))) == 1
    keys = object_store.environment()
    text = " ".join(in_child(_SAVING, host("one"), direct_server.uri, **keys))
    assert "sent ['refused']" in text
    for path in host("one").rglob("*"):
        assert not path.is_file() or wrong.encode() not in path.read_bytes()


@pytest.mark.usefixtures("reaches_bucket")
def test_an_object_store_stopped_in_mid_upload_costs_a_retry_and_no_model(
    host: Callable[[str], Path],
    direct_server: TrackingServer,
    object_store: SeaweedFS,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with relay(object_store.port) as before:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", before.uri)
        manager = ModelManager(host("one"), tracking_uri=direct_server.uri)
        before.after(5, object_store.stop)
        path = Path(manager.save_model(weights(30), "cut", {"n": 1}))
        try:
            assert before.acted.wait(60)
            manager.flush(60)
            assert "cut" in warned(caplog)
            assert manager.get(path).version is None
        finally:
            if not object_store.is_running:
                object_store.start()
        assert manager.sync().sent == ["cut"]
        assert manager.get(path).version == 1
        assert manager.verify(deep=True) == []
        assert not [p for p in (host("one") / "mlflow" / "tmp").iterdir() if p.is_dir()]


def test_a_download_cut_in_the_middle_leaves_nothing_and_the_next_one_is_whole(
    host: Callable[[str], Path], proxy_server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(_THROUGH_SERVER, "false")
    saver = ModelManager(host("one"), tracking_uri=proxy_server.uri)
    path = Path(saver.save_model(weights(30), "torn", {"n": 1}))
    assert saver.flush(60)
    with relay(proxy_server.port) as before:
        reader = ModelManager(host("two"), tracking_uri=before.uri)
        before.after(10, lambda: None, "down")
        with suppress(LottoMlflowError):  # or the client has asked again, from where it was cut
            reader.load_model("models:/torn/1")
        assert before.acted.is_set()
        downloads = [p for p in (host("two") / "mlflow").rglob("*.pkl") if p.is_file()]
        assert all(p.read_bytes() == path.read_bytes() for p in downloads)
        loaded = reader.load_model("models:/torn/1")
        assert (loaded["weights"] == weights(30)["weights"]).all()


@pytest.mark.parametrize("way", ["signed URLs", "through the server"])
def test_a_disk_without_room_for_a_download_is_told_at_once_and_left_without_a_part(
    tmp_path: Path,
    host: Callable[[str], Path],
    proxy_server: TrackingServer,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    if way != "signed URLs":
        monkeypatch.setenv(_THROUGH_SERVER, "false")
    saver = ModelManager(host("one"), tracking_uri=proxy_server.uri)
    name = f"too-large-{way.partition(' ')[0]}"
    saver.save_model(weights(20), name, {"n": 1})
    assert saver.flush(60)
    disk = tmp_path / "disk"
    with small_disk(disk, "size=8m"):
        monkeypatch.setenv("LOTTO_CACHE_DIR", str(disk / "cache"))
        monkeypatch.setenv("TMPDIR", str(disk))
        reader = ModelManager(disk / "ml", tracking_uri=proxy_server.uri)
        begun = time.monotonic()
        with pytest.raises(LottoMlflowError, match=r"no space.*nothing was.*free some room"):
            reader.load_model(f"models:/{name}/1")
        assert time.monotonic() - begun < SECONDS
        left = [p for p in disk.rglob("*") if p.is_file() and p.stat().st_size > 100_000]
        assert left == []
    again = ModelManager(host("two"), tracking_uri=proxy_server.uri)
    assert (again.load_model(f"models:/{name}/1")["weights"] == weights(20)["weights"]).all()
