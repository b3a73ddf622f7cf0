"""The demo, on simulated draws and on real ones where they are at hand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lotto_mlflow.demo import draws, training

REAL_DRAWS = os.environ.get("LOTTO_DRAWS_CSV")
HEADER = ",".join(draws.COLUMNS)


@pytest.mark.parametrize("history", ["simulated", *(["real"] if REAL_DRAWS else [])])
def test_the_whole_job_runs_and_both_views_agree(tmp_path: Path, history: str) -> None:
    command = [sys.executable, "-m", "lotto_mlflow.demo", "--directory", str(tmp_path / "demo")]
    if history == "real":
        command += ["--draws", str(REAL_DRAWS)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ("SIMULATED" in done.stdout) == (history == "simulated")
    assert "No model beats chance" in done.stdout
    digests = re.findall(r"SHA-256 ([0-9a-f]{64})", done.stdout)
    assert len(digests) == 2
    assert len(set(digests)) == 1
    assert '{"predictions": [[' in done.stdout
    assert "workflowType=machine_learning" in done.stdout
    trained = tmp_path / "demo" / "backend" / "app" / "models" / "ml" / "trained"
    assert len(list(trained.glob("lotto_model_*.pkl"))) == 3


def test_simulated_draws_are_six_different_numbers_of_45_and_repeat_with_their_seed() -> None:
    history = draws.simulated(2000, seed=1)
    assert history.shape == (2000, 6)
    assert (np.diff(history, axis=1) > 0).all()
    assert (history.min(), history.max()) == (1, 45)
    assert np.array_equal(history, draws.simulated(2000, seed=1))
    counts = np.bincount(history.ravel(), minlength=46)[1:]
    expected = 2000 * 6 / 45
    assert ((counts - expected) ** 2 / expected).sum() < 90  # 44 degrees of freedom


def test_features_look_only_at_draws_before() -> None:
    history = draws.simulated(80, seed=2)
    features, drawn = draws.features(history)
    assert features.shape == (30 * 45, 4)
    assert drawn.reshape(30, 45).sum(axis=1).tolist() == [6] * 30
    changed = history.copy()
    changed[-1] = [1, 2, 3, 4, 5, 6]
    assert np.array_equal(draws.features(changed)[0], features)


def test_measures_are_set_beside_chance() -> None:
    features, drawn = draws.features(draws.simulated(150, seed=3))
    model, metadata = training.evaluated(
        training.classifiers(seed=1)["regression"], features, drawn
    )
    assert metadata["hits_per_draw_of_chance"] == pytest.approx(0.8)
    assert metadata["log_loss_of_chance"] == pytest.approx(0.3927, abs=1e-4)
    assert metadata["test_draws"] + metadata["training_draws"] == 100
    assert 0 <= metadata["hits_per_draw"] <= 6
    assert model.predict_proba(features[:2]).shape == (2, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows with the columns"),
        ("a,b\n1,2\n", "no rows with the columns"),
        (f"{HEADER}\n1,2002-12-07,1,2,3,4,5,46,7\n", "line 2"),
        (f"{HEADER}\n1,2002-12-07,1,2,3,4,5,5,7\n", "line 2"),
        (f"{HEADER}\n1,2002-12-07,1,2,3,4,5,6,6\n", "line 2"),
        (f"{HEADER}\n1,2002-12-07,1,2,3,4,5,6,7\n2,never,1,2,3,4,5,6,7\n", "line 3"),
        (f"{HEADER}\n1,2002-12-07,1,2,3\n", "line 2"),
    ],
)
def test_a_file_that_is_no_history_is_refused_with_its_line(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "history.csv"
    path.write_text(content)
    with pytest.raises(draws.DrawsError, match=message):
        draws.read(path)


def test_a_missing_history_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lotto_mlflow.demo", "--draws", str(tmp_path / "none.csv")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
