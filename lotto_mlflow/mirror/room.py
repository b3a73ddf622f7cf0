"""Room for a download: seen to before it begins."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from lotto_mlflow import advice
from lotto_mlflow.errors import StoreError
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.model_dir import DATA_FILE
from lotto_mlflow.records import ModelRecord
from lotto_mlflow.text import size_as_text


def check(connection: Connection, uri: str, record: ModelRecord, folder: Path) -> None:
    """Refuse a download for which a disk has no room.

    Parameters
    ----------
    connection : Connection
        The store.
    uri : str
        Where the model folder of the version lies.
    record : ModelRecord
        The version.
    folder : pathlib.Path
        A folder on the file system that the download goes to.

    Raises
    ------
    StoreError
        If there is none.

    Notes
    -----
    Where MLflow's client downloads from a bucket by signed URLs, it takes a full disk for a
    connection that failed, tries for four minutes, and does not say what it was (3.17).
    """
    size = record.size or _size_at(connection, uri)
    if size <= shutil.disk_usage(folder).free:
        return
    helps = advice.of_error(OSError(errno.ENOSPC, ""), folder)
    raise StoreError(
        f"version {record.version} of {record.registered_model} has {size_as_text(size)}, and "
        f"there is no space for it in {folder.parent}: nothing was downloaded; {helps}",
        path=folder,
    )


def _size_at(connection: Connection, uri: str) -> int:
    """Return the size of a model's file as its store lists it, 0 where it does not say."""
    listed = connection.repository(uri).list_artifacts(os.path.dirname(DATA_FILE))  # noqa: PTH120
    return next((int(each.file_size or 0) for each in listed if each.path == DATA_FILE), 0)
