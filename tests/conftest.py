"""Folders, databases and models that the tests share."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import folder_with_store
from serving import tracking_server
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from users import Users

from lotto_mlflow import ModelManager, settings
from lotto_mlflow import push as pushing
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.layout import Layout
from lotto_mlflow.mirror import connection

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # a server would start eight more
os.environ.setdefault("MPLBACKEND", "Agg")
for _library in ("lightgbm", "boto3"):
    # here, since after a test of autologging MLflow's hooks import in a way that Python warns of
    with suppress(ImportError, OSError):
        importlib.import_module(_library)


@pytest.fixture(autouse=True)
def clean_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give each test an environment without settings, and a current folder of its own."""
    for name in list(os.environ):
        if name.startswith("LOTTO_") or name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LOTTO_STATE_DIR", str(tmp_path / "state"))
    # a busy machine may be slow: only the fault tests hold saves and lookups to their five seconds
    monkeypatch.setattr(pushing, "WAIT_SECONDS", 60.0)
    monkeypatch.setattr(connection, "LOOKUP_SECONDS", 60.0)
    current_dir = tmp_path / "current"
    current_dir.mkdir()
    monkeypatch.chdir(current_dir)


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded database, made once: each test copies it instead of migrating its own."""
    folder = ModelFolder(
        Layout.under(tmp_path_factory.mktemp("template")), partial(settings.read, environment={})
    )
    folder.mirror(folder.target()).create()
    return folder.layout.database_path


@pytest.fixture
def base_dir(tmp_path: Path, migrated_database: Path) -> Path:
    """A folder with an embedded store in which nothing has been saved."""
    return folder_with_store(tmp_path / "ml", migrated_database)


@pytest.fixture
def manager(base_dir: Path) -> ModelManager:
    """A manager of that folder, which mirrors every save."""
    return ModelManager(base_dir)


@pytest.fixture
def disk_manager(tmp_path: Path) -> ModelManager:
    """A manager of an empty folder, which mirrors nothing."""
    return ModelManager(tmp_path / "ml", mirror="off")


@pytest.fixture(scope="module")
def server_uri(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[str]:
    """The address of a tracking server with a database and artifacts of its own."""
    server_dir = tmp_path_factory.mktemp("server")
    shutil.copyfile(migrated_database, server_dir / "server.db")
    with tracking_server(server_dir / "server.db", server_dir / "artifacts") as uri:
        yield uri


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that every user reaches, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="lotto-users-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def users(place: Path, migrated_database: Path) -> Iterator[Users]:
    """Other users of the machine, whose work a process of each does."""
    started = Users(folder_with_store(place / "scratch", migrated_database))
    yield started
    started.close()


@pytest.fixture(scope="session")
def rows() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Sixty rows of five features, and a class for each."""
    random = np.random.default_rng(645)
    features = random.normal(size=(60, 5))
    return features, (features[:, 0] > 0).astype(int)


@pytest.fixture(scope="session")
def forest(rows: Any) -> RandomForestClassifier:
    """A small fitted forest."""
    return RandomForestClassifier(n_estimators=5, max_depth=3, random_state=1).fit(*rows)


@pytest.fixture(scope="session")
def regression(rows: Any) -> LogisticRegression:
    """A fitted logistic regression."""
    return LogisticRegression(C=0.5).fit(*rows)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Make a skipped test a failure where nothing may skip, and show what was compared."""
    if os.environ.get("LOTTO_NO_SKIPS") and terminalreporter.stats.get("skipped"):
        terminalreporter.section("tests were skipped where LOTTO_NO_SKIPS allows none")
        terminalreporter._session.exitstatus = pytest.ExitCode.TESTS_FAILED
    reports = [r for r in terminalreporter.stats.get("passed", ()) if r.when == "call"]
    cells = [value for r in reports for key, value in r.user_properties if key == "predictions"]
    if cells:
        terminalreporter.section("forms of data that MLflow predicts as the estimator does")
        terminalreporter.write_line(_table(cells))


def _table(cells: list[tuple[str, str, list[str]]]) -> str:
    """Return how many forms were compared, a row for each estimator, a column for each route."""
    counts: dict[str, dict[str, int]] = {}
    for name, route, forms in sorted(cells):
        counts.setdefault(name, {})[route] = len(forms)
    routes = sorted({route for row in counts.values() for route in row})
    lines = [f"{'estimator':37}" + "".join(f"{route:>20}" for route in routes)]
    for name, row in counts.items():
        lines.append(f"{name:37}" + "".join(f"{row.get(route, ''):>20}" for route in routes))
    return "\n".join(lines)
