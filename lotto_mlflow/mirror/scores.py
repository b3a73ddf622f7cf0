"""How good predictions were, as metrics of the run and the logged model of the save that made them.

The step of a metric is the number of the draw, and its time is when sales closed, so that the UI
draws the accuracy of all models over the same draws, and what is logged twice is one row. A value
that takes the place of another one is a millisecond later.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from lotto_mlflow.mirror import leftovers
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.records import MlflowIds

_MOST_AT_ONCE = 900
"""Metrics in one request; MLflow 3.17 accepts 1,000 (mlflow.utils.validation)."""


class Point(NamedTuple):
    """One value of a metric.

    Attributes
    ----------
    key : str
        Name of the metric.
    value : float
        The value.
    draw_no : int
        The draw.
    time_ms : int
        When its sales closed, in milliseconds since 1970.
    """

    key: str
    value: float
    draw_no: int
    time_ms: int


def log(connection: Connection, ids: MlflowIds, points: Iterable[Point]) -> bool:
    """Log points of metrics to the run of a save, shown on its logged model, too.

    Parameters
    ----------
    connection : Connection
        The store to write to.
    ids : MlflowIds
        What the save is called there.
    points : iterable of Point
        The points.

    Returns
    -------
    bool
        Whether the run is there; nothing is logged to one that was deleted.

    Notes
    -----
    MLflow keeps one row of equal points (mlflow.store.tracking.sqlalchemy_store, release 3.17). Of
    two values of one time it shows the greater one for a run, and refuses the second for a logged
    model.
    """
    run = leftovers.run_of(connection, ids.run_id) if ids.run_id else None
    if run is None or leftovers.is_deleted(run):
        return False
    model = leftovers.logged_model_of(connection, ids.model_id) if ids.model_id else None
    model_id = None if model is None else model.model_id
    wanted = list(points)
    logged = _logged(connection.client, run, {point.key for point in wanted})
    metrics = (
        Metric(point.key, point.value, _time_ms(point, logged), point.draw_no, model_id)
        for point in wanted
    )
    for some in _batches(metrics):
        connection.client.log_batch(ids.run_id, metrics=some)
    return True


def _logged(
    client: MlflowClient, run: Run, keys: Collection[str]
) -> dict[tuple[str, int], list[Metric]]:
    """Return what a run has of metrics, by their names and the draws."""
    found: dict[tuple[str, int], list[Metric]] = {}
    for key in sorted(keys & run.data.metrics.keys()):
        for metric in client.get_metric_history(run.info.run_id, key):
            found.setdefault((key, metric.step), []).append(metric)
    return found


def _time_ms(point: Point, logged: dict[tuple[str, int], list[Metric]]) -> int:
    """Return the time with which a value is the last one of its draw."""
    before = logged.get((point.key, point.draw_no))
    if before is None:
        return point.time_ms
    last_ms = max(int(metric.timestamp) for metric in before)
    last = (metric.value for metric in before if metric.timestamp == last_ms)
    is_same = all(math.isclose(value, point.value, rel_tol=1e-12) for value in last)
    return last_ms if is_same else last_ms + 1


def _batches(metrics: Iterator[Metric]) -> Iterator[list[Metric]]:
    while some := list(islice(metrics, _MOST_AT_ONCE)):
        yield some
