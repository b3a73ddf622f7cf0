"""A Celery app whose tasks save in the background; the environment says where, and whether it ends
as the README advises."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery
from celery.signals import worker_process_shutdown

from lotto_mlflow import ModelManager

_folder = Path(os.environ["CELERY_DIR"])
app = Celery("celery_app", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(_folder / "queue"),
        "data_folder_out": str(_folder / "queue"),
        "control_folder": str(_folder / "control"),
    },
    task_ignore_result=True,
)
manager = ModelManager(_folder / "ml", mirror="background")
if os.environ.get("CELERY_FLUSHES"):
    worker_process_shutdown.connect(lambda **_: manager.flush(), weak=False)


@app.task
def train(number: int) -> str:
    return manager.save_model({"number": number}, f"x{number}", {"number": number})
