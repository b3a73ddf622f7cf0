"""A tracking server over PostgreSQL that sends its clients to an S3 bucket for artifacts."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import postgresql
import pytest
from serving import MLFLOW, environment, free_port, served

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import DigestMismatchError

BUCKET = "lotto-models"
_ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="module")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An S3 server; yields the environment in which clients reach its bucket."""
    for module in ("moto", "boto3"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed here: there is no S3 server")
    import boto3

    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    uri = f"http://127.0.0.1:{port}"
    log_path = tmp_path_factory.mktemp("s3") / "log.txt"
    with served(command, f"{uri}/moto-api/", log_path):
        names = ("aws_access_key_id", "aws_secret_access_key", "region_name")
        keys = dict(zip(names, _ACCOUNT.values(), strict=True))
        boto3.client("s3", endpoint_url=uri, **keys).create_bucket(Bucket=BUCKET)
        yield _ACCOUNT | {"MLFLOW_S3_ENDPOINT_URL": uri}


@pytest.fixture(scope="module")
def server_uri(
    tmp_path_factory: pytest.TempPathFactory, object_store: dict[str, str]
) -> Iterator[str]:
    with postgresql.running() as database:
        port = free_port()
        command = [*MLFLOW, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        command += ["--backend-store-uri", database.new_database("mlflow")]
        command += ["--default-artifact-root", f"s3://{BUCKET}/artifacts", "--no-serve-artifacts"]
        log_path = tmp_path_factory.mktemp("server") / "log.txt"
        with served(command, f"http://127.0.0.1:{port}/health", log_path, **object_store) as uri:
            yield uri


@pytest.fixture(autouse=True)
def reachable(
    clean_surroundings: None, object_store: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let each test, and what it starts, reach the bucket."""
    for name, value in object_store.items():
        monkeypatch.setenv(name, value)


def _bucket(object_store: dict[str, str]) -> Any:
    import boto3

    uri = object_store["MLFLOW_S3_ENDPOINT_URL"]
    return boto3.resource("s3", endpoint_url=uri).Bucket(BUCKET)


def test_a_save_lies_in_the_bucket_and_comes_back_from_it_verified(
    tmp_path: Path,
    server_uri: str,
    object_store: dict[str, str],
    forest: Any,
    rows: Any,
) -> None:
    manager = ModelManager(tmp_path / "ml", tracking_uri=server_uri)
    path = Path(manager.save_model(forest, metadata={"a": 1}, artifacts={"note.txt": "kept"}))
    assert manager.flush(60)
    keys = [each.key for each in _bucket(object_store).objects.all()]
    (key,) = [key for key in keys if key.endswith("data/model.pkl")]
    stored = _bucket(object_store).Object(key).get()["Body"].read()
    assert hashlib.sha256(stored).hexdigest() == manager.latest().sha256
    assert [key for key in keys if key.endswith("note.txt")]

    elsewhere = ModelManager(tmp_path / "other", tracking_uri=server_uri)
    loaded = elsewhere.load_model("models:/lotto_model/latest")
    assert np.array_equal(loaded.predict_proba(rows[0]), forest.predict_proba(rows[0]))
    found = elsewhere.get_latest_model_path(source="registry")
    assert Path(str(found)).read_bytes() == path.read_bytes()
    assert elsewhere.restore(1, source="registry").sha256 == manager.latest().sha256
    (listed,) = elsewhere.records(source="registry", limit=1)
    assert (listed.name, listed.host) == (path.stem, socket.gethostname())
    assert elsewhere.verify(deep=True) == []

    _bucket(object_store).put_object(Key=key, Body=stored[:-1] + b"?")
    stranger = ModelManager(tmp_path / "third", tracking_uri=server_uri)
    with pytest.raises(DigestMismatchError):
        stranger.load_model("models:/lotto_model/1")
    _bucket(object_store).put_object(Key=key, Body=stored)


def test_mlflow_predicts_with_what_lies_in_the_bucket(
    tmp_path: Path, server_uri: str, forest: Any, rows: Any
) -> None:
    manager = ModelManager(tmp_path / "ml", tracking_uri=server_uri)
    manager.save_model(forest, "별 모델", {"a": 1})
    assert manager.flush(60)
    request, answer = tmp_path / "request.json", tmp_path / "answer.json"
    request.write_text(json.dumps({"inputs": rows[0][:3].tolist()}))
    command = [*MLFLOW, "models", "predict", "-m", "models:/별 모델/1", "--env-manager", "local"]
    command += ["-i", str(request), "-o", str(answer)]
    told = environment(MLFLOW_TRACKING_URI=server_uri)
    done = subprocess.run(command, env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(answer.read_text())["predictions"] == forest.predict(rows[0][:3]).tolist()
