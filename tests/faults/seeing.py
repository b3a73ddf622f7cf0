"""What lies in a folder and in its database at one moment; the package is not asked."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from faults.acts import Version
from faults.inspection import digest

from lotto_mlflow.layout import name_of_backup, registered_model

FOLDERS = ("trained", "metadata", "backups")
Files = dict[str, tuple[str, int]]
"""Digest and time of files."""


@dataclass
class Seen:
    """What lies in the folder, and in MLflow, at one moment.

    Attributes
    ----------
    files : dict of str to (str, int)
        Digest and time of each file in the specification's folders.
    artifacts : dict of str to str
        Digest of the model file in each model folder.
    versions : dict
        Each version's model folder, id of its save, run and logged model; empty texts for none.
        There are none where the database is away.
    """

    files: Files = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    versions: dict[Version, tuple[str, str, str, str]] = field(default_factory=dict)

    def bytes_of(self, version: Version) -> str | None:
        """Return the digest of a version's model file, ``None`` where there is none."""
        return self.artifacts.get(self.versions[version][0]) if version in self.versions else None

    @property
    def models(self) -> dict[str, str]:
        """The digest of each model file in the specification's folders."""
        return {file: sha for file, (sha, _) in self.files.items() if file.endswith(".pkl")}


def names_for(file: str) -> set[str]:
    """Return the names of the models that a file may be of."""
    path = Path(file)
    return {path.stem, name_of_backup(path)} if file.startswith("backups/") else {path.stem}


def seen_in(base_dir: Path, database: Path | None) -> Seen:
    """Return what is in a folder, and in its database if there is one."""
    seen = Seen()
    for folder in FOLDERS:
        for path in sorted((base_dir / folder).glob("*")):
            seen.files[f"{folder}/{path.name}"] = (digest(path), path.stat().st_mtime_ns)
    for path in (base_dir / "mlflow" / "artifacts").rglob("data/*.pkl"):
        seen.artifacts[str(path.parent.parent)] = digest(path)
    if database is not None:
        seen.versions = _versions_in(database)
    return seen


def _versions_in(database: Path) -> dict[Version, tuple[str, str, str, str]]:
    """Read the versions from the file of a database, whoever has it open."""
    with closing(sqlite3.connect(database, timeout=30)) as opened:
        tags = {
            (name, number, key): value
            for name, number, key, value in opened.execute(
                "SELECT name, version, key, value FROM model_version_tags"
            )
        }
        found = opened.execute(
            "SELECT name, version, coalesce(storage_location, source), run_id FROM model_versions "
            "WHERE current_stage <> 'Deleted_Internal'"
        )
        return {
            (name, number): (
                unquote(urlsplit(uri).path),
                tags.get((name, number, "save_id"), ""),
                run_id or "",
                tags.get((name, number, "model_id"), ""),
            )
            for name, number, uri, run_id in found
        }


def version_meant(seen: Seen, finding: Any) -> Version | None:
    """Return the version that is to be deleted: the one with this file, or of this number."""
    parents = set() if finding.path is None else set(map(str, finding.path.parents))
    by_path = [v for v, what in seen.versions.items() if what[0] in parents]
    number = re.search(r"version (\d+)", finding.detail)
    name = registered_model(finding.name)
    by_number = [v for v in seen.versions if number and v == (name, int(number[1]))]
    return next(iter(by_path or by_number), None)
