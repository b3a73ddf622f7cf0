"""The frozen dataclasses that cross borders between the modules, and their JSON form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

FORMAT = 1
"""Format of the save records on disk.

A field may be added without a new number: readers keep fields that they do not know. A field that
changes its meaning takes the next number, and `parse` then reads both.
"""

Progress = Callable[[int, int, int, str], None]
"""Called before each model with the number done, the number in all, the size of the model in bytes
(0 where it is not known) and its name; and once at the end, with 0 and no name."""


def quiet(done: int, total: int, size_bytes: int, name: str) -> None:
    """Do as a `Progress` that nobody watches."""


Aliases = dict[int, tuple[str, ...]]
"""The aliases of a registered model, by version."""


def aliases_by_version(versions: Iterable[tuple[str, int | str]]) -> Aliases:
    """Return the aliases of each version from pairs of alias and version, in their order."""
    found: Aliases = {}
    for alias, version in versions:
        found[int(version)] = (*found.get(int(version), ()), alias)
    return found


SAVE, BACKFILL = "save", "backfill"
"""Kinds of save records: made by a save, or made later for a file that no save knows."""


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """What a lookup tells of one saved model, as far as it is known.

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
    aliases : tuple of str
        Aliases of the version; empty where MLflow could not be asked.
    params : dict of str to str
        Hyperparameters, and metadata that is not a number.
    metrics : dict of str to float
        Numeric metadata; of a list of numbers the last one, as MLflow shows it.
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
    aliases: tuple[str, ...] = ()
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a live model tells MLflow of itself, taken down while the object is at hand.

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
    signature : dict or None
        ``ModelSignature.to_dict()`` inferred from the input example, if one was given.
    input_example : dict or None
        The input example in the form of `lotto_mlflow.mirror.data`.
    datasets : list of dict
        Fingerprints of the data sets, in the form of `lotto_mlflow.mirror.data`.
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
    signature: dict[str, Any] | None = None
    input_example: dict[str, Any] | None = None
    datasets: list[dict[str, Any]] = field(default_factory=list)
    parent_run_id: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def last_metrics(self) -> dict[str, float]:
        """Each metric's last value, as MLflow shows it."""
        return {name: points[-1][1] for name, points in self.metrics.items() if points}


@dataclass(frozen=True, kw_only=True)
class SaveRecord:
    """One save: all that MLflow has to be told of it, apart from the bytes.

    Attributes
    ----------
    id : str
        Identity of the save; its first part is `saved_at_ns`, so that ids sort in save order.
    name, sha256, size, saved_at
        As in `ModelRecord`.
    saved_at_ns : int
        Time of the save in nanoseconds since 1970, the mtime of the file.
    kind : str
        `SAVE` or `BACKFILL`.
    host : str
        Machine that saved.
    target : str
        Tracking store that the save is meant for, credentials masked; ``embedded`` for the
        store inside the folder.
    description : Description
        What the model told of itself.
    metadata : dict or None
        The metadata JSON, as written to disk.
    backup : str or None
        Name, in ``backups/``, given to what this save replaced.
    replaced_sha256 : str or None
        Digest of the file that this save replaced, where no record tells it.
    mtime_ns : int or None
        Modification time of the file, where it is not `saved_at_ns`.
    mirrored : dict of str to dict
        For each target that has been told: ``version``, ``run_id`` and ``model_id``.
    tries : int
        How often MLflow answered that it will not have this record.
    reason : str or None
        What it answered last.
    extra : dict
        Fields of a later release, kept as they are.
    """

    id: str
    name: str
    sha256: str
    size: int
    saved_at: str
    saved_at_ns: int
    host: str
    target: str
    description: Description
    metadata: dict[str, Any] | None = None
    backup: str | None = None
    replaced_sha256: str | None = None
    mtime_ns: int | None = None
    mirrored: dict[str, dict[str, Any]] = field(default_factory=dict)
    tries: int = 0
    reason: str | None = None
    kind: str = SAVE
    format: int = FORMAT
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def file_time_ns(self) -> int:
        """Modification time of the file, which no other save of the folder has."""
        return self.saved_at_ns if self.mtime_ns is None else self.mtime_ns


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a save lies in one tracking store.

    Attributes
    ----------
    version : int
        Version of the registered model.
    run_id, model_id : str
        The run and the logged model.
    """

    version: int
    run_id: str
    model_id: str


def render(record: SaveRecord) -> bytes:
    """Return the JSON of a record, with a digest over itself; `parse` is its inverse."""
    values = _values(record) | {"description": _values(record.description)}
    text = json.dumps(values | {"checksum": _checksum(values)}, ensure_ascii=False, indent=2)
    return text.encode("utf-8")


def _values(record: SaveRecord | Description) -> dict[str, Any]:
    values = dict(vars(record))
    extra: dict[str, Any] = values.pop("extra")
    return values | extra


def parse(content: bytes) -> SaveRecord:
    """Return the record that `render` wrote.

    Raises
    ------
    ValueError
        If the content is not the one that was written.
    """
    values = json.loads(content.decode("utf-8"))
    if not isinstance(values, dict) or values.pop("checksum", None) != _checksum(values):
        raise ValueError("the record's checksum does not match its content")
    if values.get("format") != FORMAT:
        raise ValueError(f"unknown record format {values.get('format')!r}")
    description = Description(**_known(Description, values.pop("description")))
    return SaveRecord(description=description, **_known(SaveRecord, values))


def _known(kind: type[SaveRecord] | type[Description], values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a class, and under ``extra`` those that it does not know."""
    known = {f.name for f in fields(kind)} - {"extra"}
    extra = {key: value for key, value in values.items() if key not in known}
    return {key: values[key] for key in known & values.keys()} | {"extra": extra}


def _checksum(values: Mapping[str, Any]) -> str:
    import hashlib  # here, because importing this package is to cost little

    text = json.dumps(values, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
