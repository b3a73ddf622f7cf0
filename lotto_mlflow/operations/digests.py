"""The digests of model files, downloads and mirrored models, and the findings where one differs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lotto_mlflow import advice, regular
from lotto_mlflow import layout as names
from lotto_mlflow.errors import Fix
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.journal import Entry
from lotto_mlflow.model_dir import DATA_FILE, differing
from lotto_mlflow.model_file import ModelFile
from lotto_mlflow.operations.load import fix_of_name
from lotto_mlflow.pyfunc_loader import recorded_sha256
from lotto_mlflow.records import Finding, MlflowIds, Progress, SaveRecord
from lotto_mlflow.settings import CLOCK_TOLERANCE_SECONDS
from lotto_mlflow.store import sha256_of_file

_HASHING_THREADS = 2


@dataclass(frozen=True)
class _ToHash:
    """A file whose digest is checked, and what is known of it."""

    path: Path
    size: int
    name: str
    file: ModelFile | None = None
    save: SaveRecord | None = None
    files: Mapping[str, str] | None = None


def digests(
    folder: ModelFolder, history: History, entries: list[Entry], report: Progress
) -> Iterator[Finding]:
    """Check the digests of model files and of mirrored artifacts, and the files' times."""
    to_hash = [*_model_files(folder, history), *_artifacts(folder, history, entries)]
    pool = ThreadPoolExecutor(_HASHING_THREADS)
    try:
        hashed = pool.map(_sha256, to_hash)
        for number, item in enumerate(to_hash):
            report(number, len(to_hash), item.size, item.name)
            found = next(hashed)
            if item.file is None:
                yield from _artifact(item, found)
            else:
                yield from of_model_file(history, item.file, found)
    finally:
        pool.shutdown(cancel_futures=True)
    report(len(to_hash), len(to_hash), 0, "")


def _sha256(item: _ToHash) -> str | OSError:
    try:
        return sha256_of_file(item.path) if item.file is None else item.file.sha256
    except OSError as cause:
        return cause


def _model_files(folder: ModelFolder, history: History) -> Iterator[_ToHash]:
    is_there = regular.is_folder(folder.layout.downloads_dir)
    found = _below(folder.layout.downloads_dir, "*.pkl") if is_there else []
    downloads = [history.file(path) for path in found]
    for file in (*history.trained_files, *history.backup_files, *downloads):
        yield _ToHash(file.path, file.status.st_size, file.stem, file)


def _artifacts(folder: ModelFolder, history: History, entries: list[Entry]) -> Iterator[_ToHash]:
    by_model_id: dict[str, tuple[SaveRecord, MlflowIds]] = {}
    for entry in entries:
        record = history.read(entry)
        if record is not None and record.is_save:
            by_model_id |= {ids.model_id: (record, ids) for ids in record.mirrored.values()}
    for model_dir in _model_dirs(folder, by_model_id):
        save, ids = by_model_id.get(model_dir.parent.name, (None, None))
        name, size = (save.name, save.payload.size) if save else ("", 0)
        files = ids.files if ids else None
        found = [] if files else _below(model_dir / "data", f"*{names.SUFFIX}")
        for path in found or [model_dir / DATA_FILE]:
            yield _ToHash(path, size, name, save=save, files=files)


def _model_dirs(folder: ModelFolder, model_ids: Iterable[str]) -> list[Path]:
    """Return the mirrored model folders, those without their ``MLmodel`` among them."""
    artifacts_dir = folder.layout.artifacts_dir
    found = {path.parent for path in _below(artifacts_dir, "MLmodel")}
    for models_dir in artifacts_dir.glob("*/models"):
        expected = (models_dir / model_id / "artifacts" for model_id in model_ids if model_id)
        found.update(path for path in expected if os.path.lexists(path))
    return sorted(found)


def _below(folder: Path, pattern: str) -> list[Path]:
    found = (path for path, odd_kind in regular.below(folder) if odd_kind is None)
    return sorted(path for path in found if path.match(pattern))


def of_model_file(history: History, file: ModelFile, found: str | OSError) -> Iterator[Finding]:
    """Compare a model file with what is known of it.

    Parameters
    ----------
    history : History
        The records.
    file : ModelFile
        The file.
    found : str or OSError
        Its digest, or why it has none.
    """
    name, path = file.stem, file.path
    if isinstance(found, OSError):
        helps = advice.of_error(found, path, reads=True)
        yield Finding("damaged", name, path, f"it cannot be read: {found}", helps)
        return
    expected = history.expected(file)
    if expected and found not in expected:
        detail = f"expected SHA-256 {' or '.join(sorted(expected))}, found {found}"
        yield Finding("damaged", name, path, detail, fix=_fix_of_damaged(history, file))
    end_ns = time.time_ns() + CLOCK_TOLERANCE_SECONDS * 10**9
    if file.time_ns > end_ns and not file.is_download:  # which never is the latest
        yield Finding(
            "clock in the future",
            name,
            path,
            "its modification time has not come yet, so it stays the latest",
            fix=Fix("shell", {"command": ("touch", path)}),
        )


def _fix_of_damaged(history: History, file: ModelFile) -> Fix:
    """Return what ends a damage: an intact file in its place, or else none in its place."""
    fix = fix_of_name(history, file.stem) if file.is_trained else None
    return fix or moved_away(file.path, history.aside_path(file))


def _artifact(item: _ToHash, found: str | OSError) -> Iterator[Finding]:
    """Check a mirrored file, and what the ``MLmodel`` beside it says of it."""
    model_dir = item.path.parent.parent
    if model_dir.is_symlink() or model_dir.parent.is_symlink():
        return  # which is found among what is no file, and what lies elsewhere was not pushed here
    has_ml_model = regular.is_file(model_dir / "MLmodel")
    recorded = recorded_sha256(model_dir) if has_ml_model else None
    expected = item.save.payload.sha256 if item.save else recorded
    fix = Fix("sync", {"resend": True}, effect="writes it anew") if item.save else None
    if item.files:
        for name in differing(model_dir, dict(item.files)):
            detail = "it is not the file that was pushed there, and MLflow may run it"
            yield Finding("damaged", item.name, model_dir / name, detail, fix=fix)
    elif recorded != expected:
        detail = f"expected SHA-256 {expected} in it, found {recorded or 'none'}"
        yield Finding("damaged", item.name, model_dir / "MLmodel", detail, fix=fix)
    is_gone = isinstance(found, FileNotFoundError)  # what is about its version says so
    if expected is not None and found != expected and not is_gone:
        detail = f"expected SHA-256 {expected}, found {found}"
        yield Finding("damaged", item.name, item.path, detail, fix=fix)


def moved_away(path: Path, to: Path | None = None) -> Fix:
    """Return the command that moves an existing file or folder, by default to beside its place."""
    return Fix("shell", {"command": ("mv", path, to or f"{path}.away")})
