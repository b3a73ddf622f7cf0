"""What a save looks like in MLflow: run, logged model, version, model folder."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import joblib
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from sklearn.ensemble import RandomForestClassifier

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import DigestMismatchError

METADATA = {
    "accuracy": 0.75,
    "hits": [0.7, 0.9, 0.8],
    "n_estimators": 999,
    "source": "모의 추첨",
    "split": {"train": 800, "test": 200},
    "is_final": True,
}


@pytest.fixture
def client(base_dir: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")


def _run(client: MlflowClient, manager: ModelManager, path: str) -> Any:
    record = manager.get(path)
    assert record.run_id is not None
    return client.get_run(record.run_id)


def test_a_save_is_one_finished_run_with_parameters_metrics_and_tags(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier
) -> None:
    path = manager.save_model(forest, metadata=METADATA)
    experiment = client.get_experiment_by_name("lotto_model")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == Path(path).stem
    assert run.data.params["n_estimators"] == "5"  # the hyperparameter wins
    assert run.data.params["source"] == "모의 추첨"
    assert run.data.params["is_final"] == "True"
    assert run.data.metrics["accuracy"] == 0.75
    assert run.data.metrics["split.train"] == 800
    assert "n_estimators" not in run.data.metrics
    steps = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "hits")]
    assert sorted(steps) == [(0, 0.7), (1, 0.9), (2, 0.8)]
    assert {"mlflow.user", "mlflow.source.name", "mlflow.source.type"} <= run.data.tags.keys()
    saved_ms = Path(path).stat().st_mtime_ns // 10**6
    assert run.info.end_time == saved_ms


def test_the_logged_model_shows_the_parameters_and_metrics_of_its_run(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier
) -> None:
    path = manager.save_model(forest, metadata=METADATA)
    run = _run(client, manager, path)
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert model.status == "READY"
    assert model.params == run.data.params
    assert {m.key: m.value for m in model.metrics if m.key != "hits"} == {
        key: value for key, value in run.data.metrics.items() if key != "hits"
    }


def test_a_version_carries_name_digest_time_and_id_of_its_save(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier
) -> None:
    path = manager.save_model(forest, metadata=METADATA)
    version = client.get_model_version("lotto_model", "1")
    on_disk = json.loads((Path(path).parents[1] / "metadata").glob("*.json").__next__().read_text())
    assert version.tags["model_name"] == Path(path).stem
    assert version.tags["sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert version.tags["saved_at"] == on_disk["saved_at"]
    assert version.tags["save_id"].startswith(str(Path(path).stat().st_mtime_ns))


def test_the_model_folder_holds_the_very_bytes_that_are_on_disk(
    manager: ModelManager, base_dir: Path, forest: RandomForestClassifier
) -> None:
    path = Path(manager.save_model(forest))
    (mirrored,) = (base_dir / "mlflow" / "artifacts").rglob("data/*.pkl")
    assert mirrored.read_bytes() == path.read_bytes()
    assert not mirrored.samefile(path)  # a program that overwrites one must not destroy both


def test_requirements_are_pinned_and_never_name_pytest(
    manager: ModelManager, base_dir: Path, forest: RandomForestClassifier
) -> None:
    manager.save_model(forest)
    (listed,) = (base_dir / "mlflow" / "artifacts").rglob("requirements.txt")
    names = dict(line.split("==") for line in listed.read_text().split())
    assert names.keys() == {"joblib", "mlflow", "numpy", "scikit-learn", "scipy"}
    assert names["mlflow"] == mlflow.__version__


def test_a_uv_lock_in_the_current_folder_stays_out_of_the_model(
    manager: ModelManager, base_dir: Path, forest: RandomForestClassifier
) -> None:
    for name in ("uv.lock", "pyproject.toml", ".python-version"):
        Path(name).write_text("")
    manager.save_model(forest)
    assert not list((base_dir / "mlflow" / "artifacts").rglob("uv.lock"))


def test_the_metadata_and_the_callers_artifacts_are_artifacts_of_the_run(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier, tmp_path: Path
) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2, 3])
    table = tmp_path / "table.csv"
    table.write_text("a,b\n1,2\n")
    path = manager.save_model(
        forest,
        metadata=METADATA,
        artifacts={
            "plot": figure,
            "notes/summary.md": "# 요약",
            "confusion": {"tp": np.int64(3)},
            "table.csv": table,
        },
    )
    run_id = _run(client, manager, path).info.run_id
    found = {item.path for item in client.list_artifacts(run_id)}
    metadata_name = f"{Path(path).stem}_metadata.json"
    assert found == {"plot.png", "notes", "confusion.json", "table.csv", metadata_name}
    folder = Path(
        mlflow.artifacts.download_artifacts(
            run_id=run_id, tracking_uri=client.tracking_uri, dst_path=str(tmp_path / "got")
        )
    )
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "notes" / "summary.md").read_text(encoding="utf-8") == "# 요약"
    assert json.loads((folder / "confusion.json").read_text()) == {"tp": 3}
    assert (folder / "table.csv").read_text() == "a,b\n1,2\n"
    on_disk = Path(path).parents[1] / "metadata" / metadata_name
    assert (folder / metadata_name).read_bytes() == on_disk.read_bytes()


@pytest.mark.parametrize("name", ["m", "모델 1", "a'b", "a.2", "a~b~c", "v1&2=3+4"])
def test_any_plain_file_name_is_a_registered_model_of_its_own(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier, name: str
) -> None:
    path = manager.save_model(forest, name, {"a": 1})
    manager.save_model(forest, name, {"a": 2})
    record = manager.get(name)
    assert (record.registered_model, record.version) == (name, 2)
    assert client.get_model_version(name, "2").tags["model_name"] == name
    loaded = manager.load_model(f"models:/{name}/1")
    assert type(loaded) is RandomForestClassifier
    assert manager.load_model(path).n_estimators == 5


def test_the_bare_name_is_not_mixed_with_the_generated_ones(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier
) -> None:
    manager.save_model(forest, "lotto_model")
    assert manager.get("lotto_model").registered_model == "lotto_model.pkl"
    assert manager.get_latest_model_path(source="registry") is None
    assert manager.get_latest_model_path() is None


def test_an_object_without_predict_has_no_python_function_flavour(
    manager: ModelManager, base_dir: Path
) -> None:
    manager.save_model({"weights": np.arange(3), "이름": "모델"}, "weights")
    (folder,) = {p.parent for p in (base_dir / "mlflow" / "artifacts").rglob("MLmodel")}
    assert "python_function" not in mlflow.models.Model.load(folder).flavors
    loaded = manager.load_model("models:/weights/1")
    assert loaded["weights"].tolist() == [0, 1, 2]


def test_several_hundred_odd_metadata_keys_do_not_fail_a_save(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier
) -> None:
    metadata: dict[str, Any] = {f"key {i}": i for i in range(300)}
    metadata |= {"정확도(%)": 0.5, "정확도[%]": 0.6, "a//b": 1, "..": 2, "": 3, "k" * 400: 4}
    metadata |= {"long": "긴" * 10_000, "nan": float("nan"), "curve": list(range(2500))}
    path = manager.save_model(forest, metadata=metadata)
    run = _run(client, manager, path)
    assert len([key for key in run.data.metrics if key.startswith("key ")]) == 300
    assert {0.5, 0.6, 1.0, 2.0, 3.0, 4.0} <= set(run.data.metrics.values())
    assert len(run.data.params["long"]) == 6000
    assert json.loads(run.data.tags["non_finite"]) == {"nan": "nan"}
    assert "nan" not in run.data.metrics
    history = client.get_metric_history(run.info.run_id, "curve")
    assert len(history) == 1000  # evenly spread, the first and the last among them


def test_an_input_example_gives_the_signature_of_inputs_and_outputs(
    manager: ModelManager, base_dir: Path, forest: RandomForestClassifier, rows: Any
) -> None:
    manager.save_model(forest, input_example=rows[0][:7])
    loaded = mlflow.pyfunc.load_model(str(_only_model_folder(base_dir)))
    assert loaded.metadata.signature.inputs.inputs[0].shape == (-1, 5)
    assert loaded.metadata.signature.outputs is not None
    assert loaded.metadata.get_params_schema().params[0].name == "predict_method"
    assert np.array_equal(loaded.input_example, rows[0][:5])
    assert loaded.predict(rows[0], params={"predict_method": "predict_proba"}).shape == (60, 2)


def test_an_input_example_that_does_not_fit_only_warns(
    manager: ModelManager,
    base_dir: Path,
    forest: RandomForestClassifier,
    caplog: pytest.LogCaptureFixture,
) -> None:
    manager.save_model(forest, input_example=[["not", "numbers"]])
    assert "no signature could be inferred" in caplog.text
    assert mlflow.pyfunc.load_model(str(_only_model_folder(base_dir))).metadata.signature


def _only_model_folder(base_dir: Path) -> Path:
    (folder,) = {p.parent for p in (base_dir / "mlflow" / "artifacts").rglob("MLmodel")}
    return folder


@pytest.mark.parametrize("names_a_save", [True, False])
def test_an_artifact_that_was_replaced_with_its_text_is_not_opened_by_its_path(
    base_dir: Path, names_a_save: bool
) -> None:
    manager = ModelManager(base_dir)
    manager.save_model({"a": 1}, "x", {"n": 1})
    (model_dir,) = {p.parent for p in (base_dir / "mlflow" / "artifacts").rglob("MLmodel")}
    data_path = model_dir / "data" / "model.pkl"
    assert manager.load_model(data_path) == {"a": 1}
    joblib.dump({"evil": 1}, data_path)
    text = (model_dir / "MLmodel").read_text(encoding="utf-8")
    digest = hashlib.sha256(data_path.read_bytes()).hexdigest()
    text = re.sub(r"sha256: \w{64}", f"sha256: {digest}", text)
    if not names_a_save:
        text = re.sub(r"save_id: \S+", "save_id: 1700000000000000000-00000000", text)
    (model_dir / "MLmodel").write_text(text, encoding="utf-8")
    with pytest.raises(DigestMismatchError):
        manager.load_model(data_path)
