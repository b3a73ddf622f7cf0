"""Keys: made, checked before anything is signed, and read by those who trust them.

A key is ECDSA P-256 in PEM. None is ever taken from a model folder: whoever may write models may
write there.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotto_mlflow import regular
from lotto_mlflow.errors import Fix, LottoMlflowError, MissingExtraError, SettingsError, StoreError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

PUBLIC_SUFFIX = ".pub"
INSTALL = Fix("shell", {"command": ("pip", "install", "lotto-mlflow[signing]")})
"""What brings the libraries that make and check signatures."""
_MAX_KEY_BYTES = 16 << 10
_MAX_KEYS = 1000
_CURVE = "secp256r1"
_PUBLIC_BEGIN, _PUBLIC_END = b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_FOLDERS_OF_MODELS = ("trained", "metadata", "backups")


def new_key(path: Path, refused_under: Path | None) -> Path:
    """Make a private key, and its public key beside it.

    Parameters
    ----------
    path : pathlib.Path
        The file that is to hold the private key, which only its owner may read. Its folder is made
        where it is missing.
    refused_under : pathlib.Path or None
        A folder in which no key is made: that of the models.

    Returns
    -------
    pathlib.Path
        The file of the public key, ``FILE.pub``.

    Raises
    ------
    SettingsError
        If it would lie in a model folder.
    StoreError
        If either file is there already, or cannot be written. Nothing was made.
    MissingExtraError
        If the libraries of the extra ``signing`` are not installed.
    """
    path = regular.absolute(path)
    if not path.name:
        raise SettingsError(f"{path} is no file; give the file of the new key", value=str(path))
    _check_outside(path, "a key", () if refused_under is None else (refused_under,))
    public_path = path.with_name(f"{path.name}{PUBLIC_SUFFIX}")
    for file in (path, public_path):
        if os.path.lexists(file):
            raise StoreError(f"{file} is there already, and no key was made", path=file)
    private, public = _made()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(path, private, 0o600)
        try:
            _write_new(public_path, public, 0o644)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as cause:
        summary = f"no key was made, since {path} could not be written: {cause}"
        raise StoreError(summary, path=path) from cause
    return public_path


def _made() -> tuple[bytes, bytes]:
    try:
        from cryptography.hazmat.primitives import serialization  # imported lazily
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as cause:
        raise MissingExtraError(f"no key was made: {cause}", fix=INSTALL) from cause
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private, _pem(key.public_key())


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that was not there, which nobody else can read before it has its mode."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        if hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@dataclass(frozen=True)
class SigningKey:
    """A private key that saves may be signed with.

    Attributes
    ----------
    path : pathlib.Path
        Its file.
    public : bytes
        Its public key, in PEM.
    """

    path: Path
    public: bytes

    @property
    def hint(self) -> str:
        """By what a signature names it: the SHA-256 of its public key."""
        return hashlib.sha256(self.public).hexdigest()

    def as_trusted(self) -> TrustedKeys:
        """Return the one key as all that is trusted."""
        return TrustedKeys({self.hint: self.public})


def check_signing_key(path: Path, *folder_dirs: Path) -> SigningKey:
    """See that a file holds a private key that saves may be signed with.

    Parameters
    ----------
    path : pathlib.Path
        What ``LOTTO_SIGNING_KEY`` names.
    *folder_dirs : pathlib.Path
        The folders of the models, in which no key may lie.

    Returns
    -------
    SigningKey
        The key.

    Raises
    ------
    SettingsError
        If it is none, of another kind, or others may read it.
    """
    named = f"LOTTO_SIGNING_KEY, {path},"
    content = _content(path, named, folder_dirs, is_private=True)
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key: Any = load_pem_private_key(content, None)
        public = key.public_key()
    except ImportError as cause:
        raise SettingsError(f"{named} cannot be read: {cause}", fix=INSTALL) from cause
    except TypeError as cause:
        raise _refused(named, "holds an encrypted key; give one without a password") from cause
    except Exception as cause:  # the library says by many kinds of errors that it is no key
        raise _refused(named, f"holds no private key in PEM, {_advice_of(content)}") from cause
    return SigningKey(path, _pem(_on_curve(public, named)))


def _advice_of(content: bytes) -> str:
    if _PUBLIC_BEGIN in content:
        return "but a public one; give the file that it was made beside"
    return "or a damaged one; make one with: lotto-mlflow keys new FILE"


@dataclass(frozen=True)
class TrustedKeys:
    """The public keys that are trusted.

    Attributes
    ----------
    by_hint : mapping of str to bytes
        Each in PEM, by the hint by which signatures name it.
    """

    by_hint: Mapping[str, bytes]

    @classmethod
    def read(cls, path: Path, *folder_dirs: Path) -> TrustedKeys:
        """Read a public key, or each file of a folder of public keys.

        Parameters
        ----------
        path : pathlib.Path
            What ``LOTTO_TRUSTED_KEYS`` names. Hidden files of a folder are passed over; a link
            is followed to a file, as where a cluster provides the folder.
        *folder_dirs : pathlib.Path
            The folders of the models, in which no key may lie.

        Raises
        ------
        SettingsError
            If there is none, or something else is among them; then none is trusted.
        """
        return cls(dict(_public_keys(path, folder_dirs)))


def _public_keys(path: Path, folder_dirs: tuple[Path, ...]) -> Iterator[tuple[str, bytes]]:
    named = f"LOTTO_TRUSTED_KEYS, {path},"
    place = _real(path, named, folder_dirs)
    if not regular.is_folder(place):
        yield _public_key(path, named, folder_dirs)
        return
    try:
        names = sorted(name for name in os.listdir(place) if not name.startswith("."))
    except OSError as cause:
        raise _refused(named, f"could not be listed: {cause}") from cause
    if not names or len(names) > _MAX_KEYS:
        raise _refused(named, f"holds {len(names)} files; put the trusted public keys there")
    for name in names:
        yield _public_key(place / name, f"{place / name}, in LOTTO_TRUSTED_KEYS,", folder_dirs)


def _public_key(path: Path, named: str, folder_dirs: tuple[Path, ...]) -> tuple[str, bytes]:
    content = _content(path, named, folder_dirs).strip()
    if b"PRIVATE KEY-----" in content:
        raise _refused(
            named, f"holds a private key; give the public one, FILE{PUBLIC_SUFFIX}, and keep this"
        )
    is_one = content.startswith(_PUBLIC_BEGIN) and content.endswith(_PUBLIC_END)
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        if not is_one or content.count(b"-----BEGIN") != 1:
            raise ValueError("it is not one public key in PEM")
        key: Any = load_pem_public_key(content)
    except ImportError as cause:
        raise SettingsError(f"{named} cannot be read: {cause}", fix=INSTALL) from cause
    except Exception as cause:  # as above
        summary = "holds no public key in PEM; move away what is not the one key of a file"
        raise _refused(named, summary) from cause
    pem = _pem(_on_curve(key, named))
    return hashlib.sha256(pem).hexdigest(), pem


def _on_curve(key: Any, named: str) -> EllipticCurvePublicKey:
    curve = getattr(getattr(key, "curve", None), "name", None)
    if curve != _CURVE:
        kind = curve or type(key).__name__.lstrip("_").removesuffix("PublicKey") or "another kind"
        raise _refused(
            named,
            f"holds a key of another kind, {kind}; only ECDSA P-256 will do, as made by: "
            "lotto-mlflow keys new FILE",
        )
    found: EllipticCurvePublicKey = key
    return found


def _pem(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives import serialization  # imported lazily

    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _content(
    path: Path, named: str, folder_dirs: tuple[Path, ...], *, is_private: bool = False
) -> bytes:
    """Return what the file of a key holds."""
    place = _real(path, named, folder_dirs)
    try:
        with regular.opened(place) as file:
            status = os.fstat(file.fileno())
            if status.st_size > _MAX_KEY_BYTES:
                raise _refused(named, f"has {status.st_size:,} bytes, and is no key")
            if is_private and os.name != "nt" and status.st_mode & _OTHERS:
                raise _refused(
                    named,
                    f"may be read or written by others than its owner; run chmod 600 {path}, or "
                    "make a new key if somebody may have read it",
                )
            return file.read(_MAX_KEY_BYTES)
    except SettingsError:
        raise
    except LottoMlflowError as cause:
        raise _refused(named, "is no file; give the file of a key") from cause
    except (OSError, ValueError) as cause:
        raise _refused(named, f"could not be read: {cause}") from cause


def _real(path: Path, named: str, folder_dirs: tuple[Path, ...]) -> Path:
    """Return where a key really lies, which must not be among the models."""
    try:
        _check_outside(path, named, folder_dirs)
        return regular.real_path(path)
    except ValueError as cause:  # a name that no file can have
        if isinstance(cause, SettingsError):
            raise
        raise _refused(named, f"is no file: {cause}") from cause


def _check_outside(path: Path, named: str, folder_dirs: tuple[Path, ...]) -> None:
    # a link lies in one folder, and what it leads to in another
    for place in {regular.real_path(path.parent), regular.real_path(path)}:
        own = regular.is_below(place, *folder_dirs)
        if own or any(map(_is_model_folder, (place, *place.parents))):
            raise SettingsError(
                f"{named} must not lie in a folder of models, since whoever writes models there "
                "could exchange it; choose a place outside",
                path=path,
            )


def _is_model_folder(folder: Path) -> bool:
    with suppress(OSError, ValueError):
        if (folder / "mlflow" / "format.json").is_file():
            return True
        return all((folder / name).is_dir() for name in _FOLDERS_OF_MODELS)
    return False


def _refused(named: str, problem: str) -> SettingsError:
    return SettingsError(f"{named} {problem}", value=named.split(", ")[1].rstrip(","))
