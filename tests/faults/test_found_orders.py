"""Sequences that broke something once, or come close to it, in plain calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import acts, invariants
from faults.actors import Actor, Held
from faults.worlds import World


@pytest.fixture(scope="module")
def actor() -> Iterator[Actor]:
    """The process that uses the package."""
    actor = Actor()
    yield actor
    actor.close()


@pytest.fixture
def world(tmp_path: Path, migrated_database: Path, actor: Actor) -> Iterator[World]:
    """A folder in which nothing was done yet; what has to hold in the end is checked after."""
    world = World(tmp_path, migrated_database, actor)
    yield world
    invariants.check_folder(world)
    invariants.check_ends_clean(world)
    actor.end()


def test_bytes_damaged_before_they_were_sent_are_never_sent(world: World) -> None:
    """Size and time are as they were, as a failing disk leaves them."""
    world.save("lotto_model_a", 5, mirror="off")
    world.damage("trained/lotto_model_a.pkl", 60)
    world.sync()
    assert world.seen.versions == {}
    assert world.seen.artifacts == {}
    kinds = {finding.kind for finding in world.read("verify")}
    assert {"damaged", "missing on disk"} <= kinds


def test_intact_bytes_are_sent_where_the_file_of_the_save_is_damaged(world: World) -> None:
    """The same bytes were saved twice: the backup of the first save serves the second."""
    world.save("other", 2, mirror="off")
    world.save("other", 2, mirror="off")
    world.damage("trained/other.pkl", 60)
    world.sync()
    assert len(world.seen.versions) == 2
    invariants.check_versions(world)


def test_a_replaced_file_does_not_become_a_model_by_being_replaced_again(world: World) -> None:
    world.save("lotto_model_b", 4)
    world.replace("trained/lotto_model_b.pkl", 6)
    world.restore("lotto_model_b", source="registry")
    invariants.check_folder(world)
    world.replace("trained/lotto_model_b.pkl", 7, keeps_time=True)
    world.save("lotto_model_b", 1)


def test_a_save_whose_backup_was_deleted_is_brought_back_by_the_fix_or_not_missed(
    world: World,
) -> None:
    world.save("lotto_model_a", 3, artifacts=True, mirror="off")
    world.sync()
    world.delete("trained/lotto_model_a.pkl")
    world.save("lotto_model_a", 2)
    invariants.check_ends_clean(world)
    assert world.seen.models["trained/lotto_model_a.pkl"] in world.known["lotto_model_a"]
    assert world.numbers[world.seen.models["trained/lotto_model_a.pkl"]] == 2


def test_damage_in_backups_ends(world: World) -> None:
    world.save("other.2", 3)
    world.save("other.2", 4)
    world.damage("backups/other.2.pkl", 40, cut=True)
    world.save("other", 1)
    world.damage("trained/other.pkl", 60)
    world.save("other", 2)


def test_the_metadata_of_a_save_without_any_goes_with_its_model(world: World) -> None:
    world.save("other.2", 5, metadata=False)
    world.replace("trained/other.2.pkl", 5)
    world.damage("trained/other.2.pkl", 100, cut=True, keeps_time=False)


def test_a_save_over_a_file_from_before_killed_keeps_it(world: World) -> None:
    world.replace("trained/other.pkl", 2)
    world.save("other", 2, held=Held(kill_at="main.019"))
    world.end_process()
    world.save("other", 3, held=Held(kill_at="main.030"))


@pytest.mark.parametrize("deleted", ["run", "logged_model", "both"])
def test_what_was_deleted_below_a_version_ends_with_one_version_more_at_most(
    world: World, deleted: str
) -> None:
    """The version itself works on, and is never deleted."""
    world.save("7", 2)
    _, _, run_id, model_id = world.seen.versions["7", 1]
    if deleted in ("run", "both"):
        world.plain("delete_run", run_id)
    if deleted in ("logged_model", "both"):
        world.plain("delete_logged_model", model_id)
    world.sync(resend=True)
    invariants.check_versions(world)
    assert ("7", 1) in world.seen.versions


def test_renamed_copied_and_registered_again_all_versions_go_on_loading(world: World) -> None:
    world.save("lotto_model_a", 1)
    world.save("lotto_model_a", 2)
    world.plain("copy_model_version", "models:/lotto_model/1", "champions")
    world.register_again(("lotto_model", 2), "champions")
    world.plain("rename_registered_model", "lotto_model", "taken")
    world.plain("delete_model_version", "taken", "1")
    world.sync(resend=True)
    world.fix()
    invariants.check_versions(world)
    world.save("lotto_model_b", 4)
    assert world.done(acts.latest, "registry") is not None


def test_a_store_that_was_moved_gets_nothing_where_it_lay(world: World) -> None:
    world.save("lotto_model_a", 1)
    world.move()
    world.save("lotto_model_a", 2)
    world.sync(resend=True)
    invariants.check_folder(world)
    world.relocate()
    invariants.check_versions(world)


def test_an_outage_in_mid_push_and_a_kill_leave_one_version(world: World) -> None:
    world.begin_outage("model_versions")
    world.save("lotto_model_a", 1)
    world.save("lotto_model_a", 2, held=Held(kill_at="main-1.020"))
    world.begin_outage("away")
    world.save("lotto_model_a", 3)
    world.end_outage()
    world.sync(held=Held(kill_at="main.031"))
    world.sync()
    invariants.check_versions(world)
    assert len(world.seen.versions) == 3
