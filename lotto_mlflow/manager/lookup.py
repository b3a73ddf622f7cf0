"""Lookups that join both views: records of files, and files of versions."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from lotto_mlflow import layout as names
from lotto_mlflow import references, text
from lotto_mlflow.description import told_by_metadata
from lotto_mlflow.errors import ModelNotFoundError, SettingsError
from lotto_mlflow.manager import missing
from lotto_mlflow.manager.loading import read_metadata
from lotto_mlflow.manager.matching import save_in_place, save_of_version
from lotto_mlflow.manager.parts import Parts
from lotto_mlflow.outbox import Entry
from lotto_mlflow.records import ModelRecord, Progress, quiet
from lotto_mlflow.references import VersionReference
from lotto_mlflow.requirements import version_in
from lotto_mlflow.store import make_dir, sha256_of_file

if TYPE_CHECKING:
    from lotto_mlflow.manager import ModelManager
    from lotto_mlflow.mirror import Mirror

Source = Literal["filesystem", "registry"]


def records(
    self: ModelManager, name: str | None = None, limit: int | None = None
) -> list[ModelRecord]:
    """Return what is known of the models in ``trained/``, newest first.

    Parameters
    ----------
    name : str, optional
        Only the model of this name.
    limit : int, optional
        At most so many.

    Notes
    -----
    Nothing is unpickled. Aliases are asked of MLflow, and empty where it cannot be asked.
    """
    found = _of_files(self._parts, self._target(), name, limit)
    return self._mirrors.with_aliases(self._settings(), found)


def get(self: ModelManager, reference: str | int | os.PathLike[str]) -> ModelRecord:
    """Return what is known of one model.

    Parameters
    ----------
    reference : str, int or path-like
        A name, a path in ``trained/``, a version number of ``lotto_model``, or a
        ``models:/`` URI.

    Raises
    ------
    ModelNotFoundError, MirrorUnavailableError
        If there is no such model; if it is a version and the registry could not be asked.
    """
    version = version_reference(self._parts, reference)
    if version is not None:
        found = of_version(self, version, str(reference))
        return joined(self._parts, self._mirror(), found)
    of_file = _of_file(self._parts, self._target(), str(reference))
    return self._mirrors.with_aliases(self._settings(), [of_file])[0]


def of_version(
    manager: ModelManager, reference: VersionReference, given: str | None = None
) -> ModelRecord:
    """Return what the registry tells of a version, or an error with what may have been meant."""
    manager._pusher.wait_for_queued()
    mirror = manager._mirror()
    try:
        return mirror.get(reference)
    except ModelNotFoundError as cause:
        near = missing.suggested(manager._parts, mirror, given or str(reference), reference)
        raise missing.with_suggestions(cause, near) from cause


def latest(
    self: ModelManager,
    *,
    source: Source = "filesystem",
    download: bool = False,
    progress: Progress | None = None,
) -> ModelRecord | None:
    """Return what is known of the newest model.

    Parameters
    ----------
    source : {"filesystem", "registry"}
        As in `get_latest_model_path`.
    download : bool
        Have the record name a verified file with the bytes, even where the folder has none and
        they must be downloaded.
    progress : callable, optional
        Told of the download; as in `lotto_mlflow.records.Progress`.

    Returns
    -------
    ModelRecord or None
        ``None`` where there is no model.
    """
    if checked(source) == "filesystem":
        path = self._parts.store.latest()
        return None if path is None else self.get(path)
    self._pusher.wait_for_queued()
    mirror = self._mirror()
    found = mirror.latest()
    if found is None:
        return None
    record = joined(self._parts, mirror, found)
    if not download or record.path is not None:
        return record
    report = progress or quiet
    report(0, 1, record.size or 0, record.name)
    fetched = file_of(self._parts, mirror, record)
    report(1, 1, 0, "")
    return replace(record, path=fetched, size=fetched.stat().st_size)


def checked(source: str) -> str:
    """Return a source, if it is one.

    Raises
    ------
    SettingsError
        If it is none; the message lists those there are.
    """
    if source not in get_args(Source):
        allowed = ", ".join(get_args(Source))
        raise SettingsError(f"source is {source!r}; allowed are {allowed}", value=source)
    return source


def _of_files(parts: Parts, target: str, name: str | None, limit: int | None) -> list[ModelRecord]:
    """Return what the disk and the save records tell of the models in ``trained/``.

    Parameters
    ----------
    parts : Parts
        The folder.
    target : str
        Tracking store whose versions are told.
    name, limit
        As in `records`.
    """
    found = [
        (status.st_mtime_ns, path.name, path, status)
        for path, status in parts.store.files()
        if name in (None, names.name_of(path))
    ]
    newest_first = sorted(found, key=lambda item: item[:2], reverse=True)[:limit]
    entries: dict[str, list[Entry]] = {}
    for entry in parts.outbox.entries(name):
        entries.setdefault(entry.name, []).append(entry)
    return [
        _record(parts, target, path, status, entries.get(names.name_of(path), []))
        for _, _, path, status in newest_first
    ]


def _record(
    parts: Parts, target: str, path: Path, status: os.stat_result, entries: list[Entry]
) -> ModelRecord:
    """Describe a file by the save that put it there."""
    name = names.name_of(path)
    on_disk = read_metadata(parts.layout.metadata_path(name))
    told = on_disk or {}
    saves = (save for entry in entries if (save := parts.outbox.readable(entry)) is not None)
    save = save_in_place(saves, path, status, told.get("sha256"))
    place = save.mirrored.get(target, {}) if save else {}
    if save is None:
        params, metrics = told_by_metadata(told)
    else:
        params, metrics = save.description.params, save.description.last_metrics
    modified = datetime.fromtimestamp(status.st_mtime, timezone.utc).isoformat()
    in_metadata = told.get("sha256") if isinstance(told.get("sha256"), str) else None
    return ModelRecord(
        name=name,
        path=path,
        sha256=save.sha256 if save else in_metadata,
        size=status.st_size,
        saved_at=save.saved_at if save else str(told.get("saved_at") or modified),
        saved_at_ns=save.saved_at_ns if save else status.st_mtime_ns,
        metadata=on_disk,
        registered_model=names.registered_model(name),
        version=place.get("version"),
        run_id=place.get("run_id"),
        model_id=place.get("model_id"),
        sklearn_version=version_in(save.description.requirements, "scikit-learn") if save else None,
        params=params,
        metrics=metrics,
    )


def joined(parts: Parts, mirror: Mirror, record: ModelRecord) -> ModelRecord:
    """Return a version's record with what the disk has of the same save, or else its run."""
    save = save_of_version(parts, record)
    if save is None:  # another machine's
        params, metrics = mirror.params_and_metrics_of_run(record)
    else:
        params, metrics = save.description.params, save.description.last_metrics
    path = parts.layout.model_path(record.name)
    is_same = _has_bytes_of(path, record)
    is_in_place = is_same and (save is None or path.stat().st_mtime_ns == save.file_time_ns)
    return replace(
        record,
        path=path if is_same else None,
        size=path.stat().st_size if is_same else (save.size if save else None),
        metadata=read_metadata(parts.layout.metadata_path(record.name))
        if is_in_place
        else (save.metadata if save else None),
        params=params,
        metrics=metrics,
    )


