"""What a fitted model says of the data that it reads, asked without running it."""

from __future__ import annotations

from typing import Any

TEXTS, DICTS = "texts", "dicts"
_READS = {"CountVectorizer": TEXTS, "HashingVectorizer": TEXTS, "DictVectorizer": DICTS}
_WRAPPED = ("best_estimator_", "estimator_", "regressor_", "classifier_", "model_", "estimator")
_WRAPPED_LISTS = ("estimators_", "calibrated_classifiers_", "transformer_list")
_MOST_NESTED, _MOST_MEMBERS = 10, 20


def first_reader(model: Any, depth: int = 0) -> tuple[list[Any], str] | None:
    """Return what first reads texts or dicts in a model, and the steps that data pass before.

    Returns
    -------
    tuple of list and str, or None
        Steps before it are those that were not fitted on tables; a reader of a class of the
        caller's own is one of them, since it may pick a column. ``None`` where there is no
        such thing, or only behind a step that takes a table.
    """
    for base in type(model).__mro__:
        if base.__module__.startswith("sklearn.feature_extraction"):
            before = [] if _is_of_library(model) else [model]
            if base.__name__ == "FeatureHasher":
                return before, DICTS if model.input_type == "dict" else TEXTS
            if base.__name__ in _READS:
                return before, _READS[base.__name__]
    if depth >= _MOST_NESTED or not _is_of_library(model):
        return None
    before = []
    for step in _steps(model):
        found = first_reader(step, depth + 1)
        if found is not None:
            return [*before, *found[0]], found[1]
        if is_fitted_on_table(step) or _own_names(step) is not None:
            return None
        before.append(step)
    entries = (first_reader(inner, depth + 1) for inner in _inner(model))
    return next((found for found in entries if found is not None), None)


def _is_of_library(model: Any) -> bool:
    """Return whether the code of a model's class is known: others may pick columns anywhere."""
    return type(model).__module__.partition(".")[0] in ("sklearn", "imblearn")


def is_fitted_on_table(model: Any) -> bool:
    """Return whether a model counted the columns that it was fitted with, as scikit-learn's do."""
    return _attribute(model, "n_features_in_") is not None


def _steps(model: Any) -> list[Any]:
    """Return the steps of a pipeline, but for those that do nothing."""
    steps = _attribute(model, "steps")
    if not isinstance(steps, list) or not all(isinstance(s, tuple) and s for s in steps):
        return []
    return [step[-1] for step in steps if step[-1] is not None and step[-1] != "passthrough"]


def _inner(model: Any) -> list[Any]:
    """Return the fitted estimators to which a wrapper hands its data as they are."""
    values = getattr(model, "__dict__", {})
    found = [values[name] for name in _WRAPPED if values.get(name) is not None][:1]
    for name in _WRAPPED_LISTS:
        several = values.get(name)
        if isinstance(several, list) and several:
            few = several[:_MOST_MEMBERS]
            found += [one[-1] if isinstance(one, tuple) else one for one in few]
    return [one for one in found if not isinstance(one, str)]


def _attribute(model: Any, name: str) -> Any:
    try:
        return getattr(model, name, None)
    except Exception:  # noqa: BLE001 - a property of the model's own may raise anything
        return None


def names(model: Any, depth: int = 0) -> list[str] | None:
    """Return the names of the columns that a model was fitted with, where it knows them."""
    found = _own_names(model)
    if found is not None:
        return None if _is_generated(found) else found
    if depth >= _MOST_NESTED:
        return None
    steps = _steps(model)
    candidates = (names(one, depth + 1) for one in [*steps[:1], *steps[-1:], *_inner(model)[:1]])
    return next((one for one in candidates if one is not None), None)


def categories(model: Any) -> list[Any] | None:
    """Return the categories of each column of categories that LightGBM was fitted with."""
    for one in (model, *_steps(model)[-1:]):
        booster = one if type(one).__name__ == "Booster" else _attribute(one, "booster_")
        found = _attribute(booster, "pandas_categorical")
        if isinstance(found, list) and found:
            return found
    return None


def _own_names(model: Any) -> list[str] | None:
    """Return names where scikit-learn, CatBoost and boosters keep those of the fit."""
    attributes = ["feature_names_in_"]
    if type(model).__module__.partition(".")[0] == "catboost":
        attributes = ["feature_names_"]
    elif type(model).__name__ == "Booster":
        attributes = ["feature_names", "feature_name"]
    for attribute in attributes:
        value = _attribute(model, attribute)
        value = value() if callable(value) else value
        value = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
            return value
    return None


def _is_generated(own: list[str]) -> bool:
    """Return whether names are those that CatBoost and LightGBM give to columns of arrays."""
    return any(own == [f"{word}{i}" for i in range(len(own))] for word in ("", "Column_"))


def has_generated_names(model: Any) -> bool:
    """Return whether a model was fitted on arrays, and named the columns itself."""
    return _is_generated(_own_names(model) or [""])


def is_of_xgboost(model: Any) -> bool:
    """Return whether a model, or the last step of one, is XGBoost's."""
    last = _steps(model)[-1:] or [model]
    return type(last[0]).__module__.partition(".")[0] == "xgboost"


def is_booster(model: Any) -> bool:
    """Return whether a model is a booster of XGBoost, which reads a matrix of its own."""
    return any(
        (c.__module__, c.__name__) == ("xgboost.core", "Booster") for c in type(model).__mro__
    )
