"""The ``MLmodel`` of a mirrored model: all that MLflow does with a model is written there.

It names the module that MLflow imports, the folder that comes first on Python's path, the method
that answers requests, the environment that is installed. Here it is compared with what a push
writes, field by field: one that is not known is refused, since a release of MLflow may obey it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lotto_mlflow.model_dir import DATA_FILE, FLAVOUR
from lotto_mlflow.signing import strict_yaml
from lotto_mlflow.signing.statements import Statement

MLMODEL = "MLmodel"
CODE_DIR = "code"
INPUT_EXAMPLE, SERVING_INPUT = "input_example.json", "serving_input_example.json"
CONDA, PYTHON_ENV = "conda.yaml", "python_env.yaml"
PYTHON_FUNCTION = "python_function"
"""The flavour beside ours; a model without a ``predict`` has only ours, and MLflow opens it
nowhere."""
_NUMBER = r"[0-9A-Za-z.+_-]{1,60}"
_PARAMETER = {"name": "predict_method", "default": "predict", "shape": None, "type": "string"}
_EXAMPLE_KINDS = ("dataframe", "ndarray", "json_object", "sparse_matrix_csc", "sparse_matrix_csr")
_UNITS = ("s", "ms", "us", "ns")

Check = Callable[[Any], bool]


@dataclass(frozen=True, kw_only=True)
class MlModel:
    """What the other files of a model folder are compared with.

    Attributes
    ----------
    loader_module : str or None
        What MLflow imports, ``None`` of a model that does not predict.
    python_version : str or None
        Of whoever pushed it; ``None`` likewise.
    mlflow_version : str
        The release of MLflow that wrote the folder.
    has_example, has_serving_input : bool
        Whether it names an input example, and that as a request to a server.
    """

    loader_module: str | None
    python_version: str | None
    mlflow_version: str
    has_example: bool
    has_serving_input: bool


def check(content: bytes, statement: Statement) -> MlModel:
    """Return what an ``MLmodel`` says, if it says what a push writes for a save, and no more.

    Raises
    ------
    SignatureError
        If it says anything else.
    """
    values = strict_yaml.parse(content, MLMODEL)
    _check_fields(values, _fields(), "", ("flavors", "mlflow_version"))
    flavours = values["flavors"]
    _check_fields(flavours, dict.fromkeys((FLAVOUR, PYTHON_FUNCTION), _is_mapping), "flavors")
    own = flavours.get(FLAVOUR)
    _check_fields(
        own,
        {
            "data": _is(DATA_FILE),
            "sha256": _is(statement.sha256),
            "save_id": _is(statement.save_id),
            "model_type": _is_text,
            "sklearn_version": _or_none(_matches(_NUMBER)),
        },
        f"flavors.{FLAVOUR}",
        ("data", "sha256", "save_id"),
    )
    function = flavours.get(PYTHON_FUNCTION)
    if function is not None:
        required = ("loader_module", "data", "code", "env", "python_version")
        where = f"flavors.{PYTHON_FUNCTION}"
        _check_fields(function, _fields_of_function(), where, required)
    example = values.get("saved_input_example_info") or {}
    return MlModel(
        loader_module=None if function is None else function["loader_module"],
        python_version=None if function is None else function["python_version"],
        mlflow_version=values["mlflow_version"],
        has_example=bool(example),
        has_serving_input="serving_input_path" in example,
    )


def _fields() -> dict[str, Check]:
    """Return the fields of a push; each of them is known to run nothing, or checked further."""
    return {
        "flavors": _is_mapping,
        "artifact_path": _is(None),
        "is_signature_from_type_hint": _is(False),
        "metadata": _is(None),
        "mlflow_version": _matches(_NUMBER),
        "model_id": _or_none(_matches(r"m-[0-9a-f]{32}")),
        "model_size_bytes": _or_none(_is_count),
        "model_uuid": _or_none(_matches(r"[0-9a-f]{32}")),
        "prompts": _is(None),
        "run_id": _or_none(_matches(r"[0-9a-f]{32}")),
        "saved_input_example_info": _or_none(_is_example),
        "signature": _or_none(_is_signature),
        "type_hint_from_example": _is(False),
        "utc_time_created": _matches(r"[0-9: .-]{10,40}"),
    }


def _fields_of_function() -> dict[str, Check]:
    return {
        "loader_module": _is_text,  # compared with the files in the folder
        "data": _is(DATA_FILE),
        "code": _is(CODE_DIR),
        "config": _is_config,
        "env": _is({"conda": CONDA, "virtualenv": PYTHON_ENV}),
        "python_version": _matches(r"[0-9]{1,2}(\.[0-9]{1,3}){1,2}[0-9a-z+]{0,10}"),
        "streamable": _is(False),
    }


def _check_fields(
    values: Any, allowed: Mapping[str, Check], where: str, required: tuple[str, ...] = ()
) -> None:
    """See that a mapping has only fields that are known, with values that they may have.

    Notes
    -----
    An unknown one without a value is what a later MLflow writes of what it does not use.
    """
    place = f" in {where}" if where else ""
    if not isinstance(values, dict):
        raise strict_yaml.refusal(MLMODEL, f"it has no mapping{place}")
    for name in required:
        if name not in values:
            raise strict_yaml.refusal(MLMODEL, f"it has no {name}{place}")
    for name, value in values.items():
        is_known = name in allowed
        if not is_known and value is not None:
            raise strict_yaml.refusal(MLMODEL, f"it has {name:.80}{place}")
        if is_known and not allowed[name](value):
            shown = f"{value!r:.80}"
            raise strict_yaml.refusal(MLMODEL, f"it has {shown} as {name:.80}{place}")


def _is(wanted: Any) -> Check:
    """Return the check for one value; 0 is not false here, nor 1 true."""
    return lambda value: type(value) is type(wanted) and bool(value == wanted)


def _matches(pattern: str) -> Check:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_config(value: Any) -> bool:
    """Return whether a configuration holds only what the loader reads: two notes on the example."""
    if not isinstance(value, dict) or value.keys() - {"form", "times"}:
        return False
    times = value.get("times", {})
    are_units = isinstance(times, dict) and all(unit in _UNITS for unit in times.values())
    return are_units and value.get("form", "list") in ("list", "series")


def _is_example(value: Any) -> bool:
    checks: dict[str, Check] = {
        "artifact_path": _is(INPUT_EXAMPLE),
        "serving_input_path": _is(SERVING_INPUT),
        "type": lambda kind: kind in _EXAMPLE_KINDS,
        "pandas_orient": lambda orient: orient in ("split", "values"),
    }
    is_known = isinstance(value, dict) and not value.keys() - checks.keys()
    return (
        is_known
        and {"artifact_path", "type"} <= value.keys()
        and all(checks[name](each) for name, each in value.items())
    )


def _is_signature(value: Any) -> bool:
    """Return whether a value is a signature: schemas, and no parameter but ours.

    Notes
    -----
    The default of the parameter says which method of the model answers.
    """
    if not isinstance(value, dict) or value.keys() - {"inputs", "outputs", "params"}:
        return False
    found = {}
    for name, text in value.items():
        try:
            found[name] = None if text is None else json.loads(text)
        except (ValueError, TypeError, RecursionError):
            return False
    if any(not isinstance(schema, list | None) for schema in found.values()):
        return False
    return all(
        isinstance(each, dict)
        and {name: given for name, given in each.items() if given is not None}
        == {name: given for name, given in _PARAMETER.items() if given is not None}
        for each in found.get("params") or []
    )
