"""Versions of registered models: found, read, created."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import takewhile
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from lotto_mlflow import layout as names
from lotto_mlflow.errors import MirrorUnavailableError
from lotto_mlflow.mirror import entities
from lotto_mlflow.mirror.connection import Connection, NewestVersion
from lotto_mlflow.records import BACKFILL, MlflowIds, ModelRecord, SaveRecord, is_digest, is_id
from lotto_mlflow.records.checks import is_save_id
from lotto_mlflow.requirements import version_in
from lotto_mlflow.settings import CLOCK_TOLERANCE_SECONDS
from lotto_mlflow.text import composed

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
_MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
"""Answers about what is not there."""
FORBIDDEN = "PERMISSION_DENIED"
"""MLflow's basic auth answers so about what is not there, too."""
_PAGE = 1_000
_NEWEST_PAGE = 20
"""Versions looked at for the newest save: copies of old ones may have higher numbers."""
_MODEL_IN_SOURCE = re.compile(r"(?:^models:/|/models/)(m-[A-Za-z0-9]{1,126})(?:/|$)")
_T = TypeVar("_T")
_NUMBER = re.compile(r"[0-9]{1,18}")


def existing(ask: Callable[[], _T]) -> _T | None:
    """Return MLflow's answer, ``None`` where it says that there is no such thing."""
    try:
        return ask()
    except MlflowException as cause:
        if cause.error_code not in _MISSING:
            raise
        return None


def pages(
    client: MlflowClient, registered: str | None, condition: str = "", first_page: int = _PAGE
) -> Iterator[list[ModelVersion]]:
    """Yield the versions of one registered model or all, newest first, a page at a time.

    Notes
    -----
    A version of another registered model than the one asked for is no answer, and neither is one
    whose ids are none.
    """
    parts = [f'name = "{registered}"'] if registered is not None else []
    query = " and ".join(parts + ([condition] if condition else [])) or None
    token, size = None, first_page
    while True:
        page = client.search_model_versions(
            query, max_results=size, order_by=["version_number DESC"], page_token=token
        )
        yield [v for v in page if registered in (None, v.name) and is_well_formed(v)]
        token, size = page.token, _PAGE
        if not token:
            return


def is_well_formed(version: ModelVersion) -> bool:
    """Return whether the number and the run of a version are of the form that MLflow gives them."""
    number = str(version.version)
    is_number = _NUMBER.fullmatch(number) is not None
    return is_number and is_id(version.run_id or "") and isinstance(version.name, str)


def versions(
    client: MlflowClient, registered: str | None, condition: str = "", first_page: int = _PAGE
) -> Iterator[ModelVersion]:
    """Yield the versions that this package made, of one registered model or all, newest first."""
    for page in pages(client, registered, condition, first_page):
        yield from (version for version in page if is_ours(version.tags))


def is_ours(tags: Mapping[str, str]) -> bool:
    """Return whether tags are those of a save; those of a version may be anybody's."""
    return (
        is_save_id(tags.get(SAVE_ID_TAG))
        and is_digest(tags.get(SHA256_TAG))
        and names.is_name(tags.get(MODEL_NAME_TAG))
        and SAVED_AT_TAG in tags
    )


def newest_version(
    client: MlflowClient, registered: str | None, condition: str = ""
) -> ModelVersion | None:
    """Return the version of the newest save: one indexed query, ordinarily."""
    return newest_of(_newest_page(client, registered, condition))[0]


def _newest_page(
    client: MlflowClient, registered: str | None, condition: str = ""
) -> list[ModelVersion]:
    """Return the highest versions, with one at least that is no copy, and not tagged late.

    Notes
    -----
    The tag only says that reading on may be worth while: others can set it, too.
    """
    found: list[ModelVersion] = []
    for page in pages(client, registered, condition, _NEWEST_PAGE):
        found += [version for version in page if is_ours(version.tags)]
        if any(LATE_TAG not in v.tags and not _is_copy(v) for v in found):
            break
    return found


def _is_copy(version: ModelVersion) -> bool:
    """Return whether a version was made by MLflow's ``copy_model_version``, tags and all."""
    return str(version.source).startswith("models:/")


