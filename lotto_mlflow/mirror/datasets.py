"""Data sets: the fingerprint that a save record keeps of each, and how MLflow is told of it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import mlflow.data
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset import Dataset
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag

from lotto_mlflow import datasets
from lotto_mlflow.mirror.entities import shortened

_logger = logging.getLogger("lotto_mlflow")
_CONTEXT_TAG = "mlflow.data.context"
"""MLflow 3.17, mlflow.utils.mlflow_tags: what a run used a data set for."""
_LIMITS = {"name": 500, "digest": 36, "source": 65_535, "schema": 1_048_575, "profile": 16_777_215}
"""Characters that MLflow 3.17 accepts (mlflow.utils.validation)."""
_NAME_ENDS = (".", "/", "_", "-", " ")


def fingerprinted(named: Mapping[str, Any], origin: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what a save record keeps of data sets: MLflow's fields, and context and shape.

    Parameters
    ----------
    named : mapping of str to object
        What `lotto_mlflow.datasets.checked` returned.
    origin : mapping of str to str
        The program that saves, as `lotto_mlflow.description.origin` tells it; the source of a
        data set that tells none. The folders of a machine are left out.

    Notes
    -----
    One that MLflow cannot describe is left out with a warning: a data set never fails a save.
    """
    name = PurePath(origin["mlflow.source.name"])
    told = dict(origin) | {"mlflow.source.name": name.name if name.is_absolute() else str(name)}
    found = []
    for context, data in named.items():
        try:
            found.append(_fingerprint(context, data, told))
        except Exception as cause:  # noqa: BLE001 - another library's code; a save goes on without
            _logger.warning(
                "dataset %r is not recorded, because MLflow cannot describe it: %s: %s",
                context,
                type(cause).__name__,
                cause,
            )
    return found


def _fingerprint(context: str, data: Any, origin: dict[str, str]) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's hints on integers, at every save
        described = _described(context, data, origin).to_dict()
    values = {key: described.get(key) for key in (*_LIMITS, "source_type")}
    for key in ("schema", "profile"):
        if len(values[key] or "") > _LIMITS[key]:
            values[key] = None
    for key, limit in _LIMITS.items():
        if values[key] is not None and len(values[key]) > limit:
            raise ValueError(f"its {key} is longer than the {limit} characters that MLflow takes")
    shape = getattr(data, "shape", None)
    return values | {"context": context, "shape": None if shape is None else list(shape)}


def _described(context: str, data: Any, origin: dict[str, str]) -> Dataset:
    if datasets.is_described(data):
        return data
    given = {
        "source": CodeDatasetSource(origin),
        "name": context,
        "digest": datasets.digest_of(data),
    }
    if datasets.is_array(data):
        return mlflow.data.from_numpy(data, **given)
    if data.columns.nlevels == 1:  # the UI expects text, and JSON knows no numbers of numpy
        data = data.set_axis([str(column) for column in data.columns], axis=1)
    return mlflow.data.from_pandas(data, **given)


def inputs(kept: Iterable[Mapping[str, Any]]) -> list[DatasetInput]:
    """Return the inputs of a run from what `fingerprinted` kept."""
    return [
        DatasetInput(
            DatasetEntity(
                name=one["name"],
                digest=one["digest"],
                source_type=one["source_type"],
                source=one["source"],
                schema=one["schema"],
                profile=one["profile"],
            ),
            [InputTag(_CONTEXT_TAG, shortened(one["context"], 500))],
        )
        for one in kept
    ]


def measured_on(metric: str, kept: Iterable[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Return name and digest of the data set that a metric's name begins with, if there is one.

    Notes
    -----
    So ``test.log_loss`` and ``test_log_loss`` are shown as measured on ``test``. Of a metric that
    names none it is not known what it was measured on.
    """
    fitting = [one for one in kept if metric.startswith(_beginnings(one["context"]))]
    longest = max(fitting, key=lambda one: len(one["context"]), default=None)
    return None if longest is None else (longest["name"], longest["digest"])


def _beginnings(context: str) -> tuple[str, ...]:
    return tuple(f"{context}{end}" for end in _NAME_ENDS)
