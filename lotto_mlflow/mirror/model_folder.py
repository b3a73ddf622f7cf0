"""The MLflow model folder, built from files alone; the model itself is never loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow.pyfunc
from mlflow.entities import LoggedModel
from mlflow.models import Model, ModelSignature

from lotto_mlflow import pyfunc_loader
from lotto_mlflow.mirror import examples
from lotto_mlflow.records import SaveRecord
from lotto_mlflow.requirements import version_in

FLAVOUR = "lotto_mlflow"
"""Our own flavour: it says which file is the model, and what its digest is."""
DATA_FILE = "data/model.pkl"
"""Where the model lies in its folder: one name for all, so that no URI has to quote it."""


def build(
    record: SaveRecord, pkl_path: Path, target_dir: Path, logged: LoggedModel, work_dir: Path
) -> None:
    """Write a complete model folder.

    Parameters
    ----------
    record : SaveRecord
        The save.
    pkl_path : pathlib.Path
        The file with the bytes of the save, named as in `DATA_FILE`; it is copied, never linked,
        so that a program that writes over one of the two in place cannot destroy both.
    target_dir : pathlib.Path
        The folder to write; it must be missing or empty.
    logged : mlflow.entities.LoggedModel
        The logged model that the folder belongs to.
    work_dir : pathlib.Path
        The workspace for temporary files.
    """
    description = record.description
    loader_path = work_dir / f"{pyfunc_loader.MODULE_NAME}.py"
    shutil.copyfile(str(pyfunc_loader.__file__), loader_path)
    model = Model(model_id=logged.model_id, run_id=logged.source_run_id)
    if description.predicts:
        model.signature = _signature(record)  # as an argument, MLflow would validate the example
    model.add_flavor(
        FLAVOUR,
        data=DATA_FILE,
        sha256=record.sha256,
        save_id=record.id,
        model_type=description.model_type,
        sklearn_version=version_in(description.requirements, "scikit-learn"),
    )
    mlflow.pyfunc.save_model(
        path=str(target_dir),
        loader_module=pyfunc_loader.MODULE_NAME,
        data_path=str(pkl_path),
        code_paths=[str(loader_path)],
        mlflow_model=model,
        pip_requirements=description.requirements,
        input_example=_input_example(record) if description.predicts else None,
        uv_project_path=str(work_dir),  # else MLflow copies a uv.lock of the current folder
    )
    if not description.predicts:
        del model.flavors[mlflow.pyfunc.FLAVOR_NAME]
        model.save(str(target_dir / "MLmodel"))


def _signature(record: SaveRecord) -> ModelSignature:
    inferred = record.description.signature
    return ModelSignature.from_dict(inferred) if inferred else examples.parameter_only()


def _input_example(record: SaveRecord) -> object:
    kept = record.description.input_example
    return examples.rebuilt(kept) if kept else None
