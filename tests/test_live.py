"""A model in use that keeps itself up to date: swaps, what keeps a model out, and its ends."""

from __future__ import annotations

import copy
import gc
import logging
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from lotto_mlflow import LiveModel, ModelManager, errors, model_utils
from lotto_mlflow.errors import (
    DigestMismatchError,
    DumpError,
    InvalidReferenceError,
    LoadError,
    ModelNotFoundError,
    NotPicklableError,
    SettingsError,
)
from lotto_mlflow.operations.follow import LISTED_EVERY

SOON = 0.02
"""Seconds between checks, where a test waits for them."""
NEVER = 3600.0
"""Seconds between checks, where a test checks by hand."""
BOUND_SECONDS = 120.0
ROWS = np.zeros((2, 3))


def numbered(number: int) -> DummyRegressor:
    """Return a model whose prediction is its number, in two columns."""
    return DummyRegressor(strategy="constant", constant=[number, number]).fit(
        ROWS, np.zeros((2, 2))
    )


def save(manager: ModelManager, number: int, name: str | None = None) -> Path:
    name = f"lotto_model_{number:03d}" if name is None else name
    return Path(manager.save_model(numbered(number), name, {"number": number}))


def number_of(live: LiveModel) -> int:
    (number,) = set(live.predict(ROWS).ravel())
    return int(number)


def until(condition: Callable[[], Any], what: str = "") -> None:
    deadline = time.monotonic() + BOUND_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what or condition
        time.sleep(0.005)


def flip(path: Path) -> None:
    """Change one bit of a file, as a failing disk does, and leave its time."""
    content, status = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [r for r in caplog.records if r.levelno >= logging.WARNING]
    return [r.getMessage() for r in found if "stays in use" in r.getMessage()]


def live_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "lotto_mlflow-live"]


@pytest.fixture(autouse=True)
def no_threads_are_left() -> Any:
    yield
    gc.collect()
    until(lambda: not live_threads(), "a thread is left")


