"""The journal's records, their JSON, and `ModelRecord`, what a lookup returns.

A record is an envelope, `Record`, around a payload; the envelope's ``kind`` says which. A new kind
adds a payload here, and its functions to `lotto_mlflow.kinds`.
"""

from lotto_mlflow.records.codec import (
    FORMAT,
    FORMAT_RELEASE,
    is_digest,
    is_id,
    is_nested_deeper,
    parse,
    render,
)
from lotto_mlflow.records.lifecycle import (
    AliasHolder,
    AliasMove,
    below,
    chained,
    parse_move,
    render_move,
    stack_of,
    token_of,
)
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
    Progress,
    Record,
    RestorePayload,
    RestoreRecord,
    SavePayload,
    SaveRecord,
    aliases_by_version,
    no_progress,
)

__all__ = [
    "BACKFILL",
    "FORMAT",
    "FORMAT_RELEASE",
    "RESTORE",
    "SAVE",
    "AliasHolder",
    "AliasMove",
    "Aliases",
    "Attempt",
    "Description",
    "Finding",
    "MlflowIds",
    "ModelRecord",
    "Note",
    "Progress",
    "Record",
    "RestorePayload",
    "RestoreRecord",
    "SavePayload",
    "SaveRecord",
    "SyncReport",
    "aliases_by_version",
    "below",
    "chained",
    "is_digest",
    "is_id",
    "is_nested_deeper",
    "no_progress",
    "parse",
    "parse_move",
    "render",
    "render_move",
    "stack_of",
    "token_of",
]
