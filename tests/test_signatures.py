"""Signatures: which are good, and that anything else is refused with one clear error."""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from model_signing import signing as library
from signing_keys import p256, private_pem, public_pem, written

from lotto_mlflow.errors import LoadError, SignatureError
from lotto_mlflow.layout import Layout
from lotto_mlflow.signing import (
    MAX_SIGNATURE_BYTES,
    SigningKey,
    Statement,
    TrustedKeys,
    check_signing_key,
    new_key,
    render_statement,
    sign,
    verified,
)
from lotto_mlflow.store.signatures import pairs_in, put_pair, read_pair, remove_pairs

SAVE_ID = "1762100000000000000-0123abcd"
STATEMENT = Statement(
    folder="0123456789abcdef" * 2,
    name="모델 1",
    registered_model="모델 1",
    save_id=SAVE_ID,
    saved_at="2025-11-03T01:13:20.000000+09:00",
    saved_at_ns=1762100000000000000,
    sha256="ab" * 32,
    size=10,
    metadata_sha256=None,
    requirements_sha256="cd" * 32,
)
CONTENT = render_statement(STATEMENT)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    path = tmp_path_factory.mktemp("keys") / "sign.pem"
    new_key(path, None)
    return check_signing_key(path)


@pytest.fixture(scope="module")
def signature(key: SigningKey) -> bytes:
    return sign(CONTENT, key.path)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout.under(tmp_path / "ml")
    layout.tmp_dir.mkdir(parents=True)
    return layout


def test_a_signature_is_verified_by_the_key_that_it_names_among_several(
    key: SigningKey, signature: bytes
) -> None:
    others = {f"{number:064x}": public_pem(p256()) for number in range(3)}
    keys = TrustedKeys({**others, key.hint: key.public})
    assert verified(CONTENT, signature, keys) == STATEMENT


def test_the_command_of_model_signing_accepts_it_and_nothing_changed(
    key: SigningKey, signature: bytes, tmp_path: Path
) -> None:
    statement, path = tmp_path / f"{SAVE_ID}.json", tmp_path / f"{SAVE_ID}.sig"
    statement.write_bytes(CONTENT)
    path.write_bytes(signature)
    public = written(tmp_path / "key.pub", key.public)
    command = [sys.executable, "-m", "model_signing", "verify", "key"]
    command += ["--signature", str(path), "--public_key", str(public), str(statement)]
    assert run(command, capture_output=True).returncode == 0
    statement.write_bytes(CONTENT.replace(b'"size":10', b'"size":11'))
    assert run(command, capture_output=True).returncode != 0


def test_a_signature_of_an_unknown_key_is_told_from_a_bad_one(
    key: SigningKey, signature: bytes
) -> None:
    other = public_pem(p256())
    with pytest.raises(SignatureError, match="of a key that is not trusted") as caught:
        verified(CONTENT, signature, TrustedKeys({"0" * 64: other}), "model x")
    assert caught.value.data["problem"] == "unknown key"
    assert "model x" in str(caught.value)
    assert isinstance(caught.value, LoadError)
    with pytest.raises(SignatureError) as caught:  # it names a key that is not the one it is of
        verified(CONTENT, signature, TrustedKeys({key.hint: other}))
    assert caught.value.data["problem"] == "bad"


def changed(change: Callable[[Any], object]) -> Callable[[bytes], bytes]:
    """Return what changes the JSON of a signature."""

    def of(signature: bytes) -> bytes:
        bundle = json.loads(signature)
        change(bundle)
        return json.dumps(bundle).encode()

    return of


def payload_changed(change: Callable[[Any], object]) -> Callable[[bytes], bytes]:
    """Return what changes the payload in a signature, which is signed no more then."""

    def in_bundle(bundle: Any) -> None:
        payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        change(payload)
        content = base64.b64encode(json.dumps(payload).encode()).decode()
        bundle["dsseEnvelope"]["payload"] = content

    return changed(in_bundle)


def _without_hint(bundle: Any) -> None:
    bundle["verificationMaterial"]["publicKey"] = {"rawBytes": "", "keyDetails": "x"}


def _twice(bundle: Any) -> None:
    bundle["dsseEnvelope"]["signatures"] *= 2


def _swapped(bundle: Any) -> None:
    found = base64.b64decode(bundle["dsseEnvelope"]["signatures"][0]["sig"])
    mixed = base64.b64encode(found[:-1] + bytes([found[-1] ^ 1])).decode()
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = mixed


