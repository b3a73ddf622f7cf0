"""The MLflow model folder, built from files alone; the model itself is never loaded."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.pyfunc
from mlflow.entities import LoggedModel
from mlflow.models import Model

from lotto_mlflow import pyfunc_loader, regular
from lotto_mlflow.errors import MirrorError
from lotto_mlflow.files import copy_content, put
from lotto_mlflow.mirror import signatures
from lotto_mlflow.model_dir import DATA_FILE, FLAVOUR, NO_FILE, digests, is_data_intact
from lotto_mlflow.records import SaveRecord
from lotto_mlflow.regular import sha256_of_file
from lotto_mlflow.requirements import plain, version_in
from lotto_mlflow.text import one_line

_logger = logging.getLogger("lotto_mlflow")
_MOST_SHOWN = 5


def copy(pkl_path: Path, sha256: str, work_dir: Path) -> Path:
    """Copy the file of a model for `build`, if it has the bytes that were saved.

    Raises
    ------
    MirrorError
        If it has others: whoever replaced the file can have given it time and size of the save.

    Notes
    -----
    It is copied, never linked, so that a program that writes over one of the two in place cannot
    destroy both.
    """
    path = work_dir / "copy" / Path(DATA_FILE).name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)  # what another file left that had other bytes
    copy_content(pkl_path, path)
    found = sha256_of_file(path)
    if found != sha256:
        raise MirrorError(
            "its file was changed after it was saved, and is not sent: expected SHA-256 "
            f"{sha256}, found {found}",
            error_code="BYTES_CHANGED",
        )
    return path


def build(
    record: SaveRecord, data_path: Path, target_dir: Path, logged: LoggedModel, work_dir: Path
) -> None:
    """Write a complete model folder.

    Parameters
    ----------
    record : SaveRecord
        The save.
    data_path : pathlib.Path
        What `copy` returned; it is used up.
    target_dir : pathlib.Path
        The folder to write; it must be missing or empty.
    logged : mlflow.entities.LoggedModel
        The logged model that the folder belongs to.
    work_dir : pathlib.Path
        The workspace for temporary files.
    """
    description = record.payload.description
    pins = _pins(record)
    model = Model(model_id=logged.model_id, run_id=logged.source_run_id)
    model.add_flavor(
        FLAVOUR,
        data=DATA_FILE,
        sha256=record.payload.sha256,
        save_id=record.id,
        model_type=description.model_type,
        sklearn_version=version_in(pins, "scikit-learn"),
    )
    example, notes = None, None
    if description.predicts:  # as an argument, MLflow would validate the example
        signature, example = signatures.recorded(record)
        model.signature, notes = signatures.enforceable(signature, record)
    if example is not None:
        _write(target_dir, data_path, pins, work_dir, model, example, notes)
    else:
        frame = _frame(pins, work_dir)
        if description.predicts:
            flavour = frame.flavour | ({"config": notes} if notes else {})
            model.add_flavor(mlflow.pyfunc.FLAVOR_NAME, **flavour)
        _build_in(frame, target_dir, data_path, model, work_dir)


def _pins(record: SaveRecord) -> list[str]:
    """Return the requirements of a save that can be given to whoever installs the model."""
    given = record.payload.description.requirements
    pins = plain(given)
    if len(pins) != len(given):
        others = [one_line(f"{line!r:.80}") for line in given if line not in pins]
        left_out = f"{', '.join(others[:_MOST_SHOWN])}{', …' if others[_MOST_SHOWN:] else ''}"
        _logger.info(
            "requirements of %s that name no distribution are left out: %s", record.name, left_out
        )
    return pins


def repair(
    model_dir: Path, built_dir: Path, sha256: str, put_aside: Callable[[Path], None], work_dir: Path
) -> None:
    """Make a model folder what one that was built is, in place.

    Parameters
    ----------
    model_dir : pathlib.Path
        The folder to repair.
    built_dir : pathlib.Path
        What `build` wrote; it is used up.
    sha256 : str
        Digest of the model: where it is intact, it stays as it is.
    put_aside : callable
        Moves a file or folder to where nothing looks for it.
    work_dir : pathlib.Path
        The workspace for temporary files.
    """
    found = digests(model_dir) if not model_dir.is_symlink() else {"": NO_FILE}
    if NO_FILE in found.values() or not model_dir.is_dir():
        put_aside(model_dir)
        found = {}
    built = digests(built_dir)
    for name in found.keys() - built.keys():
        put_aside(model_dir / name)
    replaced = [name for name in built if found.get(name) != built[name]]
    if not is_data_intact(model_dir, sha256):
        if regular.is_file(model_dir / DATA_FILE):
            put_aside(model_dir / DATA_FILE)
        replaced.append(DATA_FILE)
    for name in replaced:
        (model_dir / name).parent.mkdir(parents=True, exist_ok=True)
        if (model_dir / name).is_dir():  # which has no digest, and no file takes its place
            put_aside(model_dir / name)
        put(built_dir / name, model_dir / name, work_dir)


def _write(
    target_dir: Path,
    data_path: Path,
    pins: list[str],
    work_dir: Path,
    model: Model,
    example: object = None,
    notes: dict[str, Any] | None = None,
) -> None:
    """Have MLflow write a model folder."""
    loader_dir = work_dir / pyfunc_loader.MODULE_NAME
    loader_dir.mkdir(exist_ok=True)
    for path in pyfunc_loader.module_paths():
        shutil.copyfile(path, loader_dir / path.name)
    mlflow.pyfunc.save_model(
        path=str(target_dir),
        loader_module=pyfunc_loader.MODULE_NAME,
        data_path=str(data_path),
        code_paths=[str(loader_dir)],
        mlflow_model=model,
        model_config=notes,  # which MLflow gives to the loader
        pip_requirements=pins,
        input_example=example,
        uv_project_path=str(work_dir),  # else MLflow copies a uv.lock of the current folder
    )


@dataclass(frozen=True)
class _Frame:
    """What the model folders of one set of requirements have in common.

    Attributes
    ----------
    flavour : dict
        How MLflow opens the folder.
    files : dict of str to bytes
        Its files, but for the model and the ``MLmodel``.
    """

    flavour: dict[str, Any]
    files: dict[str, bytes]


_FRAMES: dict[tuple[str, ...], _Frame] = {}


def _frame(pins: list[str], work_dir: Path) -> _Frame:
    """Return what MLflow writes around a model, written by itself once a process.

    Notes
    -----
    At each call MLflow reads what is installed and renders the same YAML again: that would be a
    fifth of the work of a push.
    """
    key = tuple(pins)
    if key not in _FRAMES:
        model, folder = Model(), work_dir / "frame"
        data_path = work_dir / "empty" / Path(DATA_FILE).name
        data_path.parent.mkdir()
        data_path.touch()
        _write(folder, data_path, pins, work_dir, model)
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        content = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
        del content[DATA_FILE], content["MLmodel"]
        _FRAMES[key] = _Frame(model.flavors[mlflow.pyfunc.FLAVOR_NAME], content)
    return _FRAMES[key]


def warm_up(work_dir: Path) -> None:
    """Have MLflow read what is installed, which it does once a process, before the first push."""
    _frame(["joblib"], work_dir)


def _build_in(
    frame: _Frame,
    target_dir: Path,
    copied_path: Path,
    model: Model,
    work_dir: Path,
) -> None:
    for name, content in frame.files.items():
        path = target_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    data_path = target_dir / DATA_FILE
    data_path.parent.mkdir(exist_ok=True)
    put(copied_path, data_path, work_dir)
    model.model_size_bytes = data_path.stat().st_size
    model.save(str(target_dir / "MLmodel"))
