"""What is signed of a save: one canonical JSON text, which says all that a reader relies on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from lotto_mlflow.errors import SignatureError
from lotto_mlflow.records import is_digest, is_save_id

MAX_STATEMENT_BYTES = 64 << 10
_FORMAT = "lotto_mlflow.statement/1"
_FOLDER_ID = re.compile(r"[0-9a-f]{32}")
_END_OF_COUNT = 2**63


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What the holder of a key says of one save.

    Attributes
    ----------
    folder : str
        Id of the folder of models that the save was made in, 32 hexadecimal digits.
    name : str
        The model's name.
    registered_model : str
        The registered model that it is a version of, in every store.
    save_id : str
        The save.
    saved_at : str
        Its time, ISO 8601 with the offset from UTC.
    saved_at_ns : int
        Its time in nanoseconds since 1970; the order of saves.
    sha256 : str
        Digest of the bytes of the model.
    size : int
        Bytes of the model.
    metadata_sha256 : str or None
        Digest of the metadata JSON, ``None`` of a save without metadata.
    requirements_sha256 : str
        What `sha256_of_requirements` gives for the pinned distributions.
    signed_at : str or None
        When it was signed, ISO 8601, of a save that was signed later; ``None`` of one that was
        signed when it was made.
    """

    folder: str
    name: str
    registered_model: str
    save_id: str
    saved_at: str
    saved_at_ns: int
    sha256: str
    size: int
    metadata_sha256: str | None
    requirements_sha256: str
    signed_at: str | None = None


def sha256_of_requirements(lines: Iterable[str]) -> str:
    """Return the digest of pinned distributions, in the order in which MLflow is given them."""
    return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()


def render_statement(statement: Statement) -> bytes:
    """Return the canonical JSON of a statement: sorted keys, ASCII, no spaces.

    Raises
    ------
    SignatureError
        If it is longer than `MAX_STATEMENT_BYTES`.
    """
    values = {"format": _FORMAT} | asdict(statement)
    content = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    if len(content) > MAX_STATEMENT_BYTES:
        raise SignatureError(
            f"what is to be signed of {statement.name:.80} has {len(content)} bytes, and at most "
            f"{MAX_STATEMENT_BYTES} are signed; nothing was signed"
        )
    return content.encode("ascii")


def parse_statement(content: bytes) -> Statement:
    """Return the statement in a text that `render_statement` wrote, and no other text.

    Raises
    ------
    SignatureError
        If it is anything else, or not in the canonical form.
    """
    try:
        if len(content) > MAX_STATEMENT_BYTES:
            raise ValueError(f"it has more than {MAX_STATEMENT_BYTES} bytes")
        values = json.loads(content)
        if values.pop("format") != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT}")
        statement = Statement(**values)
        _check(statement)
        if render_statement(statement) != content:
            raise ValueError("it is not in its canonical form")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as cause:
        raise SignatureError(f"a signed statement is none: {cause!s:.200}") from cause
    return statement


def _check(statement: Statement) -> None:
    texts = (statement.name, statement.registered_model)
    digests = (statement.sha256, statement.requirements_sha256)
    counts = (statement.size, statement.saved_at_ns)
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError("a name is none")
    if not is_save_id(statement.save_id) or not is_folder_id(statement.folder):
        raise ValueError("an id is none")
    if not all(map(is_digest, digests)) or (
        statement.metadata_sha256 is not None and not is_digest(statement.metadata_sha256)
    ):
        raise ValueError("a digest is none")
    if not all(type(count) is int and 0 <= count < _END_OF_COUNT for count in counts):
        raise ValueError("a size or a time is none")
    for moment in (statement.saved_at, statement.signed_at or statement.saved_at):
        if datetime.fromisoformat(moment).tzinfo is None:
            raise ValueError("a time has no offset from UTC")


def is_folder_id(value: Any) -> bool:
    """Return whether a value has the form of a folder's id: 32 hexadecimal digits."""
    return isinstance(value, str) and _FOLDER_ID.fullmatch(value) is not None
