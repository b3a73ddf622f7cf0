"""The committed example store: whole, in both views, on any machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from mlflow import MlflowClient

from lotto_mlflow import ModelManager, ModelRecord
from lotto_mlflow.records import parse

ROOT_DIR = Path(__file__).parents[1]
EXAMPLE_DIR = ROOT_DIR / "mlruns_example"
FOLDERS = ("trained", "metadata", "backups", "mlflow")
DATABASE_URI = "sqlite:///mlruns_example/mlflow/mlflow.db"
MAX_BYTES = 6_000_000


def scratch_module() -> ModuleType:
    """Import ``mlruns_example/scratch.py``, which is no part of a package."""
    sys.path.insert(0, str(EXAMPLE_DIR))
    try:
        import scratch
    finally:
        sys.path.remove(str(EXAMPLE_DIR))
    return scratch


def committed() -> list[Path]:
    """Return the example's files that git knows, or would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "mlruns_example"]
    done = subprocess.run(command, cwd=ROOT_DIR, capture_output=True, text=True, check=True)
    return [ROOT_DIR / line for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelManager, Path]:
    """The scratch copy that ``make ui`` opens, made from files with the times of a clone."""
    clone = tmp_path_factory.mktemp("clone")
    for folder in FOLDERS:
        shutil.copytree(EXAMPLE_DIR / folder, clone / folder, copy_function=shutil.copyfile)
    base_dir = tmp_path_factory.mktemp("scratch") / "ml"
    return scratch_module().prepare(base_dir, clone), base_dir


@pytest.fixture(scope="module")
def manager(copied: tuple[ModelManager, Path]) -> ModelManager:
    return copied[0]


@pytest.fixture(scope="module")
def client(copied: tuple[ModelManager, Path]) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{copied[1] / 'mlflow' / 'mlflow.db'}")


@pytest.fixture(scope="module")
def versions(manager: ModelManager) -> list[ModelRecord]:
    return [manager.get(number) for number in range(1, 13)]


def test_all_that_is_committed_is_small() -> None:
    assert sum(path.stat().st_size for path in committed()) < MAX_BYTES


def test_nothing_in_it_names_a_machine_a_user_or_a_folder_of_theirs() -> None:
    folders = {str(ROOT_DIR), str(Path.home()), "/home/", "/Users/", "/root/", "C:\\"}
    host = socket.gethostname()
    for path in committed():
        if path.suffix in (".py", ".md", ".png", ".pkl"):
            continue
        content = path.read_bytes()
        assert not [name for name in folders if name.encode() in content], path
        assert len(host) < 4 or host.encode() not in content, path
    for path in (EXAMPLE_DIR / "mlflow" / "sent").glob("*.json"):
        record = parse(path.read_bytes())
        assert record.host == "example"
        if not record.is_save:
            continue
        assert record.payload.description.tags["mlflow.user"] == "example"
        assert record.payload.description.tags["mlflow.source.name"] == "mlruns_example/build.py"


def test_its_paths_are_relative_to_the_root_of_the_repository() -> None:
    database = EXAMPLE_DIR / "mlflow" / "mlflow.db"
    with closing(sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)) as opened:
        locations = opened.execute("SELECT artifact_uri FROM runs").fetchall()
        paths = [
            *opened.execute(
                "SELECT artifact_uri FROM runs JOIN experiments USING (experiment_id) "
                "WHERE experiments.name = 'lotto_model'"
            ),
            *opened.execute("SELECT artifact_location FROM logged_models"),
            *opened.execute("SELECT source FROM model_versions"),
            *opened.execute("SELECT storage_location FROM model_versions"),
        ]
    assert len(paths) == 48
    beginning = "mlruns_example/mlflow/artifacts/"
    assert all(path.startswith(beginning) for (path,) in [*paths, *locations])
    assert all((ROOT_DIR / path).is_dir() for (path,) in paths)


