"""The specification, requirement by requirement, held against its three functions.

@TEST:LOTTO-ML-INFRA-001 | @SPEC:LOTTO-ML-INFRA-001 | @CODE: lotto_mlflow/model_utils.py

Most tests save with ``LOTTO_MIRROR=off``; the last one saves into a real embedded store, too.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import datetime, timedelta
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import joblib
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from lotto_mlflow import model_utils
from lotto_mlflow.model_utils import get_latest_model_path, load_model, save_model

REQUIREMENTS = ("UR-001", "UR-002", "UR-003", "UR-004", "SD-001", "SD-002", "UB-001", "UB-002")
# read while the module is imported, because the tests run without any LOTTO_ variable
_SPEC = os.environ.get("LOTTO_SPEC")
_FOLDERS = ("backups", "metadata", "trained")
_MIDNIGHT = datetime(2025, 11, 3, tzinfo=ZoneInfo("Asia/Seoul"))
"""The moment of the specification's own example."""
TRAINED, METADATA = "trained/lotto_model_a.pkl", "metadata/lotto_model_a_metadata.json"
BACKUP, BACKUP_METADATA = "backups/lotto_model_a.pkl", "backups/lotto_model_a_metadata.json"


@pytest.fixture(autouse=True)
def ml_dir(clean_surroundings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is not there yet, obeyed by the constants; MLflow is told nothing."""
    monkeypatch.setattr(model_utils, "_APP_DIR", tmp_path / "app")
    monkeypatch.setenv("LOTTO_MIRROR", "off")
    return tmp_path / "app" / "models" / "ml"


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Another import of the module, whose own app folder is ``fresh`` and nothing is replaced."""
    monkeypatch.setenv("LOTTO_APP_DIR", str(tmp_path / "fresh"))
    module = ModuleType("fresh_model_utils")
    module.__file__ = model_utils.__file__
    SourceFileLoader(module.__name__, module.__file__).exec_module(module)
    return module


def _stop_clock(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: int(moment.timestamp()) * 10**9)


def _contents(ml_dir: Path) -> dict[str, bytes]:
    """Return all that lies in the specification's folders, at any depth, hidden or not."""
    return {
        str(path.relative_to(ml_dir)): path.read_bytes() if path.is_file() else b""
        for name in _FOLDERS
        for path in sorted((ml_dir / name).rglob("*"))
    }


def _put(trained_dir: Path, name: str, mtime: float) -> Path:
    """Lay a file into ``trained/`` by other means than a save."""
    trained_dir.mkdir(parents=True, exist_ok=True)
    path = trained_dir / name
    joblib.dump({"name": name}, path)
    os.utime(path, (mtime, mtime))
    return path


def _warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [r for r in caplog.records if r.levelno >= logging.WARNING and r.name == "lotto_mlflow"]


def test_every_requirement_has_a_test() -> None:
    """The ids are those of the specification itself, where LOTTO_SPEC names its file."""
    text = Path(_SPEC).read_text(encoding="utf-8") if _SPEC else ""
    specified = re.findall(r"^#### ([A-Z]{2}-\d{3}):", text, flags=re.MULTILINE)
    assert sorted(specified or REQUIREMENTS) == sorted(REQUIREMENTS)
    tests = [name.lower() for name, value in globals().items() if inspect.isfunction(value)]
    for requirement in REQUIREMENTS:
        prefix = f"test_{requirement.replace('-', '_')}_".lower()
        assert any(name.startswith(prefix) for name in tests), f"{requirement} has no test"


def test_the_functions_take_the_specified_arguments_first() -> None:
    argued = inspect.getfullargspec(save_model)
    assert (argued.args, argued.defaults) == (["model", "model_name", "metadata"], (None, None))
    assert inspect.getfullargspec(load_model).args == ["model_path"]
    assert inspect.getfullargspec(get_latest_model_path).args == []


def test_the_constants_are_derived_from_each_other(fresh: ModuleType, tmp_path: Path) -> None:
    assert Path(model_utils.__file__).resolve() == fresh._CURRENT_FILE
    assert tmp_path / "fresh" == fresh._APP_DIR
    assert tmp_path / "fresh" / "models" / "ml" == fresh.MODEL_BASE_DIR
    assert fresh.MODEL_BASE_DIR / "trained" == fresh.TRAINED_DIR
    assert fresh.MODEL_BASE_DIR / "metadata" == fresh.METADATA_DIR
    assert fresh.MODEL_BASE_DIR / "backups" == fresh.BACKUP_DIR


@pytest.mark.parametrize(
    ("given", "expected"), [(None, "backend/app"), ("", "backend/app"), ("other", "other")]
)
def test_lotto_app_dir_is_read_at_import(tmp_path: Path, given: str | None, expected: str) -> None:
    """The current folder and the variable of the import count, not those of the call."""
    script = (
        "import os\n"
        "from lotto_mlflow import model_utils\n"
        "os.environ['LOTTO_APP_DIR'] = 'too_late'\n"
        "os.mkdir('later'); os.chdir('later')\n"
        "print(model_utils._APP_DIR)\n"
        "print(model_utils.save_model({'a': 1}, 'lotto_model_a', {}))\n"
    )
    same_package = {"PYTHONPATH": str(Path(model_utils.__file__).parents[1])}
    environment = os.environ | same_package | ({} if given is None else {"LOTTO_APP_DIR": given})
    command = [sys.executable, "-c", script]
    said = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True)
    saved = tmp_path / expected / "models" / "ml" / TRAINED
    assert said.splitlines() == [str(tmp_path / expected), str(saved)]
    assert saved.is_file()


