"""The short Markdown text that run, logged model and version show as their description."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from lotto_mlflow import layout as names
from lotto_mlflow.records import SaveRecord
from lotto_mlflow.requirements import version_in
from lotto_mlflow.text import size_as_text

NOTE_TAG = "mlflow.note.content"
"""MLflow 3.17, tracking documentation: the tag that its UI shows as the description."""
MAX_TEXT = 4_000
"""Characters; MLflow's database keeps 5,000 of a version's description."""
_TIMES = "\N{MULTIPLICATION SIGN}"
_MAX_NAME = 80
_MAX_METRICS, _MAX_POINTS, _MAX_DATASETS = 12, 5, 6


def of(record: SaveRecord, model_id: str | None = None, experiment_id: str | None = None) -> str:
    """Return the summary of a save.

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
        `MAX_TEXT` characters of Markdown at most. Whatever comes from the caller stands in code
        spans, where no character has a meaning.
    """
    description = record.description
    saved_at = _shown_time(record.saved_at)
    head = f"{_code(description.model_type)} saved as {_code(record.name)} on {saved_at}"
    facts = [*_facts(record), *_link(model_id, experiment_id)]
    parts = [head, *_metrics(description.metrics), "\n".join(facts)]
    return "\n\n".join([*parts, _loading(record, model_id)])[:MAX_TEXT]


def _metrics(metrics: dict[str, list[list[float]]]) -> Iterator[str]:
    if not metrics:
        return
    shown = [(key, points) for key, points in metrics.items() if points][:_MAX_METRICS]
    rows = [f"| {_code(key)} | {_values(points)} |" for key, points in shown]
    yield "\n".join(["| metric | value |", "|---|---|", *rows])
    if len(metrics) > len(shown):
        yield f"and {len(metrics) - len(shown)} more metrics"


def _values(points: list[list[float]]) -> str:
    values = [f"{value:.6g}" for _, value in points]
    if len(values) <= _MAX_POINTS:
        return ", ".join(values)
    return f"{values[0]} … {values[-1]} ({len(values)} values)"


def _facts(record: SaveRecord) -> Iterator[str]:
    kept = record.description.datasets
    for one in kept[:_MAX_DATASETS]:
        yield f"- data {_code(one['context'])}: {_shape(one)}digest {_code(one['digest'])}"
    if len(kept) > _MAX_DATASETS:
        yield f"- and {len(kept) - _MAX_DATASETS} more data sets"
    yield f"- {size_as_text(record.size)}, SHA-256 {_code(record.sha256)}"
    version = version_in(record.description.requirements, "scikit-learn")
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


def _loading(record: SaveRecord, model_id: str | None) -> str:
    registered = names.registered_model(record.name)
    own = f"lotto_mlflow.load_model({f'models:/{registered}/N'!r})"
    text = f"{_code(own, None)} opens version N of the registered model."
    if model_id is None or not record.description.predicts:
        return text
    call = f"mlflow.pyfunc.load_model('models:/{model_id}')"
    return f"{_code(call, None)} predicts with this one; {text}"


def _shown_time(saved_at: str) -> str:
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
