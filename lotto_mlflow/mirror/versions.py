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
from lotto_mlflow.records import SaveRecord
from lotto_mlflow.requirements import version_in

_VERSIONS_TAG = "mlflow.modelVersions"


def create(
    connection: Connection, model: LoggedModel, record: SaveRecord, identity: dict[str, str]
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

    Returns
    -------
    int
        Its number.

    Notes
    -----
    What this connection registered last is remembered. The number of the new version shows
    whether others have registered any since; only then are theirs looked at, too.
    """
    registered = names.registered_model(record.name)
    number, newest_id = connection.newest.get(registered, (0, ""))
    if not number or newest_id > record.id:
        number, newest_id = _newest(connection.client, registered)
    late = {lookup.LATE_TAG: "true"} if newest_id > record.id else {}
    created = _created(connection, model, record, identity | late)
    if late:
        return created
    if created > number + 1 and _has_newer(connection.client, record, number):
        connection.client.set_model_version_tag(registered, str(created), lookup.LATE_TAG, "true")
        connection.newest.pop(registered, None)
    else:
        connection.newest[registered] = (created, record.id)
    return created


def _newest(client: MlflowClient, registered: str) -> tuple[int, str]:
    """Return number and save of the newest version, 0 and no save where there is none."""
    found = lookup.newest_version(client, registered)
    return (0, "") if found is None else (int(found.version), lookup.save_id_of(found))


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


def link(client: MlflowClient, model_id: str, record: SaveRecord, version: int | str) -> None:
    """Have the UI show the version with the logged model, as MLflow's ``register_model`` does.

    Notes
    -----
    Registering by ``create_model_version`` sets no such tag in a store of one's own (MLflow 3.17,
    mlflow.tracking._model_registry.fluent), only behind a server.
    """
    registered = {"name": names.registered_model(record.name), "version": str(version)}
    client.set_logged_model_tags(model_id, {_VERSIONS_TAG: json.dumps([registered])})


@contextmanager
def _existing_allowed() -> Iterator[None]:
    """Let a creation pass where another process was faster."""
    try:
        yield
    except MlflowException as cause:
        if cause.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