def test_ten_thousand_predictions_of_eight_threads_across_fifty_swaps(
    disk_manager: ModelManager,
) -> None:
    """None is mixed, none fails, none goes back, and each swap happens."""
    swaps, threads, each = 50, 8, 1250
    save(disk_manager, 0)
    failures: list[str] = []
    seen: Counter[int] = Counter()
    swapped: list[int] = []
    go_on = threading.Barrier(threads + 1)

    def ask(live: LiveModel) -> None:
        last, own = 0, Counter[int]()
        for done in range(each):
            if done % (each // swaps) == 0:
                go_on.wait(BOUND_SECONDS)
            try:
                predicted = live.predict(ROWS)
                model, record = live.in_use
            except Exception as cause:  # noqa: BLE001 - none may fail, however
                failures.append(repr(cause))
                continue
            numbers = set(predicted.ravel())
            if len(numbers) != 1 or min(numbers) < last:
                failures.append(f"{predicted} after {last}")
            if record.metadata != {**(record.metadata or {}), "number": model.constant[0]}:
                failures.append(f"{record.metadata} of {model}")
            last = int(max(numbers))
            own[last] += 1
        seen.update(own)

    def on_swap(record: Any) -> None:
        swapped.append(record.metadata["number"])

    with LiveModel(manager=disk_manager, every_seconds=SOON, on_swap=on_swap) as live:
        askers = [threading.Thread(target=ask, args=(live,)) for _ in range(threads)]
        for asker in askers:
            asker.start()
        for number in range(1, swaps + 1):
            go_on.wait(BOUND_SECONDS)
            save(disk_manager, number)
            until(lambda number=number: number in swapped)  # type: ignore[misc]
        for asker in askers:
            asker.join(BOUND_SECONDS)
    assert failures == []
    assert sum(seen.values()) == threads * each
    assert swapped == list(range(1, swaps + 1))
    assert len(seen) > swaps // 2  # they were made while models were swapped
    assert number_of(live) == swaps


def test_a_new_model_is_warmed_up_before_it_serves_and_announced_afterwards(
    disk_manager: ModelManager,
) -> None:
    order: list[tuple[str, int, int | None]] = []
    holder: list[LiveModel] = []

    def serving() -> int | None:
        return number_of(holder[0]) if holder else None

    def warm(model: Any) -> None:
        order.append(("warm", model.constant[0], serving()))

    save(disk_manager, 1)
    with LiveModel(
        manager=disk_manager,
        every_seconds=SOON,
        warm=warm,
        on_swap=lambda r: order.append(("swap", r.metadata["number"], serving())),
    ) as live:
        holder.append(live)
        save(disk_manager, 2)
        until(lambda: len(order) == 3)
    assert order == [("warm", 1, None), ("warm", 2, 1), ("swap", 2, 2)]


def test_it_follows_what_is_newest_on_disk_by_whatever_it_became_so(
    disk_manager: ModelManager,
) -> None:
    first = save(disk_manager, 1)
    with LiveModel(manager=disk_manager, every_seconds=NEVER) as live:
        assert not live.refresh()
        second = save(disk_manager, 2)
        assert live.refresh()
        assert not live.refresh()
        save(disk_manager, 3, "lotto_model_002")  # the same name again
        assert live.refresh()
        assert (number_of(live), live.record.path) == (3, second)
        disk_manager.restore("lotto_model_002")  # an older one, with its own time
        assert live.refresh()
        assert number_of(live) == 2
        second.unlink()
        assert live.refresh()
        assert (number_of(live), live.record.name) == (1, "lotto_model_001")
        save(disk_manager, 9, "another name")  # no lotto_model_*
        assert not live.refresh()
        copied = first.with_name("lotto_model_copied.pkl")
        shutil.copyfile(first, copied)
        os.utime(copied, (1, 1))
        assert not live.refresh()
        os.utime(copied)
        assert live.refresh()
        assert live.record.path == copied
        assert live.problem is None


def test_it_notices_a_file_that_only_its_time_makes_the_newest(
    disk_manager: ModelManager,
) -> None:
    """The folder's own time does not change then."""
    first = save(disk_manager, 1)
    save(disk_manager, 2)
    _age(first.parent)
    with LiveModel(manager=disk_manager, every_seconds=SOON) as live:
        until(lambda checked=live.checked_at: live.checked_at != checked)
        future = time.time_ns() + 10**9
        os.utime(first, ns=(future, future))
        until(lambda: number_of(live) == 1)


def test_a_look_at_a_folder_where_nothing_changes_lists_nothing(
    disk_manager: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(disk_manager, 1)
    _age(path.parent)
    followed = disk_manager.follow()
    mark = followed.look()
    listings: list[Any] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda *a: listings.append(a) or scandir(*a))
    looks = 5 * LISTED_EVERY
    assert {followed.look() for _ in range(looks)} == {mark}
    assert len(listings) == looks // LISTED_EVERY
    os.utime(path)  # as a program does that writes into the file; the folder does not change
    touched = followed.look()
    assert touched != mark
    listings.clear()
    path.with_name("lotto_model_x.pkl").write_bytes(b"")
    os.utime(path.parent, (time.time() + 1000, time.time() + 1000))  # under two seconds ago
    assert touched not in {followed.look() for _ in range(5)}
    assert len(listings) == 5


def _age(folder: Path) -> None:
    """Have a folder be one that changed long ago."""
    os.utime(folder, (time.time() - 100, time.time() - 100))


def _damaged(manager: ModelManager) -> None:
    flip(save(manager, 2))


def _cut_short(manager: ModelManager) -> None:
    path = save(manager, 2)
    path.write_bytes(path.read_bytes()[:-20])


def _empty(manager: ModelManager) -> None:
    save(manager, 1).with_name("lotto_model_z.pkl").touch()


def _no_pickle(manager: ModelManager) -> None:
    path = save(manager, 1).with_name("lotto_model_z.pkl")
    path.write_bytes(b"\x80no pickle at all")


def _of_a_class_that_is_not_here(manager: ModelManager) -> None:
    path = save(manager, 1).with_name("lotto_model_z.pkl")
    path.write_bytes(b"cnot_installed_here\nModel\n.")


def _exiting(manager: ModelManager) -> None:
    path = save(manager, 1).with_name("lotto_model_z.pkl")
    path.write_bytes(b"csys\nexit\n(I3\ntR.")


def _unreadable(manager: ModelManager) -> None:
    path = save(manager, 2)
    path.unlink()
    path.mkdir()
    shutil.copyfile(path.with_name("lotto_model_001.pkl"), path.with_name("lotto_model_z.pkl"))
    flip(path.with_name("lotto_model_z.pkl"))


def _none_at_all(manager: ModelManager) -> None:
    for path in save(manager, 1).parent.iterdir():
        path.unlink()


def _no_folder(manager: ModelManager) -> None:
    shutil.rmtree(save(manager, 1).parent)


SPOILS = (
    _damaged,
    _cut_short,
    _empty,
    _no_pickle,
    _of_a_class_that_is_not_here,
    _exiting,
    _unreadable,
    _none_at_all,
    _no_folder,
)


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_what_cannot_be_loaded_never_replaces_a_good_model(
    disk_manager: ModelManager,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[ModelManager], None],
) -> None:
    """One warning, however many checks; a good one ends the problem."""
    save(disk_manager, 1)
    with LiveModel(manager=disk_manager, every_seconds=SOON) as live:
        # the problem is not met half made
        assert live._keeper.checking.acquire(timeout=BOUND_SECONDS)
        spoil(disk_manager)
        live._keeper.checking.release()
        until(lambda: live.problem is not None)
        noticed = live.checked_at
        until(lambda: (live.checked_at - noticed).total_seconds() > 20 * SOON)
        assert not live.refresh()
        assert number_of(live) == 1
        assert live.problem is not None
        assert len(warnings_in(caplog)) == 1
        assert live.problem in warnings_in(caplog)[0]
        assert live.problem == errors.safe_line(live.problem)
        save(disk_manager, 3)
        until(lambda: number_of(live) == 3)
        assert live.problem is None
        assert live_threads()


