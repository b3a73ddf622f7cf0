"""`ModelManager.relocate`: after the folder was moved, give its database the new paths."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lotto_mlflow.errors import RelocationError
from lotto_mlflow.files import held
from lotto_mlflow.manager.parts import disk_errors

if TYPE_CHECKING:
    from lotto_mlflow.manager import ModelManager


def relocate(self: ModelManager, *, relative_to: str | os.PathLike[str] | None = None) -> int:
    """Rewrite the paths in the embedded store's database to where the folder lies now.

    Parameters
    ----------
    relative_to : str or path-like, optional
        Store paths relative to this folder, for a store that is to be committed; MLflow then
        opens it from there only.

    Returns
    -------
    int
        Number of values that were rewritten; 0 where nothing had moved.

    Raises
    ------
    RelocationError
        If there is no embedded store, or it cannot be told where it lay before; if ``relative_to``
        is no folder. Nothing was changed.

    Notes
    -----
    One transaction, after a copy of the database was kept beside it (``mlflow.db.*.bak``).
    Idempotent.
    """
    from lotto_mlflow.mirror import database

    layout = self._parts.layout
    new_dir = layout.artifacts_dir.absolute()
    location = new_dir.as_uri()
    if relative_to is not None:
        if not Path(relative_to).is_dir():
            raise RelocationError(
                f"there is no folder {relative_to} that paths could be relative to; nothing was "
                "changed",
                path=relative_to,
            )
        location = Path(os.path.relpath(new_dir, Path(relative_to).absolute())).as_posix()
    with ExitStack() as stack:
        stack.enter_context(disk_errors(self._parts, "relocate could not be done"))
        if layout.mlflow_dir.is_dir():
            stack.enter_context(held(self._parts.push_lock()))
        return database.rewrite_paths(layout.database_path, location)
