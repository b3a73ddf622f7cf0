"""Input examples: what is recorded at the save gives the signature of the live objects later."""

from __future__ import annotations

import copy
import datetime as dt
import json
import logging
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import mlflow
import numpy as np
import pandas as pd
import pytest
from made import save_record
from mlflow.models import ModelSignature, infer_signature
from mlflow.types.schema import AnyType
from scipy import sparse

from lotto_mlflow import datasets, examples, facts
from lotto_mlflow.mirror import data, rebuilding, signatures
from lotto_mlflow.records import Description, Record, SavePayload, parse, render

pytestmark = pytest.mark.filterwarnings("ignore:Hint. Inferred schema contains integer:UserWarning")
LATE = 100
"""The row that differs: far behind those that are kept."""
N = 120
# a name would be a zone of pytz before pandas 3, and what is read back has Python's own
SEOUL = pd.date_range("2025-11-01", periods=N, tz=ZoneInfo("Asia/Seoul"))
UTC = dt.timezone.utc


def late(other: Any, common: Any) -> list[Any]:
    return [other if place == LATE else common for place in range(N)]


def column(values: Any, dtype: Any = object) -> pd.DataFrame:
    return pd.DataFrame({"x": pd.Series(values, dtype=dtype), "n": np.arange(len(values)) / 2})


class Text(str):
    """Text of another class, as some libraries make it."""


DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f8", "c8", "c16"]
DTYPES += ["U3", "S3", "M8[ns]", "M8[D]", "m8[s]", "O"]
COLUMNS = {
    "float": (late(np.nan, 1.0), "f8"),
    "float32": (late(np.nan, 1.0), "f4"),
    "int16": (late(2, 1), "i2"),
    "uint64": (late(2, 1), "u8"),
    "bool": (late(True, False), "?"),
    "dates": (SEOUL.tz_localize(None), None),
    "dates with NaT": (SEOUL.tz_localize(None).where(np.arange(N) != LATE), None),
    "zone": (SEOUL, None),
    "zone with NaT": (SEOUL.where(np.arange(N) != LATE), None),
    "utc": (SEOUL.tz_convert("UTC"), None),
    "offset": (SEOUL.tz_convert(dt.timezone(dt.timedelta(hours=9))), None),
    "timedelta": (pd.timedelta_range("1D", periods=N), None),
    "period": (pd.period_range("2025-01", periods=N, freq="M"), None),
    "interval": (pd.interval_range(0, N), None),
    "Int64": (late(3, 1), "Int64"),
    "Int64 missing": (late(None, 1), "Int64"),
    "UInt8 missing": (late(None, 1), "UInt8"),
    "Float32 missing": (late(None, 1.5), "Float32"),
    "boolean missing": (late(None, True), "boolean"),
    "string": (late("b", "a"), "string"),
    "string missing": (late(None, "a"), "string"),
    "string hardly there": (late("a", None), "string"),
    "category": (late("나", "가"), "category"),
    "category missing": (late(None, "가"), "category"),
    "category hardly there": (late("가", None), "category"),
    "category of integers": (late(2, 1), "category"),
    "category of integers missing": (late(None, 1), "category"),
    "category of bool": (late(True, False), "category"),
    "category of mixed": (late("a", 1), "category"),
    "category of dates": (SEOUL, "category"),
    "category of many": ([f"c{place}" for place in range(N)], "category"),
    "category of many integers missing": ([None, *range(N - 1)], "category"),
    "sparse": (pd.arrays.SparseArray([False] * N), None),
    "text": (late("b", "a"), object),
    "text missing": (late(None, "a"), object),
    "text NaN": (late(np.nan, "a"), object),
    "text NA": (late(pd.NA, "a"), object),
    "text and number": (late(1, "a"), object),
    "text of another class": (late(Text("b"), Text("a")), object),
    "bytes": (late(b"\xff\x00", b"a"), object),
    "bytes missing": (late(None, b"a"), object),
    "bytearray": (late(bytearray(b"b"), bytearray(b"a")), object),
    "integers": (late(2, 1), object),
    "integers missing": (late(None, 1), object),
    "integer of 64 bits": (late(2**63, 1), object),
    "integer of 64 bits and negative": (late(2**63, -1), object),
    "integer of 80 bits": (late(2**80, 1), object),
    "integers and floats": (late(1.5, 1), object),
    "floats missing": (late(None, 1.5), object),
    "bool missing": (late(None, True), object),
    "bool and number": (late(1, True), object),
    "nothing": ([None] * N, object),
    "NaN": ([np.nan] * N, object),
    "date": (late(dt.date(2025, 11, 1), dt.date(2025, 11, 2)), object),
    "datetime": (late(dt.datetime(2025, 11, 1), dt.datetime(2025, 11, 2)), object),
    "datetime UTC": ([dt.datetime(2025, 11, 1, tzinfo=UTC)] * N, object),
    "date and datetime": (late(dt.datetime(2025, 11, 1), dt.date(2025, 11, 2)), object),
    "Timestamp": (late(pd.NaT, pd.Timestamp("2025-11-01")), object),
    "Timestamp zones": (
        late(pd.Timestamp("2025-11-01", tz="Asia/Seoul"), pd.Timestamp("2025-11-01")),
        object,
    ),
    "Period": ([pd.Period("2025-11")] * N, object),
    "datetime64": ([np.datetime64("2025-11-01")] * N, object),
    "numpy numbers": (late(np.float32(1.0), np.float64(1.0)), object),
    "numpy float32 NaN": (late(np.float32("nan"), np.float32(1.0)), object),
    "numpy text": ([np.str_("a")] * N, object),
    "lists": (late([1, 2, 3], [1]), object),
    "lists missing": (late(None, [1.0]), object),
    "lists with None": (late([None, "a"], ["a"]), object),
    "lists empty": (late([], ["a"]), object),
    "lists of lists": (late([[None]], [[1.5, 2.5]]), object),
    "lists that differ": (late(["a"], [1]), object),
    "arrays": (late(np.array([1.0, np.nan]), np.zeros(3)), object),
    "arrays of rows": (late(np.zeros((1, 2)), np.zeros((3, 2))), object),
    "arrays of objects": (late(np.array([None, "a"], object), np.array(["a"], object)), object),
    "dicts": (late({"a": 1}, {"a": 2, "b": "x"}), object),
    "dicts with another key": (late({"c": [1.5]}, {"a": 2, "b": "x"}), object),
    "dicts with None": (late({"a": None, "b": "y"}, {"a": 2, "b": "x"}), object),
    "dicts missing": (late(None, {"a": 1}), object),
    "dicts empty": (late({}, {"a": 1}), object),
    "tuples": ([(1, 2)] * N, object),
    "things": ([object()] * N, object),
}
FRAMES = {
    "plain": column(np.arange(N), "i4"),
    "numbered columns": pd.DataFrame(np.zeros((N, 3))),
    "numbered by hand": pd.DataFrame(np.zeros((N, 2)), columns=[7, 3]),
    "odd names": pd.DataFrame(np.zeros((N, 2)), columns=["a", 1]),
    "two levels": pd.DataFrame(
        np.zeros((N, 2)), columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)])
    ),
    "tuples as names": pd.DataFrame(
        np.zeros((N, 2)), columns=pd.Index([("a", 1), "b"], tupleize_cols=False)
    ),
    "twin columns": pd.DataFrame(np.zeros((N, 2)), columns=["a", "a"]),
    "dates as names": pd.DataFrame(np.zeros((N, 1)), columns=pd.to_datetime(["2025-11-01"])),
    "empty": pd.DataFrame(),
    "no columns": pd.DataFrame(index=range(4)),
    "no rows": column([], "f8"),
    "no rows of objects": column([]),
    "no rows of a category": column([], "category"),
    "one row": column([1], "Int64"),
} | {f"column of {name}": column(*given) for name, given in COLUMNS.items()}
OTHERS = {
    "tensor": np.zeros((N, 3, 2), "f4", order="F"),
    "row of numbers": np.zeros(N),
    "no dimension": np.array(1.5),
    "no rows": np.zeros((0, 3)),
    "structured": np.zeros(N, [("a", "i4"), ("b", "f8", (2,))]),
    "masked": np.ma.array(np.arange(6.0), mask=[0, 0, 1, 0, 0, 0]),
    "not finite": np.array([[np.nan, np.inf], [1.0, -np.inf]]),
    "objects": np.array([[1, "a"], [None, {"b": 2}]], dtype=object),
    "csr": sparse.csr_matrix(np.eye(N, 7)),
    "csc": sparse.csc_matrix(np.eye(N, 7, dtype="i4")),
    "csr without rows": sparse.csr_matrix((0, 3)),
    "csr with NaN": sparse.csr_matrix([[np.nan, 0.0]]),
    "coo": sparse.coo_matrix(np.eye(3)),
    "series": pd.Series(np.arange(N) / 2),
    "series named": pd.Series(np.arange(N), name="n"),
    "series numbered": pd.Series(np.arange(N), name=3),
    "series missing": pd.Series(late(np.nan, 1.5)),
    "series named missing": pd.Series(late(np.nan, 1.5), name="n"),
    "series of text": pd.Series(late("b", "a"), name="label"),
    "series of categories": pd.Series(late("b", "a"), dtype="category"),
    "dict of arrays": {"a": np.zeros((N, 2)), "b": np.array(["x"] * N)},
    "dict of scalars": {"a": 1, "b": "x", "c": 1.5, "d": True, "e": b"1", "f": None},
    "dict of lists": {"a": late(None, 1), "b": ["x"] * N, "c": [[1.0]], "d": [], "e": [None]},
    "dict of dicts": {"a": {"b": [{"c": 1}, {"d": dt.datetime(2025, 11, 1)}]}},
    "dict of this and that": {"a": np.zeros(3), "b": [1]},
    "dict of series": {"a": pd.Series([1])},
    "dict by number": {1: 2},
    "dict empty": {},
    "list of dicts": late({"a": 1}, {"a": 2, "b": "x"}),
    "list of dicts with None": late({"a": None, "b": "y"}, {"a": 2, "b": "x"}),
    "list of dicts with NaN": late({"a": np.nan}, {"a": 1.5}),
    "list of dicts that differ": late({"a": "x"}, {"a": 1}),
    "list of dicts of dicts": late({"m": {"y": [1]}}, {"m": {"x": 1}}),
    "list of dicts of many forms": [
        {f"k{bit}": n for bit in range(10) if n >> bit & 1} for n in range(1024)
    ],
    "list of empty dicts": [{}] * 9,
    "list of lists": [[1.0, 2.0]] * N,
    "list of lists with None": late([None, 2.0], [1.0, 2.0]),
    "list of mixed lists": [[1, 2.0]] * N,
    "list of text": late("b", "a"),
    "list of text and None": late(None, "a"),
    "list of integers": late(2**70, 1),
    "list of bytes": [b"\xff"] * N,
    "list of arrays": [np.zeros(3)] * N,
    "list of numpy numbers": [np.float32(1.0)] * N,
    "list of dates": [dt.date(2025, 11, 1)] * N,
    "list of NA": late(pd.NA, 1.5),
    "list of tuples": [(1, 2)] * N,
    "list of None": [None] * 7,
    "list empty": [],
    "text": "some text",
    "bytes": b"\xff\x00",
    "integer": 3,
    "large integer": 2**70,
    "float": 1.5,
    "NaN": float("nan"),
    "bool": True,
    "datetime": dt.datetime(2025, 11, 1, 12, tzinfo=UTC),
    "date": dt.date(2025, 11, 1),
    "datetime64": np.datetime64("2025-11-01"),
    "Timestamp": pd.Timestamp("2025-11-01", tz="Asia/Seoul"),
    "Period": pd.Period("2025-11"),
    "numpy number": np.float32(1.5),
    "NA": pd.NA,
    "thing": object(),
    "tuple": ([[1.0]], {"predict_method": "predict"}),
}
FORMS: dict[str, Any] = (
    {f"array of {dtype}": np.zeros((N, 2), dtype) for dtype in DTYPES}
    | {f"frame: {name}": frame for name, frame in FRAMES.items()}
    | OTHERS
)


