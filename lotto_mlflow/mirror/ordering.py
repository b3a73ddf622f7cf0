"""The order of the versions of one registered model, which several hosts push to.

Clocks of hosts differ, and so the times in the ids of their saves are not compared. What is
compared is the registry's own sequence: its numbers, and the times at which it made the versions.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from lotto_mlflow.settings import CLOCK_TOLERANCE_SECONDS

PROMPT_MS = 60_000
"""How long after a save its push may come, and its version stand where its number stands."""
_NS_PER_MS = 10**6
_NEVER = 2**63


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What decides where a version stands.

    Attributes
    ----------
    number : int
        Its number.
    save_id : str
        The save that it mirrors.
    created_ms : int or None
        When the registry made it, in milliseconds since 1970; ``None`` where that is not known.
    push_delay_ms : int or None
        How long after the save that was, by the clock of the host that saved; ``None`` for a
        version of an earlier release and for a copy, whose tags are those of another version.
    origin : str
        The folder that it was pushed from, which gives its saves ids in their own order.
    is_backfill : bool
        Whether it is of a file that was found on disk.
    is_copy : bool
        Whether MLflow's ``copy_model_version`` made it.
    copy_of : int or None
        The number that it is a copy of, in the same registered model.
    is_late : bool
        Whether it was known not to be the newest when it was made: others can say so, too.
    """

    number: int
    save_id: str
    created_ms: int | None = None
    push_delay_ms: int | None = None
    origin: str = ""
    is_backfill: bool = False
    is_copy: bool = False
    copy_of: int | None = None
    is_late: bool = False

    @property
    def is_prompt(self) -> bool:
        """Whether it stands where its number stands.

        Notes
        -----
        A save that is later than its push has a clock that was set back, or a file a time that has
        not come: that says nothing of its place. One that was pushed after a newer save of its
        folder was late already then.
        """
        if self.is_copy or self.is_late:
            return False
        if self.push_delay_ms is None:
            return True
        is_at_once = self.push_delay_ms <= PROMPT_MS and not self.is_backfill
        return self.push_delay_ms < 0 or is_at_once

    @property
    def saved_ns(self) -> int:
        """Time of the save by its host's clock, which its id begins with."""
        return int(self.save_id.partition("-")[0])

    @property
    def peers(self) -> str | None:
        """Among which versions it keeps the order of ids: those of one folder; ``None`` for none.

        Notes
        -----
        Those of an earlier release, which do not say of which folder they are, are one group. The
        id of a file that was found on disk may be of a time that had not come when it was pushed.
        """
        if self.push_delay_ms is None:
            return None if self.is_copy else ""
        is_misdated = self.is_backfill and self.push_delay_ms < 0
        return None if is_misdated else self.origin or None


class Placed(NamedTuple):
    """A version at its place.

    Attributes
    ----------
    time_ns : int
        When its save was, by the clock of the registry; of two neighbours the second one's is not
        the smaller.
    facts : Facts
        The version.
    """

    time_ns: int
    facts: Facts


def in_order(found: Iterable[Facts]) -> list[Placed]:
    """Return versions of one registered model in the order of their saves, the oldest first.

    Parameters
    ----------
    found : iterable of Facts
        The versions, in any order: all, or those from some number on.

    Notes
    -----
    A version that was pushed right after its save stands where its number stands. Any other is
    placed by the time of its save, which is the time of its creation less its delay, among the
    times at which those before it were created. Times of creation need not rise with the numbers
    where hosts write to one database directly; there each is taken for the least of its own and
    of those of later numbers, which over a server it is.

    The saves of one folder stay in the order of their ids, whatever the times say. An id in the
    future decides nothing. Versions of an earlier release stand among each other by their ids, and
    among others by their numbers, as far as the ids allow.
    """
    sequence = _Sequence()
    for facts, created_ns in _with_creation(found):
        sequence.add(facts, created_ns)
    return sequence.placed


def newest(found: Iterable[Facts]) -> Facts | None:
    """Return the version of the newest save, ``None`` where there is none."""
    placed = in_order(found)
    return placed[-1].facts if placed else None


def end_of_time() -> str:
    """Return the id from which on ids lie in the future."""
    return f"{time.time_ns() + CLOCK_TOLERANCE_SECONDS * 10**9:019d}"


def _with_creation(found: Iterable[Facts]) -> Iterable[tuple[Facts, int]]:
    """Return versions by number, with the least of the times of each and of those after it."""
    least, rising = _NEVER, []
    for facts in sorted(found, key=lambda facts: facts.number, reverse=True):
        if facts.created_ms is not None:
            least = min(least, facts.created_ms * _NS_PER_MS)
        rising.append((facts, least))
    return reversed(rising)


