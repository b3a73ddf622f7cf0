"""What MLflow is told of a model: parameters, metrics, tags and requirements, all of them legal."""

from __future__ import annotations

import functools
import math
import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from sklearn.base import BaseEstimator
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from lotto_mlflow import ModelManager
from lotto_mlflow.description import describe
from lotto_mlflow.mirror import entities
from lotto_mlflow.records import Description

LONG = "k" * 300
ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")


class Holder(BaseEstimator):
    """An estimator of this test module, with one hyperparameter."""

    def __init__(self, value: Any = None) -> None:
        self.value = value


class Reluctant:
    """A model that answers no question but how to pickle it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("not fitted yet")

    def __reduce__(self) -> Any:
        return Reluctant, ()


class Plain:
    pass


def scale(rows: Any) -> Any:
    return rows


@dataclass
class Step:
    function: Any


def told(metadata: dict[str, Any], model: Any = None) -> Description:
    return describe(Plain() if model is None else model, metadata)


def shown(value: Any) -> str:
    return told({}, Holder(value)).params["value"]


def test_a_hyperparameter_beats_a_metadata_key_of_the_same_name(forest: Any) -> None:
    found = told({"n_estimators": 100, "max_depth": "deep", "accuracy": 0.75}, forest)
    assert found.params["n_estimators"] == "5"
    assert found.params["max_depth"] == "3"
    assert found.metrics == {"accuracy": [[0, 0.75]]}


def test_a_number_is_a_metric_and_a_list_of_numbers_one_metric_by_step() -> None:
    found = told({"accuracy": 0.75, "samples": 800, "loss": [0.9, 0.5, 1]})
    assert found.params == {}
    assert found.metrics.pop("loss") == [[0, 0.9], [1, 0.5], [2, 1.0]]
    assert found.metrics == {"accuracy": [[0, 0.75]], "samples": [[0, 800.0]]}


def test_what_is_no_number_is_a_parameter() -> None:
    metadata = {
        "a": True,
        "b": "글",
        "c": None,
        "d": [1, "x"],
        "e": [],
        "f": {},
        "g": [True, False],
    }
    found = told(metadata)
    assert found.metrics == {}
    assert found.params == {
        **{"a": "True", "b": "글", "c": "None", "d": '[1, "x"]', "e": "[]", "f": "{}"},
        "g": "[true, false]",
    }


def test_nested_dicts_flatten_with_dots() -> None:
    found = told({"test": {"정확도": 0.5, "by": {"round": [1, 2]}}, "data": {"source": "csv"}})
    assert found.metrics == {"test.정확도": [[0, 0.5]], "test.by.round": [[0, 1.0], [1, 2.0]]}
    assert found.params == {"data.source": "csv"}


def test_a_number_that_is_not_finite_is_a_tag_and_a_warning(caplog: Any) -> None:
    metadata = {"a": math.nan, "b": [1.0, math.inf, 2.0], "c": -(10**400), "d": 1.0}
    found = told(metadata)
    assert found.metrics == {"b": [[0, 1.0], [2, 2.0]], "d": [[0, 1.0]]}
    assert found.tags["non_finite"] == '{"a": "nan", "b": "inf", "c": "-inf"}'
    assert [r.levelname for r in caplog.records if "not finite" in r.message] == ["WARNING"]


def test_an_estimator_is_shown_by_its_class_name() -> None:
    pipeline = Pipeline([("scale", StandardScaler()), ("classify", LogisticRegression(C=0.5))])
    params = told({}, pipeline).params
    assert params["scale"] == "StandardScaler"
    assert params["steps"] == "[('scale', StandardScaler), ('classify', LogisticRegression)]"
    assert params["classify__C"] == "0.5"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (scale, "scale"),
        (Plain, "Plain"),
        (Holder(1).get_params, "BaseEstimator.get_params"),
        (len, "len"),
        (Plain(), "Plain"),
        ([scale, Holder()], "[scale, Holder]"),
        ({"a": scale}, "{'a': scale}"),
        (KFold(3), "KFold(n_splits=3, random_state=None, shuffle=False)"),
    ],
    ids=["function", "class", "method", "built-in", "object", "list", "dict", "splitter"],
)
def test_a_callable_is_shown_by_its_name_and_an_object_by_its_class(
    value: Any, expected: str
) -> None:
    assert shown(value) == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda: functools.partial(scale, rows=Plain()),
        lambda: {scale},
        lambda: frozenset({Plain()}),
        lambda: deque([scale]),
        lambda: Step(scale),
        lambda: np.array([Plain()], dtype=object),
        lambda: np.random.RandomState(1),
        lambda: [np.random.default_rng(1)],
        lambda: iter([1]),
        lambda: (n for n in range(3)),
        lambda: RBF(2.0),
        lambda: {"nested": [(Plain(), scale)]},
        lambda: {Plain: Plain(), Plain(): 1},
        lambda: lambda row: row,
    ],
    ids=[
        *("partial", "set", "frozenset", "deque", "dataclass", "array", "random state", "rng"),
        *("iterator", "generator", "kernel", "nested", "dict key", "lambda"),
    ],
)
def test_no_parameter_shows_a_memory_address(make: Any) -> None:
    assert not ADDRESS.search(shown(make()))


def test_a_model_that_refuses_to_tell_of_itself_is_described_all_the_same() -> None:
    class Secretive(BaseEstimator):
        def get_params(self, deep: bool = True) -> Any:
            raise RuntimeError("no")

    assert told({"accuracy": 1.0}, Secretive()).metrics == {"accuracy": [[0, 1.0]]}
    assert told({}, Reluctant()).model_type == "Reluctant"


def test_a_parameter_that_utf8_cannot_write_does_not_fail_a_save(
    disk_manager: ModelManager,
) -> None:
    path = disk_manager.save_model(Holder("\udcff"), "odd", {})
    assert disk_manager.load_model(path).value == "\udcff"


LEGAL = ["accuracy", "a b", "a/b", "a-b_c.d", "정확도", "정확도/회차 1", "k" * 250]
ILLEGAL = {
    "characters": ["a=b", "a?b", "a(b)", "a\nb", "🎱", "a,b"],
    "colliding": ["a?b", "a!b", "a_b", "a*b"],
    "too long": [LONG, f"{LONG}x", "회" * 251, "k" * 250],
    "shortened already": [LONG, entities.legal_names([LONG])[LONG]],
    "two dots": [".."],
    "one dot": ["."],
    "dots in front": ["..a", "../a", "a/../b", "./a"],
    "slashes": ["/", "//", "/a", "a/", "a//b"],
    "empty": ["", "_"],
}


def test_a_legal_name_stays() -> None:
    assert entities.legal_names(LEGAL) == {name: name for name in LEGAL}


@pytest.mark.parametrize("names", [LEGAL, *ILLEGAL.values()], ids=["legal", *ILLEGAL])
def test_every_name_becomes_a_distinct_one_that_mlflow_takes(
    manager: ModelManager, base_dir: Path, names: list[str]
) -> None:
    legal = entities.legal_names(names)
    assert len(set(legal.values())) == len(names)
    metadata: dict[str, Any] = {name: f"값 {name}" for name in names}
    manager.save_model(Plain(), "params", metadata)
    manager.save_model(Plain(), "metrics", {name: n for n, name in enumerate(names)})
    by_params, by_metrics = manager.get("params"), manager.get("metrics")
    assert by_params.version == by_metrics.version == 1
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    found = client.get_run(str(by_params.run_id)).data.params
    assert found == {legal[name]: value for name, value in metadata.items()}
    found = client.get_run(str(by_metrics.run_id)).data.metrics
    assert found == {legal[name]: float(n) for n, name in enumerate(names)}


def test_a_long_value_is_shortened_and_still_told_apart(
    manager: ModelManager, base_dir: Path
) -> None:
    metadata = {"a": "가" * 6_000, "b": "가" * 10_000, "c": "가" * 10_001}
    manager.save_model(Plain(), "long", metadata)
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    found = client.get_run(str(manager.get("long").run_id)).data.params
    assert found["a"] == metadata["a"]
    assert len(found["b"]) == len(found["c"]) <= 6_000
    assert found["b"] != found["c"]
    assert found["b"].startswith("가" * 5_900)


def test_a_model_of_a_library_is_described_without_a_warning(caplog: Any, forest: Any) -> None:
    told({"accuracy": 0.75}, forest)
    assert not caplog.records


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"test": {"f1": 0.1}, "test.f1": 0.9}, {"test.f1": 0.9, "test.f1_2": 0.1}),
        ({"test.f1": 0.9, "test": {"f1": 0.1}}, {"test.f1": 0.9, "test.f1_2": 0.1}),
        (
            {"test": {"f1": 0.1}, "test.f1": 0.9, "test.f1_2": 0.8},
            {"test.f1": 0.9, "test.f1_2": 0.8, "test.f1_3": 0.1},
        ),
        (
            {"test": {"f1": 0.1, "f1_2": 0.2}, "test.f1": 0.9},
            {"test.f1": 0.9, "test.f1_2": 0.2, "test.f1_3": 0.1},
        ),
        ({"a": {"b": {"c": 1}, "b.c": 2}}, {"a.b.c": 2, "a.b.c_2": 1}),
        (
            {"a": {"b": {"c": 1}, "b.c": 2}, "a.b": {"c": 3}, "a.b.c": 4},
            {"a.b.c": 4, "a.b.c_2": 2, "a.b.c_3": 3, "a.b.c_4": 1},
        ),
        ({"x.y": {"z": 1}, "x": {"y": 2}}, {"x.y": 2, "x.y.z": 1}),
    ],
    ids=str,
)
@pytest.mark.parametrize("is_metric", [True, False], ids=["metric", "parameter"])
def test_a_name_that_was_given_is_kept_and_a_flattened_one_gets_a_number(
    metadata: dict[str, Any],
    expected: dict[str, int],
    is_metric: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def of_kind(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: of_kind(item) for key, item in value.items()}
        return value if is_metric else f"<{value}>"

    found = describe({}, of_kind(metadata))
    if is_metric:
        assert {name: points[-1][1] for name, points in found.metrics.items()} == expected
    else:
        assert found.params == of_kind(expected)
    is_renamed = "one is kept as" in caplog.text
    assert is_renamed == ("_2" in str(expected))


def test_what_gets_a_number_takes_no_name_of_a_hyperparameter() -> None:
    class Numbered(BaseEstimator):
        def get_params(self, deep: bool = True) -> dict[str, Any]:
            return {"test.f1_2": "own"}

    found = describe(Numbered(), {"test": {"f1": 0.1}, "test.f1": 0.9})
    assert found.metrics == {"test.f1": [[0, 0.9]], "test.f1_3": [[0, 0.1]]}
    assert found.params["test.f1_2"] == "own"


def test_renaming_changes_no_order_of_metrics() -> None:
    found = describe({}, {"c": {"d": 1}, "a": {"b": 2}, "b": 3, "a.b": 4})
    assert list(found.metrics) == ["c.d", "a.b_2", "b", "a.b"]
