"""The rules of 6/45: dates, checks of what callers give, scores, results as CSV."""

from __future__ import annotations

import math
import os
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotto_mlflow import draws
from lotto_mlflow.draws import Draw
from lotto_mlflow.errors import InvalidPredictionError, InvalidResultError

REAL_DRAWS = os.environ.get("LOTTO_DRAWS_CSV")
SEOUL = timezone(timedelta(hours=9))
NOW = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
"""Between draw 1204, on 2025-12-27, and draw 1205."""
PATH = Path("results.csv")
HEADER = "draw_no,draw_date,n1,n2,n3,n4,n5,n6,bonus"
FIRST = "1,2002-12-07,10,23,29,33,37,40,16"
SECOND = "2,2002-12-14,9,13,21,25,32,42,2"
DRAW = Draw(1, (10, 23, 29, 33, 37, 40), 16)


def parse(*rows: str) -> list[Draw]:
    return draws.parse_results("\n".join(rows).encode(), PATH, NOW)


@pytest.mark.parametrize(
    ("draw_no", "day"),
    [(1, date(2002, 12, 7)), (2, date(2002, 12, 14)), (1204, date(2025, 12, 27))],
)
def test_a_draw_closes_on_its_saturday_at_20_in_seoul(draw_no: int, day: date) -> None:
    moment = draws.closes_at(draw_no)
    assert moment == datetime(day.year, day.month, day.day, 20, tzinfo=SEOUL)
    assert draws.date_of(draw_no) == day
    assert day.weekday() == 5
    moment_before = moment - timedelta(microseconds=1)
    for zone in (SEOUL, timezone.utc, timezone(timedelta(hours=-11))):
        assert draws.newest_closed(moment.astimezone(zone)) == draw_no
        assert draws.newest_closed(moment_before.astimezone(zone)) == draw_no - 1


def test_no_draw_had_closed_before_the_first() -> None:
    assert draws.newest_closed(datetime(1970, 1, 1, tzinfo=timezone.utc)) == 0


@given(st.integers(1, 5000), st.timedeltas(timedelta(0), timedelta(days=7, microseconds=-1)))
def test_the_newest_closed_draw_stays_it_for_a_week(draw_no: int, later: timedelta) -> None:
    assert draws.newest_closed(draws.closes_at(draw_no) + later) == draw_no


@pytest.mark.skipif(not REAL_DRAWS, reason="LOTTO_DRAWS_CSV names no file of real draws")
def test_all_real_draws_were_held_on_their_dates_and_come_back_byte_for_byte() -> None:
    content = Path(str(REAL_DRAWS)).read_bytes()
    found = draws.parse_results(content, PATH, NOW)  # which compares each date
    assert len(found) == content.count(b"\n") - 1 == 1194
    assert draws.render_results(found) == content


