"""Which save a file, a backup or a version is of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from lotto_mlflow import layout as names
from lotto_mlflow.manager.parts import Parts
from lotto_mlflow.records import ModelRecord, SaveRecord
from lotto_mlflow.store import sha256_of_file


def save_of(parts: Parts, path: Path) -> SaveRecord | None:
    """Return the record of the save that left a file of ``trained/`` or ``backups/``, by its time.

    Notes
    -----
    A name that ends like the number of a backup may be just that, or a model's own.
    """
    time_ns = path.stat().st_mtime_ns
    model_names = {names.name_of(path), names.name_of_backup(path)}
    saves = (save for name in model_names for save in parts.outbox.of_name(name))
    return next((save for save in saves if save.file_time_ns == time_ns), None)


def save_in_place(
    saves: Iterator[SaveRecord], path: Path, status: os.stat_result, told: object
) -> SaveRecord | None:
    """Return the save that left a file: by its time, by the digest told, or by its bytes.

    Parameters
    ----------
    saves : iterator of SaveRecord
        The saves of the file's name, newest first.
    path : pathlib.Path
        The file.
    status : os.stat_result
        Its status.
    told : object
        The digest that its metadata tells, if it does.

    Notes
    -----
    A copy of the folder has other times; only then, and without metadata, is the file read.
    """
    others = []
    for save in saves:
        if save.file_time_ns == status.st_mtime_ns:
            return save
        others.append(save)
    alike = [save for save in others if save.size == status.st_size]
    digest = sha256_of_file(path) if told is None and alike else told
    return next((save for save in others if save.sha256 == digest), None)


def save_of_version(parts: Parts, record: ModelRecord) -> SaveRecord | None:
    """Return a version's own save, or else the newest with its bytes."""
    saves = list(parts.outbox.of_name(record.name))
    own = (save for save in saves if save.saved_at_ns == record.saved_at_ns)
    same = (save for save in saves if save.sha256 == record.sha256)
    return next(chain(own, same), None)


def record_with(parts: Parts, name: str, sha256: str) -> SaveRecord | None:
    """Return the newest record of a name that has these bytes."""
    found = (record for record in parts.outbox.of_name(name) if record.sha256 == sha256)
    return next(found, None)


def name_of_backup(parts: Parts, path: Path) -> str:
    """Return the name of the model that a file in ``backups/`` is of.

    Notes
    -----
    ``x.2.pkl`` may be the second backup of ``x``, or the first of a model named ``x.2``. Records
    tell: that of the save with the file's time, or that of the save which put it there. Without
    them it is a model's own name if there is such a model.
    """
    own, numbered = names.name_of(path), names.name_of_backup(path)
    if own == numbered:
        return own
    save = save_of(parts, path)
    if save is not None:
        return save.name
    if any(record.backup == own for record in parts.outbox.of_name(numbered)):
        return numbered
    is_own = parts.layout.model_path(own).exists() or any(parts.outbox.of_name(own))
    return own if is_own else numbered
