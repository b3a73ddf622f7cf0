"""Versions of registered models: found, read, created."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from lotto_mlflow import layout as names
from lotto_mlflow.errors import MirrorUnavailableError
from lotto_mlflow.mirror import creating, entities, ordering
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.mirror.ordering import Facts, NewestVersion
from lotto_mlflow.mirror.version_tags import (
    LATE_TAG,
    MODEL_ID_TAG,
    SAVE_ID_TAG,
    SHA256_TAG,
    SKLEARN_TAG,
    facts_of,
    host_tags,
    identity_tags,
    is_copy,
    is_ours,
    is_well_formed,
    model_id_of,
    order_tags,
    push_delay_ms,
    save_id_of,
)
from lotto_mlflow.records import BACKFILL, MlflowIds, SaveRecord
from lotto_mlflow.requirements import version_in

_MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
"""Answers about what is not there."""
_PAGE = 1_000
_NEWEST_PAGE, _GROWTH = 5, 20
"""Versions looked at for the newest save, since copies of old ones may have higher numbers; each
costs about a tenth of the lookup. Where that is not enough, the next page has many times as many.
"""
_T = TypeVar("_T")


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
        token, size = page.token, min(size * _GROWTH, _PAGE)
        if not token:
            return


def versions(
    client: MlflowClient, registered: str | None, condition: str = "", first_page: int = _PAGE
) -> Iterator[ModelVersion]:
    """Yield the versions that this package made, of one registered model or all, newest first."""
    for page in pages(client, registered, condition, first_page):
        yield from (version for version in page if is_ours(version.tags))


def newest_version(
    client: MlflowClient, registered: str | None, condition: str = "", *, own: Facts | None = None
) -> ModelVersion | None:
    """Return the version of the newest save: one indexed query, ordinarily.

    Parameters
    ----------
    client : mlflow.MlflowClient
        The client of the registry.
    registered : str or None
        The registered model; ``None`` for all.
    condition : str
        What else is asked for, in the words of MLflow's search.
    own : Facts, optional
        What a record says of the newest save that a folder has pushed: it goes before the tags.

    Returns
    -------
    mlflow.entities.model_registry.ModelVersion or None
        The version; ``None`` too where it is that of `own`, and its tags are not those of a save.
    """
    page = _newest_page(client, registered, condition)
    if own is None:
        return newest_of(page)
    found = {int(version.version): version for version in page}
    facts = {number: facts_of(version) for number, version in found.items()}
    tagged = facts.get(own.number, own)
    if own.push_delay_ms is None:  # as in the record of an earlier release
        own = replace(own, push_delay_ms=tagged.push_delay_ms, origin=tagged.origin)
    facts[own.number] = replace(own, created_ms=tagged.created_ms)
    newest = ordering.newest(facts.values())
    return None if newest is None else found.get(newest.number)


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
        if any(LATE_TAG not in v.tags and not is_copy(v) for v in found):
            break
    return found


def newest_of(found: Iterable[ModelVersion]) -> ModelVersion | None:
    """Return the version of the newest save among those of one registered model."""
    newest = newest_first(found)
    return newest[0] if newest else None


def newest_first(found: Iterable[ModelVersion]) -> list[ModelVersion]:
    """Return versions of any registered models by the order of their saves.

    Notes
    -----
    Those of one registered model are in its order, and among those of others by their times.
    """
    by_model: dict[str, dict[int, ModelVersion]] = {}
    for version in found:
        by_model.setdefault(version.name, {})[int(version.version)] = version
    placed = [
        (one.time_ns, versions[one.facts.number])
        for _, versions in sorted(by_model.items())
        for one in ordering.in_order(map(facts_of, versions.values()))
    ]
    oldest_first = sorted(placed, key=lambda item: item[0])
    return [version for _, version in reversed(oldest_first)]


def version_of_save(client: MlflowClient, record: SaveRecord) -> ModelVersion | None:
    """Return the version of a save, in whatever registered model it is; looked up by its id."""
    found = versions(client, None, f"tags.{SAVE_ID_TAG} = '{record.id}'")
    own = (record.id, record.payload.sha256)
    return first_of(record, (v for v in found if (save_id_of(v), v.tags[SHA256_TAG]) == own))


def first_of(record: SaveRecord, found: Iterable[ModelVersion]) -> ModelVersion | None:
    """Return of several versions of a save the one that its push made, as far as can be told."""
    own_name = names.registered_model(record.name)
    return min(found, key=lambda v: (v.name != own_name, v.name, int(v.version)), default=None)


def tags_of_logged_model(client: MlflowClient, version: ModelVersion) -> dict[str, str] | None:
    """Return the tags that prove an untagged version to be ours: those of its logged model."""
    model = existing(lambda: client.get_logged_model(model_id_of(version)))
    tags = {} if model is None else dict(model.tags)
    return tags if is_ours(tags) else None


def newest_version_before(connection: Connection, record: SaveRecord) -> NewestVersion:
    """Return the newest version that a save joins; remembered, once this connection made one.

    Parameters
    ----------
    connection : Connection
        The store to write to.
    record : SaveRecord
        The save.
    """
    registered = connection.registered_model_of(record)
    known = connection.newest_versions.get(registered)
    return _newest_before(connection, registered) if known is None else known


def _newest_before(connection: Connection, registered: str) -> NewestVersion:
    found = list(map(facts_of, _newest_page(connection.client, registered)))
    own_ids = (facts.save_id for facts in found if facts.peers == connection.origin)
    return NewestVersion(
        number=max((facts.number for facts in found), default=0),
        newest=ordering.newest(found),
        own_id=max(own_ids, default=""),
    )


def correct_tags(client: MlflowClient, ids: MlflowIds, record: SaveRecord) -> None:
    """Give the version that a record names the tags that the record knows, where they differ."""
    name = names.registered_model_of(ids, record.name)
    version = existing(lambda: client.get_model_version(name, str(ids.version)))
    if version is None or (version.name, version.run_id) != (name, ids.run_id):
        return
    for key, value in identity_tags(record).items():
        if version.tags.get(key) != value:
            creating.set_version_tag(client, name, ids.version, key, value)


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
                creating.set_version_tag(client, version.name, int(version.version), key, value)


def create_version(
    connection: Connection,
    model: LoggedModel,
    record: SaveRecord,
    before: NewestVersion,
) -> Facts:
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
    Facts
        Its number, and how long after the save it was pushed.

    Notes
    -----
    The number of the new version shows whether others have registered any since; only then is the
    number in its description corrected. One that was pushed right after its save stands where its
    number stands, so that nothing more is asked. Any other is tagged late from the first moment
    where it may be, since whoever reads in the next one would go by it.
    """
    registered = connection.registered_model_of(record)
    wanted = Facts(
        number=before.next,
        save_id=record.id,
        push_delay_ms=push_delay_ms(record),
        origin=connection.origin,
        is_backfill=record.kind == BACKFILL,
    )
    may_be_late = before.may_be_newer_than(wanted)
    tags = identity_tags(record) | order_tags(wanted)
    tags |= {LATE_TAG: "true"} if may_be_late else {}
    described = partial(
        entities.summary, record, model.model_id, model.experiment_id, registered=registered
    )
    created = _create(connection, model, record, tags, described(version=before.next))
    made = replace(facts_of(created), push_delay_ms=wanted.push_delay_ms, origin=wanted.origin)
    made = replace(made, save_id=record.id, is_backfill=wanted.is_backfill, is_late=False)
    if made.number != before.next:
        describe_version(connection.client, registered, made.number, described(version=made.number))
    made = _with_last_delay(connection.client, registered, record, made)
    _note_newest(connection, registered, made, before, is_tagged=may_be_late)
    return made


