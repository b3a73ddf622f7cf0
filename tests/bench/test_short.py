"""The harness works, in a few seconds on small models, and nothing is ten times off."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench import profile, report, rows, serving_live
from bench.figures import Spread, Target, ratios, verdict
from bench.measuring import Rooms, measure
from bench.operations import Setup
from bench.processes import Subject, Worker, WorkError, counted_calls
from bench.rows import Row, Side
from bench.worker import REST

ROOT = Path(__file__).parents[2]
TIMES_OFF = 10
DOCUMENTS = {"tests/bench/README.md": "bench", "README.md": "speed"}
"""The section that each document has."""
SHORT = {
    "versions_10000": "versions_30",
    "versions_100": "versions_6",
    "versions_10": "versions_6",
    "mirrored_1000": "mirrored_9",
    "mirrored_100": "mirrored_3",
}
"""Small folders in place of large ones; `Rooms` makes each once."""


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Rooms:
    folder = tmp_path_factory.mktemp("bench")
    return Rooms(folder, folder / "work")


def small(target: str) -> Row:
    """Return a row of the benchmark on the smallest model, in few rounds."""
    row = next(row for row in rows.ROWS if row.id == target)
    sides = [
        replace(side, object="tiny" if side.object else None) if side else None
        for side in (row.ours, row.base)
    ]
    assert sides[0] is not None
    return replace(row, ours=sides[0], base=sides[1], rounds=3)


@pytest.mark.parametrize("row", [r for r in rows.ROWS if r.target.unit == "ms more"])
def test_what_a_signature_adds_is_measured_on_a_small_model(rooms: Rooms, row: Row) -> None:
    sides = [side and replace(side, object="tiny") for side in (row.ours, row.base)]
    assert sides[0] is not None
    (told,) = measure(replace(row, ours=sides[0], base=sides[1], rounds=3), rooms)
    assert told["result"]["median"] < TIMES_OFF * row.target.limit
    assert told["result"]["minimum"] <= told["ours"]["maximum"] - told["base"]["minimum"]


@pytest.mark.parametrize("target", ["P2", "P8", "P11", "P19"])
def test_a_target_is_measured_and_not_ten_times_off(rooms: Rooms, target: str) -> None:
    row = small(target)
    (told,) = measure(row, rooms)
    assert told["result"]["rounds"] == 3
    assert 0 < told["result"]["median"] < TIMES_OFF * row.target.limit
    assert told["verdict"] in ("met", "missed", "too noisy")
    json.dumps(told)


@pytest.mark.parametrize("row", [r for r in rows.ROWS if r.id in ("P16", "P17", "P18")])
def test_a_target_for_many_models_is_measured_on_a_few(rooms: Rooms, row: Row) -> None:
    sides = [side and replace(side, folder=SHORT[side.folder]) for side in (row.ours, row.base)]
    assert sides[0] is not None
    (told,) = measure(replace(row, ours=sides[0], base=sides[1], rounds=3), rooms)
    assert 0 < told["result"]["median"] < TIMES_OFF * row.target.limit
    assert (told["base"] is None) == (told["target"]["unit"] == "ms")


def test_the_time_of_one_model_is_that_of_a_run_divided_by_its_models(rooms: Rooms) -> None:
    row = next(row for row in rows.ROWS if row.id == "P17" and row.base is None)
    short = replace(row, ours=replace(row.ours, folder=SHORT[row.ours.folder]), rounds=5)
    (run,), (model,) = (measure(replace(short, per_model=p), rooms) for p in (False, True))
    assert run["result"]["minimum"] > 5 * model["result"]["minimum"]  # 30 times, on a quiet machine


def test_a_folder_with_a_finding_is_not_what_verify_is_measured_on(rooms: Rooms) -> None:
    subject = rooms.subject(Side("ours:verify", folder="mirrored_3"))
    damaged = next(subject.folder.rglob("trained/*.pkl"))
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1])
    try:
        with Worker(subject) as worker, pytest.raises(WorkError, match="findings; the first is"):
            worker.ask("time")
    finally:
        damaged.write_bytes(content)


def test_a_sync_of_old_files_is_measured_with_its_memory(rooms: Rooms) -> None:
    row = replace(small("P15"), ours=Side("ours:sync", folder="files_3"))
    rate, memory = measure(row, rooms)
    assert rate["result"]["median"] > 0  # of three files, it tells of imports alone
    assert memory["target"]["unit"] == "MB more"


def test_the_waits_of_predictions_across_swaps_are_measured(
    rooms: Rooms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_live, "PREDICTIONS", 400)
    work = serving_live.serving(Setup(tmp_path, rooms.object_path("tiny")), 3)
    assert 0 < work.run()["p99_seconds"] < 60  # type: ignore[index]


def test_a_save_is_taken_apart_into_calls_of_mlflow_and_the_rest(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_sides = {name: replace(side, object="tiny") for name, side in profile.SIDES.items()}
    monkeypatch.setattr(profile, "SIDES", small_sides)
    here, alone, in_run = profile.measured(rooms, 2).values()
    assert {"create_run", "log_batch", "create_model_version", REST} <= here.keys()
    assert "create_run" not in alone
    assert {"create_run", "set_terminated"} <= in_run.keys()
    assert min(*here.values(), *alone.values(), *in_run.values()) > 0


def test_thousands_of_versions_are_made_as_the_package_would_have(tmp_path: Path) -> None:
    from bench import folders, objects

    from lotto_mlflow import ModelManager

    tiny = objects.path_of("tiny", tmp_path)
    manager = ModelManager(folders.with_versions(tmp_path / "app", 5, tiny, tiny) / "models" / "ml")
    assert [record.version for record in manager.records()] == [5, 1, 4, 3, 2]
    assert {finding.kind for finding in manager.verify()} <= {"missing in MLflow"}  # artifacts
    assert manager.get(3).name in str(manager.get(3).path)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="bytes are counted by Linux")
def test_the_bytes_that_a_save_writes_are_counted(rooms: Rooms) -> None:
    (told,) = measure(replace(small("P14"), ours=Side("ours:save", "array_1mb")), rooms)
    assert 2 <= told["result"]["median"] < 2 + 2  # of a small file, records are the larger part


def test_calls_are_counted_where_strace_is_installed(
    rooms: Rooms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject("by_hand:dump_durably", tmp_path / "app", rooms.object_path("tiny"))
    monkeypatch.setenv("PATH", "", prepend=None)
    assert counted_calls(subject, tmp_path / "calls") is None
    monkeypatch.undo()
    counted = counted_calls(subject, tmp_path / "calls")
    assert counted in (None, {"fsyncs": 1, "renames": 0, "links": 0})


def test_an_operation_that_fails_says_so_with_the_end_of_its_log(tmp_path: Path) -> None:
    missing = Subject("by_hand:dump", tmp_path / "app", tmp_path / "missing.joblib")
    with pytest.raises(WorkError, match=r"by_hand:dump failed:(.|\n)*FileNotFoundError"):
        Worker(missing)


def test_ratios_are_taken_pair_by_pair() -> None:
    assert ratios([1, 20, 3], [2, 40, 6]).maximum == 0.5


def test_a_noisy_machine_gets_no_verdict_and_no_ratio() -> None:
    calm, noisy = Spread.of([10.0, 11.0, 12.0]), Spread.of([10.0, 11.0, 25.0])
    assert verdict(Target(2), calm, calm, calm) == "missed"
    assert verdict(Target(12), calm, calm, calm) == "met"
    assert verdict(Target(12), calm, calm, noisy) == "too noisy"
    row = {
        "id": "P1",
        "work": "save",
        "target": {"limit": 0.5, "at_most": True, "unit": "×"},  # noqa: RUF001 - as it is shown
        "unit": "ms",
        "ours": vars(calm),
        "base": vars(noisy),
        "result": vars(calm),
        "verdict": "too noisy",
    }
    assert "none: spread 2.50" in report.line(row)
    assert "11.0×" not in report.line(row)  # noqa: RUF001 - as it is shown


def test_rows_are_chosen_by_their_ids() -> None:
    assert [row.id for row in rows.chosen("p10, P11")] == ["P10", "P11"]
    assert {row.id for row in rows.chosen("")} == {f"P{number}" for number in range(1, 23)}
    assert rows.chosen("none") == []
    with pytest.raises(ValueError, match="P99"):
        rows.chosen("P99")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_shows_what_the_json_gives(document: str) -> None:
    results: dict[str, Any] = json.loads(report.RESULTS_PATH.read_text(encoding="utf-8"))
    name = DOCUMENTS[document]
    section = report.marked(name, report.SECTIONS[name](results))
    assert section in (ROOT / document).read_text(encoding="utf-8")


def test_the_json_has_every_row_of_the_targets_and_no_other_id() -> None:
    measured = json.loads(report.RESULTS_PATH.read_text(encoding="utf-8"))["rows"]
    keys = {(row["id"], row["work"], row["against"]) for row in measured}
    assert {(row.id, row.work, row.against) for row in rows.ROWS} <= keys
    assert {row["id"] for row in measured} == {row.id for row in rows.ROWS}
    assert report.PLOT_PATH.exists()


def test_publishing_fills_the_marked_sections_and_changes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: dict[str, Any] = json.loads(report.RESULTS_PATH.read_text(encoding="utf-8"))
    for name in ("RESULTS_PATH", "PLOT_PATH"):
        monkeypatch.setattr(report, name, tmp_path / getattr(report, name).name)
    results["rows"][0]["work"] = r"a backslash \1"
    paths = [tmp_path / f"{name}.md" for name in report.SECTIONS]
    for path in paths:
        path.write_text(f"before\n\n{report.marked(path.stem, 'old')}\n\nafter\n")
    report.publish(results, paths)
    for path in paths:
        section = report.marked(path.stem, report.SECTIONS[path.stem](results))
        assert path.read_text(encoding="utf-8") == f"before\n\n{section}\n\nafter\n"
    assert report.PLOT_PATH.exists()


def test_the_makefile_writes_into_the_documents_that_show_results() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"--write (tests/bench.*?)\)", makefile) == [" ".join(DOCUMENTS)] * 2


def test_the_json_tells_nothing_to_find_a_machine_by() -> None:
    text = report.RESULTS_PATH.read_text(encoding="utf-8")
    assert not re.search(r'[": ]/(home|root|work|tmp|Users)\b', text)
    assert os.uname().nodename not in re.findall(r"[\w.-]+", text)


def test_a_peer_that_cannot_be_installed_says_so_and_the_rest_goes_on(tmp_path: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path; from bench import peering, objects;"
        "peering._ROUNDS = 1; peering._MODEL = peering._SMALL = 'array_1mb';"
        "by_hand = peering.PEERS[1];"
        "bad = peering.Peer('bad', 'peers:bad', 'peers:bad', 'no such package');"
        "peering.PEERS = (bad, by_hand);"
        "print(json.dumps(peering.measure_all(Path(sys.argv[1]), install=True)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)])},
        capture_output=True,
        text=True,
        check=True,
    )
    bad, by_hand = json.loads(done.stdout.splitlines()[-1])
    assert bad["problem"] == "could not be installed here"
    assert "bad is left out" in done.stderr
    assert by_hand["problem"] is None
    assert by_hand["digest"] == "no"
    assert by_hand["save"]["rounds"] == 1
