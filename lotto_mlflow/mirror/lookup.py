"""What the registry knows: versions as `ModelRecord`, and the newest of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from lotto_mlflow import layout as names
from lotto_mlflow.records import ModelRecord, SaveRecord

MODEL_NAME_TAG = "model_name"
SHA256_TAG = "sha256"
SAVED_AT_TAG = "saved_at"
SAVE_ID_TAG = "save_id"
MODEL_ID_TAG = "model_id"
"""The logged model of a version: MLflow's SQL registry takes the id, and does not keep it."""
BACKFILLED_TAG = "backfilled"
"""On what was found on disk, and not saved by this package."""
SKLEARN_TAG = "sklearn_version"
LATE_TAG = "late"
"""On a version whose save is older than one that already had a version."""
_PAGE = 100
_SAVE_ID = re.compile(r"\d{19}-[0-9a-f]{8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Newest:
    """The newest version of a registered model, as far as is known before another is made.

    Attributes
    ----------
    number : int
        Its number; 0 where there is none.
    save_id : str
        The save that it mirrors.
    """

    number: int = 0
    save_id: str = ""

    @property
    def next(self) -> int:
        """The number that the version made next has, if nobody else makes one first."""
        return self.number + 1


def versions(
    client: MlflowClient, registered: str | None, condition: str = "", first_page: int = _PAGE
) -> Iterator[ModelVersion]:
    """Yield the versions that this package made, of one registered model or all, newest first."""
    parts = [f'name = "{registered}"'] if registered is not None else []
    query = " and ".join(parts + ([condition] if condition else [])) or None
    token, size = None, first_page
    while True:
        page = client.search_model_versions(
            query, max_results=size, order_by=["version_number DESC"], page_token=token
        )
        yield from (version for version in page if is_ours(version))
        token, size = page.token, _PAGE
        if not token:
            return


def is_ours(version: ModelVersion) -> bool:
    """Tell whether a version was made by this package; its tags may be anybody's."""
    tags = version.tags
    return (
        _SAVE_ID.fullmatch(tags.get(SAVE_ID_TAG, "")) is not None
        and _SHA256.fullmatch(tags.get(SHA256_TAG, "")) is not None
        and names.is_name(tags.get(MODEL_NAME_TAG))
        and SAVED_AT_TAG in tags
    )


def newest_version(client: MlflowClient, registered: str) -> ModelVersion | None:
    """Return the highest version that is not tagged late: one indexed query, ordinarily."""
    found = versions(client, registered, first_page=1)
    return next((version for version in found if LATE_TAG not in version.tags), None)


def version_of_save(client: MlflowClient, record: SaveRecord) -> ModelVersion | None:
    """Return the version of a save, looked up by the save's id."""
    condition = f"tags.{SAVE_ID_TAG} = '{record.id}'"
    return next(versions(client, names.registered_model(record.name), condition), None)


def save_id_of(version: ModelVersion) -> str:
    """Return the id of the save that a version mirrors; ids sort in save order."""
    return str(version.tags[SAVE_ID_TAG])


def saved_at_ns_of(version: ModelVersion) -> int:
    """Return the time of the save that a version mirrors, in nanoseconds since 1970."""
    return int(save_id_of(version).partition("-")[0])


def as_record(version: ModelVersion) -> ModelRecord:
    """Return what a version tells, with no path on disk."""
    return ModelRecord(
        name=version.tags[MODEL_NAME_TAG],
        sha256=version.tags[SHA256_TAG],
        saved_at=version.tags[SAVED_AT_TAG],
        saved_at_ns=saved_at_ns_of(version),
        registered_model=version.name,
        version=int(version.version),
        run_id=version.run_id,
        model_id=version.tags.get(MODEL_ID_TAG),
        sklearn_version=version.tags.get(SKLEARN_TAG),
        aliases=tuple(sorted(version.aliases)),
    )
