"""The settings, read from arguments and environment at the moment they are needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from lotto_mlflow.errors import SettingsError
from lotto_mlflow.text import masked

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

MirrorMode = Literal["sync", "background", "off"]
MIRROR_MODES = ("sync", "background", "off")
DEFAULT_TIMEZONE = "Asia/Seoul"
EMBEDDED = "embedded"
"""Target of the store inside the folder, wherever the folder lies."""

_SQLITE = "sqlite:///"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How one call works.

    Attributes
    ----------
    mirror : {"sync", "background", "off"}
        Whether a save waits for MLflow, does not wait, or only takes down what to tell it.
    timezone : zoneinfo.ZoneInfo
        Zone of dates in generated names and of ``saved_at``.
    tracking_uri : str or None
        MLflow tracking store; ``None`` for the embedded one.
    registry_uri : str or None
        MLflow model registry; ``None`` where it is the tracking store.
    """

    mirror: MirrorMode
    timezone: ZoneInfo
    tracking_uri: str | None
    registry_uri: str | None


def read(
    *,
    mirror: str | None = None,
    timezone: str | None = None,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings in force now: an argument, else the environment, else the default.

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
    return Settings(
        mirror=_mirror_mode(mirror or values.get("LOTTO_MIRROR") or "sync"),
        timezone=_zone(timezone or values.get("LOTTO_TIMEZONE") or DEFAULT_TIMEZONE),
        tracking_uri=_normal(tracking_uri or _callers_uri("tracking", values)),
        registry_uri=_normal(registry_uri or _callers_uri("registry", values)),
    )


def app_dir(environment: Mapping[str, str] | None = None) -> Path:
    """Return the backend's folder: ``LOTTO_APP_DIR``, else ``backend/app`` under the current one.

    Notes
    -----
    An installed package must not write beside itself, so this is not derived from its file.
    """
    values = os.environ if environment is None else environment
    return Path(values.get("LOTTO_APP_DIR") or Path("backend", "app")).absolute()


def base_dir_under(app_dir: Path) -> Path:
    """Return the folder that the specification gives the models in a backend's folder."""
    return app_dir / "models" / "ml"


def _mirror_mode(value: str) -> MirrorMode:
    if value not in MIRROR_MODES:
        raise SettingsError(
            f"LOTTO_MIRROR is {value!r}; allowed are {', '.join(MIRROR_MODES)}", value=value
        )
    return cast(MirrorMode, value)


def _zone(value: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # here, because few imports need it

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
    tracking: str | None = mlflow.get_tracking_uri() if is_set() else None
    if kind == "tracking":
        return tracking
    registry: str = mlflow.get_registry_uri()
    return registry if registry != mlflow.get_tracking_uri() else None


def _normal(uri: str | None) -> str | None:
    """Make relative paths absolute, so that one store has one URI from every folder."""
    if not uri:
        return None
    if uri.startswith(_SQLITE) and not _is_in_memory(uri):
        path, question, query = uri[len(_SQLITE) :].partition("?")
        return f"{_SQLITE}{Path(path).absolute()}{question}{query}"
    if "://" not in uri and not uri.startswith(("databricks", "uc", "file:")):
        return str(Path(uri).absolute())
    return uri.rstrip("/")


def sqlite_path(uri: str) -> Path | None:
    """Return the database file of an SQLite URI, ``None`` for any other URI."""
    if not uri.startswith(_SQLITE) or _is_in_memory(uri):
        return None
    return Path(uri[len(_SQLITE) :].partition("?")[0])


def _is_in_memory(uri: str) -> bool:
    return uri in (_SQLITE, f"{_SQLITE}:memory:")


def target_of(settings: Settings, database_path: Path) -> str:
    """Return the name of the tracking store in force, as save records hold it.

    Parameters
    ----------
    settings : Settings
        The settings in force.
    database_path : pathlib.Path
        Database of the embedded store.

    Returns
    -------
    str
        ``embedded``, or the tracking URI with its credentials masked.
    """
    uri = settings.tracking_uri
    if uri is None or sqlite_path(uri) == database_path.absolute():
        return EMBEDDED
    return masked(uri)


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
