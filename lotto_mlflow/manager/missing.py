"""What may have been meant where a model is not there."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from lotto_mlflow import layout as names
from lotto_mlflow import references, text
from lotto_mlflow.errors import ModelNotFoundError
from lotto_mlflow.manager.parts import Parts
from lotto_mlflow.references import VersionReference

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror


def names_on_disk(parts: Parts) -> list[str]:
    """Return the names in ``trained/``, newest first."""
    newest_first = sorted(parts.store.files(), key=lambda f: f[1].st_mtime_ns, reverse=True)
    return [names.name_of(path) for path, _ in newest_first]


def other_names(parts: Parts, name: str) -> list[str]:
    """Return the names of all models but one that are, or have been, in the folders."""
    recorded = parts.outbox.names("")
    found = {*names_on_disk(parts), *parts.store.names_in_backups(), *recorded}
    return sorted(found - {name})


def suggested(
    parts: Parts, mirror: Mirror, given: str, version: VersionReference
) -> tuple[str, ...]:
    """Return what may have been meant by a version that is not there."""
    on_disk = names_on_disk(parts)
    models = sorted({names.registered_model(name) for name in on_disk})
    if references.is_version(given):
        return text.nearest(given, on_disk)
    if version.registered_model not in models:
        found = text.nearest(version.registered_model, models)
        return tuple(str(replace(version, registered_model=name)) for name in found)
    if version.alias is not None:
        aliases = chain.from_iterable(mirror.aliases(version.registered_model).values())
        found = text.nearest(version.alias, aliases)
        return tuple(str(replace(version, alias=alias)) for alias in found)
    return ()


def with_suggestions(error: ModelNotFoundError, near: tuple[str, ...]) -> ModelNotFoundError:
    """Return an error that names what may have been meant."""
    told = error.data | {"suggestions": near}
    return ModelNotFoundError(f"{error.message}{text.question(near)}", **told)
