"""Operations of this package, called as a backend calls them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bench.operations import METADATA, Operation, Setup

SYNC_STEP = 100
"""Files between two looks at the memory of a sync."""


def base_dir(app_dir: Path) -> Path:
    """Return the folder of models of a backend."""
    return app_dir / "models" / "ml"


def functions(setup: Setup) -> Any:
    """Import the package for a backend that lies in the folder."""
    os.environ["LOTTO_APP_DIR"] = str(setup.folder)
    from lotto_mlflow import model_utils

    return model_utils


def save(setup: Setup) -> Operation:
    functions_, model = functions(setup), setup.model()
    return Operation(lambda: functions_.save_model(model, metadata=METADATA))


def save_in_background(setup: Setup) -> Operation:
    os.environ["LOTTO_MIRROR"] = "background"
    operation = save(setup)
    from lotto_mlflow import ModelManager

    # a manager of its own would have a thread of its own; the functions' manager is the one at work
    manager: ModelManager = functions(setup)._manager()
    return Operation(operation.run, lambda: manager.flush(timeout=60))


def load(setup: Setup) -> Operation:
    functions_ = functions(setup)
    path = functions_.get_latest_model_path() or functions_.save_model(setup.model(), None, {})
    return Operation(lambda: functions_.load_model(path))


def load_latest(setup: Setup) -> Operation:
    functions_ = functions(setup)
    return Operation(lambda: functions_.load_model("models:/lotto_model/latest"))


def newest(setup: Setup) -> Operation:
    return Operation(functions(setup).get_latest_model_path)


def newest_of_registry(setup: Setup) -> Operation:
    functions_ = functions(setup)
    return Operation(lambda: functions_.get_latest_model_path(source="registry"))


def sync(setup: Setup) -> Operation:
    """Bring in a folder of old files; returns what the memory was on the way."""
    from bench.worker import resident_bytes

    from lotto_mlflow import ModelManager

    def run() -> dict[str, Any]:
        memory: list[int | None] = []

        def look(done: int, _total: int, _size: int, _name: str) -> None:
            if done % SYNC_STEP == 0:
                memory.append(resident_bytes())

        report = ModelManager(base_dir(setup.folder)).sync(progress=look)
        return {"files": len(report.sent), "failed": len(report.failed), "memory": memory}

    return Operation(run)
