"""Bad input is refused with a clear error of its own class, and no file changes."""

from __future__ import annotations

import functools
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

import lotto_mlflow
from lotto_mlflow import ModelManager, errors
from lotto_mlflow.text import one_line

NAME = "lotto_model_known"
MODEL = {"weights": [1.0, 2.0]}
Refusal = Callable[..., Any]
PROMISED = {
    errors.DumpError: (OSError,),
    errors.LoadError: (OSError,),
    errors.DigestMismatchError: (errors.LoadError, OSError),
    errors.ModelNotFoundError: (FileNotFoundError,),
    errors.InvalidMetadataError: (ValueError, OSError),
    errors.InvalidArtifactError: (ValueError, OSError),
}
"""The built-in errors that each promises to be; the others promise ValueError."""
HUGE = 10**5_000  # Python refuses to write an integer of more than 4,300 digits


def brief(value: Any) -> str:
    """Return an id that is the same in every process, of characters that a name can hold."""
    try:
        return re.sub(r" at 0x\w+", "", ascii(value))[:40]
    except ValueError:
        return "huge"


def snapshot(directory: Path) -> dict[Path, bytes | None]:
    return {p: p.read_bytes() if p.is_file() else None for p in directory.rglob("*")}


@pytest.fixture
def ml_dir(tmp_path: Path) -> Path:
    return tmp_path / "ml"


@pytest.fixture
def holder(disk_manager: ModelManager) -> ModelManager:
    """A manager of a folder that already holds a saved model."""
    disk_manager.save_model(MODEL, NAME, {"정확도": 0.75})
    return disk_manager


@pytest.fixture
def refusal(holder: ModelManager, ml_dir: Path) -> Refusal:
    """Make a call that must be refused and leave the folder alone; return the error."""

    def made(call: Any, *args: Any, own: type[Exception], **options: Any) -> Any:
        before = snapshot(ml_dir)
        with pytest.raises(errors.LottoMlflowError) as raised:
            call(*args, **options)
        assert snapshot(ml_dir) == before
        assert type(raised.value) is own
        assert all(isinstance(raised.value, kind) for kind in PROMISED.get(own, (ValueError,)))
        assert str(raised.value)
        return raised.value

    return made


@pytest.fixture
def refused_save(holder: ModelManager, refusal: Refusal) -> Refusal:
    return functools.partial(refusal, holder.save_model)


@pytest.fixture
def refused_load(holder: ModelManager, refusal: Refusal) -> Refusal:
    return functools.partial(refusal, holder.load_model)


class Unreducible:
    def __reduce__(self) -> Any:
        raise RuntimeError("this object has no form outside its process")


UNPICKLABLE = {
    "lambda": lambda: lambda row: row,
    "generator": lambda: (n for n in range(3)),
    "open file": lambda: {"log": sys.__stderr__},
    "__reduce__ raises": Unreducible,
    "nested too deeply": lambda: functools.reduce(lambda inner, _: [inner], range(100_000)),
}


def test_none_is_refused_with_the_words_of_the_specification(refused_save: Refusal) -> None:
    error = refused_save(None, own=errors.InvalidModelError)
    assert str(error) == "Model cannot be None"


@pytest.mark.parametrize("name", [None, NAME], ids=["generated name", "existing name"])
@pytest.mark.parametrize("make", UNPICKLABLE.values(), ids=UNPICKLABLE)
def test_an_unpicklable_model_is_refused_and_its_name_keeps_the_old_one(
    holder: ModelManager, ml_dir: Path, refused_save: Refusal, make: Any, name: str | None
) -> None:
    error = refused_save(make(), name, {"n": 1}, own=errors.DumpError)
    assert error.__cause__ is not None
    assert holder.load_model(ml_dir / "trained" / f"{NAME}.pkl") == MODEL
    assert not list((ml_dir / "backups").iterdir())


