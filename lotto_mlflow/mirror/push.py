"""Pushing one save to MLflow: a run, a logged model, a version of a registered model."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, Run
from mlflow.exceptions import MlflowException

from lotto_mlflow import layout as names
from lotto_mlflow import model_dir
from lotto_mlflow.errors import MirrorUnavailableError
from lotto_mlflow.files import copy_tree
from lotto_mlflow.metadata import to_json
from lotto_mlflow.mirror import (
    creating,
    data,
    entities,
    fetch,
    leftovers,
    model_folder,
    registry,
    signed,
    version_tags,
)
from lotto_mlflow.mirror.connection import Connection, permanent_errors
from lotto_mlflow.mirror.ordering import NewestVersion
from lotto_mlflow.records import Attempt, MlflowIds, Note, SaveRecord, is_id
from lotto_mlflow.signing import Pair
from lotto_mlflow.signing.pairs import put_beside_model
from lotto_mlflow.text import masked
from lotto_mlflow.threads import started

_logger = logging.getLogger("lotto_mlflow")
_MODEL_TYPE_TAG = "model_type"
Copied = Callable[[], Path]
"""Returns a copy of the model's file: makes it, or waits until it is made."""


@dataclass(frozen=True)
class _Content:
    """What a model folder gets beside what the record says."""

    copied: Copied
    pair: Pair | None


def push(
    connection: Connection,
    record: SaveRecord,
    pkl_path: Path,
    *,
    artifacts_dir: Path | None,
    begun: bool,
    note: Note,
    work_dir: Path,
    pair: Pair | None = None,
) -> MlflowIds:
    """Mirror one save.

    Parameters
    ----------
    connection : Connection
        The store to write to.
    record : SaveRecord
        The save.
    pkl_path : pathlib.Path
        A file with its bytes, named as in `lotto_mlflow.model_dir.DATA_FILE`, that nobody replaces.
    artifacts_dir : pathlib.Path or None
        Folder of the caller's extra artifacts.
    begun : bool
        Whether an earlier push of this record may have got somewhere.
    note : callable
        Writes into the record on disk what was created, and returns the record.
    work_dir : pathlib.Path
        The workspace for temporary files.
    pair : tuple of bytes, optional
        What is signed of the save, and its signature.

    Returns
    -------
    MlflowIds
        Where the save lies now.

    Notes
    -----
    Pushing a record twice gives one version: what an earlier push began is found by the save's
    id, and finished where the version is there, or removed where it is not. What the record says
    is in this store already is brought back, as far as it is not.
    """
    copy = partial(model_folder.copy, pkl_path, record.payload.sha256, work_dir)
    if begun:
        finished = _finished(connection, record, _Content(copy, pair), work_dir)
        if finished is not None:
            return finished
        leftovers.remove(connection, record)
    copied = started(copy)  # while the run and the logged model are created
    try:
        return _created(connection, record, _Content(copied, pair), artifacts_dir, note, work_dir)
    finally:
        with suppress(Exception):  # it was raised where the copy was needed
            copied()


def _finished(
    connection: Connection, record: SaveRecord, content: _Content, work_dir: Path
) -> MlflowIds | None:
    """Finish or bring back what is there of a save; ``None`` where it has to be pushed anew."""
    recorded = record.mirrored.get(connection.target_name)
    if recorded is not None:
        registry.correct_tags(connection.client, recorded, record)
        registry.tag_untagged(connection.client, recorded, record)
    found = leftovers.ids_of_finished(connection, record)
    if found is not None and not _is_noted(connection, record, found):
        if fetch.has_bytes(connection, found, record, work_dir):
            return found
        found = None  # its tags are those of the save, and what it is of is somebody else's
    ids = found or recorded
    if ids is None:
        return None
    run = leftovers.run_of(connection, ids.run_id)
    model = leftovers.logged_model_of(connection, ids.model_id)
    if recorded is None and (run is None or model is None):
        return found  # what a person deleted since is theirs to bring back
    if run is None or model is None:
        return None
    if recorded is not None and leftovers.is_deleted(run):
        connection.client.restore_run(ids.run_id)
    files = recorded.files if recorded is not None and recorded.model_id == ids.model_id else {}
    written = _repaired(connection, record, model, files, content, work_dir)
    if written is None and recorded is not None and found is not None:
        written = signed.put_unproven(connection, model, found, record, content.pair, work_dir)
    if written is None:
        return None
    if recorded is not None and content.pair is not None:
        signed.put_metadata(connection, run, record, work_dir)
    if found is None:
        ids = _registered_again(connection, record, run, model, ids)
    return replace(ids, files=written)


