"""Estimators of many kinds come back from both views with the same predictions."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from lotto_mlflow import ModelManager


def _boosted() -> Any:
    """Return an estimator from outside scikit-learn, if the machine can load one."""
    try:
        return importlib.import_module("lightgbm").LGBMClassifier(n_estimators=3, verbose=-1)
    except (ImportError, OSError) as cause:  # it is there, but the system lacks libgomp
        pytest.skip(f"LightGBM cannot be loaded: {cause}")


ESTIMATORS = {
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "search": lambda: GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-3]}, cv=2),
    "histogram": lambda: HistGradientBoostingClassifier(max_iter=3),
    "trees": lambda: ExtraTreesClassifier(n_estimators=3),
    "regressor": lambda: RandomForestRegressor(n_estimators=3),
    "boosted": _boosted,
}


@pytest.mark.filterwarnings(  # LightGBM 4.6 says so of arrays that it was fitted with, too
    "ignore:X does not have valid feature names:UserWarning"
)
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_predictions_are_the_same_from_file_registry_and_pyfunc(
    manager: ModelManager, base_dir: Path, rows: Any, kind: str
) -> None:
    features, classes = rows
    model = ESTIMATORS[kind]().fit(features, classes)
    path = manager.save_model(model, kind, {"kind": kind})
    expected = model.predict(features)
    assert np.array_equal(manager.load_model(path).predict(features), expected)
    assert np.array_equal(manager.load_model(f"models:/{kind}/1").predict(features), expected)
    loaded = _pyfunc(base_dir)
    assert np.array_equal(loaded.predict(features), expected)
    assert type(loaded.get_raw_model()) is type(model)


def _pyfunc(base_dir: Path) -> Any:
    (model_file,) = (base_dir / "mlflow" / "artifacts").rglob("MLmodel")
    return mlflow.pyfunc.load_model(str(model_file.parent))


def test_arrays_of_integers_and_floats_frames_and_lists_are_all_taken(
    manager: ModelManager, base_dir: Path, rows: Any, forest: Any
) -> None:
    manager.save_model(forest)
    loaded = _pyfunc(base_dir)
    numbers = np.round(rows[0] * 3)
    expected = forest.predict_proba(numbers)
    names = [f"c{i}" for i in range(5)]
    for data in (
        numbers,
        numbers.astype(int),
        numbers.astype("float32"),
        pd.DataFrame(numbers, columns=names),
        pd.DataFrame(numbers.astype(int), columns=names),
        numbers.tolist(),
    ):
        found = loaded.predict(data, params={"predict_method": "predict_proba"})
        assert np.array_equal(found, expected)
        assert np.array_equal(loaded.predict(data), forest.predict(numbers))


def test_a_pipeline_on_strings_takes_frames_dicts_and_lists(
    manager: ModelManager, base_dir: Path
) -> None:
    frame = pd.DataFrame({"요일": ["토", "일", "토", "월"] * 5, "round": range(20)})
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["요일"]), remainder="passthrough"),
        GaussianNB(),
    ).fit(frame, [0, 1, 0, 1] * 5)
    path = manager.save_model(model, metadata={"kind": "one-hot"}, input_example=frame[:2])
    expected = model.predict(frame).tolist()
    assert manager.load_model(path).predict(frame).tolist() == expected
    assert _pyfunc(base_dir).predict(frame).tolist() == expected


def test_columns_get_their_names_back_where_there_is_no_schema(
    manager: ModelManager, base_dir: Path, rows: Any
) -> None:
    frame = pd.DataFrame(rows[0], columns=list("abcde"))
    model = LogisticRegression().fit(frame, rows[1])
    manager.save_model(model)
    loaded = _pyfunc(base_dir)
    expected = model.predict(frame).tolist()
    for data in (frame, rows[0], rows[0].tolist(), {c: frame[c].to_numpy() for c in "abcde"}):
        assert loaded.predict(data).tolist() == expected


def test_several_outputs_and_other_methods_can_be_asked_for(
    manager: ModelManager, base_dir: Path, rows: Any
) -> None:
    features, classes = rows
    model = MultiOutputClassifier(LogisticRegression()).fit(
        features, np.column_stack([classes, 1 - classes])
    )
    manager.save_model(model)
    loaded = _pyfunc(base_dir)
    found = loaded.predict(features, params={"predict_method": "predict_proba"})
    assert np.array_equal(found, model.predict_proba(features))
    with pytest.raises(ValueError, match=r"has predict, predict_proba"):
        loaded.predict(features, params={"predict_method": "decision_function"})
    with pytest.raises(ValueError, match="cannot answer"):
        loaded.predict(features, params={"predict_method": "fit"})


def test_the_distribution_of_a_models_own_class_is_pinned(
    manager: ModelManager, base_dir: Path
) -> None:
    packaging = importlib.import_module("packaging.version")
    manager.save_model({"version": packaging.Version("1.0")}, "own")
    (listed,) = (base_dir / "mlflow" / "artifacts").rglob("requirements.txt")
    assert any(line.startswith("packaging==") for line in listed.read_text().splitlines())