def _with_last_delay(
    client: MlflowClient, registered: str, record: SaveRecord, made: Facts
) -> Facts:
    """Return a version with the delay of the try that made it, where MLflow tried for long."""
    last = replace(made, push_delay_ms=push_delay_ms(record))
    if last.is_prompt == made.is_prompt:
        return made
    for key, value in order_tags(last).items():
        creating.set_version_tag(client, registered, made.number, key, value)
    return last


def _note_newest(
    connection: Connection, registered: str, made: Facts, before: NewestVersion, *, is_tagged: bool
) -> None:
    """Remember which version is the newest, and correct the tag of the one just made."""
    client = connection.client
    if not made.is_prompt and made.number != before.next:
        before = _newest_before(connection, registered)  # others have made some meanwhile
    is_last = before.is_before(made)
    if is_tagged and is_last:
        client.delete_model_version_tag(registered, str(made.number), LATE_TAG)
    elif not is_tagged and not is_last:
        creating.set_version_tag(client, registered, made.number, LATE_TAG, "true")
    newest = made if is_last else before.newest
    own_id = before.own_id if made.peers is None else max(before.own_id, made.save_id)
    number = max(made.number, before.number)
    connection.newest_versions[registered] = NewestVersion(number, newest, own_id)


def describe_version(client: MlflowClient, registered: str, version: int, description: str) -> None:
    """Give a version another description; one that may not be changed fails no push."""
    with suppress(MlflowException):
        client.update_model_version(registered, str(version), description)


def _create(
    connection: Connection,
    model: LoggedModel,
    record: SaveRecord,
    tags: dict[str, str],
    description: str,
) -> ModelVersion:
    client, registered = connection.client, connection.registered_model_of(record)
    tags = tags | {MODEL_ID_TAG: model.model_id} | host_tags(record)
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

    def found() -> ModelVersion | None:
        of_run = client.search_model_versions(f"run_id = '{model.source_run_id}'")
        return next((v for v in of_run if v.name == registered and not is_copy(v)), None)

    of_model = entities.registered_model_summary(registered)
    created = creating.create_version(client, arguments, of_model, found)
    if created.name != registered or not is_well_formed(created):
        raise MirrorUnavailableError(
            f"the registry was given a version of {registered}, and answers with version "
            f"{created.version!r:.50} of {created.name!r:.100}",
            error_code=None,
        )
    return created
