"""The Markdown summary that run, logged model and version show, and what else the UI lines up."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from made import save_record
from mlflow import MlflowClient
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from lotto_mlflow import ModelManager
from lotto_mlflow.mirror import entities
from lotto_mlflow.records import Description, SaveRecord
from lotto_mlflow.text import size_as_text

RECORD = save_record(
    Description(
        model_type="RandomForestClassifier",
        metrics={"log_loss": [[0, 0.39271234567]], "hits": [[0, 1.0], [1, 0.5]]},
        requirements=["scikit-learn==1.7.1"],
        datasets=[{"context": "train", "digest": "0123", "shape": [24750, 4]}],
    ),
    name="lotto_model_20251103",
    size=614_200,
    saved_at="2025-11-03T01:13:20.123456+09:00",
)
NOTE = "mlflow.note.content"


@pytest.fixture
def client(base_dir: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")


def described(**changes: Any) -> SaveRecord:
    description = replace(RECORD.payload.description, **changes)
    return replace(RECORD, payload=replace(RECORD.payload, description=description))


def test_it_tells_what_people_look_for_first() -> None:
    lines = entities.summary(RECORD, "m-1", "7", version=12).splitlines()
    assert lines == [
        "RandomForestClassifier, log_loss 0.392712, saved 2025-11-03 01:13",
        "",
        "| metric | value |",
        "|---|---|",
        "| `log_loss` | 0.392712 |",
        "| `hits` | 1, 0.5 |",
        "",
        "Saved as `lotto_model_20251103` on 2025-11-03 01:13:20+09:00",
        "",
        "- data `train`: 24,750 \N{MULTIPLICATION SIGN} 4, digest `0123`",
        f"- 614.2 kB, SHA-256 `{'ab' * 32}`",
        "- scikit-learn `1.7.1`",
        "- logged model [m-1](#/experiments/7/models/m-1?workflowType=machine_learning)",
        "- `lotto_mlflow.load_model('models:/lotto_model/12')` opens version 12",
        "- `mlflow.pyfunc.load_model('models:/m-1')` predicts with it, where only MLflow is "
        "installed",
    ]


def test_the_first_metric_is_a_result_and_not_the_time_that_it_took() -> None:
    record = described(metrics={"training_started_at": [[0, 1.7e9]], "hits": [[0, 0.5]]})
    assert entities.summary(record).startswith("RandomForestClassifier, hits 0.5, saved ")
    record = described(metrics={"training_seconds": [[0, 90.0]], "hits": [[0, 1.0], [1, 0.5]]})
    assert entities.summary(record).startswith("RandomForestClassifier, hits 0.5, saved ")
    record = described(metrics={"training_seconds": [[0, 90.0]]})
    assert entities.summary(record).startswith("RandomForestClassifier, saved ")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *((name, name) for name in ("log_loss", "f1-score", "test.f1", "hits per draw", "정확도")),
        *((name, f"`{name}`") for name in ("__init__", "*best*", "a_", "@maria", ":tada:")),
        *(
            (name, f"`{name}`")
            for name in ("www.example.org", "http://a.b", "<b>", "~~a~~", "a  b")
        ),
    ],
)
def test_a_name_is_plain_words_where_no_character_means_anything(name: str, shown: str) -> None:
    first_line = entities.summary(described(metrics={name: [[0, 0.5]]})).splitlines()[0]
    shown = " ".join(shown.split())
    assert first_line == f"RandomForestClassifier, {shown} 0.5, saved 2025-11-03 01:13"


@pytest.mark.parametrize(
    "odd",
    ["a`b", "| x |", "**bold**", "<script>", "[a](b)", "a\n\n# b", "", " ", "`" * 300, "글" * 900],
)
def test_no_character_of_the_caller_has_a_meaning(odd: str) -> None:
    record = described(
        model_type=odd,
        metrics={odd: [[0, 1.0]]},
        datasets=[{"context": odd, "digest": odd, "shape": None}],
    )
    record = replace(record, payload=replace(record.payload, name=odd or "m"))
    text = entities.summary(record, "m-1", "1", version=1)
    outside = re.sub(r"`[^`\n]+`", "", text)
    assert "`" not in outside
    assert not {"script", "bold", "# b", "글"} & set(re.findall(r"script|bold|# b|글", outside))
    table = [line for line in outside.splitlines() if line.startswith("|")]
    assert [line.count("|") for line in table] == [3, 3, 3]


def test_it_stays_short_whatever_there_is_to_tell() -> None:
    record = described(
        metrics={f"{'긴' * 200}{i}": [[s, 1 / 3] for s in range(2_500)] for i in range(300)},
        datasets=[{"context": "d" * 250, "digest": "0" * 36, "shape": [1] * 9} for _ in range(99)],
    )
    record = replace(record, payload=replace(record.payload, name=f"lotto_model_{'n' * 200}"))
    text = entities.summary(record, "m-1", "1")
    assert len(text) < entities.MAX_SUMMARY
    assert "and 288 more metrics" in text
    assert "and 93 more data sets" in text
    assert "0.333333 … 0.333333 (2500 values)" in text


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (104_857_600, "104.9 MB")],
)
def test_a_size_is_shown_as_people_read_it(size_bytes: int, shown: str) -> None:
    assert size_as_text(size_bytes) == shown


def test_run_logged_model_and_version_show_it(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier
) -> None:
    manager.save_model(forest, metadata={"accuracy": 0.75})
    record = manager.latest()
    assert record is not None
    run = client.get_run(str(record.run_id))
    model = client.get_logged_model(str(record.model_id))
    version = client.get_model_version("lotto_model", "1")
    for shown in (run.data.tags[NOTE], model.tags[NOTE], version.description):
        assert shown.startswith("RandomForestClassifier, accuracy 0.75, saved 20")
        assert f"Saved as `{record.name}` on 20" in shown
        assert "`lotto_mlflow.load_model('models:/lotto_model/1')` opens version 1" in shown
        assert "| `accuracy` | 0.75 |" in shown
        assert str(record.sha256) in shown
    assert (
        f"](#/experiments/{run.info.experiment_id}/models/{model.model_id}?" in version.description
    )


def test_the_calls_in_the_summary_open_the_very_model(
    manager: ModelManager,
    client: MlflowClient,
    forest: Any,
    rows: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manager.save_model({"another": "model"}, metadata={})
    manager.save_model(forest, metadata={})
    manager.save_model({"another": "model"}, metadata={})
    text = client.get_model_version("lotto_model", "2").description
    (own,) = re.findall(r"`lotto_mlflow\.load_model\('(.+)'\)`", text)
    assert (manager.load_model(own).predict(rows[0]) == forest.predict(rows[0])).all()
    (of_mlflow,) = re.findall(r"`mlflow\.pyfunc\.load_model\('(.+)'\)`", text)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(client.tracking_uri))
    found = mlflow.pyfunc.load_model(of_mlflow).predict(rows[0])
    assert (found == forest.predict(rows[0])).all()


def notes_of(client: MlflowClient, manager: ModelManager, name: str) -> list[str]:
    """Return what run, logged model and version show of a save."""
    record = manager.get(name)
    version = client.get_model_version(record.registered_model, str(record.version))
    run = client.get_run(str(record.run_id)).data.tags[NOTE]
    return [run, client.get_logged_model(str(record.model_id)).tags[NOTE], version.description]


def test_a_version_that_others_overtook_names_its_own_number(
    manager: ModelManager, client: MlflowClient, forest: Any
) -> None:
    manager.save_model(forest, "lotto_model_a", {})
    source = client.get_model_version("lotto_model", "1")
    for _ in range(3):  # the manager remembers its own version as the newest
        client.create_model_version("lotto_model", source.source, source.run_id)
    manager.save_model(forest, "lotto_model_b", {})
    assert manager.get("lotto_model_b").version == 5
    for text in notes_of(client, manager, "lotto_model_b"):
        assert re.findall(r"models:/lotto_model/(\d+)", text) == ["5"]
        assert "opens version 5" in text


def test_a_version_that_is_made_again_names_its_new_number_and_a_note_of_people_stays(
    manager: ModelManager, client: MlflowClient, forest: Any
) -> None:
    for name in ("lotto_model_a", "lotto_model_b", "lotto_model_c"):
        manager.save_model(forest, name, {})
    client.set_tag(str(manager.get("lotto_model_b").run_id), NOTE, "ours, do not touch")
    for number in ("1", "2"):
        client.delete_model_version("lotto_model", number)
    assert manager.sync(resend=True).resent == ["lotto_model_a", "lotto_model_b"]
    assert manager.get("lotto_model_a").version == 4
    for text in notes_of(client, manager, "lotto_model_a"):
        assert re.findall(r"models:/lotto_model/(\d+)", text) == ["4"]
    run, _, version = notes_of(client, manager, "lotto_model_b")
    assert run == "ours, do not touch"
    assert "opens version 5" in version


def test_a_registered_model_says_how_to_load_it_until_people_say_more(
    manager: ModelManager, client: MlflowClient, forest: Any, rows: Any
) -> None:
    manager.save_model({}, "first's one", {})
    client.create_registered_model("another", description="of another team")
    manager.save_model(forest, "another", {})
    assert client.get_registered_model("another").description == "of another team"
    manager.save_model({}, metadata={})
    manager.save_model(forest, metadata={})
    client.set_registered_model_alias("lotto_model", "champion", "2")
    text = str(client.get_registered_model("lotto_model").description)
    assert text.splitlines()[0].startswith("Models saved by lotto_mlflow.")
    calls = re.findall(r"lotto_mlflow\.load_model\((.+)\)", text)
    assert [eval(call) for call in calls] == [
        "models:/lotto_model/latest",
        "models:/lotto_model@champion",
    ]
    for call in calls:
        found = manager.load_model(eval(call))
        assert (found.predict(rows[0]) == forest.predict(rows[0])).all()
    client.update_registered_model("lotto_model", "our own words")
    manager.save_model({}, metadata={})
    assert client.get_registered_model("lotto_model").description == "our own words"
    quoted = str(client.get_registered_model("first's one").description)
    assert """load_model("models:/first's one/latest")""" in quoted
    command = next(line for line in quoted.splitlines() if line.startswith("mlflow models serve"))
    assert shlex.split(command)[-1] == "models:/first's one@champion"


def test_a_logged_model_links_to_the_version_that_it_became(
    manager: ModelManager, client: MlflowClient, forest: RandomForestClassifier
) -> None:
    manager.save_model(forest, metadata={})
    model = client.get_logged_model(str(manager.get(1).model_id))
    assert model.tags["mlflow.modelVersions"] == '[{"name": "lotto_model", "version": "1"}]'


def test_saves_of_one_kind_have_the_same_parameters_and_metrics(
    manager: ModelManager, client: MlflowClient, rows: Any
) -> None:
    metadata: dict[str, Any] = {"log loss (test)": 0.4, "hits": [1, 2], "data": {"rows": 60}}
    for number, kind in enumerate((RandomForestClassifier, ExtraTreesClassifier)):
        model = kind(n_estimators=3 + number, random_state=number).fit(*rows)
        manager.save_model(model, f"lotto_model_{number}", metadata)
    runs = [client.get_run(str(manager.get(v).run_id)).data for v in (1, 2)]
    assert runs[0].params.keys() == runs[1].params.keys()
    assert runs[0].metrics.keys() == runs[1].metrics.keys()
