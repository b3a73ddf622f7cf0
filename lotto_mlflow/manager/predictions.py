"""Recording predictions and results, and how good the predictions were."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

from lotto_mlflow import operations
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.records import ModelAccuracy, Prediction


class Predictions:
    """The methods of `lotto_mlflow.ModelManager` for predictions and results."""

    _folder: ModelFolder

    def record_prediction(
        self,
        model: str | os.PathLike[str] | int,
        draw_no: int,
        numbers: Any,
        *,
        scores: Any = None,
        made_at: datetime | None = None,
    ) -> Prediction:
        """Record what a model predicts for a draw.

        Parameters
        ----------
        model : str, path-like or int
            A name, a path in ``trained/``, a version number of ``lotto_model``, or a ``models:/``
            URI. What is recorded is the save that it means now.
        draw_no : int
            Number of the draw, at most a year ahead.
        numbers : sequence of int, or sequence of sequences of int
            One game of six numbers from 1 to 45, or a list of games.
        scores : sequence of float, optional
            Inclusion probabilities of the numbers 1 to 45, with the sum 6; a sum of 1 is
            multiplied by 6.
        made_at : datetime.datetime, optional
            When it was made, with its time zone; it may precede the save. The prediction is a
            backtest then, which is counted apart.

        Returns
        -------
        Prediction
            What was recorded, and how good it was where the result is known.

        Raises
        ------
        InvalidPredictionError
            If draw, numbers, scores or time cannot be those of a prediction.
        ModelNotFoundError
            If there is no such model.
        StoreError
            If the disk refuses. Whatever is raised, nothing was recorded.

        Notes
        -----
        Atomic and durable like a save. Everything is kept; of one save there counts at most one
        prediction for a draw and kind, live or backtest: the newest before sales close, on
        Saturday at 20:00 in Seoul. ``metadata/predictions/NAME_DRAW.json`` shows the newest of the
        name that counts, live before backtest.
        """
        return operations.predict.record_prediction(
            self._folder, model, draw_no, numbers, scores, made_at
        )

    def predictions(
        self, model: str | os.PathLike[str] | int | None = None, draw_no: int | None = None
    ) -> list[Prediction]:
        """Return the recorded predictions, those for the newest draw first.

        Parameters
        ----------
        model : str, path-like or int, optional
            Only those of the model of this name, or of the one save that a path, a number or a
            ``models:/`` URI means.
        draw_no : int, optional
            Only those for this draw.

        Raises
        ------
        ModelNotFoundError
            If there is no such model.
        """
        return operations.predict.predictions(self._folder, model, draw_no)

    def record_result(self, draw_no: int, numbers: Any, bonus: int) -> list[Prediction]:
        """Record what was drawn, and score every prediction for the draw.

        Parameters
        ----------
        draw_no : int
            Number of a draw that has been held.
        numbers : sequence of int
            The six winning numbers.
        bonus : int
            The bonus number.

        Returns
        -------
        list of Prediction
            All predictions for the draw, with how good they were.

        Raises
        ------
        InvalidResultError
            If that is no result, the draw has not been held, or another result is known.
        StoreError
            If the disk refuses. Whatever is raised, nothing was recorded.

        Notes
        -----
        Atomic and durable like a save; a result that is known is recorded once. The results are in
        ``metadata/predictions/results.csv``. MLflow gets ``live.hits_per_game``,
        ``live.best_hits`` and ``live.log_loss`` (``backtest.…``) of every prediction that counts,
        as metrics of the run and the logged model of its save, with the draw as the step.
        """
        return operations.results.record_result(self._folder, draw_no, numbers, bonus)

    def import_results(self, csv: str | os.PathLike[str]) -> int:
        """Record the results in a CSV file, as `record_result` does.

        Parameters
        ----------
        csv : str or path-like
            A file with the columns draw_no, draw_date, n1 to n6, and bonus.

        Returns
        -------
        int
            How many of them were not known.

        Raises
        ------
        InvalidResultError
            If the file cannot be read, a row is no result, two rows are of one draw, or another
            result is known; the message names the line. Nothing was recorded.
        """
        return operations.results.import_results(self._folder, csv)

    def accuracy(self, model: str | os.PathLike[str] | int | None = None) -> list[ModelAccuracy]:
        """Return how good the predictions of each save were, beside what chance would have done.

        Parameters
        ----------
        model : str, path-like or int, optional
            Only the saves of the model of this name, or the one save that a path, a number or a
            ``models:/`` URI means.

        Returns
        -------
        list of ModelAccuracy
            A row per save and kind that has predictions with a result: live before backtests,
            then by name, then the oldest save first.

        Raises
        ------
        ModelNotFoundError
            If there is no such model.

        Notes
        -----
        The p-value is two-sided: exact up to 200 draws, also for games that overlap, then by the
        normal distribution. It is adjusted by Holm's method for all saves of its kind that have
        draws, also when one model is asked for.
        """
        return operations.accuracy.accuracy(self._folder, model)
