"""`check`: freshness, soundness and what waits, each exit code through the real command line."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sklearn
from faults.disks import mounted_read_only, small_disk
from made import folder_with_store
from mlflow import MlflowClient
from sklearn.dummy import DummyClassifier
from users import User, Users

from lotto_mlflow import Health, LottoMlflowError, ModelManager, records
from lotto_mlflow.errors import InvalidReferenceError, MirrorUnavailableError, SettingsError
from lotto_mlflow.operations.health import in_words

HOUR = 3600
DAY = 24 * HOUR
CODES = {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}
LINE = re.compile(r"LOTTO_MLFLOW (OK|WARNING|CRITICAL|UNKNOWN) - [^|\n]+(?: \| ([^|\n]+))?\n")
FIGURE = re.compile(r"[a-z_]+=[0-9]+(?:s|B)?;[0-9:]*;[0-9.]*;0?")
READER = User(42_009, 42_009, (42_000,))


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lotto_mlflow", "check", *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def figures_in(message: str) -> dict[str, str]:
    """Return the performance data of a line, each of which is in the form of the guidelines."""
    found = message.partition(" | ")[2].split()
    assert all(map(FIGURE.fullmatch, found)), found
    return dict(figure.split("=") for figure in found)


def kinds(health: Health) -> list[str]:
    return [finding.kind for finding in health.findings]


Past = Callable[[float], None]


@pytest.fixture
def ago(monkeypatch: pytest.MonkeyPatch) -> Past:
    """Set the clock back, or forward, by seconds from now."""
    really = time.time_ns

    def to(seconds: float) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: really() - int(seconds * 10**9))

    return to


@pytest.fixture
def save(base_dir: Path, ago: Past) -> Callable[..., Path]:
    """Save a small model as of some seconds ago, and mirror it."""

    def saved(name: str, seconds: float = 0, **arguments: Any) -> Path:
        ago(seconds)
        manager = ModelManager(base_dir, **arguments)
        path = Path(manager.save_model({"saved": time.time_ns()}, name, {"n": 1}))
        assert arguments or manager.flush(120)
        ago(0)
        return path

    return saved


def status(base_dir: Path, *arguments: str | Path, **environment: str) -> dict[str, Any]:
    """Return what the command answers as JSON, which agrees with its line, its code and Python."""
    done = run("--base-dir", base_dir, "--json", *arguments, **environment)
    found: dict[str, Any] = json.loads(done.stdout)
    assert tuple(found) == ("status", "message", "findings", "metrics")
    assert CODES[found["status"]] == done.returncode
    plain = run("--base-dir", base_dir, *arguments, **environment)
    assert plain.returncode == done.returncode
    (match,) = [LINE.fullmatch(plain.stdout)]
    assert match is not None, plain.stdout
    assert match[1] == found["status"].upper()
    figures_in(plain.stdout.strip())
    return found


def test_a_fresh_and_sound_model_is_ok_and_the_line_has_its_age_and_its_limits(
    base_dir: Path, save: Callable[..., Path]
) -> None:
    path = save("lotto_model_new", 2 * HOUR)
    save("other", 0)
    found = status(base_dir, "--max-age", "8d")
    assert found["status"] == "ok"
    assert found["findings"] == []
    assert "newest lotto_model_new (version 1) is 2 h old" in found["message"]
    figures = figures_in(found["message"])
    age = figures.pop("age")
    assert re.fullmatch(r"72\d\ds;;691200;0", age)
    size, free = path.stat().st_size, figures.pop("free")
    assert re.fullmatch(rf"\d+B;{2 * size}:;;0", free)
    assert figures == {"waiting": "0;;;0", "waiting_age": "0s;3600;;0", "size": f"{size}B;;;0"}
    metrics = found["metrics"]
    assert 2 * HOUR <= metrics["age_seconds"] < 3 * HOUR
    assert metrics["max_age_seconds"] == 8 * DAY
    assert (metrics["waiting"], metrics["waiting_seconds"]) == (0, 0)


@pytest.mark.parametrize(
    ("max_age", "expected"),
    [
        ("3h", "ok"), ("181m", "ok"), ("1d", "ok"), (3 * HOUR, "ok"), (1.5 * 7300, "ok"),
        (timedelta(hours=3), "ok"), (None, "ok"), ("1h", "critical"), ("119m", "critical"),
        ("0s", "critical"), (0, "critical"), (timedelta(0), "critical"), ("7199s", "critical"),
    ],
)  # fmt: skip
def test_an_age_is_a_text_seconds_or_a_timedelta(
    base_dir: Path, save: Callable[..., Path], max_age: Any, expected: str
) -> None:
    save("lotto_model_new", 2 * HOUR)
    health = ModelManager(base_dir).check(max_age)
    assert health.status == expected
    assert kinds(health) == (["too old"] if expected == "critical" else [])


@pytest.mark.parametrize(
    "wrong",
    [
        "", "8", "d", "8 d", " 8d", "8d\n", "-8d", "+8d", "8.5d", "8D", "8w", "8days", "soon", "٣d",
        "1" * 400 + "d", "nan", b"8d", -1, -0.5, float("nan"), float("inf"), 10**400, True,
        timedelta(-1), [8], {}, object(),
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_an_age_that_is_none_is_refused(disk_manager: ModelManager, wrong: Any) -> None:
    with pytest.raises(SettingsError, match="is no age; give a number with its unit, such as 8d"):
        disk_manager.check(wrong)
    with pytest.raises(ValueError, match="is no age"):
        disk_manager.check(max_age=wrong, alias="champion", deep=True)


@pytest.mark.parametrize("wrong", ["latest", "Latest", "v1", "V22", "", "a b", "a/b", "x" * 256, 1])
def test_an_alias_that_is_none_or_reserved_is_refused(
    disk_manager: ModelManager, wrong: Any
) -> None:
    with pytest.raises(InvalidReferenceError):
        disk_manager.check(alias=wrong)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--max-age", "8"), ("--max-age", "soon"), ("--max-age=-1d",), ("--max-age",), ("--nope",),
        ("extra",), ("--alias", "v1"), ("--base-dir", "not/there"), ("--deep=x",),
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_exit_code_3_and_not_critical(
    base_dir: Path, arguments: tuple[str, ...]
) -> None:
    done = run(*arguments, LOTTO_APP_DIR=str(base_dir))
    assert done.returncode == 3
    assert (done.stdout + done.stderr).strip()
    assert "Traceback" not in done.stderr


def test_wrong_usage_before_the_command_is_exit_code_3_and_of_other_commands_still_2(
    base_dir: Path,
) -> None:
    for words, code in (
        (["--base-dir", "not/there", "check"], 3),
        (["--nope", "check"], 3),
        (["--base-dir", "check", "list"], 2),
        (["--base-dir", "not/there", "verify"], 2),
        (["verify", "--nope"], 2),
    ):
        command = [sys.executable, "-m", "lotto_mlflow", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (code, ""), words


def test_a_setting_that_is_none_and_a_folder_that_is_not_there_are_unknown(
    base_dir: Path,
) -> None:
    done = run("--base-dir", base_dir, LOTTO_MIRROR="sometimes")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.startswith("LOTTO_MLFLOW UNKNOWN - LOTTO_MIRROR is 'sometimes'")
    done = run("--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["message"].startswith("LOTTO_MLFLOW UNKNOWN - there is no folde")
    done = run("--debug", "--base-dir", base_dir, LOTTO_MIRROR="sometimes")
    assert (done.returncode, "Traceback" in done.stderr) == (3, True)


def test_no_model_is_critical_and_looking_makes_nothing(base_dir: Path, tmp_path: Path) -> None:
    ModelManager(base_dir).save_model({"a": 1}, "of_another_name")
    (base_dir / "trained" / "lotto_model_link.pkl").symlink_to("of_another_name.pkl")
    (base_dir / "trained" / "lotto_model_dir.pkl").mkdir()
    for folder in (base_dir, tmp_path / "empty"):
        folder.mkdir(exist_ok=True)
        before = sorted(folder.rglob("*"))
        found = status(folder)
        assert found["status"] == "critical"
        assert [one["kind"] for one in found["findings"]] == ["no model"]
        assert f"there is no model in {folder / 'trained'}" in found["message"]
        assert found["metrics"]["age_seconds"] is None
        assert sorted(folder.rglob("*")) == before


def test_an_age_counts_from_the_save_and_not_from_the_time_of_the_file(
    base_dir: Path, save: Callable[..., Path]
) -> None:
    """A touch, a copy and a restore make no model younger."""
    manager = ModelManager(base_dir)
    path = save("lotto_model_a", 9 * DAY)
    os.utime(path)
    assert manager.check("8d").status == "critical"
    shutil.copyfile(path, base_dir / "copy")
    os.replace(base_dir / "copy", path)
    assert manager.check("8d").status == "critical"
    save("lotto_model_a", 1)
    assert manager.check("8d").status == "ok"
    manager.restore("lotto_model_a")
    health = manager.check("8d")
    assert (health.status, kinds(health)) == ("critical", ["too old"])
    assert "newest lotto_model_a (version 1) is 9 d old, more than 8 d" in health.message
    assert manager.check("10d").status == "ok"


def test_a_file_that_no_save_knows_is_as_old_as_its_time_says(base_dir: Path) -> None:
    trained_dir = base_dir / "trained"
    trained_dir.mkdir()
    path = trained_dir / "lotto_model_old.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    os.utime(path, (time.time() - 9 * DAY,) * 2)
    assert status(base_dir, "--max-age", "8d")["status"] == "critical"
    assert status(base_dir, "--max-age", "10d")["status"] == "ok"
    assert status(base_dir)["status"] == "ok"


def test_of_a_touched_old_model_that_is_the_newest_the_age_is_its_own(
    base_dir: Path, save: Callable[..., Path]
) -> None:
    old = save("lotto_model_old", 9 * DAY)
    save("lotto_model_new", HOUR)
    os.utime(old)
    manager = ModelManager(base_dir)
    assert manager.get_latest_model_path() == str(old)
    assert "newest lotto_model_old" in manager.check("8d").message
    assert manager.check("8d").status == "critical"


def test_a_time_that_has_not_come_is_a_warning(base_dir: Path, save: Callable[..., Path]) -> None:
    path = save("lotto_model_a", -2 * DAY)
    found = status(base_dir, "--max-age", "8d")
    assert found["status"] == "warning"
    assert [one["kind"] for one in found["findings"]] == ["clock in the future"]
    assert found["metrics"]["age_seconds"] == 0
    save("lotto_model_b", HOUR)  # whose time is later than the one before
    os.utime(path, (time.time() + 9 * DAY,) * 2)
    found = status(base_dir)
    assert found["status"] == "warning"
    assert {one["kind"] for one in found["findings"]} == {"clock in the future"}


def test_a_save_of_this_moment_on_a_clock_that_is_a_little_ahead_is_ok(
    base_dir: Path, save: Callable[..., Path]
) -> None:
    save("lotto_model_a", -30)
    health = ModelManager(base_dir).check("8d")
    assert (health.status, health.metrics["age_seconds"]) == ("ok", 0)


@pytest.mark.parametrize("damage", ["changed", "cut", "empty", "same size"])
def test_a_damaged_newest_model_is_critical(
    base_dir: Path, save: Callable[..., Path], damage: str
) -> None:
    save("lotto_model_old", DAY)
    path = save("lotto_model_new", HOUR)
    content, times = path.read_bytes(), path.stat()
    changed = {"changed": b"x" * 99, "cut": content[:-1], "empty": b"",
               "same size": bytes([content[0] ^ 1]) + content[1:]}[damage]  # fmt: skip
    path.write_bytes(changed)
    os.utime(path, ns=(times.st_mtime_ns, times.st_mtime_ns))
    found = status(base_dir, "--max-age", "8d")
    assert found["status"] == "critical"
    (finding,) = found["findings"]
    assert (finding["kind"], finding["path"]) == ("damaged", str(path))
    assert "lotto_model_new is damaged" in found["message"]
    assert finding["mend"].startswith("lotto-mlflow restore lotto_model_new")


def test_an_empty_file_without_any_digest_is_damaged(base_dir: Path) -> None:
    (base_dir / "trained").mkdir()
    (base_dir / "trained" / "lotto_model_a.pkl").touch()
    assert kinds(ModelManager(base_dir).check()) == ["damaged"]


def test_a_damaged_older_model_is_found_with_deep_alone(
    base_dir: Path, save: Callable[..., Path]
) -> None:
    old = save("lotto_model_old", DAY)
    save("lotto_model_new", HOUR)
    old.write_bytes(b"changed")
    os.utime(old, (0, 0))
    assert status(base_dir)["status"] == "ok"
    found = status(base_dir, "--deep")
    assert found["status"] == "critical"
    assert [(one["kind"], one["name"]) for one in found["findings"]] == [
        ("damaged", "lotto_model_old"),
        ("missing on disk", "lotto_model_old"),
    ]


def test_with_deep_a_damaged_artifact_is_critical_and_a_changed_metadata_a_warning(
    base_dir: Path, save: Callable[..., Path]
) -> None:
    save("lotto_model_a", HOUR)
    manager = ModelManager(base_dir)
    assert manager.check(deep=True).status == "ok"
    (base_dir / "metadata" / "lotto_model_a_metadata.json").write_text('{"n": 2}')
    assert manager.check().status == "ok"
    assert manager.check(deep=True).status == "warning"
    (artifact,) = (base_dir / "mlflow" / "artifacts").rglob("*.pkl")
    artifact.write_bytes(b"changed")
    health = manager.check(deep=True)
    assert health.status == "critical"
    assert kinds(health) == ["damaged", "changed"]  # the worst first


def test_what_waits_under_an_hour_is_no_warning_with_deep_either(
    base_dir: Path, save: Callable[..., Path]
) -> None:
    save("lotto_model_a", 50 * 60, mirror="off")
    health = ModelManager(base_dir).check(deep=True)
    assert health.status == "ok"
    assert kinds(health) == ["missing in MLflow"]


@pytest.mark.parametrize("remaining", [True, False])
def test_a_newest_model_that_is_gone_is_critical_whatever_is_left(
    base_dir: Path, save: Callable[..., Path], remaining: bool
) -> None:
    if remaining:
        save("lotto_model_old", 2 * HOUR)
    path = save("lotto_model_new", HOUR)
    save("other")
    path.unlink()
    found = status(base_dir, "--max-age", "8d")
    assert found["status"] == "critical"
    (finding,) = [one for one in found["findings"] if one["kind"] == "missing on disk"]
    assert finding["path"] == str(path)
    assert finding["mend"].startswith("lotto-mlflow restore lotto_model_new --source registry")
    ModelManager(base_dir).restore("lotto_model_new", source="registry")
    assert status(base_dir, "--max-age", "8d")["status"] == "ok"


@pytest.mark.parametrize(
    ("saved", "deleted", "newest"),
    [
        (["a", "b", "b"], "b", "a"),  # what it replaced is in backups/
        (["a", "b", "c"], "b", "c"),
        (["a", "b"], "b", "a"),
        (["a", "a", "b", "b", "b"], "b", "a"),
        (["b", "b", "a"], "b", "a"),
    ],
)
def test_a_newest_save_that_was_deleted_is_not_missed(
    base_dir: Path, save: Callable[..., Path], saved: list[str], deleted: str, newest: str
) -> None:
    for number, name in enumerate(saved):
        save(f"lotto_model_{name}", (9 - number) * HOUR)
    manager = ModelManager(base_dir)
    manager.delete(f"lotto_model_{deleted}", reason="bad")
    health = manager.check("8d")
    assert (health.status, kinds(health)) == ("ok", [])
    assert f"newest lotto_model_{newest} " in health.message
    (base_dir / "trained" / f"lotto_model_{newest}.pkl").unlink()
    assert kinds(manager.check())[0] in ("missing on disk", "no model")
    assert manager.check().status == "critical"


def test_of_a_name_whose_older_save_was_deleted_the_newest_is_missed(
    base_dir: Path, save: Callable[..., Path]
) -> None:
    save("lotto_model_a", 3 * HOUR)
    save("lotto_model_b", 2 * HOUR)
    path = save("lotto_model_b", HOUR)
    manager = ModelManager(base_dir)
    manager.delete(2, reason="bad")
    assert manager.check().status == "ok"
    path.unlink()
    assert kinds(manager.check()) == ["missing on disk"]


def test_a_removal_of_an_older_save_that_waits_hides_no_missing_file(
    base_dir: Path, save: Callable[..., Path]
) -> None:
    save("lotto_model_a", 2 * HOUR)
    path = save("lotto_model_a", HOUR)
    manager, database = ModelManager(base_dir), base_dir / "mlflow" / "mlflow.db"
    with pytest.raises(MirrorUnavailableError, match="is decided to go"):
        manager.prune(
            keep_last=1,
            dry_run=False,
            progress=lambda *_: database.write_bytes(b"no database" * 1000),
        )
    assert manager.check().status == "ok"
    path.unlink()
    assert "missing on disk" in kinds(manager.check())


def test_records_put_aside_are_a_warning_with_their_count(
    base_dir: Path, save: Callable[..., Path]
) -> None:
    for number in (2, 1):
        path = save(f"lotto_model_{number}", number * HOUR, mirror="off")
        copy = path.read_bytes()
        path.unlink()
        manager = ModelManager(base_dir)
        assert len(manager.sync().failed) == 1  # its bytes are gone
        path.write_bytes(copy)
        health = manager.check("8d")
        assert (health.status, kinds(health)) == ("warning", ["stuck record"])
        said = {2: "1 record was put aside", 1: "2 records were put aside"}[number]
        assert said in health.message
    found = status(base_dir, "--max-age", "8d")
    assert found["status"] == "warning"
    assert found["findings"][0]["mend"] == f"lotto-mlflow verify --base-dir {base_dir}"
    assert len(manager.sync(retry_aside=True).sent) == 2
    assert status(base_dir, "--max-age", "8d")["status"] == "ok"


def test_a_damaged_record_put_aside_is_a_warning(base_dir: Path, save: Callable[..., Path]) -> None:
    save("lotto_model_a", HOUR, mirror="off")
    (record,) = (base_dir / "mlflow" / "outbox").glob("*.json")
    record.write_bytes(b"{")
    record.rename(record.with_name(record.name.replace("~committed~", "~pending~")))
    ModelManager(base_dir).sync()
    (aside,) = (base_dir / "mlflow" / "aside").glob("*.json")
    health = ModelManager(base_dir).check("8d")
    assert (health.status, kinds(health)) == ("warning", ["stuck record"])
    aside.unlink()
    assert ModelManager(base_dir).check("8d").status == "ok"


def test_an_older_model_that_is_gone_is_not_asked_for(
    base_dir: Path, save: Callable[..., Path]
) -> None:
    save("lotto_model_old", 2 * HOUR).unlink()
    save("lotto_model_new", HOUR)
    assert ModelManager(base_dir).check().status == "ok"


def test_what_waits_over_an_hour_is_a_warning_with_its_count_and_its_age(
    base_dir: Path, save: Callable[..., Path]
) -> None:
    save("lotto_model_a", 3 * HOUR, mirror="off")
    save("other", 2 * HOUR, mirror="off")
    found = status(base_dir, "--max-age", "8d")
    assert found["status"] == "warning"
    (finding,) = found["findings"]
    assert (finding["kind"], finding["mend"]) == (
        "waiting", f"lotto-mlflow sync --base-dir {base_dir}"
    )  # fmt: skip
    assert "2 records wait for MLflow, the first for 3 h" in found["message"]
    assert found["metrics"]["waiting"] == 2
    assert 3 * HOUR <= found["metrics"]["waiting_seconds"] < 4 * HOUR
    ModelManager(base_dir).sync()
    assert status(base_dir, "--max-age", "8d")["status"] == "ok"


def test_what_a_killed_save_left_over_an_hour_ago_waits_too(
    base_dir: Path, save: Callable[..., Path]
) -> None:
    save("lotto_model_a", 2 * HOUR, mirror="off")
    (entry,) = (base_dir / "mlflow" / "outbox").glob("*.json")
    entry.rename(entry.with_name(entry.name.replace("~committed~", "~pending~")))
    health = ModelManager(base_dir).check()
    assert (health.status, kinds(health)) == ("warning", ["waiting"])


def test_an_old_file_that_was_brought_in_just_now_has_not_waited_for_years(
    base_dir: Path, tmp_path: Path
) -> None:
    (base_dir / "trained").mkdir()
    path = base_dir / "trained" / "lotto_model_old.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    os.utime(path, (time.time() - 900 * DAY,) * 2)
    manager = ModelManager(base_dir)
    manager.sync()
    (sent,) = (base_dir / "mlflow" / "sent").glob("*.json")
    waiting = base_dir / "mlflow" / "outbox" / sent.name.replace("~sent~", "~committed~")
    sent.rename(waiting)
    health = manager.check()
    assert (health.status, health.metrics["waiting"]) == ("ok", 1)
    os.utime(waiting, (time.time() - 2 * HOUR,) * 2)
    assert manager.check().status == "warning"


def test_another_minor_version_of_scikit_learn_is_a_warning(base_dir: Path) -> None:
    model = DummyClassifier().fit([[0], [1]], [0, 1])
    manager = ModelManager(base_dir)
    manager.save_model(model, "lotto_model_a", {"n": 1})
    assert manager.flush(120)
    assert manager.check().status == "ok"
    (sent,) = (base_dir / "mlflow" / "sent").glob("*.json")
    record = records.parse(sent.read_bytes())

    def saved_with(version: str) -> None:
        description = replace(
            record.payload.description, requirements=[f"scikit-learn=={version}", "joblib==1.4.2"]
        )
        payload = replace(record.payload, description=description)
        sent.write_bytes(records.render(replace(record, payload=payload)))

    major, minor, patch = map(int, sklearn.__version__.split(".")[:3])
    saved_with(f"{major}.{minor}.{patch + 1}")
    assert manager.check().status == "ok"
    saved_with(f"{major}.{minor + 1}.0")
    found = status(base_dir)
    assert found["status"] == "warning"
    assert [one["kind"] for one in found["findings"]] == ["other scikit-learn"]
    assert f"{major}.{minor + 1}.0" in found["message"]


def test_a_disk_with_room_for_less_than_two_models_is_a_warning(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "size=8m"):
        base_dir = disk / "ml"
        manager = ModelManager(base_dir, mirror="off")
        path = Path(manager.save_model({"a": os.urandom(2_000_000)}, "lotto_model_a", {"n": 1}))
        size = path.stat().st_size
        assert manager.check().status == "ok"
        filler, free = disk / "filler", os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        filler.write_bytes(b"x" * (free - 2 * size + 100_000))
        found = status(base_dir)
        assert found["status"] == "warning"
        assert {one["kind"] for one in found["findings"]} == {"little room"}
        assert found["metrics"]["free_bytes"] < 2 * found["metrics"]["size_bytes"] == 2 * size
        filler.write_bytes(b"x" * (free - 2 * size - 100_000))
        assert manager.check().status == "ok"


def test_a_disk_without_room_for_more_files_is_a_warning(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "size=8m,nr_inodes=80"):
        manager = ModelManager(disk / "ml", mirror="off")
        manager.save_model({"a": 1}, "lotto_model_a", {"n": 1})
        assert manager.check().status == "ok"
        while os.statvfs(disk).f_favail > 5:
            (disk / f"filler{os.statvfs(disk).f_favail}").touch()
        assert kinds(manager.check()) == ["little room", "little room", "little room"]
        assert manager.check().status == "warning"


def test_the_disk_of_the_mirror_counts_too(tmp_path: Path) -> None:
    base_dir = tmp_path / "ml"
    base_dir.mkdir()
    with small_disk(base_dir / "mlflow", "size=3m"):
        manager = ModelManager(base_dir, mirror="off")
        manager.save_model({"a": os.urandom(2_000_000)}, "lotto_model_a", {"n": 1})
        (finding,) = manager.check().findings
        assert (finding.kind, finding.path) == ("little room", base_dir / "mlflow")


@pytest.fixture
def client(base_dir: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")


def test_of_an_alias_it_is_the_age_of_its_holder_that_counts(
    base_dir: Path, save: Callable[..., Path], client: MlflowClient
) -> None:
    save("lotto_model_a", 9 * DAY)
    save("lotto_model_b", HOUR)
    client.set_registered_model_alias("lotto_model", "champion", "1")
    assert status(base_dir, "--max-age", "8d")["status"] == "ok"
    found = status(base_dir, "--max-age", "8d", "--alias", "champion")
    assert found["status"] == "critical"
    assert [(one["kind"], one["name"]) for one in found["findings"]] == [
        ("too old", "lotto_model_a")
    ]
    assert "champion: lotto_model_a (version 1) is 9 d old, more than 8 d" in found["message"]
    client.set_registered_model_alias("lotto_model", "champion", "2")
    assert ModelManager(base_dir).check("8d", "champion").status == "ok"
    (base_dir / "trained" / "lotto_model_a.pkl").unlink()
    (base_dir / "trained" / "lotto_model_b.pkl").unlink()
    client.set_registered_model_alias("lotto_model", "champion", "1")
    found = ModelManager(base_dir).check("10d", "champion")
    assert kinds(found) == ["missing on disk"]


def test_an_alias_that_nothing_has_is_critical_and_a_similar_one_is_named(
    base_dir: Path, save: Callable[..., Path], client: MlflowClient
) -> None:
    save("lotto_model_a", HOUR)
    client.set_registered_model_alias("lotto_model", "champion", "1")
    found = status(base_dir, "--alias", "champoin")
    assert found["status"] == "critical"
    assert [one["kind"] for one in found["findings"]] == ["no model"]
    assert "did you mean 'models:/lotto_model@champion'" in found["message"]


@pytest.mark.parametrize("place", ["trained", "mlflow/artifacts"])
@pytest.mark.parametrize("is_gone", [False, True])
def test_the_bytes_of_a_holder_are_looked_at_where_a_load_would_find_them(
    base_dir: Path,
    save: Callable[..., Path],
    client: MlflowClient,
    place: str,
    is_gone: bool,
) -> None:
    save("lotto_model_a", 2 * HOUR)
    save("lotto_model_b", HOUR)
    client.set_registered_model_alias("lotto_model", "champion", "1")
    manager, trained = ModelManager(base_dir), base_dir / "trained" / "lotto_model_a.pkl"
    path, expected = trained, "ok" if is_gone else "critical"  # MLflow has it still
    if place != "trained":
        trained.unlink()
        model_id = manager.get(1).model_id
        (path,) = (base_dir / place).rglob(f"{model_id}/**/*.pkl")
        expected = "critical"
    assert manager.check(alias="champion").status == "ok"
    times = path.stat().st_mtime_ns
    path.unlink() if is_gone else path.write_bytes(b"changed")
    if not is_gone:
        os.utime(path, ns=(times, times))
    assert manager.check().status == "ok"
    health = manager.check(alias="champion")
    assert health.status == expected
    assert all(finding.name == "lotto_model_a" for finding in health.findings)


def test_an_alias_in_a_registry_that_does_not_answer_is_unknown_and_a_damage_stays_critical(
    base_dir: Path, save: Callable[..., Path]
) -> None:
    path = save("lotto_model_a", HOUR)
    down = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    assert status(base_dir, **down)["status"] == "ok"
    found = status(base_dir, "--alias", "champion", **down)
    assert found["status"] == "unknown"
    assert [one["kind"] for one in found["findings"]] == ["not looked at"]
    assert "the alias champion could not be looked at: http://127.0.0.1:9" in found["message"]
    path.write_bytes(b"changed")
    assert status(base_dir, "--alias", "champion", **down)["status"] == "critical"


def test_with_deep_a_store_that_does_not_answer_is_unknown(
    base_dir: Path, save: Callable[..., Path]
) -> None:
    save("lotto_model_a", HOUR)
    uri = "http://127.0.0.1:9"
    assert ModelManager(base_dir, tracking_uri=uri).check(deep=True).status == "unknown"


CHECK = """
import contextlib, io, sys
from lotto_mlflow import ModelManager
from lotto_mlflow.cli import main
out, code = io.StringIO(), 0
sys.argv = ["lotto-mlflow", "check", *words, "--base-dir", base_dir]
try:
    with contextlib.redirect_stdout(out):
        main()
