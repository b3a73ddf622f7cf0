"""What a host has seen of signed saves: what counts, and what damaged or foreign files do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serving import environment

from lotto_mlflow.errors import StoreError
from lotto_mlflow.signing import Statement
from lotto_mlflow.signing.highest import SeenSaves

ONE, OTHER = "1" * 32, "2" * 32
HERE, THERE = "/models/ml", "/elsewhere/ml"
MODEL = "lotto_model"


def made_at(time_ns: int, folder: str = ONE, registered_model: str = MODEL) -> Statement:
    return Statement(
        folder=folder,
        name="lotto_model_a",
        registered_model=registered_model,
        save_id=f"{time_ns:019d}-0123abcd",
        saved_at="2026-01-01T00:00:00+09:00",
        saved_at_ns=time_ns,
        sha256="a" * 64,
        size=1,
        metadata_sha256=None,
        requirements_sha256="b" * 64,
    )


@pytest.fixture
def seen(tmp_path: Path) -> SeenSaves:
    return SeenSaves(tmp_path / "state")


def highest(seen: SeenSaves, place: str = HERE, folder: str = ONE) -> int | None:
    found = seen.highest(MODEL, place, folder)
    return None if found is None else found.saved_at_ns


def file_of(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "state" / "seen").glob("*.json")
    return path


def test_nothing_was_seen_before_the_first_save(seen: SeenSaves, tmp_path: Path) -> None:
    assert highest(seen) is None
    assert not (tmp_path / "state").exists()


def test_the_newest_of_a_place_and_of_a_folder_counts_and_an_older_one_changes_nothing(
    seen: SeenSaves,
) -> None:
    seen.note(made_at(20), HERE)
    seen.note(made_at(10), HERE)
    assert highest(seen) == 20
    assert highest(seen, THERE) == 20  # the folder was moved
    assert highest(seen, HERE, OTHER) == 20  # another folder was put in its place
    assert highest(seen, THERE, OTHER) is None
    assert seen.highest("other", HERE, ONE) is None
    seen.note(made_at(30, OTHER), HERE)
    assert highest(seen) == 30
    assert highest(seen, THERE) == 20


def test_a_step_back_is_accepted_in_one_place_until_something_newer_is_seen(
    seen: SeenSaves,
) -> None:
    seen.note(made_at(30), HERE)
    seen.note(made_at(40), THERE)
    seen.accept(made_at(10), HERE)
    assert highest(seen) == 10
    assert highest(seen, THERE) == 40
    seen.note(made_at(20), HERE)
    assert highest(seen) == 20
    seen.note(made_at(50), THERE)
    assert highest(seen) == 50


def test_another_folder_in_a_place_is_accepted(seen: SeenSaves) -> None:
    seen.note(made_at(30), HERE)
    seen.accept(made_at(10, OTHER), HERE)
    assert highest(seen, HERE, OTHER) == 10
    assert highest(seen, HERE, ONE) == 10


def test_each_registered_model_has_what_was_seen_of_it(seen: SeenSaves) -> None:
    for number, name in enumerate(("lotto_model", "../up", "모델", "x" * 500), 1):
        seen.note(made_at(number, registered_model=name), HERE)
    for number, name in enumerate(("lotto_model", "../up", "모델", "x" * 500), 1):
        found = seen.highest(name, HERE, ONE)
        assert found is not None
        assert found.saved_at_ns == number


def test_of_a_thousand_places_the_one_that_changed_first_gives_way(
    seen: SeenSaves, tmp_path: Path
) -> None:
    for number in range(3):
        seen.note(made_at(10 + number, f"{number:032x}"), f"/place/{number}")
    kept = json.loads(file_of(tmp_path).read_text())
    kept["seen"] += [kept["seen"][2] | {"place": f"/place/{number}"} for number in range(3, 1_000)]
    file_of(tmp_path).write_text(json.dumps(kept))
    seen.note(made_at(20, f"{0:032x}"), "/place/0")  # which changes last now
    seen.note(made_at(20, OTHER), "/new")
    assert highest(seen, "/place/0", OTHER) == 20
    assert highest(seen, "/place/1", OTHER.replace("2", "3")) is None
    assert highest(seen, "/place/2", OTHER.replace("2", "3")) == 12


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"format": 1, "registered_model": "other", "seen": []}',
        b'{"format": 2, "registered_model": "lotto_model", "seen": []}',
        b'{"format": 1, "registered_model": "lotto_model", "seen": [{}]}',
        b'{"format": 1, "registered_model": "lotto_model", "seen": [1]}',
        b'{"format": 1, "registered_model": "lotto_model", "seen": 5}',
        b"[" * 100_000,
        b"x" * (2 << 20),
    ],
    ids=range(11),
)
def test_a_damaged_file_is_an_error_and_an_acceptance_writes_it_anew(
    content: bytes, seen: SeenSaves, tmp_path: Path
) -> None:
    seen.note(made_at(20), HERE)
    file_of(tmp_path).write_bytes(content)
    with pytest.raises(StoreError, match="seen"):
        highest(seen)
    with pytest.raises(StoreError, match="seen"):
        seen.note(made_at(30), HERE)
    assert file_of(tmp_path).read_bytes() == content
    if len(content) < 1 << 20:
        seen.accept(made_at(10), HERE)
        assert highest(seen) == 10


@pytest.mark.parametrize(
    "change",
    [
        {"saved_at_ns": -1},
        {"saved_at_ns": 2**63},
        {"saved_at_ns": 1.5},
        {"saved_at_ns": True},
        {"saved_at_ns": "20"},
        {"accepted_up_to_ns": None},
        {"folder": "1" * 31},
        {"folder": 1},
        {"place": ""},
        {"place": None},
        {"save_id": "../x"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_value_that_is_none_damages_the_file(
    change: dict[str, Any], seen: SeenSaves, tmp_path: Path
) -> None:
    seen.note(made_at(20), HERE)
    kept = json.loads(file_of(tmp_path).read_text())
    kept["seen"][0] |= change
    file_of(tmp_path).write_text(json.dumps(kept))
    with pytest.raises(StoreError, match="damaged") as raised:
        highest(seen)
    assert raised.value.fix is not None
    assert raised.value.fix.arguments == {"accept": MODEL}


def test_no_link_is_believed_nor_written_through(seen: SeenSaves, tmp_path: Path) -> None:
    seen.note(made_at(20), HERE)
    path = file_of(tmp_path)
    kept = path.rename(tmp_path / "kept.json")
    path.symlink_to(kept)
    before = kept.read_bytes()
    for call in (
        lambda: highest(seen),
        lambda: seen.note(made_at(30), HERE),
        lambda: seen.accept(made_at(10), HERE),
    ):
        with pytest.raises(StoreError, match="is a link"):
            call()
    assert kept.read_bytes() == before
    path.unlink()
    (tmp_path / "state" / "seen").rename(tmp_path / "moved")
    (tmp_path / "state" / "seen").symlink_to(tmp_path / "moved")
    for call in (lambda: highest(seen), lambda: seen.note(made_at(30), HERE)):
        with pytest.raises(StoreError, match="is a link"):
            call()


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    seen = SeenSaves(tmp_path / "state")
    with pytest.raises(StoreError):
        highest(seen)
    with pytest.raises(StoreError, match="move it away"):
        seen.note(made_at(1), HERE)


def test_what_a_process_left_that_died_is_swept_and_others_cannot_read_what_is_kept(
    seen: SeenSaves, tmp_path: Path
) -> None:
    seen.note(made_at(1), HERE)
    seen_dir = file_of(tmp_path).parent
    left, other = seen_dir / f".{'a' * 32}.tmp", seen_dir / ".mine.tmp"
    left.touch()
    other.touch()
    seen.note(made_at(2), HERE)
    assert not left.exists()
    assert other.exists()
    if os.name != "nt":
        assert file_of(tmp_path).stat().st_mode & 0o077 == 0
        assert seen_dir.stat().st_mode & 0o077 == 0


def test_processes_that_note_at_once_lose_nothing(seen: SeenSaves, tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from test_highest import SeenSaves, made_at\n"
        "seen, own = SeenSaves(Path(sys.argv[2])), int(sys.argv[3])\n"
        "for number in range(1, 11):\n"
        "    seen.note(made_at(number, f'{own:032x}'), f'/place/{own}')\n"
    )
    running = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                script,
                str(Path(__file__).parent),
                str(tmp_path / "state"),
                str(own),
            ],
            env=environment(),
        )
        for own in range(4)
    ]
    assert [process.wait(300) for process in running] == [0] * 4
    assert [highest(seen, f"/place/{own}", f"{own:032x}") for own in range(4)] == [10] * 4


def test_what_was_seen_is_of_its_statement(seen: SeenSaves) -> None:
    statement = made_at(7)
    seen.note(statement, HERE)
    found = seen.highest(MODEL, HERE, ONE)
    assert found is not None
    assert (found.save_id, found.folder, found.place) == (statement.save_id, ONE, HERE)
    seen.note(replace(statement, save_id=f"{7:019d}-ffffffff"), HERE)
    assert seen.highest(MODEL, HERE, ONE) == found
