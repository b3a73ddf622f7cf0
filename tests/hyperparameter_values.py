"""Hyperparameters of all kinds: pairs that differ in one place, and pairs that are equal."""

from __future__ import annotations

import enum
import json
import random
import re
import subprocess
import sys
from collections import Counter, OrderedDict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse, stats
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.compose import make_column_selector
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

Point = namedtuple("Point", "x y")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Holder(BaseEstimator):
    """An estimator with one hyperparameter."""

    def __init__(self, value: Any = None) -> None:
        self.value = value


@dataclass
class Step:
    rows: Any
    secret: str = field(default="password", repr=False)


class Vocabulary:
    """A class whose text has a set in it, in the order of this process."""

    def __init__(self, *words: str) -> None:
        self.words = set(words)

    def __repr__(self) -> str:
        return f"Vocabulary({self.words})"


def scale(rows: Any) -> Any:
    return rows


def grid(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(float(np.prod(shape))).reshape(shape)


def but(value: Any, cell: Any, content: Any) -> Any:
    """Return a copy of an array in which one cell is another."""
    copy = value.copy()
    copy[cell] = content
    return copy


def frame(**changes: Any) -> pd.DataFrame:
    values = {"a": np.arange(2_000), "b": ["글"] * 2_000, "c": [None, (1, 2)] * 1_000} | changes
    return pd.DataFrame(values)


def masked(under: float, masks: int = 7) -> Any:
    values = but(grid(50, 50), (0, masks), under)
    mask = np.zeros((50, 50), bool)
    mask[0, masks] = True
    return np.ma.MaskedArray(values, mask)


def records(tail: float) -> Any:
    kind = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    made = np.empty(100, kind)
    made["a"], made["b"] = 1, 2.0
    made["b"][-1] = tail
    return made


WORDS = [f"word {number}" for number in range(3_000)]
BIG = grid(200, 30)
RANDOM = sparse.random(80, 90, density=0.1, format="csr", random_state=1)

DIFFERENT: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "array": (lambda: BIG, lambda: but(BIG, (150, 17), 0.5)),
    "last bit": (lambda: BIG, lambda: but(BIG, (1, 1), np.nextafter(31.0, 99))),
    "small array": (lambda: np.array([0.3, 0.7]), lambda: np.array([0.3, 0.7 + 1e-12])),
    "dtype": (lambda: np.zeros(99), lambda: np.zeros(99, "f4")),
    "shape": (lambda: np.zeros((9, 4)), lambda: np.zeros((4, 9))),
    "0-d": (lambda: np.array(1.5), lambda: np.array(2.5)),
    "objects": (
        lambda: np.array([*WORDS, None], object),
        lambda: np.array([*WORDS[:-1], "x", None], object),
    ),
    "dates": (lambda: np.arange(999).astype("M8[D]"), lambda: np.arange(1, 1_000).astype("M8[D]")),
    "structured": (lambda: records(2.0), lambda: records(2.5)),
    "long double": (
        lambda: np.ones(99, np.longdouble),
        lambda: but(np.ones(99, np.longdouble), 50, 2),
    ),
    "masked": (lambda: masked(0, 7), lambda: masked(0, 8)),
    "matrix": (lambda: np.asmatrix(BIG), lambda: np.asmatrix(but(BIG, (99, 3), -1))),
    "frame": (frame, lambda: frame(a=but(np.arange(2_000), 1_000, -1))),
    "frame's text": (frame, lambda: frame(b=["글"] * 1_999 + ["말"])),
    "frame's objects": (frame, lambda: frame(c=[None, (1, 2)] * 999 + [None, (1, 3)])),
    "frame's column": (frame, lambda: frame().rename(columns={"b": "d"})),
    "frame's index": (frame, lambda: frame().set_index(np.arange(1, 2_001))),
    "frame's dtype": (frame, lambda: frame(a=np.arange(2_000, dtype="i4"))),
    "categories": (
        lambda: pd.Series(pd.Categorical(["a", "b"] * 500)),
        lambda: pd.Series(pd.Categorical(["a", "b"] * 499 + ["a", "a"])),
    ),
    "nullable": (
        lambda: pd.Series([1, None] * 500, dtype="Int64"),
        lambda: pd.Series([1, None] * 499 + [None, 1], dtype="Int64"),
    ),
    "series of lists": (lambda: pd.Series([[1]] * 99), lambda: pd.Series([[1]] * 98 + [[2]])),
    "index": (lambda: pd.Index(WORDS), lambda: pd.Index([*WORDS[:-1], "x"])),
    "levels": (
        lambda: pd.Series(range(4), pd.MultiIndex.from_product([[0, 1], ["a", "b"]])),
        lambda: pd.Series(range(4), pd.MultiIndex.from_product([[0, 1], ["a", "c"]])),
    ),
    "sparse": (lambda: RANDOM, lambda: but(RANDOM.tolil(), (3, 4), 0.5).tocsr()),
    "sparse shape": (lambda: sparse.csr_matrix((9, 4)), lambda: sparse.csr_matrix((4, 9))),
    "long list": (lambda: WORDS, lambda: [*WORDS[:1_500], "x", *WORDS[1_501:]]),
    "long list of lists": (
        lambda: [[n] for n in range(2_000)],
        lambda: [[n] for n in range(1, 2_001)],
    ),
    "long dict": (
        lambda: dict.fromkeys(WORDS, 1),
        lambda: dict.fromkeys(WORDS, 1) | {WORDS[99]: 2},
    ),
    "long set": (lambda: set(WORDS), lambda: {*WORDS[1:], "x"}),
    "long text": (lambda: "a" * 50_000, lambda: "a" * 49_999 + "b"),
    "long bytes": (lambda: b"a" * 50_000, lambda: b"a" * 49_999 + b"b"),
    "dict of arrays": (
        lambda: {"a": {"weights": BIG}},
        lambda: {"a": {"weights": but(BIG, (9, 9), 0)}},
    ),
    "tuple of arrays": (lambda: (1, [BIG]), lambda: (1, [but(BIG, (9, 9), 0)])),
    "partial": (lambda: partial(scale, rows=BIG), lambda: partial(scale, rows=but(BIG, (9, 9), 0))),
    "dataclass": (lambda: Step(BIG), lambda: Step(but(BIG, (9, 9), 0))),
    "estimators in a list": (
        lambda: [LogisticRegression(C=0.5)],
        lambda: [LogisticRegression(C=0.25)],
    ),
    "estimators in a dict": (
        lambda: {"a": make_pipeline(StandardScaler(), KMeans(3))},
        lambda: {"a": make_pipeline(StandardScaler(), KMeans(4))},
    ),
    "array of an estimator in a list": (
        lambda: [KMeans(3, init=BIG)],
        lambda: [KMeans(3, init=but(BIG, (9, 9), 0))],
    ),
    "kernels": (lambda: [RBF(1.0)], lambda: [RBF(2.0)]),
    "distribution": (lambda: stats.uniform(0, 1), lambda: stats.uniform(0, 2)),
    "splitter": (lambda: KFold(3), lambda: KFold(4)),
    "splitter with an array": (
        lambda: PredefinedSplit(np.zeros(5_000)),
        lambda: PredefinedSplit(but(np.zeros(5_000), 2_500, 1)),
    ),
    "selector": (
        lambda: make_column_selector("a", dtype_include=np.number),
        lambda: make_column_selector("b", dtype_include=np.number),
    ),
    "random state": (lambda: np.random.RandomState(1), lambda: np.random.RandomState(2)),
    "generator": (lambda: np.random.default_rng(1), lambda: np.random.default_rng(2)),
    "random": (lambda: random.Random(1), lambda: random.Random(2)),
    "pattern": (lambda: re.compile("a" * 500), lambda: re.compile("a" * 499 + "b")),
    "words of a class": (lambda: Vocabulary("a", "b"), lambda: Vocabulary("a", "c")),
    "enum": (lambda: Colour.RED, lambda: Colour.BLUE),
    "integer": (lambda: 10**9_000, lambda: 10**9_000 + 1),
}
EQUAL: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "order in memory": (lambda: BIG, lambda: np.asfortranarray(BIG)),
    "strides": (lambda: BIG, lambda: np.repeat(BIG, 2, axis=1)[:, ::2]),
    "order of bytes": (lambda: BIG, lambda: BIG.astype(">f8")),
    "zeros": (lambda: np.zeros(99), lambda: -np.zeros(99)),
    "nan": (lambda: np.full(99, np.nan), lambda: -np.full(99, np.nan)),
    "complex": (lambda: np.zeros(99, complex), lambda: -np.zeros(99, complex)),
    "under the mask": (lambda: masked(1.0), lambda: masked(2.0)),
    "between fields": (lambda: records(2.0), lambda: records(2.0).copy()),
    "blocks of a frame": (
        lambda: pd.DataFrame(BIG),
        lambda: pd.DataFrame({number: BIG[:, number] for number in range(30)}),
    ),
    "index of a range": (lambda: pd.Series(BIG[0]), lambda: pd.Series(BIG[0], list(range(30)))),
    "formats": (lambda: RANDOM, RANDOM.tocsc),
    "stored zeros": (
        lambda: sparse.csr_matrix(np.eye(9)),
        lambda: sparse.coo_matrix(([1.0] * 9 + [0.0], ([*range(9), 0], [*range(9), 5])), (9, 9)),
    ),
    "order of a dict": (lambda: {"a": 1, "b": 2}, lambda: {"b": 2, "a": 1}),
    "order of a long dict": (
        lambda: dict.fromkeys(WORDS, 1),
        lambda: dict.fromkeys(reversed(WORDS), 1),
    ),
    "mappings": (lambda: {"a": 1}, lambda: OrderedDict(Counter("a"))),
    "sets": (lambda: {1, 2, frozenset("ab")}, lambda: {frozenset("ba"), 2, 1}),
    "scalars": (lambda: [0.5, 3], lambda: [np.float64(0.5), np.int64(3)]),
}
STABLE: dict[str, Callable[[], Any]] = {
    **{f"{name} {side}": pair[side] for name, pair in DIFFERENT.items() for side in (0, 1)},
    **{f"equal {name} {side}": pair[side] for name, pair in EQUAL.items() for side in (0, 1)},
    "lambda": lambda: lambda row: row,
    "transformer": lambda: FunctionTransformer(lambda rows: rows),
    "set of texts": lambda: {"a", "b", "c", "글", "말"},
    "set of pairs": lambda: {("a", 1), ("b", 2), ("c", None)},
    "keys": lambda: {"a": 1}.keys(),
    "deque": lambda: deque([scale, len, np.log1p, str.upper]),
    "named": lambda: Point(1, {"x", "y", "z"}),
    "level": lambda: [Level.HIGH],
    "path": lambda: Path("a"),
    "types": lambda: [np.dtype("f4"), np.float32, pd.CategoricalDtype(["a"]), int, list[int]],
    "stamp": lambda: [pd.Timestamp(0), pd.NA, pd.NaT, np.datetime64(0, "s"), np.str_("a")],
}


def texts() -> dict[str, str]:
    """Return the text of every value here."""
    from lotto_mlflow import hyperparameters

    return {name: hyperparameters.of(Holder(make()))["value"] for name, make in STABLE.items()}


def texts_in_another_process(seed: str) -> dict[str, str]:
    code = "import json, hyperparameter_values as h; print(json.dumps(h.texts()))"
    environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))}
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    found: dict[str, str] = json.loads(answer.stdout)
    return found
