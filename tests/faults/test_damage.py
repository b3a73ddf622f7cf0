"""Bits flipped and files cut: refused before unpickling, told of, and in nobody else's way.

Every model of these tests leaves a marker file when it is unpickled.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import joblib
import pytest
from mlflow import MlflowClient

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import DigestMismatchError, LoadError, LottoMlflowError
from lotto_mlflow.files import local_path
from lotto_mlflow.journal import Journal
from lotto_mlflow.layout import Layout, name_of_backup
from lotto_mlflow.metadata import from_json
from lotto_mlflow.settings import sqlite_uri
from lotto_mlflow.store import Store

TITLE = "Bits flipped and files cut"
CHANGES = 250
"""Of each of the four kinds of file: 1,000 in all, every fifth of them a cut."""
MANY, TOLD, OTHER, NEXT = "lotto_model_many", "lotto_model_told", "별 모델", "lotto_model_next"
Figures = Callable[..., None]
Check = Callable[[Path, bytes, bytes], Iterator[str]]
"""Yields what is wrong, given a changed file, what was in it, and what is."""


class Trap:
    """A model whose unpickling shows."""

    def __init__(self, marker: str, number: int) -> None:
        self.marker, self.number = marker, number

    def __reduce__(self) -> Any:
        return _spring, (self.marker, self.number, Random(self.number).randbytes(500))


def _spring(marker: str, number: int, ballast: bytes) -> Trap:
    Path(marker).touch()
    return Trap(marker, number)


class Folder:
    """A folder with models saved under several names, all of them mirrored."""

    def __init__(self, base_dir: Path) -> None:
        self.layout, self.marker = Layout.under(base_dir), base_dir / "unpickled"
        self.manager = ModelManager(base_dir)
        self.quiet = ModelManager(base_dir, mirror="off")
        self.records = Journal(self.layout.mlflow_dir).entries
        for number, name in enumerate((MANY, MANY, MANY, TOLD, TOLD, OTHER)):
            metadata = None if name == MANY else {"number": number, "메모": "당첨", "score": 0.25}
            self.save(self.manager, number, name, metadata)
        assert self.manager.flush(60)

    def save(self, manager: ModelManager, number: int, name: str, metadata: Any) -> Path:
        return Path(manager.save_model(Trap(str(self.marker), number), name, metadata))

    def files(self, suffix: str) -> list[Path]:
        folders = Store(self.layout).folders
        return sorted(path for each in folders for path in each.glob(f"*{suffix}"))

    def found(self, kind: str) -> set[Path]:
        return {
            Path(str(finding.path)) for finding in self.manager.verify() if finding.kind == kind
        }

    def untold(self, path: Path) -> Iterator[str]:
        if self.found("damaged") != {path}:
            yield "verify does not tell of it, or tells of others"

    def artifacts(self) -> dict[Path, Any]:
        client = MlflowClient(tracking_uri=sqlite_uri(self.layout.database_path))
        found = client.search_model_versions(max_results=1000)
        return {Path(str(local_path(v.source)), "data", "model.pkl"): v for v in found}

    def mirrored(self) -> list[str]:
        return sorted(version.tags["model_name"] for version in self.artifacts().values())

    def refusal(self, given: str | Path, path: Path, intact: bytes, call: str) -> Iterator[str]:
        """Yield what is wrong with how a changed file is refused."""
        expected, found = (hashlib.sha256(c).hexdigest() for c in (intact, path.read_bytes()))
        self.marker.unlink(missing_ok=True)
        try:
            self.manager.load_model(given)
            yield "it was loaded"
        except Exception as error:  # noqa: BLE001 - what it is, is what is looked at
            is_empty = path.stat().st_size == 0
            if not isinstance(error, LoadError if is_empty else DigestMismatchError):
                yield f"refused as {type(error).__name__}"
            wanted = (str(path), call) if is_empty else (str(path), call, expected, found)
            yield from (f"{text} is not in: {error}" for text in wanted if text not in str(error))
        if self.marker.exists():
            yield "it was unpickled"

    def hindrance(self) -> Iterator[str]:
        """Yield what no longer works though every model is intact."""
        quiet, names = self.quiet, {path.stem for path in self.layout.trained_dir.glob("*.pkl")}
        paths = [str(path) for path in self.files(".pkl")]
        newest = max(self.layout.trained_dir.glob("lotto_model_*"), key=lambda p: p.stat().st_mtime)
        calls: dict[str, Callable[[], bool]] = {
            "records": lambda: {record.name for record in quiet.records()} == names,
            "get": lambda: all(quiet.get(name).name == name for name in names),
            "latest": lambda: getattr(quiet.latest(), "path", None) == newest,
            "get_latest_model_path": lambda: quiet.get_latest_model_path() == str(newest),
            **{f"load_model({p})": lambda p=p: bool(quiet.load_model(p)) for p in paths},
            "save_model": lambda: self.save(quiet, 99, NEXT, {}).exists(),
        }
        for name, call in calls.items():
            try:
                if not call():
                    yield f"{name} has another answer"
            except Exception as error:  # noqa: BLE001 - any error is a finding
                yield f"{name}: {type(error).__name__}: {error}"
        for folder in (self.layout.mlflow_dir / "outbox", *Store(self.layout).folders):
            for path in folder.glob(f"*{NEXT}*"):
                path.unlink()


@pytest.fixture
def folder(base_dir: Path) -> Folder:
    return Folder(base_dir)


def _damaged(random: Random, number: int, content: bytes) -> bytes:
    """Return content with one bit flipped, or, every fifth time, with its end cut off."""
    if number % 5 == 4:
        return content[: random.choice((0, random.randrange(len(content))))]
    changed, bit = bytearray(content), random.randrange(len(content) * 8)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@contextmanager
def _changed(path: Path, content: bytes, *, keeps_time: bool = True) -> Iterator[None]:
    """Have a file hold other bytes for a while; a bad disk does not touch the file's time."""
    intact, status = path.read_bytes(), path.stat()
    times = (status.st_atime_ns, status.st_mtime_ns)
    try:
        path.write_bytes(content)
        if keeps_time:
            os.utime(path, ns=times)
        yield
    finally:
        path.write_bytes(intact)
        os.utime(path, ns=times)


