"""Installed distributions: their versions, and which of them a module is of."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import Distribution

MAIN_MODULES = frozenset({"__main__", "__mp_main__"})
"""What Python calls the program itself, and what `multiprocessing` calls it in its children."""
_NAMED_OTHERWISE = {
    "category_encoders": "category-encoders",
    "imblearn": "imbalanced-learn",
    "lotto_mlflow": "lotto-mlflow",
    "sklearn": "scikit-learn",
}
_NAMED_ALIKE = ("catboost", "joblib", "lightgbm", "mlflow", "numpy", "pandas", "scipy")
_KNOWN = _NAMED_OTHERWISE | {n: n for n in (*_NAMED_ALIKE, "statsmodels", "xgboost")}
"""Distributions of modules, for where no ``dist-info`` folder names them."""
_MODULE_OF = {distribution: module for module, distribution in _NAMED_OTHERWISE.items()}
_OWN = "lotto-mlflow"
_VERSION = re.compile(r"[A-Za-z0-9._+!-]{1,100}")
_SUFFIXES = frozenset({".py", ".so", ".pyd"})
_OF_INSTALLATIONS = (".dist-info", ".egg-info", "egg-info")
_Stamp = tuple[tuple[str, int], ...]


def version_of(distribution: str, *, imports: bool = False) -> str | None:
    """Return the version of an installed distribution, ``None`` where it is unknown.

    Parameters
    ----------
    distribution : str
        Its name.
    imports : bool, default=False
        Whether its module may be imported in order to be asked.

    Notes
    -----
    Frozen programs and slim images have modules without a ``dist-info`` folder; there the module
    is asked.
    """
    recorded = _recorded_version(distribution)
    if recorded is not None:
        return recorded
    lower = distribution.lower()
    name = _MODULE_OF.get(lower, lower.replace("-", "_"))
    module: Any = sys.modules.get(name)
    if module is None and imports:
        from importlib import import_module  # imported lazily

        with suppress(Exception):  # one that cannot be imported has no version
            module = import_module(name)
    version = getattr(module, "__version__", None)
    return version if isinstance(version, str) and _VERSION.fullmatch(version) else None


def _stamp() -> _Stamp:
    """Return what changes when something is installed, as in a notebook; a key for caches.

    Notes
    -----
    A file that is written beside the script, whose folder is the first that modules are imported
    from, changes nothing of it.
    """
    found = []
    for entry in sys.path:
        with suppress(OSError, ValueError, TypeError):
            status = Path(entry).stat()
            place = (status.st_dev, status.st_ino, status.st_mtime_ns)
            found.append((entry, _installed_in(entry, place)))
    return tuple(found)


@lru_cache(maxsize=256)
def _installed_in(entry: str, place: tuple[int, int, int]) -> int:
    """Return a number that changes once a folder has other distributions.

    Parameters
    ----------
    entry : str
        The folder, as ``sys.path`` names it.
    place : tuple of int
        Its device, number and modification time: as long as they are the same, so is the answer.
    """
    try:
        with os.scandir(entry or os.curdir) as listed:
            names = (one for one in listed if one.name.lower().endswith(_OF_INSTALLATIONS))
            found = sorted((one.name, one.stat().st_mtime_ns) for one in names)
    except NotADirectoryError:  # an archive, which may have some
        return place[-1]
    return hash(tuple(found))


def _recorded_version(distribution: str) -> str | None:
    from importlib import metadata  # imported lazily

    try:
        version: str | None = metadata.version(distribution)
    except (metadata.PackageNotFoundError, KeyError, OSError, ValueError):
        return None
    return version or None


def is_of_python(module: str) -> bool:
    """Return whether a module is of the standard library, or is the program itself."""
    top = module.partition(".")[0]
    return top in sys.stdlib_module_names or top in MAIN_MODULES


def distribution_of(module: str) -> str | None:
    """Return the distribution that a module is of.

    Parameters
    ----------
    module : str
        Its dotted name. It may lie in a package that several distributions share, or in a folder
        that an editable installation points to.

    Returns
    -------
    str or None
        ``None`` for a module of Python's own, of the program itself, or of no distribution.
    """
    return distributions_of([module]).get(module)


def distributions_of(modules: Iterable[str]) -> dict[str, str | None]:
    """Return the distributions that modules are of, as `distribution_of` does.

    Parameters
    ----------
    modules : iterable of str
        Their dotted names. Those of Python's own and of the program itself are left out.
    """
    stamp = _stamp()
    return {one: _distribution_of(one, stamp) for one in modules if not is_of_python(one)}


@lru_cache(maxsize=1024)
def _distribution_of(module: str, stamp: _Stamp) -> str | None:
    top = module.partition(".")[0]
    name = _KNOWN.get(top, top)
    if _recorded_version(name) is not None and not _is_namespace(top):
        return name
    path = _path_of(module)
    if path is None:
        return next(iter(_providers(stamp).get(top, ())), _KNOWN.get(top))
    return _distribution_at(path, top, stamp) or _KNOWN.get(top)


def _is_namespace(top: str) -> bool:
    """Return whether several distributions may have parts in a package (``google``)."""
    package = sys.modules.get(top)
    return hasattr(package, "__path__") and getattr(package, "__file__", None) is None


def _absolute(path: str) -> Path:
    return Path(os.path.normpath(Path(path).absolute()))


def _path_of(module: str) -> Path | None:
    """Return the file of an imported module; one without a file has that of its parent."""
    while module:
        file = getattr(sys.modules.get(module), "__file__", None)
        if isinstance(file, str):
            with suppress(OSError):  # a relative one, and the current folder was deleted
                return _absolute(file)
        module = module.rpartition(".")[0]
    return None


def _distribution_at(path: Path, top: str, stamp: _Stamp) -> str | None:
    """Return the distribution that brought a file, or that is installed as a link to it.

    Notes
    -----
    A compiled module may have another name inside a pickle than its package gives it: its file
    decides, also between a script of one's own and a distribution with such a module.
    """
    tops = dict.fromkeys((top, *_tops_at(path)))
    names = [name for each in tops for name in _providers(stamp).get(each, ())]
    around = [name for name in dict.fromkeys(names) if _is_around(name, path)]
    if len(around) < 2:
        return around[0] if around else _linked_to(path, stamp)
    return next((name for name in around if _has_file(name, path)), around[0])


def _tops_at(path: Path) -> Iterator[str]:
    """Yield the first part of a file's path below each folder that modules are imported from."""
    for entry in sys.path:
        with suppress(ValueError, TypeError, OSError):
            yield path.relative_to(_absolute(entry)).parts[0].partition(".")[0]


