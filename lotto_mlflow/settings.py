"""The settings, read from arguments and environment at the moment they are needed."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from lotto_mlflow import regular
from lotto_mlflow.distributions import version_of
from lotto_mlflow.errors import Fix, SettingsError
from lotto_mlflow.text import masked, one_line, remember
from lotto_mlflow.user_dirs import app_dir, cache_dir, downloads_dir, state_dir

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

__all__ = [
    "CLOCK_TOLERANCE_SECONDS",
    "DEFAULT_TIMEZONE",
    "EMBEDDED",
    "MIRROR_MODES",
    "MirrorMode",
    "Settings",
    "Target",
    "Trust",
    "active_run_id",
    "app_dir",
    "as_number",
    "base_dir_under",
    "cache_dir",
    "downloads_dir",
    "read",
    "sqlite_path",
    "sqlite_uri",
    "state_dir",
]

MirrorMode = Literal["sync", "background", "off"]
Trust = Literal["any", "known", "signed"]
MIRROR_MODES = ("sync", "background", "off")
DEFAULT_TIMEZONE = "Asia/Seoul"
CLOCK_TOLERANCE_SECONDS = 60
"""How far ahead of this machine's clock a time may be, and not count as one that has not come."""
EMBEDDED = "embedded"
"""Name of the target inside the folder, wherever the folder lies."""

_SQLITE = "sqlite:///"
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?) ?([kmgt]?)(i?)b?", re.IGNORECASE | re.ASCII)
_POWERS = ("", "k", "m", "g", "t")
_DEFAULT_DOWNLOADS_MAX = "20G"
_DECODING_SQLALCHEMY = (2, 1)
_SIGNING_MODULES = ("model_signing", "OpenSSL")


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """How one call works.

    Attributes
    ----------
    mirror : {"sync", "background", "off"}
        Whether a save waits for MLflow, does not wait, or only writes its record.
    timezone : zoneinfo.ZoneInfo
        Zone of dates in generated names and of ``saved_at``.
    tracking_uri : str or None
        MLflow tracking store; ``None`` for the embedded one.
    registry_uri : str or None
        MLflow model registry; ``None`` where it is the tracking store.
    artifact_roots : tuple of str
        Beginnings of addresses at which artifacts may lie, beside those known.
    trust : {"any", "known", "signed"}
        Whether a file is opened whose digest no record knows, and no tag of a version without
        record; or only one that a trusted key signed.
    downloads_max_bytes : int
        How much room downloads may have, in each folder that they are kept in.
    signing_key : pathlib.Path or None
        File of the private key that saves are signed with.
    trusted_keys : pathlib.Path or None
        File or folder of the public keys that are trusted.
    """

    mirror: MirrorMode
    timezone: ZoneInfo
    tracking_uri: str | None
    registry_uri: str | None
    artifact_roots: tuple[str, ...] = ()
    trust: Trust = "any"
    downloads_max_bytes: int = 20 * 10**9
    signing_key: Path | None = None
    trusted_keys: Path | None = None

    def __post_init__(self) -> None:
        """Have the secrets of both addresses masked in whatever is said from now on."""
        remember(self.tracking_uri)
        remember(self.registry_uri)

    def __repr__(self) -> str:
        return _shown(self)


