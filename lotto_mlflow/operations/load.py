"""Load: find what the bytes should be, verify them, unpickle them, log what was loaded."""

from __future__ import annotations

import errno
import logging
import os
import time
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lotto_mlflow import advice, downloads, references, regular, store, trusted
from lotto_mlflow import layout as names
from lotto_mlflow.distributions import version_of
from lotto_mlflow.errors import (
    DigestMismatchError,
    Fix,
    LoadError,
    MirrorUnavailableError,
    ModelNotFoundError,
    PickleNotAllowedError,
    SignatureError,
    StoreError,
    UntrustedModelError,
)
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.model_file import ModelFile
from lotto_mlflow.operations import last_seen, newest, signed, versions
from lotto_mlflow.operations.newest import Looked
from lotto_mlflow.pyfunc_loader import pickle_is_allowed
from lotto_mlflow.records import PRUNE, RESTORE, ModelRecord, Progress, arrived_of
from lotto_mlflow.requirements import is_other_minor, version_in
from lotto_mlflow.settings import Target
from lotto_mlflow.signing import Statement
from lotto_mlflow.trusted import Trusted

_logger = logging.getLogger("lotto_mlflow")
_UNVERIFIED = " (unverified: no digest is known for this file)"
_SELF_DECLARED = " (self-declared: only what lies beside the file says its digest)"
_EFFECT = "brings the model back"
NO_COPY = (
    "neither backups/ nor MLflow has it intact; move it away, and put a copy from elsewhere in its "
    "place"
)
"""Advice on a damaged file that nothing here brings back."""


class LoadedFile(NamedTuple):
    """What came out of a model file.

    Attributes
    ----------
    model : object
        The model.
    sha256 : str
        Digest of the bytes that it was unpickled from.
    file : ModelFile
        The file, with the status that it had when it was opened.
    history : History
        The records by which it was verified.
    statement : Statement or None
        What a trusted key signed of it, where that is asked for.
    """

    model: Any
    sha256: str
    file: ModelFile
    history: History
    statement: Statement | None = None


def load(
    folder: ModelFolder,
    model_path: str | os.PathLike[str],
    *,
    stale_ok: bool = False,
    progress: Progress | None = None,
) -> Any:
    """Load a model from a file, or from the registry."""
    given, target = os.fspath(model_path), folder.target()
    if not given.startswith(references.SCHEME):
        return load_file(folder, target, given).model
    reference = references.parse(given)
    with signed.mismatches_refused(folder):
        try:
            record = versions.of_version(folder, target, reference)
            path = versions.path_to_load(folder, target, record, arrived_of(progress))
        except MirrorUnavailableError as cause:
            if not stale_ok or reference.version is not None:
                raise
            record, path = last_seen.recalled(folder, target, reference, cause)
        return load_version(folder, target, path, record).model


def load_version(
    folder: ModelFolder, target: Target, path: Path, version: ModelRecord
) -> LoadedFile:
    """Load a version from a file of which it was not looked whether it has its bytes.

    Notes
    -----
    Its bytes are read once, to be verified and loaded. One that has others, or that was removed
    meanwhile, gives way to what else has the bytes.
    """
    try:
        return load_file(folder, target, path, version)
    except (DigestMismatchError, ModelNotFoundError):
        other = versions.file_of_version(folder, target, version)
        return load_file(folder, target, other, version)


def load_file(
    folder: ModelFolder,
    target: Target,
    given: str | os.PathLike[str],
    version: ModelRecord | None = None,
    *,
    looked: Looked | None = None,
) -> LoadedFile:
    """Load a model file, verified where its digest is known.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    target : Target
        Tracking store whose version is logged.
    given : str or path-like
        The file.
    version : ModelRecord, optional
        The version whose bytes the file must have.
    looked : Looked, optional
        The look that found it to be the newest file on disk: it must not be older than one that was
        seen before.

    Notes
    -----
    The bytes that are hashed are the ones that are unpickled: those of a private copy, which
    nobody changes who may write to the file. The digest of that copy is compared with what was
    signed, where signatures are asked for. Where something does not fit because a save is under
    way, file and records are read again.
    """
    if not os.fspath(given).isascii():
        given = regular.as_named(Path(given))
    _check_is_there(given)
    path, is_strict = _meant(folder.history(), Path(given)), folder.settings().trust == "known"
    trust = trusted.of_folder(folder)
    for pause in (*newest.PAUSES_SECONDS, None):
        history = folder.history()
        file, copy, found = _copied(history, path, version)
        with copy:
            expected, doubt = _expected(history, file, version, trust, is_strict=is_strict)
            if is_strict and doubt:
                raise _untrusted(file)
            if not expected and trust is None and file.status.st_size == 0:
                raise _empty(history, target, file)
            if not expected or found in expected:
                try:
                    statement = signed.statement_of(trust, history, target, file, found, version)
                except SignatureError as cause:
                    if pause is None:
                        raise _unsigned(history, file, version, found, cause) from cause
                    time.sleep(pause)
                    continue
                if looked is not None and statement is not None:
                    looked.check(statement)
                model = store.load(copy, path)
                _log(history, target, file, found, version, doubt)
                return LoadedFile(model, found, file, history, statement)
            if pause is None:
                raise _damaged(history, target, file, expected, found)
    raise AssertionError("unreachable")


