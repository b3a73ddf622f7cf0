"""Downloads: whole or not there, made once, and kept in the room that they may have."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from proxying import Proxy, proxied

from lotto_mlflow import ModelManager, settings
from lotto_mlflow.downloads import DownloadCache
from lotto_mlflow.errors import MirrorUnavailableError, SettingsError, StoreError
from lotto_mlflow.layout import Layout
from lotto_mlflow.records import ModelRecord

SECONDS = 300.0
BYTES = 2_000_000
BIG = bytes(range(256)) * (BYTES // 256)


@pytest.fixture(scope="module")
def proxy(server_uri: str) -> Iterator[Proxy]:
    with proxied(server_uri) as found:
        yield found


@pytest.fixture(autouse=True)
def undisturbed(proxy: Proxy) -> None:
    """Have the proxy pass everything on at once."""
    proxy.pause_seconds, proxy.cut_after_bytes = 0.0, None


@pytest.fixture(scope="module")
def saved(server_uri: str, tmp_path_factory: pytest.TempPathFactory) -> ModelRecord:
    """A model of two megabytes that another host has saved."""
    manager = ModelManager(tmp_path_factory.mktemp("trainer"), tracking_uri=server_uri)
    manager.save_model({"bytes": BIG}, "lotto_model_big", {"loss": 0.5})
    assert manager.flush(SECONDS)
    return manager.get("lotto_model_big")


URI = "models:/lotto_model/1"
LOAD = """
import sys
from lotto_mlflow import ModelManager
manager = ModelManager(sys.argv[1], tracking_uri=sys.argv[2])
manager.get(1)
print("ready", flush=True)
sys.stdin.readline()
print(len(manager.load_model("models:/lotto_model/1")["bytes"]), flush=True)
"""


def reader(base_dir: Path, uri: str, code: str = LOAD) -> subprocess.Popen[str]:
    """Start a process that is about to load the model; it goes on when a line is written to it."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(base_dir), uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_what_was_downloaded_is_not_downloaded_again(
    proxy: Proxy, saved: ModelRecord, tmp_path: Path
) -> None:
    manager = ModelManager(tmp_path / "api", tracking_uri=proxy.uri)
    proxy.requests.clear()
    for _ in range(3):
        assert manager.load_model(URI)["bytes"] == BIG
        path = Path(str(manager.get_latest_model_path(source="registry")))
    assert len(proxy.downloads()) == 1
    assert path.stat().st_mtime_ns == saved.saved_at_ns
    another = ModelManager(tmp_path / "api", tracking_uri=proxy.uri)
    assert another.restore(1, source="registry").sha256 == saved.sha256
    assert len(proxy.downloads()) == 1


def test_processes_and_threads_at_once_download_once(
    proxy: Proxy, saved: ModelRecord, tmp_path: Path
) -> None:
    processes = [reader(tmp_path / "api", proxy.uri) for _ in range(2)]
    manager = ModelManager(tmp_path / "api", tracking_uri=proxy.uri)
    proxy.requests.clear()
    proxy.pause_seconds = 0.05
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(manager.load_model(URI)["bytes"] == BIG))
        for _ in range(3)
    ]
    for process in processes:
        go(process)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        assert process.communicate(timeout=SECONDS)[0] == f"{len(BIG)}\n"
    assert found == [True] * 3
    assert len(proxy.downloads()) == 1


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_download_killed_in_the_middle_leaves_nothing_that_counts(
    proxy: Proxy, saved: ModelRecord, tmp_path: Path
) -> None:
    base_dir = tmp_path / "api"
    process = reader(base_dir, proxy.uri)
    proxy.pause_seconds = 0.5
    go(process)
    tmp_dir, downloads_dir = base_dir / "mlflow" / "tmp", base_dir / "mlflow" / "downloads"
    until(lambda: any(path.stat().st_size for path in files_of(tmp_dir)))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert files_of(downloads_dir) == []
    (left,) = [path for path in tmp_dir.iterdir() if path.is_dir()]
    proxy.pause_seconds = 0.0
    proxy.requests.clear()
    manager = ModelManager(base_dir, tracking_uri=proxy.uri)
    assert manager.load_model(URI)["bytes"] == BIG  # the dead process holds no lock
    assert len(proxy.downloads()) == 1
    assert not left.exists()
    assert list(tmp_dir.iterdir()) == []


