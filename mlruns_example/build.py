"""Build the example store: twelve saves over simulated draws, ready to be committed.

Three of the models predict the thirty draws that follow, week by week, by a clock that is set to
these weeks. Run by ``make example``, with the oldest supported scikit-learn, so that most later
ones can open the models. It is built to the side, and put in place when it is whole.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import shutil
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plots
from scratch import EXAMPLE_DIR, FOLDERS, manager_of
from sklearn.base import clone
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from threadpoolctl import threadpool_limits

from lotto_mlflow import ModelManager, records
from lotto_mlflow.demo import draws, training
from lotto_mlflow.draws import closes_at

ROOT_DIR = EXAMPLE_DIR.parent
FEATURES = ["rate_last_10", "rate_last_50", "draws_since", "number"]
ALIAS, MEASURE = "champion", "test_log_loss"
PERSON, MACHINE = "example", "example"
"""What is committed in place of the names of whoever builds it, and of the machine."""
_DRAWS, _TEST_DRAWS, _FOLDS, _SEED = 400, 100, 5, 645
_RETRAINED = "forest_shallow"
_PREDICTING = ("forest_deep", "extra_trees_deep", "naive_bayes")
_FIRST_DRAW, _PREDICTED, _GAMES = 1175, 30, 5
"""Numbers of real draws, for their dates; what is drawn in them is simulated."""
_OPENS_ANYWHERE = ("forest", "extra_trees", "naive_bayes")
"""Measured: these predict with every scikit-learn from 1.6 to 1.9, the others do not."""


def classifiers() -> dict[str, Any]:
    """Return the eleven unfitted classifiers, by the ends of their models' names."""
    forest, trees = RandomForestClassifier, ExtraTreesClassifier
    common = {"min_samples_leaf": 40, "random_state": _SEED, "n_jobs": 1}
    return {
        "forest_shallow": forest(n_estimators=20, max_depth=3, **common),
        "forest_deep": forest(n_estimators=20, max_depth=7, **common),
        "forest_wide": forest(n_estimators=60, max_depth=4, **common),
        "extra_trees_shallow": trees(n_estimators=20, max_depth=3, **common),
        "extra_trees_deep": trees(n_estimators=20, max_depth=7, **common),
        "boosting_slow": HistGradientBoostingClassifier(
            max_iter=20, learning_rate=0.02, max_leaf_nodes=15, random_state=_SEED
        ),
        "boosting_fast": HistGradientBoostingClassifier(
            max_iter=20, learning_rate=0.2, max_leaf_nodes=15, random_state=_SEED
        ),
        "regression_strict": LogisticRegression(C=0.001),
        "regression_free": LogisticRegression(C=1.0),
        "naive_bayes": GaussianNB(),
        "naive_bayes_smooth": GaussianNB(var_smoothing=0.1),
    }


def rows_of(history: draws.Draws) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """Return the features of each number before each draw, and whether it was drawn."""
    features, drawn = draws.features(history)
    return pd.DataFrame(features, columns=FEATURES), drawn


def save_all(manager: ModelManager) -> pd.DataFrame:
    """Train and save everything; return the rows of a draw that no model has seen."""
    rows, drawn = rows_of(draws.simulated(_DRAWS, _SEED))
    split = len(rows) - _TEST_DRAWS * draws.BALLS
    for number, (name, classifier) in enumerate(classifiers().items(), start=1):
        print(f"{number:>2} {name}", flush=True)
        save(manager, name, classifier, rows, drawn, split)
    print(f"12 {_RETRAINED}, with the draws that it was tested on", flush=True)
    rows, drawn = rows_of(draws.simulated(_DRAWS + _TEST_DRAWS, _SEED))
    split = len(rows) - _TEST_DRAWS * draws.BALLS
    save(manager, _RETRAINED, classifiers()[_RETRAINED], rows, drawn, split)
    following, _ = rows_of(draws.simulated(_DRAWS + _TEST_DRAWS + 1, _SEED))
    return following[-draws.BALLS :].reset_index(drop=True)


