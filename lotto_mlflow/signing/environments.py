"""The three files by which an environment for a model is installed: pip and conda obey them.

The distributions that a model needs are signed. What else stands in these files is compared with
what MLflow writes there: an option of pip, an address, a channel or another file of requirements
would install somebody else's code, with the model's name on it.
"""

from __future__ import annotations

import re
from typing import Any

from lotto_mlflow.model_dir import REQUIREMENTS_FILE
from lotto_mlflow.requirements import name_in, plain
from lotto_mlflow.signing import strict_yaml
from lotto_mlflow.signing.mlmodel import CONDA, PYTHON_ENV, MlModel
from lotto_mlflow.signing.statements import Statement, sha256_of_requirements

_CONDA_NAME, _CHANNELS = "mlflow-env", ["conda-forge"]
_VERSION = r"[0-9A-Za-z.+_-]{1,60}"
_PIP_OF_CONDA = re.compile(rf"pip(<={_VERSION})?")
_BUILD = re.compile(rf"(pip|setuptools|wheel)(==({_VERSION}))?")
_PYTHON = re.compile(_VERSION)


def check(
    requirements: bytes, conda: bytes, python_env: bytes, model: MlModel, statement: Statement
) -> None:
    """See that an environment is the one that was signed, and installed from nowhere else.

    Parameters
    ----------
    requirements, conda, python_env : bytes
        What ``requirements.txt``, ``conda.yaml`` and ``python_env.yaml`` hold.
    model : lotto_mlflow.signing.mlmodel.MlModel
        What the ``MLmodel`` says.
    statement : Statement
        What was signed.

    Raises
    ------
    SignatureError
        If one of them says anything else, or they differ from each other.

    References
    ----------
    MLflow 3.17, ``mlflow.pyfunc.save_model``: what it writes; pip, the requirements file format.
    """
    lines = _lines(requirements)
    _check_signed(lines, model, statement)
    python = _check_python_env(strict_yaml.parse(python_env, PYTHON_ENV))
    if model.python_version not in (None, python):
        raise strict_yaml.refusal(PYTHON_ENV, "it has another Python than the MLmodel")
    _check_conda(strict_yaml.parse(conda, CONDA), python, lines)


def _lines(content: bytes) -> list[str]:
    """Return the requirements in a file, each of which names one distribution and nothing else."""
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as cause:
        raise strict_yaml.refusal(REQUIREMENTS_FILE, "it has characters not of ASCII") from cause
    lines = text.removesuffix("\n").split("\n") if text else []
    if plain(lines) != lines:
        odd = next(line for line in lines if line not in plain([line]))
        why = f"the line {odd!r:.100} does not just name a distribution and its version"
        raise strict_yaml.refusal(REQUIREMENTS_FILE, why)
    return lines


def _check_signed(lines: list[str], model: MlModel, statement: Statement) -> None:
    """See that the requirements are the signed ones, and MLflow itself, which MLflow may add."""
    wanted = statement.requirements_sha256
    others = [line for line in lines if name_in(line) != "mlflow"]
    added = f"mlflow=={model.mlflow_version}"
    is_whole = sha256_of_requirements(lines) == wanted
    is_added = sorted([*others, added]) == sorted(lines)
    if not is_whole and not (is_added and sha256_of_requirements(others) == wanted):
        raise strict_yaml.refusal(
            REQUIREMENTS_FILE, "these are not the requirements that were signed"
        )


def _check_python_env(values: Any) -> str:
    """Return the version of Python, if nothing is built with but pip, setuptools and wheel."""
    allowed = {"python", "build_dependencies", "dependencies"}
    if not isinstance(values, dict) or values.keys() != allowed:
        raise strict_yaml.refusal(PYTHON_ENV, f"it does not have {', '.join(sorted(allowed))}")
    if values["dependencies"] != [f"-r {REQUIREMENTS_FILE}"]:
        raise strict_yaml.refusal(PYTHON_ENV, f"its dependencies are not just {REQUIREMENTS_FILE}")
    built_with, python = values["build_dependencies"], values["python"]
    named = [
        match[1]
        for line in (built_with if isinstance(built_with, list) else [None])
        for match in [_BUILD.fullmatch(line) if isinstance(line, str) else None]
        if match is not None
    ]
    if not isinstance(built_with, list) or len(set(named)) != len(built_with):
        why = "a build dependency is none of pip, setuptools and wheel"
        raise strict_yaml.refusal(PYTHON_ENV, why)
    if not isinstance(python, str) or not _PYTHON.fullmatch(python):
        raise strict_yaml.refusal(PYTHON_ENV, "its Python is no version")
    return python


def _check_conda(values: Any, python: str, lines: list[str]) -> None:
    """See that an environment of conda is that of the other two files, from its own channel."""
    found = values.get("dependencies") if isinstance(values, dict) else None
    pip = found[1] if isinstance(found, list) and len(found) > 1 else None
    if not isinstance(pip, str) or not _PIP_OF_CONDA.fullmatch(pip):
        raise strict_yaml.refusal(CONDA, "its dependencies are not Python, pip and requirements")
    wanted = {
        "name": _CONDA_NAME,
        "channels": _CHANNELS,
        "dependencies": [f"python={python}", pip, {"pip": lines}],
    }
    if values != wanted:
        raise strict_yaml.refusal(CONDA, f"it says something else than {REQUIREMENTS_FILE}")