@pytest.mark.parametrize(
    ("constant", "moved", "below"),
    [
        ("TRAINED_DIR", ["trained"], ""),
        ("METADATA_DIR", ["metadata"], ""),
        ("BACKUP_DIR", ["backups"], ""),
        ("MODEL_BASE_DIR", ["trained", "metadata", "backups"], "{}"),
        ("_APP_DIR", ["trained", "metadata", "backups"], "models/ml/{}"),
    ],
)
def test_replacing_one_constant_alone_is_obeyed(
    fresh: ModuleType, tmp_path: Path, constant: str, moved: list[str], below: str
) -> None:
    usual = {name: tmp_path / "fresh" / "models" / "ml" / name for name in _FOLDERS}
    folders = usual | {name: tmp_path / "replaced" / below.format(name) for name in moved}
    assert fresh.get_latest_model_path() is None  # the functions have been used before
    setattr(fresh, constant, tmp_path / "replaced")

    for generation in (1, 2):
        path = fresh.save_model({"generation": generation}, "lotto_model_a", {})

    assert path == fresh.get_latest_model_path() == str(folders["trained"] / "lotto_model_a.pkl")
    assert fresh.load_model(path) == {"generation": 2}
    files = ["lotto_model_a.pkl", "lotto_model_a_metadata.json"]
    expected = {"trained": files[:1], "metadata": files[1:], "backups": files}
    assert {name: sorted(os.listdir(folders[name])) for name in folders} == expected
    assert [file for name in moved for file in usual[name].glob("*")] == []


@pytest.mark.parametrize("kind", ["forest", "regression"])
def test_ur_001_writes_the_very_bytes_of_joblib_dump(
    kind: str, request: pytest.FixtureRequest, rows: Any, tmp_path: Path, ml_dir: Path
) -> None:
    model = request.getfixturevalue(kind)
    joblib.dump(model, tmp_path / "plain.pkl")
    path = save_model(model, "lotto_model_a", {"accuracy": 0.75})
    assert type(path) is str
    assert path == str(ml_dir / TRAINED)
    assert Path(path).read_bytes() == (tmp_path / "plain.pkl").read_bytes()
    assert np.array_equal(joblib.load(path).predict_proba(rows[0]), model.predict_proba(rows[0]))


def test_ur_001_names_by_day_second_and_number(
    monkeypatch: pytest.MonkeyPatch, ml_dir: Path
) -> None:
    _stop_clock(monkeypatch, _MIDNIGHT)
    paths = [save_model({"n": n}, metadata={}) for n in range(4)]
    day, second = "lotto_model_20251103", "lotto_model_20251103_000000"
    assert [Path(path).stem for path in paths] == [day, second, f"{second}_2", f"{second}_3"]
    assert [load_model(path) for path in paths] == [{"n": n} for n in range(4)]
    assert os.listdir(ml_dir / "backups") == []


@pytest.mark.parametrize(
    ("zone", "name", "saved_at"),
    [
        ("", "lotto_model_20251103", "2025-11-03T00:00:00+09:00"),
        ("UTC", "lotto_model_20251102", "2025-11-02T15:00:00+00:00"),
        ("America/New_York", "lotto_model_20251102", "2025-11-02T10:00:00-05:00"),
    ],
)
def test_ur_001_dates_are_of_seoul_unless_another_zone_is_set(
    monkeypatch: pytest.MonkeyPatch, ml_dir: Path, zone: str, name: str, saved_at: str
) -> None:
    _stop_clock(monkeypatch, _MIDNIGHT)
    monkeypatch.setenv("LOTTO_TIMEZONE", zone)
    assert Path(save_model({"a": 1}, metadata={})).stem == name
    written = json.loads(_contents(ml_dir)[f"metadata/{name}_metadata.json"])
    assert datetime.fromisoformat(written["saved_at"]).isoformat() == saved_at


