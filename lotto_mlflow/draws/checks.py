"""Checks of what callers give: draw numbers, games, scores, results."""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from numbers import Real
from typing import Any, TypeAlias

from lotto_mlflow.draws.rules import (
    BALLS,
    PICKED,
    SCORE_TOLERANCE,
    Draw,
    Game,
    closes_at,
    newest_closed,
)
from lotto_mlflow.errors import InvalidPredictionError, InvalidResultError

_YEAR = timedelta(days=366)
_TEXTS = (str, bytes, bytearray, Mapping)
_Refusal: TypeAlias = type[InvalidPredictionError] | type[InvalidResultError]
_ALLOWED = frozenset(range(1, BALLS + 1))
_short = reprlib.Repr()
_short.maxlist = 10


def checked_draw_no(
    draw_no: object, now: datetime, *, refusal: _Refusal = InvalidPredictionError
) -> int:
    """Return the number of a draw that a prediction can be for.

    Parameters
    ----------
    draw_no : int
        A whole number of any library.
    now : datetime.datetime
        The current moment, with its time zone.
    refusal : type of error
        What is raised.

    Raises
    ------
    InvalidPredictionError
        If it is no whole number, below 1, or of a draw more than a year ahead.
    """
    number = _whole(draw_no)
    if number is None or number < 1:
        raise refusal(
            f"draw_no is {_shown(draw_no)}; give the number of a draw, 1 or more", draw_no=draw_no
        )
    if number > newest_closed(now + _YEAR):
        raise refusal(
            f"draw_no {_shown(number)} is more than a year ahead; the next draw is "
            f"{newest_closed(now) + 1}",
            draw_no=draw_no,
        )
    return number


def checked_games(numbers: object) -> tuple[Game, ...]:
    """Return the games of a prediction.

    Parameters
    ----------
    numbers : sequence of int, or sequence of sequences of int
        One game of six numbers, or a list of games; lists, tuples, sets, arrays and frames.

    Returns
    -------
    tuple of tuple of int
        The games in the order given, the numbers of each ascending.

    Raises
    ------
    InvalidPredictionError
        If a game is not of six different whole numbers from 1 to 45, or there is none.
    """
    items = _listed(numbers)
    if not items:
        raise InvalidPredictionError(
            f"numbers is {_shown(numbers)}; give one game of {PICKED} numbers, or a list of games",
            numbers=numbers,
        )
    games = [_listed(item) for item in items]
    if all(game is None for game in games):
        return (_checked_game(items, "the game", InvalidPredictionError),)
    return tuple(
        _checked_game(item if game is None else game, f"game {place}", InvalidPredictionError)
        for place, (item, game) in enumerate(zip(items, games, strict=True), start=1)
    )


def is_game(value: object) -> bool:
    """Return whether a value is a game as `checked_games` returns one: six ascending integers."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == PICKED
        and all(type(number) is int and 1 <= number <= BALLS for number in value)
        and all(low < high for low, high in pairwise(value))
    )


def checked_scores(scores: object) -> tuple[float, ...]:
    """Return the inclusion probabilities of the numbers 1 to 45.

    Parameters
    ----------
    scores : sequence of float
        45 probabilities with the sum 6, or with the sum 1, which are multiplied by 6. A pandas
        Series whose labels are 1 to 45, or 0 to 44, in any order is read by its labels.

    Raises
    ------
    InvalidPredictionError
        If there are not 45, one is negative, above 1 or no number, or the sum is neither 1 nor 6.
    """
    values = [_number(item) for item in _listed(_by_label(scores)) or ()]
    if len(values) != BALLS:
        raise _bad_scores(f"are {len(values)} values, or nothing that has any", scores)
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(known) < BALLS:
        raise _bad_scores("hold something that is not a finite number", scores)
    total = math.fsum(known)
    if abs(total - 1) <= SCORE_TOLERANCE:
        known = [PICKED * value for value in known]
    elif abs(total - PICKED) > SCORE_TOLERANCE:
        raise _bad_scores(f"have the sum {total:.9g}", scores)
    if min(known) < 0 or max(known) > 1 + SCORE_TOLERANCE:
        raise _bad_scores(f"reach from {min(known):.6g} to {max(known):.6g}", scores)
    return tuple(min(abs(value), 1.0) for value in known)


def are_scores(value: object) -> bool:
    """Return whether a value is 45 probabilities as `checked_scores` returns them."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == BALLS
        and all(type(score) in (int, float) and 0 <= score <= 1 for score in value)
        and abs(math.fsum(value) - PICKED) <= (BALLS + PICKED) * SCORE_TOLERANCE
    )


