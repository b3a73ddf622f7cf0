"""`ModelManager`: everything that can be done with a folder of models."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from lotto_mlflow import regular, settings
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.layout import Layout
from lotto_mlflow.manager.lifecycle import Lifecycle
from lotto_mlflow.manager.models import Models
from lotto_mlflow.manager.predictions import Predictions
from lotto_mlflow.manager.upkeep import Upkeep

if TYPE_CHECKING:
    from lotto_mlflow.settings import MirrorMode


class ModelManager(Models, Predictions, Upkeep, Lifecycle):
    """The models of one folder, on disk and in MLflow.

    Parameters
    ----------
    base_dir : str, path-like or Layout
        Folder that holds ``trained/``, ``metadata/`` and ``backups/``; made when first needed.
    mirror : {"sync", "background", "off"}, optional
        Wins over ``LOTTO_MIRROR``.
    timezone : str, optional
        IANA name; wins over ``LOTTO_TIMEZONE``.
    tracking_uri, registry_uri : str, optional
        Win over MLflow's own settings. Without any, the store is ``mlflow/mlflow.db`` inside
        the folder.

    Raises
    ------
    SettingsError
        If a setting has a value that is not allowed.

    Notes
    -----
    Safe to use from several threads and processes at once. The environment is read at each call.
    """

    def __init__(
        self,
        base_dir: str | os.PathLike[str] | Layout,
        *,
        mirror: MirrorMode | None = None,
        timezone: str | None = None,
        tracking_uri: str | None = None,
        registry_uri: str | None = None,
    ) -> None:
        read_settings = partial(
            settings.read,
            mirror=mirror,
            timezone=timezone,
            tracking_uri=tracking_uri,
            registry_uri=registry_uri,
        )
        read_settings()  # refuses unknown values now, not at the first save
        if not isinstance(base_dir, Layout):
            base_dir = Layout.under(regular.as_named(regular.absolute(base_dir)))
        self._folder = ModelFolder(base_dir, read_settings)

    @classmethod
    def of_layout(cls, layout: Layout) -> ModelManager:
        """Return a manager of three folders that need not lie side by side."""
        return cls(layout)
