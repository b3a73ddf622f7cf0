"""The signature and the input example of a model, made when it is pushed from what was recorded."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from mlflow.models import (
    ModelSignature,
    convert_input_example_to_serving_input,
    infer_signature,
)
from mlflow.types import ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType

from lotto_mlflow.mirror import rebuilding
from lotto_mlflow.records import SaveRecord

_logger = logging.getLogger("lotto_mlflow")
_PARAMS = ParamSchema([ParamSpec("predict_method", "string", "predict")])


def parameter_only() -> ModelSignature:
    """Return the signature without a schema: a guessed one would refuse what users send."""
    return ModelSignature(params=_PARAMS)


def recorded(record: SaveRecord) -> tuple[ModelSignature, Any]:
    """Return the signature of a save, and its input example, ``None`` where there is none.

    Notes
    -----
    What cannot be made of the record gives the signature without a schema and a line of
    information: an example never fails a push.
    """
    description = record.payload.description
    try:
        if description.example is not None:
            return _inferred(description.example, record.name)
        if description.signature is not None:
            kept = description.input_example
            signature = ModelSignature.from_dict(description.signature)
            return signature, None if kept is None else _of_early_release(kept)
    except Exception as cause:  # noqa: BLE001 - a record may hold anything; a push goes on without
        _log(record.name, "no inputs and no outputs", cause)
    return parameter_only(), None


def _inferred(example: dict[str, Any], name: str) -> tuple[ModelSignature, Any]:
    """Return what MLflow infers from the rebuilt example and answer, and the first rows."""
    inputs = inferred_schema(rebuilding.of_all_rows(example["input"]))
    outputs = None
    if example["output"] is not None:
        try:
            outputs = inferred_schema(rebuilding.of_all_rows(example["output"]))
        except Exception as cause:  # noqa: BLE001 - as in `recorded`
            _log(name, "no outputs", cause)
    return ModelSignature(inputs, outputs, _PARAMS), _loggable(example["input"])


def _log(name: str, what: str, cause: Exception) -> None:
    message = f"{cause!s:.300}"
    _logger.info(
        "the signature of %s in MLflow names %s: %s: %r", name, what, type(cause).__name__, message
    )


def inferred_schema(value: Any) -> Schema:
    """Return the schema that MLflow infers, and can read again.

    Raises
    ------
    TypeError
        If MLflow knows none.
    """
    silence_hint()
    schema = infer_signature(value).inputs
    if schema is None or _is_unknown(schema):
        raise TypeError(f"MLflow knows no schema for this {type(value).__name__}")
    written = ModelSignature(schema).to_dict()
    if ModelSignature.from_dict(written).to_dict() != written:
        raise TypeError(f"MLflow cannot read the schema of this {type(value).__name__} again")
    return schema


def silence_hint() -> None:
    """Have Python leave out MLflow's hint on integers, which is for whoever infers by hand.

    Notes
    -----
    The filter stays: ``warnings.catch_warnings`` in this thread would undo the filters that
    another thread sets meanwhile, or make ours outlive theirs.
    """
    warnings.filterwarnings(
        "ignore", message="Hint: Inferred schema contains integer", category=UserWarning
    )


def _is_unknown(schema: Schema) -> bool:
    """Return whether MLflow fell back to one column of any type, which would drop all others."""
    (first, *others) = schema.inputs
    return not others and first.name is None and first.type == AnyType()


def _loggable(facts: dict[str, Any]) -> Any:
    """Return the first rows, ``None`` where MLflow cannot write them."""
    try:
        rows = rebuilding.first_rows(facts)
        convert_input_example_to_serving_input(rows)
    except Exception:  # noqa: BLE001 - another library's code; a push goes on without
        return None
    return rows


def _of_early_release(kept: dict[str, Any]) -> Any:
    """Return the input example of a record that has it with its signature, as 0.1 wrote it."""
    if kept["kind"] == "frame":
        import pandas

        frame = pandas.DataFrame(kept["value"]["data"], columns=kept["value"]["columns"])
        return frame.astype({c: kind for c, kind in kept["dtypes"].items() if c in frame.columns})
    if kept["kind"] == "array":
        import numpy

        return numpy.array(kept["value"], dtype=kept["dtype"])
    return kept["value"]
