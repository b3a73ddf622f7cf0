"""What `restore` takes, what it leaves, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import joblib
import pytest

from lotto_mlflow import ModelManager
from lotto_mlflow.errors import DigestMismatchError, LottoMlflowError, ModelNotFoundError


def stems(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.pkl"))


def test_metadata_that_differs_is_backed_up_even_where_the_model_is_the_same(
    base_dir: Path,
) -> None:
    manager = ModelManager(base_dir)
    manager.save_model({"a": 1}, "x", {"n": 1})
    path = base_dir / "metadata" / "x_metadata.json"
    path.write_text('{"by": "hand"}', encoding="utf-8")
    manager.restore("x", source="registry")
    assert json.loads(path.read_text(encoding="utf-8"))["n"] == 1
    kept = base_dir / "backups" / "x_metadata.json"
    assert json.loads(kept.read_text(encoding="utf-8")) == {"by": "hand"}
    manager.restore("x", source="registry")  # now there is nothing to lose
    assert stems(base_dir / "backups") == ["x"]


def test_a_backup_is_not_taken_for_that_of_a_model_with_a_number_in_its_name(
    base_dir: Path,
) -> None:
    manager = ModelManager(base_dir)
    for number in range(2):
        for name in ("lotto_model_v1", "lotto_model_v1.2"):
            manager.save_model({"name": name, "number": number}, name, {"n": number})
    restored = manager.restore("lotto_model_v1")
    assert manager.load_model(str(restored.path)) == {"name": "lotto_model_v1", "number": 0}
    assert manager.sync().sent == []


def test_the_second_backup_of_a_name_is_no_model_of_its_own(base_dir: Path) -> None:
    manager = ModelManager(base_dir)
    for number in range(3):
        manager.save_model({"number": number}, "x", {"n": number})
    assert stems(base_dir / "backups") == ["x", "x.2"]
    with pytest.raises(ModelNotFoundError, match=r"no backup of 'x\.2'"):
        manager.restore("x.2")
    manager.restore("x", backup="x.2.pkl")
    assert manager.load_model(base_dir / "trained" / "x.pkl") == {"number": 1}


def test_an_old_backup_with_a_number_is_of_the_model_that_is_there(base_dir: Path) -> None:
    for folder, stem in (("trained", "lotto_model_1.2"), ("backups", "lotto_model_1.2")):
        path = base_dir / folder / f"{stem}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        joblib.dump({"in": folder}, path)
        os.utime(path, (1_600_000_000, 1_600_000_000))
    report = ModelManager(base_dir).sync(include_backups=True)
    assert report.sent == ["lotto_model_1.2"] * 2


def test_each_version_of_the_same_bytes_keeps_its_own_time_and_metadata(base_dir: Path) -> None:
    manager = ModelManager(base_dir)
    times = [
        Path(manager.save_model({"a": 1}, "x", {"n": number})).stat().st_mtime_ns
        for number in range(2)
    ]
    for version in (1, 2):
        restored = manager.restore(f"models:/x/{version}", source="registry")
        assert restored.version == version
        assert restored.path is not None
        assert restored.path.stat().st_mtime_ns == times[version - 1]
        assert restored.metadata is not None
        assert restored.metadata["n"] == version - 1
    assert manager.verify() == []


def test_a_version_is_restored_from_the_backup_with_its_bytes(base_dir: Path) -> None:
    manager = ModelManager(base_dir)
    for number in range(3):
        manager.save_model({"number": number}, "lotto_model_x", {"n": number})
    manager.restore(1)
    assert manager.load_model(base_dir / "trained" / "lotto_model_x.pkl") == {"number": 0}
    with pytest.raises(ModelNotFoundError, match="is not in the registry"):
        manager.restore(9)
    manager.save_model({"once": True}, "lotto_model_y", {})
    with pytest.raises(ModelNotFoundError, match=r"has the bytes of models:/lotto_model/4"):
        manager.restore(4)


@pytest.mark.parametrize("looks_alike", [True, False])
def test_a_damaged_file_that_is_replaced_is_put_aside(base_dir: Path, looks_alike: bool) -> None:
    manager = ModelManager(base_dir)
    path = Path(manager.save_model({"a": 1}, "x", {"n": 1}))
    status, content = path.stat(), path.read_bytes()
    path.write_bytes(b"x" * len(content))
    if looks_alike:
        os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    manager.restore("x", source="registry")
    (aside,) = (base_dir / "mlflow" / "aside").glob("x.*.pkl")
    assert aside.read_bytes() == b"x" * len(content)
    assert aside.with_name(f"{aside.stem}_metadata.json").exists()
    assert manager.verify() == []
    with pytest.raises(ModelNotFoundError):
        manager.restore("x")
    manager.save_model({"a": 2}, "x", {"n": 2})
    manager.restore("x")
    assert manager.load_model(path) == {"a": 1}


def test_a_file_that_others_put_there_is_put_aside_by_a_save_too(base_dir: Path) -> None:
    manager = ModelManager(base_dir)
    path = Path(manager.save_model({"a": 1}, "x", {"n": 1}))
    joblib.dump({"evil": 1}, path)
    manager.save_model({"a": 2}, "x", {"n": 2})
    (aside,) = (base_dir / "mlflow" / "aside").glob("x.*.pkl")
    assert joblib.load(aside) == {"evil": 1}
    assert not list((base_dir / "backups").glob("*.pkl"))
    assert manager.verify() == []


@pytest.mark.parametrize("source", ["backups", "registry"])
def test_a_restore_that_finds_nothing_makes_nothing(tmp_path: Path, source: str) -> None:
    with pytest.raises(ModelNotFoundError):
        ModelManager(tmp_path / "ml").restore("x", source=source)  # type: ignore[arg-type]
    assert not (tmp_path / "ml").exists()


def test_a_restore_waits_for_what_is_queued(base_dir: Path) -> None:
    manager = ModelManager(base_dir, mirror="background")
    for number in range(3):
        manager.save_model({"number": number}, f"x{number}", {"n": number})
        assert ModelManager(base_dir).restore(f"x{number}", source="registry").version == 1


def test_names_that_were_meant_are_suggested_wherever_they_are_known(base_dir: Path) -> None:
    manager = ModelManager(base_dir)
    manager.save_model({"a": 1}, "other-model", {})
    for call in (
        lambda: manager.restore("other-modle"),
        lambda: manager.restore("other-modle", source="registry"),
        lambda: manager.restore("models:/other-modle/1", source="registry"),
    ):
        with pytest.raises(ModelNotFoundError, match="other-model"):
            call()


def old_file(base_dir: Path, place: str, value: str, time_s: int) -> Path:
    """Put a file from before the package into a folder."""
    path = base_dir / place
    path.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump({"old": value}, path)
    os.utime(path, (time_s, time_s))
    return path


def test_a_restore_of_an_old_file_can_be_undone_and_leaves_the_others_usable(
    base_dir: Path,
) -> None:
    old_file(base_dir, "trained/x.pkl", "B", 1_600_000_009)
    old_file(base_dir, "backups/x.pkl", "A", 1_600_000_005)
    other = old_file(base_dir, "backups/x.3.pkl", "C", 1_600_000_000)
    manager = ModelManager(base_dir, mirror="off")
    path = manager.restore("x").path
    assert manager.load_model(str(path)) == {"old": "A"}
    assert manager.load_model(base_dir / "backups" / "x.2.pkl") == {"old": "B"}
    assert manager.load_model(other) == {"old": "C"}
    manager.restore("x", backup="x.2")
    assert manager.load_model(str(path)) == {"old": "B"}
    assert "damaged" not in {finding.kind for finding in manager.verify()}


def test_a_restored_old_file_that_was_backed_up_again_is_verified(base_dir: Path) -> None:
    old_file(base_dir, "backups/x.pkl", "A", 1_600_000_000)
    manager = ModelManager(base_dir, mirror="off")
    manager.save_model({"n": 1}, "x", {})
    manager.restore("x", backup="x")
    manager.save_model({"n": 2}, "x", {})
    backup = base_dir / "backups" / "x.3.pkl"
    assert manager.load_model(backup) == {"old": "A"}
    old_file(base_dir, "backups/x.3.pkl", "E", 1_600_000_000)
    for call in (lambda: manager.load_model(backup), lambda: manager.restore("x", backup="x.3")):
        with pytest.raises(DigestMismatchError):
            call()


def test_a_model_restored_from_one_store_is_sent_to_another(
    base_dir: Path, migrated_database: Path, tmp_path: Path
) -> None:
    uris = []
    for name in ("first", "second"):
        (tmp_path / f"{name}.db").write_bytes(migrated_database.read_bytes())
        uris.append(f"sqlite:///{tmp_path / f'{name}.db'}")
    ModelManager(base_dir, tracking_uri=uris[0]).save_model({"a": 1}, "x", {"n": 1})
    reader = ModelManager(tmp_path / "other", tracking_uri=uris[0])
    restored = reader.restore("x", source="registry")
    assert (restored.version, restored.run_id is not None) == (1, True)
    assert reader.sync().sent == []
    elsewhere = ModelManager(tmp_path / "other", tracking_uri=uris[1])
    assert [finding.kind for finding in elsewhere.verify()] == ["missing in MLflow"]
    assert elsewhere.sync().sent == ["x"]


def test_a_version_is_restored_by_its_own_save_where_several_have_its_bytes(
    base_dir: Path,
) -> None:
    manager = ModelManager(base_dir)
    for number in range(2):
        manager.save_model({"same": 1}, "x", {"n": number})
    manager.save_model({"other": 1}, "x", {"n": 2})
    for version in (1, 2):
        restored = manager.restore(f"models:/x/{version}")
        assert (restored.version, (restored.metadata or {})["n"]) == (version, version - 1)


def test_a_version_that_another_folder_saved_keeps_its_own_time_and_number(
    base_dir: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"
    mine = ModelManager(base_dir)
    mine.save_model({"same": 1}, "m", {"n": 1})
    other = ModelManager(tmp_path / "other", tracking_uri=uri)
    theirs = Path(other.save_model({"same": 1}, "m", {"n": 2})).stat().st_mtime_ns
    restored = mine.restore("models:/m/2", source="registry")
    assert (restored.version, (restored.metadata or {})["n"]) == (2, 2)
    assert restored.path is not None
    assert restored.path.stat().st_mtime_ns == theirs
    assert mine.verify() == []


def test_a_clean_up_that_the_disk_refuses_fails_nothing(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = ModelManager(base_dir, mirror="off")
    manager.save_model({"n": 1}, "x", {"n": 1})
    really = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name in ("tmp", "trained") or path.parent.parent.name == "tmp":
            raise OSError(5, "Input/output error")
        really(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    path = manager.save_model({"n": 2}, "x", {"n": 2})
    manager.restore("x")
    monkeypatch.undo()
    assert manager.load_model(path) == {"n": 1}
    manager.save_model({"n": 3}, "y", {"n": 3})
    assert not list((base_dir / "mlflow" / "tmp").iterdir())


@pytest.mark.parametrize("reference", [None, 1.5, b"x", ["x"]])
def test_what_names_no_model_is_refused_with_an_error_of_ours(
    base_dir: Path, reference: object
) -> None:
    manager = ModelManager(base_dir)
    for call in (manager.get, manager.restore):
        with pytest.raises(LottoMlflowError):
            call(reference)  # type: ignore[arg-type]
    with pytest.raises(LottoMlflowError):
        manager.restore("x", backup=3)  # type: ignore[arg-type]
    for odd in ("a\0b.pkl", "a\0b", "x" * 5_000, "a/b", ""):
        with pytest.raises(ModelNotFoundError):
            manager.get(odd)
