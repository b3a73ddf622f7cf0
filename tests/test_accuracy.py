"""How good predictions were: rows by hand, the sentence, the command and its picture."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import warnings
from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.image import imread
from typer.testing import CliRunner, Result

import lotto_mlflow
from lotto_mlflow import ModelManager, chance, draws, model_utils
from lotto_mlflow.cli import accuracy_plot, app
from lotto_mlflow.cli.output import KEYS
from lotto_mlflow.entries import Entry
from lotto_mlflow.errors import MissingExtraError, ModelNotFoundError
from lotto_mlflow.journal import Journal
from lotto_mlflow.operations.accuracy import accuracy_of, measured, summary
from lotto_mlflow.records import ModelAccuracy, Prediction

ONE = (1, 2, 3, 4, 5, 6)
OTHER = (7, 8, 9, 10, 11, 12)
EVEN = tuple([6 / 45] * 45)
RESULTS = {
    1: draws.Draw(1, (1, 2, 3, 40, 41, 42), 4),
    2: draws.Draw(2, (1, 2, 3, 4, 5, 45), 6),
    3: draws.Draw(3, (20, 21, 22, 23, 24, 25), 26),
}


def prediction(
    model: str,
    draw_no: int,
    *games: draws.Game,
    result: draws.Draw | None = None,
    scores: tuple[float, ...] | None = None,
    **values: Any,
) -> Prediction:
    """Return a prediction as the manager lists it, with its figures where there is a result."""
    found = result or RESULTS.get(draw_no)
    figures = {} if found is None else vars(draws.score(games, scores, found))
    usual: dict[str, Any] = {
        "prediction_id": f"{model}-{draw_no}",
        "registered_model": "lotto_model",
        "version": 1,
        "save_id": f"1-{model}",
        "sha256": None,
        "made_at": "",
        "is_backtest": False,
        "is_late": False,
        "counts": True,
        "path": None,
    }
    return Prediction(
        model=model, draw_no=draw_no, games=games, scores=scores, **figures | usual | values
    )


def season(
    model: str, n_draws: int, n_games: int = 5, known: int = 0, **values: Any
) -> list[Prediction]:
    """Return random predictions for random draws; each game has some of the winning numbers."""
    found, chosen = [], random.Random(model)
    for draw_no in range(1100, 1100 + n_draws):
        balls = random.Random(draw_no).sample(range(1, 46), 7)
        drawn = draws.Draw(draw_no, tuple(sorted(balls[:6])), balls[6])
        games = []
        for _ in range(n_games):
            first = chosen.sample(drawn.numbers, known)
            rest = [number for number in range(1, 46) if number not in first]
            games.append(tuple(sorted(first + chosen.sample(rest, 6 - known))))
        found.append(prediction(model, draw_no, *games, result=drawn, **values))
    return found


def test_a_row_has_the_figures_by_hand() -> None:
    (row,) = accuracy_of(
        [
            prediction("a", 2, ONE, scores=EVEN),  # 5 and the bonus
            prediction("a", 1, ONE, OTHER),  # 3 and the bonus, none
            prediction("a", 3, ONE, ONE),  # none
        ]
    )
    # the most of twelve hits in three draws is 5 + 3; the distribution of one game by hand
    ways = [math.comb(6, k) * math.comb(39, 6 - k) for k in range(7)]
    apart = [math.comb(12, k) * math.comb(33, 6 - k) for k in range(7)]
    tail = sum(
        Fraction(ways[i] * apart[j] * ways[k], math.comb(45, 6) ** 3)
        for i in range(7)
        for j in range(7)
        for k in range(7)
        if i + j + 2 * k >= 8
    )
    # r = 8/5; deviations 5 - 1.6, 3 - 3.2, 0 - 3.2; t(2) = 0.95 / sqrt(2 · 0.975 · 0.025)
    half = 0.95 / math.sqrt(0.04875) * math.sqrt(1.5 * (3.4**2 + 0.2**2 + 3.2**2)) / 5
    assert row.interval == pytest.approx((1.6 - half, 1.6 + half), rel=1e-9)
    assert row.p_value == pytest.approx(float(2 * tail), rel=1e-12)
    assert row.p_adjusted == row.p_value
    assert row.log_loss == pytest.approx(draws.CHANCE_LOG_LOSS, abs=5e-5)
    assert (row.model, row.version, row.is_backtest) == ("a", 1, False)
    assert (row.draws, row.games, row.hits_per_game) == (3, 5, 1.6)
    assert row.prizes == {1: 0, 2: 1, 3: 0, 4: 0, 5: 1}


def test_a_row_of_one_draw_has_no_interval_and_without_scores_no_log_loss() -> None:
    (row,) = accuracy_of([prediction("a", 1, ONE)])
    assert (row.draws, row.interval, row.log_loss) == (1, None, None)


def test_what_does_not_count_or_has_no_result_is_in_no_row() -> None:
    assert accuracy_of([prediction("a", 4, ONE), prediction("a", 1, ONE, counts=False)]) == []
    (row,) = accuracy_of(
        [
            prediction("a", 4, ONE),
            prediction("a", 1, ONE, counts=False, is_late=True),
            prediction("a", 1, OTHER),
        ]
    )
    assert (row.draws, row.hits_per_game) == (1, 0)


def test_a_row_is_of_one_save_and_kind() -> None:
    rows = accuracy_of(
        [
            prediction("b", 1, ONE, save_id="1-x"),
            prediction("a", 1, ONE, save_id="3-x", version=None),
            prediction("a", 1, OTHER, save_id="2-x", version=2),
            prediction("a", 2, OTHER, save_id="2-x", version=2, is_backtest=True),
            prediction("a", 2, OTHER, save_id="2-x", version=2),
        ]
    )
    assert [(row.model, row.version, row.is_backtest, row.draws) for row in rows] == [
        ("a", 2, False, 2),
        ("a", None, False, 1),
        ("b", 1, False, 1),
        ("a", 2, True, 1),
    ]


def test_p_values_are_adjusted_for_all_saves_of_a_kind_also_when_one_is_asked_for() -> None:
    live = [*season("a", 30, 1, known=1), *season("b", 30), *season("c", 30), *season("d", 1)]
    backtests = season("e", 30, 1, known=1, is_backtest=True)
    rows = {row.model: row for row in accuracy_of([*live, *backtests])}
    expected = chance.adjusted([rows[name].p_value for name in "abcd"])
    assert [rows[name].p_adjusted for name in "abcd"] == expected
    assert rows["a"].p_adjusted == pytest.approx(4 * rows["a"].p_value)
    assert rows["e"].p_adjusted == rows["e"].p_value
    asked = [one for one in live if one.model == "a"]
    assert accuracy_of([*live, *backtests], asked) == [rows["a"]]
    assert accuracy_of([*live, *backtests], []) == []


def test_the_order_of_predictions_changes_nothing() -> None:
    every = [*season("a", 20), *season("b", 20, is_backtest=True), *season("a", 3, save_id="9")]
    turned = random.Random(13).sample(every, len(every))
    assert accuracy_of(turned) == accuracy_of(every)
    assert [found for _, found in measured(turned)] == [found for _, found in measured(every)]


@pytest.mark.parametrize(
    ("predictions", "sentence"),
    [
        ([], "No prediction that counts has met its draw yet."),
        ([prediction("a", 4, ONE)], "No prediction that counts has met its draw yet."),
        (
            [prediction("a", 3, ONE)],
            "The save does not differ from chance, which hits 0.8 numbers a game (adjusted p "
            "0.80).",
        ),
        (
            [prediction("a", 3, ONE), prediction("b", 1, ONE)],
            "None of 2 differs from chance, which hits 0.8 numbers a game (adjusted p from 0.095).",
        ),
        (
            [prediction("a", 3, ONE), prediction("b", 2, ONE)],
            "1 of 2 differs from chance, which hits 0.8 numbers a game: b version 1 (5, adjusted p "
            "0.00012).",
        ),
        (
            [
                prediction("a", 2, ONE, is_backtest=True, version=None),
                prediction("b", 2, ONE),
                prediction("b", 1, ONE),
            ],
            "2 of 2 differ from chance, which hits 0.8 numbers a game: b version 1 (4, adjusted p "
            "6.5e-06), a backtest (5, adjusted p 5.8e-05); a backtest does also where the model "
            "was trained on its draws.",
        ),
    ],
)
def test_one_sentence_says_whether_any_differs_from_chance(
    predictions: list[Prediction], sentence: str
) -> None:
    assert summary(accuracy_of(predictions)) == sentence


@pytest.fixture
def played_dir(base_dir: Path, forest: Any) -> Path:
    """Two models, one of which knew two numbers of each game, in three draws that were held."""
    manager = ModelManager(base_dir, mirror="off")
    manager.save_model(forest, "lotto_model_길")
    manager.save_model(forest, "lotto_model_b")
    for draw_no, drawn in RESULTS.items():
        before = draws.closes_at(draw_no) - timedelta(days=1)
        games = [[*drawn.numbers[:5], 45 - draw_no], list(OTHER)]
        manager.record_prediction("lotto_model_길", draw_no, games, made_at=before)
        manager.record_prediction("lotto_model_b", draw_no, OTHER, made_at=before, scores=EVEN)
        manager.record_result(draw_no, drawn.numbers, drawn.bonus)
    return base_dir


def test_the_manager_has_a_row_for_each_save(played_dir: Path) -> None:
    manager = ModelManager(played_dir, mirror="off")
    b, korean = manager.accuracy()
    assert (b.model, b.is_backtest, b.draws, b.games) == ("lotto_model_b", True, 3, 3)
    assert b.log_loss == pytest.approx(draws.CHANCE_LOG_LOSS, abs=5e-5)
    assert (korean.model, korean.draws, korean.games) == ("lotto_model_길", 3, 6)
    assert korean.hits_per_game == pytest.approx(15 / 6)
    assert korean.prizes == {1: 0, 2: 0, 3: 3, 4: 0, 5: 0}
    assert korean.p_adjusted == pytest.approx(2 * korean.p_value)
    assert manager.accuracy("lotto_model_길") == [korean]
    with pytest.raises(ModelNotFoundError):
        manager.accuracy("lotto_model_c")


def test_the_rows_of_a_model_read_each_prediction_once(
    played_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them is read beforehand, to see whether the model has any."""
    manager, read = ModelManager(played_dir, mirror="off"), Journal.read
    of_a_call: list[str] = []

    def counted(journal: Journal, entry: Entry) -> Any:
        of_a_call.append(entry.name)
        return read(journal, entry)

    monkeypatch.setattr(Journal, "read", counted)
    assert [row.draws for row in manager.accuracy("lotto_model_b")] == [3]
    of_draws = [name for name in of_a_call if name.startswith("lotto_model_") and "@" in name]
    assert len(of_draws) == 2 * len(RESULTS) + 1


