"""Verify aliases: compare what they stand for with the moves that are recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lotto_mlflow.errors import Fix
from lotto_mlflow.kinds import Verification
from lotto_mlflow.operations.alias import Alias
from lotto_mlflow.records import AliasHolder, AliasMove, Finding


def findings(verification: Verification, registered_models: Iterable[str]) -> Iterator[Finding]:
    """Yield what is to be said of the aliases of registered models.

    Parameters
    ----------
    verification : Verification
        What may be asked.
    registered_models : iterable of str
        Those that the folder has saves of.
    """
    if verification.mirror is None:
        return
    own = set(registered_models)
    for name in verification.mirror.models_with_moves():
        if name in own:
            yield from _of_model(verification, name)


def _of_model(verification: Verification, name: str) -> Iterator[Finding]:
    ledger = Alias(verification.folder, verification.target, name, "").book.read(is_by_name=True)
    for alias in dict.fromkeys(move.alias for move in ledger.moves):
        place = Alias(verification.folder, verification.target, name, alias)
        present = place.holder()
        *_, last = place.history(ledger.moves, present)
        if not last.is_done:
            yield _stuck(last)
        elif last.kind == "outside":
            yield _changed(last, present)


def _stuck(move: AliasMove) -> Finding:
    version = None if move.to is None else move.to.version
    detail = f"{move.who} had {move.alias} moved to version {version}, which was not seen to end"
    repair = "none is needed: the next promotion or rollback finishes it"
    return Finding("stuck record", move.registered_model, None, detail, repair)


def _changed(move: AliasMove, present: AliasHolder | None) -> Finding:
    before = "none" if move.from_ is None else f"version {move.from_.version}"
    if move.from_ is not None and not move.from_.version:
        before = "a version that was deleted"
    if present is None:
        detail = f"{move.alias} stands for nothing, and its history ends with {before}"
        repair = "promote the model that it is to stand for, or roll back"
        return Finding("changed outside", move.registered_model, None, detail, repair)
    detail = (
        f"{move.alias} stands for version {present.version}, and its history ends with {before}"
    )
    arguments = {
        "model": f"models:/{move.registered_model}/{present.version}",
        "alias": move.alias,
    }
    fix = Fix("promote", arguments, effect="records it as it is")
    return Finding("changed outside", move.registered_model, None, detail, fix=fix)
