"""Signatures: what is signed of a save, with which keys, and the newest one that a host has seen.

No cryptography is written here: signatures are made and checked by OpenSSF's model-signing.
"""

from lotto_mlflow.signing.keys import SigningKey, TrustedKeys, check_signing_key, new_key
from lotto_mlflow.signing.signatures import MAX_SIGNATURE_BYTES, Pair, sign, verified
from lotto_mlflow.signing.statements import (
    MAX_STATEMENT_BYTES,
    Statement,
    is_folder_id,
    parse_statement,
    render_statement,
    sha256_of_requirements,
)

__all__ = [
    "MAX_SIGNATURE_BYTES",
    "MAX_STATEMENT_BYTES",
    "Pair",
    "SigningKey",
    "Statement",
    "TrustedKeys",
    "check_signing_key",
    "is_folder_id",
    "new_key",
    "parse_statement",
    "render_statement",
    "sha256_of_requirements",
    "sign",
    "verified",
]
