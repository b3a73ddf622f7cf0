"""Measure how late event loops are with saves, and without: ``python -m event_loop``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from event_loop.measuring import RATE, WORKERS, measure, ratio

SECONDS = 10.0


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = measure(folder / "base", saves=False, warms_up=False, seconds=SECONDS)
        ours = measure(folder / "ours", saves=True, warms_up=True, seconds=SECONDS)
        cold = measure(folder / "cold", saves=True, warms_up=False, seconds=SECONDS)
    print(f"{RATE} requests a second to {WORKERS} workers, each of which saves a model")
    print(f"without saves:            {base}")
    print(f"saves after warm_up():    {ours}; {ratio(ours, base):.1f} times as late")
    print(f"saves without warm_up():  {cold}; {ratio(cold, base):.1f} times as late")


if __name__ == "__main__":
    main()
