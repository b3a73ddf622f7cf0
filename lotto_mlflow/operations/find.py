"""Find: what is known of models, of files by the journal and of versions by the registry."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, get_args

from lotto_mlflow import layout as names
from lotto_mlflow import metadata, references, regular
from lotto_mlflow.description import params_and_metrics
from lotto_mlflow.errors import (
    Fix,
    MirrorError,
    MirrorUnavailableError,
    ModelNotFoundError,
    SettingsError,
    StoreError,
)
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.model_file import ModelFile
from lotto_mlflow.operations import gone, last_seen, newest, since, versions
from lotto_mlflow.records import (
    PRUNE,
    Aliases,
    ModelRecord,
    Progress,
    SaveRecord,
    aliases_by_version,
    arrived_of,
    no_progress,
)
from lotto_mlflow.references import VersionReference
from lotto_mlflow.requirements import version_in
from lotto_mlflow.settings import Target, sqlite_path
from lotto_mlflow.store import make_dir
from lotto_mlflow.text import nearest, question

_logger = logging.getLogger("lotto_mlflow")
Source = Literal["filesystem", "registry"]
_ALIASES = "SELECT alias, version FROM registered_model_aliases WHERE name = ? ORDER BY alias"
_ALIASES_SECONDS = 2.0


def records(folder: ModelFolder, name: str | None, limit: int | None) -> list[ModelRecord]:
    """Return what is known of the models in ``trained/``, newest first."""
    target, history = folder.target(), folder.history()
    if name is None:
        files = history.trained_files
        history.entries()  # one listing for all
    else:
        files = _files_named(folder, history, name)
    newest_first = sorted(files, key=lambda file: (file.time_ns, file.path.name), reverse=True)
    found = [record_of(history, target, file) for file in newest_first[:limit]]
    return _with_aliases(folder, target, found)


def get(
    folder: ModelFolder,
    reference: str | int | os.PathLike[str],
    *,
    with_aliases: bool = True,
    is_anywhere: bool = True,
) -> ModelRecord:
    """Return what is known of one model, by its name, its path, or one of its versions.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    reference : str, int or path-like
        What names the model.
    with_aliases : bool
        Whether the aliases of a file's version are looked up, for which MLflow may be asked.
    is_anywhere : bool
        Whether a name that is not on disk may be that of a model which another machine saved into
        the current registry.
    """
    target = folder.target()
    version = versions.version_reference(folder, reference)
    if version is not None:
        found = versions.of_version(folder, target, version, str(reference))
        is_newest = version.version is None and version.alias is None
        return _in_full(folder, target, found, lacks_aliases=is_newest)
    try:
        record = _of_file(folder, target, str(reference))
    except ModelNotFoundError as cause:
        elsewhere = _elsewhere(folder, target, str(reference), cause) if is_anywhere else None
        if elsewhere is None:
            raise
        return _in_full(folder, target, elsewhere, lacks_aliases=True)
    return _with_aliases(folder, target, [record])[0] if with_aliases else record


def latest(
    folder: ModelFolder,
    source: str,
    *,
    download: bool = False,
    progress: Progress | None = None,
) -> ModelRecord | None:
    """Return what is known of the newest model, ``None`` where there is none."""
    if checked(source) == "filesystem":
        path = newest.file(folder)
        return None if path is None else get(folder, path)
    target = folder.target()
    found = versions.latest_version(folder, target)
    if found is None:
        return None
    record = _in_full(folder, target, found, lacks_aliases=True)
    if not download:
        return record
    report = progress or no_progress
    report(0, 1, record.size or 0, record.name)
    path = versions.path_of_version(folder, target, record, arrived_of(report))
    report(1, 1, 0, "")
    return record if path == record.path else replace(record, path=path, size=path.stat().st_size)


def latest_path(
    folder: ModelFolder, source: str, alias: str | None = None, *, stale_ok: bool = False
) -> Path | None:
    """Return a file that holds the newest model, or that of an alias; ``None`` where none is."""
    if checked(source) == "filesystem" and alias is not None:
        raise SettingsError(f"files have no aliases; for {alias!r:.300}, source is 'registry'")
    if source == "filesystem":
        path = newest.file(folder)
        if path is None:
            with suppress(StoreError):  # who may not write only looks
                make_dir(folder.layout.trained_dir)
        return path
    reference = VersionReference(
        names.REGISTERED_MODEL, alias=None if alias is None else references.check_alias(alias)
    )
    target = folder.target()
    try:
        if alias is None:
            record = versions.latest_version(folder, target)
        else:
            record = versions.of_version(folder, target, reference)
        return None if record is None else versions.path_of_version(folder, target, record)
    except MirrorUnavailableError as cause:
        if not stale_ok:
            raise
        return last_seen.recalled(folder, target, reference, cause)[1]


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


def _files_named(folder: ModelFolder, history: History, name: str) -> list[ModelFile]:
    """Return the file of one name in ``trained/``, without a listing where it is of ASCII."""
    path = folder.layout.model_path(name)
    status = regular.status_of(path) if names.is_plain(name) else None
    return [] if status is None else [history.file(path, status)]


def _of_file(folder: ModelFolder, target: Target, reference: str) -> ModelRecord:
    """Return the record of a model in ``trained/``, by its name or its path.

    Raises
    ------
    ModelNotFoundError
        If there is no such file.
    """
    path, history = Path(reference), folder.history()
    is_plain = path.suffix == names.SUFFIX and names.is_plain(names.name_of(path))
    is_file = is_plain and history.folder_of(path) == folder.layout.trained_dir
    name = names.name_of(path) if is_file else reference
    found = _files_named(folder, history, name)
    if not found:
        gone.check_name(history, name)
        near = nearest(name, versions.names_on_disk(folder))
        raise ModelNotFoundError(
            f"there is no model {name!r} in {folder.layout.trained_dir}{question(near)}",
            fix=Fix("records", effect="lists those there are"),
            name=name,
            suggestions=near,
        )
    return record_of(history, target, found[0])


def record_of(history: History, target: Target, file: ModelFile) -> ModelRecord:
    """Describe a file by the save that put it there."""
    declared = file.metadata or {}
    save = history.save_of(file)
    payload = None if save is None else save.payload
    restored = history.restore_of(file) if save is None else None
    recorded = save or restored
    restored_id = None if restored is None else restored.payload.save_id
    ids = None if recorded is None else recorded.mirrored.get(target.name)
    if payload is None:
        params, metrics = params_and_metrics(declared)
    else:
        params, metrics = payload.description.params, payload.description.last_metrics
    modified = datetime.fromtimestamp(file.status.st_mtime, timezone.utc).isoformat()
    return ModelRecord(
        name=file.stem,
        path=file.path,
        sha256=payload.sha256 if payload else file.declared_sha256,
        size=file.status.st_size,
        saved_at=payload.saved_at if payload else str(declared.get("saved_at") or modified),
        saved_at_ns=payload.saved_at_ns if payload else file.time_ns,
        metadata=file.metadata,
        registered_model=names.registered_model_of(ids, file.stem),
        version=ids.version if ids else None,
        run_id=ids.run_id if ids else None,
        model_id=ids.model_id if ids else None,
        save_id=save.id if save else restored_id,
        sklearn_version=version_in(payload.description.requirements, "scikit-learn")
        if payload
        else None,
        params=params,
        metrics=metrics,
        host=save.host if save else None,
    )


def _elsewhere(
    folder: ModelFolder, target: Target, name: str, cause: ModelNotFoundError
) -> ModelRecord | None:
    """Return the newest version of a name in a registry that other machines save into, too.

    Parameters
    ----------
    folder : ModelFolder
        The folder, in which there is no model of the name.
    target : Target
        The current store.
    name : str
        The name.
    cause : ModelNotFoundError
        The error that says so; raised anew where it has more to say.

    Notes
    -----
    Who gives a name means a file first: where the registry cannot be asked, the error says so.
    """
    is_shared = not target.is_embedded and folder.settings().mirror != "off"
    if not is_shared or not names.is_name(name) or folder.history().entries_of(name):
        return None
    try:
        found = versions.newest_of_name(folder, target, name)
    except MirrorError as refusal:
        summary = f"{cause.summary}, and the registry could not be asked: {refusal.summary}"
        raise ModelNotFoundError(summary, fix=cause.fix, **cause.data) from refusal
    if found is None:
        place = str(folder.layout.trained_dir)
        summary = cause.summary.replace(place, f"{place}, and none in the registry", 1)
        fix = Fix("records", {"source": "registry"}, effect="lists what the registry has")
        raise ModelNotFoundError(summary, fix=fix, **cause.data) from cause
    return found


def _in_full(
    folder: ModelFolder, target: Target, found: ModelRecord, *, lacks_aliases: bool
) -> ModelRecord:
    """Return a version's record with all that is known of it; a search leaves out its aliases."""
    if lacks_aliases and not found.aliases:
        found = versions.with_aliases(folder, target, found)
    return since.filled(folder, target, [joined(folder, target, found)])[0]


