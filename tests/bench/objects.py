"""The fitted objects that every candidate is given, made once and kept in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np

MEGABYTE = 10**6


def forest(n_estimators: int, n_samples: int) -> Any:
    """Return a forest of full-grown trees: labels without a pattern give a leaf for each row."""
    from sklearn.ensemble import RandomForestClassifier

    random = np.random.default_rng(645)
    features = random.normal(size=(n_samples, 6))
    model = RandomForestClassifier(n_estimators, max_features=1, n_jobs=-1, random_state=645)
    return model.fit(features, random.integers(0, 2, n_samples)).set_params(n_jobs=None)


def neighbours(size_bytes: int) -> Any:
    """Return an estimator that is one large array."""
    from sklearn.neighbors import KNeighborsClassifier

    n_features = 64
    random = np.random.default_rng(645)
    features = random.random((size_bytes // (8 * n_features), n_features))
    labels = random.integers(0, 2, len(features)).astype(np.int8)
    return KNeighborsClassifier(algorithm="brute").fit(features, labels)


OBJECTS: dict[str, tuple[str, Callable[[], Any]]] = {
    "tiny": ("a forest of 5 trees", lambda: forest(5, 60)),
    "forest_1mb": ("a 1 MB forest", lambda: forest(10, 2_400)),
    "forest_100mb": ("a 100 MB forest", lambda: forest(100, 24_000)),
    "array_100mb": ("a 100 MB array", lambda: neighbours(100 * MEGABYTE)),
    "array_1gb": ("a 1 GB array", lambda: neighbours(1000 * MEGABYTE)),
    "array_1mb": ("a 1 MB array", lambda: neighbours(MEGABYTE)),
}
"""What each is called, and how it is fitted."""


def path_of(name: str, folder: Path) -> Path:
    """Return the file of an object, which is fitted where the folder does not have it yet."""
    path = folder / f"{name}.joblib"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"fitting {OBJECTS[name][0]}", flush=True)
        unfinished = path.with_suffix(".new")
        joblib.dump(OBJECTS[name][1](), unfinished)
        unfinished.rename(path)
    return path
