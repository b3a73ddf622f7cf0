"""The caller's MLflow is the same after a save as before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from sklearn.ensemble import RandomForestClassifier

from lotto_mlflow import ModelManager


@pytest.fixture(autouse=True)
def callers_mlflow() -> Iterator[None]:
    """Put MLflow's global state back after each test."""
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri("")
    os.environ.pop("MLFLOW_REGISTRY_URI", None)


def test_a_save_leaves_uris_active_run_and_environment_alone(
    manager: ModelManager, forest: RandomForestClassifier, tmp_path: Path, migrated_database: Path
) -> None:
    other = tmp_path / "callers.db"
    other.write_bytes(migrated_database.read_bytes())
    embedded = ModelManager(
        Path(manager.save_model(forest, "first")).parents[1],
        tracking_uri=f"sqlite:///{tmp_path / 'ml' / 'mlflow' / 'mlflow.db'}",
    )
    mlflow.set_tracking_uri(f"sqlite:///{other}")
    with mlflow.start_run() as run:
        before = (mlflow.get_tracking_uri(), mlflow.get_registry_uri(), dict(os.environ))
        embedded.save_model(forest, "second", {"accuracy": 0.5})
        embedded.load_model("models:/second/1")
        embedded.get_latest_model_path(source="registry")
        assert mlflow.active_run().info.run_id == run.info.run_id
        assert before == (mlflow.get_tracking_uri(), mlflow.get_registry_uri(), dict(os.environ))
    callers_run = mlflow.get_run(run.info.run_id)
    assert callers_run.data.params == {}
    assert callers_run.data.metrics == {}
    assert not list(Path.cwd().iterdir())


def test_the_store_that_the_caller_set_is_the_one_that_is_told(
    base_dir: Path, forest: RandomForestClassifier, tmp_path: Path, migrated_database: Path
) -> None:
    other = tmp_path / "callers.db"
    other.write_bytes(migrated_database.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{other}")
    manager = ModelManager(base_dir)
    path = manager.save_model(forest, metadata={"accuracy": 0.5})
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{other}")
    assert client.get_model_version("lotto_model", "1").tags["model_name"] == Path(path).stem
    assert manager.get_latest_model_path(source="registry") == path
    mlflow.set_tracking_uri(None)
    assert manager.get_latest_model_path(source="registry") is None  # the embedded one has none


def test_the_mirrors_run_is_a_child_of_the_active_run_in_the_same_store(
    base_dir: Path, forest: RandomForestClassifier
) -> None:
    uri = f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    manager = ModelManager(base_dir)
    with mlflow.start_run() as parent:
        manager.save_model(forest, "child", {"accuracy": 0.5})
    run_id = manager.get("child").run_id
    assert run_id is not None
    child = mlflow.get_run(run_id)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.info.status == "FINISHED"


def test_an_active_run_in_another_store_is_no_parent(
    base_dir: Path, forest: RandomForestClassifier, tmp_path: Path, migrated_database: Path
) -> None:
    other = tmp_path / "callers.db"
    other.write_bytes(migrated_database.read_bytes())
    uri = f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"
    mlflow.set_tracking_uri(f"sqlite:///{other}")
    manager = ModelManager(base_dir, tracking_uri=uri)
    with mlflow.start_run():
        manager.save_model(forest, "alone")
    run_id = manager.get("alone").run_id
    assert run_id is not None
    run = mlflow.MlflowClient(tracking_uri=uri).get_run(run_id)
    assert "mlflow.parentRunId" not in run.data.tags


@pytest.mark.filterwarnings("ignore")  # what autologging warns of is the caller's matter
def test_autologging_switched_on_by_the_caller_does_no_harm(
    base_dir: Path, rows: tuple[list[float], list[int]]
) -> None:
    uri = f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.autolog(log_models=False, silent=True)
    try:
        manager = ModelManager(base_dir)
        with mlflow.start_run() as run:
            model = RandomForestClassifier(n_estimators=3).fit(*rows)
            before = mlflow.get_run(run.info.run_id).to_dictionary()
            manager.save_model(model, "logged", {"accuracy": 0.5}, input_example=rows[0][:3])
            after = mlflow.get_run(run.info.run_id).to_dictionary()
    finally:
        mlflow.autolog(disable=True, silent=True)
    assert before == after
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("lotto_model")
    assert len(client.search_runs([experiment.experiment_id])) == 1
    assert manager.load_model("models:/logged/1").n_estimators == 3
