"""The disk view, where steps fail and folders are odd."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import DigestMismatchError, LoadError, StoreError
from lotto_mlflow.files import lock_at, sweep, workspace
from lotto_mlflow.journal import Journal
from lotto_mlflow.layout import Layout
from lotto_mlflow.store import commit

SAVED_AT = {"saved_at": "2025-11-03T00:00:00+09:00", "accuracy": 0.5}


def _tree(base_dir: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(base_dir)): path.read_bytes()
        for folder in ("trained", "metadata", "backups")
        for path in (base_dir / folder).rglob("*")
        if path.is_file()
    }


@pytest.fixture
def base_dir(tmp_path: Path) -> Path:
    return tmp_path / "ml"


@pytest.fixture
def other_file_system() -> Iterator[Path]:
    """A folder on a file system of its own."""
    folder = Path("/dev/shm") / f"lotto-{uuid.uuid4().hex}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


STEPS = ("link_or_copy", "put", "replace_content", "sync_dir", "mark")


def _fail_once_after(monkeypatch: pytest.MonkeyPatch, step: str) -> list[str]:
    """Have the disk refuse to go on, once, after a step of the commit protocol was done."""
    owner = Journal if step == "mark" else commit
    really, failed = getattr(owner, step), []

    def fail(*arguments: Any) -> Any:
        done = really(*arguments)
        if not failed:
            failed.append(step)
            raise OSError(28, "No space left on device")
        return done

    monkeypatch.setattr(owner, step, fail)
    return failed


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("metadata", [SAVED_AT, None, {"other": 1}], ids=["same", "none", "other"])
@pytest.mark.parametrize("trained", ["here", "elsewhere"])
def test_a_save_that_fails_at_any_step_leaves_the_folder_as_it_was(
    base_dir: Path,
    other_file_system: Path,
    step: str,
    metadata: dict[str, Any] | None,
    trained: str,
) -> None:
    if trained == "elsewhere":
        base_dir.mkdir()
        (base_dir / "trained").symlink_to(other_file_system)
    manager = ModelManager(base_dir, mirror="off")
    path = Path(manager.save_model({"old": 1}, "x", SAVED_AT))
    before, mtime = _tree(base_dir), path.stat().st_mtime_ns
    is_made = {"link_or_copy": ("x",), "replace_content": () if metadata is None else ("x", "new")}
    for name in is_made.get(step, ("x", "new")):
        with pytest.MonkeyPatch.context() as patched:
            failed = _fail_once_after(patched, step)
            with pytest.raises(StoreError, match="The folder is as it was") as caught:
                manager.save_model({"old": 1}, name, metadata)
        assert isinstance(caught.value.__cause__, OSError)
        assert failed == [step]
        assert _tree(base_dir) == before
    assert path.stat().st_mtime_ns == mtime
    assert not list((base_dir / "mlflow" / "tmp").iterdir())
    assert len(list((base_dir / "mlflow" / "outbox").iterdir())) == 1
    manager.save_model({"new": 2}, "x", metadata)
    assert manager.load_model(path) == {"new": 2}
    assert manager.load_model(base_dir / "backups" / "x.pkl") == {"old": 1}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("place", ["another model", "another time", "other metadata", "nothing"])
def test_a_restore_that_fails_at_any_step_leaves_the_folder_as_it_was(
    base_dir: Path, step: str, place: str
) -> None:
    """What is in place is another model, or the very bytes that are restored."""
    manager = ModelManager(base_dir, mirror="off")
    path = Path(manager.save_model({"old": 1}, "x", SAVED_AT))
    manager.save_model({"new": 2}, "x", {"n": 2})
    metadata_path = base_dir / "metadata" / "x_metadata.json"
    if place != "another model":
        manager.restore("x")
    if place == "another time":
        os.utime(path, (2_000_000_000, 2_000_000_000))
    elif place == "other metadata":
        metadata_path.write_text("{}")
    elif place == "nothing":
        path.unlink()
        metadata_path.unlink()
    backs_up = place in ("another model", "other metadata")
    before = {**_tree(base_dir), "times": [p.stat().st_mtime_ns for p in base_dir.glob("*/x.pkl")]}
    if step != "link_or_copy" or backs_up:
        with pytest.MonkeyPatch.context() as patched:
            failed = _fail_once_after(patched, step)
            with pytest.raises(StoreError, match="The folder is as it was"):
                manager.restore("x", backup="x")
        assert failed == [step]
    times = [p.stat().st_mtime_ns for p in base_dir.glob("*/x.pkl")]
    assert {**_tree(base_dir), "times": times} == before
    assert manager.restore("x", backup="x").metadata["saved_at"]  # type: ignore[index]
    assert manager.load_model(path) == {"old": 1}
    found = {finding.kind for finding in manager.verify()}
    assert found == {"missing in MLflow"} | ({"changed"} if place == "other metadata" else set())


def test_a_disk_that_refuses_to_have_a_step_undone_is_not_said_to_be_as_it_was(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = ModelManager(base_dir, mirror="off")
    path = Path(manager.save_model({"old": 1}, "x", {"n": 1}))

    def refuse(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    with pytest.MonkeyPatch.context() as patched:
        _fail_once_after(patched, "put")
        patched.setattr(commit, "temporary_for", refuse)
        with pytest.raises(StoreError, match="refused to have that undone") as caught:
            manager.save_model({"new": 2}, "x", {"n": 2})
    assert "as it was" not in str(caught.value)
    manager.save_model({"next": 3}, "y", {"n": 3})  # finishes the work
    assert (manager.load_model(path), manager.get("x").metadata["n"]) == ({"new": 2}, 2)  # type: ignore[index]
    assert manager.load_model(base_dir / "backups" / "x.pkl") == {"old": 1}
    assert [finding.kind for finding in manager.verify()] == ["missing in MLflow"] * 3


def test_trained_on_another_file_system_never_holds_a_file_that_matches_too_early(
    base_dir: Path, other_file_system: Path
) -> None:
    base_dir.mkdir()
    (base_dir / "trained").symlink_to(other_file_system)
    manager = ModelManager(base_dir, mirror="off")
    for number in range(3):
        manager.save_model({"number": number}, "x", {"number": number})
    assert [path.name for path in other_file_system.iterdir()] == ["x.pkl"]
    assert manager.load_model(base_dir / "trained" / "x.pkl") == {"number": 2}
    assert sorted(path.name for path in (base_dir / "backups").glob("*.pkl")) == [
        "x.2.pkl",
        "x.pkl",
    ]


def test_a_changed_file_is_refused_however_its_path_is_spelled(
    base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_dir.mkdir()
    (tmp_path / "link").symlink_to(base_dir)
    manager = ModelManager(tmp_path / "link", mirror="off")
    path = Path(manager.save_model({"z": 1}, "x", {"a": 1}))
    path.write_bytes(path.read_bytes().replace(b"z", b"y"))
    monkeypatch.chdir(base_dir)
    spelled = base_dir / "trained" / ".." / "trained" / "x.pkl"
    for found in (path, base_dir / "trained" / "x.pkl", spelled, "trained/x.pkl"):
        with pytest.raises(DigestMismatchError):
            manager.load_model(found)


def test_a_damaged_metadata_json_never_stops_an_intact_model(base_dir: Path) -> None:
    manager = ModelManager(base_dir, mirror="off")
    path = manager.save_model({"a": 1}, "x", {"a": 1})
    json_path = base_dir / "metadata" / "x_metadata.json"
    for content in (b"", b"{", b"[]", b"\xff\xfe", b'{"sha256": "wrong"}', b"[" * 100_000):
        json_path.write_bytes(content)
        assert manager.load_model(path) == {"a": 1}
        assert manager.records()[0].name == "x"
        assert manager.get_latest_model_path() is None


def test_a_model_from_before_the_package_loads_and_is_backed_up(base_dir: Path) -> None:
    (base_dir / "trained").mkdir(parents=True)
    old = base_dir / "trained" / "lotto_model_20200101.pkl"
    joblib.dump({"old": True}, old)
    manager = ModelManager(base_dir, mirror="off")
    assert manager.load_model(old) == {"old": True}
    record = manager.get("lotto_model_20200101")
    assert (record.sha256, record.version, record.size) == (None, None, old.stat().st_size)
    manager.save_model({"new": True}, "lotto_model_20200101")
    assert manager.load_model(base_dir / "backups" / old.name) == {"old": True}


def test_a_symbolic_link_in_trained_is_never_replaced_nor_followed(base_dir: Path) -> None:
    manager = ModelManager(base_dir, mirror="off")
    shown = Path(manager.save_model({"shown": 1}, "lotto_model_1"))
    link = base_dir / "trained" / "lotto_model_prod.pkl"
    link.symlink_to(shown.name)
    before = sorted(base_dir.rglob("*"))
    with pytest.raises(StoreError, match="is a link, not a file, and was left as it is"):
        manager.save_model({"shown": 2}, "lotto_model_prod")
    with pytest.raises(LoadError, match="is a link"):
        manager.load_model(link)
    assert sorted(base_dir.rglob("*")) == before
    assert manager.load_model(shown) == {"shown": 1}


def test_a_name_that_looks_like_a_backup_keeps_its_own_history(base_dir: Path) -> None:
    manager = ModelManager(base_dir, mirror="off")
    for number in range(3):
        manager.save_model({"a": number}, "a")
        manager.save_model({"a.2": number}, "a.2")
    found = [joblib.load(path) for path in (base_dir / "backups").glob("*.pkl")]
    assert sorted(json.dumps(model) for model in found) == [
        '{"a": 0}',
        '{"a": 1}',
        '{"a.2": 0}',
        '{"a.2": 1}',
    ]


def test_left_over_files_of_the_dead_are_swept_and_those_of_the_living_are_not(
    base_dir: Path,
) -> None:
    manager = ModelManager(base_dir, mirror="off")
    manager.save_model({"a": 1}, "x")
    tmp_dir = base_dir / "mlflow" / "tmp"
    dead = "0123456789ab"
    (tmp_dir / dead).mkdir()
    (tmp_dir / dead / "file").write_text("left over")
    (tmp_dir / f"{dead}.lock").touch()
    (base_dir / "trained" / f".{dead}.{'1' * 32}.tmp").touch()
    lock = lock_at(base_dir / "mlflow" / "store.lock")
    with workspace(tmp_dir, lock) as living:
        (living / "file").write_text("at work")
        manager.save_model({"a": 2}, "x")
        assert sorted(path.name for path in tmp_dir.iterdir()) == [
            living.name,
            f"{living.name}.lock",
        ]
        assert (living / "file").exists()
    assert not list(tmp_dir.iterdir())
    assert [path.name for path in (base_dir / "trained").iterdir()] == ["x.pkl"]
    sweep(tmp_dir)


def test_times_increase_where_the_clock_steps_back(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    manager = ModelManager(base_dir, mirror="off")
    paths = []
    for number, now in enumerate([3_000_000_000, 1_000_000_000, 1_000_000_000, 3_000_000_001]):
        monkeypatch.setattr(time, "time_ns", lambda now=now: now)
        paths.append(Path(manager.save_model({"n": number}, f"lotto_model_{9 - number}")))
    times = [path.stat().st_mtime_ns for path in paths]
    assert times == sorted(set(times))
    assert manager.get_latest_model_path() == str(paths[-1])


def test_a_file_system_with_coarse_times_still_tells_saves_apart(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.utime

    def coarse(path: Any, *now: None, ns: tuple[int, ...] = ()) -> None:
        really(path, ns=tuple(t // 2_000_000_000 * 2_000_000_000 for t in ns) or (0, 0))

    monkeypatch.setattr(os, "utime", coarse)
    manager = ModelManager(base_dir, mirror="off")
    paths = [Path(manager.save_model({"n": n})) for n in range(3)]
    times = [path.stat().st_mtime_ns for path in paths]
    assert times == sorted(set(times))
    assert [manager.get(path.stem).saved_at_ns for path in paths] == times


def test_the_layout_may_lie_in_three_places(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "a" / "t", tmp_path / "b" / "m", tmp_path / "c" / "b")
    manager = ModelManager.of_layout(layout)
    path = manager.save_model({"a": 1}, "x", {"a": 1})
    assert manager.flush(60)
    assert manager.load_model("models:/x/1") == manager.load_model(path) == {"a": 1}
    assert sorted(p.name for p in tmp_path.rglob("x*") if p.is_file())[-1] == "x_metadata.json"
