"""The commands for predictions and results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from predicting import BONUS, CHANCE, DRAWN, GAME, before, files_in
from typer.testing import CliRunner, Result

from lotto_mlflow import ModelManager
from lotto_mlflow.cli import app
from lotto_mlflow.cli.output import KEYS

NAME = "lotto_model_kept"


def call(*arguments: Any) -> Result:
    environment = {"LOTTO_MIRROR": "off"}
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with predictions of two models for two draws."""
    manager = ModelManager(tmp_path / "ml", mirror="off")
    for name in (NAME, "lotto_model_other"):
        manager.save_model({"a": 1}, name, {"n": 1})
        for draw in (1000, 1001):
            manager.record_prediction(name, draw, GAME, scores=CHANCE, made_at=before(draw))
    return tmp_path / "ml"


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ((), 4),
        (("--draw", 1000), 2),
        (("--model", NAME), 2),
        (("-m", NAME, "-d", 1001), 1),
        (("--draw", 999), 0),
    ],
)
def test_predictions_are_listed_by_draw_or_model(
    base: Path, options: tuple[Any, ...], count: int
) -> None:
    done = call("predictions", *options, "--base-dir", base, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert len(found) == count
    assert all(tuple(one) == KEYS["predictions"] for one in found)
    table = call("predictions", *options, "--base-dir", base)
    assert table.exit_code == 0
    assert table.stdout.count("backtest") == count


def test_a_result_is_recorded_and_shows_how_good_the_predictions_were(base: Path) -> None:
    done = call("record-result", 1000, *DRAWN, BONUS, "--base-dir", base)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("backtest" in line and line.split()[-1] == "*" for line in lines[1:])
    again = call("record-result", 1000, *DRAWN, BONUS, "--base-dir", base, "--json")
    found = json.loads(again.stdout)
    assert [one["hits"] for one in found] == [[4], [4]]
    assert [one["ranks"] for one in found] == [[4], [4]]
    nobody = call("record-result", 999, *DRAWN, BONUS, "--base-dir", base)
    assert "no prediction" in nobody.stdout


def test_the_same_figures_are_printed_alike(base: Path) -> None:
    call("record-result", 1000, *DRAWN, BONUS, "--base-dir", base)
    found = json.loads(call("predictions", "-d", 1000, "--base-dir", base, "--json").stdout)[0]
    hits, loss = f"{found['hits_per_game']:.3f}", f"{found['log_loss']:.4f}"
    for command in (("predictions", "-d", 1000), ("accuracy",)):
        header, row, *_ = call(*command, "--base-dir", base).stdout.splitlines()
        assert {"hits/game", "loss"} <= set(header.split())
        assert {hits, loss} <= set(row.split())
    assert " best game " in call("predictions", "--base-dir", base).stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--draw", 999), "there is no prediction for draw 999\n"),
        (("-m", NAME, "-d", 999), f"there is no prediction of {NAME} for draw 999\n"),
        (("-m", "lotto_model_none"), "there is no prediction of lotto_model_none\n"),
    ],
)
def test_what_has_no_prediction_is_named(base: Path, options: tuple[Any, ...], said: str) -> None:
    ModelManager(base, mirror="off").save_model({"a": 2}, "lotto_model_none", {"n": 1})
    done = call("predictions", *options, "--base-dir", base)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", said)


def test_results_are_imported(base: Path, tmp_path: Path) -> None:
    csv = tmp_path / "draws.csv"
    csv.write_text(
        "draw_no,draw_date,n1,n2,n3,n4,n5,n6,bonus\n"
        f"1000,,{','.join(map(str, DRAWN))},{BONUS}\n1001,,{','.join(map(str, DRAWN))},{BONUS}\n"
    )
    done = call("import-results", csv, "--base-dir", base)
    assert done.stdout == "recorded 2 new results\n"
    done = call("import-results", csv, "--base-dir", base, "--json")
    assert json.loads(done.stdout) == {"recorded": 0}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("record-result", 1000, *DRAWN), 2),
        (("record-result", 1000, *DRAWN, BONUS, 45), 2),
        (("record-result", "soon", *DRAWN, BONUS), 2),
        (("record-result", 0, *DRAWN, BONUS), 1),
        (("record-result", 1000, *DRAWN, DRAWN[0]), 1),
        (("record-result", 100_000, *DRAWN, BONUS), 1),
        (("import-results", "nothing.csv"), 1),
        (("predictions", "--model", "nobody"), 1),
        (("predictions", "--draw", 0), 2),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(
    base: Path, arguments: tuple[Any, ...], code: int
) -> None:
    before_call = files_in(base)
    done = call(*arguments, "--base-dir", base)
    assert done.exit_code == code
    if code == 1:
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1
    assert files_in(base) == before_call


def test_verify_prints_the_command_that_brings_results_in(base: Path) -> None:
    path = base / "metadata" / "predictions" / "results.csv"
    path.write_text("draw_no,draw_date,n1,n2,n3,n4,n5,n6,bonus\n")
    done = call("verify", "--base-dir", base)
    assert f"lotto-mlflow import-results {path} --base-dir {base}" in done.stdout


def test_sync_says_what_it_brought_in(base: Path) -> None:
    old = {"model_name": NAME, "draw_no": 1002, "numbers": GAME}
    (base / "metadata" / "predictions" / "old.json").write_text(json.dumps(old))
    (base / "metadata" / "predictions" / "odd.json").write_text("{")
    done = CliRunner().invoke(app, ["sync", "--dry-run", "--base-dir", str(base)])
    assert "would record predictions of other programs: 1" in done.stdout
    assert "refused: odd.json" in done.stdout
    assert done.exit_code == 1
