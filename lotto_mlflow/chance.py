"""How many hits chance gives games, and how likely a number of hits is.

Given the games, the hits of a draw are the sum of a sample of six, without replacement, from the
counts of the 45 numbers: in how many games each is. So their mean, variance and distribution are
exact for games that overlap, too, and depend only on how many numbers are in no game, in one, in
two and so on: the *spread* of the games.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from lotto_mlflow.draws import BALLS, PICKED, Game

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Probabilities: TypeAlias = NDArray[np.float64]

Spread: TypeAlias = tuple[tuple[int, int], ...]
"""Pairs of a count and how many of the 45 numbers are in so many games, by ascending count."""

HITS_PER_GAME = PICKED * PICKED / BALLS
"""What chance gives: 0.8."""
EXACT_DRAWS = 200
"""Up to so many draws a p-value is exact."""
COVERAGE = 0.95
_WAYS = math.comb(BALLS, PICKED)


def spread_of(games: Iterable[Game]) -> Spread:
    """Return in how many games how many numbers are.

    Parameters
    ----------
    games : iterable of tuple of int
        The games of one draw, as `lotto_mlflow.draws.checked_games` returns them.
    """
    counts = Counter(chain.from_iterable(games))
    spread = Counter(counts.values())
    if len(counts) < BALLS:
        spread[0] = BALLS - len(counts)
    return tuple(sorted(spread.items()))


def games_in(spread: Spread) -> int:
    """Return how many games have a spread."""
    return sum(count * numbers for count, numbers in spread) // PICKED


def mean_of(spread: Spread) -> float:
    """Return the expected hits of a draw: 0.8 a game."""
    return PICKED * PICKED * games_in(spread) / BALLS


@lru_cache(maxsize=1024)
def variance_of(spread: Spread) -> float:
    """Return the variance of the hits of a draw: 6 S² · 39/45, S² the counts' variance over 44."""
    total = sum(count * numbers for count, numbers in spread)
    squares = sum(count * count * numbers for count, numbers in spread)
    # BALLS · 44 · S² as a whole number, which is exact
    deviation = BALLS * squares - total * total
    return PICKED * (BALLS - PICKED) * deviation / (BALLS * BALLS * (BALLS - 1))


def p_value(spreads: Sequence[Spread], hits: int) -> float:
    """Return the two-sided p-value of hits in some draws: min(1, 2 · min(P(H ≤ h), P(H ≥ h))).

    Parameters
    ----------
    spreads : sequence of Spread
        The spread of the games of each draw.
    hits : int
        Hits in all of them.

    Returns
    -------
    float
        Between 0 and 1; less than 1e-300 may be 0.

    Notes
    -----
    Up to `EXACT_DRAWS` draws the distributions of the draws are convolved. No term is negative, so
    each probability is exact to about 12 digits, however small; a Fourier transform would be exact
    to 1e-16 of the largest only. Beyond, the normal distribution stands for theirs, with a
    continuity correction of half a step: a step is 1, or the most that divides all differences
    between hits that can be, such as 10 where every game was played ten times.
    """
    step = _step(spreads)
    if step == 0:  # whatever is drawn, the hits are the same
        return 1.0
    if len(spreads) > EXACT_DRAWS:
        low, high = _normal_tails(spreads, hits, step)
    else:
        low, high = _exact_tails(spreads, hits, step)
    return min(1.0, 2 * min(low, high))


