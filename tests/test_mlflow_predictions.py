"""What MLflow predicts with a mirrored model is what the estimator answers, whatever the form."""

from __future__ import annotations

import importlib
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import prediction_cases as cases
import pytest
from made import folder_with_store
from prediction_cases import Case
from serving import MLFLOW, free_port, served

from lotto_mlflow import ModelManager

pytestmark = [
    pytest.mark.xdist_group("predictions"),  # one store and one server
    pytest.mark.timeout(900),  # the first test waits for both
    # scikit-learn and LightGBM say so where the names of fit and predict differ, and answer
    pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names:UserWarning"),
    # MLflow's hooks import so what a test of autologging has them watch
    pytest.mark.filterwarnings("ignore:the load_module.. method is deprecated:DeprecationWarning"),
    # category_encoders 2.11 sets an option of pandas that pandas 3.1 no longer needs
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
]
TESTS_DIR = Path(__file__).parent
BLOCKER = "import sys; sys.modules['lotto_mlflow'] = None"
TIMES = "times"
WITH_EXAMPLE = [
    *("forest on arrays", "logistic on names", "isotonic", "several targets", "sparse"),
    *("columns by name", "missing and odd kinds", "categories of scikit-learn", "dicts"),
    *("class that reads columns", "columns of two levels", "texts", "texts as a series"),
    *("texts of a column", "texts beside numbers", "CatBoost, integer categories", "formula"),
    *("least squares on arrays", "LightGBM, categories behind a step", "encoded targets", TIMES),
]


@dataclass(frozen=True)
class Saved:
    """A case, its models without and with an input example, and what the estimator answers."""

    number: int
    case: Case
    plain: str
    with_example: str | None
    expected: Any


@dataclass(frozen=True)
class House:
    """All cases, saved and served."""

    saved: dict[str, Saved]
    address: str
    folder: Path

    def of(self, name: str) -> Saved:
        """Return a case, or skip the test where its library is missing."""
        if name not in self.saved:
            pytest.skip(f"{cases.library_of(name)} cannot be imported")
        return self.saved[name]


def is_there(library: str | None) -> bool:
    try:
        importlib.import_module(library or "sklearn")
    except (ImportError, OSError):  # OSError: the system lacks a library that it needs
        return False
    return True


def saved_cases(manager: ModelManager, base_dir: Path) -> dict[str, Saved]:
    made, ids = {}, {}
    for number, name in enumerate([*cases.NAMES, TIMES]):
        if not is_there(cases.library_of(name)):
            continue
        case = made[name] = cases.times() if name == TIMES else cases.made(name)
        for letter, is_wanted in (("p", True), ("e", name in WITH_EXAMPLE)):
            if is_wanted:
                example = case.rows if letter == "e" else None
                key = f"{letter}{number}"
                manager.save_model(case.model, key, {"name": name}, input_example=example)
                ids[letter, name] = manager.get(key).model_id
    folders = {path.parent.parent.name: str(path.parent) for path in base_dir.rglob("MLmodel")}
    return {
        name: Saved(
            number,
            case,
            folders[ids["p", name]],
            folders.get(ids.get(("e", name), "")),
            case.model.predict(case.rows),
        )
        for number, (name, case) in enumerate(made.items())
    }


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("predictions")
    base_dir = folder_with_store(folder / "ml", migrated_database)
    saved = saved_cases(ModelManager(base_dir), base_dir)
    (folder / "sitecustomize.py").write_text(BLOCKER)
    plan = {"port": free_port(), "models": {}, "tasks": []}
    for one in saved.values():
        plan["models"][f"p{one.number}"] = one.plain
        if one.with_example is not None:
            plan["models"][f"e{one.number}"] = one.with_example
        plan["tasks"] += list(tasks_of(one, folder))
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    command = [sys.executable, str(TESTS_DIR / "scoring.py"), str(folder / "plan.json")]
    path = f"{folder}:{TESTS_DIR}"
    ready = f"http://127.0.0.1:{plan['port']}/ready"
    with served(command, ready, folder / "log.txt", PYTHONPATH=path) as address:
        yield House(saved, address, folder)


def tasks_of(one: Saved, folder: Path) -> Iterator[dict[str, str]]:
    """Yield what ``mlflow models predict`` is to do with a case."""
    given = [("json", json.dumps(body)) for key, body in one.case.json.items() if key == "split"]
    given += [("csv", one.case.csv)] if one.case.csv else []
    for kind, text in given:
        path = folder / f"{one.number}.{kind}"
        path.write_text(text, encoding="utf-8")
        output = f"{path}.answer"
        yield {"model": one.plain, "input": str(path), "type": kind, "output": output}


