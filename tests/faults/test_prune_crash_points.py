"""Prunes and deletions that are killed at each of their calls, from the first to the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import pytest
from faults import crashes
from faults.inspection import (
    EARLIER,
    LATER,
    NEW,
    NEXT,
    NEXT_NAME,
    OLD,
    left_over,
    mend,
    put_database,
    uri_of,
    wrong_names,
)
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from lotto_mlflow import ModelManager
from lotto_mlflow.layout import Layout
from lotto_mlflow.records import PRUNE, parse

TITLE = "Killed at every call of a prune"
MENDERS = ("the next save", "sync", "prune")


@dataclass(frozen=True)
class Scenario:
    """What is removed.

    Attributes
    ----------
    mirror : {"sync", "off"}
        How the folder is used.
    act : callable
        Given the manager.
    goes, stays : tuple of str
        Names of the models whose only, or older, save goes; and of those that stay.
    """

    mirror: Any
    act: Callable[[ModelManager], Any]
    goes: tuple[str, ...]
    stays: tuple[str, ...]


def _prune(manager: ModelManager) -> Any:
    return manager.prune(keep_last=1, dry_run=False)


SCENARIOS = {
    "a prune": Scenario("sync", _prune, ("lotto_model_1", "again"), ("lotto_model_2", "again")),
    "a prune on disk alone": Scenario(
        "off", _prune, ("lotto_model_1", "again"), ("lotto_model_2", "again")
    ),
    "the deletion of an alias holder": Scenario(
        "sync",
        lambda manager: manager.delete("lotto_model_2", force=True, reason="bad"),
        ("lotto_model_2",),
        ("lotto_model_1", "again"),
    ),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mended_by", MENDERS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_is_killed_at_any_call_is_finished_or_was_never_decided(
    tmp_path: Path,
    migrated_database: Path,
    warm_parent: Pool,
    figures: Callable[..., None],
    scenario: str,
    mended_by: str,
) -> None:
    """Each third of the calls is mended by another one."""
    outcome = warm_parent.apply(kill, (scenario, mended_by, tmp_path, migrated_database))
    figures(TITLE, tried=outcome.tried, lost=len(outcome.problems))
    assert outcome.problems == []
    assert outcome.tried == outcome.chosen > 0
    assert outcome.calls // 3 > 5


def kill(scenario: str, mended_by: str, work_dir: Path, database: Path) -> crashes.Outcome:
    """Run one scenario; this and what follows happens in the warm parent and its children."""
    case = SCENARIOS[scenario]
    return crashes.killed_at_every_call(
        work_dir,
        partial(_prepare, case, database),
        lambda base_dir: case.act(ModelManager(base_dir, mirror=case.mirror)),
        partial(_look, case, mended_by),
        part=(1 + MENDERS.index(mended_by), 3),
    )


def _prepare(case: Scenario, database: Path, base_dir: Path) -> None:
    put_database(database, base_dir)
    manager = ModelManager(base_dir, mirror=case.mirror)
    manager.save_model(OLD, "lotto_model_1", EARLIER)
    manager.save_model(OLD, "again", EARLIER)
    manager.save_model(NEW, "again", LATER)
    manager.save_model(NEW, "lotto_model_2", LATER)
    crashes.join_pushes()
    if case.mirror != "off":
        manager.promote("lotto_model_2")


def _look(case: Scenario, mended_by: str, base_dir: Path) -> list[str]:
    """Tell what is wrong with a folder, before and after it is mended."""
    manager, problems = ModelManager(base_dir, mirror=case.mirror), wrong_names(base_dir)
    problems += [f"lost: {name}" for name in case.stays if not _loads(manager, name)]
    decided = _decided(base_dir)
    if mended_by == "prune":
        case.act(manager) if case.act is _prune else manager.prune(keep_last=99, dry_run=False)
    elif mended_by == "the next save" and case.mirror == "off":
        manager.save_model(NEXT, NEXT_NAME, LATER)
    else:
        problems += mend(manager, mended_by)
    problems += left_over(base_dir, "tmp", "aside")
    if case.mirror != "off" or mended_by == "sync":
        problems += left_over(base_dir, "outbox")
    problems += [f"not finished: {name}" for name in decided - _gone(base_dir)]
    if mended_by == "prune" and case.act is _prune:
        problems += [f"not pruned: {name}" for name in set(case.goes) - _gone(base_dir)]
    problems += [f"lost: {name}" for name in case.stays if not _loads(manager, name)]
    problems += _half_gone(base_dir)
    if case.mirror == "off":
        manager = ModelManager(base_dir)
    manager.sync(resend=True)
    problems += [f"verify: {finding}" for finding in manager.verify()]
    return problems + _half_gone(base_dir)


def _loads(manager: ModelManager, name: str) -> bool:
    path = manager.get(name).path
    return path is not None and manager.load_model(path) in (OLD, NEW)


def _records(base_dir: Path, *folders: str) -> Iterator[Any]:
    for folder in folders:
        for path in (base_dir / "mlflow" / folder).glob("*.json"):
            yield parse(path.read_bytes())


def _decided(base_dir: Path) -> set[str]:
    """Return the models of the saves that a record says go, or are gone."""
    return {r.name for r in _records(base_dir, "outbox", "sent") if r.kind == PRUNE}


def _gone(base_dir: Path) -> set[str]:
    return {r.name for r in _records(base_dir, "sent") if r.kind == PRUNE}


def _half_gone(base_dir: Path) -> list[str]:
    """Tell which save is gone from one view and not from the other."""
    layout, problems = Layout.under(base_dir), []
    client = MlflowClient(tracking_uri=uri_of(base_dir))
    found = list(_records(base_dir, "sent", "outbox"))
    for record in found:
        is_gone = record.kind == PRUNE
        if not is_gone and not record.is_save:
            continue
        payload = record.payload
        files = [*layout.trained_dir.glob("*.pkl"), *layout.backup_dir.glob("*.pkl")]
        times = [f.stat().st_mtime_ns for f in files]
        time_ns = payload.file_time_ns
        if (time_ns in times) == is_gone:
            problems.append(f"{record.name} of {payload.saved_at} is gone: {is_gone}, and on disk")
        for ids in record.mirrored.values():
            name = ids.registered_model or ("again" if record.name == "again" else "lotto_model")
            if _has_version(client, name, ids.version) == is_gone:
                problems.append(f"version {ids.version} of {name}, gone: {is_gone}")
            root = layout.artifacts_dir / "lotto_model"
            left = [p for p in (root / "models" / ids.model_id, root / ids.run_id) if p.exists()]
            if bool(left) == is_gone:
                problems.append(f"files of version {ids.version} of {name}, gone: {is_gone}")
            run = client.get_run(ids.run_id)
            if (run.info.lifecycle_stage == "deleted") != is_gone:
                problems.append(f"the run of version {ids.version} of {name}, gone: {is_gone}")
    return problems


def _has_version(client: MlflowClient, name: str, number: int) -> bool:
    try:
        client.get_model_version(name, str(number))
    except MlflowException:
        return False
    return True
