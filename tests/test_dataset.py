"""Data sets given to a save: what is recorded of them, and what is no data set."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.data.dataset_source import DatasetSource
from mlflow.entities import Run
from sklearn.ensemble import RandomForestClassifier

from lotto_mlflow import ModelManager, model_utils
from lotto_mlflow.datasets import digest_of
from lotto_mlflow.errors import InvalidDatasetError

CONTEXT = "mlflow.data.context"
FRAME = pd.DataFrame({"회차": [1, 2, 3], "합": [120.0, 99.5, 131.0], "day": ["sat", "sat", "sun"]})


@pytest.fixture
def client(base_dir: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")


def run_of(client: MlflowClient, manager: ModelManager, name: str) -> Run:
    return client.get_run(str(manager.get(name).run_id))


def inputs_of(client: MlflowClient, manager: ModelManager, name: str) -> dict[str, Any]:
    found = run_of(client, manager, name).inputs.dataset_inputs
    return {tag.value: one.dataset for one in found for tag in one.tags if tag.key == CONTEXT}


def test_a_frame_is_recorded_with_name_digest_schema_and_shape(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier
) -> None:
    manager.save_model(forest, "m", {}, dataset=FRAME)
    (found,) = inputs_of(client, manager, "m").values()
    assert (found.name, found.digest) == ("train", digest_of(FRAME))
    columns = json.loads(found.schema)["mlflow_colspec"]
    assert [column["name"] for column in columns] == ["회차", "합", "day"]
    assert json.loads(found.profile) == {"num_rows": 3, "num_elements": 9}


def test_each_data_set_of_a_dict_is_recorded_under_its_name(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier, rows: Any
) -> None:
    manager.save_model(forest, "m", {}, dataset={"train": rows[0][:40], "평가": rows[0][40:]})
    found = inputs_of(client, manager, "m")
    assert {context: one.name for context, one in found.items()} == {
        "train": "train",
        "평가": "평가",
    }
    assert json.loads(found["train"].profile)["features_shape"] == [40, 5]
    assert json.loads(found["평가"].profile)["features_shape"] == [20, 5]
    assert found["train"].digest != found["평가"].digest


@pytest.mark.parametrize(
    "dataset",
    [
        pd.Series([1, 2, 3]),
        pd.DataFrame([[1, 2]], columns=[10, np.int64(20)]),
        pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])),
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame({"lists": [[1], [2, 3]], "when": pd.to_datetime(["2025-11-01", None])}),
        pd.DataFrame(),
        [[1, 2], [3, 4]],
        np.array([["a", "b"]], dtype=object),
        np.array(["2025-11-01"], dtype="datetime64[D]"),
        np.zeros((4, 3, 2), dtype=np.float16, order="F"),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.zeros((0, 3)),
    ],
    ids=[
        *("series", "numbered columns", "two levels", "twin columns", "cells of lists", "empty"),
        *("list", "objects", "dates", "tensor", "structured", "no rows"),
    ],
)
def test_what_holds_data_is_recorded(
    manager: ModelManager,
    client: MlflowClient,
    forest: RandomForestClassifier,
    dataset: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    manager.save_model(forest, "m", {}, dataset=dataset)
    assert list(inputs_of(client, manager, "m")) == ["train"]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_what_mlflow_data_made_keeps_its_own_name_and_source(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier
) -> None:
    made = mlflow.data.from_pandas(FRAME, source="https://example.org/draws.csv", name="draws")
    manager.save_model(forest, "m", {}, dataset={"train": made})
    found = inputs_of(client, manager, "m")["train"]
    assert (found.name, found.digest, found.source_type) == ("draws", made.digest, "http")
    assert json.loads(found.source) == {"url": "https://example.org/draws.csv"}


def test_the_source_is_the_program_and_names_no_folder_of_the_machine(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier
) -> None:
    manager.save_model(forest, "m", {}, dataset=FRAME)
    found = inputs_of(client, manager, "m")["train"]
    tags = json.loads(found.source)["tags"]
    assert found.source_type == "code"
    assert tags["mlflow.source.name"]
    assert not Path(tags["mlflow.source.name"]).is_absolute()
    assert tags.keys() <= {"mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit"}


def test_models_trained_on_the_same_data_show_the_same_and_on_other_data_another(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier, rows: Any
) -> None:
    changed = rows[0].copy()
    changed[-1, -1] += 1e-9
    for name, data in (("a", rows[0]), ("b", rows[0].copy(order="F")), ("c", changed)):
        manager.save_model(forest, name, {}, dataset=data)
    a, b, c = (inputs_of(client, manager, name)["train"].digest for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.zeros((200_000, 12)),
        lambda: pd.DataFrame(np.zeros((20_000, 3)), columns=list("abc")),
        lambda: np.array(["x"] * 20_000, dtype=object),
    ],
    ids=["array", "frame", "objects"],
)
def test_a_digest_tells_of_the_last_value_and_is_the_same_again(make: Any) -> None:
    data, last = make(), make()
    if isinstance(last, pd.DataFrame):
        last.iloc[-1, -1] = 1.0
    else:
        last[-1] = 1.0
    assert digest_of(data) == digest_of(make()) != digest_of(last)


@pytest.mark.parametrize(
    "other",
    [
        FRAME.rename(columns={"합": "sum"}),
        FRAME[["합", "회차", "day"]],
        FRAME.iloc[::-1].reset_index(drop=True),
        FRAME.iloc[:2],
        FRAME.astype({"회차": "float64"}),
    ],
    ids=["name", "order of columns", "order of rows", "fewer rows", "kind of number"],
)
def test_a_frame_that_differs_has_another_digest(other: pd.DataFrame) -> None:
    assert digest_of(other) != digest_of(FRAME)


def test_what_an_array_masks_is_part_of_its_digest() -> None:
    values = np.arange(6.0)
    masks = ([0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0])
    digests = {digest_of(np.ma.array(values, mask=mask)) for mask in masks}
    assert len(digests) == 2


def test_an_arrays_shape_is_part_of_its_digest() -> None:
    digests = {digest_of(np.zeros(shape)) for shape in ((6,), (2, 3), (3, 2), (6, 1))}
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("dataset", "problem"),
    [
        ({}, "empty dict"),
        ([], "list"),
        ("draws.csv", "str"),
        (7, "int"),
        (np.float64(1.0), "float64"),
        (np.array(1.0), "ndarray"),
        (([[1.0]], [1]), "tuple"),
        ([[1, 2], [3]], "no table"),
        ([object()], "no numbers"),
        ({"train": None}, "NoneType"),
        ({"train": {"x": FRAME}}, "dict"),
        ({1: FRAME}, "name 1"),
        ({"": FRAME}, "name ''"),
        ({"a\nb": FRAME}, "plain characters"),
        ({"a\ud800": FRAME}, "plain characters"),
        ({"n" * 251: FRAME}, "plain characters"),
    ],
)
def test_what_is_no_data_set_is_refused_before_any_file_is_touched(
    tmp_path: Path, forest: RandomForestClassifier, dataset: Any, problem: str
) -> None:
    manager = ModelManager(tmp_path / "ml")
    with pytest.raises(InvalidDatasetError, match=problem) as refusal:
        manager.save_model(forest, "m", {}, dataset=dataset)
    assert isinstance(refusal.value, ValueError)
    assert "nothing was saved" in str(refusal.value)
    assert not (tmp_path / "ml").exists()


class Unwilling(DatasetSource):
    """A source that cannot be written down."""

    @staticmethod
    def _get_source_type() -> str:
        return "unwilling"

    def load(self, **kwargs: Any) -> Any:
        raise NotImplementedError

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> Any:
        raise NotImplementedError

    def to_dict(self) -> dict[Any, Any]:
        raise RuntimeError("no")

    @classmethod
    def from_dict(cls, source_dict: Any) -> Any:
        raise NotImplementedError


def test_a_data_set_that_mlflow_cannot_describe_is_left_out_with_a_warning(
    manager: ModelManager,
    client: MlflowClient,
    forest: RandomForestClassifier,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = mlflow.data.from_pandas(FRAME, source=Unwilling())
    manager.save_model(forest, "m", {}, dataset={"train": made, "test": FRAME})
    assert list(inputs_of(client, manager, "m")) == ["test"]
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "'train' is not recorded" in warning


def test_a_schema_that_mlflow_would_refuse_is_left_out(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier
) -> None:
    wide = pd.DataFrame(np.zeros((1, 4_000)), columns=[f"{'c' * 300}{i}" for i in range(4_000)])
    manager.save_model(forest, "m", {}, dataset=wide)
    found = inputs_of(client, manager, "m")["train"]
    assert not found.schema
    assert json.loads(found.profile)["num_elements"] == 4_000


def test_a_save_that_mirrors_nothing_records_what_a_later_sync_sends(
    base_dir: Path, client: MlflowClient, forest: RandomForestClassifier
) -> None:
    off = ModelManager(base_dir, mirror="off")
    off.save_model(forest, "m", {}, dataset=FRAME)
    manager = ModelManager(base_dir)
    manager.sync()
    assert inputs_of(client, manager, "m")["train"].digest == digest_of(FRAME)


def test_a_metric_that_begins_with_a_name_is_shown_as_measured_on_it(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier
) -> None:
    metadata = {"test_loss": 0.4, "test": {"hits": [1.0, 2.0]}, "tester": 1.0, "loss": 0.5}
    manager.save_model(forest, "m", metadata, dataset={"train": FRAME, "test": FRAME[:2]})
    model = client.get_logged_model(str(manager.get("m").model_id))
    shown = {metric.key: metric.dataset_name for metric in model.metrics}
    assert shown == {"test_loss": "test", "test.hits": "test", "tester": None, "loss": None}
    assert run_of(client, manager, "m").data.metrics["test_loss"] == 0.4


def test_the_specifications_function_takes_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forest: RandomForestClassifier
) -> None:
    monkeypatch.setattr(model_utils, "MODEL_BASE_DIR", tmp_path / "ml")
    monkeypatch.setenv("LOTTO_MIRROR", "off")
    model_utils.save_model(forest, "m", {}, dataset=FRAME)
    (waiting,) = (tmp_path / "ml" / "mlflow" / "outbox").glob("*.json")
    (kept,) = json.loads(waiting.read_text(encoding="utf-8"))["payload"]["description"]["datasets"]
    assert (kept["context"], kept["shape"]) == ("train", [3, 3])
