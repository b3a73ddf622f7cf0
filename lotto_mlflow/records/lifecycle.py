"""Moves of an alias: what is recorded of each, its JSON, and the holders that they left."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lotto_mlflow.records.checks import is_digest, is_save_id

MoveKind = Literal["promote", "rollback", "outside", "deleted"]
MAX_MOVE_BYTES = 4_000
"""MLflow cuts the value of a parameter at 6,000 characters, without a word."""
HOMES = "lotto_mlflow/aliases/"
"""Beginning of the names of the experiments that hold moves; a registered model's name, in which
MLflow allows no slash, is the end."""
DONE, VOID = ".done", "void"
"""End of the key of the parameter that says that a move is done; its value where the move never
took effect, because its version was deleted."""
_KEY = re.compile(r"[0-9]{6,12}")
_END_OF_COUNT = 2**31
_CUT = "…"


@dataclass(frozen=True, kw_only=True)
class AliasHolder:
    """A version that an alias stands for.

    Attributes
    ----------
    version : int
        Its number; 0 in a history that was migrated, of a version that had been deleted before.
    save_id : str or None
        The save that it is of; ``None`` where others made the version.
    sha256 : str or None
        Digest of that save.
    """

    version: int
    save_id: str | None = None
    sha256: str | None = None

    def is_same(self, other: AliasHolder | None) -> bool:
        """Return whether this is the same version, of the same save where both are known."""
        if other is None or self.version != other.version:
            return False
        return None in (self.save_id, other.save_id) or self.save_id == other.save_id


@dataclass(frozen=True, kw_only=True)
class AliasMove:
    """One move of an alias.

    Attributes
    ----------
    number : int or None
        Its number among the recorded moves of the registered model; ``None`` where none is
        recorded.
    kind : {"promote", "rollback", "outside", "deleted"}
        What was called; ``deleted`` is the end of a version that this folder's ``delete`` removed
        by force, and ``outside`` another move that MLflow shows, and nobody recorded.
    registered_model, alias : str
        What was moved.
    when : str or None
        ISO 8601 with its offset from UTC; ``None`` where nobody recorded it.
    who : str or None
        User and host, as ``user@host``.
    from_, to : AliasHolder or None
        What the alias stood for before, and what after; ``None`` is nothing.
    metric : str or None
        The metric that was compared.
    from_value, to_value : float or None
        Its values, of the one before and the one after.
    reason : str or None
        What the caller gave, of a deletion that of the ``delete``; shortened where it is too long
        to be recorded.
    is_done : bool
        Whether it was seen to end; what was not is finished by the next promotion or rollback.
    """

    number: int | None = None
    kind: MoveKind
    registered_model: str
    alias: str
    when: str | None = None
    who: str | None = None
    from_: AliasHolder | None = None
    to: AliasHolder | None = None
    metric: str | None = None
    from_value: float | None = None
    to_value: float | None = None
    reason: str | None = None
    is_done: bool = True


def home_of(registered_model: str) -> str:
    """Return the name of the experiment that holds the moves of a registered model's aliases."""
    return f"{HOMES}{registered_model}"


def key_of(number: int) -> str:
    """Return the key of the parameter of a move."""
    return f"{number:06d}"


def moves_in(params: Mapping[str, str], registered_model: str) -> tuple[tuple[AliasMove, ...], int]:
    """Return the moves that parameters hold, in order, and the number that the next one gets.

    Notes
    -----
    Moves that never took effect are left out. What is no move only takes its number.
    """
    numbers = sorted({int(key) for key in params if _KEY.fullmatch(key)})
    moves = []
    for number in numbers:
        text, done = params.get(key_of(number)), params.get(f"{key_of(number)}{DONE}")
        if text is None or done == VOID:
            continue
        move = parse_move(text, registered_model, number, is_done=done is not None)
        if move is not None:
            moves.append(move)
    return tuple(moves), max(numbers, default=0) + 1


def render_move(move: AliasMove, token: str) -> str:
    """Return the JSON of a move, at most `MAX_MOVE_BYTES` long; `parse_move` is its inverse.

    Parameters
    ----------
    move : AliasMove
        The move; a reason that is too long is cut, and ends with an ellipsis.
    token : str
        What no other move has, so that no two are the same text.
    """
    whole = _json(move, move.reason, token)
    if len(whole.encode("utf-8")) <= MAX_MOVE_BYTES:
        return whole
    left = MAX_MOVE_BYTES - len(_json(move, _CUT, token).encode("utf-8"))
    kept = 0
    for character in move.reason or "":
        left -= len(_escaped(json.dumps(character, ensure_ascii=False)[1:-1]).encode("utf-8"))
        if left < 0:
            break
        kept += 1
    return _json(move, f"{(move.reason or '')[:kept]}{_CUT}", token)


