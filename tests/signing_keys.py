"""Keys of every kind, for the tests of signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

PEM = serialization.Encoding.PEM


def private_pem(key: Any, password: bytes | None = None) -> bytes:
    """Return a private key in PEM, encrypted where there is a password."""
    encryption: Any = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    content: bytes = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption)
    return content


def public_pem(key: Any) -> bytes:
    """Return the public key of a private one in PEM."""
    content: bytes = key.public_key().public_bytes(
        PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return content


def p256() -> Any:
    return ec.generate_private_key(ec.SECP256R1())


def others() -> dict[str, Any]:
    """Return keys of other kinds, by what they are."""
    return {
        "P-384": ec.generate_private_key(ec.SECP384R1()),
        "P-521": ec.generate_private_key(ec.SECP521R1()),
        "secp256k1": ec.generate_private_key(ec.SECP256K1()),
        "RSA": rsa.generate_private_key(65537, 2048),
        "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    }


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """Write a file that only its owner may read, and return its path."""
    path.write_bytes(content)
    path.chmod(mode)
    return path
