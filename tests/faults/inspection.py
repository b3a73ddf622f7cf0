"""What the crash points save, mend, and look at, whatever was killed."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from pathlib import Path
from typing import Any

from faults import crashes

from lotto_mlflow import ModelManager

NAME = "lotto_model_kept"
NEXT_NAME = "lotto_model_next"
OLD = {"weights": [1.0] * 40}
NEW = {"weights": [2.0] * 30}
NEXT = {"weights": [3.0] * 20}
EARLIER: dict[str, Any] = {
    "accuracy": 0.5,
    "note": "earlier",
    "saved_at": "2025-11-03T09:00:00+09:00",
}
LATER: dict[str, Any] = {"accuracy": 0.75, "note": "later"}
_ALLOWED = {
    "trained": r"[^.].*\.pkl",
    "metadata": r"predictions|[^.].*_metadata\.json",
    "backups": r"predictions|[^.].*(\.pkl|_metadata\.json)",
    "metadata/predictions": r"[^.].*\.json|results\.csv",
    "backups/predictions": r"[^.].*\.json|results(\.\d+)?\.csv",
}


def put_database(database: Path, base_dir: Path) -> None:
    """Give a new folder a database that need not be migrated."""
    (base_dir / "mlflow").mkdir(parents=True)
    shutil.copyfile(database, base_dir / "mlflow" / "mlflow.db")


def uri_of(base_dir: Path) -> str:
    """Return the address of the embedded tracking store."""
    return f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"


def mend(manager: ModelManager, mended_by: str) -> list[str]:
    """Have a folder mended, and tell what that left unsent."""
    if mended_by == "sync":
        report = manager.sync()
        return [f"not sent: {report.failed}"] if report.failed else []
    manager.save_model(NEXT, NEXT_NAME, LATER)
    problems = [] if manager.flush() else ["the next save left something unsent"]
    crashes.join_pushes()
    return problems


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wrong_names(base_dir: Path) -> list[str]:
    """Tell what the specification's folders hold that they must never hold."""
    return [
        f"a strange file: {path}"
        for folder, pattern in _ALLOWED.items()
        for path in (base_dir / folder).glob("*")
        if not re.fullmatch(pattern, path.name)
    ]


def left_over(base_dir: Path, *folders: str) -> list[str]:
    """Tell what is still in folders that are empty when nothing is under way."""
    return [
        f"left over: {path.relative_to(base_dir)}"
        for folder in folders
        for path in (base_dir / "mlflow" / folder).iterdir()
    ]


class Log(logging.Handler):
    """Keeps what the package logs from now on."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        logger = logging.getLogger("lotto_mlflow")
        logger.addHandler(self)
        logger.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def unverified(self) -> list[str]:
        """Return the lines that say a model was loaded unverified."""
        return [line for line in self.lines if "unverified" in line]
