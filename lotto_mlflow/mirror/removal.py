"""Removing a save from MLflow: its version, its logged model, its run, and the files of both."""

from __future__ import annotations

from typing import cast

from mlflow.entities.model_registry import ModelVersion

from lotto_mlflow import layout as names
from lotto_mlflow import regular
from lotto_mlflow.errors import ModelInUseError
from lotto_mlflow.layout import Layout
from lotto_mlflow.mirror import leftovers, registry, version_tags
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.records import PRUNE, MlflowIds, PruneRecord, SaveRecord


def remove(connection: Connection, save: SaveRecord | PruneRecord, *, is_forced: bool) -> list[str]:
    """Remove what the record of a save says that pushes created in a store.

    Parameters
    ----------
    connection : Connection
        The store to write to.
    save : SaveRecord or PruneRecord
        The save; or the record of its end, where it was removed from another store.
    is_forced : bool
        Whether its version goes even where an alias stands for it; the alias goes, too.

    Returns
    -------
    list of str
        What could not be removed, and what removes it.

    Raises
    ------
    ModelInUseError
        If an alias stands for the version, or another version refers to its run, its logged model
        or their files. Nothing was removed.

    Notes
    -----
    Idempotent: what an earlier call removed is not missed. The run is marked as deleted, as MLflow
    does it, and has no files then.
    """
    ids = save.mirrored.get(connection.target_name)
    if ids is None:
        if save.kind != PRUNE:
            leftovers.remove(connection, cast(SaveRecord, save))
        return []
    client, name = connection.client, names.registered_model_of(ids, save.name)
    own = registry.existing(lambda: client.get_model_version(name, str(ids.version)))
    if own is not None and not _is_of(own, name, ids):
        own = None  # another one has its number, which MLflow itself never does
    others = {
        (v.name, int(v.version))
        for v in leftovers.versions_using(connection, ids)
        if (v.name, int(v.version)) != (name, ids.version) or own is None
    }
    if others:
        raise _in_use_by(save, others)
    aliases = [] if own is None else list(own.aliases)
    if aliases and not is_forced:
        raise ModelInUseError(
            f"version {ids.version} of {name} has the alias {', '.join(aliases)}; nothing of "
            f"{save.name} was removed",
            name=save.name,
            aliases=tuple(aliases),
        )
    for alias in aliases:
        client.delete_registered_model_alias(name, alias)
    if own is not None:
        client.delete_model_version(name, str(ids.version))
    connection.newest_versions.pop(name, None)
    return list(leftovers.remove_entities(connection, ids))


def _is_of(version: ModelVersion, name: str, ids: MlflowIds) -> bool:
    is_named = (version.name, str(version.version)) == (name, str(ids.version))
    return is_named and version_tags.is_well_formed(version) and version.run_id == ids.run_id


def _in_use_by(save: SaveRecord | PruneRecord, others: set[tuple[str, int]]) -> ModelInUseError:
    listed = ", ".join(f"version {number} of {name}" for name, number in sorted(others))
    return ModelInUseError(
        f"{listed} refers to the files of {save.name}; nothing of it was removed",
        name=save.name,
        versions=tuple(sorted(others)),
    )


def size_of(layout: Layout, ids: MlflowIds) -> int | None:
    """Return the bytes that a save takes in the embedded store's artifacts, ``None`` elsewhere."""
    root = layout.artifacts_dir / names.REGISTERED_MODEL
    folders = [root / "models" / ids.model_id, root / ids.run_id]
    found = [folder for folder in folders if folder.name and regular.is_folder(folder)]
    if not found:
        return None
    below = (path for folder in found for path, kind in regular.below(folder) if kind is None)
    statuses = (regular.status_of(path) for path in below)
    return sum(status.st_size for status in statuses if status is not None)
