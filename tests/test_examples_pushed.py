"""Examples and data sets on their way: a save needs no MLflow, and a later push builds them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from made import save_record
from mlflow import MlflowClient
from sklearn.ensemble import RandomForestClassifier
from sklearn.naive_bayes import GaussianNB

import lotto_mlflow
from lotto_mlflow import ModelManager
from lotto_mlflow.records import Description, Record, SavePayload, parse, render

ROOT_DIR = Path(lotto_mlflow.__file__).parents[1]
FRAME = pd.DataFrame({"a": np.arange(9), "b": np.arange(9) / 2})
PLAIN = save_record(Description(model_type="Forest"))
SCRIPT = """
import sys
import numpy, pandas
from sklearn.naive_bayes import GaussianNB
from lotto_mlflow import ModelManager
frame = pandas.DataFrame({"a": numpy.arange(9), "b": numpy.arange(9) / 2})
model = GaussianNB().fit(frame, [0, 1, 0] * 3)
manager = ModelManager(sys.argv[1], mirror=sys.argv[2])
data = {"train": frame, "x": frame.to_numpy()}
path = manager.save_model(model, "m", {"accuracy": 0.5}, input_example=frame, dataset=data)
manager.flush(60)
assert manager.load_model(path).predict(frame).shape == (9,)
print("mlflow" in sys.modules)
"""


def run(code: str, *arguments: object, path: Path = ROOT_DIR) -> subprocess.CompletedProcess[str]:
    """Run code in a process whose modules are looked for in a folder first."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, {path: 1, ROOT_DIR: 1}))}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", check=True
    )


def loaded(base_dir: Path) -> Any:
    """Open the model of the last save as MLflow does."""
    (model_file,) = (base_dir / "mlflow" / "artifacts").rglob("MLmodel")
    return mlflow.pyfunc.load_model(str(model_file.parent))


def assert_all_is_there(base_dir: Path) -> None:
    """Check signature, example and data sets of the save in `SCRIPT`."""
    manager = ModelManager(base_dir)
    manager.sync()
    model = loaded(base_dir)
    columns = json.loads(model.metadata.signature.to_dict()["inputs"])
    assert [(c["name"], c["type"]) for c in columns] == [("a", "long"), ("b", "double")]
    assert model.metadata.signature.outputs.inputs[0].shape == (-1,)
    assert model.metadata.get_params_schema().params[0].name == "predict_method"
    pd.testing.assert_frame_equal(model.input_example, FRAME[:5])
    assert model.predict(FRAME).shape == (9,)
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    run_id = str(manager.get("m").run_id)
    inputs = {one.dataset.name: one.dataset for one in client.get_run(run_id).inputs.dataset_inputs}
    assert json.loads(inputs["train"].profile) == {"num_rows": 9, "num_elements": 18}
    assert [c["type"] for c in json.loads(inputs["train"].schema)["mlflow_colspec"]] == [
        "long",
        "double",
    ]
    assert json.loads(inputs["x"].profile)["features_shape"] == [9, 2]
    assert "mlflow_tensorspec" in json.loads(inputs["x"].schema)


def test_a_save_that_is_not_mirrored_imports_no_mlflow(base_dir: Path) -> None:
    assert run(SCRIPT, base_dir, "off").stdout.split() == ["False"]
    assert_all_is_there(base_dir)


@pytest.mark.parametrize("mirror", ["off", "sync", "background"])
@pytest.mark.parametrize("error", ["ImportError", "RuntimeError"])
def test_with_a_broken_mlflow_everything_is_saved_and_a_later_sync_sends_it(
    base_dir: Path, tmp_path: Path, mirror: str, error: str
) -> None:
    broken_dir = tmp_path / "broken"
    (broken_dir / "mlflow").mkdir(parents=True)
    (broken_dir / "mlflow" / "__init__.py").write_text(f"raise {error}('broken')")
    done = run(SCRIPT, base_dir, mirror, path=broken_dir)
    assert done.stdout.split() == ["False"]
    assert_all_is_there(base_dir)