except SystemExit as end:
    code = end.code
health = ModelManager(base_dir).check("8d", **arguments)
answer = [code, out.getvalue(), health.status, [one.kind for one in health.findings]]
"""
needs_root = pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become another user"
)


def listing(base_dir: Path) -> dict[str, tuple[int, int, int]]:
    found = [(path, path.lstat()) for path in (base_dir, *base_dir.rglob("*"))]
    return {str(path): (s.st_ino, s.st_size, s.st_mtime_ns) for path, s in found}


@pytest.fixture
def shared(place: Path, migrated_database: Path) -> Iterator[Path]:
    """A folder of root's that everybody may read, with one mirrored model that is a champion."""
    base_dir = folder_with_store(
        place / uuid.uuid4().hex, migrated_database
    )  # MLflow keeps files open
    manager = ModelManager(base_dir)
    manager.save_model({"a": 1}, "lotto_model_a", {"n": 1})
    assert manager.flush(120)
    uri = f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"
    MlflowClient(tracking_uri=uri).set_registered_model_alias("lotto_model", "champion", "1")
    for path in (base_dir, *base_dir.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield base_dir
    shutil.rmtree(base_dir)


@needs_root
@pytest.mark.parametrize("words", [(), ("--alias", "champion"), ("--deep",)], ids=" ".join)
@pytest.mark.parametrize("is_mount", [False, True])
def test_who_may_only_read_checks_all_of_it_and_changes_nothing(
    users: Users, shared: Path, words: tuple[str, ...], is_mount: bool, place: Path
) -> None:
    before = listing(shared)
    arguments = {"--alias": {"alias": "champion"}, "--deep": {"deep": True}}
    names = {"words": list(words), "arguments": arguments.get("".join(words[:1]), {})}
    if is_mount:
        with mounted_read_only(shared, shared):
            done = users.work(User(0, 0), CHECK, base_dir=shared, **names)
    else:
        done = users.work(READER, CHECK, base_dir=shared, **names)
    assert (done[0], done[2:]) == (0, ["ok", []]), done
    assert listing(shared) == before


@needs_root
@pytest.mark.parametrize(
    "hidden",
    ["trained", "trained/lotto_model_a.pkl", "mlflow/outbox", "mlflow/sent", "mlflow/sent/*.json",
     "mlflow"],
)  # fmt: skip
def test_what_may_not_be_read_is_unknown_and_neither_sound_nor_damaged(
    users: Users, shared: Path, hidden: str
) -> None:
    (path,) = shared.glob(hidden)
    path.chmod(0o700 if path.is_dir() else 0o600)
    code, printed, *_, found = users.work(READER, CHECK, base_dir=shared, words=[], arguments={})
    assert code == 3
    assert printed.startswith("LOTTO_MLFLOW UNKNOWN - ")
    assert set(found) == {"not looked at"}
    deep = users.work(READER, CHECK, base_dir=shared, words=["--deep"], arguments={"deep": True})
    assert (deep[0], deep[2]) == (3, "unknown")


def test_a_name_forges_neither_figures_nor_lines_nor_commands_a_terminal(base_dir: Path) -> None:
    (base_dir / "trained").mkdir()
    name = "lotto_model_a| age=1s;;;\nLOTTO_MLFLOW OK - \x1b[2J"
    (base_dir / "trained" / f"{name}.pkl").write_bytes(b"x" * 9)
    found = run("--base-dir", base_dir, "--max-age", "0s")
    assert LINE.fullmatch(found.stdout)
    assert found.stdout.count("|") == 1
    assert "\x1b" not in found.stdout


def test_many_problems_make_one_short_line_and_all_findings(
    base_dir: Path, save: Callable[..., Path]
) -> None:
    for number in range(12):
        save(f"lotto_model_{number}{'x' * 100}", 2 * HOUR - number).write_bytes(b"changed")
    health = ModelManager(base_dir).check("1h", deep=True)
    assert len(health.findings) > 10
    assert len(health.message.encode()) < 1024
    assert re.search(r"; and \d+ more \|", health.message)


def test_health_is_frozen_can_be_pickled_and_is_exported(disk_manager: ModelManager) -> None:
    disk_manager.save_model({"a": 1}, "lotto_model_a", {"n": 1})
    health = disk_manager.check()
    assert pickle.loads(pickle.dumps(health)) == health
    with pytest.raises(AttributeError):
        health.status = "ok"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.9, "0 s"), (59, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (7200, "2 h"),
        (97_200, "1 d 3 h"), (9 * DAY + 61, "9 d"), (HOUR + 59, "1 h"), (8 * DAY, "8 d"),
    ],
)  # fmt: skip
def test_a_time_is_said_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert in_words(seconds) == text


