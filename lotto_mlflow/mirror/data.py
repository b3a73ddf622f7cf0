"""The data sets of a run, as MLflow shows them, made when a save is pushed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import mlflow.data
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag

from lotto_mlflow.mirror import rebuilding
from lotto_mlflow.mirror.entities import shortened
from lotto_mlflow.mirror.signatures import silence_hint

_logger = logging.getLogger("lotto_mlflow")
_CONTEXT_TAG = "mlflow.data.context"
"""MLflow 3.17, mlflow.utils.mlflow_tags: what a run used a data set for."""
_MAX_SCHEMA, _MAX_PROFILE = 1_048_575, 16_777_215
"""Characters that MLflow 3.17 accepts (mlflow.utils.validation)."""
_NAME_ENDS = (".", "/", "_", "-", " ")


def dataset_inputs(kept: Iterable[Mapping[str, Any]]) -> list[DatasetInput]:
    """Return the inputs of a run from what `lotto_mlflow.datasets.recorded` kept."""
    return [
        DatasetInput(
            DatasetEntity(
                name=_name(one),
                digest=one["digest"],
                source_type=one.get("source_type", ""),
                source=one.get("source", ""),
                **_described(one),
            ),
            [InputTag(_CONTEXT_TAG, shortened(one["context"], 500))],
        )
        for one in kept
    ]


def _name(one: Mapping[str, Any]) -> str:
    return str(one.get("name", one["context"]))


def _described(one: Mapping[str, Any]) -> dict[str, str | None]:
    """Return schema and profile of a data set, each ``None`` where MLflow would refuse it."""
    facts = one.get("facts")
    found: Mapping[str, Any] = one
    if facts is not None:
        try:
            found = _by_mlflow(facts)
        except Exception as cause:  # noqa: BLE001 - a record may hold anything; a push goes on
            message = f"{cause!s:.300}"
            _logger.info(
                "data set %r has no schema in MLflow: %s: %r",
                one["context"],
                type(cause).__name__,
                message,
            )
            found = {}
    schema, profile = found.get("schema"), found.get("profile")
    return {
        "schema": schema if len(schema or "") <= _MAX_SCHEMA else None,
        "profile": profile if len(profile or "") <= _MAX_PROFILE else None,
    }


def _by_mlflow(facts: dict[str, Any]) -> dict[str, Any]:
    """Return what MLflow says of a data set with these columns and this shape."""
    silence_hint()
    given = {"source": CodeDatasetSource({}), "name": "data", "digest": "0"}
    if facts["kind"] == "array":
        return dict(mlflow.data.from_numpy(rebuilding.of_all_rows(facts), **given).to_dict())
    rows, columns = facts["shape"]
    profile = json.dumps({"num_rows": rows, "num_elements": rows * columns})
    if facts["columns"] is None:
        return {"profile": profile}
    frame = rebuilding.of_all_rows(facts)
    return dict(mlflow.data.from_pandas(frame, **given).to_dict()) | {"profile": profile}


def measured_on(metric: str, kept: Iterable[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Return name and digest of the data set that a metric's name begins with, if there is one.

    Notes
    -----
    So ``test.log_loss`` and ``test_log_loss`` are shown as measured on ``test``. Of a metric that
    names none it is not known what it was measured on.
    """
    fitting = [one for one in kept if metric.startswith(_beginnings(one["context"]))]
    longest = max(fitting, key=lambda one: len(one["context"]), default=None)
    return None if longest is None else (_name(longest), longest["digest"])


def _beginnings(context: str) -> tuple[str, ...]:
    return tuple(f"{context}{end}" for end in _NAME_ENDS)
