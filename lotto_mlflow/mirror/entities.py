"""Parameters, metrics and tags as MLflow takes them: legal names, bounded lengths, one each."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping

from mlflow.entities import Metric, Param

MAX_KEY = 250
MAX_PARAM = 6_000
MAX_TAG = 8_000
"""Characters that MLflow 3.17 accepts (mlflow.utils.validation)."""

_ILLEGAL = re.compile(r"[^\w\-. /]")


def legal_names(names: Iterable[str]) -> dict[str, str]:
    """Return a name that MLflow takes for each name given, all of them different.

    Notes
    -----
    A legal name stays. Of another, each illegal character becomes an underscore; it is shortened,
    or told apart from one like it, by the first digits of its digest.
    """
    legal: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names, key=lambda n: (not _is_legal(n), n)):
        wanted = name if _is_legal(name) else _without_illegal(name)
        base, number = wanted[: MAX_KEY - 9], 0
        while wanted in taken or len(wanted) > MAX_KEY:
            wanted = f"{base}_{_digits(f'{name}{number or str()}')}"
            number += 1
        taken.add(wanted)
        legal[name] = wanted
    return legal


def _is_legal(name: str) -> bool:
    return bool(name) and not _ILLEGAL.search(name) and _is_one_path(name)


def _is_one_path(name: str) -> bool:
    normal = posixpath.normpath(name)
    return normal == name and normal != "." and not normal.startswith(("..", "/"))


def _without_illegal(name: str) -> str:
    replaced = _ILLEGAL.sub("_", name)
    is_one_path = bool(replaced) and _is_one_path(replaced)
    return replaced if is_one_path else "_" + replaced.replace("/", "_")


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def shortened(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` characters; a cut one ends with digits of its digest."""
    if len(text) <= limit:
        return text
    return f"{text[: limit - 11]}...{_digits(text)}"


def params(values: Mapping[str, str]) -> list[Param]:
    """Return MLflow parameters."""
    names = legal_names(values)
    return [Param(names[key], shortened(value, MAX_PARAM)) for key, value in values.items()]


def metrics(
    values: Mapping[str, list[list[float]]],
    timestamp_ms: int,
    model_id: str,
    measured_on: Callable[[str], tuple[str, str] | None],
) -> list[Metric]:
    """Return MLflow metrics, shown on run and logged model alike.

    Parameters
    ----------
    values : mapping of str to list of [step, value]
        The points of each metric.
    timestamp_ms : int
        Time of all points, in milliseconds since 1970.
    model_id : str
        The logged model.
    measured_on : callable
        Tells name and digest of the data set of a metric, where they are known.
    """
    names = legal_names(values)
    made = []
    for key, points in values.items():
        name, digest = measured_on(key) or (None, None)
        made += [
            Metric(names[key], value, timestamp_ms, int(step), model_id, name, digest)
            for step, value in points
        ]
    return made


def tags(values: Mapping[str, str]) -> dict[str, str]:
    """Return MLflow tags."""
    names = legal_names(values)
    return {names[key]: shortened(value, MAX_TAG) for key, value in values.items()}
