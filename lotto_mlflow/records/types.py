"""The frozen dataclasses that cross borders between the modules."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from lotto_mlflow.records.draws import PredictionPayload, ResultPayload
from lotto_mlflow.records.prunes import PRUNE, PrunePayload

Progress = Callable[[int, int, int, str], None]
"""Called before each model with the number done, the number in all, the size of the model in bytes
(0 where it is not known) and its name; and once at the end, with 0 and no name. An object that also
has a method ``arrived``, as `Arrived`, hears of the bytes of a download, too."""


def no_progress(done: int, total: int, size_bytes: int, name: str) -> None:
    """Do as a `Progress` that nobody watches."""


Arrived = Callable[[int, int], None]
"""Called while a model is downloaded with the bytes that are there, and with its size in bytes (0
where it is not known)."""


def arrived_of(progress: Progress | None) -> Arrived | None:
    """Return what a `Progress` has as ``arrived``, an `Arrived`; ``None`` where it has none."""
    found: Arrived | None = getattr(progress, "arrived", None)
    return found


Aliases = dict[int, tuple[str, ...]]
"""The aliases of a registered model, by version."""


def aliases_by_version(versions: Iterable[tuple[str, int | str]]) -> Aliases:
    """Return the aliases of each version from pairs of alias and version, in their order."""
    found: Aliases = {}
    for alias, version in versions:
        found[int(version)] = (*found.get(int(version), ()), alias)
    return found


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """What is known of one saved model.

    Attributes
    ----------
    name : str
        Name of the model, the file name without ``.pkl``.
    path : pathlib.Path or None
        The file on disk, if there is one.
    sha256 : str or None
        Digest of the bytes as they were saved, 64 hexadecimal digits.
    size : int or None
        Size of the file in bytes.
    saved_at : str or None
        Time of the save, ISO 8601 with its offset from UTC.
    saved_at_ns : int or None
        The same in nanoseconds since 1970.
    metadata : dict or None
        The metadata JSON on disk; ``None`` where there is none or it cannot be read.
    registered_model : str
        Name of the registered model that this model is, or will be, a version of.
    version : int or None
        Version of the registered model, once the save is mirrored.
    run_id : str or None
        MLflow run of the save, once it is mirrored.
    model_id : str or None
        MLflow logged model of the save, once it is mirrored.
    sklearn_version : str or None
        Version of scikit-learn that the model was saved with, if it needs scikit-learn.
    save_id : str or None
        Identity of the save, which its record and its version share.
    aliases : tuple of str
        Aliases of the version; empty where MLflow could not be asked.
    aliases_since : dict of str to str
        Since when it has them, ISO 8601, as far as their moves are recorded.
    params : dict of str to str
        Hyperparameters, and metadata that is not a number.
    metrics : dict of str to float
        Numeric metadata; of a list of numbers the last one, as MLflow shows it.
    host : str or None
        Machine that saved it; ``None`` where neither a record nor a tag of its version says so.
    """

    name: str
    path: Path | None = None
    sha256: str | None = None
    size: int | None = None
    saved_at: str | None = None
    saved_at_ns: int | None = None
    metadata: dict[str, Any] | None = None
    registered_model: str
    version: int | None = None
    run_id: str | None = None
    model_id: str | None = None
    sklearn_version: str | None = None
    save_id: str | None = None
    aliases: tuple[str, ...] = ()
    aliases_since: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    host: str | None = None


@dataclass(frozen=True, kw_only=True)
class MlflowIds:
    """What a save is called in one tracking store.

    Attributes
    ----------
    version : int
        Version of the registered model.
    run_id, model_id : str
        The run and the logged model.
    registered_model : str or None
        Name of the registered model, where it is not the one that the model's name gives.
    files : dict of str to str
        SHA-256 of each file of the MLflow model folder, by its path in it; empty where it was
        pushed by an earlier release.
    push_delay_ms : int or None
        How long after the save its version was made, by the clock of this host; ``None`` where an
        earlier release pushed it, or where it was found there.
    """

    version: int
    run_id: str
    model_id: str
    registered_model: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    push_delay_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What a push that was not seen to end created: a later one may remove these, and no others.

    Attributes
    ----------
    run_id, model_id : str
        The run and the logged model.
    """

    run_id: str
    model_id: str


