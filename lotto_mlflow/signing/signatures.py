"""Signatures: made and checked by OpenSSF's model-signing, over private copies of what is signed.

A signature is a Sigstore bundle in JSON, over one file, the statement of a save; model-signing's
own command checks it, too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from lotto_mlflow import private_dirs, regular
from lotto_mlflow.errors import LoadError, SettingsError, SignatureError, StoreError
from lotto_mlflow.signing.keys import INSTALL, TrustedKeys
from lotto_mlflow.signing.statements import Statement, parse_statement
from lotto_mlflow.threads import started

MAX_SIGNATURE_BYTES = 64 << 10
Pair = tuple[bytes, bytes]
"""What is signed of a save, and its signature."""
Problem = Literal["missing", "bad", "unknown key"]
_NAME = "model_signing.verifying"
_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_MATERIAL = {"publicKey", "tlogEntries"}


def begin_importing(then: Callable[[], object] | None = None) -> None:
    """Begin to import model-signing in a thread, which takes most of a second once a process.

    Parameters
    ----------
    then : callable, optional
        Called when that is done: two threads had better not import large libraries at once, whose
        modules import each other.
    """
    if _NAME in sys.modules:
        if then is not None:
            then()
        return

    def run() -> None:
        with suppress(SettingsError):  # it is raised where the library is needed
            _library()
        if then is not None:
            then()

    started(run)


def sign(content: bytes, key_path: Path) -> bytes:
    """Return the signature of a statement.

    Parameters
    ----------
    content : bytes
        What `lotto_mlflow.signing.statements.render_statement` returned.
    key_path : pathlib.Path
        A private key that `lotto_mlflow.signing.keys.check_signing_key` has seen.

    Raises
    ------
    SettingsError
        If the key or the library cannot be used.
    StoreError
        If the system's temporary folder cannot be written to.
    """
    signing, _ = _library()
    try:
        with _private(statement=content) as folder:
            path = folder / "signature"
            try:
                config = signing.Config()
                config.use_elliptic_key_signer(private_key=regular.real_path(key_path))
                config.sign(folder / "statement", path)
            except Exception as cause:
                raise SettingsError(
                    f"nothing could be signed with LOTTO_SIGNING_KEY, {key_path}: {cause}",
                    value=str(key_path),
                ) from cause
            return path.read_bytes()
    except OSError as cause:
        raise StoreError(f"nothing was signed: {cause}") from cause


def verified(
    content: bytes, signature: bytes, keys: TrustedKeys, what: str = "a save"
) -> Statement:
    """Return the statement in a text that a trusted key signed.

    Parameters
    ----------
    content : bytes
        The text.
    signature : bytes
        Its signature.
    keys : TrustedKeys
        The keys; the signature says which of them it is of.
    what : str, optional
        Whose signature it is, for messages.

    Raises
    ------
    SignatureError
        If it is not signed so; ``problem`` says whether it is ``"bad"`` or of an ``"unknown key"``.
    """
    hint = _hint(content, signature, what)
    if hint not in keys.by_hint:
        summary = f"the signature of {what} is of a key that is not trusted, {hint:.64}"
        raise failure(summary, "unknown key")
    _, verifying = _library()
    try:
        with _private(statement=content, signature=signature, key=keys.by_hint[hint]) as folder:
            try:
                config = verifying.Config()
                config.use_elliptic_key_verifier(public_key=folder / "key")
                config.verify(folder / "statement", folder / "signature")
            except Exception as cause:  # whatever a strange signature provokes
                problem = f"{type(cause).__name__} {cause}".strip()
                raise _bad(what, f"it does not fit what is signed: {problem:.200}") from cause
    except OSError as cause:
        if isinstance(cause, SignatureError):
            raise
        raise LoadError(f"the signature of {what} could not be checked: {cause}") from cause
    try:
        return parse_statement(content)
    except SignatureError as cause:
        raise _bad(what, cause.summary) from cause


def hint_of(signature: bytes) -> str | None:
    """Return the key that a signature says it is of, ``None`` where it says none; unverified."""
    try:
        hint = _parsed(signature)["verificationMaterial"]["publicKey"]["hint"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return hint if isinstance(hint, str) else None


def failure(summary: str, problem: Problem) -> SignatureError:
    """Return the error for what is not signed as it has to be."""
    return SignatureError(f"{summary}; nothing was unpickled", problem=problem)


def _bad(what: str, problem: str) -> SignatureError:
    return failure(f"the signature of {what} is none: {problem}", "bad")


def _hint(content: bytes, signature: bytes, what: str) -> str:
    """Return the key that a signature says it is of, once all else is of the one known form."""
    try:
        bundle = _parsed(signature)
        material, envelope = bundle["verificationMaterial"], bundle["dsseEnvelope"]
        hint = material["publicKey"]["hint"]
        if bundle["mediaType"] != _MEDIA_TYPE or not set(material) <= _MATERIAL:
            raise ValueError("it is of another format")
        if not isinstance(hint, str) or not hint:
            raise ValueError("it does not say which key it is of")
        if not isinstance(envelope["signatures"], list) or len(envelope["signatures"]) != 1:
            raise ValueError("it is not one signature")
        if envelope["payloadType"] != _PAYLOAD_TYPE:
            raise ValueError("it is of another kind of statement")
        _check_payload(base64.b64decode(envelope["payload"], validate=True), content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as cause:
        problem = f"it has no {cause}" if isinstance(cause, KeyError) else str(cause)
        raise _bad(what, f"{problem:.200}") from cause
    return hint


def _check_payload(payload: bytes, content: bytes) -> None:
    signed = json.loads(payload.decode("utf-8"))
    if signed["predicateType"] != _PREDICATE_TYPE:
        raise ValueError("it is of another predicate")
    digest = hashlib.sha256(content).hexdigest()
    one_file = {"name": ".", "algorithm": "sha256", "digest": digest}
    if signed["predicate"]["resources"] != [one_file]:
        raise ValueError("it is of another file")


def _parsed(signature: bytes) -> Any:
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise ValueError(f"it has more than {MAX_SIGNATURE_BYTES} bytes")
    return json.loads(signature.decode("utf-8"))


@contextmanager
def _private(**contents: bytes) -> Iterator[Path]:
    """Write files into a folder that nobody else can look into, until the block ends."""
    with private_dirs.brief() as folder:
        for file_name, content in contents.items():
            (folder / file_name).write_bytes(content)
        yield folder


def _library() -> tuple[Any, Any]:
    """Return what makes signatures, and what checks them."""
    try:
        from model_signing import signing, verifying  # imported lazily
    except Exception as cause:  # one that is broken fails in its own way
        raise SettingsError(
            f"the libraries that make and check signatures cannot be imported: {cause}",
            fix=INSTALL,
        ) from cause
    return signing, verifying
