"""Folders that operations find: one model, thousands of models and versions, old files."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import uuid
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
from bench.operations import METADATA
from bench.ours import FIRST_NUMBER, base_dir

from lotto_mlflow import ModelManager, records
from lotto_mlflow.records import SaveRecord

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


def _multiply(base: Path, count: int) -> None:
    sent_dir, trained_dir = base / "mlflow" / "sent", base / "trained"
    first = records.parse(next(sent_dir.iterdir()).read_bytes())
    metadata_path = base / "metadata" / f"{first.name}_metadata.json"
    metadata = metadata_path.read_text(encoding="utf-8")
    place = first.mirrored["embedded"]
    twins = []
    for number in range(1, count + 1):
        twin = _twin(first, place, number, count)
        twins.append(twin)
        path = trained_dir / f"{twin.name}.pkl"
        shutil.copyfile(trained_dir / f"{first.name}.pkl", path)
        os.utime(path, ns=(twin.saved_at_ns, twin.saved_at_ns))
        beside = metadata_path.with_name(f"{twin.name}_metadata.json")
        text = metadata.replace(first.name, twin.name)
        beside.write_text(text, encoding="utf-8")
        record_path = sent_dir / f"{twin.id}~sent~{twin.name}.json"
        record_path.write_bytes(records.render(replace(twin, metadata=json.loads(text))))
    with closing(sqlite3.connect(base / "mlflow" / "mlflow.db")) as database, database:
        for table in _tables(database):
            _copy_rows(database, table, first, twins)


def _twin(first: SaveRecord, place: dict[str, Any], number: int, count: int) -> SaveRecord:
    """Return the record of a save like the first, in a line of them that ends before it."""
    time_ns = first.saved_at_ns - (count + 1 - number) * _STEP_NS
    run_id, model_id = uuid.uuid4().hex, f"m-{uuid.uuid4().hex}"
    return replace(
        first,
        id=f"{time_ns:019d}-{uuid.uuid4().hex[:8]}",
        name=f"lotto_model_{FIRST_NUMBER + number}",
        saved_at_ns=time_ns,
        mirrored={
            "embedded": place | {"version": number + 1, "run_id": run_id, "model_id": model_id}
        },
    )


def _tables(database: sqlite3.Connection) -> list[str]:
    found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return [name for (name,) in found.fetchall()]


def _copy_rows(
    database: sqlite3.Connection, table: str, first: SaveRecord, twins: list[SaveRecord]
) -> None:
    """Add the first save's rows of a table for each twin, under the twin's identity."""
    place = first.mirrored["embedded"]
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    rows = [
        row
        for row in database.execute(f"SELECT * FROM {table}").fetchall()
        if {place["run_id"], place["model_id"]} & set(row)
        or ("version" in columns and row[columns.index("version")] == place["version"])
    ]
    marks = ", ".join("?" * len(columns))
    for row in rows:
        copies = (_renamed(row, columns, first, twin) for twin in twins)
        database.executemany(f"INSERT INTO {table} VALUES ({marks})", copies)


def _renamed(
    row: tuple[Any, ...], columns: list[str], first: SaveRecord, twin: SaveRecord
) -> tuple[Any, ...]:
    old, new = first.mirrored["embedded"], twin.mirrored["embedded"]
    texts = {
        old["run_id"]: new["run_id"],
        old["model_id"]: new["model_id"],
        first.id: twin.id,
        first.name: twin.name,
    }
    values = []
    for column, value in zip(columns, row, strict=True):
        if column == "version":
            value = new["version"]
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
