"""The whole folder of a mirrored model: the files that MLflow reads and runs, and no others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from lotto_mlflow import model_dir, pyfunc_loader, regular
from lotto_mlflow.errors import StoreError
from lotto_mlflow.model_dir import (
    ADDED_BY_MLFLOW,
    DATA_FILE,
    REQUIREMENTS_FILE,
    SIGNATURE_FILE,
    STATEMENT_FILE,
)
from lotto_mlflow.regular import sha256_of_file
from lotto_mlflow.signing import environments, loaders, mlmodel
from lotto_mlflow.signing.mlmodel import (
    CODE_DIR,
    CONDA,
    INPUT_EXAMPLE,
    MLMODEL,
    PYTHON_ENV,
    SERVING_INPUT,
    MlModel,
)
from lotto_mlflow.signing.statements import Statement
from lotto_mlflow.signing.strict_yaml import refusal

_FILE_BYTES = 16 << 20
_IN_CODE = f"{CODE_DIR}/"
_REQUIRED = frozenset({MLMODEL, CONDA, PYTHON_ENV, REQUIREMENTS_FILE, DATA_FILE})
_ALLOWED = _REQUIRED | {INPUT_EXAMPLE, SERVING_INPUT, STATEMENT_FILE, SIGNATURE_FILE}


def wanted_names(found: Mapping[str, str | None], *, drops_compiled: bool) -> list[str]:
    """Return the files of a model folder that belong to the model, if there are no others.

    Parameters
    ----------
    found : mapping of str to (str or None)
        Each path in the folder, and what it is where it is no regular file.
    drops_compiled : bool
        Whether what Python compiled of a loader may be there, and is left out. MLflow runs that
        in the place of the loader, and nobody can tell what it was compiled from.

    Raises
    ------
    SignatureError
        If there is another file, something that is none, or no loader of ours.
    """
    names = []
    for name, odd in sorted(found.items()):
        if odd is not None:
            raise refusal(name, f"it is {odd}, not a file")
        if name == ADDED_BY_MLFLOW:
            continue
        if model_dir.is_compiled(name):
            if drops_compiled:
                continue
            raise refusal(
                name,
                "MLflow runs what Python compiled in the place of the loader, and it cannot be "
                "checked. Delete the folders __pycache__, or have lotto-mlflow serve leave them "
                "out",
            )
        if name not in _ALLOWED and not name.startswith(_IN_CODE):
            raise refusal(name, "no such file belongs to a model")
        names.append(name)
    missing = sorted(_REQUIRED.difference(names))
    if missing:
        raise refusal(missing[0], "it is missing")
    _loader_in(names)
    return names


def _loader_in(names: list[str]) -> str:
    """Return the module of the loader whose files these are."""
    in_code = frozenset(n.removeprefix(_IN_CODE) for n in names if n.startswith(_IN_CODE))
    module = loaders.module_of(in_code)
    if module is None:
        every = {
            f"{_IN_CODE}{n}" for each in loaders.released().values() for one in each for n in one
        }
        odd = next((name for name in names if name.startswith(_IN_CODE) and name not in every), "")
        raise refusal(odd or CODE_DIR, "its files are not those of a loader of lotto_mlflow")
    return module


def check(folder: Path, statement: Statement) -> MlModel:
    """See that a model folder holds what was signed, and nothing else that MLflow would run.

    Parameters
    ----------
    folder : pathlib.Path
        The folder. Nobody else may write there, or what is checked is not what is opened later.
    statement : Statement
        What a trusted key signed of the save.

    Returns
    -------
    MlModel
        What the ``MLmodel`` says.

    Raises
    ------
    SignatureError
        If anything differs; the message names the file. Nothing was opened but to be read.

    Notes
    -----
    The schema in the ``MLmodel``, the input example and the releases of pip and its like are not
    signed. They are checked to be of their kind, and run nothing.
    """
    names = wanted_names(_names_in(folder), drops_compiled=False)
    module = _loader_in(names)
    found = {
        name.removeprefix(_IN_CODE): sha256_of_file(folder / name)
        for name in names
        if name.startswith(_IN_CODE)
    }
    if not loaders.is_released(module, found):
        raise refusal(f"{_IN_CODE}{module}", "it is not the loader of any release of lotto_mlflow")
    model = mlmodel.check(_content(folder, MLMODEL), statement)
    if model.loader_module not in (None, module):
        raise refusal(MLMODEL, f"its loader_module is {model.loader_module!r:.80}, not {module}")
    _check_example(names, model)
    environments.check(
        _content(folder, REQUIREMENTS_FILE),
        _content(folder, CONDA),
        _content(folder, PYTHON_ENV),
        model,
        statement,
    )
    _check_data(folder, statement)
    return model


def _names_in(folder: Path) -> dict[str, str | None]:
    """Return each path in a folder; a folder that has no file in it counts as a file, too."""
    found: dict[str, str | None] = {}
    for parent, folders, files in os.walk(folder):
        if not folders and not files:
            found[Path(parent).relative_to(folder).as_posix()] = "a folder"
    found |= {path.relative_to(folder).as_posix(): odd for path, odd in regular.below(folder)}
    return found


def _content(folder: Path, name: str) -> bytes:
    try:
        return regular.content_of(folder / name, _FILE_BYTES)
    except StoreError as cause:
        raise refusal(name, "it is no file, or far too large") from cause


def _check_example(names: list[str], model: MlModel) -> None:
    """See that the input example is there where the ``MLmodel`` names one, and only there."""
    for name, is_named in (
        (INPUT_EXAMPLE, model.has_example),
        (SERVING_INPUT, model.has_serving_input),
    ):
        if is_named != (name in names):
            raise refusal(name, f"it {'is missing' if is_named else 'is not named in the MLmodel'}")


def _check_data(folder: Path, statement: Statement) -> None:
    """See that the model is the one that was signed, and that the loader compares it with that.

    Notes
    -----
    The loader looks for the digest by the first line that has one, and not as YAML.
    """
    path = folder / DATA_FILE
    status = regular.status_of(path)
    if status is None or status.st_size != statement.size:
        raise refusal(DATA_FILE, "it has another size than the model that was signed")
    if sha256_of_file(path) != statement.sha256:
        raise refusal(DATA_FILE, "it is not the model that was signed")
    reads = (pyfunc_loader.recorded_sha256(folder), model_dir.recorded_save_id(folder))
    if reads != (statement.sha256, statement.save_id):
        raise refusal(MLMODEL, "a line of it looks like the digest or the id of another save")
