"""Loader that travels inside every mirrored model.

MLflow imports this file, as the top-level module ``lotto_mlflow_loader_v1``, from the ``code``
folder of the model it opens; the package need not be installed there. It needs the standard
library and joblib only. Every mirrored model in a process shares one entry in ``sys.modules``, so
behaviour changes only together with the version in that name: copy this file under the next
version, change the copy, and keep a model mirrored with each version among the tests.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

MODULE_NAME = "lotto_mlflow_loader_v1"
_METHODS = frozenset({"apply", "decision_function", "score_samples", "transform"})
_SHA256_LINE = re.compile(r"""^\s+sha256:\s*['"]?([0-9a-f]{64})['"]?\s*$""", re.MULTILINE)


class Predictor:
    """An estimator behind MLflow's ``predict(data, params)``.

    Parameters
    ----------
    model : object
        The unpickled object, with a ``predict`` method.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """Call the method that ``params["predict_method"]`` names, ``predict`` by default.

        Parameters
        ----------
        data : array-like, DataFrame or list of shape (n_samples, n_features)
            What the estimator takes.
        params : dict, optional
            ``predict_method``: ``predict``, any method whose name begins with ``predict_``,
            ``decision_function``, ``score_samples``, ``transform`` or ``apply``.

        Returns
        -------
        object
            What the estimator's method returns; classifiers return shape (n_samples,) from
            ``predict`` and (n_samples, n_classes) from ``predict_proba``.

        Raises
        ------
        ValueError
            If the name is not one of those, or the estimator has no such method.
        """
        name = str((params or {}).get("predict_method") or "predict")
        allowed = name == "predict" or name.startswith("predict_") or name in _METHODS
        method = getattr(self._model, name, None) if allowed else None
        if not callable(method):
            raise ValueError(
                f"{type(self._model).__name__} cannot answer predict_method={name!r}; "
                f"it has {', '.join(self._methods())}"
            )
        return method(_as_fitted(self._model, data))

    def get_raw_model(self) -> Any:
        """Return the unpickled object itself."""
        return self._model

    def _methods(self) -> list[str]:
        names = {name for name in dir(type(self._model)) if name.startswith("predict_")}
        candidates = sorted(names | _METHODS | {"predict"})
        return [name for name in candidates if callable(getattr(self._model, name, None))]


def _as_fitted(model: Any, data: Any) -> Any:
    """Give data the form that the estimator was fitted on: a frame with names, or an array.

    JSON and CSV arrive as frames even for estimators fitted on arrays, as lists even for
    estimators that pick columns by name, and as dicts of columns or rows for either.
    """
    is_rows = isinstance(data, list) and len(data) > 0 and isinstance(data[0], dict)
    if isinstance(data, dict) or is_rows:
        data = _frame(data)
    names = getattr(model, "feature_names_in_", None)
    if names is not None:
        return _named(data, names)
    if not (hasattr(data, "columns") and hasattr(data, "to_numpy")):
        return data
    values = data.to_numpy()
    counts_features = getattr(model, "n_features_in_", None) is not None
    return values if counts_features or values.shape[1] != 1 else values.ravel()


def _named(data: Any, names: Any) -> Any:
    """Return rows as a frame, with the names of the fit where they have none of their own."""
    is_frame = hasattr(data, "columns")
    if not is_frame and not isinstance(data, (list, tuple)) and not hasattr(data, "shape"):
        return data
    frame = data if is_frame else _frame(data)
    is_nameless = all(isinstance(column, int) for column in frame.columns)
    return frame.set_axis(names, axis=1) if is_nameless and frame.shape[1] == len(names) else frame


def _frame(data: Any) -> Any:
    import pandas  # MLflow, which calls this, has it

    return pandas.DataFrame(data)


def pickle_is_allowed() -> bool:
    """Tell whether MLflow's own switch lets a pickle be opened; it does unless set to false.

    References
    ----------
    MLflow 3.17, environment variables: MLFLOW_ALLOW_PICKLE_DESERIALIZATION.
    """
    value = os.environ.get("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    return value.strip().lower() in ("true", "1")


def sha256_of(file: Any) -> str:
    """Return the SHA-256 of an open binary file, read from its start, and rewind it."""
    import hashlib  # here, because importing lotto_mlflow is to cost little

    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(1 << 20):
        digest.update(block)
    file.seek(0)
    return digest.hexdigest()


def recorded_sha256(model_dir: Path) -> str | None:
    """Return the digest in the ``MLmodel`` of a mirrored model folder, if it tells one."""
    text = (model_dir / "MLmodel").read_text(encoding="utf-8", errors="replace")
    match = _SHA256_LINE.search(text)
    return match.group(1) if match else None


def load(path: str | os.PathLike[str]) -> Any:
    """Verify the file of a mirrored model against its ``MLmodel``, then unpickle it.

    Parameters
    ----------
    path : str or path-like
        The ``.pkl`` under ``data/`` of a mirrored model folder.

    Returns
    -------
    object
        The object that was saved.

    Raises
    ------
    OSError
        If pickles are not allowed, or the bytes are not the ones that were saved.

    Warnings
    --------
    Unpickling runs code. The digest shows that the bytes are unchanged, not that they are
    harmless.
    """
    if not pickle_is_allowed():
        raise OSError(
            f"{path} is a pickle, and MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false forbids opening "
            "one; set it to true if you trust where this model comes from"
        )
    import joblib  # here, so that the refusals above need nothing installed

    file_path = Path(path)
    with file_path.open("rb") as file:
        expected, found = recorded_sha256(file_path.parent.parent), sha256_of(file)
        if found != expected:
            raise OSError(
                f"{file_path} was changed after it was saved: expected SHA-256 {expected}, "
                f"found {found}; nothing was unpickled. Delete this version in MLflow, and "
                "ModelManager.sync(resend=True) of lotto_mlflow sends the intact file on disk"
            )
        return joblib.load(file)


def _load_pyfunc(data_path: str) -> Predictor:
    return Predictor(load(data_path))
