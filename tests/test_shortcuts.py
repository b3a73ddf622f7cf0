"""Ways to be faster give what the plain way gives."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import clocks
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from sklearn.ensemble import RandomForestClassifier

from lotto_mlflow import ModelManager, pyfunc_loader
from lotto_mlflow.errors import DumpError
from lotto_mlflow.files import copy_content
from lotto_mlflow.threads import started


def _refuse(*_: Any) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("has_threads", [True, False])
def test_the_digest_of_a_large_model_is_that_of_its_file(
    disk_manager: ModelManager, monkeypatch: pytest.MonkeyPatch, has_threads: bool
) -> None:
    """Without threads as in a hook at the exit, where Python 3.12 and later start none."""
    if not has_threads:
        monkeypatch.setattr(threading.Thread, "start", _refuse)
    path = Path(disk_manager.save_model({"noise": np.random.default_rng(6).random(5_000_000)}))
    record = disk_manager.get(str(path))
    assert (record.sha256, record.size) == (
        hashlib.sha256(path.read_bytes()).hexdigest(),
        path.stat().st_size,
    )


def test_a_model_that_breaks_off_in_the_middle_leaves_nothing(
    disk_manager: ModelManager, tmp_path: Path
) -> None:
    with pytest.raises(DumpError):
        disk_manager.save_model([np.zeros(1_000_000), lambda: None])
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]


def test_what_a_thread_raises_is_raised_where_it_is_waited_for() -> None:
    ended = started(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        ended()
    assert started(lambda: 6 * 45)() == 270


@pytest.mark.parametrize("can_share", [True, False])
def test_a_copy_has_the_same_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_share: bool
) -> None:
    if not can_share:
        monkeypatch.setattr(os, "copy_file_range", _not_here, raising=False)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(3_000_000))
    copy_content(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert not target.samefile(source)


def _not_here(*_: Any) -> int:
    raise OSError(18, "Invalid cross-device link")


def test_every_model_folder_is_as_mlflow_itself_writes_it(
    manager: ModelManager, base_dir: Path, tmp_path: Path, forest: RandomForestClassifier
) -> None:
    for _ in range(2):
        manager.save_model(forest, "again")
    folders = {path.parent for path in (base_dir / "mlflow" / "artifacts").rglob("MLmodel")}
    assert len(folders) == 2
    for folder in folders:
        own = mlflow.models.Model.load(folder)
        loader_dir = tmp_path / pyfunc_loader.MODULE_NAME
        shutil.copytree(Path(str(pyfunc_loader.__file__)).parent, loader_dir, dirs_exist_ok=True)
        reference = tmp_path / own.model_id
        mlflow.pyfunc.save_model(
            path=reference,
            loader_module=pyfunc_loader.MODULE_NAME,
            data_path=str(folder / "data" / "model.pkl"),
            code_paths=[str(loader_dir)],
            pip_requirements=str(folder / "requirements.txt"),
        )
        written = mlflow.models.Model.load(reference)
        assert own.flavors["python_function"] == written.flavors["python_function"]
        assert own.model_size_bytes == written.model_size_bytes
        assert _contents(folder) == _contents(reference)


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "MLmodel")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_version_is_late_where_others_registered_a_newer_save_meanwhile(
    manager: ModelManager, base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"
    other = ModelManager(tmp_path / "other", tracking_uri=uri)
    with clocks.shifted(-240):
        manager.save_model({"number": 1}, "lotto_model_1")
    monkeypatch.setenv("LOTTO_MIRROR", "off")
    with clocks.shifted(-120):
        manager.save_model({"number": 2}, "lotto_model_2")
    monkeypatch.delenv("LOTTO_MIRROR")
    other.save_model({"number": 3}, "lotto_model_3")
    assert manager.flush()
    manager.save_model({"number": 4}, "lotto_model_4")
    versions = MlflowClient(tracking_uri=uri).search_model_versions("name = 'lotto_model'")
    late = {v.tags["model_name"]: "late" in v.tags for v in versions}
    assert late == {f"lotto_model_{n}": n == 2 for n in (1, 2, 3, 4)}