def test_ur_001_never_generates_a_name_twice(monkeypatch: pytest.MonkeyPatch, ml_dir: Path) -> None:
    """Neither that of a model in ``backups/``, nor that of one whose file is gone."""
    _stop_clock(monkeypatch, _MIDNIGHT)
    _put(ml_dir / "backups", "lotto_model_20251103.pkl", _MIDNIGHT.timestamp())
    Path(save_model({"a": 1}, metadata={})).unlink()
    assert Path(save_model({"a": 1}, metadata={})).stem == "lotto_model_20251103_000000_2"


def test_ur_001_refuses_none_as_the_model(ml_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"^Model cannot be None$"):
        save_model(None, "lotto_model_a", {})
    assert not ml_dir.exists()


@pytest.mark.parametrize("model", [0, "", [], RandomForestClassifier()], ids=repr)
def test_ur_001_refuses_no_model_for_being_empty_or_unfitted(model: Any) -> None:
    assert repr(load_model(save_model(model, metadata={}))) == repr(model)


@pytest.mark.parametrize("refused", [(n for n in ()), lambda: None], ids=["generator", "lambda"])
def test_ur_001_a_failed_save_wraps_its_cause(ml_dir: Path, refused: Any) -> None:
    """And keeps the old model, as if nothing had been asked."""
    path = save_model({"a": 1}, "lotto_model_a", {"accuracy": 0.5})
    before = _contents(ml_dir)
    with pytest.raises(IOError, match="could not be written") as caught:
        save_model(refused, "lotto_model_a", {"accuracy": 0.75})
    with pytest.raises(type(caught.value.__cause__)):
        joblib.dump(refused, ml_dir / "plain.pkl")
    assert _contents(ml_dir) == before
    assert load_model(path) == {"a": 1}


def test_ur_001_a_disk_that_refuses_is_an_error_with_its_cause(ml_dir: Path) -> None:
    (ml_dir / TRAINED).mkdir(parents=True)
    with pytest.raises(IOError, match="could not be saved") as caught:
        save_model({"a": 1}, "lotto_model_a", {})
    assert isinstance(caught.value.__cause__, OSError)
    assert list(_contents(ml_dir)) == [TRAINED]


@pytest.mark.parametrize("kind", [str, Path])
def test_ur_002_returns_the_model_that_was_saved(forest: Any, rows: Any, kind: type) -> None:
    loaded = load_model(kind(save_model(forest, metadata={})))
    assert type(loaded) is RandomForestClassifier
    assert np.array_equal(loaded.predict_proba(rows[0]), forest.predict_proba(rows[0]))


def test_ur_002_reads_what_plain_joblib_wrote_anywhere(regression: Any, rows: Any) -> None:
    joblib.dump(regression, "lotto_model_of_a_colleague.pkl", compress=3)
    loaded = load_model("lotto_model_of_a_colleague.pkl")
    assert np.array_equal(loaded.predict(rows[0]), regression.predict(rows[0]))


def test_ur_002_says_which_file_is_missing(ml_dir: Path) -> None:
    missing = ml_dir / "trained" / "lotto_model_20251103.pkl"
    with pytest.raises(FileNotFoundError) as caught:
        load_model(str(missing))
    assert str(caught.value) == f"Model file not found: {missing}"
    assert not ml_dir.exists()


@pytest.mark.parametrize("folder", [".", "trained"])
@pytest.mark.parametrize("content", [b"no pickle at all\n", b"\x80\x04\x95"], ids=["text", "cut"])
def test_ur_002_a_failed_load_wraps_its_cause(ml_dir: Path, folder: str, content: bytes) -> None:
    path = ml_dir / folder / "lotto_model_a.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(IOError, match=re.escape(str(path))) as caught:
        load_model(path)
    assert isinstance(caught.value.__cause__, Exception)
    assert not isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize(("time_of_a", "latest"), [(1002, "a"), (1001, "y"), (1000, "y")])