@dataclass(frozen=True, kw_only=True)
class Description:
    """What MLflow shows of a model, recorded at the save, while the object is at hand.

    Attributes
    ----------
    model_type : str
        Class name of the model.
    params : dict of str to str
        Hyperparameters, and metadata that is not a number.
    metrics : dict of str to list of [step, value]
        Numeric metadata; a list of numbers has one step for each.
    tags : dict of str to str
        User, source, git commit, and the values that no metric can hold.
    requirements : list of str
        Pinned distributions that are needed to open the model.
    predicts : bool
        Whether the model has a ``predict`` method.
    example : dict or None
        Facts of the input example, ``input``, and of the model's answer, ``output``, in the form
        of `lotto_mlflow.facts.of`.
    datasets : list of dict
        Fingerprints of the data sets, in the form of `lotto_mlflow.datasets.recorded`.
    signature : dict or None
        ``ModelSignature.to_dict()``, in a record of an early release, which has no `example`.
    input_example : dict or None
        The first rows that belong to that signature.
    parent_run_id : str or None
        Run that was active in the same store.
    extra : dict
        Fields of a later release, kept as they are.
    """

    model_type: str
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[list[float]]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    requirements: list[str] = field(default_factory=list)
    predicts: bool = True
    example: dict[str, Any] | None = None
    datasets: list[dict[str, Any]] = field(default_factory=list)
    signature: dict[str, Any] | None = None
    input_example: dict[str, Any] | None = None
    parent_run_id: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def last_metrics(self) -> dict[str, float]:
        """Each metric's last value, as MLflow shows it."""
        return {name: points[-1][1] for name, points in self.metrics.items() if points}


