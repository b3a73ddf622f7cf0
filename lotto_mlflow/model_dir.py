"""What lies in an MLflow model folder that a push wrote, and whether it is still that."""

from __future__ import annotations

import re
from pathlib import Path

from lotto_mlflow import regular
from lotto_mlflow.pyfunc_loader import MODULE_NAME, MODULES
from lotto_mlflow.records import SAVE_ID
from lotto_mlflow.regular import sha256_of_file

DATA_FILE = "data/model.pkl"
"""Where the model lies in its folder: one name for all, so that no URI has to quote it."""
REQUIREMENTS_FILE = "requirements.txt"
STATEMENT_FILE = "signature/statement.json"
SIGNATURE_FILE = "signature/statement.sig"
"""What is signed of the save, and the signature; the two prove themselves."""
_MLMODEL_BYTES = 16 << 20
NO_FILE = "no file"
"""In place of the digest of a link, a pipe or the like."""
ADDED_BY_MLFLOW = "registered_model_meta"
"""What MLflow adds when it opens a version: which one that was."""
FLAVOUR = "lotto_mlflow"
"""Our own flavour: it says which file is the model, and what its digest is."""
_SAVE_ID_LINE = re.compile(rf"""^\s+save_id:\s*['"]?({SAVE_ID})['"]?\s*$""", re.MULTILINE)
_LOADER = re.escape(MODULE_NAME.rpartition("_v")[0])
_COMPILED = re.compile(  # of one file, as in version 1, or of a package
    rf"code/(__pycache__/{_LOADER}_v\d+|{_LOADER}_v\d+/__pycache__/({'|'.join(MODULES)}))"
    r"\.[\w.-]+\.pyc"
)


def is_compiled(name: str) -> bool:
    """Return whether a path in a model folder is that of what Python compiled of a loader."""
    return _COMPILED.fullmatch(name) is not None


def digests(model_dir: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a model folder, but for the model, by its path in it.

    Notes
    -----
    MLflow runs what these files name. When it opens a version, it adds ``registered_model_meta``,
    and Python what it compiled of the loader. What is no file has a word in place of a digest. A
    signature is none of them: it may come later, and proves itself.
    """
    found: dict[str, str] = {}
    added = (ADDED_BY_MLFLOW, STATEMENT_FILE, SIGNATURE_FILE)
    for path in sorted(model_dir.rglob("*")):
        name = path.relative_to(model_dir).as_posix()
        is_added = name in added or is_compiled(name)
        if not regular.is_file(path) and not regular.is_folder(path):
            found[name] = NO_FILE
        elif regular.is_file(path) and name != DATA_FILE and not is_added:
            found[name] = sha256_of_file(path)
    return found


def differing(model_dir: Path, files: dict[str, str]) -> list[str]:
    """Return the files of a model folder that are not those recorded, or are missing or added.

    Parameters
    ----------
    model_dir : pathlib.Path
        The folder.
    files : dict of str to str
        What `digests` returned when it was written.
    """
    found = digests(model_dir)
    return sorted(name for name in found | files if found.get(name) != files.get(name))


def is_intact(model_dir: Path, sha256: str, files: dict[str, str]) -> bool:
    """Return whether a model folder holds the model with a digest, and these other files."""
    return is_data_intact(model_dir, sha256) and not differing(model_dir, files)


def is_data_intact(model_dir: Path, sha256: str) -> bool:
    """Return whether a model folder holds the model with a digest."""
    path = model_dir / DATA_FILE
    return regular.is_file(path) and sha256_of_file(path) == sha256


def recorded_save_id(model_dir: Path) -> str | None:
    """Return the id of the save in the ``MLmodel`` of a mirrored model folder, if it names one."""
    path = model_dir / "MLmodel"
    content = regular.content_of(path, _MLMODEL_BYTES) if regular.is_file(path) else b""
    match = _SAVE_ID_LINE.search(content.decode("utf-8", "replace"))
    return match.group(1) if match else None
