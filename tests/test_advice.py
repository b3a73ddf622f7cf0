"""Advice of errors and findings: what it names can be done, and does what it says."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lotto_mlflow import Finding, ModelManager
from lotto_mlflow.cli import app
from lotto_mlflow.errors import (
    DigestMismatchError,
    LottoMlflowError,
    ModelNotFoundError,
    SettingsError,
)

CODE = """
import logging
import sys

if sys.argv[2] == "logs":
    logging.basicConfig(level=logging.INFO)
from lotto_mlflow import ModelManager

manager = ModelManager(sys.argv[1])
manager.save_model({"a": 1}, "x", {"n": 1})
assert manager.flush(120)
levels = [logging.getLogger(name).level for name in ("mlflow", "mlflow.store.db.utils")]
filters = logging.getLogger("mlflow.store.db.utils").filters
print(levels, filters)
"""


def damage(path: Path) -> bytes:
    """Change a byte, and neither size nor time; return what was there."""
    content, status = path.read_bytes(), path.stat()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return content


@pytest.fixture
def damaged(base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ModelManager, bytes]:
    """A save that no tracking store has, and whose file is damaged."""
    with monkeypatch.context() as without:
        without.setenv("LOTTO_MIRROR", "off")
        path = ModelManager(base_dir).save_model({"a": 1}, "x", {"n": 1})
    return ModelManager(base_dir), damage(Path(path))


def asked_to_send(findings: list[Finding]) -> Iterator[Finding]:
    return (one for one in findings if one.fix is not None and one.fix.verb == "sync")


def copy_asked_for(findings: list[Finding]) -> Path:
    (path,) = {
        found[1] for one in findings if (found := re.search(r"put at (\S+\.pkl)", one.repair))
    }
    return Path(path)


def test_no_sync_is_advised_for_a_save_whose_bytes_are_gone(
    damaged: tuple[ModelManager, bytes],
) -> None:
    manager, content = damaged
    for _ in range(2):  # what waits, and then what is set aside
        findings = manager.verify()
        assert {one.kind for one in findings} >= {"damaged", "missing on disk"}
        assert not list(asked_to_send(findings))
        path = copy_asked_for(findings)
        assert not os.path.lexists(path)  # nothing is lost by what is advised
        manager.sync()
        with pytest.raises(LottoMlflowError):
            manager.promote("x")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    assert manager.sync(retry_aside=True).sent == ["x"]
    assert not list(asked_to_send(manager.verify()))


def test_a_save_whose_bytes_are_gone_everywhere_is_not_to_be_sent_again(base_dir: Path) -> None:
    manager = ModelManager(base_dir)
    damage(Path(manager.save_model({"a": 1}, "x", {"n": 1})))
    record = manager.get("x")
    assert list(asked_to_send(manager.verify())) == []
    (pushed,) = (base_dir / "mlflow" / "artifacts").rglob("model.pkl")
    pushed.unlink()
    assert record.version == 1
    assert not list(asked_to_send(manager.verify()))


def test_no_restore_from_a_registry_is_advised_that_never_had_the_model(
    damaged: tuple[ModelManager, bytes], base_dir: Path
) -> None:
    manager, _ = damaged
    path = base_dir / "trained" / "x.pkl"
    with pytest.raises(DigestMismatchError) as caught:
        manager.load_model(path)
    assert caught.value.fix is None
    assert "a copy from elsewhere" in str(caught.value)
    with pytest.raises(ModelNotFoundError, match="no backup of 'x'") as lacking:
        manager.restore("x")
    assert lacking.value.fix is None
    manager.sync()  # the record is set aside
    os.utime(path)
    report = manager.sync()
    assert report.fixes == {}
    assert "a copy from elsewhere" in report.failed["x"]


def test_a_damaged_model_of_another_store_is_not_to_be_pushed(
    damaged: tuple[ModelManager, bytes], base_dir: Path, tmp_path: Path
) -> None:
    other = ModelManager(base_dir, tracking_uri=f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(ModelNotFoundError, match="damaged") as caught:
        other.promote("x")
    assert caught.value.fix is None
    assert str(caught.value).endswith("nothing was moved")


def test_changed_metadata_of_a_save_that_waits_are_brought_back_as_is_said(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOTTO_MIRROR", "off")
    ModelManager(base_dir).save_model({"a": 1}, "x", {"n": 1})
    monkeypatch.delenv("LOTTO_MIRROR")
    path = base_dir / "metadata" / "x_metadata.json"
    saved = path.read_bytes()
    path.write_text("{}", encoding="utf-8")
    manager = ModelManager(base_dir)
    for _ in range(2):
        for one in manager.verify():
            if one.fix is not None:
                getattr(manager, one.fix.verb)(**one.fix.arguments)
    assert path.read_bytes() == saved
    assert all(one.path.parent.name == "backups" for one in manager.verify())  # what it replaced


@pytest.mark.parametrize("source", ["backups", "registry"])
@pytest.mark.parametrize("force", [False, True])
def test_a_restore_of_a_deleted_model_says_when_and_why_it_went(
    base_dir: Path, source: str, force: bool
) -> None:
    manager = ModelManager(base_dir)
    for name in ("x", "y"):
        manager.save_model({"a": name}, name, {"n": 1})
    if force:
        manager.promote("x")
    manager.delete("x", reason="나쁨", force=force)
    for reference in ("x", "models:/x/1"):
        with pytest.raises(ModelNotFoundError, match=r"was deleted on .*: 나쁨") as caught:
            manager.restore(reference, source=source)
        assert caught.value.why == "나쁨"
        assert caught.value.fix is None
    done = CliRunner().invoke(
        app, ["restore", "x", "--source", source, "--base-dir", str(base_dir)]
    )
    assert (done.exit_code, done.stdout) == (1, "")
    assert "was deleted on" in done.stderr


def test_a_backup_of_a_name_whose_newest_save_was_deleted_is_restored(base_dir: Path) -> None:
    manager = ModelManager(base_dir)
    for number in range(2):
        manager.save_model({"n": number}, "x", {"n": number})
    manager.delete("x")
    manager.restore("x")
    assert manager.load_model("models:/x/1") == {"n": 0}
    assert manager.load_model(base_dir / "trained" / "x.pkl") == {"n": 0}


def test_no_deleted_model_is_suggested(base_dir: Path) -> None:
    manager = ModelManager(base_dir)
    for name in ("lotto_model_a", "lotto_model_b"):
        manager.save_model({"a": name}, name, {"n": 1})
    manager.delete("lotto_model_a")
    for source in ("backups", "registry"):
        with pytest.raises(ModelNotFoundError) as caught:
            manager.restore("lotto_model_aa", source=source)
        assert caught.value.suggestions == ("lotto_model_b",)
    with pytest.raises(ModelNotFoundError) as of_get:
        manager.get("lotto_model_aa")
    assert of_get.value.suggestions == ("lotto_model_b",)
    (base_dir / "trained" / "lotto_model_b.pkl").unlink()
    with pytest.raises(ModelNotFoundError) as of_mirrored:  # which the registry still has
        manager.restore("lotto_model_aa", source="registry")
    assert of_mirrored.value.suggestions == ("lotto_model_b",)


def test_a_backup_is_not_named_for_the_registry(base_dir: Path) -> None:
    manager = ModelManager(base_dir)
    for number in range(2):
        manager.save_model({"n": number}, "x", {"n": number})
    content = (base_dir / "trained" / "x.pkl").read_bytes()
    with pytest.raises(SettingsError, match="the registry has no backups"):
        manager.restore("x", source="registry", backup="x.pkl")
    arguments = ["restore", "x", "--source", "registry", "--backup", "x.pkl"]
    done = CliRunner().invoke(app, [*arguments, "--base-dir", str(base_dir)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--backup" in done.stderr
    assert (base_dir / "trained" / "x.pkl").read_bytes() == content


@pytest.mark.parametrize("logs", ["logs", "none"])
def test_the_first_save_of_a_folder_prints_nothing_of_the_database(
    tmp_path: Path, logs: str
) -> None:
    command = [sys.executable, "-c", CODE, str(tmp_path / "models"), logs]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "database" not in done.stderr
    assert "alembic" not in done.stderr
    assert "mlflow.store" not in done.stderr
    assert done.stdout.rstrip().endswith("[]")  # no filter stays behind


def test_what_other_threads_log_of_a_database_passes(caplog: pytest.LogCaptureFixture) -> None:
    from threading import Thread

    from lotto_mlflow.mirror.database import without_progress_logs

    logger = logging.getLogger("mlflow.store.db.utils")
    with caplog.at_level(logging.INFO, logger.name), without_progress_logs():
        logger.addHandler(caplog.handler)
        try:
            logger.info("own news")
            logger.warning("own warning")
            other = Thread(target=logger.info, args=("news of another thread",))
            other.start()
            other.join()
        finally:
            logger.removeHandler(caplog.handler)
    said = {record.getMessage() for record in caplog.records}
    assert said == {"own warning", "news of another thread"}
    assert logger.filters == []
