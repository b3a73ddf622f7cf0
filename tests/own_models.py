"""Models and transformers of one's own, as programs that import them define them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


class PassOn:
    """A step that passes on what it is given."""

    def fit(self, *_: Any) -> PassOn:
        return self

    def transform(self, data: Any) -> Any:
        return data


class Assign(PassOn):
    """A step that adds a column to a frame."""

    def transform(self, data: Any) -> Any:
        return data.assign(ratio=data["a"] / (1 + data["b"]))


class Column(PassOn):
    """A step that picks a column of a frame."""

    def __init__(self, name: str) -> None:
        self.name = name

    def transform(self, data: Any) -> Any:
        return data[self.name]


class Lower(PassOn):
    """A step that reads texts, one after the other."""

    def transform(self, texts: Any) -> Any:
        return [text.lower() for text in texts]


class LowerSeries(PassOn):
    """A step that needs a series of texts."""

    def transform(self, texts: Any) -> Any:
        return texts.str.lower()


class Times(PassOn):
    """A step that makes numbers of times: those depend on the unit."""

    def transform(self, data: Any) -> Any:
        when = data["when"]
        return pd.DataFrame({"day": when.dt.hour, "count": when.astype("int64") / 1e12})


class ByName:
    """A model that reads columns by name."""

    def predict(self, data: Any) -> Any:
        return np.asarray(data["a"] * 2 + data["b"])


class ByPosition:
    """A model that reads columns of an array by position."""

    def predict(self, data: Any) -> Any:
        return data[:, 0] * 2 + data[:, 1]


class ByEither:
    """A model that reads a frame by name, and anything else by position."""

    def predict(self, data: Any) -> Any:
        is_frame = hasattr(data, "columns")
        return np.asarray(data["b"] if is_frame else np.asarray(data)[:, 1])


class ByLevels:
    """A model of columns that have two levels."""

    def predict(self, data: Any) -> Any:
        return data[("x", 1)].to_numpy() - data[("y", 1)].to_numpy()


class Lengths:
    """A model of texts that no library knows."""

    def predict(self, texts: Any) -> Any:
        return [len(text) for text in texts]


class Counting:
    """A model that counts how often it was asked, and may refuse."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[Any] = []
        self.error = error

    def predict(self, data: Any) -> Any:
        self.asked.append(data)
        if self.error is not None:
            raise self.error
        return np.zeros(3)


def lowered(texts: Any) -> Any:
    return [text.lower() for text in texts]


def logarithms(frame: Any) -> Any:
    return np.log1p(frame.abs())
