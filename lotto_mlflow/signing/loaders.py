"""The loaders that releases of this package put into models, by the digests of their files.

MLflow runs the loader inside a model before anything of this package could look at the model. It
is no part of what is signed: one loader is in thousands of models. Whoever checks a model compares
its loader with the digests here, which come with the installed package, and not with the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from lotto_mlflow import pyfunc_loader

Loader = Mapping[str, str]
"""SHA-256 of each file of a loader, by its path in the folder ``code``."""
LIST_PATH = Path(__file__).with_name("loaders.json")


@cache
def released() -> Mapping[str, tuple[Loader, ...]]:
    """Return the loaders of all releases, this one included, by the name of their module.

    Notes
    -----
    A loader that is changed gets another name, so one name has one set of files. The exception is
    the first one, whose comments were changed after its release.
    """
    content = json.loads(LIST_PATH.read_text(encoding="utf-8"))
    return {module: tuple(loaders) for module, loaders in content.items()}


def module_of(names: frozenset[str]) -> str | None:
    """Return the module of the loader that has files of these names, ``None`` if none has.

    Parameters
    ----------
    names : frozenset of str
        All paths in the folder ``code`` of a model.
    """
    for module, loaders in released().items():
        if any(frozenset(loader) == names for loader in loaders):
            return module
    return None


def is_released(module: str, found: Loader) -> bool:
    """Return whether the files of a loader are, byte for byte, those of a release."""
    return any(dict(loader) == dict(found) for loader in released().get(module, ()))


def present() -> Loader:
    """Return the digests of the loader that this release puts into models."""
    return {
        f"{pyfunc_loader.MODULE_NAME}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in pyfunc_loader.module_paths()
    }


def with_present() -> str:
    """Return what the list is to hold so that it has the present loader, too."""
    module, listed = pyfunc_loader.MODULE_NAME, dict(released())
    if not is_released(module, present()):
        listed[module] = (*listed.get(module, ()), present())
    return f"{json.dumps(listed, indent=2, sort_keys=True)}\n"
