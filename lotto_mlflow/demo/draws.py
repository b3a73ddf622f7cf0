"""Draw histories: simulated ones, and ones read from a CSV file."""

from __future__ import annotations

import csv
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotto_mlflow.errors import LottoMlflowError

BALLS = 45
PICKED = 6
COLUMNS = ("draw_no", "draw_date", "n1", "n2", "n3", "n4", "n5", "n6", "bonus")
Draws = NDArray[np.int64]


class DrawsError(LottoMlflowError, ValueError):
    """A file that is not a history of draws."""


def simulated(n_draws: int, seed: int) -> Draws:
    """Draw six of 45 without replacement, again and again.

    Parameters
    ----------
    n_draws : int
        Number of draws.
    seed : int
        Seed of the random numbers; the same seed gives the same draws.

    Returns
    -------
    ndarray of int64, shape (n_draws, 6)
        The numbers of each draw, ascending.
    """
    random = np.random.default_rng(seed)
    picked = [random.choice(BALLS, PICKED, replace=False) + 1 for _ in range(n_draws)]
    return np.sort(np.array(picked, dtype=np.int64), axis=1)


def read(path: Path) -> Draws:
    """Read a history from a CSV file with the columns of `COLUMNS`.

    Returns
    -------
    ndarray of int64, shape (n_draws, 6)
        The numbers of each draw, ascending, in the order of the draw numbers.

    Raises
    ------
    DrawsError
        If the file cannot be read, or a row is not a draw; the message names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise DrawsError(f"{path} could not be read as CSV: {cause}") from cause
    missing = [column for column in COLUMNS if not rows or column not in rows[0]]
    if missing:
        raise DrawsError(f"{path} has no rows with the columns {', '.join(missing)}")
    parsed = sorted(_parsed(path, line, row) for line, row in enumerate(rows, start=2))
    return np.array([numbers for _, numbers in parsed], dtype=np.int64)


def _parsed(path: Path, line: int, row: dict[str, Any]) -> tuple[int, list[int]]:
    try:
        date.fromisoformat(row["draw_date"])
        numbers = sorted(int(row[f"n{i}"]) for i in range(1, PICKED + 1))
        all_numbers = {*numbers, int(row["bonus"])}
        if len(all_numbers) != PICKED + 1 or not all_numbers <= set(range(1, BALLS + 1)):
            raise ValueError(f"not seven different numbers from 1 to {BALLS}")
        return int(row["draw_no"]), numbers
    except (TypeError, ValueError) as cause:
        raise DrawsError(f"{path}, line {line}, is not a draw: {cause}") from cause


def features(draws: Draws, window: int = 50) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Describe each number before each draw by the draws before it.

    Parameters
    ----------
    draws : ndarray of int64, shape (n_draws, 6)
        A history.
    window : int
        Draws that a feature looks back on, and that are needed before the first row.

    Returns
    -------
    X : ndarray of float64, shape ((n_draws - window) * 45, 4)
        How often the number came in the last 10 draws and in the whole window, how many draws
        ago it came last, and the number itself divided by 45; 45 rows for each draw.
    y : ndarray of int64, shape ((n_draws - window) * 45,)
        1 where the number was drawn.
    """
    drawn = np.zeros((len(draws), BALLS), dtype=np.int64)
    np.put_along_axis(drawn, draws - 1, 1, axis=1)
    ages = np.arange(window, 0, -1)[:, None]
    blocks = []
    for now in range(window, len(draws)):
        past = drawn[now - window : now]
        last_seen = np.where(past > 0, ages, window + 1).min(axis=0)
        blocks.append(
            np.column_stack(
                [
                    past[-10:].mean(axis=0),
                    past.mean(axis=0),
                    last_seen / window,
                    np.arange(1, BALLS + 1) / BALLS,
                ]
            )
        )
    return np.concatenate(blocks), drawn[window:].ravel()
