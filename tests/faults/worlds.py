"""A folder to which anything may happen: each step is one method, in plain arguments.

A sequence of steps that breaks something is kept as a test that takes them. The world knows what
was saved, and looks at files by itself; the package is used in another process (`faults.actors`).
What has to stay true after each step is in `faults.invariants`.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
from faults import acts
from faults.actors import Actor, Answer, Held
from faults.inspection import digest
from faults.seeing import Files, Seen, names_for, seen_in, version_meant

_NO_DATABASE = b"what a broken disk left of it " * 100


@dataclass(frozen=True)
class Saved:
    """A committed save."""

    name: str
    number: int
    sha256: str
    time_ns: int
    metadata: dict[str, Any] | None


class World:
    """One folder of models with a new embedded store, and what was done to it.

    Parameters
    ----------
    work_dir : pathlib.Path
        An empty folder.
    database : pathlib.Path
        A migrated database to copy.
    actor : Actor
        The process that uses the package.

    Attributes
    ----------
    saves : dict of int to Saved
        The committed saves by their times.
    known : dict of str to set of str
        The digests that were saved under each name, or lay there before it had a record.
    numbers : dict of str to int
        The number of the model that has a digest.
    by_hand : set of str
        Names whose model or metadata in place was changed by hand since they were saved.
    deleted : set of int
        Times of the saves whose version was deleted in MLflow on purpose.
    copies : set of (str, int)
        Versions that were made with plain MLflow.
    bereft : set of (str, int)
        Versions whose logged model was deleted: they work, and do not count.
    """

    def __init__(self, work_dir: Path, database: Path, actor: Actor) -> None:
        self.base_dir = work_dir / "ml"
        (self.base_dir / "mlflow").mkdir(parents=True)
        shutil.copyfile(database, self.database_path)
        self.actor = actor
        self.saves: dict[int, Saved] = {}
        self.known: dict[str, set[str]] = {}
        self.numbers: dict[str, int] = {}
        self.by_hand: set[str] = set()
        self.deleted: set[int] = set()
        self.copies: set[acts.Version] = set()
        self.bereft: set[acts.Version] = set()
        self.outage: str | None = None
        self.look()

    @property
    def database_path(self) -> Path:
        return self.base_dir / "mlflow" / "mlflow.db"

    # what is there

    def look(self) -> Seen:
        """Return what is there; the package is not asked."""
        database = None if self.outage == "away" else self.database_path
        self.seen = seen_in(self.base_dir, database)
        return self.seen

    def is_known(self, file: str, digest: str) -> bool:
        """Tell whether a file has bytes that were saved under its name."""
        return any(digest in self.known.get(name, ()) for name in names_for(file))

    def save_of(self, version: tuple[str, str, str, str]) -> Saved | None:
        """Return the save whose id a version's tags hold."""
        time, _, _ = version[1].partition("-")
        return self.saves.get(int(time)) if time.isdigit() else None

    def records(self, name: str = "*", state: str = "*") -> list[Path]:
        """Return the records of a name, in a state."""
        mlflow_dir = self.base_dir / "mlflow"
        folders = [mlflow_dir / folder for folder in ("outbox", "sent", "aside")]
        return [path for f in folders for path in f.glob(f"*~{state}~{name}.json")]

    def has_record(self, name: str) -> bool:
        """Tell whether something was committed under a name."""
        return len(self.records(name)) > len(self.records(name, "pending"))

    def reachable(self, seen: Seen) -> set[tuple[str, str]]:
        """Return name and digest of each save whose bytes a file of its name or a version has."""
        found = {
            (name, digest)
            for file, digest in seen.models.items()
            for name in names_for(file)
            if digest in self.known.get(name, ())
        }
        names = {path.name.partition("~")[0]: path.stem.split("~")[2] for path in self.records()}
        for version, what in seen.versions.items():
            name, digest = names.get(what[1], ""), seen.bytes_of(version)
            if digest in self.known.get(name, ()):
                found.add((name, str(digest)))
        return found

    # asking the actor

    def asked(
        self, function: Callable[..., Any], *arguments: Any, held: Held | None = None
    ) -> Answer:
        """Have the actor do something; no exception but the package's own leaves it."""
        answer = self.actor.ask(function, str(self.base_dir), *arguments, held=held)
        assert answer.outcome != "foreign", f"an exception of others left a call:\n{answer.value}"
        return answer

    def done(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Have the actor do what has to succeed."""
        answer = self.asked(function, *arguments)
        assert answer.is_done, answer.value
        return answer.value

    def worked(
        self, function: Callable[..., Any], *arguments: Any, held: Held | None = None
    ) -> tuple[Answer, Files, Files]:
        """Have the package do something that may lose nothing.

        Returns
        -------
        Answer, dict, dict
            What it came to, and the files before and after.
        """
        before, is_clean = self.seen, not self.records(state="pending")
        answer = self.asked(function, *arguments, held=held)
        after = self.look()
        gone = set(before.versions) - set(after.versions)
        assert not gone or self.outage == "away", f"versions are gone: {gone}"
        for version, what in before.versions.items():
            save, digest = self.save_of(what), before.bytes_of(version)
            if save is not None and digest == save.sha256 and not after.bytes_of(version) == digest:
                raise AssertionError(f"{version} has lost its file")
        lost = self.reachable(before) - self.reachable(after)
        assert not lost, f"lost: {lost}"
        if answer.outcome == "refused" and is_clean:
            assert before.files == after.files, f"refused, but files are changed: {answer.value}"
        return answer, before.files, after.files

    # what the package does

    def save(
        self,
        name: str | None,
        number: int,
        *,
        metadata: bool = True,
        mirror: str = "sync",
        artifacts: bool = False,
        held: Held | None = None,
    ) -> None:
        """Save a model; held short, the process may be killed, or the disk refuse."""
        given = {"number": number, "note": f"save {len(self.saves)}"} if metadata else None
        extra = {"a.txt": f"of {number}"} if artifacts else None
        answer, before, after = self.worked(
            acts.save, name, number, given, mirror, extra, held=held
        )
        assert answer.outcome != "refused" or (held and held.file_bytes is not None), answer.value
        changed = [f for f in after if f.startswith("trained/") and before.get(f) != after[f]]
        assert len(changed) == 1 or (not changed and not answer.is_done), changed
        for file in changed:
            digest, time_ns = after[file]
            assert time_ns not in self.saves, "two saves have one time"
            saved = Saved(Path(file).stem, number, digest, time_ns, given)
            self.saves[time_ns] = saved
            self._note(saved.name, digest, number)
            self.by_hand.discard(saved.name)

    def _note(self, name: str, digest: str, number: int) -> None:
        self.known.setdefault(name, set()).add(digest)
        self.numbers[digest] = number

    def save_in_vain(self, name: str | None, why: str) -> None:
        """Save what joblib cannot pickle, or what JSON cannot hold."""
        function = {"model": acts.save_unpicklable, "metadata": acts.save_with_bad_metadata}[why]
        answer, _, _ = self.worked(function, name)
        assert answer.outcome == "refused", answer

    def restore(
        self,
        reference: str | int,
        *,
        source: str = "backups",
        backup: str | None = None,
        held: Held | None = None,
    ) -> None:
        """Restore a model, if it can be restored."""
        answer, _, after = self.worked(acts.restore, reference, source, backup, held=held)
        if answer.is_done:
            name = Path(answer.value).stem
            digest, _ = after[f"trained/{name}.pkl"]
            assert digest in self.known.get(name, {digest}), "other bytes were restored"
            self.by_hand.discard(name)
        elif answer.outcome == "killed":  # the model may be in place, and its metadata not yet
            self.by_hand -= {path.stem.split("~")[2] for path in self.records(state="pending")}

    def sync(self, *, held: Held | None = None, **options: bool) -> None:
        """Send MLflow what it lacks, if it can be asked."""
        self.worked(acts.sync, options, held=held)

    def read(self, method: str, *arguments: Any) -> Any:
        """Call a method that only reads."""
        answer, before, after = self.worked(acts.call, method, *arguments)
        assert before == after, "reading has changed files"
        return answer.value if answer.is_done else None

    def relocate(self) -> None:
        """Give the database the paths of where the folder lies now, if it is there."""
        self.worked(acts.call, "relocate")

    def fix(self) -> list[Any]:
        """Apply each fix that one `verify` prints, and return its findings."""
        answer, before, after = self.worked(acts.verify)
        assert answer.is_done, answer.value
        assert before == after, "verify has changed files"
        for finding in answer.value:
            if finding.fix is not None:
                self._apply(finding)
        return list(answer.value)

    def _apply(self, finding: Any) -> None:
        """Apply a fix; a version that it says to delete by hand is no loss of a version."""
        is_by_hand, before = "delete the version" in finding.fix.before, self.seen
        self.asked(acts.apply, finding, version_meant(before, finding) if is_by_hand else None)
        after = self.look()
        lost = self.reachable(before) - self.reachable(after)
        assert not lost, f"a fix has lost {lost}: {finding}"
        if not is_by_hand:
            for version, what in before.versions.items():
                save, digest = self.save_of(what), before.bytes_of(version)
                is_whole = save is not None and save.sha256 == digest
                is_kept = after.bytes_of(version) == digest
                assert is_kept or not is_whole, f"a fix has broken {version}: {finding}"
        for file, (digest, time_ns) in after.files.items():
            saved = self.saves.get(time_ns)
            if before.files.get(file) != (digest, time_ns) and saved and saved.sha256 == digest:
                self.by_hand.discard(saved.name)

    def end_process(self) -> None:
        """Let the next call come from a new process."""
        self.actor.end()

    # what people do to files

    def delete(self, file: str) -> None:
        """Delete a file."""
        (self.base_dir / file).unlink()
        self._note_by_hand(file)

    def damage(self, file: str, at: int, *, cut: bool = False, keeps_time: bool = True) -> None:
        """Flip a bit of a file, or cut it there."""
        path = self.base_dir / file
        content, time_ns = bytearray(path.read_bytes()), path.stat().st_mtime_ns
        place = at % len(content) if content else 0
        if cut or not content:
            content = content[:place]
        else:
            content[place] ^= 1 << at % 8
        path.write_bytes(content)
        if keeps_time:
            os.utime(path, ns=(time_ns, time_ns))
        self._note_by_hand(file)

    def replace(self, file: str, number: int, *, keeps_time: bool = False) -> None:
        """Put another model in the place of one, or where there is none, and metadata that fit it.

        Where its name has no record yet, that is a model from before this package.
        """
        path, name = self.base_dir / file, Path(file).stem
        time_ns = path.stat().st_mtime_ns if path.exists() else None
        path.parent.mkdir(exist_ok=True)
        joblib.dump(acts.model_of(number), path)
        if keeps_time and time_ns is not None:
            os.utime(path, ns=(time_ns, time_ns))
        metadata_dir = path.parent if file.startswith("backups/") else self.base_dir / "metadata"
        metadata_dir.mkdir(exist_ok=True)
        declared = {"number": number, "note": "by hand", "sha256": digest(path)}
        (metadata_dir / f"{name}_metadata.json").write_text(json.dumps(declared), encoding="utf-8")
        if file.startswith("trained/") and not self.records(name):
            self.known.pop(name, None)  # of what lay there before, nobody knows
            self._note(name, digest(path), number)
        self._note_by_hand(file)

    def _note_by_hand(self, file: str) -> None:
        if not file.startswith("backups/"):
            self.by_hand.add(Path(file).stem.removesuffix("_metadata"))
        self.look()

    def move(self) -> None:
        """Move the folder."""
        new = "moved" if self.base_dir.name == "ml" else "ml"
        self.end_process()
        self.base_dir = self.base_dir.rename(self.base_dir.with_name(new))
        self.look()

    # what happens to MLflow

    def begin_outage(self, kind: str) -> None:
        """Put rubbish in the place of the database, or have it refuse new rows of a table."""
        self.end_outage()
        if kind == "away":
            self.database_path.rename(self.database_path.with_suffix(".gone"))
            self.database_path.write_bytes(_NO_DATABASE)
        else:
            self._execute(
                f"CREATE TRIGGER refuse BEFORE INSERT ON {kind} "
                "BEGIN SELECT RAISE(ABORT, 'no room'); END"
            )
        self.outage = kind
        self.look()

    def end_outage(self) -> None:
        """End the outage, if there is one."""
        if self.outage == "away":
            assert self.database_path.read_bytes() == _NO_DATABASE, "it was written over"
            self.database_path.unlink()
            self.database_path.with_suffix(".gone").rename(self.database_path)
        elif self.outage is not None:
            self._execute("DROP TRIGGER refuse")
        self.outage = None
        self.look()

    def _execute(self, statement: str) -> None:
        with closing(sqlite3.connect(self.database_path, timeout=30)) as opened, opened:
            opened.execute(statement)

    def plain(self, method: str, *arguments: Any, **named: Any) -> Answer:
        """Call a method of MLflow's own client, which may refuse it."""
        before = self.seen.versions
        answer = self.actor.ask(acts.plain, str(self.base_dir), method, arguments, named)
        after = self.look().versions
        if not answer.is_done:
            return answer
        if method == "rename_registered_model":
            old, new = arguments
            for found in (self.copies, self.bereft):
                renamed = {version for version in found if version[0] == old}
                found -= renamed
                found |= {(new, number) for _, number in renamed}
            return answer
        if method == "delete_logged_model":
            self.bereft |= {version for version, what in before.items() if what[3] == arguments[0]}
        for version in set(before) - set(after) - self.copies:
            save = self.save_of(before[version])
            self.deleted |= {save.time_ns} if save is not None else set()
        self.copies = (self.copies | set(after) - set(before)) & set(after)
        self.bereft &= set(after)  # a registered model made anew uses the numbers again
        return answer

    def register_again(self, version: acts.Version, name: str) -> None:
        """Register the logged model of a version once more."""
        before = self.seen.versions
        self.actor.ask(acts.register_again, str(self.base_dir), version, name)
        self.copies |= set(self.look().versions) - set(before)
