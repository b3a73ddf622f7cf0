"""A tracking server over PostgreSQL that sends its clients to an S3 bucket for artifacts."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integration.objects import ObjectStore
from integration.servers import TrackingServer
from serving import MLFLOW, environment

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import DigestMismatchError

pytestmark = pytest.mark.usefixtures("reaches_bucket")


def test_a_save_lies_in_the_bucket_and_comes_back_from_it_verified(
    tmp_path: Path,
    direct_server: TrackingServer,
    object_store: ObjectStore,
    forest: Any,
    rows: Any,
) -> None:
    before = set(object_store.keys())
    manager = ModelManager(tmp_path / "ml", tracking_uri=direct_server.uri)
    path = Path(manager.save_model(forest, metadata={"a": 1}, artifacts={"note.txt": "kept"}))
    assert manager.flush(60)
    keys = set(object_store.keys()) - before
    (key,) = [key for key in keys if key.endswith("data/model.pkl")]
    stored = object_store.bucket.Object(key).get()["Body"].read()
    assert hashlib.sha256(stored).hexdigest() == manager.latest().sha256
    assert [key for key in keys if key.endswith("note.txt")]

    elsewhere = ModelManager(tmp_path / "other", tracking_uri=direct_server.uri)
    loaded = elsewhere.load_model("models:/lotto_model/latest")
    assert np.array_equal(loaded.predict_proba(rows[0]), forest.predict_proba(rows[0]))
    found = elsewhere.get_latest_model_path(source="registry")
    assert Path(str(found)).read_bytes() == path.read_bytes()
    version = manager.latest().version
    assert elsewhere.restore(version, source="registry").sha256 == manager.latest().sha256
    (listed,) = elsewhere.records(source="registry", limit=1)
    assert (listed.name, listed.host) == (path.stem, socket.gethostname())
    assert elsewhere.verify(deep=True) == []

    object_store.bucket.put_object(Key=key, Body=stored[:-1] + b"?")
    stranger = ModelManager(tmp_path / "third", tracking_uri=direct_server.uri)
    with pytest.raises(DigestMismatchError):
        stranger.load_model(f"models:/lotto_model/{version}")
    object_store.bucket.put_object(Key=key, Body=stored)


def test_mlflow_predicts_with_what_lies_in_the_bucket(
    tmp_path: Path, direct_server: TrackingServer, forest: Any, rows: Any
) -> None:
    manager = ModelManager(tmp_path / "ml", tracking_uri=direct_server.uri)
    manager.save_model(forest, "별 모델", {"a": 1})
    assert manager.flush(60)
    request, answer = tmp_path / "request.json", tmp_path / "answer.json"
    request.write_text(json.dumps({"inputs": rows[0][:3].tolist()}))
    command = [*MLFLOW, "models", "predict", "-m", "models:/별 모델/1", "--env-manager", "local"]
    command += ["-i", str(request), "-o", str(answer)]
    told = environment(MLFLOW_TRACKING_URI=direct_server.uri)
    done = subprocess.run(command, env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(answer.read_text())["predictions"] == forest.predict(rows[0][:3]).tolist()
