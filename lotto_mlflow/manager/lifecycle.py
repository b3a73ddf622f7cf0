"""The life of a model: which one serves, and whether it is fresh and sound."""

from __future__ import annotations

from datetime import timedelta

from lotto_mlflow import operations
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.records import Health


class Lifecycle:
    """The methods of `lotto_mlflow.ModelManager` for which model is in use."""

    _folder: ModelFolder

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
