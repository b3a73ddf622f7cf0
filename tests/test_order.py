"""The order of versions, against plain rules; real hosts are in `faults/test_hosts`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lotto_mlflow.mirror import ordering
from lotto_mlflow.mirror.ordering import Facts

MONDAY = 1_700_000_000_000
"""A time in milliseconds that is long over."""


def facts(number: int, saved: int, created: int | None = None, **more: Any) -> Facts:
    """Return a version by seconds after a Monday."""
    own = {"push_delay_ms": 0, "origin": "a"} | more
    created_ms = None if created is None else MONDAY + created * 1_000
    save_id = f"{(MONDAY + saved * 1_000) * 10**6:019d}-{number:08x}"
    return Facts(number=number, save_id=save_id, created_ms=created_ms, **own)


def numbers(*found: Facts) -> list[int]:
    """Return the numbers of versions in their order, which that of the arguments is not."""
    assert ordering.in_order(found) == ordering.in_order(reversed(found))
    return [placed.facts.number for placed in ordering.in_order(found)]


def delayed(seconds: int) -> dict[str, Any]:
    return {"push_delay_ms": seconds * 1_000}


def test_a_prompt_push_stands_where_its_number_stands_whatever_its_clock_says() -> None:
    slow = facts(2, saved=-600, created=20, origin="slow")
    fast = facts(3, saved=172_800, created=30, origin="fast")
    assert numbers(facts(1, 10, 10), slow, fast, facts(4, 40, 40)) == [1, 2, 3, 4]
    least, most = facts(2, 0, 62, **delayed(60)), facts(2, 0, 61, push_delay_ms=60_001)
    other = facts(1, 50, 50, origin="b")
    assert numbers(other, least) == [1, 2]
    assert numbers(other, most) == [2, 1]


def test_a_delayed_push_and_a_backfill_stand_where_their_time_stands() -> None:
    before, after = facts(1, 0, 0), facts(2, 1_000, 1_000)
    for more in (delayed(1_500), delayed(1_001), delayed(1_500) | {"is_backfill": True}):
        assert numbers(before, after, facts(3, 9_999, 2_000, origin="b", **more)) == [1, 3, 2]
    late = facts(3, 0, 2_000, origin="b", **delayed(999))
    assert numbers(before, after, late) == [1, 2, 3]
    quick = facts(3, 0, 1_020, origin="b", is_backfill=True, **delayed(30))
    assert numbers(before, after, quick) == [1, 3, 2]


def test_ties_are_decided_by_the_numbers() -> None:
    first, second = facts(1, 0, 100, origin="b"), facts(2, 0, 100, origin="c")
    tied = facts(3, 0, 200, **delayed(100)), facts(4, 0, 300, origin="d", **delayed(200))
    assert numbers(first, second, *tied) == [1, 2, 3, 4]


def test_what_a_time_to_come_says_of_its_place_is_not_believed() -> None:
    before, after = facts(1, 0, 0), facts(3, 20, 20)
    for more in ({"push_delay_ms": -(10**12)}, {"push_delay_ms": -(10**12), "is_backfill": True}):
        assert numbers(before, facts(2, 10**9, 10, **more), after) == [1, 2, 3]
        assert numbers(before, facts(2, 1_000, 10, **more), after)[0] == 1
    misdated = facts(2, 1_000, 10, is_backfill=True, push_delay_ms=-990_000)
    assert numbers(before, misdated, after) == [1, 2, 3]


def test_the_saves_of_a_folder_stay_in_their_own_order() -> None:
    other = facts(1, 0, 50, origin="b")
    jumped = facts(2, 10, 400, **delayed(390)), facts(3, 11, 401, **delayed(391))
    assert numbers(other, *jumped) == [2, 3, 1]
    refused = facts(2, 20, 20), facts(3, 10, 25, **delayed(15))
    assert numbers(facts(1, 0, 0), *refused) == [1, 3, 2]
    saved_before_push = facts(1, 0, 30), facts(2, 10, 200, **delayed(190))
    assert numbers(*saved_before_push) == [1, 2]


def test_a_clock_that_is_fast_where_hosts_open_a_database_makes_others_no_later() -> None:
    ahead = facts(1, 172_800, 172_800, origin="fast")
    host, late = facts(2, 100, 100, origin="b"), facts(3, 50, 150, origin="c", **delayed(100))
    assert numbers(ahead, host) == [1, 2]
    assert numbers(ahead, host, late) == [3, 1, 2]
    assert numbers(ahead, host, replace(late, push_delay_ms=49_000, is_backfill=True)) == [1, 2, 3]


OLD = {"push_delay_ms": None, "origin": ""}


def test_versions_of_the_earlier_release_stand_by_their_ids_and_among_others_by_their_numbers(
) -> None:  # fmt: skip
    first, second = facts(1, 100, 100, **OLD), facts(2, 50, 120, **OLD)
    assert numbers(first, second) == [2, 1]
    new = facts(3, -600, 130, origin="slow")
    assert numbers(first, second, new) == [2, 1, 3]
    assert numbers(first, second, new, facts(4, 140, 140, **OLD)) == [2, 1, 3, 4]
    assert numbers(first, second, new, facts(4, 60, 140, **OLD)) == [2, 4, 1, 3]
    to_come = facts(2, 10**9, 110, **OLD)
    assert numbers(first, to_come, facts(3, 120, 120, **OLD)) == [1, 2, 3]
    late = facts(4, 0, 500, **delayed(500 - 110))
    assert numbers(first, second, new, late) == [2, 1, 4, 3]


def test_a_copy_stands_beside_what_it_is_a_copy_of() -> None:
    one, two, three = (facts(n, 10 * n, 10 * n) for n in (1, 2, 3))
    copy = {"is_copy": True, "copy_of": 1} | OLD
    copied = replace(facts(4, 0, 40, **copy), save_id=one.save_id)
    assert numbers(one, two, three, copied) == [1, 4, 2, 3]
    assert numbers(two, three, copied) == [4, 2, 3]
    elsewhere = replace(facts(4, 25, 40, **(copy | {"copy_of": None})))
    assert numbers(one, two, three, elsewhere) == [1, 2, 4, 3]


def _rule_of_the_earlier_release(found: list[Facts]) -> int:
    end, best, order = ordering.end_of_time(), 0, ""
    for one in sorted(found, key=lambda one: one.number):
        place = one.save_id if one.save_id < end else order
        if place >= order:
            best, order = one.number, place
    return best


TIMES = st.integers(0, 1_000)


@given(st.lists(st.tuples(TIMES, TIMES, st.booleans()), min_size=1, max_size=12))
def test_of_versions_of_the_earlier_release_its_own_rule_finds_the_newest(
    drawn: list[tuple[int, int, bool]],
) -> None:
    found = [
        facts(n, saved + (10**9 if is_to_come else 0), created, **OLD)
        for n, (saved, created, is_to_come) in enumerate(drawn, 1)
    ]
    assert numbers(*found)[-1] == _rule_of_the_earlier_release(found)


@dataclass
class Host:
    """A host in a world of which everything is known: what it saved, and has still to push."""

    name: str
    skew: int
    outbox: list[int] = field(default_factory=list)


@dataclass
class World:
    """Saves and pushes by a true clock, which the registry's is; and where each push stands.

    Each version is called late if it is not the newest when it is made.
    """

    hosts: list[Host]
    now: int = 0
    found: list[Facts] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)

    def push(self, host: Host) -> None:
        """Push what waits, the oldest first; a prompt push stands by its own time."""
        for saved in host.outbox:
            self.now += 1
            number, delay = len(self.found) + 1, self.now - saved
            made = facts(number, saved + host.skew, self.now, origin=host.name, **delayed(delay))
            is_late = ordering.newest([*self.found, made]) is not made
            self.found.append(replace(made, is_late=is_late))
            self.places.append((self.now if delay <= 60 else saved, number))
        host.outbox.clear()


STEPS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 100), st.booleans()), max_size=30)


@settings(max_examples=300)
@given(STEPS, st.sampled_from([0, int(time.time()) - MONDAY // 1_000 - 1_000]))
def test_over_a_server_any_saves_and_pushes_of_hosts_with_any_clocks_have_the_order_of_the_rule(
    steps: list[tuple[int, int, bool]], since: int
) -> None:
    """The plain rule: sort by the time of a prompt push, and of the save of any other."""
    skews = (0, -600, 172_800, 3_000)
    world = World([Host(f"host {skew}", skew) for skew in skews], now=since)
    for number, passes, is_online in steps:
        host = world.hosts[number]
        world.now += 1 + passes
        host.outbox.append(world.now)
        if is_online:
            world.push(host)
    for host in world.hosts:
        world.push(host)
    assert numbers(*world.found) == [number for _, number in sorted(world.places)]


ANY = st.builds(
    lambda saved, created, delay, origin, is_backfill, is_copy: facts(
        1, saved, created, push_delay_ms=delay, origin=origin, is_backfill=is_backfill,
        is_copy=is_copy,
    ),
    TIMES, st.none() | TIMES, st.none() | st.integers(-10**6, 10**6), st.sampled_from("abc"),
    st.booleans(), st.booleans(),
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(ANY, max_size=15))
def test_whatever_versions_say_they_have_one_order(drawn: list[Facts]) -> None:
    found = [replace(one, number=n) for n, one in enumerate(drawn, 1)]
    found = [replace(one, push_delay_ms=None) if one.is_copy else one for one in found]
    placed = ordering.in_order(found)
    assert sorted(one.facts.number for one in placed) == [one.number for one in found]
    times = [one.time_ns for one in placed]
    assert times == sorted(times)
    for peers in "abc":
        ids = [one.facts.save_id for one in placed if one.facts.peers == peers]
        assert ids == sorted(ids)


@settings(max_examples=300)
@given(STEPS, st.randoms(use_true_random=False))
def test_the_newest_is_found_by_reading_down_to_the_first_that_is_not_late(
    steps: list[tuple[int, int, bool]], chance: Any
) -> None:
    """A record that was refused is pushed after newer ones, so that outboxes have any order."""
    world = World([Host(f"host {skew}", skew) for skew in (0, -600, 300, 3_000)])
    for number, passes, is_online in steps:
        host = world.hosts[number]
        world.now += 1 + passes
        host.outbox.append(world.now)
        if is_online:
            chance.shuffle(host.outbox)
            world.push(host)
        for count in range(1, len(world.found) + 1):
            read = world.found[-count:]
            if not read[0].is_late:
                assert ordering.newest(read) == ordering.newest(world.found)
