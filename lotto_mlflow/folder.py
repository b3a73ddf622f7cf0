"""`ModelFolder`: what every operation works with."""

from __future__ import annotations

import importlib
import json
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotto_mlflow import advice, files, regular, settings
from lotto_mlflow.current_folder import existing_current_folder
from lotto_mlflow.downloads import DownloadCache
from lotto_mlflow.errors import (
    Fix,
    LaterReleaseError,
    LottoMlflowError,
    MirrorUnavailableError,
    StoreError,
)
from lotto_mlflow.history import History
from lotto_mlflow.journal import Journal
from lotto_mlflow.layout import Layout
from lotto_mlflow.records import FORMAT, FORMAT_RELEASE
from lotto_mlflow.settings import Settings, Target
from lotto_mlflow.signing import is_folder_id
from lotto_mlflow.store import Store, make_real_dir

if TYPE_CHECKING:
    from filelock import FileLock

    from lotto_mlflow.mirror import Mirror

_FORMAT_BYTES = 1 << 20
_INSTALL_MLFLOW = ("pip", "install", "--force-reinstall", "mlflow")
MIRROR_ROOM = "lotto_mlflow.mirror"
"""The room that imports MLflow."""


def import_mirror() -> None:
    """Import the room of the MLflow view, and MLflow with it.

    Raises
    ------
    MirrorUnavailableError
        If MLflow cannot be imported: a broken installation raises what it likes.
    """
    try:
        with existing_current_folder():
            importlib.import_module(MIRROR_ROOM)
    except LottoMlflowError:
        raise
    except Exception as cause:
        raise MirrorUnavailableError(
            f"MLflow cannot be imported: {type(cause).__name__}: {cause}; nothing was asked of it",
            fix=Fix("shell", {"command": _INSTALL_MLFLOW}, effect="installs it anew"),
            error_code=None,
        ) from cause


