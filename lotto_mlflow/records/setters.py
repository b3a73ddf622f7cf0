"""Who may still set an alias late: those who work on a move that somebody else was faster with.

Of those who set an alias for one move, the first one to mark the move as done has set it before the
next move was claimed. The others may be slow, and set it when a newer move is done already. They
see that afterwards, and set what the newer move says; until they have said that they ended, an
alias that stands for what their move says is no move of somebody outside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from lotto_mlflow.records.lifecycle import DONE, key_of, parse_move, token_of

_HELP, _END = "help", "end"
_KEY = re.compile(
    rf"(?P<number>[0-9]{{6,12}})\.(?P<kind>{_HELP}|{_END})\.(?P<token>[0-9a-f]{{32}})"
)
_DONE = re.compile(rf"(?P<number>[0-9]{{6,12}}){re.escape(DONE)}")
_LONGEST_SECONDS = 600
"""How long a setter counts that has not said that it ended: it was killed, or clocks differ."""


class Setter(NamedTuple):
    """Somebody who sets an alias for a move.

    Attributes
    ----------
    number : int
        The move.
    token : str
        What nobody else has.
    """

    number: int
    token: str

    @property
    def help_key(self) -> str:
        """The key under which one begins who did not claim the move; the value is the time."""
        return f"{key_of(self.number)}.{_HELP}.{self.token}"

    @property
    def end_key(self) -> str:
        """The key under which one ends who did not mark the move."""
        return f"{key_of(self.number)}.{_END}.{self.token}"


def late_setters(params: Mapping[str, str], now: datetime) -> list[Setter]:
    """Return who may still set an alias late, for a move that is done.

    Parameters
    ----------
    params : mapping of str to str
        What the run of a history has.
    now : datetime.datetime
        The present time, with its offset from UTC.
    """
    begun: dict[Setter, str] = {}
    ended: set[Setter] = set()
    for key, value in params.items():
        match = _KEY.fullmatch(key)
        if match is not None:
            setter = Setter(int(match["number"]), match["token"])
            if match["kind"] == _END:
                ended.add(setter)
            else:
                begun[setter] = value
    marked = set(_marked(params))
    for number, marker in marked:
        text = params.get(key_of(number), "")
        if marker in text:  # as almost always, whoever claimed the move marked it
            continue
        claim, token = parse_move(text, "", number, is_done=True), token_of(text)
        if claim is not None and token is not None:
            begun[Setter(number, token)] = claim.when or ""
    done = {setter.number for setter in marked}
    return [
        setter
        for setter, when in begun.items()
        if setter.number in done and setter not in marked | ended and _is_recent(when, now)
    ]


def _marked(params: Mapping[str, str]) -> Iterator[Setter]:
    """Yield who marked each move as done, where that is known."""
    for key, value in params.items():
        match, marker = _DONE.fullmatch(key), value.partition(" ")[2]
        if match is not None and marker:
            yield Setter(int(match["number"]), marker)


def _is_recent(when: str, now: datetime) -> bool:
    try:
        seconds = (now - datetime.fromisoformat(when)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return False
    return abs(seconds) < _LONGEST_SECONDS