def test_the_package_has_the_managers_rows(
    played_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_utils, "MODEL_BASE_DIR", played_dir)
    assert lotto_mlflow.accuracy() == ModelManager(played_dir).accuracy()
    assert [row.model for row in lotto_mlflow.accuracy("lotto_model_b")] == ["lotto_model_b"]


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["accuracy", *map(str, arguments)])


def test_the_command_prints_a_table_and_the_sentence(played_dir: Path) -> None:
    done = call("--base-dir", played_dir)
    assert done.exit_code == 0, done.output
    header, *rows, gap, sentence = done.stdout.splitlines()
    assert " ".join(header.split()) == (
        "model version kind draws games hits/game 95 % interval p adjusted p prizes log loss"
    )
    assert len(rows) == 2
    assert gap == ""
    assert rows[1].startswith("lotto_model_길")
    assert rows[1].split()[2:6] == ["backtest", "3", "6", "2.500"]
    assert "3: 3" in rows[1]
    assert sentence.startswith("1 of 2 differs from chance")
    assert "lotto_model_길" in sentence


def test_the_json_has_the_rows_and_nothing_else(played_dir: Path) -> None:
    done = call("lotto_model_길", "--json", "--base-dir", played_dir)
    (row,) = json.loads(done.stdout)
    (expected,) = ModelManager(played_dir).accuracy("lotto_model_길")
    assert tuple(row) == KEYS["accuracy"] == tuple(vars(expected))
    assert row["prizes"] == {"1": 0, "2": 0, "3": 3, "4": 0, "5": 0}
    assert row["interval"] == list(expected.interval or ())
    assert row["p_adjusted"] == expected.p_adjusted


