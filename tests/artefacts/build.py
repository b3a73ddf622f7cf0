"""Write the model folder of this release, as its own public calls leave it, into one archive.

Run by ``make artefact``, with the oldest supported releases, so that all later ones can open it.
The folder has a record of every kind and state, among them those of processes that were killed.
It is one archive because git keeps neither the times of files, which decide what is the latest,
nor empty folders, and because of the database, which is 1.4 MB and packs to a tenth.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from artefacts import facts
from sklearn.dummy import DummyClassifier
from sklearn.naive_bayes import GaussianNB

import lotto_mlflow
from lotto_mlflow import ModelManager
from lotto_mlflow.draws import closes_at

ROOT_DIR = Path(__file__).parents[2]
PERSON, MACHINE = "example", "example"
"""What is committed in place of the names of whoever builds it, and of the machine."""
FIRST_DRAW, DRAWN_DAY, LAST_DAY = 1175, 7, 20
"""Number of the draw that is predicted, and days since the folder was made."""
KEEP_LAST = 9
KILLED = 9


def main() -> int:
    """Build the artefact of the installed release, or be the process that is killed."""
    os.environ["LOGNAME"] = PERSON  # what getpass and MLflow take for the user
    socket.gethostname = lambda: MACHINE
    if sys.argv[1:2] == ["--killed"]:
        return be_killed(Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
    release_dir = facts.ARTEFACTS_DIR / lotto_mlflow.__version__
    with tempfile.TemporaryDirectory(prefix="lotto-artefact-") as scratch:
        base_dir = Path(scratch) / "ml"
        build(base_dir)
        facts.pack(base_dir, Path(scratch) / facts.ARCHIVE)
        found = written(Path(scratch), base_dir)
        if traces := traces_of(base_dir):
            print("error: not fit to be committed:", *traces, sep="\n", file=sys.stderr)
            return 1
        shutil.rmtree(release_dir, ignore_errors=True)
        release_dir.mkdir()
        shutil.copyfile(Path(scratch) / facts.ARCHIVE, release_dir / facts.ARCHIVE)
    text = json.dumps(found, ensure_ascii=False, indent=1)
    (release_dir / facts.FACTS).write_text(text + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in release_dir.iterdir())
    print(f"{release_dir}: {size / 1e3:.0f} kB, {len(found['records'])} records")
    return 0


def build(base_dir: Path) -> None:
    """Do everything that leaves something in a folder, a day after the other."""
    manager = manager_of(base_dir)
    before = (save, sign, replace_and_restore, bring_in, move_aliases, predict)
    days = {**dict(enumerate(before)), DRAWN_DAY + 1: remove, DRAWN_DAY + 2: put_aside}
    for day, step in days.items():
        set_clock(day)
        step(manager, base_dir)
    if not manager.flush(120):
        raise SystemExit("error: not every save could be mirrored")
    leave_unfinished(base_dir)
    set_clock(LAST_DAY + 2)


def save(manager: ModelManager, base_dir: Path) -> None:
    """Save of each form: an estimator with all there is to say of it, dicts, a default name."""
    random = np.random.default_rng(645)
    rows = random.normal(size=(60, 4))
    drawn = (rows[:, 0] > 0).astype(int)
    manager.save_model(
        GaussianNB().fit(rows, drawn),
        "lotto_model_나이브",
        {"accuracy": 0.75, "loss": [0.9, 0.5, 0.25], "설명": "첫 모델", "nested": {"draws": 1174}},
        input_example=rows[:2],
        artifacts={"notes.txt": "plain text", "counts": {"1": 3}},
        dataset={"train": rows[:40], "test": rows[40:]},
    )
    manager.save_model(DummyClassifier(strategy="prior").fit(rows, drawn), "lotto_model_dummy")
    manager.save_model({"default": "name"}, metadata={"accuracy": 0.5})
    for week in range(KEEP_LAST):
        manager.save_model({"week": week}, "주간", {"week": week})
    manager.save_model({"a": [1, 2.5, None, "모델"]}, "모델")


def sign(manager: ModelManager, base_dir: Path) -> None:
    """Sign two saves of a name as they are made, and later one that was made without a key.

    Notes
    -----
    The key is of these folders alone, and lies open beside them: it may not be readable by others
    where it is used.
    """
    key_path = base_dir.with_name("signing.pem")
    shutil.copyfile(facts.KEYS_DIR / "signing.pem", key_path)
    key_path.chmod(0o600)
    os.environ["LOTTO_SIGNING_KEY"] = str(key_path)
    for number in (1, 2):
        manager.save_model({"signed": number}, "signed", {"number": number})
    manager.sign("모델")
    del os.environ["LOTTO_SIGNING_KEY"]


def replace_and_restore(manager: ModelManager, base_dir: Path) -> None:
    """Replace a model twice, restore it from a backup, and another from the registry."""
    for number in (1, 2, 3):
        manager.save_model({"replaced": number}, "lotto_model_replaced", {"number": number})
    manager.restore("lotto_model_replaced", backup="lotto_model_replaced")
    manager.save_model({"only in": "MLflow"}, "lotto_model_lost", {"accuracy": 0.25})
    manager.flush(120)
    (base_dir / "trained" / "lotto_model_lost.pkl").unlink()
    manager.restore("lotto_model_lost", source="registry")
    manager.save_model({"to be": "restored"}, "lotto_model_only_in_mlflow")
    manager.flush(120)
    (base_dir / "trained" / "lotto_model_only_in_mlflow.pkl").unlink()


def bring_in(manager: ModelManager, base_dir: Path) -> None:
    """Bring in a file from before the package, with metadata of then."""
    path = base_dir / "trained" / "lotto_model_before.pkl"
    joblib.dump({"from": "before"}, path)
    moment = int(closes_at(FIRST_DRAW - 20).timestamp())
    os.utime(path, (moment, moment))
    metadata = {"saved_at": "2025-01-11T20:00:00+09:00", "accuracy": 0.125}
    metadata_path = base_dir / "metadata" / "lotto_model_before_metadata.json"
    metadata_path.write_text(json.dumps(metadata), encoding="utf-8")
    manager.sync()


def move_aliases(manager: ModelManager, base_dir: Path) -> None:
    """Promote by word and by a metric, have a promotion refused, and roll back."""
    manager.promote(1, reason="the first that serves")
    manager.promote("lotto_model_replaced", reason="한 주 동안")
    manager.rollback(reason="it was not better")
    manager.promote("주간", reason="of another registered model")


def predict(manager: ModelManager, base_dir: Path) -> None:
    """Predict live and in hindsight, record a result, import others, and leave one draw open."""
    games = [[1, 2, 3, 4, 5, 6], [7, 12, 20, 28, 33, 45]]
    scores = [6 / 45] * 45
    manager.record_prediction("주간", FIRST_DRAW, games, scores=scores)
    manager.record_prediction("주간", FIRST_DRAW, games[1:])
    made_at = closes_at(FIRST_DRAW) - timedelta(days=30)
    manager.record_prediction(1, FIRST_DRAW, games, made_at=made_at)
    manager.record_prediction("주간", FIRST_DRAW + 1, games)
    set_clock(DRAWN_DAY)
    manager.record_result(FIRST_DRAW, [1, 2, 3, 20, 33, 40], 6)
    csv = base_dir.with_name("results.csv")
    csv.write_text(
        "draw_no,draw_date,n1,n2,n3,n4,n5,n6,bonus\n1174,2025-05-31,8,11,14,17,36,39,22\n"
    )
    manager.import_results(csv)


def remove(manager: ModelManager, base_dir: Path) -> None:
    """Delete one bad save, and prune those of a registered model that has too many."""
    manager.save_model({"bad": True}, "lotto_model_bad", {"accuracy": 1.0})
    manager.flush(120)
    manager.delete("lotto_model_bad", reason="of wrong draws")
    for week in (KEEP_LAST, KEEP_LAST + 1):
        manager.save_model({"week": week}, "주간", {"week": week})
    manager.flush(120)
    manager.prune(keep_last=KEEP_LAST, dry_run=False)


def put_aside(manager: ModelManager, base_dir: Path) -> None:
    """Leave a record that MLflow refused, and one that a loss of power cut off."""
    off = ModelManager(base_dir, mirror="off")
    path = Path(off.save_model({"refused": True}, "refused"))
    copy = path.read_bytes()
    times = path.stat()
    path.unlink()
    manager.sync()
    path.write_bytes(copy)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    off.save_model({"cut": "off"}, "damaged record")
    (record,) = (base_dir / "mlflow" / "outbox").glob("*~committed~damaged record.json")
    record.write_bytes(record.read_bytes()[:100])
    record.rename(record.with_name(record.name.replace("~committed~", "~pending~")))
    off.save_model({"after": "it"}, "lotto_model_after")
    manager.sync()


def leave_unfinished(base_dir: Path) -> None:
    """Leave what is under way: a push that was cut off, saves that wait, a save that was killed."""
    kill(base_dir, "begun", "~sent~", LAST_DAY - 1)
    off = ModelManager(base_dir, mirror="off")
    set_clock(LAST_DAY)
    off.save_model({"waits": True}, "lotto_model_waiting", {"accuracy": 0.75})
    server = ModelManager(base_dir, mirror="off", tracking_uri="http://127.0.0.1:9")
    server.save_model({"waits": "for a server"}, "elsewhere")
    off.record_prediction("lotto_model_waiting", FIRST_DRAW + 3, [1, 2, 3, 4, 5, 6])
    off.save_model({"killed": 1}, "killed", {"number": 1})
    kill(base_dir, "killed", "~committed~", LAST_DAY + 1)


def kill(base_dir: Path, name: str, at: str, day: int) -> None:
    """Save in a process that is killed before it gives a file a name with `at` in it."""
    command = [sys.executable, "-m", "artefacts.build", "--killed", str(base_dir), name, at]
    done = subprocess.run([*command, str(day)], check=False)
    if done.returncode != KILLED:
        raise SystemExit(f"error: the save of {name} was not killed: {done.returncode}")


def be_killed(base_dir: Path, name: str, at: str, day: int) -> int:
    """Save, and die on the way; a push goes on until the record is all that is left to change."""

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and at in os.fspath(arguments[1]):
            os._exit(KILLED)

    sys.addaudithook(look)
    set_clock(day)
    if at == "~sent~":
        manager = manager_of(base_dir)
    else:
        manager = ModelManager(base_dir, mirror="off")
    manager.save_model({name: 2}, name, {"number": 2})
    manager.flush(120)
    return 0


def manager_of(base_dir: Path) -> ModelManager:
    """Return a manager of the folder's own store, whatever store the environment names."""
    uri = f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"
    return ModelManager(base_dir, mirror="sync", tracking_uri=uri, registry_uri=uri)