def newest_of(found: Iterable[ModelVersion]) -> tuple[ModelVersion | None, str]:
    """Return the version of the newest save, and the place of that save in the order of ids.

    Notes
    -----
    Of a save whose time has not come yet the number decides: its version is newer than those
    before it, and older than the next. A copy of an older save stands where that save does.
    """
    end = _end_of_time()
    newest, order = None, ""
    for version in sorted(found, key=lambda version: int(version.version)):
        own = save_id_of(version)
        place = own if own < end else order
        if place >= order:
            newest, order = version, place
    return newest, order


def newest_first(found: Iterable[ModelVersion]) -> list[ModelVersion]:
    """Return versions by the order of their saves; those whose time has not come yet are last."""
    end = _end_of_time()
    return sorted(found, key=lambda v: (save_id_of(v) < end, save_id_of(v)), reverse=True)


def _end_of_time() -> str:
    return f"{time.time_ns() + CLOCK_TOLERANCE_SECONDS * 10**9:019d}"


def version_of_save(client: MlflowClient, record: SaveRecord) -> ModelVersion | None:
    """Return the version of a save, in whatever registered model it is; looked up by its id."""
    found = versions(client, None, f"tags.{SAVE_ID_TAG} = '{record.id}'")
    own = (record.id, record.payload.sha256)
    return first_of(record, (v for v in found if (save_id_of(v), v.tags[SHA256_TAG]) == own))


def first_of(record: SaveRecord, found: Iterable[ModelVersion]) -> ModelVersion | None:
    """Return of several versions of a save the one that its push made, as far as can be told."""
    own_name = names.registered_model(record.name)
    return min(found, key=lambda v: (v.name != own_name, v.name, int(v.version)), default=None)


def ids_of(version: ModelVersion, record: SaveRecord) -> MlflowIds:
    """Return what a save is called where a version of it was found."""
    is_renamed = version.name != names.registered_model(record.name)
    return MlflowIds(
        version=int(version.version),
        run_id=version.run_id or "",
        model_id=model_id_of(version),
        registered_model=version.name if is_renamed else None,
    )


def model_id_of(version: ModelVersion) -> str:
    """Return the logged model of a version, as its tag or its source says; empty without one."""
    match = _MODEL_IN_SOURCE.search(version.source or "")
    tagged = version.tags.get(MODEL_ID_TAG)
    return str(tagged if tagged and is_id(tagged) else match.group(1) if match else "")


def save_id_of(version: ModelVersion) -> str:
    """Return the id of the save that a version mirrors; ids sort in save order."""
    return str(version.tags[SAVE_ID_TAG])


def as_record(version: ModelVersion, tags: Mapping[str, str] | None = None) -> ModelRecord:
    """Return what tags say of a version, by default its own, with no path on disk."""
    own = version.tags if tags is None else tags
    return ModelRecord(
        name=composed(own[MODEL_NAME_TAG]),
        sha256=own[SHA256_TAG],
        saved_at=own[SAVED_AT_TAG],
        saved_at_ns=int(own[SAVE_ID_TAG].partition("-")[0]),
        registered_model=version.name,
        version=int(version.version),
        run_id=version.run_id,
        model_id=model_id_of(version),
        sklearn_version=own.get(SKLEARN_TAG),
        save_id=own[SAVE_ID_TAG],
        aliases=tuple(sorted(version.aliases)),
        **entities.origin(own),
    )


def tags_of_logged_model(client: MlflowClient, version: ModelVersion) -> dict[str, str] | None:
    """Return the tags that prove an untagged version to be ours: those of its logged model."""
    model = existing(lambda: client.get_logged_model(model_id_of(version)))
    tags = {} if model is None else dict(model.tags)
    return tags if is_ours(tags) else None


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
    found = _newest_page(connection.client, registered)
    number = max((int(version.version) for version in found), default=0)
    return NewestVersion(number, newest_of(found)[1])


def correct_tags(client: MlflowClient, ids: MlflowIds, record: SaveRecord) -> None:
    """Give the version that a record names the tags that the record knows, where they differ."""
    name = names.registered_model_of(ids, record.name)
    version = existing(lambda: client.get_model_version(name, str(ids.version)))
    if version is None or (version.name, version.run_id) != (name, ids.run_id):
        return
    for key, value in identity_tags(record).items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(name, str(ids.version), key, value)


