"""What MLflow shows of a save: legal parameters, metrics and tags, and the description."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from mlflow.entities import Metric, Param

from lotto_mlflow.hyperparameters.texts import digest_of
from lotto_mlflow.layout import registered_model
from lotto_mlflow.records import SaveRecord, is_id
from lotto_mlflow.references import VersionReference
from lotto_mlflow.requirements import version_in
from lotto_mlflow.run_times import SECONDS, STARTED_AT
from lotto_mlflow.text import one_line, shell_command, size_as_text

MAX_KEY = 250
MAX_PARAM = 6_000
MAX_TAG = 8_000
"""Characters that MLflow 3.17 accepts (mlflow.utils.validation)."""
NOTE_TAG = "mlflow.note.content"
"""MLflow 3.17, tracking documentation: the tag that its UI shows as the description."""
_VERSIONS_TAG = "mlflow.modelVersions"
MAX_SUMMARY = 4_000
"""Characters; MLflow's database keeps 5,000 of a version's description."""
_TIMES = "\N{MULTIPLICATION SIGN}"
_MAX_NAME = 80
_MAX_METRICS, _MAX_POINTS, _MAX_DATASETS = 12, 5, 6
_ILLEGAL = re.compile(r"[^\w\-. /]")
_PLAIN_WORDS = re.compile(r"(?!.*www\.)[^\W_]+(?:[ ._/-][^\W_]+)*", re.IGNORECASE)
"""What means nothing in Markdown; MLflow 3.17 renders it with showdown, in GitHub's flavour."""
_EXAMPLE_ALIAS = "champion"
_REGISTERED_MODEL = """\
Models saved by lotto_mlflow. Each version is one save; its page names the metrics and the file.

Load the newest, or the one that an alias names, here `{alias}`, in Python:

```python
import lotto_mlflow

model = lotto_mlflow.load_model({newest})
model = lotto_mlflow.load_model({by_alias})
```

Predict or serve with MLflow alone, where `MLFLOW_TRACKING_URI` names this store:

```sh
{predict}
{serve}
```

An alias is set on the page of a version. MLflow takes the highest number for the newest version, \
lotto_mlflow the newest save: a version with the tag `late` is of an earlier one.
"""


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
            wanted = f"{base}_{digest_of(f'{name}{number or str()}')}"
            number += 1
        used.add(wanted)
        legal[name] = wanted
    return legal


def logged_model_name(name: str) -> str:
    """Return a name that MLflow accepts for a logged model, which is not a key to anything."""
    return "".join("_" if character in "/:.%\"'" else character for character in name)


def _is_legal(name: str) -> bool:
    return bool(name) and not _ILLEGAL.search(name) and _is_one_path(name)


def _is_one_path(name: str) -> bool:
    normal = posixpath.normpath(name)
    return normal == name and normal != "." and not normal.startswith(("..", "/"))


def _without_illegal(name: str) -> str:
    replaced = _ILLEGAL.sub("_", name)
    is_one_path = bool(replaced) and _is_one_path(replaced)
    return replaced if is_one_path else "_" + replaced.replace("/", "_")