def interval(hits: Sequence[int], games: Sequence[int]) -> tuple[float, float] | None:
    """Return the interval that holds the expected hits of a game in 95 % of all cases.

    Parameters
    ----------
    hits, games : sequence of int, shape (n_draws,)
        Hits and games of each draw.

    Returns
    -------
    tuple of float or None
        ``r ± t(D - 1) · sqrt(D / (D - 1) · Σ (H_d - r G_d)²) / Σ G_d``, with ``r`` the hits of a
        game on average; ``None`` below two draws.
    """
    draws, played = len(hits), sum(games)
    if draws < 2:
        return None
    from scipy.special import stdtrit  # imported lazily

    ratio = sum(hits) / played
    squares = math.fsum((h - ratio * g) ** 2 for h, g in zip(hits, games, strict=True))
    quantile = float(stdtrit(draws - 1, (1 + COVERAGE) / 2))
    half = quantile * math.sqrt(draws / (draws - 1) * squares) / played
    return ratio - half, ratio + half


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's method, in the order given.

    References
    ----------
    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6 (1979), pages 65 to 70.
    """
    found, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        found[place] = highest
    return found


def band(spreads: Iterable[Spread]) -> list[tuple[float, float]]:
    """Return between what chance keeps the hits of a game in 95 % of all cases, draw by draw.

    Returns
    -------
    list of tuple of float, shape (n_draws,)
        Ends for the average over the draws up to each, by the normal distribution.
    """
    from scipy.special import ndtri  # imported lazily

    quantile = float(ndtri((1 + COVERAGE) / 2))
    ends, variance, games = [], 0.0, 0
    for spread in spreads:
        variance += variance_of(spread)
        games += games_in(spread)
        half = quantile * math.sqrt(variance) / games
        ends.append((max(0.0, HITS_PER_GAME - half), min(PICKED, HITS_PER_GAME + half)))
    return ends


def distribution(spreads: Sequence[Spread]) -> tuple[int, int, Probabilities]:
    """Return the exact distribution of the hits in some draws.

    Returns
    -------
    lowest : int
        The fewest hits that can be.
    step : int
        How far apart those are that can be.
    probabilities : ndarray of float64
        Of ``lowest``, ``lowest + step`` and so on.
    """
    import numpy as np  # imported lazily

    step = _step(spreads) or 1
    parts = sorted((_probabilities(_reduced(spread, step)) for spread in spreads), key=len)
    while len(parts) > 1:  # in pairs, so that few convolutions are long
        joint = [np.convolve(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = joint + parts[len(joint) * 2 :]
    return sum(PICKED * spread[0][0] for spread in spreads), step, parts[0]


def _exact_tails(spreads: Sequence[Spread], hits: int, step: int) -> tuple[float, float]:
    lowest, _, probabilities = distribution(spreads)
    up_to, start = (hits - lowest) // step + 1, -((lowest - hits) // step)
    low, high = probabilities[: max(0, up_to)], probabilities[max(0, start) :]
    return math.fsum(low.tolist()), math.fsum(high.tolist())


def _normal_tails(spreads: Sequence[Spread], hits: int, step: int) -> tuple[float, float]:
    from scipy.special import ndtr  # imported lazily

    deviation = math.sqrt(math.fsum(map(variance_of, spreads)))
    distance = hits - math.fsum(map(mean_of, spreads))
    return (
        float(ndtr((step / 2 + distance) / deviation)),
        float(ndtr((step / 2 - distance) / deviation)),
    )


def _step(spreads: Iterable[Spread]) -> int:
    """Return what divides all differences between the hits that can be; 0 where there are none."""
    return math.gcd(*(count - spread[0][0] for spread in set(spreads) for count, _ in spread))


def _reduced(spread: Spread, step: int) -> Spread:
    """Return a spread with its counts from 0, in steps."""
    lowest = spread[0][0]
    return tuple(((count - lowest) // step, numbers) for count, numbers in spread)


@lru_cache(maxsize=1024)
def _probabilities(spread: Spread) -> Any:
    """Return the probabilities of 0, 1, 2, … hits in a draw.

    Notes
    -----
    The ways to draw six numbers with so many hits are whole numbers below 2⁶³: the coefficients of
    x⁶ in the product over all counts c of (1 + x yᶜ) to the power of how many numbers have it.
    """
    import numpy as np  # imported lazily

    most = PICKED * spread[-1][0]
    ways = np.zeros((PICKED + 1, most + 1), dtype=np.int64)
    ways[0, 0] = 1
    for count, numbers in spread:
        more = ways.copy()
        for drawn in range(1, min(PICKED, numbers) + 1):
            shift = drawn * count
            before = ways[: PICKED + 1 - drawn, : most + 1 - shift]
            more[drawn:, shift:] += math.comb(numbers, drawn) * before
        ways = more
    probabilities = ways[PICKED, : np.flatnonzero(ways[PICKED])[-1] + 1] / _WAYS
    probabilities.flags.writeable = False
    return probabilities