@pytest.mark.parametrize(
    "name",
    [
        *("a/b", "/a", "a\\b", "..", "../a", "a\0b", "a\nb", "a\x1bb", "a\x7fb", "a:b", 'a"b'),
        *("x" * 300, "모" * 100, ".hidden", "", "   ", " a", "a ", "a.", "a.pkl", "a.PKL"),
        *("\ud800", 5, True, b"a", Path("a"), HUGE),
    ],
    ids=brief,
)
def test_a_name_that_is_no_plain_file_name_is_refused(refused_save: Refusal, name: Any) -> None:
    error = refused_save(MODEL, name, own=errors.InvalidNameError)
    assert error.name == name
    assert "model_name" in str(error)
    assert len(str(error)) < 500


CYCLE: dict[str, Any] = {"inner": {}}
CYCLE["inner"]["back"] = CYCLE
LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("metadata", "place"),
    [
        *(([1, 2], "metadata"), ("text", "metadata"), ({"a": b"b"}, "metadata['a']")),
        *(({HUGE: 1}, "metadata"), ({"\udfff": 1}, "metadata"), ({"a": [{"b": HUGE}]}, "metadata")),
        *(({"a": value}, "metadata['a']") for value in (b"a", 1j, {b"a": 1}, "\ud800")),
        ({"a": [0, {"b": object()}]}, "metadata['a'][1]['b']"),
        *((CYCLE, "metadata['inner']['back']"), ({"list": LOOP}, "metadata['list'][0]")),
    ],
    ids=brief,
)
def test_metadata_without_a_strict_json_form_is_refused_and_its_place_named(
    refused_save: Refusal, metadata: Any, place: str
) -> None:
    error = refused_save(MODEL, NAME, metadata, own=errors.InvalidMetadataError)
    assert error.place == place
    assert str(error).startswith(place)


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "/x", "", ".", "./x", "a//b", "a/", "a\\b", "a\0b", "a\nb", "a:b", "a%2fb"),
        *("x" * 300, "_metadata.json", "\ud800", 5, None, HUGE),
    ],
    ids=brief,
)
def test_an_artifact_name_that_is_no_path_is_refused(refused_save: Refusal, name: Any) -> None:
    error = refused_save(MODEL, NAME, artifacts={name: "text"}, own=errors.InvalidArtifactError)
    assert error.name == name


UNDRAWABLE = Figure()
UNDRAWABLE.text(0.5, 0.5, r"$\frac{1$")


