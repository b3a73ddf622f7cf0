"""Pinned distributions that a model needs to be opened elsewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache, lru_cache, partial
from types import ModuleType
from typing import Any

_ALWAYS = ("mlflow", "joblib")
_UNDER_SKLEARN = ("numpy", "scipy")
_DISTRIBUTION_OF_MODULE = {"sklearn": "scikit-learn"}
_VERSION_KEYS = {
    "sklearn_version": "scikit-learn",
    "scikit_learn_version": "scikit-learn",
    "joblib_version": "joblib",
    "numpy_version": "numpy",
}
_PLAIN = re.compile(r"[A-Za-z0-9._\[\],=<>!~*+;()'\" -]{1,1000}")
_VERSION = re.compile(r"[A-Za-z0-9._+!*-]{1,100}")
_MAX_OBJECTS = 20_000
_LEAVES = frozenset({type(None), str, bytes, bool, int, float, complex, ModuleType})


def modules_of(model: Any) -> set[str]:
    """Return the modules that define the classes and functions a model is made of.

    Parameters
    ----------
    model : object
        Any object; its attributes and containers are followed, array contents are not.
    """
    modules = (getattr(part, "__module__", None) for part in _parts(model))
    return {module for module in modules if isinstance(module, str)}


def _parts(model: Any) -> Iterator[Any]:
    """Yield the class of each object reached from a model, and each function and class."""
    seen: dict[int, Any] = {}  # the objects too: an id is used again once its object is gone
    stack = [model]
    while stack and len(seen) < _MAX_OBJECTS:
        thing = stack.pop()
        if id(thing) in seen or type(thing) in _LEAVES:
            continue
        seen[id(thing)] = thing
        yield type(thing)
        with suppress(Exception):  # a model's own __getattr__ may raise anything
            is_definition = hasattr(thing, "__qualname__")
            stack.extend(_inside(thing, is_definition=is_definition))
            if is_definition:
                yield thing


def _inside(thing: Any, *, is_definition: bool) -> list[Any]:
    """Return what an object holds: its items, its attributes, the object of a method."""
    if is_definition:
        return [getattr(thing, "__self__", None)]
    if isinstance(thing, dict):
        return [*thing.keys(), *thing.values()]
    if isinstance(thing, (list, tuple, set, frozenset)):
        return list(thing)
    found = [getattr(thing, "__dict__", None)]
    for kind in type(thing).__mro__:
        names = getattr(kind, "__slots__", ())
        found += [getattr(thing, n, None) for n in ((names,) if isinstance(names, str) else names)]
    if isinstance(thing, partial):
        found += [thing.func, thing.args, thing.keywords]
    return found


def pinned(modules: set[str]) -> list[str]:
    """Return ``distribution==version`` for the modules given, and for what opens the model.

    Parameters
    ----------
    modules : set of str
        Dotted module names. A module that no installed distribution provides is left out.

    Returns
    -------
    list of str
        Sorted and without repetition; mlflow and joblib are always there.
    """
    tops = {module.partition(".")[0] for module in modules}
    names = {found for top in tops if (found := _distribution_of(top)) is not None}
    names |= set(_ALWAYS) | (set(_UNDER_SKLEARN) if "scikit-learn" in names else set())
    pins = {f"{name}=={version}" for name in names if (version := _version(name)) is not None}
    return sorted(pins, key=str.lower)


@cache
def _version(distribution: str) -> str | None:
    from importlib import metadata  # imported lazily

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


@cache
def _distribution_of(module: str) -> str | None:
    """Return the distribution of a top-level module; the slow search is the last resort."""
    if module in _standard_library():
        return None
    name = _DISTRIBUTION_OF_MODULE.get(module, module)
    if _version(name) is not None:
        return name
    return next(iter(_distributions().get(module, ())), None)


@lru_cache(maxsize=1)
def _distributions() -> dict[str, list[str]]:
    from importlib import metadata

    return dict(metadata.packages_distributions())


@lru_cache(maxsize=1)
def _standard_library() -> frozenset[str]:
    return frozenset(sys.stdlib_module_names) | {"__main__", "builtins"}


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


def version_in(pins: list[str], distribution: str) -> str | None:
    """Return the version that a list of pins gives for a distribution."""
    for pin in pins:
        name, separator, version = pin.partition("==")
        is_named = separator and name.strip().lower() == distribution
        if is_named and _VERSION.fullmatch(version.strip()):
            return version.strip()
    return None
