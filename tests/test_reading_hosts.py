"""A host whose disk has never seen the models: all that others saved is found over the server."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import clocks
import pytest
from mlflow import MlflowClient
from proxying import Proxy, proxied
from typer.testing import CliRunner, Result

from lotto_mlflow import LiveModel, ModelManager
from lotto_mlflow.cli import app
from lotto_mlflow.errors import (
    InvalidReferenceError,
    MirrorUnavailableError,
    ModelNotFoundError,
    SettingsError,
)
from lotto_mlflow.records import ModelRecord

SECONDS = 300.0
LATEST, CHAMPION = "models:/lotto_model/latest", "models:/lotto_model@champion"


@pytest.fixture(scope="module")
def proxy(server_uri: str) -> Iterator[Proxy]:
    with proxied(server_uri) as found:
        yield found


@pytest.fixture(scope="module")
def trainers(server_uri: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelManager]:
    """Two hosts that saved four models under three names; one has an alias."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for host, saves in (
            ("trainer-1", (("lotto_model_a", 1), ("other", 2))),
            ("trainer-2", (("lotto_model_b", 3), ("other", 4))),
        ):
            patch.setattr(socket, "gethostname", lambda host=host: host)
            manager = ModelManager(tmp_path_factory.mktemp(host), tracking_uri=server_uri)
            for name, number in saves:
                manager.save_model({"n": number}, name, {"loss": number / 10, "lr": "0.1"})
            assert manager.flush(SECONDS)
            found[host] = manager
        found["trainer-1"].promote("lotto_model_a")
    return found


@pytest.fixture
def reader(trainers: dict[str, ModelManager], proxy: Proxy, tmp_path: Path) -> ModelManager:
    """A manager on a host that has saved nothing."""
    return ModelManager(tmp_path / "api", tracking_uri=proxy.uri)


