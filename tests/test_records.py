"""The JSON form of the journal's records, of this format and of the one before it."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made import save_record

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import LaterFormatError
from lotto_mlflow.journal import Journal
from lotto_mlflow.records import (
    BACKFILL,
    RESTORE,
    Description,
    MlflowIds,
    Record,
    RestorePayload,
    parse,
    render,
)

OLD_DIR = Path(__file__).with_name("records") / "format_1"
"""Written by release 0.1.0: two saves, a file that was brought in, and a save that waits; their
names lack the model's, which is Korean."""
PLAIN = save_record(Description(model_type="Forest"), name="모델")
FULL = replace(
    PLAIN,
    mirrored={"embedded": MlflowIds(version=1, run_id="r", model_id="m-1")},
    tries=2,
    reason="no",
    kind=BACKFILL,
    extra={"of_a_later_release": [1]},
    payload=replace(
        PLAIN.payload,
        metadata={"정확도": 0.75, "nested": {"list": [1, None, "a\u2028b"]}},
        backup="모델.2",
        replaced_sha256="cd" * 32,
        mtime_ns=5,
        extra={"of_a_later_release": {"x": 1}},
        description=Description(
            model_type="Forest",
            params={"depth": "3"},
            metrics={"loss": [[0, 0.1], [1, 1e-300]]},
            tags={"a": "b"},
            requirements=["joblib==1.5"],
            predicts=False,
            example={"input": {"kind": "list", "rows": 1, "values": [{"a": 1}]}, "output": None},
            signature={"inputs": "[]"},
            input_example={"kind": "array", "value": [[1]], "dtype": "int64"},
            datasets=[{"context": "훈련", "digest": "0123", "shape": [2, 3], "schema": None}],
            parent_run_id="p",
            extra={"more": {"x": 1}},
        ),
    ),
)
RESTORED = Record(
    id="1762100000000000001-00000000",
    kind=RESTORE,
    host="host",
    target="embedded",
    payload=RestorePayload(
        name="모델",
        sha256="ab" * 32,
        size=1,
        file_time_ns=5,
        source="backups",
        save_id=PLAIN.id,
        metadata=b"\xff not UTF-8, as it was found",
        backup="모델.3",
    ),
)


def changed(record: Record[Any], **changes: Any) -> bytes:
    """Return a record's JSON with other values, and a checksum that holds."""
    values = json.loads(render(record)) | changes
    values.pop("checksum")
    text = json.dumps(values, ensure_ascii=False, indent=2).removesuffix("\n}")
    checksum = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return f'{text},\n  "checksum": "{checksum}"\n}}'.encode()


@pytest.mark.parametrize("record", [PLAIN, FULL, RESTORED], ids=["plain", "full", "restore"])
def test_what_is_rendered_is_parsed_again(record: Record[Any]) -> None:
    assert parse(render(record)) == record


def test_a_record_without_a_field_that_came_later_is_read() -> None:
    payload = json.loads(render(PLAIN))["payload"]
    assert payload["description"].pop("datasets") == []
    assert parse(changed(PLAIN, payload=payload)) == PLAIN


@pytest.mark.parametrize("change", [{"tries": 9}, {"format": 99}, {"checksum": None}, {}])
def test_a_record_that_was_changed_is_refused(change: dict[str, Any]) -> None:
    values = json.loads(render(FULL)) | change
    with pytest.raises(ValueError, match=r"checksum|format"):
        parse(json.dumps(values).encode())


def test_a_record_with_any_byte_changed_is_refused() -> None:
    content = render(RESTORED)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        with pytest.raises((ValueError, KeyError, TypeError)):
            parse(bytes(damaged))
    for length in range(len(content)):
        with pytest.raises(ValueError, match=r"."):
            parse(content[:length])


@pytest.mark.parametrize("change", [{"format": 3}, {"kind": "promotion"}])
def test_a_record_of_a_later_release_is_told_from_a_damaged_one(change: dict[str, Any]) -> None:
    with pytest.raises(LaterFormatError, match="later release"):
        parse(changed(PLAIN, **change))


