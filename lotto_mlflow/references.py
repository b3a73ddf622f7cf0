"""The ``models:/`` URIs that name a version."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lotto_mlflow.errors import Fix, InvalidReferenceError
from lotto_mlflow.text import composed

SCHEME = "models:/"
CHAMPION = "champion"
"""The alias of the model that serves, where none is named."""
_LATEST = "latest"
_ALIAS = re.compile(r"[\w-]{1,255}")
"""What MLflow 3.17 accepts as the name of an alias (mlflow.utils.validation)."""
_RESERVED = re.compile(r"(?i:latest)|[vV]\d+")


@dataclass(frozen=True)
class VersionReference:
    """A version of a registered model: by number, by alias, or the latest.

    Attributes
    ----------
    registered_model : str
        Name of the registered model.
    version : int or None
        Its number.
    alias : str or None
        Its alias; with neither number nor alias, the latest is meant.
    """

    registered_model: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        if self.alias is not None:
            return f"{SCHEME}{self.registered_model}@{self.alias}"
        last = _LATEST if self.version is None else self.version
        return f"{SCHEME}{self.registered_model}/{last}"


def is_version(text: str) -> bool:
    """Return whether a text is the number of a version; no database counts past nine digits."""
    return text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0


def check_alias(alias: object) -> str:
    """Return an alias, if MLflow accepts it as one.

    Raises
    ------
    InvalidReferenceError
        If it is none, or reserved. Nothing has been asked of MLflow.
    """
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
        raise InvalidReferenceError(
            f"{alias!r:.300} is no alias; give letters, digits, _ and -, at most 255 of them, such "
            f"as {CHAMPION!r}",
            alias=alias,
        )
    if _RESERVED.fullmatch(alias):
        raise InvalidReferenceError(
            f"the alias {alias!r} is reserved: MLflow reads it as a version; give another, such as "
            f"{CHAMPION!r}",
            alias=alias,
        )
    return alias


def restore_from_registry(name: str, effect: str = "") -> Fix:
    """Return the fix that brings a model back from MLflow, by a reference that means no other.

    Notes
    -----
    A name of digits would be read as a version of ``lotto_model``.
    """
    reference = f"{SCHEME}{name}/{_LATEST}" if is_version(name) else name
    return Fix("restore", {"name_or_version": reference, "source": "registry"}, effect=effect)


def parse(uri: str) -> VersionReference:
    """Return what a ``models:/`` URI names.

    Parameters
    ----------
    uri : str
        ``models:/NAME/1``, ``models:/NAME/latest`` or ``models:/NAME@ALIAS``.

    Raises
    ------
    InvalidReferenceError
        If it has none of these forms.
    """
    rest = composed(uri.removeprefix(SCHEME).strip("/"))
    if "/" in rest:
        name, _, last = rest.rpartition("/")
        if name and "/" not in name and last == _LATEST:
            return VersionReference(name)
        if name and "/" not in name and is_version(last):
            return VersionReference(name, version=int(last))
    else:
        name, _, alias = rest.rpartition("@")
        if name and alias:
            return VersionReference(name, alias=alias)
    raise InvalidReferenceError(
        f"{uri!r} names no version; write {SCHEME}NAME/1, {SCHEME}NAME/{_LATEST} or "
        f"{SCHEME}NAME@ALIAS",
        uri=uri,
    )