def test_another_problem_is_warned_of_again_and_the_same_one_after_it_was_over(
    disk_manager: ModelManager, caplog: pytest.LogCaptureFixture
) -> None:
    save(disk_manager, 1)
    with LiveModel(manager=disk_manager, every_seconds=NEVER) as live:
        for number in (2, 3):
            path = save(disk_manager, number)
            flip(path)
            for _ in range(3):
                assert not live.refresh()
            assert len(warnings_in(caplog)) == number - 1
            assert str(path) in str(live.problem)
        trained_dir = path.parent
        for more in (3, 4):
            away = trained_dir.rename(trained_dir.with_name("away"))
            for _ in range(3):
                assert not live.refresh()
            assert len(warnings_in(caplog)) == more
            away.rename(trained_dir)
            assert not live.refresh()
            assert "damaged" in str(live.problem)
            assert len(warnings_in(caplog)) == more  # that one is known
        save(disk_manager, 4)
        assert live.refresh()
        flip(save(disk_manager, 5))
        assert not live.refresh()
        assert len(warnings_in(caplog)) == 5


def test_a_damaged_model_is_replaced_once_it_is_restored_as_advised(
    disk_manager: ModelManager,
) -> None:
    save(disk_manager, 1)
    with LiveModel(manager=disk_manager, every_seconds=SOON) as live:
        save(disk_manager, 2, "lotto_model_b")
        path = save(disk_manager, 3, "lotto_model_b")
        until(lambda: number_of(live) == 3)
        flip(path)
        os.utime(path)
        until(lambda: live.problem is not None)
        assert "restore" in str(live.problem)
        disk_manager.restore("lotto_model_b")
        until(lambda: number_of(live) == 2)
        assert live.problem is None


def test_a_model_that_fails_is_tried_less_and_less_often_but_at_once_by_hand(
    disk_manager: ModelManager,
) -> None:
    tried: list[float] = []

    def warm(model: Any) -> None:
        if model.constant[0] == 2:
            tried.append(time.monotonic())
            raise ValueError("too small")

    save(disk_manager, 1)
    with LiveModel(manager=disk_manager, every_seconds=SOON, warm=warm) as live:
        save(disk_manager, 2)
        until(lambda: len(tried) == 5)
        gaps = np.diff(tried)
        least = np.array([1.5, 3.5, 7.5, 15.5]) * SOON  # of a busy machine, nothing is the most
        assert (gaps >= least).all()
        assert "warm failed" in str(live.problem)
        assert "ValueError: too small" in str(live.problem)
        before = len(tried)
        assert not live.refresh()
        assert len(tried) > before
        assert number_of(live) == 1


