"""The model folders that earlier releases left are opened, checked and carried on by this one.

`tests/artefacts/build.py` wrote each of them, and what its release found in it. They are unpacked
elsewhere, so that each is a folder that was moved.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from artefacts import facts

import lotto_mlflow
from lotto_mlflow import ModelManager, pyfunc_loader, records
from lotto_mlflow.errors import ModelNotFoundError
from lotto_mlflow.kinds import KINDS

LOADERS = sorted((Path(__file__).parent / "loaders").glob("lotto_mlflow_loader_v*"))
ESTIMATOR = "lotto_model_나이브"
pytestmark = [
    # the estimators are of the scikit-learn that the release was built with
    pytest.mark.filterwarnings("ignore:Trying to unpickle estimator"),
]


@pytest.fixture(scope="module", params=facts.RELEASES)
def release_dir(request: pytest.FixtureRequest) -> Path:
    """The artefact of one release."""
    return facts.ARTEFACTS_DIR / request.param


@pytest.fixture
def found(release_dir: Path) -> Any:
    """What the release found in its folder, read anew for each test."""
    return json.loads((release_dir / facts.FACTS).read_text(encoding="utf-8"))


@pytest.fixture
def old_dir(release_dir: Path, tmp_path: Path) -> Path:
    """The folder as the release left it, at another place."""
    return facts.unpack(release_dir / facts.ARCHIVE, tmp_path)


@pytest.fixture
def moved(old_dir: Path) -> ModelManager:
    """A manager of the folder, whose database knows where it lies now."""
    manager = ModelManager(old_dir)
    assert manager.relocate() > 0
    return manager


def test_this_release_has_an_artefact_with_every_kind_and_state_of_records() -> None:
    assert lotto_mlflow.__version__ in facts.RELEASES, "run make artefact: see CONTRIBUTING"
    release_dir = facts.ARTEFACTS_DIR / lotto_mlflow.__version__
    found = json.loads((release_dir / facts.FACTS).read_text(encoding="utf-8"))
    assert found["release"] == lotto_mlflow.__version__
    assert {kind for _, kind, _ in found["records"]} == {*KINDS, "damaged"}
    states = {"pending", "committed", "begun", "sent", "aside"}
    assert {state for state, _, _ in found["records"]} == states
    assert {one[0] for moves in found["aliases"].values() for one in moves} >= {
        "promote",
        "rollback",
    }


def test_this_release_finds_what_the_old_one_found(
    moved: ModelManager, old_dir: Path, found: Any
) -> None:
    """Records, models of both views by their answers, findings, aliases, predictions."""
    now = json.loads(json.dumps(facts.facts_of(moved, old_dir)))
    about_the_release = {"release", "written_by"}
    for key in found.keys() - about_the_release:
        assert known_then(now[key], found[key]) == found[key], key
        assert len(now[key]) == len(found[key]), key


def known_then(now: Any, then: Any) -> Any:
    """Return what there is now without what the old release did not write down of a model."""
    if isinstance(now, dict) and isinstance(then, dict):
        return {key: known_then(value, then[key]) for key, value in now.items() if key in then}
    return now


def test_a_folder_that_was_moved_is_read_from_disk_before_it_is_relocated(
    old_dir: Path, found: Any
) -> None:
    manager = ModelManager(old_dir)
    assert "moved store" in {one.kind for one in manager.verify()}
    assert [one.name for one in manager.records()] == list(found["trained"])
    for name, fact in found["trained"].items():
        model = manager.load_model(str(old_dir / "trained" / f"{name}.pkl"))
        assert facts.described(model) == fact["model"]
    for name, fact in found["backups"].items():
        model = manager.load_model(str(old_dir / "backups" / f"{name}.pkl"))
        assert facts.described(model) == fact["model"]


def test_a_sync_sends_what_the_old_release_left_unfinished_once(
    moved: ModelManager, old_dir: Path, found: Any
) -> None:
    unsent = [name for state, kind, name in found["records"] if state != "sent" and kind in KINDS]
    report = moved.sync(retry_aside=True)
    assert sorted(report.sent) == sorted(unsent)
    again = moved.sync(retry_aside=True)
    assert not [*again.sent, *again.found, *again.resent, *again.backfilled]
    now = facts.facts_of(moved, old_dir)
    left = [name for state, kind, name in now["records"] if state != "sent" and kind in KINDS]
    assert left == ["elsewhere"]  # which a server is still to get, too
    assert len(now["records"]) == len(found["records"])
    for name, fact in now["trained"].items():
        assert fact["version"] is not None, name
        assert fact["save_id"] == found["trained"][name]["save_id"]
    for uri, fact in found["versions"].items():
        assert now["versions"][uri] == fact
    lasting = {("damaged", "damaged record"), ("missing on disk", "lotto_model_only_in_mlflow")}
    assert {(kind, name) for kind, name in now["findings"]} <= lasting
    assert now["latest"]["registry"] == "lotto_model_waiting"
    assert len([uri for uri in now["versions"] if uri.startswith("models:/begun/")]) == 1
    assert now["predictions"][1:] == found["predictions"][1:]


def test_a_save_goes_on_where_the_old_release_was_killed(
    moved: ModelManager, old_dir: Path, found: Any
) -> None:
    """The killed save is finished, what is replaced is kept, and the names that went stay gone."""
    for name in found["trained"]:
        moved.save_model({"of": "this release"}, name, {"accuracy": 0.5})
        if name == "damaged record":  # no digest was known for what is replaced
            continue
        *_, backup = backups_of(old_dir, found["trained"][name]["sha256"])
        record = moved.restore(name, backup=backup)
        assert (
            facts.described(moved.load_model(str(record.path))) == found["trained"][name]["model"]
        )
    assert moved.flush(120)
    outbox = list((old_dir / "mlflow" / "outbox").glob("*.json"))
    assert [path.name.partition("~")[2] for path in outbox] == ["committed~elsewhere.json"]
    assert not list((old_dir / "mlflow" / "tmp").iterdir())
    for name, fact in found["backups"].items():
        model = moved.load_model(str(old_dir / "backups" / f"{name}.pkl"))
        assert facts.described(model) == fact["model"]
    for name in found["gone"]:
        with pytest.raises(ModelNotFoundError, match="of wrong draws"):
            moved.get(name)
    noted = json.loads((old_dir / "mlflow" / "format.json").read_text(encoding="utf-8"))
    assert noted["format"] == records.FORMAT
    assert noted["release"] == records.FORMAT_RELEASE


def backups_of(base_dir: Path, sha256: str) -> list[str]:
    """Return the names of the backups with a digest, at least one."""
    paths = (base_dir / "backups").glob("*.pkl")
    return [p.stem for p in paths if hashlib.sha256(p.read_bytes()).hexdigest() == sha256]


def test_each_version_can_be_restored_from_the_registry(
    moved: ModelManager, old_dir: Path, found: Any
) -> None:
    shutil.rmtree(old_dir / "trained")
    shutil.rmtree(old_dir / "backups")
    for uri, fact in found["versions"].items():
        record = moved.restore(uri, source="registry")
        assert record.sha256 == fact["sha256"]
        assert facts.described(moved.load_model(str(record.path))) == fact["model"]
        assert facts.described(moved.load_model(uri)) == fact["model"]


def test_aliases_go_on_from_the_moves_of_the_old_release(moved: ModelManager, found: Any) -> None:
    before = found["aliases"]["lotto_model"]
    moved.promote("lotto_model_after", reason="of this release")
    assert moved.get("models:/lotto_model@champion").name == "lotto_model_after"
    moved.rollback(reason="and back")
    moves = moved.history()
    assert [[m.kind, m.reason] for m in moves[: len(before)]] == [[m[0], m[3]] for m in before]
    assert [m.kind for m in moves[len(before) :]] == ["promote", "rollback"]
    assert moved.get("models:/lotto_model@champion").version == before[-1][2]


def test_predictions_of_the_old_release_are_scored_by_a_new_result(
    moved: ModelManager, found: Any
) -> None:
    (waiting,) = [one for one in found["predictions"] if one[0] == "주간" and one[6] is None]
    scored = moved.record_result(waiting[2], [1, 2, 3, 4, 5, 6], 45)
    assert [(one.model, one.version, one.hits) for one in scored] == [("주간", waiting[1], (6, 0))]
    (row,) = [one for one in moved.accuracy("주간") if not one.is_backtest]
    (old,) = [one for one in found["accuracy"] if one[0] == "주간"]
    assert (row.draws, row.games) == (old[3] + 1, old[4] + 2)


def test_saves_of_the_old_release_can_be_pruned(
    moved: ModelManager, old_dir: Path, found: Any
) -> None:
    assert moved.sync(retry_aside=True).failed.keys() <= {"damaged record"}
    report = moved.prune(keep_last=3, dry_run=False)
    assert not report.failed
    gone = {one.sha256 for one in report.pruned}
    assert gone
    left = {one.sha256 for one in moved.records()}
    assert not gone & left
    for uri, fact in found["versions"].items():
        if fact["sha256"] in gone - {None}:
            with pytest.raises(ModelNotFoundError):
                moved.get(uri)
    assert moved.get("models:/lotto_model@champion").name == ESTIMATOR


OPEN = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
rows, how = numpy.array(json.loads(sys.argv[2])), {"predict_method": "predict_proba"}
found = model.predict(rows, params=how)
assert not any(name.split(".")[0] == "lotto_mlflow" for name in sys.modules)
print(json.dumps([[round(float(p), 9) for p in row] for row in found]))
"""


