"""PostgreSQL, SeaweedFS and MLflow's servers, started once and shared by these tests."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import postgresql
import pytest
from integration import objects
from integration.figures import Figures
from integration.servers import TrackingServer, direct, proxied
from serving import MLFLOW

Serve = Callable[..., TrackingServer]


@pytest.fixture(scope="session")
def database() -> Iterator[postgresql.Server]:
    """A PostgreSQL server."""
    with postgresql.running() as server:
        yield server


@pytest.fixture(scope="session")
def new_database(database: postgresql.Server) -> Callable[[str], str]:
    """Makes a database with the tables of the installed MLflow; returns its URI."""
    template = database.new_database("template_of_mlflow")
    subprocess.run([*MLFLOW, "db", "upgrade", template], check=True, capture_output=True)
    return lambda name: database.new_database(name, template="template_of_mlflow")


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[objects.SeaweedFS]:
    """SeaweedFS, with a bucket."""
    with objects.seaweedfs(tmp_path_factory.mktemp("objects")) as store:
        yield store


@pytest.fixture(scope="session")
def serve(
    tmp_path_factory: pytest.TempPathFactory,
    new_database: Callable[[str], str],
    object_store: objects.SeaweedFS,
) -> Iterator[Serve]:
    """Starts a server with a database of its own: ``serve("name", options, settings, workers)``."""
    started: list[TrackingServer] = []

    def start(
        name: str,
        options: list[str] | None = None,
        settings: dict[str, str] | None = None,
        workers: int = 1,
        scheme: str = "http",
    ) -> TrackingServer:
        server = TrackingServer(
            tmp_path_factory.mktemp(name),
            new_database(name),
            proxied(name) if options is None else options,
            object_store.environment() | (settings or {}),
            workers,
            scheme,
        )
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def direct_server(serve: Serve) -> TrackingServer:
    """A server whose clients reach the bucket themselves."""
    return serve("direct", direct("direct"))


@pytest.fixture(scope="session")
def proxy_server(serve: Serve) -> TrackingServer:
    """A server through which all artifacts go; its clients know nothing of the bucket."""
    return serve("proxied")


@pytest.fixture
def reaches_bucket(
    clean_surroundings: None, object_store: objects.SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let a test, and what it starts, reach the bucket."""
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def host(tmp_path: Path) -> Callable[[str], Path]:
    """Returns the folder of models of a host: folders are all that hosts do not share here."""
    return lambda name: tmp_path / name / "models" / "ml"


@pytest.fixture(scope="session")
def figures() -> Figures:
    """Keeps what was measured, for the table in the README."""
    return Figures()