def test_both_views_agree_and_digests_hold(
    manager: ModelManager, copied: tuple[ModelManager, Path]
) -> None:
    assert manager.verify() == []
    base_dir = copied[1]
    on_disk = {path.stem: path.read_bytes() for path in (base_dir / "trained").glob("*.pkl")}
    assert len(on_disk) == 11
    for name, content in on_disk.items():
        record = manager.get(name)
        metadata = json.loads((base_dir / "metadata" / f"{name}_metadata.json").read_text("utf-8"))
        digest = hashlib.sha256(content).hexdigest()
        assert digest == record.sha256 == metadata["sha256"]
    assert [path.name for path in (base_dir / "backups").glob("*.pkl")] == [
        "lotto_model_forest_shallow.pkl"
    ]


def test_the_newest_is_the_same_in_both_views_though_a_clone_has_lost_the_times(
    manager: ModelManager, versions: list[ModelRecord]
) -> None:
    newest = manager.latest()
    assert newest is not None
    assert newest.version == 12
    assert manager.latest(source="registry") == newest
    for record in manager.records():
        assert record.path is not None
        assert record.path.stat().st_mtime_ns == record.saved_at_ns
    saved_at = [record.saved_at_ns or 0 for record in versions]
    assert saved_at == sorted(saved_at)


def test_there_are_twelve_saves_of_several_estimators_and_one_alias(
    manager: ModelManager, client: MlflowClient, versions: list[ModelRecord]
) -> None:
    runs = [client.get_run(str(record.run_id)) for record in versions]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len({run.info.run_id for run in runs}) == 12
    assert {run.data.params["estimator"] for run in runs} == {
        *("RandomForestClassifier", "ExtraTreesClassifier", "HistGradientBoostingClassifier"),
        *("LogisticRegression", "GaussianNB"),
    }
    champion = manager.get("models:/lotto_model@champion")
    aliases = client.get_registered_model("lotto_model").aliases
    assert {alias: int(version) for alias, version in aliases.items()} == {
        "champion": champion.version
    }
    assert champion.name.removeprefix("lotto_model_").startswith(("forest", "extra", "naive"))
    moves = manager.history()
    assert [move.kind for move in moves] == ["promote", "promote", "promote", "rollback"]
    assert all(move.reason and move.is_done for move in moves)
    assert champion.version == moves[1].to.version == moves[3].to.version
    assert moves[1].to_value < moves[1].from_value  # of a loss
    of_saves = (frozenset(m for m in run.data.metrics if not m.startswith("live.")) for run in runs)
    assert len(set(of_saves)) == 1


def test_three_models_have_predicted_thirty_draws(
    manager: ModelManager, client: MlflowClient
) -> None:
    rows = manager.accuracy()
    assert [(row.is_backtest, row.draws, row.games) for row in rows] == [(False, 30, 150)] * 3
    assert len({row.model for row in rows}) == 3
    for row in rows:
        run_id = str(manager.get(f"models:/lotto_model/{row.version}").run_id)
        history = client.get_metric_history(run_id, "live.hits_per_game")
        assert sorted(point.step for point in history) == list(range(1175, 1205))
        assert row.hits_per_game == pytest.approx(sum(p.value for p in history) / 30)
        assert row.log_loss == pytest.approx(0.3927, abs=0.02)
    assert len(manager.predictions()) == 90


def test_each_run_has_its_measures_beside_chance_lines_by_fold_plots_and_data(
    client: MlflowClient, versions: list[ModelRecord]
) -> None:
    for record in versions:
        run = client.get_run(str(record.run_id))
        metrics = run.data.metrics
        assert metrics["test_log_loss"] == pytest.approx(metrics["test_log_loss_of_chance"], 0.05)
        assert metrics["test_hits_per_draw_of_chance"] == pytest.approx(0.8)
        assert 0.4 < metrics["test_hits_per_draw"] < 1.2
        assert 0 < metrics["test_calibration_error"] < 0.1
        for key in ("fold_log_loss", "fold_hits_per_draw", "fold_calibration_error"):
            points = client.get_metric_history(run.info.run_id, key)
            assert sorted(point.step for point in points) == [0, 1, 2, 3, 4]
        plots = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert {"probability_per_number.png", "hits_per_draw.png"} <= plots
        data = {one.dataset.name: one.dataset.digest for one in run.inputs.dataset_inputs}
        assert data.keys() == {"train", "test"}


