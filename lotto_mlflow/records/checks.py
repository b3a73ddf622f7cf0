"""What each field of a record must be: the checks of a strict parse."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from lotto_mlflow.draws import BALLS, are_scores, is_game
from lotto_mlflow.records.draws import PredictionPayload, ResultPayload
from lotto_mlflow.records.prunes import PrunePayload
from lotto_mlflow.records.types import (
    Attempt,
    Description,
    MlflowIds,
    Record,
    RestorePayload,
    SavePayload,
)

_DIGEST = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,127})?")
"""What MLflow calls a run or a logged model: one plain name, in a path or a query."""
SAVE_ID = r"[0-9]{19}-[0-9a-f]{8}"
"""The form of a record's id: a time in nanoseconds, and what tells two of one moment apart."""
_END_OF_COUNT = 2**63
_END_OF_DRAWS = 100_000
"""More than a thousand years of weeks."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _END_OF_COUNT


def _is_file_time(value: Any) -> bool:
    return type(value) is int and abs(value) < _END_OF_COUNT


def is_digest(value: Any) -> bool:
    """Return whether a value is a SHA-256: 64 hexadecimal digits."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def is_id(value: Any) -> bool:
    """Return whether a value is an id of a run or a logged model; empty stands for none."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def is_save_id(value: Any) -> bool:
    """Return whether a value has the form of a record's id."""
    return isinstance(value, str) and re.fullmatch(SAVE_ID, value) is not None


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_list_of_digests(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_digest, value))


def _are_digests(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_digest, value.values()))


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _is_dict_of_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _is_dict_of_dicts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, dict) for item in value.values())


def _are_metrics(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(points, list) and all(map(_is_point, points)) for points in value.values()
    )


def _is_point(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(number, (int, float)) for number in value)
        and all(abs(number) <= sys.float_info.max for number in value)
    )


def _are_facts(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("kind"), str)


def _is_example(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"input", "output"}
        and _are_facts(value["input"])
        and (value["output"] is None or _are_facts(value["output"]))
    )


def _is_signature(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_or_none(_is_text), value.values()))


def _is_dataset(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and {"context", "digest"} <= value.keys()
        and all(check(value[key]) for key, check in _DATASET.items() if key in value)
    )


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


def _is_draw_no(value: Any) -> bool:
    return type(value) is int and 1 <= value < _END_OF_DRAWS


def _are_games(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_game, value))


def _are_results(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_result, value))


def _is_result(value: Any) -> bool:
    """Return whether a value is the number of a draw, its six numbers, and its bonus number."""
    if not isinstance(value, list) or len(value) != 8 or not _is_draw_no(value[0]):
        return False
    game, bonus = value[1:7], value[7]
    return is_game(game) and type(bonus) is int and 1 <= bonus <= BALLS and bonus not in game


def _is_file_name(value: Any) -> bool:
    return (
        isinstance(value, str)
        and bool(value)
        and not value.startswith(".")
        and not {"/", "\\", "\0"} & set(value)
    )


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


_DATASET: dict[str, Callable[[Any], bool]] = {
    "context": _is_text,
    "digest": _is_text,
    "name": _is_text,
    "source": _is_text,
    "source_type": _is_text,
    "schema": _or_none(_is_text),
    "profile": _or_none(_is_text),
    "shape": _or_none(_is_shape),
    "facts": _or_none(_are_facts),
}
CHECKS: dict[Any, dict[str, Callable[[Any], bool]]] = {
    Record: {
        "id": _is_text,
        "kind": _is_text,
        "target": _is_text,
        "host": _is_text,
        "payload": _is_dict,
        "mirrored": _is_dict_of_dicts,
        "attempts": _is_dict_of_dicts,
        "tries": _is_count,
        "reason": _or_none(_is_text),
    },
    MlflowIds: {
        "version": _is_count,
        "run_id": is_id,
        "model_id": is_id,
        "registered_model": _or_none(_is_text),
        "files": _are_digests,
        "push_delay_ms": _or_none(_is_file_time),
    },
    Attempt: {"run_id": is_id, "model_id": is_id},
    SavePayload: {
        "name": _is_text,
        "sha256": is_digest,
        "size": _is_count,
        "saved_at": _is_text,
        "saved_at_ns": _is_count,
        "description": _is_dict,
        "metadata": _or_none(_is_dict),
        "backup": _or_none(_is_text),
        "replaced_damaged": _is_bool,
        "replaced_sha256": _or_none(is_digest),
        "earlier_sha256": _or_none(_is_list_of_digests),
        "mtime_ns": _or_none(_is_file_time),
        "started_at_ns": _or_none(_is_count),
        "clock_ahead_ns": _is_count,
    },
    RestorePayload: {
        "name": _is_text,
        "sha256": is_digest,
        "size": _is_count,
        "file_time_ns": _is_file_time,
        "source": _is_text,
        "save_id": _or_none(_is_text),
        "metadata": _or_none(_is_text),
        "backup": _or_none(_is_text),
        "replaced_damaged": _is_bool,
        "replaced_sha256": _or_none(is_digest),
        "earlier_sha256": _or_none(_is_list_of_digests),
    },
    Description: {
        "model_type": _is_text,
        "params": _is_dict_of_texts,
        "metrics": _are_metrics,
        "tags": _is_dict_of_texts,
        "requirements": _is_list_of_texts,
        "predicts": _is_bool,
        "example": _or_none(_is_example),
        "datasets": lambda value: isinstance(value, list) and all(map(_is_dataset, value)),
        "signature": _or_none(_is_signature),
        "input_example": _or_none(_are_facts),
        "parent_run_id": _or_none(_is_text),
    },
    PredictionPayload: {
        "model": _is_text,
        "draw_no": _is_draw_no,
        "games": _are_games,
        "scores": _or_none(are_scores),
        "made_at": _is_text,
        "made_at_ns": _is_count,
        "is_backtest": _is_bool,
        "is_late": _is_bool,
        "save_id": is_save_id,
        "sha256": _or_none(is_digest),
        "registered_model": _is_text,
        "version": _or_none(_is_count),
        "store": _or_none(_is_text),
        "run_id": is_id,
        "model_id": is_id,
        "backup": _or_none(_is_file_name),
        "source": _or_none(_is_file_name),
        "source_backup": _or_none(_is_file_name),
    },
    PrunePayload: {
        "name": _is_text,
        "sha256": is_digest,
        "size": _is_count,
        "saved_at": _is_text,
        "saved_at_ns": _is_count,
        "file_time_ns": _is_file_time,
        "save_id": is_save_id,
        "registered_model": _is_text,
        "when": _is_text,
        "why": _is_text,
        "is_deletion": _is_bool,
        "is_forced": _is_bool,
        "backup": _or_none(_is_text),
        "replaced_sha256": _or_none(is_digest),
        "earlier_sha256": _or_none(_is_list_of_digests),
        "left": _is_list_of_texts,
    },
    ResultPayload: {"draws": _are_results, "backup": _or_none(_is_file_name)},
}