@pytest.fixture
def call(
    reader: ModelManager, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Call a command on that host."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    (tmp_path / "api").mkdir(exist_ok=True)

    def called(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--base-dir", str(tmp_path / "api")])

    return called


def test_the_registry_is_listed_newest_first_with_the_host_of_each_save(
    reader: ModelManager, trainers: dict[str, ModelManager]
) -> None:
    found = reader.records(source="registry")
    assert [(one.name, one.host, one.registered_model, one.version) for one in found] == [
        ("other", "trainer-2", "other", 2),
        ("lotto_model_b", "trainer-2", "lotto_model", 2),
        ("other", "trainer-1", "other", 1),
        ("lotto_model_a", "trainer-1", "lotto_model", 1),
    ]
    assert [one.aliases for one in found] == [(), (), (), ("champion",)]
    assert found[3].aliases_since.keys() == {"champion"}
    own = {one.name: one for one in trainers["trainer-2"].records()}
    assert [one.size for one in found[:2]] == [own["other"].size, own["lotto_model_b"].size]
    assert {one.path for one in found} == {None}
    assert own["other"].host == "trainer-2"
    assert reader.records(source="registry", limit=1) == found[:1]
    assert reader.records("lotto_model_a", source="registry") == found[3:]
    assert reader.records("nothing", source="registry") == []
    assert reader.records() == []


def test_saves_under_one_name_are_listed_once_for_each_host_and_told_apart(
    reader: ModelManager, trainers: dict[str, ModelManager]
) -> None:
    saved = {
        (manager.get("other").sha256, host): manager.get("other").version
        for host, manager in trainers.items()
    }
    assert len(saved) == 2
    for asked in (reader, *trainers.values()):
        found = asked.records("other", source="registry")
        assert {(one.sha256, one.host): one.version for one in found} == saved
        assert [one.version for one in found] == [2, 1]
        assert asked.records("other", limit=1, source="registry") == found[:1]


def test_runs_are_asked_only_for_what_others_saved_and_only_if_they_are_wanted(
    reader: ModelManager, proxy: Proxy
) -> None:
    reader.records(source="registry")
    proxy.requests.clear()
    assert {len(one.metrics) for one in reader.records(source="registry")} == {0}
    assert not [one for one in proxy.requests if "runs" in one and "lotto_model" in one]
    without = len(proxy.requests)
    proxy.requests.clear()
    found = reader.records(source="registry", with_runs=True)
    assert [one.metrics["loss"] for one in found] == [0.4, 0.3, 0.2, 0.1]
    assert {one.params["lr"] for one in found} == {"0.1"}
    assert len(proxy.requests) <= without + 2  # however many runs


def test_a_folders_own_records_overrule_the_tags_of_versions(
    trainers: dict[str, ModelManager], reader: ModelManager, server_uri: str
) -> None:
    client = MlflowClient(tracking_uri=server_uri)
    (before,) = reader.records("lotto_model_a", source="registry")
    assert (before.host, before.size) == ("trainer-1", trainers["trainer-1"].get(1).size)
    for key, value in (("saved_on", "\x1b[31mevil\nhost"), ("size_bytes", "-7")):
        client.set_model_version_tag("lotto_model", "1", key, value)
    try:
        (told,) = reader.records("lotto_model_a", source="registry")
        assert (told.host, told.size) == ("\x1b[31mevil\nhost", None)
        (own,) = trainers["trainer-1"].records("lotto_model_a", source="registry")
        assert (own.host, own.size) == (before.host, before.size)
        client.delete_model_version_tag("lotto_model", "1", "saved_on")
        (silent,) = reader.records("lotto_model_a", source="registry")
        assert silent.host is None  # as of a version that an earlier release made
    finally:
        client.set_model_version_tag("lotto_model", "1", "saved_on", str(before.host))
        client.set_model_version_tag("lotto_model", "1", "size_bytes", str(before.size))


def test_the_command_lists_hosts_and_lets_no_tag_reach_the_terminal(
    call: Callable[..., Result], server_uri: str
) -> None:
    client = MlflowClient(tracking_uri=server_uri)
    shown = call("list", "--source", "registry").stdout
    assert shown.splitlines()[0].split() == [
        "name", "saved", "at", "size", "version", "aliases", "host",
    ]  # fmt: skip
    assert [line.split()[0] for line in shown.splitlines()[1:]] == [
        "other", "lotto_model_b", "other", "lotto_model_a",
    ]  # fmt: skip
    assert shown.splitlines()[2].split()[-2:] == ["trainer-2", "*"]
    client.set_model_version_tag("lotto_model", "1", "saved_on", "\x1b[31mevil\nhost\u202e")
    try:
        for command in (("list", "--source", "registry"), ("show", "lotto_model_a")):
            for more in ((), ("--json",)):
                output = call(*command, *more).stdout
                assert "evil" in output
                assert "\x1b" not in output
                assert "\u202e" not in output
    finally:
        client.set_model_version_tag("lotto_model", "1", "saved_on", "trainer-1")


def test_the_list_of_the_registry_is_sorted_cut_and_measured_as_the_other_one(
    call: Callable[..., Result],
) -> None:
    def names(*arguments: str) -> list[str]:
        done = call("list", "--source", "registry", "--json", *arguments)
        assert done.exit_code == 0, done.output
        return [one["name"] for one in json.loads(done.stdout)]

    assert names("--limit", "1") == ["other"]
    assert names("--sort", "loss", "--limit", "2") == ["other", "lotto_model_b"]
    assert names("--sort", "name") == ["lotto_model_a", "lotto_model_b", "other", "other"]
    assert names("--reverse", "--limit", "1") == ["lotto_model_a"]
    shown = call("list", "--source", "registry", "--metric", "loss").stdout
    assert "0.3" in shown
    assert call("list", "--source", "registry", "--metric", "los").exit_code == 2
    (one,) = json.loads(call("list", "--source", "registry", "--json", "-n", "1").stdout)
    assert (one["host"], one["mirrored"], one["path"]) == ("trainer-2", True, None)


def test_every_lookup_and_load_finds_what_others_saved(reader: ModelManager) -> None:
    for reference, number in (
        (1, 1),
        ("lotto_model_a", 1),
        (CHAMPION, 1),
        (LATEST, 3),
        ("other", 4),
        ("models:/other/1", 2),
    ):
        record = reader.get(reference)
        assert record.metrics == {"loss": number / 10}, reference
        assert record.host == f"trainer-{(number + 1) // 2}"
    assert reader.get("lotto_model_a").aliases == ("champion",)
    with pytest.raises(ModelNotFoundError, match="and none in the registry") as caught:
        reader.get("nothing")
    assert caught.value.fix is not None
    assert caught.value.fix.arguments == {"source": "registry"}
    assert reader.latest() is None
    newest = reader.latest(source="registry", download=True)
    assert newest is not None
    assert (newest.name, newest.host) == ("lotto_model_b", "trainer-2")
    assert reader.load_model(str(newest.path)) == {"n": 3}
    assert reader.load_model(LATEST) == {"n": 3}
    assert reader.load_model(CHAMPION) == {"n": 1}
    path = reader.get_latest_model_path(source="registry", alias="champion")
    assert reader.load_model(str(path)) == {"n": 1}
    with LiveModel(CHAMPION, manager=reader) as live:
        assert live.model == {"n": 1}
        assert live.record.host == "trainer-1"
    assert reader.verify(deep=True) == []
    (missing,) = reader.check().findings
    assert (missing.kind, missing.repair) == ("no model", "save one, or ask for an alias, too")
    restored = reader.restore("other", source="registry")
    assert restored.sha256 == reader.get("models:/other/2").sha256
    assert restored.metadata is not None
    assert restored.metadata["loss"] == 0.4
    assert (restored.host, restored.version) == ("trainer-2", 2)
    assert reader.verify() == []
    assert reader.sync(dry_run=True).sent == []


def test_every_command_does_what_is_expected_of_a_reading_host(
    call: Callable[..., Result], trainers: dict[str, ModelManager]
) -> None:
    for command, code, said in (
        ("list", 0, "--source registry asks what other machines saved"),
        ("latest", 1, "--source registry asks what other machines saved"),
        ("latest --source registry", 0, "lotto_model_b"),
        ("show lotto_model_a", 0, "champion since"),
        ("show 2", 0, "trainer-2"),
        ("show nothing", 1, "list --source registry"),
        ("compare lotto_model_a other", 0, "loss"),
        ("compare 1 2", 0, "lotto_model_b"),
        ("history", 0, "promote"),
        ("check --alias champion", 0, "lotto_model_a"),
        ("verify", 0, "both views agree"),
        ("predictions", 0, "there is no prediction"),
        ("accuracy", 0, "No prediction"),
        ("sync --dry-run", 0, "would send 0"),
        ("delete lotto_model_a", 1, "was not saved in this folder"),
        ("delete 1", 1, "was not saved in this folder"),
        ("prune --keep-last 1", 0, "would remove 0"),
        ("promote nothing", 1, "none in the registry"),
        ("promote lotto_model_b", 0, "stands for version 2"),
        ("rollback", 0, "stands for version 1"),
        ("restore other", 1, "--source registry"),
        ("restore other --source registry", 0, "restored"),
        ("restore 1 --source registry", 0, "lotto_model_a"),
        ("list", 0, "lotto_model_a"),
        ("verify --deep", 0, "both views agree"),
    ):
        done = call(*command.split())
        assert done.exit_code == code, (command, done.output)
        assert said in done.output, command
    assert trainers["trainer-1"].get(CHAMPION).name == "lotto_model_a"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("restore 2 --source registry", "lotto_model_b"),
        ("promote 2", "stands for version 2"),
        ("rollback", "version 1"),
        ("check --alias champion", "lotto_model_a"),
    ],
)
def test_a_command_on_what_a_server_has_needs_no_folder(
    trainers: dict[str, ModelManager],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    server_uri: str,
    command: str,
    said: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server_uri)
    if command == "rollback":
        trainers["trainer-2"].promote("models:/lotto_model/2")
    monkeypatch.setenv("LOTTO_APP_DIR", str(tmp_path / "fresh"))
    done = CliRunner().invoke(app, command.split())
    trainers["trainer-1"].promote("lotto_model_a")
    assert done.exit_code == 0, done.output
    assert said in done.output