def _try_each(figures: Figures, seed: int, paths: list[Path], check: Check) -> None:
    """Change files in turn, and count the changes after which a check finds something wrong."""
    random, lost = Random(seed), {}
    for number in range(CHANGES):
        path = paths[number % len(paths)]
        intact = path.read_bytes()
        content = _damaged(random, random.randrange(5), intact)
        with _changed(path, content, keeps_time=number % 2 == 0):
            problems = list(check(path, intact, content))
        if problems:
            lost[f"{number} {path}"] = problems
    figures(TITLE, tried=CHANGES, lost=len(lost))
    assert not lost, f"{len(lost)} of {CHANGES}; first {next(iter(lost.items()))}"


def test_a_changed_model_is_refused_unopened(folder: Folder, figures: Figures) -> None:
    def check(path: Path, intact: bytes, content: bytes) -> Iterator[str]:
        call = f"ModelManager.restore({name_of_backup(path)!r}"
        yield from (*folder.refusal(path, path, intact, call), *folder.untold(path))

    _try_each(figures, 1, folder.files(".pkl"), check)
    assert folder.found("damaged") == set()


def test_a_changed_artifact_is_refused_unopened(folder: Folder, figures: Figures) -> None:
    layout = folder.layout
    uris = {path: f"models:/{v.name}/{v.version}" for path, v in folder.artifacts().items()}
    content = layout.model_path(OTHER).read_bytes()
    download = layout.downloads_dir / hashlib.sha256(content).hexdigest() / f"{OTHER}.pkl"
    download.parent.mkdir(parents=True)
    download.write_bytes(content)
    layout.trained_dir.rename(layout.trained_dir.with_name("away"))

    def check(path: Path, intact: bytes, content: bytes) -> Iterator[str]:
        call = "ModelManager." if path == download else "ModelManager.sync(resend=True)"
        for given in {path, uris.get(path, path)}:
            yield from folder.refusal(given, path, intact, call)
        yield from folder.untold(path)

    _try_each(figures, 2, [*uris, download], check)
    assert all(folder.manager.load_model(uri) for uri in uris.values())


def test_changed_metadata_stops_nothing_and_is_told_of(folder: Folder, figures: Figures) -> None:
    def check(path: Path, intact: bytes, content: bytes) -> Iterator[str]:
        yield from folder.hindrance()
        is_same = from_json(content) == from_json(intact)
        if not is_same and path not in folder.found("changed"):
            yield f"verify does not tell of changed metadata in {path.parent.name}"

    _try_each(figures, 3, folder.files(".json"), check)


