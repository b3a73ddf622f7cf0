"""Signatures: what is signed of a save, with which keys, and the newest one that a host has seen.

No cryptography is written here: signatures are made and checked by OpenSSF's model-signing.
"""

from lotto_mlflow.signing.statements import (
    MAX_STATEMENT_BYTES,
    Statement,
    parse_statement,
    render_statement,
    sha256_of_requirements,
)

__all__ = [
    "MAX_STATEMENT_BYTES",
    "Statement",
    "parse_statement",
    "render_statement",
    "sha256_of_requirements",
]
