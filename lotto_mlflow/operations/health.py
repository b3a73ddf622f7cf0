"""What a check puts together: ages, problems with their weight, and the line that says it all."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from lotto_mlflow.errors import LottoMlflowError, SettingsError
from lotto_mlflow.records import Finding, Health, HealthStatus
from lotto_mlflow.settings import as_number
from lotto_mlflow.text import safe_line

SERVICE = "LOTTO_MLFLOW"
WAIT_SECONDS = 3600
"""How long a record may wait for MLflow before it is worth a warning."""
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_IN_WORDS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_AGE = re.compile(r"([0-9]{1,9})([dhms])")
_FROM_GOOD_TO_BAD: tuple[HealthStatus, ...] = ("ok", "warning", "unknown", "critical")
_MOST_SAID = 4
_LONGEST_SAID = 240


def seconds_of(max_age: timedelta | float | str | None) -> float | None:
    """Return an age in seconds, ``None`` where none is given.

    Raises
    ------
    SettingsError
        If it is no age.
    """
    if max_age is None:
        return None
    if isinstance(max_age, timedelta):
        seconds = max_age.total_seconds()
    elif isinstance(max_age, str):
        match = _AGE.fullmatch(max_age)
        seconds = math.nan if match is None else float(int(match[1]) * _UNITS[match[2]])
    else:
        seconds = as_number(max_age)
    if not 0 <= seconds < math.inf:
        raise SettingsError(
            f"{max_age!r:.100} is no age; give a number with its unit, such as 8d, 36h, 90m or 0s, "
            "or in Python a timedelta or seconds",
            value=max_age,
        )
    return seconds


def in_words(seconds: float) -> str:
    """Return a time as people say it, in its two largest units, rounded down.

    Examples
    --------
    >>> in_words(7_200), in_words(777_700)
    ('2 h', '9 d')
    >>> in_words(97_200)
    '1 d 3 h'
    """
    rest = int(seconds)
    for number, (unit, size) in enumerate(_IN_WORDS):
        if rest >= size:
            whole, rest = divmod(rest, size)
            smaller, size = _IN_WORDS[number + 1] if size > 1 else ("s", 1)
            more = f" {rest // size} {smaller}" if rest >= size else ""
            return f"{whole} {unit}{more}"
    return "0 s"


@dataclass(frozen=True)
class _Problem:
    """A finding, how bad it is, and how the line says it."""

    status: HealthStatus
    finding: Finding
    said: str


@dataclass
class Report:
    """What a check has found so far.

    Attributes
    ----------
    max_age_seconds : float or None
        How old the model may be.
    model : str
        What is said of the model that the check is about.
    age_seconds, waiting_seconds, size_bytes, free_bytes : float or None
        As in `lotto_mlflow.Health`.
    waiting : int or None
        How many records wait.
    """

    max_age_seconds: float | None
    model: str = ""
    age_seconds: float | None = None
    waiting: int | None = None
    waiting_seconds: float | None = None
    size_bytes: int | None = None
    free_bytes: int | None = None
    _problems: list[_Problem] = field(default_factory=list)

    def add(self, status: HealthStatus, finding: Finding, said: str | None = None) -> None:
        """Note a problem, once; the line says its detail, or else what is given."""
        about = (finding.kind, finding.name, finding.path)
        known = (one.finding for one in self._problems)
        if about not in [(one.kind, one.name, one.path) for one in known]:
            self._problems.append(_Problem(status, finding, said or finding.detail))

    @contextmanager
    def looking(self, what: str, path: Path | None = None) -> Iterator[None]:
        """Note what refuses to be looked at; whatever else can be is looked at then."""
        try:
            yield
        except Exception as cause:  # noqa: BLE001 - such as a broken installation of MLflow
            fix, summary = None, str(cause)
            if isinstance(cause, LottoMlflowError):
                fix, summary = cause.fix, cause.summary
            elif not isinstance(cause, OSError):
                summary = f"{type(cause).__name__}: {cause}"
            detail = f"{what} could not be looked at: {summary}"
            repair = "" if fix else "grant the rights, or try again later"
            self.add("unknown", Finding("not looked at", "", path, detail, repair, fix))

    def health(self) -> Health:
        """Return what was found, the worst first."""
        worst_first = sorted(
            self._problems, key=lambda one: _FROM_GOOD_TO_BAD.index(one.status), reverse=True
        )
        status = worst_first[0].status if worst_first else "ok"
        said = [one.said for one in worst_first if one.status != "ok"]
        more = len(said) - _MOST_SAID
        said = said[:_MOST_SAID] + ([f"and {more} more"] if more > 0 else [])
        metrics = {
            "age_seconds": self.age_seconds,
            "max_age_seconds": self.max_age_seconds,
            "waiting": self.waiting,
            "waiting_seconds": self.waiting_seconds,
            "size_bytes": self.size_bytes,
            "free_bytes": self.free_bytes,
        }
        findings = tuple(one.finding for one in worst_first)
        texts = [*said, *([self.model] if self.model else [])] or ["nothing was looked at"]
        return Health(status, line(status, texts, self._figures()), findings, metrics)

    def _figures(self) -> list[str]:
        """Return what is known as performance data; a figure rounded up is over the same limit."""
        limit = "" if self.max_age_seconds is None else f"{self.max_age_seconds:.15g}"
        least = "" if self.size_bytes is None else f"{2 * self.size_bytes}:"
        figures: list[tuple[str, float | None, str]] = [
            ("age", self.age_seconds, f"s;;{limit};0"),
            ("waiting", self.waiting, ";;;0"),
            ("waiting_age", self.waiting_seconds, f"s;{WAIT_SECONDS};;0"),
            ("size", self.size_bytes, "B;;;0"),
            ("free", self.free_bytes, f"B;{least};;0"),
        ]
        return [
            f"{label}={math.ceil(value)}{rest}"
            for label, value, rest in figures
            if value is not None
        ]


def line(status: HealthStatus, texts: list[str], figures: list[str]) -> str:
    """Return the one line of a monitoring plug-in.

    Parameters
    ----------
    status : {"ok", "warning", "critical", "unknown"}
        The status.
    texts : list of str
        What is the matter; each is shortened, since some programs read 1,024 bytes at most.
    figures : list of str
        The performance data.

    References
    ----------
    Monitoring Plugins Development Guidelines: ``'label'=value[UOM];[warn];[crit];[min];[max]``
    after the first ``|``; a limit ``10`` is for values above it, ``10:`` for those below.
    """
    shortened = (
        text if len(text) <= _LONGEST_SAID else f"{text[: _LONGEST_SAID - 3]}..."
        for text in map(safe_line, texts)
    )
    said = "; ".join(shortened).replace("|", r"\x7c")
    return f"{SERVICE} {status.upper()} - {said}{' | ' if figures else ''}{' '.join(figures)}"
