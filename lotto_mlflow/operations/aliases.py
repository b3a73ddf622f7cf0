"""Aliases: promote a model, roll back, and the history of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lotto_mlflow import layout, references
from lotto_mlflow.errors import (
    AliasMovedError,
    Fix,
    InvalidReferenceError,
    LottoMlflowError,
    MirrorError,
    MirrorUnavailableError,
    ModelNotFoundError,
    SettingsError,
)
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.operations import comparison, find, last_seen, versions
from lotto_mlflow.operations.alias import Alias, holder_of
from lotto_mlflow.operations.load import NO_COPY, fix_of_file
from lotto_mlflow.operations.recording import pushed
from lotto_mlflow.plain_values import shown
from lotto_mlflow.records import (
    AliasHolder,
    AliasMove,
    ModelRecord,
    SaveRecord,
    below,
    chained,
    stack_of,
)
from lotto_mlflow.references import VersionReference
from lotto_mlflow.settings import Target

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Ledger

_MOST_ROUNDS = 100
"""How often a move is tried anew, because others were faster."""


Decide = Callable[["Ledger", "ModelRecord | None"], AliasMove]
"""Returns the move to make, with a number where it was made before; or refuses."""


def promote(
    folder: ModelFolder,
    model: Any,
    alias: str,
    *,
    metric: str | None,
    higher_is_better: bool,
    min_gain: float,
    reason: str | None,
) -> AliasMove:
    """Have an alias stand for a model, if that is better than what it stands for."""
    references.check_alias(alias)
    gate = comparison.gate_of(metric, min_gain, higher_is_better=higher_is_better)
    check_reason(reason)
    target = folder.target()
    candidate = _candidate(folder, target, model)
    place = Alias(folder, target, candidate.registered_model, alias)

    def decide(ledger: Ledger, holder: ModelRecord | None) -> AliasMove:
        move = replace(place.draft("promote", holder, candidate), reason=reason)
        last = ledger.last(alias)
        if holder is not None and holder_of(holder).is_same(move.to):
            if gate is not None:
                comparison.check_holder(place, gate, holder)
            is_known = last is not None and last.to is not None and last.to.is_same(move.to)
            return last if is_known and last is not None else move
        return move if gate is None else comparison.measured(place, gate, move, holder, candidate)

    return _moved(place, decide, candidate, may_decide_again=gate is not None)


def rollback(
    folder: ModelFolder, alias: str, registered_model: str, reason: str | None
) -> AliasMove:
    """Have an alias stand for what it stood for before the one in use."""
    references.check_alias(alias)
    _check_registered_model(registered_model)
    check_reason(reason)
    target = folder.target()
    place = Alias(folder, target, registered_model, alias)
    place.book.open()

    def decide(ledger: Ledger, holder: ModelRecord | None) -> AliasMove:
        present = None if holder is None else holder_of(holder)
        moves = chained(ledger.moves, registered_model, alias, present)
        for earlier in below(stack_of(moves)):
            found = place.version(earlier.version)
            if found is not None and holder_of(found).is_same(earlier):
                return replace(place.draft("rollback", holder, found), reason=reason)
        raise _nothing_below(place, moves, present)

    return _moved(place, decide, None, may_decide_again=False)


def history(folder: ModelFolder, alias: str, registered_model: str) -> list[AliasMove]:
    """Return the moves of an alias, oldest first."""
    references.check_alias(alias)
    _check_registered_model(registered_model)
    place = Alias(folder, folder.target(), registered_model, alias)
    place.book.open()
    ledger = place.book.read()
    holder, newest = place.holder(), ledger.last(alias)
    if newest is not None and ledger.is_late(alias, holder):
        holder = newest.to
    return place.history(ledger.moves, holder)


def _moved(
    place: Alias, decide: Decide, candidate: ModelRecord | None, *, may_decide_again: bool
) -> AliasMove:
    """Decide, and make the move, unless somebody else makes one meanwhile."""
    first: int | None = None
    for _ in range(_MOST_ROUNDS):
        ledger = place.book.recovered()
        last = ledger.last(place.name)
        number = 0 if last is None else int(last.number or 0)
        holder = place.version()
        if ledger.is_late(place.name, None if holder is None else holder_of(holder)):
            place.book.corrected(place.name, ledger)
            continue
        is_wanted = holder is not None and candidate is not None and _is_version(holder, candidate)
        if first not in (None, number) and not may_decide_again and not is_wanted:
            raise _moved_by_others(place, last)
        first = number
        draft = decide(ledger, holder)
        if draft.number is not None:
            return draft
        place.book.check_may_move()
        claimed = _claimed(place, replace(draft, number=ledger.next_number))
        if claimed is not None:
            return _finished(place, claimed)
    raise MirrorUnavailableError(
        f"so many others move aliases of {place.registered_model} that {place.name} could not be "
        "moved; nothing was moved",
        error_code=None,
    )


def _claimed(place: Alias, move: AliasMove) -> AliasMove | None:
    """Record a move, unless somebody was faster; say what is open where MLflow did not answer."""
    try:
        return place.book.claim(move)
    except MirrorUnavailableError as cause:
        raise MirrorUnavailableError(
            f"{cause.summary}; {place.name} was not moved, and if the move was recorded all the "
            "same, the next promotion or rollback finishes it",
            fix=cause.fix,
            error_code=cause.data.get("error_code"),
        ) from cause


def _finished(place: Alias, claimed: AliasMove) -> AliasMove:
    """Finish a move that is recorded; say so where that cannot be done now."""
    to = claimed.to
    number = 0 if to is None else to.version
    try:
        is_set = place.book.finish(claimed)
    except MirrorUnavailableError as cause:
        raise MirrorUnavailableError(
            f"{cause.summary}; that {place.name} is to stand for version {number} is recorded, and "
            "the next promotion or rollback finishes it",
            error_code=cause.data.get("error_code"),
        ) from cause
    if not is_set:
        raise ModelNotFoundError(
            f"version {number} of {place.registered_model} was deleted while {place.name} was to "
            "be moved to it; nothing was moved",
            version=number,
        )
    found = None if to is None else place.version(to.version)
    if found is not None:
        reference = VersionReference(place.registered_model, alias=place.name)
        last_seen.note(place.folder, place.target, reference, found)
    return replace(claimed, is_done=True)


def _is_version(one: ModelRecord, other: ModelRecord) -> bool:
    return holder_of(one).is_same(holder_of(other))


def _candidate(folder: ModelFolder, target: Target, model: Any) -> ModelRecord:
    """Return the version of what is to be promoted, pushed where it still waits for that."""
    reference = versions.version_reference(folder, model)
    if reference is not None:
        folder.mirror(target).alias_book(reference.registered_model).open()
        return versions.of_version(folder, target, reference, str(model))
    record = find.get(folder, model)
    folder.mirror(target).alias_book(record.registered_model).open()
    save = folder.history().own_save_of_version(record)
    if record.version is None and save is not None and save.target == target.name:
        folder.check_format()
        refusal = pushed(folder, target, save, waits=True)
        record = find.get(folder, model)
        if refusal is not None and record.version is None:
            raise _not_pushed(record, refusal)
    if record.version is None:
        raise _not_in_store(folder, target, record, save)
    return _where_it_is(folder, target, record)


def _not_in_store(
    folder: ModelFolder, target: Target, record: ModelRecord, save: SaveRecord | None
) -> ModelNotFoundError:
    history, path = folder.history(), record.path or folder.layout.model_path(record.name)
    file = history.file(path)
    is_damaged = history.is_changed(file) if save is None else not history.has_bytes_of(save)
    if is_damaged:
        fix = fix_of_file(history, target, file)
        problem = f", and {path} is damaged{'' if fix else f': {NO_COPY}'}"
    else:
        fix, problem = Fix("sync", effect="pushes what is missing there"), ""
    return ModelNotFoundError(
        f"{record.name} is not in {target.name}{problem}; nothing was moved",
        fix=fix,
        name=record.name,
    )


def _not_pushed(record: ModelRecord, refusal: LottoMlflowError) -> MirrorError:
    is_outage = isinstance(refusal, MirrorUnavailableError) or not isinstance(refusal, MirrorError)
    kind = MirrorUnavailableError if is_outage else MirrorError
    return kind(
        f"{record.name} waits to be pushed, and could not be: {refusal.summary}; nothing was moved",
        fix=refusal.fix,
        error_code=refusal.data.get("error_code"),
    )


def _where_it_is(folder: ModelFolder, target: Target, record: ModelRecord) -> ModelRecord:
    """Return the version of a save, which may have been renamed or copied with MLflow."""
    recorded = VersionReference(record.registered_model, version=record.version)
    try:
        found = versions.of_version(folder, target, recorded)
        if found.save_id == record.save_id or record.save_id is None:
            return found
    except ModelNotFoundError:
        pass
    save = folder.history().own_save_of_version(record)
    reference = None if save is None else folder.mirror(target).reference_of(save)
    if reference is None:
        raise ModelNotFoundError(
            f"version {record.version} of {record.registered_model}, which {record.name} was, is "
            "not in the registry any more; nothing was moved",
            fix=Fix("sync", {"resend": True}, effect="brings it back"),
            name=record.name,
        )
    return versions.of_version(folder, target, reference)


def _moved_by_others(place: Alias, last: AliasMove | None) -> AliasMovedError:
    version = last.to.version if last is not None and last.to is not None else None
    who = last.who if last is not None else None
    return AliasMovedError(
        f"{who} has just moved {place.name} of {place.registered_model} to version {version}; this "
        "move was not made. Look at what it stands for now, and decide again",
        alias=place.name,
        registered_model=place.registered_model,
        version=version,
        who=who,
    )


def _nothing_below(
    place: Alias, moves: list[AliasMove], present: AliasHolder | None
) -> ModelNotFoundError:
    if not moves:
        what = f"{place.registered_model} has no alias {place.name}, and never had"
    elif present is None:
        what = f"no version that {place.name} stood for is there any more"
    else:
        what = f"{place.name} stood for no version before {present.version} that is still there"
    return ModelNotFoundError(
        f"{what}; nothing was moved. Promote the model that it is to stand for",
        alias=place.name,
        registered_model=place.registered_model,
    )


def _check_registered_model(name: object) -> None:
    if not isinstance(name, str) or not name.strip() or set("/:") & set(name):
        raise InvalidReferenceError(
            f"{name!r:.300} is no registered model; give a name such as "
            f"{layout.REGISTERED_MODEL!r}",
            registered_model=name,
        )


def check_reason(reason: object) -> None:
    """See that a reason is a text, where one is given.

    Raises
    ------
    SettingsError
        If it is something else.
    """
    if reason is not None and not isinstance(reason, str):
        raise SettingsError(f"reason is {shown(reason)}; give a text", value=reason)
