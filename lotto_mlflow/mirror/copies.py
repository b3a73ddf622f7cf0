"""Copying from one store to another what people added to saves: tags and descriptions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

from mlflow.entities import RunTag
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from lotto_mlflow.errors import Fix, MirrorUnavailableError, SettingsError
from lotto_mlflow.layout import registered_model, registered_model_of
from lotto_mlflow.mirror import (
    entities,
    fetch,
    leftovers,
    probing,
    refusals,
    registry,
    version_tags,
)
from lotto_mlflow.mirror.alias_copies import AliasCopies, CopiedAliases
from lotto_mlflow.mirror.alias_home import version_of
from lotto_mlflow.mirror.aliases import split_description
from lotto_mlflow.mirror.connection import Connection
from lotto_mlflow.records import MlflowIds, SaveRecord
from lotto_mlflow.text import masked

_OWN = frozenset(
    {
        version_tags.MODEL_NAME_TAG,
        version_tags.SHA256_TAG,
        version_tags.SAVED_AT_TAG,
        version_tags.SAVE_ID_TAG,
        version_tags.MODEL_ID_TAG,
        version_tags.BACKFILLED_TAG,
        version_tags.SKLEARN_TAG,
        version_tags.LATE_TAG,
        version_tags.PUSH_DELAY_TAG,
        version_tags.ORIGIN_TAG,
        version_tags.HOST_TAG,
        version_tags.SIZE_TAG,
    }
)
"""Tags that a push writes, and that are of one store."""
_OF_MLFLOW, _OF_PACKAGE = "mlflow.", "lotto_mlflow."
_OPEN_SECONDS = 60.0
"""Opening a store for the first time takes seconds of work, more where a machine is busy."""
_MOST_VERSIONS = 20
"""Versions of the source that are looked at for one whose run it has."""


class Copies:
    """What people added in one store, on its way to another.

    Parameters
    ----------
    source, target : Connection
        Where it is, and where it goes.
    """

    def __init__(self, source: Connection, target: Connection) -> None:
        self._source = source
        self._target = target
        self._seen: set[str] = set()

    def check(self, known: Iterable[MlflowIds]) -> None:
        """See that the target can be asked, is a store of its own, and of an MLflow that will do.

        Parameters
        ----------
        known : iterable of MlflowIds
            Saves in the source.

        Raises
        ------
        MirrorUnavailableError
            If it does not answer, or has another schema or too old a version.
        SettingsError
            If it is the source under another address. Nothing was written.
        """
        shown, seconds = masked(self._target.tracking_uri), _OPEN_SECONDS
        own = [ids.run_id for ids in islice(known, 1) if ids.run_id]
        self._source.ask(lambda: None, "reaching the current store", None)
        with self._refusals_of_target(shown):
            self._target.ask(lambda: None, f"reaching {shown}", None)
            self._target.ask(self._check_server, f"asking {shown}", None, seconds=seconds)
        none: list[str] = []
        doing = "asking the current store"
        found = self._source.ask(self._runs_of_source, doing, none, seconds=seconds)
        has_any = partial(self._has_any, {*own, *found})
        if self._target.ask(has_any, f"asking {shown}", False, seconds=seconds):
            raise SettingsError(
                f"{shown} has the runs of the current store: it is the same store by another "
                "address, or a copy of it; nothing was migrated",
                value=shown,
            )

    @contextmanager
    def _refusals_of_target(self, shown: str) -> Iterator[None]:
        """Have an error that calls for a sync, which leads to the current store, say otherwise."""
        try:
            yield
        except MirrorUnavailableError as cause:
            if cause.fix is None or cause.fix.verb != "sync":
                raise
            before = (
                "if it is damaged, bring it back from a copy, or move it away, and call migrate "
                "again:"
            )
            fix = Fix("migrate", {"to": shown}, before=before)
            raise type(cause)(cause.summary, fix=fix, **cause.data) from cause

    def _check_server(self) -> None:
        """Refuse a server that is none of MLflow, or whose release will not do."""
        uri = self._target.tracking_uri
        if not probing.is_server(uri):
            return
        release = probing.check_release(uri, takes_newer=False)
        try:
            self._target.known_experiment_id()
        except MlflowException as cause:
            if release is not None or not refusals.is_of_others(cause):
                raise
            raise MirrorUnavailableError(
                f"there is no MLflow server at {masked(uri)}; check the address", error_code=None
            ) from cause

    def _runs_of_source(self) -> list[str]:
        """Return the run of a version in the source, if it has any.

        Notes
        -----
        A folder that has saved nothing there knows none. The run of a version may be in another
        tracking store, where several share a registry.
        """
        client = self._source.client
        pages = registry.pages(client, None, first_page=_MOST_VERSIONS)
        found = (str(v.run_id) for page in pages for v in page if v.run_id)
        few = islice(found, _MOST_VERSIONS)
        return list(islice((r for r in few if leftovers.run_of(self._source, r) is not None), 1))

    def _has_any(self, run_ids: set[str]) -> bool:
        return any(leftovers.run_of(self._target, run_id) is not None for run_id in run_ids)

    def register_as(self, registered_models: Mapping[str, str]) -> None:
        """Have saves become versions of other registered models than their names give.

        Parameters
        ----------
        registered_models : mapping of str to str
            The registered model by the id of the save.
        """
        self._target.registered_as.update(registered_models)

    def copy_notes(self, record: SaveRecord, here: MlflowIds, there: MlflowIds) -> int:
        """Copy tags and descriptions of version, run and logged model of a save.

        Returns
        -------
        int
            How many were written now.

        Notes
        -----
        What people changed in the target stays.
        """
        self._target.prepare()
        with self._target.guarded(f"copying the tags of {record.name}"):
            return (
                self._of_version(record, here, there)
                + self._of_run(record, here, there)
                + self._of_model(record, here, there)
            )

    def copy_model(self, registered_model: str) -> int:
        """Copy tags and description of a registered model; return how many were written now."""

        def found(connection: Connection) -> RegisteredModel | None:
            return registry.existing(
                lambda: connection.client.get_registered_model(registered_model)
            )

        doing = f"copying the tags of {registered_model}"
        before = self._source.ask(lambda: found(self._source), doing, None)
        with self._target.guarded(doing):
            now = found(self._target)
            if before is None or now is None:
                return 0
            client = self._target.client
            tags = _lacking(before.tags, now.tags, {})
            for key, value in tags.items():
                client.set_registered_model_tag(registered_model, key, value)
            ours = entities.registered_model_summary(registered_model)
            text = before.description or ""
            is_changed = text not in ("", ours) and now.description in (None, "", ours)
            if is_changed:
                client.update_registered_model(registered_model, text)
            return len(tags) + is_changed

    def copy_aliases(self, registered_model: str, versions: Mapping[str, int]) -> CopiedAliases:
        """Copy the aliases of a registered model; see `lotto_mlflow.mirror.alias_copies`."""
        self._target.prepare()
        return AliasCopies(
            self._source, self._target, registered_model, versions, self._seen
        ).copy()

    def has_bytes(self, record: SaveRecord, there: MlflowIds, work_dir: Path) -> bool:
        """Return whether the target has the bytes of a save; what it keeps elsewhere is fetched.

        Notes
        -----
        Where its registered model was renamed there, its version is found by the save's id.
        """
        self._target.prepare()
        with self._target.guarded(f"comparing the bytes of {record.name}"):
            is_same = registry.existing(
                lambda: fetch.has_bytes(self._target, there, record, work_dir)
            )
            if is_same is None:
                moved = registry.version_of_save(self._target.client, record)
                ids = None if moved is None else version_tags.ids_of(moved, record)
                return ids is not None and fetch.has_bytes(self._target, ids, record, work_dir)
            return is_same

    def _of_version(self, record: SaveRecord, here: MlflowIds, there: MlflowIds) -> int:
        name_here, name_there = (registered_model_of(ids, record.name) for ids in (here, there))
        before = version_of(self._source.client, name_here, here.version)
        now = version_of(self._target.client, name_there, there.version)
        if before is None or now is None:
            return 0
        client, number = self._target.client, str(there.version)
        tags = _lacking(before.tags, now.tags, {})
        for key, value in tags.items():
            client.set_model_version_tag(name_there, number, key, value)
        lines, text_there = split_description(now.description or "")
        _, text_here = split_description(before.description or "")
        ours = self._summaries(record, here, there)
        text = _carried(record, text_here, text_there, *ours)
        if text is not None:
            described = f"{lines}\n{text}" if lines else text
            client.update_model_version(name_there, number, described)
        return len(tags) + (text is not None)

    def _summaries(
        self, record: SaveRecord, here: MlflowIds, there: MlflowIds
    ) -> tuple[list[str], list[str]]:
        """Return what a push wrote as description of the version here, and there."""
        experiment_here, experiment_there = self._experiments
        return _texts(record, here, experiment_here), _texts(record, there, experiment_there)

    @cached_property
    def _experiments(self) -> tuple[str | None, str | None]:
        return self._source.known_experiment_id(), self._target.known_experiment_id()

    def _of_run(self, record: SaveRecord, here: MlflowIds, there: MlflowIds) -> int:
        before = leftovers.run_of(self._source, here.run_id) if here.run_id else None
        now = leftovers.run_of(self._target, there.run_id)
        if before is None or now is None or leftovers.is_deleted(now):
            return 0
        pushed = entities.tags(record.payload.description.tags)
        tags = _lacking(before.data.tags, now.data.tags, pushed)
        tags |= _note(record, before.data.tags, now.data.tags, here, there)
        if tags:
            made = [RunTag(key, value) for key, value in tags.items()]
            self._target.client.log_batch(there.run_id, tags=made, synchronous=True)
        return len(tags)

    def _of_model(self, record: SaveRecord, here: MlflowIds, there: MlflowIds) -> int:
        before = leftovers.logged_model_of(self._source, here.model_id) if here.model_id else None
        now = leftovers.logged_model_of(self._target, there.model_id)
        if before is None or now is None:
            return 0
        tags = _lacking(before.tags, now.tags, {})
        tags |= _note(record, before.tags, now.tags, here, there)
        if tags:
            self._target.client.set_logged_model_tags(there.model_id, tags)
        return len(tags)


def _lacking(
    before: Mapping[str, str], now: Mapping[str, str], pushed: Mapping[str, str]
) -> dict[str, str]:
    """Return the tags of people that are still to be copied.

    Parameters
    ----------
    before, now : mapping of str to str
        All tags in the source, and in the target.
    pushed : mapping of str to str
        What the push wrote in the target, which a person may have changed in the source.
    """
    return {
        key: value
        for key, value in before.items()
        if key not in _OWN
        and not key.startswith((_OF_MLFLOW, _OF_PACKAGE))
        and now.get(key) in (None, pushed.get(key))
        and now.get(key) != value
    }


def _note(
    record: SaveRecord,
    before: Mapping[str, str],
    now: Mapping[str, str],
    here: MlflowIds,
    there: MlflowIds,
) -> dict[str, str]:
    """Return the description of a run or logged model as a tag, if it is to be copied."""
    key = entities.NOTE_TAG
    ours = _texts(record, here), _texts(record, there)
    text = _carried(record, before.get(key) or "", now.get(key) or "", *ours)
    return {} if text is None else {key: text}


def _texts(record: SaveRecord, ids: MlflowIds, experiment_id: str | None = None) -> list[str]:
    """Return what a push describes a save as: under the name of its model now, and at first."""
    model_id = None if experiment_id is None else ids.model_id
    names = dict.fromkeys((registered_model_of(ids, record.name), registered_model(record.name)))
    return [
        entities.summary(record, model_id, experiment_id, version=ids.version, registered=name)
        for name in names
    ]


def _carried(
    record: SaveRecord, before: str, now: str, ours_before: list[str], ours_now: list[str]
) -> str | None:
    """Return a description for the target, ``None`` where it stays as it is.

    Notes
    -----
    Lines of ours in it that name versions, runs and the like are those of the target. A text of an
    earlier release, whose lines are not known, is none that people wrote.
    """
    if before in ("", *ours_before) or now not in ("", *ours_now):
        return None
    lines: dict[str, str] = {}
    for ours in ours_before:
        pairs = zip(ours.splitlines(), ours_now[0].splitlines(), strict=False)
        lines |= {one: other for one, other in pairs if one != other}
    is_generated = record.payload.sha256 in before
    if is_generated and lines and not any(line in lines for line in before.splitlines()):
        return None
    text = "\n".join(lines.get(line, line) for line in before.splitlines())
    return None if text == now else text
