"""The journal as predictions and results: which prediction counts, which is shown, what was drawn.

Of a save there is at most one prediction that counts for a draw, live, and one in a backtest: the
newest that was made before sales closed. All predictions of one model for one draw have records
of one name, so that a question about them reads these alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lotto_mlflow.draws import Draw, Score, score
from lotto_mlflow.journal import Entry, Journal
from lotto_mlflow.metadata import to_json
from lotto_mlflow.records import (
    PREDICTION,
    PRUNE,
    RESULT,
    RESULTS_NAME,
    MlflowIds,
    PredictionPayload,
    PredictionRecord,
    Record,
    ResultRecord,
    SaveRecord,
    prediction_name,
)

_RESULTS: dict[tuple[Path, str], list[Draw]] = {}
"""The results in each record that this process has read; what was drawn does not change."""


@dataclass(frozen=True)
class NamedPredictions:
    """The predictions of one model, of any of its saves, for one draw.

    Attributes
    ----------
    kept : list of (Entry, Record)
        Them all, the newest first.
    """

    kept: list[tuple[Entry, PredictionRecord]]

    @cached_property
    def counting(self) -> list[tuple[Entry, PredictionRecord]]:
        """Those that count, the newest first."""
        newest: dict[tuple[str, bool], tuple[Entry, PredictionRecord]] = {}
        for entry, record in self.kept:
            key = (record.payload.save_id, record.payload.is_backtest)
            if not record.payload.is_late and (
                key not in newest or _order(record) > _order(newest[key][1])
            ):
                newest[key] = entry, record
        return sorted(newest.values(), key=lambda item: _order(item[1]), reverse=True)

    @property
    def counting_ids(self) -> set[str]:
        """The ids of those that count."""
        return {record.id for _, record in self.counting}

    @property
    def shown(self) -> PredictionRecord | None:
        """The one that the file of the name shows: the newest that counts, live before backtest."""
        records = [record for _, record in self.counting]
        live = [record for record in records if not record.payload.is_backtest]
        return next(iter(live or records), None)


def _order(record: PredictionRecord) -> tuple[int, str]:
    """Return what is greater of the newer of two predictions, both live or both backtests.

    Notes
    -----
    Ids increase where the clock steps back. The time of a backtest is the caller's word.
    """
    payload = record.payload
    return payload.made_at_ns if payload.is_backtest else 0, record.id


class Predictions:
    """The predictions and results in the journal.

    Parameters
    ----------
    journal : Journal
        The records.

    Notes
    -----
    It serves one operation: what is written after something was read is not seen. Work that was
    not seen to end does not count, unless it is given.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._saves: dict[str, tuple[Entry, SaveRecord] | None] = {}
        self._results: dict[int, Draw] | None = None
        self._entries_by_id: dict[str, Entry] | None = None

    def named(
        self, model: str, draw_no: int, also: PredictionRecord | None = None
    ) -> NamedPredictions:
        """Return the predictions of a model for a draw.

        Parameters
        ----------
        model : str
            The model's name.
        draw_no : int
            The draw.
        also : PredictionRecord, optional
            One that is being recorded.
        """
        name = prediction_name(model, draw_no)
        found = self._read(self._journal.entries(name), also)
        if also is not None:
            found.append((self._journal.entry_of(also, "pending"), also))
        found.sort(key=lambda item: item[1].id, reverse=True)
        return NamedPredictions(found)

    def all_named(
        self, model: str | None = None, draw_nos: set[int] | None = None
    ) -> Iterator[NamedPredictions]:
        """Yield the predictions of each model for each draw, by draw and name.

        Parameters
        ----------
        model : str, optional
            Only those of this model.
        draw_nos : set of int, optional
            Only those for these draws.
        """
        if self._entries_by_id is None:  # of many predictions, the saves are not looked up singly
            self._entries_by_id = {entry.id: entry for entry in self._journal.entries()}
        by_name: dict[tuple[int, str], list[Entry]] = {}
        for entry in self._journal.of_draws():
            of_model, _, number = entry.name.rpartition("@")
            if not of_model or model not in (None, of_model):
                continue
            draw_no = int(number)
            if draw_nos is None or draw_no in draw_nos:
                by_name.setdefault((draw_no, of_model), []).append(entry)
        for _, entries in sorted(by_name.items()):
            kept = self._read(entries, None)
            if kept:
                yield NamedPredictions(kept)

    def _read(
        self, entries: list[Entry], but: PredictionRecord | None
    ) -> list[tuple[Entry, PredictionRecord]]:
        found = []
        for entry in entries:
            if entry.state == "pending" or (but is not None and entry.id == but.id):
                continue
            record = self._journal.read(entry)
            if record is not None and record.kind == PREDICTION:
                found.append((entry, record))
        return found

    def save_of(self, payload: PredictionPayload) -> tuple[Entry, SaveRecord] | None:
        """Return the save that predicted, ``None`` where this folder has no record of it.

        Notes
        -----
        Of a save that was pruned it is the record of that, which knows what it was called.
        """
        save_id = payload.save_id
        if save_id not in self._saves:
            if self._entries_by_id is None:
                entry = self._journal.with_id(save_id)
            else:
                entry = self._entries_by_id.get(save_id)
            record = None if entry is None else self._journal.read(entry)
            is_save = record is not None and (record.is_save or record.kind == PRUNE)
            self._saves[save_id] = (entry, record) if entry and record and is_save else None
        return self._saves[save_id]

    def ids_of_save(self, payload: PredictionPayload, target_name: str) -> MlflowIds | None:
        """Return what the save that predicted is called in a store; ``None`` where it is not."""
        found = self.save_of(payload)
        if found is not None:
            return found[1].mirrored.get(target_name)
        if payload.store != target_name or not payload.run_id:
            return None
        number = payload.version or 0
        return MlflowIds(version=number, run_id=payload.run_id, model_id=payload.model_id)

    def waits_for_save(self, payload: PredictionPayload, target_name: str) -> bool:
        """Return whether the save that predicted has still to be pushed to a store."""
        found = self.save_of(payload)
        if found is None:
            return False
        entry, save = found
        is_waiting = entry.state in ("pending", "committed", "begun") and save.target == target_name
        return is_waiting and target_name not in save.mirrored

    def results(self, also: ResultRecord | None = None) -> dict[int, Draw]:
        """Return what was drawn, by draw; of two results of a draw, the first that was recorded.

        Parameters
        ----------
        also : ResultRecord, optional
            One that is being recorded.
        """
        if also is None and self._results is not None:
            return self._results
        found: dict[int, Draw] = {}
        for entry in reversed(self._journal.entries(RESULTS_NAME)):
            if entry.state != "pending":
                for draw in self._results_in(entry):
                    found.setdefault(draw.draw_no, draw)
        if also is None:
            self._results = found
        for draw in [] if also is None else draws_of(also):
            found.setdefault(draw.draw_no, draw)
        return found

    def record_of_result(self, draw_no: int) -> Path | None:
        """Return the file of the record that says what was drawn, ``None`` where none does."""
        for entry in reversed(self._journal.entries(RESULTS_NAME)):
            numbers = [draw.draw_no for draw in self._results_in(entry)]
            if entry.state != "pending" and draw_no in numbers:
                return entry.path
        return None

    def _results_in(self, entry: Entry) -> list[Draw]:
        key = (entry.path.parent.parent, entry.id)
        if key not in _RESULTS:
            record = self._journal.read(entry)
            if record is None or record.kind != RESULT:
                return []
            _RESULTS[key] = draws_of(record)
        return _RESULTS[key]

    def is_due(self, record: Record[Any]) -> bool:
        """Return whether the figures of a prediction, or of a result, are to be sent to MLflow.

        Parameters
        ----------
        record : Record
            One that is being recorded.
        """
        if record.kind == PREDICTION:
            payload = record.payload
            counting = self.named(payload.model, payload.draw_no, record).counting_ids
            return record.id in counting and payload.draw_no in self.results()
        return any(
            record.target not in prediction.mirrored
            for of_name in self.all_named(draw_nos={draw.draw_no for draw in draws_of(record)})
            for _, prediction in of_name.counting
        )


def draws_of(record: ResultRecord) -> list[Draw]:
    """Return the results that a record holds."""
    return [Draw(row[0], tuple(row[1:7]), row[7]) for row in record.payload.draws]


def score_of(record: PredictionRecord, results: dict[int, Draw]) -> Score | None:
    """Return how good a prediction was, ``None`` until the result is known."""
    payload = record.payload
    draw = results.get(payload.draw_no)
    return None if draw is None else score(map(tuple, payload.games), payload.scores, draw)


def shown_json(record: PredictionRecord) -> bytes:
    """Return the JSON file that shows a prediction."""
    payload = record.payload
    return to_json(
        {
            "model_name": payload.model,
            "draw_no": payload.draw_no,
            "numbers": payload.games,
            "scores": payload.scores,
            "made_at": payload.made_at,
            "is_backtest": payload.is_backtest,
            "prediction_id": record.id,
            "save_id": payload.save_id,
            "sha256": payload.sha256,
            "registered_model": payload.registered_model,
            "version": payload.version,
        }
    )
