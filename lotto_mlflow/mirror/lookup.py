"""Looking up one version, and not believing whatever is answered."""

from __future__ import annotations

from mlflow import MlflowClient

from lotto_mlflow.errors import ForeignModelError, MirrorError
from lotto_mlflow.mirror import registry, version_tags
from lotto_mlflow.records import ModelRecord
from lotto_mlflow.references import VersionReference


def get(client: MlflowClient, reference: VersionReference) -> ModelRecord | None:
    """Return the version that a number or an alias names, ``None`` where there is none.

    Raises
    ------
    ForeignModelError
        If it was not made by this package.
    """
    name, alias = reference.registered_model, reference.alias
    version = registry.existing(
        lambda: (
            client.get_model_version(name, str(reference.version))
            if alias is None
            else client.get_model_version_by_alias(name, alias)
        )
    )
    if version is None:
        return None
    number = version.version if reference.version is None else reference.version
    is_asked_for = (version.name, str(version.version)) == (name, str(number))
    if not is_asked_for or not version_tags.is_well_formed(version):
        raise MirrorError(
            f"the registry was asked for {reference}, and answers with version "
            f"{version.version} of {version.name}; nothing was loaded",
            error_code=None,
            reference=str(reference),
        )
    tags = version.tags
    if not version_tags.is_ours(tags):
        tags = registry.tags_of_logged_model(client, version)
    if tags is None:
        raise ForeignModelError(
            f"{reference} was not made by lotto_mlflow, so its digest is not known; open it "
            f"with mlflow.pyfunc.load_model({str(reference)!r})",
            reference=str(reference),
            run_id=version.run_id,
            version=int(version.version),
        )
    return version_tags.as_record(version, tags)