@pytest.mark.parametrize(
    "value",
    [
        *(Path("missing.csv"), Path(), object(), None, b"bytes", [1, 2], "\ud800"),
        *({"a": object()}, {"a": HUGE}, UNDRAWABLE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_artifact_that_cannot_be_written_is_refused(refused_save: Refusal, value: Any) -> None:
    artifacts = {"fine": "text", "extra": value}
    error = refused_save(MODEL, NAME, artifacts=artifacts, own=errors.InvalidArtifactError)
    assert error.name == "extra"


@pytest.mark.parametrize(
    "artifacts",
    [
        {"a": Path(__file__), "a/b": Path(__file__)},
        *({"a.txt/b": "text", "a.txt": "text"}, {"a": "text", "a.txt": "text"}, ["a"], "a"),
    ],
    ids=brief,
)
def test_artifacts_that_exclude_each_other_are_refused(
    refused_save: Refusal, artifacts: Any
) -> None:
    refused_save(MODEL, NAME, artifacts=artifacts, own=errors.InvalidArtifactError)


@pytest.mark.parametrize("bad", [("model", None), ("model_name", "a/b"), ("metadata", [1])])
def test_a_refusal_in_a_new_place_makes_no_folder(
    disk_manager: ModelManager, ml_dir: Path, bad: tuple[str, Any]
) -> None:
    with pytest.raises(errors.LottoMlflowError):
        disk_manager.save_model(**{"model": MODEL} | dict([bad]))
    assert not ml_dir.exists()


def test_a_missing_file_is_not_found_as_specified(ml_dir: Path, refused_load: Refusal) -> None:
    path = ml_dir / "trained" / "none.pkl"
    error = refused_load(path, own=errors.ModelNotFoundError)
    assert str(error) == f"Model file not found: {path}"


def test_a_folder_is_a_load_error(ml_dir: Path, refused_load: Refusal) -> None:
    refused_load(ml_dir / "trained", own=errors.LoadError)


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800", "x" * 300, "x.pkl/y.pkl"], ids=brief)
def test_a_path_that_cannot_be_is_not_found(path: str, refused_load: Refusal) -> None:
    error = refused_load(path, own=errors.ModelNotFoundError)
    assert str(error) == f"Model file not found: {one_line(path)}"


BROKEN = {
    "empty": b"",
    "text": "정확도는 0.75이다\n".encode(),
    "text that begins as zlib does": b"x-axis: epoch\n",
    "truncated": pickle.dumps({"weights": list(range(1000))})[:-20],
    "missing module": b"cno_such_module\nModel\n.",
    "missing class": b"ccollections\nNoSuchModel\n.",
}


@pytest.mark.parametrize("folder", ["ml/trained", "elsewhere"])
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_file_that_joblib_cannot_read_is_a_load_error_that_names_it(
    tmp_path: Path, refused_load: Refusal, content: bytes, folder: str
) -> None:
    path = tmp_path / folder / "lotto_model_foreign.pkl"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    error = refused_load(path, own=errors.LoadError)
    assert error.path == path
    assert str(path) in str(error)


@pytest.mark.parametrize("metadata", [{"a": 1}, None], ids=["with metadata", "without"])
def test_a_truncated_known_model_mismatches(holder: Any, refused_load: Any, metadata: Any) -> None:
    path = Path(holder.save_model(MODEL, "lotto_model_cut", metadata))
    path.write_bytes(path.read_bytes()[:-5])
    error = refused_load(path, own=errors.DigestMismatchError)
    assert error.path == path
    assert error.expected != error.found


@pytest.mark.parametrize(
    "rest",
    [
        *("", "a", "a/", "a/0", "a/-1", "a/1.5", "a/Production", "a/\u0661", "a@", "@champion"),
        *("a/b/1", "a/b@champion", "a@x/y", "m-0123456789abcdef", f"a/{'9' * 5_000}"),
    ],
    ids=brief,
)
def test_a_models_uri_that_names_no_version_is_refused(refused_load: Refusal, rest: str) -> None:
    error = refused_load(f"models:/{rest}", own=errors.InvalidReferenceError)
    assert error.uri == f"models:/{rest}"


@pytest.mark.parametrize("rest", ["lotto_model/7", "lotto_model@champion", "none/latest"])
def test_a_version_that_is_not_there_is_not_found(refused_load: Refusal, rest: str) -> None:
    refused_load(f"models:/{rest}", own=errors.ModelNotFoundError)


ALLOWED = {"MIRROR": ("sync", "background", "off"), "TIMEZONE": ("IANA", "Asia/Seoul", "UTC")}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("MIRROR", value) for value in ("on", "SYNC", " sync")),
        *(("TIMEZONE", value) for value in ("Mars/Base", "Asia", "../etc", "/etc/localtime")),
    ],
)
def test_an_unknown_setting_is_refused_with_the_allowed_ones(
    ml_dir: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    manager, variable = ModelManager(ml_dir), f"LOTTO_{setting}"
    told = [refusal(ModelManager, ml_dir, own=errors.SettingsError, **{setting.lower(): value})]
    monkeypatch.setenv(variable, value)
    told.append(refusal(ModelManager, ml_dir, own=errors.SettingsError))
    told.append(refusal(manager.save_model, MODEL, NAME, {}, own=errors.SettingsError))
    for error in told:
        assert error.value == value
        assert all(allowed in str(error) for allowed in (variable, *ALLOWED[setting]))


def test_an_unknown_source_is_refused(holder: ModelManager, refusal: Refusal) -> None:
    lookups = (holder.get_latest_model_path, holder.latest, lotto_mlflow.get_latest_model_path)
    for lookup in lookups:
        told = str(refusal(lookup, source="disk", own=errors.SettingsError))
        assert all(allowed in told for allowed in ("'disk'", "filesystem", "registry"))
