"""`Trouble`: what keeps a model out, said once, and when the model is to be tried again."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from lotto_mlflow.errors import LottoMlflowError
from lotto_mlflow.text import safe_line

if TYPE_CHECKING:
    from lotto_mlflow.operations.follow import Mark

_logger = logging.getLogger("lotto_mlflow")
_MOST_DOUBLED = 4
"""How often the time until another try is doubled."""


class Trouble:
    """What is wrong with a reference, or with the model that it means.

    Parameters
    ----------
    every_seconds : float
        Seconds from one check to the next.

    Attributes
    ----------
    text : str or None
        What is wrong now, one safe line.
    """

    def __init__(self, every_seconds: float) -> None:
        self._every_seconds = every_seconds
        self._begin()

    def _begin(self) -> None:
        self.text: str | None = None
        self._logged: set[tuple[Mark | None, type[BaseException]]] = set()
        self._mark: Mark | None = None
        self._text_of_mark = ""
        self._failures = 0
        self._retry_at = 0.0

    def note(self, mark: Mark | None, cause: BaseException, in_use: str) -> None:
        """Note what went wrong, and log a warning where it is not known yet.

        Parameters
        ----------
        mark : tuple or None
            The model that could not be loaded; ``None`` where it is not known which it would be.
        cause : BaseException
            What went wrong.
        in_use : str
            Name of the model that serves on.
        """
        text = said(cause)
        self.text = text
        if mark is not None:
            self._failures = self._failures + 1 if mark == self._mark else 1
            self._mark, self._text_of_mark = mark, text
            # half a check less: the check that is due then may come a moment early
            checks = 2 ** min(self._failures, _MOST_DOUBLED) - 0.5
            self._retry_at = time.monotonic() + checks * self._every_seconds
        problem = (mark, type(cause))
        if problem not in self._logged:
            self._logged.add(problem)
            _logger.warning("%s stays in use: %s", in_use, text)

    def note_answer(self) -> None:
        """Note that it is known which model the reference means: what comes next is news."""
        self._logged = {problem for problem in self._logged if problem[0] is not None}

    def note_end(self) -> None:
        """Note that the model in use is the one that the reference means."""
        if self.text is not None:
            _logger.info("the trouble is over: %s", self.text)
        self._begin()

    def is_to_wait(self, mark: Mark) -> bool:
        """Return whether a model could not be loaded, and is not to be tried again yet."""
        waits = mark == self._mark and time.monotonic() < self._retry_at
        if waits:
            self.text = self._text_of_mark
        return waits


def said(cause: BaseException) -> str:
    """Return what an error says, with its kind where it is not one of ours, as one safe line."""
    if isinstance(cause, LottoMlflowError):
        return str(cause)
    try:
        return safe_line(f"{type(cause).__name__}: {cause}")
    except Exception:  # noqa: BLE001 - other people's errors may even fail to say what they are
        return type(cause).__name__
