"""The disk half of a save: everything up to the record that says it is committed."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotto_mlflow import artifacts, datasets, metadata, settings
from lotto_mlflow.description import describe, has_method, origin
from lotto_mlflow.errors import InvalidModelError
from lotto_mlflow.files import held, sweep, temporary_for
from lotto_mlflow.layout import PREFIX, check_name
from lotto_mlflow.manager.parts import Parts, disk_errors
from lotto_mlflow.records import Description, SaveRecord
from lotto_mlflow.settings import Settings
from lotto_mlflow.store import Staged, dump, sha256_of_file

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_logger = logging.getLogger("lotto_mlflow")


@dataclass(frozen=True)
class _Request:
    """A save that has been checked: nothing in it can be refused any more."""

    model: Any
    name: str | None
    metadata: dict[str, Any] | None
    artifacts: dict[str, bytes | Path]
    description: Description


def save(
    parts: Parts,
    in_force: Settings,
    model: Any,
    name: str | None,
    given: Mapping[str, Any] | None,
    *,
    input_example: Any,
    extra: Mapping[str, Any] | None,
    dataset: Any,
) -> SaveRecord:
    """Save a model on disk, and write down what MLflow is to be told of it.

    Returns
    -------
    SaveRecord
        The committed record, waiting in the outbox.

    Raises
    ------
    LottoMlflowError
        One of its kinds; the folder is as it was.
    """
    request = _checked(in_force, model, name, given, input_example, extra, dataset)
    parts.make_dirs()
    with disk_errors(parts, "the model could not be saved"), parts.workspace() as work_dir:
        artifacts.write(request.artifacts, work_dir / "artifacts")
        staged = dump(model, temporary_for(parts.layout.model_path("model"), work_dir))
        try:
            with held(parts.lock()):
                sweep(parts.layout.tmp_dir, *parts.store.folders)
                settle(parts, work_dir)
                return _commit(parts, in_force, request, staged, work_dir)
        finally:
            staged.path.unlink(missing_ok=True)


def _checked(
    in_force: Settings,
    model: Any,
    name: str | None,
    given: Mapping[str, Any] | None,
    input_example: Any,
    extra: Mapping[str, Any] | None,
    dataset: Any,
) -> _Request:
    if model is None:
        raise InvalidModelError("Model cannot be None")
    if name is not None:
        check_name(name)
    values = None if given is None else metadata.plain(given)
    metadata.to_json(metadata.strict(values or {}))
    contents = artifacts.rendered({} if extra is None else extra)
    named = {} if dataset is None else datasets.checked(dataset)
    signature, example = None, None
    if input_example is not None and has_method(model, "predict"):
        from lotto_mlflow.mirror import data  # imports mlflow, which only an example needs

        signature, example = data.inferred(model, input_example)
    description = describe(
        model,
        values or {},
        parent_run_id=settings.active_run_id(in_force),
        signature=signature,
        input_example=example,
        datasets=_fingerprints(named),
    )
    return _Request(model, name, values, contents, description)


def _fingerprints(named: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not named:
        return []
    from lotto_mlflow.mirror.data import fingerprinted  # imports mlflow, as for an example

    return fingerprinted(named, origin())


def _commit(
    parts: Parts, in_force: Settings, request: _Request, staged: Staged, work_dir: Path
) -> SaveRecord:
    """Put a staged model in place, step by step; the caller holds the lock."""
    store, outbox = parts.store, parts.outbox
    time_ns = store.stamp(staged.path)
    record = _record(parts, in_force, request, staged, time_ns)
    artifacts_dir = work_dir / "artifacts" if request.artifacts else None
    entry = outbox.entry_of(record)
    try:
        outbox.add_pending(record, artifacts_dir, work_dir)
        store.back_up(record, work_dir)
        store.put(staged.path, record.name, work_dir)
        store.put_metadata(record.name, _content(record), work_dir)
        store.sync()
        outbox.mark(entry, "committed")
    except BaseException:
        store.take_back(record, work_dir)
        outbox.drop(entry)
        raise
    return record


def _record(
    parts: Parts, in_force: Settings, request: _Request, staged: Staged, time_ns: int
) -> SaveRecord:
    import socket  # here, because importing this package is to cost little

    moment = _moment(time_ns, in_force.timezone)
    name = request.name or _generated_name(parts, moment)
    saved_at = moment.isoformat(timespec="microseconds")
    on_disk = None
    if request.metadata is not None:
        on_disk = metadata.completed(
            metadata.strict(request.metadata),
            name=name,
            model_type=request.description.model_type,
            saved_at=saved_at,
            sha256=staged.sha256,
            size=staged.size,
        )
    else:
        _logger.warning("%s is saved without metadata; give some to tell models apart", name)
    replaces = parts.store.has_something_to_back_up(name)
    return SaveRecord(
        id=f"{time_ns:019d}-{os.urandom(4).hex()}",
        name=name,
        sha256=staged.sha256,
        size=staged.size,
        saved_at=saved_at,
        saved_at_ns=time_ns,
        host=socket.gethostname(),
        target=settings.target_of(in_force, parts.layout.database_path),
        description=request.description,
        metadata=on_disk,
        backup=parts.store.free_backup_stem(name) if replaces else None,
        replaced_sha256=_unrecorded_digest(parts, name),
    )


def _unrecorded_digest(parts: Parts, name: str) -> str | None:
    """Return the digest of a file in place that no save put there, ``None`` without one.

    Notes
    -----
    Such a file is older than this package. From now on its name has records, and without its
    digest in one of them its backup would look changed.
    """
    path = parts.layout.model_path(name)
    if not path.exists():
        return None
    saved_at = f"{path.stat().st_mtime_ns:019d}-"
    is_recorded = any(entry.id.startswith(saved_at) for entry in parts.outbox.entries(name))
    return None if is_recorded else sha256_of_file(path)


def _moment(time_ns: int, timezone: ZoneInfo) -> datetime:
    whole = datetime.fromtimestamp(time_ns // 10**9, timezone)
    return whole + timedelta(microseconds=time_ns % 10**9 // 1000)


def _generated_name(parts: Parts, moment: datetime) -> str:
    """Return the first of the specification's default names that was never used."""
    by_day = f"{PREFIX}{moment:%Y%m%d}"
    by_second = f"{PREFIX}{moment:%Y%m%d_%H%M%S}"
    recorded = parts.outbox.names(by_day)
    numbered = (f"{by_second}_{number}" for number in itertools.count(2))
    candidates = itertools.chain((by_day, by_second), numbered)
    return next(n for n in candidates if n not in recorded and not parts.store.is_taken(n))


def _content(record: SaveRecord) -> bytes | None:
    return None if record.metadata is None else metadata.to_json(record.metadata)


def settle(parts: Parts, work_dir: Path) -> None:
    """Finish, or take back, the saves of processes that died; the caller holds the lock.

    A save is committed once its file is in place, and then only rolls forward.
    """
    for entry in parts.outbox.pending():
        record = parts.outbox.readable(entry)
        if record is None:
            parts.outbox.put_away(entry)
            continue
        found = parts.store.find(record.name, record.sha256, record.saved_at_ns)
        if found is None:
            parts.store.drop_backup(record)
            parts.outbox.drop(entry)
            continue
        if found.parent == parts.layout.trained_dir:
            parts.store.put_metadata(record.name, _content(record), work_dir)
            parts.store.sync()
        parts.outbox.mark(entry, "committed")
