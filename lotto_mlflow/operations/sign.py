"""Sign: sign a save that is there already, which was made without a key or with another one."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

from lotto_mlflow import layout as names
from lotto_mlflow import metadata, regular
from lotto_mlflow.errors import (
    DigestMismatchError,
    Fix,
    InvalidReferenceError,
    LoadError,
    MirrorError,
    ModelNotFoundError,
    SettingsError,
    SignatureError,
    StoreError,
)
from lotto_mlflow.files import locked, replace_content
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.kinds import recover
from lotto_mlflow.kinds.save_files import files_of
from lotto_mlflow.model_file import ModelFile
from lotto_mlflow.operations import find, versions
from lotto_mlflow.operations.restored import is_of_another_host
from lotto_mlflow.operations.signer import Signer
from lotto_mlflow.records import SaveRecord, SignReport
from lotto_mlflow.settings import Settings
from lotto_mlflow.signing import Pair, Statement, TrustedKeys, sign, verified
from lotto_mlflow.store.commit import metadata_of
from lotto_mlflow.store.signatures import put_pair, read_pair
from lotto_mlflow.text import masked


def sign_model(folder: ModelFolder, model: str | int | os.PathLike[str]) -> SignReport:
    """Sign a save that is there, and put the signature where its version is, too."""
    current = folder.settings()
    signer = Signer.from_settings(folder, current)
    if signer is None:
        raise SettingsError(
            "there is no key to sign with; set LOTTO_SIGNING_KEY to the file of the private key, "
            "which is made by: lotto-mlflow keys new FILE"
        )
    folder.check_format()
    outcome = "What was signed before that stays signed"
    with folder.disk_errors("the model could not be signed", outcome):
        save, file = _meant(folder, model)
        _check_bytes(file, save)
        folder.make_dirs()
        with locked(folder.push_lock()), folder.workspace() as work_dir:
            with locked(folder.lock()):
                folder.note_format(work_dir)
                recover(folder, work_dir)
                save = _again(folder, save)
                _put_metadata_right(file, save, work_dir)
                pair, is_new = _pair(folder, signer, current, save, work_dir)
                if is_new:
                    put_pair(folder.layout, save.id, pair, work_dir)
            report = _report(signer, save, file, pair, is_new=is_new)
            _put_in_mlflow(folder, save, pair, report, work_dir)
    return report


def _meant(
    folder: ModelFolder, model: str | int | os.PathLike[str]
) -> tuple[SaveRecord, ModelFile]:
    """Return the save that is named, and a file of it.

    Raises
    ------
    ModelNotFoundError
        If there is none, or no record says what the file is.
    InvalidReferenceError
        If another host made it.
    """
    history = folder.history()
    reference = versions.version_reference(folder, model)
    if reference is not None:
        version = versions.of_version(folder, folder.target(), reference, str(model))
        return _of_version(history, history.own_save_of_version(version), str(reference))
    given = str(model) if isinstance(model, int) else os.fspath(model)
    path = Path(given)
    if not (regular.is_file(path) and history.is_in_folder(path)):
        found = find.get(folder, given, with_aliases=False)
        if found.path is None:  # another machine saved it
            return _of_version(history, history.own_save_of_version(found), found.name)
        path = found.path
    file = history.file(path)
    save = history.save_of(file) if file.is_trained or file.is_backup else None
    restored = history.restore_of(file) if save is None else None
    if restored is not None and restored.payload.save_id is not None:
        return _of_version(history, history.save_with_id(restored.payload.save_id), str(path))
    if save is None:
        raise ModelNotFoundError(
            f"no record says which save {path} is of, so it was not signed",
            fix=Fix("sync", effect="records it, if no save made it"),
            path=path,
        )
    return _own(history, save, str(path)), file


def _of_version(
    history: History, save: SaveRecord | None, given: str
) -> tuple[SaveRecord, ModelFile]:
    save = _own(history, save, given)
    found = files_of(history, save.id, save.payload).own
    if not found:
        raise ModelNotFoundError(
            f"the bytes of {given} are in neither folder, and were not signed",
            fix=Fix(
                "restore", {"name_or_version": given, "source": "registry"}, before="bring it back;"
            ),
            name=save.name,
        )
    return save, found[0]


def _own(history: History, save: SaveRecord | None, given: str) -> SaveRecord:
    if save is None or is_of_another_host(history, save):
        raise InvalidReferenceError(
            f"{given} was saved on another host, and was not signed; sign it where it was saved",
            reference=given,
        )
    return save


def _check_bytes(file: ModelFile, save: SaveRecord) -> None:
    """See that a file has the bytes of its save.

    Raises
    ------
    DigestMismatchError
        If it has others. Nothing was signed.
    """
    if file.sha256 != save.payload.sha256:
        raise DigestMismatchError.of_file(
            file.path, {save.payload.sha256}, file.sha256, "nothing was signed", None
        )


def _again(folder: ModelFolder, save: SaveRecord) -> SaveRecord:
    """Return the record of a save as it is now, which other processes may have removed."""
    found = folder.history().save_with_id(save.id)
    if found is None:
        raise ModelNotFoundError(
            f"{save.name} was removed by another process meanwhile", name=save.name
        )
    return found


def _put_metadata_right(file: ModelFile, save: SaveRecord, work_dir: Path) -> None:
    """Write the metadata of a save as its record has them, where they say the same or are missing.

    Raises
    ------
    LoadError
        If they say something else. Nothing was signed.

    Notes
    -----
    MLflow has the same bytes, and what is signed is their digest; other programs write JSON in
    other ways.
    """
    path, content = file.metadata_path, metadata_of(save.payload)
    kept = _content_of(path)
    if kept == content:
        return
    if kept is not None and (
        content is None or metadata.strict(file.metadata) != metadata.from_json(content)
    ):
        raise LoadError(
            f"{path} is not the metadata that was saved with {save.name}, and nothing was signed; "
            "if it is right, save the model again with it, else move it away: a record has what "
            "was saved",
            path=path,
        )
    if content is not None:
        replace_content(path, content, work_dir)


def _content_of(path: Path) -> bytes | None:
    regular.check_file(path)
    try:
        return regular.content_of(path, metadata.MAX_BYTES)
    except FileNotFoundError:
        return None
    except StoreError:  # it is larger than any of ours
        return b""


def _pair(
    folder: ModelFolder, signer: Signer, current: Settings, save: SaveRecord, work_dir: Path
) -> tuple[Pair, bool]:
    """Return what is signed of a save and its signature, and whether that is new.

    Notes
    -----
    What another trusted key signed is signed anew as it is: then one file is replaced, in one step,
    and it does not count as signed later.

    Raises
    ------
    SignatureError
        If one of these keys signed something else of the save, which was changed since.
    """
    own, others = signer.key.as_trusted(), current.trusted_keys
    keys = [own] + ([] if others is None else [TrustedKeys.read(others, *folder.layout.own_dirs)])
    try:
        pair = read_pair(folder.layout, save.id)
    except SignatureError:
        pair = None
    statements = [] if pair is None else [_verified(save, pair, one) for one in keys]
    for by, statement in zip(keys, statements, strict=False):
        if pair is None or statement is None:
            continue
        if statement != signer.statement_of(save, work_dir, statement.signed_at):
            raise _changed_since(folder, save)
        return (pair, False) if by is own else ((pair[0], sign(pair[0], signer.key.path)), True)
    now = datetime.now(timezone.utc).astimezone(current.timezone)
    return signer.pair_of(save, work_dir, now.isoformat(timespec="seconds")), True


def _verified(save: SaveRecord, pair: Pair, keys: TrustedKeys) -> Statement | None:
    """Return what one of some keys signed, ``None`` where none did."""
    try:
        return verified(*pair, keys, save.name)
    except SignatureError:
        return None


def _changed_since(folder: ModelFolder, save: SaveRecord) -> SignatureError:
    path = folder.layout.statement_path(save.id)
    return SignatureError(
        f"a trusted key signed something else of {save.name}, saved at {save.payload.saved_at}: "
        "its file or its record was changed since, and nothing was signed. Restore what was "
        f"signed, or save the model again; if what is there is right, move {path} away, and then "
        "sign it",
        problem="bad",
        path=path,
    )


def _report(
    signer: Signer, save: SaveRecord, file: ModelFile, pair: Pair, *, is_new: bool
) -> SignReport:
    statement = verified(*pair, signer.key.as_trusted(), save.name)
    return SignReport(
        name=save.name,
        path=file.path,
        save_id=save.id,
        sha256=save.payload.sha256,
        signed_at=statement.signed_at,
        key=signer.key.hint,
        is_new=is_new,
    )


def _put_in_mlflow(
    folder: ModelFolder, save: SaveRecord, pair: Pair, report: SignReport, work_dir: Path
) -> None:
    """Put a pair beside the model in each store that has it; one that waits brings it along."""
    known = folder.known_targets()
    for name, ids in save.mirrored.items():
        try:
            if name not in known:
                raise MirrorError(
                    f"{masked(name)} is not the current store; select it, and sign again",
                    error_code=None,
                )
            folder.mirror(known[name]).signed.put(ids, pair, work_dir)
        except MirrorError as cause:
            model = names.registered_model_of(ids, save.name)
            report.fail(name, f"version {ids.version} of {model} has no signature yet: {cause}")
        else:
            report.stores.append(name)
