"""The signer: says what is signed of a save, and signs it with the key of the settings."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.layout import registered_model
from lotto_mlflow.records import SaveRecord
from lotto_mlflow.requirements import plain
from lotto_mlflow.settings import Settings
from lotto_mlflow.signing import (
    Pair,
    SigningKey,
    Statement,
    check_signing_key,
    parse_statement,
    render_statement,
    sha256_of_requirements,
    sign,
)
from lotto_mlflow.store.commit import metadata_of


@dataclass(frozen=True)
class Signer:
    """Signs the saves of a folder.

    Attributes
    ----------
    folder : ModelFolder
        The folder.
    key : SigningKey
        The key.
    """

    folder: ModelFolder
    key: SigningKey

    @classmethod
    def from_settings(cls, folder: ModelFolder, current: Settings) -> Signer | None:
        """Return the signer with the key of the settings, ``None`` where they have none.

        Raises
        ------
        SettingsError
            If the key is none that may be used. Nothing was touched.
        """
        if current.signing_key is None:
            return None
        return cls(folder, check_signing_key(current.signing_key, *folder.layout.own_dirs))

    def pair_of(self, record: SaveRecord, work_dir: Path, signed_at: str | None = None) -> Pair:
        """Return what is signed of a save, and its signature; the caller holds the lock."""
        content = render_statement(self.statement_of(record, work_dir, signed_at))
        parse_statement(content)  # nothing is signed that nobody could read
        return content, sign(content, self.key.path)

    def statement_of(
        self, record: SaveRecord, work_dir: Path, signed_at: str | None = None
    ) -> Statement:
        """Return what is to be signed of a save; the caller holds the lock.

        Parameters
        ----------
        record : Record
            The save.
        work_dir : pathlib.Path
            The workspace for temporary files.
        signed_at : str or None
            When it is signed, of a save that was made before.
        """
        payload, content = record.payload, metadata_of(record.payload)
        return Statement(
            folder=self.folder.folder_id(work_dir),
            name=payload.name,
            registered_model=registered_model(payload.name),
            save_id=record.id,
            saved_at=payload.saved_at,
            saved_at_ns=payload.saved_at_ns,
            sha256=payload.sha256,
            size=payload.size,
            metadata_sha256=None if content is None else hashlib.sha256(content).hexdigest(),
            requirements_sha256=sha256_of_requirements(plain(payload.description.requirements)),
            signed_at=signed_at,
        )
