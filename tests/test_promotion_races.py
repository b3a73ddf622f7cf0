"""Promoters at once, and promoters that are killed, in an SQLite store and on a tracking server."""

from __future__ import annotations

import multiprocessing
import os
import uuid
from collections.abc import Callable
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
from aliased import Aliased
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from sqlalchemy import event
from sqlalchemy.engine import Engine

from lotto_mlflow.errors import (
    AliasMovedError,
    MirrorUnavailableError,
    PromotionRefusedError,
)
from lotto_mlflow.mirror import connection
from lotto_mlflow.records import home_of

PROMOTERS = 8
WRITES = (
    "create_experiment", "create_run", "set_terminated", "rename_experiment", "delete_experiment",
    "log_param", "set_registered_model_alias", "update_model_version",
)  # fmt: skip
"""What a promotion has MLflow write."""


@pytest.fixture(scope="module")
def processes() -> BaseContext:
    """Processes that have imported MLflow, and have opened nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lotto_mlflow.mirror", "pytest", "aliased", "serving"])
    return context


@pytest.fixture(params=["embedded", "server"])
def aliased(request: pytest.FixtureRequest, base_dir: Path) -> Aliased:
    uri = request.getfixturevalue("server_uri") if request.param == "server" else None
    return Aliased(base_dir, uri, f"model {uuid.uuid4().hex[:12]}")


def _promote(aliased: Aliased, version: int, metric: str | None, start: Any, answers: Any) -> None:
    _be_patient()
    try:
        aliased.manager.get(aliased.reference(version))  # opens the store
        start.wait(300)
        answers.put((version, aliased.promote(version, metric=metric).number))
    except (AliasMovedError, PromotionRefusedError) as error:
        answers.put((version, type(error).__name__))
    except BaseException as error:  # noqa: BLE001 - the test says which
        answers.put((version, repr(error)))


def _be_patient() -> None:
    """Wait longer for an answer of MLflow: many such processes may be slow."""
    connection.LOOKUP_SECONDS = 120.0


def promoted_at_once(
    processes: BaseContext, aliased: Aliased, metric: str | None = None
) -> dict[int, Any]:
    """Have eight processes promote a version each; return what each was answered."""
    start, answers = processes.Barrier(PROMOTERS), processes.Queue()
    started = [
        processes.Process(target=_promote, args=(aliased, version, metric, start, answers))
        for version in range(1, PROMOTERS + 1)
    ]
    for process in started:
        process.start()
    found = dict(answers.get(timeout=300) for _ in started)
    for process in started:
        process.join(60)
    return found


def check_whole(aliased: Aliased, answers: dict[int, Any]) -> list[int]:
    """See that history, alias and answers agree; return the versions in the order of moves."""
    moved = {number: version for version, number in answers.items() if isinstance(number, int)}
    assert {a for a in answers.values() if not isinstance(a, int)} <= {
        "AliasMovedError",
        "PromotionRefusedError",
    }
    order = [moved[number] for number in sorted(moved)]
    assert sorted(moved) == list(range(1, len(order) + 1))
    assert aliased.history() == [
        ("promote", before, now) for before, now in zip([None, *order[:-1]], order, strict=True)
    ]
    assert aliased.holder() == order[-1]
    assert aliased.homes() == [home_of(aliased.name)]
    params = aliased.params()
    assert {key for key in params if key.endswith(".done")} == {
        f"{number:06d}.done" for number in moved
    }
    assert aliased.manager.verify() == []
    return order


def test_of_eight_first_promoters_each_is_in_one_history_or_told(
    aliased: Aliased, processes: BaseContext
) -> None:
    aliased.save(PROMOTERS)
    answers = promoted_at_once(processes, aliased)
    check_whole(aliased, answers)
    named = aliased.client.search_experiments(view_type=ViewType.ALL)
    assert [e.name for e in named].count(home_of(aliased.name)) == 1
    described = [
        version
        for version in range(1, PROMOTERS + 1)
        if "champion" in aliased.client.get_model_version(aliased.name, str(version)).description
    ]
    assert described == [aliased.holder()]


def test_of_eight_promoters_with_a_metric_the_best_is_in_use_in_the_end(
    aliased: Aliased, processes: BaseContext
) -> None:
    for version in range(PROMOTERS):
        aliased.save(auc=(version * 5 % PROMOTERS) / 10)
    values = {version + 1: version * 5 % PROMOTERS for version in range(PROMOTERS)}
    answers = promoted_at_once(processes, aliased, "auc")
    order = check_whole(aliased, answers)
    assert [values[version] for version in order] == sorted(values[version] for version in order)
    assert values[order[-1]] == PROMOTERS - 1


def test_an_alias_that_another_makes_at_the_same_moment_is_moved_all_the_same(
    base_dir: Path,
) -> None:
    """The other's row is there when MLflow, which has seen none, inserts its own."""
    aliased = Aliased(base_dir, None, "model")
    aliased.save(2)
    others: list[Aliased] = [aliased]

    def insert_first(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO registered_model_aliases") and others:
            others.pop().set_outside(1)

    event.listen(Engine, "before_cursor_execute", insert_first)
    try:
        aliased.promote(2)
    finally:
        event.remove(Engine, "before_cursor_execute", insert_first)
    assert not others
    assert aliased.holder() == 2
    assert aliased.history() == [("promote", None, 2)]


def _die_before(step: int) -> None:
    """Have this process die before a step of what MLflow is told, which is after the one before."""
    steps = iter(range(1, 1_000))

    def dying(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if next(steps) == step:
                os._exit(9)
            return method(*arguments, **named)

        return call

    for name in WRITES:
        setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))


