"""What chance gives games: by hand, by counting all draws, and over many seasons."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import pytest
import seasons
from hypothesis import given, settings
from hypothesis import strategies as st

from lotto_mlflow import chance
from lotto_mlflow.chance import Spread

ALL_DRAWS = math.comb(45, 6)
ONE = [(1, 2, 3, 4, 5, 6)]
TWICE = ONE * 2
APART = [(1, 2, 3, 4, 5, 6), (7, 8, 9, 10, 11, 12)]
OVERLAPPING = [(1, 2, 3, 4, 5, 6), (4, 5, 6, 7, 8, 9), (6, 7, 20, 30, 40, 45)]
"""Of the 45 numbers, 1 is in three games (6), 3 in two (4, 5, 7), 9 in one, 32 in none."""
EVERY = [tuple(range(6 * i + 1, 6 * i + 7)) for i in range(7)] + [
    (43, 44, 45, 1, 2, 3),
    *(tuple(range(6 * i + 4, 6 * i + 10)) for i in range(7)),
]
"""Fifteen games in which each number stands twice."""

games = st.lists(
    st.sets(st.integers(1, 45), min_size=6, max_size=6).map(lambda game: tuple(sorted(game))),
    min_size=1,
    max_size=6,
)
seasons_of_games = st.lists(games, min_size=1, max_size=5)


def probabilities_by_hand(spread: Spread) -> dict[int, Fraction]:
    """Return those of the hits of a draw: of each way to share six numbers among the counts."""
    found: dict[int, Fraction] = {}
    for drawn in itertools.product(*(range(min(6, numbers) + 1) for _, numbers in spread)):
        if sum(drawn) == 6:
            hits = sum(count * k for (count, _), k in zip(spread, drawn, strict=True))
            ways = math.prod(math.comb(n, k) for (_, n), k in zip(spread, drawn, strict=True))
            found[hits] = found.get(hits, Fraction()) + Fraction(ways, ALL_DRAWS)
    return found


def p_value_by_hand(spreads: Sequence[Spread], hits: int) -> Fraction:
    total = {0: Fraction(1)}
    for spread in spreads:
        more: dict[int, Fraction] = {}
        for (a, p), (b, q) in itertools.product(
            total.items(), probabilities_by_hand(spread).items()
        ):
            more[a + b] = more.get(a + b, Fraction()) + p * q
        total = more
    low = sum(p for h, p in total.items() if h <= hits)
    high = sum(p for h, p in total.items() if h >= hits)
    return min(Fraction(1), 2 * min(Fraction(low), Fraction(high)))


def most_hits(spreads: Sequence[Spread]) -> int:
    counts = [[count for count, numbers in spread for _ in range(numbers)] for spread in spreads]
    return sum(sum(sorted(of_draw)[-6:]) for of_draw in counts)


def all_hits(of_games: list[tuple[int, ...]]) -> np.ndarray:
    """Return the hits of games in each of the 8,145,060 draws there can be."""
    counts = np.zeros(45, dtype=np.int8)
    for game in of_games:
        counts[np.array(game) - 1] += 1
    found = [np.zeros(1, dtype=np.int8)]
    for drawn in range(1, 7):  # all draws of so many numbers, by their highest
        found = [
            np.concatenate([found[low] for low in range(high)]) + counts[high - 1]
            if drawn > 1
            else counts[high - 1 : high].copy()
            for high in range(1, 46)
        ]
        found = [np.zeros(0, dtype=np.int8), *found]
    return np.concatenate(found)


@pytest.mark.parametrize(
    ("of_games", "spread"),
    [
        (ONE, ((0, 39), (1, 6))),
        (TWICE, ((0, 39), (2, 6))),
        (APART, ((0, 33), (1, 12))),
        (OVERLAPPING, ((0, 32), (1, 9), (2, 3), (3, 1))),
        (EVERY, ((2, 45),)),
    ],
)
def test_the_spread_of_games_says_in_how_many_each_number_is(
    of_games: list[tuple[int, ...]], spread: Spread
) -> None:
    assert chance.spread_of(of_games) == spread
    assert chance.games_in(spread) == len(of_games)


@pytest.mark.parametrize(
    ("of_games", "mean", "variance"),
    [
        # hypergeometric: 6 · 6/45 · 39/45 · 39/44, and four times that where all is doubled
        (ONE, Fraction(4, 5), Fraction(6 * 6 * 39 * 39, 45 * 45 * 44)),
        (TWICE, Fraction(8, 5), Fraction(4 * 6 * 6 * 39 * 39, 45 * 45 * 44)),
        # hypergeometric with twelve numbers: 6 · 12/45 · 33/45 · 39/44
        (APART, Fraction(8, 5), Fraction(6 * 12 * 33 * 39, 45 * 45 * 44)),
        # Σ c² = 9 · 1 + 3 · 4 + 1 · 9 = 30, so S² = (30 - 18²/45) / 44 = 22.8 / 44
        (OVERLAPPING, Fraction(12, 5), 6 * Fraction(228, 10 * 44) * Fraction(39, 45)),
        (EVERY, Fraction(12), Fraction(0)),
    ],
)
def test_mean_and_variance_are_those_by_hand(
    of_games: list[tuple[int, ...]], mean: Fraction, variance: Fraction
) -> None:
    spread = chance.spread_of(of_games)
    assert chance.mean_of(spread) == pytest.approx(float(mean), rel=1e-15)
    assert chance.variance_of(spread) == pytest.approx(float(variance), rel=1e-15, abs=0)


@pytest.mark.parametrize("of_games", [OVERLAPPING, [*APART, *TWICE, (1, 7, 13, 19, 25, 31)]])
def test_mean_variance_and_distribution_are_those_of_all_draws_there_can_be(
    of_games: list[tuple[int, ...]],
) -> None:
    hits = all_hits(of_games)
    assert len(hits) == ALL_DRAWS
    spread = chance.spread_of(of_games)
    counted = np.bincount(hits)
    values = np.arange(len(counted))
    mean = Fraction(int((values * counted).sum()), ALL_DRAWS)
    squares = Fraction(int((values**2 * counted).sum()), ALL_DRAWS)
    assert chance.mean_of(spread) == pytest.approx(float(mean), rel=1e-15)
    assert chance.variance_of(spread) == pytest.approx(float(squares - mean**2), rel=1e-14)
    lowest, step, probabilities = chance.distribution([spread])
    assert (lowest, step) == (0, 1)
    assert (np.rint(probabilities * ALL_DRAWS) == counted).all()
    for h in values.tolist():
        tails = int(counted[: h + 1].sum()), int(counted[h:].sum())
        expected = min(1.0, 2 * min(tails) / ALL_DRAWS)
        assert chance.p_value([spread], h) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(
    ("season", "hits", "p_value"),
    [
        # one game: 1 draw of 8,145,060 has all six; 3,262,623 have none
        ([ONE], 6, Fraction(2, ALL_DRAWS)),
        ([ONE], 0, Fraction(2 * 3_262_623, ALL_DRAWS)),
        ([ONE], 1, Fraction(1)),
        ([ONE], 3, Fraction(2 * (182_780 + 11_115 + 234 + 1), ALL_DRAWS)),
        # the same game twice: the same draws, twice the hits
        ([TWICE], 12, Fraction(2, ALL_DRAWS)),
        ([TWICE], 6, Fraction(2 * (182_780 + 11_115 + 234 + 1), ALL_DRAWS)),
        # two games of other numbers: six of twelve, 924 draws
        ([APART], 6, Fraction(2 * 924, ALL_DRAWS)),
        # the most hits: the numbers in three and two games, and two of the nine in one
        ([OVERLAPPING], 11, Fraction(2 * 36, ALL_DRAWS)),
        # all six in two draws
        ([ONE, ONE], 12, Fraction(2, ALL_DRAWS**2)),
        ([ONE, OVERLAPPING], 17, Fraction(2 * 36, ALL_DRAWS**2)),
        # each number stands twice: twelve hits, whatever is drawn
        ([EVERY], 12, Fraction(1)),
        ([EVERY, ONE], 18, Fraction(2, ALL_DRAWS)),
    ],
)
def test_a_p_value_is_the_one_by_hand(
    season: list[list[tuple[int, ...]]], hits: int, p_value: Fraction
) -> None:
    spreads = [chance.spread_of(of_games) for of_games in season]
    assert chance.p_value(spreads, hits) == pytest.approx(float(p_value), rel=1e-13)


@settings(max_examples=60, deadline=None)
@given(seasons_of_games)
def test_a_p_value_is_exact_for_any_games_at_any_number_of_hits(
    season: list[list[tuple[int, ...]]],
) -> None:
    spreads = [chance.spread_of(of_games) for of_games in season[:3]]
    most = most_hits(spreads)
    for hits in {0, 1, most // 4, most // 2, most}:
        expected = float(p_value_by_hand(spreads, hits))
        assert chance.p_value(spreads, hits) == pytest.approx(expected, rel=1e-12, abs=0)


def test_the_far_tails_of_200_draws_are_exact_to_twelve_digits() -> None:
    """A Fourier transform would have lost all that is below 1e-16."""
    spreads = [chance.spread_of(ONE)] * 200
    ways = [math.comb(6, k) * math.comb(39, 6 - k) for k in range(7)]
    total = [1]
    for _ in range(200):
        total = [
            sum(ways[k] * total[h - k] for k in range(7) if 0 <= h - k < len(total))
            for h in range(len(total) + 6)
        ]
    for hits in (0, 20, 100, 159, 160, 161, 220, 300, 400, 500):
        tails = sum(total[: hits + 1]), sum(total[hits:])
        expected = float(min(Fraction(1), 2 * Fraction(min(tails), ALL_DRAWS**200)))
        assert chance.p_value(spreads, hits) == pytest.approx(expected, rel=1e-12, abs=1e-300)


@settings(max_examples=100, deadline=None)
@given(seasons_of_games, st.integers(0, 180))
def test_a_p_value_is_from_0_to_1_and_falls_with_the_distance_from_its_middle(
    season: list[list[tuple[int, ...]]], hits: int
) -> None:
    spreads = [chance.spread_of(of_games) for of_games in season]
    found = [chance.p_value(spreads, h) for h in range(min(hits, most_hits(spreads)) + 1)]
    assert all(0 < p <= 1 for p in found)
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)


@settings(max_examples=100, deadline=None)
@given(seasons_of_games, st.permutations(range(1, 46)))
def test_a_p_value_is_the_same_in_any_order_of_draws_and_under_any_names_of_numbers(
    season: list[list[tuple[int, ...]]], renamed: list[int]
) -> None:
    spreads = [chance.spread_of(of_games) for of_games in season]
    turned = [chance.spread_of(of_games) for of_games in reversed(season)]
    others = [
        chance.spread_of([tuple(renamed[n - 1] for n in game) for game in of_games])
        for of_games in season
    ]
    for hits in (0, 3, 8):
        expected = pytest.approx(chance.p_value(spreads, hits), rel=1e-12)
        assert chance.p_value(turned, hits) == expected
        assert chance.p_value(others, hits) == expected


@settings(max_examples=50, deadline=None)
@given(games, st.integers(1, 201), st.integers(0, 300))
def test_games_played_ten_times_over_have_the_same_p_value(
    of_games: list[tuple[int, ...]], draws: int, hits: int
) -> None:
    once = [chance.spread_of(of_games)] * draws
    often = [chance.spread_of(of_games * 10)] * draws
    expected = chance.p_value(once, hits)
    assert chance.p_value(often, 10 * hits) == pytest.approx(expected, rel=1e-9)


def test_what_22_numbers_hit_the_other_23_miss() -> None:
    half = [((0, 23), (1, 22)), ((0, 22), (1, 23))]
    for hits in range(7):
        one = chance.p_value([half[0]] * 3, 3 * hits)
        other = chance.p_value([half[1]] * 3, 18 - 3 * hits)
        assert one == pytest.approx(other, rel=1e-12)


def test_beyond_200_draws_the_normal_distribution_stands_in_with_its_correction() -> None:
    spread = chance.spread_of(OVERLAPPING)
    assert chance.EXACT_DRAWS == 200
    deviation = math.sqrt(201 * 6 * 228 / 440 * 39 / 45)
    for hits in (400, 450, 482, 483, 540, 700):
        z = max(abs(hits - 201 * 2.4) - 0.5, 0) / deviation
        expected = math.erfc(z / math.sqrt(2))
        assert chance.p_value([spread] * 201, hits) == pytest.approx(expected, rel=1e-9)
    # and at the change from one to the other they are near
    exact, normal = (chance.p_value([spread] * d, round(2.6 * d)) for d in (200, 201))
    assert exact == pytest.approx(normal, rel=0.1)


def test_games_that_hit_the_same_whatever_is_drawn_have_the_p_value_1() -> None:
    spread = chance.spread_of(EVERY)
    assert chance.p_value([spread] * 3, 36) == 1
    assert chance.p_value([spread] * 300, 3600) == 1


def test_the_interval_is_the_one_by_hand() -> None:
    # r = 10/10 = 1; deviations 2 - 2, 6 - 5, 2 - 3; for two degrees of freedom the quantile of t
    # is (2p - 1) / sqrt(2p (1 - p)) = 4.30265273
    low, high = chance.interval([2, 6, 2], [2, 5, 3]) or (0, 0)
    half = 0.95 / math.sqrt(2 * 0.975 * 0.025) * math.sqrt(3 / 2 * (0 + 1 + 1)) / 10
    assert (low, high) == pytest.approx((1 - half, 1 + half), rel=1e-9)
    assert chance.interval([3], [5]) is None
    assert chance.interval([], []) is None
    assert chance.interval([5, 5], [5, 5]) == (1, 1)


def test_holms_method_is_the_one_by_hand() -> None:
    assert chance.adjusted([0.04, 0.01, 0.03, 0.5]) == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert chance.adjusted([0.9, 0.8]) == [1, 1]
    assert chance.adjusted([0.2]) == [0.2]
    assert chance.adjusted([]) == []


@given(st.lists(st.floats(0, 1), max_size=20))
def test_adjusted_p_values_keep_their_order_and_are_none_the_smaller(values: list[float]) -> None:
    found = chance.adjusted(values)
    assert all(p <= q <= 1 for p, q in zip(values, found, strict=True))
    for (p, q), (r, s) in itertools.pairwise(sorted(zip(values, found, strict=True))):
        assert p <= r
        assert q <= s
    assert all(q <= min(1, len(values) * p) for p, q in zip(values, found, strict=True))


def test_the_band_of_chance_is_as_wide_as_the_variance_says() -> None:
    spreads = [chance.spread_of(of_games) for of_games in (OVERLAPPING, ONE)]
    (_, first), (low, high) = chance.band(spreads)
    variances = [6 * 228 / 440 * 39 / 45, 6 * 6 * 39 * 39 / (45 * 45 * 44)]
    assert first == pytest.approx(0.8 + 1.959963984540054 * math.sqrt(variances[0]) / 3)
    assert high == pytest.approx(0.8 + 1.959963984540054 * math.sqrt(sum(variances)) / 4)
    assert low == pytest.approx(max(0, 1.6 - high), abs=1e-12)


@pytest.fixture(scope="module")
def figures() -> Iterator[seasons.Figures]:
    return seasons.figures(n_seasons=10_000, n_draws=100, n_games=5, seed=13)


@pytest.mark.xdist_group("seasons")  # so that one worker plays them
def test_in_10000_seasons_the_interval_covers_chance_in_94_to_96_percent(
    figures: seasons.Figures,
) -> None:
    assert 0.94 <= figures.covered <= 0.96


@pytest.mark.xdist_group("seasons")  # so that one worker plays them
def test_in_10000_seasons_chance_is_called_something_else_in_at_most_5_5_percent(
    figures: seasons.Figures,
) -> None:
    assert 0.03 < figures.below_5_percent <= 0.055
    assert figures.below_1_percent <= 0.011


@pytest.mark.parametrize("n_games", [1, 5])
def test_games_that_hold_one_winning_number_are_told_from_chance_in_30_draws(n_games: int) -> None:
    """Each game has one number that will be drawn, and five others: 1 + 5 · 5/44 = 1.57 hits."""
    found = seasons.figures(n_seasons=1_000, n_draws=30, n_games=n_games, seed=13, known=1)
    assert found.hits_per_game == pytest.approx(1 + 25 / 44, abs=0.02)
    assert found.below_5_percent >= 0.99
