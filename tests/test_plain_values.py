"""Values of any library as the plain ones of JSON."""

from __future__ import annotations

import array
import enum
import json
import math
import subprocess
import sys
import time
import uuid
import warnings
from collections import OrderedDict, UserList, UserString, deque, namedtuple
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import FrameType, MappingProxyType, SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pandas as pd
import pyarrow as pa
import pydantic
import pytest
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from lotto_mlflow import ModelManager
from lotto_mlflow.metadata import plain, strict


def without_unit(number: int) -> np.timedelta64:
    """Return a duration of which numpy warns from 2.5 on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.timedelta64(number)


class Colour(enum.Enum):
    RED = "red"
    DEEP = np.float64(0.5)


class Level(enum.IntEnum):
    HIGH = 3


class Kind(str, enum.Enum):
    FOREST = "forest"


class Mode(enum.Flag):
    FAST = 1
    WIDE = 2


class Counted(enum.Enum):  # alone: Python 3.10 compares the values of a class, and arrays come out
    NUMPY = np.int64(3)


class Odd(enum.Enum):
    PAIR = (1, np.float32(0.5))
    DURATION = timedelta(days=1)
    MARK = object()


@attrs.define
class Declared:
    rate: np.float32
    at: date


class Checked(pydantic.BaseModel):
    rate: float = 0.5
    part: Any = np.int64(2)


class Unreadable(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise RuntimeError("closed")

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


@dataclass
class Setting:
    rate: np.float32
    names: tuple[str, ...]


def _holding(value: Any) -> Any:
    """Return an array of no dimension that holds an object."""
    found = np.empty((), dtype=object)
    found[()] = value
    return found


Point = namedtuple("Point", "x y")
SELF = uuid.UUID("12345678-1234-5678-1234-567812345678")
FORMS: dict[str, tuple[Any, Any]] = {
    "masked constant": (np.ma.masked, None),
    "masked array": (np.ma.array([1.5, 2.5], mask=[False, True]), [1.5, None]),
    "masked objects": (np.ma.array([{"a": 1}, 2], mask=[0, 1], dtype=object), [{"a": 1}, None]),
    "masked, two rows": (
        np.ma.array([[1, 2], [3, 4]], mask=[[0, 1], [1, 0]]),
        [[1, None], [None, 4]],
    ),
    "masked scalar": (np.ma.array(3), 3),
    "masked record": (
        np.ma.array([(1, 2.0)], mask=[(True, False)], dtype=[("a", int), ("b", float)]),
        [{"a": None, "b": 2.0}],
    ),
    "masked moments": (
        np.ma.array(["2025-11-03", "2025-11-04"], mask=[0, 1], dtype="datetime64[ns]"),
        ["2025-11-03T00:00:00.000000000", None],
    ),
    "masked durations": (
        np.ma.array([1, 2], mask=[0, 1], dtype="timedelta64[ns]"),
        ["PT0.000000001S", None],
    ),
    "masked inside a list": ([np.ma.masked, np.ma.array([1, 2], mask=[1, 0])], [None, [None, 2]]),
    "matrix": (np.ones((2, 2)).view(np.matrix), [[1.0, 1.0], [1.0, 1.0]]),
    "record": (np.array([(1, "a")], dtype=[("n", int), ("s", "U1")]), [{"n": 1, "s": "a"}]),
    "array of objects": (np.array([1, None, "a"], dtype=object), [1, None, "a"]),
    "array of dates": (np.array(["2025-11-03"], "datetime64[D]"), ["2025-11-03"]),
    "array of no dimension": (np.array(2.5), 2.5),
    "long double": (np.longdouble(1.5), 1.5),
    "numpy bool": (np.bool_(True), True),
    "numpy text": (np.str_("가"), "가"),
    "not a time": (np.datetime64("NaT", "ns"), None),
    "duration in seconds": (np.timedelta64(90, "s"), "PT1M30S"),
    "duration in minutes": (np.timedelta64(90, "m"), "PT1H30M"),
    "duration in weeks": (np.timedelta64(2, "W"), "P14D"),
    "duration in months": (np.timedelta64(5, "M"), "P5M"),
    "duration in nanoseconds": (np.timedelta64(1, "ns"), "PT0.000000001S"),
    "duration in picoseconds": (np.timedelta64(-1500, "ps"), "-PT0.0000000015S"),
    "duration in attoseconds": (np.timedelta64(1, "as"), "PT0.000000000000000001S"),
    "duration without unit": (without_unit(5), 5),
    "duration in quarters": (np.array(2, "timedelta64[15m]"), "PT30M"),
    "no duration": (np.timedelta64("NaT", "ns"), None),
    "timedelta": (timedelta(days=1, seconds=90, microseconds=500_000), "P1DT1M30.5S"),
    "negative timedelta": (timedelta(seconds=-90), "-PT1M30S"),
    "zero": (timedelta(0), "PT0S"),
    "pandas duration": (pd.Timedelta("1 days 00:00:01.000000002"), "P1DT1.000000002S"),
    "NA": (pd.NA, None),
    "NaT": (pd.NaT, None),
    "Timestamp": (pd.Timestamp("2025-11-03 12:00", tz="Asia/Seoul"), "2025-11-03T12:00:00+09:00"),
    "Period": (pd.Period("2025-11", "M"), "2025-11"),
    "Series": (pd.Series([1, 2]), [1, 2]),
    "nullable Series": (pd.Series([1, None], dtype="Int64"), [1, None]),
    "Series with labels": (pd.Series([0.5, 0.25], index=["가", "b"]), {"가": 0.5, "b": 0.25}),
    "Index": (pd.Index(["a", "b"]), ["a", "b"]),
    "categories": (pd.Categorical(["a", "b", "a"]), ["a", "b", "a"]),
    "nullable array": (pd.array([True, None], dtype="boolean"), [True, None]),
    "frame": (pd.DataFrame({"a": [1, 2], "b": ["x", None]}), {"a": [1, 2], "b": ["x", None]}),
    "labels that come twice": (
        pd.Series([1, 2, 3], index=["a", "b", "a"]),
        {"a": 1, "b": 2, "a_2": 3},
    ),
    "columns that come twice": (
        pd.DataFrame([[1, 2, 3]], columns=["a", "a", "a_2"]),
        {"a": [1], "a_3": [2], "a_2": [3]},
    ),
    "labels of two levels": (
        pd.Series([1], index=pd.MultiIndex.from_tuples([("a", 1)])),
        {"('a', 1)": 1},
    ),
    "Interval": (pd.Interval(0, 1), "(0, 1]"),
    "offset": (pd.offsets.Day(2), "2D"),
    "dtype": (np.dtype("float32"), "float32"),
    "nullable dtype": (pd.Int64Dtype(), "Int64"),
    "Arrow array": (pa.array([1, None]), [1, None]),
    "Arrow scalar": (pa.scalar(3), 3),
    "Arrow table": (pa.table({"a": [1, None]}), {"a": [1, None]}),
    "Arrow Series": (pd.Series([1, None], dtype="int64[pyarrow]"), [1, None]),
    "zone": (timezone.utc, "UTC"),
    "Decimal of many digits": (Decimal("1e400"), math.inf),
    "large Fraction": (Fraction(10**400, 3), math.inf),
    "whole Fraction": (Fraction(10**400), 10**400),
    "Decimal": (Decimal("0.1"), 0.1),
    "whole Decimal": (Decimal("12"), 12),
    "Fraction": (Fraction(1, 4), 0.25),
    "UUID": (SELF, str(SELF)),
    "Enum": (Colour.RED, "red"),
    "Enum of numpy": (Colour.DEEP, 0.5),
    "Enum of a numpy number": (Counted.NUMPY, 3),
    "Enum of a tuple": (Odd.PAIR, [1, 0.5]),
    "Enum of a duration": (Odd.DURATION, "P1D"),
    "Enum of a mark": (Odd.MARK, "MARK"),
    "Enum of text": (Kind.FOREST, "forest"),
    "Flag": (Mode.FAST | Mode.WIDE, 3),
    "list of one's own": (UserList([np.int64(1)]), [1]),
    "text of one's own": (UserString("가"), "가"),
    "array of Python": (array.array("d", [1, 2]), [1.0, 2.0]),
    "items": ({"a": 1}.items(), [["a", 1]]),
    "namespace": (SimpleNamespace(a=np.int64(1)), {"a": 1}),
    "attrs": (Declared(np.float32(0.5), date(2025, 11, 3)), {"rate": 0.5, "at": "2025-11-03"}),
    "pydantic": (Checked(), {"rate": 0.5, "part": 2}),
    "array that holds a frame": (_holding(pd.DataFrame({"a": [1]})), {"a": [1]}),
    "IntEnum": (Level.HIGH, 3),
    "path": (Path("a") / "b", "a/b"),
    "set": ({3, 1, 2}, [1, 2, 3]),
    "mixed set": (frozenset({"a", 1}), ["a", 1]),
    "range": (range(3), [0, 1, 2]),
    "deque": (deque([1, 2]), [1, 2]),
    "keys": ({"a": 1}.keys(), ["a"]),
    "values": ({"a": 1}.values(), [1]),
    "named tuple": (Point(1, np.int64(2)), [1, 2]),
    "dataclass": (Setting(np.float32(0.5), ("a",)), {"rate": 0.5, "names": ["a"]}),
    "mapping": (MappingProxyType(OrderedDict(b=1)), {"b": 1}),
    "date": (date(2025, 11, 3), "2025-11-03"),
    "moment": (datetime(2025, 11, 3, tzinfo=timezone.utc), "2025-11-03T00:00:00+00:00"),
}


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_what_has_an_obvious_json_form_is_converted(form: str) -> None:
    value, expected = FORMS[form]
    assert plain({"a": value})["a"] == expected
    found = plain({"outer": {"inner": [value]}})["outer"]["inner"][0]
    assert found == expected
    assert type(found) is type(expected)
    json.dumps(strict(found), allow_nan=False)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (1, "1"),
        (1.5, "1.5"),
        (True, "true"),
        (None, "null"),
        (np.int64(3), "3"),
        (Colour.RED, "red"),
        (date(2025, 11, 3), "2025-11-03"),
        ((1, "a"), "(1, 'a')"),
        (pd.Timestamp("2025-11-03"), "2025-11-03T00:00:00"),
        ((1, (2, np.int64(3))), "(1, (2, 3))"),
        (Counted.NUMPY, "3"),
        (LogisticRegression, "LogisticRegression"),
        (pd.NA, "null"),
        (np.bool_(True), "true"),
        (pd.Interval(0, 1), "(0, 1]"),
        (frozenset({1}), "(1,)"),
    ],
    ids=str,
)
def test_a_key_that_is_no_text_becomes_one(key: Any, expected: str) -> None:
    assert plain({key: 1}) == {expected: 1}


def test_keys_that_become_one_are_both_kept(caplog: pytest.LogCaptureFixture) -> None:
    assert plain({1: "a", "1": "b"}) == {"1": "a", "1_2": "b"}
    assert "two values named '1'" in caplog.text


def test_a_name_that_was_given_is_not_taken_by_a_number(caplog: pytest.LogCaptureFixture) -> None:
    found = plain({1: "a", "1": "b", "1_2": "c", np.int64(1): "d"})
    assert found == {"1": "d", "1_3": "b", "1_2": "c"}
    assert "two values named '1'" in caplog.text


def test_thousands_of_equal_labels_are_kept_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = plain({"s": pd.Series(range(20_000), index=["a"] * 20_000)})["s"]
    assert list(found.values()) == list(range(20_000))
    assert len(caplog.records) == 1


def _in_itself(value: Any) -> Any:
    value[0] = value
    return value


def _frame_in_itself() -> Any:
    frame = pd.DataFrame({"a": [None]}, dtype=object)
    frame.iat[0, 0] = frame
    return frame


@pytest.mark.parametrize(
    "value",
    [
        _in_itself([1]),
        _in_itself({0: 1}),
        _in_itself(np.empty(1, dtype=object)),
        _in_itself(UserList([1])),
        _frame_in_itself(),
    ],
    ids=["list", "dict", "array", "list of one's own", "frame"],
)
def test_what_contains_itself_is_refused_in_a_short_message(value: Any) -> None:
    with pytest.raises(ValueError, match="contains itself") as caught:
        plain({"a": value})
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    "value",
    [
        object(),
        b"bytes",
        1j,
        lambda: None,
        iter([1]),
        bytearray(b"a"),
        memoryview(b"a"),
        Unreadable(),
    ],
    ids=["object", "bytes", "complex", "function", "iterator", "array", "memory", "unreadable"],
)
def test_what_has_none_is_refused(disk_manager: ModelManager, tmp_path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match=r"metadata\['a'\]"):
        disk_manager.save_model({"n": 1}, "x", {"a": value})
    assert not (tmp_path / "ml" / "trained" / "x.pkl").exists()


def test_the_results_of_a_search_over_a_list_of_grids_are_kept(manager: ModelManager) -> None:
    rows = np.random.default_rng(645).normal(size=(60, 3))
    grids: list[Mapping[str, Any]] = [{"C": [0.1, 1.0]}, {"fit_intercept": [True, False]}]
    search = GridSearchCV(LogisticRegression(), grids, cv=2).fit(rows, rows[:, 0] > 0)
    manager.save_model(search, "searched", {"cv": search.cv_results_})
    kept = manager.get("searched").metadata
    assert kept is not None
    assert kept["cv"]["param_C"] == [0.1, 1.0, None, None]
    assert kept["cv"]["mean_test_score"] == pytest.approx(search.cv_results_["mean_test_score"])


def test_keys_that_flatten_to_one_name_both_arrive(
    manager: ModelManager, base_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager.save_model({"n": 1}, "x", {"test.f1": 0.9, "test": {"f1": 0.1, "auc": 0.5}})
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    metrics = client.get_run(str(manager.get("x").run_id)).data.metrics
    assert metrics == {"test.f1": 0.9, "test.f1_2": 0.1, "test.auc": 0.5}
    assert "two values named 'test.f1'" in caplog.text
    assert manager.get("x").metadata["test"] == {"f1": 0.1, "auc": 0.5}  # type: ignore[index]


def test_a_long_list_is_thinned_in_mlflow_and_whole_in_the_json(
    manager: ModelManager, base_dir: Path
) -> None:
    losses = np.linspace(1.0, 0.0, 50_000)
    manager.save_model({"n": 1}, "x", {"loss": losses})
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    history = client.get_metric_history(str(manager.get("x").run_id), "loss")
    assert len(history) == 1_000
    steps = [point.step for point in history]
    assert (steps[0], steps[-1]) == (0, 49_999)
    assert all(point.value == losses[point.step] for point in history)
    assert manager.get("x").metadata["loss"] == losses.tolist()  # type: ignore[index]


def test_many_long_lists_do_not_fill_the_database(manager: ModelManager, base_dir: Path) -> None:
    manager.save_model({"n": 1}, "x", {f"loss_{i}": np.arange(2_000.0) for i in range(50)})
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    run_id = str(manager.get("x").run_id)
    assert len(client.get_metric_history(run_id, "loss_7")) == 200
    assert client.get_run(run_id).data.metrics["loss_7"] == 1_999.0


def test_a_decimal_that_is_no_number_is_none_whether_it_signals_or_not() -> None:
    assert strict(plain({"a": [Decimal("NaN"), Decimal("sNaN")]})) == {"a": [None, None]}


def test_a_save_with_long_lists_and_a_small_one_behind_it_end_in_time(
    manager: ModelManager, base_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = {f"list_{i}": np.linspace(0, 1, 50_000) for i in range(5)}
    manager.save_model({"n": 0}, "warm", {"n": 0})
    caplog.clear()
    began = time.perf_counter()
    manager.save_model({"n": 1}, "long", {"loss": list(range(50_000)), **long})
    manager.save_model({"n": 2}, "small", {"auc": 0.5})
    assert time.perf_counter() - began < 60
    assert not caplog.records, "both were mirrored within the time that a save waits"
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    assert client.get_run(str(manager.get("small").run_id)).data.metrics == {"auc": 0.5}
    history = client.get_metric_history(str(manager.get("long").run_id), "loss")
    assert len(history) == 1_000
    assert manager.get("long").metadata["loss"] == list(range(50_000))  # type: ignore[index]


@pytest.mark.parametrize("name", ["numpy", "pandas"])
def test_a_library_that_a_thread_is_just_importing_is_not_asked(tmp_path: Path, name: str) -> None:
    """The push thread of the first save imports MLflow, and so both, during the second save."""
    (tmp_path / f"{name}.py").write_text("import builtins\nbuiltins.go_on.wait()\n")
    code = (
        "import builtins, sys, threading\n"
        "builtins.go_on = threading.Event()\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from lotto_mlflow.metadata import plain\n"
        f"thread = threading.Thread(target=__import__, args=({name!r},))\n"
        "thread.start()\n"
        f"while {name!r} not in sys.modules: pass\n"
        "try:\n"
        "    values = {'auc': 0.5, 'at': __import__('datetime').date(2025, 11, 3), 'own': [1]}\n"
        "    assert plain(values)['auc'] == 0.5\n"
        "finally:\n"
        "    builtins.go_on.set()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.parametrize("code", np.typecodes["AllInteger"] + np.typecodes["Float"] + "?")
def test_every_number_of_numpy_is_a_plain_one_of_its_value(code: str) -> None:
    kind = np.dtype(code).type
    for value in (kind(0), kind(1), kind(100)) + ((kind("nan"),) if code in "efdg" else ()):
        (found,) = plain({"a": [value]})["a"]
        assert type(found) is {"b": bool, "i": int, "u": int, "f": float}[np.dtype(code).kind]
        assert found == value or (found != found and value != value)


def test_many_numbers_of_numpy_are_converted_without_asking_every_library() -> None:
    def calls(values: list[Any]) -> int:
        count = 0

        def counted(frame: FrameType, event: str, argument: object) -> None:
            nonlocal count
            count += event == "call"

        before = sys.getprofile()
        sys.setprofile(counted)
        try:
            plain({"a": values})
        finally:
            sys.setprofile(before)
        return count

    kinds = (np.float64, np.float32, np.int64, np.bool_)
    few, many = ([kind(1) for _ in range(n) for kind in kinds] for n in (10, 110))
    assert (calls(many) - calls(few)) / (100 * len(kinds)) <= 3