def live_schema(value: Any) -> dict[str, Any] | None:
    """Return what MLflow infers from a live object, ``None`` where it knows or can write none."""
    schema = infer_signature(value).inputs
    if schema is None or ([s.name for s in schema.inputs], schema.input_types()) == (
        [None],
        [AnyType()],
    ):
        return None
    written = ModelSignature(schema).to_dict()
    try:
        ModelSignature.from_dict(written)
    except TypeError:  # MLflow writes the name of a structured dtype, and cannot read it
        return None
    return written


class Echo:
    """A model that answers with what it was made with."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def predict(self, _: Any) -> Any:
        return self.answer


def record_with(example: dict[str, Any] | None, **changes: Any) -> Record[SavePayload]:
    """Return a record, as it is read from its file."""
    description = Description(model_type="Echo", example=example, **changes)
    return parse(render(save_record(description)))


def built(record: Record[SavePayload]) -> tuple[ModelSignature, Any]:
    signature, example = signatures.recorded(record)
    ModelSignature.from_dict(signature.to_dict())
    return signature, example


def expected_schema(value: Any) -> dict[str, Any] | None:
    try:
        return live_schema(value)
    except TypeError:  # a name of a column that JSON cannot write
        return None


@pytest.mark.parametrize("name", FORMS)
def test_a_recorded_example_gives_the_schema_that_the_live_one_gives(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = expected_schema(FORMS[name])
    caplog.set_level(logging.INFO, "lotto_mlflow")
    recorded = examples.recorded(Echo(np.zeros(N)), FORMS[name])
    signature, example = built(record_with(recorded))
    found = signature.to_dict()
    lines = [r for r in caplog.records if r.name == "lotto_mlflow"]
    if expected is None:
        assert (signature, example) == (signatures.parameter_only(), None)
        assert [line.levelno for line in lines] == [logging.INFO]
    else:
        assert found["inputs"] == expected["inputs"]
        assert json.loads(found["outputs"])[0]["tensor-spec"]["shape"] == [-1]
        assert signature.params == signatures.parameter_only().params
        assert not lines


@pytest.mark.parametrize("name", FORMS)
def test_a_recorded_answer_gives_the_schema_that_the_live_one_gives(name: str) -> None:
    expected = expected_schema(FORMS[name])
    recorded = examples.recorded(Echo(FORMS[name]), np.zeros((3, 2)))
    signature, example = built(record_with(recorded))
    assert signature.to_dict()["outputs"] == (expected and expected["inputs"])
    assert np.array_equal(example, np.zeros((3, 2)))


def rebuilt_schema(found: dict[str, Any]) -> dict[str, Any]:
    value = rebuilding.of_all_rows(json.loads(json.dumps(found, allow_nan=False)))
    return ModelSignature(signatures.inferred_schema(value)).to_dict()


@pytest.mark.parametrize("name", FORMS)
def test_the_schema_does_not_need_the_first_rows(name: str) -> None:
    """A data set is recorded without any, and an example whose rows are too large."""
    expected = expected_schema(FORMS[name])
    if expected is None:
        with pytest.raises((TypeError, ValueError)):
            rebuilt_schema(facts.of(FORMS[name], None))
        return
    found = facts.of(FORMS[name], None)
    assert rebuilt_schema(found) == expected
    assert rebuilding.first_rows(found) is None


KEPT = [
    *(f"array of {dtype}" for dtype in DTYPES if dtype not in ("c8", "c16")),
    *(f"frame: {name}" for name in FRAMES if name not in ("no columns", "dates as names")),
    *("tensor", "row of numbers", "no rows", "not finite", "objects", "csr", "csc", "csr with NaN"),
    *("series", "series named missing", "dict of arrays", "dict of scalars", "dict of dicts"),
    *("list of dicts", "list of lists", "list of text", "list of bytes", "text", "bytes", "date"),
    *("large integer", "datetime", "datetime64", "Timestamp", "Period", "numpy number"),
]
CUT = ("category of many", "category of many integers missing", "category of dates")
NOT_KEPT = {f"frame: column of {name}" for name in ("interval", "things", *CUT)}


@pytest.mark.parametrize("name", [name for name in KEPT if name not in NOT_KEPT])
def test_the_first_rows_come_back_as_they_were_given(name: str) -> None:
    given = FORMS[name]
    record = record_with(examples.recorded(Echo(None), given))
    found = rebuilding.first_rows(record.payload.description.example["input"])
    assert type(found) is type(given)
    if isinstance(given, pd.DataFrame):
        pd.testing.assert_frame_equal(found, given[:5])
    elif isinstance(given, pd.Series):
        pd.testing.assert_series_equal(found, given[:5])
    elif isinstance(given, np.ndarray):
        np.testing.assert_equal(found, given[:5])
        assert found.dtype == given.dtype
    elif sparse.issparse(given):
        np.testing.assert_equal(found.toarray(), given[:5].toarray())
        assert found.dtype == given.dtype
    elif name == "dict of arrays":
        assert {key: array.tolist() for key, array in found.items()} == {
            key: array[:5].tolist() for key, array in given.items()
        }
    else:
        assert found == (given[:5] if isinstance(given, list) else given)


def test_of_many_categories_the_first_rows_keep_theirs() -> None:
    given = FORMS["frame: column of category of many"]
    found = rebuilding.first_rows(facts.of(given))
    assert found["x"].tolist() == given["x"][:5].tolist()
    assert found["x"].cat.categories.tolist() == ["c0", "c1", "c2", "c3", "c4"]


@pytest.mark.parametrize(
    "large",
    [
        np.zeros((300_000, 20)),
        pd.DataFrame({"x": np.zeros(300_000), "y": ["some text"] * 300_000}),
        pd.DataFrame({"x": pd.Series(["a", None] * 150_000, dtype=object)}),
        pd.Series([f"c{n}" for n in range(300_000)], dtype="category"),
        sparse.csr_matrix((300_000, 50)),
        [[1.0, 2.0]] * 100_000,
        [{"a": 1, "b": "x"}] * 100_000,
        {"a": [1.5] * 100_000},
        "x" * 10**7,
        np.array(["x" * 10**6]),
    ],
    ids=["array", "frame", "objects", "category", "csr", "lists", "dicts", "dict", "text", "texts"],
)
def test_of_a_large_example_only_its_first_rows_are_kept(large: Any) -> None:
    assert len(json.dumps(facts.of(large))) < 2_000_000


def test_rows_that_are_too_large_are_left_out_and_the_schema_stays() -> None:
    large = [["x" * 2**20] * 5] * 6
    found = facts.of(large)
    assert len(json.dumps(found)) < 1_000
    assert (found["rows"], rebuilt_schema(found)) == (None, live_schema(large))


def test_values_of_later_rows_are_not_recorded() -> None:
    """What tells their type stands for them: an example is a few rows, and no copy of the data."""
    frame = column(late("a secret", None), object).assign(c=pd.Series(late("hidden", 1)))
    frame["s"] = pd.Series(late("quiet", None), dtype="string")
    kept = json.dumps([facts.of(frame), facts.of(frame, None), facts.of(frame.x.tolist())])
    assert not [word for word in ("secret", "hidden", "quiet") if word in kept]


def test_half_characters_harm_neither_save_nor_push() -> None:
    for given in (["\ud800"] * 9, column(["\ud800"] * 9), {"\ud800": 1}, "\ud800"):
        record = record_with(examples.recorded(Echo(np.array(["\ud800"])), given))
        assert built(record)[0].params is not None


class Cell:
    """A thing that no schema knows, nested in itself."""


def endless() -> list[Any]:
    inside: list[Any] = []
    inside.append(inside)
    return inside


@pytest.mark.parametrize(
    "given", [[Cell()], {"a": Cell()}, column([Cell()] * 3), endless(), [endless()], {1: endless()}]
)
def test_what_has_no_plain_form_is_told_of_in_one_line(
    given: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lotto_mlflow")
    assert examples.recorded(Echo(np.zeros(3)), given) is None
    (line,) = caplog.records
    assert (line.levelno, line.name) == (logging.INFO, "lotto_mlflow")
    assert "input_example cannot be recorded" in line.getMessage()


def test_an_answer_without_plain_form_leaves_the_inputs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lotto_mlflow")
    recorded = examples.recorded(Echo(Cell()), np.zeros((3, 2)))
    signature, _ = built(record_with(recorded))
    assert (signature.inputs is None, signature.outputs) == (False, None)
    assert len(caplog.records) == 1


ODD: tuple[Any, ...] = (
    *(None, [], {}, "text", "", -1, 0, 2**40, 2**70, True, 1.5, 1e300, [[]], [None], {"kind": 1}),
    *({"kind": "int", "value": "zz"}, {"kind": "bytes", "value": "?"}, [{"kind": "array"}]),
    *("V999999999", "U99999999", "i8,O", "(9999,9999)i8", "../../etc/passwd", [2**40, 2**40]),
    {"kind": "zoned", "unit": "ns", "zone": "dateutil//etc/passwd"},
    {"kind": "extension", "name": "datetime64[ns, dateutil//etc/passwd]"},
    {"kind": "category", "ordered": 1, "type": "O", "categories": [[]]},
)


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container in a value with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places_in(value[key])


HOSTILE = [
    *("frame: column of zone", "frame: column of category", "frame: column of dicts with None"),
    *("frame: column of Int64 missing", "frame: column of arrays", "frame: two levels", "csc"),
    *("tensor", "structured", "objects", "dict of arrays", "dict of scalars", "list of dicts"),
    *("series named missing", "Timestamp", "Period", "datetime64"),
]


# before pandas 3, said on stderr of a time that no zone can show
@pytest.mark.filterwarnings("ignore:Exception ignored in. 'pandas")
@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_stands_in_a_recorded_example_a_push_has_a_signature(name: str) -> None:
    recorded = facts.of(FORMS[name])
    for place in range(sum(1 for _ in places_in(recorded))):
        for odd in ODD:
            changed = copy.deepcopy(recorded)
            inside, key = list(places_in(changed))[place]
            inside[key] = odd
            if isinstance(changed.get("kind"), str):
                built(record_with({"input": changed, "output": changed}))


@pytest.mark.parametrize(
    "hostile",
    [
        {"kind": "array", "rows": 5, "shape": [5, 2**30, 0], "dtype": "f8", "values": []},
        {"kind": "array", "rows": 1, "shape": [1], "dtype": "U9999999", "values": ["a"]},
        {"kind": "csc", "rows": 1, "shape": [1, 2**40], "dtype": "f8"}
        | {"row": [0], "column": [0], "values": [1.0]},
        {"kind": "frame", "rows": 2**40, "shape": [2**40, 0], "levels": 1, "columns": []},
        {"kind": "frame", "rows": 1, "shape": [1, 1], "levels": 1}
        | {
            "columns": [
                {"name": name, "dtype": "f8", "values": [1.0] * (20_000 if name == 1 else 1)}
                for name in range(2_000)
            ]
        },
    ],
    ids=["empty rows", "wide text", "wide matrix", "endless index", "large frame"],
)
def test_what_would_fill_the_memory_is_not_built(hostile: dict[str, Any]) -> None:
    assert built(record_with({"input": hostile, "output": None}))[1] is None


def test_a_data_set_is_described_as_mlflow_describes_the_live_one() -> None:
    for name, given in FORMS.items():
        if isinstance(given, np.ndarray) and given.ndim:
            live = mlflow.data.from_numpy(given, name="d", digest="0").to_dict()
        elif isinstance(given, pd.DataFrame):
            named = given
            if name != "frame: two levels":
                named = given.set_axis([str(column) for column in given.columns], axis=1)
            live = mlflow.data.from_pandas(named, name="d", digest="0").to_dict()
        else:
            continue
        (kept,) = datasets.recorded({"train": given}, {"mlflow.source.name": "x.py"})
        (found,) = data.dataset_inputs([json.loads(json.dumps(kept))])
        assert (found.dataset.schema, found.dataset.profile) == (live["schema"], live["profile"]), (
            name
        )