def joined(folder: ModelFolder, target: Target, record: ModelRecord) -> ModelRecord:
    """Return a version's record with what the disk has of the same save, or else its run."""
    history = folder.history()
    save = history.own_save_of_version(record)
    if save is None:  # another machine's
        params, metrics = folder.mirror(target).params_and_metrics_of_run(record)
    else:
        description = save.payload.description
        params, metrics = description.params, description.last_metrics
    return at_hand(folder, history, record, save, params, metrics)


def at_hand(
    folder: ModelFolder,
    history: History,
    record: ModelRecord,
    save: SaveRecord | None,
    params: dict[str, str],
    metrics: dict[str, float],
) -> ModelRecord:
    """Return a version's record with what the disk has of it, and its parameters and metrics."""
    path = folder.layout.model_path(record.name)
    status = regular.status_of(path)
    is_same = status is not None and versions.is_file_of(history, path, record)
    if is_same and save is None:
        left_by = history.id_of_save(history.file(path, status))
        is_same = left_by in (None, record.save_id)  # hosts may save the same bytes under one name
    is_in_place = is_same and save is None
    if status is not None and is_same and save is not None:
        is_in_place = status.st_mtime_ns == save.payload.file_time_ns
    recorded = save.payload.metadata if save else None
    return replace(
        record,
        path=path if is_same else None,
        size=status.st_size
        if status is not None and is_same
        else (save.payload.size if save else record.size),
        metadata=metadata.read(folder.layout.metadata_path(record.name))
        if is_in_place
        else recorded,
        params=params,
        metrics=metrics,
    )


