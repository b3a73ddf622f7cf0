"""Newest: what is the latest, and where signatures are asked for, signed and not rolled back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lotto_mlflow import layout as names
from lotto_mlflow import regular, settings, trusted
from lotto_mlflow.errors import Fix, LottoMlflowError, SettingsError, SignatureError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.records import ModelRecord
from lotto_mlflow.settings import Target
from lotto_mlflow.signing import Pair, Statement, parse_statement
from lotto_mlflow.signing.highest import SeenSave, SeenSaves, highest_of
from lotto_mlflow.text import masked, one_line
from lotto_mlflow.trusted import Signed, Trusted

_logger = logging.getLogger("lotto_mlflow")
PAUSES_SECONDS = (0.02, 0.2)
"""How long to wait before a look is repeated: a save may have been under way in the first."""
_WARNED: set[Path] = set()
"""Folders of state that could not be written to, which is said once in a process."""
OUTCOME = "; nothing was unpickled"
_T = TypeVar("_T")


def file(folder: ModelFolder) -> Path | None:
    """Return the newest file on disk, ``None`` where there is none.

    Raises
    ------
    SignatureError
        If signatures are asked for, and no trusted key signed it, or it was rolled back.

    Notes
    -----
    Whoever loads the file verifies it, and nothing is hashed here, but a signed file without
    metadata: beside those, bytes alone tell of which of its name's saves it is.
    """
    trust = trusted.of_folder(folder)
    if trust is None:
        return folder.store.latest()
    return _checked(
        Looked(folder, None, names.REGISTERED_MODEL),
        folder.store.latest,
        lambda path: _of_file(folder, trust, path),
    )


def version(
    folder: ModelFolder,
    target: Target,
    registered_model: str,
    find: Callable[[], ModelRecord | None],
) -> ModelRecord | None:
    """Return the version that a registry has as the latest, ``None`` where it has none.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    target : Target
        The store.
    registered_model : str
        The registered model.
    find : callable
        Returns it; called again where what it returned may have been replaced meanwhile.

    Raises
    ------
    SignatureError
        If signatures are asked for, and no trusted key signed it, or it was rolled back.
    """
    trust = trusted.of_folder(folder)
    if trust is None:
        return find()
    looked = Looked(folder, target, registered_model)
    return _checked(looked, find, lambda found: trust.of_version(target, found))


def look_on_disk(folder: ModelFolder) -> Looked | None:
    """Begin a look for the newest file on disk, ``None`` where signatures are not asked for."""
    if trusted.of_folder(folder) is None:
        return None
    looked = Looked(folder, None, names.REGISTERED_MODEL)
    looked.begin()
    return looked


def _of_file(folder: ModelFolder, trust: Trusted, path: Path) -> Signed:
    history = folder.history()
    found = history.file(path)
    signed = trust.of_file(history, found, None, found.status.st_size)
    if signed.statement.metadata_sha256 is not None:
        return signed
    try:
        sha256 = regular.sha256_of_file(path)
    except PermissionError:  # which whoever loads the file is told
        return signed
    return trust.of_file(history, found, sha256, found.status.st_size)


def _checked(
    looked: Looked, find: Callable[[], _T | None], signed: Callable[[_T], Signed]
) -> _T | None:
    for pause in (*PAUSES_SECONDS, None):
        looked.begin()
        found = find()
        if found is None:
            return None
        try:
            looked.check(signed(found).statement)
            return found
        except (SignatureError, FileNotFoundError):
            if pause is None:
                raise
            time.sleep(pause)
    raise AssertionError("unreachable")


class Looked:
    """A look for the latest, before which it was read what has been seen.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    target : Target or None
        The store in which the latest is looked for, ``None`` for the disk.
    registered_model : str
        Of which registered model.

    Notes
    -----
    A save is noted as seen once it is in place. What was seen before a look is there for it, and a
    save that is made meanwhile does not make the one that was found look old.
    """

    def __init__(self, folder: ModelFolder, target: Target | None, registered_model: str) -> None:
        self._folder = folder
        self._target = target
        self._registered_model = registered_model
        self._seen: list[SeenSave] = []

    def begin(self) -> None:
        """Read what has been seen.

        Raises
        ------
        StoreError
            If it cannot be read, or is damaged.
        """
        self._seen = seen_by(self._folder).read(self._registered_model)

    def check(self, statement: Statement) -> None:
        """See that what was found is not older than what was seen; it is noted as seen.

        Raises
        ------
        SignatureError
            If it is older, or of a time that has not come: that would be the newest for long.
        """
        if statement.registered_model != self._registered_model:  # in another form of Unicode
            self._registered_model = statement.registered_model
            self.begin()
        folder, target = self._folder, self._target
        check_has_come(folder, target, statement)
        highest = higher(self._seen, place_of(folder, target, statement.folder), statement)
        if highest is not None:
            raise SignatureError(
                f"{_where(folder, target)} was rolled back: the latest of "
                f"{statement.registered_model} is {statement.name}, save {statement.save_id}, and "
                f"this host has seen the save {highest.save_id}, which is newer; nothing was "
                "unpickled",
                fix=fix_of_step_back(statement.registered_model),
                problem="rolled back",
                highest=highest.save_id,
            )
        note(folder, target, statement)


def higher(seen: list[SeenSave], place: str, statement: Statement) -> SeenSave | None:
    """Return what was seen that is newer than what is the latest now."""
    highest = highest_of(seen, place, statement.folder)
    is_higher = highest is not None and highest.saved_at_ns > statement.saved_at_ns
    return highest if is_higher else None


def note(folder: ModelFolder, target: Target | None, statement: Statement) -> None:
    """Keep a signed save as seen; where this host may not, a warning says so.

    Notes
    -----
    One of a time that has not come is not kept: all that is saved until then would look older.
    """
    if is_to_come(statement):
        return
    try:
        seen_by(folder).note(statement, place_of(folder, target, statement.folder))
    except SettingsError:
        raise
    except LottoMlflowError as cause:
        if settings.state_dir() not in _WARNED:
            _WARNED.add(settings.state_dir())
            _logger.warning("what is the latest cannot be kept, to notice a rollback: %s", cause)


def is_to_come(statement: Statement) -> bool:
    """Return whether a statement is of a time that has not come by this host's clock."""
    return statement.saved_at_ns > time.time_ns() + settings.CLOCK_TOLERANCE_SECONDS * 10**9


