"""The order of work: `ModelManager`, and a file for each of its verbs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotto_mlflow import references, settings
from lotto_mlflow.layout import Layout
from lotto_mlflow.manager import (
    loading,
    lookup,
    relocating,
    restoring,
    saving,
    syncing,
    verifying,
)
from lotto_mlflow.manager.parts import Parts
from lotto_mlflow.manager.pushing import Pusher
from lotto_mlflow.settings import Settings
from lotto_mlflow.store import make_dir

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

__all__ = ["ModelManager"]

_logger = logging.getLogger("lotto_mlflow")


class ModelManager:
    """The models of one folder, on disk and in MLflow.

    Parameters
    ----------
    base_dir : str or path-like
        Folder that holds ``trained/``, ``metadata/`` and ``backups/``; made when first needed.
    mirror : {"sync", "background", "off"}, optional
        Wins over ``LOTTO_MIRROR``.
    timezone : str, optional
        IANA name; wins over ``LOTTO_TIMEZONE``.
    tracking_uri, registry_uri : str, optional
        Win over MLflow's own settings. Without any, the store is ``mlflow/mlflow.db`` inside
        the folder.

    Raises
    ------
    SettingsError
        If a setting has a value that it does not take.

    Notes
    -----
    Safe to use from several threads and processes at once. The environment is read at each call.
    """

    def __init__(
        self,
        base_dir: str | os.PathLike[str],
        *,
        mirror: str | None = None,
        timezone: str | None = None,
        tracking_uri: str | None = None,
        registry_uri: str | None = None,
    ) -> None:
        self._start(
            Layout.under(Path(base_dir).absolute()),
            partial(
                settings.read,
                mirror=mirror,
                timezone=timezone,
                tracking_uri=tracking_uri,
                registry_uri=registry_uri,
            ),
        )

    @classmethod
    def of_layout(cls, layout: Layout) -> ModelManager:
        """Return a manager of three folders that need not lie side by side."""
        manager = cls.__new__(cls)
        manager._start(layout, settings.read)
        return manager

    def _start(self, layout: Layout, read_settings: Callable[[], Settings]) -> None:
        self._parts = Parts.at(layout)
        self._settings = read_settings
        self._pusher = Pusher.of(self._parts)
        self._mirrors = self._pusher.mirrors
        self._settings()  # refuses unknown values now, not at the first save

    def save_model(
        self,
        model: Any,
        model_name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        input_example: Any = None,
        artifacts: Mapping[str, Any] | None = None,
        dataset: Any = None,
    ) -> str:
        """Save a model on disk, and mirror the save into MLflow.

        Parameters
        ----------
        model : object
            What joblib can pickle; an estimator, a pipeline, or any other object.
        model_name : str, optional
            One plain file name without ``.pkl``; ``lotto_model_YYYYMMDD`` by default, with the
            time of day appended where that was used before.
        metadata : mapping of str to object, optional
            Numbers become metrics in MLflow, everything else parameters.
        input_example : array-like, DataFrame or list of shape (n_samples, n_features), optional
            Rows from which the signature of inputs and outputs is inferred.
        artifacts : mapping of str to object, optional
            Files (``Path``), text, dicts and matplotlib figures to show with the run.
        dataset : DataFrame, array-like or mapping of str to these, optional
            The training data, or ``{"train": X, "test": X_test}``: name, digest, schema and shape
            are recorded, no values. A metric such as ``test_log_loss`` is shown as measured on
            ``test``. What `mlflow.data` made is taken, too.

        Returns
        -------
        str
            Path of the saved file.

        Raises
        ------
        InvalidModelError, InvalidNameError, InvalidMetadataError
            If one of these cannot be saved; the model must not be ``None``.
        InvalidArtifactError, InvalidDatasetError
            If an extra artifact, or a data set, is not one.
        DumpError, StoreError
            If joblib cannot write the model, or the disk refuses.

        Notes
        -----
        Atomic and durable: whatever fails or is killed, the old model or the new one is there
        whole. What is replaced goes to ``backups/``. A failure leaves the folder as it was. MLflow
        never fails a save, nor holds it more than five seconds; what it could not be told is sent
        by a later save.
        """
        in_force = self._settings()
        record = saving.save(
            self._parts,
            in_force,
            model,
            model_name,
            metadata,
            input_example=input_example,
            extra=artifacts,
            dataset=dataset,
        )
        path = self._parts.layout.model_path(record.name)
        if in_force.mirror != "off":
            current = self._pusher.start(in_force)
            problem = None
            if in_force.mirror == "sync":
                problem = self._pusher.wait_for(current, record.id)
            if problem is not None:
                _logger.warning(
                    "%s is saved, and will be mirrored to MLflow later, by another save: %s",
                    path,
                    problem,
                )
        return str(path)

    def load_model(self, model_path: str | os.PathLike[str]) -> Any:
        """Load a model from a file, or from the registry.

        Parameters
        ----------
        model_path : str or path-like
            A file; or ``models:/NAME/1``, ``models:/NAME/latest``, ``models:/NAME@ALIAS``.

        Returns
        -------
        object
            The model as it was saved.

        Raises
        ------
        ModelNotFoundError
            If there is no such file, version or alias; also a ``FileNotFoundError``.
        DigestMismatchError, ForeignModelError, PickleNotAllowedError
            If the bytes are not the ones that were saved; if the version was made by others; if
            ``MLFLOW_ALLOW_PICKLE_DESERIALIZATION`` forbids it. Nothing was unpickled.
        LoadError
            If joblib cannot read the file.
        MirrorUnavailableError
            If the registry could not be asked.

        Warnings
        --------
        Unpickling runs code. A digest shows that bytes are unchanged, not that they are harmless:
        load only models whose origin you trust.
        """
        given = os.fspath(model_path)
        if not given.startswith(references.SCHEME):
            return loading.load_file(self._parts, self._target(), given)
        reference = references.parse(given)
        self._pusher.wait_for_queued()
        record = self._mirror().get(reference)
        path = lookup.file_of(self._parts, self._mirror(), record)
        return loading.load_file(self._parts, self._target(), path, record)

    def get_latest_model_path(self, *, source: lookup.Source = "filesystem") -> str | None:
        """Return the path of the newest model.

        Parameters
        ----------
        source : {"filesystem", "registry"}
            ``filesystem``: the newest ``lotto_model_*.pkl`` in ``trained/`` by modification time.
            ``registry``: a file with the bytes of the newest save that MLflow knows.

        Returns
        -------
        str or None
            ``None`` where there is no model.

        Raises
        ------
        MirrorUnavailableError
            If the registry could not be asked.
        """
        if lookup.checked(source) == "filesystem":
            path = self._parts.store.latest()
            if path is None:
                make_dir(self._parts.layout.trained_dir)
            return None if path is None else str(path)
        self._pusher.wait_for_queued()
        record = self._mirror().latest()
        if record is None:
            return None
        return str(lookup.file_of(self._parts, self._mirror(), record))

    def flush(self, timeout: float = 60.0) -> bool:
        """Send what waits for the store in force, and wait for it, ``timeout`` seconds at most.

        Returns
        -------
        bool
            Whether MLflow has been told of everything; with ``LOTTO_MIRROR=off`` nothing is sent.
        """
        in_force = self._settings()
        if in_force.mirror == "off":
            return not self._parts.outbox.waiting()
        return self._pusher.flush(in_force, timeout)

    records = lookup.records
    get = lookup.get
    latest = lookup.latest
    sync = syncing.sync
    verify = verifying.verify
    restore = restoring.restore
    relocate = relocating.relocate

    def _target(self) -> str:
        return settings.target_of(self._settings(), self._parts.layout.database_path)

    def _mirror(self) -> Mirror:
        return self._mirrors.of(self._settings())

    def _mirror_of(self, target: str) -> Mirror:
        """Return the mirror in a store that a record names, which may not be the one in force."""
        uri = None if target == settings.EMBEDDED else target
        return self._mirrors.of(replace(self._settings(), tracking_uri=uri, registry_uri=None))
