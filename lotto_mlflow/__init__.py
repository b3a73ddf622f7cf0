"""Model management for a lotto backend: joblib files on disk, and every save in MLflow too.

@CODE:LOTTO-ML-INFRA-001 | @SPEC:LOTTO-ML-INFRA-001
"""

from lotto_mlflow.errors import Fix, LottoMlflowError
from lotto_mlflow.live import LiveModel
from lotto_mlflow.manager import ModelManager
from lotto_mlflow.model_utils import (
    accuracy,
    flush,
    get_latest_model_path,
    import_results,
    load_model,
    predictions,
    record_prediction,
    record_result,
    save_model,
    warm_up,
)
from lotto_mlflow.records import (
    AliasMove,
    Finding,
    Health,
    MigrateReport,
    ModelAccuracy,
    ModelRecord,
    Prediction,
    PrunedSave,
    PruneReport,
    SignReport,
    SyncReport,
)

__all__ = [
    "AliasMove",
    "Finding",
    "Fix",
    "Health",
    "LiveModel",
    "LottoMlflowError",
    "MigrateReport",
    "ModelAccuracy",
    "ModelManager",
    "ModelRecord",
    "Prediction",
    "PruneReport",
    "PrunedSave",
    "SignReport",
    "SyncReport",
    "accuracy",
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

__version__ = "1.0.0"
