"""Metadata: whatever Python values the caller gives, strict JSON lies on disk."""

from __future__ import annotations

import copy
import hashlib
import json
from datetime import date, datetime, time, timedelta, timezone
from enum import Enum, IntEnum
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lotto_mlflow import ModelManager
from lotto_mlflow.metadata import from_json, plain

NAME = "lotto_model_20251103"
OURS = {"saved_at", "model_type", "model_version", "sha256", "size_bytes"}
SEOUL = timezone(timedelta(hours=9))


class Level(IntEnum):
    HIGH = 3


class Kind(str, Enum):
    FOREST = "forest"


def strictly(content: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    values: dict[str, Any] = json.loads(content.decode("utf-8"), parse_constant=refuse)
    return values


def saved(manager: ModelManager, metadata: Any, model: Any = "a model") -> bytes:
    """Save a model and return the bytes of its metadata file."""
    path = Path(manager.save_model(model, NAME, metadata))
    return (path.parent.parent / "metadata" / f"{NAME}_metadata.json").read_bytes()


def on_disk(manager: ModelManager, metadata: Any) -> dict[str, Any]:
    """Return what lies on disk of the caller's metadata."""
    values = strictly(saved(manager, metadata))
    return {key: value for key, value in values.items() if key not in OURS}


def test_korean_text_and_keys_lie_on_disk_as_they_are(disk_manager: ModelManager) -> None:
    metadata = {"정확도": 0.75, "설명": "로또 예측 모델 🎱", "중첩": {"키": ["값"]}}
    content = saved(disk_manager, metadata)
    assert "로또 예측 모델 🎱".encode() in content
    assert content.decode() == json.dumps(strictly(content), ensure_ascii=False, indent=2)
    assert metadata.items() <= strictly(content).items()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float16(0.5), 0.5),
        (np.float32(0.25), 0.25),
        (np.float64(0.1), 0.1),
        (np.longdouble(0.5), 0.5),
        (np.int8(-3), -3),
        (np.uint64(2**63 + 1), 2**63 + 1),
        (np.bool_(True), True),
        (np.bool_(False), False),
        (np.str_("글"), "글"),
        (np.float32("nan"), None),
        (np.float64("-inf"), None),
        (np.datetime64("2025-11-03"), "2025-11-03"),
        (np.datetime64("2025-11-03T01:02:03", "s"), "2025-11-03T01:02:03"),
        (np.datetime64("NaT", "s"), None),
    ],
    ids=repr,
)
def test_a_numpy_scalar_becomes_a_plain_value(
    disk_manager: ModelManager, value: Any, expected: Any
) -> None:
    found = on_disk(disk_manager, {"value": value})["value"]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array(3), 3),
        (np.array(True), True),
        (np.array([]), []),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array([0.5, np.nan, np.inf]), [0.5, None, None]),
        (np.array(["가", "나"]), ["가", "나"]),
        (np.array([True, False]), [True, False]),
        (np.array([1, "a", None, Path("b")], dtype=object), [1, "a", None, "b"]),
        (np.array(np.int64(7), dtype=object), 7),
        (np.array("2025-11-03", dtype="datetime64[D]"), "2025-11-03"),
        (np.array([["2025-11-03"]], dtype="datetime64[D]"), [["2025-11-03"]]),
        ([np.array([1]), (np.int64(2), {"a": np.array([[3.0]])})], [[1], [2, {"a": [[3.0]]}]]),
    ],
    ids=repr,
)
def test_a_numpy_array_becomes_lists(disk_manager: ModelManager, value: Any, expected: Any) -> None:
    assert on_disk(disk_manager, {"value": value}) == {"value": expected}


@pytest.mark.parametrize(
    "value",
    [
        np.datetime64("NaT", "s"),
        np.array("NaT", dtype="datetime64[s]"),
        np.array(["NaT"], dtype="datetime64[s]")[0],
        pd.NaT,
    ],
    ids=lambda value: type(value).__name__,
)
def test_not_a_time_is_null(disk_manager: ModelManager, value: Any) -> None:
    assert on_disk(disk_manager, {"value": value}) == {"value": None}


