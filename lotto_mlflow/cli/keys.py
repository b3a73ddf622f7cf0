"""The keys of what ``--json`` prints: they stay, and new ones may come."""

from __future__ import annotations

from dataclasses import fields

from lotto_mlflow.manager.syncing import SyncReport
from lotto_mlflow.manager.verifying import Finding
from lotto_mlflow.records import ModelRecord

RECORD = (*(field.name for field in fields(ModelRecord)), "mirrored")
FINDING = (*(field.name for field in fields(Finding)), "mend")
KEYS: dict[str, tuple[str, ...]] = {
    "list": (*RECORD, "newest"),
    "show": (*RECORD, "metadata_path", "tracking_uri", "model_uri", "link"),
    "latest": RECORD,
    "compare": ("models", "params", "metrics"),
    "verify": FINDING,
    "sync": tuple(field.name for field in fields(SyncReport)),
    "restore": RECORD,
    "relocate": ("rewritten",),
    "ui": ("link", "tracking_uri"),
    "env": ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"),
    "version": ("lotto-mlflow", "mlflow", "scikit-learn", "joblib", "python"),
}
ROW = ("name", "values", "differs")
"""Of the parameters and the metrics that ``compare`` prints."""
LISTS = frozenset({"list", "verify"})
"""Commands that print a list of objects with these keys, not one object."""


def epilog(command: str) -> str:
    """Return what the help of a command says of its JSON."""
    kind = "a list of objects" if command in LISTS else "an object"
    return f"--json prints {kind} with the keys {', '.join(KEYS[command])}."
