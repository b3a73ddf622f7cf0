"""No room and no rights: limits, full file systems, folders that are read-only or in the way."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from faults.crashes import join_pushes
from faults.disks import FOLDERS, a_file_instead, fill, in_child, read_only, small_disk, tree
from mlflow import MlflowClient

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import DumpError, StoreError

Source = Literal["backups", "registry"]

TITLE = "Disks without room or rights"
OLD = {"saved_at": "2025-11-03T00:00:00+09:00", "accuracy": 0.5}
NOBODY = 65534


@pytest.fixture
def shared_dir() -> Iterator[Path]:
    """A folder that other users reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="lotto-rights-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _a_save_works(manager: ModelManager, base_dir: Path, path: Path) -> None:
    assert not [p for p in (base_dir / "mlflow" / "tmp").iterdir() if p.is_dir()]
    assert manager.load_model(path) == {"old": 1}
    assert manager.save_model({"now": 1}, "x", {"a": 2}) == str(path)
    assert manager.load_model(path) == {"now": 1}
    assert manager.load_model(base_dir / "backups" / "x.pkl") == {"old": 1}
    assert [f.kind for f in manager.verify() if f.kind != "missing in MLflow"] == []


def test_a_file_size_limit_leaves_the_folder_as_it_was(
    disk_manager: ModelManager, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """The limits cut the dump short, or only the record that is written after it."""
    import joblib

    base_dir, plain = tmp_path / "ml", tmp_path / "plain.pkl"
    path = Path(disk_manager.save_model({"old": 1}, "x", OLD))
    joblib.dump({"old": 1}, plain)
    before = tree(base_dir)
    cut = [(limit, name, 100_000) for limit in (0, 1, 5_000, 99_000) for name in ("x", "new")]
    later = [(limit, name, 10) for limit in (200, 700) for name in ("x", "new")]
    told = in_child(base_dir, saves=[*cut, *later, (700, "new", 10)], plain=str(plain))
    assert told[: len(cut)] == [["DumpError", "OSError"]] * len(cut)
    assert told[len(cut) :] == [["StoreError", "OSError"]] * (len(later) + 1)
    lost = int(tree(base_dir) != before)
    figures(TITLE, tried=len(told), lost=lost, plain_tried=1, plain_lost=_is_lost(plain))
    assert not lost
    _a_save_works(disk_manager, base_dir, path)


def _is_lost(path: Path) -> int:
    import joblib

    try:
        return int(joblib.load(path) != {"old": 1})
    except Exception:  # noqa: BLE001 - whatever half a pickle raises
        return 1


def test_a_file_size_limit_fails_a_restore_and_leaves_the_folder_as_it_was(
    disk_manager: ModelManager, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """The limits cut the copy of the model short, or only the metadata that comes after it."""
    base_dir = tmp_path / "ml"
    _two_saves(disk_manager, {"old": "x" * 100_000}, None, "large")
    before = _two_saves(disk_manager, {"old": 1}, {"text": "y" * 9_000}, "small")
    restores = [(limit, name) for limit in (0, 1, 5_000) for name in ("large", "small")]
    restores.append((99_000, "large"))
    told = in_child(base_dir, restores=restores)
    assert told == [["StoreError", "OSError"]] * len(restores)
    lost = int(tree(base_dir) != before)
    figures(TITLE, tried=len(told), lost=lost)
    assert not lost
    for name in ("large", "small"):
        disk_manager.restore(name)
        _is_restored(base_dir, before, name)


@pytest.mark.parametrize("options", ["size=2m", "size=8m,nr_inodes=60"], ids=["full", "inodes"])
@pytest.mark.parametrize("metadata", [{"text": "y" * 9_000}, None], ids=["metadata", "none"])
def test_a_full_file_system_fails_a_save_at_any_step_and_leaves_the_folder_as_it_was(
    tmp_path: Path, options: str, metadata: dict[str, Any] | None, figures: Callable[..., None]
) -> None:
    """From nothing free upward, page by page or inode by inode, until a save goes through."""
    disk = tmp_path / "disk"
    with small_disk(disk, options):
        base_dir = disk / "ml"
        manager = ModelManager(base_dir, mirror="off")
        path = Path(manager.save_model({"old": 1}, "x", OLD))
        new = {"new": "x" * 9_000}
        tried = _refusals(manager, base_dir, lambda: manager.save_model(new, "x", metadata))
        assert tried > 3
        assert manager.load_model(path) == new
        assert manager.load_model(base_dir / "backups" / "x.pkl") == {"old": 1}
        assert not list((base_dir / "mlflow" / "tmp").iterdir())
    figures(TITLE, tried=tried, lost=0)


@pytest.mark.parametrize("options", ["size=2m", "size=8m,nr_inodes=60"], ids=["full", "inodes"])
@pytest.mark.parametrize("metadata", [{"text": "y" * 9_000}, None], ids=["metadata", "none"])
def test_a_full_file_system_fails_a_restore_at_any_step_and_leaves_the_folder_as_it_was(
    tmp_path: Path, options: str, metadata: dict[str, Any] | None, figures: Callable[..., None]
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, options):
        base_dir = disk / "ml"
        manager = ModelManager(base_dir, mirror="off")
        saved = _two_saves(manager, {"old": "x" * 9_000}, metadata)
        tried = _refusals(manager, base_dir, lambda: manager.restore("x"))
        assert tried > 3
        _is_restored(base_dir, saved)
        assert not list((base_dir / "mlflow" / "tmp").iterdir())
    figures(TITLE, tried=tried, lost=0)


def _refusals(manager: ModelManager, base_dir: Path, act: Callable[[], object]) -> int:
    """Free a full disk page by page until a call goes through; count those that do not."""
    fillers = fill(base_dir.parent / "fillers")
    before, path, tried = tree(base_dir), base_dir / "trained" / "x.pkl", 0
    model = manager.load_model(path)
    while fillers:
        refusal = _refusal(act)
        if refusal is None:
            break
        assert isinstance(refusal.__cause__, OSError)
        tried += 1
        assert tree(base_dir) == before
        assert manager.load_model(path) == model
        fillers.pop().unlink()
    return tried


def _refusal(act: Callable[[], object]) -> DumpError | StoreError | None:
    try:
        act()
    except (DumpError, StoreError) as error:
        return error
    return None


def _two_saves(
    manager: ModelManager, old: Any, metadata: dict[str, Any] | None, name: str = "x"
) -> dict[str, tuple[bytes, int]]:
    """Save twice under one name; return the tree with the second, which has the first as backup."""
    manager.save_model(old, name, metadata)
    return tree(Path(manager.save_model({"new": 1}, name, {"a": 1})).parent.parent)


def _is_restored(base_dir: Path, before: dict[str, tuple[bytes, int]], name: str = "x") -> None:
    """Check that the first of two saves is in place, and the second its second backup."""
    after = tree(base_dir)
    model, metadata = f"trained/{name}.pkl", f"metadata/{name}_metadata.json"
    kept, kept_metadata = f"backups/{name}.pkl", f"backups/{name}_metadata.json"
    assert after[model] == before[kept] == after[kept]
    assert after[f"backups/{name}.2.pkl"] == before[model]
    assert after[f"backups/{name}.2_metadata.json"][0] == before[metadata][0]
    contents = [
        found.get(path, (None,))[0]
        for found, path in ((after, metadata), (after, kept_metadata), (before, kept_metadata))
    ]
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize("folder", [*FOLDERS, "."])
@pytest.mark.parametrize("trouble", [read_only, a_file_instead], ids=["read-only", "a file"])
def test_a_folder_that_cannot_be_written_to_fails_the_save_and_nothing_else(
    manager: ModelManager,
    base_dir: Path,
    folder: str,
    trouble: Callable[[Path], Any],
    figures: Callable[..., None],
) -> None:
    path = Path(manager.save_model({"old": 1}, "x", OLD))
    join_pushes()  # one that opens a file would keep the folder from being made read-only
    before = tree(base_dir)
    is_needed_for_new = (folder, trouble) != ("backups", read_only)
    with trouble((base_dir / folder).resolve()):
        for name in ("x", "new", None) if is_needed_for_new else ("x",):
            with pytest.raises(StoreError) as caught:
                manager.save_model({"new": 2}, name, {"a": 1})
            assert isinstance(caught.value.__cause__, OSError)
            assert str(base_dir) in str(caught.value)
        if path.exists():
            assert manager.load_model(path) == {"old": 1}
    lost = int(tree(base_dir) != before)
    figures(TITLE, tried=3, lost=lost)
    assert not lost
    _a_save_works(manager, base_dir, path)
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    assert len(client.search_model_versions("name = 'x'")) == 2


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        *((folder, source) for folder in FOLDERS[:3] for source in ("backups", "registry")),
        *((folder, "backups") for folder in ("mlflow", ".")),
    ],
)
@pytest.mark.parametrize("trouble", [read_only, a_file_instead], ids=["read-only", "a file"])
def test_a_folder_that_cannot_be_written_to_fails_the_restore_and_nothing_else(
    manager: ModelManager,
    base_dir: Path,
    folder: str,
    source: Source,
    trouble: Callable[[Path], Any],
    figures: Callable[..., None],
) -> None:
    _two_saves(manager, {"old": 1}, OLD)
    join_pushes()
    before = tree(base_dir)
    wanted = "x" if source == "backups" else "models:/x/1"
    with trouble((base_dir / folder).resolve()):
        with pytest.raises(StoreError) as caught:
            manager.restore(wanted, source=source)
        assert isinstance(caught.value.__cause__, OSError)
        assert str(base_dir) in str(caught.value)
    lost = int(tree(base_dir) != before)
    figures(TITLE, tried=1, lost=lost)
    assert not lost
    manager.restore(wanted, source=source)
    _is_restored(base_dir, before)
    assert manager.load_model(base_dir / "trained" / "x.pkl") == {"old": 1}
    assert manager.verify() == []
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    assert len(client.search_model_versions("name = 'x'")) == 2


