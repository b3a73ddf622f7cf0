"""The signatures in MLflow: what is signed of a save, and its signature, beside the model."""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import Path

from mlflow.entities import LoggedModel, Run

from lotto_mlflow import layout as names
from lotto_mlflow import model_dir, private_dirs, regular
from lotto_mlflow.errors import LottoMlflowError, MirrorError, SignatureError, StoreError
from lotto_mlflow.files import replace_content
from lotto_mlflow.layout import Layout
from lotto_mlflow.metadata import json_of
from lotto_mlflow.mirror import beside, fetch
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.mirror.model_copies import ModelCopy
from lotto_mlflow.mirror.places import shown
from lotto_mlflow.records import MlflowIds, ModelRecord, SaveRecord
from lotto_mlflow.signing import Pair
from lotto_mlflow.signing.pairs import put_beside_model, read_beside_model

_logger = logging.getLogger("lotto_mlflow")
_FOLDER = Path(model_dir.STATEMENT_FILE).parent.name


def put(
    connection: Connection,
    model: LoggedModel,
    pair: Pair | None,
    there: Path | None,
    work_dir: Path,
) -> None:
    """Put a pair into the folder of a logged model, where it is not there yet.

    Parameters
    ----------
    connection : Connection
        The store.
    model : mlflow.entities.LoggedModel
        The logged model.
    pair : tuple of bytes or None
        What is signed, and the signature; ``None`` of a save that is not signed.
    there : pathlib.Path or None
        The folder, or a download of it; ``None`` where nobody has looked.
    work_dir : pathlib.Path
        The workspace for temporary files.
    """
    if pair is None or (there is not None and _pair_in(there) == pair):
        return
    local = connection.places.writable(model.artifact_location, model.model_id)
    if local is not None:
        put_beside_model(local, pair, work_dir)
        return
    folder = work_dir / "signed"
    put_beside_model(folder, pair, work_dir)
    connection.repository(model.artifact_location).log_artifacts(str(folder / _FOLDER), _FOLDER)


def put_unproven(
    connection: Connection,
    model: LoggedModel,
    ids: MlflowIds,
    record: SaveRecord,
    pair: Pair | None,
    work_dir: Path,
) -> dict[str, str] | None:
    """Put a pair beside a version of which no record says what its other files were.

    Returns
    -------
    dict of str to str or None
        No digests; ``None`` where nothing was put, since the version has other bytes than the save.
    """
    if pair is None or not fetch.has_bytes(connection, ids, record, work_dir):
        return None
    put(connection, model, pair, None, work_dir)
    return {}


def put_metadata(connection: Connection, run: Run, record: SaveRecord, work_dir: Path) -> None:
    """Put the metadata JSON of a save among the artifacts of its run, where it is not there.

    Parameters
    ----------
    connection : Connection
        The store.
    run : mlflow.entities.Run
        The run.
    record : SaveRecord
        The save; of one without metadata, what has that name there is put aside.
    work_dir : pathlib.Path
        The workspace for temporary files.
    """
    uri, run_id = str(run.info.artifact_uri), str(run.info.run_id)
    local = connection.places.writable(uri, run_id)
    place = beside.Place(connection, uri, local, work_dir / "of_run")
    wanted, name = json_of(record.payload.metadata), f"{record.name}{names.METADATA_SUFFIX}"
    if _is_metadata(place, record):
        return
    if wanted is None:
        _take_away(connection, uri, local, name, work_dir)
        return
    folder = local if local is not None else work_dir / "metadata"
    regular.check_folder(folder)
    regular.check_file(folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    replace_content(folder / name, wanted, work_dir)
    if local is None:
        connection.repository(uri).log_artifact(str(folder / name))


def _take_away(
    connection: Connection, uri: str, local: Path | None, name: str, work_dir: Path
) -> None:
    """Put a file among artifacts aside."""
    if local is not None:
        connection.put_aside(local / name, name)
        return
    connection.put_aside(fetch.download(connection, uri, work_dir / "of_run", name), name)
    try:
        connection.repository(uri).delete_artifacts(name)
    except LottoMlflowError:
        raise
    except Exception as cause:  # noqa: BLE001 - each store raises its own, and some have no such call
        _logger.warning(
            "%s in %s is of no save, and could not be removed (%s); remove it there",
            name,
            shown(uri),
            type(cause).__name__,
        )


def _is_metadata(place: beside.Place, record: SaveRecord) -> bool:
    try:
        return place.metadata(record.name) == json_of(record.payload.metadata)
    except (SignatureError, StoreError):  # it is no file, or none of ours
        return False


def _pair_in(folder: Path) -> Pair | None:
    try:
        return read_beside_model(folder)
    except SignatureError:
        return None


class StoredPairs:
    """What is signed of saves, and the signatures, in one tracking store.

    Parameters
    ----------
    connection : Connection
        The store.
    layout : Layout
        The folder of models.
    """

    def __init__(self, connection: Connection, layout: Layout) -> None:
        self._connection = connection
        self._layout = layout

    def put(self, ids: MlflowIds, pair: Pair, work_dir: Path) -> None:
        """Put the pair of a save beside its model, where that is here already.

        Raises
        ------
        MirrorError
            If MLflow refuses it, or cannot be asked.
        """
        with self._connection.guarded(f"putting a signature beside version {ids.version}"):
            self._connection.prepare()
            model = self._connection.client.get_logged_model(ids.model_id)
            put(self._connection, model, pair, None, work_dir)

    def is_beside(self, ids: MlflowIds, record: SaveRecord, pair: Pair) -> bool:
        """Return whether beside a version lies what a save is proved by where no record of it is.

        Notes
        -----
        That is the pair, the metadata in the run, and the requirements, as far as their digest was
        recorded. Where it could not be looked at, which is logged, it is taken to be there.
        """
        if self._connection.is_embedded:
            run_dir = self._layout.run_dir(ids.run_id)
            place = beside.Place(self._connection, "", run_dir, run_dir)
            has_metadata = not regular.is_folder(run_dir) or _is_metadata(place, record)
            return has_metadata and _pair_in(self._layout.model_dir(ids.model_id)) == pair
        version = ModelRecord(
            name=record.name,
            registered_model=names.registered_model_of(ids, record.name),
            version=ids.version,
            run_id=ids.run_id,
        )
        try:
            with private_dirs.brief() as work_dir:
                found = beside.beside(self._connection, self._layout, version, work_dir)
        except (SignatureError, StoreError):
            return False
        except MirrorError as cause:
            _logger.warning("whether %s is signed there is not known: %s", record.name, cause)
            return True
        digest = ids.files.get(model_dir.REQUIREMENTS_FILE)
        has_requirements = digest in (None, sha256(found.requirements or b"").hexdigest())
        has_metadata = not found.has_run or found.metadata == json_of(record.payload.metadata)
        return found.pair == pair and has_requirements and has_metadata

    def model_copy(self, version: ModelRecord) -> ModelCopy:
        """Return what copies the whole model folder of a version."""
        return ModelCopy(self._connection, self._layout, version)

    def of_version(self, version: ModelRecord, work_dir: Path) -> Pair | None:
        """Return the pair beside a version, ``None`` where one of the two is missing.

        Raises
        ------
        SignatureError
            If it cannot be one: links, more bytes than a pair has.
        MirrorUnavailableError
            If MLflow cannot be asked.

        Notes
        -----
        Nothing is verified: it is what the store has.
        """
        return beside.pair_of(self._connection, self._layout, version, work_dir)
