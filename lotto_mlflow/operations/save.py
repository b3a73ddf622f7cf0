"""Save: check everything, write the model, and put it in place with a record for MLflow."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotto_mlflow import artifacts, datasets, examples, metadata, settings
from lotto_mlflow.description import describe, has_method, source_tags, with_needs
from lotto_mlflow.errors import InvalidModelError
from lotto_mlflow.files import locked, mode_of, remove_file, temporary_for
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.kinds import recover
from lotto_mlflow.kinds.saves import END_OF_SAVE, replaced
from lotto_mlflow.layout import PREFIX, check_name
from lotto_mlflow.operations import newest
from lotto_mlflow.operations.recording import pushed
from lotto_mlflow.operations.signer import Signer
from lotto_mlflow.push import PushWorker
from lotto_mlflow.records import SAVE, Description, Record, SavePayload, SaveRecord, new_id
from lotto_mlflow.run_times import is_without_zone, training_started_ns
from lotto_mlflow.settings import Settings, Target
from lotto_mlflow.signing import Pair
from lotto_mlflow.signing.signatures import begin_importing
from lotto_mlflow.store import Staged, dump
from lotto_mlflow.store.commit import Protocol

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_logger = logging.getLogger("lotto_mlflow")


@dataclass(frozen=True)
class Given:
    """What the caller of a save gave, as in `lotto_mlflow.ModelManager.save_model`."""

    model: Any
    name: str | None
    metadata: Mapping[str, Any] | None
    input_example: Any
    artifacts: Mapping[str, Any] | None
    dataset: Any


@dataclass(frozen=True)
class _Request:
    """A save that has been checked: nothing in it can be refused any more."""

    model: Any
    name: str | None
    metadata: dict[str, Any] | None
    artifacts: dict[str, bytes | Path]
    description: Description
    target: Target
    timezone: ZoneInfo
    called_at_ns: int
    """On the clock that is never set."""
    may_start_in_utc: bool
    """Whether a start of the training that has no zone may be of UTC."""


def save(folder: ModelFolder, given: Given) -> Path:
    """Save a model on disk, and have the save pushed as the settings say.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    given : Given
        The model, and what the caller says of it.

    Returns
    -------
    pathlib.Path
        The file in ``trained/``.

    Raises
    ------
    LottoMlflowError
        One of its kinds; the folder is as it was.
    """
    called_at_ns = time.monotonic_ns()
    current = folder.settings()
    signer = Signer.from_settings(folder, current)
    request = _checked(folder, current, given, called_at_ns)
    importing = _importing(folder, current, request.target)
    if signer is not None:
        importing = partial(begin_importing, importing)
    record, pair = _saved(folder, request, signer, importing)
    if pair is not None:
        newest.note_save(folder, pair)
    path = folder.layout.model_path(record.name)
    release = folder.later_release
    if release is not None:
        _logger.warning(
            "%s is saved, and is mirrored only by lotto-mlflow %s or later, which keeps the "
            "records of this folder; install that release",
            path,
            release,
        )
    elif current.mirror != "off":
        _push(folder, request.target, record, path, waits=current.mirror == "sync")
    return path


def _importing(
    folder: ModelFolder, current: Settings, target: Target
) -> Callable[[], object] | None:
    """Return what has MLflow imported for the push to come, ``None`` where none comes.

    Notes
    -----
    In a process's first save that takes seconds, which need not follow the writing of the model.
    """
    if current.mirror == "off" or folder.later_release is not None:
        return None
    return PushWorker.of(folder, target).begin_importing


def _push(
    folder: ModelFolder, target: Target, record: SaveRecord, path: Path, *, waits: bool
) -> None:
    problem = pushed(folder, target, record, waits=waits)
    if problem is not None:
        _logger.warning(
            "%s is saved, and will be mirrored to MLflow later, by another save: %s",
            path,
            problem,
        )


def _checked(folder: ModelFolder, current: Settings, given: Given, called_at_ns: int) -> _Request:
    if given.model is None:
        raise InvalidModelError("Model cannot be None")
    name = None if given.name is None else check_name(given.name)
    if name is not None:
        folder.store.check_places(name, is_save=True)
    values = None if given.metadata is None else metadata.plain(given.metadata)
    metadata.check_size(metadata.strict(values or {}))
    contents = artifacts.rendered({} if given.artifacts is None else given.artifacts)
    named = {} if given.dataset is None else datasets.checked(given.dataset)
    example = None
    if given.input_example is not None and has_method(given.model, "predict"):
        example = examples.recorded(given.model, given.input_example)
    description = describe(
        given.model,
        values or {},
        parent_run_id=settings.active_run_id(current),
        example=example,
        datasets=datasets.recorded(named, source_tags()) if named else None,
    )
    return _Request(
        given.model,
        name,
        values,
        contents,
        description,
        folder.target(current),
        current.timezone,
        called_at_ns,
        given.metadata is not None and is_without_zone(given.metadata),
    )


def _saved(
    folder: ModelFolder,
    request: _Request,
    signer: Signer | None,
    beside: Callable[[], object] | None,
) -> tuple[SaveRecord, Pair | None]:
    """Write a model beside its place, and put it there under the lock; return what is signed."""
    folder.make_dirs()
    errors = folder.disk_errors("the model could not be saved", "The folder is as it was")
    with errors, folder.workspace() as work_dir:
        artifacts.write(request.artifacts, work_dir / "artifacts")
        temporary = temporary_for(folder.layout.model_path("model"), work_dir)
        staged = dump(request.model, temporary, beside=beside)
        try:
            described = with_needs(request.description, staged.names)
            request = replace(request, description=described)
            with locked(folder.lock()):
                folder.note_format(work_dir)
                recover(folder, work_dir)
                time_ns = folder.store.stamp(staged.path, work_dir)
                record = _record(folder, request, staged, time_ns)
                _keep_mode(folder, record, staged)
                pair = None if signer is None else signer.pair_of(record, work_dir)
                Protocol(folder.store, folder.journal, work_dir).commit(
                    record,
                    staged.path,
                    END_OF_SAVE,
                    artifacts_dir=work_dir / "artifacts" if request.artifacts else None,
                    pair=pair,
                )
                return record, pair
        finally:
            remove_file(staged.path)


def _keep_mode(folder: ModelFolder, record: SaveRecord, staged: Staged) -> None:
    """Let only those read and write a model who might do so with the one that it replaces."""
    mode = mode_of(folder.layout.model_path(record.name))
    if mode is not None:
        staged.path.chmod(mode)


def _record(folder: ModelFolder, request: _Request, staged: Staged, time_ns: int) -> SaveRecord:
    import socket  # imported lazily

    moment = _moment(time_ns, request.timezone)
    name = request.name or _generated_name(folder, moment)
    saved_at = moment.isoformat(timespec="microseconds")
    history = folder.history()
    replaces = time_ns if folder.store.has_model_or_metadata(name) else None
    backup, is_damaged = replaced(folder, history, name, replaces, hashes_all=False)
    payload = SavePayload(
        name=name,
        sha256=staged.sha256,
        size=staged.size,
        saved_at=saved_at,
        saved_at_ns=time_ns,
        description=request.description,
        metadata=_metadata_on_disk(request, staged, name, saved_at),
        backup=backup,
        replaced_damaged=is_damaged,
        replaced_sha256=history.unrecorded_digest(name),
        earlier_sha256=history.earlier_digests(name),
        started_at_ns=_started_at_ns(request, time_ns),
        clock_ahead_ns=max(0, time_ns - time.time_ns()),
    )
    return Record(
        id=new_id(time_ns),
        kind=SAVE,
        host=socket.gethostname(),
        target=request.target.name,
        payload=payload,
    )


def _metadata_on_disk(
    request: _Request, staged: Staged, name: str, saved_at: str
) -> dict[str, Any] | None:
    if request.metadata is None:
        _logger.warning("%s is saved without metadata; give some to tell models apart", name)
        return None
    return metadata.completed(
        metadata.strict(request.metadata),
        name=name,
        model_type=request.description.model_type,
        saved_at=saved_at,
        sha256=staged.sha256,
        size=staged.size,
    )


def _started_at_ns(request: _Request, time_ns: int) -> int:
    """Return the start of the training, where metadata have it, else of the save.

    Notes
    -----
    The time of a save may be far from the clock: it is later than the one before it.
    """
    lasted_ns = time.monotonic_ns() - request.called_at_ns
    trained = training_started_ns(
        request.metadata or {},
        time_ns,
        request.timezone,
        called_at_ns=time.time_ns() - lasted_ns,
        may_be_utc=request.may_start_in_utc,
    )
    return max(0, time_ns - lasted_ns) if trained is None else trained


def _moment(time_ns: int, timezone: ZoneInfo) -> datetime:
    whole = datetime.fromtimestamp(time_ns // 10**9, timezone)
    return whole + timedelta(microseconds=time_ns % 10**9 // 1000)


def _generated_name(folder: ModelFolder, moment: datetime) -> str:
    """Return the first of the specification's default names that was never used."""
    by_day = f"{PREFIX}{moment:%Y%m%d}"
    by_second = f"{PREFIX}{moment:%Y%m%d_%H%M%S}"
    recorded = folder.journal.names(by_day)
    numbered = (f"{by_second}_{number}" for number in itertools.count(2))
    candidates = itertools.chain((by_day, by_second), numbered)
    return next(n for n in candidates if n not in recorded and not folder.store.is_taken(n))
