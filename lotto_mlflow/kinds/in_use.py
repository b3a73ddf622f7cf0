"""Versions that must stay: what an alias stands for, and what a rollback of it goes back to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lotto_mlflow.errors import ForeignModelError
from lotto_mlflow.records import AliasHolder, AliasMove, below, chained, stack_of
from lotto_mlflow.references import VersionReference

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror


def protected_versions(mirror: Mirror, registered: str) -> dict[int, str]:
    """Return why versions of a registered model must stay, by their numbers.

    Parameters
    ----------
    mirror : Mirror
        The MLflow view.
    registered : str
        The registered model.

    Raises
    ------
    MirrorUnavailableError
        If MLflow could not be asked.

    Notes
    -----
    An alias that stands for nothing now, since its version was deleted or MLflow removed it, can be
    rolled back as well: as long as moves of it are recorded, what that goes back to stays.
    """
    found: dict[int, str] = {}
    aliases = mirror.aliases(registered)
    book = mirror.alias_book(registered)
    book.open()
    ledger = book.read()
    moves = ledger.moves
    holders: dict[str, AliasHolder | None] = {move.alias: None for move in moves}
    for number, named in aliases.items():
        found[number] = f"the alias {', '.join(named)} stands for it"
        holders |= dict.fromkeys(named, AliasHolder(version=number))
    there = _There(mirror, registered)
    for alias, holder in holders.items():
        newest = ledger.last(alias)
        if newest is not None and newest.to is not None and ledger.is_late(alias, holder):
            found.setdefault(newest.to.version, f"{alias} is being moved to it")
            holder = newest.to  # a rollback sets that first
        for number in _below(there, moves, alias, holder):
            found.setdefault(number, f"a rollback of {alias} goes back to it")
    for move in moves:
        if not move.is_done and move.to is not None:
            found.setdefault(move.to.version, f"{move.alias} is being moved to it")
    return found


class _There:
    """The versions of a registered model that are there, each asked for once."""

    def __init__(self, mirror: Mirror, registered: str) -> None:
        self._mirror = mirror
        self.registered_model = registered
        self._found: dict[int, AliasHolder | None] = {}

    def version(self, number: int) -> AliasHolder | None:
        """Return a version as what an alias stands for, ``None`` where it is gone."""
        if number not in self._found:
            self._found[number] = self._ask(number)
        return self._found[number]

    def _ask(self, number: int) -> AliasHolder | None:
        reference = VersionReference(self.registered_model, version=number)
        try:
            found = self._mirror.find(reference)
        except ForeignModelError:
            return AliasHolder(version=number)
        return None if found is None else AliasHolder(version=number, save_id=found.save_id)


def _below(
    there: _There, moves: Sequence[AliasMove], alias: str, holder: AliasHolder | None
) -> Iterator[int]:
    """Yield the versions that a rollback of an alias may go back to, the nearest first.

    Notes
    -----
    The nearest is the one, unless its tags say that it is of another save than it was then; tags
    can be wrong, so that it stays, too.
    """
    for earlier in below(stack_of(chained(moves, there.registered_model, alias, holder))):
        present = there.version(earlier.version)
        if present is not None:
            yield earlier.version
            if earlier.is_same(present):
                return
