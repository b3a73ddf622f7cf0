"""Hyperparameters can be compared: different ones look different, equal ones equal, anywhere."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hyperparameter_values import DIFFERENT, EQUAL, Holder, texts, texts_in_another_process
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_selector
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from lotto_mlflow import ModelManager, hyperparameters

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
MAX_CHARACTERS = 6_000


class Undeep:
    """An estimator of one's own, whose ``get_params`` takes no argument."""

    def __init__(self, alpha: float = 0.5, inner: Any = None) -> None:
        self.alpha, self.inner = alpha, inner

    def get_params(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "inner": self.inner}

    def fit(self, *_: Any) -> Undeep:
        return self


class Forgetful(BaseEstimator):
    """An estimator that keeps one argument under another name, so that scikit-learn raises."""

    def __init__(self, alpha: float = 0.5, beta: float = 1.0) -> None:
        self.alpha, self._beta = alpha, beta


class Silent:
    """A value whose text raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Endless(Silent):
    """A value that raises whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError(name)


class Wordy:
    def __repr__(self) -> str:
        return "w" * 10_000_000


def shown(value: Any) -> str:
    return hyperparameters.of(Holder(value))["value"]


@pytest.mark.parametrize("name", DIFFERENT)
def test_values_that_differ_in_one_place_look_different(name: str) -> None:
    one, other = (shown(make()) for make in DIFFERENT[name])
    assert one != other
    assert max(len(one), len(other)) < MAX_CHARACTERS


@pytest.mark.parametrize("name", EQUAL)
def test_equal_values_look_equal(name: str) -> None:
    one, other = (shown(make()) for make in EQUAL[name])
    assert one == other


def test_a_table_shows_shape_dtype_and_digest_and_a_short_one_its_values() -> None:
    assert re.fullmatch(
        r"array\(shape=\(6, 5\), dtype=float32, digest=[0-9a-f]{8}\)",
        shown(np.ones((6, 5), "f4")),
    )
    assert shown(np.array([0.3, 0.7])).startswith("array([0.3, 0.7], shape=(2,), dtype=float64, ")


def test_an_object_without_a_text_of_its_own_is_told_by_what_it_was_made_with() -> None:
    selector = make_column_selector("^a", dtype_include=np.number)
    assert shown(selector) == "make_column_selector(pattern='^a', dtype_include=number)"
    assert shown(make_column_selector()) == "make_column_selector"


def test_every_value_has_the_same_text_in_every_process() -> None:
    here = texts()
    assert here == texts_in_another_process("1") == texts_in_another_process("2")
    assert [text for text in here.values() if ADDRESS.search(text)] == []


def test_an_estimator_that_takes_no_deep_gives_its_hyperparameters_and_those_inside() -> None:
    found = hyperparameters.of(Undeep(0.25, Undeep(0.75, StandardScaler())))
    assert found["alpha"] == "0.25"
    assert found["inner"] == "Undeep"
    assert found["inner__alpha"] == "0.75"
    assert found["inner__inner"] == "StandardScaler"
    assert found["inner__inner__with_mean"] == "True"


@pytest.mark.parametrize("odd", [Undeep(), Forgetful()], ids=["no deep", "raises"])
def test_a_part_that_cannot_be_asked_as_others_can_costs_the_others_nothing(odd: Any) -> None:
    inner = Pipeline([("scale", StandardScaler()), ("odd", odd), ("fit", LogisticRegression(C=2))])
    for model, prefix in (
        (inner, ""),
        (GridSearchCV(inner, {"fit__C": [1]}), "estimator__"),
        (VotingClassifier([("a", inner), ("b", LogisticRegression())]), "a__"),
    ):
        found = hyperparameters.of(model)
        assert found[f"{prefix}fit__C"] == "2"
        assert found[f"{prefix}scale__with_std"] == "True"
        assert found[f"{prefix}odd"] == type(odd).__name__
        assert found[f"{prefix}odd__alpha"] == "0.5"


def test_what_scikit_learn_says_of_a_nested_estimator_is_what_is_kept() -> None:
    model = GridSearchCV(
        Pipeline([("scale", StandardScaler()), ("fit", LogisticRegression())]), {"fit__C": [1]}
    )
    assert hyperparameters.of(model).keys() == model.get_params(deep=True).keys()


def test_a_missing_hyperparameter_is_said_and_the_others_are_kept(caplog: Any) -> None:
    assert hyperparameters.of(Forgetful(0.25)) == {"alpha": "0.25"}
    (message,) = [record.getMessage() for record in caplog.records]
    assert "Forgetful gives no hyperparameters (AttributeError" in message
    assert message.endswith("are kept: alpha")


def _circle(kind: type) -> Any:
    circle: Any = kind()
    circle.append(circle) if kind is list else circle.update(a=1, self={"b": circle})
    return circle


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Silent, "Silent"),
        (Endless, "Endless"),
        (lambda: [1, Silent()], "[1, Silent]"),
        (lambda: {"a": Endless(), "b": 2}, "{'a': Endless, 'b': 2}"),
        (lambda: _circle(list), "list"),
        (lambda: _circle(dict), "dict"),
        (lambda: {"a": _circle(list), "b": 2}, "{'a': list, 'b': 2}"),
    ],
    ids=["raises", "raises always", "in a list", "in a dict", "list", "dict", "circle in a dict"],
)
def test_what_raises_or_contains_itself_is_told_by_its_class(make: Any, expected: str) -> None:
    class Two(BaseEstimator):
        def __init__(self, other: Any, value: Any) -> None:
            self.other, self.value = other, value

    assert hyperparameters.of(Two(0.5, make())) == {"other": "0.5", "value": expected}


def test_an_object_array_and_an_estimator_that_contain_themselves_are_told() -> None:
    array = np.empty(1, object)
    array[0] = array
    assert shown(array) == "ndarray"
    first, second = Undeep(0.25), Undeep(0.75)
    first.inner, second.inner = second, first
    found = hyperparameters.of(first)
    assert (found["alpha"], found["inner__alpha"], found["inner__inner"]) == (
        *("0.25", "0.75"),
        "Undeep",
    )


def test_what_is_endless_or_nested_without_end_is_cut_off() -> None:
    shared: list[Any] = []
    for _ in range(60):
        shared = [shared, shared]  # 2**60 lists, if each were looked at
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (shared, deep, Wordy(), list(range(3_000_000)), [[n] for n in range(900_000)]):
        assert len(shown(value)) < MAX_CHARACTERS


def test_a_save_of_odd_hyperparameters_keeps_the_others(manager: ModelManager) -> None:
    model = Pipeline([("odd", Holder(np.arange(9_999))), ("fit", LogisticRegression(C=2))])
    manager.save_model(model, "odd", {})
    found = manager.get("odd").params
    assert found["fit__C"] == "2"
    assert found["odd__value"].startswith("array(shape=(9999,), dtype=int64, digest=")
