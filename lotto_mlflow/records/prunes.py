"""Saves that went on purpose: the payload of their records, and what a prune reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PRUNE = "prune"
"""Kind of the record of a save that goes, and, in the place of the save's own, that is gone."""


@dataclass(frozen=True, kw_only=True)
class PrunePayload:
    """A save that was pruned or deleted: what is left to know of it.

    Attributes
    ----------
    name, sha256, size, saved_at, saved_at_ns
        As in `lotto_mlflow.records.SavePayload`.
    file_time_ns : int
        Modification time of its file.
    save_id : str
        Identity of the save.
    registered_model : str
        Name of the registered model that it was a version of.
    when : str
        When it was decided, ISO 8601 with its offset from UTC.
    why : str
        The limits, or the reason that was given.
    is_deletion : bool
        Whether somebody named it, and no limit chose it.
    is_forced : bool
        Whether it goes even where an alias stands for it.
    backup, replaced_sha256, earlier_sha256
        As in `lotto_mlflow.records.SavePayload`: they are about files that stay.
    left : list of str
        What could not be removed from MLflow, and what removes it.
    extra : dict
        Fields of a later release, kept as they are.
    """

    name: str
    sha256: str
    size: int
    saved_at: str
    saved_at_ns: int
    file_time_ns: int
    save_id: str
    registered_model: str
    when: str
    why: str
    is_deletion: bool = False
    is_forced: bool = False
    backup: str | None = None
    replaced_sha256: str | None = None
    earlier_sha256: list[str] | None = None
    left: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def verb(self) -> str:
        """What was done to the save."""
        return "deleted" if self.is_deletion else "pruned"


@dataclass(frozen=True, kw_only=True)
class PrunedSave:
    """One save of which a prune decides.

    Attributes
    ----------
    name : str
        Name of the model.
    registered_model : str
        The registered model that the save is a version of.
    version : int or None
        Its version in the current tracking store.
    save_id, sha256, saved_at
        As in `lotto_mlflow.ModelRecord`.
    size : int
        Bytes that it takes, on disk and in MLflow, as far as that can be told from here.
    why : str
        Why it goes, or why it stays.
    aliases : tuple of str
        Aliases that go with it.
    """

    name: str
    registered_model: str
    version: int | None
    save_id: str
    sha256: str
    saved_at: str
    size: int
    why: str
    aliases: tuple[str, ...] = ()


@dataclass
class PruneReport:
    """What a prune or a deletion did, or would do.

    Attributes
    ----------
    pruned : list of PrunedSave
        What is gone, or would go, oldest first.
    kept : list of PrunedSave
        What stays although no limit keeps it, and why.
    failed : dict of str to str
        Reason for each save, by its id, that MLflow refused to remove, or that came into use.
    left : list of str
        What MLflow refused to remove of what is gone otherwise, and what removes it.
    size : int
        Bytes of all in `pruned`.
    dry_run : bool
        Whether nothing was done.
    """

    pruned: list[PrunedSave] = field(default_factory=list)
    kept: list[PrunedSave] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    size: int = 0
    dry_run: bool = False

    def add(self, one: PrunedSave) -> None:
        """Note a save that is gone, or would go."""
        self.pruned.append(one)
        self.size += one.size
