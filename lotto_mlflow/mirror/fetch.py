"""Fetching the bytes of a version: the local artifact, or a verified download."""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow.artifacts

from lotto_mlflow import advice, metadata, model_dir, regular
from lotto_mlflow import layout as names
from lotto_mlflow.errors import (
    DigestMismatchError,
    Fix,
    ForeignModelError,
    LoadError,
    LottoMlflowError,
    ModelNotFoundError,
    StoreError,
)
from lotto_mlflow.files import copy_tree, local_path, may_write
from lotto_mlflow.layout import Layout
from lotto_mlflow.mirror import leftovers, room
from lotto_mlflow.mirror.connection import Connection, translated
from lotto_mlflow.mirror.places import shown
from lotto_mlflow.model_dir import DATA_FILE
from lotto_mlflow.records import Arrived, MlflowIds, ModelRecord, SaveRecord, is_digest
from lotto_mlflow.threads import started

if TYPE_CHECKING:
    from lotto_mlflow.downloads import DownloadCache

_logger = logging.getLogger("lotto_mlflow")
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_WATCHED_EVERY_SECONDS = 0.1
_ERRNO = re.compile(r"\[Errno ([0-9]{1,4})\]")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def file_of(
    connection: Connection,
    layout: Layout,
    record: ModelRecord,
    downloads: DownloadCache,
    *,
    verifies: bool = True,
    arrived: Arrived | None = None,
) -> Path:
    """Return a file with the bytes of a version: the local artifact, or a verified download.

    Parameters
    ----------
    connection : Connection
        The store.
    layout : Layout
        The folder of models.
    record : ModelRecord
        The version.
    downloads : DownloadCache
        Where downloads are kept; one that is there already is found without asking MLflow.
    verifies : bool
        Whether a file that is there already is verified, too.
    arrived : callable, optional
        Called while the bytes are downloaded.

    Raises
    ------
    DigestMismatchError
        If the artifact was changed after it was mirrored.
    """
    if not connection.is_embedded:
        kept = downloads.find(*_named(record))
        if kept is not None:
            return _verified(kept, record, hashes=verifies)
    uri, local = local_file_of(connection, layout, record, verifies=verifies)
    if local is not None:
        return local
    path, is_new = downloads.get(
        *_named(record),
        record.saved_at_ns,
        lambda target_dir: _downloaded(connection, uri, record, target_dir, arrived),
    )
    return _verified(path, record, hashes=verifies and not is_new)


def local_file_of(
    connection: Connection, layout: Layout, record: ModelRecord, *, verifies: bool = True
) -> tuple[str, Path | None]:
    """Return where the bytes of a version lie, and the file where that is on this machine."""
    uri, folder = folder_of(connection, layout, record)
    return uri, folder and _verified(folder / DATA_FILE, record, hashes=verifies)


def folder_of(
    connection: Connection, layout: Layout, record: ModelRecord
) -> tuple[str, Path | None]:
    """Return where the model folder of a version lies, and its path where that is here.

    Raises
    ------
    ModelNotFoundError
        If it is said to lie outside the folder of models, whose own store it is.
    MirrorUnavailableError
        If it is said to lie in another place that is not believed. Nothing was opened.
    """
    doing = f"looking for the file of version {record.version} of {record.registered_model}"
    name, version = record.registered_model, str(record.version)
    uri = connection.ask(
        lambda: connection.client.get_model_version_download_uri(name, version), doing, ""
    )
    if connection.is_embedded and not connection.places.is_believed(uri):
        moved = None if may_write(layout.database_path) else _moved(layout, uri)
        if moved is not None:
            return uri, moved
        raise ModelNotFoundError(
            f"version {version} of {name} says that its file lies in {shown(uri)}, which is not "
            f"in {layout.artifacts_dir}; nothing was read there",
            fix=Fix("relocate", before="if the folder was moved, call"),
            path=uri,
        )
    return uri, connection.places.readable(uri)