def _json(move: AliasMove, reason: str | None, token: str) -> str:
    values = {
        "alias": move.alias,
        "kind": move.kind,
        "when": move.when,
        "who": move.who,
        "from": None if move.from_ is None else vars(move.from_),
        "to": None if move.to is None else vars(move.to),
        "metric": move.metric,
        "from_value": _plain(move.from_value),
        "to_value": _plain(move.to_value),
        "reason": reason,
        "id": token,
    }
    known = {key: value for key, value in values.items() if value is not None}
    return _escaped(json.dumps(known, ensure_ascii=False))


def _plain(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def _escaped(text: str) -> str:
    """Return JSON with an escape for what no database or page need keep as it is."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def parse_move(text: str, registered_model: str, number: int, *, is_done: bool) -> AliasMove | None:
    """Return the move in a text, ``None`` where it is none: whoever reaches MLflow can write one.

    Parameters
    ----------
    text : str
        What `render_move` wrote.
    registered_model : str
        Whose move it is.
    number : int
        Its number.
    is_done : bool
        Whether it was seen to end.
    """
    try:
        values = json.loads(text)
        kind = values["kind"]
        if kind not in get_args(MoveKind)[:2]:
            return None
        return AliasMove(
            number=number,
            kind=kind,
            registered_model=registered_model,
            alias=_text(values["alias"]),
            when=_text(values["when"]),
            who=_text(values["who"]),
            from_=_holder(values.get("from")),
            to=_holder(values["to"]),
            metric=_text_or_none(values.get("metric")),
            from_value=_number(values.get("from_value")),
            to_value=_number(values.get("to_value")),
            reason=_text_or_none(values.get("reason")),
            is_done=is_done,
        )
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None


def token_of(text: str) -> str | None:
    """Return the token in the JSON of a move."""
    try:
        return _text(json.loads(text)["id"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.100} is no text")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool):
        raise TypeError("a truth value is no number")
    return float(value)


def _holder(value: Any) -> AliasHolder | None:
    if value is None:
        return None
    version, save_id, sha256 = value["version"], value.get("save_id"), value.get("sha256")
    if type(version) is not int or not 0 <= version < _END_OF_COUNT:
        raise ValueError("no version has this number")
    if save_id is not None and not is_save_id(save_id):
        raise ValueError("no save has this id")
    if sha256 is not None and not is_digest(sha256):
        raise ValueError("this is no digest")
    return AliasHolder(version=version, save_id=save_id, sha256=sha256)


def _is_same(one: AliasHolder | None, other: AliasHolder | None) -> bool:
    return other is None if one is None else one.is_same(other)


def chained(
    recorded: Iterable[AliasMove], registered_model: str, alias: str, holder: AliasHolder | None
) -> list[AliasMove]:
    """Return all moves of an alias, oldest first, with those that nobody recorded.

    Parameters
    ----------
    recorded : iterable of AliasMove
        The moves of the registered model in the order of their numbers.
    registered_model, alias : str
        Whose moves are asked for.
    holder : AliasHolder or None
        What the alias stands for now.

    Returns
    -------
    list of AliasMove
        Each begins with what the one before it ended with; the last one ends with the holder, or
        is not done.
    """
    found: list[AliasMove] = []
    before: AliasHolder | None = None

    def add_outside(now: AliasHolder | None) -> None:
        if not _is_same(before, now):
            found.append(
                AliasMove(
                    kind="outside",
                    registered_model=registered_model,
                    alias=alias,
                    from_=before,
                    to=now,
                )
            )

    for move in recorded:
        if move.alias == alias:
            add_outside(move.from_)
            found.append(move)
            before = move.to
    is_pending = bool(found) and not found[-1].is_done
    if not (is_pending and _is_same(found[-1].from_, holder)):
        add_outside(holder)
    return found


def stack_of(moves: Iterable[AliasMove]) -> list[AliasHolder | None]:
    """Return the holders of an alias that a rollback goes back through, the present one last.

    Parameters
    ----------
    moves : iterable of AliasMove
        What `chained` returned.

    Returns
    -------
    list of AliasHolder or None
        ``None`` is an alias that somebody deleted.
    """
    stack: list[AliasHolder | None] = []
    for move in moves:
        if move.kind == "rollback":
            del stack[-1:]
            while stack and not _is_same(stack[-1], move.to):
                stack.pop()
        if not stack or not _is_same(stack[-1], move.to):
            stack.append(move.to)
    return stack


def below(stack: Sequence[AliasHolder | None]) -> list[AliasHolder]:
    """Return the holders below the present one, the nearest first."""
    present = stack[-1] if stack else None
    earlier = (holder for holder in reversed(stack[:-1]) if holder is not None)
    return [holder for holder in earlier if not holder.is_same(present)]