def _registered_again(
    connection: Connection, record: SaveRecord, run: Run, model: LoggedModel, ids: MlflowIds
) -> MlflowIds:
    """Make another version of a save whose own is gone; return what the save is called then."""
    before = registry.newest_version_before(connection, record)
    made = registry.create_version(connection, model, record, before)
    was_ours = [
        entities.summary(record, version=ids.version, registered=name)
        for name in (None, ids.registered_model)
    ]
    if run.data.tags.get(entities.NOTE_TAG) in was_ours:  # and nobody wrote another
        _name_version(connection, ids, record, made.number)
    return replace(
        ids,
        version=made.number,
        registered_model=_other_name(connection, record),
        push_delay_ms=made.push_delay_ms,
    )


def _is_noted(connection: Connection, record: SaveRecord, found: MlflowIds) -> bool:
    noted = leftovers.noted_ids(connection, record)
    return found.model_id in {ids.model_id for ids in noted}


def _repaired(
    connection: Connection,
    record: SaveRecord,
    model: LoggedModel,
    files: dict[str, str],
    content: _Content,
    work_dir: Path,
) -> dict[str, str] | None:
    """Write the model folder of a save anew where it is not as its record says.

    Returns
    -------
    dict of str to str or None
        Its digests; ``None`` where the record does not prove it to be of this save.
    """
    location = model.artifact_location
    local = connection.places.writable(location, model.model_id)
    there = local if local is not None else _fetched(connection, model, work_dir)
    if files and there is not None and model_dir.is_intact(there, record.payload.sha256, files):
        signed.put(connection, model, content.pair, there, work_dir)
        return files
    attempt = record.attempts.get(connection.target_name)
    is_of_attempt = attempt is not None and attempt.model_id == model.model_id
    is_of_old = local is not None and model_dir.recorded_save_id(local) == record.id
    if not (files or is_of_attempt or is_of_old):
        return None
    if local is None or not os.path.lexists(local):
        return _put_model(connection, model, record, content, work_dir)
    built = work_dir / "model"
    with permanent_errors(f"building the model folder of {record.name}"):
        model_folder.build(record, content.copied(), built, model, work_dir)
    put_aside = partial(connection.put_aside, name=model.model_id)
    model_folder.repair(local, built, record.payload.sha256, put_aside, work_dir)
    signed.put(connection, model, content.pair, local, work_dir)
    return model_dir.digests(local)


def _fetched(connection: Connection, model: LoggedModel, work_dir: Path) -> Path | None:
    """Download a model folder that another machine keeps, as far as it is there."""
    try:
        return fetch.model_dir_of(connection, model.model_id, work_dir)
    except MirrorUnavailableError:
        return None


def _created(
    connection: Connection,
    record: SaveRecord,
    content: _Content,
    artifacts_dir: Path | None,
    note: Note,
    work_dir: Path,
) -> MlflowIds:
    """Create run, logged model and version; leave nothing behind of a push that breaks."""
    created: SaveRecord = record
    try:
        before = registry.newest_version_before(connection, record)
        run = _started(connection, record, before)
        model = _logged_model(connection, run.info.run_id, record, before)
        attempt = _attempt(connection, run, model)
        created = note(attempt)
        return _fill(connection, run, model, before, record, content, artifacts_dir, work_dir)
    except BaseException:
        with suppress(Exception):  # the first error is the one to raise; a later push cleans up
            if leftovers.ids_of_finished(connection, created) is None:
                leftovers.remove(connection, created)
        raise


def _attempt(connection: Connection, run: Run, model: LoggedModel) -> Attempt:
    """Return what was created, if its ids are such that a record can hold them."""
    run_id, model_id = run.info.run_id, model.model_id
    if not (run_id and model_id and is_id(run_id) and is_id(model_id)):
        raise MirrorUnavailableError(
            f"{masked(connection.tracking_uri)} answers with the run {run_id!r:.100} and the "
            f"logged model {model_id!r:.100}, and these are no ids; nothing was written there",
            error_code=None,
        )
    return Attempt(run_id=run_id, model_id=model_id)


def _started(connection: Connection, record: SaveRecord, before: NewestVersion) -> Run:
    try:
        return connection.client.create_run(
            connection.experiment_id(),
            start_time=record.payload.run_times_ms[0],
            run_name=record.name,
            tags=_run_tags(connection, record, before.next),
        )
    except MlflowException:
        connection.refresh_experiment()
        raise


def _logged_model(
    connection: Connection, run_id: str, record: SaveRecord, before: NewestVersion
) -> LoggedModel:
    description = record.payload.description
    # the version is made last, and its number is the next one, unless another machine is faster
    registered = connection.registered_model_of(record)
    expected = entities.link_tag(record, before.next, registered)
    expected |= _note(connection, record, before.next)
    return connection.client.create_logged_model(
        connection.experiment_id(),
        name=entities.logged_model_name(record.name),
        source_run_id=run_id,
        tags=entities.tags(version_tags.identity_tags(record) | expected),
        params={param.key: param.value for param in entities.params(description.params)},
        model_type=description.model_type,
    )