def shortened(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` characters; a cut one ends with digits of its digest."""
    if len(text) <= limit:
        return text
    return f"{text[: limit - 11]}...{digest_of(text)}"


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


def link_tag(
    record: SaveRecord, version: int | str, registered: str | None = None
) -> dict[str, str]:
    """Return the tag of a logged model by which the UI shows the version that it became.

    Notes
    -----
    Registering by ``create_model_version`` sets no such tag in a store of one's own, as
    ``register_model`` does (MLflow 3.17, mlflow.tracking._model_registry.fluent), and a server
    does where it does not have it yet.
    """
    name = registered or registered_model(record.name)
    return {_VERSIONS_TAG: json.dumps([{"name": name, "version": str(version)}])}


def summary(
    record: SaveRecord,
    model_id: str | None = None,
    experiment_id: str | None = None,
    *,
    version: int | None = None,
    registered: str | None = None,
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
    version : int, optional
        Number of its version, where that is known.
    registered : str, optional
        The registered model, where it is not the one that the model's name gives.

    Returns
    -------
    str
        `MAX_SUMMARY` characters of Markdown at most. The first line is all that a list of versions
        shows, as it is. Whatever comes from the caller are plain words, or stands in code spans,
        where no character has a meaning.
    """
    saved_at = _time_as_text(record.payload.saved_at, "seconds")
    facts = [
        *_facts(record),
        *_link(model_id, experiment_id),
        *_loading_calls(registered or registered_model(record.name), record, model_id, version),
    ]
    parts = [
        _headline(record),
        *_metric_table(record.payload.description.metrics),
        f"Saved as {_code(record.name)} on {saved_at}",
        "\n".join(facts),
    ]
    return "\n\n".join(parts)[:MAX_SUMMARY]


def _headline(record: SaveRecord) -> str:
    """Return what the model is, its first metric, and when it was saved."""
    description = record.payload.description
    metrics = ((key, points) for key, points in description.metrics.items() if points)
    first = next((one for one in metrics if one[0] not in (SECONDS, STARTED_AT)), None)
    words = [_words(description.model_type)]
    if first is not None:
        words.append(f"{_words(first[0])} {first[1][-1][1]:.6g}")
    saved_at = _time_as_text(record.payload.saved_at, "minutes")
    return ", ".join([*words, f"saved {saved_at}"])


def registered_model_summary(registered: str) -> str:
    """Return the Markdown text that a registered model gets as description when it is created."""
    newest, by_alias = (
        str(VersionReference(registered, alias=alias)) for alias in (None, _EXAMPLE_ALIAS)
    )
    local = ("--env-manager", "local", "-m")
    return _REGISTERED_MODEL.format(
        newest=repr(newest),
        by_alias=repr(by_alias),
        alias=_EXAMPLE_ALIAS,
        predict=shell_command(["mlflow", "models", "predict", *local, newest, "-i", "rows.json"]),
        serve=shell_command(["mlflow", "models", "serve", *local, by_alias]),
    )


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
    if model_id and experiment_id and is_id(model_id) and is_id(experiment_id):
        page = f"#/experiments/{experiment_id}/models/{model_id}?workflowType=machine_learning"
        yield f"- logged model [{model_id}]({page})"


def _loading_calls(
    registered: str, record: SaveRecord, model_id: str | None, version: int | None
) -> Iterator[str]:
    """Yield the calls that open a version, and predict with its logged model."""
    calls = []
    if version is not None:
        reference = str(VersionReference(registered, version=version))
        calls.append((f"lotto_mlflow.load_model({reference!r})", f"opens version {version}"))
    if model_id is not None and record.payload.description.predicts:
        call = f"mlflow.pyfunc.load_model({f'models:/{model_id}'!r})"
        calls.append((call, "predicts with it, where only MLflow is installed"))
    for call, effect in calls:
        shown = _code(call, None)
        if shown[1:-1] == call:  # a name with a backtick cannot be shown in a code span
            yield f"- {shown} {effect}"


def _time_as_text(saved_at: str, timespec: str) -> str:
    """Return a time to minutes as clocks show it, or to seconds with its offset from UTC."""
    try:
        moment = datetime.fromisoformat(saved_at)
    except ValueError:
        return _code(saved_at)
    shown = moment.replace(tzinfo=None) if timespec == "minutes" else moment
    return shown.isoformat(sep=" ", timespec=timespec)


def _words(text: str) -> str:
    """Return a text as it is where nothing in it has a meaning in Markdown, else as a code span."""
    is_plain = len(text) <= _MAX_NAME and _PLAIN_WORDS.fullmatch(text) is not None
    return text if is_plain else _code(text)


def _code(text: str, limit: int | None = _MAX_NAME) -> str:
    """Return a text as a Markdown code span inside a table or a line."""
    plain = one_line(" ".join(text.replace("`", "'").replace("|", "¦").split()))
    if limit is not None and len(plain) > limit:
        plain = plain[: limit - 1] + "…"
    return f"`{plain or ' '}`"
