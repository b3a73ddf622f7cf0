"""Model management for a lotto backend: joblib files on disk, and every save in MLflow too.

@CODE:LOTTO-ML-INFRA-001 | @SPEC:LOTTO-ML-INFRA-001
"""

from lotto_mlflow.errors import Fix, LottoMlflowError
from lotto_mlflow.manager import ModelManager
from lotto_mlflow.model_utils import get_latest_model_path, load_model, save_model
from lotto_mlflow.records import AliasMove, Finding, ModelRecord, SyncReport

__all__ = [
    "AliasMove",
    "Finding",
    "Fix",
    "LottoMlflowError",
    "ModelManager",
    "ModelRecord",
    "SyncReport",
    "get_latest_model_path",
    "load_model",
    "save_model",
]
