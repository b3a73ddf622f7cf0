"""An attacker who may write everywhere but to the keys and to what a host has seen."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from faults.attackers import evil_pickle

from lotto_mlflow.records import parse, render
from lotto_mlflow.signing import new_key, parse_statement, render_statement, sign

_TEXTS = (".json", ".yaml", ".txt", ".csv", "MLmodel")


@dataclass
class Host:
    """The keys of a host, those of an attacker, and what an unpickled file leaves behind."""

    top: Path
    mark: Path

    @classmethod
    def at(cls, top: Path, patch: pytest.MonkeyPatch) -> Host:
        """Make the keys in a folder, and have this process use the host's own."""
        top.mkdir(parents=True, exist_ok=True)
        host = cls(top, top / "mark")
        for name in ("own", "attacker"):
            new_key(top / f"{name}.key", None)
        (top / "trusted").mkdir()
        shutil.copy(top / "own.key.pub", top / "trusted" / "own.pub")
        patch.setenv("LOTTO_STATE_DIR", str(top / "state"))
        host.trust(patch)
        host.hold(patch)
        return host

    def trust(self, patch: pytest.MonkeyPatch) -> None:
        patch.setenv("LOTTO_TRUSTED_KEYS", str(self.top / "trusted"))

    def hold(self, patch: pytest.MonkeyPatch) -> None:
        patch.setenv("LOTTO_SIGNING_KEY", str(self.top / "own.key"))

    @property
    def attacker_key(self) -> Path:
        return self.top / "attacker.key"

    def evil(self) -> bytes:
        """Return a pickle that makes the mark."""
        return evil_pickle(self.top / "evil.pkl", self.mark)


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def replace_everywhere(base_dir: Path, path: Path, content: bytes, key: Path | None) -> None:
    """Replace the bytes of a model in every folder, and all that says what they are.

    Parameters
    ----------
    base_dir : pathlib.Path
        The folder.
    path : pathlib.Path
        A file with the old bytes.
    content : bytes
        The new ones.
    key : pathlib.Path or None
        The attacker's key, to sign the statements with that name the new bytes.
    """
    old = path.read_bytes()
    digests, sizes = (sha256_of(old), sha256_of(content)), (len(old), len(content))
    for file in _files_in(base_dir):
        if file.read_bytes() == old:
            _overwrite(file, content)
    rewrite(base_dir, digests, sizes)
    if key is not None:
        sign_all(base_dir, key)


def rewrite(base_dir: Path, digests: tuple[str, str], sizes: tuple[int, int]) -> None:
    """Have every text and every database say another digest and another size."""
    for file in _files_in(base_dir):
        is_text = file.name.endswith(_TEXTS)
        text = file.read_text("utf-8", "surrogateescape") if is_text else ""
        if digests[0] in text and "~" in file.name:
            _overwrite(file, _forged(file.read_bytes(), digests, sizes))
        elif digests[0] in text:
            text = text.replace(*digests)
            for form in ('"size": {}', '"size_bytes": {}', '"size":{}', "size_bytes: {}"):
                text = text.replace(form.format(sizes[0]), form.format(sizes[1]))
            _overwrite(file, text.encode("utf-8", "surrogateescape"))
    for database in base_dir.rglob("*.db"):
        replace_in_database(database, *digests)


def _forged(content: bytes, digests: tuple[str, str], sizes: tuple[int, int]) -> bytes:
    """Return a record that says another digest and size, whole and with its checksum."""
    record = parse(content)
    payload = replace(record.payload, sha256=digests[1], size=sizes[1])
    if isinstance(payload.metadata, dict):
        own = {"sha256": digests[1], "size_bytes": sizes[1]}
        payload = replace(payload, metadata=payload.metadata | own)
    return render(replace(record, payload=payload))


def edit_record(path: Path, **changes: Any) -> None:
    """Change what a record says of a save; its checksum fits."""
    record = parse(path.read_bytes())
    _overwrite(path, render(replace(record, payload=replace(record.payload, **changes))))


def replace_in_database(database: Path, old: str, new: str) -> None:
    """Replace a text in every column of every table."""
    with closing(sqlite3.connect(database, timeout=20)) as opened:
        tables = [
            row[0] for row in opened.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        for table in tables:
            for column in opened.execute(f"PRAGMA table_info({table})").fetchall():
                opened.execute(
                    f"UPDATE {table} SET {column[1]} = replace({column[1]}, ?, ?) "
                    f"WHERE instr({column[1]}, ?) > 0",
                    (old, new, old),
                )
        opened.commit()


def sign_all(base_dir: Path, key: Path) -> None:
    """Sign every statement anew with another key, and leave its public key all over the place."""
    for statement in statements_in(base_dir):
        signature = statement.with_suffix(".sig")
        signature.write_bytes(sign(statement.read_bytes(), key))
    for folder in ("", "mlflow", "mlflow/signatures", "trained"):
        if (base_dir / folder).is_dir():
            shutil.copy(key.with_name(f"{key.name}.pub"), base_dir / folder / "attacker.pub")


def statements_in(base_dir: Path) -> list[Path]:
    """Return the statements on disk, beside models in MLflow, and beside downloads."""
    return [
        file
        for file in _files_in(base_dir)
        if file.suffix == ".json" and file.with_suffix(".sig").is_file()
    ]


def change_statement(path: Path, **changes: Any) -> None:
    """Change what a statement says; its signature stays."""
    statement = replace(parse_statement(path.read_bytes()), **changes)
    path.write_bytes(render_statement(statement))


def strip(base_dir: Path) -> int:
    """Remove every signature; return how many there were."""
    found = [file for file in _files_in(base_dir) if file.suffix == ".sig"]
    for file in found:
        file.unlink()
    return len(found)


def _files_in(base_dir: Path) -> list[Path]:
    return [Path(top, name) for top, _, names in os.walk(base_dir) for name in sorted(names)]


def _overwrite(file: Path, content: bytes) -> None:
    status = file.stat()
    with file.open("r+b") as opened:
        opened.write(content)
        opened.truncate()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def edit_json(path: Path, **changes: Any) -> None:
    """Change values of a JSON file, and leave its time."""
    values = json.loads(path.read_text("utf-8")) | changes
    _overwrite(path, json.dumps(values, ensure_ascii=False, indent=2).encode("utf-8"))


def copied(base_dir: Path, to: Path) -> Path:
    """Keep a copy of a folder, with the times of its files."""
    shutil.copytree(base_dir, to, copy_function=shutil.copy2)
    return to


def put_back(copy: Path, base_dir: Path) -> None:
    """Put an earlier copy of a folder in its place."""
    shutil.rmtree(base_dir)
    shutil.copytree(copy, base_dir, copy_function=shutil.copy2)
