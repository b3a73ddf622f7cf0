"""Hosts with clocks of their own, which share a server, or open one database directly."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import clocks
import joblib
import postgresql
import pytest
from made import folder_with_store
from mlflow import MlflowClient
from serving import tracking_server

from lotto_mlflow import LiveModel, ModelManager, records
from lotto_mlflow.errors import MirrorUnavailableError
from lotto_mlflow.settings import sqlite_uri

TITLE = "Hosts with wrong clocks"
ANSWER_SECONDS = 120.0
LATEST = "models:/lotto_model/latest"
MINUTE, DAY = 60.0, 86_400.0
SLOW, RIGHT, FAST = -10 * MINUTE, 0.0, 2 * DAY
SKEWS = {"slow": SLOW, "right": RIGHT, "fast": FAST}


class Server:
    """A tracking server whose clock can be put forward.

    Parameters
    ----------
    uri : str
        Its address.
    clock_path : pathlib.Path
        What its clock is set by.
    """

    def __init__(self, uri: str, clock_path: Path) -> None:
        self.uri = uri
        self._clock_path = clock_path
        self.passed = 0.0

    def pass_time(self, seconds: float) -> None:
        self.passed += seconds
        self._clock_path.write_text(f"+{self.passed:g}\n")
        time.sleep(2 * clocks.CACHE_SECONDS)


class World:
    """A server, and hosts that push to it: each has a clock, and time passes for all of them.

    Parameters
    ----------
    folder : pathlib.Path
        Where their folders are made.
    server : Server
        The server, which others have used before.
    """

    def __init__(self, folder: Path, server: Server) -> None:
        self._folder = folder
        self._server = server
        self.uri = server.uri
        self._before = {version.version for version in _versions(self.uri)}
        self.saved: list[str] = []
        self.pass_time(60 * MINUTE)

    def pass_time(self, seconds: float) -> None:
        self._server.pass_time(seconds)

    def versions(self) -> list[Any]:
        """Return the versions that were made since."""
        return [one for one in _versions(self.uri) if one.version not in self._before]

    @contextmanager
    def host(self, name: str, **more: Any) -> Iterator[ModelManager]:
        """Work on a host, by its clock."""
        skew = SKEWS.get(name.partition(" ")[0], RIGHT)
        with clocks.shifted(self._server.passed + skew):
            yield ModelManager(self._folder / name, tracking_uri=self.uri, **more)

    def save(self, name: str, model: str, *, online: bool = True) -> None:
        with self.host(name, mirror="sync" if online else "off") as manager:
            manager.save_model({"model": model}, model, {"n": 1})
            self.saved.append(model)
            assert not online or manager.flush(120)

    def flush(self, name: str) -> None:
        with self.host(name) as manager:
            assert manager.flush(120)

    def latest(self, *names: str) -> str:
        """Return the latest model, which is the same on each host; by default on all."""
        found = set()
        for name in names or (*SKEWS, "reader"):
            with self.host(name) as manager:
                record = answered(partial(manager.latest, source="registry"))
                found.add(None if record is None else record.name)
        (only,) = found
        return str(only)

    def in_order(self) -> list[str]:
        """Return the ends of the names of what was saved since, the oldest save first."""
        made = {version.tags["model_name"] for version in self.versions()}
        with self.host("reader") as manager:
            found = in_order(manager)
        return [name[-1] for name in found if f"lotto_model_{name}" in made]


def answered(call: Callable[[], Any]) -> Any:
    """Return what a lookup answers, which a busy machine may not do within its five seconds."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            return call()
        except MirrorUnavailableError:
            if time.monotonic() > deadline:
                raise