def test_a_download_of_a_save_to_come_is_no_latest_that_stays(
    trainers: dict[str, ModelManager], reader: ModelManager
) -> None:
    with clocks.shifted(2 * 86_400):
        trainers["trainer-2"].save_model({"n": 9}, "to come", {"n": 9})
        assert trainers["trainer-2"].flush(SECONDS)
    assert reader.load_model("models:/to come/1") == {"n": 9}
    assert reader.verify() == []


@pytest.mark.parametrize("source", ["filesystem", "registry"])
@pytest.mark.parametrize("limit", [-1, "x", 1.5, True])
def test_a_limit_that_is_none_is_refused(reader: ModelManager, source: Any, limit: Any) -> None:
    with pytest.raises(SettingsError, match="give how many"):
        reader.records(limit=limit, source=source)


def test_a_prediction_of_what_another_host_saved_is_recorded(reader: ModelManager) -> None:
    prediction = reader.record_prediction("lotto_model_b", 1, [[1, 2, 3, 4, 5, 6]])
    assert (prediction.model, prediction.version) == ("lotto_model_b", 2)
    assert [one.model for one in reader.predictions("lotto_model_b")] == ["lotto_model_b"]
    with pytest.raises(InvalidReferenceError, match="was not saved in this folder"):
        reader.delete("lotto_model_b")


