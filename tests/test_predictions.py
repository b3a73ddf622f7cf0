"""Predictions: recorded with the save that made them, and which of them count."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from predicting import (
    CHANCE,
    DRAWN,
    GAME,
    OTHER_GAME,
    SEOUL,
    before,
    files_in,
    next_draw,
    shown_in,
    travel,
)

from lotto_mlflow import ModelManager, Prediction
from lotto_mlflow.draws import closes_at
from lotto_mlflow.errors import (
    InvalidPredictionError,
    LaterReleaseError,
    LottoMlflowError,
    ModelNotFoundError,
    StoreError,
)
from lotto_mlflow.records import parse, render

NAME = "lotto_model_kept"


@pytest.fixture
def saved(disk_manager: ModelManager) -> ModelManager:
    """A manager of a folder with one model, which mirrors nothing."""
    disk_manager.save_model({"a": 1}, NAME, {"n": 1})
    return disk_manager


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The folder of that manager."""
    return tmp_path / "ml"


def shown(base: Path, draw_no: int, name: str = NAME) -> dict[str, Any]:
    path = base / "metadata" / "predictions" / f"{name}_{draw_no}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_a_prediction_is_recorded_with_the_save_that_its_model_means_now(
    saved: ModelManager, base: Path
) -> None:
    draw = next_draw()
    found = saved.record_prediction(NAME, draw, GAME, scores=CHANCE)
    record = saved.get(NAME)
    assert (found.model, found.save_id, found.sha256) == (NAME, record.save_id, record.sha256)
    assert (found.games, found.draw_no) == ((tuple(GAME),), draw)
    assert found.scores == pytest.approx(CHANCE)
    assert (found.is_backtest, found.is_late, found.counts, found.hits) == (
        False,
        False,
        True,
        None,
    )
    assert found.path == base / "metadata" / "predictions" / f"{NAME}_{draw}.json"
    made = datetime.fromisoformat(found.made_at)
    assert abs(made.timestamp() - time.time()) < 600
    assert made.utcoffset() == timedelta(hours=9)
    assert saved.predictions() == [found]


def test_the_file_shows_what_was_recorded(saved: ModelManager, base: Path) -> None:
    saved.save_model({"a": 2}, "모델", {"n": 1})
    found = saved.record_prediction("모델", 1100, [GAME, OTHER_GAME], made_at=before(1100))
    content = (base / "metadata" / "predictions" / "모델_1100.json").read_text(encoding="utf-8")
    values = json.loads(content)
    assert content == json.dumps(values, ensure_ascii=False, indent=2)
    assert values["model_name"] == "모델"
    assert values["numbers"] == [GAME, OTHER_GAME]
    assert (values["draw_no"], values["scores"], values["is_backtest"]) == (1100, None, True)
    assert values["save_id"] == found.save_id
    assert datetime.fromisoformat(values["made_at"]) == before(1100)
    assert shown_in(base) == ["metadata/모델_1100.json"]


def test_a_name_saved_again_does_not_inherit_predictions(saved: ModelManager) -> None:
    first = saved.record_prediction(NAME, next_draw(), GAME)
    saved.save_model({"a": 2}, NAME, {"n": 2})
    second = saved.record_prediction(NAME, next_draw(), OTHER_GAME)
    assert first.save_id != second.save_id
    assert {p.prediction_id: p.counts for p in saved.predictions(NAME)} == {
        first.prediction_id: True,
        second.prediction_id: True,
    }


def test_a_model_can_be_named_by_its_path(saved: ModelManager, base: Path) -> None:
    by_path = saved.record_prediction(base / "trained" / f"{NAME}.pkl", next_draw(), GAME)
    assert by_path.save_id == saved.get(NAME).save_id
    assert [p.prediction_id for p in saved.predictions(base / "trained" / f"{NAME}.pkl")] == [
        by_path.prediction_id
    ]


