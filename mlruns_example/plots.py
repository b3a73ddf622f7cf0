"""The two figures of each save."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lotto_mlflow.demo.draws import BALLS, PICKED
from lotto_mlflow.demo.training import CHANCE, CHANCE_HITS

_SIZE, _DPI = (7.0, 3.2), 70
_MODEL, _CHANCE = "#2272b4", "#c82d4c"


def probability_per_number(likely: np.ndarray[Any, Any]) -> Figure:
    """Draw the predicted probability of each number in one draw, and that of chance.

    Parameters
    ----------
    likely : ndarray of float64, shape (45,)
        Probabilities, of 1 first.
    """
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.bar(np.arange(1, BALLS + 1), likely, color=_MODEL)
    axes.axhline(CHANCE, color=_CHANCE, label=f"chance: {PICKED}/{BALLS}")
    axes.set(xlabel="number", ylabel="predicted probability", title="The last draw of the test")
    axes.set_xlim(0.2, BALLS + 0.8)
    axes.legend(loc="lower right")
    return figure


def hits_per_draw(hits: np.ndarray[Any, Any]) -> Figure:
    """Draw how many draws had how many hits, and how many they would be by chance.

    Parameters
    ----------
    hits : ndarray of int64, shape (n_draws,)
        Numbers among the six likeliest that were drawn.
    """
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    counts = np.bincount(hits, minlength=PICKED + 1)
    expected = [len(hits) * _hypergeometric(k) for k in range(PICKED + 1)]
    axes.bar(np.arange(PICKED + 1), counts, color=_MODEL, label=f"model: {hits.mean():.2f} a draw")
    axes.plot(expected, "o-", color=_CHANCE, label=f"chance: {CHANCE_HITS:.2f} a draw")
    axes.set(xlabel="hits of the six likeliest", ylabel="draws", title="Hits per draw")
    axes.legend()
    return figure


def _hypergeometric(hits: int) -> float:
    others = comb(BALLS - PICKED, PICKED - hits)
    return comb(PICKED, hits) * others / comb(BALLS, PICKED)
