"""Three classifiers on draw histories, and what they are worth against chance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lotto_mlflow.demo.draws import BALLS, PICKED

CHANCE = PICKED / BALLS
CHANCE_HITS = PICKED * PICKED / BALLS
"""Numbers that six random picks share with a draw on average: the hypergeometric mean, 0.8."""
_FOLDS = 3
_BINS = 10


def classifiers(seed: int) -> dict[str, Any]:
    """Return unfitted classifiers by a short name."""
    return {
        "forest": RandomForestClassifier(
            n_estimators=40, max_depth=6, min_samples_leaf=50, random_state=seed, n_jobs=1
        ),
        "boosting": HistGradientBoostingClassifier(
            max_iter=40, learning_rate=0.05, random_state=seed
        ),
        "regression": make_pipeline(StandardScaler(), LogisticRegression(C=0.1)),
    }


def evaluated(
    model: Any, features: NDArray[np.float64], drawn: NDArray[np.int64]
) -> tuple[Any, dict[str, Any]]:
    """Fit a classifier on the earlier three quarters of a history, and measure it on the rest.

    Parameters
    ----------
    model : classifier
        Unfitted; it is fitted in place.
    features : ndarray of float64, shape (n_draws * 45, n_features)
        45 rows for each draw.
    drawn : ndarray of int64, shape (n_draws * 45,)
        1 where the number was drawn.

    Returns
    -------
    model : classifier
        The fitted one.
    metadata : dict
        What `measured` returns, the hits in each third of the test draws, and how many draws there
        were.
    """
    split = int(len(drawn) / BALLS * 0.75) * BALLS
    model.fit(features[:split], drawn[:split])
    likely = model.predict_proba(features[split:])[:, 1]
    truth = drawn[split:]
    hits = hits_per_draw(likely, truth)
    return model, measured(likely, truth) | {
        "hits_per_draw_by_third": [float(part.mean()) for part in np.array_split(hits, _FOLDS)],
        "training_draws": split // BALLS,
        "test_draws": len(truth) // BALLS,
    }


def measured(likely: NDArray[np.float64], truth: NDArray[np.int64]) -> dict[str, float]:
    """Set predicted probabilities beside chance.

    Parameters
    ----------
    likely : ndarray of float64, shape (n_draws * 45,)
        Predicted probability of each number in each draw.
    truth : ndarray of int64, shape (n_draws * 45,)
        1 where the number was drawn.

    Returns
    -------
    dict of str to float
        Log loss beside that of the constant guess 6/45, hits of the six likeliest numbers per
        draw beside the 0.8 of chance, and the calibration error: how far the predicted
        probability is from the frequency, on average over ten groups of equal size.
    """
    return {
        "log_loss": float(log_loss(truth, likely)),
        "log_loss_of_chance": float(log_loss(truth, np.full(len(truth), CHANCE))),
        "hits_per_draw": float(hits_per_draw(likely, truth).mean()),
        "hits_per_draw_of_chance": CHANCE_HITS,
        "calibration_error": _calibration_error(likely, truth),
    }


def _calibration_error(likely: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    groups = np.array_split(np.argsort(likely, kind="stable"), _BINS)
    return float(np.mean([abs(likely[group].mean() - truth[group].mean()) for group in groups]))


def hits_per_draw(likely: NDArray[np.float64], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many of the six likeliest numbers were drawn, for each draw.

    Parameters
    ----------
    likely, truth
        As in `measured`.

    Returns
    -------
    ndarray of int64, shape (n_draws,)
        From 0 to 6.
    """
    by_draw = likely.reshape(-1, BALLS)
    picked = np.argsort(-by_draw, axis=1, kind="stable")[:, :PICKED]
    hits: NDArray[np.int64] = np.take_along_axis(truth.reshape(-1, BALLS), picked, axis=1).sum(
        axis=1
    )
    return hits
