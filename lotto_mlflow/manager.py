"""`ModelManager`: everything that can be done with a folder of models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotto_mlflow import operations, settings
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.layout import Layout
from lotto_mlflow.records import Finding, ModelRecord, Progress, SyncReport

if TYPE_CHECKING:
    from lotto_mlflow.operations.find import Source
    from lotto_mlflow.operations.restore import RestoreSource
    from lotto_mlflow.settings import MirrorMode


class ModelManager:
    """The models of one folder, on disk and in MLflow.

    Parameters
    ----------
    base_dir : str, path-like or Layout
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
        If a setting has a value that is not allowed.

    Notes
    -----
    Safe to use from several threads and processes at once. The environment is read at each call.
    """

    def __init__(
        self,
        base_dir: str | os.PathLike[str] | Layout,
        *,
        mirror: MirrorMode | None = None,
        timezone: str | None = None,
        tracking_uri: str | None = None,
        registry_uri: str | None = None,
    ) -> None:
        read_settings = partial(
            settings.read,
            mirror=mirror,
            timezone=timezone,
            tracking_uri=tracking_uri,
            registry_uri=registry_uri,
        )
        read_settings()  # refuses unknown values now, not at the first save
        if not isinstance(base_dir, Layout):
            base_dir = Layout.under(Path(base_dir).absolute())
        self._folder = ModelFolder(base_dir, read_settings)

    @classmethod
    def of_layout(cls, layout: Layout) -> ModelManager:
        """Return a manager of three folders that need not lie side by side."""
        return cls(layout)

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
            ``test``. What `mlflow.data` made is accepted, too.

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
        never fails a save, nor blocks it more than five seconds; what could not be pushed is pushed
        by a later save.
        """
        given = operations.save.Given(
            model, model_name, metadata, input_example, artifacts, dataset
        )
        return str(operations.save.save(self._folder, given))

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
        return operations.load.load(self._folder, model_path)

    def get_latest_model_path(self, *, source: Source = "filesystem") -> str | None:
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
        path = operations.find.latest_path(self._folder, source)
        return None if path is None else str(path)

    def records(self, name: str | None = None, limit: int | None = None) -> list[ModelRecord]:
        """Return what is known of the models in ``trained/``, newest first.

        Parameters
        ----------
        name : str, optional
            Only the model of this name.
        limit : int, optional
            At most so many.

        Notes
        -----
        Nothing is unpickled. Aliases are asked of MLflow, and empty where it cannot be asked.
        """
        return operations.find.records(self._folder, name, limit)

    def get(self, reference: str | int | os.PathLike[str]) -> ModelRecord:
        """Return what is known of one model.

        Parameters
        ----------
        reference : str, int or path-like
            A name, a path in ``trained/``, a version number of ``lotto_model``, or a
            ``models:/`` URI.

        Raises
        ------
        ModelNotFoundError, MirrorUnavailableError
            If there is no such model; if it is a version and the registry could not be asked.
        """
        return operations.find.get(self._folder, reference)

    def latest(
        self,
        *,
        source: Source = "filesystem",
        download: bool = False,
        progress: Progress | None = None,
    ) -> ModelRecord | None:
        """Return what is known of the newest model.

        Parameters
        ----------
        source : {"filesystem", "registry"}
            As in `get_latest_model_path`.
        download : bool
            Have the record name a file with the bytes, even where the folder has none and they must
            be downloaded, and verified.
        progress : callable, optional
            Called for the download; as in `lotto_mlflow.records.Progress`.

        Returns
        -------
        ModelRecord or None
            ``None`` where there is no model.
        """
        return operations.find.latest(self._folder, source, download=download, progress=progress)

    def sync(
        self,
        *,
        dry_run: bool = False,
        include_backups: bool = False,
        resend: bool = False,
        retry_aside: bool = False,
        progress: Progress | None = None,
    ) -> SyncReport:
        """Send MLflow everything that the current store lacks, in save order.

        That is the outbox, saves that were recorded for another store, and model files that no
        record knows, such as hundreds from before this package.

        Parameters
        ----------
        dry_run : bool
            Only report what would be sent.
        include_backups : bool
            Bring in unknown files of ``backups/``, too.
        resend : bool
            Send again what was sent and then deleted in MLflow, which otherwise stays deleted.
        retry_aside : bool
            Try the records again that were set aside.
        progress : callable, optional
            As in `lotto_mlflow.records.Progress`.

        Returns
        -------
        SyncReport
            What was done.

        Raises
        ------
        SyncRunningError
            If another sync of the folder is running. Nothing was changed.
        MirrorUnavailableError
            If MLflow cannot be asked; what was sent before that stays sent.

        Notes
        -----
        Idempotent. Nothing is unpickled. Saves go on meanwhile. An unknown file has the time in its
        metadata, else its own, as the start of its run, and the tag ``backfilled``.
        """
        return operations.sync.sync(
            self._folder,
            dry_run=dry_run,
            include_backups=include_backups,
            resend=resend,
            retry_aside=retry_aside,
            progress=progress,
        )

    def verify(self, *, deep: bool = False, progress: Progress | None = None) -> list[Finding]:
        """Compare disk, records and MLflow, and return every difference.

        Parameters
        ----------
        deep : bool
            Also download what a tracking server keeps; else one warning says how much that is.
        progress : callable, optional
            Called for the model files, whose digests need the time; as in
            `lotto_mlflow.records.Progress`.

        Returns
        -------
        list of Finding
            Empty where both views agree and every digest holds.

        Notes
        -----
        Reads only, unpickles nothing. Saves under way may show as differences.
        """
        return operations.verify.verify(self._folder, progress, deep=deep)

    def restore(
        self,
        name_or_version: str | int,
        *,
        source: RestoreSource = "backups",
        backup: str | None = None,
        progress: Progress | None = None,
    ) -> ModelRecord:
        """Bring a model and its metadata back into ``trained/`` and ``metadata/``.

        Parameters
        ----------
        name_or_version : str or int
            A name, a version number of ``lotto_model``, or a ``models:/`` URI.
        source : {"backups", "registry"}
            Where it comes from.
        backup : str, optional
            Which backup, by its file name or stem; the newest of the name by default.
        progress : callable, optional
            As in `lotto_mlflow.records.Progress`: before the model is fetched, and at the end.

        Returns
        -------
        ModelRecord
            What is in place now.

        Raises
        ------
        ModelNotFoundError
            If there is no such name, version or backup. Nothing was changed.
        DigestMismatchError
            If the source is damaged. Nothing was changed.
        SettingsError
            If the source is neither.
        StoreError
            If the disk refuses. Nothing was changed.

        Notes
        -----
        The existing model goes to ``backups/`` first, and the source stays where it is. The file
        keeps its own time, so that an old model does not become the latest; it is no new save.
        Atomic and durable like a save: what is killed is finished or undone by the next of them.
        """
        return operations.restore.restore(self._folder, name_or_version, source, backup, progress)

    def relocate(self, *, relative_to: str | os.PathLike[str] | None = None) -> int:
        """Rewrite the paths in the embedded store's database to where the folder lies now.

        Parameters
        ----------
        relative_to : str or path-like, optional
            Store paths relative to this folder, for a store that is to be committed; MLflow then
            opens it from there only.

        Returns
        -------
        int
            Number of values that were rewritten; 0 where nothing had moved.

        Raises
        ------
        RelocationError
            If there is no embedded store, or it is unknown where it lay before; if ``relative_to``
            is no folder. Nothing was changed.

        Notes
        -----
        One transaction, after a copy of the database was kept beside it (``mlflow.db.*.bak``).
        Idempotent.
        """
        return operations.relocate.relocate(self._folder, relative_to)

    def flush(self, timeout: float = 60.0) -> bool:
        """Push what waits for the current store, and wait for it, ``timeout`` seconds at most.

        Returns
        -------
        bool
            Whether MLflow has everything; with ``LOTTO_MIRROR=off`` nothing is pushed.
        """
        return operations.sync.flush(self._folder, timeout)
