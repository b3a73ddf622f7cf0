"""Pushing one save to MLflow: a run, a logged model, a version of a registered model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import (
    LifecycleStage,
    LoggedModel,
    LoggedModelOutput,
    Param,
    Run,
    ViewType,
)
from mlflow.exceptions import MlflowException

from lotto_mlflow import layout as names
from lotto_mlflow.files import local_path
from lotto_mlflow.metadata import to_json
from lotto_mlflow.mirror import data, entities, model_folder, registry
from lotto_mlflow.mirror.connection import Connection, permanent_errors
from lotto_mlflow.records import BACKFILL, MlflowIds, SaveRecord
from lotto_mlflow.threads import started

_MODEL_TYPE_TAG = "model_type"


def push(
    connection: Connection,
    record: SaveRecord,
    pkl_path: Path,
    *,
    artifacts_dir: Path | None,
    begun: bool,
    work_dir: Path,
) -> MlflowIds:
    """Mirror one save.

    Parameters
    ----------
    connection : Connection
        The store to write to.
    record : SaveRecord
        The save.
    pkl_path : pathlib.Path
        A file with its bytes, named as in `model_folder.DATA_FILE`, that nobody replaces.
    artifacts_dir : pathlib.Path or None
        Folder of the caller's extra artifacts.
    begun : bool
        Whether an earlier push of this record may have got somewhere.
    work_dir : pathlib.Path
        The workspace for temporary files.

    Returns
    -------
    MlflowIds
        Where the save lies now.

    Notes
    -----
    Pushing a record twice gives one version: what an earlier push began is found by the save's
    id, and finished where the version is there, or deleted where it is not.
    """
    if begun:
        finished = _finish(connection, record)
        if finished is not None:
            return finished
        _delete_begun(connection, record)
    # the bytes are copied while the run and the logged model are created
    copied = started(partial(model_folder.copy, pkl_path, work_dir))
    try:
        run = _started(connection, record)
        with _cleaning_up(connection, record):
            return _fill(connection, run, record, copied, artifacts_dir, work_dir)
    finally:
        with suppress(Exception):  # it was raised where the copy was needed
            copied()


@contextmanager
def _cleaning_up(connection: Connection, record: SaveRecord) -> Iterator[None]:
    """Leave nothing behind of a push that breaks, unless its version is there."""
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the first error is the one to raise; a later push cleans up
            if _finish(connection, record) is None:
                _delete_begun(connection, record)
        raise


def _started(connection: Connection, record: SaveRecord) -> Run:
    try:
        return connection.client.create_run(
            connection.experiment_id(),
            start_time=record.payload.saved_at_ns // 10**6,
            run_name=record.name,
            tags=_run_tags(record),
        )
    except MlflowException:
        connection.refresh_experiment()
        raise


def _fill(
    connection: Connection,
    run: Run,
    record: SaveRecord,
    copied: Callable[[], Path],
    artifacts_dir: Path | None,
    work_dir: Path,
) -> MlflowIds:
    client, run_id = connection.client, run.info.run_id
    description = record.payload.description
    params = entities.params(description.params)
    identity, before = _identity_tags(record), registry.newest_version_before(connection, record)
    # the version is made last, and its number is the next one, unless another machine is faster
    expected = registry.link_tag(record, before.next)
    model = client.create_logged_model(
        connection.experiment_id(),
        name=_logged_model_name(record.name),
        source_run_id=run_id,
        tags=entities.tags(identity | _note(record) | expected),
        params={param.key: param.value for param in params},
        model_type=description.model_type,
    )
    put = started(partial(_put_model, client, model, record, copied, work_dir))
    try:  # the database waits for the disk while the model folder is written
        _log(client, run_id, record, model.model_id, params)
        _put_artifacts(client, run, record, artifacts_dir, work_dir)
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    finally:
        put()
    client.finalize_logged_model(model.model_id, "READY")
    version = registry.create_version(connection, model, record, identity, before)
    if version != before.next:
        client.set_logged_model_tags(model.model_id, registry.link_tag(record, version))
    _set_finished(client, run_id, record)
    return MlflowIds(version=version, run_id=run_id, model_id=model.model_id)


def _log(
    client: MlflowClient, run_id: str, record: SaveRecord, model_id: str, params: list[Param]
) -> None:
    description = record.payload.description
    if description.datasets:
        client.log_inputs(run_id, data.dataset_inputs(description.datasets))
    time_ms = record.payload.saved_at_ns // 10**6
    measured_on = partial(data.measured_on, kept=description.datasets)
    metrics = entities.metrics(description.metrics, time_ms, model_id, measured_on)
    client.log_batch(run_id, metrics=metrics, params=params)


def _set_finished(client: MlflowClient, run_id: str, record: SaveRecord) -> None:
    """End a run at the time of its save: sent weeks later, it would seem to have lasted weeks."""
    client.set_terminated(run_id, "FINISHED", end_time=record.payload.saved_at_ns // 10**6)


def _identity_tags(record: SaveRecord) -> dict[str, str]:
    return {
        registry.MODEL_NAME_TAG: record.name,
        registry.SHA256_TAG: record.payload.sha256,
        registry.SAVED_AT_TAG: record.payload.saved_at,
        registry.SAVE_ID_TAG: record.id,
    } | ({registry.BACKFILLED_TAG: "true"} if record.kind == BACKFILL else {})


def _note(record: SaveRecord) -> dict[str, str]:
    return {entities.NOTE_TAG: entities.summary(record)}


def _run_tags(record: SaveRecord) -> dict[str, str]:
    own = record.payload.description.tags | _identity_tags(record) | _note(record)
    own[_MODEL_TYPE_TAG] = record.payload.description.model_type
    if record.payload.description.parent_run_id:
        own["mlflow.parentRunId"] = record.payload.description.parent_run_id
    return entities.tags(own)


def _logged_model_name(name: str) -> str:
    """Return a name that MLflow accepts for a logged model, which is not a key to anything."""
    return "".join("_" if character in "/:.%\"'" else character for character in name)


def _put_model(
    client: MlflowClient,
    model: LoggedModel,
    record: SaveRecord,
    copied: Callable[[], Path],
    work_dir: Path,
) -> None:
    """Write the model folder straight to where it belongs, or upload it."""
    local = local_path(model.artifact_location)
    folder = local if local is not None else work_dir / "model"
    with permanent_errors(f"building the model folder of {record.name}"):
        model_folder.build(record, copied(), folder, model, work_dir)
    if local is None:
        client.log_model_artifacts(model.model_id, str(folder))


def _put_artifacts(
    client: MlflowClient,
    run: Run,
    record: SaveRecord,
    artifacts_dir: Path | None,
    work_dir: Path,
) -> None:
    """Write the artifacts of a run straight to where they belong, or upload them."""
    local = local_path(run.info.artifact_uri)
    folder = local if local is not None else work_dir / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    if artifacts_dir is not None and artifacts_dir.is_dir():
        shutil.copytree(artifacts_dir, folder, dirs_exist_ok=True)
    if record.payload.metadata is not None:
        path = folder / f"{record.name}{names.METADATA_SUFFIX}"
        path.write_bytes(to_json(record.payload.metadata))
    if local is None:
        client.log_artifacts(run.info.run_id, str(folder))


def _finish(connection: Connection, record: SaveRecord) -> MlflowIds | None:
    """Finish the push of a save that has its version already."""
    client = connection.client
    version = registry.version_of_save(client, record)
    if version is None:
        return None
    run = client.get_run(version.run_id)
    if run.info.lifecycle_stage == LifecycleStage.DELETED:  # the push failed after the version
        client.restore_run(version.run_id)
    if run.info.status != "FINISHED":
        with suppress(MlflowException):  # the logged model may have been deleted since
            model_id = version.tags[registry.MODEL_ID_TAG]
            client.set_logged_model_tags(model_id, registry.link_tag(record, version.version))
        _set_finished(client, version.run_id, record)
    return MlflowIds(
        version=int(version.version),
        run_id=version.run_id,
        model_id=version.tags.get(registry.MODEL_ID_TAG, ""),
    )


def _delete_begun(connection: Connection, record: SaveRecord) -> None:
    """Delete the runs and logged models that broken pushes of a save left behind."""
    client, experiments = connection.client, [connection.experiment_id()]
    of_save = f"tags.{registry.SAVE_ID_TAG} = '{record.id}'"
    for model in client.search_logged_models(experiments, filter_string=of_save):
        local = local_path(model.artifact_location)
        if local is not None:
            shutil.rmtree(local, ignore_errors=True)
            with suppress(OSError):  # the folder of the logged model, with nothing else in it
                local.parent.rmdir()
        client.delete_logged_model(model.model_id)
    for run in client.search_runs(experiments, of_save, run_view_type=ViewType.ALL):
        is_active = run.info.lifecycle_stage == LifecycleStage.ACTIVE
        is_unfinished = is_active and run.info.status != "FINISHED"
        local = local_path(run.info.artifact_uri)
        if local is not None and (is_unfinished or is_rest_of_failed_push(run)):
            shutil.rmtree(local.parent, ignore_errors=True)
        if is_unfinished:
            client.set_terminated(run.info.run_id, "FAILED")
        if is_active:
            client.delete_run(run.info.run_id)


def is_rest_of_failed_push(run: Run) -> bool:
    """Return whether a run was deleted here, because its push failed, and not by a person."""
    is_deleted = run.info.lifecycle_stage == LifecycleStage.DELETED
    is_ours = registry.SAVE_ID_TAG in run.data.tags
    return bool(is_deleted and run.info.status == "FAILED" and is_ours)