def save(
    manager: ModelManager,
    name: str,
    classifier: Any,
    rows: pd.DataFrame,
    drawn: np.ndarray[Any, Any],
    split: int,
) -> None:
    """Fit one classifier, measure it by fold and on the draws it has not seen, and save it."""
    by_fold = measured_by_fold(classifier, rows[:split], drawn[:split])
    model = classifier.fit(rows[:split], drawn[:split])
    likely = model.predict_proba(rows[split:])[:, 1]
    found = training.measured(likely, drawn[split:])
    metadata = {
        **{f"test_{key}": value for key, value in found.items()},
        **{f"fold_{key}": values for key, values in by_fold.items()},
        "train_draws": split // draws.BALLS,
        "test_draws": _TEST_DRAWS,
        "estimator": type(model).__name__,
        "setting": name,
        "history": f"simulated, seed {_SEED}",
    }
    hits = training.hits_per_draw(likely, drawn[split:])
    manager.save_model(
        model,
        f"lotto_model_{name}",
        metadata,
        input_example=rows[:3],
        dataset={"train": rows[:split], "test": rows[split:]},
        artifacts={
            "probability_per_number": plots.probability_per_number(likely[-draws.BALLS :]),
            "hits_per_draw": plots.hits_per_draw(hits),
        },
    )


