"""Gate: a version in MLflow, verified whole before MLflow runs any of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lotto_mlflow import private_dirs, references
from lotto_mlflow.errors import InvalidReferenceError, SettingsError, SignatureError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.operations import signed, versions
from lotto_mlflow.records import Finding
from lotto_mlflow.references import VersionReference
from lotto_mlflow.signing import Statement, model_folders
from lotto_mlflow.trusted import Trusted

_MODEL_DIR = "model"


@dataclass(frozen=True, kw_only=True)
class VerifiedVersion:
    """A version that a trusted key signed, and of which MLflow runs nothing else.

    Attributes
    ----------
    reference : VersionReference
        Its registered model and its number.
    statement : Statement
        What was signed of it.
    model_dir : pathlib.Path or None
        Its model folder, in a private folder, while the block lasts that verified it.
    predicts : bool
        Whether MLflow can serve it.
    """

    reference: VersionReference
    statement: Statement
    model_dir: Path | None
    predicts: bool


@contextmanager
def verified_copy(
    folder: ModelFolder, uri: str, *, drops_compiled: bool = True
) -> Iterator[VerifiedVersion]:
    """Copy the model folder of a version to where nobody else can write, and verify the copy.

    Parameters
    ----------
    folder : ModelFolder
        The folder of models.
    uri : str
        ``models:/NAME/1``, ``models:/NAME/latest`` or ``models:/NAME@ALIAS``.
    drops_compiled : bool
        Whether what Python compiled of the loader may lie there, and is not copied.

    Yields
    ------
    VerifiedVersion
        The version and the copy, which is removed at the end.

    Raises
    ------
    SettingsError
        If no key is trusted.
    SignatureError
        If no trusted key signed it, or its model folder holds anything else than what was signed
        and a released loader. Nothing of it was run.
    """
    reference = _reference(uri)
    trust, target = _trusted(folder), folder.target()
    record = versions.of_version(folder, target, reference, uri)
    with private_dirs.made() as private_dir:
        source = folder.mirror(target).signed.model_copy(record)
        names = model_folders.wanted_names(source.names(), drops_compiled=drops_compiled)
        model_dir = private_dir / _MODEL_DIR
        source.copy_to(model_dir, names)
        statement = trust.of_version(target, record, anew=True).statement
        model = model_folders.check(model_dir, statement)
        yield VerifiedVersion(
            reference=VersionReference(record.registered_model, version=record.version),
            statement=statement,
            model_dir=model_dir,
            predicts=model.loader_module is not None,
        )


def verify(folder: ModelFolder, uri: str) -> VerifiedVersion:
    """Verify a version as `verified_copy` does; what MLflow itself is to open next.

    Notes
    -----
    What Python compiled of a loader is refused: MLflow would run it. Whoever opens the version
    later downloads it once more, and what was changed in between is not seen.
    """
    with verified_copy(folder, uri, drops_compiled=False) as verified:
        return replace(verified, model_dir=None)


def finding_of(error: SignatureError, uri: str) -> Finding:
    """Return what is wrong with a version as a finding."""
    repair = "use another version, or have it saved again where it was saved"
    return Finding(signed.kind_of(error), uri, None, error.summary, repair, error.fix)


def _reference(uri: str) -> VersionReference:
    if not uri.startswith(references.SCHEME):
        raise InvalidReferenceError(
            f"{uri!r:.200} names no version; write models:/NAME/1, models:/NAME/latest or "
            "models:/NAME@ALIAS",
            uri=uri,
        )
    return references.parse(uri)


def _trusted(folder: ModelFolder) -> Trusted:
    """Return the keys that are trusted, whatever ``LOTTO_TRUST`` asks for."""
    path = folder.settings().trusted_keys
    if path is None:
        raise SettingsError(
            "no key is trusted, so no version can be verified; set LOTTO_TRUSTED_KEYS to the file "
            "or the folder of the public keys of those who save",
            value=None,
        )
    return Trusted(folder, path)
