"""A registered model of its own for each test of aliases, in SQLite and on a tracking server."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import ViewType

from lotto_mlflow import ModelManager
from lotto_mlflow.records import home_of


@dataclass
class Aliased:
    """A folder, its store, and the name of a model that nobody else has there."""

    base_dir: Path
    uri: str | None
    name: str

    @property
    def manager(self) -> ModelManager:
        return ModelManager(self.base_dir, tracking_uri=self.uri)

    @property
    def client(self) -> MlflowClient:
        embedded = f"sqlite:///{self.base_dir / 'mlflow' / 'mlflow.db'}"
        return MlflowClient(tracking_uri=self.uri or embedded)

    def reference(self, version: int) -> str:
        return f"models:/{self.name}/{version}"

    def save(self, count: int = 1, **metrics: Any) -> int:
        """Save a model so often; return the number of the last version."""
        manager = self.manager
        for _ in range(count):
            path = manager.save_model({"model": uuid.uuid4().hex}, self.name, metrics or None)
        assert manager.flush(120)
        return int(manager.get(path).version or 0)

    def promote(self, version: int, alias: str = "champion", **arguments: Any) -> Any:
        return self.manager.promote(self.reference(version), alias, **arguments)

    def rollback(self, alias: str = "champion", **arguments: Any) -> Any:
        return self.manager.rollback(alias, registered_model=self.name, **arguments)

    def history(self, alias: str = "champion") -> list[tuple[str, int | None, int | None]]:
        """Return the kinds of the moves of an alias, with the versions before and after."""
        moves = self.manager.history(alias, registered_model=self.name)
        before = None
        for move in moves:
            assert move.from_ == before
            assert (move.alias, move.registered_model) == (alias, self.name)
            before = move.to
        return [(m.kind, m.from_ and m.from_.version, m.to and m.to.version) for m in moves]

    def holder(self, alias: str = "champion") -> int | None:
        """Return what MLflow itself says that an alias stands for."""
        found = self.client.get_registered_model(self.name).aliases.get(alias)
        return None if found is None else int(found)

    def set_outside(self, version: int, alias: str = "champion") -> None:
        self.client.set_registered_model_alias(self.name, alias, str(version))

    def homes(self) -> list[str]:
        """Return the experiments that hold the history, or were to hold it."""
        found = self.client.search_experiments(view_type=ViewType.ACTIVE_ONLY)
        return [e.name for e in found if e.name.startswith(home_of(self.name))]

    def params(self) -> dict[str, str]:
        """Return what the run of the history holds."""
        home = self.client.get_experiment_by_name(home_of(self.name))
        (run,) = self.client.search_runs([home.experiment_id])
        return dict(run.data.params)
