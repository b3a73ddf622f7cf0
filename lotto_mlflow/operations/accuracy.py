"""How good the predictions of each save were, beside what chance would have done."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

from lotto_mlflow import chance
from lotto_mlflow.draws import RANKS
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.operations import predict
from lotto_mlflow.predicted import Predictions
from lotto_mlflow.records import ModelAccuracy, Prediction

_Save: TypeAlias = tuple[bool, str, str]
"""Whether predictions are backtests, the name of their model, the identity of its save."""

SIGNIFICANT = 0.05
"""Below this adjusted p-value, a save is said to differ from chance."""


def accuracy(folder: ModelFolder, model: predict.Model | None) -> list[ModelAccuracy]:
    """Return how good the predictions of each save in the folder were, or of those of a model."""
    name, save_id = predict.asked_for(folder, Predictions(folder.journal), model)
    found = predict.predictions(folder, None, None)
    return accuracy_of(
        found,
        (one for one in found if name in (None, one.model) and save_id in (None, one.save_id)),
    )


def accuracy_of(
    predictions: Iterable[Prediction], asked: Iterable[Prediction] | None = None
) -> list[ModelAccuracy]:
    """Return how good the predictions of each save were, live and in backtests apart.

    Parameters
    ----------
    predictions : iterable of Prediction
        Those of all saves, since p-values are adjusted for all of them. Those that do not count,
        or whose draw has no result yet, are passed over.
    asked : iterable of Prediction, optional
        Those whose rows are wanted; all are by default.

    Returns
    -------
    list of ModelAccuracy
        A row per save and kind: live before backtests, then by name, then by the age of the save,
        the oldest first.
    """
    return [row for row, _ in measured(predictions, asked)]


def measured(
    predictions: Iterable[Prediction], asked: Iterable[Prediction] | None = None
) -> list[tuple[ModelAccuracy, list[Prediction]]]:
    """Return the rows of `accuracy_of`, each with its predictions in the order of their draws."""
    groups = _by_save(predictions)
    wanted = None if asked is None else set(map(_save_of, asked))
    p_values = {save: _p_value(group) for save, group in groups.items()}
    p_adjusted: dict[_Save, float] = {}
    for is_backtest in (False, True):  # two questions, each asked of all saves
        kind = [save for save in groups if save[0] == is_backtest]
        found = chance.adjusted([p_values[save] for save in kind])
        p_adjusted.update(zip(kind, found, strict=True))
    return [
        (_row(group, p_values[save], p_adjusted[save]), group)
        for save, group in groups.items()
        if wanted is None or save in wanted
    ]


def _by_save(predictions: Iterable[Prediction]) -> dict[_Save, list[Prediction]]:
    """Return the predictions that count and have a result, by kind, model and save."""
    groups: dict[_Save, list[Prediction]] = {}
    for one in predictions:
        if one.counts and one.hits is not None:
            groups.setdefault(_save_of(one), []).append(one)
    return {
        save: sorted(groups[save], key=lambda prediction: prediction.draw_no)
        for save in sorted(groups)
    }


def _save_of(prediction: Prediction) -> _Save:
    return prediction.is_backtest, prediction.model, prediction.save_id


def summary(rows: Iterable[ModelAccuracy]) -> str:
    """Return the one sentence that says whether any save differs from chance."""
    found = list(rows)
    if not found:
        return "No prediction that counts has met its draw yet."
    differing = [row for row in found if row.p_adjusted < SIGNIFICANT]
    if not differing:
        subject = "The save does not differ" if len(found) == 1 else f"None of {len(found)} differs"
        lowest = min(row.p_adjusted for row in found)
        return (
            f"{subject} from chance, which hits {chance.HITS_PER_GAME:g} numbers a game "
            f"(adjusted p {'' if len(found) == 1 else 'from '}{p_as_text(lowest)})."
        )
    named = ", ".join(
        f"{label_of(row)} ({row.hits_per_game:.3g}, adjusted p {p_as_text(row.p_adjusted)})"
        for row in sorted(differing, key=lambda row: row.p_adjusted)
    )
    verb = "differs" if len(differing) == 1 else "differ"
    warning = (
        "; a backtest does also where the model was trained on its draws"
        if any(row.is_backtest for row in differing)
        else ""
    )
    return (
        f"{len(differing)} of {len(found)} {verb} from chance, which hits {chance.HITS_PER_GAME:g} "
        f"numbers a game: {named}{warning}."
    )


def label_of(row: ModelAccuracy) -> str:
    """Return the name, version and kind of a row, for a person."""
    version = "" if row.version is None else f" version {row.version}"
    return f"{row.model}{version}{' backtest' if row.is_backtest else ''}"


def p_as_text(value: float) -> str:
    """Return a p-value to two digits."""
    if value < 1e-99:
        return "< 1e-99"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _p_value(group: list[Prediction]) -> float:
    return chance.p_value(
        [chance.spread_of(one.games) for one in group], sum(sum(one.hits or ()) for one in group)
    )


def _row(group: list[Prediction], p_value: float, p_adjusted: float) -> ModelAccuracy:
    hits = [sum(one.hits or ()) for one in group]
    games = [len(one.games) for one in group]
    ranks = [rank for one in group for rank in one.ranks or ()]
    losses = [one.log_loss for one in group if one.log_loss is not None]
    versions = [one.version for one in group if one.version is not None]
    return ModelAccuracy(
        model=group[0].model,
        version=max(versions, default=None),
        is_backtest=group[0].is_backtest,
        draws=len(group),
        games=sum(games),
        hits_per_game=sum(hits) / sum(games),
        interval=chance.interval(hits, games),
        p_value=p_value,
        p_adjusted=p_adjusted,
        prizes={rank: ranks.count(rank) for rank in RANKS},
        log_loss=math.fsum(losses) / len(losses) if losses else None,
    )
