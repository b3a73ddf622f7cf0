"""Saving a model, loading it, and looking one up."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lotto_mlflow import operations
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.records import ModelRecord, Progress

if TYPE_CHECKING:
    from lotto_mlflow.operations.find import Source
    from lotto_mlflow.operations.follow import Followed


class Models:
    """The methods of `lotto_mlflow.ModelManager` for single models."""

    _folder: ModelFolder

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

    def load_model(
        self,
        model_path: str | os.PathLike[str],
        *,
        stale_ok: bool = False,
        progress: Progress | None = None,
    ) -> Any:
        """Load a model from a file, or from the registry.

        Parameters
        ----------
        model_path : str or path-like
            A file; or ``models:/NAME/1``, ``models:/NAME/latest``, ``models:/NAME@ALIAS``.
        stale_ok : bool
            Where the registry cannot be asked, load what the alias, or the latest, was last seen
            to stand for, from a file of this machine, verified and with a warning.
        progress : callable, optional
            If it has a method ``arrived``, that is called while a version is downloaded with the
            bytes that are there, and with the size in bytes (0 where that is not known).

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
        return operations.load.load(self._folder, model_path, stale_ok=stale_ok, progress=progress)

    def get_latest_model_path(
        self,
        *,
        source: Source = "filesystem",
        alias: str | None = None,
        stale_ok: bool = False,
    ) -> str | None:
        """Return the path of the newest model, or of the one that an alias stands for.

        Parameters
        ----------
        source : {"filesystem", "registry"}
            ``filesystem``: the newest ``lotto_model_*.pkl`` in ``trained/`` by modification time.
            ``registry``: a file with the bytes of the newest save that MLflow knows.
        alias : str, optional
            With ``registry``: the version of ``lotto_model`` that this alias stands for.
        stale_ok : bool
            As in `load_model`.

        Returns
        -------
        str or None
            ``None`` where there is no model.

        Raises
        ------
        ModelNotFoundError
            If the alias stands for no version.
        MirrorUnavailableError
            If the registry could not be asked.
        """
        path = operations.find.latest_path(self._folder, source, alias, stale_ok=stale_ok)
        return None if path is None else str(path)

    def records(
        self,
        name: str | None = None,
        limit: int | None = None,
        *,
        source: Source = "filesystem",
        with_runs: bool = False,
    ) -> list[ModelRecord]:
        """Return what is known of the models in ``trained/`` or in the registry, newest first.

        Parameters
        ----------
        name : str, optional
            Only the model of this name.
        limit : int, optional
            At most so many.
        source : {"filesystem", "registry"}
            ``filesystem``: the files in ``trained/``. ``registry``: what MLflow knows, of each name
            the newest save from each model folder; `ModelRecord.host` says on which machine.
        with_runs : bool
            With ``registry``: ask MLflow for the parameters and metrics of what other machines
            saved, too; without it these are empty.

        Raises
        ------
        MirrorUnavailableError
            If the registry could not be asked.

        Notes
        -----
        Nothing is unpickled. For the files on disk, aliases are asked of MLflow, and empty where
        it cannot be asked.
        """
        return operations.registered.records(self._folder, name, limit, source, with_runs=with_runs)

    def get(self, reference: str | int | os.PathLike[str]) -> ModelRecord:
        """Return what is known of one model.

        Parameters
        ----------
        reference : str, int or path-like
            A name, a path in ``trained/``, a version number of ``lotto_model``, or a
            ``models:/`` URI. A name that is not on disk is looked for in a registry that other
            machines save into.

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

    def follow(self, reference: str | None = None) -> Followed:
        """Return what `lotto_mlflow.LiveModel` asks which model a reference means now.

        Parameters
        ----------
        reference : str, optional
            A ``models:/`` URI; ``None`` means the newest model on disk.

        Raises
        ------
        InvalidReferenceError
            If the reference is none.
        """
        return operations.follow.follow(self._folder, reference)
