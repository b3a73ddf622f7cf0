"""Input examples: what is kept of them in a save record, and the signature they give."""

from __future__ import annotations

import json
import logging
import warnings
from copy import copy
from typing import Any

from mlflow.models import (
    ModelSignature,
    convert_input_example_to_serving_input,
    infer_signature,
)
from mlflow.types import ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType

_logger = logging.getLogger("lotto_mlflow")
_ROWS = 5
PREDICT_METHOD = "predict_method"
_PARAMS = ParamSchema([ParamSpec(PREDICT_METHOD, "string", "predict")])


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
            return full.to_dict(), _kept(input_example)
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
    """Tell whether MLflow fell back to one column of any type, which would drop all others."""
    if schema is None or schema.is_tensor_spec():
        return schema is None
    return schema.input_names() in ([], [None]) and schema.input_types() == [AnyType()]


def _kept(example: Any) -> dict[str, Any] | None:
    """Return the first rows as plain values, ``None`` where JSON cannot hold them."""
    try:
        kept = _plain(example)
        json.dumps(kept, allow_nan=False)
        convert_input_example_to_serving_input(rebuilt(kept))  # as it will be, when it is sent
    except Exception:  # noqa: BLE001 - another library's code; a save goes on without
        return None
    return kept


def _plain(example: Any) -> dict[str, Any]:
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
