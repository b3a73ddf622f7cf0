"""MLflow's own commands on what was saved, typed in a folder where the package is not installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from serving import MLFLOW, environment, free_port, served

from lotto_mlflow import ModelManager, pyfunc_loader

BLOCKER = "import sys; sys.modules['lotto_mlflow'] = None"
VERSION = "models:/lotto_model/1"
CHAMPION = "models:/lotto_model@champion"
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose Python cannot import the package."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "sitecustomize.py").write_text(BLOCKER)
    return folder


@pytest.fixture(scope="module")
def saved(
    tmp_path_factory: pytest.TempPathFactory, migrated_database: Path, forest: Any
) -> Iterator[ModelManager]:
    """A store with one save, which has an alias."""
    base_dir = tmp_path_factory.mktemp("saved") / "ml"
    (base_dir / "mlflow").mkdir(parents=True)
    shutil.copyfile(migrated_database, base_dir / "mlflow" / "mlflow.db")
    uri = f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"
    manager = ModelManager(base_dir, tracking_uri=uri)
    manager.save_model(forest)
    assert manager.flush(60)
    MlflowClient(tracking_uri=uri).set_registered_model_alias("lotto_model", "champion", "1")
    return manager


@pytest.fixture
def store_uri(saved: ModelManager) -> str:
    path = saved.latest().path  # type: ignore[union-attr]
    return f"sqlite:///{path.parents[1] / 'mlflow' / 'mlflow.db'}"


@pytest.fixture
def models(elsewhere: Path, store_uri: str) -> Command:
    """Run ``mlflow models`` there, and hand back what it said."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*MLFLOW, "models", *arguments],
            cwd=elsewhere,
            env=environment(MLFLOW_TRACKING_URI=store_uri, PYTHONPATH=str(elsewhere)),
            capture_output=True,
            text=True,
            **({"check": True} | options),
        )

    return run


def predictions(answer: str) -> Any:
    return json.loads(answer.strip().splitlines()[-1])["predictions"]


def test_the_blocker_really_hides_the_package(elsewhere: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import lotto_mlflow"],
        env=os.environ | {"PYTHONPATH": str(elsewhere)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ModuleNotFoundError" in done.stderr


def test_predict_takes_json_and_csv_by_version_and_by_alias(
    models: Command, elsewhere: Path, rows: Any, forest: Any
) -> None:
    inputs = rows[0][:4].round().astype(int)
    request = elsewhere / "request.json"
    request.write_text(
        json.dumps({"inputs": inputs.tolist(), "params": {"predict_method": "predict_proba"}})
    )
    table = elsewhere / "table.csv"
    pd.DataFrame(inputs, columns=list("abcde")).to_csv(table, index=False)
    local = ("predict", "--env-manager", "local")
    by_version = predictions(models(*local, "-m", VERSION, "-i", str(request)).stdout)
    assert np.allclose(by_version, forest.predict_proba(inputs))
    by_alias = predictions(models(*local, "-m", CHAMPION, "-i", str(table), "-t", "csv").stdout)
    assert by_alias == forest.predict(inputs).tolist()


def test_serve_answers_curl_with_classes_and_probabilities(
    tmp_path: Path, elsewhere: Path, store_uri: str, rows: Any, forest: Any
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl to ask with")
    port = free_port()
    command = [*MLFLOW, "models", "serve", "-m", CHAMPION, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    settings = {"MLFLOW_TRACKING_URI": store_uri, "PYTHONPATH": str(elsewhere)}
    ping = f"http://127.0.0.1:{port}/ping"
    integers = rows[0][:3].round().astype(int)
    columns = list("abcde")
    with served(command, ping, tmp_path / "log.txt", **settings) as uri:

        def curl(body: dict[str, Any], *options: str) -> str:
            command = ["curl", "--silent", "--max-time", "60", *options]
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
            done = subprocess.run(
                [*command, f"{uri}/invocations"], capture_output=True, text=True, check=True
            )
            return done.stdout

        for body in (
            {"inputs": integers.tolist()},
            {"instances": integers.astype(float).tolist()},
            {"dataframe_split": {"columns": columns, "data": integers.tolist()}},
            {"dataframe_records": [dict(zip(columns, r, strict=True)) for r in integers.tolist()]},
        ):
            assert predictions(curl(body)) == forest.predict(integers).tolist()
            chances = curl(body | {"params": {"predict_method": "predict_proba"}})
            assert np.allclose(predictions(chances), forest.predict_proba(integers))
        forbidden = {"inputs": integers.tolist(), "params": {"predict_method": "set_params"}}
        status = curl(forbidden, "-o", os.devnull, "-w", "%{http_code}")
        assert 400 <= int(status) < 600


def test_the_dockerfile_serves_the_very_bytes_without_the_package(
    models: Command, tmp_path: Path, saved: ModelManager
) -> None:
    image = tmp_path / "image"
    models("generate-dockerfile", "-m", CHAMPION, "-d", str(image), "--env-manager", "local")
    lines = (image / "Dockerfile").read_text(encoding="utf-8").splitlines()
    version = ".".join(map(str, sys.version_info[:3]))
    assert f"FROM python:{version}-slim" in lines
    assert "COPY model_dir /opt/ml/model" in lines
    assert any(line.startswith("ENTRYPOINT") and "_serve('local')" in line for line in lines)
    newest = saved.latest()
    assert newest is not None
    (copy,) = image.rglob("*.pkl")
    assert copy.read_bytes() == newest.path.read_bytes()
    (code,) = image.rglob("code")
    assert [path.name for path in code.iterdir()] == ["lotto_mlflow_loader_v2"]
    travelling = {path.name for path in pyfunc_loader.module_paths()}
    assert {path.name for path in image.rglob("*.py")} == travelling
    needed = (image / "model_dir" / "requirements.txt").read_text(encoding="utf-8").split()
    assert "lotto" not in "".join(needed)
    assert {"joblib", "mlflow", "scikit-learn"} <= {line.partition("==")[0] for line in needed}


def test_requirements_can_be_changed_and_the_model_still_predicts(
    models: Command, saved: ModelManager, store_uri: str, elsewhere: Path, rows: Any, forest: Any
) -> None:
    newest = saved.latest()
    assert newest is not None
    client = MlflowClient(tracking_uri=store_uri)
    place = client.get_logged_model(str(newest.model_id)).artifact_location
    listed = Path(place.removeprefix("file://")) / "requirements.txt"
    before = set(listed.read_text(encoding="utf-8").split())
    models("update-pip-requirements", "-m", place, "add", "packaging>=20")
    assert set(listed.read_text(encoding="utf-8").split()) == {*before, "packaging>=20"}
    request = elsewhere / "after.json"
    request.write_text(json.dumps({"inputs": rows[0][:4].tolist()}))
    answer = models("predict", "-m", VERSION, "-i", str(request), "--env-manager", "local")
    assert predictions(answer.stdout) == forest.predict(rows[0][:4]).tolist()
    found = saved.verify()
    assert {finding.kind for finding in found} == {"damaged"}
    assert listed in {finding.path for finding in found}
    assert saved.sync(resend=True).resent == [newest.name]
    assert set(listed.read_text(encoding="utf-8").split()) == before
    assert saved.verify() == []


def test_prepare_env_finds_the_model_and_has_nothing_to_prepare_without_a_network(
    models: Command,
) -> None:
    """Any other environment than the local one is filled from a package index."""
    done = models("prepare-env", "-m", CHAMPION, "--env-manager", "local", check=False)
    assert "not be called with local env manager" in done.stderr
    assert "Selected backend for flavor 'python_function'" in done.stderr
