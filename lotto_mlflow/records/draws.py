"""Predictions and results: the payloads of their records, and what lookups return of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PREDICTION, RESULT = "prediction", "result"
"""Kinds of records: of what a model predicted for a draw, and of what was drawn."""
_MARK = "@"
"""In names of records of predictions and results, and in no name of a model that a save accepts."""


RESULTS_NAME = f"{_MARK}results"


def prediction_name(model: str, draw_no: int) -> str:
    """Return the name of the records of a model's predictions for a draw."""
    return f"{model}{_MARK}{draw_no}"


def has_name_of_draws(name: str) -> bool:
    """Return whether a record of this name is of a prediction or a result."""
    model, _, last = name.rpartition(_MARK)
    if model:
        return last.isdigit() and last.isascii()
    return name == RESULTS_NAME


@dataclass(frozen=True, kw_only=True)
class PredictionPayload:
    """A prediction: which save made it, for which draw, and what it is.

    Attributes
    ----------
    model : str
        Name of the model.
    draw_no : int
        Number of the draw.
    games : list of list of int
        The games, as `lotto_mlflow.draws.checked_games` returns them.
    scores : list of float or None
        Probabilities of the numbers 1 to 45, as `lotto_mlflow.draws.checked_scores` returns them.
    made_at : str
        When it was made, ISO 8601 with its offset from UTC.
    made_at_ns : int
        The same in nanoseconds since 1970.
    is_backtest : bool
        Whether the time is the caller's word, and not that of the recording.
    is_late : bool
        Whether sales had closed then.
    save_id : str
        Identity of the save that predicted.
    sha256 : str or None
        Digest of its bytes.
    registered_model : str
        Name of the registered model that it is a version of.
    version : int or None
        Its version, where that was known.
    store : str or None
        Name of the tracking store that has it, where no record of this folder says.
    run_id, model_id : str
        Its run and logged model there.
    backup : str or None
        Name, in ``backups/predictions/``, given to the JSON file that this one replaced.
    source, source_backup : str or None
        Name, in ``metadata/predictions/``, of the older file that it was read from, and the name
        given to that file in ``backups/predictions/``.
    extra : dict
        Fields of a later release, kept as they are.
    """

    model: str
    draw_no: int
    games: list[list[int]]
    made_at: str
    made_at_ns: int
    is_backtest: bool
    is_late: bool
    save_id: str
    sha256: str | None
    registered_model: str
    scores: list[float] | None = None
    version: int | None = None
    store: str | None = None
    run_id: str = ""
    model_id: str = ""
    backup: str | None = None
    source: str | None = None
    source_backup: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its records: those of the model's other predictions for the draw have it, too."""
        return prediction_name(self.model, self.draw_no)


@dataclass(frozen=True, kw_only=True)
class ResultPayload:
    """The results of one draw or many.

    Attributes
    ----------
    draws : list of list of int
        Of each draw its number, the six numbers, ascending, and the bonus number.
    backup : str or None
        Name, in ``backups/predictions/``, given to a file of results that was not of the records.
    extra : dict
        Fields of a later release, kept as they are.
    """

    draws: list[list[int]]
    backup: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its record."""
        return RESULTS_NAME


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a save of a model predicted for a draw, and how good that was.

    Attributes
    ----------
    prediction_id : str
        Identity of the prediction.
    model : str
        Name of the model.
    registered_model : str
        Name of the registered model that the save is a version of.
    version : int or None
        Its version, once the save is mirrored.
    save_id : str
        Identity of the save that predicted; a later save of the same name has another.
    sha256 : str or None
        Digest of its bytes.
    draw_no : int
        Number of the draw.
    games : tuple of tuple of int
        The games, six ascending numbers each.
    scores : tuple of float or None
        Probabilities of the numbers 1 to 45, with the sum 6.
    made_at : str
        When it was made, ISO 8601 with its offset from UTC.
    is_backtest : bool
        Whether that is the caller's word, and not the time of the recording.
    is_late : bool
        Whether sales had closed then.
    counts : bool
        Whether it is the one that counts: of its save, its draw and its kind, live or backtest,
        the newest that was made before sales closed.
    path : pathlib.Path or None
        Its JSON file, ``None`` where another prediction is shown.
    hits : tuple of int or None
        Winning numbers in each game; ``None``, like all below, until the result is known.
    bonus_hits : tuple of bool or None
        Whether each game holds the bonus number.
    ranks : tuple of (int or None) or None
        Prize rank of each game, 1 to 5, ``None`` for less.
    best_hits : int or None
        The most winning numbers in one game.
    hits_per_game : float or None
        Winning numbers in a game, on average; chance has 0.8.
    log_loss : float or None
        Log loss of the scores, if there are any; chance has 0.3927.
    """

    prediction_id: str
    model: str
    registered_model: str
    version: int | None
    save_id: str
    sha256: str | None
    draw_no: int
    games: tuple[tuple[int, ...], ...]
    scores: tuple[float, ...] | None
    made_at: str
    is_backtest: bool
    is_late: bool
    counts: bool
    path: Path | None
    hits: tuple[int, ...] | None = None
    bonus_hits: tuple[bool, ...] | None = None
    ranks: tuple[int | None, ...] | None = None
    best_hits: int | None = None
    hits_per_game: float | None = None
    log_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class ModelAccuracy:
    """How good the predictions of one save were, live or in a backtest.

    Attributes
    ----------
    model : str
        Name of the model.
    version : int or None
        Version of the save, once it is mirrored.
    is_backtest : bool
        Whether the row is of backtests.
    draws : int
        Draws with a result and a prediction that counts.
    games : int
        Games in all of them.
    hits_per_game : float
        Winning numbers in a game, on average; chance has 0.8.
    interval : tuple of float or None
        Ends of the interval that holds the expected value in 95 % of all cases, ``None`` below two
        draws.
    p_value : float
        Probability that chance is as far from 0.8 or farther, to either side.
    p_adjusted : float
        The same, adjusted for the number of saves by Holm's method.
    prizes : dict of int to int
        Number of games with each prize rank, 1 to 5.
    log_loss : float or None
        Mean log loss of the scores, where there were any; chance has 0.3927.
    """

    model: str
    version: int | None
    is_backtest: bool
    draws: int
    games: int
    hits_per_game: float
    interval: tuple[float, float] | None
    p_value: float
    p_adjusted: float
    prizes: dict[int, int]
    log_loss: float | None