def _unsigned(
    history: History,
    file: ModelFile,
    version: ModelRecord | None,
    found: str,
    cause: SignatureError,
) -> SignatureError:
    is_own = version is None and file.is_trained
    restoring = fix_of_name(history, file.stem) if is_own else None
    fix = signed.fix_of(history, file, found, cause, restoring)
    return trusted.with_fix(cause, file.path, fix)


def _copied(
    history: History, path: Path, version: ModelRecord | None
) -> tuple[ModelFile, BinaryIO, str]:
    """Return a file, a private copy of it, and the digest of the copy."""
    with _opened(path) as opened:
        file = history.file(path, os.fstat(opened.fileno()))
        if file.is_download:
            downloads.lock_for_reading(opened)
        _check_pickles_are_allowed(file, version)
        copy, found = store.private_copy(opened, path)
        return file, copy, found


def _check_is_there(given: str | os.PathLike[str]) -> None:
    """See that there is something of this name, which may be any text."""
    try:
        os.lstat(given)
    except (FileNotFoundError, NotADirectoryError, ValueError) as cause:
        raise ModelNotFoundError(f"Model file not found: {given}", path=given) from cause
    except OSError as cause:
        if cause.errno == errno.ENAMETOOLONG:
            raise ModelNotFoundError(f"Model file not found: {given}", path=given) from cause
        raise _unopened(Path(given), cause) from cause


def _unopened(path: Path, cause: OSError) -> LoadError:
    helps = advice.of_error(cause, path, reads=True)
    return LoadError(f"{path} could not be opened: {cause}; {helps}", path=path)


def _meant(history: History, path: Path) -> Path:
    """Return the file that a path means: a link is followed where it is the caller's own."""
    return path if history.is_in_folder(path) else regular.real_path(path)


def _expected(
    history: History,
    file: ModelFile,
    version: ModelRecord | None,
    trust: Trusted | None,
    *,
    is_strict: bool,
) -> tuple[frozenset[str], str]:
    """Return the digests that a file may have, and what is to be said of who says so.

    Notes
    -----
    Where signatures are asked for, what is signed of a path counts, and no record.
    """
    if version is not None:
        return frozenset({str(version.sha256)}), ""
    if trust is not None:
        return frozenset(), ""
    known = history.known(file, strictly=is_strict)
    if known:
        return known, ""
    declared = history.expected(file)
    return declared, _SELF_DECLARED if declared else _UNVERIFIED


def _damaged(
    history: History, target: Target, file: ModelFile, expected: frozenset[str], found: str
) -> DigestMismatchError:
    fix = _fix(history, target, file)
    outcome = f"nothing was unpickled{_without(fix, file)}"
    return DigestMismatchError.of_file(file.path, expected, found, outcome, fix)


def _empty(history: History, target: Target, file: ModelFile) -> LoadError:
    fix = _fix(history, target, file)
    return LoadError(f"{file.path} is empty{_without(fix, file)}", fix=fix, path=file.path)


def _without(fix: Fix | None, file: ModelFile) -> str:
    """Return what to do about a file of the folder that nothing brings back."""
    return f"; {NO_COPY}" if fix is None and (file.is_trained or file.is_backup) else ""


def _untrusted(file: ModelFile) -> UntrustedModelError:
    before = "if you trust the file, set LOTTO_TRUST=any for one"
    return UntrustedModelError(
        f"no record knows the digest of {file.path}, and LOTTO_TRUST=known opens no other file; "
        "nothing was unpickled",
        fix=Fix("sync", before=before, effect="which records it") if file.is_trained else None,
        path=file.path,
    )


