"""Pack a model folder into one file and back, and write down what a release finds in it.

The facts of a release were written by that release itself: every later one must find the same.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path
from typing import Any

from lotto_mlflow import ModelManager, records
from lotto_mlflow.errors import ModelNotFoundError

ARTEFACTS_DIR = Path(__file__).parent
ARCHIVE, FACTS = "ml.tar.xz", "facts.json"
"""The folder of a release holds these two."""
KEYS_DIR = ARTEFACTS_DIR / "keys"
"""The pair with which some saves of the artefacts were signed."""
RELEASES = sorted(path.parent.name for path in ARTEFACTS_DIR.glob(f"*/{FACTS}"))
ROWS = [[0.2, 0.1, 0.4, 0.9], [-0.2, -0.9, -1.1, -0.8], [1.5, 0.0, -0.3, 0.6]]
"""What the estimators among the models are asked for."""
LAST_VERSION = 20
"""No registered model in an artefact has more versions."""
REGISTERED = ("lotto_model", "모델", "주간", "begun", "signed")


def pack(folder: Path, archive: Path) -> None:
    """Write a folder into an archive, with the times of its files to the nanosecond."""

    def with_time(member: tarfile.TarInfo) -> tarfile.TarInfo:
        time_ns = (folder.parent / member.name).lstat().st_mtime_ns
        member.pax_headers["mtime"] = f"{time_ns // 10**9}.{time_ns % 10**9:09}"
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:xz", format=tarfile.PAX_FORMAT, preset=9) as packed:
        packed.add(folder, folder.name, filter=with_time)


def unpack(archive: Path, parent_dir: Path) -> Path:
    """Unpack a folder into another, which makes it one that was moved; return where it lies."""
    with tarfile.open(archive) as packed:
        members = packed.getmembers()
        for member in members:
            packed.extract(member, parent_dir, **_safely(packed))
    for member in reversed(members):  # a folder after what is in it
        seconds, _, fraction = member.pax_headers["mtime"].partition(".")
        time_ns = int(seconds) * 10**9 + int(fraction)
        os.utime(parent_dir / member.name, ns=(time_ns, time_ns))
    return parent_dir / members[0].name


def _safely(packed: tarfile.TarFile) -> dict[str, Any]:
    """Return the argument by which newer releases of Python unpack plain files only."""
    return {"filter": "data"} if hasattr(packed, "extraction_filter") else {}


def described(model: Any) -> Any:
    """Return a model as JSON: a plain one as it is, an estimator by what it predicts."""
    if not hasattr(model, "predict_proba"):
        return model
    return {
        "predict_proba": [[round(float(p), 9) for p in row] for row in model.predict_proba(ROWS)]
    }


def facts_of(manager: ModelManager, base_dir: Path) -> dict[str, Any]:
    """Return everything that a release knows of a folder, and changes nothing in it.

    Notes
    -----
    Only what has the same meaning in every release: neither paths, nor texts for people.
    """
    return {
        "records": _records(base_dir),
        "signed": sorted(path.stem for path in (base_dir / "mlflow" / "signatures").glob("*.sig")),
        "trained": {one.name: _model(manager, one) for one in manager.records()},
        "backups": _backups(manager, base_dir),
        "versions": _versions(manager),
        "gone": _gone(manager, base_dir),
        "findings": sorted([one.kind, one.name] for one in manager.verify()),
        "aliases": {name: _moves(manager, name) for name in REGISTERED},
        "latest": {source: _name(manager.latest(source=source)) for source in _SOURCES},
        "predictions": [_prediction(one) for one in manager.predictions()],
        "accuracy": [
            [one.model, one.version, one.is_backtest, one.draws, one.games, one.hits_per_game]
            for one in manager.accuracy()
        ],
    }


_SOURCES = ("filesystem", "registry")


def _records(base_dir: Path) -> list[list[str]]:
    """Return the state, kind and name of each record; of a damaged one, no kind."""
    found = []
    for path in sorted((base_dir / "mlflow").glob("*/*~*.json")):
        _, state, name = path.stem.split("~", 2)
        try:
            kind = records.parse(path.read_bytes()).kind
        except ValueError:
            kind = "damaged"
        found.append([state, kind, name])
    return sorted(found)


def _model(manager: ModelManager, record: records.ModelRecord) -> dict[str, Any]:
    return {
        "model": described(manager.load_model(str(record.path))),
        "version": record.version,
        "registered_model": record.registered_model,
        "sha256": record.sha256,
        "size": record.size,
        "saved_at": record.saved_at,
        "save_id": record.save_id,
        "metadata": record.metadata,
        "metrics": record.metrics,
        "aliases": sorted(record.aliases),
    }


def _backups(manager: ModelManager, base_dir: Path) -> dict[str, Any]:
    found = {}
    for path in sorted((base_dir / "backups").glob("*.pkl")):
        content = path.read_bytes()
        found[path.stem] = {
            "model": described(manager.load_model(str(path))),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    return found


def _versions(manager: ModelManager) -> dict[str, Any]:
    """Return each version that the registry has, by its URI."""
    found: dict[str, Any] = {}
    for registered in REGISTERED:
        for version in range(1, LAST_VERSION + 1):
            uri = f"models:/{registered}/{version}"
            try:
                one = manager.get(uri)
            except ModelNotFoundError:
                continue
            found[uri] = {
                "name": one.name,
                "sha256": one.sha256,
                "save_id": one.save_id,
                "model": described(manager.load_model(uri)),
            }
    return found


def _gone(manager: ModelManager, base_dir: Path) -> list[str]:
    """Return the names of saves that went on purpose, and whose name is of nothing that is left."""
    there = {one.name for one in manager.records()}
    gone = {name for _, kind, name in _records(base_dir) if kind == records.PRUNE}
    return sorted(gone - there)


def _moves(manager: ModelManager, registered: str) -> list[list[Any]]:
    moves = manager.history(registered_model=registered)
    return [
        [one.kind, one.from_ and one.from_.version, one.to and one.to.version, one.reason]
        for one in moves
    ]


def _name(record: records.ModelRecord | None) -> str | None:
    return None if record is None else record.name


def _prediction(one: records.Prediction) -> list[Any]:
    return [
        one.model,
        one.version,
        one.draw_no,
        [list(game) for game in one.games],
        one.is_backtest,
        one.counts,
        None if one.hits is None else list(one.hits),
        None if one.log_loss is None else round(one.log_loss, 9),
    ]
