"""The life of a model: which one serves, who decided so, which ones go, and whether all is well."""

from __future__ import annotations

import os
from datetime import timedelta

from lotto_mlflow import operations
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.layout import REGISTERED_MODEL
from lotto_mlflow.records import AliasMove, Health, Progress, PruneReport
from lotto_mlflow.references import CHAMPION


class Lifecycle:
    """The methods of `lotto_mlflow.ModelManager` for which model is in use, and which goes."""

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
            recorded has the kind ``outside``, and neither time nor author. Where `delete` removed
            the version by force, the kind is ``deleted``, with the time and reason of that. Empty
            where the alias never stood for anything.

        Raises
        ------
        InvalidReferenceError, MirrorUnavailableError
            As in `promote`.
        """
        return operations.aliases.history(self._folder, alias, registered_model)

    def prune(
        self,
        *,
        keep_last: int | None = None,
        keep_days: float | None = None,
        dry_run: bool = True,
        progress: Progress | None = None,
    ) -> PruneReport:
        """Remove old saves from disk and MLflow, or, by default, say which would go.

        Parameters
        ----------
        keep_last : int, optional
            How many saves of each registered model stay, counted from the newest.
        keep_days : float, optional
            Saves that are not older than this stay. One of the two is required, and a save that
            either keeps stays.
        dry_run : bool
            Only report.
        progress : callable, optional
            As in `lotto_mlflow.records.Progress`.

        Returns
        -------
        PruneReport
            What is gone, and how many bytes that is; what stays although no limit keeps it, and
            why.

        Raises
        ------
        SettingsError
            If no limit is given, or one that makes no sense. Nothing was removed.
        MirrorUnavailableError
            If MLflow cannot be asked which versions are in use; then nothing was removed. If it
            fails on the way, what the message says.

        Notes
        -----
        Every save of this folder counts, whether its file lies in ``trained/``, in ``backups/``
        or only in MLflow. All of it goes: file, metadata, backups, downloads, version, logged
        model, and the files of its run, which is marked as deleted. These never go: the newest;
        what an alias stands for, and what a rollback of it goes back to; what another registered
        version refers to; what the current tracking store has still to get. With mirroring off,
        what was never mirrored is pruned on disk alone. Predictions and their results stay.

        What is removed is decided durably before, and a killed prune is finished by the next save,
        sync or prune. The name of what is gone is never generated again, ``sync`` does not bring
        it back, and `get` says when it went, and why.
        """
        return operations.prune.prune(
            self._folder,
            keep_last=keep_last,
            keep_days=keep_days,
            dry_run=dry_run,
            progress=progress,
        )

    def delete(
        self,
        model: str | int | os.PathLike[str],
        *,
        reason: str | None = None,
        force: bool = False,
        dry_run: bool = False,
    ) -> PruneReport:
        """Remove one bad save from disk and MLflow.

        Parameters
        ----------
        model : str, int or path-like
            As in `promote`. A name means the save in ``trained/``, or else the newest of the name.
        reason : str, optional
            Why; `get` says it to whoever asks for the save.
        force : bool
            Remove it even where aliases stand for its version; these are removed, too.
        dry_run : bool
            Only report.

        Returns
        -------
        PruneReport
            What is gone.

        Raises
        ------
        ModelNotFoundError, InvalidReferenceError
            If there is no such save of this folder. Nothing was removed.
        ModelInUseError
            If an alias stands for the version, and ``force`` is not given; if another registered
            version refers to its files. Nothing was removed.
        MirrorUnavailableError
            If MLflow cannot be asked, or has still to get the save; as in `prune`.

        Notes
        -----
        As with `prune`, but the newest save goes, too, and what a rollback would go back to.

        A save goes from the current tracking store. What another store has of it, as after a
        migration, stays there until it is deleted by its version with that store current;
        `verify` says so there.
        """
        return operations.delete.delete(
            self._folder, model, reason=reason, force=force, dry_run=dry_run
        )

    def check(
        self,
        max_age: timedelta | float | str | None = None,
        alias: str | None = None,
        deep: bool = False,
    ) -> Health:
        """Return whether the newest model is there, fresh and sound, and whether anything waits.

        Parameters
        ----------
        max_age : timedelta, float or str, optional
            How old the model may be since it was saved: a timedelta, seconds, or a text such as
            ``8d``, ``36h``, ``90m`` or ``0s``. A file that was touched or restored is no younger.
        alias : str, optional
            An alias of ``lotto_model``. It is the model that it stands for that must be there, and
            whose age counts; the registry is asked for it.
        deep : bool
            Also do all that `verify` does with ``deep``, which reads every file.

        Returns
        -------
        Health
            ``critical`` where the model is too old, missing or damaged, or there is none, and with
            ``deep`` where any model is damaged or lost. ``warning`` where a record has waited for
            MLflow for over an hour, another minor version of scikit-learn is installed than the
            model was saved with, or the disk has room for less than two such models, and with
            ``deep`` for other differences. ``unknown`` where something could not be looked at.

        Raises
        ------
        SettingsError
            If ``max_age`` is no age, or a setting is not valid.
        InvalidReferenceError
            If ``alias`` is no alias, or reserved.

        Notes
        -----
        Reads only, makes no folder, unpickles nothing, and works for who may not write. MLflow is
        imported only for an alias, and with ``deep``. The file of one model is hashed.
        """
        return operations.check.check(self._folder, max_age, alias, deep=deep)