def _killed(aliased: Aliased, step: int, is_rollback: bool) -> None:
    _be_patient()
    aliased.manager.get(aliased.reference(2))
    _die_before(step)
    if is_rollback:
        aliased.rollback()
    else:
        aliased.promote(2)


def killed(processes: BaseContext, aliased: Aliased, *arguments: Any) -> bool:
    """Return whether a promoter died where it was to, and did not come to its end before."""
    process = processes.Process(target=_killed, args=(aliased, *arguments))
    process.start()
    process.join(300)
    assert process.exitcode in (0, 9)
    return process.exitcode == 9


def test_what_a_killed_first_promoter_began_is_finished_by_the_next(
    aliased: Aliased, processes: BaseContext
) -> None:
    first, step = aliased.name, 0
    is_killed = True
    while is_killed:
        step += 1
        aliased.name = f"{first} {step}"
        aliased.save(3)
        is_killed = killed(processes, aliased, step, False)
        assert aliased.holder() in (None, 2)
        is_claimed = aliased.history() != []
        assert aliased.history() in ([], [("promote", None, 2)])
        move = aliased.promote(3)
        assert move.from_ is None if not is_claimed else move.from_.version == 2
        check_finished(aliased, [2, 3] if is_claimed else [3])
    assert step == 9  # experiment, run, its end, name, claim, alias, description, done; none


@pytest.mark.parametrize("is_rollback", [False, True], ids=["promote", "rollback"])
def test_what_a_killed_promoter_began_is_finished_by_the_next(
    aliased: Aliased, processes: BaseContext, is_rollback: bool
) -> None:
    first, step = aliased.name, 0
    is_killed = True
    while is_killed:
        step += 1
        aliased.name = f"{first} {step}"
        aliased.save(4)
        aliased.promote(2 if is_rollback else 1)
        before = [2, 3] if is_rollback else [1]
        if is_rollback:
            aliased.promote(3)
        is_killed = killed(processes, aliased, step, is_rollback)
        assert aliased.holder() in (before[-1], 2)
        is_claimed = len(aliased.history()) > len(before)
        findings = {found.kind for found in aliased.manager.verify()}
        assert findings == ({"stuck record"} if is_claimed and not_done(aliased) else set())
        expected = [*before, 2, 4] if is_claimed else [*before, 4]
        aliased.promote(4)
        check_finished(aliased, expected)
    assert step == 6  # claim, alias, two descriptions, done; none


