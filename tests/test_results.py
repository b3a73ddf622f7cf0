"""Results: recorded once, and every prediction of a draw scored, in whatever order they come."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from predicting import (
    BONUS,
    CHANCE,
    DRAWN,
    GAME,
    OTHER_GAME,
    before,
    files_in,
    next_draw,
    shown_in,
    travel,
)

from lotto_mlflow import ModelManager
from lotto_mlflow.draws import closes_at
from lotto_mlflow.errors import InvalidResultError, LottoMlflowError, StoreError

NAME = "lotto_model_kept"
HEADER = "draw_no,draw_date,n1,n2,n3,n4,n5,n6,bonus\n"
ROW_1000 = "1000,2022-01-29,3,11,19,27,40,41,35\n"
ROW_1001 = "1001,2022-02-05,1,2,3,4,5,6,7\n"


@pytest.fixture
def saved(disk_manager: ModelManager) -> ModelManager:
    """A manager of a folder with one model, which mirrors nothing."""
    disk_manager.save_model({"a": 1}, NAME, {"n": 1})
    return disk_manager


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The folder of that manager."""
    return tmp_path / "ml"


def results_in(base: Path) -> str:
    return (base / "metadata" / "predictions" / "results.csv").read_text(encoding="utf-8")


def csv_of(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "given.csv"
    path.write_text(header + "".join(rows), encoding="utf-8")
    return path


def test_a_result_scores_every_prediction_of_its_draw(saved: ModelManager, base: Path) -> None:
    saved.record_prediction(NAME, 1000, [GAME, OTHER_GAME], scores=CHANCE, made_at=before(1000))
    saved.record_prediction(NAME, 1001, GAME, made_at=before(1001))
    (found,) = saved.record_result(1000, DRAWN, BONUS)
    assert found.hits == (4, 1)
    assert found.bonus_hits == (True, False)
    assert found.ranks == (4, None)
    assert (found.best_hits, found.hits_per_game) == (4, 2.5)
    assert found.log_loss == pytest.approx(0.3927, abs=5e-5)
    assert [p.hits for p in saved.predictions(draw_no=1001)] == [None]
    assert results_in(base) == HEADER + ROW_1000


@pytest.mark.parametrize(
    ("game", "hits", "rank"),
    [
        ([3, 11, 19, 27, 40, 41], 6, 1),
        ([3, 11, 19, 27, 40, 35], 5, 2),
        ([3, 11, 19, 27, 40, 45], 5, 3),
        ([3, 11, 19, 27, 35, 45], 4, 4),
        ([3, 11, 19, 35, 44, 45], 3, 5),
        ([3, 11, 35, 43, 44, 45], 2, None),
        ([30, 31, 32, 33, 34, 36], 0, None),
    ],
)
def test_the_prize_rank_is_that_of_the_rules(
    saved: ModelManager, game: list[int], hits: int, rank: int | None
) -> None:
    saved.record_result(1000, DRAWN, BONUS)
    found = saved.record_prediction(NAME, 1000, game, made_at=before(1000))
    assert (found.hits, found.ranks) == ((hits,), (rank,))


def test_a_live_prediction_is_scored_once_its_draw_was_held(
    saved: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, go = next_draw(), travel(monkeypatch)
    go(closes_at(draw) - timedelta(days=3))
    saved.record_prediction(NAME, draw, GAME)
    with pytest.raises(InvalidResultError, match="not been held"):
        saved.record_result(draw, DRAWN, BONUS)
    go(closes_at(draw))
    (found,) = saved.record_result(draw, DRAWN, BONUS)
    assert (found.hits, found.is_backtest, found.counts) == ((4,), False, True)


STEPS: dict[str, Callable[[ModelManager], Any]] = {
    "early": lambda m: m.record_prediction(
        NAME, 1000, GAME, scores=CHANCE, made_at=before(1000, hours=9)
    ),
    "newest": lambda m: m.record_prediction(
        NAME, 1000, [GAME, OTHER_GAME], scores=CHANCE, made_at=before(1000)
    ),
    "late": lambda m: m.record_prediction(NAME, 1000, DRAWN),
    "result": lambda m: m.record_result(1000, DRAWN, BONUS),
    "again": lambda m: m.record_result(1000, list(reversed(DRAWN)), BONUS),
}


def test_in_any_order_once_or_twice_the_figures_are_the_same(tmp_path: Path) -> None:
    """All 120 orders of three predictions and a result that comes twice."""
    seen = set()
    for place, order in enumerate(itertools.permutations(STEPS)):
        manager = ModelManager(tmp_path / str(place), mirror="off")
        manager.save_model({"a": 1}, NAME, {})
        for step in order:
            STEPS[step](manager)
        found = manager.predictions()
        figures = sorted(
            (p.games, p.hits, p.bonus_hits, p.ranks, p.hits_per_game, p.log_loss or 0.0, p.counts)
            for p in found
        )
        seen.add((str(figures), results_in(tmp_path / str(place))))
        (shown,) = [p for p in found if p.path]
        assert (shown.games, shown.hits) == ((tuple(GAME), tuple(OTHER_GAME)), (4, 1))
    assert len(seen) == 1


def test_an_import_records_what_is_new_and_counts_it(saved: ModelManager, base: Path) -> None:
    saved.record_result(1000, DRAWN, BONUS)
    path = csv_of(base.parent, ROW_1001, ROW_1000)
    assert saved.import_results(path) == 1
    assert saved.import_results(str(path)) == 0
    assert results_in(base) == HEADER + ROW_1000 + ROW_1001
    assert len(list((base / "mlflow").glob("*/*@results.json"))) == 2


BAD_ROWS = {
    "five numbers": ("1001,2022-02-05,1,2,3,4,5,,7\n", 3),
    "a number twice": ("1001,2022-02-05,1,1,3,4,5,6,7\n", 3),
    "a number above 45": ("1001,2022-02-05,1,2,3,4,5,46,7\n", 3),
    "the bonus among the six": ("1001,2022-02-05,1,2,3,4,5,6,6\n", 3),
    "a text": ("1001,2022-02-05,one,2,3,4,5,6,7\n", 3),
    "too few fields": ("1001,2022-02-05,1,2,3,4,5,6\n", 3),
    "too many fields": ("1001,2022-02-05,1,2,3,4,5,6,7,8\n", 3),
    "a date of another draw": ("1001,2022-02-12,1,2,3,4,5,6,7\n", 3),
    "draw 0": ("0,2002-11-30,1,2,3,4,5,6,7\n", 3),
    "a draw to come": ("1400,,1,2,3,4,5,6,7\n", 3),
    "a second result of a draw": (ROW_1000, 3),
    "a different second result": ("1000,2022-01-29,1,2,3,4,5,6,7\n", 3),
    "half a quote": ('1001,"2022-02-05,1,2,3,4,5,6,7\n', 4),
}
"""A row, and the line that is named: of an open quote, the one in which the file ends."""


@pytest.mark.parametrize("what", BAD_ROWS)
def test_a_csv_with_a_broken_row_is_refused_whole_and_the_line_is_named(
    saved: ModelManager, base: Path, what: str
) -> None:
    saved.record_result(999, DRAWN, BONUS)
    row, line = BAD_ROWS[what]
    found = files_in(base)
    with pytest.raises(InvalidResultError, match=rf"line {line}\b") as raised:
        saved.import_results(csv_of(base.parent, ROW_1000, row, ROW_1001.replace("1001,", "998,")))
    assert isinstance(raised.value, ValueError)
    assert files_in(base) == found


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", HEADER.replace("bonus", "extra").encode()]
)
def test_a_file_that_is_no_csv_of_results_is_refused(
    saved: ModelManager, base: Path, content: bytes
) -> None:
    path = base.parent / "given.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidResultError, match=r"given\.csv"):
        saved.import_results(path)
    for missing in (base.parent / "nothing.csv", base.parent, 5):
        with pytest.raises(InvalidResultError):
            saved.import_results(missing)  # type: ignore[arg-type]
    assert shown_in(base) == []


BAD_RESULTS: dict[str, tuple[Any, Any, Any]] = {
    "five numbers": (1000, DRAWN[:5], BONUS),
    "a number twice": (1000, [1, 1, 2, 3, 4, 5], BONUS),
    "46": (1000, [46, 1, 2, 3, 4, 5], BONUS),
    "no numbers": (1000, None, BONUS),
    "two games": (1000, [DRAWN, DRAWN], BONUS),
    "the bonus among the six": (1000, DRAWN, DRAWN[0]),
    "bonus 0": (1000, DRAWN, 0),
    "bonus 46": (1000, DRAWN, 46),
    "no bonus": (1000, DRAWN, None),
    "bonus true": (1000, DRAWN, True),
    "draw 0": (0, DRAWN, BONUS),
    "no draw": (None, DRAWN, BONUS),
    "a draw to come": (next_draw() + 1, DRAWN, BONUS),
    "another result": (999, OTHER_GAME, BONUS),
    "another bonus": (999, DRAWN, 45),
}


@pytest.mark.parametrize("what", BAD_RESULTS)
def test_a_bad_result_is_refused_and_nothing_is_written(
    saved: ModelManager, base: Path, what: str
) -> None:
    saved.record_result(999, DRAWN, BONUS)
    found = files_in(base)
    with pytest.raises(InvalidResultError):
        saved.record_result(*BAD_RESULTS[what])
    assert files_in(base) == found


@pytest.mark.parametrize("is_imported", [False, True])
def test_a_wrong_result_is_corrected_as_the_refusal_says(
    saved: ModelManager, base: Path, is_imported: bool
) -> None:
    saved.record_prediction(NAME, 1000, GAME, made_at=before(1000))
    saved.import_results(csv_of(base.parent, "998,,1,2,3,4,5,6,7\n"))
    wrong = "1000,2022-01-29,1,11,19,27,40,41,35\n"
    saved.import_results(csv_of(base.parent, wrong, ROW_1001))
    saved.import_results(csv_of(base.parent, "1002,,1,2,3,4,5,6,7\n"))
    call: Any = saved.import_results if is_imported else saved.record_result
    arguments = (csv_of(base.parent, ROW_1000),) if is_imported else (1000, DRAWN, BONUS)
    with pytest.raises(InvalidResultError) as caught:
        call(*arguments)
    said = re.search(r"copy (\S+), correct .* move its record (\S+) out of", str(caught.value))
    assert said is not None
    shown, record = map(Path, said.groups())
    right = base.parent / "right.csv"
    before_it = shown.read_text(encoding="utf-8")
    right.write_text(before_it.replace(wrong, ROW_1000), encoding="utf-8")
    record.rename(base.parent / record.name)
    assert saved.import_results(right) == 2
    assert results_in(base) == right.read_text(encoding="utf-8") != before_it
    assert [found.hits for found in saved.predictions()] == [(4,)]
    kept = [path.read_text("utf-8") for path in (base / "backups" / "predictions").glob("*.csv")]
    assert before_it in kept
    assert {one.kind for one in saved.verify()} == {"missing in MLflow"}  # as nothing is mirrored


def test_a_file_of_results_that_was_there_before_is_kept(saved: ModelManager, base: Path) -> None:
    path = base / "metadata" / "predictions" / "results.csv"
    path.parent.mkdir()
    path.write_text(HEADER + ROW_1000, encoding="utf-8")
    assert [f.kind for f in saved.verify() if f.path == path] == ["orphan prediction"]
    saved.record_result(1001, OTHER_GAME, 7)
    assert results_in(base) == HEADER + ROW_1000 + ROW_1001
    (kept,) = (base / "backups" / "predictions").iterdir()
    assert kept.read_text(encoding="utf-8") == HEADER + ROW_1000
    found = saved.record_prediction(NAME, 1000, GAME, made_at=before(1000))
    assert found.hits == (4,)


def test_a_file_of_results_that_contradicts_the_records_is_put_aside(
    saved: ModelManager, base: Path
) -> None:
    saved.record_result(1000, DRAWN, BONUS)
    path = base / "metadata" / "predictions" / "results.csv"
    damaged = HEADER + "1000,2022-01-29,3,11,19,27,40,42,35\n"
    path.write_text(damaged, encoding="utf-8")
    assert [f.kind for f in saved.verify() if f.path == path] == ["damaged"]
    saved.record_result(1001, OTHER_GAME, 7)
    assert results_in(base) == HEADER + ROW_1000 + ROW_1001
    assert shown_in(base) == ["metadata/results.csv", "backups/results.csv"]
    path.unlink()
    saved.record_result(1000, DRAWN, BONUS)
    assert results_in(base) == HEADER + ROW_1000 + ROW_1001


@pytest.mark.parametrize("step", ["replace", "link", "fsync"])
@pytest.mark.parametrize("act", ["a prediction", "a result", "an import"])
def test_a_disk_that_refuses_a_step_leaves_the_folder_as_it_was(
    saved: ModelManager, base: Path, monkeypatch: pytest.MonkeyPatch, step: str, act: str
) -> None:
    """Every call of the step is refused in turn, until the work succeeds without one."""
    csv = csv_of(base.parent, ROW_1000, ROW_1001)
    acts: dict[str, Callable[[], Any]] = {
        "a prediction": lambda: saved.record_prediction(NAME, 999, OTHER_GAME, made_at=before(999)),
        "a result": lambda: saved.record_result(1000, DRAWN, BONUS),
        "an import": lambda: saved.import_results(csv),
    }
    saved.record_prediction(NAME, 999, GAME, made_at=before(999, hours=5))
    saved.record_result(999, DRAWN, BONUS)
    real, found = getattr(os, step), files_in(base)
    for refused in itertools.count(1):
        calls = itertools.count(1)

        def failing(
            *arguments: Any, calls: Any = calls, refused: int = refused, **named: Any
        ) -> Any:
            if next(calls) == refused:
                raise OSError(28, "no space left on device")
            return real(*arguments, **named)

        monkeypatch.setattr(os, step, failing)
        try:
            acts[act]()
        except StoreError:
            monkeypatch.setattr(os, step, real)
            assert files_in(base) == found
            continue
        finally:
            monkeypatch.setattr(os, step, real)
        break
    assert refused > 1 or step == "link"
    assert files_in(base) != found
    assert [f for f in saved.verify() if f.kind != "missing in MLflow"] == []


def test_scoring_a_thousand_predictions_of_one_draw_reads_each_once(
    saved: ModelManager, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linear: how often a record is read, and a folder listed, does not grow with their number."""
    from lotto_mlflow import records

    parse, listdir = records.parse, os.listdir
    counted: dict[int, tuple[int, int]] = {}
    for many in (100, 1_000):
        manager = ModelManager(base.parent / str(many), mirror="off")
        manager.save_model({"a": 1}, NAME, {})
        first = manager.record_prediction(NAME, 1000, GAME, made_at=before(1000))
        sent = base.parent / str(many) / "mlflow" / "sent"
        record = parse(next(sent.glob("*@1000.json")).read_bytes())
        for number in range(1, many):
            values = vars(record.payload) | {"model": f"lotto_model_{number}"}
            other = record.__class__(
                **vars(record)
                | {
                    "id": f"{int(record.id[:19]) + number:019d}-{number:08x}",
                    "payload": record.payload.__class__(**values),
                }
            )
            file = f"{other.id}~sent~lotto_model_{number}@1000.json"
            (sent / file).write_bytes(records.render(other))
        reads: list[int] = []
        lists: list[int] = []
        monkeypatch.setattr(records, "parse", lambda c, r=reads: r.append(1) or parse(c))
        monkeypatch.setattr(os, "listdir", lambda p=".", s=lists: s.append(1) or listdir(p))
        found = manager.record_result(1000, DRAWN, BONUS)
        monkeypatch.setattr(records, "parse", parse)
        monkeypatch.setattr(os, "listdir", listdir)
        assert {p.hits for p in found} == {(4,)}
        assert len(found) == many
        assert first.prediction_id in {p.prediction_id for p in found}
        counted[many] = len(reads), len(lists)
    assert counted[1_000][0] < 11 * counted[100][0]
    assert counted[1_000][1] == pytest.approx(counted[100][1], abs=20)


def test_a_prediction_recorded_later_counts_where_the_clock_steps_back(
    saved: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, draw = travel(monkeypatch), next_draw()
    go(datetime.now(timezone.utc) + timedelta(minutes=5))
    first = saved.record_prediction(NAME, draw, GAME)
    go(datetime.now(timezone.utc))
    second = saved.record_prediction(NAME, draw, OTHER_GAME)
    assert second.prediction_id > first.prediction_id
    assert second.counts
    assert [p.counts for p in saved.predictions(draw_no=draw)] == [True, False]


def test_errors_are_of_one_family() -> None:
    assert issubclass(InvalidResultError, LottoMlflowError)
    assert issubclass(InvalidResultError, ValueError)


def test_a_row_that_differs_from_what_is_known_is_named_by_its_line(tmp_path: Path) -> None:
    manager = ModelManager(tmp_path / "ml", mirror="off")
    manager.record_result(2, [9, 13, 21, 25, 32, 42], 2)
    path = tmp_path / "results.csv"
    rows = ("3,11,16,19,21,27,31,30", "2,9,13,21,25,32,42,3")
    path.write_text("\n".join(("draw_no,n1,n2,n3,n4,n5,n6,bonus", *rows)))
    with pytest.raises(InvalidResultError, match=r"results\.csv, line 3: ") as caught:
        manager.import_results(path)
    assert caught.value.data["line"] == 3
    assert manager.import_results(_without_line(path, 3)) == 1


def _without_line(path: Path, line: int) -> Path:
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[: line - 1] + lines[line:]))
    return path
