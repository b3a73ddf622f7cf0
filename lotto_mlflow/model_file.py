"""The model files in the folders, and what each says of itself."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from lotto_mlflow import layout as names
from lotto_mlflow import metadata, regular, settings
from lotto_mlflow.layout import Layout
from lotto_mlflow.regular import real_path
from lotto_mlflow.store import Store, sha256_of_file
from lotto_mlflow.text import composed


class ModelFile:
    """A model file in one of the folders; its digest is computed once.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    folder : pathlib.Path or None
        The layout's ``trained_dir``, ``backup_dir`` or ``downloads_dir`` that it lies in.
    layout : Layout
        The folders.
    status : os.stat_result, optional
        Its status, where that was asked already.
    """

    def __init__(
        self,
        path: Path,
        folder: Path | None,
        layout: Layout,
        status: os.stat_result | None = None,
    ) -> None:
        self.path = path
        self.status = os.lstat(path) if status is None else status
        self.is_trained = folder == layout.trained_dir
        self.is_backup = folder == layout.backup_dir
        self.is_download = folder == layout.downloads_dir
        self._layout = layout

    @property
    def time_ns(self) -> int:
        """Its modification time in nanoseconds since 1970."""
        return self.status.st_mtime_ns

    @property
    def stem(self) -> str:
        """Its file name without ``.pkl``, which in ``backups/`` may end with a number."""
        return names.name_of(self.path)

    @property
    def possible_names(self) -> set[str]:
        """The names of the models that it may be of."""
        return {self.stem, names.name_of_backup(self.path)} if self.is_backup else {self.stem}

    @cached_property
    def sha256(self) -> str:
        """The digest of its bytes."""
        return sha256_of_file(self.path)

    @property
    def metadata_path(self) -> Path:
        """Where its metadata lies, if it has any."""
        if self.is_backup:
            return self._layout.backup_metadata_path(self.stem)
        return self._layout.metadata_path(self.stem)

    @cached_property
    def metadata(self) -> dict[str, Any] | None:
        """Its metadata, ``None`` where that is missing or damaged."""
        return metadata.read(self.metadata_path)

    @property
    def declared_sha256(self) -> str | None:
        """The digest that its own metadata declares."""
        declared = (self.metadata or {}).get("sha256")
        return declared if isinstance(declared, str) else None

    @property
    def model_dir(self) -> Path | None:
        """The MLflow model folder that it is the data of, if it is one."""
        folder = regular.real_path(self.path).parent.parent
        return folder if regular.is_file(folder / "MLmodel") else None


class ModelFiles:
    """The model files in the folders, each folder listed once.

    Parameters
    ----------
    store : Store
        The files.

    Attributes
    ----------
    store : Store
        The files.
    layout : Layout
        The folders.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.layout = store.layout

    def file(self, path: Path, status: os.stat_result | None = None) -> ModelFile:
        """Return a model file, however its path is spelled."""
        return ModelFile(path, self.folder_of(path), self.layout, status)

    def folder_of(self, path: Path) -> Path | None:
        """Return which folder of models a file lies in, ``None`` for any other.

        Notes
        -----
        A link lies where it is, whatever it links to. Downloads that have no room in the folder
        count as those that have.
        """
        layout, place = self.layout, real_path(path.parent)
        for folder in (layout.trained_dir, layout.backup_dir):
            if place == real_path(folder):
                return folder
        is_download = regular.is_below(place, layout.downloads_dir, settings.downloads_dir())
        return layout.downloads_dir if is_download else None

    def is_in_folder(self, path: Path) -> bool:
        """Return whether a path is of this folder of models, and not only what it links to."""
        own = (*self.store.folders, self.layout.mlflow_dir, self.layout.artifacts_dir)
        return regular.is_below(path.parent, *own, settings.downloads_dir())

    @cached_property
    def trained_files(self) -> list[ModelFile]:
        """The model files in ``trained/``, by name."""
        return self._files_in(self.layout.trained_dir)

    @cached_property
    def backup_files(self) -> list[ModelFile]:
        """The model files in ``backups/``, by name."""
        return self._files_in(self.layout.backup_dir)

    def backups_of(self, name: str) -> list[ModelFile]:
        """Return the model files in ``backups/`` that may be of a name, by name."""
        return [self.file(path) for path in sorted(self.store.backups_of(name))]

    def _files_in(self, folder: Path) -> list[ModelFile]:
        found = sorted(self.store.files_in(folder), key=lambda item: item[0].name)
        return [
            ModelFile(path, folder, self.layout, status)
            for path, status in found
            if not self.is_hidden(path)
        ]

    def is_hidden(self, path: Path) -> bool:
        """Return whether a model file has the name of another one, in another form of Unicode."""
        return (
            not path.name.isascii()
            and regular.as_named(path.with_name(composed(path.name))) != path
        )

    def aside_path(self, file: ModelFile) -> Path:
        """Return where a damaged file can be put aside, under a name that no other file has."""
        return self.layout.aside_dir / f"{file.stem}.{file.time_ns}{names.SUFFIX}"

    def free_path(self, path: Path) -> Path:
        """Return a path beside a file at which it is a model of its own."""
        stem, number = names.name_of(path), 2
        while os.path.lexists(free := path.with_name(f"{stem}_{number}{names.SUFFIX}")):
            number += 1
        return free

    def hidden_files(self) -> list[Path]:
        """Return the model files that no lookup finds, since others have their names."""
        folders = (self.layout.trained_dir, self.layout.backup_dir)
        found = (path for folder in folders for path, _ in self.store.files_in(folder))
        return sorted(path for path in found if self.is_hidden(path))