def test_a_folder_without_predictions_has_the_sentence_and_no_picture(base_dir: Path) -> None:
    done = call("--base-dir", base_dir, "--plot", base_dir / "hits.png")
    assert done.exit_code == 0
    assert done.stdout == "No prediction that counts has met its draw yet.\n"
    assert "nothing to draw" in done.stderr
    assert not (base_dir / "hits.png").exists()
    assert json.loads(call("--base-dir", base_dir, "--json").stdout) == []


def test_the_picture_is_written_beside_the_answer(played_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "그림.PNG"
    path.write_text("an older one")
    done = call("--base-dir", played_dir, "--json", "--plot", path)
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)) == 2
    assert str(path) in done.stderr
    assert imread(str(path), format="png").shape[1] > 1000
    assert os.listdir(tmp_path / "current") == []


@pytest.mark.parametrize("name", ["hits.jpg", "hits", "hits.pkl"])
def test_a_picture_of_another_kind_is_wrong_usage(
    played_dir: Path, tmp_path: Path, name: str
) -> None:
    done = call("--base-dir", played_dir, "--plot", tmp_path / name)
    assert done.exit_code == 2
    assert "ends in .png" in done.stderr
    assert not (tmp_path / name).exists()


def test_a_picture_that_cannot_be_written_is_one_line_with_its_name(
    played_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "nowhere" / "hits.png"
    done = call("--base-dir", played_dir, "--plot", path)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: {path} could not be written: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_matplotlib_is_one_line_with_the_command_that_helps(
    played_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as Python has it where it is missing
    with pytest.raises(MissingExtraError) as caught:
        accuracy_plot.check_matplotlib()
    assert isinstance(caught.value, ImportError)
    done = call("--base-dir", played_dir, "--plot", tmp_path / "hits.png")
    assert done.exit_code == 1
    assert "pip install 'lotto-mlflow[plot]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "hits.png").exists()
    assert call("--base-dir", played_dir).exit_code == 0  # which needs none


def picture(*predictions: Prediction) -> tuple[Any, list[str]]:
    """Return the pixels of a picture, and its notes; a missing letter would be an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content, notes = accuracy_plot.picture_of(measured(predictions))
    assert content.startswith(b"\x89PNG\r\n")
    path = Path("picture.png")
    path.write_bytes(content)
    return imread(str(path)), notes


def test_a_picture_has_a_panel_for_each_save_and_grows_with_them() -> None:
    few, _ = picture(*(one for name in "abc" for one in season(name, 30)))
    many, notes = picture(*(one for n in range(20) for one in season(f"model_{n}", 100)))
    single, _ = picture(*season("a", 1, 1))
    assert notes == []
    assert single.shape[1] < few.shape[1] < many.shape[1]
    assert few.shape[0] < many.shape[0] < 2000


def test_a_picture_of_too_many_saves_shows_those_with_the_lowest_p(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = [one for n in range(3) for one in season(f"m{n}", 10)]
    told = season("z", 10, known=2)
    expected, _ = picture(*told)
    monkeypatch.setattr(accuracy_plot, "MOST_PANELS", 1)
    pixels, (note,) = picture(*usual, *told)
    assert "1 of 4" in note
    assert pixels.shape == expected.shape
    assert int((pixels[..., 0] > pixels[..., 2] + 0.3).sum()) > 1000


@pytest.mark.parametrize(
    "name", ["a$x^$", "$\\frac{$", "a_b^c", "m" * 250, "모" * 83, "\ue123", "\u202eabc", "a\nb"]
)
def test_any_name_can_be_drawn(name: str) -> None:
    pixels, _ = picture(*season(name, 2))
    assert pixels.shape[1] < 1500


def test_a_save_that_differs_from_chance_stands_out() -> None:
    def reddish(pixels: Any) -> int:
        return int((pixels[..., 0] > pixels[..., 2] + 0.3).sum())

    usual, _ = picture(*season("a", 30))
    told, _ = picture(*season("a", 30, known=2))
    assert reddish(usual) == 0
    assert reddish(told) > 1000


def test_the_settings_of_the_callers_matplotlib_stay_and_are_not_used() -> None:
    plain, _ = picture(*season("a", 3))
    with mpl.rc_context({"lines.linewidth": 9, "axes.facecolor": "red", "font.size": 30}):
        before = dict(mpl.rcParams)
        again, _ = picture(*season("a", 3))
        assert dict(mpl.rcParams) == before
    assert (plain == again).all()


def test_where_no_font_has_korean_letters_names_are_drawn_as_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_: [])
    korean, (note,) = picture(*season("길잡이", 2, save_id="1"))
    assert "fonts-nanum" in note
    latin = [replace(one, model="giljabi") for one in season("길잡이", 2, save_id="1")]
    read, notes = picture(*latin)
    assert notes == []
    assert (korean == read).all()


def test_where_a_font_has_them_they_are_drawn_by_it(tmp_path: Path) -> None:
    """In a process of its own, since matplotlib looks for folders of fonts when it is imported."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    make_font(folder / "Tiny.ttf", "길잡이")
    (folder / "broken.ttf").write_bytes(b"no font")
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from test_accuracy import accuracy_plot, measured, season\n"
        "content, notes = accuracy_plot.picture_of(measured(season('길잡이', 2)))\n"
        "print(len(content) > 5000, notes)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code, str(Path(__file__).parent)],
        env=os.environ | {"XDG_DATA_HOME": str(tmp_path), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "True []", done.stderr


def make_font(path: Path, letters: str) -> None:
    """Write a font in which each of some letters is a square."""
    pen = TTGlyphPen(None)
    for number, point in enumerate([(0, 0), (0, 500), (500, 500), (500, 0)]):
        (pen.lineTo if number else pen.moveTo)(point)
    pen.closePath()
    square = pen.glyph()
    names = {ord(letter): f"letter{number}" for number, letter in enumerate(letters)}
    order = [".notdef", *names.values()]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(order)
    font.setupCharacterMap(names)
    font.setupGlyf(dict.fromkeys(order, square))
    font.setupHorizontalMetrics(dict.fromkeys(order, (600, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Tiny", "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    font.setupPost()
    font.save(path)


def test_a_row_of_the_table_is_frozen() -> None:
    (row,) = accuracy_of([prediction("a", 1, ONE)])
    assert isinstance(row, ModelAccuracy)
    with pytest.raises(AttributeError):
        row.draws = 2  # type: ignore[misc]


def test_a_prediction_made_now_is_live(base_dir: Path, forest: Any) -> None:
    manager = ModelManager(base_dir, mirror="off")
    manager.save_model(forest, "lotto_model_a")
    next_draw = draws.newest_closed(datetime.now().astimezone()) + 2
    assert not manager.record_prediction("lotto_model_a", next_draw, ONE).is_backtest
    assert manager.accuracy() == []  # its draw has not been held
