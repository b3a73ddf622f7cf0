"""Saves that are killed at each of their calls, from the first to the last."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import joblib
import mlflow
import pytest
from faults import crashes
from faults.inspection import (
    EARLIER,
    LATER,
    NAME,
    NEW,
    NEXT,
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
from lotto_mlflow.errors import SignatureError
from lotto_mlflow.layout import Layout
from lotto_mlflow.signing import check_signing_key, new_key, verified
from lotto_mlflow.signing.pairs import read_beside_model
from lotto_mlflow.store.signatures import ids_of_pairs, read_pair

TITLE = "Killed at every call of a save"


@dataclass(frozen=True)
class Scenario:
    """A save, and the one before it."""

    name: str | None
    model: dict[str, Any]
    metadata: dict[str, Any] | None
    before: tuple[str | None, dict[str, Any] | None] | None
    artifacts: dict[str, Any] | None = None
    is_signed: bool = False


SCENARIOS = {
    "a new name": Scenario(NAME, NEW, LATER, None),
    "a generated name": Scenario(None, NEW, LATER, (None, EARLIER)),
    "metadata over metadata": Scenario(NAME, NEW, LATER, (NAME, EARLIER)),
    "none over metadata": Scenario(NAME, NEW, None, (NAME, EARLIER)),
    "the same again": Scenario(NAME, OLD, EARLIER, (NAME, EARLIER)),
    "with artifacts": Scenario(
        NAME, NEW, LATER, (NAME, EARLIER), {"notes.txt": "kept", "more.json": {"a": 1}}
    ),
    "signed": Scenario(NAME, NEW, LATER, (NAME, EARLIER), is_signed=True),
}


@pytest.mark.timeout(600)  # a minute on an idle machine
@pytest.mark.parametrize("mended_by", ["the next save", "sync"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_save_killed_at_any_call_loses_nothing_and_is_mended(
    tmp_path: Path,
    migrated_database: Path,
    warm_parent: Pool,
    figures: Callable[..., None],
    scenario: str,
    mended_by: str,
) -> None:
    """Half of the calls are mended by the next save, the other half by `sync`."""
    outcome = warm_parent.apply(kill_saves, (scenario, mended_by, tmp_path, migrated_database))
    figures(TITLE, tried=outcome.tried, lost=len(outcome.problems))
    assert outcome.problems == []
    assert outcome.tried == outcome.chosen > 0
    assert outcome.calls > 40


def test_the_same_kills_without_the_package(
    tmp_path: Path, migrated_database: Path, warm_parent: Pool, figures: Callable[..., None]
) -> None:
    """What plain code loses is a figure for comparison, no claim."""
    outcome = warm_parent.apply(kill_plain_saves, (tmp_path, migrated_database))
    figures(TITLE, plain_tried=outcome.tried, plain_lost=len(outcome.problems))
    assert outcome.tried == outcome.chosen > 0


def kill_saves(scenario: str, mended_by: str, work_dir: Path, database: Path) -> crashes.Outcome:
    """Run one scenario; this and what follows happens in the warm parent and its children."""
    case = SCENARIOS[scenario]
    with _signing(case, work_dir / "sign.pem"):
        return crashes.killed_at_every_call(
            work_dir,
            partial(_prepare, case, database),
            lambda base_dir: ModelManager(base_dir).save_model(
                case.model, case.name, case.metadata, artifacts=case.artifacts
            ),
            partial(_look, case, work_dir / "template", mended_by),
            part=(2, 2) if mended_by == "sync" else (1, 2),
        )


@contextmanager
def _signing(case: Scenario, key_path: Path) -> Iterator[None]:
    """Have each save of the block signed, where the scenario says so."""
    if not case.is_signed:
        yield
        return
    from model_signing import verifying  # noqa: F401 - imported before any fork

    new_key(key_path, None)
    os.environ["LOTTO_SIGNING_KEY"] = str(key_path)
    try:
        yield
    finally:
        del os.environ["LOTTO_SIGNING_KEY"]


def _prepare(case: Scenario, database: Path, base_dir: Path) -> None:
    put_database(database, base_dir)
    if case.before is not None:
        ModelManager(base_dir).save_model(OLD, *case.before)
        crashes.join_pushes()


def _look(case: Scenario, template_dir: Path, mended_by: str, base_dir: Path) -> list[str]:
    """Tell what is wrong with a folder, before and after it is mended."""
    manager = ModelManager(base_dir)
    problems = wrong_names(base_dir) + _wrong_at_once(case, template_dir, base_dir, manager)
    problems += _unsigned(case, base_dir)
    kept = set(_saves_on_disk(base_dir))
    problems += mend(manager, mended_by)
    gone = kept - set(_saves_on_disk(base_dir))
    problems += [f"mending lost {gone}"] if gone else []
    problems += wrong_names(base_dir) + _wrong_metadata(case, template_dir, base_dir)
    problems += left_over(base_dir, "tmp", "outbox", "aside")
    problems += _unsigned(case, base_dir) + _wrong_signatures(case, base_dir)
    return problems + _wrong_in_mlflow(case, base_dir, manager)


def _signed(base_dir: Path) -> dict[str, tuple[str, Any]]:
    """Return the digest that the key signed of each save, and the pair; only valid ones."""
    layout, found = Layout.under(base_dir), {}
    keys = check_signing_key(Path(os.environ["LOTTO_SIGNING_KEY"])).as_trusted()
    for save_id in ids_of_pairs(layout):
        pair = read_pair(layout, save_id)
        with suppress(SignatureError):
            if pair is not None:
                found[save_id] = (verified(*pair, keys).sha256, pair)
    return found


def _unsigned(case: Scenario, base_dir: Path) -> list[str]:
    """Tell which files in ``trained/`` and ``backups/`` have no valid signature."""
    signed = {sha256 for sha256, _ in _signed(base_dir).values()} if case.is_signed else set()
    paths = (p for folder in ("trained", "backups") for p in (base_dir / folder).glob("*.pkl"))
    return [f"{p} is not signed" for p in paths if case.is_signed and digest(p) not in signed]


def _wrong_signatures(case: Scenario, base_dir: Path) -> list[str]:
    """Tell where there are signatures of other saves than those in MLflow, there or on disk."""
    if not case.is_signed:
        return []
    client = MlflowClient(tracking_uri=uri_of(base_dir))
    models = {v.tags["save_id"]: v.tags["model_id"] for v in client.search_model_versions()}
    signed, folder = _signed(base_dir), base_dir / "mlflow" / "artifacts" / "lotto_model" / "models"
    names = {path.name for path in Layout.under(base_dir).signatures_dir.iterdir()}
    problems = [
        f"not signed in MLflow: {i}"
        for i, model_id in models.items()
        if i in signed and read_beside_model(folder / model_id / "artifacts") != signed[i][1]
    ]
    if names != {f"{i}{end}" for i in models for end in (".json", ".sig")} or set(signed) != set(
        models
    ):
        problems.append(f"signatures of {sorted(names)}, saves {sorted(models)}")
    return problems


def _saves_on_disk(base_dir: Path) -> Counter[tuple[str, str]]:
    """Count the saves in ``trained/`` and ``backups/`` by digest and time."""
    return Counter(
        (digest(path), f"{path.stat().st_mtime_ns:019d}")
        for folder in ("trained", "backups")
        for path in (base_dir / folder).glob("*.pkl")
    )


def _is_replaced(template_dir: Path, path: Path) -> bool:
    before = template_dir / "trained" / path.name
    return not before.exists() or before.stat().st_mtime_ns != path.stat().st_mtime_ns


def _wrong_at_once(
    case: Scenario, template_dir: Path, base_dir: Path, manager: ModelManager
) -> list[str]:
    """Tell what is wrong before anything is mended: the old model or the new one is there."""
    problems, log = [], Log()
    for old in sorted((template_dir / "trained").glob("*.pkl")):
        if not (base_dir / "trained" / old.name).exists():
            problems.append(f"{old.name} is gone")
        elif _is_replaced(template_dir, base_dir / "trained" / old.name):
            old_metadata = template_dir / "metadata" / f"{old.stem}_metadata.json"
            if not any(
                crashes.is_copy(old, backup)
                and crashes.is_copy(old_metadata, backup.with_name(f"{backup.stem}_metadata.json"))
                for backup in (base_dir / "backups").glob("*.pkl")
            ):
                problems.append(f"what {old.name} replaced is not in backups/")
    paths = sorted((base_dir / "trained").glob("*.pkl"))
    for path in paths:
        expected = case.model if _is_replaced(template_dir, path) else OLD
        if manager.load_model(path) != expected:
            problems.append(f"{path.name} is neither the old model nor the new one")
    problems += log.unverified()
    newest = max(paths, key=lambda path: path.stat().st_mtime_ns, default=None)
    if manager.get_latest_model_path() != (None if newest is None else str(newest)):
        problems.append("the latest model is not the newest file")
    return problems


def _wrong_metadata(case: Scenario, template_dir: Path, base_dir: Path) -> list[str]:
    """Tell whose metadata is not that of the save in place; the digest in it is part of it."""
    problems = []
    for path in (base_dir / "trained").glob("*.pkl"):
        if path.stem == NEXT_NAME:
            continue
        is_new = _is_replaced(template_dir, path)
        expected = case.metadata if is_new or case.before is None else case.before[1]
        metadata_path = base_dir / "metadata" / f"{path.stem}_metadata.json"
        found = json.loads(metadata_path.read_bytes()) if metadata_path.exists() else None
        wanted = None if expected is None else {**(found or {}), **expected}
        if found != wanted or (found is not None and found["sha256"] != digest(path)):
            problems.append(f"{path.name} has other metadata: {found}")
    return problems


def _wrong_in_mlflow(case: Scenario, base_dir: Path, manager: ModelManager) -> list[str]:
    """Tell where MLflow has not exactly one whole version of each committed save."""
    client = MlflowClient(tracking_uri=uri_of(base_dir))
    versions = sorted(client.search_model_versions(), key=lambda version: int(version.version))
    experiment = client.get_experiment_by_name("lotto_model")
    ids = [] if experiment is None else [experiment.experiment_id]
    runs = client.search_runs(ids, max_results=1000) if ids else []
    models = client.search_logged_models(ids) if ids else []
    artifacts_dir = base_dir / "mlflow" / "artifacts" / "lotto_model"
    folders = {path.name for glob in ("*", "models/*") for path in artifacts_dir.glob(glob)}
    mirrored = Counter(
        (version.tags["sha256"], version.tags["save_id"].partition("-")[0]) for version in versions
    )
    save_ids = [version.tags["save_id"] for version in versions]
    statuses = {run.info.status for run in runs} | {str(model.status) for model in models}
    checks = {
        "versions are not the saves on disk": mirrored == _saves_on_disk(base_dir),
        "a save has two versions": max(mirrored.values(), default=1) == 1,
        "versions are not in save order": save_ids == sorted(save_ids),
        f"unfinished runs or models: {statuses}": statuses <= {"FINISHED", "READY"},
        "runs are not those of the versions": sorted(run.info.run_id for run in runs)
        == sorted(version.run_id for version in versions),
        "logged models are not those of the versions": sorted(m.model_id for m in models)
        == sorted(version.tags["model_id"] for version in versions),
        "artifacts of a broken push are left": folders
        <= {"models", *(r.info.run_id for r in runs), *(m.model_id for m in models)},
    }
    problems = [problem for problem, holds in checks.items() if not holds]
    for version in versions:
        model = manager.load_model(f"models:/{version.name}/{version.version}")
        extra = {} if case.artifacts is None or model != NEW else case.artifacts
        found = {item.path for item in client.list_artifacts(version.run_id)}
        if model not in (OLD, NEW, NEXT) or {f for f in found if "_metadata" not in f} != {*extra}:
            problems.append(f"version {version.version} is not whole: {model}, {found}")
    return problems + [f"verify: {finding}" for finding in manager.verify()]


def kill_plain_saves(work_dir: Path, database: Path) -> crashes.Outcome:
    """Do what people do by hand: write over the file, then log it in a run."""

    def prepare(base_dir: Path) -> None:
        _prepare(Scenario(None, OLD, None, None), database, base_dir)
        joblib.dump(OLD, base_dir / "model.pkl")

    def save(base_dir: Path) -> None:
        mlflow.set_tracking_uri(uri_of(base_dir))
        joblib.dump(NEW, base_dir / "model.pkl")
        with mlflow.start_run():
            mlflow.log_artifact(str(base_dir / "model.pkl"))

    def look(base_dir: Path) -> list[str]:
        runs = MlflowClient(tracking_uri=uri_of(base_dir)).search_runs(["0"])
        is_running = any(run.info.status == "RUNNING" for run in runs)
        problems = ["a run stays RUNNING"] if is_running else []
        try:
            is_whole = joblib.load(base_dir / "model.pkl") in (OLD, NEW)
        except Exception:  # noqa: BLE001 - whatever half a file makes joblib raise
            is_whole = False
        return problems if is_whole else [*problems, "neither model loads"]

    return crashes.killed_at_every_call(work_dir, prepare, save, look, part=(1, 1))
