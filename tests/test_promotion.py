"""Promotion, rollback and history, in an SQLite store and on a tracking server."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aliased import Aliased
from mlflow.exceptions import MlflowException
from serving import free_port
from typer.testing import CliRunner

from lotto_mlflow import AliasMove, ModelManager
from lotto_mlflow.cli import app
from lotto_mlflow.errors import (
    ForeignModelError,
    InvalidReferenceError,
    MirrorUnavailableError,
    ModelNotFoundError,
    PromotionRefusedError,
    SettingsError,
)
from lotto_mlflow.records import home_of


@pytest.fixture(params=["embedded", "server"])
def aliased(request: pytest.FixtureRequest, base_dir: Path) -> Aliased:
    uri = request.getfixturevalue("server_uri") if request.param == "server" else None
    return Aliased(base_dir, uri, f"모델 {uuid.uuid4().hex[:12]}")


@pytest.fixture
def embedded(base_dir: Path) -> Aliased:
    return Aliased(base_dir, None, "other")


def test_a_promotion_moves_the_alias_and_says_all_of_it(aliased: Aliased) -> None:
    aliased.save(2, auc=0.5)
    first = aliased.promote(1, reason="첫 모델")
    second = aliased.promote(2)
    assert aliased.holder() == 2
    assert (first.from_, first.to.version, first.reason) == (None, 1, "첫 모델")
    assert (second.from_, second.to.version) == (first.to, 2)
    record = aliased.manager.get(aliased.reference(2))
    assert (second.to.save_id, second.to.sha256) == (record.save_id, record.sha256)
    assert "@" in second.who
    assert second.when[-6:] == "+09:00"
    assert aliased.manager.history(registered_model=aliased.name) == [first, second]
    assert aliased.history() == [("promote", None, 1), ("promote", 1, 2)]
    assert aliased.homes() == [home_of(aliased.name)]
    assert sorted(aliased.params()) == ["000001", "000001.done", "000002", "000002.done"]


def test_the_history_is_not_among_the_runs_that_people_compare(aliased: Aliased) -> None:
    version = aliased.save()
    aliased.promote(version)
    client = aliased.client
    (experiment,) = client.search_experiments(filter_string="name = 'lotto_model'")
    assert not [
        r for r in client.search_runs([experiment.experiment_id]) if "000001" in r.data.params
    ]
    home = client.get_experiment_by_name(home_of(aliased.name))
    (run,) = client.search_runs([home.experiment_id])
    assert run.info.status == "FINISHED"
    assert not home.artifact_location.startswith(Path.cwd().as_uri())


@pytest.mark.parametrize(
    ("holder", "candidate", "arguments", "is_granted"),
    [
        (0.5, 0.5, {}, False),
        (0.5, 0.5, {"higher_is_better": False}, False),
        (0.5, 0.6, {}, True),
        (0.6, 0.5, {}, False),
        (0.6, 0.5, {"higher_is_better": False}, True),
        (0.5, 0.6, {"higher_is_better": False}, False),
        (0.2, 0.3, {"min_gain": 0.1}, True),  # the difference is 0.09999999999999998
        (0.3, 0.2, {"min_gain": 0.1, "higher_is_better": False}, True),
        (0.2, 0.3, {"min_gain": 0.1 + 1e-11}, False),
        (0.2, 0.3 - 1e-11, {"min_gain": 0.1}, False),
        (0.5, 0.5 + 1e-13, {}, True),
        (0.5, 0.5 - 1e-13, {"min_gain": 0.0}, False),
        (math.nan, 0.5, {}, False),
        (0.5, math.nan, {}, False),
        (math.nan, math.nan, {"higher_is_better": False}, False),
        (None, 0.5, {}, False),
        (0.5, None, {}, False),
        (None, None, {}, False),
    ],
)
def test_a_gate_lets_pass_what_is_better_by_as_much_as_was_asked_for(
    embedded: Aliased,
    holder: float | None,
    candidate: float | None,
    arguments: dict[str, Any],
    is_granted: bool,
) -> None:
    embedded.save(2)
    for version, value in ((1, holder), (2, candidate)):
        if value is not None:
            run_id = embedded.manager.get(embedded.reference(version)).run_id
            embedded.client.log_metric(str(run_id), "score", value)
    embedded.promote(1)
    if is_granted:
        move = embedded.promote(2, metric="score", **arguments)
        assert (move.from_value, move.to_value, move.metric) == (holder, candidate, "score")
    else:
        with pytest.raises(PromotionRefusedError) as caught:
            embedded.promote(2, metric="score", **arguments)
        for value in (holder, candidate):
            assert ("missing" if value is None else repr(value)) in str(caught.value)
        assert str(caught.value).endswith("nothing was moved")
    assert embedded.holder() == (2 if is_granted else 1)
    assert len(embedded.history()) == (2 if is_granted else 1)


@pytest.mark.parametrize(
    ("holder", "candidate", "arguments", "said"),
    [
        (0.5, 0.4, {}, "is 0.4, and version 1, for which champion stands, has 0.5; it must be "
         "higher than that; nothing was moved"),
        (0.4, 0.5, {"higher_is_better": False}, "is 0.5, and version 1, for which champion stands, "
         "has 0.4; it must be lower than that; nothing was moved"),
        (0.4, 0.5, {"min_gain": 0.2}, "is 0.5, and version 1, for which champion stands, has 0.4; "
         "it must be higher than that, by at least 0.2; nothing was moved"),
        (0.5, None, {"min_gain": 0.2}, "is missing, and version 1, for which champion stands, has "
         "0.5; these cannot be compared: log both, or promote without a metric; nothing was moved"),
        (None, 0.5, {}, "is 0.5, and version 1, for which champion stands, has none: it is "
         "missing; these cannot be compared: log both, or promote without a metric; nothing was "
         "moved"),
        (0.5, math.nan, {}, "is nan, and version 1, for which champion stands, has 0.5; these "
         "cannot be compared: log both, or promote without a metric; nothing was moved"),
    ],
)  # fmt: skip
def test_a_refusal_is_a_sentence_that_can_be_read(
    embedded: Aliased,
    holder: float | None,
    candidate: float | None,
    arguments: dict[str, Any],
    said: str,
) -> None:
    for value in (holder, candidate):
        embedded.save(**({} if value is None or math.isnan(value) else {"score": value}))
    if candidate is not None and math.isnan(candidate):
        run_id = embedded.manager.get(embedded.reference(2)).run_id
        embedded.client.log_metric(str(run_id), "score", candidate)
    embedded.promote(1)
    with pytest.raises(PromotionRefusedError) as caught:
        embedded.promote(2, metric="score", **arguments)
    assert str(caught.value) == f"version 2 of other was not promoted: its score {said}"


def test_a_gate_compares_the_last_values_on_the_runs_of_any_store(aliased: Aliased) -> None:
    aliased.save(auc=0.5)
    aliased.save(auc=[0.9, 0.4])
    assert aliased.promote(1, metric="auc").to_value == 0.5
    with pytest.raises(PromotionRefusedError, match=r"auc is 0\.4.*version 1.*has 0\.5"):
        aliased.promote(2, metric="auc")
    run_id = str(aliased.manager.get(aliased.reference(2)).run_id)
    for step, value in ((1, 0.9), (2, math.nan)):
        aliased.client.log_metric(run_id, "live.hits_per_game", value, step=step)
    with pytest.raises(PromotionRefusedError, match=r"live\.hits_per_game is nan.*missing"):
        aliased.promote(2, metric="live.hits_per_game")
    first_id = str(aliased.manager.get(aliased.reference(1)).run_id)
    aliased.client.log_metric(first_id, "live.hits_per_game", 0.8, step=1)
    aliased.client.log_metric(run_id, "live.hits_per_game", 0.85, step=3)
    move = aliased.promote(2, metric="live.hits_per_game", min_gain=0.05)
    assert (move.from_value, move.to_value) == (0.8, 0.85)
    assert aliased.history() == [("promote", None, 1), ("promote", 1, 2)]


def test_without_a_holder_a_model_that_has_the_metric_is_promoted(embedded: Aliased) -> None:
    embedded.save(auc=0.1)
    with pytest.raises(PromotionRefusedError, match="its acu is missing, champion stands for no"):
        embedded.promote(1, metric="acu")
    with pytest.raises(PromotionRefusedError, match="yet, and the first one needs a number there;"):
        embedded.promote(1, metric="acu", min_gain=5)
    assert embedded.holder() is None
    assert embedded.promote(1, metric="auc", min_gain=5).from_value is None
    assert embedded.holder() == 1


def test_a_metric_is_found_by_the_name_that_the_caller_saved_it_under(embedded: Aliased) -> None:
    embedded.save(**{"정확도 (%)": 3.5})
    assert embedded.promote(1, metric="정확도 (%)").to_value == 3.5


def test_infinite_values_are_recorded(embedded: Aliased) -> None:
    embedded.save(2)
    for version, value in ((1, -1e308), (2, math.inf)):
        run_id = str(embedded.manager.get(embedded.reference(version)).run_id)
        embedded.client.log_metric(run_id, "score", value)
    embedded.promote(1, metric="score")
    move = embedded.promote(2, metric="score", min_gain=1)
    assert move.to_value is not None
    assert move.to_value > 1e308
    assert embedded.manager.history(registered_model="other")[-1] == move


@pytest.mark.parametrize("value", [None, math.nan])
def test_promoting_what_is_in_use_by_a_metric_that_it_lacks_is_refused(
    aliased: Aliased, value: float | None
) -> None:
    aliased.save(auc=0.5)
    run_id = str(aliased.manager.get(aliased.reference(1)).run_id)
    if value is not None:
        aliased.client.log_metric(run_id, "acu", value)
    aliased.promote(1)
    for arguments in ({}, {"min_gain": 0.1}, {"higher_is_better": False}):
        with pytest.raises(PromotionRefusedError, match="its acu is") as caught:
            aliased.promote(1, metric="acu", **arguments)
        error = caught.value
        shown = "missing" if value is None else "nan"
        assert str(error).count(f" {shown}") == 2
        assert (error.candidate_version, error.holder_version) == (1, 1)
        assert (error.candidate_value is None) is (error.holder_value is None) is (value is None)
    aliased.set_outside(1, "staging")  # which nobody recorded
    with pytest.raises(PromotionRefusedError):
        aliased.promote(1, "staging", metric="acu")
    assert aliased.history() == [("promote", None, 1)]
    aliased.client.log_metric(run_id, "acu", 0.1, step=1)
    assert aliased.promote(1, metric="acu").to.version == 1


def test_promoting_what_is_in_use_moves_nothing_and_returns_its_move(aliased: Aliased) -> None:
    aliased.save(auc=0.5)
    move = aliased.promote(1)
    assert aliased.promote(1, reason="again") == move
    assert aliased.promote(1, metric="auc", min_gain=1) == move
    assert aliased.history() == [("promote", None, 1)]


def test_rollbacks_go_back_one_by_one_and_pass_over_deleted_versions(aliased: Aliased) -> None:
    aliased.save(5)
    for version in (1, 2, 3, 4):
        aliased.promote(version)
    assert aliased.rollback(reason="나쁨").to.version == 3
    assert aliased.manager.history(registered_model=aliased.name)[-1].reason == "나쁨"
    aliased.client.delete_model_version(aliased.name, "2")
    assert aliased.rollback().to.version == 1
    with pytest.raises(ModelNotFoundError, match="nothing was moved"):
        aliased.rollback()
    assert aliased.holder() == 1
    aliased.promote(5)
    aliased.promote(3)
    assert aliased.rollback().to.version == 5
    assert aliased.rollback().to.version == 1
    kinds = [kind for kind, _, _ in aliased.history()]
    assert kinds == [*["promote"] * 4, *["rollback"] * 2, *["promote"] * 2, *["rollback"] * 2]


def test_a_deleted_holder_is_rolled_back_to_the_one_before(aliased: Aliased) -> None:
    aliased.save(3)
    for version in (1, 2, 3):
        aliased.promote(version)
    aliased.client.delete_model_version(aliased.name, "3")
    assert aliased.holder() is None
    assert aliased.history()[-1] == ("outside", 3, None)
    assert aliased.rollback().to.version == 2
    assert aliased.rollback().to.version == 1


def test_a_forced_deletion_of_a_holder_is_named_in_the_history(aliased: Aliased) -> None:
    aliased.save(3)
    for version in (1, 2, 3):
        aliased.promote(version)
    aliased.manager.delete(aliased.reference(3), reason="나쁜 모델", force=True)
    assert aliased.history()[-1] == ("deleted", 3, None)
    last = aliased.manager.history(registered_model=aliased.name)[-1]
    assert (last.number, last.who, last.reason, last.is_done) == (None, None, "나쁜 모델", True)
    assert last.when[-6:] == "+09:00"
    listed = ["history", "--registered-model", aliased.name, "--base-dir", str(aliased.base_dir)]
    environment = {} if aliased.uri is None else {"MLFLOW_TRACKING_URI": aliased.uri}
    printed = CliRunner().invoke(app, listed, env=environment).stdout
    assert "version deleted" in printed.splitlines()[-1]
    assert "나쁜 모델" in printed
    assert "changed outside" not in printed
    assert aliased.manager.verify() == []
    assert aliased.rollback().to.version == 2
    assert aliased.history()[-2:] == [("deleted", 3, None), ("rollback", None, 2)]
    aliased.set_outside(1)  # what is done with MLflow itself is still told from a deletion
    assert aliased.history()[-1] == ("outside", 2, 1)


def test_a_model_promoted_twice_is_rolled_back_through_what_was_between(embedded: Aliased) -> None:
    embedded.save(3)
    for version in (1, 2, 1, 3):
        embedded.promote(version)
    assert [embedded.rollback().to.version for _ in range(3)] == [1, 2, 1]


def test_a_move_made_with_mlflow_itself_is_in_the_history_and_a_finding(
    aliased: Aliased,
) -> None:
    aliased.save(4)
    aliased.set_outside(1)
    assert aliased.manager.verify() == []  # nothing is recorded that it could differ from
    assert aliased.history() == [("outside", None, 1)]
    assert aliased.promote(2).from_.version == 1
    assert aliased.manager.verify() == []
    aliased.set_outside(3)
    (found,) = aliased.manager.verify()
    assert (found.kind, found.name) == ("changed outside", aliased.name)
    expected = [("outside", None, 1), ("promote", 1, 2), ("outside", 2, 3)]
    assert aliased.history() == expected
    last = aliased.manager.history(registered_model=aliased.name)[-1]
    assert (last.number, last.when, last.who) == (None, None, None)
    assert aliased.promote(4).from_.version == 3
    assert aliased.history() == [*expected, ("promote", 3, 4)]
    assert [aliased.rollback().to.version for _ in range(3)] == [3, 2, 1]


def test_a_rollback_of_a_move_made_with_mlflow_goes_to_what_was_before(aliased: Aliased) -> None:
    aliased.save(3)
    aliased.promote(1)
    aliased.promote(2)
    aliased.set_outside(3)
    assert aliased.rollback().to.version == 2
    assert aliased.rollback().to.version == 1


def test_the_fix_of_a_move_made_with_mlflow_records_it(embedded: Aliased) -> None:
    embedded.save(2)
    embedded.promote(1)
    embedded.set_outside(2)
    (found,) = embedded.manager.verify()
    assert found.fix is not None
    getattr(embedded.manager, found.fix.verb)(**found.fix.arguments)
    assert embedded.manager.verify() == []
    expected = [("promote", None, 1), ("outside", 1, 2), ("promote", 2, 2)]
    assert embedded.history() == expected
    assert embedded.rollback().to.version == 1


def test_an_alias_deleted_with_mlflow_is_seen(embedded: Aliased) -> None:
    embedded.save(2)
    embedded.promote(1)
    embedded.promote(2)
    embedded.client.delete_registered_model_alias("other", "champion")
    (found,) = embedded.manager.verify()
    assert found.kind == "changed outside"
    assert embedded.history()[-1] == ("outside", 2, None)
    assert embedded.rollback().to.version == 2


def test_aliases_have_histories_of_their_own(aliased: Aliased) -> None:
    aliased.save(3)
    aliased.promote(1)
    aliased.promote(2, "challenger")
    aliased.promote(3)
    assert aliased.history() == [("promote", None, 1), ("promote", 1, 3)]
    assert aliased.history("challenger") == [("promote", None, 2)]
    assert aliased.history("nobody") == []
    with pytest.raises(ModelNotFoundError):
        aliased.rollback("challenger")
    with pytest.raises(ModelNotFoundError, match="never had"):
        aliased.rollback("nobody")
    assert aliased.rollback().to.version == 1
    assert aliased.holder("challenger") == 2


@pytest.mark.parametrize("alias", ["챔피언", "a", "_", "-", "1", "x" * 255, "v1a", "Latest-2"])
def test_every_alias_that_mlflow_accepts_can_be_moved(embedded: Aliased, alias: str) -> None:
    embedded.save(2)
    assert embedded.promote(1, alias).alias == alias
    embedded.promote(2, alias)
    assert embedded.holder(alias) == 2
    assert embedded.rollback(alias).to.version == 1
    assert embedded.manager.load_model(f"models:/other@{alias}")


@pytest.mark.parametrize(
    "alias",
    ["latest", "Latest", "LATEST", "v1", "V27", "", "a b", "a/b", "a@b", "x" * 256, "a\n", "a\0",
     ".", "a.b", None, 3],
)  # fmt: skip
def test_what_is_no_alias_is_refused_and_nothing_moved(embedded: Aliased, alias: Any) -> None:
    embedded.save()
    for call in (embedded.promote, lambda *_: embedded.rollback(alias)):
        with pytest.raises(InvalidReferenceError) as caught:
            call(1, alias)
        assert str(caught.value).isprintable()
    with pytest.raises(InvalidReferenceError):
        embedded.history(alias)
    if alias is not None:
        with pytest.raises(InvalidReferenceError):
            embedded.manager.get_latest_model_path(source="registry", alias=alias)
    assert embedded.client.get_registered_model("other").aliases == {}
    assert embedded.homes() == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_gain": -0.1, "metric": "auc"}, {"min_gain": math.nan, "metric": "auc"},
        {"min_gain": math.inf, "metric": "auc"}, {"min_gain": "1", "metric": "auc"},
        {"min_gain": 10**400, "metric": "auc"}, {"min_gain": -(10**400), "metric": "auc"},
        {"min_gain": True, "metric": "auc"}, {"min_gain": 0.1}, {"higher_is_better": False},
        {"metric": ""}, {"metric": 3}, {"metric": "x" * 251}, {"reason": 3}, {"reason": b"x"},
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(
    embedded: Aliased, arguments: dict[str, Any]
) -> None:
    embedded.save(auc=0.5)
    with pytest.raises(SettingsError):
        embedded.promote(1, **arguments)
    assert embedded.holder() is None
    assert embedded.homes() == []


@pytest.mark.parametrize(
    "model", ["nobody", 7, "models:/other/9", "models:/x/1", "models:/other@y"]
)
def test_a_model_that_is_not_there_is_not_promoted(aliased: Aliased, model: Any) -> None:
    aliased.save()
    aliased.promote(1)
    for call in (aliased.manager.promote, aliased.manager.get):
        with pytest.raises(ModelNotFoundError):
            call(model)
    with pytest.raises(InvalidReferenceError):
        aliased.manager.promote("models:/a/b/c")
    for name in ("", "a/b", "a:b", None):
        with pytest.raises(InvalidReferenceError):
            aliased.manager.rollback(registered_model=name)  # type: ignore[arg-type]
    with pytest.raises(ModelNotFoundError):
        aliased.manager.rollback(registered_model="nobody")
    assert aliased.history() == [("promote", None, 1)]


def test_a_version_that_others_made_is_not_promoted_but_may_have_been_in_use(
    embedded: Aliased,
) -> None:
    embedded.save()
    client = embedded.client
    run = client.create_run("0")
    client.create_model_version("other", "file:///nowhere", run.info.run_id)
    embedded.set_outside(2)
    with pytest.raises(ForeignModelError):
        embedded.promote(2)
    move = embedded.promote(1)
    assert (move.from_.version, move.from_.save_id, move.from_.sha256) == (2, None, None)
    assert embedded.manager.history(registered_model="other")[-1] == move


@pytest.mark.parametrize(
    "reason",
    [
        "x" * 10_000,
        "가" * 10_000,
        "\x00\x1b[31m\u202e\n" * 2_000,
        "\ud800" * 2_000,
        "😀" * 3_000,
        "",
    ],
    ids=["long", "korean", "control", "surrogates", "astral", "empty"],
)
def test_a_reason_of_any_kind_and_length_is_kept_as_far_as_there_is_room(
    aliased: Aliased, reason: str
) -> None:
    aliased.save()
    move = aliased.promote(1, reason=reason)
    assert aliased.manager.history(registered_model=aliased.name) == [move]
    kept = move.reason.removesuffix("…") if len(reason) > 100 else move.reason
    assert reason.startswith(kept)
    text = aliased.params()["000001"]
    assert len(text.encode("utf-8")) <= 4_000
    assert len(text.encode("utf-8")) > 3_980 or kept == reason
    assert text.isprintable()
    assert json.loads(text)["reason"] == move.reason


def test_a_save_that_still_waits_is_pushed_first(aliased: Aliased) -> None:
    aliased.save()
    waiting = ModelManager(aliased.base_dir, tracking_uri=aliased.uri, mirror="off")
    waiting.save_model({"waits": True}, aliased.name)
    assert waiting.get(aliased.name).version is None
    assert waiting.promote(aliased.name).to.version == 2
    assert aliased.holder() == 2


def test_a_save_made_for_another_store_is_named_and_not_promoted(
    embedded: Aliased, tmp_path: Path
) -> None:
    embedded.save()
    elsewhere = ModelManager(embedded.base_dir, tracking_uri=f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(ModelNotFoundError, match=r"nothing was moved.*sync"):
        elsewhere.promote("other")
    elsewhere.sync()
    assert elsewhere.promote("other").to.version == 1
    assert embedded.holder() is None


def test_where_the_registry_cannot_be_asked_nothing_is_moved(embedded: Aliased) -> None:
    embedded.save(2)
    embedded.promote(1)
    database = embedded.base_dir / "mlflow" / "mlflow.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as held:
        held.execute("BEGIN EXCLUSIVE")
        for call in (lambda: embedded.promote(2), embedded.rollback, embedded.history):
            with pytest.raises(MirrorUnavailableError):
                call()
    assert embedded.holder() == 1
    assert embedded.history() == [("promote", None, 1)]


def test_where_no_server_answers_a_save_that_waits_is_not_promoted(tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    manager = ModelManager(tmp_path / "ml", tracking_uri=uri, mirror="background")
    manager.save_model({"a": 1}, "waits")
    for model in ("waits", "models:/waits/1"):
        with pytest.raises(MirrorUnavailableError, match="does not answer"):
            manager.promote(model)
    with pytest.raises(MirrorUnavailableError):
        manager.history(registered_model="waits")


def test_a_registered_model_that_was_renamed_keeps_its_history(aliased: Aliased) -> None:
    name = aliased.name
    aliased.save(3)
    aliased.promote(1)
    aliased.promote(2)
    new = f"{name} renamed"
    aliased.client.rename_registered_model(name, new)
    moves = aliased.manager.history(registered_model=new)
    assert [move.to.version for move in moves if move.to] == [1, 2]
    move = aliased.manager.promote(name)  # the file's save is now a version of another name
    assert (move.registered_model, move.to.version, move.number) == (new, 3, 3)
    renamed = Aliased(aliased.base_dir, aliased.uri, new)
    assert renamed.homes() == [home_of(new)]
    assert renamed.rollback().to.version == 2
    assert renamed.rollback().to.version == 1
    assert renamed.history()[0] == ("promote", None, 1)


def test_a_new_model_of_an_old_name_does_not_take_its_versions_for_the_old_ones(
    embedded: Aliased,
) -> None:
    embedded.save(2)
    embedded.promote(1)
    embedded.promote(2)
    embedded.client.rename_registered_model("other", "old")
    embedded.save(3)
    assert embedded.promote(3).to.version == 3
    with pytest.raises(ModelNotFoundError):
        embedded.rollback()  # versions 1 and 2 of this name are of other saves
    assert embedded.holder() == 3


def test_another_folder_on_the_same_server_sees_and_moves_the_same(
    aliased: Aliased, tmp_path: Path, migrated_database: Path
) -> None:
    uri = aliased.uri or f"sqlite:///{tmp_path / 'shared.db'}"
    if aliased.uri is None:
        shutil.copyfile(migrated_database, tmp_path / "shared.db")
    one = Aliased(aliased.base_dir, uri, aliased.name)
    two = Aliased(tmp_path / "other host", uri, aliased.name)
    one.save(2)
    one.promote(1)
    assert two.save() == 3
    two.promote(3)
    assert two.manager.history(registered_model=two.name) == one.manager.history(
        registered_model=one.name
    )
    assert one.rollback().to.version == 1
    assert two.history() == one.history()
    assert two.promote(2).from_.version == 1
    assert two.manager.load_model(f"models:/{two.name}@champion") == one.manager.load_model(
        f"models:/{one.name}@champion"
    )


def test_a_deleted_history_is_not_begun_anew_but_named(embedded: Aliased) -> None:
    embedded.save(2)
    embedded.promote(1)
    client = embedded.client
    home = client.get_experiment_by_name(home_of("other"))
    client.delete_experiment(home.experiment_id)
    with pytest.raises(MirrorUnavailableError, match="experiments restore -x"):
        embedded.promote(2)
    assert embedded.history() == [("promote", None, 1)]
    assert embedded.holder() == 1
    client.restore_experiment(home.experiment_id)
    (run,) = client.search_runs([home.experiment_id])
    client.delete_run(run.info.run_id)
    with pytest.raises(MirrorUnavailableError, match="runs restore --run-id"):
        embedded.promote(2)
    assert embedded.holder() == 1
    client.restore_run(run.info.run_id)
    assert embedded.promote(2).number == 2


def test_what_others_write_into_the_history_only_takes_numbers(embedded: Aliased) -> None:
    embedded.save(3)
    embedded.promote(1)
    client = embedded.client
    (run,) = client.search_runs([client.get_experiment_by_name(home_of("other")).experiment_id])
    valid = json.loads(run.data.params["000001"])
    for number, content in enumerate(
        ("", "[]", "{", "null", json.dumps(valid | {"to": {"version": "2"}}),
         json.dumps(valid | {"kind": "outside"}), json.dumps(valid | {"to": {"version": -1}}),
         json.dumps(valid | {"to": {"version": 1, "save_id": "../x"}}),
         json.dumps(valid | {"reason": ["x"]}), json.dumps(valid | {"to_value": {}})), 2
    ):  # fmt: skip
        client.log_param(run.info.run_id, f"{number:06d}", content)
    client.log_param(run.info.run_id, "000099x", "x")
    assert embedded.promote(2).number == 12
    assert embedded.history() == [("promote", None, 1), ("promote", 1, 2)]


def test_descriptions_and_lookups_say_since_when(aliased: Aliased) -> None:
    aliased.save(3, auc=0.5)
    client, name = aliased.client, aliased.name

    def description(version: int) -> str:
        return str(client.get_model_version(name, str(version)).description)

    before = {version: description(version) for version in (1, 2, 3)}
    move = aliased.promote(1)
    aliased.promote(1, "stable")
    day = str(move.when)[:10]
    lines = description(1).splitlines()
    assert lines[0].startswith(f"Alias `champion` since {day}")
    assert lines[1].startswith(f"Alias `stable` since {day}")
    assert description(1).endswith(f"\n\n{before[1]}")
    client.update_model_version(name, "1", f"{description(1)}\nwritten by a person")
    moved = aliased.promote(3)
    assert description(1).startswith("Alias `stable` since")
    assert "champion" not in description(1)
    assert description(1).endswith("written by a person")
    aliased.rollback()
    aliased.promote(2, "stable")
    assert description(3) == before[3]
    record = aliased.manager.get(aliased.reference(1))
    assert record.aliases == ("champion",)
    assert record.aliases_since["champion"] > str(moved.when)
    aliased.promote(3)
    assert aliased.manager.get(name).aliases_since == aliased.manager.records(name)[0].aliases_since
    assert set(aliased.manager.get(name).aliases_since) == {"champion"}
    aliased.set_outside(1)
    assert aliased.manager.get(aliased.reference(1)).aliases_since == {}


def test_a_full_description_of_a_person_stays(embedded: Aliased) -> None:
    embedded.save()
    embedded.client.update_model_version("other", "1", "x" * 5_000)
    embedded.promote(1)
    assert embedded.client.get_model_version("other", "1").description == "x" * 5_000


def test_lotto_models_need_no_name_of_a_registered_model(manager: ModelManager) -> None:
    for number in range(3):
        manager.save_model({"n": number}, f"lotto_model_{number}", {"auc": number / 10})
    assert manager.flush(120)
    manager.promote("lotto_model_0")
    manager.promote(manager.get("lotto_model_1").path or "")
    manager.promote(3, "champion", metric="auc")
    assert [m.to and m.to.version for m in manager.history()] == [1, 2, 3]
    assert manager.rollback().to == manager.history()[1].to
    assert manager.load_model("models:/lotto_model@champion") == {"n": 1}
    path = manager.get_latest_model_path(source="registry", alias="champion")
    assert path == str(manager.get("lotto_model_1").path)


def test_a_move_is_frozen_and_is_what_is_written_of_it(embedded: Aliased) -> None:
    embedded.save()
    move = embedded.promote(1)
    assert isinstance(move, AliasMove)
    with pytest.raises(AttributeError):
        move.alias = "x"
    run_id = next(iter(embedded.client.search_runs(
        [embedded.client.get_experiment_by_name(home_of("other")).experiment_id]
    ))).info.run_id  # fmt: skip
    with pytest.raises(MlflowException):
        embedded.client.log_param(run_id, "000001", "x")