def in_order(manager: ModelManager) -> list[str]:
    """Return the ends of the names in the registry, the oldest save first, each name once."""
    folder = manager._folder
    found = answered(folder.mirror(folder.target()).records)
    newest_first = dict.fromkeys(record.name for record in found)  # hosts have some in common
    return [name.removeprefix("lotto_model_") for name in reversed(newest_first)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    clock_path = folder / "clock"
    clock_path.write_text("+0\n")
    shutil.copyfile(migrated_database, folder / "server.db")
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            for key, value in clocks.preloaded().items():
                patch.setenv(key, value)
            patch.setenv("FAKETIME_TIMESTAMP_FILE", str(clock_path))
            running = tracking_server(folder / "server.db", folder / "artifacts")
            uri = stack.enter_context(running)
        yield Server(uri, clock_path)


@pytest.fixture
def world(tmp_path: Path, server: Server, figures: Callable[..., None]) -> Iterator[World]:
    """A world of its own, in which every save has one version in the end."""
    world = World(tmp_path, server)
    yield world
    mirrored = Counter(version.tags["model_name"] for version in world.versions())
    lost = [name for name, count in Counter(world.saved).items() if mirrored[name] != count]
    figures(TITLE, tried=len(world.saved), lost=len(lost))
    assert lost == []


def test_over_a_server_hosts_with_any_clocks_see_one_order_also_across_an_outage(
    world: World,
) -> None:
    for number, name in enumerate(("right", "slow", "fast", "slow"), 1):
        world.save(name, f"lotto_model_{number}")
        assert world.latest(name, "reader") == f"lotto_model_{number}"
    world.save("fast", "lotto_model_5", online=False)  # who saves, and cannot push
    world.save("fast", "lotto_model_6", online=False)
    world.pass_time(70)
    world.save("slow", "lotto_model_7", online=False)
    world.pass_time(70)
    world.save("right", "lotto_model_8")
    assert world.latest("fast") == "lotto_model_8"
    world.pass_time(3 * MINUTE)
    world.flush("fast")
    world.flush("slow")
    assert world.latest() == "lotto_model_8"
    world.save("slow", "lotto_model_9", online=False)
    world.pass_time(20 * MINUTE)
    world.flush("slow")  # late, and the newest nevertheless
    assert world.latest() == "lotto_model_9"
    assert world.in_order() == list("123456789")
    late = {v.tags["model_name"][-1] for v in world.versions() if "late" in v.tags}
    assert late == set("567")


def _versions(uri: str) -> list[Any]:
    return list(MlflowClient(tracking_uri=uri).search_model_versions("name = 'lotto_model'"))


def test_over_a_server_a_live_model_follows_hosts_whose_clocks_are_slow(world: World) -> None:
    world.save("right", "lotto_model_1")
    with world.host("right") as manager:
        follow = partial(LiveModel, LATEST, manager=manager, every_seconds=3600)
        with answered(follow) as live:
            assert live.model == {"model": "lotto_model_1"}
            world.save("slow", "lotto_model_2")
            deadline = time.monotonic() + ANSWER_SECONDS
            while not live.refresh() and time.monotonic() < deadline:
                pass
            assert live.model == {"model": "lotto_model_2"}
            assert answered(partial(manager.load_model, LATEST)) == {"model": "lotto_model_2"}


def test_files_from_before_this_package_stand_where_their_time_stands(world: World) -> None:
    world.save("right", "lotto_model_1")
    world.pass_time(10 * MINUTE)
    world.save("slow", "lotto_model_3")
    world.pass_time(10 * MINUTE)
    with world.host("slow old") as manager:
        trained_dir = Path(manager.save_model({"model": "other"}, "other")).parent
        for name, minutes in (("0", 25), ("2", 15)):
            path = trained_dir / f"lotto_model_{name}.pkl"
            joblib.dump({"model": path.stem}, path)
            then = time.time_ns() - int(minutes * MINUTE * 10**9)
            os.utime(path, ns=(then, then))
        assert sorted(manager.sync().backfilled) == ["lotto_model_0", "lotto_model_2"]
    assert world.latest("slow old") == "lotto_model_3"
    assert world.in_order() == list("0123")


def test_saves_after_a_clock_was_set_back_are_placed_by_the_clock_that_is_right(
    world: World,
) -> None:
    world.save("fast", "lotto_model_1")
    SKEWS["fast"] = RIGHT
    try:
        world.save("fast", "lotto_model_2")
        assert world.latest() == "lotto_model_2"
        world.save("fast", "lotto_model_3", online=False)
        world.pass_time(2 * MINUTE)
        world.save("right", "lotto_model_4")
        world.pass_time(2 * MINUTE)
        world.flush("fast")
        assert world.latest() == "lotto_model_4"
        assert world.in_order() == list("1234")
    finally:
        SKEWS["fast"] = FAST


HOST = """
import sys
from lotto_mlflow import ModelManager
base_dir, uri, name = sys.argv[1:]
manager = ModelManager(base_dir, tracking_uri=uri)
manager.save_model({"model": name}, name, {"n": 1})
assert manager.flush(120)
print(manager.latest(source="registry").name)
"""
CLOCKS = {"slow": "-10m", "fast": "+2d"}


def _check_one_database(tmp_path: Path, uri: str) -> None:
    reader = ModelManager(tmp_path / "right", tracking_uri=uri)
    for number, name in enumerate(("right", "slow", "fast", "right", "slow"), 1):
        model = f"lotto_model_{number}"
        if name == "right":
            _save(reader, model)
        else:
            place = str(tmp_path / name)
            assert clocks.run(HOST, place, uri, model, clock=CLOCKS[name]) == model
        newest = answered(partial(reader.latest, source="registry"))
        assert newest is not None
        assert (newest.name, newest.version) == (model, number)
    versions = _versions(uri)
    assert not [version for version in versions if "late" in version.tags]
    (fast,) = (v for v in versions if v.tags["model_name"] == "lotto_model_3")
    times = [version.creation_timestamp for version in versions]
    assert fast.creation_timestamp > min(times) + DAY * 1_000  # it writes its own clock's time
    assert in_order(reader) == list("12345")


def test_prompt_pushes_to_one_sqlite_database_stand_by_number(
    tmp_path: Path, migrated_database: Path
) -> None:
    folder = folder_with_store(tmp_path / "shared", migrated_database)
    _check_one_database(tmp_path, sqlite_uri(folder / "mlflow" / "mlflow.db"))


def test_prompt_pushes_to_one_postgresql_database_stand_by_number(tmp_path: Path) -> None:
    with postgresql.running() as server:
        _check_one_database(tmp_path, server.new_database("hosts"))


def test_two_hosts_that_save_on_one_day_under_one_generated_name_are_two_versions(
    world: World, tmp_path: Path
) -> None:
    hosts = {}
    for name in ("right", "right 2"):
        with world.host(name) as manager:
            path = Path(manager.save_model({"by": name}, metadata={"by": name}))
            assert manager.flush(120)
            hosts[name] = (path, path.read_bytes(), manager.get(path).version)
    (first, content, version), (second, other, number) = hosts.values()
    assert first.name == second.name
    assert first != second
    assert version != number
    tags = [version.tags for version in world.versions()]
    assert {tag["sha256"] for tag in tags} == {
        hashlib.sha256(each).hexdigest() for each in (content, other)
    }
    assert len({tag["origin"] for tag in tags}) == 2
    with world.host("reader") as manager:
        for name, (_, _, at) in hosts.items():
            assert answered(partial(manager.load_model, f"models:/lotto_model/{at}")) == {
                "by": name
            }
        downloads = list((tmp_path / "reader" / "mlflow" / "downloads").rglob("*.pkl"))
        assert sorted(path.read_bytes() for path in downloads) == sorted([content, other])
        for name, (path, _, at) in hosts.items():
            uri = f"models:/lotto_model/{at}"
            restored = answered(partial(manager.restore, uri, source="registry"))
            assert restored.path is not None
            assert restored.path.name == path.name
            assert manager.load_model(restored.path) == {"by": name}
            assert restored.metadata is not None
            assert restored.metadata["by"] == name
        backups = list((tmp_path / "reader" / "backups").glob("*.pkl"))
        assert [path.read_bytes() for path in backups] == [content]
        assert [f for f in manager.verify() if f.kind != "mlflow unavailable"] == []
    for name, (path, saved, at) in hosts.items():
        with world.host(name) as manager:
            for other_name, (_, _, n) in hosts.items():
                uri = f"models:/lotto_model/{n}"
                assert answered(partial(manager.load_model, uri)) == {"by": other_name}
            assert path.read_bytes() == saved
            assert answered(manager.sync).sent == []
            assert manager.get(path).version == at
            assert [f for f in manager.verify() if f.kind != "mlflow unavailable"] == []


@pytest.fixture
def pair(base_dir: Path, tmp_path: Path) -> tuple[ModelManager, ModelManager]:
    """Two hosts that open one database, and the clock of the second one is slow."""
    uri = sqlite_uri(base_dir / "mlflow" / "mlflow.db")
    return ModelManager(base_dir), ModelManager(tmp_path / "slow", tracking_uri=uri)


def _save(manager: ModelManager, name: str, skew: float = RIGHT) -> None:
    with clocks.shifted(skew):
        manager.save_model({"model": name}, name, {"n": 1})
        assert manager.flush(120)


def _latest(*managers: ModelManager) -> list[str]:
    found = [manager.latest(source="registry") for manager in managers]
    return [record.name[-1] for record in found if record is not None]


def test_own_records_overrule_no_newer_save_of_a_host_whose_clock_is_slow(
    pair: tuple[ModelManager, ModelManager],
) -> None:
    own, slow = pair
    for number in range(1, 4):
        _save(own, f"lotto_model_{2 * number - 1}")
        assert _latest(own, slow) == [str(2 * number - 1)] * 2
        _save(slow, f"lotto_model_{2 * number}", SLOW)
        assert _latest(own, slow) == [str(2 * number)] * 2
    assert [finding.kind for finding in own.verify()] == []
    assert in_order(slow) == list("123456")


TAMPERED: dict[str, dict[str, str | None]] = {
    "a delay": {"push_delay_ms": "99999999999"},
    "no delay": {"push_delay_ms": None},
    "a delay that is none": {"push_delay_ms": "soon"},
    "the folder of another": {"origin": "0" * 16, "push_delay_ms": "99999999999"},
    "late": {"late": "true"},
    "another save": {"save_id": "0000000000000000005-00000000"},
    "no save": {"save_id": None},
}


@pytest.mark.parametrize("name", TAMPERED)
def test_the_record_of_a_save_goes_before_its_tags_also_beside_the_saves_of_others(
    name: str, pair: tuple[ModelManager, ModelManager]
) -> None:
    own, slow = pair
    _save(slow, "lotto_model_1", SLOW)
    _save(own, "lotto_model_2")
    client = MlflowClient(tracking_uri=slow._folder.target().tracking_uri)
    for key, value in TAMPERED[name].items():
        if value is None:
            client.delete_model_version_tag("lotto_model", "2", key)
        else:
            client.set_model_version_tag("lotto_model", "2", key, value)
    assert _latest(own) == ["2"]
    assert own.load_model(LATEST) == {"model": "lotto_model_2"}
    _save(slow, "lotto_model_3", SLOW)
    assert _latest(own, slow) == ["3", "3"]
    client.delete_model_version("lotto_model", "3")
    client.delete_model_version("lotto_model", "2")
    assert _latest(own, slow) == ["1", "1"]


def test_what_an_earlier_release_pushed_is_older_than_what_is_pushed_now(
    pair: tuple[ModelManager, ModelManager], base_dir: Path
) -> None:
    own, slow = pair
    _save(own, "lotto_model_1")
    _save(own, "lotto_model_2")
    client = MlflowClient(tracking_uri=slow._folder.target().tracking_uri)
    for number in "12":
        for key in ("push_delay_ms", "origin"):
            client.delete_model_version_tag("lotto_model", number, key)
    for path in (base_dir / "mlflow" / "sent").iterdir():
        record = records.parse(path.read_bytes())
        ids = {t: replace(one, push_delay_ms=None) for t, one in record.mirrored.items()}
        path.write_bytes(records.render(replace(record, mirrored=ids)))
    assert _latest(own, slow) == ["2", "2"]
    _save(slow, "lotto_model_3", SLOW)
    assert _latest(own, slow) == ["3", "3"]
    assert own.load_model(LATEST) == {"model": "lotto_model_3"}
    assert in_order(own) == list("123")