@pytest.mark.parametrize(
    "given",
    [
        [6, 5, 4, 3, 2, 1],
        (1, 2, 3, 4, 5, 6),
        {1, 2, 3, 4, 5, 6},
        range(1, 7),
        np.arange(1, 7),
        np.arange(1, 7, dtype=np.float32),
        list(np.arange(1, 7, dtype=np.int8)),
        [Decimal(n) for n in range(1, 7)],
        pd.Series([1, 2, 3, 4, 5, 6], index=[9, 8, 7, 6, 5, 4]),
        [[1, 2, 3, 4, 5, 6]],
        np.array([[1, 2, 3, 4, 5, 6]]),
        pd.DataFrame([[1, 2, 3, 4, 5, 6]]),
        iter([iter([1, 2, 3, 4, 5, 6])]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_game_of_any_library_is_six_ascending_integers(given: Any) -> None:
    found = draws.checked_games(given)
    assert found == ((1, 2, 3, 4, 5, 6),)
    assert all(type(number) is int for number in found[0])
    assert draws.is_game(found[0])


def test_games_keep_their_order_and_may_stand_twice() -> None:
    second = (2, 3, 4, 5, 6, 45)
    assert draws.checked_games([second[::-1], range(1, 7), set(second)]) == (
        second,
        (1, 2, 3, 4, 5, 6),
        second,
    )


@pytest.mark.parametrize(
    "given",
    [
        None,
        6,
        [],
        [[]],
        "123456",
        b"\x01\x02\x03\x04\x05\x06",
        {"a": 1},
        [1, 2, 3, 4, 5],
        [1, 2, 3, 4, 5, 6, 7],
        [1, 2, 3, 4, 5, 5],
        [0, 2, 3, 4, 5, 6],
        [1, 2, 3, 4, 5, 46],
        [-1, 2, 3, 4, 5, 6],
        [1, 2, 3, 4, 5, 6.5],
        [1, 2, 3, 4, 5, math.nan],
        [1, 2, 3, 4, 5, math.inf],
        [1, 2, 3, 4, 5, None],
        [1, 2, 3, 4, 5, pd.NA],
        [1, 2, 3, 4, 5, "6"],
        [True, 2, 3, 4, 5, 6],
        [np.True_, 2, 3, 4, 5, 6],
        np.array([1, 2, 3, 4, 5, np.nan]),
        np.array(6),
        [1, 2, 3, 4, 5, 10**5000],
        [[1, 2, 3, 4, 5, 6], 7],
        [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5]],
        [[[1, 2, 3, 4, 5, 6]]],
    ],
)
def test_what_is_no_game_is_refused_with_one_clear_error(given: Any) -> None:
    with pytest.raises(InvalidPredictionError, match=r"give .*6 .*numbers") as caught:
        draws.checked_games(given)
    assert len(str(caught.value)) < 400


def test_the_game_at_fault_is_named() -> None:
    with pytest.raises(InvalidPredictionError, match=r"game 2 is \[1, 2, 3, 4, 5, 46\]"):
        draws.checked_games([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 46]])


@pytest.mark.parametrize("given", [1205, 1205.0, np.int16(1205), np.float64(1205), Decimal(1205)])
def test_a_draw_number_may_be_of_any_library(given: Any) -> None:
    found = draws.checked_draw_no(given, NOW)
    assert found == 1205
    assert type(found) is int


@pytest.mark.parametrize(
    "given",
    [
        0,
        -1,
        1.5,
        True,
        np.True_,
        "1205",
        None,
        math.nan,
        math.inf,
        [1205],
        pytest.param(-(10**5000), id="long"),
    ],
)
def test_what_is_no_draw_number_is_refused(given: Any) -> None:
    with pytest.raises(InvalidPredictionError, match="give the number of a draw, 1 or more"):
        draws.checked_draw_no(given, NOW)


def test_a_draw_may_be_a_year_ahead_and_no_more() -> None:
    assert draws.checked_draw_no(1204 + 52, NOW) == 1256
    for draw_no in (1204 + 54, 10**9, 10**5000):
        with pytest.raises(InvalidPredictionError, match="more than a year ahead") as caught:
            draws.checked_draw_no(draw_no, NOW)
        assert "the next draw is 1205" in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        [1 / 45] * 45,
        [6 / 45] * 45,
        np.full(45, 1 / 45, dtype=np.float32),
        pd.Series([6 / 45] * 45),
        tuple([1 / 45] * 44 + [1 / 45 + 9e-7]),
        [Decimal(1) / 45] * 45,
    ],
)
def test_scores_with_the_sum_1_or_6_are_probabilities_with_the_sum_6(given: Any) -> None:
    found = draws.checked_scores(given)
    assert found == pytest.approx([6 / 45] * 45, abs=1e-5)
    assert math.fsum(found) == pytest.approx(6, abs=1e-5)
    assert draws.are_scores(found)


def test_a_score_of_one_sixth_is_certain() -> None:
    found = draws.checked_scores(np.array([1 / 6] * 6 + [0] * 39, dtype=np.float32))
    assert found[:6] == pytest.approx((1,) * 6)
    assert max(found) <= 1
    assert found[6:] == (0,) * 39


@pytest.mark.parametrize("first", [0, 1])
def test_a_series_is_read_by_its_labels(first: int) -> None:
    values = np.arange(1, 46) / np.arange(1, 46).sum()
    series = pd.Series(values, index=range(first, first + 45))
    turned = series.sample(frac=1, random_state=13)
    assert list(turned.index) != list(series.index)
    assert draws.checked_scores(turned) == pytest.approx(tuple(6 * values))


