"""MLflow's scoring of many models in one process, where the package cannot be imported.

Starting Python and importing MLflow takes longer than all that they answer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mlflow
import uvicorn
from fastapi import FastAPI
from mlflow.pyfunc import scoring_server

READY = "ready"


def predict(task: dict[str, str]) -> None:
    """Do what ``mlflow models predict`` does, and write what came of it."""
    try:
        mlflow.models.predict(
            task["model"],
            input_path=task["input"],
            content_type=task["type"],
            output_path=task["output"],
            env_manager="local",
        )
    except Exception as cause:  # noqa: BLE001 - the test shows it
        Path(task["output"]).write_text(json.dumps({"error": repr(cause)}))


def application(models: dict[str, str]) -> FastAPI:
    """Return the applications that ``mlflow models serve`` runs for each model, under its name."""
    whole = FastAPI()
    for name, model in models.items():
        whole.mount(f"/{name}", scoring_server.init(mlflow.pyfunc.load_model(model)))
    whole.get(f"/{READY}")(lambda: True)
    return whole


def main() -> None:
    plan: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for task in plan["tasks"]:
        predict(task)
    app = application(plan["models"])
    uvicorn.run(app, host="127.0.0.1", port=plan["port"], log_level="warning")


if __name__ == "__main__":
    assert sys.modules["lotto_mlflow"] is None
    main()