@pytest.fixture(scope="module")
def openable(
    copied: tuple[ModelManager, Path],
    versions: list[ModelRecord],
    tmp_path_factory: pytest.TempPathFactory,
) -> ModelManager:
    """The committed example, or where its scikit-learn is another, one built with the installed."""
    saved_with = {str(record.sklearn_version).rpartition(".")[0] for record in versions}
    if saved_with == {sklearn.__version__.rpartition(".")[0]}:
        return copied[0]
    base_dir = tmp_path_factory.mktemp("rebuilt") / "example"
    command = [sys.executable, str(EXAMPLE_DIR / "build.py"), "--directory", str(base_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (base_dir / "request.json").exists()
    manager: ModelManager = scratch_module().prepare(base_dir.with_name("copy"), base_dir)
    return manager


def request() -> pd.DataFrame:
    """Return the rows of the committed request."""
    values = json.loads((EXAMPLE_DIR / "request.json").read_text(encoding="utf-8"))
    assert values["params"] == {"predict_method": "predict_proba"}
    return pd.DataFrame(**values["dataframe_split"])


@pytest.mark.filterwarnings(  # of another patch release than the one that built it
    "ignore::sklearn.exceptions.InconsistentVersionWarning"
)
def test_every_model_predicts_from_both_views(openable: ModelManager) -> None:
    rows = request()
    assert rows.shape == (45, 4)
    assert openable.verify() == []
    for record in openable.records():
        loaded = openable.load_model(str(record.path)).predict_proba(rows)
        mirrored = openable.load_model(f"models:/lotto_model/{record.version}")
        assert np.array_equal(mirrored.predict_proba(rows), loaded)
        assert np.allclose(loaded.sum(axis=1), 1)
        assert loaded[:, 1].mean() == pytest.approx(6 / 45, abs=0.03)


@pytest.fixture
def cloned(tmp_path: Path) -> Path:
    """A folder with the example of the repository as it is now, with the times of now."""
    for path in committed():
        target = tmp_path / "clone" / path.relative_to(ROOT_DIR)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return tmp_path / "clone"


def test_mlflow_predicts_with_the_champion_as_typed_in_the_root_of_a_clone(cloned: Path) -> None:
    upgraded = [sys.executable, "-m", "mlflow", "db", "upgrade", DATABASE_URI]
    subprocess.run(upgraded, cwd=cloned, capture_output=True, check=True)
    typed = "models predict -m models:/lotto_model@champion -i mlruns_example/request.json"
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", *typed.split(), "--env-manager", "local"],
        cwd=cloned,
        env=os.environ | {"MLFLOW_TRACKING_URI": DATABASE_URI},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: Any = json.loads(done.stdout[done.stdout.index("{") :])
    assert np.array(answer["predictions"]).shape == (45, 2)


def test_looking_at_the_scratch_copy_changes_no_committed_file(tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in committed()}
    scratch = scratch_module()
    copy = scratch.prepare(tmp_path / "ml")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # another minor release of scikit-learn warns
        path = copy.get_latest_model_path(source="registry")
        copy.load_model(str(path))
    assert {path: path.read_bytes() for path in committed()} == before


def test_the_scratch_copy_heeds_no_store_of_the_surroundings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    assert len(scratch_module().prepare(tmp_path / "ml").records()) == 11
    assert not (tmp_path / "other.db").exists()


def test_its_readme_shows_commands_that_are_typed_here_and_pictures_that_are_there() -> None:
    text = (EXAMPLE_DIR / "README.md").read_text(encoding="utf-8")
    assert f"mlflow ui --backend-store-uri {DATABASE_URI}\n" in text
    assert f"mlflow db upgrade {DATABASE_URI}\n" in text
    for name in ("runs", "compare"):
        assert f"](screenshots/{name}.png)" in text
        content = (EXAMPLE_DIR / "screenshots" / f"{name}.png").read_bytes()
        assert content.startswith(b"\x89PNG\r\n")