def _fill(
    connection: Connection,
    run: Run,
    model: LoggedModel,
    before: NewestVersion,
    record: SaveRecord,
    content: _Content,
    artifacts_dir: Path | None,
    work_dir: Path,
) -> MlflowIds:
    client, run_id = connection.client, run.info.run_id
    put = started(partial(_put_model, connection, model, record, content, work_dir))
    try:  # the database waits for the disk while the model folder is written
        _log(client, run_id, record, model.model_id)
        _put_artifacts(connection, run, record, artifacts_dir, work_dir)
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    finally:
        files = put()
    client.finalize_logged_model(model.model_id, "READY")
    made = registry.create_version(connection, model, record, before)
    ids = MlflowIds(
        version=made.number,
        run_id=run_id,
        model_id=model.model_id,
        registered_model=_other_name(connection, record),
        files=files,
        push_delay_ms=made.push_delay_ms,
    )
    if made.number != before.next:
        _name_version(connection, ids, record, made.number)
    leftovers.finish_run(connection, run_id, record)
    return ids


def _other_name(connection: Connection, record: SaveRecord) -> str | None:
    """Return the registered model of a save, ``None`` where its name gives that."""
    registered = connection.registered_model_of(record)
    return registered if registered != names.registered_model(record.name) else None


def _name_version(connection: Connection, ids: MlflowIds, record: SaveRecord, version: int) -> None:
    """Have the pages of run and logged model name another version than was expected."""
    client, note = connection.client, _note(connection, record, version)
    link = entities.link_tag(record, version, connection.registered_model_of(record))
    client.set_logged_model_tags(ids.model_id, link | note)
    client.set_tag(ids.run_id, entities.NOTE_TAG, note[entities.NOTE_TAG])


def _log(client: MlflowClient, run_id: str, record: SaveRecord, model_id: str) -> None:
    description = record.payload.description
    if description.datasets:
        inputs = data.dataset_inputs(description.datasets)
        # trainers have the same data, and MLflow one row for it
        creating.repeated(lambda: client.log_inputs(run_id, inputs))
    time_ms = record.payload.saved_at_ns // 10**6
    measured_on = partial(data.measured_on, kept=description.datasets)
    metrics = entities.metrics(description.metrics, time_ms, model_id, measured_on)
    client.log_batch(run_id, metrics=metrics, params=entities.params(description.params))


def _note(connection: Connection, record: SaveRecord, version: int) -> dict[str, str]:
    registered = connection.registered_model_of(record)
    text = entities.summary(record, version=version, registered=registered)
    return {entities.NOTE_TAG: text}


def _run_tags(connection: Connection, record: SaveRecord, version: int) -> dict[str, str]:
    own = record.payload.description.tags | version_tags.identity_tags(record)
    own |= _note(connection, record, version)
    own[_MODEL_TYPE_TAG] = record.payload.description.model_type
    if record.payload.description.parent_run_id:
        own["mlflow.parentRunId"] = record.payload.description.parent_run_id
    return entities.tags(own)


def _put_model(
    connection: Connection,
    model: LoggedModel,
    record: SaveRecord,
    content: _Content,
    work_dir: Path,
) -> dict[str, str]:
    """Write the model folder straight to where it belongs, or upload it; return its digests."""
    local = connection.places.writable(model.artifact_location, model.model_id)
    folder = local if local is not None else work_dir / "model"
    with permanent_errors(f"building the model folder of {record.name}"):
        model_folder.build(record, content.copied(), folder, model, work_dir)
    if content.pair is not None:
        put_beside_model(folder, content.pair, work_dir)
    files = model_dir.digests(folder)
    if local is None:
        connection.repository(model.artifact_location).log_artifacts(str(folder))
    return files


def _put_artifacts(
    connection: Connection,
    run: Run,
    record: SaveRecord,
    artifacts_dir: Path | None,
    work_dir: Path,
) -> None:
    """Write the artifacts of a run straight to where they belong, or upload them."""
    local = connection.places.writable(run.info.artifact_uri, run.info.run_id)
    folder = local if local is not None else work_dir / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    if artifacts_dir is not None and os.path.lexists(artifacts_dir):
        for path in copy_tree(artifacts_dir, folder):
            _logger.warning("%s is no file of the save, and is not sent to MLflow", path)
    if record.payload.metadata is not None:
        path = folder / f"{record.name}{names.METADATA_SUFFIX}"
        path.write_bytes(to_json(record.payload.metadata))
    if local is None:
        connection.repository(run.info.artifact_uri).log_artifacts(str(folder))
