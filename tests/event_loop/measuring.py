"""Requests to the app at a steady rate, and what its event loops saw of that time."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
from serving import free_port, running

WORKERS = 2
RATE = 50
"""Requests a second."""
HELD_SECONDS = 0.05
"""How long the package may hold an event loop."""


@dataclass(frozen=True)
class Seen:
    """What the event loops of the workers saw while requests came.

    Attributes
    ----------
    late : list of float
        Seconds by which each tick was late, ascending.
    held : list of float
        Seconds of that in which the process itself held the loop, ascending.
    paths : list of str
        What the requests were answered with.
    """

    late: list[float]
    held: list[float]
    paths: list[str]

    def __str__(self) -> str:
        late, held = (
            f"{quantile(values, 0.5):.1f} ms median, {quantile(values, 0.99):.1f} ms in 99 of 100, "
            f"{values[-1] * 1000:.1f} ms at most"
            for values in (self.late, self.held)
        )
        return f"late {late}; held by the process {held}"


def quantile(values: list[float], share: float) -> float:
    """Return a quantile of ascending seconds, in milliseconds."""
    return values[int(len(values) * share)] * 1000


def ratio(ours: Seen, base: Seen) -> float:
    """Return how late 99 of 100 ticks are at most, against the app without saves."""
    return quantile(ours.late, 0.99) / quantile(base.late, 0.99)


def measure(folder: Path, *, saves: bool, warms_up: bool, seconds: float) -> Seen:
    """Run the app under uvicorn, ask it at the rate, and return what its loops saw meanwhile.

    Parameters
    ----------
    folder : pathlib.Path
        A new folder: ``app`` is the backend's in it.
    saves, warms_up : bool
        What the app does.
    seconds : float
        How long requests come.
    """
    folder.mkdir()
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "event_loop.app:app", "--workers", str(WORKERS)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    settings = {
        "LOOP_SAVES": str(int(saves)),
        "LOOP_WARM_UP": str(int(warms_up)),
        "LOOP_DIR": str(folder),
        "LOTTO_APP_DIR": str(folder / "app"),
        "LOTTO_MIRROR": "background",
        "PYTHONPATH": ":".join(map(str, (Path(__file__).parents[1], Path(__file__).parents[2]))),
    }

    def ready() -> bool:
        return len(list(folder.glob("*.ready"))) == WORKERS

    with running(command, folder / "log.txt", ready, **settings):
        begun = time.monotonic()
        url = f"http://127.0.0.1:{port}/models"
        with ThreadPoolExecutor(1) as pool:  # where a test in a browser left a loop in this one
            paths = pool.submit(lambda: asyncio.run(_asked(url, seconds))).result()
        ended = time.monotonic()
    workers = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    assert len(workers) == WORKERS, (folder / "log.txt").read_text()
    seen = [tick for worker in workers for tick in worker if begun <= tick[0] <= ended]
    return Seen(sorted(late for _, late, _ in seen), sorted(held for *_, held in seen), paths)


async def _asked(url: str, seconds: float) -> list[str]:
    """Send requests at the rate, however long the answers take; return the answers."""
    async with httpx.AsyncClient(timeout=240) as client:

        async def ask() -> str:
            answer = await client.post(url)
            answer.raise_for_status()
            return str(answer.json())

        begun, asked = time.monotonic(), []
        for number in range(int(RATE * seconds)):
            await asyncio.sleep(max(0.0, begun + number / RATE - time.monotonic()))
            asked.append(asyncio.create_task(ask()))
        return list(await asyncio.gather(*asked))