def check_has_come(folder: ModelFolder, target: Target | None, statement: Statement) -> None:
    """See that what is the latest is of a time that has come.

    Raises
    ------
    SignatureError
        If it is not: it would be the newest for long.
    """
    if is_to_come(statement):
        raise SignatureError(
            f"the latest of {statement.registered_model} in {_where(folder, target)} is "
            f"{statement.name}, signed as of {statement.saved_at}, which has not come by this "
            f"host's clock{OUTCOME}. If this clock is right, delete that save, move "
            f"{folder.layout.clock_path} away on the host that made it, and save the model again",
            problem="bad",
        )


def note_save(folder: ModelFolder, pair: Pair) -> None:
    """Keep a save as seen that this process has signed just now."""
    note(folder, None, parse_statement(pair[0]))


def seen_by(folder: ModelFolder) -> SeenSaves:
    """Return what this host has seen.

    Raises
    ------
    SettingsError
        If its folder lies among the models, where others may write.
    """
    state_dir = settings.state_dir()
    if regular.is_below(state_dir, *folder.layout.own_dirs):
        raise SettingsError(
            f"LOTTO_STATE_DIR is {state_dir}, which lies among the models: whoever writes there "
            "could change what this host has seen; choose a folder outside",
            value=str(state_dir),
        )
    return SeenSaves(state_dir)


def place_of(folder: ModelFolder, target: Target | None, made_in: str) -> str:
    """Return the name of a place where the latest is looked up: the disk, or a store.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    target : Target or None
        The store, ``None`` for the disk.
    made_in : str
        Id of the folder that the latest was saved in. In a store that several hosts save to, its
        own order decides which of them is the newest, and not their clocks: each is compared with
        itself alone.
    """
    base_dir = str(regular.real_path(folder.layout.trained_dir.parent))
    if target is None:
        return base_dir
    if target.is_embedded and target.registry_uri == target.tracking_uri:
        return f"{base_dir} in MLflow"
    registry = "" if target.registry_uri == target.tracking_uri else target.registry_uri
    return f"{target.name} {one_line(masked(registry))}".strip() + f" of {made_in}"


def _where(folder: ModelFolder, target: Target | None) -> str:
    if target is None:
        return str(folder.layout.trained_dir)
    return "the store in the folder" if target.is_embedded else target.name


def fix_of_step_back(registered_model: str) -> Fix:
    """Return the fix for a latest that is older than what was seen."""
    return Fix(
        "trust",
        {"accept": registered_model},
        before="bring the newer one back, by a restore or a sync; if the step back is on purpose,",
        effect="accepts it",
    )
