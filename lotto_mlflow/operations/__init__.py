"""What can be done with a folder of models, one file a verb; each takes a `ModelFolder` first.

A verb is imported when it is first used: who only loads models does not wait for the rest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lotto_mlflow.operations import (
        accuracy,
        aliases,
        check,
        delete,
        find,
        follow,
        gate,
        load,
        migrate,
        predict,
        prune,
        registered,
        relocate,
        restore,
        results,
        save,
        sign,
        sync,
        trust,
        verify,
        warm_up,
    )

__all__ = [
    "accuracy",
    "aliases",
    "check",
    "delete",
    "find",
    "follow",
    "gate",
    "load",
    "migrate",
    "predict",
    "prune",
    "registered",
    "relocate",
    "restore",
    "results",
    "save",
    "sign",
    "sync",
    "trust",
    "verify",
    "warm_up",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
