"""Seasons of random games and draws, for what is to hold in nearly all of them.

Run as a program it prints the figures: ``python tests/seasons.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lotto_mlflow import chance


@dataclass(frozen=True)
class Figures:
    """Shares of the seasons: the interval held 0.8, the p-value was below; and all hits."""

    covered: float
    below_5_percent: float
    below_1_percent: float
    hits_per_game: float


def samples(random: np.random.Generator, rows: int, balls: int, picked: int) -> np.ndarray:
    """Return rows of different numbers from 0 to ``balls - 1``, by Floyd's method."""
    found = np.empty((rows, picked), dtype=np.int16)
    for place in range(picked):
        last = balls - picked + place
        tried = random.integers(0, last + 1, rows, dtype=np.int16)
        is_there = (found[:, :place] == tried[:, None]).any(axis=1)
        found[:, place] = np.where(is_there, last, tried)
    return found


def figures(*, n_seasons: int, n_draws: int, n_games: int, seed: int, known: int = 0) -> Figures:
    """Return how many seasons of random games are called what.

    Parameters
    ----------
    n_seasons, n_draws, n_games : int
        Seasons, draws in each, games in each draw.
    seed : int
        Seed of the random numbers.
    known : int
        How many numbers of each game are winning ones for sure, 0 or 1; the rest are random.
    """
    random = np.random.default_rng(seed)
    rows = n_seasons * n_draws
    winning = samples(random, rows, 45, 6)
    counts = np.zeros((rows, 45), dtype=np.int16)
    every = np.arange(rows)
    for _ in range(n_games):
        if known:
            first = winning[every, random.integers(0, 6, rows)][:, None]
            others = samples(random, rows, 44, 5)
            game = np.hstack([first, others + (others >= first)])  # any number but the first
        else:
            game = samples(random, rows, 45, 6)
        counts[every[:, None], game] += 1
    hits = np.take_along_axis(counts, winning.astype(np.int64), axis=1).sum(axis=1)
    kinds, of_kind = np.unique(
        np.stack([(counts == c).sum(axis=1) for c in range(n_games + 1)], axis=1),
        axis=0,
        return_inverse=True,
    )
    spreads = [tuple((c, n) for c, n in enumerate(kind) if n) for kind in kinds.tolist()]
    p_values, held = np.empty(n_seasons), 0
    for season, (places, got) in enumerate(
        zip(of_kind.reshape(n_seasons, n_draws), hits.reshape(n_seasons, n_draws), strict=True)
    ):
        p_values[season] = chance.p_value([spreads[place] for place in places], int(got.sum()))
        low, high = chance.interval(got.tolist(), [n_games] * n_draws) or (1, 0)
        held += low <= chance.HITS_PER_GAME <= high
    return Figures(
        covered=held / n_seasons,
        below_5_percent=float((p_values < 0.05).mean()),
        below_1_percent=float((p_values < 0.01).mean()),
        hits_per_game=float(hits.sum()) / (rows * n_games),
    )


if __name__ == "__main__":
    print(figures(n_seasons=10_000, n_draws=100, n_games=5, seed=13))
    for n_games in (1, 5):
        print(figures(n_seasons=10_000, n_draws=30, n_games=n_games, seed=13, known=1))
