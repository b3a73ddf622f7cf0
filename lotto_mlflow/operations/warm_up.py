"""Warm up: have done, before the first save, what it would have to wait for."""

from __future__ import annotations

import importlib
import logging

from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.push import NOT_READY, Goal, PushWorker

_logger = logging.getLogger("lotto_mlflow")


def warm_up(folder: ModelFolder, *, wait: bool) -> bool | None:
    """Have MLflow imported and the current store opened, created where it is missing.

    Returns
    -------
    bool or None
        Whether that was done; ``None`` where it is not waited for. False where nothing is pushed:
        with ``LOTTO_MIRROR=off``, and in a folder whose records need a later release.

    Notes
    -----
    The thread that pushes does it, so that a fork and the interpreter's exit wait for it as they
    wait for a push. What waits in the outbox is left for the next save.
    """
    current = folder.settings()
    if current.mirror == "off" or folder.later_release is not None:
        return False if wait else None
    importlib.import_module("lotto_mlflow.operations.save")
    worker = PushWorker.of(folder, folder.target(current))
    request = worker.request(Goal.OPEN, warns=not wait)
    if not wait:
        return None
    problem = worker.wait_until_open(request)
    if problem is not None:
        _logger.warning(NOT_READY, problem)
    return problem is None