def not_done(aliased: Aliased) -> bool:
    return any(f"{key}.done" not in aliased.params() for key in aliased.params() if len(key) == 6)


def check_finished(aliased: Aliased, order: list[int]) -> None:
    moves = aliased.manager.history(registered_model=aliased.name)
    assert [move.to.version for move in moves if move.to] == order
    assert [move.number for move in moves] == list(range(1, len(order) + 1))
    assert all(move.is_done for move in moves)
    aliased.history()
    assert aliased.holder() == order[-1]
    assert aliased.homes() == [home_of(aliased.name)]
    assert aliased.manager.verify() == []
    for version in range(1, 5):
        if version <= max(order):
            described = aliased.client.get_model_version(aliased.name, str(version)).description
            assert ("champion" in described) == (version == order[-1])


def test_a_claim_of_a_version_that_is_gone_stops_nobody(
    aliased: Aliased, processes: BaseContext
) -> None:
    aliased.save(3)
    aliased.promote(1)
    assert killed(processes, aliased, 2, False)
    assert not aliased.manager.history(registered_model=aliased.name)[-1].is_done
    aliased.client.delete_model_version(aliased.name, "2")
    assert aliased.promote(3).from_.version == 1
    assert aliased.history() == [("promote", None, 1), ("promote", 1, 3)]
    assert aliased.rollback().to.version == 1


def test_a_rollback_finishes_what_was_claimed_and_then_goes_back(
    aliased: Aliased, processes: BaseContext
) -> None:
    aliased.save(2)
    aliased.promote(1)
    assert killed(processes, aliased, 2, False)
    assert aliased.holder() == 1
    assert aliased.rollback().to.version == 1
    assert aliased.history() == [("promote", None, 1), ("promote", 1, 2), ("rollback", 2, 1)]


def test_a_slow_promoter_sets_in_the_end_what_a_newer_move_says(aliased: Aliased) -> None:
    """The promoter stops between its claim and the alias, while others move it."""
    aliased.save(3)
    aliased.promote(1)
    slow, is_stopped = aliased.manager, []
    original = MlflowClient.set_registered_model_alias

    def set_late(*arguments: Any, **named: Any) -> Any:
        if not is_stopped:
            is_stopped.append(True)
            MlflowClient.set_registered_model_alias = original
            aliased.promote(3)
        return original(*arguments, **named)

    MlflowClient.set_registered_model_alias = set_late
    try:
        slow.promote(aliased.reference(2))
    finally:
        MlflowClient.set_registered_model_alias = original
    assert is_stopped
    assert aliased.history() == [("promote", None, 1), ("promote", 1, 2), ("promote", 2, 3)]
    assert aliased.holder() == 3


def test_a_move_that_is_claimed_while_another_is_finished_is_finished_too(
    aliased: Aliased, processes: BaseContext
) -> None:
    """Somebody claims a move, and has not set the alias, when a helper has finished the one before.

    Whoever decides then must not take what the alias stands for as what it was moved from.
    """
    aliased.save(4)
    aliased.promote(1)
    assert killed(processes, aliased, 2, False)  # before the alias
    original, is_seen = MlflowClient.log_param, []

    def log_then_claim(client: Any, run_id: str, key: str, value: str, **named: Any) -> Any:
        found = original(client, run_id, key, value, **named)
        if key == "000002.done" and not is_seen:
            is_seen.append(True)
            MlflowClient.log_param = original
            assert killed(processes, aliased, 2, True)  # a rollback, before the alias
        return found

    MlflowClient.log_param = log_then_claim
    try:
        assert aliased.promote(4).from_.version == 1
    finally:
        MlflowClient.log_param = original
    assert is_seen
    moves = [("promote", None, 1), ("promote", 1, 2), ("rollback", 2, 1), ("promote", 1, 4)]
    assert aliased.history() == moves


