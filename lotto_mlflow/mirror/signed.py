"""The signatures in MLflow: what is signed of a save, and its signature, beside the model."""

from __future__ import annotations

from pathlib import Path

from mlflow.entities import LoggedModel

from lotto_mlflow import model_dir
from lotto_mlflow.errors import SignatureError
from lotto_mlflow.layout import Layout
from lotto_mlflow.mirror import beside
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.mirror.model_copies import ModelCopy
from lotto_mlflow.records import MlflowIds, ModelRecord
from lotto_mlflow.signing import Pair
from lotto_mlflow.signing.pairs import put_beside_model, read_beside_model

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

    def has(self, folder: Path, pair: Pair | None) -> bool:
        """Return whether a model folder of the embedded store has a pair; true for elsewhere."""
        return pair is None or not self._connection.is_embedded or _pair_in(folder) == pair

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