def test_a_save_without_numbers_imports_no_library_of_tables(tmp_path: Path) -> None:
    code = """
import sys
from lotto_mlflow import ModelManager
from plain import Model
manager = ModelManager(sys.argv[1], mirror="off")
manager.save_model(Model(), "m", {"n": 1}, input_example=[{"a": 1, "b": "x"}, {"a": None}])
manager.save_model(Model(), "t", {"n": 1}, input_example="text")
from lotto_mlflow import facts
print([name for name in ("pandas", "scipy", "mlflow") if name in sys.modules])
"""
    (tmp_path / "plain.py").write_text(
        "class Model:\n    def predict(self, data):\n        return 1\n"
    )
    assert run(code, tmp_path / "ml", path=tmp_path).stdout.strip() == "[]"


def test_a_frame_with_integers_is_pushed_where_warnings_are_errors(
    manager: ModelManager, base_dir: Path, recwarn: pytest.WarningsRecorder
) -> None:
    manager.save_model(GaussianNB().fit(FRAME, [0, 1, 0] * 3), "m", input_example=FRAME)
    assert loaded(base_dir).metadata.signature.inputs.input_names() == ["a", "b"]
    assert not [w for w in recwarn if "integer column" in str(w.message)]


class Answers:
    """A model with an answer."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def predict(self, data: Any) -> Any:
        if self.answer is None:
            raise RuntimeError("no")
        return self.answer


@pytest.mark.parametrize(
    ("model", "example", "level"),
    [
        (Answers([1]), [(1, 2)], logging.INFO),
        (Answers([1]), [object], logging.INFO),
        (Answers([1]), pd.DataFrame({"p": pd.period_range("2025", periods=2)}), logging.INFO),
        (Answers([1]), np.zeros(2, [("a", "i4")]), logging.INFO),
        (Answers(None), [[1.0]], logging.WARNING),
    ],
    ids=["unknown to MLflow", "not recorded", "periods", "structured", "predict raises"],
)
def test_without_a_schema_the_signature_names_the_parameter_and_one_line_says_so(
    manager: ModelManager,
    base_dir: Path,
    model: Any,
    example: Any,
    level: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "lotto_mlflow")
    manager.save_model(model, "m", {"n": 1}, input_example=example)
    metadata = mlflow.models.Model.load(str(next(base_dir.rglob("MLmodel"))))
    assert (metadata.signature.inputs, metadata.signature.outputs) == (None, None)
    assert metadata.get_params_schema().params[0].name == "predict_method"
    assert metadata.saved_input_example_info is None
    lines = [
        r for r in caplog.records if r.name == "lotto_mlflow" and "signature" in r.getMessage()
    ]
    assert [line.levelno for line in lines] == [level]


def rewrite(base_dir: Path, name: str, **changes: Any) -> None:
    """Change what a waiting record says in its description."""
    (path,) = (base_dir / "mlflow" / "outbox").glob(f"*~{name}.json")
    record: Record[SavePayload] = parse(path.read_bytes())
    description = replace(record.payload.description, **changes)
    path.write_bytes(
        render(replace(record, payload=replace(record.payload, description=description)))
    )


def test_a_record_of_an_early_release_is_pushed_with_its_signature_and_example(
    base_dir: Path, forest: RandomForestClassifier
) -> None:
    """It holds the signature itself, and rows in a form of their own."""
    ModelManager(base_dir, mirror="off").save_model(forest, "m", {"n": 1})
    inputs = [{"type": "double", "name": name, "required": True} for name in "abcde"]
    outputs = [{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]
    value = {"columns": list("abcde"), "data": [[1.0, 2, 3, 4, 5]] * 2}
    rewrite(
        base_dir,
        "m",
        signature={"inputs": json.dumps(inputs), "outputs": json.dumps(outputs), "params": None},
        input_example={
            "kind": "frame",
            "value": value,
            "dtypes": dict.fromkeys("abcde", "float64"),
        },
        datasets=[
            {"context": "train", "name": "train", "digest": "0", "source_type": "code"}
            | {"source": "{}", "schema": "{}", "profile": None, "shape": [2, 5]}
        ],
    )
    manager = ModelManager(base_dir)
    assert manager.sync().sent == ["m"]
    model = loaded(base_dir)
    assert model.metadata.signature.inputs.input_names() == list("abcde")
    assert model.metadata.signature.outputs.is_tensor_spec()
    assert model.input_example.shape == (2, 5)


FACTS = {"kind": "frame", "rows": 1, "shape": [1, 1], "levels": 1, "columns": [{"name": "a"}]}
DATASET = {
    "context": "train",
    "name": "train",
    "digest": "0",
    "source": "{}",
    "source_type": "code",
}


@pytest.mark.parametrize(
    "changes",
    [
        {"example": {"input": FACTS, "output": None}},
        {"example": {"input": {"kind": "of a later release"}, "output": FACTS}},
        {
            "example": {
                "input": {"kind": "value", "rows": 5, "value": {"kind": "x"}},
                "output": None,
            }
        },
        {"signature": {"inputs": "[" * 90_000}},
        {"signature": {"inputs": '[{"type": "none"}]'}, "input_example": {"kind": "frame"}},
        {"signature": {}, "input_example": {"kind": "array", "value": [[1], 2], "dtype": "i8"}},
        {"datasets": [DATASET | {"facts": FACTS}]},
        {"datasets": [DATASET | {"facts": {"kind": "array", "shape": [2], "dtype": "x"}}]},
        {"datasets": [{"context": "train", "digest": "0"}]},
        {"datasets": [DATASET | {"name": ""}, DATASET | {"digest": "0" * 99}]},
        {"datasets": [DATASET | {"schema": "x" * 2**21}]},
    ],
    ids=range(11),
)
def test_odd_contents_of_a_record_keep_nothing_behind_it_from_mlflow(
    base_dir: Path, forest: RandomForestClassifier, changes: dict[str, Any]
) -> None:
    disk_only = ModelManager(base_dir, mirror="off")
    disk_only.save_model(forest, "odd", {"n": 1})
    disk_only.save_model(forest, "behind", {"n": 1})
    rewrite(base_dir, "odd", **changes)
    report = ModelManager(base_dir).sync()
    assert "behind" in report.sent
    assert "odd" in (*report.sent, *report.failed)


@pytest.mark.parametrize(
    "changes",
    [
        lambda d: d | {"example": {"input": 1, "output": None}},
        lambda d: d | {"example": {"input": {"kind": "list"}}},
        lambda d: d | {"example": {"input": {"kind": None}, "output": None}},
        lambda d: d | {"datasets": [{"context": 1, "digest": "0"}]},
        lambda d: d | {"datasets": [{"context": "a"}]},
        lambda d: d | {"datasets": [DATASET | {"shape": ["x"]}]},
        lambda d: d | {"datasets": [DATASET | {"facts": 1}]},
        lambda d: d | {"signature": {"inputs": 1}},
        lambda d: d | {"input_example": {"kind": 1}},
        lambda d: d | {"model_type": "\ud800"},
    ],
    ids=range(10),
)
def test_a_record_whose_fields_have_another_form_is_damaged(
    tmp_path: Path, changes: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    assert parse(with_description(PLAIN, lambda description: description)) == PLAIN
    content = with_description(PLAIN, changes)
    with pytest.raises(ValueError, match=r"form|surrogates"):
        parse(content)


def with_description(record: Record[Any], changes: Callable[[Any], Any]) -> bytes:
    """Return a record's JSON with another description, half characters escaped."""
    values = json.loads(render(record))
    values.pop("checksum")
    values["payload"]["description"] = changes(values["payload"]["description"])
    text = json.dumps(values, indent=2).removesuffix("\n}")
    return f'{text},\n  "checksum": "{sha256(text.encode()).hexdigest()}"\n}}'.encode()