def test_lookups_cost_two_requests_at_most_and_a_load_that_finds_nothing_new_one(
    reader: ModelManager, trainers: dict[str, ModelManager], proxy: Proxy
) -> None:
    def count(ask: Callable[[], Any]) -> int:
        ask()  # a first time, when MLflow's own client asks what server it is
        proxy.requests.clear()
        ask()
        return len(proxy.requests)

    assert count(lambda: reader.load_model(LATEST)) == 1
    assert count(lambda: reader.load_model(CHAMPION)) == 1
    assert count(lambda: reader.load_model("models:/lotto_model/1")) == 1
    assert count(lambda: reader.get_latest_model_path(source="registry")) == 1
    assert count(lambda: reader.latest(source="registry")) == 2
    assert count(lambda: reader.get(1)) == 1
    assert count(lambda: reader.get(2)) == 1
    assert count(lambda: reader.get(CHAMPION)) == 1
    assert count(lambda: reader.get("lotto_model_a")) == 2  # its alias has a history
    assert count(lambda: reader.get("lotto_model_b")) == 2
    assert count(lambda: reader.records("lotto_model_b", source="registry")) == 2


def test_since_when_a_version_has_its_alias_is_asked_again_where_the_alias_was_moved(
    server_uri: str, reader: ModelManager, tmp_path: Path
) -> None:
    trainer = ModelManager(tmp_path / "moves", tracking_uri=server_uri)
    for number in (1, 2):
        trainer.save_model({"n": number}, "moved", {"n": number})
    assert trainer.flush(SECONDS)
    since = {}
    for number in (1, 2, 1):
        move = trainer.promote(f"models:/moved/{number}")
        found = reader.get(f"models:/moved/{number}")
        since[found.aliases_since["champion"]] = move.when
    assert len(since) == 3
    assert all(told == when for told, when in since.items())


