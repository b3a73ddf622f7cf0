"""Folders that operations find: one model, thousands of models and versions, old files."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
from bench.operations import METADATA
from bench.ours import FIRST_NUMBER, base_dir

from lotto_mlflow import ModelManager, records
from lotto_mlflow.records import MlflowIds, SaveRecord

_STEP_NS = 10**9


def with_versions(folder: Path, count: int, tiny_path: Path, newest_path: Path) -> Path:
    """Make a folder with so many models, all of them mirrored, the newest through the package.

    Notes
    -----
    The first and the newest are saved. Those between are copies of the first: of its file, its
    metadata, its record, and of its rows in the database, which are what MLflow would have written.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    base = base_dir(folder)
    manager = ModelManager(base)
    if count > 1:
        manager.save_model(joblib.load(tiny_path), f"lotto_model_{FIRST_NUMBER}", METADATA)
        _multiply(base, count - 2)
    manager.save_model(joblib.load(newest_path), "lotto_model_99999999", METADATA)
    if manager.get("lotto_model_99999999").version != count:
        raise RuntimeError(f"the saves in {base} were not mirrored: {manager.verify()}")
    return folder


def mirrored(folder: Path, count: int, model_path: Path) -> Path:
    """Make a folder with so many saves of one model, all of them through the package."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    manager, model = ModelManager(base_dir(folder), mirror="background"), joblib.load(model_path)
    for number in range(count):
        manager.save_model(model, f"lotto_model_{FIRST_NUMBER + number}", METADATA)
    manager.flush(timeout=600)
    findings = manager.verify()
    if findings:
        raise RuntimeError(f"the saves in {folder} were not mirrored: {findings[0]}")
    return folder


def copied(source: Path, target: Path) -> Path:
    """Make a folder like another, for an operation that adds to it."""
    shutil.copytree(source, target)
    ModelManager(base_dir(target)).relocate()
    return target


@dataclass(frozen=True)
class _Save:
    """What sets one save apart from others of the same model."""

    id: str
    name: str
    time_ns: int
    version: int
    run_id: str
    model_id: str


def _save_of(record: SaveRecord) -> _Save:
    ids = record.mirrored["embedded"]
    time_ns = record.payload.saved_at_ns
    return _Save(record.id, record.name, time_ns, ids.version, ids.run_id, ids.model_id)


def _record_of(save: _Save, like: SaveRecord, metadata: dict[str, Any]) -> SaveRecord:
    """Return the record of a save; this and `_save_of` are all that knows the form of a record."""
    ids = MlflowIds(version=save.version, run_id=save.run_id, model_id=save.model_id)
    payload = replace(like.payload, name=save.name, saved_at_ns=save.time_ns, metadata=metadata)
    return replace(like, id=save.id, mirrored={"embedded": ids}, payload=payload)


def _multiply(base: Path, count: int) -> None:
    sent_dir, trained_dir = base / "mlflow" / "sent", base / "trained"
    record = records.parse(next(sent_dir.iterdir()).read_bytes())
    first = _save_of(record)
    metadata_path = base / "metadata" / f"{first.name}_metadata.json"
    metadata = metadata_path.read_text(encoding="utf-8")
    twins = [_twin(first, number, count) for number in range(1, count + 1)]
    for twin in twins:
        path = trained_dir / f"{twin.name}.pkl"
        shutil.copyfile(trained_dir / f"{first.name}.pkl", path)
        os.utime(path, ns=(twin.time_ns, twin.time_ns))
        text = metadata.replace(first.name, twin.name)
        beside = metadata_path.with_name(f"{twin.name}_metadata.json")
        beside.write_text(text, encoding="utf-8")
        content = records.render(_record_of(twin, record, json.loads(text)))
        (sent_dir / f"{twin.id}~sent~{twin.name}.json").write_bytes(content)
    with closing(sqlite3.connect(base / "mlflow" / "mlflow.db")) as database, database:
        for table in _tables(database):
            _copy_rows(database, table, first, twins)


def _twin(first: _Save, number: int, count: int) -> _Save:
    """Return a save like the first, in a line of them that ends before it."""
    time_ns = first.time_ns - (count + 1 - number) * _STEP_NS
    return _Save(
        id=f"{time_ns:019d}-{uuid.uuid4().hex[:8]}",
        name=f"lotto_model_{FIRST_NUMBER + number}",
        time_ns=time_ns,
        version=number + 1,
        run_id=uuid.uuid4().hex,
        model_id=f"m-{uuid.uuid4().hex}",
    )


def _tables(database: sqlite3.Connection) -> list[str]:
    found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return [name for (name,) in found.fetchall()]


def _copy_rows(database: sqlite3.Connection, table: str, first: _Save, twins: list[_Save]) -> None:
    """Add the first save's rows of a table for each twin, under the twin's identity."""
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    rows = [
        row
        for row in database.execute(f"SELECT * FROM {table}").fetchall()
        if {first.run_id, first.model_id} & set(row)
        or ("version" in columns and row[columns.index("version")] == first.version)
    ]
    marks = ", ".join("?" * len(columns))
    for row in rows:
        copies = (_renamed(row, columns, first, twin) for twin in twins)
        database.executemany(f"INSERT INTO {table} VALUES ({marks})", copies)


def _renamed(
    row: tuple[Any, ...], columns: list[str], first: _Save, twin: _Save
) -> tuple[Any, ...]:
    texts = {
        first.run_id: twin.run_id,
        first.model_id: twin.model_id,
        first.id: twin.id,
        first.name: twin.name,
    }
    values = []
    for column, value in zip(columns, row, strict=True):
        if column == "version":
            value = twin.version
        elif column == "input_uuid":
            value = uuid.uuid4().hex
        elif isinstance(value, str):
            for text, replacement in texts.items():
                value = value.replace(text, replacement)
        values.append(value)
    return tuple(values)


def with_files(folder: Path, count: int, size_bytes: int) -> Path:
    """Make a folder with so many old files of one size, with metadata, that no record knows."""
    base = base_dir(folder)
    for name in ("trained", "metadata"):
        (base / name).mkdir(parents=True)
    for number in range(count):
        name = f"lotto_model_{FIRST_NUMBER + number}"
        path = base / "trained" / f"{name}.pkl"
        joblib.dump({"number": number, "bytes": os.urandom(size_bytes)}, path)
        os.utime(path, (1_600_000_000 + number, 1_600_000_000 + number))
        text = json.dumps(METADATA, ensure_ascii=False)
        (base / "metadata" / f"{name}_metadata.json").write_text(text, encoding="utf-8")
    return folder
