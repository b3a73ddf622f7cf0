"""The rooms that every verb of the manager works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lotto_mlflow import files
from lotto_mlflow.errors import LottoMlflowError, StoreError
from lotto_mlflow.layout import Layout
from lotto_mlflow.outbox import Outbox
from lotto_mlflow.store import Store, make_dir

if TYPE_CHECKING:
    from filelock import FileLock


@dataclass(frozen=True)
class Parts:
    """One folder's layout, disk view and outbox, and the lock that guards them.

    Attributes
    ----------
    layout : Layout
        Where everything lies.
    store : Store
        The disk view.
    outbox : Outbox
        What MLflow has still to be told.
    """

    layout: Layout
    store: Store
    outbox: Outbox

    @classmethod
    def at(cls, layout: Layout) -> Parts:
        """Return the parts of a folder; nothing is touched."""
        return cls(layout, Store(layout), Outbox(layout.mlflow_dir))

    def make_dirs(self) -> None:
        """Make every folder where it is missing.

        Raises
        ------
        StoreError
            If one cannot be made.
        """
        self.store.make_dirs()
        make_dir(self.layout.tmp_dir)
        try:
            self.outbox.make_dirs()
        except OSError as cause:
            raise StoreError(f"{cause}. Free the name, or grant the rights") from cause

    def folder_of(self, path: Path) -> Path | None:
        """Return which of the adapter's folders a file lies in, however its path is spelled.

        Returns
        -------
        pathlib.Path or None
            The layout's ``trained_dir``, ``backup_dir`` or ``downloads_dir``, else ``None``.
        """
        layout, parents = self.layout, path.resolve().parents
        for folder in (layout.trained_dir, layout.backup_dir):
            if parents and folder.resolve() == parents[0]:
                return folder
        return layout.downloads_dir if layout.downloads_dir.resolve() in parents else None

    def lock(self) -> FileLock:
        """Return the lock under which the folder changes, in moments."""
        return files.lock_at(self.layout.mlflow_dir / "store.lock")

    def push_lock(self) -> FileLock:
        """Return the lock that whoever pushes to MLflow holds until it has really ended."""
        return files.lock_at(self.layout.mlflow_dir / "push.lock")

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Make a folder for temporary files that is swept even if this process is killed."""
        with files.workspace(self.layout.tmp_dir, self.lock()) as folder:
            yield folder


@contextmanager
def disk_errors(parts: Parts, what: str) -> Iterator[None]:
    """Turn what the disk refuses into `StoreError`.

    Parameters
    ----------
    parts : Parts
        The folder.
    what : str
        What could not be done, for the beginning of the message.
    """
    try:
        yield
    except LottoMlflowError:
        raise
    except OSError as cause:
        raise StoreError(
            f"{what} in {parts.layout.trained_dir}: {cause}. "
            "The folder is as it was; free some room or grant the rights, and try again"
        ) from cause
