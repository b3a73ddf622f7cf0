"""Lookups on a machine that may be busy: each has five seconds, and may be asked again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lotto_mlflow.errors import MirrorUnavailableError

_T = TypeVar("_T")
_TIMES = 12


def patiently(call: Callable[[], _T]) -> _T:
    """Return what a call returns, asked again where there was no answer in time."""
    for _ in range(_TIMES):
        try:
            return call()
        except MirrorUnavailableError as cause:
            if "got no answer within" not in str(cause):
                raise
    return call()
