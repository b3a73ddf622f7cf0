"""The JSON form of a save record."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lotto_mlflow import records
from lotto_mlflow.records import BACKFILL, Description, SaveRecord, parse, render

PLAIN = SaveRecord(
    id="1762100000000000000-00000000",
    name="모델",
    sha256="ab" * 32,
    size=1,
    saved_at="2025-11-03T01:13:20+09:00",
    saved_at_ns=1762100000000000000,
    host="host",
    target="embedded",
    description=Description(model_type="Forest"),
)
FULL = replace(
    PLAIN,
    metadata={"정확도": 0.75, "nested": {"list": [1, None, "a\u2028b"]}},
    backup="모델.2",
    replaced_sha256="cd" * 32,
    mtime_ns=5,
    mirrored={"embedded": {"version": 1, "run_id": "r", "model_id": "m-1"}},
    tries=2,
    reason="no",
    kind=BACKFILL,
    extra={"of_a_later_release": [1]},
    description=Description(
        model_type="Forest",
        params={"depth": "3"},
        metrics={"loss": [[0, 0.1], [1, 1e-300]]},
        tags={"a": "b"},
        requirements=["joblib==1.5"],
        predicts=False,
        signature={"inputs": "[]"},
        input_example={"kind": "array", "value": [[1]], "dtype": "int64"},
        datasets=[{"context": "훈련", "digest": "0123", "shape": [2, 3], "schema": None}],
        parent_run_id="p",
        extra={"more": {"x": 1}},
    ),
)


@pytest.mark.parametrize("record", [PLAIN, FULL], ids=["plain", "full"])
def test_what_is_rendered_is_parsed_again(record: SaveRecord) -> None:
    assert parse(render(record)) == record


def test_a_record_from_before_data_sets_were_kept_is_read() -> None:
    values: dict[str, Any] = json.loads(render(PLAIN))
    assert values["description"].pop("datasets") == []
    values.pop("checksum")
    old = replace(PLAIN, description=Description(model_type="Forest"))
    values["checksum"] = records._checksum(values)
    assert parse(json.dumps(values).encode()) == old


@pytest.mark.parametrize("change", [{"size": 2}, {"format": 99}, {"checksum": None}])
def test_a_record_that_was_changed_is_refused(change: dict[str, Any]) -> None:
    values = json.loads(render(FULL)) | change
    with pytest.raises(ValueError, match=r"checksum|format"):
        parse(json.dumps(values).encode())