def test_a_load_reads_the_bytes_of_a_download_once(
    reader: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lotto_mlflow import pyfunc_loader, regular

    reader.load_model(LATEST)
    opened: list[Path] = []
    original = pyfunc_loader.open_regular

    def open_regular(path: Any) -> Any:
        if str(path).endswith(".pkl"):
            opened.append(Path(path))
        return original(path)

    monkeypatch.setattr(pyfunc_loader, "open_regular", open_regular)
    assert regular.pyfunc_loader is pyfunc_loader
    assert reader.load_model(LATEST) == {"n": 3}
    assert len(opened) == 1


def test_a_lookup_after_the_server_went_down_says_so_within_its_bound(
    server_uri: str, tmp_path: Path, trainers: dict[str, ModelManager]
) -> None:
    with proxied(server_uri) as front:
        manager = ModelManager(tmp_path / "api", tracking_uri=front.uri)
        assert manager.load_model(LATEST) == {"n": 3}
        assert not [one for one in front.requests[-1:] if "health" in one]
    with pytest.raises(MirrorUnavailableError, match="does not answer"):
        manager.load_model(LATEST)
    assert manager.load_model(LATEST, stale_ok=True) == {"n": 3}
    with pytest.raises(ModelNotFoundError):  # a name means a file first
        manager.get("lotto_model_a")


def test_as_many_requests_are_made_however_many_versions_there_are(
    reader: ModelManager, trainers: dict[str, ModelManager], proxy: Proxy, server_uri: str
) -> None:
    def requests() -> list[int]:
        counts = []
        for ask in (
            lambda: reader.load_model(LATEST),
            lambda: reader.latest(source="registry"),
            lambda: reader.records("lotto_model_many", source="registry"),
        ):
            ask()
            proxy.requests.clear()
            ask()
            counts.append(len(proxy.requests))
        return counts

    trainer = trainers["trainer-2"]
    trainer.save_model({"n": 5}, "lotto_model_many", {"loss": 0.5})
    assert trainer.flush(SECONDS)
    before = requests()
    client = MlflowClient(tracking_uri=server_uri)
    made = client.get_model_version("lotto_model", "3")
    again = partial(client.create_model_version, model_id=made.tags["model_id"])
    for _ in range(60):
        again("lotto_model", made.source, made.run_id, made.tags, await_creation_for=None)
    assert requests() == before == [1, 2, 2]
    found: ModelRecord | None = reader.latest(source="registry")
    assert found is not None
    assert found.name == "lotto_model_many"


def test_a_name_that_is_not_here_says_where_the_registry_could_not_be_asked(tmp_path: Path) -> None:
    with socket.socket() as closed:  # bound, and nobody listens
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
        manager = ModelManager(tmp_path / "empty", tracking_uri=uri)
        with pytest.raises(ModelNotFoundError, match="and the registry could not be asked: "):
            manager.get("lotto_model_a")


def test_two_hosts_that_save_the_same_bytes_under_one_name_are_not_mixed_up(
    server_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = {}
    for number, host in enumerate(("twin-1", "twin-2"), 1):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        hosts[host] = ModelManager(tmp_path / host, tracking_uri=server_uri)
        hosts[host].save_model({"w": 1}, "twin", {"who": host, "acc": number / 10})
        assert hosts[host].flush(SECONDS)
    own = [manager.get("twin") for manager in hosts.values()]
    assert own[0].sha256 == own[1].sha256
    assert own[0].save_id != own[1].save_id
    for manager in (*hosts.values(), ModelManager(tmp_path / "reads", tracking_uri=server_uri)):
        listed = manager.records("twin", source="registry", with_runs=True)
        for number, host in enumerate(hosts, 1):
            found = manager.get(f"models:/twin/{number}")
            assert (found.save_id, found.host) == (own[number - 1].save_id, host)
            assert found.metrics == {"acc": number / 10}
            (metadata,) = {(found.metadata or {"who": host})["who"]}
            assert metadata == host
            assert [one.metrics for one in listed if one.host == host] == [found.metrics]
            assert manager.load_model(f"models:/twin/{number}") == {"w": 1}
            made = manager.record_prediction(
                f"models:/twin/{number}", 1000 + number, [1, 2, 3, 4, 5, 6]
            )
            assert (made.save_id, made.version) == (found.save_id, number)


def test_a_folder_that_was_moved_lists_its_own_saves_once(
    server_uri: str, tmp_path: Path, reader: ModelManager
) -> None:
    before = ModelManager(tmp_path / "before", tracking_uri=server_uri)
    before.save_model({"n": 1}, "moved with its folder", {"n": 1})
    assert before.flush(SECONDS)
    (tmp_path / "before").rename(tmp_path / "after")
    after = ModelManager(tmp_path / "after", tracking_uri=server_uri)
    after.save_model({"n": 2}, "moved with its folder", {"n": 2})
    assert after.flush(SECONDS)
    (one,) = after.records("moved with its folder", source="registry")
    assert one.version == 2
    assert len(reader.records("moved with its folder", source="registry")) == 2