def test_a_connection_cut_in_the_middle_leaves_nothing_and_is_said(
    proxy: Proxy, saved: ModelRecord, tmp_path: Path
) -> None:
    manager = ModelManager(tmp_path / "api", tracking_uri=proxy.uri)
    proxy.cut_after_bytes = BYTES // 2
    said = r"fetching version 1 .*(IncompleteRead|broken)"
    with pytest.raises(MirrorUnavailableError, match=said):
        manager.load_model(URI)
    assert files_of(tmp_path / "api" / "mlflow" / "downloads") == []
    assert list((tmp_path / "api" / "mlflow" / "tmp").iterdir()) == []
    proxy.cut_after_bytes = None
    assert manager.load_model(URI)["bytes"] == BIG


FULL = """
import resource, signal, sys
from lotto_mlflow import ModelManager
manager = ModelManager(sys.argv[1], tracking_uri=sys.argv[2])
manager.get(1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
print("ready", flush=True)
sys.stdin.readline()
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
try:
    manager.load_model("models:/lotto_model/1")
except OSError as error:
    print(type(error).__name__, error, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_disk_without_room_leaves_nothing_and_is_said(
    proxy: Proxy, saved: ModelRecord, tmp_path: Path
) -> None:
    process = reader(tmp_path / "api", proxy.uri, FULL)
    go(process)
    answer, trouble = process.communicate(timeout=SECONDS)
    assert answer.startswith("StoreError fetching version 1 of lotto_model failed"), trouble
    assert "ulimit -f" in answer
    assert files_of(tmp_path / "api" / "mlflow" / "downloads") == []
    assert list((tmp_path / "api" / "mlflow" / "tmp").iterdir()) == []


def test_the_bytes_of_a_download_are_reported_as_they_arrive(
    proxy: Proxy, saved: ModelRecord, tmp_path: Path
) -> None:
    class Seen:
        def __init__(self) -> None:
            self.calls: list[tuple[int, int, int, str]] = []
            self.bytes: list[tuple[int, int]] = []

        def __call__(self, done: int, total: int, size_bytes: int, name: str) -> None:
            self.calls.append((done, total, size_bytes, name))

        def arrived(self, count: int, size: int) -> None:
            self.bytes.append((count, size))

    proxy.pause_seconds = 0.05
    for number, use in enumerate(
        (
            lambda manager, seen: manager.latest(source="registry", download=True, progress=seen),
            lambda manager, seen: manager.restore(1, source="registry", progress=seen),
            lambda manager, seen: manager.load_model(URI, progress=seen),
        )
    ):
        seen = Seen()
        use(ModelManager(tmp_path / str(number), tracking_uri=proxy.uri), seen)
        counts = [count for count, _ in seen.bytes]
        assert counts == sorted(counts)
        assert counts[-1] == saved.size
        assert any(0 < count < BYTES for count in counts)
        assert {size for _, size in seen.bytes} == {saved.size}
        assert seen.calls in ([], [(0, 1, saved.size, saved.name), (1, 1, 0, "")])


# the cache itself


class World:
    """A cache, and models of ten bytes to be put into it."""

    def __init__(self, base_dir: Path, limit: str) -> None:
        self.layout = Layout.under(base_dir)
        environment = {"LOTTO_DOWNLOADS_MAX": limit}
        self.cache = DownloadCache(self.layout, partial(settings.read, environment=environment))

    def get(self, name: str, content: bytes = b"") -> Path:
        """Have a model downloaded, unless it is there."""
        content = content or name.encode().ljust(10)

        def download(folder: Path) -> Path:
            folder.mkdir()
            path = folder / "model.pkl"
            path.write_bytes(content)
            return path

        return self.cache.get(hashlib.sha256(content).hexdigest(), name, 10**18, download)[0]

    def there(self) -> list[str]:
        return sorted(path.stem for path in self.layout.downloads_dir.glob("*/*.pkl"))


def used_at(path: Path, time_ns: int) -> None:
    os.utime(path, ns=(time_ns, path.stat().st_mtime_ns))


def test_downloads_that_were_not_used_for_longest_make_room(tmp_path: Path) -> None:
    world = World(tmp_path, "30")
    paths = [world.get(name) for name in "abc"]
    assert {path.stat().st_mtime_ns for path in paths} == {10**18}
    for number, path in enumerate(paths):
        used_at(path, 10**18 + number)
    assert world.cache.find(paths[0].parent.name, "a") == paths[0]  # which is a use
    world.get("d")
    assert world.there() == ["a", "c", "d"]
    assert not paths[1].parent.exists()
    assert not paths[1].parent.with_suffix(".lock").exists()
    world.get("long", b"x" * 100)  # the newest stays, even where it has no room
    assert world.there() == ["long"]
    assert world.get("long", b"x" * 100).stat().st_mtime_ns == 10**18


HOLD = """
import sys
from lotto_mlflow import downloads, regular
from pathlib import Path
with regular.opened(Path(sys.argv[1])) as file:
    downloads.lock_for_reading(file)
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows itself removes no open file")
def test_a_download_that_another_process_reads_stays(tmp_path: Path) -> None:
    world = World(tmp_path, "10")
    path = world.get("read")
    process = reader(path, "", HOLD)
    world.get("b")
    assert world.there() == ["b", "read"]
    process.kill()
    process.communicate()
    world.get("c")
    assert world.there() == ["c"]


