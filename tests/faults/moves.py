"""What people do in MLflow with its own commands, and what a folder's fixes do afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from faults.attackers import attempted
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from serving import environment

from lotto_mlflow import ModelManager
from lotto_mlflow.cli.output import values_of_finding
from lotto_mlflow.records import Finding

TITLE = "Moves made with plain MLflow"
ROUNDS = 4


@dataclass
class Store:
    """A model folder, and the store in which people move things."""

    base_dir: Path
    uri: str
    manager: ModelManager
    monkeypatch: pytest.MonkeyPatch

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def versions(self) -> list[ModelVersion]:
        return list(self.client.search_model_versions(max_results=1000))

    def version(self, number: int, name: str = "x") -> ModelVersion:
        return self.client.get_model_version(name, str(number))

    def model_id(self, number: int, name: str = "x") -> str:
        return str(self.version(number, name).tags["model_id"])

    def opened(self) -> dict[tuple[str, str], Any]:
        """Return what each version of each registered model is, or why it does not open."""
        found = {}
        for one in self.versions():
            uri = f"models:/{one.name}/{one.version}"
            found[one.name, str(one.version)] = attempted(
                lambda uri=uri: self.manager.load_model(uri)
            )
        return found

    def saves(self) -> Counter[str]:
        """Return how many versions there are of each save, by its run, which each has."""
        return Counter(one.run_id for one in self.versions())

    def register_again(self, model_id: str, name: str) -> None:
        with self.monkeypatch.context() as patched:
            patched.setenv("MLFLOW_TRACKING_URI", self.uri)
            mlflow.register_model(f"models:/{model_id}", name)

    def gc(self) -> None:
        """Run the real command."""
        database = f"sqlite:///{self.base_dir / 'mlflow' / 'mlflow.db'}"
        command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", database]
        known = environment(MLFLOW_TRACKING_URI=database)
        subprocess.run(command, env=known, check=True, capture_output=True)


def open_findings(store: Store) -> list[Finding]:
    """Return what `verify` finds and does not call right as it is."""
    found = store.manager.verify()
    return [f for f in found if not f.repair.startswith("none is needed")]


def fix_by_calls(store: Store, findings: list[Finding]) -> list[str]:
    """Do once what each finding says, in Python; return what could not be done."""
    done: list[str] = []
    refused = []
    for finding in findings:
        if finding.fix is None:
            refused.append(str(finding))
        elif (call := finding.fix.as_call()) not in done:
            done.append(call)
            if finding.fix.verb == "shell":
                subprocess.run(call, shell=True, check=True)
            else:
                made = attempted(
                    lambda fix=finding.fix: getattr(store.manager, fix.verb)(**fix.arguments)
                )
                refused += [str(made)] if isinstance(made, Exception) else []
    return refused


def fix_by_commands(store: Store, findings: list[Finding]) -> list[str]:
    """Paste each command that `verify` prints, once; return what could not be done."""
    commands = dict.fromkeys(
        str(values_of_finding(finding, store.base_dir)["mend"]) for finding in findings
    )
    known = environment(MLFLOW_TRACKING_URI=store.uri) if "://" in store.uri else environment()
    refused = []
    for command in commands:
        ended = subprocess.run(
            command, shell=True, env=known, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            refused.append(f"{command}: {ended.stdout}{ended.stderr}")
    return refused


def lost_by(
    store: Store,
    move: Callable[[Store], Any],
    fix: Callable[..., list[str]],
    *,
    collected: bool = False,
) -> list[str]:
    """Make a move, and do what `verify` then says until it says nothing; return what was lost.

    With ``collected``, ``mlflow gc`` removes the files of what the move deleted.
    """
    known = {repr(value) for value in store.opened().values()}
    move(store)
    if collected:
        store.gc()
    before, saves, lost = store.opened(), store.saves(), []
    if not collected:
        lost += [f"{place}: {one}" for place, one in before.items() if repr(one) not in known]
    for number in range(ROUNDS + 1):
        findings = open_findings(store)
        if not findings:
            break
        if number == ROUNDS:
            lost += [f"still found: {finding}" for finding in findings]
            break
        lost += fix(store, findings)
    after = store.opened()
    lost += [
        f"{place} was {one}, is {after.get(place)}"
        for place, one in before.items()
        if not isinstance(one, Exception) and repr(after.get(place)) != repr(one)
    ]
    missing = known - {repr(one) for one in after.values()}
    lost += [f"no version any more of {one}" for one in missing]
    now = store.saves()
    lost += [f"{now[run]} versions of {run}" for run in saves if now[run] > max(saves[run], 1)]
    for again in (store.manager.sync(), store.manager.sync(resend=True)):
        lost += [f"sent once more: {name}" for name in again.sent]
    lost += [] if store.saves() == now else ["a sync made versions"]
    return lost
