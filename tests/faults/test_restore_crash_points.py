"""Restores that are killed at each of their calls, and the recoveries of such restores."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import pytest
from faults import crashes
from faults.inspection import (
    EARLIER,
    LATER,
    NAME,
    NEW,
    NEXT_NAME,
    OLD,
    Log,
    digest,
    left_over,
    mend,
    put_database,
    uri_of,
    wrong_names,
)
from mlflow import MlflowClient

from lotto_mlflow import ModelManager

TITLE = "Killed at every call of a restore"
NEWEST = {"weights": [4.0] * 25}
LATEST = {"accuracy": 0.875, "note": "latest"}
BY_HAND = {"accuracy": 0.99, "note": "made by hand"}


def _delete_both(base_dir: Path) -> None:
    _model_path(base_dir).unlink()
    _metadata_path(base_dir).unlink()


def _damage_the_model(base_dir: Path) -> None:
    """Change a bit as a failing disk does, which leaves size and time as they were."""
    path = _model_path(base_dir)
    time_ns, content = path.stat().st_mtime_ns, bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(time_ns, time_ns))


def _change_metadata_by_hand(base_dir: Path) -> None:
    _metadata_path(base_dir).write_text(json.dumps(BY_HAND), encoding="utf-8")


@dataclass(frozen=True)
class Scenario:
    """A restore, and what it meets.

    Attributes
    ----------
    saves : tuple
        Models and metadata that were saved under the one name, oldest first.
    restored : int
        Which of these saves the restore brings back.
    arguments : dict
        How it is asked to.
    meddle : callable or None
        What somebody did to the folder by hand before.
    findings : frozenset of str
        Kinds of findings that `verify` may have because of that.
    is_damaged : bool
        Whether the model that is replaced does not load.
    """

    saves: tuple[tuple[dict[str, Any], dict[str, Any] | None], ...]
    restored: int
    arguments: dict[str, Any] = field(default_factory=dict)
    meddle: Callable[[Path], None] | None = None
    findings: frozenset[str] = frozenset()
    is_damaged: bool = False


TWO = ((OLD, EARLIER), (NEW, LATER))
SCENARIOS = {
    "over a newer model": Scenario(TWO, 0),
    "a named backup": Scenario((*TWO, (NEWEST, LATEST)), 0, {"backup": f"{NAME}.pkl"}),
    "over nothing": Scenario(TWO, 0, {}, _delete_both, frozenset({"missing on disk"})),
    "from the registry over a damaged model": Scenario(
        TWO,
        1,
        {"source": "registry"},
        _damage_the_model,
        frozenset({"damaged", "missing on disk"}),
        is_damaged=True,
    ),
    "over metadata made by hand": Scenario(
        TWO, 1, {"source": "registry"}, _change_metadata_by_hand, frozenset({"changed"})
    ),
    "without metadata over metadata": Scenario(((OLD, None), (NEW, LATER)), 0),
}


@pytest.mark.timeout(600)  # seconds on an idle machine
@pytest.mark.parametrize("mended_by", ["the next save", "sync"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_restore_killed_at_any_call_loses_and_mixes_nothing(
    tmp_path: Path,
    migrated_database: Path,
    warm_parent: Pool,
    figures: Callable[..., None],
    scenario: str,
    mended_by: str,
) -> None:
    """Half of the calls are mended by the next save, the other half by `sync`."""
    outcome = warm_parent.apply(kill_restores, (scenario, mended_by, tmp_path, migrated_database))
    figures(TITLE, tried=outcome.tried, lost=len(outcome.problems))
    assert outcome.problems == []
    assert outcome.tried == outcome.chosen > 0
    assert outcome.calls > 10


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mended_by", ["the next save", "sync", "the same restore"])
def test_a_recovery_killed_too_loses_and_mixes_nothing(
    tmp_path: Path,
    migrated_database: Path,
    warm_parent: Pool,
    figures: Callable[..., None],
    mended_by: str,
) -> None:
    """The restore was killed between model and metadata: what is left only rolls forward."""
    outcome = warm_parent.apply(kill_recoveries, (mended_by, tmp_path, migrated_database))
    figures(TITLE, tried=outcome.tried, lost=len(outcome.problems))
    assert outcome.problems == []
    assert outcome.tried == outcome.chosen > 0
    assert outcome.calls > 9


def kill_restores(scenario: str, mended_by: str, work_dir: Path, database: Path) -> crashes.Outcome:
    """Run one scenario; this and what follows happens in the warm parent and its children."""
    case = SCENARIOS[scenario]
    return crashes.killed_at_every_call(
        work_dir,
        partial(_prepare, case, database),
        partial(_restore, case),
        partial(_look, case, work_dir / "template", mended_by),
        part=(2, 2) if mended_by == "sync" else (1, 2),
    )


def kill_recoveries(mended_by: str, work_dir: Path, database: Path) -> crashes.Outcome:
    """Kill a restore once its model is in place, and then what mends that, at every third call."""
    case = SCENARIOS["a named backup"]
    crashes.make_template(work_dir, partial(_prepare, case, database))
    before_dir = work_dir / "before"
    shutil.copytree(work_dir / "template", before_dir)
    crashes.killed_when(work_dir, partial(_restore, case), partial(_is_half_way, before_dir))
    shutil.rmtree(work_dir / "template")
    return crashes.killed_at_every_call(
        work_dir,
        lambda base_dir: None,
        partial(_restore, case)
        if mended_by == "the same restore"
        else lambda base_dir: mend(ModelManager(base_dir), mended_by),
        partial(_look, case, before_dir, "sync"),
        part=(1, 3),
        thread="main",  # another one pushes what the next save saved: the folder is mended then
    )


def _is_half_way(before_dir: Path, base_dir: Path) -> bool:
    model_is_old = _model_path(before_dir).read_bytes() == _model_path(base_dir).read_bytes()
    return not model_is_old and (
        _metadata_path(before_dir).read_bytes() == _metadata_path(base_dir).read_bytes()
    )


def _prepare(case: Scenario, database: Path, base_dir: Path) -> None:
    put_database(database, base_dir)
    manager = ModelManager(base_dir)
    for number, (model, metadata) in enumerate(case.saves):
        manager.save_model(model, NAME, metadata)
        crashes.join_pushes()
        for path in (_model_path(base_dir), _metadata_path(base_dir)):
            if path.exists():
                shutil.copy2(path, _kept_save(base_dir, number, path.suffix))
    if case.meddle is not None:
        case.meddle(base_dir)
    facts = json.dumps(_in_mlflow(base_dir))
    (base_dir.parent / "in_mlflow.json").write_text(facts, encoding="utf-8")


def _restore(case: Scenario, base_dir: Path) -> None:
    ModelManager(base_dir).restore(NAME, **case.arguments)


def _model_path(base_dir: Path) -> Path:
    return base_dir / "trained" / f"{NAME}.pkl"


def _metadata_path(base_dir: Path) -> Path:
    return base_dir / "metadata" / f"{NAME}_metadata.json"


def _kept_save(base_dir: Path, number: int, suffix: str) -> Path:
    """Return where the test keeps a copy of what a save left."""
    return base_dir.parent / f"save-{number}{suffix}"


@dataclass(frozen=True)
class Pair:
    """A model, by its digest and time, and the metadata beside it; ``None`` where one is not."""

    model: tuple[str, int] | None
    metadata: str | None

    @classmethod
    def from_paths(cls, model_path: Path, metadata_path: Path) -> Pair:
        model = metadata = None
        if model_path.exists():
            model = (digest(model_path), model_path.stat().st_mtime_ns)
        if metadata_path.exists():
            metadata = json.dumps(json.loads(metadata_path.read_bytes()), sort_keys=True)
        return cls(model, metadata)

    @classmethod
    def in_place(cls, base_dir: Path) -> Pair:
        return cls.from_paths(_model_path(base_dir), _metadata_path(base_dir))


def _restored(case: Scenario, base_dir: Path) -> Pair:
    paths = (_kept_save(base_dir, case.restored, suffix) for suffix in (".pkl", ".json"))
    return Pair.from_paths(*paths)


def _backups(base_dir: Path) -> Counter[Pair]:
    backup_dir = base_dir / "backups"
    names = {path.name.removesuffix("_metadata.json") for path in backup_dir.glob("*.json")}
    stems = names | {path.stem for path in backup_dir.glob("*.pkl")}
    return Counter(
        Pair.from_paths(backup_dir / f"{stem}.pkl", backup_dir / f"{stem}_metadata.json")
        for stem in stems
    )


def _contents(base_dir: Path) -> set[str]:
    """Return the digests of all models and metadata, wherever they lie."""
    folders = ("trained", "metadata", "backups", "mlflow/aside")
    return {digest(path) for folder in folders for path in (base_dir / folder).glob("*")}


def _look(case: Scenario, before_dir: Path, mended_by: str, base_dir: Path) -> list[str]:
    """Tell what is wrong with a folder, before and after it is mended."""
    manager = ModelManager(base_dir)
    problems = wrong_names(base_dir) + _wrong_at_once(case, before_dir, base_dir, manager)
    contents, model = _contents(base_dir), Pair.in_place(base_dir).model
    problems += mend(manager, mended_by) + wrong_names(base_dir)
    if not contents <= _contents(base_dir):
        problems.append("mending lost something")
    if model != Pair.in_place(before_dir).model and model != Pair.in_place(base_dir).model:
        problems.append("mending took back a model that was in place")
    problems += _wrong_in_the_end(case, before_dir, base_dir, manager)
    problems += left_over(base_dir, "tmp", "outbox", *(() if case.is_damaged else ("aside",)))
    return problems + _wrong_in_mlflow(case, base_dir, manager)


def _wrong_at_once(
    case: Scenario, before_dir: Path, base_dir: Path, manager: ModelManager
) -> list[str]:
    """Tell what is wrong before anything is mended: the old model or the restored one is there."""
    before, place = Pair.in_place(before_dir), Pair.in_place(base_dir)
    problems = []
    if place.model not in (before.model, _restored(case, base_dir).model):
        problems.append("neither the old model nor the restored one is in place")
    if place.model != before.model and not _is_kept(case, before, before_dir, base_dir):
        problems.append("the model was replaced, and what it replaced is not in backups/")
    if not _contents(before_dir) <= _contents(base_dir):
        problems.append("something is lost")
    return problems + _wrong_load(case, before, base_dir, manager)


def _is_kept(case: Scenario, replaced: Pair, before_dir: Path, base_dir: Path) -> bool:
    """Tell whether what was replaced is a backup, and nothing else is new there.

    Notes
    -----
    A damaged model may lie in ``mlflow/aside`` instead, where no lookup meets it.
    """
    new = _backups(base_dir) - _backups(before_dir)
    is_whole = not _backups(before_dir) - _backups(base_dir)
    if replaced == Pair(None, None):
        return is_whole and not new
    if case.is_damaged and not new and replaced.model is not None:
        aside = (base_dir / "mlflow" / "aside").glob("*")
        return is_whole and replaced.model[0] in {digest(path) for path in aside}
    return is_whole and new == Counter([replaced])


def _wrong_load(case: Scenario, before: Pair, base_dir: Path, manager: ModelManager) -> list[str]:
    """Tell what is wrong with what is loaded, unless a damaged or missing model is in place yet."""
    is_old = Pair.in_place(base_dir).model == before.model
    if is_old and (case.is_damaged or before.model is None):
        return []
    log = Log()
    model = manager.load_model(_model_path(base_dir))
    expected = case.saves[-1 if is_old else case.restored][0]
    return log.unverified() + ([] if model == expected else [f"another model loads: {model}"])


def _wrong_in_the_end(
    case: Scenario, before_dir: Path, base_dir: Path, manager: ModelManager
) -> list[str]:
    """Tell what is wrong after it was mended: all of the restore was done, or nothing."""
    before, place = Pair.in_place(before_dir), Pair.in_place(base_dir)
    problems = _wrong_load(case, before, base_dir, manager)
    if place == _restored(case, base_dir):
        if not _is_kept(case, before, before_dir, base_dir):
            problems.append("what was replaced is not in backups/, or more is")
    elif place == before:
        if _backups(base_dir) != _backups(before_dir):
            problems.append("nothing was replaced, and something is in backups/")
        if _records(base_dir) != _records(before_dir):
            problems.append("the record of a restore that never was is left")
        problems += left_over(base_dir, "aside")
    else:
        problems.append(f"model and metadata do not belong together: {place}")
    return problems


def _records(base_dir: Path) -> set[str]:
    return {path.name for path in (base_dir / "mlflow" / "sent").glob(f"*~{NAME}.json")}


def _in_mlflow(base_dir: Path) -> tuple[list[list[Any]], list[list[str]]]:
    """Return the versions and the runs in MLflow, oldest first."""
    client = MlflowClient(tracking_uri=uri_of(base_dir))
    experiment = client.get_experiment_by_name("lotto_model")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    versions = sorted(
        [int(version.version), version.run_id, version.tags["save_id"]]
        for version in client.search_model_versions()
    )
    return versions, [[run.info.run_id, run.info.status] for run in runs]


def _wrong_in_mlflow(case: Scenario, base_dir: Path, manager: ModelManager) -> list[str]:
    """Tell where MLflow has anything but what it had, and the saves that mended the folder."""
    facts = (base_dir.parent / "in_mlflow.json").read_text(encoding="utf-8")
    problems = []
    saves = [*base_dir.glob(f"trained/{NEXT_NAME}*"), *base_dir.glob(f"backups/{NEXT_NAME}*.pkl")]
    for before, after in zip(json.loads(facts), _in_mlflow(base_dir), strict=True):
        if after[: len(before)] != before or len(after) != len(before) + len(saves):
            problems.append(f"MLflow has {after}, had {before}")
    findings = [found for found in manager.verify() if found.kind not in case.findings]
    return problems + [f"verify: {finding}" for finding in findings]