BAD: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated": lambda signature: signature[:-30],
    "half": lambda signature: signature[: len(signature) // 2],
    "something after it": lambda signature: signature + b"x",
    "huge": lambda signature: signature + b" " * MAX_SIGNATURE_BYTES,
    "nul bytes": lambda signature: b"\0" * 1000,
    "nul byte in it": lambda signature: signature.replace(b"payload", b"pay\0oad"),
    "no utf-8": lambda signature: b"\xff" + signature,
    "utf-16": lambda signature: signature.decode().encode("utf-16"),
    "deep": lambda _: b"[" * 60_000,
    "number": lambda _: b"1" + b"0" * 6000,
    "null": lambda _: b"null",
    "list": lambda signature: b"[" + signature + b"]",
    "no json": lambda _: b"-----BEGIN PGP SIGNATURE-----",
    "another format": changed(lambda b: b.update(mediaType="application/x")),
    "no format": changed(lambda b: b.pop("mediaType")),
    "a certificate too": changed(
        lambda b: b["verificationMaterial"].update(x509CertificateChain={"certificates": []})
    ),
    "no material": changed(lambda b: b.pop("verificationMaterial")),
    "material of none": changed(lambda b: b.update(verificationMaterial=None)),
    "without hint": changed(_without_hint),
    "hint of none": changed(lambda b: b["verificationMaterial"]["publicKey"].update(hint=None)),
    "hint of a list": changed(lambda b: b["verificationMaterial"]["publicKey"].update(hint=["x"])),
    "no signature": changed(lambda b: b["dsseEnvelope"].update(signatures=[])),
    "two signatures": changed(_twice),
    "signature of none": changed(lambda b: b["dsseEnvelope"].update(signatures=[None])),
    "no base64": changed(lambda b: b["dsseEnvelope"]["signatures"][0].update(sig="~")),
    "a bit of it": changed(_swapped),
    "another type": changed(lambda b: b["dsseEnvelope"].update(payloadType="text/plain")),
    "payload of none": changed(lambda b: b["dsseEnvelope"].update(payload="")),
    "payload no base64": changed(lambda b: b["dsseEnvelope"].update(payload="a~")),
    "another predicate": payload_changed(
        lambda p: p.update(predicateType="https://model_signing/Digests/v0.1")
    ),
    "payload changed": payload_changed(lambda p: p["subject"][0].update(name="other")),
    "no resources": payload_changed(lambda p: p["predicate"].update(resources=[])),
    "two resources": payload_changed(lambda p: p["predicate"]["resources"].append({})),
    "all paths ignored": payload_changed(
        lambda p: p["predicate"]["serialization"].update(ignore_paths=["."])
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_signature_that_is_none_is_one_clear_error(
    kind: str, key: SigningKey, signature: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SignatureError, match="the signature of m is none") as caught:
        verified(CONTENT, BAD[kind](signature), key.as_trusted(), "m")
    assert caught.value.data["problem"] == "bad"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert capfd.readouterr() == ("", "")  # the library prints a warning where there is no hint


def test_a_key_that_the_json_has_twice_is_read_once_and_as_the_library_does(
    key: SigningKey, signature: bytes
) -> None:
    """The last one counts: what is looked at is what is verified."""
    other = json.dumps({"publicKey": {"hint": "0" * 64}, "tlogEntries": []}).encode()
    first = signature.replace(b"{", b'{"verificationMaterial":' + other + b",", 1)
    assert verified(CONTENT, first, key.as_trusted()) == STATEMENT
    last = signature[:-1] + b',"verificationMaterial":' + other + b"}"
    with pytest.raises(SignatureError) as caught:
        verified(CONTENT, last, key.as_trusted())
    assert caught.value.data["problem"] == "unknown key"


def test_a_signature_by_the_right_key_over_another_file_is_none(
    key: SigningKey, tmp_path: Path
) -> None:
    """Over another statement, over a folder, and over what is no statement at all."""
    other = render_statement(replace(STATEMENT, name="other"))
    with pytest.raises(SignatureError, match="it is of another file"):
        verified(CONTENT, sign(other, key.path), key.as_trusted())
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "statement").write_bytes(CONTENT)
    config = library.Config().use_elliptic_key_signer(private_key=key.path)
    config.sign(tmp_path / "model", tmp_path / "model.sig")
    with pytest.raises(SignatureError, match="it is of another file"):
        verified(CONTENT, (tmp_path / "model.sig").read_bytes(), key.as_trusted())
    text = b'{"name": "not in the canonical form"}'
    with pytest.raises(SignatureError, match="none") as caught:
        verified(text, sign(text, key.path), key.as_trusted())
    assert caught.value.data["problem"] == "bad"


def test_a_signature_made_by_hand_over_a_statement_is_as_good(
    key: SigningKey, tmp_path: Path
) -> None:
    (tmp_path / "any name").write_bytes(CONTENT)
    config = library.Config().use_elliptic_key_signer(private_key=key.path)
    config.sign(tmp_path / "any name", tmp_path / "sig")
    assert verified(CONTENT, (tmp_path / "sig").read_bytes(), key.as_trusted()) == STATEMENT


def test_nothing_is_left_in_the_temporary_folder_and_nobody_else_can_look_in(
    key: SigningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    seen = []
    made = tempfile.TemporaryDirectory.__enter__

    def noted(self: Any) -> str:
        seen.append(Path(self.name).stat().st_mode & 0o777)
        return made(self)

    monkeypatch.setattr(tempfile.TemporaryDirectory, "__enter__", noted)
    verified(CONTENT, sign(CONTENT, key.path), key.as_trusted())
    assert seen == [0o700, 0o700]
    assert list(folder.iterdir()) == []


def test_nothing_is_verified_or_signed_where_others_could_exchange_the_copies(
    key: SigningKey, signature: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    for call in (
        lambda: verified(CONTENT, signature, key.as_trusted()),
        lambda: sign(CONTENT, key.path),
    ):
        with pytest.raises(OSError, match="nothing there is private"):
            call()
    assert list(folder.iterdir()) == []


def pairs_for(layout: Layout, name: str, sha256: str) -> list[tuple[bytes, bytes]]:
    return [pair for said, pair in pairs_in(layout) if (said.name, said.sha256) == (name, sha256)]


def test_a_pair_is_put_read_and_removed(layout: Layout, signature: bytes) -> None:
    assert read_pair(layout, SAVE_ID) is None
    put_pair(layout, SAVE_ID, (CONTENT, signature), layout.tmp_dir)
    assert read_pair(layout, SAVE_ID) == (CONTENT, signature)
    assert pairs_for(layout, STATEMENT.name, STATEMENT.sha256) == [(CONTENT, signature)]
    assert pairs_for(layout, STATEMENT.name, "0" * 64) == []
    assert pairs_for(layout, "other", STATEMENT.sha256) == []
    remove_pairs(layout, [SAVE_ID, "../../evil", SAVE_ID])
    assert list(layout.signatures_dir.iterdir()) == []
    assert list(layout.tmp_dir.iterdir()) == []


@pytest.mark.parametrize("save_id", ["../x", "", "1762100000000000000-0123abcd/../x", "a\0b"])
def test_an_id_that_is_none_is_no_path(layout: Layout, save_id: str) -> None:
    assert read_pair(layout, save_id) is None


@pytest.mark.parametrize("which", ["statement", "signature"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "huge"])
def test_what_is_no_file_of_a_pair_is_not_opened(
    layout: Layout, signature: bytes, tmp_path: Path, which: str, kind: str
) -> None:
    put_pair(layout, SAVE_ID, (CONTENT, signature), layout.tmp_dir)
    is_statement = which == "statement"
    path = (layout.statement_path if is_statement else layout.signature_path)(SAVE_ID)
    kept = path.rename(tmp_path / "kept")
    if kind == "link":
        path.symlink_to(kept)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b" " * (1 << 20))
    with pytest.raises(SignatureError, match="could not be read") as caught:
        read_pair(layout, SAVE_ID)
    assert caught.value.data["problem"] == "bad"
    assert pairs_for(layout, STATEMENT.name, STATEMENT.sha256) == []


def test_a_link_in_the_place_of_the_folder_is_neither_read_nor_written(
    layout: Layout, signature: bytes, tmp_path: Path
) -> None:
    put_pair(layout, SAVE_ID, (CONTENT, signature), layout.tmp_dir)
    elsewhere = layout.signatures_dir.rename(tmp_path / "elsewhere")
    layout.signatures_dir.symlink_to(elsewhere)
    with pytest.raises(SignatureError):
        read_pair(layout, SAVE_ID)
    with pytest.raises(OSError, match="not a folder"):
        put_pair(layout, SAVE_ID, (CONTENT, signature), layout.tmp_dir)
    remove_pairs(layout, [SAVE_ID])
    assert len(list(elsewhere.iterdir())) == 2


def test_a_private_key_changed_after_it_was_checked_signs_nothing(
    tmp_path: Path,
) -> None:
    path = written(tmp_path / "key", private_pem(p256()))
    check_signing_key(path)
    path.write_bytes(b"no key")
    with pytest.raises(ValueError, match="nothing could be signed with LOTTO_SIGNING_KEY"):
        sign(CONTENT, path)
