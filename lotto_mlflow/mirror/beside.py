"""What lies beside a version in MLflow, by which it shows of which save it is; all unverified."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lotto_mlflow import layout as names
from lotto_mlflow import metadata, regular
from lotto_mlflow.errors import MirrorUnavailableError, SignatureError
from lotto_mlflow.layout import Layout
from lotto_mlflow.mirror import fetch, leftovers
from lotto_mlflow.mirror.connection import Connection, translated
from lotto_mlflow.model_dir import REQUIREMENTS_FILE, SIGNATURE_FILE, STATEMENT_FILE
from lotto_mlflow.records import ModelRecord, is_id
from lotto_mlflow.signing import MAX_SIGNATURE_BYTES, MAX_STATEMENT_BYTES, Pair
from lotto_mlflow.signing.pairs import read_beside_model

_REQUIREMENTS_BYTES = 1 << 20


class Beside(NamedTuple):
    """What lies in MLflow beside the bytes of a version.

    Attributes
    ----------
    pair : tuple of bytes or None
        What is signed, and its signature; ``None`` where one of them is missing.
    requirements : bytes or None
        What whoever serves the version installs.
    metadata : bytes or None
        The metadata JSON among the artifacts of its run.
    has_run : bool
        Whether there is a run, which may have been removed for good.
    is_local : bool
        Whether all of this lies on this machine.
    """

    pair: Pair | None
    requirements: bytes | None
    metadata: bytes | None
    has_run: bool
    is_local: bool

    @property
    def pairs(self) -> list[Pair]:
        """The pair, if there is one."""
        return [] if self.pair is None else [self.pair]


def beside(connection: Connection, layout: Layout, record: ModelRecord, work_dir: Path) -> Beside:
    """Return what lies in MLflow beside a version.

    Parameters
    ----------
    connection : Connection
        The store.
    layout : Layout
        The folder of models.
    record : ModelRecord
        The version.
    work_dir : pathlib.Path
        A folder of this process for what is downloaded.

    Raises
    ------
    MirrorUnavailableError
        If it could not be asked, or answers with a place that is not believed.
    SignatureError
        If something there has more bytes than it may have, or a signature is no file.
    """
    with translated(f"looking for the signature of version {record.version} of {record.name}"):
        place = _of_model(connection, layout, record, work_dir)
        pair = place.pair()
        requirements = place.content(REQUIREMENTS_FILE, _REQUIREMENTS_BYTES)
        of_run = _of_run(connection, layout, record, work_dir / "run")
        return Beside(
            pair,
            requirements,
            None if of_run is None else of_run.metadata(record.name),
            of_run is not None,
            place.is_local,
        )


def pair_of(
    connection: Connection, layout: Layout, record: ModelRecord, work_dir: Path
) -> Pair | None:
    """Return what is signed of a version, and its signature, as `beside` does."""
    with translated(f"fetching the signature of version {record.version}"):
        return _of_model(connection, layout, record, work_dir).pair()


def _of_model(connection: Connection, layout: Layout, record: ModelRecord, work_dir: Path) -> Place:
    uri, folder = fetch.folder_of(connection, layout, record)
    return Place(connection, uri, folder, work_dir / "model")


class Place:
    """A place of artifacts, on this machine or elsewhere.

    Parameters
    ----------
    connection : Connection
        The store.
    uri : str
        Where it is; it was believed.
    local : pathlib.Path or None
        The folder, where that is on this machine.
    target_dir : pathlib.Path
        A folder of this process for what is downloaded.
    """

    def __init__(
        self, connection: Connection, uri: str, local: Path | None, target_dir: Path
    ) -> None:
        self._connection = connection
        self._uri = uri
        self._local = local
        self._target_dir = target_dir
        self._listed: dict[str, dict[str, int]] = {}

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return self._local is not None

    def pair(self) -> Pair | None:
        """Return what is signed and its signature, ``None`` where one of them is missing.

        Raises
        ------
        SignatureError
            If one has more bytes than it may have, or is no file.
        """
        if self._local is not None:
            return read_beside_model(self._local)
        statement = self.content(STATEMENT_FILE, MAX_STATEMENT_BYTES)
        signature = self.content(SIGNATURE_FILE, MAX_SIGNATURE_BYTES)
        return None if statement is None or signature is None else (statement, signature)

    def content(self, name: str, max_bytes: int) -> bytes | None:
        """Return what a file there holds, ``None`` where there is none.

        Raises
        ------
        SignatureError
            If it is larger than it may be.
        StoreError
            If it is that on this machine, or no file.
        """
        path = None if self._local is None else self._local / name
        if path is None:
            size = self._sizes_in(name.rpartition("/")[0]).get(name)
            if size is None:
                return None
            if size > max_bytes:
                raise SignatureError(
                    f"{name} beside the model in MLflow has {size:,} bytes, and is none",
                    problem="bad",
                )
            target_dir = self._target_dir / name.rpartition("/")[0]
            path = fetch.download(self._connection, self._uri, target_dir, name)
        try:
            return regular.content_of(path, max_bytes)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def metadata(self, name: str) -> bytes | None:
        """Return the metadata JSON of a model, as `content` does."""
        return self.content(f"{name}{names.METADATA_SUFFIX}", metadata.MAX_BYTES)

    def _sizes_in(self, folder: str) -> dict[str, int]:
        """Return the files in a folder there, which MLflow lists, with their sizes."""
        if folder not in self._listed:
            items = self._connection.repository(self._uri).list_artifacts(folder or None)
            self._listed[folder] = {i.path: i.file_size or 0 for i in items if not i.is_dir}
        return self._listed[folder]


def _of_run(
    connection: Connection, layout: Layout, record: ModelRecord, target_dir: Path
) -> Place | None:
    """Return where the artifacts of a run lie, ``None`` where there is no run any more."""
    run_id = str(record.run_id or "")
    if not run_id or not is_id(run_id):
        return None
    run = leftovers.run_of(connection, run_id)
    if run is None:
        return None
    uri = str(run.info.artifact_uri)
    own_dir = layout.run_dir(run_id)
    try:
        local = connection.places.readable(uri, run_id)
    except MirrorUnavailableError:  # of a folder that was moved, and is only read
        if not connection.is_embedded or not regular.is_folder(own_dir):
            raise
        local = own_dir
    return Place(connection, uri, local, target_dir)
