"""What MLflow shows of a save: legal parameters, metrics and tags, and the description."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from mlflow.entities import Metric, Param

from lotto_mlflow.layout import registered_model
from lotto_mlflow.records import SaveRecord
from lotto_mlflow.requirements import version_in
from lotto_mlflow.text import size_as_text

MAX_KEY = 250
MAX_PARAM = 6_000
MAX_TAG = 8_000
"""Characters that MLflow 3.17 accepts (mlflow.utils.validation)."""
NOTE_TAG = "mlflow.note.content"
"""MLflow 3.17, tracking documentation: the tag that its UI shows as the description."""
MAX_SUMMARY = 4_000
"""Characters; MLflow's database keeps 5,000 of a version's description."""
_TIMES = "\N{MULTIPLICATION SIGN}"
_MAX_NAME = 80
_MAX_METRICS, _MAX_POINTS, _MAX_DATASETS = 12, 5, 6
_ILLEGAL = re.compile(r"[^\w\-. /]")


def legal_names(names: Iterable[str]) -> dict[str, str]:
    """Return a name that MLflow accepts for each name given, all of them different.

    Notes
    -----
    A legal name stays. Of another, each illegal character becomes an underscore; it is shortened,
    or made different from one like it, by the first digits of its digest.
    """
    legal: dict[str, str] = {}
    used: set[str] = set()
    for name in sorted(names, key=lambda n: (not _is_legal(n), n)):
        wanted = name if _is_legal(name) else _without_illegal(name)
        base, number = wanted[: MAX_KEY - 9], 0
        while wanted in used or len(wanted) > MAX_KEY:
            wanted = f"{base}_{_digits(f'{name}{number or str()}')}"
            number += 1
        used.add(wanted)
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
        Returns name and digest of the data set of a metric, where they are known.
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


def summary(
    record: SaveRecord, model_id: str | None = None, experiment_id: str | None = None
) -> str:
    """Return the short Markdown text that run, logged model and version show as description.

    Parameters
    ----------
    record : SaveRecord
        The save.
    model_id : str, optional
        Its logged model, where that is known already.
    experiment_id : str, optional
        Where it is given, the text links to the logged model: the UI itself links a version only
        to its run, unless the version's source is a ``models:/`` URI (MLflow 3.17).

    Returns
    -------
    str
        `MAX_SUMMARY` characters of Markdown at most. Whatever comes from the caller stands in code
        spans, where no character has a meaning.
    """
    description = record.payload.description
    saved_at = _time_as_text(record.payload.saved_at)
    head = f"{_code(description.model_type)} saved as {_code(record.name)} on {saved_at}"
    facts = [*_facts(record), *_link(model_id, experiment_id)]
    parts = [head, *_metric_table(description.metrics), "\n".join(facts)]
    return "\n\n".join([*parts, _loading_calls(record, model_id)])[:MAX_SUMMARY]


def _metric_table(metrics: dict[str, list[list[float]]]) -> Iterator[str]:
    if not metrics:
        return
    shown = [(key, points) for key, points in metrics.items() if points][:_MAX_METRICS]
    rows = [f"| {_code(key)} | {_points_as_text(points)} |" for key, points in shown]
    yield "\n".join(["| metric | value |", "|---|---|", *rows])
    if len(metrics) > len(shown):
        yield f"and {len(metrics) - len(shown)} more metrics"


def _points_as_text(points: list[list[float]]) -> str:
    values = [f"{value:.6g}" for _, value in points]
    if len(values) <= _MAX_POINTS:
        return ", ".join(values)
    return f"{values[0]} … {values[-1]} ({len(values)} values)"


def _facts(record: SaveRecord) -> Iterator[str]:
    kept = record.payload.description.datasets
    for one in kept[:_MAX_DATASETS]:
        yield f"- data {_code(one['context'])}: {_shape(one)}digest {_code(one['digest'])}"
    if len(kept) > _MAX_DATASETS:
        yield f"- and {len(kept) - _MAX_DATASETS} more data sets"
    yield f"- {size_as_text(record.payload.size)}, SHA-256 {_code(record.payload.sha256)}"
    version = version_in(record.payload.description.requirements, "scikit-learn")
    if version is not None:
        yield f"- scikit-learn {_code(version)}"


def _shape(dataset: dict[str, Any]) -> str:
    shape = dataset.get("shape")
    if not shape:
        return ""
    return f" {_TIMES} ".join(f"{length:,}" for length in shape) + ", "


def _link(model_id: str | None, experiment_id: str | None) -> Iterator[str]:
    if model_id is not None and experiment_id is not None:
        page = f"#/experiments/{experiment_id}/models/{model_id}?workflowType=machine_learning"
        yield f"- logged model [{model_id}]({page})"


def _loading_calls(record: SaveRecord, model_id: str | None) -> str:
    registered = registered_model(record.name)
    own = f"lotto_mlflow.load_model({f'models:/{registered}/N'!r})"
    text = f"{_code(own, None)} opens version N of the registered model."
    if model_id is None or not record.payload.description.predicts:
        return text
    call = f"mlflow.pyfunc.load_model('models:/{model_id}')"
    return f"{_code(call, None)} predicts with this one; {text}"


def _time_as_text(saved_at: str) -> str:
    try:
        return datetime.fromisoformat(saved_at).isoformat(sep=" ", timespec="seconds")
    except ValueError:
        return _code(saved_at)


def _code(text: str, limit: int | None = _MAX_NAME) -> str:
    """Return a text as a Markdown code span inside a table or a line."""
    plain = " ".join(text.replace("`", "'").replace("|", "¦").split())
    if limit is not None and len(plain) > limit:
        plain = plain[: limit - 1] + "…"
    return f"`{plain or ' '}`"