_REAL_TIME, _REAL_SECONDS = time.time_ns, time.time


def set_clock(day: int) -> None:
    """Let this process's clock go on from a day; sales of the first draw close on day 6.

    Notes
    -----
    All is in the past: no test may meet an id in the future, whatever its own clock says.
    """
    moment = closes_at(FIRST_DRAW) + timedelta(days=day - 6, hours=-3)
    offset = int(moment.timestamp()) * 10**9 - _REAL_TIME()
    time.time_ns = lambda: _REAL_TIME() + offset
    time.time = lambda: _REAL_SECONDS() + offset / 10**9  # MLflow's clock


def written(scratch: Path, base_dir: Path) -> dict[str, Any]:
    """Return what this release finds in a copy at another place, and what wrote it."""
    moved = facts.unpack(scratch / facts.ARCHIVE, scratch / "moved")
    manager = manager_of(moved)
    manager.relocate()
    found = facts.facts_of(manager, moved)
    libraries = ("mlflow", "scikit-learn", "joblib", "numpy")
    writers = {library: version(library) for library in libraries}
    return {
        "release": lotto_mlflow.__version__,
        "written_by": {"python": platform.python_version(), **writers},
        **found,
    }


def traces_of(base_dir: Path) -> list[str]:
    """Return each file that names this machine, its user or one of its folders."""
    names = {os.uname().nodename, str(ROOT_DIR), str(Path.home()), sys.prefix}
    found = []
    for path in sorted(base_dir.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        found += [f"{path}: {name}" for name in names if len(name) > 2 and name.encode() in content]
    return found


if __name__ == "__main__":
    raise SystemExit(main())