def checked_draw(draw_no: object, numbers: object, bonus: object, now: datetime) -> Draw:
    """Return the result of a draw that has been held.

    Raises
    ------
    InvalidResultError
        If the numbers are not six different whole numbers from 1 to 45, the bonus is not another
        one, or the sales of the draw have not closed.
    """
    number = checked_draw_no(draw_no, now, refusal=InvalidResultError)
    if number > newest_closed(now):
        raise InvalidResultError(
            f"draw {number} has not been held: its sales close at {closes_at(number)}",
            draw_no=number,
        )
    game = _checked_game(numbers, f"the result of draw {number}", InvalidResultError)
    extra = _whole(bonus)
    if extra is None or not 1 <= extra <= BALLS or extra in game:
        raise InvalidResultError(
            f"the bonus of draw {number} is {_shown(bonus)}; give a whole number from 1 to "
            f"{BALLS} that is not among {_shown(list(game))}",
            draw_no=number,
            bonus=bonus,
        )
    return Draw(number, game, extra)


def _bad_scores(problem: str, scores: object) -> InvalidPredictionError:
    return InvalidPredictionError(
        f"scores {problem}; give {BALLS} probabilities from 0 to 1, for the numbers 1 to {BALLS}, "
        f"with the sum {PICKED}, or with the sum 1, which are multiplied by {PICKED}",
        scores=scores,
    )


def _checked_game(game: object, place: str, refusal: _Refusal) -> Game:
    items = _listed(game) or []
    numbers = {_whole(item) for item in items}
    if len(items) != PICKED or len(numbers) != PICKED or not numbers <= _ALLOWED:
        raise refusal(
            f"{place} is {_shown(game)}; give {PICKED} different whole numbers from 1 to {BALLS}",
            numbers=game,
        )
    return tuple(sorted(number for number in numbers if number is not None))


def _listed(value: Any) -> list[Any] | None:
    """Return the items of a list, set, array or frame; ``None`` of what has none."""
    for method in ("to_numpy", "tolist"):
        if not isinstance(value, type) and callable(getattr(value, method, None)):
            value = getattr(value, method)()
    if isinstance(value, _TEXTS) or not isinstance(value, Iterable):
        return None
    return list(value)


def _by_label(scores: Any) -> Any:
    """Return a Series in the order of its labels, where these are the numbers or their places."""
    index = getattr(scores, "index", None)
    labels = _listed(index) if hasattr(scores, "to_numpy") else None
    numbers = [_whole(label) for label in labels or ()]
    for first in (0, 1):
        if set(numbers) == set(range(first, first + BALLS)) and len(numbers) == BALLS:
            values = _listed(scores) or []
            return [values[numbers.index(first + place)] for place in range(BALLS)]
    return scores


def _whole(value: Any) -> int | None:
    """Return a whole number of any library as an int; ``None`` of anything else."""
    if _is_truth_value(value):
        return None
    try:
        return operator.index(value)
    except TypeError:
        number = _number(value)
    return int(number) if number is not None and number.is_integer() else None


def _number(value: Any) -> float | None:
    """Return a number of any library; ``None`` of anything else."""
    if _is_truth_value(value):
        return None
    try:
        return float(value if isinstance(value, (Real, Decimal)) else operator.index(value))
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def _is_truth_value(value: object) -> bool:
    return type(value).__name__ in ("bool", "bool_")  # numpy has had both names for its own


def _shown(value: object) -> str:
    """Return a value for a message, whatever its length."""
    items = _listed(value)
    try:
        return _short.repr(value if items is None else items)
    except ValueError:  # more digits than Python writes
        return "a number with very many digits"