def _moved(layout: Layout, uri: str) -> Path | None:
    """Return where in this folder an artifact lies that lay in it before it was moved, if it does.

    Notes
    -----
    A folder is mounted elsewhere on another machine, and who only reads it cannot relocate it.
    Nothing outside the folder is looked at, and the digest says whether it is what was meant.
    """
    path = local_path(uri)
    if path is None or ".." in path.parts:
        return None
    before, here = path.parts, layout.artifacts_dir
    for number in range(len(before) - 1, 0, -1):
        if before[number - 1 : number + 1] == (layout.mlflow_dir.name, here.name):
            found = here.joinpath(*before[number + 1 :])
            is_here = regular.is_below(found, here) and regular.is_folder(found)
            return found if is_here else None
    return None


def has_bytes(
    connection: Connection, ids: MlflowIds, record: SaveRecord, work_dir: Path | None = None
) -> bool:
    """Return whether a version has the bytes of a save.

    Parameters
    ----------
    connection : Connection
        The store.
    ids : MlflowIds
        The version.
    record : SaveRecord
        The save.
    work_dir : pathlib.Path, optional
        A workspace, for what another machine keeps; without it that is believed.

    Notes
    -----
    Whoever reaches a registry can give the tags of a save to a version of something else.
    """
    name = names.registered_model_of(ids, record.name)
    uri = connection.client.get_model_version_download_uri(name, str(ids.version))
    if not connection.places.is_believed(uri):
        return False
    folder = connection.places.readable(uri)
    if folder is not None:
        return model_dir.is_data_intact(folder, record.payload.sha256)
    if work_dir is None:
        return True
    found = download(connection, uri, work_dir / "compared", DATA_FILE)
    return regular.sha256_of_file(found) == record.payload.sha256


def _downloaded(
    connection: Connection,
    uri: str,
    record: ModelRecord,
    target_dir: Path,
    arrived: Arrived | None,
) -> Path:
    """Download the bytes of a version into a new folder, and verify them.

    Raises
    ------
    StoreError
        If the disk has no room for them.
    """
    doing = f"fetching version {record.version} of {record.registered_model}"
    with translated(doing), _watched(target_dir, arrived, record.size or 0):
        room.check(connection, uri, record, target_dir.parent)
        try:
            found = download(connection, uri, target_dir, DATA_FILE)
        except Exception as cause:
            refusal = _refusal(cause)
            if refusal.errno not in _NO_ROOM:
                raise
            helps = advice.of_error(refusal, target_dir.parent)
            raise StoreError(
                f"{doing} failed: {refusal.strerror}; nothing is left of it in "
                f"{target_dir.parent.parent}; {helps}",
                path=target_dir,
            ) from cause
    return _verified(found, record)


def _refusal(cause: Exception) -> OSError:
    """Return what the system refused, without a number where it is not known to have.

    Notes
    -----
    MLflow puts what went wrong with each file into the text of one error (3.17,
    mlflow.store.artifact.artifact_repo).
    """
    number = advice.number_of(cause)
    said = _ERRNO.search(str(cause)) if number is None else None
    number = int(said[1]) if said is not None else number
    return OSError() if number is None else OSError(number, os.strerror(number))


@contextmanager
def _watched(folder: Path, arrived: Arrived | None, size: int) -> Iterator[None]:
    """Report how many bytes lie in a folder, again and again until the block ends.

    Notes
    -----
    MLflow's client downloads with no word about how far it is.
    """
    if arrived is None:
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_WATCHED_EVERY_SECONDS):
            arrived(_bytes_in(folder), size)

    wait = started(watch)
    try:
        yield
        arrived(_bytes_in(folder), size)
    finally:
        ended.set()
        wait()


def _bytes_in(folder: Path) -> int:
    statuses = (regular.status_of(path) for path, _ in regular.below(folder))
    return sum(status.st_size for status in statuses if status is not None)


def _named(record: ModelRecord) -> tuple[str, str]:
    """Return the digest and the name by which the download of a version is kept.

    Raises
    ------
    ForeignModelError
        If one of them, which others may have written, is none.
    """
    if not is_digest(record.sha256) or not names.is_plain(record.name):
        raise ForeignModelError(
            f"version {record.version} of {record.registered_model} has no digest, or its name "
            "is none of a file; it was not made by lotto_mlflow"
        )
    return str(record.sha256), record.name


