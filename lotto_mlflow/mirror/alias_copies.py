"""Copying aliases from one store to another, with the history of their moves.

A version has another number there, and is known by its save. A move keeps its number, its token and
all that it says but the numbers of versions, so that it is found there, and is not copied twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from mlflow.entities import Param
from mlflow.exceptions import MlflowException

from lotto_mlflow.mirror import registry, version_tags
from lotto_mlflow.mirror.alias_home import AliasHome, version_of
from lotto_mlflow.mirror.aliases import AliasBook
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.records import (
    DONE,
    AliasHolder,
    AliasMove,
    key_of,
    moves_in,
    parse_move,
    render_move,
    token_of,
)

_ASK_SECONDS = 60.0
"""A history is read as a whole, and the store may still have to be opened."""
_GONE = 0
_Params = dict[str, str]


@dataclass
class CopiedAliases:
    """What was done with the aliases of one registered model.

    Attributes
    ----------
    moves : int
        Moves that were written now.
    aliases : list of str
        Aliases that were set now.
    failed : dict of str to str
        Why the history, under an empty name, or an alias was not copied.
    left : dict of str to str
        Aliases that cannot be copied, and why.
    """

    moves: int = 0
    aliases: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


class AliasCopies:
    """The aliases of one registered model, on their way to another store.

    Parameters
    ----------
    source, target : Connection
        Where they are, and where they go.
    registered_model : str
        The registered model, which has the same name in both.
    versions : mapping of str to int
        Its versions in the target by the ids of their saves, as the folder's records say.
    seen : set of str
        Runs whose histories were copied already, under the name that a model has now: until its
        next move, the history of a model that was renamed has the name that it had before.
    """

    def __init__(
        self,
        source: Connection,
        target: Connection,
        registered_model: str,
        versions: Mapping[str, int],
        seen: set[str],
    ) -> None:
        self._source = source
        self._target = target
        self._name = registered_model
        self._versions = dict(versions)
        self._seen = seen
        self._home = AliasHome(target, registered_model)
        self._copied = CopiedAliases()
        self._open: dict[int, str] = {}
        """Moves that are there and not marked as done, with what marks them."""

    def copy(self) -> CopiedAliases:
        """Copy the moves that are not there yet, then set the aliases.

        Notes
        -----
        Idempotent. An alias that was moved there since it was copied stays as it is. As in a
        promotion, the last move of an alias is marked as done once the alias is set: what is killed
        in between is known from what was moved there by hand.
        """
        run_id, here = self._history(self._source, AliasHome(self._source, self._name))
        if run_id is not None and run_id in self._seen:
            here = {}
        self._seen.update([run_id] if run_id is not None else [])
        _, there = self._history(self._target, self._home)
        aliases = self._aliases(self._source)
        if not here and not aliases:
            return self._copied
        if not self._is_there():
            self._copied.failed[""] = (
                f"{self._name} is not there: it was renamed or deleted there, and its aliases stay "
                "as they are. Promote there what is to be in use"
            )
            return self._copied
        with self._target.guarded(f"copying the aliases of {self._name}"):
            reason = self._copy_moves(here, there)
            self._copied.failed.update({"": reason} if reason else {})
            self._set_aliases(here, there, aliases)
            if not reason:
                self._mark_open()
        return self._copied

    def _history(self, connection: Connection, home: AliasHome) -> tuple[str | None, _Params]:
        """Return the run that holds the moves, if there is one, and its parameters."""

        def ask() -> tuple[str | None, _Params]:
            run = home.run()
            return (None, {}) if run is None else (str(run.info.run_id), dict(run.data.params))

        doing = f"asking for the moves of the aliases of {self._name}"
        nothing: tuple[str | None, _Params] = (None, {})
        return connection.ask(ask, doing, nothing, seconds=_ASK_SECONDS)

    def _is_there(self) -> bool:
        def ask() -> bool:
            found = next(registry.pages(self._target.client, self._name, first_page=1), [])
            return bool(found)

        return self._target.ask(ask, f"asking for {self._name}", False, seconds=_ASK_SECONDS)

    def _aliases(self, connection: Connection) -> dict[str, int]:
        def ask() -> dict[str, int]:
            client = connection.client
            found = registry.existing(lambda: client.get_registered_model(self._name))
            return {} if found is None else {a: int(v) for a, v in found.aliases.items()}

        doing = f"asking for the aliases of {self._name}"
        return connection.ask(ask, doing, {}, seconds=_ASK_SECONDS)

    def _copy_moves(self, here: _Params, there: _Params) -> str:
        """Copy the moves that are not there yet; return why not all are, empty where they are."""
        recorded = list(_moves(here, self._name))
        last = {move.alias: move.number for move, _ in recorded}
        for move, text in recorded:
            number = int(move.number or 0)
            found, token = there.get(key_of(number)), token_of(text) or ""
            done_key = f"{key_of(number)}{DONE}"
            outcome = here.get(done_key)
            is_last = outcome is not None and last[move.alias] == move.number
            if found is None:
                waiting = self._waiting(move.from_) or self._waiting(move.to)
                if waiting:
                    return waiting
                translated = replace(move, from_=self._there(move.from_), to=self._there(move.to))
                text = render_move(translated, token)
                found = self._written(number, text, None if is_last else outcome)
            if token_of(found) != token:
                return _diverged(self._name, number, found)
            if outcome is not None and is_last and done_key not in there:
                self._open[number] = outcome
        return ""

    def _there(self, holder: AliasHolder | None) -> AliasHolder | None:
        return None if holder is None else replace(holder, version=self._number(holder) or _GONE)

    def _waiting(self, holder: AliasHolder | None) -> str:
        """Return that a version has still to be migrated; empty where it has not."""
        if holder is None or self._number(holder) is not None:
            return ""
        return (
            f"version {holder.version} of {self._name}, of the save {holder.save_id}, is not there "
            "yet; migrate the folder that saved it, on its host, and then this one again"
        )

    def _number(self, holder: AliasHolder) -> int | None:
        """Return the number of a version in the target: 0 where it is gone, ``None`` if it waits.

        Notes
        -----
        One that is in the source, and is of a save, has still to be migrated.
        """
        save_id = holder.save_id
        if save_id is None:
            return _GONE
        if save_id not in self._versions:
            number = self._found_there(save_id)
            if number is None and self._is_here(holder):
                return None
            self._versions[save_id] = number or _GONE
        return self._versions[save_id]

    def _found_there(self, save_id: str) -> int | None:
        condition = f"tags.{version_tags.SAVE_ID_TAG} = '{save_id}'"
        found = registry.versions(self._target.client, self._name, condition)
        return min((int(version.version) for version in found), default=None)

    def _is_here(self, holder: AliasHolder) -> bool:
        def ask() -> bool:
            found = version_of(self._source.client, self._name, holder.version)
            return found is not None and found.tags.get(version_tags.SAVE_ID_TAG) == holder.save_id

        return self._source.ask(ask, f"looking for version {holder.version}", False)

    def _written(self, number: int, text: str, outcome: str | None) -> str:
        """Write a move, and whether it is done, at once; return what has its number then."""
        params = [Param(key_of(number), text)]
        params += [] if outcome is None else [Param(f"{key_of(number)}{DONE}", outcome)]
        run_id, client = self._home.run_id_to_write(), self._target.client
        try:
            client.log_batch(run_id, params=params, synchronous=True)
        except MlflowException:
            found = client.get_run(run_id).data.params.get(key_of(number))
            if found is None:
                raise
            return str(found)
        self._copied.moves += 1
        return text

    def _mark_open(self) -> None:
        run_id = self._home.run_id_to_write() if self._open else ""
        for number, outcome in self._open.items():
            try:
                self._target.client.log_param(run_id, f"{key_of(number)}{DONE}", outcome)
            except MlflowException as cause:
                if cause.error_code != "INVALID_PARAMETER_VALUE":  # a promoter there has marked it
                    raise

    def _set_aliases(self, here: _Params, there: _Params, aliases: dict[str, int]) -> None:
        """Set the aliases as they stand in the source, but those that were moved in the target.

        Parameters
        ----------
        here, there : dict of str to str
            The moves in the source, and those that were in the target before they were copied.
        aliases : dict of str to int
            The aliases in the source.
        """
        present = self._aliases(self._target)
        settled = {m.alias: m.to for m in moves_in(there, self._name)[0] if m.is_done}
        recorded = moves_in(here, self._name)[0]
        known = {move.number for move in recorded}
        moved_there = moves_in(self._history(self._target, self._home)[1], self._name)[0]
        moved_on = {move.alias for move in moved_there if move.number not in known}
        with_moves = {move.alias for move in recorded}
        for alias, number in sorted(aliases.items()):
            if "" in self._copied.failed and alias in with_moves:
                continue
            if alias not in moved_on:
                last = next((m for m in reversed(moved_there) if m.alias == alias), None)
                before = settled.get(alias)
                is_as_copied = before is not None and present.get(alias) == before.version
                self._set_alias(alias, number, present.get(alias), last, is_as_copied=is_as_copied)

    def _set_alias(
        self,
        alias: str,
        number: int,
        present: int | None,
        last: AliasMove | None,
        *,
        is_as_copied: bool,
    ) -> None:
        holder = self._holder(number)
        version, waiting = self._number(holder), self._waiting(holder)
        if version is None:
            self._copied.failed[alias] = f"it stands for {waiting}"
            return
        if holder.save_id is None or version == _GONE:
            self._copied.left[alias] = (
                f"it stands for version {number}, which this package did not make, and which is "
                "not migrated"
            )
        elif present not in (None, version) and not is_as_copied:
            self._copied.failed[alias] = (
                f"it stands for version {present} there, and for version {version} it would; it "
                "was left as it is. Delete it there, and migrate again, or promote the model that "
                "it is to stand for"
            )
        else:
            is_of_move = last is not None and last.to is not None and last.to.version == version
            move, book = last if is_of_move else None, AliasBook(self._target, self._name)
            if present != version:
                book.adopt(alias, version, move)
                self._copied.aliases.append(alias)
                if present is not None and move is not None:
                    book.describe(present, move)
            elif move is not None:
                book.describe(version, move)

    def _holder(self, number: int) -> AliasHolder:
        """Return a version of the source with the save that it is of."""

        def ask() -> Mapping[str, str] | None:
            found = version_of(self._source.client, self._name, number)
            if found is None or version_tags.is_ours(found.tags):
                return None if found is None else found.tags
            return registry.tags_of_logged_model(self._source.client, found)

        tags = self._source.ask(ask, f"asking for version {number} of {self._name}", None) or {}
        return AliasHolder(version=number, save_id=tags.get(version_tags.SAVE_ID_TAG))


def _moves(params: _Params, registered_model: str) -> Iterator[tuple[AliasMove, str]]:
    """Yield each move that took effect, or may still do, and its text."""
    for move in moves_in(params, registered_model)[0]:
        yield move, params[key_of(int(move.number or 0))]


def _diverged(registered_model: str, number: int, found: str) -> str:
    move = parse_move(found, registered_model, number, is_done=True)
    who = "somebody" if move is None else move.who
    return (
        f"move {number} of the aliases of {registered_model} is another one there, of {who}: its "
        "history there goes on by itself, and nothing is added to it. Promote there what is to "
        "be in use"
    )
