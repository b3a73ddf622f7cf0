"""`LiveModel`: the model in use, which keeps itself up to date beside the requests."""

from __future__ import annotations

import functools
import inspect
import math
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

from lotto_mlflow import model_utils
from lotto_mlflow.errors import NotPicklableError, SettingsError
from lotto_mlflow.live.keeper import InUse, Keeper
from lotto_mlflow.manager import ModelManager
from lotto_mlflow.records import ModelRecord
from lotto_mlflow.settings import as_number
from lotto_mlflow.text import safe_line

__all__ = ["InUse", "LiveModel"]


class LiveModel:
    """The model in use, which is replaced while it serves when its reference means another.

    Parameters
    ----------
    reference : str, optional
        ``models:/NAME@ALIAS`` or ``models:/NAME/latest``, which are followed, or
        ``models:/NAME/1``, which stays. ``None`` follows the newest ``lotto_model_*.pkl`` on disk.
    manager : ModelManager, optional
        Whose models; by default, of the folder of `lotto_mlflow.model_utils`.
    every_seconds : float
        Seconds from the beginning of one check to that of the next; more than zero.
    warm : callable, optional
        Called with each model, the first one too, before it serves. What it raises keeps the model
        out.
    on_swap : callable, optional
        Called with the new `lotto_mlflow.ModelRecord` after each swap, in the thread that swapped.
        What it raises is logged.

    Raises
    ------
    SettingsError, InvalidReferenceError
        If an argument is not valid.
    ModelNotFoundError, LoadError, MirrorUnavailableError
        If the first model cannot be loaded, as `lotto_mlflow.load_model` says, or ``warm`` failed.

    Warnings
    --------
    Unpickling runs code, of every model that the reference comes to mean: follow only what none
    but trusted people can write to.

    Notes
    -----
    Methods and attributes without a leading underscore that are not here are those of the model in
    use. A call reads once which model that is, waits for nothing, and ends with the model that it
    began with; the old one is released when the last such call has ended.

    Checks are made in a daemon thread, which ends when this object is closed or no longer used. One
    asks for the status of a folder and of a file, or makes one query that the registry's indexes
    answer, after a probe. On disk, a file that only a new time makes the newest (``touch``) is
    noticed within ten checks, and by `refresh`.

    A new model is verified, loaded and warmed up beside the one in use; for that long, there is
    memory for both. Whatever keeps it out leaves the one in use: `problem` says what it is, one
    warning is logged for each problem, and a model that could not be loaded is tried again after
    two checks, four, and at most sixteen, or as soon as the reference means another.

    After a fork, the child has a thread of its own. Safe to use from any number of threads.
    """

    __slots__ = ("__weakref__", "_keeper", "_reference")

    def __init__(
        self,
        reference: str | None = None,
        *,
        manager: ModelManager | None = None,
        every_seconds: float = 10,
        warm: Callable[[Any], object] | None = None,
        on_swap: Callable[[ModelRecord], object] | None = None,
    ) -> None:
        seconds = _checked_seconds(every_seconds)
        _check_callable("warm", warm)
        _check_callable("on_swap", on_swap)
        followed = _checked_manager(manager).follow(reference)
        self._reference = reference
        self._keeper = Keeper(followed, seconds, warm, on_swap)
        self._keeper.begin()

    @property
    def in_use(self) -> InUse:
        """The model in use and its record, which belong together."""
        return self._keeper.in_use

    @property
    def model(self) -> Any:
        """The model in use."""
        return self._keeper.in_use.model

    @property
    def record(self) -> ModelRecord:
        """What was known of the model in use when it was loaded."""
        return self._keeper.in_use.record

    @property
    def problem(self) -> str | None:
        """What keeps out the model that the reference means, ``None`` where nothing does."""
        return self._keeper.trouble.text

    @property
    def checked_at(self) -> datetime:
        """When the last check ended, whatever it found; in UTC."""
        return self._keeper.checked_at

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the model in use predicts; the arguments are those of its ``predict``."""
        return self._keeper.in_use.model.predict(*args, **kwargs)

    def refresh(self) -> bool:
        """Check now, and wait for the end of the check.

        Returns
        -------
        bool
            Whether another model serves than when this was called; if not, `problem` says whether
            one should. Always false after `close`, and when called by ``warm`` or ``on_swap``.
        """
        return self._keeper.refresh()

    def close(self) -> None:
        """End the checks; the model in use stays, and is replaced no more.

        Notes
        -----
        Idempotent. A check that is under way is waited for, five seconds at most.
        """
        self._keeper.close()

    def __enter__(self) -> LiveModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the model in use; a method goes to the one in use when called.

        Notes
        -----
        Of names with a leading underscore, only those by which scikit-learn asks an estimator.
        """
        if name.startswith("_") and not name.startswith("__sklearn_"):
            raise AttributeError(
                f"a LiveModel has no {name}; that of the model in use is at .model"
            )
        value = getattr(self._keeper.in_use.model, name)
        return _forwarding(self._keeper, name, value) if inspect.isroutine(value) else value

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether the model in use is fitted, for scikit-learn."""
        from sklearn.exceptions import NotFittedError  # imported lazily
        from sklearn.utils.validation import check_is_fitted

        try:
            check_is_fitted(self.model)
        except NotFittedError:
            return False
        return True

    def __dir__(self) -> list[str]:
        of_model = (name for name in dir(self.model) if not name.startswith("_"))
        return sorted({*super().__dir__(), *of_model})

    def __repr__(self) -> str:
        of, record = "" if self._reference is None else f"{self._reference!r}, ", self.record
        return safe_line(f"LiveModel({of}name={record.name!r}, version={record.version})")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise NotPicklableError(
            "a LiveModel is of its process, and cannot be pickled, copied or saved; give the model "
            "in use, which is at .model, or make a LiveModel in the other process"
        )


def _forwarding(keeper: Keeper, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls the method of this name of whichever model is in use then."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        return getattr(keeper.in_use.model, name)(*args, **kwargs)

    functools.update_wrapper(forward, method, updated=())
    vars(forward).pop("__wrapped__", None)  # whoever keeps the function would keep an old model
    return forward


def _checked_seconds(value: object) -> float:
    seconds = as_number(value)
    if not 0 < seconds < math.inf:
        raise SettingsError(
            f"every_seconds is {value!r:.100}; give a number of seconds above 0, such as 10",
            value=value,
        )
    return min(seconds, threading.TIMEOUT_MAX)


def _check_callable(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise SettingsError(f"{name} is {value!r:.100}; give a function, or None", value=value)


def _checked_manager(value: object) -> ModelManager:
    if value is None:
        return model_utils.current_manager()
    if not isinstance(value, ModelManager):
        raise SettingsError(f"manager is {value!r:.100}; give a ModelManager, or None", value=value)
    return value
