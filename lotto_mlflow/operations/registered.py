"""Registered: the models that the registry knows, whichever machine saved them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lotto_mlflow import layout as names
from lotto_mlflow.errors import SettingsError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.operations import find, since, versions
from lotto_mlflow.plain_values import plain_integer, shown
from lotto_mlflow.records import ModelRecord
from lotto_mlflow.settings import Target
from lotto_mlflow.text import forms

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror


def records(
    folder: ModelFolder,
    name: str | None,
    limit: int | None,
    source: str,
    *,
    with_runs: bool = False,
) -> list[ModelRecord]:
    """Return what is known of the models on disk, or in the registry, newest first.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    name : str, optional
        Only the model of this name.
    limit : int, optional
        At most so many.
    source : {"filesystem", "registry"}
        Which view.
    with_runs : bool
        Whether MLflow is asked for the parameters and metrics of what other machines saved.

    Notes
    -----
    What tags of versions say is corrected by the records of the folder.
    """
    limit = plain_integer(limit)
    is_count = isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0
    if limit is not None and not is_count:
        raise SettingsError(
            f"limit is {shown(limit)}; give how many models are wanted, or None", value=limit
        )
    if find.checked(source) == "filesystem":
        return find.records(folder, name, limit)
    target = folder.target()
    found = _newest(folder, target, name)[:limit]
    if len(found) == 1:
        named = [versions.with_aliases(folder, target, found[0])]
    elif found:
        aliases = find.aliases_of(folder, target, {record.registered_model for record in found})
        named = [replace(record, aliases=find.named_in(aliases, record)) for record in found]
    else:
        return []
    return since.filled(folder, target, _at_hand(folder, target, named, with_runs=with_runs))


def _newest(folder: ModelFolder, target: Target, name: str | None) -> list[ModelRecord]:
    """Return the newest version of each name, or of one, from each folder.

    Notes
    -----
    What this folder saved, also where it was before it was moved or renamed, its records know.
    """
    versions.wait_for_queued(folder, target)
    mirror, history = folder.mirror(target), folder.history()
    found: list[ModelRecord] = []
    own: set[str] = set()
    for version in _asked(mirror, name):
        corrected = history.corrected(version, target)
        if corrected is version or corrected.name not in own:
            found.append(corrected)
        if corrected is not version:
            own.add(corrected.name)
    return found


def _asked(mirror: Mirror, name: str | None) -> list[ModelRecord]:
    if name is None:
        return mirror.records()
    written = forms(name) if names.is_name(name) else ()
    return [version for form in written for version in mirror.records(form)]


def _at_hand(
    folder: ModelFolder, target: Target, found: list[ModelRecord], *, with_runs: bool
) -> list[ModelRecord]:
    """Return records with what the disk has of them, and with what their runs have, if asked."""
    history = folder.history()
    saves = [history.own_save_of_version(record) for record in found]
    others = [record for record, save in zip(found, saves, strict=True) if save is None]
    runs = folder.mirror(target).runs(others) if with_runs and others else {}
    full = []
    for record, save in zip(found, saves, strict=True):
        if save is None:
            params, metrics = runs.get(str(record.run_id), ({}, {}))
        else:
            description = save.payload.description
            params, metrics = description.params, description.last_metrics
        full.append(find.at_hand(folder, history, record, save, params, metrics))
    return full