def test_not_a_time_among_times_is_null(disk_manager: ModelManager) -> None:
    times = np.array(["2025-11-03", "NaT"], dtype="datetime64[D]")
    assert on_disk(disk_manager, {"times": times}) == {"times": ["2025-11-03", None]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (date(2025, 11, 3), "2025-11-03"),
        (datetime(2025, 11, 3, 1, 2, 3), "2025-11-03T01:02:03"),
        (datetime(2025, 11, 3, tzinfo=SEOUL), "2025-11-03T00:00:00+09:00"),
        (time(1, 2, 3), "01:02:03"),
        (pd.Timestamp("2025-11-03 01:02", tz="Asia/Seoul"), "2025-11-03T01:02:00+09:00"),
        (PurePosixPath("data/회차.csv"), "data/회차.csv"),
        (PureWindowsPath("C:/data"), "C:\\data"),
        ((1, (2, 3)), [1, [2, 3]]),
        (MappingProxyType({"a": MappingProxyType({})}), {"a": {}}),
        (Level.HIGH, 3),
        (Kind.FOREST, "forest"),
        ({"a": [{"b": [None, True, "c", [1.5]]}]}, {"a": [{"b": [None, True, "c", [1.5]]}]}),
    ],
    ids=repr,
)
def test_a_value_of_python_becomes_its_json_form(
    disk_manager: ModelManager, value: Any, expected: Any
) -> None:
    assert on_disk(disk_manager, {"value": value}) == {"value": expected}


def test_numbers_that_are_not_finite_are_null_on_disk(disk_manager: ModelManager) -> None:
    inf, nan = float("inf"), float("nan")
    metadata = {"a": nan, "b": [inf, {"c": (-inf, 1.0)}]}
    assert on_disk(disk_manager, metadata) == {"a": None, "b": [None, {"c": [None, 1.0]}]}


def test_long_texts_and_many_keys_lie_on_disk_whole(disk_manager: ModelManager) -> None:
    metadata = {f"key_{n}": n for n in range(300)} | {"long": "가" * 10_000}
    assert on_disk(disk_manager, metadata) == metadata


@pytest.mark.parametrize("value", [2**64, -(2**200), 10**4_000], ids=["64", "200", "4000 digits"])
def test_a_huge_integer_keeps_every_digit(disk_manager: ModelManager, value: int) -> None:
    assert on_disk(disk_manager, {"seed": value}) == {"seed": value}


def test_the_callers_dict_is_not_modified(disk_manager: ModelManager) -> None:
    metadata = {"a": [1, {"b": (2, float("inf"))}], "c": Path("d"), "sha256": "mine"}
    before = copy.deepcopy(metadata)
    disk_manager.save_model("a model", NAME, metadata)
    assert metadata == before


def test_what_the_caller_changes_after_the_save_does_not_reach_the_disk(
    disk_manager: ModelManager,
) -> None:
    metadata = {"a": [1]}
    content = saved(disk_manager, metadata)
    metadata["a"].append(2)
    assert strictly(content)["a"] == [1]
    assert disk_manager.get(NAME).metadata == strictly(content)


def test_digest_and_size_are_always_those_of_the_file(disk_manager: ModelManager) -> None:
    values = strictly(saved(disk_manager, {"sha256": "0" * 64, "size_bytes": -1}))
    content = Path(str(disk_manager.get_latest_model_path())).read_bytes()
    assert values["sha256"] == hashlib.sha256(content).hexdigest()
    assert values["size_bytes"] == len(content)


def test_the_callers_time_type_and_version_win(disk_manager: ModelManager) -> None:
    metadata = {"saved_at": "2020-01-01", "model_type": "나의 모델", "model_version": "v9"}
    values = strictly(saved(disk_manager, metadata))
    assert metadata.items() <= values.items()


def test_a_save_adds_time_type_and_version_where_the_caller_gives_none(
    disk_manager: ModelManager, forest: Any
) -> None:
    values = strictly(saved(disk_manager, {}, forest))
    assert values.keys() == OURS
    assert values["model_type"] == "RandomForestClassifier"
    assert values["model_version"] == NAME
    assert datetime.fromisoformat(values["saved_at"]).utcoffset() == timedelta(hours=9)


def test_without_metadata_no_json_is_written_and_a_warning_is_logged(
    disk_manager: ModelManager, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    disk_manager.save_model("a model", NAME)
    assert not list((tmp_path / "ml" / "metadata").iterdir())
    assert "without metadata" in caplog.text


def test_plain_metadata_is_its_own_plain_form() -> None:
    once = plain({"a": np.array([1.5]), "b": (date(2025, 11, 3), {"c": Path("d")}), "e": None})
    assert plain(once) == once == {"a": [1.5], "b": ["2025-11-03", {"c": "d"}], "e": None}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"a": NaN'])
def test_damaged_metadata_is_read_as_none(content: bytes) -> None:
    assert from_json(content) is None
