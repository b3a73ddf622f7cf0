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
def server_uri(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(migrated_database, folder / "server.db")
    with tracking_server(folder / "server.db", folder / "artifacts") as uri:
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
