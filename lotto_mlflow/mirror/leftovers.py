"""What an earlier push of a save left in MLflow: finished, brought back, or removed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from mlflow.entities import LifecycleStage, LoggedModel, Run, ViewType
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from lotto_mlflow import regular
from lotto_mlflow.errors import LottoMlflowError, MirrorUnavailableError
from lotto_mlflow.files import local_path
from lotto_mlflow.layout import REGISTERED_MODEL, registered_model_of
from lotto_mlflow.mirror import entities, registry, version_tags
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.mirror.creating import FORBIDDEN
from lotto_mlflow.mirror.places import shown
from lotto_mlflow.records import Attempt, MlflowIds, SaveRecord, is_id

_logger = logging.getLogger("lotto_mlflow")
_T = TypeVar("_T")
_OF_COPIES = "source_path LIKE 'models:/%'"


def run_of(connection: Connection, run_id: str) -> Run | None:
    """Return a run, deleted or not; ``None`` where it was removed for good."""
    client, condition = connection.client, f"attributes.run_id = '{run_id}'"

    def listed(experiments: list[str]) -> Sequence[object]:
        found: Sequence[object] = client.search_runs(experiments, condition, ViewType.ALL, 1)
        return found

    return _existing(connection, lambda: client.get_run(run_id), run_id, listed)


def logged_model_of(connection: Connection, model_id: str) -> LoggedModel | None:
    """Return a logged model; ``None`` where it was deleted."""
    client, condition = connection.client, f"model_id = '{model_id}'"

    def listed(experiments: list[str]) -> Sequence[object]:
        found: Sequence[object] = client.search_logged_models(experiments, condition, max_results=1)
        return found

    return _existing(connection, lambda: client.get_logged_model(model_id), model_id, listed)


def _existing(
    connection: Connection,
    ask: Callable[[], _T],
    one: str,
    listed: Callable[[list[str]], Sequence[object]],
) -> _T | None:
    """Return what MLflow answers, ``None`` where there is no such thing.

    Notes
    -----
    MLflow's basic auth forbids to get what is not there, as if it were somebody else's. Whoever may
    read the experiment, and finds no such thing listed there, knows that it is gone.
    """
    try:
        return registry.existing(ask)
    except MlflowException as cause:
        experiment_id = connection.known_experiment_id()
        is_unclear = cause.error_code == FORBIDDEN and is_id(one)
        if not is_unclear or experiment_id is None or listed([experiment_id]):
            raise
        return None


def is_deleted(run: Run) -> bool:
    """Return whether a run is marked as deleted."""
    return bool(run.info.lifecycle_stage == LifecycleStage.DELETED)


def is_rest_of_failed_push(run: Run) -> bool:
    """Return whether a run was deleted here, because its push failed, and not by a person."""
    is_ours = version_tags.SAVE_ID_TAG in run.data.tags
    return is_deleted(run) and run.info.status == "FAILED" and is_ours


def remove(connection: Connection, record: SaveRecord) -> None:
    """Remove what a push of a save created that did not end, as its record says.

    Notes
    -----
    Only the ids in the record are believed, and nothing is removed to which a version of any
    registered model refers. What was created in the moment before its id was recorded has no
    files, and is only marked as deleted.
    """
    attempt = record.attempts.get(connection.target_name)
    if attempt is not None and not _is_in_use(connection, attempt):
        for left in remove_entities(connection, attempt, is_failed=True):
            _logger.info("of a push of %s that did not end: %s", record.name, left)
    _mark_unrecorded(connection, record)


def _is_in_use(connection: Connection, ids: Attempt) -> bool:
    """Return whether any version refers to a run or a logged model, or to the files of one."""
    return any(True for _ in versions_using(connection, ids))


def versions_using(connection: Connection, ids: Attempt | MlflowIds) -> Iterator[ModelVersion]:
    """Yield the versions that refer to a run or a logged model, or to the files of one.

    Notes
    -----
    A version may be met more than once.
    """
    client, found = connection.client, [one for one in (ids.run_id, ids.model_id) if one]
    queries = [f"source_path LIKE '%{one}%'" for one in found]
    queries += [f"run_id = '{ids.run_id}'"] if ids.run_id else []
    for query in queries:
        yield from (v for page in registry.pages(client, None, query) for v in page)
    # a copy names what it is a copy of, which may be gone; where its files lie is asked for
    for version in (v for page in registry.pages(client, None, _OF_COPIES) for v in page):
        location = client.get_model_version_download_uri(version.name, str(version.version))
        if any(one in location for one in found):
            yield version


def remove_entities(
    connection: Connection, ids: Attempt | MlflowIds, *, is_failed: bool = False
) -> Iterator[str]:
    """Remove a logged model, a run and the files of both, to which nothing refers any more.

    Parameters
    ----------
    connection : Connection
        The store to write to.
    ids : Attempt or MlflowIds
        The logged model and the run, from a record.
    is_failed : bool
        Whether the run is of a push that did not end; it ends as failed then.

    Yields
    ------
    str
        What could not be removed, and what removes it.
    """
    yield from _remove_model(connection, ids.model_id)
    yield from _remove_run(connection, ids.run_id, is_failed=is_failed)


def _remove_model(connection: Connection, model_id: str) -> Iterator[str]:
    if not model_id or not is_id(model_id):
        return
    model = logged_model_of(connection, model_id)
    if model is None:
        yield from _remove_own_files(connection, Path("models", model_id))
        return
    yield from _remove_files(connection, model.artifact_location, model_id)
    connection.client.delete_logged_model(model_id)


def _remove_run(connection: Connection, run_id: str, *, is_failed: bool) -> Iterator[str]:
    if not run_id or not is_id(run_id):
        return
    run = run_of(connection, run_id)
    if run is None:
        yield from _remove_own_files(connection, Path(run_id))
        return
    yield from _remove_files(connection, str(run.info.artifact_uri), run_id)
    if not is_deleted(run):
        if is_failed:
            connection.client.set_terminated(run_id, "FAILED")
        connection.client.delete_run(run_id)


def _remove_own_files(connection: Connection, place: Path) -> Iterator[str]:
    """Remove the files of a run or logged model that the embedded store does not know any more."""
    if connection.is_embedded:
        folder = connection.places.own_dir.absolute() / REGISTERED_MODEL / place / "artifacts"
        yield from _remove_files(connection, folder.as_uri(), place.name)


def _remove_files(connection: Connection, location: str, owner: str) -> Iterator[str]:
    """Remove the files of a run or a logged model, or yield what has to do it."""
    if _is_behind_link(location):  # which mlflow gc would follow
        yield (
            f"the files of {owner} in {shown(location)} were left: a link leads there, perhaps to "
            "the files of another; remove the link alone"
        )
        return
    try:
        folder = connection.places.writable(location, owner)
    except MirrorUnavailableError as cause:  # a place that is not believed, where nothing is done
        yield _left(location, owner, cause.summary)
        return
    try:
        if folder is None:
            connection.repository(location).delete_artifacts()
        else:
            _remove_folder(folder)
    except LottoMlflowError:
        raise
    except Exception as cause:  # noqa: BLE001 - each store raises its own, and some have no such call
        yield _left(location, owner, type(cause).__name__)


def _remove_folder(folder: Path) -> None:
    if regular.is_folder(folder):
        shutil.rmtree(folder)
    with suppress(OSError):  # the folder of the run or logged model, with nothing else in it
        folder.parent.rmdir()


def _is_behind_link(location: str) -> bool:
    """Return whether the artifacts of a run or logged model, or the folder of those, are a link."""
    folder = local_path(location)
    if folder is None:
        return False
    own = Path(folder.parent.name, folder.name)
    with suppress(ValueError):  # a name that no file can have
        return regular.real_path(folder) != regular.real_path(folder.parent.parent) / own
    return False


def _left(location: str, owner: str, why: str) -> str:
    option = "--logged-model-ids" if owner.startswith("m-") else "--run-ids"
    return (
        f"the files of {owner} in {shown(location)} could not be removed ({why}); where the server "
        f"runs, this does it: mlflow gc {option} {owner} --backend-store-uri <its store>"
    )


def _mark_unrecorded(connection: Connection, record: SaveRecord) -> None:
    """Mark as deleted what was created, and not recorded any more; no files are touched."""
    client, experiments = connection.client, [connection.experiment_id()]
    noted = {one for ids in noted_ids(connection, record) for one in (ids.run_id, ids.model_id)}
    of_save = f"tags.{version_tags.SAVE_ID_TAG} = '{record.id}'"
    for model in client.search_logged_models(experiments, filter_string=of_save):
        model_id, location = model.model_id, model.artifact_location
        is_ours = model_id not in noted and version_tags.has_tags_of(record, model.tags)
        if is_ours and model.status == "PENDING" and _is_empty(connection, location, model_id):
            client.delete_logged_model(model_id)
    for run in client.search_runs(experiments, of_save, run_view_type=ViewType.ACTIVE_ONLY):
        is_unfinished = run.info.status == "RUNNING" and not run.data.params
        # an earlier release started each run when its save ended
        is_of_start = run.info.start_time in record.payload.run_times_ms
        run_id, location = run.info.run_id, run.info.artifact_uri
        is_ours = (
            run_id not in noted and is_of_start and version_tags.has_tags_of(record, run.data.tags)
        )
        if is_unfinished and is_ours and _is_empty(connection, location, run_id):
            client.set_terminated(run_id, "FAILED")
            client.delete_run(run_id)


def _is_empty(connection: Connection, location: str, owner: str) -> bool:
    """Return whether a run or logged model has no files, and no version refers to it."""
    if not is_id(owner) or not connection.places.is_believed(location, owner):
        return False
    folder = connection.places.readable(location, owner)
    if folder is None:
        has_files = bool(connection.repository(location).list_artifacts())
    else:
        has_files = folder.is_dir() and any(folder.iterdir())
    return not has_files and not _is_in_use(connection, Attempt(run_id=owner, model_id=owner))


def ids_of_finished(connection: Connection, record: SaveRecord) -> MlflowIds | None:
    """Finish the push of a save that has its version already; ``None`` where it has none."""
    version = registry.version_of_save(connection.client, record)
    if version is None:
        return None
    ids = version_tags.ids_of(version, record)
    run = run_of(connection, ids.run_id)
    if run is not None:
        is_own = _is_own_run(connection, record, run)
        if is_own and is_rest_of_failed_push(run):  # it failed after the version
            connection.client.restore_run(ids.run_id)
        if is_own and run.info.status != "FINISHED":
            _correct_number(connection, record, ids, run)
            finish_run(connection, ids.run_id, record)
    return ids


def _correct_number(connection: Connection, record: SaveRecord, ids: MlflowIds, run: Run) -> None:
    """Have a version that a push did not get to finish, and its logged model, name its number."""
    client = connection.client
    with suppress(MlflowException):  # the logged model may have been deleted since
        link = entities.link_tag(record, ids.version, ids.registered_model)
        client.set_logged_model_tags(ids.model_id, link)
    registered = connection.registered_model_of(record)
    if registered_model_of(ids, record.name) == registered:  # nobody renamed or copied it yet
        text = entities.summary(
            record,
            ids.model_id,
            run.info.experiment_id,
            version=ids.version,
            registered=registered,
        )
        registry.describe_version(client, registered, ids.version, text)


def _is_own_run(connection: Connection, record: SaveRecord, run: Run) -> bool:
    """Return whether the record says that its push created a run; one of old says nothing."""
    noted = noted_ids(connection, record)
    is_noted = run.info.run_id in {ids.run_id for ids in noted}
    return is_noted or (not noted and version_tags.has_tags_of(record, run.data.tags))


def noted_ids(connection: Connection, record: SaveRecord) -> list[Attempt | MlflowIds]:
    """Return what a record says that pushes created in this store."""
    name = connection.target_name
    found = (record.attempts.get(name), record.mirrored.get(name))
    return [ids for ids in found if ids is not None]


def finish_run(connection: Connection, run_id: str, record: SaveRecord) -> None:
    """End a run at the time of its save: sent weeks later, it would seem to have lasted weeks."""
    _, end_ms = record.payload.run_times_ms
    connection.client.set_terminated(run_id, "FINISHED", end_time=end_ms)