@dataclass(frozen=True, kw_only=True)
class SavePayload:
    """A save, or a file from before this package: all of it apart from the bytes.

    Attributes
    ----------
    name, sha256, size, saved_at
        As in `ModelRecord`.
    saved_at_ns : int
        Time of the save in nanoseconds since 1970, the mtime of the file.
    description : Description
        What MLflow shows of the model.
    metadata : dict or None
        The metadata JSON, as written to disk.
    backup : str or None
        Name, in ``backups/``, given to what this save replaced.
    replaced_damaged : bool
        Whether what it replaced was damaged, and is in ``mlflow/aside/`` under that name instead.
    replaced_sha256 : str or None
        Digest of the file that this save replaced, where no record has it.
    earlier_sha256 : list of str or None
        Digests of the files in ``backups/`` that are older than the first record of the name;
        ``None`` where it is not the first, or an earlier release made it.
    mtime_ns : int or None
        Modification time of the file, where it is not `saved_at_ns`.
    started_at_ns : int or None
        When the training began, or else the call of the save; ``None`` where that is not known.
    clock_ahead_ns : int
        By how much `saved_at_ns` was ahead of the clock at the save: times of saves rise where the
        clock is set back.
    extra : dict
        Fields of a later release, kept as they are.
    """

    name: str
    sha256: str
    size: int
    saved_at: str
    saved_at_ns: int
    description: Description
    metadata: dict[str, Any] | None = None
    backup: str | None = None
    replaced_damaged: bool = False
    replaced_sha256: str | None = None
    earlier_sha256: list[str] | None = None
    mtime_ns: int | None = None
    started_at_ns: int | None = None
    clock_ahead_ns: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def run_times_ms(self) -> tuple[int, int]:
        """Start and end of the run in milliseconds, 1 ms apart at least where the start is known.

        The end is the time of the save, however late it is pushed.
        """
        end_ms = self.saved_at_ns // 10**6
        if self.started_at_ns is None:
            return end_ms, end_ms
        return max(0, min(self.started_at_ns // 10**6, end_ms - 1)), end_ms

    @property
    def file_time_ns(self) -> int:
        """Modification time of the file, which no other save of the folder has."""
        return self.saved_at_ns if self.mtime_ns is None else self.mtime_ns


@dataclass(frozen=True, kw_only=True)
class RestorePayload:
    """A restore: which bytes and metadata were brought back, and what they replaced.

    Attributes
    ----------
    name, sha256, size
        As in `ModelRecord`.
    file_time_ns : int
        Modification time of the file, that of the save that is restored.
    source : str
        ``backups`` or ``registry``.
    save_id : str or None
        Record of the save that is restored, where there is one.
    metadata : bytes or None
        Content of the metadata JSON; base64 in the record's JSON.
    backup : str or None
        Name, in ``backups/``, given to what this restore replaced.
    replaced_damaged : bool
        Whether what it replaced was damaged, and is in ``mlflow/aside/`` under that name instead.
    replaced_sha256 : str or None
        Digest of the file that this restore replaced, where no record has it.
    earlier_sha256 : list of str or None
        Digests of the files in ``backups/`` that are older than the first record of the name;
        ``None`` where it is not the first, or an earlier release made it.
    extra : dict
        Fields of a later release, kept as they are.
    """

    name: str
    sha256: str
    size: int
    file_time_ns: int
    source: str
    save_id: str | None = None
    metadata: bytes | None = None
    backup: str | None = None
    replaced_damaged: bool = False
    replaced_sha256: str | None = None
    earlier_sha256: list[str] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def new_id(time_ns: int) -> str:
    """Return the id of a record of this time, which no other record has."""
    return f"{time_ns:019d}-{os.urandom(4).hex()}"


SAVE, BACKFILL, RESTORE = "save", "backfill", "restore"
"""Kinds of records: made by a save, made later for a file that no save knows, made by a restore."""
Payload = TypeVar(
    "Payload", SavePayload, RestorePayload, PredictionPayload, ResultPayload, PrunePayload
)


@dataclass(frozen=True, kw_only=True)
class Record(Generic[Payload]):
    """One entry of the journal: the envelope.

    Attributes
    ----------
    id : str
        Identity; its first part is a time in nanoseconds, for a save `SavePayload.saved_at_ns`,
        so that ids sort in the order of what they record.
    kind : str
        `SAVE`, `BACKFILL`, `RESTORE`, `PRUNE`, or one of those in `lotto_mlflow.records.draws`.
    target : str
        Name of the tracking store that it is meant for, as in `lotto_mlflow.settings.Target`.
    host : str
        Machine that made it.
    payload : SavePayload, RestorePayload, PredictionPayload, ResultPayload or PrunePayload
        What is recorded.
    mirrored : dict of str to MlflowIds
        What it is called in each tracking store that has it, by the name of the target.
    attempts : dict of str to Attempt
        What a push to each tracking store created, until it ends; by the name of the target.
    tries : int
        How often MLflow answered that it refuses this record.
    reason : str or None
        What it answered last.
    extra : dict
        Fields of a later release, kept as they are.
    """

    id: str
    kind: str
    target: str
    host: str
    payload: Payload
    mirrored: dict[str, MlflowIds] = field(default_factory=dict)
    attempts: dict[str, Attempt] = field(default_factory=dict)
    tries: int = 0
    reason: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the model that it is about, or of its predictions for a draw."""
        return self.payload.name

    @property
    def is_save(self) -> bool:
        """Whether it is of bytes that MLflow is to have."""
        return self.kind in (SAVE, BACKFILL)

    @property
    def is_of_file(self) -> bool:
        """Whether it is of a model's file: of a save, also one that was pruned, or a restore."""
        return self.kind in (SAVE, BACKFILL, RESTORE, PRUNE)


SaveRecord = Record[SavePayload]
Note = Callable[[Attempt], SaveRecord]
"""Writes what a push created into its record on disk, and returns the record."""
RestoreRecord = Record[RestorePayload]
PredictionRecord = Record[PredictionPayload]
ResultRecord = Record[ResultPayload]
PruneRecord = Record[PrunePayload]
