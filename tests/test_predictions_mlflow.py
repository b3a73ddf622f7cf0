"""How good predictions were, in MLflow: each value once, in the run and the logged model."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from predicting import (
    BONUS,
    CHANCE,
    DRAWN,
    GAME,
    OTHER_GAME,
    before,
    next_draw,
    points,
    shown_in,
    travel,
)

from lotto_mlflow import ModelManager, kinds
from lotto_mlflow.draws import closes_at
from lotto_mlflow.kinds.draws import lacking_figures
from lotto_mlflow.records import parse

NAME = "lotto_model_kept"


@pytest.fixture
def saved(manager: ModelManager) -> ModelManager:
    """A manager of a folder with one model, in both views."""
    manager.save_model({"a": 1}, NAME, {"n": 1})
    return manager


def client_of(base_dir: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")


def time_ms(draw_no: int) -> int:
    return round(closes_at(draw_no).timestamp() * 1000)


def rows_of(base_dir: Path, model_id: Any) -> list[tuple[str, int, float]]:
    """Return the live and backtest metrics that a logged model shows."""
    found = client_of(base_dir).get_logged_model(str(model_id)).metrics
    return sorted((m.key, m.step, m.value) for m in found or [] if "." in m.key)


def outbox(base_dir: Path) -> list[str]:
    return sorted(path.name for path in (base_dir / "mlflow" / "outbox").iterdir())


def test_a_result_looks_once_at_the_predictions_that_it_scores(
    saved: ModelManager, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved.record_prediction(NAME, 1000, GAME, made_at=before(1000))
    calls: list[None] = []

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(None)
        return lacking_figures(*arguments, **named)

    monkeypatch.setattr(kinds.draws, "lacking_figures", counted)
    saved.record_result(1000, DRAWN, BONUS)
    assert saved.flush(60)
    assert outbox(base_dir) == []
    assert len(points(base_dir, saved.get(NAME).run_id, "backtest.best_hits")) == 1
    assert len(calls) == 1


@pytest.mark.parametrize("result_first", [True, False])
def test_run_and_logged_model_show_the_figures_at_the_draw(
    saved: ModelManager, base_dir: Path, result_first: bool
) -> None:
    if result_first:
        saved.record_result(1000, DRAWN, BONUS)
    saved.record_prediction(NAME, 1000, [GAME, OTHER_GAME], scores=CHANCE, made_at=before(1000))
    if not result_first:
        assert points(base_dir, saved.get(NAME).run_id, "backtest.best_hits") == []
        saved.record_result(1000, DRAWN, BONUS)
    record = saved.get(NAME)
    assert points(base_dir, record.run_id, "backtest.hits_per_game") == [(1000, 2.5, time_ms(1000))]
    assert points(base_dir, record.run_id, "backtest.best_hits") == [(1000, 4.0, time_ms(1000))]
    ((step, loss, _),) = points(base_dir, record.run_id, "backtest.log_loss")
    assert (step, loss) == (1000, pytest.approx(0.3927, abs=5e-5))
    shown = [(key, step) for key, step, _ in rows_of(base_dir, record.model_id)]
    assert shown == [
        ("backtest.best_hits", 1000),
        ("backtest.hits_per_game", 1000),
        ("backtest.log_loss", 1000),
    ]
    assert outbox(base_dir) == []
    assert saved.verify() == []


def test_live_and_backtest_are_metrics_of_their_own(
    saved: ModelManager, base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, go = next_draw(), travel(monkeypatch)
    saved.record_prediction(NAME, draw, OTHER_GAME, made_at=before(1000))
    saved.record_prediction(NAME, draw, GAME)
    go(closes_at(draw) + timedelta(minutes=1))
    saved.record_prediction(NAME, draw, DRAWN)
    saved.record_result(draw, DRAWN, BONUS)
    run_id = saved.get(NAME).run_id
    assert points(base_dir, run_id, "live.hits_per_game") == [(draw, 4.0, time_ms(draw))]
    assert points(base_dir, run_id, "backtest.hits_per_game") == [(draw, 1.0, time_ms(draw))]
    assert points(base_dir, run_id, "live.log_loss") == []


def test_each_save_of_a_name_has_the_figures_of_its_own_predictions(
    saved: ModelManager, base_dir: Path
) -> None:
    first = saved.get(NAME)
    saved.record_prediction(NAME, 1000, GAME, made_at=before(1000))
    saved.save_model({"a": 2}, NAME, {"n": 2})
    saved.record_prediction(NAME, 1000, OTHER_GAME, made_at=before(1000))
    saved.record_prediction("models:/lotto_model/1", 1001, OTHER_GAME, made_at=before(1001))
    saved.record_result(1000, DRAWN, BONUS)
    saved.record_result(1001, DRAWN, BONUS)
    of_first = points(base_dir, first.run_id, "backtest.hits_per_game")
    of_second = points(base_dir, saved.get(NAME).run_id, "backtest.hits_per_game")
    assert [(step, value) for step, value, _ in of_first] == [(1000, 4.0), (1001, 1.0)]
    assert [(step, value) for step, value, _ in of_second] == [(1000, 1.0)]
    by_version = {p.version for p in saved.predictions("models:/lotto_model/1")}
    assert by_version == {1}
    assert {p.version for p in saved.predictions(NAME)} == {1, 2}


def test_an_import_of_many_results_sends_the_figures_of_all_draws(
    saved: ModelManager, base_dir: Path, tmp_path: Path
) -> None:
    draws = range(700, 1100)
    for draw in draws:
        saved.record_prediction(NAME, draw, GAME, scores=CHANCE, made_at=before(draw))
    csv = tmp_path / "given.csv"
    rows = [f"{d},,{','.join(map(str, DRAWN))},{BONUS}" for d in draws]
    csv.write_text("\n".join(["draw_no,draw_date,n1,n2,n3,n4,n5,n6,bonus", *rows]))
    assert saved.import_results(csv) == len(draws)
    assert saved.flush()
    found = points(base_dir, saved.get(NAME).run_id, "backtest.hits_per_game")
    assert [step for step, _, _ in found] == list(draws)
    assert len(rows_of(base_dir, saved.get(NAME).model_id)) == 3 * len(draws)


def test_a_push_that_is_repeated_leaves_one_row(saved: ModelManager, base_dir: Path) -> None:
    """As after a kill between MLflow's answer and the note of it."""
    saved.record_prediction(NAME, 1000, GAME, scores=CHANCE, made_at=before(1000))
    saved.record_result(1000, DRAWN, BONUS)
    record = saved.get(NAME)
    before_rows = rows_of(base_dir, record.model_id)
    (path,) = (base_dir / "mlflow" / "sent").glob("*@1000.json")
    from lotto_mlflow import records

    noted = parse(path.read_bytes())
    path.write_bytes(records.render(noted.__class__(**vars(noted) | {"mirrored": {}})))
    assert [finding.kind for finding in saved.verify()] == ["missing in MLflow"]
    assert saved.sync().predictions == [f"{NAME}@1000"]
    assert saved.sync().predictions == []
    assert rows_of(base_dir, record.model_id) == before_rows
    for key in ("hits_per_game", "best_hits", "log_loss"):
        assert len(points(base_dir, record.run_id, f"backtest.{key}")) == 1
    assert saved.verify() == []


