"""Numbers of several rounds, their ratio pair by pair, and whether they allow a verdict."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any, Literal

TIMES = "\N{MULTIPLICATION SIGN}"
NOISE = 2.0
"""From this spread on, a machine is too noisy for a verdict."""
Verdict = Literal["met", "missed", "too noisy"]


@dataclass(frozen=True)
class Spread:
    """What came out of several rounds."""

    median: float
    minimum: float
    maximum: float
    rounds: int
    noise: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Add up rounds.

        Notes
        -----
        ``noise`` is the ninth decile over the first: of two dozen rounds on any machine one may be
        an outlier, which the median forgives, so the extremes alone condemn nothing.
        """
        ordered = sorted(values)
        margin = len(ordered) // 10
        low, high = ordered[margin], ordered[-1 - margin]
        noise = high / low if low > 0 else 1.0
        return cls(statistics.median(ordered), ordered[0], ordered[-1], len(ordered), noise)


@dataclass(frozen=True)
class Target:
    """How far a figure may go."""

    limit: float
    at_most: bool = True
    unit: str = TIMES

    def is_met_by(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit


def verdict(target: Target, result: Spread, *sides: Spread) -> Verdict:
    """Return whether a target is met, as far as that can be told from these rounds."""
    if any(side.noise > NOISE for side in sides):
        return "too noisy"
    return "met" if target.is_met_by(result.median) else "missed"


def ratios(ours: list[float], theirs: list[float]) -> Spread:
    """Return the ratio of each pair of rounds."""
    return Spread.of([a / b for a, b in zip(ours, theirs, strict=True)])


def as_json(spread: Spread) -> dict[str, Any]:
    return {
        "median": spread.median,
        "minimum": spread.minimum,
        "maximum": spread.maximum,
        "rounds": spread.rounds,
        "noise": spread.noise,
    }