def _has_bytes_of(path: Path, record: ModelRecord) -> bool:
    return path.is_file() and sha256_of_file(path) == record.sha256


def file_of(parts: Parts, mirror: Mirror, record: ModelRecord) -> Path:
    """Find a file with the bytes of a version: in ``trained/``, else what the mirror has."""
    path = parts.layout.model_path(record.name)
    if _has_bytes_of(path, record):
        return path
    make_dir(parts.layout.tmp_dir)
    with parts.workspace() as work_dir:
        return mirror.file_of(record, work_dir)


def version_reference(
    parts: Parts, reference: str | int | os.PathLike[str]
) -> VersionReference | None:
    """Return the version that a reference names, ``None`` where it names a file."""
    if isinstance(reference, int):
        return VersionReference(names.REGISTERED_MODEL, version=reference)
    text = os.fspath(reference)
    if text.startswith(references.SCHEME):
        return references.parse(text)
    if references.is_version(text) and not parts.layout.model_path(text).exists():
        return VersionReference(names.REGISTERED_MODEL, version=int(text))
    return None


def _of_file(parts: Parts, target: str, reference: str) -> ModelRecord:
    """Return the record of a model in ``trained/``, by its name or its path.

    Raises
    ------
    ModelNotFoundError
        If there is no such file.
    """
    path = Path(reference)
    is_file = path.suffix == names.SUFFIX and parts.folder_of(path) == parts.layout.trained_dir
    name = names.name_of(path) if is_file else reference
    found = _of_files(parts, target, name, 1)
    if not found:
        near = text.nearest(name, missing.names_on_disk(parts))
        raise ModelNotFoundError(
            f"there is no model {name!r} in {parts.layout.trained_dir}"
            f"{text.question(near) or '; '}"
            f"{' ' if near else ''}ModelManager.records() lists those there are",
            name=name,
            suggestions=near,
        )
    return found[0]
