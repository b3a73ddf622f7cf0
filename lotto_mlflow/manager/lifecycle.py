"""The life of a model: which one serves, and who decided so."""

from __future__ import annotations

import os

from lotto_mlflow import operations
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.layout import REGISTERED_MODEL
from lotto_mlflow.records import AliasMove
from lotto_mlflow.references import CHAMPION


class Lifecycle:
    """The methods of `lotto_mlflow.ModelManager` for which model is in use."""

    _folder: ModelFolder

    def promote(
        self,
        model: str | int | os.PathLike[str],
        alias: str = CHAMPION,
        *,
        metric: str | None = None,
        higher_is_better: bool = True,
        min_gain: float = 0.0,
        reason: str | None = None,
    ) -> AliasMove:
        """Have an alias stand for a model, if that is better than the one it stands for.

        Parameters
        ----------
        model : str, int or path-like
            A name, a path in ``trained/``, a version number of ``lotto_model``, or a ``models:/``
            URI. A save that still waits for MLflow is pushed first, within five seconds.
        alias : str
            Any alias that MLflow accepts; it is of the model's registered model.
        metric : str, optional
            The model must have more of it than the one in use. Compared are the last values on the
            runs of both, those among them that came after the save. Where the alias stands for
            nothing yet, it is enough to have a value.
        higher_is_better : bool
            False for a loss.
        min_gain : float
            How much better the model must be at least, within 1e-12.
        reason : str, optional
            Is kept in the history, shortened where it is longer than some 3,500 bytes.

        Returns
        -------
        AliasMove
            The move; where the alias stood for the model already, the one that was made before.

        Raises
        ------
        PromotionRefusedError
            If the model is not so much better, or a value is missing or not a number.
        AliasMovedError
            If somebody else moved the alias meanwhile; with a metric, the model is compared with
            the new one in use instead.
        ModelNotFoundError, InvalidReferenceError, SettingsError
            If there is no such model; if the alias is none; if another argument makes no sense.
        MirrorUnavailableError
            If the registry could not be asked.

        Notes
        -----
        After an error the alias is where it was, unless the message says that the move is recorded
        and will be finished. The move is recorded in MLflow before it is made, where every host
        sees it and nobody overwrites it; of two at once, one is made. What is killed is finished
        by the next promotion or rollback.
        """
        return operations.aliases.promote(
            self._folder,
            model,
            alias,
            metric=metric,
            higher_is_better=higher_is_better,
            min_gain=min_gain,
            reason=reason,
        )

    def rollback(
        self,
        alias: str = CHAMPION,
        *,
        registered_model: str = REGISTERED_MODEL,
        reason: str | None = None,
    ) -> AliasMove:
        """Have an alias stand for the version that it stood for before the one in use.

        Parameters
        ----------
        alias : str
            The alias.
        registered_model : str
            The registered model that has it.
        reason : str, optional
            As in `promote`.

        Returns
        -------
        AliasMove
            The move.

        Raises
        ------
        ModelNotFoundError
            If there was none before it that is still there. Nothing was moved.
        AliasMovedError, InvalidReferenceError, MirrorUnavailableError
            As in `promote`.

        Notes
        -----
        A second rollback goes one further back. Versions that were deleted are passed over. A move
        that was made with MLflow itself counts like a promotion.
        """
        return operations.aliases.rollback(self._folder, alias, registered_model, reason)

    def history(
        self, alias: str = CHAMPION, *, registered_model: str = REGISTERED_MODEL
    ) -> list[AliasMove]:
        """Return the moves of an alias, oldest first, by whichever host.

        Parameters
        ----------
        alias, registered_model : str
            As in `rollback`.

        Returns
        -------
        list of AliasMove
            Each begins with what the one before it ended with. A move that MLflow shows and nobody
            recorded has the kind ``outside``, and neither time nor author. Empty where the alias
            never stood for anything.

        Raises
        ------
        InvalidReferenceError, MirrorUnavailableError
            As in `promote`.
        """
        return operations.aliases.history(self._folder, alias, registered_model)
