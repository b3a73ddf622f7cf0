"""Clocks that are not those of the test: another time for this process, or for a child."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

CHILD_SECONDS = 300.0
CACHE_SECONDS = 1
"""How long a program goes on with a clock that was set anew."""


@contextmanager
def shifted(seconds: float) -> Iterator[None]:
    """Set the clock of this process, as far as saves and pushes look at it."""
    real = time.time_ns

    def now() -> int:
        return real() + int(seconds * 10**9)

    with mock.patch.object(time, "time_ns", now):
        yield


def library() -> Path:
    """Return the library of Debian's libfaketime."""
    found = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if found is None:
        pytest.skip("no libfaketime is installed here (Debian's libfaketime)")
    return found


def preloaded() -> dict[str, str]:
    """Return the environment in which a program goes by another clock.

    Notes
    -----
    The monotonic clock, which timeouts go by, stays as it is.
    """
    own = {"LD_PRELOAD": str(library()), "FAKETIME_CACHE_DURATION": f"{CACHE_SECONDS}"}
    return own | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def run(script: str, *arguments: str, clock: str = "", **more: str) -> str:
    """Run a script in a process whose clock is set apart, such as ``-10m``; return what it says."""
    own = preloaded() | {"FAKETIME": clock} if clock else {}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(
        command,
        env=os.environ | own | more,
        capture_output=True,
        text=True,
        timeout=CHILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