def _opened(path: Path) -> BinaryIO:
    if regular.is_folder(path):
        raise LoadError(f"{path} is a folder, not a model file; give the .pkl in it", path=path)
    try:
        return regular.opened(path)
    except StoreError as cause:
        raise LoadError(cause.summary, path=path) from cause
    except FileNotFoundError as cause:
        raise ModelNotFoundError(f"Model file not found: {path}", path=path) from cause
    except OSError as cause:
        raise _unopened(path, cause) from cause


def _check_pickles_are_allowed(file: ModelFile, version: ModelRecord | None) -> None:
    is_mirrored = version is not None or file.is_download or file.model_dir is not None
    if is_mirrored and not pickle_is_allowed():
        raise PickleNotAllowedError(
            f"{file.path} is a mirrored pickle, and MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false "
            "forbids opening one; set it to true if you trust where the model comes from",
            path=file.path,
        )


def _fix(history: History, target: Target, file: ModelFile) -> Fix | None:
    """Return the call that brings an intact file in the place of a damaged one, if one does."""
    if file.model_dir is not None:
        return Fix("sync", {"resend": True}, before="delete the version in MLflow, then")
    if file.is_download:
        arguments = {"source": "registry", "download": True}
        return Fix("latest", arguments, before="delete the file, then")
    return fix_of_file(history, target, file) if file.is_trained or file.is_backup else None


def fix_of_file(history: History, target: Target, file: ModelFile) -> Fix | None:
    """Return the restore that brings the model of a damaged file back, if one may."""
    name = history.name_of(file)
    found = None if file.is_backup else fix_of_name(history, name)
    return found or fix_from_registry(history, target, name, _EFFECT)


def fix_from_registry(history: History, target: Target, name: str, effect: str) -> Fix | None:
    """Return the restore from MLflow; ``None`` where the records say that it has not the model.

    Parameters
    ----------
    history : History
        The records.
    target : Target
        The current tracking store.
    name : str
        The model.
    effect : str
        What the restore does.

    Notes
    -----
    What was pruned or deleted does not come back. A model without a record may be another host's,
    where hosts share the store; the store inside the folder has only what records say.
    """
    records = list(history.records_of(name))
    saves = [record for record in records if record.is_save]
    gone = {record.payload.save_id for record in records if record.kind == PRUNE}
    came = (r for r in records if r.kind == RESTORE and r.mirrored)
    has_it = any(save.mirrored for save in saves) or any(
        restore.payload.save_id not in gone for restore in came
    )
    may_have_it = not (saves or gone or target.is_embedded)
    return references.restore_from_registry(name, effect) if has_it or may_have_it else None


def fix_of_name(history: History, name: str) -> Fix | None:
    """Return the restore that brings a model back: from MLflow where that has it."""
    if any(save.mirrored for save in history.saves_of(name)):
        return references.restore_from_registry(name, _EFFECT)
    try:
        has_backup = any(not history.is_changed(file) for file in history.backups_of(name))
    except OSError:  # backups/ is no folder, or a file in it cannot be read
        has_backup = False
    return Fix("restore", {"name_or_version": name}, effect=_EFFECT) if has_backup else None


def _log(
    history: History,
    target: Target,
    file: ModelFile,
    sha256: str,
    version: ModelRecord | None,
    doubt: str,
) -> None:
    """Log what was loaded, and one warning where it was saved with another scikit-learn."""
    name = names.name_of(file.path) if version is None else version.name
    knows_all = version is not None and version.sklearn_version is not None
    save = None if knows_all else history.save_with(name, sha256)
    ids = save.mirrored.get(target.name) if save else None
    _logger.log(
        logging.WARNING if doubt == _UNVERIFIED else logging.INFO,
        "loaded name=%s version=%s run_id=%s path=%s sha256=%s%s",
        name,
        version.version if version else ids and ids.version,
        version.run_id if version else ids and ids.run_id,
        file.path,
        sha256,
        doubt,
    )
    recorded = version.sklearn_version if version else None
    if recorded is None and save is not None:
        recorded = version_in(save.payload.description.requirements, "scikit-learn")
    if recorded is not None:
        _warn_of_other_sklearn(file.path, recorded)


def _warn_of_other_sklearn(path: Path, recorded: str) -> None:
    installed = version_of("scikit-learn")
    if installed is None:  # a frozen program or a slim image, and a model that does without
        return
    if is_other_minor(recorded, installed):
        _logger.warning(
            "%s was saved with scikit-learn %s, and %s is installed; its predictions may differ",
            path,
            recorded,
            installed,
        )
