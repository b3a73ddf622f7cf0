"""Several users of one folder of models: each is a real one."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from users import FailedError, User, Users

pytestmark = [
    pytest.mark.skipif(
        not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become another user"
    ),
    pytest.mark.xdist_group("users"),
]

GROUP = 42_000
KIM = User(42_001, 42_001, (GROUP,), 0o002)
LEE = User(42_002, 42_002, (GROUP,), 0o002)

SAVE = """
from lotto_mlflow import ModelManager
manager = ModelManager(base_dir)
path = manager.save_model({"n": n}, name, {"n": n}, artifacts={"note.txt": "text"})
answer = [path, manager.flush(60)]
"""
RESTORE = """
from lotto_mlflow import ModelManager
answer = ModelManager(base_dir).restore(name, source=source).sha256
"""
SYNC = """
from lotto_mlflow import ModelManager
report = ModelManager(base_dir).sync(**options)
answer = [report.sent, report.resent, report.failed]
"""
VERIFY = """
from lotto_mlflow import ModelManager
found = ModelManager(base_dir).verify()
answer = [[f.kind, f.name, str(f.path), f.detail, f.repair] for f in found]
"""
LOAD = """
from lotto_mlflow import ModelManager
answer = ModelManager(base_dir).load_model(path)
"""


@pytest.fixture
def shared(place: Path) -> Iterator[Path]:
    """A folder of models that the users of one group share."""
    base_dir = place / "ml"
    base_dir.mkdir()
    os.chown(base_dir, 0, GROUP)
    base_dir.chmod(0o2775)
    yield base_dir
    shutil.rmtree(base_dir)


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What lies in a folder, with what changes where something is written."""
    return {
        str(path.relative_to(folder)): (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        for path in (folder, *folder.rglob("*"))
        for status in [path.lstat()]
    }


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_two_users_of_a_group_save_restore_and_sync_in_turn(users: Users, shared: Path) -> None:
    name = "lotto_model_x"
    for number, user in enumerate((KIM, LEE, KIM, LEE)):
        path, is_pushed = users.work(user, SAVE, base_dir=shared, name=name, n=number)
        assert is_pushed
        assert users.work(user, LOAD, base_dir=shared, path=path) == {"n": number}
    for user in (KIM, LEE):
        for source in ("backups", "registry"):
            users.work(user, RESTORE, base_dir=shared, name=name, source=source)
        assert users.work(user, VERIFY, base_dir=shared) == []
    off = {"LOTTO_MIRROR": "off"}
    users.work(KIM, SAVE, base_dir=shared, name="lotto_model_y", n=9, environment=off)
    sent = users.work(LEE, SYNC, base_dir=shared, options={})
    assert sent == [["lotto_model_y"], [], {}]
    for model in (shared / "mlflow" / "artifacts").rglob("model.pkl"):
        model.unlink()
    sent, resent, failed = users.work(LEE, SYNC, base_dir=shared, options={"resend": True})
    assert (len(resent), failed) == (5, {})
    assert users.work(KIM, VERIFY, base_dir=shared) == []


def test_every_file_has_the_rights_that_the_umask_of_its_maker_leaves(
    users: Users, shared: Path
) -> None:
    """As ``joblib.dump`` would: none has fewer, so that the other user may work with it."""
    for number, user in enumerate((KIM, LEE)):
        users.work(user, SAVE, base_dir=shared, name="x", n=number)
        users.work(user, RESTORE, base_dir=shared, name="x", source="registry")
    wrong = {
        str(path.relative_to(shared)): oct(status.st_mode)
        for path in shared.rglob("*")
        for status in [path.lstat()]
        if stat.S_IMODE(status.st_mode) != (0o2775 if path.is_dir() else 0o664)
        or status.st_gid != GROUP
    }
    assert wrong == {}


@pytest.mark.parametrize("user", [KIM, LEE])
def test_what_a_killed_user_left_is_finished_by_another(
    users: Users, shared: Path, user: User
) -> None:
    users.work(KIM, SAVE, base_dir=shared, name="x", n=1)
    killed = """
import os
from lotto_mlflow import ModelManager
from lotto_mlflow.store import commit
commit.Protocol._put_metadata = lambda *_: os.kill(os.getpid(), 9)
ModelManager(base_dir, mirror="off").save_model({"n": 2}, "x", {"n": 2})
"""
    with pytest.raises(FailedError, match="died"):
        users.work(KIM, killed, base_dir=shared)
    assert list((shared / "mlflow" / "outbox").glob("*~pending~*"))
    assert users.work(user, SYNC, base_dir=shared, options={}) == [["x"], [], {}]
    assert not list((shared / "mlflow" / "tmp").iterdir())
    assert users.work(user, VERIFY, base_dir=shared) == []
    path = shared / "trained" / "x.pkl"
    assert users.work(user, LOAD, base_dir=shared, path=path) == {"n": 2}


@pytest.mark.parametrize(
    ("umask", "act"),
    [(0o022, SAVE), (0o077, SAVE), (0o027, RESTORE), (0o022, SYNC), (0o077, SYNC)],
    ids=["022-save", "077-save", "027-restore", "022-sync", "077-sync"],
)
def test_where_the_umask_of_the_first_user_forbids_it_the_error_names_file_and_mode(
    users: Users, shared: Path, umask: int, act: str
) -> None:
    strict = User(KIM.uid, KIM.gid, KIM.groups, umask)
    for number in (1, 2):
        users.work(strict, SAVE, base_dir=shared, name="x", n=number)
    before = bytes_in(shared)
    names: dict[str, Any] = {"name": "x", "n": 3, "source": "backups", "options": {}}
    with pytest.raises(FailedError) as caught:
        users.work(LEE, act, base_dir=shared, **names)
    assert caught.value.kind in ("StoreError", "MirrorUnavailableError")
    message = caught.value.message
    assert "chmod g+" in message
    assert "umask 002" in message or "chmod g+x" in message
    command = message.partition("chmod ")[2].split(";")[0]
    mode, path = command.split()[:2]
    assert Path(path).lstat().st_uid == KIM.uid
    assert "free some room" not in message
    assert bytes_in(shared) == before
    # what the messages ask for, one after the other, is what is needed
    for _ in range(40):
        _granted(mode, Path(path))
        try:
            users.work(LEE, act, base_dir=shared, **names)
            break
        except FailedError as refusal:
            mode, path = refusal.message.partition("chmod ")[2].split(";")[0].split()[:2]
            path = path.strip("'\"")
    else:
        pytest.fail(f"still refused: chmod {mode} {path}")


def _granted(mode: str, path: Path) -> None:
    """Do what a message asks the owner to do."""
    assert mode.startswith("g+"), mode
    bits = {"r": 0o040, "w": 0o020, "x": 0o010}
    wanted = sum(bits[letter] for letter in mode[2:])
    before = stat.S_IMODE(path.stat().st_mode)
    assert before | wanted != before, f"{path} has {oct(before)} already"
    path.chmod(before | wanted)


def _private_record(users: Users, shared: Path, state: str) -> Path:
    """Make a record that only its maker can read, in folders that both may write."""
    users.work(KIM, SAVE, base_dir=shared, name="y", n=0)
    private = User(KIM.uid, KIM.gid, KIM.groups, 0o077)
    off = {"LOTTO_MIRROR": "off"}
    users.work(private, SAVE, base_dir=shared, name="x", n=1, environment=off)
    (record,) = (shared / "mlflow" / "outbox").glob("*~committed~x.json")
    os.chown(shared / "trained" / "x.pkl", KIM.uid, GROUP)
    (shared / "trained" / "x.pkl").chmod(0o664)
    if state != "committed":
        record = record.rename(record.with_name(record.name.replace("committed", state)))
    return record


def test_a_record_that_another_user_may_not_read_is_not_taken_for_damaged(
    users: Users, shared: Path
) -> None:
    record = _private_record(users, shared, "pending")
    content = record.read_bytes()
    for act in (SAVE, SYNC):
        with pytest.raises(FailedError, match=r"chmod g\+r") as caught:
            users.work(LEE, act, base_dir=shared, name="z", n=3, options={})
        assert str(record) in caught.value.message
    assert record.read_bytes() == content
    assert not list((shared / "mlflow" / "aside").iterdir())
    found = users.work(LEE, VERIFY, base_dir=shared)
    (of_record,) = [finding for finding in found if finding[2] == str(record)]
    assert "could not be read" in of_record[3]
    assert "chmod g+r" in of_record[4]
    record.chmod(0o664)
    assert users.work(LEE, SYNC, base_dir=shared, options={}) == [["x"], [], {}]


def test_a_save_whose_record_may_not_be_read_is_not_brought_in_a_second_time(
    users: Users, shared: Path
) -> None:
    record = _private_record(users, shared, "committed")
    sent, resent, failed = users.work(LEE, SYNC, base_dir=shared, options={})
    assert (sent, resent, list(failed)) == ([], [], ["x"])
    assert str(record) in failed["x"]
    assert "chmod g+r" in failed["x"]
    assert users.work(KIM, SYNC, base_dir=shared, options={}) == [["x"], [], {}]
    users.work(KIM, LOAD, base_dir=shared, path="models:/x/1")
    with pytest.raises(FailedError, match="ModelNotFoundError"):
        users.work(KIM, LOAD, base_dir=shared, path="models:/x/2")


def test_bytes_that_another_user_may_not_read_are_not_taken_for_gone(
    users: Users, shared: Path
) -> None:
    off = {"LOTTO_MIRROR": "off"}
    path, _ = users.work(KIM, SAVE, base_dir=shared, name="x", n=1, environment=off)
    Path(path).chmod(0o600)
    sent, _, failed = users.work(LEE, SYNC, base_dir=shared, options={})
    assert sent == []
    assert f"chmod g+r {path}" in failed["x"]
    assert not list((shared / "mlflow" / "aside").iterdir())
    assert users.work(KIM, SYNC, base_dir=shared, options={}) == [["x"], [], {}]


def test_a_model_that_another_user_may_not_read_is_not_replaced_unless_it_can_be_kept(
    users: Users, shared: Path
) -> None:
    users.work(KIM, SAVE, base_dir=shared, name="y", n=0)
    private = User(KIM.uid, KIM.gid, KIM.groups, 0o077)
    users.work(private, SAVE, base_dir=shared, name="x", n=1)
    path = shared / "trained" / "x.pkl"
    for act in (SAVE, LOAD):
        with pytest.raises(FailedError, match=r"chmod g\+r") as caught:
            users.work(LEE, act, base_dir=shared, name="x", n=2, path=path)
        assert str(shared / "trained" / "x.pkl") in caught.value.message
    assert users.work(KIM, LOAD, base_dir=shared, path=path) == {"n": 1}
    found = users.work(LEE, VERIFY, base_dir=shared)
    assert {finding[0] for finding in found if finding[1] == "x"} <= {
        "damaged",
        "missing on disk",
        "missing in MLflow",
    }
    assert all("restore" not in finding[4] and "sync" not in finding[4] for finding in found)


def test_a_sticky_folder_is_named_where_it_forbids_to_replace_a_file(
    users: Users, shared: Path
) -> None:
    users.work(KIM, SAVE, base_dir=shared, name="x", n=1)
    trained = shared / "trained"
    trained.chmod(0o3775)
    with pytest.raises(FailedError, match=r"chmod -t") as caught:
        users.work(LEE, SAVE, base_dir=shared, name="x", n=2)
    assert str(trained) in caught.value.message
    assert users.work(LEE, LOAD, base_dir=shared, path=trained / "x.pkl") == {"n": 1}
    trained.chmod(0o2775)
    users.work(LEE, SAVE, base_dir=shared, name="x", n=2)
    assert users.work(KIM, LOAD, base_dir=shared, path=trained / "x.pkl") == {"n": 2}


def test_a_user_of_no_common_group_is_told_of_the_group(users: Users, shared: Path) -> None:
    users.work(KIM, SAVE, base_dir=shared, name="x", n=1)
    stranger = User(42_003, 42_003)
    with pytest.raises(FailedError, match="chgrp GROUP") as caught:
        users.work(stranger, SAVE, base_dir=shared, name="x", n=2)
    assert caught.value.kind == "StoreError"