@pytest.mark.parametrize("how", ["marked", "gone"])
@pytest.mark.parametrize("by", ["a result", "a prediction", "an import"])
def test_where_the_run_was_deleted_the_record_is_done_without_it(
    saved: ModelManager, base_dir: Path, tmp_path: Path, how: str, by: str
) -> None:
    client, record = client_of(base_dir), saved.get(NAME)
    if by == "a prediction":
        saved.record_result(1000, DRAWN, BONUS)
    else:
        saved.record_prediction(NAME, 1000, GAME, made_at=before(1000))
    client.delete_run(str(record.run_id))
    if how == "gone":
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        store = SqlAlchemyStore(
            f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}", str(tmp_path / "artifacts")
        )
        store._hard_delete_run(str(record.run_id))
    csv = tmp_path / "given.csv"
    csv.write_text(
        f"draw_no,draw_date,n1,n2,n3,n4,n5,n6,bonus\n1000,,{','.join(map(str, DRAWN))},{BONUS}\n"
    )
    {
        "a prediction": lambda: saved.record_prediction(NAME, 1000, GAME, made_at=before(1000)),
        "a result": lambda: saved.record_result(1000, DRAWN, BONUS),
        "an import": lambda: saved.import_results(csv),
    }[by]()
    assert saved.flush()
    assert outbox(base_dir) == []
    (path,) = (base_dir / "mlflow" / "sent").glob("*@1000.json")
    assert parse(path.read_bytes()).mirrored["embedded"].run_id == ""
    assert saved.sync().predictions == [], "it is not tried again"
    assert [f for f in saved.verify() if "draw" in f.detail] == []
    assert saved.predictions()[0].hits == (4,)


