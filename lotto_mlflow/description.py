"""What MLflow shows of a live model and its metadata: parameters, metrics, tags, requirements."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from lotto_mlflow import hyperparameters, requirements
from lotto_mlflow.distributions import MAIN_MODULES, distributions_of
from lotto_mlflow.metadata import strict, writable
from lotto_mlflow.plain_values import free_names
from lotto_mlflow.records import Description

_logger = logging.getLogger("lotto_mlflow")
_MAX_STEPS, _MAX_POINTS = 1_000, 10_000
"""Points of one metric, and of all metrics of a run."""
_NON_FINITE_TAG = "non_finite"


def describe(
    model: Any,
    metadata: Mapping[str, Any],
    *,
    parent_run_id: str | None = None,
    example: dict[str, Any] | None = None,
    datasets: list[dict[str, Any]] | None = None,
) -> Description:
    """Record what MLflow is to show of a model.

    Parameters
    ----------
    model : object
        The live model.
    metadata : mapping of str to object
        The caller's metadata, already plain values.
    parent_run_id, example, datasets
        As in `lotto_mlflow.records.Description`.

    Notes
    -----
    A hyperparameter wins over a metadata key of the same name. Nothing here fails a save: what
    a model does not give is left out with a warning. What the model needs is known once it is
    written: `with_needs` adds that.
    """
    own = hyperparameters.of(model)
    params, metrics, non_finite = _split(metadata, own)
    return Description(
        model_type=writable(type(model).__name__),
        params=params | own,
        metrics=metrics,
        tags=_context_tags() | _non_finite_tag(non_finite),
        requirements=[],
        predicts=has_method(model, "predict"),
        example=example,
        datasets=datasets or [],
        parent_run_id=parent_run_id,
    )


def with_needs(description: Description, names: Mapping[str, Set[str]]) -> Description:
    """Add the requirements, and warn of what no requirement brings.

    Parameters
    ----------
    description : Description
        What `describe` returned.
    names : mapping of str to set of str
        The classes and functions that the pickle names, by module.
    """
    if not MAIN_MODULES.isdisjoint(names):
        of_program = {name for module in MAIN_MODULES for name in names.get(module, ())}
        listed = f" ({', '.join(sorted(of_program))})" if of_program else ""
        _logger.warning(
            "%s uses a class or function defined in __main__%s, so it can be opened only by this "
            "script; move it to a module that the reader can import, and save again",
            description.model_type,
            writable(listed),
        )
    provided = distributions_of(names)
    own = requirements.unprovided(names, provided)
    if own:
        _logger.warning(
            "%s needs %s, which no installed distribution provides; where the model is to be "
            "opened, see that it can be imported",
            description.model_type,
            writable(", ".join(own)),
        )
    return replace(description, requirements=requirements.pinned(names, provided))


def params_and_metrics(metadata: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, float]]:
    """Return the parameters and the last values of metrics in the metadata of an old file."""
    params, metrics, _ = _split(_without_ours(metadata), {})
    return params, {name: points[-1][1] for name, points in metrics.items()}


def _without_ours(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if key not in ("sha256", "size_bytes")}


def describe_by_metadata(metadata: Mapping[str, Any]) -> Description:
    """Return what the metadata of an old file says of its model, which is not opened.

    Notes
    -----
    The distributions that open the file are named in any case, unpinned where no version is known.
    """
    params, metrics, non_finite = _split(_without_ours(metadata), {})
    known = requirements.in_metadata(metadata)
    named = {requirements.name_in(pin) for pin in known}
    opened_by = [name for name in ("joblib", "mlflow", "scikit-learn") if name not in named]
    return Description(
        model_type=str(metadata.get("model_type") or "unknown"),
        params=params,
        metrics=metrics,
        tags=_non_finite_tag(non_finite),
        requirements=sorted([*known, *opened_by], key=str.lower),
    )


def has_method(model: Any, name: str) -> bool:
    """Return whether a model has a method, even where asking it raises an error of its own."""
    try:
        return callable(getattr(model, name, None))
    except Exception:  # noqa: BLE001 - a model's own __getattr__ may raise anything
        return False


def _split(
    metadata: Mapping[str, Any], own: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, list[list[float]]], dict[str, str]]:
    """Sort flattened metadata into parameters, metrics, and numbers that no metric holds."""
    params: dict[str, str] = {}
    metrics: dict[str, list[list[float]]] = {}
    non_finite: dict[str, str] = {}
    flat = _flat(metadata, own)
    numeric = sum(isinstance(value, list) for value in flat.values())
    most = max(2, min(_MAX_STEPS, _MAX_POINTS // max(1, numeric)))
    for key, value in flat.items():
        if key in own:
            continue
        numbers = _numbers(value)
        if numbers is None:
            params[key] = value if isinstance(value, str) else _parameter(value)
            continue
        finite = [[step, x] for step, x in enumerate(numbers) if math.isfinite(x)]
        if finite:
            metrics[key] = _thinned(finite, most)
        if len(finite) < len(numbers):
            odd = (str(x) for x in numbers if not math.isfinite(x))
            non_finite[key] = ", ".join(islice(odd, _MAX_STEPS))
    return params, metrics, non_finite


def _thinned(points: list[list[float]], most: int) -> list[list[float]]:
    """Return evenly spread points of a metric, the first and the last among them.

    Notes
    -----
    The metadata JSON has all of them; MLflow writes a row for each.
    """
    if len(points) <= most:
        return points
    last = len(points) - 1
    return [points[number * last // (most - 1)] for number in range(most)]


def _flat(metadata: Mapping[str, Any], own: Iterable[str]) -> dict[str, Any]:
    """Return flattened metadata; where two have one name, the one with fewer parts keeps it.

    Notes
    -----
    A name that was given as it is, is the one that people look for. The order stays.
    """
    found = list(_flattened(metadata))
    least_nested = sorted(range(len(found)), key=lambda place: found[place][0])
    names = free_names([found[place][1] for place in least_nested], own)
    renamed = dict(zip(least_nested, names, strict=True))
    return {renamed[place]: value for place, (_, _, value) in enumerate(found)}


def _flattened(
    metadata: Mapping[str, Any], prefix: str = "", depth: int = 0
) -> Iterator[tuple[int, str, Any]]:
    """Yield how deeply a value is nested, its name with those of the dicts around it, and it."""
    for key, value in metadata.items():
        if isinstance(value, dict) and value:
            yield from _flattened(value, f"{prefix}{key}.", depth + 1)
        else:
            yield depth, f"{prefix}{key}", value


def _numbers(value: Any) -> list[float] | None:
    """Return a number, or a list of numbers, as floats; ``None`` for anything else."""
    values = value if isinstance(value, list) else [value]
    if not values or any(isinstance(x, bool) or not isinstance(x, (int, float)) for x in values):
        return None
    return [_float(x) for x in values]


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _parameter(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return json.dumps(strict(value), ensure_ascii=False)
    return str(value)


def _non_finite_tag(non_finite: Mapping[str, str]) -> dict[str, str]:
    if not non_finite:
        return {}
    _logger.warning(
        "metadata holds numbers that are not finite, which MLflow cannot keep as metrics: %s; "
        "they are in the tag %r, and null in the JSON",
        ", ".join(non_finite),
        _NON_FINITE_TAG,
    )
    return {_NON_FINITE_TAG: json.dumps(non_finite, ensure_ascii=False)}


def source_tags() -> dict[str, str]:
    """Return the program that saves, and its commit, under MLflow's own tag names.

    Notes
    -----
    Inside a git repository the program's path is the one there, which is the same on every
    machine.

    References
    ----------
    MLflow 3.17, tracking documentation: system tags.
    """
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    source = Path(main or next(iter(getattr(sys, "argv", ())), "") or "<console>")
    tags = {"mlflow.source.type": "LOCAL", "mlflow.source.name": writable(str(source))}
    try:
        folder = source.absolute().parent
    except FileNotFoundError:  # the current folder was deleted
        return tags
    top_dir, commit = _git_checkout(folder)
    if top_dir is not None and source.resolve().is_relative_to(top_dir):
        tags["mlflow.source.name"] = writable(source.resolve().relative_to(top_dir).as_posix())
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def _context_tags() -> dict[str, str]:
    return source_tags() | {"mlflow.user": writable(user())}


def user() -> str:
    """Return the name of the user that this process runs as."""
    import getpass  # imported lazily

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


@lru_cache(maxsize=8)
def _git_checkout(directory: Path) -> tuple[Path | None, str | None]:
    """Return the checkout around a program, and its commit; asked once a process."""
    import subprocess  # imported lazily

    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--show-toplevel", "HEAD"],  # noqa: S607 - found on the PATH
            cwd=directory,
            capture_output=True,
            encoding="utf-8",
            timeout=2,
            check=True,
        )
        top_dir, commit = answer.stdout.splitlines()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None, None
    return Path(top_dir), commit
