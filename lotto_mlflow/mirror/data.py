"""Data in MLflow's terms: fingerprints of data sets, schemas of input examples."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterable, Mapping
from copy import copy
from pathlib import PurePath
from typing import Any

import mlflow.data
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset import Dataset
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag
from mlflow.models import (
    ModelSignature,
    convert_input_example_to_serving_input,
    infer_signature,
)
from mlflow.types import ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType

from lotto_mlflow import datasets
from lotto_mlflow.mirror.entities import shortened

_logger = logging.getLogger("lotto_mlflow")
_CONTEXT_TAG = "mlflow.data.context"
"""MLflow 3.17, mlflow.utils.mlflow_tags: what a run used a data set for."""
_LIMITS = {"name": 500, "digest": 36, "source": 65_535, "schema": 1_048_575, "profile": 16_777_215}
"""Characters that MLflow 3.17 accepts (mlflow.utils.validation)."""
_NAME_ENDS = (".", "/", "_", "-", " ")
_ROWS = 5
_PARAMS = ParamSchema([ParamSpec("predict_method", "string", "predict")])


def fingerprinted(named: Mapping[str, Any], origin: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what a save record keeps of data sets: MLflow's fields, and context and shape.

    Parameters
    ----------
    named : mapping of str to object
        What `lotto_mlflow.datasets.checked` returned.
    origin : mapping of str to str
        The program that saves, as `lotto_mlflow.description.origin` returns it; the source of
        a data set that names none. The folders of a machine are left out.

    Notes
    -----
    One that MLflow cannot describe is left out with a warning: a data set never fails a save.
    """
    name = PurePath(origin["mlflow.source.name"])
    program = dict(origin) | {"mlflow.source.name": name.name if name.is_absolute() else str(name)}
    found = []
    for context, data in named.items():
        try:
            found.append(_fingerprint(context, data, program))
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
            raise ValueError(f"its {key} is longer than the {limit} characters that MLflow accepts")
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


def dataset_inputs(kept: Iterable[Mapping[str, Any]]) -> list[DatasetInput]:
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


def parameter_only() -> ModelSignature:
    """Return the signature without a schema: a guessed one would refuse what users send."""
    return ModelSignature(params=_PARAMS)


def inferred(model: Any, input_example: Any) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the signature and the kept rows of an input example, both as plain values.

    Parameters
    ----------
    model : object
        The live model; its ``predict`` is called once.
    input_example : array-like, DataFrame or list of shape (n_samples, n_features)
        Rows that the model can predict.

    Notes
    -----
    Where prediction or inference fails, both are ``None``, with a warning: an example never
    fails a save.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's hints on integers, at every save
            signature = infer_signature(input_example, _predicted(model, input_example))
            if _is_unknown(signature.inputs):
                raise TypeError(f"MLflow knows no schema for {type(input_example).__name__}")
            outputs = None if _is_unknown(signature.outputs) else signature.outputs
            full = ModelSignature(signature.inputs, outputs, _PARAMS)
            return full.to_dict(), _kept_example(input_example)
    except Exception as cause:  # noqa: BLE001 - another library's code; a save goes on without
        _logger.warning(
            "no signature could be inferred from input_example, so the model is saved without "
            "one: %s: %s",
            type(cause).__name__,
            cause,
        )
        return None, None


def _predicted(model: Any, input_example: Any) -> Any:
    """Predict without the caller's autologging noting it in the run in which the model was fitted.

    Notes
    -----
    Autologging finds that run by an attribute that it sets (mlflow.sklearn of MLflow 3.17); there
    is no public way to silence it for one call.
    """
    unknown = copy(model)
    getattr(unknown, "__dict__", {}).pop("_mlflow_run_id", None)
    return unknown.predict(input_example)


def _is_unknown(schema: Schema | None) -> bool:
    """Return whether MLflow fell back to one column of any type, which would drop all others."""
    if schema is None or schema.is_tensor_spec():
        return schema is None
    return schema.input_names() in ([], [None]) and schema.input_types() == [AnyType()]


def _kept_example(example: Any) -> dict[str, Any] | None:
    """Return the first rows as plain values, ``None`` where JSON cannot express them."""
    try:
        kept = _plain_rows(example)
        json.dumps(kept, allow_nan=False)
        convert_input_example_to_serving_input(rebuilt(kept))  # as it will be, when it is sent
    except Exception:  # noqa: BLE001 - another library's code; a save goes on without
        return None
    return kept


def _plain_rows(example: Any) -> dict[str, Any]:
    if hasattr(example, "to_json") and hasattr(example, "dtypes"):
        rows = example.head(_ROWS)
        value = json.loads(rows.to_json(orient="split", index=False, date_format="iso"))
        dtypes = {str(name): str(kind) for name, kind in example.dtypes.items()}
        return {"kind": "frame", "value": value, "dtypes": dtypes}
    if hasattr(example, "tolist") and hasattr(example, "dtype"):
        return {"kind": "array", "value": example[:_ROWS].tolist(), "dtype": str(example.dtype)}
    return {"kind": "value", "value": example[:_ROWS]}


def rebuilt(kept: dict[str, Any]) -> Any:
    """Return the rows that `inferred` kept, as they were given."""
    if kept["kind"] == "frame":
        import pandas

        frame = pandas.DataFrame(kept["value"]["data"], columns=kept["value"]["columns"])
        return frame.astype({c: kind for c, kind in kept["dtypes"].items() if c in frame.columns})
    if kept["kind"] == "array":
        import numpy

        return numpy.array(kept["value"], dtype=kept["dtype"])
    return kept["value"]
