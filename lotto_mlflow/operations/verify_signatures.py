"""Verify, for signatures: what no trusted key signed, and what was rolled back; nothing changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from lotto_mlflow import layout as names
from lotto_mlflow import metadata, regular, trusted
from lotto_mlflow.errors import Fix, MirrorError, ModelNotFoundError, SignatureError, StoreError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.model_dir import SIGNATURE_FILE
from lotto_mlflow.model_file import ModelFile
from lotto_mlflow.operations import newest, signed, versions
from lotto_mlflow.operations.load import fix_of_name
from lotto_mlflow.records import Finding, MlflowIds, ModelRecord, SaveRecord
from lotto_mlflow.references import VersionReference
from lotto_mlflow.settings import Target
from lotto_mlflow.signing import Statement
from lotto_mlflow.signing.pairs import read_beside_model
from lotto_mlflow.trusted import Signed, Trusted
from lotto_mlflow.trusted.wanted import content_of

_MISSING = "RESOURCE_DOES_NOT_EXIST"
"""What MLflow answers for a version that is not there."""


def on_disk(folder: ModelFolder, history: History) -> Iterator[Finding]:
    """Find the files in the folder that no trusted key signed, and a latest that was rolled back.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    history : History
        Its records; the digests of its files are computed, where they are not yet.
    """
    trust = trusted.of_folder(folder)
    if trust is not None:
        for file in (*history.trained_files, *history.backup_files):
            yield from of_file(trust, history, file)
        yield from _newest_on_disk(folder, trust, history)


def of_file(trust: Trusted, history: History, file: ModelFile) -> Iterator[Finding]:
    """Find whether a trusted key signed a file; one that cannot be read is another finding."""
    try:
        sha256 = file.sha256
    except OSError:
        return
    try:
        trust.of_file(history, file, sha256, file.status.st_size)
    except SignatureError as cause:
        restoring = fix_of_name(history, history.name_of(file)) if file.is_trained else None
        fix = signed.fix_of(history, file, sha256, cause, restoring)
        repair = "" if fix else "bring back a copy from elsewhere, or train and save it again"
        detail = signed.detail_of(cause)
        yield Finding(signed.kind_of(cause), file.stem, file.path, detail, repair, fix)


def _newest_on_disk(folder: ModelFolder, trust: Trusted, history: History) -> Iterator[Finding]:
    path = folder.store.latest()
    if path is None:
        return
    file = history.file(path)
    try:
        statement = trust.of_file(history, file, file.sha256, file.status.st_size).statement
    except (SignatureError, OSError):  # which is a finding already
        return
    yield from rolled_back(folder, None, statement)


def rolled_back(
    folder: ModelFolder, target: Target | None, statement: Statement
) -> Iterator[Finding]:
    """Find whether the latest is older than one that was seen, or of a time that has not come.

    Notes
    -----
    It is not noted as seen.
    """
    registered = statement.registered_model
    path = folder.layout.model_path(statement.name) if target is None else None
    try:
        newest.check_has_come(folder, target, statement)
    except SignatureError as cause:
        detail, _, repair = cause.summary.partition(f"{newest.OUTCOME}. ")
        yield Finding("bad signature", statement.name, path, detail, repair)
        return
    try:
        place = newest.place_of(folder, target, statement.folder)
        seen = newest.seen_by(folder).read(registered)
        highest = newest.higher(seen, place, statement)
    except StoreError as cause:
        state_path = cause.data.get("path")
        yield Finding("damaged", registered, state_path, cause.summary, "", cause.fix)
        return
    if highest is not None:
        detail = (
            f"the latest of {registered} is the save {statement.save_id}, and this host has seen "
            f"the newer save {highest.save_id}"
        )
        fix = newest.fix_of_step_back(registered)
        yield Finding("rolled back", statement.name, path, detail, fix=fix)


def in_mlflow(
    folder: ModelFolder, target: Target, saves: Iterable[SaveRecord], *, deep: bool
) -> Iterator[Finding]:
    """Find the latest versions that were rolled back, and what is not as signed beside models.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    target : Target
        The current store.
    saves : iterable of SaveRecord
        The saves that the store has.
    deep : bool
        Whether what lies in another store than the embedded one is fetched and looked at, too.
    """
    trust = trusted.of_folder(folder)
    if trust is None:
        return
    registered, refused = {names.REGISTERED_MODEL: None}, set[str]()
    for save in saves:
        registered[names.registered_model(save.name)] = None
        if target.is_embedded or deep:
            found = list(_beside(folder, trust, target, save))
            refused |= {save.id} if found else set()
            yield from found
    for name in registered:
        yield from _latest(folder, trust, target, name, refused, deep=deep)


def _latest(
    folder: ModelFolder, trust: Trusted, target: Target, name: str, refused: set[str], *, deep: bool
) -> Iterator[Finding]:
    """Find whether the latest of a registered model was signed, and is not rolled back."""
    save: SaveRecord | None = None
    try:
        version = versions.unchecked(folder, target, VersionReference(name))
        if version is None:
            return
        save = folder.history().own_save_of_version(version)
        if save is not None and save.id in refused:
            return
        anew = deep and save is None  # what lies beside a save of this folder was looked at
        statement = trust.of_version(target, version, anew=anew).statement
    except ModelNotFoundError:
        return
    except SignatureError as cause:
        kind, detail = signed.kind_of(cause), signed.detail_of(cause)
        if save is not None:
            yield Finding(kind, name, None, detail, "see what is found of its file")
        else:
            fix = Fix("sync", {"resend": True}, before="on the host that saved it, call")
            yield Finding(kind, name, None, detail, fix=fix)
        return
    yield from rolled_back(folder, target, statement)


def _beside(
    folder: ModelFolder, trust: Trusted, target: Target, save: SaveRecord
) -> Iterator[Finding]:
    """Find whether a save is proved by what lies beside its version, too, for other hosts."""
    wanted = replace(trusted.wanted_of_record(save), requirements=None)
    try:
        own = trust.of_record(save, wanted)
    except SignatureError:
        return  # which is a finding about its file
    if target.is_embedded:
        yield from _beside_here(folder, trust, save, save.mirrored[target.name], own)
        return
    ids = save.mirrored[target.name]
    version = ModelRecord(
        name=save.name,
        registered_model=names.registered_model_of(ids, save.name),
        version=ids.version,
        run_id=ids.run_id,
        sha256=save.payload.sha256,
        save_id=save.id,
    )
    what = f"version {ids.version} of {version.registered_model}"
    try:
        trust.of_beside(target, version, replace(wanted, what=what))
    except SignatureError as cause:
        yield _finding(save, None, cause)
    except StoreError as cause:
        yield Finding("damaged", save.name, cause.data.get("path"), cause.summary, fix=cause.fix)
    except MirrorError as cause:
        if cause.data.get("error_code") != _MISSING:  # which is another finding
            detail = f"whether {what} is signed there is not known: {cause.summary}"
            repair = "" if cause.fix is not None else "try again later"
            yield Finding("mlflow unavailable", save.name, None, detail, repair, cause.fix)


def _beside_here(
    folder: ModelFolder, trust: Trusted, save: SaveRecord, ids: MlflowIds, own: Signed
) -> Iterator[Finding]:
    """Find the same in the embedded store, where MLflow need not be asked."""
    layout = folder.layout
    model_dir, run_dir = layout.model_dir(ids.model_id), layout.run_dir(ids.run_id)
    if not regular.is_folder(model_dir):
        return  # which is another finding
    wanted = replace(trusted.wanted_of_record(save), requirements=None)
    try:
        pair = read_beside_model(model_dir)
        if pair != own.pair:
            trust.signed([] if pair is None else [pair], wanted)
    except SignatureError as cause:
        yield _finding(save, model_dir / SIGNATURE_FILE, cause)
    if not regular.is_folder(run_dir):
        return
    path = run_dir / f"{save.name}{names.METADATA_SUFFIX}"
    try:
        content = content_of(path, metadata.MAX_BYTES)
        trust.signed([own.pair], replace(wanted, what=str(path), metadata=content))
    except SignatureError as cause:
        yield _finding(save, path, cause)


def _finding(save: SaveRecord, path: Path | None, cause: SignatureError) -> Finding:
    fix = Fix("sync", {"resend": True}, effect="puts what was saved there again")
    return Finding(signed.kind_of(cause), save.name, path, signed.detail_of(cause), fix=fix)