def test_the_newest_before_sales_close_counts_and_a_later_one_is_kept_and_late(
    saved: ModelManager, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, draw = travel(monkeypatch), next_draw()
    go(closes_at(draw) - timedelta(hours=2))
    first = saved.record_prediction(NAME, draw, GAME)
    go(closes_at(draw) - timedelta(seconds=30))
    second = saved.record_prediction(NAME, draw, OTHER_GAME)
    assert second.counts
    assert shown(base, draw)["numbers"] == [OTHER_GAME]
    go(closes_at(draw))
    late = saved.record_prediction(NAME, draw, DRAWN)
    assert (late.is_late, late.counts, late.path) == (True, False, None)
    kept = {p.prediction_id: (p.counts, p.is_late) for p in saved.predictions(draw_no=draw)}
    assert kept == {
        first.prediction_id: (False, False),
        second.prediction_id: (True, False),
        late.prediction_id: (False, True),
    }
    assert shown(base, draw)["numbers"] == [OTHER_GAME]
    assert shown_in(base) == [f"metadata/{NAME}_{draw}.json", f"backups/{NAME}_{draw}.json"]


@pytest.mark.parametrize("zone", ["Asia/Seoul", "UTC", "America/New_York"])
def test_sales_close_in_seoul_whatever_zone_the_settings_name(
    tmp_path: Path, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, go, draw = ModelManager(tmp_path, mirror="off", timezone=zone), None, next_draw()
    manager.save_model({"a": 1}, NAME, {})
    go = travel(monkeypatch)
    closing = datetime(2002, 12, 7, 20, tzinfo=SEOUL) + timedelta(weeks=draw - 1)
    go(closing - timedelta(seconds=20))
    assert not manager.record_prediction(NAME, draw, GAME).is_late
    go(closing)
    assert manager.record_prediction(NAME, draw, GAME).is_late


def test_what_is_replaced_goes_to_the_backups_with_a_counter(
    saved: ModelManager, base: Path
) -> None:
    contents = []
    for number in range(4):
        saved.record_prediction(NAME, next_draw(), [[n + number for n in OTHER_GAME]])
        contents.append((base / "metadata" / "predictions").joinpath(
            f"{NAME}_{next_draw()}.json").read_bytes())  # fmt: skip
    stem, backups = f"{NAME}_{next_draw()}", base / "backups" / "predictions"
    names = [f"{stem}.json", f"{stem}.2.json", f"{stem}.3.json"]
    assert sorted(path.name for path in backups.iterdir()) == sorted(names)
    assert [(backups / name).read_bytes() for name in names] == contents[:3]


def test_a_backtest_may_precede_the_save_and_is_shown_only_where_nothing_is_live(
    saved: ModelManager, base: Path
) -> None:
    draw = next_draw()
    early = datetime(2005, 1, 1, tzinfo=timezone.utc)
    backtest = saved.record_prediction(NAME, draw, GAME, made_at=early)
    assert (backtest.is_backtest, backtest.counts) == (True, True)
    assert shown(base, draw)["is_backtest"]
    live = saved.record_prediction(NAME, draw, OTHER_GAME)
    assert (live.is_backtest, live.counts) == (False, True)
    again = saved.record_prediction(NAME, draw, DRAWN, made_at=early + timedelta(days=1))
    assert again.counts
    assert again.path is None
    assert shown(base, draw)["numbers"] == [OTHER_GAME]
    counting = [p.prediction_id for p in saved.predictions(draw_no=draw) if p.counts]
    assert sorted(counting) == sorted([live.prediction_id, again.prediction_id])


def test_the_backtest_with_the_newest_time_counts_in_whatever_order_they_come(
    tmp_path: Path,
) -> None:
    moments = [before(900, hours=h) for h in (1, 30, 200)] + [closes_at(900)]
    games = [[[n + k for n in OTHER_GAME]] for k in range(4)]
    for place, order in enumerate(itertools.permutations(range(4))):
        manager = ModelManager(tmp_path / str(place), mirror="off")
        manager.save_model({"a": 1}, NAME, {})
        for number in order:
            manager.record_prediction(NAME, 900, games[number], made_at=moments[number])
        (counting,) = [p for p in manager.predictions() if p.counts]
        assert [list(game) for game in counting.games] == games[0]
        assert shown(tmp_path / str(place), 900)["numbers"] == games[0]


@pytest.mark.parametrize(
    "numbers",
    [
        GAME,
        tuple(reversed(GAME)),
        set(GAME),
        np.array(GAME),
        np.array([GAME], dtype=np.int8),
        [np.int64(number) for number in GAME],
        pd.Series(GAME),
        pd.DataFrame([GAME]),
        [set(GAME)],
    ],
)
def test_games_of_any_library_are_the_same_game(saved: ModelManager, numbers: Any) -> None:
    assert saved.record_prediction(NAME, 1000, numbers, made_at=before(1000)).games == (
        tuple(GAME),
    )


@pytest.mark.parametrize(
    "scores", [[1 / 45] * 45, np.full(45, 6 / 45), pd.Series([1 / 45] * 45), tuple(CHANCE)]
)
def test_scores_with_the_sum_one_are_multiplied_by_six(saved: ModelManager, scores: Any) -> None:
    found = saved.record_prediction(NAME, 1000, GAME, scores=scores, made_at=before(1000))
    assert found.scores == pytest.approx(CHANCE)


BAD_CALLS: dict[str, Callable[[ModelManager], Any]] = {
    "five numbers": lambda m: m.record_prediction(NAME, 1000, GAME[:5]),
    "seven numbers": lambda m: m.record_prediction(NAME, 1000, [*GAME, 45]),
    "a number twice": lambda m: m.record_prediction(NAME, 1000, [1, 1, 2, 3, 4, 5]),
    "zero": lambda m: m.record_prediction(NAME, 1000, [0, 1, 2, 3, 4, 5]),
    "46": lambda m: m.record_prediction(NAME, 1000, [46, 1, 2, 3, 4, 5]),
    "a fraction": lambda m: m.record_prediction(NAME, 1000, [1.5, 2, 3, 4, 5, 6]),
    "a truth value": lambda m: m.record_prediction(NAME, 1000, [True, 2, 3, 4, 5, 6]),
    "texts": lambda m: m.record_prediction(NAME, 1000, ["a", "b", "c", "d", "e", "f"]),
    "no game": lambda m: m.record_prediction(NAME, 1000, []),
    "nothing": lambda m: m.record_prediction(NAME, 1000, None),
    "one bad game of two": lambda m: m.record_prediction(NAME, 1000, [GAME, GAME[:5]]),
    "draw 0": lambda m: m.record_prediction(NAME, 0, GAME),
    "draw -1": lambda m: m.record_prediction(NAME, -1, GAME),
    "draw of text": lambda m: m.record_prediction(NAME, "soon", GAME),  # type: ignore[arg-type]
    "draw true": lambda m: m.record_prediction(NAME, True, GAME),
    "draw of a fraction": lambda m: m.record_prediction(NAME, 1.5, GAME),  # type: ignore[arg-type]
    "draw far ahead": lambda m: m.record_prediction(NAME, next_draw() + 60, GAME),
    "draw without end": lambda m: m.record_prediction(NAME, 10**30, GAME),
    "44 scores": lambda m: m.record_prediction(NAME, 1000, GAME, scores=[6 / 44] * 44),
    "46 scores": lambda m: m.record_prediction(NAME, 1000, GAME, scores=[6 / 46] * 46),
    "a negative score": lambda m: m.record_prediction(
        NAME, 1000, GAME, scores=[-0.1, 0.1 + 12 / 45, *CHANCE[2:]]
    ),
    "a score above 1": lambda m: m.record_prediction(
        NAME, 1000, GAME, scores=[2.0, *[4 / 44] * 44]
    ),
    "a sum of 3": lambda m: m.record_prediction(NAME, 1000, GAME, scores=[3 / 45] * 45),
    "a sum of 1.001": lambda m: m.record_prediction(NAME, 1000, GAME, scores=[1.001 / 45] * 45),
    "no number": lambda m: m.record_prediction(
        NAME, 1000, GAME, scores=[float("nan"), *CHANCE[1:]]
    ),
    "a future time": lambda m: m.record_prediction(
        NAME, 1000, GAME, made_at=datetime.now(timezone.utc) + timedelta(minutes=5)
    ),
    "a naive time": lambda m: m.record_prediction(
        NAME, 1000, GAME, made_at=datetime(2020, 1, 1)
    ),
    "a time of text": lambda m: m.record_prediction(
        NAME, 1000, GAME, made_at="2020-01-01T00:00:00+09:00"  # type: ignore[arg-type]
    ),
    "a time before 1970": lambda m: m.record_prediction(
        NAME, 1000, GAME, made_at=datetime(1969, 1, 1, tzinfo=timezone.utc)
    ),
    "the first moment": lambda m: m.record_prediction(
        NAME, 1000, GAME, made_at=datetime.min.replace(tzinfo=timezone.utc)
    ),
    "an unknown model": lambda m: m.record_prediction("lotto_model_kebt", 1000, GAME),
    "an empty name": lambda m: m.record_prediction("", 1000, GAME),
    "a path elsewhere": lambda m: m.record_prediction("/etc/hosts", 1000, GAME),
    "no reference": lambda m: m.record_prediction(None, 1000, GAME),  # type: ignore[arg-type]
    "predictions of an unknown model": lambda m: m.predictions("lotto_model_kebt"),
    "predictions for draw 0": lambda m: m.predictions(draw_no=0),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_CALLS)
def test_bad_input_is_refused_whole_and_nothing_is_written(
    saved: ModelManager, base: Path, what: str
) -> None:
    saved.record_prediction(NAME, 1000, OTHER_GAME, made_at=before(1000))
    found = files_in(base)
    with pytest.raises(LottoMlflowError) as raised:
        BAD_CALLS[what](saved)
    is_of_model = what.startswith(
        ("an unknown", "a path", "no reference", "predictions of", "an e")
    )
    if not is_of_model:
        assert isinstance(raised.value, InvalidPredictionError)
        assert isinstance(raised.value, ValueError)
    assert files_in(base) == found
    assert len(saved.predictions()) == 1


def test_bad_input_makes_no_folders(saved: ModelManager, base: Path) -> None:
    with pytest.raises(InvalidPredictionError):
        saved.record_prediction(NAME, 1000, [1])
    with pytest.raises(ModelNotFoundError, match="kept"):
        saved.record_prediction("lotto_model_kebt", 1000, GAME)
    assert shown_in(base) == []
    assert not (base / "metadata" / "predictions").exists()
    assert not (base / "backups" / "predictions").exists()


def test_a_model_that_no_save_knows_is_known_by_the_id_that_sync_gives_it(
    manager: ModelManager, base_dir: Path
) -> None:
    other = ModelManager(base_dir.parent / "other", mirror="off")
    source = other.save_model({"old": 1}, "lotto_model_old", {"n": 1})
    manager.save_model({"a": 1}, NAME, {})
    shutil.copy2(source, base_dir / "trained")
    found = manager.record_prediction("lotto_model_old", 1000, GAME, made_at=before(1000))
    assert manager.sync().backfilled == ["lotto_model_old"]
    assert manager.get("lotto_model_old").save_id == found.save_id
    assert manager.predictions("lotto_model_old")[0].version == 2


@pytest.mark.parametrize(
    ("place", "odd"),
    [
        (place, odd)
        for place in ("the file", "the folder", "the backups")
        for odd in ("a link", "a folder", "a pipe")
        if (place, odd) == ("the file", "a folder") or odd != "a folder"
    ],
)
def test_what_is_no_file_is_left_alone_and_nothing_is_recorded(
    saved: ModelManager, base: Path, odd: str, place: str
) -> None:
    path = {
        "the file": base / "metadata" / "predictions" / f"{NAME}_1000.json",
        "the folder": base / "metadata" / "predictions",
        "the backups": base / "backups" / "predictions",
    }[place]
    path.parent.mkdir(parents=True, exist_ok=True)
    elsewhere = base.parent / "elsewhere"
    elsewhere.mkdir()
    if odd == "a link":
        path.symlink_to(elsewhere)
    elif odd == "a folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    found = files_in(base) if odd != "a pipe" else {}
    with pytest.raises(StoreError):
        saved.record_prediction(NAME, 1000, GAME, made_at=before(1000))
    assert list(elsewhere.iterdir()) == []
    assert saved.predictions() == []
    if odd != "a pipe":
        assert files_in(base) == found
    assert saved.save_model({"a": 2}, NAME, {}), "a save does not care"
    assert "damaged" in {finding.kind for finding in saved.verify()}


def test_a_folder_of_a_later_release_is_left_alone(saved: ModelManager, base: Path) -> None:
    (base / "mlflow" / "format.json").write_text('{"format": 99, "release": "9.0"}')
    with pytest.raises(LaterReleaseError):
        saved.record_prediction(NAME, next_draw(), GAME)
    with pytest.raises(LaterReleaseError):
        saved.record_result(1000, DRAWN, 45)
    assert shown_in(base) == []


def test_lookups_of_models_never_meet_predictions(saved: ModelManager, base: Path) -> None:
    model_path = saved.get_latest_model_path()
    for draw in range(1000, 1020):
        saved.record_prediction(NAME, draw, GAME, made_at=before(draw))
    saved.record_result(1000, DRAWN, 45)
    assert saved.get_latest_model_path() == model_path
    assert [record.name for record in saved.records()] == [NAME]
    assert saved.load_model(str(model_path)) == {"a": 1}
    with pytest.raises(ModelNotFoundError):
        saved.get(f"{NAME}@1000")
    generated = Path(saved.save_model({"a": 2}, None, {})).stem
    assert "@" not in generated


def test_a_file_whose_name_looks_like_a_prediction_is_still_a_model(
    saved: ModelManager, base: Path
) -> None:
    """Other programs may put such a file in a folder; restored, it has a record of its own."""
    saved.record_prediction(NAME, 1000, GAME, made_at=before(1000))
    odd = f"{NAME}@1000"
    shutil.copy2(base / "trained" / f"{NAME}.pkl", base / "backups" / f"{odd}.pkl")
    assert saved.restore(odd).name == odd
    assert saved.load_model(base / "trained" / f"{odd}.pkl") == {"a": 1}
    assert saved.get(odd).name == odd
    with pytest.raises(InvalidPredictionError, match="another name"):
        saved.record_prediction(odd, 1001, GAME)
    assert [p.draw_no for p in saved.predictions(NAME)] == [1000]


def test_ten_thousand_predictions_slow_no_lookup_of_a_model(
    saved: ModelManager, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of their records is opened; times would be those of a busy machine."""
    saved.record_prediction(NAME, 1000, GAME, made_at=before(1000))
    sent_dir = base / "mlflow" / "sent"
    (path,) = sent_dir.glob("*@1000.json")
    record = parse(path.read_bytes())
    for number in range(10_000):
        changed = f"{int(record.id[:19]) + number:019d}-{number:08x}~sent~{NAME}@{number % 900 + 1}"
        os.link(path, sent_dir / f"{changed}.json")
    read: list[str] = []

    def counted(content: bytes) -> Any:
        read.append("")
        return parse(content)

    monkeypatch.setattr("lotto_mlflow.records.parse", counted)
    saved.save_model({"a": 2}, NAME, {})
    saved.load_model(base / "trained" / f"{NAME}.pkl")
    saved.get(NAME)
    saved.latest()
    saved.records()
    assert len(read) < 20
    read.clear()
    saved.record_prediction(NAME, 1200, OTHER_GAME, made_at=before(1200))
    assert len(read) < 20, "only those of its name are read"


@pytest.mark.parametrize("what", ["prediction", "result"])
def test_a_record_that_cannot_be_read_is_reported_and_nothing_else_fails(
    saved: ModelManager, base: Path, what: str
) -> None:
    saved.record_prediction(NAME, 1000, GAME, made_at=before(1000))
    saved.record_result(1000, DRAWN, 45)
    pattern = "*@1000.json" if what == "prediction" else "*@results.json"
    (path,) = (base / "mlflow").glob(f"*/{pattern}")
    path.write_bytes(path.read_bytes()[:-40])
    other = ModelManager(base, mirror="off")
    assert len(other.predictions()) == (what == "result")
    assert any(f.kind == "damaged" and f.path == path for f in other.verify())
    other.record_prediction(NAME, 1001, GAME, made_at=before(1001))
    other.save_model({"a": 2}, NAME, {})


def test_records_of_predictions_are_parsed_strictly(saved: ModelManager, base: Path) -> None:
    saved.record_prediction(NAME, 1000, GAME, scores=CHANCE, made_at=before(1000))
    saved.record_result(1000, DRAWN, 45)
    for path in (base / "mlflow").glob("*/*@*.json"):
        content = path.read_bytes()
        record = parse(content)
        assert render(record) == content
        for key in vars(record.payload):
            for odd in (None, [], {}, "text", -1, 2**70, True, 1.5, "../x", [[1]], [[[1]]]):
                changed = record.payload.__class__(**vars(record.payload) | {key: odd})
                wrong = render(record.__class__(**vars(record) | {"payload": changed}))\
                    if key != "extra" else content  # fmt: skip
                path.write_bytes(wrong)
                fresh = ModelManager(base, mirror="off")
                assert isinstance(fresh.predictions(), list)
                assert fresh.load_model(base / "trained" / f"{NAME}.pkl") == {"a": 1}
        path.write_bytes(content)


def test_many_threads_and_processes_lose_no_prediction(saved: ModelManager, base: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def record(number: int) -> Prediction:
        return saved.record_prediction(NAME, 1000, GAME, made_at=before(1000, minutes=number + 1))

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(record, range(24)))
    found = saved.predictions()
    assert {p.prediction_id for p in found} == {p.prediction_id for p in made}
    (counting,) = [p for p in found if p.counts]
    assert datetime.fromisoformat(counting.made_at) == before(1000, minutes=1)
    assert saved.predictions(NAME)[0].model == NAME
    assert shown(base, 1000)["prediction_id"] == counting.prediction_id
    assert [f for f in saved.verify() if f.kind != "missing in MLflow"] == []
