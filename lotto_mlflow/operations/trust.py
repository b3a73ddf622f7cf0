"""Trust: accept on purpose that the latest is older than what this host has seen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from lotto_mlflow import layout as names
from lotto_mlflow import trusted
from lotto_mlflow.errors import (
    InvalidNameError,
    MirrorUnavailableError,
    ModelNotFoundError,
    SettingsError,
)
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.operations import find, newest, versions
from lotto_mlflow.records import ModelRecord
from lotto_mlflow.references import VersionReference
from lotto_mlflow.settings import Target
from lotto_mlflow.signing import Statement
from lotto_mlflow.text import composed

_logger = logging.getLogger("lotto_mlflow")


def accept(folder: ModelFolder, name: Any) -> list[ModelRecord]:
    """Have the present latest of a registered model be the newest that was seen.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    name : str
        The registered model, or a model that is a version of it.
    """
    if not isinstance(name, str) or not name.strip():
        summary = f"{name!r:.100} names no model; give that of a registered model"
        raise InvalidNameError(summary, name=name)
    trust = trusted.of_folder(folder)
    if trust is None:
        raise SettingsError(
            "only what is signed can be noticed to be rolled back, and signatures are not asked "
            "for here; set LOTTO_TRUSTED_KEYS",
            value=folder.settings().trust,
        )
    given, target = composed(name), folder.target()
    is_registered = given == names.REGISTERED_MODEL
    registered = given if is_registered else names.registered_model(given)
    accepted = []
    for place, record, statement in (
        *_on_disk(folder, trust, registered, target),
        *_in_registry(folder, trust, registered, target),
    ):
        newest.check_has_come(folder, place, statement)
        newest.seen_by(folder).accept(statement, newest.place_of(folder, place, statement.folder))
        accepted.append(record)
    if not accepted:
        raise ModelNotFoundError(
            f"there is no latest of {registered}, neither in {folder.layout.trained_dir} nor in "
            "the registry; nothing was accepted",
            name=registered,
        )
    return accepted


_Found = tuple[Target | None, ModelRecord, Statement]


def _on_disk(
    folder: ModelFolder, trust: trusted.Trusted, registered: str, target: Target
) -> Iterator[_Found]:
    path = folder.store.latest() if registered == names.REGISTERED_MODEL else None
    if path is not None:
        history = folder.history()
        file = history.file(path)
        signed = trust.of_file(history, file, file.sha256, file.status.st_size)
        yield None, find.record_of(history, target, file), signed.statement


def _in_registry(
    folder: ModelFolder, trust: trusted.Trusted, registered: str, target: Target
) -> Iterator[_Found]:
    """Yield the latest that the registry has; without an answer, nothing is accepted there."""
    if folder.settings().mirror == "off":
        return
    try:
        found = versions.unchecked(folder, target, VersionReference(registered))
    except ModelNotFoundError:
        return
    except MirrorUnavailableError as cause:
        _logger.warning("what the registry has was not accepted: %s", cause)
        return
    if found is not None:
        yield target, found, trust.of_version(target, found).statement
