"""Operations of this package, called as a backend calls them."""

from __future__ import annotations

import itertools
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.operations import METADATA, Operation, Setup

SYNC_STEP = 100
"""Files between two looks at the memory of a sync."""
FIRST_NUMBER = 10_000_000
"""In the name of the first model that the harness saves in a folder; the others count on."""
OLDEST_MODEL = f"lotto_model_{FIRST_NUMBER + 1}"
"""In a folder of versions, a small model with the oldest save of all."""

OWN_MODEL = "lotto_model_own"
GAMES = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]
_MADE_AT = datetime(2002, 1, 1, tzinfo=timezone.utc)


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


def save_on_disk(setup: Setup) -> Operation:
    os.environ["LOTTO_MIRROR"] = "off"
    return save(setup)


def save_signed(setup: Setup) -> Operation:
    os.environ["LOTTO_SIGNING_KEY"] = str(_key(setup))
    return save_on_disk(setup)


def load_signed(setup: Setup) -> Operation:
    """Load a model that a trusted key signed; anything else is refused meanwhile."""
    key = _key(setup)
    os.environ["LOTTO_SIGNING_KEY"] = str(key)
    os.environ["LOTTO_STATE_DIR"] = str(setup.folder / "state")
    operation = load(setup)
    del os.environ["LOTTO_SIGNING_KEY"]
    os.environ["LOTTO_TRUSTED_KEYS"] = f"{key}.pub"
    return operation


def _key(setup: Setup) -> Path:
    """Return a private key outside the folder of models."""
    from lotto_mlflow.signing import new_key

    path = setup.folder / "keys" / "sign.pem"
    if not path.exists():
        path.parent.mkdir(parents=True)
        new_key(path, None)
    return path


def load_latest(setup: Setup) -> Operation:
    functions_ = functions(setup)
    return Operation(lambda: functions_.load_model("models:/lotto_model/latest"))


def load_oldest(setup: Setup) -> Operation:
    functions_ = functions(setup)
    path = base_dir(setup.folder) / "trained" / f"{OLDEST_MODEL}.pkl"
    return Operation(lambda: functions_.load_model(path))


def newest(setup: Setup) -> Operation:
    return Operation(functions(setup).get_latest_model_path)


def newest_of_registry(setup: Setup) -> Operation:
    functions_ = functions(setup)
    return Operation(lambda: functions_.get_latest_model_path(source="registry"))


def get(setup: Setup) -> Operation:
    manager = _manager_of(setup)
    return Operation(lambda: manager.get(OLDEST_MODEL))


def records(setup: Setup) -> Operation:
    manager = _manager_of(setup)
    return Operation(lambda: {"models": len(manager.records())})


def record_prediction(setup: Setup) -> Operation:
    """Record a prediction whose result is known, so that its figures go to MLflow, too."""
    functions_ = _with_a_model(setup)
    draws = itertools.count(1)

    def run() -> None:
        draw_no = next(draws)
        functions_.record_prediction(OWN_MODEL, draw_no, GAMES, made_at=_MADE_AT)

    functions_.import_results(_results(setup))
    return Operation(run)


def record_result(setup: Setup) -> Operation:
    """Record the result of a draw for which there is a prediction."""
    functions_ = _with_a_model(setup)
    predicted, drawn = itertools.count(1), itertools.count(1)

    def predict() -> None:
        functions_.record_prediction(OWN_MODEL, next(predicted), GAMES, made_at=_MADE_AT)

    predict()
    return Operation(lambda: functions_.record_result(next(drawn), GAMES[0], 45), predict)


def _with_a_model(setup: Setup) -> Any:
    functions_ = functions(setup)
    functions_.save_model(setup.model(), OWN_MODEL, METADATA)
    return functions_


def _results(setup: Setup) -> Path:
    """Write the results of a thousand draws."""
    path = setup.folder / "results.csv"
    numbers = ",".join(map(str, GAMES[0]))
    rows = [f"{draw_no},,{numbers},45" for draw_no in range(1, 1001)]
    text = "\n".join(["draw_no,draw_date,n1,n2,n3,n4,n5,n6,bonus", *rows])
    path.write_text(text, encoding="utf-8")
    return path


def verify(setup: Setup) -> Operation:
    """Check a folder in which nothing is wrong.

    Raises
    ------
    RuntimeError
        When run, if there is a finding: it would have been other work that was measured.
    """
    manager, trained_dir = _manager_of(setup), base_dir(setup.folder) / "trained"
    models = len(os.listdir(trained_dir))

    def run() -> dict[str, int]:
        findings = manager.verify()
        if findings:
            raise RuntimeError(f"{len(findings)} findings; the first is {findings[0]}")
        return {"models": models}

    return Operation(run)


def _manager_of(setup: Setup) -> Any:
    from lotto_mlflow import ModelManager

    return ModelManager(base_dir(setup.folder))


def sync(setup: Setup) -> Operation:
    """Bring in a folder of old files; returns what the memory was on the way."""
    from bench.worker import resident_bytes

    manager = _manager_of(setup)

    def run() -> dict[str, Any]:
        memory: list[int | None] = []

        def look(done: int, _total: int, _size: int, _name: str) -> None:
            if done % SYNC_STEP == 0:
                memory.append(resident_bytes())

        report = manager.sync(progress=look)
        return {"files": len(report.sent), "failed": len(report.failed), "memory": memory}

    return Operation(run)
