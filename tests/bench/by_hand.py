"""The same work done by hand: joblib, the file system, and MLflow's own functions."""

from __future__ import annotations

import hashlib
import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.operations import METADATA, Operation, Setup
from bench.ours import base_dir


def dump(setup: Setup) -> Operation:
    import joblib

    model = setup.model()
    return Operation(lambda: joblib.dump(model, setup.new_path(".pkl")))


def _dump_durably(model: Any, path: Path) -> None:
    import joblib

    with path.open("wb") as file:
        joblib.dump(model, file)
        file.flush()
        os.fsync(file.fileno())


def dump_durably(setup: Setup) -> Operation:
    model = setup.model()
    return Operation(lambda: _dump_durably(model, setup.new_path(".pkl")))


def _tracked(setup: Setup) -> Any:
    """Import MLflow for a store in the folder, as its documentation shows."""
    import mlflow
    import mlflow.sklearn

    setup.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(setup.folder)  # where MLflow puts artifacts unless it is told otherwise
    mlflow.set_tracking_uri(f"sqlite:///{setup.folder}/mlflow.db")
    return mlflow


_REQUIRED = ("scikit-learn", "joblib", "numpy", "scipy", "mlflow")


def _log_best(mlflow: Any, model: Any) -> None:
    """Log with the arguments that make MLflow fastest; without a run there is none."""
    mlflow.sklearn.log_model(
        model,
        name="model",
        serialization_format="pickle",
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in _REQUIRED],
        registered_model_name="lotto_model",
    )


def dump_and_best(setup: Setup) -> Operation:
    """Dump durably, then log the model alone: no run, no parameters, no metrics."""
    model, mlflow = setup.model(), _tracked(setup)

    def run() -> None:
        _dump_durably(model, setup.new_path(".pkl"))
        _log_best(mlflow, model)

    return Operation(run)


def dump_and_best_in_run(setup: Setup) -> Operation:
    """Dump durably, then log the model in a run with what a save here tells MLflow."""
    model, mlflow = setup.model(), _tracked(setup)
    texts = {key: value for key, value in METADATA.items() if isinstance(value, str)}
    numbers = {key: value for key, value in METADATA.items() if key not in texts}

    def run() -> None:
        _dump_durably(model, setup.new_path(".pkl"))
        with mlflow.start_run():
            mlflow.log_params(model.get_params() | texts)
            mlflow.log_metrics(numbers)
            mlflow.log_dict(METADATA, "metadata.json")
            _log_best(mlflow, model)

    return Operation(run)


def dump_and_inferred(setup: Setup) -> Operation:
    """Dump, then log with the format that most code names, and what it needs inferred."""
    import joblib

    model, mlflow = setup.model(), _tracked(setup)

    def run() -> None:
        joblib.dump(model, setup.new_path(".pkl"))
        mlflow.sklearn.log_model(
            model,
            name="model",
            serialization_format="cloudpickle",
            registered_model_name="lotto_model",
        )
        mlflow.end_run()

    return Operation(run)


def load(setup: Setup) -> Operation:
    """Load the newest file, as its writer would."""
    import joblib

    path = _newest_file(setup)
    return Operation(lambda: joblib.load(path))


def load_verified(setup: Setup) -> Operation:
    import joblib

    path = _newest_file(setup)

    def run() -> Any:
        _hash(path)
        return joblib.load(path)

    return Operation(run)


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_files(setup: Setup) -> Operation:
    """Hash every model file of a folder and what MLflow holds of it; listing them is free."""
    base = base_dir(setup.folder)
    paths = [*base.glob("trained/*.pkl"), *base.glob("mlflow/artifacts/**/data/model.pkl")]

    def run() -> None:
        for path in paths:
            _hash(path)

    return Operation(run)


def json_twice_and_save(setup: Setup) -> Operation:
    """Write two durable JSON files, and save the model in both views."""
    from bench import ours

    content, save = json.dumps({"numbers": ours.GAMES, **METADATA}), ours.save(setup)

    def run() -> None:
        for _ in range(2):
            with setup.new_path(".json").open("w", encoding="utf-8") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        save.run()

    return Operation(run, save.after)


def _newest_file(setup: Setup) -> Path:
    found = sorted(setup.folder.glob("model_*.pkl"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        found = [setup.new_path(".pkl")]
        _dump_durably(setup.model(), found[0])
    return found[-1]


def load_registered(setup: Setup) -> Operation:
    """Load the newest version with the flavour that logged it."""
    mlflow = _tracked(setup)
    return Operation(lambda: mlflow.sklearn.load_model("models:/lotto_model/latest"))


def pyfunc_latest(setup: Setup) -> Operation:
    """Load the newest version that this package mirrored, with MLflow's own function."""
    import mlflow

    database = base_dir(setup.folder) / "mlflow" / "mlflow.db"
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    return Operation(lambda: mlflow.pyfunc.load_model("models:/lotto_model/latest"))


def newest(setup: Setup) -> Operation:
    """Find the newest file with the least that finds it."""
    folder = base_dir(setup.folder) / "trained"

    def run() -> str:
        with os.scandir(folder) as entries:
            return max(entries, key=lambda entry: entry.stat().st_mtime_ns).path

    return Operation(run)