def test_ur_003_goes_by_time_and_then_by_name(ml_dir: Path, time_of_a: int, latest: str) -> None:
    times = dict.fromkeys("qwertyuiopsdfghjklxcvbnm", 1001) | {"a": time_of_a, "z": 1000}
    paths = {x: _put(ml_dir / "trained", f"lotto_model_{x}.pkl", times[x]) for x in times}
    assert get_latest_model_path() == str(paths[latest])


def test_ur_003_sees_no_other_files_and_no_folders(ml_dir: Path) -> None:
    lotto = _put(ml_dir / "trained", "lotto_model_a.pkl", mtime=1000)
    for name in ("other.pkl", "lotto_model.pkl", "lotto_model_b.pkl.bak", "xlotto_model_c.pkl"):
        _put(ml_dir / "trained", name, mtime=2000)
    _put(ml_dir / "trained" / "lotto_model_folder.pkl", "lotto_model_inside.pkl", mtime=2000)
    _put(ml_dir / "backups", "lotto_model_backup.pkl", mtime=2000)
    assert get_latest_model_path() == str(lotto)


@pytest.mark.parametrize("step_seconds", [0, -86_400])
def test_ur_003_the_last_save_is_the_latest_whatever_the_clock_does(
    monkeypatch: pytest.MonkeyPatch, step_seconds: int
) -> None:
    _stop_clock(monkeypatch, _MIDNIGHT)
    save_model({"n": 1}, "lotto_model_b", {})
    _stop_clock(monkeypatch, _MIDNIGHT + timedelta(seconds=step_seconds))
    assert save_model({"n": 2}, "lotto_model_a", {}) == get_latest_model_path()


def test_ur_003_answers_among_a_hundred_files_within_a_tenth_of_a_second(ml_dir: Path) -> None:
    paths = [_put(ml_dir / "trained", f"lotto_model_{n}.pkl", mtime=n) for n in range(1, 101)]
    seconds = []
    for _ in range(5):  # of which a busy machine may interrupt some
        start = time.perf_counter()
        latest = get_latest_model_path()
        seconds.append(time.perf_counter() - start)
        assert latest == str(paths[-1])
    assert min(seconds) < 0.1


def test_ur_004_writes_readable_korean_in_utf_8_indented_by_two(ml_dir: Path) -> None:
    save_model({"a": 1}, "로또_모형", {"설명": "십일월 모형", "max_depth": None})
    raw = (ml_dir / "metadata" / "로또_모형_metadata.json").read_bytes()
    assert '\n  "설명": "십일월 모형",\n  "max_depth": null,\n'.encode() in raw
    assert raw == json.dumps(json.loads(raw), indent=2, ensure_ascii=False).encode("utf-8")


def test_ur_004_fills_in_what_the_caller_did_not_say(ml_dir: Path, forest: Any) -> None:
    given = {"accuracy": 0.75}
    path = Path(save_model(forest, "lotto_model_a", given))
    written = json.loads(_contents(ml_dir)[METADATA])
    saved_at = datetime.fromisoformat(written.pop("saved_at"))
    assert written == {
        "model_type": "RandomForestClassifier",
        "accuracy": 0.75,
        "model_version": "lotto_model_a",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "size_bytes": path.stat().st_size,
    }
    assert saved_at.utcoffset() == timedelta(hours=9)
    assert abs(saved_at.timestamp() - path.stat().st_mtime) < 0.001
    assert given == {"accuracy": 0.75}


def test_ur_004_keeps_what_the_caller_said_but_not_a_false_digest(ml_dir: Path) -> None:
    given = {
        "saved_at": "2025-11-03T00:00:00+09:00",
        "model_type": "RandomForestClassifier",
        "model_version": "lotto_model_20251103_000000",
    }
    path = Path(save_model({"a": 1}, "lotto_model_a", given | {"sha256": "0", "size_bytes": 0}))
    assert json.loads(_contents(ml_dir)[METADATA]) == given | {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "size_bytes": path.stat().st_size,
    }


def test_ur_004_metadata_that_json_cannot_hold_fails_the_save(ml_dir: Path) -> None:
    with pytest.raises(IOError, match="nothing was saved"):
        save_model({"a": 1}, "lotto_model_a", {"model": object()})
    assert not ml_dir.exists()


def test_sd_001_a_save_makes_the_specified_folders_and_the_adapters_own(ml_dir: Path) -> None:
    save_model({"a": 1}, "lotto_model_a", {})
    assert sorted(os.listdir(ml_dir)) == ["backups", "metadata", "mlflow", "trained"]
    assert list(_contents(ml_dir)) == [METADATA, TRAINED]


