"""Follow: what a reference means now, asked again and again, and loaded where that changed."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lotto_mlflow import layout as names
from lotto_mlflow import references, trusted
from lotto_mlflow.entries import COARSEST_NS
from lotto_mlflow.errors import (
    ForeignModelError,
    InvalidReferenceError,
    ModelNotFoundError,
    SignatureError,
    StoreError,
)
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.operations import find, last_seen, load, newest, signed, versions
from lotto_mlflow.operations.load import LoadedFile
from lotto_mlflow.push import PushWorker
from lotto_mlflow.records import SAVE, ModelRecord
from lotto_mlflow.references import VersionReference
from lotto_mlflow.settings import Target

LISTED_EVERY = 10
"""Looks of which one lists ``trained/`` although nothing seems to have changed there."""
_TRIES = 3
"""How often a file that vanishes between a listing and its status is looked for."""
Mark = tuple[Any, ...]
"""What a reference means at one moment; two that are equal mean the same model."""


class Loaded(NamedTuple):
    """A model that was verified and loaded.

    Attributes
    ----------
    model : object
        The model.
    record : ModelRecord
        What is known of it.
    mark : tuple
        What `Followed.look` returns as long as the reference means this model.
    """

    model: Any
    record: ModelRecord
    mark: Mark


class Followed(Protocol):
    """A reference to a model that may change its meaning; not for several threads at once."""

    @property
    def is_fixed(self) -> bool:
        """Whether it means the same model for ever."""

    def look(self, *, thoroughly: bool = False) -> Mark:
        """Return what the reference means now; nothing is hashed or opened.

        Parameters
        ----------
        thoroughly : bool
            Whether to list what seems not to have changed, too.

        Raises
        ------
        ModelNotFoundError
            If it means nothing now.
        StoreError, MirrorUnavailableError
            If the disk, or the registry, could not be asked.
        """

    def load(self, mark: Mark) -> Loaded:
        """Load what the reference means; errors are those of `lotto_mlflow.load_model`."""


def follow(folder: ModelFolder, reference: str | None) -> Followed:
    """Return what follows a ``models:/`` URI, or with ``None`` the newest file on disk.

    Raises
    ------
    InvalidReferenceError
        If it is neither.
    """
    if reference is None:
        return NewestFile(folder)
    if not isinstance(reference, str) or not reference.startswith(references.SCHEME):
        raise InvalidReferenceError(
            f"{reference!r:.100} cannot be followed; give models:/NAME@ALIAS, models:/NAME/latest "
            "or models:/NAME/1, or None for the newest model on disk",
            uri=reference,
        )
    return Version(folder, references.parse(reference))


class NewestFile:
    """The newest ``lotto_model_*.pkl`` in ``trained/``.

    Parameters
    ----------
    folder : ModelFolder
        The folder.

    Notes
    -----
    A look asks for the status of ``trained/`` and of the newest file in it, however many there
    are. The folder is listed where either has changed, where the folder changed less than two
    seconds before the last listing (its file system may keep times that coarsely), and at every
    tenth look: another file that only its time makes the newest (``touch``) leaves the folder as
    it was.
    """

    is_fixed = False

    def __init__(self, folder: ModelFolder) -> None:
        self._folder = folder
        self._trained_dir = folder.layout.trained_dir
        self._listed: tuple[Mark | None, Mark] | None = None
        self._looks = 0

    def look(self, *, thoroughly: bool = False) -> Mark:
        """Return name, identity, time and size of the newest file."""
        self._looks += 1
        changed = self._change()
        if not thoroughly and self._looks % LISTED_EVERY and self._listed is not None:
            before, mark = self._listed
            if changed == before and _mark_of(self._trained_dir / mark[0]) == mark:
                return mark
        mark = self._newest()
        is_final = changed is not None and time.time_ns() - changed[-1] > COARSEST_NS
        self._listed = (changed, mark) if is_final else None
        return mark

    def load(self, mark: Mark) -> Loaded:
        """Load the newest file, which may be a newer one than was looked at."""
        del mark
        target = self._folder.target()
        loaded, path = self._loaded(target)
        record = find.record_of(loaded.history, target, loaded.file)
        record = _of_bytes(record, loaded, target)
        return Loaded(loaded.model, record, _mark(path.name, loaded.file.status))

    def _loaded(self, target: Target) -> tuple[LoadedFile, Path]:
        """Load the newest file; again, where another has become it meanwhile."""
        for tries_left in reversed(range(_TRIES)):
            looked = newest.look_on_disk(self._folder)
            found = self._newest()
            path = self._trained_dir / found[0]
            try:
                return load.load_file(self._folder, target, path, looked=looked), path
            except SignatureError:
                if not tries_left or self._newest() == found:
                    raise
        raise AssertionError("unreachable")

    def _change(self) -> Mark | None:
        """Return what changes with the entries of ``trained/``, its time last."""
        try:
            status = self._trained_dir.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns

    def _newest(self) -> Mark:
        try:
            for _ in range(_TRIES):
                path = self._folder.store.latest()
                if path is None:
                    break
                mark = _mark_of(path)
                if mark is not None:
                    return mark
        except OSError as cause:
            raise StoreError(
                f"{self._trained_dir} could not be listed: {cause}. Grant the rights",
                path=self._trained_dir,
            ) from cause
        raise ModelNotFoundError(
            f"there is no {names.PREFIX}*{names.SUFFIX} in {self._trained_dir}; save a model, or "
            "restore one",
            path=self._trained_dir,
        )


def _of_bytes(record: ModelRecord, loaded: LoadedFile, target: Target) -> ModelRecord:
    """Return the record of a file for the save whose bytes were loaded, with its metadata.

    Notes
    -----
    A save and a restore put the model in place first, and then its metadata: in between, the JSON
    is of what they replace.
    """
    save = loaded.history.save_of(loaded.file)
    if save is None or save.payload.sha256 != loaded.sha256:
        save = loaded.history.save_with(record.name, loaded.sha256)
    if save is not None and save.kind == SAVE and trusted.is_true(save, loaded.statement):
        record = replace(record, metadata=save.payload.metadata)
    if record.sha256 in (None, loaded.sha256):
        return replace(record, sha256=loaded.sha256)
    ids = None if save is None else save.mirrored.get(target.name)
    return replace(
        record,
        sha256=loaded.sha256,
        save_id=None if save is None else save.id,
        version=None if ids is None else ids.version,
        run_id=None if ids is None else ids.run_id,
        model_id=None if ids is None else ids.model_id,
    )


def _mark_of(path: Path) -> Mark | None:
    try:
        return _mark(path.name, os.lstat(path))
    except OSError:
        return None


def _mark(file_name: str, status: os.stat_result) -> Mark:
    # not the time of the last change of status: a new hard link, as to a backup, changes that
    return file_name, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


class Version:
    """A version of a registered model: the newest, an alias's, or one by its number.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    reference : VersionReference
        Which version.

    Notes
    -----
    A look is one query that the registry's indexes answer, after the probe that every lookup
    makes. What tags say is only compared; records correct it where a version is loaded.
    """

    def __init__(self, folder: ModelFolder, reference: VersionReference) -> None:
        self._folder = folder
        self._reference = reference
        self.is_fixed = reference.version is not None

    def look(self, *, thoroughly: bool = False) -> Mark:
        """Return store, registered model and number, and what else tells a version from others."""
        target = self._folder.target()
        PushWorker.of(self._folder, target).wait_for_queued()
        if self._reference == VersionReference(names.REGISTERED_MODEL):
            return self._newest(target)
        try:
            found = self._folder.mirror(target).get(self._reference)
        except ForeignModelError as cause:  # a record may know it, as the load finds out
            name = self._reference.registered_model
            return target.name, name, cause.data["version"], cause.data["run_id"]
        except ModelNotFoundError:
            if not thoroughly:
                raise
            found = versions.of_version(self._folder, target, self._reference)  # or suggests others
        return target.name, *_identity(found)

    def load(self, mark: Mark) -> Loaded:
        """Load the version that was looked at; of the latest, the one that is it by now."""
        reference, target = self._reference, self._folder.target()
        if reference.alias is not None:
            reference = VersionReference(reference.registered_model, version=mark[2])
        version = versions.of_version(self._folder, target, reference)
        with signed.mismatches_refused(self._folder):
            path = versions.path_to_load(self._folder, target, version)
            model = load.load_version(self._folder, target, path, version).model
        last_seen.note(self._folder, target, self._reference, version)
        return Loaded(model, find.joined(self._folder, target, version), mark)

    def _newest(self, target: Target) -> Mark:
        """Return what decides which version of ``lotto_model`` is of the newest save."""
        own = self._folder.history().newest_sent(names.REGISTERED_MODEL, target)
        found = self._folder.mirror(target).latest(own=own)
        if found is None and own is None:
            raise ModelNotFoundError(
                f"{self._reference} is not in the registry: it has no version yet; save a model",
                reference=str(self._reference),
            )
        identity = (None, None) if found is None else _identity(found)
        return target.name, *identity, own and own.id


def _identity(version: ModelRecord) -> Mark:
    return (
        version.registered_model,
        version.version,
        version.run_id,
        version.model_id,
        version.save_id,
        version.sha256,
    )