def test_every_record_of_the_first_format_is_read_and_written_in_the_present_one() -> None:
    old = {path.name: parse(path.read_bytes()) for path in OLD_DIR.glob("*.json")}
    assert sorted((r.name, r.kind, r.target) for r in old.values()) == [
        ("old", "backfill", "embedded"),
        ("waiting", "save", "http://***@127.0.0.1:9"),
        ("회귀", "save", "embedded"),
        ("회귀", "save", "embedded"),
    ]
    for name, record in old.items():
        assert name.startswith(f"{record.id}~")
        assert parse(render(record)) == record
        values = json.loads((OLD_DIR / name).read_bytes())
        assert (record.payload.sha256, record.payload.size) == (values["sha256"], values["size"])
        assert json.loads(render(record))["mirrored"] == values["mirrored"]
    second = next(r for r in old.values() if r.payload.backup)
    assert (second.payload.backup, second.payload.metadata) == ("회귀", None)
    first = next(r for r in old.values() if r.name == "회귀" and not r.payload.backup)
    assert first.payload.metadata["정확도"] == 0.75
    assert first.payload.description.datasets[0]["context"] == "train"
    assert first.payload.description.signature is not None


def test_a_folder_with_records_of_the_first_format_goes_on(tmp_path: Path) -> None:
    mlflow_dir = tmp_path / "ml" / "mlflow"
    Journal(mlflow_dir).make_dirs()
    for path in OLD_DIR.glob("*.json"):
        folder = "sent" if path.stem.endswith("~sent") else "outbox"
        name = parse(path.read_bytes()).name
        shutil.copyfile(path, mlflow_dir / folder / f"{path.stem}~{name}.json")
    manager = ModelManager(tmp_path / "ml", mirror="off")
    manager.save_model({"new": 1}, "회귀", {"n": 1})
    missing = [finding for finding in manager.verify() if finding.kind == "missing on disk"]
    assert sorted(finding.name for finding in missing) == ["old", "waiting", "회귀", "회귀"]
    noted = json.loads((mlflow_dir / "format.json").read_text(encoding="utf-8"))
    assert noted == {"format": 2, "release": "0.2.0"}


ODD = (None, [], {}, "text", -1, 2**70, True, 1.5, "a\0b", "../x", {"a": None}, [["a"]])


@pytest.mark.parametrize("record", [FULL, RESTORED], ids=["save", "restore"])
def test_a_value_of_another_form_makes_a_record_unreadable_and_nothing_else(
    tmp_path: Path, record: Record[Any]
) -> None:
    """Whatever stands in a record whose checksum holds, no call raises an error of others."""
    manager, rendered = ModelManager(tmp_path / "ml", mirror="off"), json.loads(render(record))
    path = manager.save_model({"a": 1}, "모델", {"n": 1})
    sent_dir = tmp_path / "ml" / "mlflow" / "sent"
    places = [(key, None) for key in rendered] + [("payload", key) for key in rendered["payload"]]
    if "description" in rendered["payload"]:
        places += [("description", key) for key in rendered["payload"]["description"]]
    file = sent_dir / f"{record.id}~sent~모델.json"
    for outer, key in places:
        for odd in ODD:
            values = json.loads(render(record))
            inside = {"payload": values["payload"]}
            inside["description"] = values["payload"].get("description", {})
            if key is None:
                values[outer] = odd
            else:
                inside[outer][key] = odd
            file.write_bytes(changed(record, **values))
            manager.records()
            manager.get("모델")
            assert manager.load_model(path) == {"a": 1}
    manager.verify()


def test_a_record_nested_without_end_is_damaged(tmp_path: Path) -> None:
    manager = ModelManager(tmp_path / "ml", mirror="off")
    path = manager.save_model({"a": 1}, "x", {"n": 1})
    for state in ("pending", "committed"):
        odd = f"{1:019d}-0000000{len(state)}~{state}~x.json"
        (tmp_path / "ml" / "mlflow" / "outbox" / odd).write_bytes(b"[" * 200_000)
    assert manager.load_model(path) == {"a": 1}
    assert [record.name for record in manager.records()] == ["x"]
    manager.save_model({"a": 2}, "x", {"n": 2})
    assert "damaged" in {finding.kind for finding in manager.verify()}


@pytest.mark.parametrize("name", ["..~pending~x.json", "~pending~x.json", "*~pending~x.json"])
def test_a_record_file_with_an_odd_name_is_left_alone_and_removes_nothing(
    tmp_path: Path, name: str
) -> None:
    manager = ModelManager(tmp_path / "ml", mirror="off")
    manager.save_model({"a": 1}, "x", {"n": 1})
    outbox = tmp_path / "ml" / "mlflow" / "outbox"
    (waiting,) = outbox.iterdir()
    record = parse(waiting.read_bytes())
    gone = replace(record, payload=replace(record.payload, sha256="0" * 64))
    (outbox / name).write_bytes(render(gone))
    manager.save_model({"a": 2}, "y", {"n": 2})
    assert waiting.exists()
    assert (outbox / name).exists()
    assert (outbox.parent / "sent").is_dir()