def read(
    *,
    mirror: str | None = None,
    timezone: str | None = None,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Return the current settings: an argument, else the environment, else the default.

    Parameters
    ----------
    mirror, timezone, tracking_uri, registry_uri : str, optional
        Arguments that win over ``LOTTO_MIRROR``, ``LOTTO_TIMEZONE``, ``MLFLOW_TRACKING_URI`` and
        ``MLFLOW_REGISTRY_URI``.
    environment : mapping of str to str, optional
        The environment; that of the process by default.

    Raises
    ------
    SettingsError
        If a value is none of the allowed ones.
    """
    values = os.environ if environment is None else environment
    signing_key, trusted_keys = _keys(values)
    return Settings(
        mirror=cast(MirrorMode, _one_of(MIRROR_MODES, "LOTTO_MIRROR", mirror, values)),
        timezone=_zone(timezone or values.get("LOTTO_TIMEZONE") or DEFAULT_TIMEZONE),
        tracking_uri=_normal(tracking_uri or _callers_uri("tracking", values)),
        registry_uri=_normal(registry_uri or _callers_uri("registry", values)),
        artifact_roots=_listed(values.get("LOTTO_ARTIFACT_ROOTS", "")),
        trust=_trust(values, trusted_keys),
        downloads_max_bytes=_size(values, "LOTTO_DOWNLOADS_MAX", _DEFAULT_DOWNLOADS_MAX),
        signing_key=signing_key,
        trusted_keys=trusted_keys,
    )


def base_dir_under(app_dir: Path) -> Path:
    """Return the folder that the specification gives the models in a backend's folder."""
    return app_dir / "models" / "ml"


def _listed(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def as_number(value: object) -> float:
    """Return a real number as a float: one too large as infinite, and NaN for what is none."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return -math.inf if value < 0 else math.inf


def _one_of(
    allowed: tuple[str, ...], name: str, given: str | None, values: Mapping[str, str]
) -> str:
    """Return an argument, else what a variable holds, else the first of the allowed values."""
    value = given or values.get(name) or allowed[0]
    if value not in allowed:
        raise SettingsError(f"{name} is {value!r}; allowed are {', '.join(allowed)}", value=value)
    return value


def _trust(values: Mapping[str, str], trusted_keys: Path | None) -> Trust:
    """Return what is opened; where keys are trusted, by default only what one of them signed."""
    default = None if trusted_keys is None or values.get("LOTTO_TRUST") else "signed"
    trust = cast(Trust, _one_of(get_args(Trust), "LOTTO_TRUST", default, values))
    if trust == "signed" and trusted_keys is None:
        raise SettingsError(
            "LOTTO_TRUST is 'signed', and no key is trusted; set LOTTO_TRUSTED_KEYS to the file or "
            "the folder of the public keys",
            value=trust,
        )
    return trust


def _keys(values: Mapping[str, str]) -> Iterator[Path | None]:
    """Yield where the private key and the public keys are, ``None`` where that is not set.

    Raises
    ------
    SettingsError
        If one is set, and is empty, or the libraries of the extra are not installed.
    """
    for name in ("LOTTO_SIGNING_KEY", "LOTTO_TRUSTED_KEYS"):
        value = values.get(name)
        if value is not None and not value.strip():
            raise SettingsError(f"{name} is set, and is empty; unset it, or name keys", value=value)
        if value and not _has_signing():
            raise SettingsError(
                f"{name} is set, and the libraries that make and check signatures are not "
                "installed; nothing was done",
                fix=Fix("shell", {"command": ("pip", "install", "lotto-mlflow[signing]")}),
                value=value,
            )
        yield regular.absolute(value) if value else None


def _has_signing() -> bool:
    """Return whether the libraries of the extra ``signing`` are there; neither is imported."""
    from importlib.util import find_spec  # imported lazily

    with suppress(ImportError, ValueError):  # it is hidden from this process
        return all(find_spec(module) is not None for module in _SIGNING_MODULES)
    return False


def _size(values: Mapping[str, str], name: str, default: str) -> int:
    """Return a size in bytes: a number, and a unit, K to T in powers of 1000, KiB in 1024."""
    value = values.get(name, "").strip() or default
    match = _SIZE.fullmatch(value)
    if match is None or (match[3] and not match[2]):
        raise SettingsError(
            f"{name} is {value!r:.100}; give a size such as {default}, 500M or a number of bytes",
            value=value,
        )
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS.index(match[2].lower()))


def _zone(value: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # imported lazily

    try:
        return ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as cause:
        raise SettingsError(
            f"LOTTO_TIMEZONE is {value!r}; allowed are the names of the IANA time zone database, "
            f"such as {DEFAULT_TIMEZONE} or UTC",
            value=value,
        ) from cause


def _callers_uri(kind: Literal["tracking", "registry"], values: Mapping[str, str]) -> str | None:
    """Return what the caller set: in MLflow, if it is loaded, else in the environment."""
    mlflow = sys.modules.get("mlflow")
    is_set = getattr(mlflow, "is_tracking_uri_set", None)
    if values is not os.environ or mlflow is None or is_set is None:
        return values.get(f"MLFLOW_{kind.upper()}_URI") or None
    if not is_set():  # else MLflow would look for a store in the current folder, if there is one
        return None if kind == "tracking" else values.get("MLFLOW_REGISTRY_URI") or None
    tracking: str = mlflow.get_tracking_uri()
    if kind == "tracking":
        return tracking
    try:
        registry: str = mlflow.get_registry_uri()
    except Exception:  # noqa: BLE001 - the tracking URI is none, as the push will say
        return None
    return registry if registry != tracking else None


def _normal(uri: str | None) -> str | None:
    """Make relative paths absolute, so that one store has one URI from every folder."""
    if not uri:
        return None
    path = sqlite_path(uri)
    if path is not None:
        query = uri.partition("?")[1:]
        return sqlite_uri(regular.absolute(path)) + "".join(query)
    if uri.startswith("sqlite:"):
        return uri  # in memory
    if "://" not in uri and not uri.startswith(("databricks", "uc", "file:")):
        return str(regular.absolute(uri))
    return uri.rstrip("/")


def _shown(values: Settings | Target) -> str:
    """Return the constructor call of a value, with the secrets in addresses masked."""
    shown = {
        name: masked(value) if name.endswith("_uri") and value else value
        for name, value in vars(values).items()
    }
    return f"{type(values).__name__}({', '.join(f'{n}={v!r}' for n, v in shown.items())})"


@dataclass(frozen=True, kw_only=True, repr=False)
class Target:
    """A tracking store and its registry, resolved once per call.

    Attributes
    ----------
    name : str
        Identity, as records hold it: ``embedded``, or the tracking URI with its secrets masked.
        It is never opened.
    tracking_uri, registry_uri : str
        Addresses; they may hold secrets, and are never shown or recorded.
    database_path : pathlib.Path or None
        The tracking store's SQLite file, ``None`` for a store of another kind.
    artifact_roots : tuple of str
        As in `Settings`.
    """

    name: str
    tracking_uri: str
    registry_uri: str
    database_path: Path | None
    artifact_roots: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Have the secrets of both addresses masked in whatever is said from now on."""
        remember(self.tracking_uri)
        remember(self.registry_uri)

    def __repr__(self) -> str:
        return _shown(self)

    @classmethod
    def from_settings(cls, settings: Settings, embedded_path: Path) -> Target:
        """Return the target that settings select, in a folder with this embedded database."""
        own_path = embedded_path.absolute()
        uri = settings.tracking_uri
        path = own_path if uri is None else sqlite_path(uri)
        is_embedded = path == own_path
        tracking_uri = sqlite_uri(own_path) if is_embedded or uri is None else uri
        return cls(
            name=EMBEDDED if is_embedded else one_line(masked(tracking_uri)),
            tracking_uri=tracking_uri,
            registry_uri=settings.registry_uri or tracking_uri,
            database_path=path,
            artifact_roots=settings.artifact_roots,
        )

    @property
    def is_embedded(self) -> bool:
        """Whether it is the store inside the folder."""
        return self.name == EMBEDDED


def sqlite_path(uri: str) -> Path | None:
    """Return the database file of an SQLite URI, ``None`` for any other URI.

    Notes
    -----
    SQLAlchemy 2.1 reads ``%20`` in the path as a space, 2.0 does not; here it is read as the
    installed release does, which is not imported for it.
    """
    scheme, separator, rest = uri.partition(":///")
    if not separator or scheme not in ("sqlite", "sqlite+pysqlite"):
        return None
    text = rest.partition("?")[0]
    if text in ("", ":memory:"):
        return None
    return Path(_unquoted(text))


def sqlite_uri(path: Path) -> str:
    """Return the URI by which SQLAlchemy opens a database file; `sqlite_path` is its inverse.

    Notes
    -----
    SQLAlchemy 2.0 opens no path with a question mark: there the URI names a file that is not.
    """
    text = str(path)
    if "?" not in text and not ("%" in text and _decodes_paths()):
        return f"{_SQLITE}{text}"
    from urllib.parse import quote  # imported lazily

    return f"{_SQLITE}{quote(text)}"


def _unquoted(text: str) -> str:
    if "%" not in text or not _decodes_paths():
        return text
    from urllib.parse import unquote  # imported lazily

    return unquote(text)


@cache
def _decodes_paths() -> bool:
    """Return whether the installed SQLAlchemy decodes paths."""
    numbers = re.findall(r"\d+", version_of("SQLAlchemy", imports=True) or "")[:2]
    return bool(numbers) and tuple(map(int, numbers)) >= _DECODING_SQLALCHEMY


def active_run_id(settings: Settings) -> str | None:
    """Return the id of the caller's active run, if it runs in the store that a save goes to."""
    mlflow: Any = sys.modules.get("mlflow")
    if getattr(mlflow, "active_run", None) is None or settings.tracking_uri is None:
        return None
    run = mlflow.active_run()
    if run is None or _normal(mlflow.get_tracking_uri()) != settings.tracking_uri:
        return None
    run_id: str = run.info.run_id
    return run_id