@dataclass(frozen=True)
class NewestVersion:
    """The newest version of a registered model, as far as is known before another is made.

    Attributes
    ----------
    number : int
        The highest number; 0 where there is none.
    newest : Facts or None
        The version of the newest save.
    own_id : str
        The greatest id of the saves that were pushed from the same folder; empty where none is
        known.
    """

    number: int = 0
    newest: Facts | None = None
    own_id: str = ""

    @property
    def next(self) -> int:
        """The number that the version made next has, if nobody else makes one first."""
        return self.number + 1

    def may_be_newer_than(self, wanted: Facts) -> bool:
        """Return whether a version that is still to be made may be of an older save."""
        if wanted.peers is not None and self.own_id > wanted.save_id:
            return True
        if wanted.is_prompt or self.newest is None:
            return False
        return self.newest.peers != wanted.peers  # else the order of their ids decides

    def is_before(self, made: Facts) -> bool:
        """Return whether a version that was made is of a newer save."""
        if self.newest is None or self.newest.number == made.number:
            return True
        if made.peers is not None and self.own_id > made.save_id:
            return False
        return newest((self.newest, made)) is made


class _Sequence:
    """Versions in order, which others are put between, by and by as their numbers rise."""

    def __init__(self) -> None:
        self.placed: list[Placed] = []
        self._end = end_of_time()
        self._ids: dict[str, list[tuple[str, int]]] = {}
        """For each group of peers, the ids that count, and the numbers of their versions."""
        self._last_to_come: dict[str, int] = {}
        """For each group, the highest number of a save that lies in the future."""
        self._times: dict[int, int] = {}
        self._of_save: dict[str, int] = {}

    def add(self, facts: Facts, created_ns: int) -> None:
        """Put a version at its place; its number is higher than those that are there."""
        low, high = self._bounds(facts)
        beside = self._beside(facts) if facts.push_delay_ms is None else None
        if beside is not None:
            place, time_ns = min(max(beside, low), high), facts.saved_ns
        elif facts.is_prompt and high == len(self.placed):
            place, time_ns = high, self._time_of_prompt(facts, created_ns)
        else:
            time_ns = self._time_of_save(facts, created_ns)
            place = bisect_right(self.placed, time_ns, low, high, key=_time_of)
        self._insert(facts, place, time_ns)

    def _insert(self, facts: Facts, place: int, time_ns: int) -> None:
        if place > 0:
            time_ns = max(time_ns, self.placed[place - 1].time_ns)
        if place < len(self.placed):
            time_ns = min(time_ns, self.placed[place].time_ns)
        self.placed.insert(place, Placed(time_ns, facts))
        self._times[facts.number] = time_ns
        self._of_save.setdefault(facts.save_id, facts.number)
        if facts.peers is None:
            return
        if facts.save_id < self._end:
            insort(self._ids.setdefault(facts.peers, []), (facts.save_id, facts.number))
        else:
            self._last_to_come[facts.peers] = facts.number

    def _bounds(self, facts: Facts) -> tuple[int, int]:
        """Return between which places the saves of its own folder leave room for a version."""
        low, high, peers = 0, len(self.placed), facts.peers
        if peers is None:
            return low, high
        if facts.save_id >= self._end:  # by the numbers, in which a folder pushes what it saved
            if peers and peers in self._last_to_come:
                low = self._place_of(self._last_to_come[peers]) + 1
            return low, high
        ids = self._ids.get(peers, [])
        after = bisect_left(ids, (facts.save_id, facts.number))
        if after > 0:
            low = self._place_of(ids[after - 1][1]) + 1
        if after < len(ids):
            high = self._place_of(ids[after][1])
        return low, high

    def _beside(self, facts: Facts) -> int | None:
        """Return the place after the version of the same save, or after what it is a copy of."""
        number = self._of_save.get(facts.save_id)
        if number is not None and (facts.is_copy or facts.save_id < self._end):
            return self._place_of(number) + 1
        if facts.copy_of is None:
            return None
        later = (n for n, one in enumerate(self.placed) if one.facts.number > int(facts.copy_of))
        return next(later, len(self.placed))

    def _place_of(self, number: int) -> int:
        place = bisect_left(self.placed, self._times[number], key=_time_of)
        while self.placed[place].facts.number != number:
            place += 1
        return place

    def _time_of_prompt(self, facts: Facts, created_ns: int) -> int:
        """Return when a version was created; of an earlier release's, when its save was.

        Notes
        -----
        Such a version does not say whether it was pushed right after its save.
        """
        is_old = facts.push_delay_ms is None
        was_delayed = is_old and created_ns - facts.saved_ns > PROMPT_MS * _NS_PER_MS
        return facts.saved_ns if was_delayed and created_ns != _NEVER else created_ns

    def _time_of_save(self, facts: Facts, created_ns: int) -> int:
        if facts.push_delay_ms is None:
            return min(facts.saved_ns, created_ns)
        return created_ns - facts.push_delay_ms * _NS_PER_MS


def _time_of(placed: Placed) -> int:
    return placed.time_ns
