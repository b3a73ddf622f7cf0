"""Input examples: what is kept of them in a save record, and the signature they give."""

from __future__ import annotations

import json
import logging
from typing import Any

from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ParamSchema, ParamSpec

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
        outputs = model.predict(input_example)
        signature = infer_signature(input_example, outputs)
        full = ModelSignature(signature.inputs, signature.outputs, _PARAMS)
        return full.to_dict(), _kept(input_example)
    except Exception as cause:  # noqa: BLE001 - another library's code; a save goes on without
        _logger.warning(
            "no signature could be inferred from input_example, so the model is saved without "
            "one: %s: %s",
            type(cause).__name__,
            cause,
        )
        return None, None


def _kept(example: Any) -> dict[str, Any] | None:
    if hasattr(example, "to_json") and hasattr(example, "dtypes"):
        rows = example.head(_ROWS)
        kept = {"kind": "frame", "value": json.loads(rows.to_json(orient="split", index=False))}
        kept["dtypes"] = {str(name): str(kind) for name, kind in example.dtypes.items()}
    elif hasattr(example, "tolist") and hasattr(example, "dtype"):
        kept = {"kind": "array", "value": example[:_ROWS].tolist(), "dtype": str(example.dtype)}
    else:
        kept = {"kind": "value", "value": example[:_ROWS]}
    json.dumps(kept, allow_nan=False)
    return kept


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