@pytest.mark.parametrize(
    "given",
    [
        [1 / 45] * 44,
        [1 / 46] * 46,
        [],
        5,
        "0" * 45,
        [2 / 45] * 45,
        [0.0] * 45,
        [1 / 45] * 44 + [1 / 45 + 3e-6],
        [6 / 45] * 44 + [6 / 45 + 3e-6],
        [-0.1, 0.1, *[1 / 43] * 43],
        [1.2, *[4.8 / 44] * 44],
        [0.2, *[0.8 / 44] * 44],  # 1.2 when multiplied by 6
        [math.nan, *[6 / 44] * 44],
        [math.inf] * 45,
        [None, *[6 / 44] * 44],
        [True] * 6 + [False] * 39,
        [10**400] * 45,
        np.full((45, 2), 1 / 90),
        dict.fromkeys(range(1, 46), 6 / 45),
    ],
)
def test_what_are_no_scores_is_refused(given: Any) -> None:
    with pytest.raises(InvalidPredictionError, match="give 45 probabilities from 0 to 1"):
        draws.checked_scores(given)


@pytest.mark.parametrize(
    ("game", "hits", "bonus_hit", "rank"),
    [
        ((10, 23, 29, 33, 37, 40), 6, False, 1),
        ((10, 16, 23, 29, 33, 37), 5, True, 2),
        ((10, 23, 29, 33, 37, 45), 5, False, 3),
        ((10, 16, 23, 29, 33, 45), 4, True, 4),
        ((10, 23, 29, 33, 44, 45), 4, False, 4),
        ((10, 16, 23, 29, 44, 45), 3, True, 5),
        ((10, 23, 29, 43, 44, 45), 3, False, 5),
        ((10, 16, 23, 43, 44, 45), 2, True, None),
        ((10, 41, 42, 43, 44, 45), 1, False, None),
        ((16, 41, 42, 43, 44, 45), 0, True, None),
        ((1, 41, 42, 43, 44, 45), 0, False, None),
    ],
)
def test_hits_and_ranks_are_those_of_the_rules(
    game: draws.Game, hits: int, bonus_hit: bool, rank: int | None
) -> None:
    found = draws.score([game], None, DRAW)
    assert (found.hits, found.bonus_hits, found.ranks) == ((hits,), (bonus_hit,), (rank,))
    assert found.best_hits == found.hits_per_game == hits
    assert found.log_loss is None


def test_the_score_of_games_has_the_best_and_the_average() -> None:
    games = draws.checked_games(
        [[10, 23, 29, 33, 44, 45], [1, 2, 3, 4, 5, 6], [10, 11, 12, 16, 23, 24]]
    )
    found = draws.score(games, None, DRAW)
    assert found.hits == (4, 0, 2)
    assert (found.best_hits, found.hits_per_game) == (4, 2)
    assert found.ranks == (4, None, None)
    assert found.bonus_hits == (False, False, True)


def test_the_log_loss_is_the_one_by_hand() -> None:
    chance = draws.score([DRAW.numbers], draws.checked_scores([1 / 45] * 45), DRAW).log_loss
    by_hand = -(6 * math.log(6 / 45) + 39 * math.log(39 / 45)) / 45
    assert chance == pytest.approx(by_hand, rel=1e-12)
    assert chance == pytest.approx(draws.CHANCE_LOG_LOSS, abs=5e-5)
    right = [1.0 if number in DRAW.numbers else 0.0 for number in range(1, 46)]
    assert draws.log_loss(right, DRAW.numbers) == pytest.approx(-math.log(1 - 1e-6), rel=1e-6)
    wrong = [1.0] * 6 + [0.0] * 39
    expected = -(12 * math.log(1e-6) + 33 * math.log(1 - 1e-6)) / 45
    assert draws.log_loss(wrong, DRAW.numbers) == pytest.approx(expected, rel=1e-9)


def test_a_result_is_sorted_and_has_another_bonus() -> None:
    assert draws.checked_draw(1, [40, 37, 33, 29, 23, 10], np.int64(16), NOW) == DRAW


@pytest.mark.parametrize(
    ("draw_no", "numbers", "bonus", "message"),
    [
        (0, DRAW.numbers, 16, "draw_no is 0"),
        (1205, DRAW.numbers, 16, "draw 1205 has not been held"),
        (9999, DRAW.numbers, 16, "more than a year ahead"),
        (1, [DRAW.numbers], 16, "the result of draw 1 is"),
        (1, DRAW.numbers[:5], 16, "give 6 different whole numbers"),
        (1, DRAW.numbers, 10, "the bonus of draw 1 is 10"),
        (1, DRAW.numbers, 0, "the bonus of draw 1 is 0"),
        (1, DRAW.numbers, 46, "the bonus of draw 1 is 46"),
        (1, DRAW.numbers, None, "the bonus of draw 1 is None"),
        (1, DRAW.numbers, True, "the bonus of draw 1 is True"),
    ],
)
def test_what_is_no_result_is_refused(draw_no: int, numbers: Any, bonus: Any, message: str) -> None:
    with pytest.raises(InvalidResultError, match=message):
        draws.checked_draw(draw_no, numbers, bonus, NOW)


