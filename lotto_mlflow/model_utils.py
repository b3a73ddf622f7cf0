"""The specification's three functions and its constants, and the functions for predictions.

@CODE:LOTTO-ML-INFRA-001 | @SPEC:LOTTO-ML-INFRA-001
| @TEST: tests/services/ml/test_model_utils.py | @DOC:LOTTO-ML-INFRA-001: README.md

The functions read the constants when they are called, so that replacing one, or only one that
others are derived from, is obeyed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from lotto_mlflow import regular, settings
from lotto_mlflow.layout import Layout
from lotto_mlflow.manager import ModelManager
from lotto_mlflow.records import ModelAccuracy, Prediction

__all__ = [
    "BACKUP_DIR",
    "METADATA_DIR",
    "MODEL_BASE_DIR",
    "TRAINED_DIR",
    "accuracy",
    "current_manager",
    "flush",
    "get_latest_model_path",
    "import_results",
    "load_model",
    "predictions",
    "record_prediction",
    "record_result",
    "save_model",
    "warm_up",
]

_CURRENT_FILE = Path(__file__).resolve()
_APP_DIR = settings.app_dir()
MODEL_BASE_DIR = settings.base_dir_under(_APP_DIR)
TRAINED_DIR = MODEL_BASE_DIR / "trained"
METADATA_DIR = MODEL_BASE_DIR / "metadata"
BACKUP_DIR = MODEL_BASE_DIR / "backups"

_AT_IMPORT = (MODEL_BASE_DIR, TRAINED_DIR, METADATA_DIR, BACKUP_DIR)


def save_model(
    model: Any,
    model_name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    *,
    input_example: Any = None,
    artifacts: Mapping[str, Any] | None = None,
    dataset: Any = None,
) -> str:
    """Save a model under `TRAINED_DIR`, and mirror the save into MLflow.

    Parameters
    ----------
    model : object
        What joblib can pickle; an estimator, a pipeline, or any other object.
    model_name : str, optional
        One plain file name without ``.pkl``; ``lotto_model_YYYYMMDD`` by default.
    metadata : mapping of str to object, optional
        Numbers become metrics in MLflow, everything else parameters.
    input_example : array-like, DataFrame or list of shape (n_samples, n_features), optional
        Rows from which the signature of inputs and outputs is inferred.
    artifacts : mapping of str to object, optional
        Files (``Path``), text, dicts and matplotlib figures to show with the run.
    dataset : DataFrame, array-like or mapping of str to these, optional
        The training data, of which name, digest, schema and shape are recorded.

    Returns
    -------
    str
        Path of the saved file.

    Raises
    ------
    LottoMlflowError
        As in `lotto_mlflow.ModelManager.save_model`, which says what is guaranteed. The folder
        is as it was.
    """
    return _manager().save_model(
        model,
        model_name,
        metadata,
        input_example=input_example,
        artifacts=artifacts,
        dataset=dataset,
    )


def load_model(model_path: str | os.PathLike[str], *, stale_ok: bool = False) -> Any:
    """Load a model from a file, or from the registry.

    Parameters
    ----------
    model_path : str or path-like
        A file; or ``models:/NAME/1``, ``models:/NAME/latest``, ``models:/NAME@ALIAS``.
    stale_ok : bool
        Where the registry cannot be asked, load what the alias, or the latest, was last seen to
        stand for, verified and with a warning.

    Returns
    -------
    object
        The model as it was saved.

    Raises
    ------
    ModelNotFoundError
        If there is no such file, version or alias; also a ``FileNotFoundError``.
    LoadError
        If the bytes are not the ones that were saved, or joblib cannot read them; also an
        ``OSError``. `lotto_mlflow.ModelManager.load_model` says more.

    Warnings
    --------
    Unpickling runs code: load only models whose origin you trust.
    """
    return _manager().load_model(model_path, stale_ok=stale_ok)


def get_latest_model_path(
    *,
    source: Literal["filesystem", "registry"] = "filesystem",
    alias: str | None = None,
    stale_ok: bool = False,
) -> str | None:
    """Return the path of the newest model, or of the one that an alias stands for.

    Parameters
    ----------
    source : {"filesystem", "registry"}
        ``filesystem``: the newest ``lotto_model_*.pkl`` in `TRAINED_DIR` by modification time.
        ``registry``: a file with the bytes of the newest save that MLflow has.
    alias : str, optional
        With ``registry``: the version of ``lotto_model`` that this alias stands for.
    stale_ok : bool
        As in `load_model`.

    Returns
    -------
    str or None
        ``None`` where there is no model.

    Raises
    ------
    ModelNotFoundError
        If the alias stands for no version.
    MirrorUnavailableError
        If the registry could not be asked.
    """
    return _manager().get_latest_model_path(source=source, alias=alias, stale_ok=stale_ok)


def warm_up(*, wait: bool = False) -> bool | None:
    """Import MLflow and open the current store, before the first save has to.

    Parameters
    ----------
    wait : bool
        Return when it is done; by default it is done in the background.

    Returns
    -------
    bool or None
        Whether MLflow is ready, with ``wait``; ``None`` without.
        `lotto_mlflow.ModelManager.warm_up` says more.
    """
    return _manager().warm_up(wait=wait)


def flush(timeout: float = 60.0) -> bool:
    """Push what waits for the current store, and wait for it.

    Parameters
    ----------
    timeout : float
        Seconds to wait at most.

    Returns
    -------
    bool
        Whether MLflow has everything; with ``LOTTO_MIRROR=off`` nothing is pushed.
    """
    return _manager().flush(timeout)


def record_prediction(
    model: str | os.PathLike[str] | int,
    draw_no: int,
    numbers: Any,
    *,
    scores: Any = None,
    made_at: datetime | None = None,
) -> Prediction:
    """Record what a model under `TRAINED_DIR` predicts for a draw.

    The parameters, and what is guaranteed, are those of
    `lotto_mlflow.ModelManager.record_prediction`.
    """
    return _manager().record_prediction(model, draw_no, numbers, scores=scores, made_at=made_at)


def predictions(
    model: str | os.PathLike[str] | int | None = None, draw_no: int | None = None
) -> list[Prediction]:
    """Return the recorded predictions, as `lotto_mlflow.ModelManager.predictions` does."""
    return _manager().predictions(model, draw_no)


def record_result(draw_no: int, numbers: Any, bonus: int) -> list[Prediction]:
    """Record what was drawn, as `lotto_mlflow.ModelManager.record_result` does."""
    return _manager().record_result(draw_no, numbers, bonus)


def import_results(csv: str | os.PathLike[str]) -> int:
    """Record the results in a CSV file, as `lotto_mlflow.ModelManager.import_results` does."""
    return _manager().import_results(csv)


def accuracy(model: str | os.PathLike[str] | int | None = None) -> list[ModelAccuracy]:
    """Return how good predictions were, as `lotto_mlflow.ModelManager.accuracy` does."""
    return _manager().accuracy(model)


def current_manager() -> ModelManager:
    """Return the manager of the folders that the constants mean now."""
    return _manager()


def _manager() -> ModelManager:
    folders = _folders(_APP_DIR, MODEL_BASE_DIR, TRAINED_DIR, METADATA_DIR, BACKUP_DIR)
    return _manager_of(*(regular.as_named(regular.absolute(folder)) for folder in folders))


@lru_cache(maxsize=16)
def _folders(
    app_dir: Path | str, base_dir: Path | str, *folders: Path | str
) -> tuple[Path, Path, Path]:
    """Return the three folders that the constants mean, which may be relative."""
    base_at_import, *folders_at_import = _AT_IMPORT
    base_dir = Path(base_dir)
    if base_dir == base_at_import:
        base_dir = settings.base_dir_under(Path(app_dir))
    trained_dir, metadata_dir, backup_dir = (
        folder if folder != at_import else base_dir / at_import.name
        for folder, at_import in zip(map(Path, folders), folders_at_import, strict=True)
    )
    return trained_dir, metadata_dir, backup_dir


@lru_cache(maxsize=16)
def _manager_of(trained_dir: Path, metadata_dir: Path, backup_dir: Path) -> ModelManager:
    return ModelManager.of_layout(Layout(trained_dir, metadata_dir, backup_dir))
