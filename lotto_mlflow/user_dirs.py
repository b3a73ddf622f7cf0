"""Folders outside the model folder: the backend's, and the user's own for downloads and state."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from lotto_mlflow import regular
from lotto_mlflow.errors import StoreError

_OWN = "lotto_mlflow"


def app_dir(environment: Mapping[str, str] | None = None) -> Path:
    """Return the backend's folder: ``LOTTO_APP_DIR``, else ``backend/app`` under the current one.

    Notes
    -----
    An installed package must not write beside itself, so this is not derived from its file. Where
    the current folder was deleted, a relative one stays relative, for whoever uses it to refuse.
    """
    values = os.environ if environment is None else environment
    return _absolute(Path(values.get("LOTTO_APP_DIR") or Path("backend", "app")))


def cache_dir(environment: Mapping[str, str] | None = None) -> Path:
    """Return where downloads are kept that the folder of models has no room or rights for.

    Returns
    -------
    pathlib.Path
        ``LOTTO_CACHE_DIR``, else ``lotto_mlflow`` in ``XDG_CACHE_HOME``, else in ``~/.cache``; of a
        user without a home, in the system's temporary folder.
    """
    return _own_dir("LOTTO_CACHE_DIR", "XDG_CACHE_HOME", Path(".cache"), environment)


def downloads_dir() -> Path:
    """Return the folder of verified downloads in `cache_dir`."""
    return cache_dir() / "downloads"


def state_dir(environment: Mapping[str, str] | None = None) -> Path:
    """Return where this host notes the newest signed save that it has seen.

    Returns
    -------
    pathlib.Path
        ``LOTTO_STATE_DIR``, else ``lotto_mlflow`` in ``XDG_STATE_HOME``, else in
        ``~/.local/state``; of a user without a home, in the system's temporary folder.
    """
    return _own_dir("LOTTO_STATE_DIR", "XDG_STATE_HOME", Path(".local", "state"), environment)


def _own_dir(own: str, of_all: str, at_home: Path, environment: Mapping[str, str] | None) -> Path:
    """Return what a variable names, else the package's folder where the user has such folders."""
    values = os.environ if environment is None else environment
    if values.get(own):
        return _absolute(Path(values[own]))
    given = values.get(of_all) or ""
    if os.path.isabs(given):  # noqa: PTH117 - an empty text is no path; others are to be ignored
        return Path(given, _OWN)
    home = os.path.expanduser("~")  # noqa: PTH111 - never raises
    if os.path.isabs(home):  # noqa: PTH117 - a text
        return Path(home, at_home, _OWN)
    import tempfile  # imported lazily

    return Path(tempfile.gettempdir(), f"{_OWN}-{os.getuid()}")


def _absolute(path: Path) -> Path:
    try:
        return regular.absolute(path)
    except StoreError:
        return path
