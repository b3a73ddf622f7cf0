"""What is done in the actor: calls of the package, and what people do with plain MLflow."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from sklearn.naive_bayes import GaussianNB

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import LottoMlflowError
from lotto_mlflow.records import Finding

Version = tuple[str, int]
"""A registered model and a number."""


def model_of(number: int) -> Any:
    """Return the model of a number: every third is an estimator."""
    if number % 3:
        return {"number": number, "weights": [float(number)] * 40}
    rows = [[0.0, number], [1.0, 1.0], [2.0, 0.0], [3.0, 1.0]]
    return GaussianNB().fit(rows, [0, 1, 0, 1])


def number_of(model: Any) -> int | None:
    """Return the number of a model, ``None`` of one that was never saved."""
    try:
        number = model["number"] if isinstance(model, dict) else round(2 * model.theta_[0][1])
        expected = model_of(number)
        if isinstance(model, dict):
            return int(number) if model == expected else None
        is_same = (model.theta_ == expected.theta_).all() and (model.var_ == expected.var_).all()
        return int(number) if is_same else None
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        return None


@cache
def _manager(base_dir: str, mirror: str) -> ModelManager:
    return ModelManager(base_dir, mirror=mirror)  # type: ignore[arg-type]


def save(
    base_dir: str, name: str | None, number: int, metadata: Any, mirror: str, artifacts: Any
) -> str:
    return _manager(base_dir, mirror).save_model(
        model_of(number), name, metadata, artifacts=artifacts
    )


def save_unpicklable(base_dir: str, name: str | None) -> None:
    _manager(base_dir, "sync").save_model(lambda: None, name, {"a": 1})


def save_with_bad_metadata(base_dir: str, name: str | None) -> None:
    _manager(base_dir, "sync").save_model(model_of(1), name, {"a": object()})


def call(base_dir: str, method: str, *arguments: Any, **named: Any) -> Any:
    """Call a method of the manager."""
    return getattr(_manager(base_dir, "sync"), method)(*arguments, **named)


def restore(base_dir: str, reference: Any, source: str, backup: str | None) -> str:
    return str(_manager(base_dir, "sync").restore(reference, source=source, backup=backup).path)  # type: ignore[arg-type]


def sync(base_dir: str, options: dict[str, bool]) -> dict[str, str]:
    return _manager(base_dir, "sync").sync(**options).failed


def load(base_dir: str, references: list[str]) -> list[tuple[bool, Any]]:
    """Load models; return of each whether it loads, and its number or why it does not."""
    manager, found = _manager(base_dir, "sync"), []
    for reference in references:
        try:
            found.append((True, number_of(manager.load_model(reference))))
        except LottoMlflowError as error:
            found.append((False, f"{type(error).__name__}: {error}"))
    return found


def verify(base_dir: str) -> list[Finding]:
    return _manager(base_dir, "sync").verify()


def apply(base_dir: str, finding: Finding, meant: Version | None) -> None:
    """Do what a finding advises, as it is printed: what is done by hand first, then the call.

    Parameters
    ----------
    base_dir : str
        The folder.
    finding : Finding
        What was found.
    meant : (str, int) or None
        The version that is to be deleted by hand.
    """
    assert finding.fix is not None
    manager, call = _manager(base_dir, "sync"), finding.fix.as_call()
    if meant is not None:
        client(base_dir).delete_model_version(meant[0], str(meant[1]))
    if finding.fix.verb == "shell":
        subprocess.run(call, shell=True, check=True, capture_output=True, timeout=60)
    else:
        eval(call, {"ModelManager": manager})


def client(base_dir: str) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{Path(base_dir) / 'mlflow' / 'mlflow.db'}")


def plain(base_dir: str, method: str, arguments: Any, named: Any) -> None:
    """Call a method of MLflow's own client."""
    getattr(client(base_dir), method)(*arguments, **named)


def register_again(base_dir: str, version: Version, name: str) -> None:
    """Register a version's logged model once more, as `mlflow.register_model` does."""
    found = client(base_dir)
    given = found.get_model_version(version[0], str(version[1]))
    model = found.get_logged_model(given.tags["model_id"])
    if name not in {registered.name for registered in found.search_registered_models()}:
        found.create_registered_model(name)
    found.create_model_version(
        name, model.artifact_location, model.source_run_id, model_id=model.model_id
    )


def latest(base_dir: str, source: Any) -> str | None:
    return _manager(base_dir, "sync").get_latest_model_path(source=source)


def latest_time(base_dir: str) -> int | None:
    """Return the time of the latest version's save."""
    found = _manager(base_dir, "sync").latest(source="registry")
    return None if found is None else found.saved_at_ns
