"""A FastAPI app that saves models, and keeps watch over its event loop; run by uvicorn.

The environment says what it does: ``LOOP_SAVES`` that it saves at all, ``LOOP_WARM_UP`` that it
warms up first, and ``LOOP_DIR`` where each worker writes what it saw.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from fastapi import FastAPI
from sklearn.ensemble import RandomForestClassifier

TICK_SECONDS = 0.005
SAVES = os.environ.get("LOOP_SAVES") == "1"
WARMS_UP = os.environ.get("LOOP_WARM_UP") == "1"
FOLDER = Path(os.environ["LOOP_DIR"])

_features = np.random.default_rng(645).normal(size=(200, 6))
MODEL = RandomForestClassifier(n_estimators=10, max_depth=4, random_state=0).fit(
    _features, _features[:, 0] > 0
)
ticks: list[tuple[float, float, float]] = []
"""Of each tick: when it came, how late, and how much of that this process held the loop."""


def seconds_in_queue() -> float:
    """Return how long the loop's thread could run and had no processor; 0 where nobody counts."""
    with suppress(OSError):
        path = f"/proc/self/task/{threading.main_thread().native_id}/schedstat"
        return int(Path(path).read_text(encoding="ascii").split()[1]) / 1e9
    return 0.0


async def watch() -> None:
    """Note how late each tick of the event loop comes.

    Notes
    -----
    While another thread of this process holds the interpreter, the process uses a processor; while
    another process has the processor, it does not, or the loop's thread waits in the queue.
    """
    while True:
        begun, used, queued = time.monotonic(), time.process_time(), seconds_in_queue()
        await asyncio.sleep(TICK_SECONDS)
        late = time.monotonic() - begun - TICK_SECONDS
        of_process = time.process_time() - used
        ticks.append((begun, late, min(of_process, late - (seconds_in_queue() - queued))))


async def save(reason: str) -> str:
    if not SAVES:
        return ""
    from lotto_mlflow import save_model

    return await asyncio.to_thread(save_model, MODEL, metadata={"accuracy": 0.5, "reason": reason})


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    if WARMS_UP:
        from lotto_mlflow import warm_up

        assert await asyncio.to_thread(warm_up, wait=True)
    scheduler = AsyncIOScheduler()
    scheduler.add_job(save, "interval", seconds=1, args=["schedule"], max_instances=8)
    scheduler.start()
    watching = asyncio.create_task(watch())
    (FOLDER / f"{os.getpid()}.ready").touch()
    yield
    scheduler.shutdown()
    watching.cancel()
    (FOLDER / f"{os.getpid()}.json").write_text(json.dumps(ticks), encoding="utf-8")


app = FastAPI(lifespan=lifespan)


@app.post("/models")
async def train() -> str:
    return await save("request")