def test_a_model_that_is_saved_while_it_is_checked_is_never_taken_for_damaged(
    base_dir: Path,
) -> None:
    """Saves under one name replace the file that is being looked at."""
    source = (
        "import sys; from lotto_mlflow import ModelManager\n"
        "manager = ModelManager(sys.argv[1], mirror='off')\n"
        "for number in range(150): manager.save_model({'n': number}, 'lotto_model_a', {'n': 1})"
    )
    manager = ModelManager(base_dir, mirror="off")
    manager.save_model({"n": -1}, "lotto_model_a", {"n": 1})
    found = set()
    with subprocess.Popen([sys.executable, "-c", source, str(base_dir)]) as saving:
        while saving.poll() is None:
            health = manager.check("8d")
            found.add((health.status, tuple(map(repr, health.findings))))
    assert saving.returncode == 0
    assert found == {("ok", ())}


def test_nothing_but_errors_of_the_package_leaves_a_check(tmp_path: Path) -> None:
    """Files and links in the place of folders are answers, too."""
    for name in ("trained", "mlflow", "backups"):
        base_dir = tmp_path / f"of_{name}"
        manager = ModelManager(base_dir, mirror="off")
        manager.save_model({"a": 1}, "lotto_model_a", {"n": 1})
        shutil.rmtree(base_dir / name)
        (base_dir / name).write_text("in the way")
        for arguments in ({}, {"deep": True}, {"alias": "champion"}):
            try:
                health = manager.check("8d", **arguments)  # type: ignore[arg-type]
            except LottoMlflowError:
                pytest.fail("an answer was possible")
            assert health.status in CODES


