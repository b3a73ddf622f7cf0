"""Relocate: after the folder was moved, give its database the new paths."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from lotto_mlflow.errors import RelocationError
from lotto_mlflow.files import locked
from lotto_mlflow.folder import ModelFolder, import_mirror


def relocate(folder: ModelFolder, relative_to: str | os.PathLike[str] | None) -> int:
    """Rewrite the paths in the embedded store's database to where the folder lies now.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    relative_to : str or path-like or None
        Folder that the paths are to be relative to; ``None`` for absolute ones.

    Returns
    -------
    int
        Number of values that were rewritten.

    Raises
    ------
    RelocationError
        If there is no embedded store, or no such folder. Nothing was changed.
    MirrorUnavailableError
        If MLflow cannot be imported. Nothing was changed.
    """
    import_mirror()
    from lotto_mlflow.mirror import database

    layout = folder.layout
    location = _location(layout.artifacts_dir.absolute(), relative_to)
    with ExitStack() as stack:
        stack.enter_context(
            folder.disk_errors("relocate could not be done", "The paths are as they were")
        )
        if layout.mlflow_dir.is_dir():
            stack.enter_context(locked(folder.push_lock()))
        return database.rewrite_paths(layout.database_path, location)


def _location(artifacts_dir: Path, relative_to: str | os.PathLike[str] | None) -> str:
    """Return how the database is to name the folder of its artifacts.

    Raises
    ------
    RelocationError
        If what paths are to be relative to is no folder. Nothing was changed.
    """
    if relative_to is None:
        return artifacts_dir.as_uri()
    if not Path(relative_to).is_dir():
        raise RelocationError(
            f"there is no folder {relative_to} that paths could be relative to; nothing was "
            "changed",
            path=relative_to,
        )
    return Path(os.path.relpath(artifacts_dir, Path(relative_to).absolute())).as_posix()
