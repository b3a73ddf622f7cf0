"""A name in decomposed Korean, as macOS gives it, and the composed one are one name."""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from pathlib import Path

import joblib
import pytest

from lotto_mlflow import ModelManager, get_latest_model_path, load_model, model_utils
from lotto_mlflow.cli import main
from lotto_mlflow.errors import InvalidNameError, ModelNotFoundError

COMPOSED = unicodedata.normalize("NFC", "lotto_model_한글 é")
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)
OWN, OWN_DECOMPOSED = (unicodedata.normalize(form, "로또모델") for form in ("NFC", "NFD"))
FORMS = pytest.mark.parametrize("form", ["NFC", "NFD"])

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="there the two are one file")


def _names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@FORMS
def test_a_name_is_saved_composed_and_found_in_either_form(
    manager: ModelManager, base_dir: Path, form: str
) -> None:
    name = unicodedata.normalize(form, COMPOSED)
    path = manager.save_model({"n": 1}, name, {"n": 1})
    assert path == str(base_dir / "trained" / f"{COMPOSED}.pkl")
    other = DECOMPOSED if form == "NFC" else COMPOSED
    assert manager.save_model({"n": 2}, other, {"n": 2}) == path
    assert _names(base_dir / "trained") == [f"{COMPOSED}.pkl"]
    assert _names(base_dir / "backups") == sorted([f"{COMPOSED}.pkl", f"{COMPOSED}_metadata.json"])
    for either in (COMPOSED, DECOMPOSED):
        assert [record.name for record in manager.records(either)] == [COMPOSED]
        assert manager.get(either).version == 2
        in_trained = base_dir / "trained" / f"{either}.pkl"
        assert manager.get(in_trained).version == 2
        assert manager.load_model(in_trained) == {"n": 2}
        assert manager.load_model(base_dir / "backups" / f"{either}.pkl") == {"n": 1}
    for number, either in ((1, DECOMPOSED), (2, COMPOSED)):
        manager.restore(either, backup=f"{either}.pkl" if number == 1 else None)
        assert manager.load_model(path) == {"n": number}
        manager.restore(either, source="registry")
        assert manager.load_model(path) == {"n": 2}
    assert manager.verify() == []


@FORMS
def test_a_registered_model_is_found_in_either_form(manager: ModelManager, form: str) -> None:
    manager.save_model({"n": 1}, unicodedata.normalize(form, OWN), {"n": 1})
    for either in (OWN, OWN_DECOMPOSED):
        for uri in (f"models:/{either}/1", f"models:/{either}/latest"):
            assert manager.load_model(uri) == {"n": 1}
            assert manager.get(uri).registered_model == OWN
    assert manager.latest() is None


def _brought_from_a_mac(folder: Path) -> None:
    """Give every file the name that a copy from macOS has."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))


def test_an_old_folder_from_a_mac_is_found_and_brought_in(
    base_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("trained", "metadata", "backups"):
        (base_dir / folder).mkdir()
    path = base_dir / "trained" / f"{DECOMPOSED}.pkl"
    joblib.dump({"n": 1}, path)
    backup = base_dir / "backups" / f"{DECOMPOSED}.pkl"
    joblib.dump({"n": 0}, backup)
    os.utime(backup, ns=(10**18, 10**18))
    metadata = {"n": 1, "saved_at": "2025-11-03T00:00:00+09:00"}
    (base_dir / "metadata" / f"{DECOMPOSED}_metadata.json").write_text(json.dumps(metadata))
    manager = ModelManager(base_dir)
    assert manager.get_latest_model_path() == str(path)
    for name in (COMPOSED, DECOMPOSED):
        assert manager.load_model(base_dir / "trained" / f"{name}.pkl") == {"n": 1}
        assert manager.get(name).metadata == metadata
    assert manager.sync(include_backups=True).backfilled == [COMPOSED, COMPOSED]
    assert manager.sync().sent == []
    assert manager.get(COMPOSED).version is not None
    assert manager.verify() == []
    for name in (COMPOSED, DECOMPOSED):
        monkeypatch.setattr(
            sys, "argv", ["lotto-mlflow", "show", name, "--base-dir", str(base_dir)]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        assert COMPOSED in unicodedata.normalize("NFC", capsys.readouterr().out)
    manager.save_model({"n": 2}, COMPOSED, {"n": 2})
    assert len(_names(base_dir / "trained")) == len(_names(base_dir / "metadata")) == 1
    assert manager.load_model(path) == {"n": 2}
    assert len([file for file in _names(base_dir / "backups") if file.endswith(".pkl")]) == 2
    manager.restore(DECOMPOSED)
    assert manager.load_model(path) == {"n": 1}
    assert manager.verify() == []
    assert manager.sync().sent == []


@pytest.mark.parametrize("name", [COMPOSED, OWN], ids=["of lotto_model", "of its own"])
def test_a_whole_folder_that_was_brought_from_a_mac_goes_on(base_dir: Path, name: str) -> None:
    """Records, backups and what waits to be pushed, too."""
    manager = ModelManager(base_dir)
    for number in (1, 2):
        manager.save_model({"n": number}, name, {"n": number})
    ModelManager(base_dir, mirror="off").save_model({"n": 3}, name, {"n": 3})
    moved = base_dir.with_name("moved")
    shutil.copytree(base_dir, moved)
    shutil.rmtree(base_dir)
    shutil.copytree(moved, base_dir)
    for folder in ("trained", "metadata", "backups", "mlflow/outbox", "mlflow/sent"):
        _brought_from_a_mac(base_dir / folder)
    manager = ModelManager(base_dir)
    assert [record.name for record in manager.records()] == [name]
    (waiting,) = manager.verify()
    assert (waiting.kind, waiting.name) == ("missing in MLflow", name)
    assert manager.sync().sent == [name]
    assert manager.verify() == []
    manager.save_model({"n": 4}, unicodedata.normalize("NFD", name), {"n": 4})
    assert manager.get(name).version == 4
    assert len(_names(base_dir / "trained")) == 1
    manager.restore(name)
    assert manager.load_model(base_dir / "trained" / f"{name}.pkl") == {"n": 3}
    assert manager.verify() == []


def test_records_of_names_as_an_earlier_release_took_them_are_those_of_the_name(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wrote decomposed names to records, files and MLflow."""
    with monkeypatch.context() as earlier:
        _take_names_as_they_come(earlier)
        manager = ModelManager(base_dir)
        manager.save_model({"n": 1}, OWN_DECOMPOSED, {"n": 1})
        assert _names(base_dir / "trained") == [f"{OWN_DECOMPOSED}.pkl"]
    manager = ModelManager(base_dir)
    for name in (OWN, OWN_DECOMPOSED):
        assert manager.get(name).version == 1
        assert manager.load_model(f"models:/{name}/1") == {"n": 1}
        assert manager.load_model(f"models:/{name}/latest") == {"n": 1}
        assert manager.restore(name, source="registry").name == OWN
    assert manager.verify() == []
    assert manager.sync(resend=True).resent == []