def tag_untagged(client: MlflowClient, ids: MlflowIds, record: SaveRecord) -> None:
    """Give the versions that people registered again from a save's logged model its tags.

    Notes
    -----
    Run and logged model prove them to be ours, as long as these are there and in the record.
    """
    if not (ids.run_id and ids.model_id):
        return
    for version in client.search_model_versions(f"run_id = '{ids.run_id}'"):
        is_of_save = version.run_id == ids.run_id and model_id_of(version) == ids.model_id
        if is_of_save and not is_ours(version.tags) and SAVE_ID_TAG not in version.tags:
            for key, value in (identity_tags(record) | {MODEL_ID_TAG: ids.model_id}).items():
                client.set_model_version_tag(version.name, str(version.version), key, value)


def has_tags_of(record: SaveRecord, tags: Mapping[str, str]) -> bool:
    """Return whether tags name the save, the bytes and the model of a record."""
    own, keys = identity_tags(record), (SAVE_ID_TAG, SHA256_TAG, MODEL_NAME_TAG)
    return all(composed(tags.get(key, "")) == own[key] for key in keys)


def identity_tags(record: SaveRecord) -> dict[str, str]:
    """Return the tags by which run, logged model and version of a save are known."""
    return {
        MODEL_NAME_TAG: record.name,
        SHA256_TAG: record.payload.sha256,
        SAVED_AT_TAG: record.payload.saved_at,
        SAVE_ID_TAG: record.id,
    } | ({BACKFILLED_TAG: "true"} if record.kind == BACKFILL else {})


def create_version(
    connection: Connection,
    model: LoggedModel,
    record: SaveRecord,
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
    before : NewestVersion
        What `newest_version_before` returned for the registered model.

    Returns
    -------
    int
        Its number.

    Notes
    -----
    The number of the new version shows whether others have registered any since; only then are
    theirs looked at, too, and is the number in its description corrected.
    """
    registered = names.registered_model(record.name)
    late = {LATE_TAG: "true"} if before.save_id > record.id else {}
    described = partial(entities.summary, record, model.model_id, model.experiment_id)
    tags = identity_tags(record) | late
    created = _create(connection, model, record, tags, described(version=before.next))
    if created != before.next:
        describe_version(connection.client, record, created, described(version=created))
    if late:
        return created
    if created > before.next and _has_newer(connection.client, record, before.number):
        connection.client.set_model_version_tag(registered, str(created), LATE_TAG, "true")
        connection.newest_versions.pop(registered, None)
    else:
        connection.newest_versions[registered] = NewestVersion(created, record.id)
    return created


def describe_version(
    client: MlflowClient, record: SaveRecord, version: int, description: str
) -> None:
    """Give a version another description; one that may not be changed fails no push."""
    with suppress(MlflowException):
        registered = names.registered_model(record.name)
        client.update_model_version(registered, str(version), description)


def _has_newer(client: MlflowClient, record: SaveRecord, number: int) -> bool:
    """Return whether a version after the one of this number is of a newer save."""
    found = versions(client, names.registered_model(record.name))
    later = takewhile(lambda version: int(version.version) > number, found)
    return newest_of(later)[1] > record.id


def _create(
    connection: Connection,
    model: LoggedModel,
    record: SaveRecord,
    tags: dict[str, str],
    description: str,
) -> int:
    client, registered = connection.client, names.registered_model(record.name)
    tags = tags | {MODEL_ID_TAG: model.model_id} | entities.origin_tags(record)
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
        "description": description,
        "await_creation_for": None,
    }
    try:
        return _number_of(client.create_model_version(**arguments), registered)
    except MlflowException as cause:
        if cause.error_code not in ("RESOURCE_DOES_NOT_EXIST", FORBIDDEN):
            raise
    with _existing_allowed():
        summary = entities.registered_model_summary(registered)
        client.create_registered_model(registered, description=summary)
    return _number_of(client.create_model_version(**arguments), registered)


def _number_of(created: ModelVersion, registered: str) -> int:
    if created.name != registered or not is_well_formed(created):
        raise MirrorUnavailableError(
            f"the registry was given a version of {registered}, and answers with version "
            f"{created.version!r:.50} of {created.name!r:.100}",
            error_code=None,
        )
    return int(created.version)


@contextmanager
def _existing_allowed() -> Iterator[None]:
    """Let a creation pass where another process was faster."""
    try:
        yield
    except MlflowException as cause:
        if cause.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