@pytest.mark.parametrize("folder", _FOLDERS)
def test_sd_001_a_save_makes_one_folder_that_was_removed(ml_dir: Path, folder: str) -> None:
    save_model({"a": 1}, "lotto_model_b", {})
    shutil.rmtree(ml_dir / folder)
    save_model({"a": 2}, "lotto_model_a", {})
    assert (ml_dir / folder).is_dir()
    assert {METADATA, TRAINED} <= set(_contents(ml_dir))


def test_sd_002_is_none_without_a_model_and_makes_the_folder(ml_dir: Path) -> None:
    assert get_latest_model_path() is None
    assert os.listdir(ml_dir) == ["trained"]
    _put(ml_dir / "trained", "other.pkl", mtime=1000)
    assert get_latest_model_path() is None


def test_ub_001_backs_up_model_and_metadata_before_replacing_them(ml_dir: Path) -> None:
    then = []
    for number in (1, 2, 3):
        save_model({"n": number}, "lotto_model_a", {"n": number})
        then.append(_contents(ml_dir))
    assert _contents(ml_dir) == {
        BACKUP: then[0][TRAINED],
        BACKUP_METADATA: then[0][METADATA],
        "backups/lotto_model_a.2.pkl": then[1][TRAINED],
        "backups/lotto_model_a.2_metadata.json": then[1][METADATA],
        TRAINED: then[2][TRAINED],
        METADATA: then[2][METADATA],
    }
    assert load_model(ml_dir / "backups" / "lotto_model_a.2.pkl") == {"n": 2}
    assert load_model(ml_dir / TRAINED) == {"n": 3}


def test_ub_001_never_replaces_a_backup_that_is_there(ml_dir: Path) -> None:
    there = _put(ml_dir / "backups", "lotto_model_a.pkl", mtime=1000)
    _put(ml_dir / "trained", "lotto_model_a.pkl", mtime=2000).write_bytes(b"of no save")
    save_model({"a": 1}, "lotto_model_a", {})
    assert joblib.load(there) == {"name": "lotto_model_a.pkl"}
    assert (ml_dir / "backups" / "lotto_model_a.2.pkl").read_bytes() == b"of no save"
    assert len(os.listdir(ml_dir / "backups")) == 2


def test_ub_001_metadata_of_the_model_before_does_not_stay_with_the_next(ml_dir: Path) -> None:
    save_model({"n": 1}, "lotto_model_a", {"n": 1})
    old = _contents(ml_dir)[METADATA]
    save_model({"n": 2}, "lotto_model_a")
    assert list(_contents(ml_dir)) == [BACKUP, BACKUP_METADATA, TRAINED]
    assert _contents(ml_dir)[BACKUP_METADATA] == old


def test_ub_002_no_metadata_is_a_warning(ml_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_model(save_model({"a": 1}, "lotto_model_a")) == {"a": 1}
    (warning,) = _warnings(caplog)
    assert "lotto_model_a is saved without metadata" in warning.getMessage()
    assert os.listdir(ml_dir / "metadata") == []


def test_ub_002_empty_metadata_is_metadata(ml_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_model({"a": 1}, "lotto_model_a", {})
    assert _warnings(caplog) == []
    assert json.loads(_contents(ml_dir)[METADATA])["model_type"] == "dict"


def test_ur_001_mirrored_saves_look_the_same_on_disk_and_have_a_registry_view(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch, regression: Any, forest: Any, rows: Any
) -> None:
    monkeypatch.setattr(model_utils, "MODEL_BASE_DIR", base_dir)
    monkeypatch.delenv("LOTTO_MIRROR")
    assert get_latest_model_path(source="registry") is None
    save_model(regression, "lotto_model_a", {"accuracy": 0.5})
    path = save_model(forest, "lotto_model_a", {"accuracy": 0.75})
    assert sorted(os.listdir(base_dir)) == ["backups", "metadata", "mlflow", "trained"]
    assert list(_contents(base_dir)) == [BACKUP, BACKUP_METADATA, METADATA, TRAINED]
    assert get_latest_model_path() == path
    in_registry = get_latest_model_path(source="registry")
    assert Path(str(in_registry)).read_bytes() == Path(path).read_bytes()
    for version, model in (("1", regression), ("2", forest)):
        loaded = load_model(f"models:/lotto_model/{version}")
        assert np.array_equal(loaded.predict_proba(rows[0]), model.predict_proba(rows[0]))