def metadata_of(connection: Connection, record: ModelRecord, work_dir: Path) -> bytes | None:
    """Return the metadata JSON among the artifacts of a version's run, if there is one.

    Notes
    -----
    It is what MLflow says, and nothing of it is checked here but its size.
    """
    name = f"{record.name}{names.METADATA_SUFFIX}"
    with translated(f"fetching the metadata of {record.name}"):
        location = _location_of_run(connection, str(record.run_id))
        if location is None:
            return None
        items = connection.repository(location).list_artifacts()
        if not any(item.path == name and not item.is_dir for item in items):
            return None
        found = download(connection, location, work_dir / "metadata", name)
    return metadata.content_of(found)


def _location_of_run(connection: Connection, run_id: str) -> str | None:
    """Return where the artifacts of a run lie, ``None`` where the run was removed for good."""
    run = leftovers.run_of(connection, run_id)
    if run is None:
        return None
    connection.places.readable(run.info.artifact_uri, run_id)
    return str(run.info.artifact_uri)


def download(connection: Connection, location: str, target_dir: Path, name: str = "") -> Path:
    """Download what lies in a place that was believed: all of it, or the file of that name."""
    found = mlflow.artifacts.download_artifacts(
        artifact_uri=f"{location.rstrip('/')}/{name}" if name else location,
        dst_path=str(target_dir),
        tracking_uri=connection.tracking_uri,
        registry_uri=connection.registry_uri,
    )
    return Path(found)


def model_dir_of(connection: Connection, model_id: str, work_dir: Path) -> Path | None:
    """Download the folder of a logged model; ``None`` where it lies on this machine."""
    with translated(f"fetching the logged model {model_id}"):
        location = connection.client.get_logged_model(model_id).artifact_location
        if connection.places.readable(location, model_id) is not None:
            return None
        return download(connection, location, work_dir / model_id)


def artifacts_of_run(
    connection: Connection, layout: Layout, run_id: str, target_dir: Path
) -> Path | None:
    """Copy the artifacts of a run to a new folder; ``None`` where it has none any more.

    Notes
    -----
    Those of the embedded store are copied from where they lie: a database that was lost and made
    anew does not know the run.
    """
    if connection.is_embedded:
        local = layout.run_dir(run_id)
        if not _RUN_ID.fullmatch(run_id) or not regular.is_folder(local):
            return None
        for path in copy_tree(local, target_dir):
            _logger.warning("%s is no file, and was left out of what is sent again", path)
        return target_dir

    def location_of_some() -> str | None:
        location = _location_of_run(connection, run_id)
        if location is None or not connection.repository(location).list_artifacts():
            return None
        return location

    doing = f"fetching the artifacts of run {run_id}"
    location = connection.ask(location_of_some, doing, None)
    if location is None:
        return None
    with translated(doing):
        return download(connection, location, target_dir)


def _verified(path: Path, record: ModelRecord, *, hashes: bool = True) -> Path:
    if not hashes and regular.is_file(path):
        return path
    try:
        found = regular.sha256_of_file(path)
    except FileNotFoundError as cause:
        raise ModelNotFoundError(
            f"{path} is missing, though version {record.version} of {record.registered_model} "
            "says that it lies there",
            fix=Fix("relocate", before="if the folder was moved, call"),
            path=path,
        ) from cause
    except LottoMlflowError:
        raise
    except OSError as cause:
        helps = advice.of_error(cause, path, reads=True)
        raise LoadError(f"{path} could not be read: {cause}; {helps}", path=path) from cause
    if found != record.sha256:
        version = f"version {record.version} of {record.registered_model}"
        raise DigestMismatchError.of_file(
            path,
            {str(record.sha256)},
            found,
            "nothing was unpickled",
            Fix(
                "sync",
                {"resend": True},
                before="delete a download, and it is made again; for an artifact delete "
                f"{version} in MLflow, and",
                effect="sends the intact file on disk",
            ),
        )
    return path