def _set_late(others: Callable[[], Any], after: Callable[[], Any]) -> Callable[[], None]:
    """Have the next one who sets an alias be slow: others come before it, and again after it."""
    original = MlflowClient.set_registered_model_alias

    def restore() -> None:
        MlflowClient.set_registered_model_alias = original

    def set_late(*arguments: Any, **named: Any) -> Any:
        restore()
        others()
        set_now = original(*arguments, **named)
        after()
        return set_now

    MlflowClient.set_registered_model_alias = set_late
    return restore


@pytest.mark.parametrize("is_helper", [True, False], ids=["helper", "claimer"])
def test_an_alias_that_is_set_late_is_no_move_of_somebody_outside(
    aliased: Aliased, processes: BaseContext, is_helper: bool
) -> None:
    """A promotion comes between the late setting of an alias and its correction."""
    for number in range(1, 5):
        aliased.save(auc=number / 10)
    if is_helper:
        assert killed(processes, aliased, 6, False)  # of the first promotion, before the alias
    seen: list[Any] = []

    def after() -> None:
        assert aliased.holder() == 2  # which was set late
        seen.append(aliased.history()[-1])
        aliased.promote(4, metric="auc")

    restore = _set_late(lambda: aliased.promote(3), after)
    try:
        aliased.promote(1 if is_helper else 2)
    finally:
        restore()
    assert seen == [("promote", 2, 3)]
    assert aliased.holder() == (1 if is_helper else 4)
    moves = [("promote", None, 2), ("promote", 2, 3), ("promote", 3, 4), ("promote", 4, 1)]
    assert aliased.history() == (moves if is_helper else moves[:3])
    assert aliased.manager.verify() == []


def _killed_after_a_late_alias(aliased: Aliased, version: int, *others: int) -> None:
    _be_patient()
    aliased.manager.get(aliased.reference(version))
    _set_late(lambda: [aliased.promote(one) for one in others], lambda: os._exit(9))
    aliased.promote(version)


def killed_after_a_late_alias(processes: BaseContext, aliased: Aliased, *versions: int) -> bool:
    process = processes.Process(target=_killed_after_a_late_alias, args=(aliased, *versions))
    process.start()
    process.join(300)
    return process.exitcode == 9


def test_an_alias_that_was_set_late_by_one_who_died_is_corrected_once(
    aliased: Aliased, processes: BaseContext
) -> None:
    aliased.save(4)
    assert killed_after_a_late_alias(processes, aliased, 2, 3)
    assert aliased.holder() == 2
    assert aliased.history() == [("promote", None, 2), ("promote", 2, 3)]
    assert aliased.promote(4).from_.version == 3
    aliased.set_outside(2)
    assert aliased.promote(1).from_.version == 2
    assert [kind for kind, _, _ in aliased.history()][3:] == ["outside", "promote"]


def test_a_prune_keeps_what_a_rollback_goes_back_to_once_a_late_alias_is_corrected(
    aliased: Aliased, processes: BaseContext
) -> None:
    aliased.save(6)
    assert killed_after_a_late_alias(processes, aliased, 2, 3, 4)
    report = aliased.manager.prune(keep_last=1, dry_run=False)
    assert {one.version: one.why for one in report.kept} == {
        2: "the alias champion stands for it",
        3: "a rollback of champion goes back to it",
        4: "champion is being moved to it",
    }
    aliased.rollback()
    assert aliased.holder() == 3


def _overtaken(aliased: Aliased, move: Callable[[], Any], others: Callable[[], Any]) -> Any:
    """Have others move an alias at the moment in which a move is to be claimed."""
    original = MlflowClient.log_param

    def log_late(*arguments: Any, **named: Any) -> Any:
        MlflowClient.log_param = original
        others()
        return original(*arguments, **named)

    MlflowClient.log_param = log_late
    try:
        return move()
    finally:
        MlflowClient.log_param = original


