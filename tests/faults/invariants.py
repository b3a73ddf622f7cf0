"""What has to stay true of a folder, whatever happened to it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from faults import acts
from faults.inspection import wrong_names
from faults.seeing import Seen, names_for
from faults.worlds import World

from lotto_mlflow.layout import is_lotto_model
from lotto_mlflow.records import parse

ROUNDS = 6
"""How often the fixes that `verify` prints are applied before it has to have none left."""


def check_folder(world: World) -> None:
    """Check what holds after each step, without asking MLflow for much."""
    seen = world.seen
    assert wrong_names(world.base_dir) == []
    assert not world.base_dir.with_name("moved" if world.base_dir.name == "ml" else "ml").exists()
    _check_models(world, seen)
    _check_pairs(world, seen)
    _check_latest(world, seen)


def _check_models(world: World, seen: Seen) -> None:
    """Saved bytes load as what was saved; of a name that has a record, no others load."""
    loaded = world.done(acts.load, [str(world.base_dir / file) for file in seen.models])
    for (file, digest), (loads, value) in zip(seen.models.items(), loaded, strict=True):
        if world.is_known(file, digest):
            assert loads, f"{file} does not load: {value}"
            assert value == world.numbers[digest], f"{file} is another model"
        elif any(world.has_record(name) for name in names_for(file)):
            assert not loads, f"{file} has other bytes, and loads"


def _check_pairs(world: World, seen: Seen) -> None:
    """A model in place, and the metadata in place, are of one save."""
    for file, (digest, time_ns) in seen.files.items():
        save, name = world.saves.get(time_ns), Path(file).stem
        if not file.startswith("trained/") or save is None or save.sha256 != digest:
            continue
        if name in world.by_hand or world.records(name, "pending"):
            continue
        path = world.base_dir / "metadata" / f"{name}_metadata.json"
        found = json.loads(path.read_bytes()) if path.exists() else None
        if save.metadata is None:
            assert found is None, f"{file} was saved without metadata, and has {found}"
        else:
            fits = found is not None and {**found, **save.metadata, "sha256": digest} == found
            assert fits, f"{file} was saved with {save.metadata}, and has {found}"


def _check_latest(world: World, seen: Seen) -> None:
    models = {Path(f).name: seen.files[f][1] for f in seen.models if f.startswith("trained/")}
    times = {(time, name) for name, time in models.items() if is_lotto_model(name)}
    newest = world.base_dir / "trained" / max(times)[1] if times else None
    found = world.done(acts.latest, "filesystem")
    assert found == (newest and str(newest)), f"the latest model is {found}"


def check_versions(world: World) -> None:
    """A version whose bytes are whole loads; no other bytes load; a save has one version."""
    seen = world.seen
    ours = {
        version: save for version, what in seen.versions.items() if (save := world.save_of(what))
    }
    loaded = world.done(acts.load, [f"models:/{name}/{number}" for name, number in ours])
    for (version, save), (loads, value) in zip(ours.items(), loaded, strict=True):
        digest = seen.bytes_of(version)
        assert digest in (None, save.sha256), f"{version} was given other bytes"
        assert loads or digest is None, f"{version} does not load: {value}"
        assert not loads or value == save.number, f"{version} is another model"
    twice = {save_id for save_id, count in _mirrored(world).items() if count > 1}
    assert not twice, f"saves have two versions: {twice}"


def _mirrored(world: World) -> Counter[str]:
    """Count the versions of each save, but those that plain MLflow made or took away."""
    others = world.copies | world.bereft
    found = world.seen.versions.items()
    return Counter(what[1] for version, what in found if version not in others and what[1])


def check_latest_version(world: World) -> None:
    """The latest version is of the newest save that has one, and no copy hides it."""
    ids = [what[1] for (name, _), what in world.seen.versions.items() if name == "lotto_model"]
    newest = max((int(i.partition("-")[0]) for i in ids if i), default=None)
    found = world.done(acts.latest_time)
    assert found == newest, f"the latest version is of {found}, not {newest}"


def check_ends_clean(world: World) -> None:
    """The printed fixes end in a clean `verify`; then each save is found, and mirrored once."""
    world.end_outage()
    before = world.reachable(world.look())
    for _ in range(ROUNDS):
        found = world.fix()
        if all(_is_by_nature(world, finding) for finding in found):
            break
    left = [finding for finding in world.fix() if not _is_by_nature(world, finding)]
    assert not left, "verify goes on printing: " + "\n".join(map(str, left))
    lost = before - world.reachable(world.look())
    assert not lost, f"the fixes have lost {lost}"
    check_folder(world)
    check_versions(world)
    check_latest_version(world)
    _check_mirrored(world)


def _check_mirrored(world: World) -> None:
    seen, mirrored = world.seen, _mirrored(world)
    for time_ns, save in world.saves.items():
        is_on_disk = any(
            digest == save.sha256 and save.name in names_for(file)
            for file, digest in seen.models.items()
        )
        is_due = is_on_disk and time_ns not in world.deleted
        is_mirrored = any(save_id.startswith(f"{time_ns:019d}-") for save_id in mirrored)
        assert is_mirrored or not is_due, f"{save} is not mirrored"


def _is_by_nature(world: World, finding: Any) -> bool:
    """Tell whether nothing can be done about a finding."""
    if finding.fix is None and finding.kind in ("late on top", "changed", "orphan metadata"):
        return True
    reachable = world.reachable(world.seen)
    if finding.kind in ("missing on disk", "stuck record", "missing in MLflow"):
        about = {
            record.payload.sha256
            for path in world.records(finding.name)
            if (record := parse(path.read_bytes())).is_save
            and (path == finding.path or record.payload.saved_at in finding.detail)
        }
        if finding.kind == "missing in MLflow":  # only what is on disk can be sent again
            reachable = world.reachable(Seen(files=world.seen.files))
        return bool(about) and not any((finding.name, digest) in reachable for digest in about)
    if finding.kind in ("damaged", "changed", "orphan metadata"):
        return not any(name == finding.name for name, _ in reachable)
    return False