def numbers(answer: Any) -> np.ndarray[Any, Any]:
    """Return an answer as an array; a series comes back from JSON as one dict a row."""
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        answer = [next(iter(row.values())) for row in answer]
    return np.asarray(answer)


def same(found: Any, expected: Any) -> bool:
    first, second = numbers(found), numbers(expected)
    return first.shape == second.shape and bool(
        np.allclose(first.astype(float), second.astype(float))
    )


def own_answer(saved: Saved, form: str) -> Any:
    """Return what the estimator answers to a form, or to the rows where it refuses that form."""
    case = saved.case
    if form not in case.misread:
        try:
            return case.model.predict(case.forms[form])
        except Exception:  # noqa: BLE001 - whatever it says
            pass
    return np.asarray(saved.expected)[: 1 if form == "one" else None]


def ask(address: str, body: dict[str, Any]) -> Any:
    content = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/invocations", content, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["predictions"]
    except urllib.error.HTTPError as error:
        return error.read().decode()[-500:]


def note(record: Callable[[str, object], None], name: str, route: str, forms: list[str]) -> None:
    """Leave a cell of the table that the end of the run shows."""
    record("predictions", [name, route, forms])


@pytest.mark.parametrize("name", cases.NAMES)
def test_each_form_gives_the_answer_of_the_estimator(
    house: House, name: str, record_property: Any
) -> None:
    saved = house.of(name)
    loaded = mlflow.pyfunc.load_model(saved.plain)
    forms = {"rows": saved.case.rows} | saved.case.forms
    for form, data in forms.items():
        expected = saved.expected if form == "rows" else own_answer(saved, form)
        found = loaded.predict(data)
        assert same(found, expected), (form, found)
    note(record_property, name, "pyfunc", list(forms))


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_an_input_example_changes_no_answer(house: House, name: str, record_property: Any) -> None:
    saved = house.of(name)
    loaded = mlflow.pyfunc.load_model(str(saved.with_example))
    assert same(loaded.predict(saved.case.rows), saved.expected)
    asked = {key: body for key, body in saved.case.json.items() if key in ("split", "records")}
    for key, body in asked.items():
        found = ask(f"{house.address}/e{saved.number}", body)
        assert same(found, saved.expected), (key, found)
    note(record_property, name, "with input_example", ["rows", *asked])


@pytest.mark.parametrize("name", cases.NAMES)
def test_a_server_gives_the_answer_of_the_estimator(
    house: House, name: str, record_property: Any
) -> None:
    saved = house.of(name)
    for key, body in saved.case.json.items():
        expected = saved.expected[:1] if key == "one row" else saved.expected
        found = ask(f"{house.address}/p{saved.number}", body)
        assert not isinstance(found, str), (key, found)
        assert same(found, expected), (key, found)
    note(record_property, name, "serve", list(saved.case.json))


@pytest.mark.parametrize("name", cases.NAMES)
def test_the_command_gives_the_answer_of_the_estimator(
    house: House, name: str, record_property: Any
) -> None:
    saved = house.of(name)
    answers = sorted(house.folder.glob(f"{saved.number}.*.answer"))
    for path in answers:
        answer = json.loads(path.read_text(encoding="utf-8"))
        assert same(answer.get("predictions", answer.get("error")), saved.expected), path.name
    note(record_property, name, "models predict", [path.suffixes[0][1:] for path in answers])


@pytest.mark.parametrize("name", cases.PLAIN)
def test_mlflows_own_flavour_gives_the_same_where_it_answers(
    house: House, name: str, record_property: Any, tmp_path: Path
) -> None:
    saved = house.of(name)
    mlflow.sklearn.save_model(
        saved.case.model,
        tmp_path / "own",
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
    )
    own, ours = map(mlflow.pyfunc.load_model, (str(tmp_path / "own"), saved.plain))
    compared = []
    for form, data in ({"rows": saved.case.rows} | saved.case.forms).items():
        try:
            expected = own.predict(data)
        except Exception:  # noqa: BLE001 - whatever it says
            continue
        if form not in saved.case.misread:
            assert same(ours.predict(data), expected), form
            compared.append(form)
    assert compared
    note(record_property, name, "as mlflow.sklearn", compared)


@pytest.mark.parametrize("name", ["columns by name behind another step"])
def test_a_server_of_its_own_gives_the_answer_of_the_estimator(
    house: House, name: str, tmp_path: Path
) -> None:
    saved, port = house.of(name), free_port()
    command = [*MLFLOW, "models", "serve", "-m", saved.plain, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    ready, path = f"http://127.0.0.1:{port}/ping", f"{house.folder}:{TESTS_DIR}"
    with served(command, ready, tmp_path / "log.txt", PYTHONPATH=path) as address:
        for key, body in saved.case.json.items():
            assert same(ask(address, body), saved.expected), key