@pytest.mark.parametrize(
    "rows",
    [
        (HEADER, FIRST, SECOND),
        (HEADER, SECOND, FIRST, "", ""),
        ("\ufeff" + HEADER, FIRST, SECOND),
        (HEADER + "\r", FIRST + "\r", SECOND + "\r", ""),
        ("draw_no,n1,n2,n3,n4,n5,n6,bonus", "1,10,23,29,33,37,40,16", "2,9,13,21,25,32,42,2"),
        (HEADER, "1,,40,23,29,33,37,10,16", SECOND.replace(",", ", ")),
        ("prize," + HEADER, "9," + FIRST, "," + SECOND),
    ],
)
def test_results_are_read_from_csv(rows: tuple[str, ...]) -> None:
    assert parse(*rows) == [DRAW, Draw(2, (9, 13, 21, 25, 32, 42), 2)]


@given(
    st.lists(
        st.tuples(st.integers(1, 1204), st.permutations(range(1, 46))), unique_by=lambda d: d[0]
    )
)
def test_results_come_back_as_they_were_written(rows: list[tuple[int, list[int]]]) -> None:
    held = [Draw(n, tuple(sorted(balls[:6])), balls[6]) for n, balls in sorted(rows)]
    assert draws.parse_results(draws.render_results(reversed(held)), PATH, NOW) == held


@pytest.mark.parametrize(
    ("rows", "line", "message"),
    [
        ((), 1, "has no column"),
        (("a,b", FIRST), 1, "has no column draw_no, n1"),
        ((HEADER + ",n1", FIRST + ",1"), 1, "has the column n1 twice"),
        ((HEADER, FIRST, SECOND[:-2]), 3, "has 8 fields, not 9"),
        ((HEADER, FIRST + ",1"), 2, "has 10 fields, not 9"),
        ((HEADER, FIRST.replace("10,", "ten,")), 2, "has 'ten' as n1"),
        ((HEADER, FIRST.replace("10,", "1e1,")), 2, "has '1e1' as n1"),
        ((HEADER, FIRST.replace("10,", "-1,")), 2, "has '-1' as n1"),
        ((HEADER, FIRST.replace("10,", "\u0661\u0660,")), 2, "as n1, not a whole number"),
        ((HEADER, FIRST.replace("10,", "10\0,")), 2, "line 2"),
        ((HEADER, FIRST.replace("10,", "23,")), 2, "give 6 different whole numbers"),
        ((HEADER, FIRST.replace("10,", "46,")), 2, "give 6 different whole numbers"),
        ((HEADER, FIRST.replace(",16", ",10")), 2, "the bonus of draw 1 is 10"),
        ((HEADER, FIRST.replace("12-07", "12-14")), 2, "was held on 2002-12-07"),
        ((HEADER, FIRST.replace("2002-12-07", "20021207")), 2, "was held on 2002-12-07"),
        ((HEADER, FIRST, SECOND, FIRST), 4, "a second result for draw 1; the first is in line 2"),
        ((HEADER, FIRST, FIRST.replace(",16", ",17")), 3, "a second result for draw 1"),
        ((HEADER, FIRST.replace("1,2002-12-07", "1205,")), 2, "has not been held"),
        ((HEADER, FIRST, SECOND.replace("9,", '"9,')), 3, "is not CSV"),
    ],
)
def test_a_broken_row_is_named_by_its_line(rows: tuple[str, ...], line: int, message: str) -> None:
    with pytest.raises(InvalidResultError, match=message) as caught:
        parse(*rows)
    assert caught.value.line == line  # type: ignore[attr-defined]
    assert f"{PATH}, line {line}, " in str(caught.value)
    assert "nothing of the file was recorded" in str(caught.value)


def test_a_file_that_is_no_utf_8_is_refused_by_line() -> None:
    content = f"{HEADER}\n{FIRST}\n".encode() + "둘".encode("cp949")
    with pytest.raises(InvalidResultError, match=r"line 3, is not UTF-8"):
        draws.parse_results(content, PATH, NOW)