def test_a_refusal_by_trust_ends_when_the_file_gets_its_record(
    disk_manager: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file itself does not change then."""
    path = save(disk_manager, 1)
    with LiveModel(manager=disk_manager, every_seconds=SOON) as live:
        monkeypatch.setenv("LOTTO_TRUST", "known")
        copied = path.with_name("lotto_model_copied.pkl")
        shutil.copyfile(path, copied)
        until(lambda: "LOTTO_TRUST" in str(live.problem))
        monkeypatch.setenv("LOTTO_TRUST", "any")
        until(lambda: live.record.path == copied)


def test_what_on_swap_raises_is_logged_and_the_swap_is_made(
    disk_manager: ModelManager, caplog: pytest.LogCaptureFixture
) -> None:
    save(disk_manager, 1)

    def on_swap(_: Any) -> None:
        raise RuntimeError("no room for the news")

    with LiveModel(manager=disk_manager, every_seconds=NEVER, on_swap=on_swap) as live:
        save(disk_manager, 2)
        assert live.refresh()
        assert number_of(live) == 2
        assert live.problem is None
    assert "on_swap failed" in caplog.text
    assert "no room for the news" in caplog.text


def test_a_callback_may_refresh_and_close(disk_manager: ModelManager) -> None:
    save(disk_manager, 1)
    found: list[bool] = []
    holder: list[LiveModel] = []

    def call(_: Any) -> None:
        if holder:
            found.append(holder[0].refresh())
            holder[0].close()

    for warm, on_swap in ((None, call), (call, None)):
        holder.clear()
        live = LiveModel(manager=disk_manager, every_seconds=SOON, warm=warm, on_swap=on_swap)
        holder.append(live)
        before, number = len(found), number_of(live)
        save(disk_manager, 2 + before)
        until(lambda before=before: len(found) > before)  # type: ignore[misc]
        until(lambda: not live_threads())
        assert number_of(live) == (number if warm else 2 + before)
    assert found == [False, False]


def test_the_constructor_raises_what_a_load_raises_and_leaves_no_thread(
    disk_manager: ModelManager,
) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no lotto_model_"):
        LiveModel(manager=disk_manager)
    path = save(disk_manager, 1)

    def warm(_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(LoadError, match="warm failed with it: ZeroDivisionError"):
        LiveModel(manager=disk_manager, warm=warm)
    flip(path)
    with pytest.raises(DigestMismatchError):
        LiveModel(manager=disk_manager)
    for reference in ("models:/lotto_model@none", "models:/lotto_model/latest", "models:/x/3"):
        with pytest.raises(ModelNotFoundError):
            LiveModel(reference, manager=disk_manager)
    assert not live_threads()


@pytest.mark.parametrize(
    "reference",
    ["", "lotto_model", "lotto_model@champion", "models:/lotto_model", "runs:/a/model", 3, Path()],
)
def test_what_is_no_reference_is_refused(disk_manager: ModelManager, reference: Any) -> None:
    save(disk_manager, 1)
    with pytest.raises(InvalidReferenceError):
        LiveModel(reference, manager=disk_manager)


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            {"every_seconds": n}
            for n in (0, -1, float("nan"), float("inf"), 10**400, True, None, "10")
        ),
        {"warm": 3},
        {"on_swap": "print"},
        {"manager": "models"},
        {"manager": ModelManager},
    ],
    ids=str,
)
def test_what_is_no_setting_is_refused(disk_manager: ModelManager, wrong: dict[str, Any]) -> None:
    save(disk_manager, 1)
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        LiveModel(**{"manager": disk_manager, **wrong})


def test_by_default_it_is_of_the_folder_that_the_constants_mean_when_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOTTO_MIRROR", "off")
    for number in (1, 2):
        monkeypatch.setattr(model_utils, "MODEL_BASE_DIR", tmp_path / str(number))
        model_utils.save_model(numbered(number), None, {"number": number})
    with LiveModel(every_seconds=np.float32(1e12)) as live:
        assert number_of(live) == 2


def test_methods_and_attributes_are_those_of_the_model_in_use(
    disk_manager: ModelManager, rows: Any
) -> None:
    classifiers = [LogisticRegression(C=c).fit(*rows) for c in (0.01, 100)]
    disk_manager.save_model(classifiers[0], "lotto_model_a", {})
    with LiveModel(manager=disk_manager, every_seconds=NEVER) as live:
        kept = live.predict_proba
        assert kept.__name__ == "predict_proba"
        assert "Probability estimates" in str(kept.__doc__)
        assert (live.C, live.n_features_in_) == (0.01, 5)
        for classifier in classifiers:
            assert np.array_equal(kept(rows[0]), classifier.predict_proba(rows[0]))
            assert np.array_equal(live.predict(X=rows[0]), classifier.predict(rows[0]))
            assert live.score(*rows) == classifier.score(*rows)
            disk_manager.save_model(classifiers[1], "lotto_model_b", {})
            live.refresh()
        assert live.get_params() == classifiers[1].get_params()
        assert {"predict_proba", "coef_", "refresh", "in_use"} <= set(dir(live))
        assert hasattr(live, "decision_function")
        for missing in ("transform", "_validate_params", "__len__", "__array__"):
            assert not hasattr(live, missing)
        with pytest.raises(AttributeError):
            live.C = 3  # it would reach no model
        check_is_fitted(live)
        assert clone(live).get_params() == classifiers[1].get_params()
        assert repr(live) == "LiveModel(name='lotto_model_b', version=None)"


def test_scikit_learn_sees_that_the_model_in_use_is_not_fitted(
    disk_manager: ModelManager,
) -> None:
    disk_manager.save_model(LogisticRegression(), "lotto_model_a", {})
    with LiveModel(manager=disk_manager) as live, pytest.raises(NotFittedError):
        check_is_fitted(live)


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_is_not_pickled_copied_or_saved(
    disk_manager: ModelManager, copied: Callable[[Any], Any]
) -> None:
    path = save(disk_manager, 1)
    with LiveModel(manager=disk_manager) as live:
        with pytest.raises(NotPicklableError, match=r"give the model in use, which is at \.model"):
            copied(live)
        with pytest.raises(TypeError):
            copied(live)
        with pytest.raises(DumpError, match=r"which is at \.model"):
            disk_manager.save_model(live, "lotto_model_live")
        assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_old_model_is_released_after_the_swap_and_not_under_a_call_in_flight(
    disk_manager: ModelManager,
) -> None:
    save(disk_manager, 1)
    with LiveModel(manager=disk_manager, every_seconds=NEVER) as live:
        old, kept = weakref.ref(live.model), live.score
        in_flight = live.in_use
        save(disk_manager, 2)
        assert live.refresh()
        assert old() is not None
        assert set(in_flight.model.predict(ROWS).ravel()) == {1}
        del in_flight
        gc.collect()
        assert old() is None
        assert kept.__name__ == "score"


def test_a_model_that_warm_refuses_is_released(disk_manager: ModelManager) -> None:
    seen: list[weakref.ref[Any]] = []

    def warm(model: Any) -> None:
        seen.append(weakref.ref(model))
        if len(seen) > 1:
            raise ValueError

    save(disk_manager, 1)
    with LiveModel(manager=disk_manager, every_seconds=NEVER, warm=warm) as live:
        save(disk_manager, 2)
        assert not live.refresh()
        gc.collect()
        assert [ref() is None for ref in seen] == [False, True]


def test_after_close_nothing_is_swapped_and_the_model_serves_on(
    disk_manager: ModelManager,
) -> None:
    save(disk_manager, 1)
    live = LiveModel(manager=disk_manager, every_seconds=SOON)
    (thread,) = live_threads()
    live.close()
    assert not thread.is_alive()
    checked = live.checked_at
    save(disk_manager, 2)
    assert not live.refresh()
    live.close()
    assert (number_of(live), live.checked_at, live.problem) == (1, checked, None)


def test_one_that_nobody_uses_any_more_ends_its_thread_and_releases_its_model(
    disk_manager: ModelManager,
) -> None:
    save(disk_manager, 1)
    live = LiveModel(manager=disk_manager, every_seconds=NEVER)
    model, thread = weakref.ref(live.model), live_threads()[0]
    del live
    gc.collect()
    thread.join(BOUND_SECONDS)
    assert not thread.is_alive()
    assert model() is None


def test_a_check_says_when_it_was_made(disk_manager: ModelManager) -> None:
    save(disk_manager, 1)
    before = datetime.now(timezone.utc)
    with LiveModel(manager=disk_manager, every_seconds=SOON) as live:
        made = live.checked_at
        assert before <= made <= datetime.now(timezone.utc)
        until(lambda: live.checked_at > made)


def test_many_in_one_process_follow_on_their_own(tmp_path: Path) -> None:
    managers = [ModelManager(tmp_path / str(n), mirror="off") for n in range(8)]
    for manager in managers:
        save(manager, 1)
    lives = [LiveModel(manager=manager, every_seconds=SOON) for manager in managers]
    for live, manager, number in zip(lives, managers, range(2, 10), strict=True):
        save(manager, number)
        until(lambda live=live, number=number: number_of(live) == number)  # type: ignore[misc]
    for live in lives:
        live.close()


@pytest.mark.parametrize("slow", [False, True])
def test_the_interpreter_ends_quietly_with_one_that_was_never_closed(
    tmp_path: Path, slow: bool
) -> None:
    code = (
        "import time, logging, threading\nlogging.basicConfig(level='WARNING')\n"
        "from lotto_mlflow import LiveModel, ModelManager\n"
        f"manager = ModelManager({str(tmp_path / 'ml')!r}, mirror='off')\n"
        "manager.save_model({'a': 1}, 'lotto_model_a', {'n': 1})\n"
        "inside = threading.Event()\n"
        "def warm(model):\n"
        "    if model['a'] == 2:\n"
        "        print('in', flush=True); inside.set(); time.sleep(1); print('out', flush=True)\n"
        "live = LiveModel(manager=manager, every_seconds=0.01, warm=warm)\n"
    )
    if slow:
        code += "manager.save_model({'a': 2}, 'lotto_model_b', {'n': 1})\nassert inside.wait(60)\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout == ("in\nout\n" if slow else "")
