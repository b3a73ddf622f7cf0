"""`ModelManager.verify`: compare both views and the digests, and change nothing."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Literal

from lotto_mlflow import layout as names
from lotto_mlflow.errors import MirrorError
from lotto_mlflow.manager import backfill
from lotto_mlflow.manager.loading import known_digests, read_metadata
from lotto_mlflow.manager.matching import name_of_backup, save_of
from lotto_mlflow.manager.parts import Parts, disk_errors
from lotto_mlflow.metadata import strict
from lotto_mlflow.outbox import Entry
from lotto_mlflow.pyfunc_loader import recorded_sha256
from lotto_mlflow.records import Progress, SaveRecord, quiet
from lotto_mlflow.store import sha256_of_file

if TYPE_CHECKING:
    from lotto_mlflow.manager import ModelManager
    from lotto_mlflow.mirror import Mirror

Kind = Literal[
    "damaged",
    "changed",
    "missing on disk",
    "missing in MLflow",
    "orphan metadata",
    "orphan artifact",
    "stuck record",
    "moved store",
    "clock in the future",
    "late on top",
    "mlflow unavailable",
]
_CLOCK_TOLERANCE_NS = 60 * 10**9
_Known = tuple[Entry, SaveRecord]


@dataclass(frozen=True)
class Finding:
    """One difference.

    Attributes
    ----------
    kind : str
        ``damaged``: bytes that are not the ones saved, or a record that cannot be read.
        ``changed``: metadata that is not the one saved. ``missing on disk``: a save whose bytes
        are in neither folder. ``missing in MLflow``: a save or file that the store in force
        lacks. ``orphan metadata``: metadata without its model. ``orphan artifact``: a folder that
        no logged model owns. ``stuck record``: a save that MLflow refused. ``moved store``: a
        database with the paths of another folder. ``clock in the future``: a file that will stay
        the latest. ``late on top``: the highest version is an older save. ``mlflow unavailable``:
        the other view could not be looked at.
    name : str
        The model, if it is about one.
    path : pathlib.Path or None
        The file or folder.
    detail : str
        What was found.
    repair : str
        The call that mends it.
    """

    kind: Kind
    name: str
    path: Path | None
    detail: str
    repair: str


def verify(self: ModelManager, *, progress: Progress | None = None) -> list[Finding]:
    """Compare disk, records and MLflow, and tell every difference.

    Parameters
    ----------
    progress : callable, optional
        Told of the model files, whose digests are what takes long; as in
        `lotto_mlflow.records.Progress`.

    Returns
    -------
    list of Finding
        Empty where both views agree and every digest holds.

    Notes
    -----
    Reads only, and unpickles nothing. Saves under way may show as differences.
    """
    with disk_errors(self._parts, "verify could not be done"):
        return _findings(self, progress or quiet)


def _findings(manager: ModelManager, report: Progress) -> list[Finding]:
    parts, target = manager._parts, manager._target()
    told = [(entry, parts.outbox.readable(entry)) for entry in reversed(parts.outbox.entries())]
    known = [(entry, record) for entry, record in told if record is not None]
    findings = [*_folders(parts), *_files(parts, known, report), *_metadata(parts)]
    findings += [*_records(parts, told), *_unsent(parts, known, target)]
    try:
        findings += _in_mlflow(parts, manager._mirror(), known, target)
    except MirrorError as cause:
        findings.append(Finding("mlflow unavailable", "", None, str(cause), "try again later"))
    return findings


def _folders(parts: Parts) -> Iterator[Finding]:
    for folder in (*parts.store.folders, parts.layout.mlflow_dir):
        if folder.exists() and not folder.is_dir():
            detail = "it is no folder, and models belong in one"
            yield Finding(
                "damaged", "", folder, detail, f"mv {quote(str(folder))} {quote(f'{folder}.away')}"
            )


def _files(parts: Parts, known: list[_Known], report: Progress) -> Iterator[Finding]:
    """Check the digests of model files and of mirrored artifacts, and the files' times."""
    layout = parts.layout
    folders = (layout.trained_dir, layout.backup_dir, layout.downloads_dir)
    paths = [path for folder in folders for path in _below(folder, f"*{names.SUFFIX}")]
    mirrored = [path.parent for path in _below(layout.artifacts_dir, "MLmodel")]
    total = len(paths) + len(mirrored)
    for number, path in enumerate(paths):
        report(number, total, path.stat().st_size, names.name_of(path))
        yield from _model(parts, path)
    by_model_id = {
        place["model_id"]: record for _, record in known for place in record.mirrored.values()
    }
    for number, folder in enumerate(mirrored, len(paths)):
        record = by_model_id.get(folder.parent.name)
        report(number, total, record.size if record else 0, record.name if record else "")
        yield from _artifact(folder, record)
    report(total, total, 0, "")


def _below(folder: Path, pattern: str) -> list[Path]:
    found = folder.rglob(pattern) if folder.is_dir() else ()
    return sorted(path for path in found if path.is_file())


def _model(parts: Parts, path: Path) -> Iterator[Finding]:
    name = names.name_of(path)
    try:
        known, found = known_digests(parts, path), sha256_of_file(path)
    except PermissionError as cause:
        yield Finding(
            "damaged", name, path, f"it cannot be read: {cause}", f"chmod u+r {quote(str(path))}"
        )
        return
    if known and found not in known:
        detail = f"expected SHA-256 {' or '.join(sorted(known))}, found {found}"
        repair = f"ModelManager.restore({name!r}), or with source='registry'"
        if path.parent == parts.layout.backup_dir:
            repair = (
                f"rm {quote(str(path))}; ModelManager.restore({name_of_backup(parts, path)!r}, "
            )
            repair += "source='registry') may have the intact one"
        yield Finding("damaged", name, path, detail, repair)
    if path.stat().st_mtime_ns > time.time_ns() + _CLOCK_TOLERANCE_NS:
        yield Finding(
            "clock in the future",
            name,
            path,
            "its modification time has not come yet, so it stays the latest",
            f"touch {quote(str(path))}",
        )


