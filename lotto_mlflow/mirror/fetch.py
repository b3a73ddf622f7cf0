"""Fetching the bytes of a version: the local artifact, or a verified download."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import mlflow.artifacts
from mlflow.exceptions import MlflowException

from lotto_mlflow import layout as names
from lotto_mlflow.errors import DigestMismatchError, Fix, ModelNotFoundError
from lotto_mlflow.files import local_path
from lotto_mlflow.layout import Layout
from lotto_mlflow.mirror import model_folder
from lotto_mlflow.mirror.connection import Connection, translated
from lotto_mlflow.pyfunc_loader import sha256_of
from lotto_mlflow.records import ModelRecord


def file_of(connection: Connection, layout: Layout, record: ModelRecord, work_dir: Path) -> Path:
    """Return a file with the bytes of a version: the local artifact, or a verified download.

    Raises
    ------
    DigestMismatchError
        If the artifact was changed after it was mirrored.
    """
    doing = f"fetching version {record.version} of {record.registered_model}"
    name, version = record.registered_model, str(record.version)
    uri = connection.ask(
        lambda: connection.client.get_model_version_download_uri(name, version), doing, ""
    )
    folder = local_path(uri)
    if folder is not None:
        return _verified(folder / model_folder.DATA_FILE, record)
    with translated(doing):
        return _downloaded(connection, layout, uri, record, work_dir)


def _downloaded(
    connection: Connection, layout: Layout, uri: str, record: ModelRecord, work_dir: Path
) -> Path:
    target = layout.downloads_dir / str(record.sha256) / f"{record.name}.pkl"
    if target.exists():
        return _verified(target, record)
    found = mlflow.artifacts.download_artifacts(
        artifact_uri=f"{uri.rstrip('/')}/{model_folder.DATA_FILE}",
        dst_path=str(work_dir / "download"),
        tracking_uri=connection.tracking_uri,
        registry_uri=connection.registry_uri,
    )
    path = _verified(Path(found), record)
    if record.saved_at_ns is not None:
        os.utime(path, ns=(record.saved_at_ns, record.saved_at_ns))
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, target)
    return target


def metadata_of(connection: Connection, record: ModelRecord, work_dir: Path) -> bytes | None:
    """Return the metadata JSON among the artifacts of a version's run, if there is one."""
    name = f"{record.name}{names.METADATA_SUFFIX}"
    with translated(f"fetching the metadata of {record.name}"):
        items = connection.client.list_artifacts(str(record.run_id))
        if name not in {item.path for item in items}:
            return None
        found = connection.client.download_artifacts(str(record.run_id), name, str(work_dir))
    return Path(found).read_bytes()


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
        local = layout.artifacts_dir / names.REGISTERED_MODEL / run_id / "artifacts"
        return Path(shutil.copytree(local, target_dir)) if local.is_dir() else None

    def has_some() -> bool:
        try:
            return bool(connection.client.list_artifacts(run_id))
        except MlflowException as cause:
            if cause.error_code != "RESOURCE_DOES_NOT_EXIST":  # removed for good
                raise
            return False

    doing = f"fetching the artifacts of run {run_id}"
    if not connection.ask(has_some, doing, False):
        return None
    with translated(doing):
        target_dir.mkdir()
        return Path(connection.client.download_artifacts(run_id, "", str(target_dir)))


def _verified(path: Path, record: ModelRecord) -> Path:
    try:
        with path.open("rb") as file:
            found = sha256_of(file)
    except FileNotFoundError as cause:
        raise ModelNotFoundError(
            f"{path} is missing, though version {record.version} of {record.registered_model} "
            "says that it lies there",
            fix=Fix("relocate", before="if the folder was moved, call"),
            path=path,
        ) from cause
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