def other_names(folder: ModelFolder, name: str) -> list[str]:
    """Return the names of all models but one that are in the folders, or of which a save is kept.

    Notes
    -----
    Every record is read of what is on disk no more.
    """
    history = folder.history()
    found = {*versions.names_on_disk(folder), *folder.store.names_in_backups()}
    recorded = {entry.name for entry in history.entries()} - found
    found |= {
        one for one in recorded if any(record.kind != PRUNE for record in history.records_of(one))
    }
    return sorted(found - {name})


def _with_aliases(
    folder: ModelFolder, target: Target, found: list[ModelRecord]
) -> list[ModelRecord]:
    """Return records with their aliases, or without where MLflow cannot be asked."""
    mirrored = {record.registered_model for record in found if record.version is not None}
    if folder.settings().mirror == "off" or not mirrored:
        return found
    try:
        if len(found) == 1 and sqlite_path(target.registry_uri) is None:
            return since.filled(folder, target, [versions.with_aliases(folder, target, found[0])])
        aliases = aliases_of(folder, target, mirrored)
    except MirrorError as cause:
        _logger.info("aliases are left out: %s", cause)
        return found
    named = [
        replace(record, aliases=named) if (named := named_in(aliases, record)) else record
        for record in found
    ]
    return since.filled(folder, target, named)


def named_in(aliases: dict[str, Aliases], record: ModelRecord) -> tuple[str, ...]:
    """Return the aliases of a version."""
    return aliases.get(record.registered_model, {}).get(record.version or 0, ())


def aliases_of(
    folder: ModelFolder, target: Target, registered_models: set[str]
) -> dict[str, Aliases]:
    """Return the aliases of registered models; MLflow is asked where no file has them."""
    path = sqlite_path(target.registry_uri)
    is_readable = path is not None and (regular.is_file(path) or not target.is_embedded)
    found = aliases_in_file(path, registered_models) if path and is_readable else None
    if found is not None:
        return found
    return folder.mirror(target).aliases_of(registered_models)


def aliases_in_file(path: Path, registered_models: Iterable[str]) -> dict[str, Aliases] | None:
    """Return the aliases in an SQLite registry, ``None`` where MLflow has to be asked for them.

    Notes
    -----
    Importing MLflow takes seconds. The file is opened for reading only. The table is as MLflow
    2.3 brought it in, and 3.17 has it; one that does not answer, in another release perhaps, is
    no error here.
    """
    import sqlite3  # imported lazily

    found: dict[str, Aliases] = {}
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=_ALIASES_SECONDS)) as opened:
            for name in registered_models:
                found[name] = aliases_by_version(opened.execute(_ALIASES, (name,)))
    except (sqlite3.Error, TypeError, ValueError):
        return None
    return found