def _root_of(name: str) -> Path:
    from importlib import metadata  # imported lazily

    return _absolute(str(metadata.distribution(name).locate_file("")))


def _below(root: Path, path: Path) -> str | None:
    """Return a path relative to a folder, links followed or not; ``None`` if it is elsewhere."""
    for base, file in ((root, path), (root.resolve(), path.resolve())):
        if file.is_relative_to(base):
            return file.relative_to(base).as_posix()
    return None


def _is_around(name: str, path: Path) -> bool:
    with suppress(Exception):  # an incomplete dist-info
        return _below(_root_of(name), path) is not None
    return False


def _has_file(name: str, path: Path) -> bool:
    from importlib import metadata

    files = {file.as_posix() for file in metadata.files(name) or ()}
    return _below(_root_of(name), path) in files


def _linked_to(path: Path, stamp: _Stamp) -> str | None:
    """Return the distribution whose editable installation points to a folder around a file."""
    found = [(len(str(root)), name) for name, root in _links(stamp) if _below(root, path)]
    return max(found)[1] if found else None


@lru_cache(maxsize=1)
def _links(stamp: _Stamp) -> list[tuple[str, Path]]:
    from importlib import metadata

    return [found for each in metadata.distributions() for found in _link(each)]


def _link(distribution: Distribution) -> Iterator[tuple[str, Path]]:
    """Yield the name and the folder of an editable installation.

    Notes
    -----
    What lies beside this package in its own source tree, as its tests do, is not installed with it.

    References
    ----------
    PyPA specifications: recording the direct URL origin of installed distributions.
    """
    import json  # imported lazily
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    with suppress(Exception):  # what other programs wrote may be anything
        if distribution.name == _OWN:
            return
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        address = urlsplit(str(origin.get("url")))
        if address.scheme == "file" and origin.get("dir_info", {}).get("editable"):
            yield _name_of(distribution), _absolute(url2pathname(address.path))


@lru_cache(maxsize=1)
def _providers(stamp: _Stamp) -> dict[str, list[str]]:
    """Return the distributions of each top-level module.

    Notes
    -----
    ``importlib.metadata.packages_distributions`` of Python 3.10 knows those alone that have a
    ``top_level.txt``, and one incomplete dist-info makes it fail.
    """
    from importlib import metadata

    found: dict[str, set[str]] = {}
    for distribution in metadata.distributions():
        with suppress(Exception):
            name = _name_of(distribution)
            for top in _tops_of(distribution):
                found.setdefault(top, set()).add(name)
    return {top: sorted(names) for top, names in found.items()}


def _name_of(distribution: Distribution) -> str:
    name = distribution.metadata["Name"]
    if not isinstance(name, str):
        raise LookupError("a dist-info without a name")
    return name


def _tops_of(distribution: Distribution) -> set[str]:
    declared = (distribution.read_text("top_level.txt") or "").split()
    if declared:
        return set(declared)
    files = [file for file in distribution.files or () if file.suffix in _SUFFIXES]
    return {file.parts[0].partition(".")[0] for file in files}
