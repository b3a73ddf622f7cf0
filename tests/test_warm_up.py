"""`warm_up()`, and the import of MLflow beside a first save, in processes that begin anew."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from lotto_mlflow import ModelManager
from lotto_mlflow import push as worker
from lotto_mlflow.files import locked
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.layout import Layout
from lotto_mlflow.mirror import Mirror


def run(code: str, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program, and return what it printed."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | more,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_after_it_mlflow_is_imported_and_the_first_push_imports_nothing_large(
    tmp_path: Path,
) -> None:
    done = run(
        """
import gc, sys
import lotto_mlflow
assert "mlflow" not in sys.modules
manager = lotto_mlflow.ModelManager(sys.argv[1])
assert manager.warm_up(wait=True) is True
assert "mlflow.pyfunc" in sys.modules and gc.get_freeze_count() > 100_000
warm = set(sys.modules)
manager.save_model({"a": 1}, metadata={"a": 1})
assert manager.get(1).version == 1
print(len([m for m in set(sys.modules) - warm if m.startswith(("mlflow", "sqlalchemy"))]) < 9)
""",
        tmp_path / "ml",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n"


def test_it_makes_the_store_and_nothing_that_looks_like_a_model(tmp_path: Path) -> None:
    manager = ModelManager(tmp_path / "ml")
    assert manager.warm_up(wait=True) is True
    assert (tmp_path / "ml" / "mlflow" / "mlflow.db").exists()
    assert manager.warm_up(wait=True) is True
    assert manager.records() == []
    assert manager.verify() == []
    assert manager.latest(source="registry") is None


def test_the_package_and_model_utils_warm_up_their_own_folder(tmp_path: Path) -> None:
    code = "import lotto_mlflow; print(lotto_mlflow.warm_up(wait=True), lotto_mlflow.flush(60))"
    done = run(code, LOTTO_APP_DIR=str(tmp_path / "app"))
    assert done.stdout == "True True\n", done.stderr
    assert (tmp_path / "app" / "models" / "ml" / "mlflow" / "mlflow.db").exists()


def test_in_the_background_it_returns_before_mlflow_is_imported(tmp_path: Path) -> None:
    done = run(
        """
import sys
from lotto_mlflow import ModelManager
manager = ModelManager(sys.argv[1], mirror="background")
print(manager.warm_up(), "mlflow.pyfunc" in sys.modules)
manager.save_model({"a": 1}, metadata={"a": 1})
print(manager.flush(200), manager.get(1).version)
""",
        tmp_path / "ml",
    )
    assert done.stdout == "None False\nTrue 1\n", done.stderr


def test_a_program_that_ends_right_after_it_ends_well(tmp_path: Path) -> None:
    code = "import sys, lotto_mlflow as l; l.ModelManager(sys.argv[1]).warm_up()"
    for _ in range(2):
        done = run(code, tmp_path / "ml")
        assert (done.returncode, done.stdout) == (0, "")
        assert "Traceback" not in done.stderr
    assert (tmp_path / "ml" / "mlflow" / "mlflow.db").exists()


def test_what_waits_in_the_outbox_is_left_there(base_dir: Path) -> None:
    ModelManager(base_dir, mirror="off").save_model({"a": 1}, metadata={"a": 1})
    manager = ModelManager(base_dir)
    assert manager.warm_up(wait=True) is True
    assert len(list((base_dir / "mlflow" / "outbox").iterdir())) == 1


@pytest.mark.parametrize("wait", [True, False])
def test_where_nothing_is_pushed_it_does_nothing(tmp_path: Path, *, wait: bool) -> None:
    manager = ModelManager(tmp_path / "ml", mirror="off")
    assert manager.warm_up(wait=wait) is (False if wait else None)
    assert not (tmp_path / "ml").exists()


def test_a_store_that_cannot_be_opened_is_a_warning_and_the_next_call_tries_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "file"
    place.touch()
    manager = ModelManager(tmp_path / "ml", tracking_uri=f"sqlite:///{place}/store.db")
    assert manager.warm_up(wait=True) is False
    assert "MLflow is not ready" in caplog.text
    assert manager.save_model({"a": 1}, "x", {"a": 1}).endswith("x.pkl")
    place.unlink()
    assert manager.warm_up(wait=True) is True


def test_a_database_that_is_none_is_a_warning(base_dir: Path, caplog: Any) -> None:
    (base_dir / "mlflow" / "mlflow.db").write_bytes(b"no database, and long enough to look" * 99)
    assert ModelManager(base_dir).warm_up(wait=True) is False
    assert "MLflow is not ready" in caplog.text


def test_threads_may_call_it_at_once_and_beside_saves(tmp_path: Path) -> None:
    manager = ModelManager(tmp_path / "ml")

    def work(number: int) -> object:
        if number % 2:
            return manager.warm_up(wait=True)
        return manager.save_model({"n": number}, f"x{number}", {"n": number})

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(work, range(16)))
    assert done[1::2] == [True] * 8
    assert manager.flush(120)
    assert [manager.get(f"x{number}").version for number in range(0, 16, 2)] == [1] * 8


def test_the_store_is_opened_once_however_many_saves_follow(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, real = [], Mirror.open
    monkeypatch.setattr(
        Mirror, "open", lambda mirror, work_dir: (opened.append(1), real(mirror, work_dir))
    )
    manager = ModelManager(base_dir, mirror="background")
    folder = ModelFolder(Layout.under(base_dir))
    with locked(folder.push_lock()):  # so that rounds follow each other in one thread
        manager.warm_up()
        for number in range(5):
            manager.save_model({"n": number}, f"x{number}", {"n": number})
    for number in range(5, 10):
        manager.save_model({"n": number}, f"x{number}", {"n": number})
    assert manager.flush(120)
    assert opened == [1]


def test_processes_may_call_it_at_once(tmp_path: Path) -> None:
    code = "import sys, lotto_mlflow as l; print(l.ModelManager(sys.argv[1]).warm_up(wait=True))"
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: run(code, tmp_path / "ml"), range(4)))
    assert [one.stdout for one in done] == ["True\n"] * 4, [one.stderr for one in done]
    left = [p.name for p in (tmp_path / "ml" / "mlflow").iterdir() if p.name.endswith(".new")]
    assert left == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_children_forked_while_it_is_under_way_save_and_warm_up(tmp_path: Path) -> None:
    """As under ``gunicorn --preload``: the fork waits until no lock of an import is had."""
    done = run(
        """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from lotto_mlflow import ModelManager
