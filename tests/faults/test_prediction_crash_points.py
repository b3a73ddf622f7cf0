"""Predictions and results that are killed at each of their calls, from the first to the last."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import pytest
from faults import crashes
from faults.inspection import (
    EARLIER,
    NAME,
    OLD,
    left_over,
    mend,
    put_database,
    uri_of,
    wrong_names,
)
from mlflow import MlflowClient
from predicting import BONUS, CHANCE, DRAWN, GAME, OTHER_GAME, before

from lotto_mlflow import ModelManager

TITLE = "Killed at every call of a prediction or a result"
HEADER = "draw_no,draw_date,n1,n2,n3,n4,n5,n6,bonus\n"
BY_HAND = f"{HEADER}999,2022-01-22,1,2,3,4,5,6,7\n"
Act = Callable[[ModelManager], Any]


def _predict(manager: ModelManager, game: list[int], draw_no: int = 1000, **ago: float) -> Any:
    made_at = before(draw_no, **ago)
    return manager.record_prediction(NAME, draw_no, game, scores=CHANCE, made_at=made_at)


def _result(manager: ModelManager) -> Any:
    return manager.record_result(1000, DRAWN, BONUS)


def _import(manager: ModelManager, base_dir: Path) -> Any:
    csv = base_dir.parent / "given.csv"
    numbers = ",".join(map(str, DRAWN))
    csv.write_text(f"{HEADER}1000,,{numbers},{BONUS}\n1001,,{numbers},{BONUS}\n", encoding="utf-8")
    return manager.import_results(csv)


def _put(base_dir: Path, name: str, content: str) -> None:
    folder = base_dir / "metadata" / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content, encoding="utf-8")


def _old_file(base_dir: Path) -> None:
    content = {"model_name": NAME, "draw_no": 1001, "numbers": OTHER_GAME}
    moment = before(1001).isoformat()
    _put(base_dir, "old.json", json.dumps(content | {"made_at": moment}))


@dataclass(frozen=True)
class Scenario:
    """What is recorded, and what was before.

    Attributes
    ----------
    prepare, act : callable
        Given the manager and its folder.
    adds : int
        Predictions that the act records.
    draws : int
        Results that are known once it is done.
    """

    prepare: Callable[[ModelManager, Path], Any]
    act: Callable[[ModelManager, Path], Any]
    adds: int
    draws: int


SCENARIOS = {
    "a first prediction": Scenario(lambda m, _: None, lambda m, _: _predict(m, GAME), 1, 0),
    "a prediction over another": Scenario(
        lambda m, _: _predict(m, OTHER_GAME, hours=9), lambda m, _: _predict(m, GAME), 1, 0
    ),
    "a prediction whose result is known": Scenario(
        lambda m, _: (_predict(m, OTHER_GAME, 1001), _result(m)),
        lambda m, _: _predict(m, GAME),
        1,
        1,
    ),
    "a late prediction": Scenario(
        lambda m, _: (_predict(m, GAME), _result(m)),
        lambda m, _: m.record_prediction(NAME, 1000, OTHER_GAME),
        1,
        1,
    ),
    "a result": Scenario(
        lambda m, _: (_predict(m, OTHER_GAME, hours=9), _predict(m, GAME)),
        lambda m, _: _result(m),
        0,
        1,
    ),
    "an import over a file made by hand": Scenario(
        lambda m, base: (
            _predict(m, GAME),
            _predict(m, GAME, 1001),
            _put(base, "results.csv", BY_HAND),
        ),
        _import,
        0,
        3,
    ),
    "an old file that is brought in": Scenario(
        lambda m, base: (_result(m), _predict(m, GAME), _old_file(base)),
        lambda m, _: m.sync(),
        1,
        1,
    ),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mended_by", ["the next save", "sync"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_is_killed_at_any_call_loses_and_mixes_nothing_and_is_sent_once(
    tmp_path: Path,
    migrated_database: Path,
    warm_parent: Pool,
    figures: Callable[..., None],
    scenario: str,
    mended_by: str,
) -> None:
    """Half of the calls are mended by the next save, the other half by `sync`."""
    outcome = warm_parent.apply(kill, (scenario, mended_by, tmp_path, migrated_database))
    figures(TITLE, tried=outcome.tried, lost=len(outcome.problems))
    assert outcome.problems == []
    assert outcome.tried == outcome.chosen > 0
    assert outcome.calls > 10


def kill(scenario: str, mended_by: str, work_dir: Path, database: Path) -> crashes.Outcome:
    """Run one scenario; this and what follows happens in the warm parent and its children."""
    case = SCENARIOS[scenario]
    return crashes.killed_at_every_call(
        work_dir,
        partial(_prepare, case, database),
        lambda base_dir: case.act(ModelManager(base_dir), base_dir),
        partial(_look, case, work_dir / "template", mended_by),
        part=(2, 2) if mended_by == "sync" else (1, 2),
    )


def _prepare(case: Scenario, database: Path, base_dir: Path) -> None:
    put_database(database, base_dir)
    manager = ModelManager(base_dir)
    manager.save_model(OLD, NAME, EARLIER)
    case.prepare(manager, base_dir)
    crashes.join_pushes()


def _look(case: Scenario, template_dir: Path, mended_by: str, base_dir: Path) -> list[str]:
    """Tell what is wrong with a folder, before and after it is mended."""
    manager, problems = ModelManager(base_dir), wrong_names(base_dir)
    before = _contents(template_dir)
    found = _contents(base_dir)
    problems += [f"lost: {lost}" for lost in before - found]
    problems += _wrong_files(base_dir)
    problems += mend(manager, mended_by) + wrong_names(base_dir)
    problems += [f"mending lost: {lost}" for lost in found - _contents(base_dir)]
    problems += left_over(base_dir, "tmp", "outbox", "aside")
    problems += _wrong_records(case, template_dir, base_dir, manager)
    if mended_by != "sync":  # a file made by hand is brought in by sync alone
        manager.sync()
    problems += [f"verify: {finding}" for finding in manager.verify() if _is_wrong(finding)]
    return problems + _wrong_in_mlflow(base_dir, manager)


def _is_wrong(finding: Any) -> bool:
    """Tell whether a finding is none of what was put there by hand."""
    return not (finding.kind == "orphan prediction" and finding.path.name == "results.csv")


def _contents(base_dir: Path) -> set[bytes]:
    """Return what all files of predictions, shown or replaced, hold; results grow by rows."""
    folders = ("metadata/predictions", "backups/predictions")
    found = {path.read_bytes() for folder in folders for path in (base_dir / folder).glob("*.json")}
    rows = (base_dir / folder / "results.csv" for folder in folders)
    return found | {row for path in rows if path.exists() for row in path.read_bytes().split()}


def _wrong_files(base_dir: Path) -> list[str]:
    """Tell which file of a prediction is not whole, before anything is mended."""
    problems = []
    for path in (base_dir / "metadata" / "predictions").glob("*.json"):
        try:
            values = json.loads(path.read_bytes())
        except ValueError:
            problems.append(f"{path.name} is not whole")
        else:
            if values["model_name"] != NAME:
                problems.append(f"{path.name} is of another model")
    results = base_dir / "metadata" / "predictions" / "results.csv"
    if results.exists() and not results.read_text(encoding="utf-8").endswith("\n"):
        problems.append("results.csv is not whole")
    return problems


def _rows(base_dir: Path) -> int:
    """Return how many results are shown."""
    path = base_dir / "metadata" / "predictions" / "results.csv"
    return len(path.read_bytes().splitlines()) - 1 if path.exists() else 0


def _wrong_records(
    case: Scenario, template_dir: Path, base_dir: Path, manager: ModelManager
) -> list[str]:
    """Tell whether anything but all of the act, or nothing, was recorded."""
    had = len(ModelManager(template_dir).predictions())
    found = manager.predictions()
    problems = []
    if len(found) not in (had, had + case.adds):
        problems.append(f"{len(found)} predictions, of {had} and {case.adds}")
    rows = [_rows(folder) for folder in (template_dir, base_dir)]
    if rows[1] not in (rows[0], case.draws):
        problems.append(f"results of {rows[1]} draws, of {rows[0]} and {case.draws}")
    for one in found:
        shown = {} if one.path is None else json.loads(one.path.read_bytes())
        if one.path is not None and shown.get("prediction_id") != one.prediction_id:
            problems.append(f"{one.path.name} shows another prediction than the newest that counts")
    scored = {p.draw_no for p in found if p.hits is not None}
    if any((p.hits is not None) != (p.draw_no in scored) for p in found):
        problems.append("some predictions of a draw are scored, and some are not")
    return problems


def _wrong_in_mlflow(base_dir: Path, manager: ModelManager) -> list[str]:
    """Tell where MLflow has anything but one row for each figure of what counts."""
    client = MlflowClient(tracking_uri=uri_of(base_dir))
    record = manager.get(NAME)
    wanted: Counter[tuple[str, int, float]] = Counter()
    for one in manager.predictions():
        if one.counts and one.hits is not None:
            kind = "backtest" if one.is_backtest else "live"
            values = (one.hits_per_game, one.best_hits, one.log_loss)
            for key, value in zip(("hits_per_game", "best_hits", "log_loss"), values, strict=True):
                if value is not None:
                    wanted[f"{kind}.{key}", one.draw_no, float(value)] += 1
    run_id = str(record.run_id)
    keys = [key for key in client.get_run(run_id).data.metrics if "." in key]
    found = Counter(
        (key, point.step, point.value)
        for key in keys
        for point in client.get_metric_history(run_id, key)
    )
    shown = client.get_logged_model(str(record.model_id)).metrics or []
    on_model = Counter((m.key, m.step, m.value) for m in shown if "." in m.key)
    problems = [] if found == wanted else [f"the run has {found}, and not {wanted}"]
    return problems + ([] if on_model == wanted else [f"the logged model has {on_model}"])
