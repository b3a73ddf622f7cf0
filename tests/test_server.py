"""A tracking server over HTTP, its artifacts reachable only through it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from serving import tracking_server

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import DigestMismatchError


@pytest.fixture(scope="module")
def server_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps its database and its artifacts."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server_uri(server_dir: Path, migrated_database: Path) -> Iterator[str]:
    shutil.copyfile(migrated_database, server_dir / "server.db")
    with tracking_server(server_dir / "server.db", server_dir / "artifacts") as uri:
        yield uri


def test_a_server_holds_the_very_bytes_and_gives_them_back(
    tmp_path: Path, server_uri: str, forest: Any, rows: Any
) -> None:
    from matplotlib.figure import Figure

    manager = ModelManager(tmp_path / "내 모델 #1", tracking_uri=server_uri)
    artifacts = {"plot": Figure(), "메모": "텍스트"}
    for name in (None, "모델 1"):
        path = Path(manager.save_model(forest, name, {"정확도": 0.5}, artifacts=artifacts))
        assert manager.flush(60)  # a server's first answers may take more than five seconds
        record = manager.get(path)
        assert record.version == 1
        run = MlflowClient(tracking_uri=server_uri).get_run(str(record.run_id))
        assert run.info.status == "FINISHED"
        assert run.data.metrics == {"정확도": 0.5}
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.unlink()
        loaded = manager.load_model(f"models:/{record.registered_model}/1")
        assert np.array_equal(loaded.predict_proba(rows[0]), forest.predict_proba(rows[0]))
        (download,) = (path.parents[1] / "mlflow" / "downloads").rglob(f"{record.name}.pkl")
        assert hashlib.sha256(download.read_bytes()).hexdigest() == digest
        assert download.stat().st_mtime_ns == record.saved_at_ns
        assert not list((path.parents[1] / "mlflow" / "tmp").iterdir())
    assert "lotto_model_" in str(manager.get_latest_model_path(source="registry"))
    download.write_bytes(b"changed")
    with pytest.raises(DigestMismatchError):
        manager.load_model("models:/모델 1/1")


def test_pyfunc_loads_what_a_server_holds(
    tmp_path: Path, server_uri: str, forest: Any, rows: Any
) -> None:
    manager = ModelManager(tmp_path / "ml", tracking_uri=server_uri)
    manager.save_model(forest, "served", input_example=rows[0][:2])
    assert manager.flush(60)
    model_id = manager.get("served").model_id
    model = MlflowClient(tracking_uri=server_uri).get_logged_model(str(model_id))
    folder = mlflow.artifacts.download_artifacts(
        artifact_uri=model.artifact_location,
        tracking_uri=server_uri,
        dst_path=str(tmp_path / "got"),
    )
    loaded = mlflow.pyfunc.load_model(folder)
    assert np.array_equal(loaded.predict(rows[0]), forest.predict(rows[0]))


def test_a_file_damaged_on_the_server_is_found_by_a_deep_look_and_sent_again(
    tmp_path: Path, server_dir: Path, server_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    manager = ModelManager(tmp_path / "deep", tracking_uri=server_uri)
    path = manager.save_model({"deep": 1}, "looked at", {"n": 1})
    assert manager.flush(120)
    ids = manager.get(path)
    (served,) = server_dir.rglob(f"{ids.model_id}/artifacts/data/model.pkl")
    original = served.read_bytes()
    served.write_bytes(b"x" * len(original))
    assert manager.verify() == []
    assert "the files of 1 version in " in caplog.text
    assert "were not looked at" in caplog.text
    (found,) = manager.verify(deep=True)
    assert (found.kind, found.name) == ("damaged", "looked at")
    client = MlflowClient(tracking_uri=server_uri)
    client.delete_model_version("looked at", str(ids.version))
    assert manager.sync(resend=True).resent == ["looked at"]
    assert served.read_bytes() == original
    assert manager.verify(deep=True) == []
