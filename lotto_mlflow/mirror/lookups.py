"""Lookups in the registry: one version, the newest of each name, aliases, and runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.entities.model_registry import ModelVersion

from lotto_mlflow.errors import ForeignModelError, MirrorError
from lotto_mlflow.mirror import registry, version_tags
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.mirror.version_tags import MODEL_NAME_TAG
from lotto_mlflow.records import Aliases, ModelRecord, aliases_by_version
from lotto_mlflow.references import VersionReference
from lotto_mlflow.text import composed

_ASKED_ONE_BY_ONE = 3
"""Registered models up to which each is asked for its aliases, and not all that there are."""
_MODELS_PAGE, _RUNS_PAGE = 500, 200
_T = TypeVar("_T")
_END = object()
Ran = tuple[dict[str, str], dict[str, float]]
"""The parameters and the last values of the metrics of a run."""


def listed(
    connection: Connection,
    pages: Iterator[Iterable[_T]],
    doing: str,
    *,
    seconds: float | None = None,
) -> Iterator[_T]:
    """Yield what pages hold; each is asked for by itself, since all may take minutes."""
    ask = partial(next, pages, _END)
    while isinstance(page := connection.ask(ask, doing, None, seconds=seconds), Iterable):
        yield from page


def newest_of_name(client: MlflowClient, name: str) -> ModelVersion | None:
    """Return the newest version of a model name: one query, however many versions it has."""
    return registry.newest_version(client, None, _of_name(name))


def newest_of_names(connection: Connection, name: str | None, doing: str) -> list[ModelVersion]:
    """Return the newest version of each model name from each folder, newest save first.

    Parameters
    ----------
    connection : Connection
        The store.
    name : str or None
        Only of this name.
    doing : str
        What is asked, for the message of an error.

    Notes
    -----
    That costs a query for each thousand versions, which has the time of a lookup.
    """

    def pages() -> Iterator[list[ModelVersion]]:  # which opens the store when it is first asked
        yield from registry.pages(connection.client, None, "" if name is None else _of_name(name))

    found = (v for v in listed(connection, pages(), doing) if version_tags.is_ours(v.tags))
    newest: dict[tuple[str, str], ModelVersion] = {}
    for version in registry.newest_first(found):
        key = composed(version.tags[MODEL_NAME_TAG]), version_tags.facts_of(version).origin
        newest.setdefault(key, version)
    return list(newest.values())


def _of_name(name: str) -> str:
    return f'tags.{MODEL_NAME_TAG} = "{name}"'


def aliases(client: MlflowClient, registered_models: Collection[str]) -> dict[str, Aliases]:
    """Return the aliases of each version of registered models that has any."""
    if len(registered_models) > _ASKED_ONE_BY_ONE:
        return _aliases_of_all(client, registered_models)
    found = {}
    for name in registered_models:
        model = registry.existing(lambda name=name: client.get_registered_model(name))  # type: ignore[misc]
        if model is not None:
            found[name] = aliases_by_version(sorted(model.aliases.items()))
    return found


def _aliases_of_all(client: MlflowClient, wanted: Collection[str]) -> dict[str, Aliases]:
    found: dict[str, Aliases] = {}
    token = None
    while True:
        page = client.search_registered_models(max_results=_MODELS_PAGE, page_token=token)
        for model in page:
            if model.name in wanted:
                found[model.name] = aliases_by_version(sorted(model.aliases.items()))
        token = page.token
        if not token:
            return found


def runs(connection: Connection, records: Iterable[ModelRecord]) -> dict[str, Ran]:
    """Return what the runs of versions have, by the ids of the runs: a query for each 200."""
    run_ids = list(dict.fromkeys(record.run_id for record in records if record.run_id))
    experiment_id = connection.known_experiment_id() if run_ids else None
    found: dict[str, Ran] = {}
    for start in range(0, len(run_ids) if experiment_id is not None else 0, _RUNS_PAGE):
        quoted = ", ".join(f"'{run_id}'" for run_id in run_ids[start : start + _RUNS_PAGE])
        page = connection.client.search_runs(
            [str(experiment_id)],
            filter_string=f"attributes.run_id IN ({quoted})",
            run_view_type=ViewType.ALL,
            max_results=_RUNS_PAGE,
        )
        for run in page:
            found[run.info.run_id] = (dict(run.data.params), dict(run.data.metrics))
    return found


def version(client: MlflowClient, reference: VersionReference) -> ModelRecord | None:
    """Return the version that a number or an alias names, ``None`` where there is none.

    Raises
    ------
    ForeignModelError
        If it was not made by this package.
    MirrorError
        If the registry answers with another one.
    """
    name = reference.registered_model
    alias = reference.alias
    found = registry.existing(
        lambda: (
            client.get_model_version(name, str(reference.version))
            if alias is None
            else client.get_model_version_by_alias(name, alias)
        )
    )
    if found is None:
        return None
    number = found.version if reference.version is None else reference.version
    is_asked_for = (found.name, str(found.version)) == (name, str(number))
    if not is_asked_for or not version_tags.is_well_formed(found):
        raise MirrorError(
            f"the registry was asked for {reference}, and answers with version "
            f"{found.version} of {found.name}; nothing was loaded",
            error_code=None,
            reference=str(reference),
        )
    tags = found.tags
    if not version_tags.is_ours(tags):
        tags = registry.tags_of_logged_model(client, found)
    if tags is None:
        raise ForeignModelError(
            f"{reference} was not made by lotto_mlflow, so its digest is not known; open it "
            f"with mlflow.pyfunc.load_model({str(reference)!r})",
            reference=str(reference),
            run_id=found.run_id,
            version=int(found.version),
        )
    return version_tags.as_record(found, tags)
