"""Only regular files in real folders are believed: links, pipes and the like harm nothing."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pytest

from lotto_mlflow import ModelManager, journal, metadata, pyfunc_loader
from lotto_mlflow.errors import InvalidMetadataError, LoadError, LottoMlflowError, StoreError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")
PATIENCE_SECONDS = 120.0
DIGEST = "0" * 64
RECORD = "1700000000000000000-01234567"


def _link(path: Path, victim_dir: Path) -> None:
    path.symlink_to(victim_dir / "file")


def _link_to_nothing(path: Path, victim_dir: Path) -> None:
    path.symlink_to(victim_dir / "nothing")


def _link_in_a_circle(path: Path, victim_dir: Path) -> None:
    path.symlink_to(path.name)


def _link_to_a_folder(path: Path, victim_dir: Path) -> None:
    path.symlink_to(victim_dir, target_is_directory=True)


def _pipe(path: Path, victim_dir: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path, victim_dir: Path) -> None:
    (path / "inside").mkdir(parents=True)


def _socket(path: Path, victim_dir: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _endless_device(path: Path, victim_dir: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:  # only root may, and not in every container
        path.symlink_to("/dev/zero")


KINDS: list[Callable[[Path, Path], None]] = [
    _link,
    _link_to_nothing,
    _link_in_a_circle,
    _link_to_a_folder,
    _endless_device,
    _pipe,
    _folder,
    _socket,
]
BESIDE = [
    "trained/lotto_model_odd.pkl",
    "metadata/lotto_model_odd_metadata.json",
    "backups/x.2.pkl",
    "backups/odd_metadata.json",
    "mlflow/tmp/0123456789ab",
    "mlflow/tmp/0123456789ab.lock",
    f"mlflow/outbox/{RECORD}~pending~x.json",
    f"mlflow/outbox/{RECORD[:-1]}8~committed~x.json",
    f"mlflow/outbox/{RECORD[:-1]}8",
    f"mlflow/sent/{RECORD[:-1]}9~sent~x.json",
    f"mlflow/aside/{RECORD[:-1]}a~aside~x.json",
    f"mlflow/downloads/{DIGEST}/x.pkl",
    "mlflow/artifacts/lotto_model/models/m-0/artifacts/MLmodel",
    "mlflow/artifacts/lotto_model/models/m-0/artifacts/data/model.pkl",
]
"""Names beside what is intact, all taken at once."""
INSTEAD_OF_A_FILE = [
    "trained/x.pkl",
    "metadata/x_metadata.json",
    "backups/x.pkl",
    "backups/x_metadata.json",
    "mlflow/format.json",
    "mlflow/clock",
    "mlflow/store.lock",
    "mlflow/push.lock",
    "mlflow/sync.lock",
    "mlflow/database.lock",
    "mlflow/mlflow.db",
]
INSTEAD_OF_A_FOLDER = [
    "mlflow/tmp",
    "mlflow/outbox",
    "mlflow/sent",
    "mlflow/aside",
    "mlflow/downloads",
    f"mlflow/downloads/{DIGEST}",
]
"""Names of what the product needs, each taken alone."""


@pytest.fixture
def victim_dir(tmp_path: Path) -> Path:
    """A folder of somebody else, with a model that nobody is to load."""
    folder = tmp_path / "victim"
    folder.mkdir()
    joblib.dump({"evil": True}, folder / "file")
    (folder / "file.lock").touch()
    (folder / "inside").mkdir()
    (folder / "inside" / "x.pkl").write_bytes(b"precious")
    os.utime(folder / "file", ns=(10**18, 10**18))
    return folder


def contents(folder: Path) -> dict[str, tuple[Any, ...]]:
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


def within_patience(call: Callable[[], Any]) -> Any:
    """Return what a call returns or the error of ours that it raises; fail where it hangs."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as cause:  # noqa: BLE001 - looked at below
            outcome.append(cause)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert outcome, f"{call} hangs"
    if isinstance(outcome[0], BaseException) and not isinstance(outcome[0], LottoMlflowError):
        raise AssertionError(f"{call} raised another's error") from outcome[0]
    return outcome[0]


