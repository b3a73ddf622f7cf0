"""What a candidate is to the harness: a call that is timed, and one that tidies up after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METADATA = {"accuracy": 0.91, "draws": 1196, "비고": "benchmark"}
"""What every candidate that keeps metadata is given."""


@dataclass(frozen=True)
class Setup:
    """Where an operation works, and on what."""

    folder: Path
    object_path: Path | None

    def model(self) -> Any:
        """Return the fitted object, read from the harness's own copy."""
        import joblib

        return joblib.load(self.object_path)

    def new_path(self, suffix: str) -> Path:
        """Return a file in the folder that is not there yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = sum(1 for path in self.folder.iterdir() if path.suffix == suffix)
        return self.folder / f"model_{number}{suffix}"


@dataclass(frozen=True)
class Operation:
    """``run`` is timed; ``after`` is not, and leaves nothing running."""

    run: Callable[[], object]
    after: Callable[[], object] = lambda: None
