"""Pinned distributions that a model needs to be opened elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from lotto_mlflow.distributions import distributions_of, version_of

_ALWAYS = ("mlflow", "joblib")
_UNDER_SKLEARN = ("numpy", "scipy")
_VERSION_KEYS = {
    "sklearn_version": "scikit-learn",
    "scikit_learn_version": "scikit-learn",
    "joblib_version": "joblib",
    "numpy_version": "numpy",
}
_PLAIN = re.compile(r"[A-Za-z0-9._\[\],=<>!~*+;()'\" -]{1,1000}")
_VERSION = re.compile(r"[A-Za-z0-9._+!*-]{1,100}")


Provided = Mapping[str, "str | None"]
"""The distributions of modules, as `lotto_mlflow.distributions.distributions_of` has them."""


def pinned(modules: Iterable[str], provided: Provided | None = None) -> list[str]:
    """Return ``distribution==version`` for the modules given, and for what opens the model.

    Parameters
    ----------
    modules : iterable of str
        Dotted module names. A module that no installed distribution provides is left out.
    provided : mapping of str to str or None, optional
        Their distributions, where they were looked up already.

    Returns
    -------
    list of str
        Sorted and without repetition; mlflow and joblib are always there. A distribution whose
        version is unknown is named without one.
    """
    found = distributions_of(modules) if provided is None else provided
    names = {distribution for distribution in found.values() if distribution is not None}
    names |= set(_ALWAYS) | (set(_UNDER_SKLEARN) if "scikit-learn" in names else set())
    return sorted(map(_pin, names), key=str.lower)


@cache
def _pin(distribution: str) -> str:
    version = version_of(distribution)
    return distribution if version is None else f"{distribution}=={version}"


def unprovided(modules: Iterable[str], provided: Provided | None = None) -> list[str]:
    """Return the modules that no installed distribution provides: files of one's own.

    Parameters
    ----------
    modules : iterable of str
        Dotted module names. Those of Python's own and of the program itself are left out.
    provided : mapping of str to str or None, optional
        As in `pinned`.
    """
    found = distributions_of(modules) if provided is None else provided
    return sorted(module for module, distribution in found.items() if distribution is None)


def in_metadata(metadata: Mapping[str, Any]) -> list[str]:
    """Return the requirements in the metadata of an old file.

    Parameters
    ----------
    metadata : mapping of str to object
        ``requirements`` or ``pip_requirements`` may be a list, lines of text, or versions by
        distribution; ``sklearn_version`` and its like are versions, too.

    Returns
    -------
    list of str
        Those that name a distribution. References to files and addresses are left out: they would
        have another meaning where the model is opened.
    """
    listed = metadata.get("requirements") or metadata.get("pip_requirements") or []
    if isinstance(listed, str):
        listed = listed.splitlines()
    elif isinstance(listed, Mapping):
        listed = [f"{name}=={version}" for name, version in listed.items()]
    found = plain(listed) if isinstance(listed, list) else []
    named = {name_in(line) for line in found}
    for key, distribution in _VERSION_KEYS.items():
        line = f"{distribution}=={metadata.get(key)}"
        if distribution not in named and _is_requirement(line):
            named.add(distribution)
            found.append(line)
    return found


def plain(lines: Iterable[Any]) -> list[str]:
    """Return the lines that name a distribution: no option of pip, no file, and no address.

    Parameters
    ----------
    lines : iterable of object
        What a record or metadata has as requirements; whoever installs them gives them to pip.
    """
    return [line for line in lines if _is_requirement(line)]


def _is_requirement(line: Any) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement  # imported lazily

    # in the text of a marker there may be anything, and pip looks for options and line ends first
    if not isinstance(line, str) or not _PLAIN.fullmatch(line):
        return False
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return False
    return requirement.url is None and not any(word.startswith("-") for word in line.split())


def name_in(requirement: str) -> str:
    """Return the distribution that a requirement names, in lower case."""
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement.strip())
    return match.group(0).lower() if match else ""


def is_other_minor(version: str, other: str) -> bool:
    """Return whether two versions differ in more than their last part, as 1.7.2 and 1.8.0 do."""
    return version.split(".")[:2] != other.split(".")[:2]


def version_in(pins: list[str], distribution: str) -> str | None:
    """Return the version that a list of pins gives for a distribution."""
    for pin in pins:
        name, separator, version = pin.partition("==")
        is_named = separator and name.strip().lower() == distribution
        if is_named and _VERSION.fullmatch(version.strip()):
            return version.strip()
    return None
