"""Creating in MLflow what others create at the same moment: refused for that, it is done again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Before each further try, up to half as much again by chance: rivals must not stay in step."""
_SIGNS = (
    "model version creation error",
    "integrityerror",
    "uniqueviolation",
    "unique constraint",
    "duplicate key",
    "duplicate entry",
    "deadlock",
    "could not serialize",
)
"""What the message of an error has that is of two writers at one moment.

MLflow counts versions and looks for rows before it inserts (3.17), and has no code for what the
database refuses then: it gives up after three tries, or hands on what the database said.
"""
FORBIDDEN = "PERMISSION_DENIED"
"""MLflow's basic auth answers so about what is not there, too."""
_NO_MODEL = ("RESOURCE_DOES_NOT_EXIST", FORBIDDEN)
"""Answers about a registered model that is not there."""
_T = TypeVar("_T")


def is_of_race(cause: MlflowException) -> bool:
    """Return whether an error says no more than that somebody else wrote at the same moment."""
    message = str(cause).lower()
    is_refused = cause.error_code == "RESOURCE_ALREADY_EXISTS"
    return is_refused or any(sign in message for sign in _SIGNS)


def repeated(call: Callable[[], _T], found: Callable[[], _T | None] = lambda: None) -> _T:
    """Return what a call returns; it is done again, some times, where another writer was faster.

    Parameters
    ----------
    call : callable
        Writes something to MLflow.
    found : callable
        Returns what an earlier try has written although it was refused, ``None`` for nothing.
    """
    for pause in PAUSES_SECONDS:
        try:
            return call()
        except MlflowException as cause:
            if not is_of_race(cause):
                raise
        time.sleep(pause * random.uniform(1, 1.5))  # noqa: S311 - of no secret
        there = found()
        if there is not None:
            return there
    return call()


def create_version(
    client: MlflowClient,
    arguments: dict[str, Any],
    description: str,
    found: Callable[[], ModelVersion | None],
) -> ModelVersion:
    """Create a version, and its registered model where there is none yet.

    Parameters
    ----------
    client : mlflow.MlflowClient
        The client of the registry.
    arguments : dict
        Those of ``create_model_version``.
    description : str
        That of the registered model.
    found : callable
        Returns the version where it is there already.
    """

    def create() -> ModelVersion:
        return client.create_model_version(**arguments)

    try:
        return repeated(create, found)
    except MlflowException as cause:
        if cause.error_code not in _NO_MODEL:
            raise
    try:
        client.create_registered_model(arguments["name"], description=description)
    except MlflowException as cause:
        if not is_of_race(cause):  # another process was faster
            raise
    return repeated(create, found)


def set_version_tag(client: MlflowClient, name: str, number: int, key: str, value: str) -> None:
    """Set a tag of a version."""
    repeated(lambda: client.set_model_version_tag(name, str(number), key, value))
