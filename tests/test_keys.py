"""Keys: how they are made, and which are refused before anything is signed or opened with them."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
)
from signing_keys import others, p256, private_pem, public_pem, written
from typer.testing import CliRunner

from lotto_mlflow import LottoMlflowError, ModelManager
from lotto_mlflow.cli import app
from lotto_mlflow.errors import SettingsError, StoreError
from lotto_mlflow.signing import TrustedKeys, check_signing_key, new_key


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir()
    return folder


def test_a_new_pair_is_p256_and_the_private_key_is_readable_by_its_owner_alone(
    outside: Path,
) -> None:
    before = os.umask(0)
    try:
        public_path = new_key(outside / "sign.pem", None)
    finally:
        os.umask(before)
    private: Any = load_pem_private_key((outside / "sign.pem").read_bytes(), None)
    assert private.curve.name == "secp256r1"
    assert public_path == outside / "sign.pem.pub"
    assert public_path.read_bytes() == public_pem(private)
    assert (mode(outside / "sign.pem"), mode(public_path)) == (0o600, 0o644)
    key = check_signing_key(outside / "sign.pem")
    assert key.hint == hashlib.sha256(public_path.read_bytes()).hexdigest()
    assert TrustedKeys.read(public_path).by_hint == {key.hint: public_path.read_bytes()}


@pytest.mark.parametrize("taken", ["sign.pem", "sign.pem.pub"])
@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "folder"])
def test_a_new_key_replaces_nothing_and_leaves_nothing(
    outside: Path, tmp_path: Path, taken: str, kind: str
) -> None:
    other, path = tmp_path / "other", outside / taken
    other.write_text("kept")
    if kind == "file":
        path.write_text("kept")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(other if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(StoreError, match=f"{taken} is there already"):
        new_key(outside / "sign.pem", None)
    assert [p.name for p in outside.iterdir()] == [taken]
    assert other.read_text() == "kept"
    assert not (tmp_path / "nowhere").exists()


def test_a_key_that_cannot_be_written_leaves_no_half_of_a_pair(outside: Path) -> None:
    name = "k" * 252  # there is no room for .pub
    with pytest.raises(StoreError, match="no key was made"):
        new_key(outside / name, None)
    assert list(outside.iterdir()) == []
    (outside / "file").touch()
    with pytest.raises(StoreError, match="no key was made"):
        new_key(outside / "file" / "sign.pem", None)
    assert list(outside.iterdir()) == [outside / "file"]


def test_a_path_without_a_name_is_no_file_for_a_key() -> None:
    with pytest.raises(SettingsError, match="is no file"):
        new_key(Path("/"), None)


def test_the_folder_of_a_key_is_made_for_its_owner_alone(outside: Path) -> None:
    path = outside / "new" / "sign.pem"
    new_key(path, None)
    check_signing_key(path, outside / "ml")
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_no_key_is_made_in_a_folder_of_models(disk_manager: ModelManager, tmp_path: Path) -> None:
    """Neither in the one of the settings nor in any other, nor by way of a link."""
    disk_manager.save_model({"a": 1}, "m")
    base_dir = tmp_path / "ml"
    (tmp_path / "link").symlink_to(base_dir / "mlflow")
    for folder in (base_dir, base_dir / "trained", base_dir / "mlflow", tmp_path / "link"):
        with pytest.raises(SettingsError, match="must not lie in a folder of models"):
            new_key(folder / "sign.pem", None)
    with pytest.raises(SettingsError, match="must not lie in a folder of models"):
        new_key(tmp_path / "to come" / "sign.pem", tmp_path / "to come")
    assert not list(tmp_path.rglob("sign.pem*"))


def test_keys_new_says_what_to_do_with_both_files(outside: Path, tmp_path: Path) -> None:
    path = outside / "my key"
    base_dir = tmp_path / "ml"
    base_dir.mkdir()
    done = CliRunner().invoke(app, ["keys", "new", str(path), "--base-dir", str(base_dir)])
    assert done.exit_code == 0, done.output
    assert f"export 'LOTTO_SIGNING_KEY={path}'" in done.output
    assert f"export 'LOTTO_TRUSTED_KEYS={path}.pub'" in done.output
    again = CliRunner().invoke(app, ["keys", "new", str(path), "--base-dir", str(base_dir)])
    assert again.exit_code == 1
    assert "is there already" in again.output
    inside = CliRunner().invoke(
        app, ["keys", "new", str(base_dir / "key"), "--base-dir", str(base_dir)]
    )
    assert inside.exit_code == 1
    assert list(base_dir.iterdir()) == []


def truncated(path: Path) -> None:
    written(path, private_pem(p256())[:120])


def empty(path: Path) -> None:
    written(path, b"")


def encrypted(path: Path) -> None:
    written(path, private_pem(p256(), b"password"))


def public(path: Path) -> None:
    written(path, public_pem(p256()))


def huge(path: Path) -> None:
    written(path, private_pem(p256()) + b"\n" * (1 << 20))


def nul_bytes(path: Path) -> None:
    written(path, b"\0" * 300)


def nul_in_pem(path: Path) -> None:
    content = bytearray(private_pem(p256()))
    content[60] = 0
    written(path, bytes(content))


def readable_by_group(path: Path) -> None:
    written(path, private_pem(p256()), 0o640)


def readable_by_others(path: Path) -> None:
    written(path, private_pem(p256()), 0o604)


def writable_by_others(path: Path) -> None:
    written(path, private_pem(p256()), 0o602)


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def circle_of_links(path: Path) -> None:
    path.symlink_to(path)


def missing(path: Path) -> None:
    """Leave nothing there."""


def certificate(path: Path) -> None:
    pem = public_pem(p256()).replace(b"PUBLIC KEY", b"CERTIFICATE")
    written(path, pem)


def of_another_kind(name: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        written(path, private_pem(others()[name]))

    write.__name__ = name
    return write


BAD = [
    truncated, empty, encrypted, public, huge, nul_bytes, nul_in_pem, readable_by_group,
    readable_by_others, writable_by_others, folder, pipe, dangling_link, circle_of_links, missing,
    certificate, *map(of_another_kind, ("P-384", "P-521", "secp256k1", "RSA", "Ed25519")),
]  # fmt: skip


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_a_save_with_a_key_that_will_not_do_is_refused_before_any_file_is_touched(
    make: Callable[[Path], None],
    tmp_path: Path,
    outside: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make(outside / "sign.pem")
    monkeypatch.setenv("LOTTO_SIGNING_KEY", str(outside / "sign.pem"))
    manager = ModelManager(tmp_path / "ml", mirror="off")
    with pytest.raises(SettingsError, match=r"LOTTO_SIGNING_KEY, .*sign\.pem") as caught:
        manager.save_model({"a": 1}, "m")
    assert not (tmp_path / "ml").exists()
    assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError):
        manager.sign("m")
    monkeypatch.delenv("LOTTO_SIGNING_KEY")
    manager.save_model({"a": 1}, "m")


def test_a_key_in_the_folder_of_models_signs_nothing_wherever_a_link_to_it_lies(
    disk_manager: ModelManager, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_manager.save_model({"a": 1}, "m")
    inside = written(tmp_path / "ml" / "mlflow" / "sign.pem", private_pem(p256()))
    link = outside / "link.pem"
    link.symlink_to(inside)
    for path in (inside, link):
        monkeypatch.setenv("LOTTO_SIGNING_KEY", str(path))
        with pytest.raises(SettingsError, match="must not lie in a folder of models"):
            disk_manager.save_model({"a": 2}, "m")
    assert disk_manager.load_model(tmp_path / "ml" / "trained" / "m.pkl") == {"a": 1}
    assert not (tmp_path / "ml" / "mlflow" / "signatures").exists()


def test_a_link_to_a_key_elsewhere_is_followed_as_where_a_cluster_provides_it(
    outside: Path,
) -> None:
    """Kubernetes puts each file of a secret behind two links, beside a hidden folder."""
    (outside / "..2026").mkdir()
    key = p256()
    written(outside / "..2026" / "sign.pem", private_pem(key))
    written(outside / "..2026" / "trusted.pub", public_pem(key))
    (outside / "..data").symlink_to("..2026")
    (outside / "sign.pem").symlink_to("..data/sign.pem")
    found = check_signing_key(outside / "sign.pem")
    (outside / "sign.pem").unlink()
    (outside / "trusted.pub").symlink_to("..data/trusted.pub")
    assert set(TrustedKeys.read(outside).by_hint) == {found.hint}


def test_keys_of_openssl_will_do(outside: Path) -> None:
    """In its own older form, too, which begins with the parameters of the curve."""
    path = outside / "sign.pem"
    made = run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-out", path], capture_output=True
    )
    if made.returncode != 0:
        pytest.skip("there is no openssl")
    path.chmod(0o600)
    public_path = outside / "sign.pub"
    run(["openssl", "ec", "-in", path, "-pubout", "-out", public_path], check=True)
    assert set(TrustedKeys.read(public_path).by_hint) == {check_signing_key(path).hint}


def test_trusted_keys_are_all_of_a_folder_and_doubles_count_once(outside: Path) -> None:
    one, other = public_pem(p256()), public_pem(p256())
    for name, content in {"a.pub": one, "b": other, "again.pub": one, "crlf": one.replace(
        b"\n", b"\r\n"
    )}.items():  # fmt: skip
        written(outside / name, content, 0o644)
    (outside / ".hidden").write_text("passed over")
    trusted = TrustedKeys.read(outside)
    assert set(trusted.by_hint.values()) == {one, other}
    assert all(hashlib.sha256(pem).hexdigest() == hint for hint, pem in trusted.by_hint.items())
    for pem in trusted.by_hint.values():
        load_pem_public_key(pem)


def _two_keys(path: Path) -> None:
    written(path, public_pem(p256()) + public_pem(p256()))


def _key_and_text(path: Path) -> None:
    written(path, b"my key:\n" + public_pem(p256()))


def _readme(path: Path) -> None:
    path.write_text("# Keys of the team\n")


def _private(path: Path) -> None:
    written(path, private_pem(p256()))


def _both(path: Path) -> None:
    written(path, public_pem(p256()) + private_pem(p256()))


def _encrypted_private(path: Path) -> None:
    written(path, private_pem(p256(), b"password"))


def _of_another_kind(name: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        written(path, public_pem(others()[name]))

    write.__name__ = f"_{name}"
    return write


def _truncated(path: Path) -> None:
    written(path, public_pem(p256())[:-40])


def _huge(path: Path) -> None:
    written(path, public_pem(p256()) + b"\n" * (1 << 20))


def _nul(path: Path) -> None:
    written(path, public_pem(p256()) + b"\0")


NO_KEYS = [
    _two_keys, _key_and_text, _readme, _private, _both, _encrypted_private, _truncated, _huge, _nul,
    empty, nul_bytes, folder, pipe, dangling_link, circle_of_links, certificate,
    *map(_of_another_kind, ("P-384", "secp256k1", "RSA", "Ed25519")),
]  # fmt: skip


@pytest.mark.parametrize("make", NO_KEYS, ids=lambda make: make.__name__.strip("_"))
@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "beside a key"])
def test_what_is_no_trusted_key_is_refused_and_then_none_is_trusted(
    make: Callable[[Path], None], outside: Path, is_alone: bool
) -> None:
    path = outside / "a.pub"
    make(path)
    if not is_alone:
        written(outside / "good.pub", public_pem(p256()), 0o644)
    with pytest.raises(SettingsError, match=r"LOTTO_TRUSTED_KEYS") as caught:
        TrustedKeys.read(path if is_alone and make is not folder else outside)
    assert isinstance(caught.value, LottoMlflowError)
    assert "\0" not in str(caught.value)


def test_an_empty_folder_of_trusted_keys_is_an_error(outside: Path) -> None:
    (outside / ".hidden").write_bytes(public_pem(p256()))
    with pytest.raises(SettingsError, match="holds 0 files"):
        TrustedKeys.read(outside)
    with pytest.raises(SettingsError, match="could not be read"):
        TrustedKeys.read(outside / "missing")


def test_trusted_keys_do_not_lie_in_the_folder_of_models(tmp_path: Path, outside: Path) -> None:
    """One in it, a folder in it, and a link into it."""
    inside = tmp_path / "ml" / "keys"
    inside.mkdir(parents=True)
    written(inside / "a.pub", public_pem(p256()), 0o644)
    (outside / "a.pub").symlink_to(inside / "a.pub")
    for path in (inside, inside / "a.pub", outside, outside / "a.pub"):
        with pytest.raises(SettingsError, match="must not lie in a folder of models"):
            TrustedKeys.read(path, tmp_path / "ml")


HIDDEN = """
import os, sys
{hide}
from pathlib import Path
from lotto_mlflow import ModelManager
from lotto_mlflow.errors import SettingsError
manager = ModelManager(Path({base_dir!r}), mirror="off")
os.environ[{setting!r}] = {key!r}
for call in (
    lambda: ModelManager(Path({base_dir!r}), mirror="off"),
    lambda: manager.save_model({{"a": 2}}, "m"),
    lambda: manager.load_model({path!r}),
    lambda: manager.sign("m"),
):
    try:
        call()
    except SettingsError as error:
        print(error)
    else:
        print("done")
"""
HIDES = {
    "none": "sys.modules['model_signing'] = None",
    "no OpenSSL": "sys.modules['OpenSSL'] = None",
    "finder": """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "model_signing":
            raise ImportError("not here")
sys.meta_path.insert(0, Finder())
""",
}


@pytest.mark.parametrize("setting", ["LOTTO_SIGNING_KEY", "LOTTO_TRUSTED_KEYS"])
@pytest.mark.parametrize("hide", HIDES)
def test_a_key_without_the_extra_is_refused_and_nothing_touched(
    disk_manager: ModelManager, tmp_path: Path, outside: Path, setting: str, hide: str
) -> None:
    path = Path(disk_manager.save_model({"a": 1}, "m"))
    new_key(outside / "sign.pem", None)
    key = outside / ("sign.pem" if setting == "LOTTO_SIGNING_KEY" else "sign.pem.pub")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "ml").rglob("*")}
    program = HIDDEN.format(
        hide=HIDES[hide],
        base_dir=str(tmp_path / "ml"),
        path=str(path),
        setting=setting,
        key=str(key),
    )
    done = run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pip install 'lotto-mlflow[signing]'") == 4, done.stdout
    assert done.stdout.count(f"{setting} is set") == 4
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "ml").rglob("*")} == before
