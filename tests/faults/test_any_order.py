"""Sequences that nobody wrote: saves, kills, damage, outages and plain MLflow, in any order."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import invariants
from faults.actors import Actor, Held
from faults.seeing import FOLDERS, names_for
from faults.worlds import World
from hypothesis import HealthCheck, Phase, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

TITLE = "Any order of events"
IS_LONG = bool(os.environ.get("LOTTO_FAULTS_LONG"))
SECONDS = 3600.0 if IS_LONG else 150.0
SEED = int(os.environ.get("LOTTO_FAULTS_SEED") or (time.time() if IS_LONG else 20251103))
"""The first seed, by default the same in each short run; a failure prints the one it had."""
BATCH = 6
"""Sequences of one seed."""
NAMES = ("lotto_model_a", "lotto_model_b", "other", "other.2", "모델", "7", None)
OTHER_NAMES = ("taken", "champions")
TABLES = ("runs", "logged_models", "model_versions", "model_version_tags", "metrics")
TOUCHING = ("sync", "fix", "plain", "register_again", "end_outage", "relocate")
"""Steps that may change what versions are."""

numbers = st.integers(0, 5)
any_of = st.integers(0, 10**6)
names = st.sampled_from(NAMES)


@st.composite
def kills(draw: Callable[..., Any]) -> Held:
    thread = draw(st.sampled_from(("main", "main-1")))
    return Held(kill_at=f"{thread}.{draw(st.integers(1, 45)):03d}")


@st.composite
def disks(draw: Callable[..., Any]) -> Held:
    return Held(file_bytes=draw(st.sampled_from((0, 64, 512, 2048, 8192, 65536))))


def pick(items: Any, number: int) -> Any:
    """Return one of some items, ``None`` where there are none; the draw is the same for any."""
    found = sorted(items)
    return found[number % len(found)] if found else None


class AnyOrder(RuleBasedStateMachine):
    """Takes any steps in any order, with what has to stay true after each, and in the end."""

    actor: Actor
    database: Path
    work_dir: Path
    taken = 0
    sequences = 0

    @initialize()
    def begin(self) -> None:
        type(self).sequences += 1
        self.folder = Path(tempfile.mkdtemp(dir=self.work_dir))
        self.world = World(self.folder, self.database, self.actor)

    def take(self, step: str, *arguments: Any, **named: Any) -> None:
        """Take one step; a failure prints the steps as calls, to be kept as a test."""
        given = [*map(repr, arguments), *(f"{name}={value!r}" for name, value in named.items())]
        note(f"world.{step}({', '.join(given)})")
        type(self).taken += 1
        getattr(self.world, step)(*arguments, **named)
        invariants.check_folder(self.world)
        if self.is_calm and step in TOUCHING:
            invariants.check_versions(self.world)

    @property
    def is_calm(self) -> bool:
        """Whether MLflow can be asked, and has the paths of where the folder lies."""
        world = self.world
        folders = [what[0] for what in world.seen.versions.values()]
        is_here = all(folder.startswith(f"{world.base_dir}/") for folder in folders)
        return world.outage is None and is_here

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                note("invariants.check_ends_clean(world)")
                invariants.check_ends_clean(self.world)
            finally:
                self.actor.end()
                shutil.rmtree(self.folder)

    # saves and restores

    @rule(
        name=names,
        number=numbers,
        metadata=st.booleans(),
        mirror=st.sampled_from(("sync", "sync", "background", "off")),
        artifacts=st.booleans(),
    )
    def save(self, **given: Any) -> None:
        self.take("save", given.pop("name"), given.pop("number"), **given)

    @rule(name=names, number=numbers, metadata=st.booleans(), held=st.one_of(kills(), disks()))
    def save_held_short(self, name: Any, number: int, metadata: bool, held: Held) -> None:
        self.take("save", name, number, metadata=metadata, held=held)

    @rule(name=names, why=st.sampled_from(("model", "metadata")))
    def save_in_vain(self, name: Any, why: str) -> None:
        self.take("save_in_vain", name, why)

    @rule(
        any_name=any_of,
        any_backup=any_of,
        source=st.sampled_from(("backups", "registry")),
        held=st.one_of(st.none(), st.none(), kills(), disks()),
    )
    def restore(self, any_name: int, any_backup: int, source: str, held: Held | None) -> None:
        name = pick(self.world.known, any_name)
        backups = sorted(self.models("backups"), key=lambda path: path.name)
        backup = None
        if any_backup % 2 and backups:
            backup = backups[any_backup % len(backups)].name
        if name is not None:
            backup = backup if source == "backups" else None
            self.take("restore", name, source=source, backup=backup, held=held)

    @rule(which=any_of, source=st.sampled_from(("backups", "registry")))
    def restore_version(self, which: int, source: str) -> None:
        version = self.version(which)
        if version is not None:
            self.take("restore", f"models:/{version[0]}/{version[1]}", source=source)

    # what files suffer

    @rule(which=any_of)
    def delete(self, which: int) -> None:
        file = self.file(which)
        if file is not None:
            self.take("delete", file)

    @rule(which=any_of, at=any_of, cut=st.booleans(), keeps_time=st.booleans())
    def damage(self, which: int, at: int, cut: bool, keeps_time: bool) -> None:
        file = self.file(which)
        if file is not None:
            self.take("damage", file, at, cut=cut, keeps_time=keeps_time)

    @rule(which=any_of, number=st.integers(0, 9), keeps_time=st.booleans())
    def replace(self, which: int, number: int, keeps_time: bool) -> None:
        path = pick([*self.models("trained"), *self.models("backups")], which)
        if path is not None:
            file = f"{path.parent.name}/{path.name}"
            self.take("replace", file, number, keeps_time=keeps_time)

    @rule(name=st.sampled_from(("lotto_model_old", "other")), number=st.integers(0, 9))
    def put_an_old_model(self, name: str, number: int) -> None:
        if not self.world.records(name):
            self.take("replace", f"trained/{name}.pkl", number)

    @rule()
    def move(self) -> None:
        if self.world.outage is None:
            self.take("move")

    # what MLflow suffers

    @rule(kind=st.sampled_from(("away", *TABLES)))
    def begin_outage(self, kind: str) -> None:
        self.take("begin_outage", kind)

    @rule()
    def end_outage(self) -> None:
        if self.world.outage is not None:
            self.take("end_outage")

    @rule(which=any_of, name=st.sampled_from(OTHER_NAMES))
    def rename(self, which: int, name: str) -> None:
        version = self.version(which)
        if version is not None:
            self.take("plain", "rename_registered_model", version[0], name)

    @rule(which=any_of, name=st.sampled_from((*OTHER_NAMES, "lotto_model")))
    def copy(self, which: int, name: str) -> None:
        version = self.version(which)
        if version is not None:
            uri = f"models:/{version[0]}/{version[1]}"
            self.take("plain", "copy_model_version", uri, name)

    @rule(which=any_of, name=st.sampled_from((*OTHER_NAMES, "lotto_model")))
    def register_again(self, which: int, name: str) -> None:
        version = self.version(which)
        if version is not None:
            self.take("register_again", version, name)

    @rule(which=any_of)
    def delete_version(self, which: int) -> None:
        version = self.version(which)
        if version is not None:
            self.take("plain", "delete_model_version", version[0], str(version[1]))

    @rule(which=any_of)
    def delete_registered_model(self, which: int) -> None:
        version = self.version(which)
        if version is not None:
            self.take("plain", "delete_registered_model", version[0])

    @rule(which=any_of, what=st.sampled_from(("delete_run", "restore_run", "delete_logged_model")))
    def delete_below(self, which: int, what: str) -> None:
        version = self.version(which)
        if version is not None:
            _, _, run_id, model_id = self.world.seen.versions[version]
            self.take("plain", what, model_id if what == "delete_logged_model" else run_id)

    @rule(which=any_of, alias=st.sampled_from(("champion", "challenger")))
    def alias(self, which: int, alias: str) -> None:
        version = self.version(which)
        if version is not None:
            name, number = version
            self.take("plain", "set_registered_model_alias", name, alias, str(number))

    # what the package does about it

    @rule()
    def new_process(self) -> None:
        self.take("end_process")

    @rule(
        resend=st.booleans(),
        retry_aside=st.booleans(),
        include_backups=st.booleans(),
        held=st.one_of(st.none(), st.none(), kills()),
    )
    def sync(self, **given: Any) -> None:
        self.take("sync", **given)

    @rule()
    def fix(self) -> None:
        self.take("fix")

    @rule()
    def relocate(self) -> None:
        self.take("relocate")

    @rule(
        what=st.sampled_from((("verify",), ("records",), ("flush",), ("get", 1), ("latest",))),
    )
    def read(self, what: Any) -> None:
        self.take("read", *what)

    # what is there

    def models(self, folder: str) -> list[Path]:
        """Return the model files of a folder that some record is about."""
        return [path for path in self.files(folder) if path.suffix == ".pkl"]

    def files(self, folder: str) -> list[Path]:
        """Return the files of a folder that are of names which have a record."""
        found = (self.world.base_dir / folder).glob("*")
        stems = {path: path.stem.removesuffix("_metadata") for path in found}
        return [
            path
            for path, stem in stems.items()
            if any(self.world.has_record(name) for name in names_for(f"{folder}/{stem}.pkl"))
        ]

    def file(self, which: int) -> str | None:
        """Return a file of a model, or its metadata, that some record is about."""
        path = pick([path for folder in FOLDERS for path in self.files(folder)], which)
        return None if path is None else f"{path.parent.name}/{path.name}"

    def version(self, which: int) -> tuple[str, int] | None:
        """Return a version, where MLflow can be asked for one."""
        found: tuple[str, int] | None = None
        if self.is_calm:
            found = pick(self.world.seen.versions, which)
        return found


@pytest.fixture(scope="module")
def actor() -> Iterator[Actor]:
    actor = Actor()
    yield actor
    actor.close()


@pytest.mark.timeout(SECONDS + 600)
def test_any_order_of_events_loses_and_mixes_nothing(
    tmp_path: Path, migrated_database: Path, actor: Actor, figures: Callable[..., None]
) -> None:
    """Sequences are made until the time is over; each batch of them has a seed of its own."""
    AnyOrder.actor, AnyOrder.database, AnyOrder.work_dir = actor, migrated_database, tmp_path
    chosen = settings(
        max_examples=BATCH,
        stateful_step_count=40,
        deadline=None,
        database=None,
        derandomize=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )
    end, lost = time.monotonic() + SECONDS, 1
    try:
        for number in itertools.count(SEED):
            print(f"LOTTO_FAULTS_SEED={number}")
            run_state_machine_as_test(seed(number)(AnyOrder), settings=chosen)
            if time.monotonic() > end:
                break
        lost = 0
    finally:
        figures(TITLE, tried=AnyOrder.sequences, steps=AnyOrder.taken, lost=lost)
    assert AnyOrder.taken > AnyOrder.sequences >= BATCH