class ModelFolder:
    """One folder of models, on disk and in MLflow.

    Parameters
    ----------
    layout : Layout
        Where everything lies.
    read_settings : callable, optional
        Returns the current settings, each time it is called.

    Attributes
    ----------
    layout : Layout
        Where everything lies.
    store : Store
        The disk view.
    journal : Journal
        The records.
    downloads : DownloadCache
        Verified copies of models that lie only in the registry.
    """

    def __init__(
        self, layout: Layout, read_settings: Callable[[], Settings] = settings.read
    ) -> None:
        self.layout = layout
        self.store = Store(layout)
        self.journal = Journal(layout.mlflow_dir)
        self.settings = read_settings
        self.downloads = DownloadCache(layout, read_settings)
        self._mirrors = _MIRRORS.setdefault(layout, _Mirrors(layout))

    def target(self, current: Settings | None = None) -> Target:
        """Return the tracking store that settings, by default the current ones, select."""
        return Target.from_settings(current or self.settings(), self.layout.database_path)

    def embedded_target(self) -> Target:
        """Return the tracking store inside the folder."""
        return self.target(replace(self.settings(), tracking_uri=None, registry_uri=None))

    def known_targets(self) -> dict[str, Target]:
        """Return the stores with a known address by their names, the current one first.

        Notes
        -----
        The name of a store in a record is no address.
        """
        return {target.name: target for target in (self.target(), self.embedded_target())}

    def mirror(self, target: Target) -> Mirror:
        """Return the MLflow view in a tracking store; opening it imports MLflow.

        Raises
        ------
        MirrorUnavailableError
            If MLflow cannot be imported.
        """
        return self._mirrors.of_target(target)

    def history(self) -> History:
        """Return the records as they are now."""
        return History(self.store, self.journal)

    def make_dirs(self) -> None:
        """Make every folder where it is missing.

        Raises
        ------
        StoreError
            If one cannot be made.
        """
        self.store.make_dirs()
        make_real_dir(self.layout.tmp_dir)
        try:
            self.journal.make_dirs()
        except LottoMlflowError:
            raise
        except OSError as cause:
            helps = advice.of_error(cause, self.layout.mlflow_dir)
            raise StoreError(f"a folder of records could not be made: {cause}; {helps}") from cause

    def note_format(self, work_dir: Path) -> None:
        """Write ``format.json``, where it is missing or of an earlier release."""
        number, _ = self._format()
        if number < FORMAT:
            self._write_format(work_dir, {"format": FORMAT, "release": FORMAT_RELEASE})

    def _write_format(self, work_dir: Path, values: dict[str, Any]) -> None:
        content = json.dumps(self._noted() | values, indent=2)
        files.replace_content(self.layout.format_path, content.encode("utf-8"), work_dir)

    def _noted(self) -> dict[str, Any]:
        """Return what ``format.json`` holds, empty where that cannot be read."""
        try:
            noted = json.loads(regular.content_of(self.layout.format_path, _FORMAT_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return noted if isinstance(noted, dict) else {}

    def folder_id(self, work_dir: Path) -> str:
        """Return the id of the folder, which is made and noted in ``format.json`` where none is.

        Notes
        -----
        The caller holds the lock. Signatures say it: of which folder a save is.
        """
        noted = self._noted().get("folder")
        if is_folder_id(noted):
            return str(noted)
        made = os.urandom(16).hex()
        self._write_format(work_dir, {"folder": made})
        return made

    def _format(self) -> tuple[int, str]:
        """Return the format of the records, 0 where none is noted, and the release it needs.

        Raises
        ------
        StoreError
            If a link, a folder or the like has the name of the file.
        """
        regular.check_file(self.layout.format_path)
        noted = self._noted()
        try:
            return int(noted["format"]), str(noted["release"])
        except (ValueError, TypeError, KeyError, OverflowError):
            return 0, ""

    @property
    def later_release(self) -> str | None:
        """The release that the folder's records need, where this one may not change them."""
        number, release = self._format()
        return release if number > FORMAT else None

    def check_format(self) -> None:
        """See that this release may change the records.

        Raises
        ------
        LaterReleaseError
            If only a later one may. Nothing was changed.
        """
        release = self.later_release
        if release is not None:
            raise LaterReleaseError(
                f"the records in {self.layout.mlflow_dir} are of lotto-mlflow {release} or later, "
                "and this release must not change them",
                fix=Fix("shell", {"command": ("pip", "install", f"lotto-mlflow>={release}")}),
                release=release,
            )

    def odd_work_folders(self) -> list[Path]:
        """Return which folders for temporary files, downloads and signatures are no real ones."""
        layout = self.layout
        candidates = (layout.tmp_dir, layout.downloads_dir, layout.signatures_dir)
        return [f for f in candidates if os.path.lexists(f) and not regular.is_folder(f)]

    def odd_files(self) -> Iterator[tuple[Path, str]]:
        """Yield what lies in the folders under the name of a file, is none, and what it is."""
        yield from self.store.odd_names()
        mlflow_dir = self.layout.mlflow_dir
        locks = (mlflow_dir / f"{name}.lock" for name in ("store", "push", "sync", "database"))
        kept = (self.layout.format_path, self.layout.aliases_path, self.layout.database_path)
        own = (*kept, self.layout.clock_path, *locks)
        for path in own:
            kind = regular.odd_kind(path)
            if kind is not None:
                yield path, kind
        maybe = (self.layout.downloads_dir, self.layout.signatures_dir)
        for folder in (self.layout.artifacts_dir, *filter(regular.is_folder, maybe)):
            for path, kind in regular.below(folder):
                if kind is not None:
                    yield path, kind

    def lock(self) -> FileLock:
        """Return the lock under which the folder changes, in moments."""
        return files.lock_at(self.layout.mlflow_dir / "store.lock")

    def push_lock(self) -> FileLock:
        """Return the lock that whoever pushes to MLflow holds until it has really ended."""
        return files.lock_at(self.layout.mlflow_dir / "push.lock")

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Make a folder for temporary files that is swept even if this process is killed."""
        with files.workspace(self.layout.tmp_dir, self.lock()) as work_dir:
            yield work_dir

    @contextmanager
    def disk_errors(self, what: str, outcome: str) -> Iterator[None]:
        """Turn what the disk refuses into `StoreError`.

        Parameters
        ----------
        what : str
            What could not be done, for the beginning of the message.
        outcome : str
            What is true of the folder then, for its end.
        """
        try:
            yield
        except LottoMlflowError:
            raise
        except OSError as cause:
            raise StoreError(
                f"{what} in {self.layout.trained_dir}: {cause}. {outcome}; "
                f"{advice.of_error(cause, *self._may_be_meant())}"
            ) from cause

    def _may_be_meant(self) -> tuple[Path, ...]:
        """Return what an error may be about that names no file."""
        return (*self.store.folders, self.layout.mlflow_dir, self.layout.tmp_dir)


class _Mirrors:
    """The mirrors of a folder, which all managers of the folder in this process share."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._opened: dict[object, Mirror] = {}

    def of_target(self, target: Target) -> Mirror:
        """Return the mirror in a tracking store.

        Notes
        -----
        A client does not survive a fork, nor the replacement of the database's file, and one
        that was opened while the file was read-only never writes. One in which a database failed
        may hold on to what was damaged. After any of these, a mirror is opened that shares nothing
        with the one before.
        """
        import_mirror()
        from lotto_mlflow.mirror import Mirror

        store = (self._layout, target)
        use = (os.getpid(), _file_of(target))
        uses = _USES.setdefault(store, [])
        opened = self._opened.get((target, use))
        if opened is None or opened.is_stale:
            if opened is not None:
                uses[uses.index(use)] = None  # nobody is given this number again
            if use not in uses:
                uses.append(use)
            opened = Mirror(self._layout, target, uses.index(use))
            self._opened[target, use] = opened
        return opened


_MIRRORS: weakref.WeakValueDictionary[Layout, _Mirrors] = weakref.WeakValueDictionary()
_USES: dict[object, list[object]] = {}
"""For each store, the processes and database files it was used by and with; the place is the number
of the generation."""


def _file_of(target: Target) -> tuple[int, int, bool, bool] | None:
    """Return a target's SQLite file, and how it is opened; ``None`` without one."""
    from lotto_mlflow.mirror import is_read_as_copy

    path = target.database_path
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, os.access(path, os.W_OK), is_read_as_copy(path)
