"""Verify, for signatures: what no trusted key signed, and what was rolled back; nothing changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from lotto_mlflow import layout as names
from lotto_mlflow import regular, trusted
from lotto_mlflow.errors import Fix, ModelNotFoundError, SignatureError, StoreError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.model_dir import SIGNATURE_FILE
from lotto_mlflow.model_file import ModelFile
from lotto_mlflow.operations import newest, signed, versions
from lotto_mlflow.operations.load import fix_of_name
from lotto_mlflow.records import Finding, SaveRecord
from lotto_mlflow.references import VersionReference
from lotto_mlflow.settings import Target
from lotto_mlflow.signing import Statement
from lotto_mlflow.signing.pairs import read_beside_model
from lotto_mlflow.trusted import Trusted


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
    folder: ModelFolder, target: Target, saves: Iterable[SaveRecord]
) -> Iterator[Finding]:
    """Find the latest versions that were rolled back, and signatures that are gone beside models.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    target : Target
        The current store.
    saves : iterable of SaveRecord
        The saves that the store has.
    """
    trust = trusted.of_folder(folder)
    if trust is None:
        return
    registered = {names.REGISTERED_MODEL: None}
    for save in saves:
        registered[names.registered_model(save.name)] = None
        if target.is_embedded:
            yield from _beside(folder, trust, target, save)
    for name in registered:
        try:
            version = versions.unchecked(folder, target, VersionReference(name))
            statement = None if version is None else trust.of_version(target, version).statement
        except ModelNotFoundError:
            continue
        except SignatureError as cause:
            yield Finding(
                signed.kind_of(cause),
                name,
                None,
                signed.detail_of(cause),
                "see what is found of its file",
            )
            continue
        if statement is not None:
            yield from rolled_back(folder, target, statement)


def _beside(
    folder: ModelFolder, trust: Trusted, target: Target, save: SaveRecord
) -> Iterator[Finding]:
    """Find whether the signature of a save is beside its model, too, for other hosts."""
    ids = save.mirrored[target.name]
    model_dir = folder.layout.model_dir(ids.model_id)
    if not regular.is_folder(model_dir):
        return  # which is another finding
    wanted = replace(trusted.wanted_of_record(save), requirements=None)
    try:
        own = trust.of_record(save, wanted).pair
    except SignatureError:
        return  # which is a finding about its file
    try:
        pair = read_beside_model(model_dir)
        if pair != own:
            trust.signed([] if pair is None else [pair], wanted)
    except SignatureError as cause:
        fix = Fix("sync", {"resend": True}, effect="puts it there again")
        kind, detail = signed.kind_of(cause), signed.detail_of(cause)
        yield Finding(kind, save.name, model_dir / SIGNATURE_FILE, detail, fix=fix)
