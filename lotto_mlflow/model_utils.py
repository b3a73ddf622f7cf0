"""The specification's three functions and its constants.

@CODE:LOTTO-ML-INFRA-001 | @SPEC:LOTTO-ML-INFRA-001
| @TEST: tests/services/ml/test_model_utils.py | @DOC:LOTTO-ML-INFRA-001: README.md

The functions read the constants when they are called, so that replacing one, or only one that
others are derived from, is obeyed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from lotto_mlflow import settings
from lotto_mlflow.layout import Layout
from lotto_mlflow.manager import ModelManager

__all__ = [
    "BACKUP_DIR",
    "METADATA_DIR",
    "MODEL_BASE_DIR",
    "TRAINED_DIR",
    "get_latest_model_path",
    "load_model",
    "save_model",
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
    """Save a model under `TRAINED_DIR`; see `lotto_mlflow.ModelManager.save_model`."""
    return _manager().save_model(
        model,
        model_name,
        metadata,
        input_example=input_example,
        artifacts=artifacts,
        dataset=dataset,
    )


def load_model(model_path: str | os.PathLike[str]) -> Any:
    """Load a model from a file or the registry; see `lotto_mlflow.ModelManager.load_model`."""
    return _manager().load_model(model_path)


def get_latest_model_path(
    *, source: Literal["filesystem", "registry"] = "filesystem"
) -> str | None:
    """Return the newest model's path; see `lotto_mlflow.ModelManager.get_latest_model_path`."""
    return _manager().get_latest_model_path(source=source)


def _manager() -> ModelManager:
    folders = _folders(_APP_DIR, MODEL_BASE_DIR, TRAINED_DIR, METADATA_DIR, BACKUP_DIR)
    return _manager_of(*(folder.absolute() for folder in folders))


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
