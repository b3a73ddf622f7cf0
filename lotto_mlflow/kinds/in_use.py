"""Versions that must stay: what an alias stands for, and what a rollback of it goes back to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lotto_mlflow.errors import ForeignModelError
from lotto_mlflow.records import AliasHolder, below, chained, stack_of
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
    """
    found: dict[int, str] = {}
    aliases = mirror.aliases(registered)
    book = mirror.alias_book(registered)
    book.open()
    moves = book.read().moves
    for number, named in aliases.items():
        found[number] = f"the alias {', '.join(named)} stands for it"
    for number, named in aliases.items():
        for alias in named:
            present = AliasHolder(version=number)
            earlier = below(stack_of(chained(moves, registered, alias, present)))
            there = next((one for one in earlier if _is_there(mirror, registered, one)), None)
            if there is not None:
                found.setdefault(there.version, f"a rollback of {alias} goes back to it")
    for move in moves:
        if not move.is_done and move.to is not None:
            found.setdefault(move.to.version, f"{move.alias} is being moved to it")
    return found


def _is_there(mirror: Mirror, registered: str, holder: AliasHolder) -> bool:
    try:
        return mirror.find(VersionReference(registered, version=holder.version)) is not None
    except ForeignModelError:
        return True