def _take_names_as_they_come(earlier: pytest.MonkeyPatch) -> None:
    from lotto_mlflow import (
        entries,
        history,
        journal,
        layout,
        model_file,
        references,
        regular,
        store,
        text,
    )
    from lotto_mlflow.operations import restore, verify

    modules = (entries, history, journal, layout, model_file, references, regular, store, text)
    for module in (*modules, restore, verify):
        earlier.setattr(module, "composed", lambda name: name)


def test_two_files_of_one_name_are_told_of_and_none_is_lost(base_dir: Path) -> None:
    manager = ModelManager(base_dir)
    manager.save_model({"n": 1}, COMPOSED, {"n": 1})
    other = base_dir / "trained" / f"{DECOMPOSED}.pkl"
    joblib.dump({"n": "other"}, other)
    content = other.read_bytes()
    assert [record.name for record in manager.records()] == [COMPOSED]
    assert manager.sync().sent == []
    (finding,) = manager.verify()
    assert (finding.kind, finding.path) == ("same name", other)
    manager.save_model({"n": 2}, DECOMPOSED, {"n": 2})
    assert other.read_bytes() == content
    assert manager.load_model(base_dir / "trained" / f"{COMPOSED}.pkl") == {"n": 2}
    assert finding.fix is not None
    command, source, target = map(str, finding.fix.arguments["command"])
    assert command == "mv"
    assert not os.path.lexists(target)
    Path(source).rename(target)
    assert manager.sync().backfilled == [f"{COMPOSED}_2"]
    assert manager.load_model(target) == {"n": "other"}
    assert {finding.kind for finding in manager.verify()} == {"late on top"}


def test_folders_above_are_found_in_either_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_dir = tmp_path / DECOMPOSED / "ml"
    path = Path(ModelManager(base_dir, mirror="off").save_model({"n": 1}, "x", {}))
    assert path.exists()
    composed = tmp_path / COMPOSED / "ml"
    assert ModelManager(composed, mirror="off").load_model(composed / "trained" / "x.pkl") == {
        "n": 1
    }
    assert [r.name for r in ModelManager(composed, mirror="off").records()] == ["x"]
    assert _names(tmp_path) == sorted(["current", DECOMPOSED])
    for name in ("_APP_DIR", "MODEL_BASE_DIR"):
        monkeypatch.setattr(model_utils, name, composed)
    joblib.dump({"n": 2}, base_dir / "trained" / f"{DECOMPOSED}.pkl")
    assert get_latest_model_path() == str(base_dir / "trained" / f"{DECOMPOSED}.pkl")
    assert load_model(str(composed / "trained" / f"{COMPOSED}.pkl")) == {"n": 2}


def test_other_names_are_other_names(disk_manager: ModelManager) -> None:
    """Compatibility forms, such as wide letters, are not composed ones."""
    disk_manager.save_model({"n": 1}, "\N{FULLWIDTH LATIN SMALL LETTER L}otto", {})
    with pytest.raises(ModelNotFoundError):
        disk_manager.get("lotto")
    with pytest.raises(InvalidNameError):
        disk_manager.save_model({"n": 1}, "한" * 67, {})
    decomposed = unicodedata.normalize("NFD", "한" * 66)
    assert disk_manager.save_model({"n": 1}, decomposed, {}).endswith(f"{'한' * 66}.pkl")
