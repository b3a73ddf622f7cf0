"""What a statement has to say for bytes, a name, metadata and requirements to be those signed."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from lotto_mlflow import layout as names
from lotto_mlflow import metadata as metadata_json
from lotto_mlflow import regular
from lotto_mlflow.errors import Fix, InvalidMetadataError, SignatureError, StoreError
from lotto_mlflow.records import SaveRecord
from lotto_mlflow.requirements import plain
from lotto_mlflow.signing import Statement, sha256_of_requirements
from lotto_mlflow.text import composed

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Beside

UNCHECKED = b""
"""In place of metadata that are not looked at; no JSON is empty."""
_ADDED_BY_MLFLOW = re.compile(r"mlflow(-skinny)?(==[0-9A-Za-z.+!]+)?")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a statement has to say; ``None`` is not asked for.

    Attributes
    ----------
    what : str
        The file or the version, for messages.
    names : frozenset of str or None
        The names that the model may have.
    registered_model : str or None
        The registered model.
    sha256 : str or None
        Digest of the bytes.
    size : int or None
        How many bytes.
    save_id : str or None
        The save.
    metadata : bytes or None
        The metadata JSON, ``None`` where there is none, `UNCHECKED` where nobody asks for it.
    requirements : frozenset of str or None
        The digests that the pinned distributions may have.
    """

    what: str
    names: frozenset[str] | None = None
    registered_model: str | None = None
    sha256: str | None = None
    size: int | None = None
    save_id: str | None = None
    metadata: bytes | None = UNCHECKED
    requirements: frozenset[str] | None = None

    def with_beside(self, beside: Beside) -> Wanted:
        """Return the same, and what lies beside a version in MLflow."""
        return replace(
            self,
            metadata=beside.metadata if beside.has_run else UNCHECKED,
            requirements=digests_of_requirements(beside.requirements),
        )

    def difference(self, statement: Statement) -> str | None:
        """Return what is not as a statement says, ``None`` where all of it is."""
        for what, found, signed in (
            ("SHA-256", self.sha256, statement.sha256),
            ("size", self.size, statement.size),
            ("save", self.save_id, statement.save_id),
            ("registered model", self.registered_model, statement.registered_model),
        ):
            if found not in (None, signed):
                return f"its {what} is {found}, and {signed} was signed"
        name = composed(statement.name)
        if self.names is not None and name not in self.names:
            return f"its name is {' or '.join(sorted(self.names))}, and {name} was signed"
        if statement.registered_model != names.registered_model(name):
            return f"{name} was signed as a version of {statement.registered_model}"
        if self.metadata != UNCHECKED and not _is_signed(self.metadata, statement):
            state = "are missing" if self.metadata is None else "are not those that were signed"
            return f"its metadata {state}"
        if self.requirements is not None:
            is_signed = statement.requirements_sha256 in self.requirements
            return None if is_signed else "its requirements are not those that were signed"
        return None


def _is_signed(content: bytes | None, statement: Statement) -> bool:
    """Return whether metadata are those of a statement.

    Notes
    -----
    Those of another program are sent to MLflow as this package writes them.
    """
    signed = statement.metadata_sha256
    if content is None or signed is None:
        return content is None and signed is None
    if sha256(content).hexdigest() == signed:
        return True
    values = metadata_json.from_json(content)
    if values is None:
        return False
    with suppress(InvalidMetadataError):
        return sha256(metadata_json.to_json(metadata_json.strict(values))).hexdigest() == signed
    return False


def wanted_of_record(record: SaveRecord) -> Wanted:
    """Return what has to be signed of a save for its record to be true."""
    payload = record.payload
    pins = plain(payload.description.requirements)
    return Wanted(
        what=f"the save of {record.name} of {payload.saved_at}",
        names=frozenset({composed(record.name)}),
        sha256=payload.sha256,
        size=payload.size,
        save_id=record.id,
        metadata=metadata_json.json_of(payload.metadata),
        requirements=frozenset({sha256_of_requirements(pins)}),
    )


def is_true(record: SaveRecord, statement: Statement | None) -> bool:
    """Return whether the metadata in a record are those signed, or nobody asks for signatures."""
    if statement is None:
        return True
    wanted = replace(wanted_of_record(record), requirements=None)
    return wanted.difference(statement) is None


def digests_of_requirements(content: bytes | None) -> frozenset[str]:
    """Return the digests that requirements in MLflow may have had when they were signed.

    Notes
    -----
    MLflow adds a line of itself, where there is none.
    """
    text = "" if content is None else content.decode("utf-8", "replace")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    others = [line for line in lines if not _ADDED_BY_MLFLOW.fullmatch(line)]
    return frozenset(map(sha256_of_requirements, (lines, others)))


def refused(what: str, problem: str, kind: str, *, is_otherwise: bool = False) -> SignatureError:
    """Return the error for what no trusted key signed, or for what one signed otherwise."""
    summary = f"{what} is not what a trusted key signed: {problem}; nothing was unpickled"
    return SignatureError(summary, problem=kind, is_otherwise=is_otherwise)


def with_fix(error: SignatureError, path: Path | None, fix: Fix | None) -> SignatureError:
    """Return an error with the file that it is about, and what helps."""
    return SignatureError(error.summary, fix=error.fix or fix, **error.data | {"path": path})


def content_of(path: Path, max_bytes: int) -> bytes | None:
    """Return what a file holds, ``None`` where there is none.

    Raises
    ------
    SignatureError
        If something else has its name, it is too large, or it cannot be read.
    """
    try:
        return regular.content_of(path, max_bytes)
    except FileNotFoundError:
        return None
    except OSError as cause:
        said = cause.summary if isinstance(cause, StoreError) else f"{path}: {cause}"
        raise refused(str(path), f"it could not be read: {said}", "bad") from cause