def measured_by_fold(
    classifier: Any, rows: pd.DataFrame, drawn: np.ndarray[Any, Any]
) -> dict[str, list[float]]:
    """Measure on each part of the history a model of the parts before it."""
    parts = np.array_split(np.arange(len(rows) // draws.BALLS), _FOLDS + 1)
    found: dict[str, list[float]] = {}
    for part in parts[1:]:
        first, last = part[0] * draws.BALLS, (part[-1] + 1) * draws.BALLS
        model = clone(classifier).fit(rows[:first], drawn[:first])
        likely = model.predict_proba(rows[first:last])[:, 1]
        for key, value in training.measured(likely, drawn[first:last]).items():
            if not key.endswith("_of_chance"):
                found.setdefault(key, []).append(value)
    return found


def predict_all(manager: ModelManager) -> None:
    """Predict and draw, week after week, with the three models as they were saved."""
    total = _DRAWS + _TEST_DRAWS + _PREDICTED
    history = draws.simulated(total, _SEED)
    rows, _ = rows_of(history)
    models = {name: manager.load_model(manager.get(name).path) for name in map(full, _PREDICTING)}
    for week in range(_PREDICTED):
        draw_no, first = _FIRST_DRAW + week, len(rows) - (_PREDICTED - week) * draws.BALLS
        numbers = history[total - _PREDICTED + week].tolist()
        with clock_at(closes_at(draw_no) - timedelta(days=1)):
            for name, model in models.items():
                likely = model.predict_proba(rows[first : first + draws.BALLS])[:, 1]
                best = (np.argsort(-likely, kind="stable") + 1)[: 6 * _GAMES]
                scores = scores_of(likely)
                manager.record_prediction(name, draw_no, best.reshape(_GAMES, 6), scores=scores)
        with clock_at(closes_at(draw_no) + timedelta(hours=1)):
            bonus = next(n for n in range(1 + week, 46 + week) if n % 45 + 1 not in numbers)
            manager.record_result(draw_no, numbers, bonus % 45 + 1)
    print(f"{_PREDICTED} draws predicted by {', '.join(models)}", flush=True)


def full(setting: str) -> str:
    """Return the name of a model."""
    return f"lotto_model_{setting}"


def scores_of(likely: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return probabilities with the sum of six, none above one."""
    scores = np.minimum(likely / likely.sum() * 6, 1)
    return scores + (1 - scores) * (6 - scores.sum()) / (1 - scores).sum()


@contextmanager
def clock_at(moment: datetime) -> Iterator[None]:
    """Let this process's clock begin at a moment: months of predictions are built in seconds."""
    real = time.time_ns
    offset = int(moment.timestamp()) * 10**9 - real()
    time.time_ns = lambda: real() + offset
    try:
        yield
    finally:
        time.time_ns = real


def promote(manager: ModelManager) -> str:
    """Give the alias to the best by log loss of those that any supported version opens.

    Notes
    -----
    The first of them was there before, and another was tried and rolled back, so that there is a
    history to look at.
    """
    candidates = [
        record
        for record in manager.records()
        if record.name.removeprefix("lotto_model_").startswith(_OPENS_ANYWHERE)
    ]
    by_loss = sorted(candidates, key=lambda record: record.metrics[MEASURE])
    best, second, worst = by_loss[0], by_loss[1], by_loss[-1]
    manager.promote(worst.name, ALIAS, reason="the first model that serves")
    gate = {"metric": MEASURE, "higher_is_better": False}
    manager.promote(best.name, ALIAS, reason="a lower loss on draws that no model saw", **gate)
    manager.promote(second.name, ALIAS, reason="tried for a week")
    manager.rollback(ALIAS, reason="it was not better")
    return str(best.name)


def scrub(base_dir: Path) -> None:
    """Remove what belongs to this machine or to a running store, and pack the database."""
    mlflow_dir = base_dir / "mlflow"
    for path in (mlflow_dir / "sent").glob("*.json"):
        record = records.parse(path.read_bytes())
        path.write_bytes(records.render(replace(record, host=MACHINE)))
    for pattern in ("*.lock", "*.bak", "clock", "aliases.json"):
        for path in mlflow_dir.glob(pattern):
            path.unlink()
    for folder in ("tmp", "downloads"):
        shutil.rmtree(mlflow_dir / folder, ignore_errors=True)
    with closing(sqlite3.connect(mlflow_dir / "mlflow.db")) as database:
        with database:  # who moved the alias
            names = (f"@{socket.gethostname()}", f"@{MACHINE}")
            database.execute("UPDATE params SET value = replace(value, ?, ?)", names)
            database.execute("DELETE FROM experiment_tags WHERE key = 'lotto_mlflow.made_by'")
        database.execute("VACUUM")  # else replaced paths stay readable in free pages


def traces_of(user: str, base_dir: Path) -> list[str]:
    """Return each file that names this machine, its user or one of its folders."""
    names = {socket.gethostname(), str(ROOT_DIR), str(Path.home()), tempfile.gettempdir()}
    names |= {f'"{user}"', f"/{user}/"}
    found = []
    for path in sorted(base_dir.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        found += [f"{path}: {name}" for name in names if len(name) > 2 and name.encode() in content]
    return found


def publish(built_dir: Path, target_dir: Path) -> None:
    """Put what was built in place of what is there."""
    target_dir.mkdir(parents=True, exist_ok=True)
    for folder in FOLDERS:
        shutil.rmtree(target_dir / folder, ignore_errors=True)
        shutil.copytree(built_dir / folder, target_dir / folder)


def main() -> int:
    """Build the example; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=EXAMPLE_DIR, help="where to put it")
    target_dir = parser.parse_args().directory.absolute()
    user, os.environ["LOGNAME"] = (
        getpass.getuser(),
        PERSON,
    )  # what getpass and MLflow take for the user
    with tempfile.TemporaryDirectory(prefix=".building-", dir=EXAMPLE_DIR) as scratch:
        built_dir = Path(scratch) / "ml"
        manager = manager_of(built_dir)
        with threadpool_limits(1):  # on so few rows, threads cost more than they bring
            with clock_at(closes_at(_FIRST_DRAW) - timedelta(days=3)):
                following = save_all(manager)
            predict_all(manager)
        if not manager.flush(300):
            print("error: not every save could be mirrored", file=sys.stderr)
            return 1
        print(f"{ALIAS}: {promote(manager)}")
        publish(built_dir, target_dir)
    request = following.round(4).to_dict(orient="split", index=False)
    request = {"dataframe_split": request, "params": {"predict_method": "predict_proba"}}
    (target_dir / "request.json").write_text(json.dumps(request) + "\n", encoding="utf-8")
    manager_of(target_dir).relocate(relative_to=ROOT_DIR)
    scrub(target_dir)
    if target_dir == EXAMPLE_DIR and (traces := traces_of(user, target_dir)):
        print("error: not fit to be committed:", *traces, sep="\n", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in target_dir.rglob("*") if path.is_file())
    print(f"{target_dir}: {size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
