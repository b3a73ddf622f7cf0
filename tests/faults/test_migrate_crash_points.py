"""Migrations that are killed at their calls, from the first to the last, and called again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import pytest
from faults import crashes
from faults.inspection import EARLIER, LATER, NEW, OLD, digest, left_over, put_database, uri_of
from mlflow import MlflowClient

from lotto_mlflow import ModelManager
from lotto_mlflow.records import MigrateReport

TITLE = "Killed at every call of a migration"
STEP = 40
"""Every so many calls one kills; each part begins at another one. A second migration makes few."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("part", "is_first"),
    [((1, STEP), True), ((1 + STEP // 2, STEP), True), ((1, 6), False)],
    ids=["the first", "the first, others", "the second"],
)
def test_a_migration_that_is_killed_at_any_call_is_finished_by_the_next(
    tmp_path: Path,
    migrated_database: Path,
    warm_parent: Pool,
    figures: Callable[..., None],
    part: tuple[int, int],
    is_first: bool,
) -> None:
    outcome = warm_parent.apply(kill, (part, is_first, tmp_path, migrated_database))
    figures(TITLE, tried=outcome.tried, lost=len(outcome.problems))
    assert outcome.problems == []
    assert outcome.tried == outcome.chosen > 0
    assert outcome.calls // part[1] > 5


def kill(part: tuple[int, int], is_first: bool, work_dir: Path, database: Path) -> crashes.Outcome:
    """Do the work; this and what follows happens in the warm parent and its children."""
    return crashes.killed_at_every_call(
        work_dir,
        partial(_prepare, database, is_first),
        lambda base_dir: ModelManager(base_dir).migrate(_target(base_dir)),
        partial(_look, work_dir / "template"),
        part=part,
    )


def _target(base_dir: Path) -> str:
    return f"sqlite:///{base_dir / 'elsewhere' / 'to.db'}"


def _prepare(database: Path, is_first: bool, base_dir: Path) -> None:
    """Save and promote; of a second migration, what is new is where the alias goes back."""
    put_database(database, base_dir)
    (base_dir / "elsewhere").mkdir()
    shutil.copyfile(database, base_dir / "elsewhere" / "to.db")
    manager, client = ModelManager(base_dir), MlflowClient(tracking_uri=uri_of(base_dir))
    manager.save_model(OLD, "lotto_model_1", EARLIER)
    manager.save_model(NEW, "lotto_model_2", LATER, artifacts={"extra.txt": "kept"})
    manager.save_model(OLD, "again", EARLIER)
    crashes.join_pushes()
    manager.promote("lotto_model_1")
    manager.promote("lotto_model_2", reason="better")
    client.set_model_version_tag("lotto_model", "2", "team", "red")
    client.set_tag(str(manager.get("again").run_id), "seen", "yes")
    if not is_first:
        manager.migrate(_target(base_dir))
    manager.rollback()


def _look(template: Path, base_dir: Path) -> list[str]:
    """Tell what is wrong after the next migration."""
    here, there = (ModelManager(base_dir, tracking_uri=uri) for uri in (None, _target(base_dir)))
    report = here.migrate(_target(base_dir))
    problems = [f"not migrated: {report.failed}"] if report.failed or report.left else []
    again = here.migrate(_target(base_dir))
    if again != MigrateReport(to=report.to, verified=3):
        problems.append(f"once more: {again}")
    if digest(base_dir / "mlflow" / "mlflow.db") != digest(template / "mlflow" / "mlflow.db"):
        problems.append("the original was changed")
    problems += [f"verify: {one}" for one in (*there.verify(deep=True), *here.verify())]
    problems += left_over(base_dir, "tmp", "outbox")
    if _moves(there) != _moves(here):
        problems.append(f"moves: {there.history()}")
    return problems + _doubled(base_dir, there)


def _moves(manager: ModelManager) -> list[Any]:
    return [replace(move, registered_model="") for move in manager.history()]


def _doubled(base_dir: Path, there: ModelManager) -> list[str]:
    """Tell what is there twice, or not at all."""
    client = MlflowClient(tracking_uri=_target(base_dir))
    experiment = client.get_experiment_by_name("lotto_model")
    assert experiment is not None
    ids = [experiment.experiment_id]
    counts = {
        "runs": len(client.search_runs(ids)),
        "logged models": len(client.search_logged_models(ids)),
        "versions": len(client.search_model_versions()),
    }
    problems = [f"{count} {what}" for what, count in counts.items() if count != 3]
    homes = [e.name for e in client.search_experiments() if "aliases" in e.name]
    problems += [] if homes == ["lotto_mlflow/aliases/lotto_model"] else [f"homes: {homes}"]
    if client.get_model_version("lotto_model", "2").tags.get("team") != "red":
        problems.append("the tag of a version is lost")
    if client.get_run(str(there.get("again").run_id)).data.tags.get("seen") != "yes":
        problems.append("the tag of a run is lost")
    run_id = str(there.get("lotto_model_2").run_id)
    if "extra.txt" not in [item.path for item in client.list_artifacts(run_id)]:
        problems.append("an extra artifact is lost")
    if client.get_model_version_by_alias("lotto_model", "champion").version not in (1, "1"):
        problems.append("the alias is lost")
    return problems