def test_of_two_promoters_one_is_told(aliased: Aliased) -> None:
    aliased.save(3)
    aliased.promote(1)
    with pytest.raises(AliasMovedError, match="to version 3; this move was not made"):
        _overtaken(aliased, lambda: aliased.promote(2), lambda: aliased.promote(3))
    assert aliased.holder() == 3
    with pytest.raises(AliasMovedError):
        _overtaken(aliased, aliased.rollback, lambda: aliased.promote(2))
    assert aliased.holder() == 2


def test_a_promoter_that_was_overtaken_is_compared_with_the_new_holder(aliased: Aliased) -> None:
    for value in (0.1, 0.2, 0.3, 0.4):
        aliased.save(auc=value)
    aliased.promote(1)
    with pytest.raises(PromotionRefusedError, match=r"0\.2.*version 3.*0\.3"):
        _overtaken(aliased, lambda: aliased.promote(2, metric="auc"), lambda: aliased.promote(3))
    move = _overtaken(aliased, lambda: aliased.promote(4, metric="auc"), lambda: aliased.promote(1))
    assert (move.from_.version, move.from_value) == (1, 0.1)
    assert aliased.holder() == 4


def test_a_move_of_another_alias_takes_only_the_number(aliased: Aliased) -> None:
    aliased.save(3)
    aliased.promote(1)
    move = _overtaken(aliased, lambda: aliased.promote(2), lambda: aliased.promote(3, "challenger"))
    assert move.number == 3
    assert (aliased.holder(), aliased.holder("challenger")) == (2, 3)


def test_two_that_want_the_same_are_both_content(aliased: Aliased) -> None:
    aliased.save(2)
    aliased.promote(1)
    moves = []
    moves.append(
        _overtaken(aliased, lambda: aliased.promote(2), lambda: moves.append(aliased.promote(2)))
    )
    assert moves[0] == moves[1]
    assert aliased.history() == [("promote", None, 1), ("promote", 1, 2)]


def _failing_once(name: str, is_done: bool, move: Callable[[], Any]) -> Any:
    """Have MLflow's answer to one call be lost, after it was done or before."""
    original = getattr(MlflowClient, name)

    def fail(*arguments: Any, **named: Any) -> Any:
        setattr(MlflowClient, name, original)
        if is_done:
            original(*arguments, **named)
        raise MlflowException("the answer is lost", error_code=TEMPORARILY_UNAVAILABLE)

    setattr(MlflowClient, name, fail)
    try:
        return move()
    finally:
        setattr(MlflowClient, name, original)


def test_a_claim_whose_answer_was_lost_is_known_by_its_content(aliased: Aliased) -> None:
    aliased.save(2)
    aliased.promote(1)
    assert _failing_once("log_param", True, lambda: aliased.promote(2)).number == 2
    assert aliased.holder() == 2
    with pytest.raises(MirrorUnavailableError, match="champion was not moved"):
        _failing_once("log_param", False, lambda: aliased.promote(1))
    assert (aliased.holder(), len(aliased.history())) == (2, 2)


@pytest.mark.parametrize("is_done", [False, True])
def test_an_outage_after_the_claim_is_told_and_the_move_finished_later(
    aliased: Aliased, is_done: bool
) -> None:
    aliased.save(3)
    aliased.promote(1)
    with pytest.raises(MirrorUnavailableError, match="the next promotion or rollback finishes it"):
        _failing_once("set_registered_model_alias", is_done, lambda: aliased.promote(2))
    assert aliased.holder() == (2 if is_done else 1)
    (found,) = aliased.manager.verify()
    assert (found.kind, found.name) == ("stuck record", aliased.name)
    assert aliased.promote(3).from_.version == 2
    check_finished(aliased, [1, 2, 3])
