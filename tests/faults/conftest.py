"""The fault tests' marker, and the figures that they leave for the README's table."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import pytest
from faults import crashes

from lotto_mlflow import push as pushing
from lotto_mlflow.mirror import connection

FIGURES_DIR = os.environ.get("LOTTO_FAULT_FIGURES")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(autouse=True)
def real_limit(clean_surroundings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold saves and lookups to the limits that users meet."""
    monkeypatch.setattr(pushing, "WAIT_SECONDS", 5.0)
    monkeypatch.setattr(connection, "LOOKUP_SECONDS", 5.0)


@pytest.fixture
def patient_lookups(real_limit: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for an answer of MLflow as long as a busy machine may take, where none is to be late."""
    monkeypatch.setattr(connection, "LOOKUP_SECONDS", 120.0)


@pytest.fixture(scope="module")
def warm_parent() -> Iterator[Pool]:
    """A process that has imported everything, from which children are forked."""
    with crashes.warm_parent() as pool:
        yield pool


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Leave figures of a test: ``figures("Crash points", tried=120, lost=0, plain_lost=7)``.

    Figures of one title are added up in the table: ``tried`` and ``lost`` are this package's,
    ``plain_lost`` is what the same test lost with ``joblib.dump`` and MLflow's own ``log_model``,
    where it applies.
    """

    def leave(title: str, **numbers: int) -> None:
        if FIGURES_DIR:
            name = f"{request.node.name.replace('/', '_')[:120]}-{os.getpid()}.json"
            content: dict[str, Any] = {"title": title, **numbers}
            (Path(FIGURES_DIR) / name).write_text(json.dumps(content), encoding="utf-8")

    return leave
