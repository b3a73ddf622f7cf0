"""Versions of registered models: found, read, created."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from lotto_mlflow import layout as names
from lotto_mlflow.mirror import entities
from lotto_mlflow.mirror.connection import Connection, NewestVersion
from lotto_mlflow.records import ModelRecord, SaveRecord
from lotto_mlflow.requirements import version_in

MODEL_NAME_TAG = "model_name"
SHA256_TAG = "sha256"
SAVED_AT_TAG = "saved_at"
SAVE_ID_TAG = "save_id"
MODEL_ID_TAG = "model_id"
"""The logged model of a version: MLflow's SQL registry accepts the id, and does not keep it."""
BACKFILLED_TAG = "backfilled"
"""On what was found on disk, and not saved by this package."""
SKLEARN_TAG = "sklearn_version"
LATE_TAG = "late"
"""On a version whose save is older than one that already had a version."""
_VERSIONS_TAG = "mlflow.modelVersions"
_PAGE = 100
_SAVE_ID = re.compile(r"\d{19}-[0-9a-f]{8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def versions(
    client: MlflowClient, registered: str | None, condition: str = "", first_page: int = _PAGE
) -> Iterator[ModelVersion]:
    """Yield the versions that this package made, of one registered model or all, newest first."""
    parts = [f'name = "{registered}"'] if registered is not None else []
    query = " and ".join(parts + ([condition] if condition else [])) or None
    token, size = None, first_page
    while True:
        page = client.search_model_versions(
            query, max_results=size, order_by=["version_number DESC"], page_token=token
        )
        yield from (version for version in page if is_ours(version))
        token, size = page.token, _PAGE
        if not token:
            return


def is_ours(version: ModelVersion) -> bool:
    """Return whether a version was made by this package; its tags may be anybody's."""
    tags = version.tags
    return (
        _SAVE_ID.fullmatch(tags.get(SAVE_ID_TAG, "")) is not None
        and _SHA256.fullmatch(tags.get(SHA256_TAG, "")) is not None
        and names.is_name(tags.get(MODEL_NAME_TAG))
        and SAVED_AT_TAG in tags
    )


def newest_version(client: MlflowClient, registered: str) -> ModelVersion | None:
    """Return the highest version that is not tagged late: one indexed query, ordinarily."""
    found = versions(client, registered, first_page=1)
    return next((version for version in found if LATE_TAG not in version.tags), None)


def version_of_save(client: MlflowClient, record: SaveRecord) -> ModelVersion | None:
    """Return the version of a save, looked up by the save's id."""
    condition = f"tags.{SAVE_ID_TAG} = '{record.id}'"
    return next(versions(client, names.registered_model(record.name), condition), None)


def save_id_of(version: ModelVersion) -> str:
    """Return the id of the save that a version mirrors; ids sort in save order."""
    return str(version.tags[SAVE_ID_TAG])


def saved_at_ns_of(version: ModelVersion) -> int:
    """Return the time of the save that a version mirrors, in nanoseconds since 1970."""
    return int(save_id_of(version).partition("-")[0])


def as_record(version: ModelVersion) -> ModelRecord:
    """Return what a version's tags say, with no path on disk."""
    return ModelRecord(
        name=version.tags[MODEL_NAME_TAG],
        sha256=version.tags[SHA256_TAG],
        saved_at=version.tags[SAVED_AT_TAG],
        saved_at_ns=saved_at_ns_of(version),
        registered_model=version.name,
        version=int(version.version),
        run_id=version.run_id,
        model_id=version.tags.get(MODEL_ID_TAG),
        sklearn_version=version.tags.get(SKLEARN_TAG),
        aliases=tuple(sorted(version.aliases)),
    )


def newest_version_before(connection: Connection, record: SaveRecord) -> NewestVersion:
    """Return the newest version that a save joins; remembered, if it was made by this connection.

    Parameters
    ----------
    connection : Connection
        The store to write to.
    record : SaveRecord
        The save.
    """
    registered = names.registered_model(record.name)
    known = connection.newest_versions.get(registered, NewestVersion())
    if known.number and known.save_id <= record.id:
        return known
    found = newest_version(connection.client, registered)
    if found is None:
        return NewestVersion()
    return NewestVersion(int(found.version), save_id_of(found))


def create_version(
    connection: Connection,
    model: LoggedModel,
    record: SaveRecord,
    identity: dict[str, str],
    before: NewestVersion,
) -> int:
    """Create the version of a save, tagged late where its registered model has a newer save.

    Parameters
    ----------
    connection : Connection
        The store to write to.
    model : mlflow.entities.LoggedModel
        The logged model of the save.
    record : SaveRecord
        The save.
    identity : dict of str to str
        The tags by which the save is known.
    before : NewestVersion
        What `newest_version_before` returned for the registered model.

    Returns
    -------
    int
        Its number.

    Notes
    -----
    The number of the new version shows whether others have registered any since; only then are
    theirs looked at, too.
    """
    registered = names.registered_model(record.name)
    late = {LATE_TAG: "true"} if before.save_id > record.id else {}
    created = _create(connection, model, record, identity | late)
    if late:
        return created
    if created > before.next and _has_newer(connection.client, record, before.number):
        connection.client.set_model_version_tag(registered, str(created), LATE_TAG, "true")
        connection.newest_versions.pop(registered, None)
    else:
        connection.newest_versions[registered] = NewestVersion(created, record.id)
    return created


def _has_newer(client: MlflowClient, record: SaveRecord, number: int) -> bool:
    """Return whether a version after the one of this number is of a newer save."""
    found = versions(client, names.registered_model(record.name))
    later = takewhile(lambda version: int(version.version) > number, found)
    return any(save_id_of(v) > record.id for v in later if LATE_TAG not in v.tags)


def _create(
    connection: Connection, model: LoggedModel, record: SaveRecord, tags: dict[str, str]
) -> int:
    client, registered = connection.client, names.registered_model(record.name)
    tags = tags | {MODEL_ID_TAG: model.model_id}
    sklearn_version = version_in(record.payload.description.requirements, "scikit-learn")
    if sklearn_version is not None:
        tags[SKLEARN_TAG] = sklearn_version
    arguments = {
        "name": registered,
        "source": model.artifact_location,
        "run_id": model.source_run_id,
        # another registry does not know the logged model, and refuses its id
        "model_id": None if connection.has_own_registry else model.model_id,
        "tags": entities.tags(tags),
        "description": entities.summary(record, model.model_id, model.experiment_id),
        "await_creation_for": None,
    }
    try:
        return int(client.create_model_version(**arguments).version)
    except MlflowException as cause:
        if cause.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    with _existing_allowed():
        client.create_registered_model(registered)
    return int(client.create_model_version(**arguments).version)


def link_tag(record: SaveRecord, version: int | str) -> dict[str, str]:
    """Return the tag of a logged model by which the UI shows the version that it became.

    Notes
    -----
    Registering by ``create_model_version`` sets no such tag in a store of one's own, as
    ``register_model`` does (MLflow 3.17, mlflow.tracking._model_registry.fluent), and a server
    does where it does not have it yet.
    """
    registered = {"name": names.registered_model(record.name), "version": str(version)}
    return {_VERSIONS_TAG: json.dumps([registered])}


@contextmanager
def _existing_allowed() -> Iterator[None]:
    """Let a creation pass where another process was faster."""
    try:
        yield
    except MlflowException as cause:
        if cause.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
