"""A tracking server over HTTP, its artifacts reachable only through it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import DigestMismatchError


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _served(command: list[str], url: str, log_path: Path, **environment: str) -> Iterator[None]:
    """Run a server until the block ends, and wait until it answers."""
    with log_path.open("w") as log:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it runs uvicorn
        server = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env=os.environ | {"PATH": path} | environment,
            start_new_session=True,
        )
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(url, timeout=2).close()
                    break
                except OSError:
                    assert server.poll() is None, log_path.read_text()
                    time.sleep(0.1)
            else:
                pytest.fail(log_path.read_text())
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, 15)
            server.wait(30)


@pytest.fixture(scope="module")
def server_uri(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(migrated_database, folder / "server.db")
    port = _free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    uri = f"http://127.0.0.1:{port}"
    with _served(command, f"{uri}/health", folder / "log.txt"):
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


def test_mlflow_models_serve_answers_with_classes_and_probabilities(
    manager: ModelManager, base_dir: Path, tmp_path: Path, forest: Any, rows: Any
) -> None:
    manager.save_model(forest)
    port = _free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/lotto_model/1"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    uri = f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"

    def answer(body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{url}/invocations",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)["predictions"]

    integers = rows[0][:3].round().astype(int)
    columns = list("abcde")
    with _served(command, f"{url}/ping", tmp_path / "log.txt", MLFLOW_TRACKING_URI=uri):
        for body in (
            {"inputs": integers.tolist()},
            {"instances": integers.astype(float).tolist()},
            {"dataframe_split": {"columns": columns, "data": integers.tolist()}},
            {"dataframe_records": [dict(zip(columns, r, strict=True)) for r in integers.tolist()]},
        ):
            assert answer(body) == forest.predict(integers).tolist()
            probabilities = answer(body | {"params": {"predict_method": "predict_proba"}})
            assert np.allclose(probabilities, forest.predict_proba(integers))
        with pytest.raises(urllib.error.HTTPError):
            answer({"inputs": integers.tolist(), "params": {"predict_method": "set_params"}})