def test_sync_with_resend_brings_run_and_figures_back(saved: ModelManager, base_dir: Path) -> None:
    saved.record_prediction(NAME, 1000, GAME, made_at=before(1000))
    client_of(base_dir).delete_run(str(saved.get(NAME).run_id))
    saved.record_result(1000, DRAWN, BONUS)
    report = saved.sync(resend=True)
    assert report.resent == [NAME]
    assert report.predictions == [f"{NAME}@1000"]
    run_id = saved.get(NAME).run_id
    assert points(base_dir, run_id, "backtest.hits_per_game") == [(1000, 4.0, time_ms(1000))]
    assert saved.sync(resend=True).predictions == []


def test_a_deleted_logged_model_does_not_keep_the_run_from_its_figures(
    saved: ModelManager, base_dir: Path
) -> None:
    saved.record_prediction(NAME, 1000, GAME, made_at=before(1000))
    client_of(base_dir).delete_logged_model(str(saved.get(NAME).model_id))
    saved.record_result(1000, DRAWN, BONUS)
    run_id = saved.get(NAME).run_id
    assert points(base_dir, run_id, "backtest.hits_per_game") == [(1000, 4.0, time_ms(1000))]
    assert outbox(base_dir) == []


def test_what_an_outage_held_up_is_sent_once_when_it_is_over(
    manager: ModelManager, base_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = base_dir / "mlflow" / "mlflow.db"
    away = database.with_name("away")
    manager.save_model({"a": 1}, NAME, {"n": 1})
    os.replace(database, away)
    database.mkdir()  # so that nothing makes a new one
    with caplog.at_level(logging.WARNING):
        manager.record_result(1000, DRAWN, BONUS)
        found = manager.record_prediction(NAME, 1000, GAME, made_at=before(1000))
        manager.record_prediction(NAME, 1001, GAME, made_at=before(1001))
        manager.record_result(1001, DRAWN, BONUS)
        manager.save_model({"b": 1}, "lotto_model_other", {"n": 1})
        manager.record_prediction("lotto_model_other", 1001, DRAWN, made_at=before(1001))
    assert found.hits == (4,)
    assert "recorded" in caplog.text
    assert len(outbox(base_dir)) == 4
    database.rmdir()
    os.replace(away, database)
    assert not [f for f in manager.verify() if f.kind == "damaged"]
    manager.sync()
    assert outbox(base_dir) == []
    kept, other = manager.get(NAME), manager.get("lotto_model_other")
    of_kept = points(base_dir, kept.run_id, "backtest.hits_per_game")
    assert [(step, value) for step, value, _ in of_kept] == [(1000, 4.0), (1001, 4.0)]
    of_other = points(base_dir, other.run_id, "backtest.hits_per_game")
    assert [(step, value) for step, value, _ in of_other] == [(1001, 6.0)]
    assert manager.verify() == []


def test_another_store_gets_the_figures_with_the_saves(
    saved: ModelManager, base_dir: Path, migrated_database: Path, tmp_path: Path
) -> None:
    saved.record_prediction(NAME, 1000, GAME, scores=CHANCE, made_at=before(1000))
    saved.record_result(1000, DRAWN, BONUS)
    saved.record_prediction(NAME, 1001, GAME, made_at=before(1001))
    uri = f"sqlite:///{shutil.copy(migrated_database, tmp_path / 'other.db')}"
    other = ModelManager(base_dir, tracking_uri=uri)
    assert other.sync(dry_run=True).predictions == []  # its save is not there yet
    report = other.sync()
    assert (report.sent, report.predictions) == ([NAME], [f"{NAME}@1000"])
    assert other.sync().predictions == []
    run_id = other.get(NAME).run_id
    client = MlflowClient(tracking_uri=uri)
    steps = [p.step for p in client.get_metric_history(str(run_id), "backtest.log_loss")]
    assert steps == [1000]
    other.record_result(1001, DRAWN, BONUS)
    steps = [p.step for p in client.get_metric_history(str(run_id), "backtest.hits_per_game")]
    assert sorted(steps) == [1000, 1001]
    assert saved.sync(dry_run=True).predictions == [f"{NAME}@1001"]
    assert saved.sync().predictions == [f"{NAME}@1001"]
    assert saved.verify() == other.verify() == []


def test_a_version_of_another_machine_can_be_predicted_with(
    base_dir: Path, migrated_database: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{shutil.copy(migrated_database, tmp_path / 'shared.db')}"
    theirs = ModelManager(tmp_path / "theirs", tracking_uri=uri)
    theirs.save_model({"a": 1}, NAME, {"n": 1})
    version = theirs.get(NAME)
    ours = ModelManager(base_dir, tracking_uri=uri)
    found = ours.record_prediction("models:/lotto_model/1", 1000, GAME, made_at=before(1000))
    assert (found.save_id, found.sha256, found.version) == (
        version.save_id, version.sha256, 1,
    )  # fmt: skip
    ours.record_result(1000, DRAWN, BONUS)
    client = MlflowClient(tracking_uri=uri)
    history = client.get_metric_history(str(version.run_id), "backtest.hits_per_game")
    assert [(p.step, p.value) for p in history] == [(1000, 4.0)]
    assert ours.predictions("models:/lotto_model/1")[0].hits == (4,)
    assert ours.sync().predictions == []
    assert [f for f in ours.verify() if "draw" in f.detail] == []


@pytest.mark.parametrize("order", list(itertools.permutations(("older", "newer", "result"))))
def test_whatever_comes_first_the_figures_in_mlflow_are_the_same(
    saved: ModelManager, base_dir: Path, order: tuple[str, ...]
) -> None:
    steps = {
        "older": lambda: saved.record_prediction(NAME, 1000, GAME, made_at=before(1000, hours=2)),
        "newer": lambda: saved.record_prediction(
            NAME, 1000, OTHER_GAME, made_at=before(1000, hours=1)
        ),
        "result": lambda: saved.record_result(1000, DRAWN, BONUS),
    }
    for step in order:
        steps[step]()
        assert saved.flush(60)
    saved.save_model({"b": 1}, "later", {"n": 1})
    assert saved.flush(60)
    assert outbox(base_dir) == []
    found, client = saved.get(NAME), client_of(base_dir)
    assert client.get_run(str(found.run_id)).data.metrics["backtest.hits_per_game"] == 1
    of_model = client.get_logged_model(str(found.model_id)).metrics or []
    last = max((m for m in of_model if m.key == "backtest.best_hits"), key=lambda m: m.timestamp)
    assert (last.step, last.value) == (1000, 1)
    assert last.timestamp - time_ms(1000) in (0, 1)
    before_it = rows_of(base_dir, found.model_id)
    saved.sync(resend=True)
    assert rows_of(base_dir, found.model_id) == before_it


def test_two_folders_that_predict_otherwise_with_one_save_hold_nothing_up(
    base_dir: Path, migrated_database: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{shutil.copy(migrated_database, tmp_path / 'shared.db')}"
    theirs = ModelManager(tmp_path / "theirs", tracking_uri=uri)
    ours = ModelManager(base_dir, tracking_uri=uri)
    theirs.save_model({"a": 1}, NAME, {"n": 1})
    for manager, game in ((theirs, GAME), (ours, OTHER_GAME)):
        manager.record_prediction("models:/lotto_model/1", 1000, game, made_at=before(1000))
        manager.record_result(1000, DRAWN, BONUS)
        assert manager.flush(60)
    ours.save_model({"b": 1}, "lotto_model_b", {"n": 1})
    assert ours.flush(60)
    assert ours.get("lotto_model_b").version == 2


def test_a_save_that_was_not_pushed_yet_comes_first(base_dir: Path) -> None:
    off = ModelManager(base_dir, mirror="off")
    off.save_model({"a": 1}, NAME, {"n": 1})
    off.record_result(1000, DRAWN, BONUS)
    off.record_prediction(NAME, 1000, GAME, made_at=before(1000))
    manager = ModelManager(base_dir)
    manager.record_result(1001, DRAWN, BONUS)
    manager.record_prediction(NAME, 1001, GAME, made_at=before(1001))
    assert manager.flush()
    assert outbox(base_dir) == []
    found = points(base_dir, manager.get(NAME).run_id, "backtest.hits_per_game")
    assert [step for step, _, _ in found] == [1000, 1001]


def test_a_prediction_of_a_save_that_mlflow_refuses_waits_and_harms_no_other(
    saved: ModelManager, base_dir: Path
) -> None:
    """The bytes of the other save are gone: it never gets into MLflow."""
    off = ModelManager(base_dir, mirror="off")
    lost = Path(off.save_model({"b": 1}, "lotto_model_lost", {"n": 1}))
    off.record_result(1000, DRAWN, BONUS)
    off.record_prediction("lotto_model_lost", 1000, GAME, made_at=before(1000))
    lost.unlink()
    saved.record_prediction(NAME, 1000, GAME, made_at=before(1000))
    saved.save_model({"c": 1}, "lotto_model_next", {"n": 1})
    saved.flush()
    found = points(base_dir, saved.get(NAME).run_id, "backtest.hits_per_game")
    assert [step for step, _, _ in found] == [1000]
    assert outbox(base_dir) == []
    assert [p.hits for p in saved.predictions("lotto_model_lost")] == [(4,)]
    report = saved.sync()
    assert report.predictions == []


def test_what_is_recorded_where_mlflow_is_off_needs_none(disk_manager: ModelManager) -> None:
    import subprocess
    import sys

    disk_manager.save_model({"a": 1}, NAME, {"n": 1})
    base_dir = disk_manager.get(NAME).path.parent.parent  # type: ignore[union-attr]
    code = f"""
import sys
from datetime import datetime, timezone
from lotto_mlflow import ModelManager
manager = ModelManager({str(base_dir)!r}, mirror="off")
made_at = datetime(2020, 1, 1, tzinfo=timezone.utc)
manager.record_prediction({NAME!r}, 1000, {GAME}, made_at=made_at)
manager.record_result(1000, {DRAWN}, {BONUS})
print(len(manager.predictions()), [m for m in ("mlflow", "sklearn", "numpy") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "[]"]


def old_file(base_dir: Path, name: str, content: Any) -> Path:
    path = base_dir / "metadata" / "predictions" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    return path


def test_sync_brings_in_files_of_other_programs_and_leaves_others_alone(
    saved: ModelManager, base_dir: Path
) -> None:
    readable = {
        "one.json": {"model_name": NAME, "draw_no": 1000, "numbers": GAME, "more": [1]},
        f"{NAME}_1001.json": {"model_name": NAME, "draw_no": "1001", "numbers": [GAME, OTHER_GAME]},
        "two.json": {
            "model_name": f"{NAME}.pkl",
            "prediction": {"draw_no": 1002, "numbers": GAME},
            "made_at": "2022-02-01T10:00:00",
        },
        "seconds.json": {
            "model_name": NAME, "draw_no": 1003, "numbers": [str(n) for n in GAME],
            "predicted_at": 1_640_000_000,
        },
        "milliseconds.json": {
            "model_name": NAME, "draw_no": 1004, "numbers": ", ".join(map(str, GAME)),
            "timestamp": "1640000000000",
        },
        "zulu.json": {
            "model_name": NAME, "draw_no": 1005, "numbers": [" ".join(map(str, GAME))],
            "created_at": "2022-02-01T01:00:00.5Z",
        },
    }  # fmt: skip
    unreadable = {
        "no json.json": "{",
        "list.json": [1, 2],
        "no model.json": {"draw_no": 1000, "numbers": GAME},
        "another model.json": {"model_name": "nobody", "draw_no": 1000, "numbers": GAME},
        "outside.json": {"model_name": "../../x", "draw_no": 1000, "numbers": GAME},
        "no draw.json": {"model_name": NAME, "numbers": GAME},
        "no numbers.json": {"model_name": NAME, "draw_no": 1000},
        "bad numbers.json": {"model_name": NAME, "draw_no": 1000, "numbers": [1, 2]},
        "other text.json": {"model_name": NAME, "draw_no": 1000, "numbers": "1-2-3-4-5-6"},
        "no whole numbers.json": {"model_name": NAME, "draw_no": 1000, "numbers": ["1.5"] * 6},
        "endless.json": "[" * 100_000,
    }
    for name, content in readable.items():
        path = old_file(base_dir, name, content)
        os.utime(path, (before(1000).timestamp(), before(1000).timestamp()))
    contents = {name: old_file(base_dir, name, c).read_bytes() for name, c in unreadable.items()}
    saved.record_result(1000, DRAWN, BONUS)
    orphans = [f for f in saved.verify() if f.kind == "orphan prediction"]
    assert len(orphans) == len(readable) + len(unreadable)
    dry = saved.sync(dry_run=True)
    assert sorted(dry.recorded) == sorted(readable)
    assert saved.predictions() == []
    report = saved.sync()
    assert sorted(report.recorded) == sorted(readable)
    assert set(report.failed) == set(unreadable)
    found = {p.draw_no: p for p in saved.predictions()}
    assert sorted(found) == [1000, 1001, 1002, 1003, 1004, 1005]
    assert found[1000].hits == (4,)
    assert all(p.is_backtest and p.counts and p.path.is_file() for p in found.values() if p.path)
    assert found[1002].made_at.startswith("2022-02-01T10:00:00")
    for draw_no in (1003, 1004):
        assert datetime.fromisoformat(found[draw_no].made_at).timestamp() == 1_640_000_000
        assert found[draw_no].games == (tuple(sorted(GAME)),)
    assert found[1005].made_at.startswith("2022-02-01T10:00:00.5")
    names = {name.partition("/")[2] for name in shown_in(base_dir) if name.startswith("metadata")}
    assert names == {*unreadable, "results.csv", *(f"{NAME}_{d}.json" for d in found)}
    for name, content in contents.items():
        assert (base_dir / "metadata" / "predictions" / name).read_bytes() == content
    backups = {p.name for p in (base_dir / "backups" / "predictions").iterdir()}
    assert backups == set(readable)
    steps = points(base_dir, saved.get(NAME).run_id, "backtest.hits_per_game")
    assert [step for step, _, _ in steps] == [1000]
    assert saved.sync().recorded == []


def test_what_is_shown_of_a_record_that_was_damaged_is_brought_in(
    saved: ModelManager, base_dir: Path
) -> None:
    made = saved.record_prediction(NAME, 1000, GAME, made_at=before(1000))
    (record,) = (base_dir / "mlflow" / "sent").glob(f"{made.prediction_id}*")
    old_file(base_dir, "a copy.json", made.path.read_text(encoding="utf-8") if made.path else "")
    assert set(saved.sync().failed) == {"a copy.json"}  # of what is recorded
    (base_dir / "metadata" / "predictions" / "a copy.json").unlink()
    record.write_text("{", encoding="utf-8")
    manager = ModelManager(base_dir)
    assert manager.predictions() == []
    assert manager.sync().recorded == [f"{NAME}_1000.json"]
    (found,) = manager.predictions()
    assert (found.games, found.save_id) == (made.games, made.save_id)
    assert datetime.fromisoformat(found.made_at) == datetime.fromisoformat(made.made_at)
    assert [f.kind for f in manager.verify()] == ["damaged"]  # the record, until it is deleted


def test_an_old_prediction_is_of_the_save_that_was_there_when_it_was_made(
    saved: ModelManager, base_dir: Path
) -> None:
    first = saved.get(NAME)
    moment = closes_at(next_draw()) - timedelta(days=30)
    saved.save_model({"a": 2}, NAME, {"n": 2})
    content = {"model_name": NAME, "draw_no": next_draw(), "numbers": GAME}
    old_file(base_dir, "early.json", content | {"made_at": moment.isoformat()})
    old_file(base_dir, "now.json", content | {"numbers": OTHER_GAME})
    saved.sync()
    by_game = {p.games[0]: p.save_id for p in saved.predictions()}
    assert by_game[tuple(OTHER_GAME)] == saved.get(NAME).save_id
    assert by_game[tuple(GAME)] in (first.save_id, saved.get(NAME).save_id)


def test_verify_finds_what_differs_and_sync_puts_it_right(
    saved: ModelManager, base_dir: Path
) -> None:
    for draw in (1000, 1001, 1002):
        saved.record_prediction(NAME, draw, GAME, made_at=before(draw))
        saved.record_result(draw, DRAWN, BONUS)
    assert saved.verify() == []
    folder = base_dir / "metadata" / "predictions"
    good = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / f"{NAME}_1000.json").write_text("{}")
    (folder / f"{NAME}_1001.json").unlink()
    (folder / "results.csv").write_bytes(good["results.csv"][:-5])
    found = {(f.kind, f.path.name) for f in saved.verify() if f.path}
    assert found == {
        ("damaged", f"{NAME}_1000.json"),
        ("missing on disk", f"{NAME}_1001.json"),
        ("damaged", "results.csv"),
    }
    assert all(f.fix is not None and f.fix.verb == "sync" for f in saved.verify())
    saved.sync(dry_run=True)
    assert len(saved.verify()) == 3
    report = saved.sync()
    assert report.failed == {}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == good
    assert saved.verify() == []
    backups = base_dir / "backups" / "predictions"
    assert (backups / f"{NAME}_1000.json").read_text() == "{}"