def test_on_a_server_a_holder_is_looked_at_and_with_deep_its_files_by_who_may_only_read_too(
    tmp_path: Path, server_uri: str, ago: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_dir = tmp_path / "ml"
    manager = ModelManager(base_dir, tracking_uri=server_uri)
    ago(9 * DAY)
    path = Path(manager.save_model({"a": 1}, "lotto_model_a", {"n": 1}))
    ago(0)
    assert manager.flush(120)
    client = MlflowClient(tracking_uri=server_uri)
    client.set_registered_model_alias("lotto_model", "champion", "1")
    monkeypatch.setenv("LOTTO_CACHE_DIR", str(tmp_path / "cache"))
    before = listing(base_dir)
    with mounted_read_only(base_dir, base_dir):
        assert kinds(manager.check("8d", "champion")) == ["too old"]
        assert not (tmp_path / "cache").exists()  # nothing was fetched
        health = manager.check("10d", "champion", deep=True)
        assert (health.status, health.findings) == ("ok", ())
    assert listing(base_dir) == before
    server = {"MLFLOW_TRACKING_URI": server_uri}
    serving_dir = tmp_path / "serving"  # another machine, with no file of its own
    serving_dir.mkdir()
    found = status(serving_dir, "--alias", "champion", "--max-age", "10d", **server)
    assert found["status"] == "ok"
    assert status(serving_dir, "--max-age", "10d", **server)["status"] == "critical"
    assert list(serving_dir.iterdir()) == []
    path.write_bytes(b"changed")
    assert "damaged" in kinds(manager.check(alias="champion"))


@pytest.mark.parametrize("error", ["ImportError", "RuntimeError"])
def test_an_mlflow_that_cannot_be_imported_is_unknown_where_it_is_needed(
    base_dir: Path, save: Callable[..., Path], tmp_path: Path, error: str
) -> None:
    save("lotto_model_a", HOUR)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "mlflow.py").write_text(f"raise {error}('broken')")
    broken = {"PYTHONPATH": f"{tmp_path / 'broken'}:{os.environ.get('PYTHONPATH', '')}"}
    assert status(base_dir, "--max-age", "8d", **broken)["status"] == "ok"
    for option in (("--alias", "champion"), ("--deep",)):
        found = status(base_dir, *option, **broken)
        assert found["status"] == "unknown"
        assert "broken" in found["message"]
