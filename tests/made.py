"""Folders and records that several tests begin with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lotto_mlflow.records import SAVE, Description, Record, SavePayload, SaveRecord


def folder_with_store(base_dir: Path, database: Path) -> Path:
    """Make a folder with a copy of an embedded database, in which nothing has been saved."""
    (base_dir / "mlflow").mkdir(parents=True)
    shutil.copyfile(database, base_dir / "mlflow" / "mlflow.db")
    return base_dir


def save_record(description: Description, **payload: Any) -> SaveRecord:
    """Return the record of a save that was never made; keywords go into its payload."""
    values: dict[str, Any] = {
        "name": "x",
        "sha256": "ab" * 32,
        "size": 1,
        "saved_at": "2025-11-03T01:13:20+09:00",
        "saved_at_ns": 1762100000000000000,
    }
    return Record(
        id="1762100000000000000-00000000",
        kind=SAVE,
        host="host",
        target="embedded",
        payload=SavePayload(description=description, **values | payload),
    )