def _take_rights(base_dir: Path, folder: str) -> list[Path]:
    """Give everything to another user but a folder, and return what is in that."""
    for owned in (base_dir, *base_dir.rglob("*")):
        os.chown(owned, NOBODY, NOBODY)
    forbidden = (base_dir / folder).resolve()
    inside = [forbidden, *forbidden.rglob("*")]
    for owned in inside:
        os.chown(owned, 0, 0)
    return inside


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("folder", [*FOLDERS, "."])
def test_a_folder_without_rights_fails_the_save_and_nothing_else(
    shared_dir: Path, folder: str, figures: Callable[..., None]
) -> None:
    base_dir = shared_dir / "ml"
    manager = ModelManager(base_dir, mirror="off")
    path = Path(manager.save_model({"old": 1}, "x", OLD))
    inside = _take_rights(base_dir, folder)
    before = tree(base_dir)
    saves = [(None, "x", 10), (None, "new", 10), (None, None, 10)]
    told = in_child(base_dir, saves=saves, user=NOBODY)
    if folder == "backups":  # there, only what replaces something has to write
        assert told == [["StoreError", "PermissionError"], ["saved", ""], ["saved", ""]]
        assert before.items() <= tree(base_dir).items()
    else:
        assert told == [["StoreError", "PermissionError"]] * 3
        assert tree(base_dir) == before
    figures(TITLE, tried=3, lost=0)
    assert manager.load_model(path) == {"old": 1}
    for owned in inside:
        os.chown(owned, NOBODY, NOBODY)
    assert in_child(base_dir, saves=saves[:1], user=NOBODY) == [["saved", ""]]
    assert manager.load_model(path) == {"new": "x" * 10}
    assert manager.load_model(base_dir / "backups" / "x.pkl") == {"old": 1}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("folder", [*FOLDERS, "."])
def test_a_folder_without_rights_fails_the_restore_and_nothing_else(
    shared_dir: Path, folder: str, figures: Callable[..., None]
) -> None:
    base_dir = shared_dir / "ml"
    manager = ModelManager(base_dir, mirror="off")
    before = _two_saves(manager, {"old": 1}, OLD)
    inside = _take_rights(base_dir, folder)
    told = in_child(base_dir, restores=[(None, "x")], user=NOBODY)
    assert told == [["StoreError", "PermissionError"]]
    lost = int(tree(base_dir) != before)
    figures(TITLE, tried=1, lost=lost)
    assert not lost
    for owned in inside:
        os.chown(owned, NOBODY, NOBODY)
    assert in_child(base_dir, restores=[(None, "x")], user=NOBODY) == [["restored", ""]]
    _is_restored(base_dir, before)
