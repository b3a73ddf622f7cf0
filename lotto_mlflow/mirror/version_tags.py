"""The tags of a version: what is written into them, and what is read from them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from mlflow.entities.model_registry import ModelVersion

from lotto_mlflow import layout as names
from lotto_mlflow.mirror.ordering import Facts
from lotto_mlflow.records import BACKFILL, MlflowIds, ModelRecord, SaveRecord, is_digest, is_id
from lotto_mlflow.records.checks import is_save_id
from lotto_mlflow.text import composed

MODEL_NAME_TAG = "model_name"
SHA256_TAG = "sha256"
SAVED_AT_TAG = "saved_at"
SAVE_ID_TAG = "save_id"
MODEL_ID_TAG = "model_id"
"""The logged model of a version: MLflow's SQL registry accepts the id, and does not keep it."""
BACKFILLED_TAG = "backfilled"
"""On what was found on disk, and not saved by this package."""
SKLEARN_TAG = "sklearn_version"
LATE_TAG = "late"
"""On a version whose save is older than one that already had a version."""
PUSH_DELAY_TAG = "push_delay_ms"
"""How long after its save a version was pushed, by the clock of the host that saved."""
ORIGIN_TAG = "origin"
"""The folder that a version was pushed from, as a digest."""
HOST_TAG, SIZE_TAG = "saved_on", "size_bytes"
"""The machine that saved the model, and the size of its file; both are only shown."""
_MODEL_IN_SOURCE = re.compile(r"(?:^models:/|/models/)(m-[A-Za-z0-9]{1,126})(?:/|$)")
_NUMBER = re.compile(r"[0-9]{1,18}")
_DELAY = re.compile(r"-?[0-9]{1,15}")
_ORIGIN = re.compile(r"[0-9a-f]{16}")


def is_well_formed(version: ModelVersion) -> bool:
    """Return whether the number and the run of a version are of the form that MLflow gives them."""
    number = str(version.version)
    is_number = _NUMBER.fullmatch(number) is not None
    return is_number and is_id(version.run_id or "") and isinstance(version.name, str)


def is_ours(tags: Mapping[str, str]) -> bool:
    """Return whether tags are those of a save; those of a version may be anybody's."""
    return (
        is_save_id(tags.get(SAVE_ID_TAG))
        and is_digest(tags.get(SHA256_TAG))
        and names.is_name(tags.get(MODEL_NAME_TAG))
        and SAVED_AT_TAG in tags
    )


def has_tags_of(record: SaveRecord, tags: Mapping[str, str]) -> bool:
    """Return whether tags name the save, the bytes and the model of a record."""
    own, keys = identity_tags(record), (SAVE_ID_TAG, SHA256_TAG, MODEL_NAME_TAG)
    return all(composed(tags.get(key, "")) == own[key] for key in keys)


def identity_tags(record: SaveRecord) -> dict[str, str]:
    """Return the tags by which run, logged model and version of a save are known."""
    return {
        MODEL_NAME_TAG: record.name,
        SHA256_TAG: record.payload.sha256,
        SAVED_AT_TAG: record.payload.saved_at,
        SAVE_ID_TAG: record.id,
    } | ({BACKFILLED_TAG: "true"} if record.kind == BACKFILL else {})


def order_tags(facts: Facts) -> dict[str, str]:
    """Return the tags that say where the version of a save stands; they are of one push."""
    return {PUSH_DELAY_TAG: str(facts.push_delay_ms), ORIGIN_TAG: facts.origin}


def host_tags(record: SaveRecord) -> dict[str, str]:
    """Return the tags that say where a save was made, and how large it is."""
    return {HOST_TAG: record.host, SIZE_TAG: str(record.payload.size)}


def push_delay_ms(record: SaveRecord) -> int:
    """Return how long ago a save was, by the clock of this host."""
    saved_ns = record.payload.saved_at_ns - record.payload.clock_ahead_ns
    return (time.time_ns() - saved_ns) // 10**6


def facts_of(version: ModelVersion) -> Facts:
    """Return what the registry says of a version that decides about its place."""
    created_ms, is_copied = version.creation_timestamp, is_copy(version)
    name, _, number = str(version.source).removeprefix("models:/").rpartition("/")
    is_of_own_model = is_copied and name == version.name and _NUMBER.fullmatch(number)
    delay = "" if is_copied else str(version.tags.get(PUSH_DELAY_TAG))
    origin = str(version.tags.get(ORIGIN_TAG))
    return Facts(
        number=int(version.version),
        save_id=save_id_of(version),
        created_ms=created_ms if type(created_ms) is int and created_ms > 0 else None,
        push_delay_ms=int(delay) if _DELAY.fullmatch(delay) else None,
        origin=origin if _ORIGIN.fullmatch(origin) else "",
        is_backfill=BACKFILLED_TAG in version.tags,
        is_copy=is_copied,
        copy_of=int(number) if is_of_own_model else None,
        is_late=LATE_TAG in version.tags,
    )


def is_copy(version: ModelVersion) -> bool:
    """Return whether a version was made by MLflow's ``copy_model_version``, tags and all."""
    return str(version.source).startswith("models:/")


def own_facts(record: SaveRecord, target_name: str, origin: str) -> Facts | None:
    """Return what a record says of the version of its save; ``None`` where it has none there."""
    ids = record.mirrored.get(target_name)
    if ids is None:
        return None
    return Facts(
        number=ids.version,
        save_id=record.id,
        push_delay_ms=ids.push_delay_ms,
        origin=origin,
        is_backfill=record.kind == BACKFILL,
    )


def model_id_of(version: ModelVersion) -> str:
    """Return the logged model of a version, as its tag or its source says; empty without one."""
    match = _MODEL_IN_SOURCE.search(version.source or "")
    tagged = version.tags.get(MODEL_ID_TAG)
    return str(tagged if tagged and is_id(tagged) else match.group(1) if match else "")


def save_id_of(version: ModelVersion) -> str:
    """Return the id of the save that a version mirrors; ids sort in save order."""
    return str(version.tags[SAVE_ID_TAG])


def ids_of(version: ModelVersion, record: SaveRecord) -> MlflowIds:
    """Return what a save is called where a version of it was found."""
    is_renamed = version.name != names.registered_model(record.name)
    return MlflowIds(
        version=int(version.version),
        run_id=version.run_id or "",
        model_id=model_id_of(version),
        registered_model=version.name if is_renamed else None,
    )


def as_record(version: ModelVersion, tags: Mapping[str, str] | None = None) -> ModelRecord:
    """Return what tags say of a version, by default its own, with no path on disk."""
    own = version.tags if tags is None else tags
    size = own.get(SIZE_TAG, "")
    return ModelRecord(
        name=composed(own[MODEL_NAME_TAG]),
        sha256=own[SHA256_TAG],
        saved_at=own[SAVED_AT_TAG],
        saved_at_ns=int(own[SAVE_ID_TAG].partition("-")[0]),
        registered_model=version.name,
        version=int(version.version),
        run_id=version.run_id,
        model_id=model_id_of(version),
        sklearn_version=own.get(SKLEARN_TAG),
        save_id=own[SAVE_ID_TAG],
        aliases=tuple(sorted(version.aliases)),
        host=own.get(HOST_TAG) or None,
        size=int(size) if _NUMBER.fullmatch(size) else None,
    )