def test_a_changed_record_stops_nothing_and_is_told_of(folder: Folder, figures: Figures) -> None:
    for number, name in enumerate((MANY, "lotto_model_waiting", "lotto_model_waiting")):
        folder.save(folder.quiet, 10 + number, name, None)

    def check(path: Path, intact: bytes, content: bytes) -> Iterator[str]:
        yield from (*folder.hindrance(), *folder.untold(path))

    _try_each(figures, 4, [entry.path for entry in folder.records()], check)


@pytest.mark.parametrize("state", ["pending", "committed"])
@pytest.mark.parametrize("seed", range(3))
def test_a_changed_record_that_waits_holds_up_nothing_and_stays_in_sight(
    folder: Folder, state: str, seed: int
) -> None:
    names = [f"lotto_model_{number}" for number in range(4)]
    paths = [folder.save(folder.quiet, n, name, None) for n, name in enumerate(names)]
    entry = next(entry for entry in folder.records() if entry.name == names[1])
    path = entry.path.with_name(entry.path.name.replace("~committed~", f"~{state}~"))
    path = entry.path.replace(path)
    path.write_bytes(_damaged(Random(seed), 2 * seed, path.read_bytes()))
    folder.save(folder.manager, 30, NEXT, None)
    folder.manager.flush(60)
    sent = folder.mirrored()
    assert [sent.count(name) for name in (*names, NEXT)] == [1, 0, 1, 1, 1]
    assert [str(path.name)[:28] for path in folder.found("damaged")] == [entry.id]
    assert folder.manager.load_model(paths[1]).number == 1
    assert [folder.manager.sync().sent for _ in range(2)] == [[names[1]], []]
    assert folder.mirrored().count(names[1]) == 1


def test_sync_makes_no_second_version_of_a_save_whose_record_is_changed(folder: Folder) -> None:
    before = folder.mirrored()
    for entry in folder.records():
        with _changed(entry.path, _damaged(Random(5), 0, entry.path.read_bytes())):
            folder.manager.sync(include_backups=True)
    assert folder.mirrored() == before


def test_a_changed_model_description_stops_neither_verify_nor_the_registry(folder: Folder) -> None:
    data_path = next(path for path, version in folder.artifacts().items() if version.name == OTHER)
    path, random = data_path.parents[1] / "MLmodel", Random(6)
    folder.layout.trained_dir.rename(folder.layout.trained_dir.with_name("away"))
    for number in range(40):
        with _changed(path, _damaged(random, number, path.read_bytes())):
            folder.manager.verify()
            assert folder.manager.load_model(f"models:/{OTHER}/1").number == 5
            with suppress(LottoMlflowError):
                folder.manager.load_model(data_path)


def test_the_call_that_a_refusal_names_brings_the_model_back(folder: Folder) -> None:
    for path in map(folder.layout.model_path, (MANY, TOLD, OTHER)):
        intact = path.read_bytes()
        path.write_bytes(intact[:-1])
        call = re.escape(f"restore({path.stem!r}, source='registry')")
        with pytest.raises(DigestMismatchError, match=call) as caught:
            folder.manager.load_model(path)
        assert caught.value.fix is not None
        getattr(folder.manager, caught.value.fix.verb)(**caught.value.fix.arguments)
        assert path.read_bytes() == intact


def _load_all(lost: Any, path: str) -> None:
    """Count changed plain files that load, crash or hang, each in a process of its own."""
    random, intact = Random(1), Path(path).read_bytes()
    joblib.load(path)  # imports once what every child would import for itself
    for _ in range(CHANGES * 4):
        Path(path).write_bytes(_damaged(random, random.randrange(5), intact))
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            signal.alarm(10)
            try:
                joblib.load(path)
            except BaseException:  # noqa: BLE001 - the damage was noticed
                os._exit(0)
            os._exit(1)
        lost.value += os.waitpid(child, 0)[1] != 0


def test_plain_files_compared(tmp_path: Path, forest: Any, figures: Figures) -> None:
    (path,) = joblib.dump(forest, tmp_path / "plain.pkl")
    context = multiprocessing.get_context("spawn")
    lost = context.Value("i")
    process = context.Process(target=_load_all, args=(lost, path), daemon=True)
    process.start()
    process.join(250)
    assert process.exitcode == 0
    figures(TITLE, tried=0, lost=0, plain_tried=CHANGES * 4, plain_lost=lost.value)