def test_a_file_is_held_while_a_restore_reads_it_and_looked_for_anew_where_it_went(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, "10")
    gone: list[Path] = []

    def find() -> Path:
        path = world.get("held")
        if not gone:
            path.unlink()
            gone.append(path)
        return path

    with world.cache.reading(find) as path:
        world.get("b")
        assert path.is_file()
    world.get("c")
    assert world.there() == ["c"]


def test_only_files_of_downloads_make_room_and_no_link_is_followed(tmp_path: Path) -> None:
    world = World(tmp_path / "ml", "0")
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "x.pkl").write_bytes(b"x" * 100)
    downloads_dir = world.layout.downloads_dir
    downloads_dir.mkdir(parents=True)
    digests = [f"{number:064x}" for number in range(6)]
    (downloads_dir / digests[0]).symlink_to(victim)
    for digest in digests[1:4]:
        (downloads_dir / digest).mkdir()
    (downloads_dir / digests[1] / "x.pkl").symlink_to(victim / "x.pkl")
    (downloads_dir / digests[2] / "x.txt").write_bytes(b"mine")
    (downloads_dir / digests[2] / ".x.pkl").write_bytes(b"mine")
    (downloads_dir / digests[3] / "x.pkl").mkdir()
    (downloads_dir / "notes").mkdir()
    (downloads_dir / "notes" / "x.pkl").write_bytes(b"mine")
    (downloads_dir / digests[4].upper().replace("0", "A")).mkdir()
    before = set(tmp_path.rglob("*"))
    path = world.get("new")
    assert before <= set(tmp_path.rglob("*"))
    assert (victim / "x.pkl").read_bytes() == b"x" * 100
    assert path.is_file()


def test_a_download_sweeps_all_that_a_dead_process_left(tmp_path: Path) -> None:
    world = World(tmp_path, "1K")
    workspace, trained_dir = "0123456789ab", world.layout.trained_dir
    (world.layout.tmp_dir / workspace).mkdir(parents=True)
    (world.layout.tmp_dir / f"{workspace}.lock").touch()
    trained_dir.mkdir()
    beside = trained_dir / f".{workspace}.{'0' * 32}.tmp"
    beside.touch()
    world.get("a")
    assert list(world.layout.tmp_dir.iterdir()) == []
    assert not beside.exists()


def test_who_waits_too_long_for_another_download_makes_its_own(tmp_path: Path) -> None:
    world = World(tmp_path, "1K")
    impatient = DownloadCache(world.layout, partial(settings.read, environment={}), 0.05)
    content = b"same"
    digest = hashlib.sha256(content).hexdigest()
    both: list[Path] = []

    def download(folder: Path) -> Path:
        folder.mkdir()
        (folder / "model.pkl").write_bytes(content)
        if not both:
            both.append(folder)
            impatient.get(digest, "x", None, download)
        return folder / "model.pkl"

    path, is_new = world.cache.get(digest, "x", None, download)
    assert is_new
    assert path.read_bytes() == content
    assert files_of(world.layout.downloads_dir) == [path]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", 20 * 10**9),
        ("20G", 20 * 10**9),
        ("500M", 5 * 10**8),
        ("1.5 gb", 15 * 10**8),
        ("4KiB", 4096),
        ("123", 123),
        ("0", 0),
    ],
)
def test_the_room_is_a_size_with_a_unit(text: str, size: int) -> None:
    assert settings.read(environment={"LOTTO_DOWNLOADS_MAX": text}).downloads_max_bytes == size


@pytest.mark.parametrize(
    "text", ["many", "-1", "1e9", "10X", "G", "1,5G", "5iB", "\N{ARABIC-INDIC DIGIT ONE}G"]
)
def test_a_room_that_is_no_size_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOTTO_DOWNLOADS_MAX", text)
    with pytest.raises(SettingsError, match="LOTTO_DOWNLOADS_MAX"):
        ModelManager(tmp_path)
    assert issubclass(StoreError, OSError)
