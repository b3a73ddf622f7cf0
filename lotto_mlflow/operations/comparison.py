"""Comparison: whether a model is so much better in a metric than the one in use."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lotto_mlflow.errors import PromotionRefusedError, SettingsError
from lotto_mlflow.operations.alias import Alias
from lotto_mlflow.plain_values import shown
from lotto_mlflow.records import AliasMove, ModelRecord
from lotto_mlflow.settings import as_number

_LONGEST_METRIC = 250
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Gate:
    """What a model must be better in than the one in use, and by how much."""

    metric: str
    is_higher_better: bool
    min_gain: float

    def is_passed(self, candidate: float | None, holder: float | None) -> bool:
        """Return whether the gain is large enough; a value that is missing is none."""
        if candidate is None or holder is None:
            return False
        gain = candidate - holder if self.is_higher_better else holder - candidate
        is_better = candidate > holder if self.is_higher_better else candidate < holder
        return is_better and gain >= self.min_gain - _TOLERANCE


def gate_of(metric: object, min_gain: object, *, higher_is_better: bool) -> Gate | None:
    """Return the condition of a promotion, ``None`` where there is none.

    Raises
    ------
    SettingsError
        If there is one that makes no sense.
    """
    gain = as_number(min_gain)
    if not 0 <= gain < math.inf:
        raise SettingsError(
            f"min_gain is {shown(min_gain)}; give a number that is not negative", value=min_gain
        )
    if metric is None:
        if gain or not higher_is_better:
            raise SettingsError(
                "min_gain and higher_is_better are of a metric; name it, too", value=min_gain
            )
        return None
    if not isinstance(metric, str) or not 0 < len(metric) <= _LONGEST_METRIC:
        raise SettingsError(
            f"metric is {shown(metric)}; give the name of one, of at most {_LONGEST_METRIC} "
            "characters",
            value=metric,
        )
    return Gate(metric, bool(higher_is_better), gain)


def measured(
    place: Alias,
    gate: Gate,
    move: AliasMove,
    holder: ModelRecord | None,
    candidate: ModelRecord,
) -> AliasMove:
    """Return a move with the values that were compared.

    Raises
    ------
    PromotionRefusedError
        If the candidate has no value, or it is not as much better as it must be.
    """
    ours = _value(place, gate, candidate)
    theirs = None if holder is None else _value(place, gate, holder)
    is_granted = _is_number(ours) if holder is None else gate.is_passed(ours, theirs)
    if is_granted:
        return replace(move, metric=gate.metric, from_value=theirs, to_value=ours)
    raise _refused(place, gate, holder, candidate, (ours, theirs))


def check_holder(place: Alias, gate: Gate, holder: ModelRecord) -> None:
    """See that the model in use, which is to be promoted again, has a value.

    Raises
    ------
    PromotionRefusedError
        If it has none, such as of a metric whose name was mistyped.
    """
    value = _value(place, gate, holder)
    if not _is_number(value):
        raise _refused(place, gate, holder, holder, (value, value))


def _value(place: Alias, gate: Gate, version: ModelRecord) -> float | None:
    return place.book.metric(str(version.run_id), gate.metric)


def _is_number(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _refused(
    place: Alias,
    gate: Gate,
    holder: ModelRecord | None,
    candidate: ModelRecord,
    values: tuple[float | None, float | None],
) -> PromotionRefusedError:
    ours, theirs = values
    return PromotionRefusedError(
        f"version {candidate.version} of {place.registered_model} was not promoted: its "
        f"{gate.metric} is {_shown(ours)}, {_rest(place.name, gate, holder, ours, theirs)}; "
        "nothing was moved",
        metric=gate.metric,
        candidate_value=ours,
        holder_value=theirs,
        candidate_version=candidate.version,
        holder_version=None if holder is None else holder.version,
    )


def _rest(
    alias: str, gate: Gate, holder: ModelRecord | None, ours: float | None, theirs: float | None
) -> str:
    """Return what a value would have to be, as the end of a sentence that begins with it."""
    if holder is None:
        return f"{alias} stands for no version yet, and the first one needs a number there"
    rest = f"and version {holder.version}, for which {alias} stands, has {_shown(theirs)}"
    if not (_is_number(ours) and _is_number(theirs)):
        rest = rest.replace(" has missing", " has none: it is missing")
        return f"{rest}; these cannot be compared: log both, or promote without a metric"
    than = "higher than that" if gate.is_higher_better else "lower than that"
    return f"{rest}; it must be {than}{f', by at least {gate.min_gain!r}' if gate.min_gain else ''}"


def _shown(value: float | None) -> str:
    return "missing" if value is None else repr(value)
