"""Making a save a version of a registered model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from lotto_mlflow import layout as names
from lotto_mlflow.mirror import entities, lookup, summary
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.mirror.lookup import Newest
from lotto_mlflow.records import SaveRecord
from lotto_mlflow.requirements import version_in

_VERSIONS_TAG = "mlflow.modelVersions"


def newest(connection: Connection, record: SaveRecord) -> Newest:
    """Return the newest version that a save joins; remembered, if it was made by this connection.

    Parameters
    ----------
    connection : Connection
        The store to tell.
    record : SaveRecord
        The save.
    """
    registered = names.registered_model(record.name)
    known = connection.newest.get(registered, Newest())
    if known.number and known.save_id <= record.id:
        return known
    found = lookup.newest_version(connection.client, registered)
    return Newest() if found is None else Newest(int(found.version), lookup.save_id_of(found))


def create(
    connection: Connection,
    model: LoggedModel,
    record: SaveRecord,
    identity: dict[str, str],
    before: Newest,
) -> int:
    """Create the version of a save, tagged late where its registered model has a newer save.

    Parameters
    ----------
    connection : Connection
        The store to tell.
    model : mlflow.entities.LoggedModel
        The logged model of the save.
    record : SaveRecord
        The save.
    identity : dict of str to str
        The tags by which the save is known.
    before : Newest
        What `newest` told of the registered model.

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
    late = {lookup.LATE_TAG: "true"} if before.save_id > record.id else {}
    created = _created(connection, model, record, identity | late)
    if late:
        return created
    if created > before.next and _has_newer(connection.client, record, before.number):
        connection.client.set_model_version_tag(registered, str(created), lookup.LATE_TAG, "true")
        connection.newest.pop(registered, None)
    else:
        connection.newest[registered] = Newest(created, record.id)
    return created


def _has_newer(client: MlflowClient, record: SaveRecord, number: int) -> bool:
    """Tell whether a version after the one of this number is of a newer save."""
    found = lookup.versions(client, names.registered_model(record.name))
    later = takewhile(lambda version: int(version.version) > number, found)
    return any(lookup.save_id_of(v) > record.id for v in later if lookup.LATE_TAG not in v.tags)


def _created(
    connection: Connection, model: LoggedModel, record: SaveRecord, tags: dict[str, str]
) -> int:
    client, registered = connection.client, names.registered_model(record.name)
    tags = tags | {lookup.MODEL_ID_TAG: model.model_id}
    sklearn_version = version_in(record.description.requirements, "scikit-learn")
    if sklearn_version is not None:
        tags[lookup.SKLEARN_TAG] = sklearn_version
    arguments = {
        "name": registered,
        "source": model.artifact_location,
        "run_id": model.source_run_id,
        # another registry does not know the logged model, and refuses its id
        "model_id": None if connection.has_own_registry else model.model_id,
        "tags": entities.tags(tags),
        "description": summary.of(record, model.model_id, model.experiment_id),
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


def link(record: SaveRecord, version: int | str) -> dict[str, str]:
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
