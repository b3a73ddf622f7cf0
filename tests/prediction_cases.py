"""Fitted estimators of many kinds, and the forms in which data may reach each."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import own_models as own
import pandas as pd
from scipy import sparse
from sklearn import ensemble, linear_model, preprocessing
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline, make_union

N = 40
_random = np.random.default_rng(645)
FRAME = pd.DataFrame(
    {
        "a": np.round(_random.normal(size=N), 3),
        "b": _random.integers(0, 4, N),
        "c": _random.choice(["가", "나", "다"], N),
        "d": _random.normal(size=N) > 0,
        "when": pd.date_range("2025-11-01", periods=N, freq="7h"),
    }
)
CLASSES = (FRAME.a + FRAME.b + (FRAME.c == "나") > 1.5).astype(int).to_numpy()
NUMBERS = (FRAME.a * 3 + FRAME.b + _random.normal(size=N)).to_numpy()
AB, ABC = FRAME[["a", "b"]], FRAME[["a", "b", "c"]]
CATEGORIES = ABC.astype({"c": "category"})
ARRAY = AB.to_numpy()
WORDS = ["좋은 번호", "나쁜 번호", "Good number", "BAD number", "good", "bad 번호"]
TEXTS = [f"{WORDS[i % 6]} {WORDS[i * 5 % 6]}" for i in range(N)]
LABELS = np.array([int("좋" in text or "ood" in text) for text in TEXTS])
DICTS = [
    {"c": c, "n": float(b)} | ({"extra": 1.0} if b > 2 else {})
    for b, c in zip(FRAME.b, FRAME.c, strict=True)
]
FEW = 4
"""Rows of each request: not as many as there are columns."""


@dataclass(frozen=True)
class Case:
    """An estimator, rows that it predicts, and other forms of those rows.

    Attributes
    ----------
    model : object
        The estimator.
    rows : object
        A form that it accepts.
    forms : dict
        Others, by name; each is given to MLflow and, where it accepts it, to the estimator.
    json : dict
        Bodies of requests that hold the rows.
    csv : str or None
        The rows as CSV.
    misread : frozenset of str
        Forms that the estimator itself accepts and reads as something else: it iterates over a
        frame, and finds the names of the columns.
    """

    model: Any
    rows: Any
    forms: dict[str, Any] = field(default_factory=dict)
    json: dict[str, dict[str, Any]] = field(default_factory=dict)
    csv: str | None = None
    misread: frozenset[str] = frozenset()


def _plain(frame: pd.DataFrame) -> list[list[Any]]:
    return frame.astype(object).where(frame.notna(), None).to_numpy().tolist()


def _as_json(frame: pd.DataFrame, *more: str) -> dict[str, dict[str, Any]]:
    """Return a frame as the bodies in which names of columns arrive, and in those asked for."""
    names, rows = list(frame.columns), _plain(frame)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    records = [dict(zip(names, row, strict=True)) for row in rows]
    bodies = {
        "split": {"dataframe_split": {"columns": names, "data": rows}},
        "records": {"dataframe_records": records},
        "dict": {"inputs": columns},
        "dicts": {"inputs": records},
        "array": {"inputs": rows},
        "instances": {"instances": rows},
        "nameless": {"dataframe_split": {"data": rows}},
    }
    return {key: bodies[key] for key in ("split", "records", "dict", "dicts", *more)}


ARRAYS = ("array", "instances", "nameless")


def _framed(model: Any, frame: pd.DataFrame, *more: str, **forms: Any) -> Case:
    """Return a case of an estimator fitted with names, and each form of a frame's first rows."""
    few = frame.head(FEW)
    found = {
        "dict": {name: few[name].to_numpy() for name in few},
        "dicts": few.to_dict("records"),
        "numbered": few.set_axis(range(30, 30 + FEW)),
    }
    if more:
        found |= {"nameless": few.set_axis(range(few.shape[1]), axis=1)}
        found |= {"array": few.to_numpy(), "list": few.to_numpy(object).tolist()}
    csv = few.to_csv(index=False)
    return Case(model, few, found | forms, _as_json(few, *more), csv)


def _of_numbers(model: Any, *, is_dense: bool = False) -> Case:
    """Return a case of an estimator fitted on a frame of numbers."""
    few = AB.head(FEW)
    matrices = {"csr": sparse.csr_matrix(few), "csc": sparse.csc_matrix(few)}
    nullable = few.astype({"a": "Float64", "b": "Int64"})
    return _framed(model, AB, *ARRAYS, nullable=nullable, **({} if is_dense else matrices))