def _artifact(folder: Path, record: SaveRecord | None) -> Iterator[Finding]:
    """Check a mirrored file, and what the ``MLmodel`` beside it says of it."""
    recorded = recorded_sha256(folder)
    name, expected = (record.name, record.sha256) if record else ("", recorded)
    repair = "delete the version in MLflow, then ModelManager.sync(resend=True)"
    if recorded != expected:
        detail = f"expected SHA-256 {expected} in it, found {recorded or 'none'}"
        yield Finding("damaged", name, folder / "MLmodel", detail, repair)
    for path in _below(folder / "data", f"*{names.SUFFIX}"):
        found = sha256_of_file(path)
        if expected is not None and found != expected:
            detail = f"expected SHA-256 {expected}, found {found}"
            yield Finding("damaged", name, path, detail, repair)


def _metadata(parts: Parts) -> Iterator[Finding]:
    layout = parts.layout
    folders = (
        (layout.metadata_dir, layout.model_path),
        (layout.backup_dir, lambda stem: layout.backup_dir / f"{stem}{names.SUFFIX}"),
    )
    for folder, path_of in folders:
        for path in sorted(folder.glob(f"*{names.METADATA_SUFFIX}")) if folder.is_dir() else []:
            stem = path.name.removesuffix(names.METADATA_SUFFIX)
            yield from _metadata_file(parts, path, path_of(stem))


def _metadata_file(parts: Parts, path: Path, model_path: Path) -> Iterator[Finding]:
    stem = names.name_of(model_path)
    is_backup = path.parent == parts.layout.backup_dir
    if not model_path.exists():
        if is_backup:  # a restore backs up the metadata of a model that is gone
            return
        repair = f"ModelManager.restore({stem!r}), or delete the file"
        yield Finding("orphan metadata", stem, path, "there is no model of this name", repair)
        return
    save, found = save_of(parts, model_path), read_metadata(path)
    if found is None or (save is not None and strict(found) != save.metadata):
        detail = "it is no JSON object" if found is None else "it is not the metadata saved"
        repair = f"ModelManager.restore({stem!r}, source='registry')"
        if is_backup:
            repair = "none is needed where the save is known: a restore takes what its record has"
        yield Finding("changed", stem, path, detail, repair)


def _records(parts: Parts, told: list[tuple[Entry, SaveRecord | None]]) -> Iterator[Finding]:
    """Check the records themselves, and that their bytes are somewhere on disk."""
    retry = "ModelManager.sync(retry_aside=True)"
    for entry, record in told:
        if record is None:
            repair = "none is needed: MLflow has the save; this file only says so"
            if entry.state != "sent":
                repair = "ModelManager.sync() sends the model without it; then "
                repair += f"rm {quote(str(entry.path))}"
            yield Finding("damaged", entry.name, entry.path, "the record cannot be read", repair)
            continue
        if entry.state == "aside" or record.tries:
            reason = record.reason or "it was set aside"
            yield Finding("stuck record", record.name, entry.path, reason, retry)
        if not parts.store.may_have(record):
            yield Finding(
                "missing on disk",
                record.name,
                parts.layout.model_path(record.name),
                f"the bytes of the save of {record.saved_at} are in neither folder",
                f"ModelManager.restore({record.name!r}, source='registry')",
            )


def _unsent(parts: Parts, known: list[_Known], target: str) -> Iterator[Finding]:
    for entry, record in known:
        if entry.state != "aside" and target not in record.mirrored:
            detail = f"the save of {record.saved_at} was not sent to the store in force"
            yield Finding(
                "missing in MLflow", record.name, entry.path, detail, "ModelManager.sync()"
            )
    for file in backfill.unknown_files(parts, include_backups=False):
        if not file.is_changed:  # which is told of as damaged
            detail = "the file is older than its records, or has none"
            yield Finding("missing in MLflow", file.name, file.path, detail, "ModelManager.sync()")


def _in_mlflow(parts: Parts, mirror: Mirror, known: list[_Known], target: str) -> Iterator[Finding]:
    moved_from = mirror.moved_from()
    if moved_from is not None:
        detail, repair = f"its database keeps artifacts in {moved_from}", "ModelManager.relocate()"
        if not moved_from.is_absolute():
            detail += ", relative to another folder than this one"
            repair = f"work from that folder, or {repair}"
        yield Finding("moved store", "", parts.layout.database_path, detail, repair)
    saves_in = functools.cache(mirror.saves_in)
    for entry, record in known:
        place = record.mirrored.get(target)
        if place is None:
            continue
        repair = "ModelManager.sync(resend=True)"
        if saves_in(names.registered_model(record.name)).get(place["version"]) != record.id:
            detail = f"version {place['version']} was deleted"
        elif not mirror.has_bytes(place["model_id"]):
            detail = f"the file of version {place['version']} is gone"
            repair = f"delete the version in MLflow, then {repair}"
        else:
            continue
        yield Finding("missing in MLflow", record.name, entry.path, detail, repair)
    for folder in mirror.orphan_folders():
        yield Finding(
            "orphan artifact", "", folder, "no logged model owns it", f"rm -r {quote(str(folder))}"
        )
    for registered in sorted({names.registered_model(record.name) for _, record in known}):
        if mirror.top_is_late(registered):
            detail = "the highest version is an older save; /latest of MLflow itself would load it"
            repair = "none is needed: this package looks past it"
            yield Finding("late on top", registered, None, detail, repair)
