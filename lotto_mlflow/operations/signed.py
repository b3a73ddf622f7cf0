"""Signed: what a trusted key has to have signed of a file that is loaded, and what helps if not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lotto_mlflow import trusted
from lotto_mlflow.errors import DigestMismatchError, Fix, SignatureError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.model_file import ModelFile
from lotto_mlflow.records import FindingKind, ModelRecord
from lotto_mlflow.settings import Target
from lotto_mlflow.signing import Statement
from lotto_mlflow.trusted import Trusted

IF_YOURS = "if you know that it is yours, have it signed where LOTTO_SIGNING_KEY is set:"
_KIND_OF: dict[object, FindingKind] = {
    "missing": "unsigned",
    "unknown key": "unknown key",
    "rolled back": "rolled back",
    "model folder": "damaged",
}


@contextmanager
def mismatches_refused(folder: ModelFolder) -> Iterator[None]:
    """Raise, where signatures are asked for, the error for them where bytes are not those saved."""
    try:
        yield
    except DigestMismatchError as cause:
        if trusted.of_folder(folder) is None:
            raise
        data = cause.data | {"problem": "bad"}
        raise SignatureError(cause.summary, fix=cause.fix, **data) from cause


def statement_of(
    trust: Trusted | None,
    history: History,
    target: Target,
    file: ModelFile,
    sha256: str,
    version: ModelRecord | None,
) -> Statement | None:
    """Return what a trusted key signed of the bytes of a file, ``None`` where nobody asks for it.

    Parameters
    ----------
    trust : Trusted or None
        What is trusted.
    history : History
        The records.
    target : Target
        The store that has the version.
    file : ModelFile
        The file.
    sha256 : str
        Digest of the bytes that are to be unpickled.
    version : ModelRecord or None
        The version that they are to be of.

    Raises
    ------
    SignatureError
        If none signed it.
    """
    if trust is None:
        return None
    size = file.status.st_size
    if version is None:
        return trust.of_file(history, file, sha256, size).statement
    if file.is_trained or file.is_backup:  # what lies beside it is of one save with it, too
        trust.of_file(history, file, sha256, size)
    return trust.of_version(target, version, sha256, size).statement


def kind_of(cause: SignatureError) -> FindingKind:
    """Return the kind of a finding that an error of a signature is."""
    return _KIND_OF.get(cause.data.get("problem"), "bad signature")


def detail_of(cause: SignatureError) -> str:
    """Return what a finding says of an error of a signature."""
    return cause.summary.removesuffix("; nothing was unpickled")


def fix_of(
    history: History, file: ModelFile, sha256: str, cause: SignatureError, restoring: Fix | None
) -> Fix | None:
    """Return what brings a signed file in the place of one, or has that one signed.

    Parameters
    ----------
    history : History
        The records.
    file : ModelFile
        The file.
    sha256 : str
        Digest of its bytes.
    cause : SignatureError
        What is wrong.
    restoring : Fix or None
        The restore that brings an intact file in its place, if one does.
    """
    if not (file.is_trained or file.is_backup):
        return None
    name, problem = history.name_of(file), cause.data.get("problem")
    save = history.save_of(file)
    if save is None:
        effect = f"which records it, and sign it then: ModelManager.sign({name!r})"
        before = "if you know that it is yours, set LOTTO_TRUST=any for one"
        is_new = file.is_trained and problem != "bad"
        return Fix("sync", before=before, effect=effect) if is_new else restoring
    model = {"model": name if file.is_trained else str(file.path)}
    if problem == "unknown key":
        before = f"add its key to LOTTO_TRUSTED_KEYS, if it is one of yours, or, {IF_YOURS}"
        return Fix("sign", model, before=before)
    may_be_signed = save.payload.sha256 == sha256 and not cause.data.get("is_otherwise")
    return Fix("sign", model, before=IF_YOURS) if may_be_signed else restoring
