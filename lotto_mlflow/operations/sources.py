"""What a restore puts in place: bytes and metadata, and whether a trusted key signed them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lotto_mlflow import trusted
from lotto_mlflow.errors import SignatureError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.records import MlflowIds, ModelRecord
from lotto_mlflow.settings import Target
from lotto_mlflow.signing import Pair


@dataclass(frozen=True)
class Source:
    """Bytes and metadata that are to be put in place.

    Attributes
    ----------
    name : str
        The model.
    path : pathlib.Path
        A file with the bytes.
    expected : frozenset of str
        The digests that they may have; empty where none is known.
    time_ns : int
        Modification time that the file is to have.
    metadata : bytes or None
        Content of the metadata file.
    save_id : str or None
        Record of the save, where there is one.
    mirrored : dict of str to MlflowIds
        What it is called in the stores that have it, if it came from one.
    metadata_mode : int or None
        Who may read and write the file of the metadata, where there is one.
    pair : tuple of bytes or None
        What is signed of the save, and its signature, if they came from a store.
    version : ModelRecord or None
        The version, if it came from one.
    """

    name: str
    path: Path
    expected: frozenset[str]
    time_ns: int
    metadata: bytes | None
    save_id: str | None
    mirrored: dict[str, MlflowIds] = field(default_factory=dict)
    metadata_mode: int | None = None
    pair: Pair | None = None
    version: ModelRecord | None = None


def signed_pair(
    folder: ModelFolder, target: Target, found: Source, sha256: str, size: int
) -> Pair | None:
    """Return what is signed of what is restored, and its signature.

    Raises
    ------
    SignatureError
        If signatures are asked for, and no trusted key signed it with its metadata.
    """
    trust = trusted.of_folder(folder)
    if trust is None:
        return found.pair
    wanted = trusted.Wanted(
        what=str(found.path),
        names=frozenset({found.name}),
        sha256=sha256,
        size=size,
        metadata=found.metadata,
    )
    try:
        if found.version is None:
            return trust.of_bytes(_likely_ids(folder, found, sha256), wanted).pair
        signed = trust.of_version(target, found.version, sha256, size)
        difference = wanted.difference(signed.statement)
        if difference is not None:
            raise trusted.refused(wanted.what, difference, "bad")
        return signed.pair
    except SignatureError as cause:
        summary = f"{cause.summary.removesuffix('; nothing was unpickled')}; nothing was changed"
        data = cause.data | {"path": found.path}
        raise SignatureError(summary, fix=cause.fix, **data) from cause


def _likely_ids(folder: ModelFolder, found: Source, sha256: str) -> Iterator[str]:
    """Yield the saves that bytes in ``backups/`` may be of, as records say."""
    if found.save_id is not None:
        yield found.save_id
    for save in folder.history().saves_of(found.name):
        if save.payload.sha256 == sha256:
            yield save.id
