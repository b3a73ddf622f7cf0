"""Recording: what saves, predictions and results have in common on their way to MLflow."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lotto_mlflow.errors import LottoMlflowError
from lotto_mlflow.files import locked
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.kinds import recover
from lotto_mlflow.kinds.draws import end_of
from lotto_mlflow.push import PushWorker
from lotto_mlflow.records import Record
from lotto_mlflow.settings import Settings, Target
from lotto_mlflow.store.predictions import PredictionProtocol

_logger = logging.getLogger("lotto_mlflow")
Build = Callable[[PredictionProtocol, int], "Record[Any] | None"]
"""Returns the record to be written, given its time in nanoseconds; ``None`` for none."""


def now() -> datetime:
    """Return the current moment."""
    return datetime.fromtimestamp(time.time_ns() / 10**9, timezone.utc)


@contextmanager
def recording(folder: ModelFolder, what: str) -> Iterator[PredictionProtocol]:
    """Hold the folder's lock, with everything finished that a dead process left.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    what : str
        What is done, for the message of an error.
    """
    folder.make_dirs()
    errors = folder.disk_errors(f"{what} could not be recorded", "The folder is as it was")
    with errors, folder.workspace() as work_dir, locked(folder.lock()):
        folder.note_format(work_dir)
        recover(folder, work_dir)
        yield PredictionProtocol(folder.layout, folder.journal, work_dir)


def commit(folder: ModelFolder, protocol: PredictionProtocol, build: Build) -> Record[Any] | None:
    """Write a record, with a time that no other has; the caller holds the lock."""
    clock = protocol.work_dir / f"time-{os.urandom(4).hex()}"
    clock.touch()
    record = build(protocol, folder.store.stamp(clock, protocol.work_dir))
    if record is not None:
        protocol.commit(record, end_of(folder.journal, record))
    return record


def pushed(
    folder: ModelFolder, target: Target, record: Record[Any], *, waits: bool
) -> LottoMlflowError | None:
    """Have a record pushed; return what went wrong, as far as that is waited for."""
    worker = PushWorker.of(folder, target)
    number = worker.request(warns=not waits)
    return worker.wait_for(number, record) if waits else None


def push(folder: ModelFolder, current: Settings, record: Record[Any], what: str | Path) -> None:
    """Have the figures of a record sent to MLflow as the settings say, if there are any to send."""
    if current.mirror == "off" or not folder.journal.is_waiting(record):
        return
    problem = pushed(folder, folder.target(current), record, waits=current.mirror == "sync")
    if problem is not None:
        _logger.warning(
            "%s is recorded, and its figures are sent to MLflow later, by another save: %s",
            what,
            problem,
        )