manager = ModelManager(sys.argv[1])
manager.warm_up()
children = []
for number in range(2):
    child = os.fork()
    if child == 0:
        ready = manager.warm_up(wait=True)
        manager.save_model({"n": number}, metadata={"n": number})
        os._exit(0 if ready and manager.flush(120) else 1)
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children])
manager.save_model({"n": 2}, metadata={"n": 2})
print(manager.flush(120), sorted(record.version for record in manager.records()))
""",
        tmp_path / "ml",
    )
    assert done.stdout == "[0, 0]\nTrue [1, 2, 3]\n", done.stderr


IMPORT_BESIDE = """
import sys, time
from lotto_mlflow import ModelManager

class Slow:
    def __getstate__(self):  # called while joblib writes
        deadline = time.monotonic() + float(sys.argv[2])
        while "mlflow" not in sys.modules and time.monotonic() < deadline:
            time.sleep(0.01)
        return {"was_there": "mlflow" in sys.modules}

mode = sys.argv[3]
manager = ModelManager(sys.argv[1], mirror=mode)
path = manager.save_model(Slow(), "x", {"a": 1})
print(manager.load_model(path).was_there)
"""


@pytest.mark.parametrize(("mode", "seconds"), [("sync", 120), ("background", 120), ("off", 3)])
def test_mlflow_is_imported_while_joblib_writes(tmp_path: Path, mode: str, seconds: int) -> None:
    done = run(IMPORT_BESIDE, tmp_path / "ml", seconds, mode)
    assert done.stdout == f"{mode != 'off'}\n", done.stderr


@pytest.mark.parametrize(
    "content",
    ["raise ImportError('broken')", "raise SystemExit(3)", "import time; time.sleep(600)"],
    ids=["fails", "ends", "hangs"],
)
def test_whatever_importing_mlflow_does_the_model_is_saved(tmp_path: Path, content: str) -> None:
    broken = tmp_path / "broken"
    (broken / "mlflow").mkdir(parents=True)
    (broken / "mlflow" / "__init__.py").write_text(content)
    done = run(
        """
import os, sys
sys.path.insert(0, sys.argv[2])
from lotto_mlflow import ModelManager
manager = ModelManager(sys.argv[1], mirror="background")
assert manager.warm_up() is None
for number in range(2):
    print(manager.load_model(manager.save_model({"n": number}, f"x{number}", {"n": number})))
sys.stdout.flush()
os._exit(0)
""",
        tmp_path / "ml",
        broken,
    )
    assert done.stdout == "{'n': 0}\n{'n': 1}\n", done.stderr
    manager = ModelManager(tmp_path / "ml")
    assert len(manager.sync().sent) == 2


def test_a_refused_first_save_leaves_no_store_behind(tmp_path: Path) -> None:
    done = run(
        """
import sys
from lotto_mlflow import ModelManager, errors
manager = ModelManager(sys.argv[1])
try:
    manager.save_model(lambda: 1, "x", {"a": 1})
except errors.DumpError:
    print("refused")
""",
        tmp_path / "ml",
    )
    assert done.stdout == "refused\n", done.stderr
    assert not (tmp_path / "ml" / "mlflow" / "mlflow.db").exists()


def test_between_two_pushes_a_sync_has_time_to_take_its_turn(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for the lock looks every 5 ms, and would miss a moment."""
    manager = ModelManager(base_dir, mirror="background")
    begun, ended = [], []

    def waiting(self: worker.PushWorker) -> list[Any]:
        begun.append(time.monotonic())
        if len(begun) < 10:
            self.request()  # as by a save in another thread
        ended.append(time.monotonic())
        return []

    monkeypatch.setattr(worker.PushWorker, "_waiting", waiting)
    manager.save_model({"n": 1}, "x", {"n": 1})
    deadline = time.monotonic() + 120
    while len(begun) < 10:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    pauses = [later - before for before, later in zip(ended[:9], begun[1:10], strict=True)]
    assert min(pauses) > 0.015


def test_the_client_of_a_warm_process_is_of_the_file_that_is_there(base_dir: Path) -> None:
    manager = ModelManager(base_dir)
    manager.warm_up(wait=True)
    manager.save_model({"n": 1}, "x", {"n": 1})
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    assert len(client.search_model_versions("name = 'x'")) == 1
