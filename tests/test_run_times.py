"""How long a run lasted: the training and the save, and never what makes no sense."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import joblib
import numpy as np
import pandas as pd
import pytest
from made import save_record
from mlflow import MlflowClient

from lotto_mlflow import ModelManager
from lotto_mlflow.metadata import plain
from lotto_mlflow.records import Description
from lotto_mlflow.records.codec import parse, render
from lotto_mlflow.run_times import training_started_ns

SEOUL = ZoneInfo("Asia/Seoul")
SAVED = datetime(2025, 11, 3, 21, 0, 0, 250_000, SEOUL)
SAVED_NS = int(SAVED.timestamp()) * 10**9 + 250_000_000
STARTED = SAVED - timedelta(seconds=90)
STARTED_NS = SAVED_NS - 90 * 10**9
UTC_STARTED = STARTED.astimezone(timezone.utc)
NONSENSE: list[dict[str, Any]] = [
    *({"training_seconds": value} for value in (-1, 0, math.nan, math.inf, -math.inf, 10**400)),
    *({"training_seconds": value} for value in ("soon", "", "P", "PT", "PTS", True, None, [1.0])),
    *({"training_seconds": value} for value in ({"a": 1}, 366 * 86_401, np.timedelta64(1, "Y"))),
    *({"training_seconds": value} for value in (timedelta(seconds=-5), pd.NaT, 1e300)),
    *({"training_seconds": value} for value in ("-90", "0", "nan", "-inf", "1e300", "9" * 5_000)),
    *({"training_seconds": value} for value in ("9000:00:00", "0:00:00", "1:2", "90 apples")),
    *({"training_started_at": value} for value in ("nan", "inf", "0", "-1", "1e300", "9" * 5_000)),
    *({"training_started_at": value} for value in (10**17, 10**14, 10**11, 10**10, "1e11", 90)),
    *({"training_started_at": value} for value in ("yesterday", "", "T", 0, -1, 10**400, True)),
    *({"training_started_at": value} for value in (math.nan, math.inf, None, [], {}, "12:00")),
    *({"training_started_at": value} for value in (SAVED + timedelta(days=1), pd.NaT, 1e300)),
    *({"training_started_at": value} for value in ("2019-01-01T00:00:00", "9999-12-31T23:59:59")),
    *({"training_started_at": value} for value in ("0001-01-01", SAVED - timedelta(days=367))),
]


def started_ns(metadata: dict[str, Any]) -> int | None:
    return training_started_ns(plain(metadata), SAVED_NS, SEOUL)


@pytest.mark.parametrize(
    "value",
    [
        STARTED,
        STARTED.isoformat(),
        STARTED.replace(tzinfo=None),
        STARTED.replace(tzinfo=None).isoformat(" "),
        UTC_STARTED,
        UTC_STARTED.isoformat().replace("+00:00", "Z"),
        STARTED.isoformat().replace("+09:00", "+0900"),
        STARTED.isoformat().replace("+09:00", "+09"),
        STARTED.isoformat().replace(".250000", ",250000000"),
        STARTED.isoformat().replace(".250000", ".25"),
        STARTED.timestamp(),
        Decimal(STARTED_NS) / 10**9,
        np.float64(STARTED.timestamp()),
        *(str(STARTED.timestamp()), f" {STARTED.timestamp():.6f}\n"),
        *(STARTED_NS, str(STARTED_NS), np.int64(STARTED_NS), float(STARTED_NS)),
        *(STARTED_NS // 10**3, STARTED_NS / 10**3, str(STARTED_NS // 10**3)),
        *(STARTED_NS // 10**6, STARTED_NS / 10**6, str(STARTED_NS // 10**6)),
        *(pd.Timestamp(STARTED).value, np.float64(STARTED_NS // 10**6)),
        pd.Timestamp(STARTED),
        pd.Timestamp(STARTED.replace(tzinfo=None)),
        pd.Timestamp(STARTED).as_unit("ns"),
        np.datetime64(STARTED.replace(tzinfo=None), "ns"),
    ],
    ids=lambda value: f"{type(value).__name__} {value}",
)
def test_a_start_is_read_in_every_usual_form(value: Any) -> None:
    found = started_ns({"training_started_at": value})
    assert found == pytest.approx(STARTED_NS, abs=1_000)  # a float keeps microseconds


@pytest.mark.parametrize(
    "value",
    [
        *(90, 90.0, Decimal(90), np.float32(90), np.int64(90), np.array(90)),
        *(timedelta(seconds=90), np.timedelta64(90, "s"), np.timedelta64(90_000, "ms")),
        *(pd.Timedelta(seconds=90), "PT90S", "PT1M30S", "PT1,5M", "P0DT0H1M30.0S"),
        *("90", "90.0", " 9e1 ", np.str_("90"), np.array("90"), "0.9e2"),
        *(str(timedelta(seconds=90)), str(pd.Timedelta(seconds=90)), "00:01:30.000"),
    ],
    ids=lambda value: f"{type(value).__name__} {value}",
)
def test_a_duration_is_read_in_every_usual_form(value: Any) -> None:
    assert started_ns({"training_seconds": value}) == STARTED_NS


@pytest.mark.parametrize("metadata", NONSENSE, ids=str)
def test_what_makes_no_sense_is_no_start(metadata: dict[str, Any]) -> None:
    assert started_ns(metadata) is None


def test_a_duration_of_days_is_read_as_python_writes_it() -> None:
    lasted = timedelta(days=2, hours=3, seconds=1.5)
    expected = SAVED_NS - lasted // timedelta(microseconds=1) * 1_000
    for text in (str(lasted), str(pd.Timedelta(lasted)), str(lasted.total_seconds())):
        assert started_ns({"training_seconds": text}) == expected


def test_the_start_wins_over_the_duration_where_it_makes_sense() -> None:
    assert started_ns({"training_started_at": STARTED, "training_seconds": 5}) == STARTED_NS
    assert started_ns({"training_started_at": "soon", "training_seconds": 90}) == STARTED_NS


def test_a_record_keeps_the_start_and_one_without_it_has_none() -> None:
    record = save_record(Description(model_type="x"), saved_at_ns=SAVED_NS)
    assert record.payload.run_times_ms == (SAVED_NS // 10**6, SAVED_NS // 10**6)
    known = save_record(Description(model_type="x"), saved_at_ns=SAVED_NS, started_at_ns=STARTED_NS)
    assert known.payload.run_times_ms == (STARTED_NS // 10**6, SAVED_NS // 10**6)
    assert parse(render(known)) == known
    later = save_record(Description(model_type="x"), saved_at_ns=5, started_at_ns=9)
    assert later.payload.run_times_ms == (0, 0)


@pytest.fixture
def client(base_dir: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")


def times_of(client: MlflowClient, manager: ModelManager, name: str) -> tuple[int, int]:
    info = client.get_run(str(manager.get(name).run_id)).info
    return info.start_time, info.end_time


def test_a_run_lasts_from_the_call_to_the_end_of_the_save_however_late_it_is_pushed(
    base_dir: Path, client: MlflowClient
) -> None:
    class Slow:
        def __reduce__(self) -> Any:
            time.sleep(0.25)
            return dict, ()

    path = ModelManager(base_dir, mirror="off").save_model(Slow(), "m", {"training_seconds": -1})
    time.sleep(0.05)
    manager = ModelManager(base_dir)
    manager.sync()
    start, end = times_of(client, manager, "m")
    assert end == Path(path).stat().st_mtime_ns // 10**6
    assert end - start >= 250
    client.delete_logged_model(str(manager.get("m").model_id))
    assert manager.sync(resend=True).resent == ["m"]
    assert times_of(client, manager, "m") == (start, end)


def test_no_run_of_a_save_lasts_nothing(manager: ModelManager, client: MlflowClient) -> None:
    manager.save_model({"a": 1}, "m", {})
    start, end = times_of(client, manager, "m")
    assert start < end


@pytest.fixture
def set_zone() -> Iterator[Callable[[str], None]]:
    """Return a function that sets the zone of this machine, which is put back."""
    with pytest.MonkeyPatch.context() as patch:

        def set_to(name: str) -> None:
            patch.setenv("TZ", name)
            time.tzset()

        yield set_to
    time.tzset()


def naive_now(kind: str) -> Any:
    """Return a start a minute ago, as a program on this machine writes it."""
    started = datetime.now() - timedelta(minutes=1)
    forms: dict[str, Callable[[], Any]] = {
        "datetime": lambda: started,
        "text": lambda: started.isoformat(" ", "seconds"),
        "pandas": lambda: pd.Timestamp.now() - pd.Timedelta(minutes=1),
        "numpy": lambda: np.datetime64("now") - np.timedelta64(1, "m"),
        "numpy of datetime": lambda: np.datetime64(started),
    }
    return forms[kind]()


@pytest.mark.parametrize("kind", ["datetime", "text", "pandas", "numpy", "numpy of datetime"])
@pytest.mark.parametrize(
    "zone", ["UTC", "Asia/Seoul", "America/New_York", "Asia/Kolkata", "Pacific/Auckland"]
)
def test_a_naive_start_of_this_machine_is_read_in_its_zone(
    base_dir: Path, set_zone: Callable[[str], None], zone: str, kind: str
) -> None:
    set_zone(zone)
    manager = ModelManager(base_dir, mirror="off", timezone="Asia/Seoul")
    given_at_ns = time.time_ns()
    manager.save_model({}, "m", {"training_started_at": naive_now(kind)})
    (record,) = (base_dir / "mlflow" / "outbox").glob("*~m.json")
    started_ns = json.loads(record.read_text())["payload"]["started_at_ns"]
    assert started_ns == pytest.approx(given_at_ns - 60 * 10**9, abs=30 * 10**9)


@pytest.mark.parametrize(
    ("zone", "text", "saved_later", "expected"),
    [
        ("UTC", "2025-11-03T20:30:00", 0, "2025-11-03T20:30:00+09:00"),
        ("UTC", "2025-11-03T11:30:00", 0, "2025-11-03T11:30:00+00:00"),
        ("UTC", "2025-11-03T11:30:00+09:00", 0, "2025-11-03T11:30:00+09:00"),
        ("Asia/Seoul", "2025-11-03T11:30:00", 0, "2025-11-03T11:30:00+09:00"),
        ("America/New_York", "2025-11-03T06:30:00", 0, "2025-11-03T06:30:00-05:00"),
        ("America/New_York", "2025-11-03T07:30:00", 0, "2025-11-03T07:30:00+09:00"),
        ("Asia/Shanghai", "2025-11-03T20:30:00", 3600, "2025-11-03T20:30:00+09:00"),
        ("Asia/Shanghai", "2025-11-03T19:30:00", 3600, "2025-11-03T19:30:00+08:00"),
        ("UTC", "2025-11-03T12:00:01", 0, None),  # rounded: the training took no time
        ("UTC", "2025-11-03T12:00:03", 0, "2025-11-03T12:00:03+09:00"),
    ],
)
def test_the_latest_reading_that_is_not_after_the_call_is_taken(
    set_zone: Callable[[str], None],
    zone: str,
    text: str,
    saved_later: int,
    expected: str | None,
) -> None:
    set_zone(zone)
    found = training_started_ns(
        {"training_started_at": text},
        SAVED_NS + saved_later * 10**9,
        SEOUL,
        called_at_ns=SAVED_NS,
    )
    whole = None if expected is None else int(datetime.fromisoformat(expected).timestamp())
    assert found == (None if whole is None else whole * 10**9)


def test_a_naive_start_is_of_the_time_zone_of_the_settings(
    base_dir: Path, client: MlflowClient, set_zone: Callable[[str], None]
) -> None:
    set_zone("UTC")
    manager = ModelManager(base_dir, timezone="America/New_York")
    started = datetime.now(ZoneInfo("America/New_York")) - timedelta(hours=1)
    manager.save_model({}, "m", {"training_started_at": started.replace(tzinfo=None)})
    start, end = times_of(client, manager, "m")
    assert start == int(started.timestamp() * 1_000)
    assert 3_600_000 <= end - start < 4_500_000


def test_a_training_that_lasted_is_shown_to_have_lasted_and_changes_no_order(
    manager: ModelManager, client: MlflowClient
) -> None:
    manager.save_model({}, "lotto_model_1", {"training_seconds": 60})
    manager.save_model({}, "lotto_model_2", {"training_seconds": 7_200})
    start, end = times_of(client, manager, "lotto_model_2")
    assert end - start == 7_200_000
    newest = manager.latest(source="registry")
    assert newest is not None
    assert newest.name == "lotto_model_2"


@pytest.mark.parametrize(
    ("metadata", "lasted_ms"),
    [
        ({"training_seconds": 90}, 90_000),
        ({"training_seconds": "90"}, 90_000),
        ({"training_started_at": 1_762_171_110_000}, 90_000),
        ({"training_started_at": "2025-11-03T20:58:30"}, 90_000),
        ({"training_started_at": "2025-11-04T20:58:30"}, 0),
        ({"training_seconds": math.nan}, 0),
        ({}, 0),
    ],
    ids=str,
)
def test_an_old_file_lasts_as_long_as_its_metadata_say(
    base_dir: Path, client: MlflowClient, metadata: dict[str, Any], lasted_ms: int
) -> None:
    manager = ModelManager(base_dir)
    for folder in ("trained", "metadata"):
        (base_dir / folder).mkdir()
    path = base_dir / "trained" / "old.pkl"
    joblib.dump({}, path)
    os.utime(path, (1_800_000_000, 1_800_000_000))
    saved = {"saved_at": "2025-11-03T21:00:00+09:00"} | metadata
    (base_dir / "metadata" / "old_metadata.json").write_text(json.dumps(saved))
    manager.sync()
    start, end = times_of(client, manager, "old")
    assert (start, end) == (1_762_171_200_000 - lasted_ms, 1_762_171_200_000)
