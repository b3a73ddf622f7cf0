"""What is hashed is what is loaded, whoever writes to the file meanwhile."""

from __future__ import annotations

import gzip
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import mlflow.pyfunc
import numpy as np
import pytest
from joblib.numpy_pickle_compat import NDArrayWrapper, ZNDArrayWrapper
from serving import tracking_server

from lotto_mlflow import ModelManager, pyfunc_loader
from lotto_mlflow.errors import DigestMismatchError, LoadError, LottoMlflowError, StoreError

LOADERS_DIR = Path(__file__).parent / "loaders"
NOBODY = 65534
MARKS: list[str] = []


def leave_a_mark() -> str:
    MARKS.append("unpickled")
    return "evil"


class Evil:
    """An object whose unpickling is seen."""

    def __reduce__(self) -> Any:
        return leave_a_mark, ()


@pytest.fixture(autouse=True)
def no_marks() -> None:
    MARKS.clear()


@pytest.fixture(params=["in memory", "in a file"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the private copy made in memory, and as that of a large model is."""
    if request.param == "in a file":
        monkeypatch.setattr(pyfunc_loader, "IN_MEMORY_BYTES", 100)


@contextmanager
def written_in_place(path: Path, *contents: bytes) -> Iterator[None]:
    """Have a thread write one content after another over a file, in place, until the block ends."""
    ended = threading.Event()

    def write() -> None:
        with path.open("rb+", buffering=0) as file:
            while not ended.is_set():
                for content in contents:
                    os.pwrite(file.fileno(), content, 0)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _good_and_evil() -> tuple[dict[str, Any], bytes]:
    good = {"good": np.arange(300_000)}
    size = len(_dumped(good))
    evil = _dumped([Evil(), b"\0" * size])[:size]
    return good, evil


def _dumped(model: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.pkl")
        joblib.dump(model, path)
        return path.read_bytes()


def _tries(load: Callable[[], Any], path: Path, good: bytes, evil: bytes) -> dict[str, int]:
    told = {"loaded": 0, "refused": 0}
    with written_in_place(path, evil, good):
        for _ in range(150):
            try:
                found = load()
            except OSError:
                told["refused"] += 1
            else:
                told["loaded"] += 1
                assert list(found) == ["good"]
    return told


def test_the_evil_bytes_of_these_tests_would_leave_a_mark(tmp_path: Path) -> None:
    good, evil = _good_and_evil()
    assert len(evil) == len(_dumped(good))
    (tmp_path / "evil.pkl").write_bytes(evil)
    with pytest.raises(Exception):  # noqa: B017, PT011 - it is cut short
        joblib.load(tmp_path / "evil.pkl")
    assert MARKS


@pytest.mark.usefixtures("where")
def test_only_verified_bytes_are_unpickled_while_others_write_in_place(
    disk_manager: ModelManager,
) -> None:
    good, evil = _good_and_evil()
    path = Path(disk_manager.save_model(good, "x", {}))
    told = _tries(lambda: disk_manager.load_model(path), path, path.read_bytes(), evil)
    assert MARKS == []
    assert told["refused"]
    path.write_bytes(_dumped(good))
    assert list(disk_manager.load_model(path)) == ["good"]


@pytest.mark.usefixtures("where")
def test_the_travelling_loader_unpickles_only_verified_bytes_while_others_write(
    manager: ModelManager,
) -> None:
    good, evil = _good_and_evil()
    manager.save_model(good, "x", {})
    (path,) = (manager.get("x").path.parents[1] / "mlflow").rglob("model.pkl")  # type: ignore[union-attr]
    told = _tries(lambda: pyfunc_loader.load(path), path, path.read_bytes(), evil)
    assert MARKS == []
    assert told["refused"]
    told = _tries(lambda: manager.load_model(path), path, _dumped(good), evil)
    assert MARKS == []
    assert told["refused"]


@pytest.mark.usefixtures("where")
@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_every_compression_of_joblib_loads(
    disk_manager: ModelManager, tmp_path: Path, compress: Any
) -> None:
    path = tmp_path / "ml" / "trained" / "old.pkl"
    path.parent.mkdir(parents=True)
    model = {"a": np.arange(1000.0), "o": np.array([{"x": 1}, None], dtype=object)}
    joblib.dump(model, path, compress=compress)
    found = disk_manager.load_model(path)
    assert np.array_equal(found["a"], model["a"])
    assert list(found["o"]) == list(model["o"])


def test_a_large_model_leaves_no_file_in_the_temporary_folder(
    disk_manager: ModelManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyfunc_loader, "IN_MEMORY_BYTES", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    seen: list[list[str]] = []
    monkeypatch.setattr(joblib, "load", lambda file: (_listed(tmp_path, seen), _read(file))[1])
    path = disk_manager.save_model(np.arange(1000), "x", {})
    assert disk_manager.load_model(path) == Path(path).read_bytes()
    assert seen == [[]]  # not even for a moment has it a name
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(LoadError, match="TMPDIR"):
        disk_manager.load_model(path)


def _listed(tmp_path: Path, seen: list[list[str]]) -> None:
    seen.append(os.listdir(tmp_path / "temporary"))


def _read(file: Any) -> bytes:
    content: bytes = file.read()
    return content


def test_a_load_takes_no_more_memory_than_the_file_and_the_model(
    disk_manager: ModelManager,
) -> None:
    model = np.random.default_rng(1).normal(size=4_000_000)
    path = disk_manager.save_model(model, "x", {})
    tracemalloc.start()
    try:
        loaded = disk_manager.load_model(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.array_equal(loaded, model)
    print(peak, model.nbytes)
    assert peak < 2.2 * model.nbytes


def _array_beside(path: Path, name: str, *, is_compressed: bool) -> bytes:
    """Write an array beside a model as joblib did before 0.10, and return the model's pickle."""
    if is_compressed:
        with path.open("wb") as file:
            joblib.numpy_pickle_compat.write_zfile(file, np.arange(3).tobytes())
        wrapper = ZNDArrayWrapper(name, (np.ndarray, (0,), b"b"), (1, (3,), np.dtype(int), False))
    else:
        with path.open("wb") as file:
            np.save(file, np.array([Evil()], dtype=object), allow_pickle=True)
        wrapper = NDArrayWrapper(name, np.ndarray)
    return pickle.dumps({"array": wrapper}, protocol=2)


# joblib 1.4 imports it beside a numpy from 2.0 on
@pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning")
@pytest.mark.parametrize("is_compressed", [False, True], ids=["npy", "z"])
@pytest.mark.parametrize("packed", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("spelling", ["beside", "absolute", "up", "current"])
def test_no_array_in_another_file_is_opened(
    disk_manager: ModelManager, tmp_path: Path, is_compressed: bool, packed: Any, spelling: str
) -> None:
    trained = tmp_path / "ml" / "trained"
    trained.mkdir(parents=True)
    folder = {"beside": trained, "current": Path.cwd()}.get(spelling, tmp_path)
    side = folder / "side.npy"
    name = {"absolute": str(side), "up": os.path.relpath(side, Path.cwd())}.get(spelling, side.name)
    path = trained / "old.pkl"
    path.write_bytes(packed(_array_beside(side, name, is_compressed=is_compressed)))
    opened: list[str] = []
    _watch_opening(opened)
    try:
        with pytest.raises(LoadError, match="kept arrays in other files"):
            disk_manager.load_model(path)
    finally:
        _WATCHED.clear()
    assert MARKS == []
    assert not [name for name in opened if "side.npy" in name]
    if spelling in ("beside", "absolute") and packed is bytes:  # joblib itself is as it was
        with pytest.warns(DeprecationWarning, match="joblib version less than 0.10"):
            joblib.load(path)


_WATCHED: list[list[str]] = []
_HOOKED: list[bool] = []


def _watch_opening(opened: list[str]) -> None:
    """Note each file that is opened; a hook of the system's audit cannot be taken away again."""
    _WATCHED.append(opened)
    if not _HOOKED:
        _HOOKED.append(True)
        sys.addaudithook(
            lambda event, args: (
                [w.append(str(args[0])) for w in _WATCHED] and None if event == "open" else None
            )
        )


def test_a_compressed_file_of_an_old_joblib_is_refused(
    disk_manager: ModelManager, tmp_path: Path
) -> None:
    path = tmp_path / "ml" / "trained" / "old.pkl"
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        joblib.numpy_pickle_compat.write_zfile(file, pickle.dumps(Evil()))
    with pytest.raises(LoadError, match="kept arrays in other files"):
        disk_manager.load_model(path)
    assert MARKS == []


def test_models_mirrored_with_each_loader_open_in_one_process(
    manager: ModelManager, base_dir: Path, forest: Any, rows: Any
) -> None:
    manager.save_model(forest, "x", {})
    (folder,) = (path.parent for path in (base_dir / "mlflow").rglob("MLmodel"))
    for path in pyfunc_loader.module_paths():
        copy = folder / "code" / "lotto_mlflow_loader_v2" / path.name
        assert copy.read_bytes() == path.read_bytes()
    old = base_dir.with_name("old")
    shutil.copytree(folder, old)
    shutil.rmtree(old / "code" / "lotto_mlflow_loader_v2")
    shutil.copy(LOADERS_DIR / "lotto_mlflow_loader_v1.py", old / "code")
    text = (old / "MLmodel").read_text(encoding="utf-8")
    (old / "MLmodel").write_text(text.replace("loader_v2", "loader_v1"), encoding="utf-8")
    for path in (old, folder, old):
        found = mlflow.pyfunc.load_model(str(path)).predict(rows[0][:4])
        assert list(found) == list(forest.predict(rows[0][:4]))
    assert {"lotto_mlflow_loader_v1", "lotto_mlflow_loader_v2"} <= sys.modules.keys()


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_a_model_is_never_more_readable_in_a_copy(manager: ModelManager, base_dir: Path) -> None:
    path = Path(manager.save_model({"n": 1}, "x", {"n": 1}))
    metadata_path = base_dir / "metadata" / "x_metadata.json"
    path.chmod(0o600)
    metadata_path.chmod(0o640)
    manager.save_model({"n": 2}, "x", {"n": 2})
    assert (_mode(path), _mode(metadata_path)) == (0o600, 0o600)
    backups = base_dir / "backups"
    assert (_mode(backups / "x.pkl"), _mode(backups / "x_metadata.json")) == (0o600, 0o640)
    path.unlink()
    metadata_path.unlink()
    manager.restore("x")
    assert (_mode(path), _mode(metadata_path)) == (0o600, 0o600)
    path.unlink()
    metadata_path.unlink()
    (backups / "x.pkl").chmod(0o444)
    (backups / "x_metadata.json").chmod(0o440)
    manager.restore("x")
    assert (_mode(path), _mode(metadata_path)) == (0o444, 0o440)
    model_files = list((base_dir / "mlflow" / "artifacts").rglob("model.pkl"))
    assert sorted(_mode(file) for file in model_files)[0] == 0o600
    assert manager.load_model(path) == {"n": 1}


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_copies_where_no_links_exist_keep_the_mode(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(1, "Operation not permitted")

    manager = ModelManager(base_dir, mirror="off")
    path = Path(manager.save_model({"n": 1}, "x", {"n": 1}))
    path.chmod(0o400)
    (base_dir / "metadata" / "x_metadata.json").chmod(0o600)
    monkeypatch.setattr(os, "link", no_links)
    manager.save_model({"n": 2}, "x", {"n": 2})
    backups = base_dir / "backups"
    assert (_mode(backups / "x.pkl"), _mode(backups / "x_metadata.json")) == (0o400, 0o600)
    assert manager.load_model(backups / "x.pkl") == {"n": 1}


@pytest.fixture
def shared_dir() -> Iterator[Path]:
    """A folder that other users reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="lotto-reader-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


READER = """
import os, sys
from pathlib import Path
uid = int(sys.argv[1])
from lotto_mlflow import ModelManager
ModelManager(sys.argv[3]).load_model("models:/x/1")  # imports what nobody may read here
if os.getuid() == 0:
    os.setgid(uid)
    os.setuid(uid)
manager = ModelManager(sys.argv[2])
try:
    print(manager.load_model("models:/x/1"), manager.get_latest_model_path(source="registry"))
except Exception as cause:
    print(type(cause).__name__, cause)
"""


def _read_by_another(base_dir: Path, uri: str, **settings: str) -> str:
    """Load a version from a store as a user who may write nothing in the folder."""
    own = base_dir.with_name("of-root")
    done = subprocess.run(
        [sys.executable, "-c", READER, str(NOBODY), str(base_dir), str(own)],
        env=os.environ | {"MLFLOW_TRACKING_URI": uri, "HOME": "/nonexistent"} | settings,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(os.name == "nt", reason="users of POSIX")
def test_a_reader_who_may_not_write_keeps_verified_downloads_in_the_cache(
    shared_dir: Path, migrated_database: Path
) -> None:
    shutil.copyfile(migrated_database, shared_dir / "server.db")
    with tracking_server(shared_dir / "server.db", shared_dir / "artifacts") as uri:
        base_dir = shared_dir / "ml"
        manager = ModelManager(base_dir, tracking_uri=uri)
        path = Path(manager.save_model({"n": 1}, "x", {"n": 1}))
        saved_at_ns = path.stat().st_mtime_ns
        manager.save_model({"n": 2}, "lotto_model_y", {})
        assert manager.flush(60)
        shutil.rmtree(base_dir / "trained")
        (base_dir / "trained").mkdir()
        for folder in (base_dir, *base_dir.rglob("*")):
            folder.chmod(0o555 if folder.is_dir() else 0o444)
        answer = _read_by_another(base_dir, uri)
        assert answer.startswith("StoreError nothing can be downloaded")
        assert "LOTTO_CACHE_DIR" in answer
        cache = shared_dir / "cache"
        cache.mkdir()
        cache.chmod(0o777)
        for settings in ({"LOTTO_CACHE_DIR": str(cache)}, {"XDG_CACHE_HOME": str(cache)}):
            own = cache if "LOTTO_CACHE_DIR" in settings else cache / "lotto_mlflow"
            answer = _read_by_another(base_dir, uri, **settings)
            assert answer.startswith("{'n': 1} " + str(own / "downloads")), answer
            (download,) = (own / "downloads").glob("*/x.pkl")
            assert download.stat().st_mtime_ns == saved_at_ns
            assert not list((own / "tmp").iterdir())
            before = download.stat().st_ino
            assert _read_by_another(base_dir, uri, **settings) == answer
            assert download.stat().st_ino == before  # it was not fetched again
            download.write_bytes(_dumped([Evil()]))
            answer = _read_by_another(base_dir, uri, **settings)
            assert answer.startswith("DigestMismatchError")


def test_a_path_in_the_cache_is_verified_as_a_download_is(
    disk_manager: ModelManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOTTO_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "cache" / "downloads" / ("0" * 64) / "x.pkl"
    path.parent.mkdir(parents=True)
    joblib.dump([Evil()], path)
    with pytest.raises(DigestMismatchError):
        disk_manager.load_model(path)
    assert MARKS == []


def test_the_callers_own_link_is_followed_to_what_is_verified(
    disk_manager: ModelManager, tmp_path: Path
) -> None:
    path = Path(disk_manager.save_model({"n": 1}, "x", {"n": 1}))
    (tmp_path / "current.pkl").symlink_to(path)
    assert disk_manager.load_model(tmp_path / "current.pkl") == {"n": 1}
    path.write_bytes(_dumped([Evil()]))
    with pytest.raises(DigestMismatchError):
        disk_manager.load_model(tmp_path / "current.pkl")
    (tmp_path / "pipe").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "real")
    with pytest.raises(LoadError, match="pipe"):
        disk_manager.load_model(tmp_path / "pipe")
    with pytest.raises(LottoMlflowError):
        disk_manager.load_model("\0")
    assert MARKS == []
    assert issubclass(StoreError, OSError)
