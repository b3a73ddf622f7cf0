"""When the travelling loader changes the form of data, and when it does not."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import own_models as own
import pandas as pd
import prediction_cases as cases
import pytest
from mlflow.models import Model
from prediction_cases import AB, ABC, ARRAY, CLASSES, FEW, LABELS, TEXTS
from scipy import sparse
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline

from lotto_mlflow import ModelManager
from lotto_mlflow.pyfunc_loader import Predictor

FORMS: dict[str, Any] = {
    "frame": AB,
    "array": ARRAY,
    "list": ARRAY.tolist(),
    "texts": TEXTS,
    "series": AB.a,
    "dict": {"a": ARRAY[:, 0]},
    "dicts": [{"a": 1}, {"a": np.float32(2)}],
    "csr": sparse.csr_matrix(ARRAY),
    "nullable": AB.convert_dtypes(),
    "missing": AB.astype("Float64").mask(AB.a > 0),
    "categories": cases.CATEGORIES,
}
TEXT_MODELS = {
    "vectorizer": make_pipeline(CountVectorizer(), LogisticRegression()).fit(TEXTS, LABELS),
    "cleaned": make_pipeline(own.Lower(), TfidfVectorizer(), LogisticRegression()).fit(
        TEXTS, LABELS
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_estimator_is_given_the_very_object_once(form: str) -> None:
    model = own.Counting()
    Predictor(model).predict(FORMS[form])
    (given,) = model.asked
    assert given is FORMS[form]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Input X contains NaN"),
        ValueError("columns are missing: c"),
        KeyError("c"),
        AttributeError("'DataFrame' object has no attribute 'c'", name="c", obj=AB),
        AttributeError("of another object", name="reshape", obj=None),
        MemoryError(),
        TypeError("can't multiply sequence by non-int of type 'float'"),
        UserWarning("something else"),
        RuntimeError("no"),
    ],
    ids=repr,
)
def test_an_error_over_a_frame_that_says_nothing_of_its_form_is_the_only_try(
    error: Exception,
) -> None:
    model = own.Counting(error)
    with pytest.raises(type(error)) as raised:
        Predictor(model).predict(AB)
    assert raised.value is error
    assert len(model.asked) == 1


@pytest.mark.parametrize("form", ["frame", "array", "dict", "dicts"])
def test_where_each_form_fails_the_first_error_is_raised(form: str) -> None:
    class Refusing(own.Counting):
        feature_names_in_ = np.array(["a", "b"], dtype=object)

        def predict(self, data: Any) -> Any:
            self.asked.append(data)
            raise TypeError(f"try {len(self.asked)}")

    model = Refusing()
    with pytest.raises(TypeError, match=r"^try 1$"):
        Predictor(model).predict(FORMS[form])
    assert len(model.asked) == (1 if form == "frame" else 2)


def test_columns_in_another_order_are_refused_as_by_the_estimator() -> None:
    model = LogisticRegression().fit(AB, CLASSES)
    with pytest.raises(ValueError, match="same order") as own_error:
        model.predict(AB[["b", "a"]])
    with pytest.raises(ValueError, match="same order") as raised:
        Predictor(model).predict(AB[["b", "a"]])
    assert str(raised.value) == str(own_error.value)


def test_rows_of_dicts_have_no_order() -> None:
    model = LogisticRegression().fit(AB, CLASSES)
    rows = AB[["b", "a"]].to_dict("records")
    assert Predictor(model).predict(rows).tolist() == model.predict(AB).tolist()


@pytest.mark.parametrize("count", [1, 3])
def test_a_dict_is_no_table_with_a_row_for_each_column(count: int) -> None:
    model = DummyClassifier().fit(AB, CLASSES)
    columns = {name: AB[name].to_numpy()[:count] for name in ("b", "a")}
    assert len(Predictor(model).predict(columns)) == count


def test_a_missing_column_is_never_read_by_position() -> None:
    model = own.ByEither()
    assert Predictor(model).predict(ARRAY).tolist() == ARRAY[:, 1].tolist()
    with pytest.raises(KeyError, match="b"):
        Predictor(model).predict(AB.rename(columns={"b": "c"}))


@pytest.mark.parametrize("name", TEXT_MODELS)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_frame_of_texts_is_read_by_its_rows_whatever_their_number(name: str, count: int) -> None:
    model = TEXT_MODELS[name]
    frame = pd.DataFrame({"좋은": TEXTS[:count]})
    assert Predictor(model).predict(frame).tolist() == model.predict(TEXTS[:count]).tolist()


def test_a_table_of_several_columns_is_no_text() -> None:
    frame = pd.DataFrame({"id": range(3), "text": TEXTS[:3]})
    with pytest.raises(ValueError, match="one column of texts, and the data have 2: id, text"):
        Predictor(TEXT_MODELS["vectorizer"]).predict(frame)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_a_missing_text_is_refused_and_the_name_of_the_column_not_read(name: str) -> None:
    with pytest.raises((ValueError, AttributeError)):
        Predictor(TEXT_MODELS[name]).predict(pd.DataFrame({"text": [TEXTS[0], None]}))


def test_a_class_that_holds_a_model_of_texts_picks_the_column_itself() -> None:
    class Holder:
        def __init__(self) -> None:
            self.model_ = TEXT_MODELS["vectorizer"]

        def predict(self, frame: Any) -> Any:
            return self.model_.predict(frame["text"])

    class Picking(CountVectorizer):
        def transform(self, frame: Any) -> Any:
            return super().transform(frame["text"])

    frame = pd.DataFrame({"text": TEXTS})
    expected = TEXT_MODELS["vectorizer"].predict(TEXTS).tolist()
    picking = make_pipeline(CountVectorizer(), LogisticRegression()).fit(TEXTS, LABELS)
    picking.steps[0][1].__class__ = Picking
    for model in (Holder(), picking):
        assert Predictor(model).predict(frame).tolist() == expected
        assert Predictor(model).predict(frame[:1]).tolist() == expected[:1]


def test_what_mlflow_wraps_in_dicts_is_unwrapped_and_nothing_else() -> None:
    model = own.Counting()
    given = [{"n": np.array(1), "t": np.array("x"), "many": np.array(["a", "b"])}]
    Predictor(model).predict(given)
    (row,) = model.asked[0]
    assert (row["n"], row["t"], row["many"].tolist()) == (1, "x", ["a", "b"])
    assert (type(row["n"]), type(row["t"])) == (int, str)


def test_warnings_as_errors_lead_to_the_form_of_the_fit() -> None:
    by_name, by_position = LogisticRegression().fit(AB, CLASSES), GaussianNB().fit(ARRAY, CLASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model, data in (
            (by_name, ARRAY),
            (by_name, sparse.csr_matrix(ARRAY)),
            (by_position, AB),
        ):
            expected = model.predict(AB if model is by_name else ARRAY)
            assert Predictor(model).predict(data).tolist() == expected.tolist()


def test_a_warning_of_the_estimator_stays_a_warning() -> None:
    model = GaussianNB().fit(ARRAY, CLASSES)
    with pytest.warns(UserWarning, match="fitted without feature names"):
        Predictor(model).predict(AB)


def loaded(base_dir: Path) -> Any:
    (model_file,) = (base_dir / "mlflow" / "artifacts").rglob("MLmodel")
    return mlflow.pyfunc.load_model(str(model_file.parent))


def _fitted(frame: pd.DataFrame) -> Any:
    return HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=3).fit(frame, CLASSES)


SHORT = AB.astype({"b": "int16"})
EXAMPLES: dict[str, tuple[Any, Any, bool]] = {
    "numbers": (_fitted(AB), AB, True),
    "short integers": (_fitted(SHORT), SHORT, True),
    "texts and numbers": (cases.PLAIN["columns by name"]().model, ABC, True),
    "array": (LinearRegression().fit(ARRAY, CLASSES), ARRAY, True),
    "csr": (LinearRegression().fit(ARRAY, CLASSES), sparse.csr_matrix(ARRAY), True),
    "categories": (_fitted(cases.CATEGORIES), cases.CATEGORIES, False),
    "nullable": (_fitted(AB), AB.astype({"b": "Int64"}), False),
    "missing": (_fitted(AB), AB.astype({"b": "Int64"}).replace({"b": {2: pd.NA}}), False),
    "objects": (_fitted(AB), AB.astype(object), False),
    "lists": (LinearRegression().fit(ARRAY, CLASSES), ARRAY.tolist(), False),
    "list of texts": (TEXT_MODELS["cleaned"], TEXTS, False),
    "dicts": (cases.PLAIN["dicts"]().model, cases.DICTS, False),
    "series": (own.Counting(), AB.a, False),
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_signature_has_inputs_where_mlflow_lets_the_example_through_as_it_is(
    manager: ModelManager, base_dir: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, example, has_inputs = EXAMPLES[kind]
    caplog.set_level(logging.INFO, "lotto_mlflow")
    manager.save_model(model, "m", {"n": 1}, input_example=example)
    pyfunc = loaded(base_dir)
    signature = pyfunc.metadata.signature
    assert (signature.inputs is not None) == has_inputs
    assert signature.outputs is not None
    assert signature.params is not None
    told = [r for r in caplog.records if "names no inputs" in r.getMessage()]
    assert len(told) == (not has_inputs)
    assert np.array_equal(pyfunc.predict(example), model.predict(example))


def test_times_reach_the_estimator_in_the_unit_of_the_example(
    manager: ModelManager, base_dir: Path
) -> None:
    case = cases.times()
    manager.save_model(case.model, "m", {"n": 1}, input_example=case.rows)
    pyfunc = loaded(base_dir)
    assert pyfunc.metadata.signature.inputs.input_names() == ["when", "b"]
    assert np.allclose(pyfunc.predict(case.rows), case.model.predict(case.rows))


def test_an_example_says_that_a_class_reads_texts(manager: ModelManager, base_dir: Path) -> None:
    manager.save_model(own.Lengths(), "m", {"n": 1}, input_example=TEXTS[:2])
    pyfunc = loaded(base_dir)
    expected = [len(text) for text in TEXTS[:FEW]]
    for data in (TEXTS[:FEW], np.array(TEXTS[:FEW]), pd.DataFrame({"t": TEXTS[:FEW]})):
        assert pyfunc.predict(data) == expected
    assert pyfunc.predict(pd.DataFrame({"t": TEXTS[:1]})) == expected[:1]


def test_options_of_the_caller_are_no_options_of_the_loader(
    manager: ModelManager, base_dir: Path, forest: Any, rows: Any
) -> None:
    manager.save_model(forest, "m", {"n": 1})
    (model_file,) = (base_dir / "mlflow" / "artifacts").rglob("MLmodel")
    assert "config" not in Model.load(str(model_file)).flavors["python_function"]
    pyfunc = mlflow.pyfunc.load_model(str(model_file.parent), model_config={"form": "list"})
    assert np.array_equal(pyfunc.predict(rows[0]), forest.predict(rows[0]))
