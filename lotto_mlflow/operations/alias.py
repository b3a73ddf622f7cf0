"""One alias: what it stands for, and the draft of a move."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from lotto_mlflow import description
from lotto_mlflow.errors import ForeignModelError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.operations import versions
from lotto_mlflow.records import PRUNE, AliasHolder, AliasMove, ModelRecord, MoveKind, chained
from lotto_mlflow.references import VersionReference
from lotto_mlflow.settings import Target
from lotto_mlflow.text import one_line

if TYPE_CHECKING:
    from lotto_mlflow.mirror import AliasBook

_LONGEST_USER = 200


class Alias:
    """One alias of a registered model in one tracking store.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    target : Target
        The store.
    registered : str
        The registered model.
    name : str
        The alias.
    """

    def __init__(self, folder: ModelFolder, target: Target, registered: str, name: str) -> None:
        self.folder = folder
        self.target = target
        self.registered_model = registered
        self.name = name
        self.book: AliasBook = folder.mirror(target).alias_book(registered)

    def version(self, number: int | None = None) -> ModelRecord | None:
        """Return a version, by default the one that the alias stands for, if it is there."""
        alias = self.name if number is None else None
        reference = VersionReference(self.registered_model, version=number, alias=alias)
        try:
            found = self.folder.mirror(self.target).find(reference)
        except ForeignModelError as cause:
            return self._untagged(reference, cause)
        return None if found is None else self.folder.history().corrected(found, self.target)

    def holder(self) -> AliasHolder | None:
        """Return what the alias stands for, ``None`` where it stands for nothing."""
        found = self.version()
        return None if found is None else holder_of(found)

    def history(self, recorded: Iterable[AliasMove], holder: AliasHolder | None) -> list[AliasMove]:
        """Return all moves of the alias, oldest first; what a forced deletion took says so.

        Parameters
        ----------
        recorded : iterable of AliasMove
            The moves of the registered model in the order of their numbers.
        holder : AliasHolder or None
            What the alias stands for now.
        """
        moves = chained(recorded, self.registered_model, self.name, holder)
        return [self._explained(move) if move.kind == "outside" else move for move in moves]

    def _explained(self, move: AliasMove) -> AliasMove:
        """Return a move that nobody recorded, as a deletion where the record of one says so."""
        save_id = None if move.from_ is None or move.to is not None else move.from_.save_id
        entry = None if save_id is None else self.folder.journal.with_id(save_id)
        record = None if entry is None else self.folder.journal.read(entry)
        if record is None or record.kind != PRUNE or not record.payload.is_forced:
            return move
        return replace(move, kind="deleted", when=record.payload.when, reason=record.payload.why)

    def _untagged(self, reference: VersionReference, cause: ForeignModelError) -> ModelRecord:
        try:
            return versions.of_version(self.folder, self.target, reference)
        except ForeignModelError:
            return ModelRecord(
                name=self.registered_model,
                registered_model=self.registered_model,
                version=int(cause.data["version"]),
                run_id=cause.data["run_id"],
            )

    def draft(self, kind: MoveKind, holder: ModelRecord | None, to: ModelRecord) -> AliasMove:
        """Return a move that is still to be recorded."""
        now = datetime.now(self.folder.settings().timezone)
        user = one_line(description.user())[:_LONGEST_USER]
        return AliasMove(
            kind=kind,
            registered_model=self.registered_model,
            alias=self.name,
            when=now.isoformat(timespec="milliseconds"),
            who=f"{user}@{one_line(socket.gethostname())[:_LONGEST_USER]}",
            from_=None if holder is None else holder_of(holder),
            to=holder_of(to),
        )


def holder_of(record: ModelRecord) -> AliasHolder:
    """Return a version as what an alias stands for."""
    return AliasHolder(
        version=int(record.version or 0), save_id=record.save_id, sha256=record.sha256
    )