def within_patience_raising(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or raise what it raises; fail where it hangs."""
    caught: list[BaseException] = []

    def run() -> Any:
        try:
            return call()
        except BaseException as cause:  # noqa: BLE001 - raised again below
            caught.append(cause)

    found = within_patience(run)
    if caught:
        raise caught[0]
    return found


def verbs(manager: ModelManager, base_dir: Path) -> dict[str, Callable[[], Any]]:
    trained, backups = base_dir / "trained", base_dir / "backups"
    return {
        "load": lambda: manager.load_model(trained / "x.pkl"),
        "load odd": lambda: manager.load_model(trained / "lotto_model_odd.pkl"),
        "load backup": lambda: manager.load_model(backups / "x.pkl"),
        "load backup 2": lambda: manager.load_model(backups / "x.2.pkl"),
        "load download": lambda: manager.load_model(
            base_dir / "mlflow" / "downloads" / DIGEST / "x.pkl"
        ),
        "load artifact": lambda: manager.load_model(
            base_dir / "mlflow/artifacts/lotto_model/models/m-0/artifacts/data/model.pkl"
        ),
        "load version": lambda: manager.load_model("models:/x/1"),
        "get": lambda: manager.get("x"),
        "get odd": lambda: manager.get("lotto_model_odd"),
        "get path": lambda: manager.get(trained / "lotto_model_odd.pkl"),
        "get version": lambda: manager.get("models:/x/1"),
        "records": manager.records,
        "latest": manager.latest,
        "latest path": manager.get_latest_model_path,
        "latest of registry": lambda: manager.latest(source="registry", download=True),
        "verify": manager.verify,
        "flush": lambda: manager.flush(20),
        "sync dry": lambda: manager.sync(dry_run=True),
        "sync": lambda: manager.sync(include_backups=True, resend=True, retry_aside=True),
        "restore": lambda: manager.restore("x"),
        "restore backup": lambda: manager.restore("x", backup="x.2.pkl"),
        "restore odd": lambda: manager.restore("lotto_model_odd"),
        "restore version": lambda: manager.restore("x", source="registry"),
        "save new": lambda: manager.save_model({"n": 3}, "new", {"n": 3}),
        "save": lambda: manager.save_model({"n": 4}, "x", {"n": 4}),
        "save odd": lambda: manager.save_model({"n": 5}, "lotto_model_odd", {"n": 5}),
        "save generated": lambda: manager.save_model({"n": 6}),
        "relocate": manager.relocate,
        "verify again": manager.verify,
    }


def put_in(base_dir: Path, victim_dir: Path, place: str, put: Callable[[Path, Path], None]) -> Path:
    path = base_dir / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    put(path, victim_dir)
    return path


def use(base_dir: Path, victim_dir: Path) -> dict[str, Any]:
    """Use every verb; none hangs, raises another's error, loads evil or touches the victim."""
    before, found = contents(victim_dir), {}
    for name, verb in verbs(ModelManager(base_dir), base_dir).items():
        found[name] = within_patience(verb)
        assert found[name] != {"evil": True}
        assert contents(victim_dir) == before, name
    return found


@pytest.fixture
def saved_dir(base_dir: Path) -> Path:
    """A folder in which a model was saved twice, and mirrored."""
    manager = ModelManager(base_dir)
    for number in (1, 2):
        manager.save_model({"n": number}, "x", {"n": number})
    return base_dir


def id_of(put: Callable[[Path, Path], None]) -> str:
    return put.__name__.strip("_")


@pytest.mark.parametrize("put", KINDS, ids=id_of)
def test_what_is_no_file_beside_models_and_records_is_left_out_and_told_of(
    saved_dir: Path, victim_dir: Path, put: Callable[[Path, Path], None]
) -> None:
    placed = [put_in(saved_dir, victim_dir, place, put) for place in BESIDE]
    found = use(saved_dir, victim_dir)
    assert found["load"] == {"n": 2}
    assert found["load version"] == {"n": 1}
    assert [record.name for record in found["records"]] == ["x"]
    assert found["latest path"] is None
    for verb in ("load odd", "load backup 2", "load download", "load artifact"):
        assert isinstance(found[verb], LoadError | StoreError), verb
        assert str(found[verb]).count("not a file") == 1 or put is _folder
    told = {finding.path: finding for finding in found["verify"]}
    workspaces = {path for path in placed if path.parent.name == "tmp"}
    for path in set(placed) - workspaces - {saved_dir / "mlflow/outbox" / f"{RECORD[:-1]}8"}:
        if put is _folder and path.parts[-3] not in ("ml", "mlflow"):
            continue  # a folder in a folder of downloads or artifacts holds nothing
        assert told[path].kind == "damaged", path
        assert "not a file" in told[path].detail, path
    assert isinstance(found["save odd"], StoreError)
    for verb in ("save", "save new", "save generated"):
        assert Path(found[verb]).is_file()
    assert found["sync"].failed == {}
    aside = saved_dir / "mlflow" / "aside" / f"{RECORD}~aside~x.json"
    assert os.path.lexists(aside)
    assert not (saved_dir / BESIDE[6]).is_symlink()
    assert aside.is_symlink() == placed[0].is_symlink()  # a link was moved, not what it shows


INSTEAD = [
    *((place, put) for place in INSTEAD_OF_A_FILE for put in (_link, _pipe)),
    *((place, put) for place in INSTEAD_OF_A_FOLDER for put in (_link_to_a_folder, _pipe)),
]


@pytest.mark.parametrize(
    ("place", "put"), INSTEAD, ids=[f"{place}-{id_of(put)}" for place, put in INSTEAD]
)
def test_what_is_no_file_in_place_of_one_is_named_and_left_as_it_is(
    saved_dir: Path, victim_dir: Path, place: str, put: Callable[[Path, Path], None]
) -> None:
    path = put_in(saved_dir, victim_dir, place, put)
    mode = path.lstat().st_mode
    found = use(saved_dir, victim_dir)
    told = [finding for finding in found["verify"] if finding.path == path]
    if place != f"mlflow/downloads/{DIGEST}" or put is not _pipe:
        assert told[0].kind == "damaged"
        assert str(found["verify"][0].fix.as_call()).startswith("mv ")
    if put is not _pipe or path.suffix != ".lock":
        assert path.lstat().st_mode == mode
    for problem in found.values():
        if isinstance(problem, StoreError):
            assert str(path) in str(problem)
            assert "Move it away" in str(problem)


def test_the_folders_that_an_operator_may_link_are_used(base_dir: Path, tmp_path: Path) -> None:
    for name in ("trained", "metadata", "backups", "mlflow/artifacts"):
        (tmp_path / "elsewhere" / name).mkdir(parents=True)
        (base_dir / name).symlink_to(tmp_path / "elsewhere" / name)
    (base_dir / "mlflow").rename(tmp_path / "elsewhere" / "own")
    (base_dir / "mlflow").symlink_to(tmp_path / "elsewhere" / "own")
    manager = ModelManager(base_dir)
    for number in (1, 2):
        path = manager.save_model({"n": number}, "x", {"n": number})
    assert manager.restore("x").path == Path(path)
    assert manager.load_model(path) == manager.load_model("models:/x/1") == {"n": 1}
    assert manager.verify() == []


@pytest.mark.parametrize("put", [_link, _pipe, _socket], ids=id_of)
@pytest.mark.parametrize("name", ["trained", "metadata", "backups"])
def test_what_is_no_folder_in_place_of_one_is_an_error_of_ours(
    saved_dir: Path, victim_dir: Path, name: str, put: Callable[[Path, Path], None]
) -> None:
    put_in(saved_dir, victim_dir, name, put)
    if name != "trained":
        joblib.dump({"evil": True}, saved_dir / "trained" / "x.pkl")
    found = use(saved_dir, victim_dir)
    assert isinstance(found["save"], StoreError)
    assert "damaged" in {finding.kind for finding in found["verify"]}


@pytest.mark.parametrize("put", [_link, _pipe, _folder], ids=id_of)
@pytest.mark.parametrize("name", ["MLmodel", "data/model.pkl", "requirements.txt", "code"])
def test_what_is_no_file_in_a_mirrored_model_is_told_of_and_never_run(
    saved_dir: Path, victim_dir: Path, name: str, put: Callable[[Path, Path], None]
) -> None:
    version = ModelManager(saved_dir).get("models:/x/1")
    (model_dir,) = (saved_dir / "mlflow" / "artifacts").rglob(str(version.model_id))
    put_in(saved_dir, victim_dir, str((model_dir / "artifacts" / name).relative_to(saved_dir)), put)
    (saved_dir / "backups" / "x.pkl").unlink()
    loaded = within_patience(lambda: ModelManager(saved_dir).load_model("models:/x/1"))
    assert (loaded == {"n": 1}) == (name != "data/model.pkl")
    if name in ("MLmodel", "data/model.pkl"):
        pyfunc_path = model_dir / "artifacts" / "data" / "model.pkl"
        with pytest.raises(OSError, match=r"not a file|No such file"):
            within_patience_raising(lambda: pyfunc_loader.load(pyfunc_path))
    found = use(saved_dir, victim_dir)
    assert "damaged" in {finding.kind for finding in found["verify"]} or put is _folder


HOSTILE_NAMES = [
    "...lock",
    "..lock",
    "..0123456789ab.lock",
    "*.lock",
    "[a-z]*.lock",
    "?????.lock",
    "outbox.lock",
    "0123456789AB.lock",
    "0123456789abc.lock",
    "0123456789ab.lock.lock",
    "0123456789ab\n.lock",
    "~.lock",
]


def test_no_name_of_a_lock_removes_what_is_no_workspace(saved_dir: Path) -> None:
    tmp_dir, trained = saved_dir / "mlflow" / "tmp", saved_dir / "trained"
    for name in HOSTILE_NAMES:
        (tmp_dir / name).touch()
    kept = [".*.1.tmp", "...1.tmp", ".0123456789ab.1.tmp", f".0123456789ab.{'g' * 32}.tmp", ".tmp"]
    for name in kept:
        (trained / name).touch()
    (tmp_dir / "0123456789ab.lock").touch()
    (trained / f".0123456789ab.{'f' * 32}.tmp").touch()
    (saved_dir / "mlflow" / f".mlflow.db.{'0' * 32}.new").touch()
    (saved_dir / "mlflow" / ".mlflow.db.precious.newer").touch()
    before = contents(saved_dir)
    ModelManager(saved_dir).save_model({"n": 3}, "new", {"n": 3})
    after = contents(saved_dir)
    gone = {name for name in before if name not in after}
    assert gone == {"mlflow/tmp/0123456789ab.lock", f"trained/.0123456789ab.{'f' * 32}.tmp"}
    assert {name for name in HOSTILE_NAMES if not (tmp_dir / name).exists()} == set()
    assert ModelManager(saved_dir).load_model("models:/x/1") == {"n": 1}


def test_a_link_with_the_name_of_a_workspace_goes_alone(saved_dir: Path, victim_dir: Path) -> None:
    tmp_dir, before = saved_dir / "mlflow" / "tmp", contents(victim_dir)
    (tmp_dir / "0123456789ab").symlink_to(victim_dir)
    (tmp_dir / "0123456789ab.lock").touch()
    (tmp_dir / "0123456789ac.lock").symlink_to(victim_dir / "file.lock")
    (tmp_dir / "0123456789ac").mkdir()
    ModelManager(saved_dir).save_model({"n": 3}, "new", {"n": 3})
    assert not (tmp_dir / "0123456789ab").is_symlink()
    assert (tmp_dir / "0123456789ac").is_dir()  # nobody knows whose it is
    assert contents(victim_dir) == before


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text("a password")
    return path


def _artifacts_in_mlflow(base_dir: Path) -> dict[str, bytes]:
    (run_id,) = {str(record.run_id) for record in ModelManager(base_dir).records()}
    folder = base_dir / "mlflow" / "artifacts" / "lotto_model" / run_id / "artifacts"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_only_files_among_the_artifacts_of_a_record_are_sent(
    base_dir: Path, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ModelManager(base_dir, mirror="off").save_model(
        {"n": 1}, "x", {"n": 1}, artifacts={"a/plot.txt": "mine", "note.txt": "mine too"}
    )
    (waiting,) = (path for path in (base_dir / "mlflow" / "outbox").iterdir() if path.is_dir())
    (waiting / "link.txt").symlink_to(secret)
    (waiting / "folder").symlink_to(secret.parent)
    os.mkfifo(waiting / "a" / "pipe")
    (waiting / "a" / "nothing").symlink_to("nowhere")
    manager = ModelManager(base_dir)
    assert within_patience(manager.sync).sent == ["x"]
    assert _artifacts_in_mlflow(base_dir).keys() == {"a/plot.txt", "note.txt", "x_metadata.json"}
    assert "link.txt is no file of the save, and is not sent" in caplog.text
    assert secret.read_text() == "a password"
    assert not waiting.exists()
    assert manager.verify() == []


def test_a_folder_of_artifacts_that_is_a_link_is_not_sent(base_dir: Path, secret: Path) -> None:
    ModelManager(base_dir, mirror="off").save_model(
        {"n": 1}, "x", {"n": 1}, artifacts={"plot.txt": "mine"}
    )
    (waiting,) = (path for path in (base_dir / "mlflow" / "outbox").iterdir() if path.is_dir())
    shutil.rmtree(waiting)
    waiting.symlink_to(secret.parent)
    assert within_patience(ModelManager(base_dir).sync).sent == ["x"]
    assert _artifacts_in_mlflow(base_dir).keys() == {"x_metadata.json"}
    assert secret.read_text() == "a password"
    assert not waiting.is_symlink()


def test_artifacts_that_are_sent_again_are_files_of_a_run(
    saved_dir: Path, secret: Path, migrated_database: Path, tmp_path: Path
) -> None:
    run_id = str(ModelManager(saved_dir).get("x").run_id)
    folder = saved_dir / "mlflow" / "artifacts" / "lotto_model" / run_id / "artifacts"
    (folder / "link.txt").symlink_to(secret)
    os.mkfifo(folder / "pipe")
    shutil.copyfile(migrated_database, tmp_path / "other.db")
    other = ModelManager(saved_dir, tracking_uri=f"sqlite:///{tmp_path / 'other.db'}")
    report = within_patience(other.sync)
    assert (report.sent, report.failed) == (["x", "x"], {})
    new_run = str(other.get("x").run_id)
    (sent,) = (path for path in (saved_dir / "mlflow" / "artifacts").rglob(new_run))
    assert [path.name for path in (sent / "artifacts").iterdir()] == ["x_metadata.json"]


def _deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


JSON = {
    "deep": _deep(100_000),
    "deep in the middle": _deep(900),
    "deep list": "[" * 100_000,
    "long number": '{"a": ' + "9" * 10_000 + "}",
    "large number": '{"saved_at": 1e999, "a": ' + "9" * 400 + ', "format": 1e999}',
    "not a number": '{"saved_at": NaN, "a": -Infinity, "format": NaN, "release": []}',
    "twice": '{"a": 1, "a": 2, "saved_at": 1, "saved_at": [], "sha256": 3}',
    "half a character": '{"a": "\\ud800", "saved_at": "\\udfff"}',
    "other": "[1, 2]",
    "empty": "",
    "no text": "\xff\xfe\x00",
}


def _fill(path: Path, text: str) -> None:
    path.write_bytes(text.encode("latin-1"))


@pytest.mark.parametrize("text", JSON.values(), ids=JSON.keys())
def test_json_of_every_kind_is_read_or_left_out(
    saved_dir: Path, victim_dir: Path, text: str
) -> None:
    for state, folder in (("pending", "outbox"), ("committed", "outbox"), ("sent", "sent")):
        _fill(saved_dir / "mlflow" / folder / f"{RECORD}~{state}~y.json", text)
    for place in ("metadata/x_metadata.json", "backups/x_metadata.json", "mlflow/format.json"):
        _fill(saved_dir / place, text)
    joblib.dump({"n": 0}, saved_dir / "trained" / "lotto_model_odd.pkl")
    _fill(saved_dir / "metadata" / "lotto_model_odd_metadata.json", text)
    found = use(saved_dir, victim_dir)
    assert found["load"] == {"n": 2}
    assert found["load odd"] == {"n": 0}
    assert {record.name for record in found["records"]} == {"x", "lotto_model_odd"}
    assert found["sync"].failed == {}
    assert isinstance(found["save"], str)


def test_no_file_is_read_that_is_larger_than_any_of_ours(saved_dir: Path, victim_dir: Path) -> None:
    large = [
        "mlflow/format.json",
        "metadata/x_metadata.json",
        "backups/x_metadata.json",
        f"mlflow/outbox/{RECORD}~pending~x.json",
        f"mlflow/outbox/{RECORD[:-1]}8~committed~x.json",
        f"mlflow/sent/{RECORD[:-1]}9~sent~x.json",
    ]
    for place in large:
        with (saved_dir / place).open("wb") as file:
            file.truncate(1 << 40)  # more than there is memory, and nothing on the disk
    found = use(saved_dir, victim_dir)
    assert found["load"] == {"n": 2}
    assert isinstance(found["save"], str)
    assert (saved_dir / "mlflow" / "aside" / f"{RECORD}~aside~x.json").exists()


def test_metadata_that_could_not_be_read_again_are_refused_before_anything_is_written(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "MAX_BYTES", 100_000)
    manager = ModelManager(base_dir, mirror="off")
    before = contents(base_dir)
    with pytest.raises(InvalidMetadataError, match="given as artifacts"):
        manager.save_model({"n": 1}, "x", {"n": "1" * 100_000})
    assert contents(base_dir) == before
    manager.save_model({"n": 1}, "x", {"n": "1" * 50_000}, artifacts={"a": {"n": "1" * 200_000}})
    assert manager.get("x").metadata["n"] == "1" * 50_000  # type: ignore[index]
    monkeypatch.setattr(journal, "MAX_RECORD_BYTES", 10_000)
    with pytest.raises(StoreError, match="may have 10,000"):
        manager.save_model({"n": 2}, "x", {"n": "2" * 50_000})
    monkeypatch.undo()
    assert manager.load_model(base_dir / "trained" / "x.pkl") == {"n": 1}
    assert manager.verify() == [] or {f.kind for f in manager.verify()} == {"missing in MLflow"}


def test_a_save_onto_what_is_no_file_writes_nothing(base_dir: Path, victim_dir: Path) -> None:
    manager = ModelManager(base_dir, mirror="off")
    manager.save_model({"n": 1}, "other", {"n": 1})
    for place in ("trained/x.pkl", "metadata/x_metadata.json"):
        for put in KINDS:
            path = put_in(base_dir, victim_dir, place, put)
            before = contents(base_dir) | contents(victim_dir)
            with pytest.raises(StoreError, match="was left as it is"):
                manager.save_model({"n": 2}, "x", {"n": 2})
            assert contents(base_dir) | contents(victim_dir) == before
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def test_what_is_put_in_the_place_while_a_model_is_dumped_is_not_replaced(
    base_dir: Path, victim_dir: Path
) -> None:
    path = base_dir / "trained" / "x.pkl"

    class Slow:
        def __reduce__(self) -> Any:
            if not path.is_symlink():
                path.symlink_to(victim_dir / "file")
            return dict, ()

    before = contents(victim_dir)
    manager = ModelManager(base_dir, mirror="off")
    manager.save_model({"n": 1}, "other", {"n": 1})
    with pytest.raises(StoreError, match="is a link"):
        manager.save_model(Slow(), "x", {"n": 2})
    assert path.is_symlink()
    assert contents(victim_dir) == before
    assert not list((base_dir / "mlflow" / "tmp").iterdir())
    path.unlink()
    assert manager.save_model({"n": 3}, "x", {"n": 3}) == str(path)