def _of_arrays(model: Any, width: int = 2, **forms: Any) -> Case:
    """Return a case of an estimator fitted on arrays."""
    few = AB.head(FEW).iloc[:, :width]
    array = few.to_numpy()
    found = {
        "list": array.tolist(),
        "integers": array.round().astype(int),
        "objects": array.astype(object),
        "frame": few,
        "nullable": few.convert_dtypes(),
        "dict": {name: few[name].to_numpy() for name in few},
        "dicts": few.to_dict("records"),
    }
    return Case(model, array, found | forms, _as_json(few, *ARRAYS), few.to_csv(index=False))


def _of_texts(model: Any, rows: Any = None, **forms: Any) -> Case:
    """Return a case of an estimator fitted on texts."""
    few = TEXTS[:FEW]
    frame = pd.DataFrame({"text": few})
    found = {"array": np.array(few), "series": pd.Series(few), "frame": frame, "one": frame[:1]}
    found |= {"column": [[text] for text in few], "dict": {"text": np.array(few)}}
    json = _as_json(frame, *ARRAYS) | {"texts": {"inputs": few}}
    json["one row"] = {"dataframe_split": {"columns": ["text"], "data": [[few[0]]]}}
    rows = few if rows is None else rows
    misread = frozenset({"frame", "one", "dict"})
    return Case(model, rows, found | forms, json, frame.to_csv(index=False), misread)


def _of_dicts(model: Any) -> Case:
    few = DICTS[:FEW]
    frame = pd.DataFrame(few)
    json = {"dicts": {"inputs": few}, "records": {"dataframe_records": few}}
    return Case(model, few, {"frame": frame, "one": frame[:1]}, json, frame.to_csv(index=False))


def _forest() -> Any:
    return ensemble.RandomForestClassifier(n_estimators=3, max_depth=3, random_state=1)


def _by_name() -> Any:
    encoder = preprocessing.OneHotEncoder(handle_unknown="ignore")
    return make_column_transformer((encoder, ["c"]), remainder="passthrough")


def _many_kinds() -> Case:
    frame = FRAME[["a", "b", "c", "d"]].astype({"a": "Float64", "b": "Int64"})
    frame.loc[1, "a"], frame.loc[2, "b"] = pd.NA, pd.NA
    frame["c"] = frame["c"].astype(object).where(frame.index != 3, None)
    model = make_pipeline(
        make_column_transformer(
            (SimpleImputer(), ["a", "b"]),
            (preprocessing.OneHotEncoder(handle_unknown="ignore"), ["c", "d"]),
        ),
        linear_model.LogisticRegression(),
    )
    return _framed(model.fit(frame, CLASSES), frame)


def _levels() -> Case:
    frame = pd.DataFrame(ARRAY, columns=pd.MultiIndex.from_tuples([("x", 1), ("y", 1)]))
    return Case(own.ByLevels(), frame[:FEW])


def _boosted_behind() -> Any:
    lightgbm = importlib.import_module("lightgbm")
    return make_pipeline(
        "passthrough", lightgbm.LGBMClassifier(n_estimators=3, min_child_samples=3, verbose=-1)
    )


def _booster_of_lightgbm() -> Any:
    lightgbm = importlib.import_module("lightgbm")
    options = {"objective": "regression", "min_data_in_leaf": 3, "verbose": -1}
    return lightgbm.train(options, lightgbm.Dataset(AB, NUMBERS), 3)


def _catboost(**options: Any) -> Any:
    catboost = importlib.import_module("catboost")
    return catboost.CatBoostClassifier(
        iterations=3, verbose=0, allow_writing_files=False, **options
    )


def _formula(kind: str) -> Any:
    formulas = importlib.import_module("statsmodels.formula.api")
    return getattr(formulas, kind)("y ~ a + C(b)", AB.assign(y=NUMBERS)).fit()


def _least_squares() -> Any:
    return importlib.import_module("statsmodels.api").OLS(NUMBERS, ARRAY).fit()


def _xgboost(name: str) -> Any:
    xgboost = importlib.import_module("xgboost")
    if name == "Booster":
        return xgboost.train({"max_depth": 2}, xgboost.DMatrix(AB, NUMBERS), 2)
    return getattr(xgboost, name)(n_estimators=2, max_depth=2)


def _booster_of_xgboost() -> Case:
    case = _of_numbers(_xgboost("Booster"), is_dense=True)
    matrix = importlib.import_module("xgboost").DMatrix(case.rows)
    forms = {"frame": case.rows} | case.forms
    return Case(case.model, matrix, forms, case.json, case.csv)


def _sampled() -> Any:
    imblearn = importlib.import_module("imblearn.pipeline")
    sampler = importlib.import_module("imblearn.over_sampling").RandomOverSampler(random_state=1)
    return imblearn.make_pipeline(preprocessing.StandardScaler(), sampler, _forest())


def _target_encoded() -> Any:
    encoders = importlib.import_module("category_encoders")
    return make_pipeline(encoders.TargetEncoder(cols=["c"]), linear_model.LogisticRegression())


