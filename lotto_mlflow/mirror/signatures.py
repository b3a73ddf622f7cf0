"""The signature and the input example of a model, made when it is pushed from what was recorded."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import mlflow.pyfunc
from mlflow.models import (
    Model,
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


def enforceable(signature: ModelSignature, record: SaveRecord) -> tuple[ModelSignature, Any]:
    """Return a signature whose inputs MLflow lets through as they are, and what the loader reads.

    Parameters
    ----------
    signature : mlflow.models.ModelSignature
        What `recorded` returned.
    record : SaveRecord
        The save.

    Returns
    -------
    tuple of mlflow.models.ModelSignature and dict or None
        The signature, without inputs if MLflow would refuse the very example or hand on something
        else, such as a frame for a list; and ``form`` and ``times`` of the example, as the loader
        that travels with the model reads them.

    Notes
    -----
    MLflow checks and converts what it is given to predict by the inputs of the signature. It has
    no types for categories, for integers of pandas that are missing or for lists of rows. Wider
    integers are let through, and times in other units, which the loader converts back.
    """
    example = record.payload.description.example
    if example is None:
        return signature, None
    facts = example["input"]
    notes: dict[str, Any] = {"form": facts["kind"]} if _is_one_dimensional(facts) else {}
    if signature.inputs is not None:
        try:
            units = _units_changed(signature, rebuilding.of_all_rows(facts))
        except Exception as cause:  # noqa: BLE001 - MLflow's refusal, of whatever kind
            _log(record.name, "no inputs, which would change what the model is given", cause)
            signature = ModelSignature(None, signature.outputs, _PARAMS)
        else:
            notes |= {"times": units} if units else {}
    return signature, notes or None


def _is_one_dimensional(facts: dict[str, Any]) -> bool:
    if facts["kind"] != "list":
        return bool(facts["kind"] == "series")
    values = facts.get("values")
    if not isinstance(values, list):  # a record may hold anything
        return False
    kinds = {fact.get("kind") for fact in values if isinstance(fact, dict)}
    return not kinds & {"dict", "array", "tuple"} and not any(isinstance(v, list) for v in values)


class _Echo:
    """A model that answers with what MLflow hands it."""

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        return data


def _units_changed(signature: ModelSignature, value: Any) -> dict[str, str]:
    """Return the units of the columns of times that MLflow makes nanoseconds of, by name.

    Raises
    ------
    TypeError
        If MLflow changes anything else.
    Exception
        Of another kind, if it refuses the value.
    """
    import pandas

    as_read = ModelSignature.from_dict(signature.to_dict())  # tuples as names become lists
    model = mlflow.pyfunc.PyFuncModel(model_meta=Model(signature=as_read), model_impl=_Echo())
    found = model.predict(value)
    if found is value:
        return {}
    are_dicts = isinstance(value, dict) and isinstance(found, dict) and found.keys() == value.keys()
    if are_dicts and all(found[key] is value[key] for key in value):
        return {}
    if not isinstance(value, pandas.DataFrame) or not isinstance(found, pandas.DataFrame):
        raise TypeError(f"MLflow makes a {type(found).__name__} of a {type(value).__name__}")
    if not found.columns.equals(value.columns):
        raise TypeError("MLflow makes other columns")
    units = {}
    for name in value.columns:
        before, after = value[name], found[name]
        if before.dtype.kind == "M" and after.dtype.kind == "M" and isinstance(name, str):
            if before.dtype != after.dtype:
                units[name] = str(before.dt.unit)
        elif not after.equals(before) and not _is_wider(before, after):
            raise TypeError(f"MLflow makes {after.dtype} of {before.dtype}")
    return units


def _is_wider(before: Any, after: Any) -> bool:
    """Return whether integers became longer ones."""
    kinds = {before.dtype.kind, after.dtype.kind}
    are_numpy = all(type(series.dtype).__module__.startswith("numpy") for series in (before, after))
    return are_numpy and kinds <= {"i", "u"} and (before.to_numpy() == after.to_numpy()).all()


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
