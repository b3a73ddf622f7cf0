"""Where a model lies in both views, and the addresses of pages of the MLflow UI."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from lotto_mlflow import settings
from lotto_mlflow.layout import Layout
from lotto_mlflow.records import ModelRecord
from lotto_mlflow.settings import Settings, Target
from lotto_mlflow.text import masked

UI_PORT = 5000
"""MLflow's usual port: ``ui`` uses it where it is free, so that links stay true."""


def is_server(uri: str | None) -> bool:
    """Return whether a tracking URI is a server's, with a UI of its own."""
    return uri is not None and uri.startswith(("http://", "https://"))


def store_uri(current: Settings, layout: Layout) -> str:
    """Return the tracking URI that plain ``mlflow`` commands need for the current store."""
    return Target.from_settings(current, layout.database_path).tracking_uri


def database_path(current: Settings, layout: Layout) -> Path | None:
    """Return the database file of the current store, ``None`` where that is on a server."""
    return Target.from_settings(current, layout.database_path).database_path


def ui_address(current: Settings) -> str:
    """Return the address of the UI: the server's, without credentials, or that of ``ui``."""
    if not is_server(current.tracking_uri):
        return f"http://127.0.0.1:{UI_PORT}"
    parts = urlsplit(str(current.tracking_uri))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")


def runs_page(address: str, experiment_id: str | None) -> str:
    """Return the page of an experiment's training runs; the UI would open on traces."""
    page = "experiments" if experiment_id is None else f"experiments/{experiment_id}/runs"
    return f"{address}/#/{page}?workflowType=machine_learning"


def places_of(record: ModelRecord, layout: Layout) -> dict[str, str | None]:
    """Return where a model lies in both views, under the keys of ``show --json``."""
    current = settings.read()
    metadata_path = layout.metadata_path(record.name)
    is_mirrored = record.version is not None
    model, version = record.registered_model, record.version
    page = f"{ui_address(current)}/#/models/{quote(model)}/versions/{version}"
    return {
        "metadata_path": str(metadata_path)
        if record.path is not None and metadata_path.exists()
        else None,
        "tracking_uri": masked(store_uri(current, layout)),
        "model_uri": f"models:/{model}/{version}" if is_mirrored else None,
        "link": page if is_mirrored else None,
    }
