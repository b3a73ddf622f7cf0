"""The journal's records, their JSON, and `ModelRecord`, what a lookup returns.

A record is an envelope, `Record`, around a payload; the envelope's ``kind`` says which. A new kind
adds a payload here, and its functions to `lotto_mlflow.kinds`.
"""

from lotto_mlflow.records.checks import is_digest, is_id
from lotto_mlflow.records.codec import (
    FORMAT,
    FORMAT_RELEASE,
    is_nested_deeper,
    parse,
    render,
)
from lotto_mlflow.records.draws import (
    PREDICTION,
    RESULT,
    RESULTS_NAME,
    ModelAccuracy,
    Prediction,
    PredictionPayload,
    ResultPayload,
    has_name_of_draws,
    prediction_name,
)
from lotto_mlflow.records.prunes import PRUNE, PrunedSave, PrunePayload, PruneReport
from lotto_mlflow.records.reports import Finding, SyncReport
from lotto_mlflow.records.types import (
    BACKFILL,
    RESTORE,
    SAVE,
    Aliases,
    Attempt,
    Description,
    MlflowIds,
    ModelRecord,
    Note,
    PredictionRecord,
    Progress,
    PruneRecord,
    Record,
    RestorePayload,
    RestoreRecord,
    ResultRecord,
    SavePayload,
    SaveRecord,
    aliases_by_version,
    no_progress,
)

__all__ = [
    "BACKFILL",
    "FORMAT",
    "FORMAT_RELEASE",
    "PREDICTION",
    "PRUNE",
    "RESTORE",
    "RESULT",
    "RESULTS_NAME",
    "SAVE",
    "Aliases",
    "Attempt",
    "Description",
    "Finding",
    "MlflowIds",
    "ModelAccuracy",
    "ModelRecord",
    "Note",
    "Prediction",
    "PredictionPayload",
    "PredictionRecord",
    "Progress",
    "PrunePayload",
    "PruneRecord",
    "PruneReport",
    "PrunedSave",
    "Record",
    "RestorePayload",
    "RestoreRecord",
    "ResultPayload",
    "ResultRecord",
    "SavePayload",
    "SaveRecord",
    "SyncReport",
    "aliases_by_version",
    "has_name_of_draws",
    "is_digest",
    "is_id",
    "is_nested_deeper",
    "no_progress",
    "parse",
    "prediction_name",
    "render",
]
