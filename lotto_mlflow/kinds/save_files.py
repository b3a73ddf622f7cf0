"""The files that a save has on disk: found by its record, removed when the save goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lotto_mlflow import downloads, regular
from lotto_mlflow.files import sync_dir
from lotto_mlflow.history import History
from lotto_mlflow.layout import METADATA_SUFFIX
from lotto_mlflow.model_file import ModelFile
from lotto_mlflow.records import PrunePayload, SavePayload


@dataclass
class SaveFiles:
    """The files of one save.

    Attributes
    ----------
    own : list of ModelFile
        Those in ``trained/`` and ``backups/`` with its bytes.
    damaged : list of ModelFile
        Those there that are its own by name and time, and have other bytes or cannot be read.
    downloads : list of pathlib.Path
        Copies that were fetched from MLflow.
    """

    own: list[ModelFile] = field(default_factory=list)
    damaged: list[ModelFile] = field(default_factory=list)
    downloads: list[Path] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all of them, metadata included."""
        files = [*self.own, *self.damaged]
        statuses = [file.status for file in files]
        statuses += filter(None, (regular.status_of(file.metadata_path) for file in files))
        statuses += filter(None, map(regular.status_of, self.downloads))
        return sum({(s.st_dev, s.st_ino): s.st_size for s in statuses}.values())


def files_of(
    history: History, save_id: str, payload: SavePayload | PrunePayload, *, hashes: bool = True
) -> SaveFiles:
    """Return the files of a save.

    Parameters
    ----------
    history : History
        The records.
    save_id : str
        The save.
    payload : SavePayload or PrunePayload
        What it is.
    hashes : bool
        Whether a file with its time is hashed, too; else it is taken for its own.

    Notes
    -----
    A file is of a save by its name, its time and its bytes. In a copy of the folder files have
    other times: there one is of it by its name and its bytes, unless another save of the name has
    the same bytes.
    """
    found = SaveFiles()
    saves = [save for save in history.saves_of(payload.name) if save.id != save_id]
    times = {save.payload.file_time_ns for save in saves}
    is_only_one = all(save.payload.sha256 != payload.sha256 for save in saves)
    for file in _candidates(history, payload.name):
        if file.time_ns == payload.file_time_ns:
            is_own = not hashes or _has_bytes(file, payload)
            (found.own if is_own else found.damaged).append(file)
        elif is_only_one and file.time_ns not in times and _has_bytes(file, payload):
            found.own.append(file)
    download = history.layout.downloads_dir / payload.sha256 / f"{payload.name}.pkl"
    if is_only_one and regular.is_folder(download.parent) and regular.is_file(download):
        found.downloads.append(download)
    return found


def _candidates(history: History, name: str) -> Iterator[ModelFile]:
    path = history.layout.model_path(name)
    status = regular.status_of(path)
    if status is not None:
        yield history.file(path, status)
    yield from (file for file in history.backups_of(name) if history.name_of(file) == name)


def _has_bytes(file: ModelFile, payload: SavePayload | PrunePayload) -> bool:
    if file.status.st_size != payload.size:
        return False
    try:
        return file.sha256 == payload.sha256
    except OSError:
        return False


def remove(history: History, found: SaveFiles) -> None:
    """Remove the files of a save; damaged ones are put into ``mlflow/aside/``.

    Notes
    -----
    Metadata goes first: as long as the model is there, it is known whose it is.
    """
    layout, folders = history.layout, set[Path]()
    for file in found.damaged:
        away = history.aside_path(file)
        if regular.is_file(file.metadata_path):
            os.replace(file.metadata_path, away.with_name(f"{away.stem}{METADATA_SUFFIX}"))
        os.replace(file.path, away)
        folders |= {file.path.parent, file.metadata_path.parent, layout.aside_dir}
    for file in found.own:
        if regular.is_file(file.metadata_path):
            file.metadata_path.unlink(missing_ok=True)
        file.path.unlink(missing_ok=True)
        folders |= {file.path.parent, file.metadata_path.parent}
    for path in found.downloads:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # another model has the same bytes
            downloads.remove_pairs_in(path.parent)
            path.parent.rmdir()
    for folder in sorted(folders):
        sync_dir(folder)