def _text_model(*steps: Any) -> Any:
    return make_pipeline(*steps, linear_model.LogisticRegression())


def _frame_of_texts(model: Any) -> Case:
    frame = pd.DataFrame({"text": TEXTS, "n": range(N)})
    case = _framed(model.fit(frame, LABELS), frame)
    return Case(case.model, case.rows, case.forms | {"one": frame[:1]}, case.json, case.csv)


Made = Callable[[], Case]
PLAIN: dict[str, Made] = {
    "forest on arrays": lambda: _of_arrays(
        _forest().fit(ARRAY, CLASSES), csr=sparse.csr_matrix(ARRAY[:FEW])
    ),
    "one column as array": lambda: _of_arrays(
        linear_model.LinearRegression().fit(ARRAY[:, :1], NUMBERS), 1
    ),
    "columns by position": lambda: _of_arrays(
        make_pipeline(
            make_column_transformer((preprocessing.StandardScaler(), [1]), remainder="passthrough"),
            GaussianNB(),
        ).fit(ARRAY, CLASSES)
    ),
    "search": lambda: _of_arrays(
        GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-3]}, cv=2).fit(ARRAY, CLASSES)
    ),
    "clusters": lambda: _of_arrays(KMeans(3, n_init=1, random_state=1).fit(ARRAY)),
    "isotonic": lambda: Case(
        IsotonicRegression(out_of_bounds="clip").fit(ARRAY[:, 0], NUMBERS),
        FRAME.a[:FEW],
        {"array": ARRAY[:FEW, 0], "list": ARRAY[:FEW, 0].tolist(), "frame": FRAME[["a"]][:FEW]},
        {"array": {"inputs": ARRAY[:FEW, 0].tolist()}} | _as_json(FRAME[["a"]][:FEW], "array"),
    ),
    "logistic on names": lambda: _of_numbers(linear_model.LogisticRegression().fit(AB, CLASSES)),
    "one column with a name": lambda: _framed(
        linear_model.LinearRegression().fit(AB[["a"]], NUMBERS), AB[["a"]], *ARRAYS
    ),
    "components": lambda: _of_numbers(
        make_pipeline(PCA(2), linear_model.LinearRegression()).fit(AB, NUMBERS)
    ),
    "several targets": lambda: _of_numbers(
        MultiOutputRegressor(linear_model.Ridge()).fit(AB, np.column_stack([NUMBERS, CLASSES]))
    ),
    "votes": lambda: _of_numbers(
        ensemble.VotingClassifier([("a", GaussianNB()), ("b", _forest())]).fit(AB, CLASSES),
        is_dense=True,
    ),
    "calibrated": lambda: _of_numbers(
        CalibratedClassifierCV(GaussianNB(), cv=2).fit(AB, CLASSES), is_dense=True
    ),
    "another target": lambda: _of_numbers(
        TransformedTargetRegressor(linear_model.Ridge(), func=np.exp, inverse_func=np.log).fit(
            AB, NUMBERS / 9
        )
    ),
    "outliers": lambda: _of_numbers(
        ensemble.IsolationForest(n_estimators=5, random_state=1).fit(AB)
    ),
    "function of a frame": lambda: _of_numbers(
        make_pipeline(preprocessing.FunctionTransformer(own.logarithms), linear_model.Ridge()).fit(
            AB, NUMBERS
        )
    ),
    "sparse": lambda: Case(
        linear_model.SGDClassifier(random_state=1).fit(sparse.csr_matrix(ARRAY), CLASSES),
        sparse.csr_matrix(ARRAY[:FEW]),
        {"csc": sparse.csc_matrix(ARRAY[:FEW]), "array": ARRAY[:FEW], "frame": AB[:FEW]},
        _as_json(AB[:FEW], *ARRAYS),
    ),
    "columns by name": lambda: _framed(
        make_pipeline(_by_name(), GaussianNB()).fit(ABC, CLASSES), ABC
    ),
    "columns by name behind another step": lambda: _framed(
        make_pipeline(own.PassOn(), _by_name(), GaussianNB()).fit(ABC, CLASSES), ABC
    ),
    "missing and odd kinds": _many_kinds,
    "categories of scikit-learn": lambda: _framed(
        ensemble.HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=3).fit(
            CATEGORIES, CLASSES
        ),
        CATEGORIES,
    ),
    "assigned columns": lambda: _framed(
        make_pipeline(own.Assign(), linear_model.LogisticRegression()).fit(AB, CLASSES), AB
    ),
    "class that reads columns": lambda: _framed(own.ByName(), AB),
    "class that reads positions": lambda: Case(
        own.ByPosition(), ARRAY[:FEW], {"frame": AB[:FEW]}, _as_json(AB[:FEW], *ARRAYS)
    ),
    "columns of two levels": _levels,
    "texts": lambda: _of_texts(_text_model(TfidfVectorizer()).fit(TEXTS, LABELS)),
    "texts in a search": lambda: _of_texts(
        GridSearchCV(_text_model(CountVectorizer()), {"logisticregression__C": [1, 2]}, cv=2).fit(
            TEXTS, LABELS
        )
    ),
    "texts in a union": lambda: _of_texts(
        _text_model(make_union(TfidfVectorizer(), HashingVectorizer(n_features=8))).fit(
            TEXTS, LABELS
        )
    ),
    "texts cleaned by a function": lambda: _of_texts(
        _text_model(preprocessing.FunctionTransformer(own.lowered), TfidfVectorizer()).fit(
            TEXTS, LABELS
        )
    ),
    "texts cleaned by a step": lambda: _of_texts(
        _text_model(own.Lower(), TfidfVectorizer(lowercase=False)).fit(TEXTS, LABELS)
    ),
    "texts as a series": lambda: _of_texts(
        _text_model(own.LowerSeries(), TfidfVectorizer()).fit(pd.Series(TEXTS), LABELS),
        pd.Series(TEXTS[:FEW]),
        list=TEXTS[:FEW],
    ),
    "texts of a column": lambda: _frame_of_texts(
        _text_model(own.Column("text"), TfidfVectorizer())
    ),
    "texts of one column": lambda: _framed(
        _text_model(own.Column("text"), TfidfVectorizer()).fit(
            pd.DataFrame({"text": TEXTS}), LABELS
        ),
        pd.DataFrame({"text": TEXTS}),
    ),
    "texts beside numbers": lambda: _frame_of_texts(
        make_pipeline(
            make_column_transformer((TfidfVectorizer(), "text"), remainder="passthrough"),
            linear_model.LogisticRegression(),
        )
    ),
    "dicts": lambda: _of_dicts(_text_model(DictVectorizer()).fit(DICTS, CLASSES)),
    "hashed dicts": lambda: _of_dicts(_text_model(FeatureHasher(16)).fit(DICTS, CLASSES)),
}
"""Of scikit-learn, or of one's own."""
OTHERS: dict[str, tuple[str, Made]] = {
    "CatBoost, integer categories": (
        "catboost",
        lambda: _framed(
            _catboost(cat_features=["b", "c"]).fit(ABC, CLASSES),
            ABC,
            objects=ABC[:FEW].astype(object),
        ),
    ),
    "CatBoost, names and numbers": (
        "catboost",
        lambda: _framed(_catboost(cat_features=["b"]).fit(AB, CLASSES), AB, *ARRAYS),
    ),
    "CatBoost on arrays": ("catboost", lambda: _of_arrays(_catboost().fit(ARRAY, CLASSES))),
    "formula": ("statsmodels", lambda: _framed(_formula("ols"), AB)),
    "formula, another family": ("statsmodels", lambda: _framed(_formula("glm"), AB)),
    "least squares on arrays": ("statsmodels", lambda: _of_arrays(_least_squares())),
    "LightGBM, categories behind a step": (
        "lightgbm",
        lambda: _framed(_boosted_behind().fit(CATEGORIES, CLASSES), CATEGORIES),
    ),
    "LightGBM's booster": ("lightgbm", lambda: _of_numbers(_booster_of_lightgbm())),
    "XGBoost": (
        "xgboost",
        lambda: _of_numbers(_xgboost("XGBClassifier").fit(AB, CLASSES), is_dense=True),
    ),
    "XGBoost on arrays": (
        "xgboost",
        lambda: _of_arrays(_xgboost("XGBRegressor").fit(ARRAY, NUMBERS)),
    ),
    "XGBoost's booster": ("xgboost", _booster_of_xgboost),
    "resampled": ("imblearn", lambda: _of_numbers(_sampled().fit(AB, CLASSES), is_dense=True)),
    "encoded targets": (
        "category_encoders",
        lambda: _framed(_target_encoded().fit(ABC, CLASSES), ABC),
    ),
}
"""Of a library that may be missing."""


def times() -> Case:
    """Return a case with times, which JSON can send only where a signature names them."""
    frame = FRAME[["when", "b"]]
    model = make_pipeline(own.Times(), linear_model.Ridge()).fit(frame, NUMBERS)
    few = frame[:FEW]
    rows = [[when.isoformat(), b] for when, b in zip(few.when, few.b.tolist(), strict=True)]
    return Case(
        model, few, json={"split": {"dataframe_split": {"columns": list(few), "data": rows}}}
    )


def library_of(name: str) -> str | None:
    """Return the library that a case needs beside scikit-learn."""
    return OTHERS[name][0] if name in OTHERS else None


def made(name: str) -> Case:
    return OTHERS[name][1]() if name in OTHERS else PLAIN[name]()


NAMES: Iterable[str] = (*PLAIN, *OTHERS)