def opened_by_mlflow(model_dir: Path) -> Any:
    """Return what MLflow alone, in a process without this package, predicts with a model."""
    arguments = [str(model_dir), json.dumps(facts.ROWS)]
    environment = {**os.environ, "PYTHONPATH": ""}
    command = [sys.executable, "-c", OPEN, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def mirrored_model(manager: ModelManager, base_dir: Path) -> Path:
    """Return the folder in MLflow of the estimator that the release saved."""
    model_id = manager.get("models:/lotto_model/1").model_id
    (data,) = base_dir.glob(f"mlflow/artifacts/**/{model_id}/**/MLmodel")
    return data.parent


def test_mlflow_opens_a_model_of_the_old_release_by_the_loader_inside_it(
    moved: ModelManager, old_dir: Path, found: Any
) -> None:
    expected = found["trained"][ESTIMATOR]["model"]["predict_proba"]
    assert opened_by_mlflow(mirrored_model(moved, old_dir)) == expected


@pytest.mark.parametrize(
    "loader", [*LOADERS, Path(pyfunc_loader.__file__).parent], ids=lambda path: path.stem
)
def test_every_loader_that_was_released_opens_a_model_of_every_release(
    moved: ModelManager, old_dir: Path, found: Any, loader: Path
) -> None:
    """Also the present one, which is a later one's old loader."""
    model_dir = mirrored_model(moved, old_dir)
    mlmodel = model_dir / "MLmodel"
    name = pyfunc_loader.MODULE_NAME if loader.name == "pyfunc_loader" else loader.stem
    (inside,) = (model_dir / "code").iterdir()
    text = mlmodel.read_text(encoding="utf-8")
    assert f"loader_module: {inside.stem}\n" in text
    mlmodel.write_text(text.replace(inside.stem, name), encoding="utf-8")
    shutil.rmtree(inside) if inside.is_dir() else inside.unlink()
    if loader.is_dir():
        shutil.copytree(loader, model_dir / "code" / name)
    else:
        shutil.copy(loader, model_dir / "code")
    expected = found["trained"][ESTIMATOR]["model"]["predict_proba"]
    assert opened_by_mlflow(model_dir) == expected


def test_what_an_old_release_signed_is_signed_still(
    moved: ModelManager, old_dir: Path, found: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By model-signing itself, and for this release when it trusts the key."""
    config = pytest.importorskip("model_signing.verifying").Config
    public_key = facts.KEYS_DIR / "signing.pem.pub"
    signatures_dir = old_dir / "mlflow" / "signatures"
    digests = {one["save_id"]: one["sha256"] for one in found["versions"].values()}
    assert len(found["signed"]) >= 3
    for save_id in found["signed"]:
        statement = signatures_dir / f"{save_id}.json"
        verifier = config().use_elliptic_key_verifier(public_key=public_key)
        verifier.verify(statement, signatures_dir / f"{save_id}.sig")
        assert digests[save_id] in statement.read_text(encoding="utf-8")
    monkeypatch.setenv("LOTTO_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LOTTO_TRUSTED_KEYS", str(public_key))
    assert moved.load_model(str(old_dir / "trained" / "signed.pkl")) == {"signed": 2}
    assert moved.load_model(str(old_dir / "backups" / "signed.pkl")) == {"signed": 1}
    assert moved.load_model("models:/signed/1") == {"signed": 1}
    assert moved.load_model("models:/모델/1") == found["trained"]["모델"]["model"]


def test_what_was_changed_in_an_old_folder_is_not_opened(
    moved: ModelManager, old_dir: Path, found: Any
) -> None:
    """The digests in old records are still those that count."""
    path = old_dir / "trained" / f"{ESTIMATOR}.pkl"
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(lotto_mlflow.LottoMlflowError, match=r"damaged|bytes"):
        moved.load_model(str(path))
    assert ("damaged", ESTIMATOR) in {(one.kind, one.name) for one in moved.verify()}
    moved.restore("models:/lotto_model/1", source="registry")
    assert facts.described(moved.load_model(str(path))) == found["trained"][ESTIMATOR]["model"]


def test_the_database_of_an_old_release_gets_the_schema_of_the_installed_mlflow(
    moved: ModelManager, old_dir: Path, migrated_database: Path
) -> None:
    assert moved.sync(retry_aside=True).sent
    assert schema_of(old_dir / "mlflow" / "mlflow.db") == schema_of(migrated_database)


def schema_of(database: Path) -> list[Any]:
    with closing(sqlite3.connect(database)) as opened:
        return opened.execute("SELECT version_num FROM alembic_version").fetchall()
