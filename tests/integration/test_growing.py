"""What a save costs a server, what more workers bring, and the commands that OPERATIONS shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import postgresql
import pytest
from integration.conftest import Serve
from integration.figures import Figures
from integration.servers import TrackingServer, direct, proxied
from serving import environment

from lotto_mlflow import ModelManager

OPERATIONS = Path(__file__).parents[2] / ".github" / "OPERATIONS.md"
CLIENTS, SAVES = 3, 8
_TRAINER = """
import sys, time
from pathlib import Path
from lotto_mlflow import ModelManager
folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
manager = ModelManager(folder / name)
manager.warm_up(wait=True)
manager.save_model({"n": -1}, name, {"n": 1})
assert manager.flush(120)
(folder / f"{name}.ready").touch()
while not (folder / "go").exists():
    time.sleep(0.01)
for number in range(count):
    manager.save_model({"n": number}, name, {"accuracy": 0.5})
assert manager.flush(200)
"""


def _rows(database: postgresql.Server, name: str) -> dict[str, tuple[int, int]]:
    """Return how many rows each table has, and their bytes."""
    found = {}
    tables = "SELECT string_agg(tablename, ',') FROM pg_tables WHERE schemaname = 'public'"
    for table in database.execute(tables, name)[0].split(","):
        question = f'SELECT count(*), coalesce(sum(pg_column_size(t.*)), 0) FROM "{table}" t'
        found[table] = tuple(map(int, database.execute(question, name)))
    return found


def test_a_save_costs_no_more_rows_and_requests_than_the_table_says(
    host: Callable[[str], Path], serve: Serve, database: postgresql.Server, figures: Figures
) -> None:
    server = serve("counted")
    manager = ModelManager(host("one"), tracking_uri=server.uri)
    metadata = {"accuracy": 0.5, "n_draws": 1_000, "note": "weekly", "params": {"depth": 3, "n": 5}}
    for number in range(2):  # the first also makes the experiment and the registered model
        manager.save_model({"n": number}, metadata=metadata)
        assert manager.flush(60)
    before, requests_before = _rows(database, "counted"), len(server.requests())
    count = 5
    for number in range(count):
        manager.save_model({"n": number}, metadata=metadata)
        assert manager.flush(60)
    after, requests = _rows(database, "counted"), server.requests()[requests_before:]
    grown = {table: (after[table][0] - before[table][0]) / count for table in after}
    grown = {table: rows for table, rows in sorted(grown.items()) if rows}
    size = sum(after[table][1] - before[table][1] for table in after) / count
    assert grown["runs"] == grown["model_versions"] == grown["logged_models"] == 1
    rows, asked = sum(grown.values()), len(requests) / count
    assert rows < 80
    assert asked < 40
    files = sum(1 for method, path in requests if method == "PUT") / count
    figures("requests of one save, artifacts included", f"{asked:g}", section="counted")
    figures("uploads among them", f"{files:g}", section="counted")
    listed = ", ".join(f"{table} {number:g}" for table, number in grown.items())
    figures("rows of one save", f"{rows:g} ({listed})", section="counted")
    figures("bytes of those rows, without indexes", f"{size:,.0f}", section="counted")
    figures(
        "rows and bytes of 1,000,000 versions",
        f"{rows:g} million rows, {size / 1000:.1f} GB and their indexes",
        section="counted",
    )
    assert Counter(method for method, _ in requests)["DELETE"] == 0


def _saves_per_second(server: TrackingServer, folder: Path) -> float:
    folder.mkdir()
    told = environment(MLFLOW_TRACKING_URI=server.uri)
    names = [f"trainer-{folder.name}-{number}" for number in range(CLIENTS)]
    command = [sys.executable, "-c", _TRAINER, str(folder)]
    trainers = [subprocess.Popen([*command, name, str(SAVES)], env=told) for name in names]
    try:
        deadline = time.monotonic() + 200
        while not all((folder / f"{name}.ready").exists() for name in names):
            assert time.monotonic() < deadline
            assert not [one for one in trainers if one.poll()]
            time.sleep(0.05)
        begun = time.monotonic()
        (folder / "go").touch()
        assert [one.wait(250) for one in trainers] == [0] * CLIENTS
        return CLIENTS * SAVES / (time.monotonic() - begun)
    finally:
        for one in trainers:
            if one.poll() is None:
                one.kill()
                one.wait(30)


def test_several_workers_answer_several_trainers(
    tmp_path: Path,
    host: Callable[[str], Path],
    serve: Serve,
    proxy_server: TrackingServer,
    figures: Figures,
) -> None:
    one = _saves_per_second(proxy_server, tmp_path / "one")
    server = serve("workers", workers=4)
    four = _saves_per_second(server, tmp_path / "four")
    reader = ModelManager(host("reader"), tracking_uri=server.uri)
    for number in range(CLIENTS):
        record = reader.get(f"models:/trainer-four-{number}/latest")
        assert record.version == SAVES + 1
    figures(f"saves a second of {CLIENTS} trainers, one server worker", f"{one:.1f}")
    figures(
        "saves with four server workers against one, on this machine's cores", f"{four / one:.2f}x"
    )


def _shown_commands() -> list[list[str]]:
    section = OPERATIONS.read_text(encoding="utf-8").partition("## Growing further")[2]
    text = section.partition("\n## ")[0].replace("\\\n", " ")
    found = re.findall(r"^\$ (mlflow server .*)$", text, flags=re.MULTILINE)
    return [shlex.split(line) for line in found]


@pytest.mark.parametrize(("number", "options"), [(0, proxied("mlflow")), (1, direct("mlflow"))])
def test_the_commands_that_operations_shows_are_those_of_the_tests(
    tmp_path: Path, number: int, options: list[str]
) -> None:
    command = TrackingServer(tmp_path, "postgresql://", options, {}, workers=4).command
    shown = _shown_commands()
    assert len(shown) == 2

    def names(words: list[str]) -> list[str]:
        return [word for word in words if word.startswith("--")]

    assert names(shown[number]) == names(command)
    assert shown[number][-len(options) :] == options
    assert shown[number][shown[number].index("--workers") + 1] == "4"
    backend = shown[number][shown[number].index("--backend-store-uri") + 1]
    assert backend.startswith("postgresql://")


def test_the_section_is_short() -> None:
    section = OPERATIONS.read_text(encoding="utf-8").partition("## Growing further")[2]
    assert len(section.partition("\n## ")[0].splitlines()) <= 40
