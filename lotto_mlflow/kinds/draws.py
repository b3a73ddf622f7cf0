"""Predictions and results: how their records are recovered, pushed and verified.

MLflow gets the figures of a prediction that counts, once its result is known, as metrics of the
run and the logged model of the save that made it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotto_mlflow import regular
from lotto_mlflow.draws import Score, closes_at
from lotto_mlflow.errors import Fix
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.journal import Entry, Journal, State
from lotto_mlflow.kinds.base import Kind, Verification
from lotto_mlflow.metadata import content_of
from lotto_mlflow.predicted import Predictions, draws_of, score_of, shown_json
from lotto_mlflow.records import (
    Finding,
    MlflowIds,
    Note,
    PredictionPayload,
    PredictionRecord,
    Record,
    ResultRecord,
    has_name_of_draws,
)
from lotto_mlflow.store.predictions import PredictionProtocol

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror, Point

MlflowRun = tuple[str, str]
"""A run and its logged model."""
WITHOUT_RUN = MlflowIds(version=0, run_id="", model_id="")
"""In a record of what a store has no run for, so that it is not asked for it each time."""


def end_of(journal: Journal, record: Record[Any]) -> State:
    """Return the state of a record whose work on disk is done."""
    return "committed" if Predictions(journal).is_due(record) else "sent"


def _recover(folder: ModelFolder, entry: Entry, record: Record[Any], work_dir: Path) -> None:
    protocol = PredictionProtocol(folder.layout, folder.journal, work_dir)
    protocol.recover(entry, record, end_of(folder.journal, record))


def _prediction_waits(folder: ModelFolder, record: PredictionRecord, target_name: str) -> bool:
    return Predictions(folder.journal).waits_for_save(record.payload, target_name)


def _result_waits(folder: ModelFolder, record: ResultRecord, target_name: str) -> bool:
    waiting = (*folder.journal.pending(), *folder.journal.waiting())
    if all(has_name_of_draws(entry.name) for entry in waiting):  # no save is, and none is read
        return False
    found = Predictions(folder.journal)
    lacking = lacking_figures(found, target_name, draw_nos=_draw_nos(record))
    return any(found.waits_for_save(one.payload, target_name) for _, one in lacking)


def _draw_nos(record: ResultRecord) -> set[int]:
    return {draw.draw_no for draw in draws_of(record)}


def lacking_figures(
    found: Predictions,
    target_name: str,
    *,
    draw_nos: set[int] | None = None,
    resend: bool = False,
) -> Iterator[tuple[Entry, PredictionRecord]]:
    """Yield the predictions that count, whose result is known, and whose figures a store lacks.

    Parameters
    ----------
    found : Predictions
        The records.
    target_name : str
        The store.
    draw_nos : set of int, optional
        Only those for these draws.
    resend : bool
        Whether figures are missing, too, that were left out because the run had been deleted.

    Notes
    -----
    One that waits in the outbox for this store is pushed by itself. A save that is not in the
    store is not asked for here.
    """
    results = found.results()
    for of_name in found.all_named(draw_nos=draw_nos):
        for entry, record in of_name.counting:
            is_waiting = entry.state in ("committed", "begun") and record.target == target_name
            if record.payload.draw_no not in results or is_waiting or entry.state == "aside":
                continue
            if _lacks(found, record, target_name, resend=resend):
                yield entry, record


def _lacks(
    found: Predictions, record: PredictionRecord, target_name: str, *, resend: bool = False
) -> bool:
    noted = record.mirrored.get(target_name)
    if noted is None:
        return True
    ids = found.ids_of_save(record.payload, target_name)
    if ids is None:
        return False
    return resend if not noted.run_id else noted.run_id != ids.run_id


def points_of(record: PredictionRecord, score: Score) -> list[Point]:
    """Return the metrics by which MLflow shows how good a prediction was."""
    from lotto_mlflow.mirror import Point

    payload = record.payload
    kind = "backtest" if payload.is_backtest else "live"
    time_ms = int(closes_at(payload.draw_no).timestamp()) * 1000
    values = {
        "hits_per_game": score.hits_per_game,
        "best_hits": float(score.best_hits),
        "log_loss": score.log_loss,
    }
    return [
        Point(f"{kind}.{name}", value, payload.draw_no, time_ms)
        for name, value in values.items()
        if value is not None
    ]


def _push_prediction(
    folder: ModelFolder,
    mirror: Mirror,
    record: PredictionRecord,
    is_begun: bool,
    note: Note,
    work_dir: Path,
) -> MlflowIds | None:
    found, payload = Predictions(folder.journal), record.payload
    score = score_of(record, found.results())
    counting = found.named(payload.model, payload.draw_no).counting_ids
    ids = _ids_of_save(mirror, found, payload)
    if score is None or record.id not in counting or ids is None:
        return record.mirrored.get(mirror.target_name)
    is_there = mirror.log_scores(ids, points_of(record, score))
    return replace(ids, files={}) if is_there else WITHOUT_RUN


def _push_result(
    folder: ModelFolder,
    mirror: Mirror,
    record: ResultRecord,
    is_begun: bool,
    note: Note,
    work_dir: Path,
) -> MlflowIds:
    found = Predictions(folder.journal)
    lacking = lacking_figures(found, mirror.target_name, draw_nos=_draw_nos(record))
    send_figures(folder, mirror, found, lacking, work_dir)
    return WITHOUT_RUN


def _ids_of_save(
    mirror: Mirror, found: Predictions, payload: PredictionPayload
) -> MlflowIds | None:
    """Return what the save that predicted is called in a store, wherever the save was made.

    Notes
    -----
    Of a save that another folder made, the prediction knows the store that it was found in. Where
    that folder has moved to this store since, it is asked for the save.
    """
    ids = found.ids_of_save(payload, mirror.target_name)
    if ids is not None or found.save_of(payload) is not None or payload.sha256 is None:
        return ids
    return mirror.survey().ids_of_save(payload.save_id, payload.sha256)


def send_figures(
    folder: ModelFolder,
    mirror: Mirror,
    found: Predictions,
    lacking: Iterable[tuple[Entry, PredictionRecord]],
    work_dir: Path,
) -> list[PredictionRecord]:
    """Log how good predictions were, a run at a time, and note it in their records.

    Returns
    -------
    list of PredictionRecord
        Those whose save is in the store.
    """
    target_name, results = mirror.target_name, found.results()
    by_run: dict[MlflowRun, list[tuple[Entry, PredictionRecord]]] = {}
    ids_of_run: dict[MlflowRun, MlflowIds] = {}
    ids_of: dict[str, MlflowIds | None] = {}
    for entry, record in lacking:
        save_id = record.payload.save_id
        if save_id not in ids_of:
            ids_of[save_id] = _ids_of_save(mirror, found, record.payload)
        ids = ids_of[save_id]
        if ids is not None:
            run = (ids.run_id, ids.model_id)
            ids_of_run[run] = ids
            by_run.setdefault(run, []).append((entry, record))
    for run, of_run in by_run.items():
        scored = ((record, score_of(record, results)) for _, record in of_run)
        points = [p for one, score in scored if score is not None for p in points_of(one, score)]
        noted = ids_of_run[run] if mirror.log_scores(ids_of_run[run], points) else WITHOUT_RUN
        noted = replace(noted, files={})
        for entry, record in of_run:
            mirrored = record.mirrored | {target_name: noted}
            folder.journal.rewrite(entry, replace(record, mirrored=mirrored), work_dir)
    return [record for of_run in by_run.values() for _, record in of_run]


def _stuck(entry: Entry, record: Record[Any]) -> Iterator[Finding]:
    if entry.state == "aside" or record.tries:
        reason = record.reason or "it was set aside"
        fix = Fix("sync", {"retry_aside": True})
        yield Finding("stuck record", entry.name, entry.path, reason, fix=fix)


def _verify_prediction(
    verification: Verification, entry: Entry, record: PredictionRecord
) -> Iterator[Finding]:
    """Check that the figures of a prediction are in the current store, and what its file shows."""
    yield from _stuck(entry, record)
    of_name = verification.predictions.get(record.name)
    if of_name is None or record.id not in of_name.counting_ids:
        return
    target_name, found = verification.target.name, verification.found_predictions
    is_scored = record.payload.draw_no in verification.results
    is_waiting = entry.state in ("committed", "begun") and record.target == target_name
    is_there = found.ids_of_save(record.payload, target_name) is not None
    is_missing = is_waiting or (is_there and _lacks(found, record, target_name))
    if is_scored and entry.state != "aside" and is_missing:
        detail = f"how good it was in draw {record.payload.draw_no} was not sent"
        fix = Fix("sync")
        yield Finding("missing in MLflow", record.payload.model, entry.path, detail, fix=fix)
    if of_name.shown is not None and of_name.shown.id == record.id:
        path = verification.folder.layout.prediction_path(
            record.payload.model, record.payload.draw_no
        )
        yield from verify_shown(path, record.payload.model, shown_json(record))


def verify_shown(path: Path, name: str, content: bytes) -> Iterator[Finding]:
    """Find whether a file shows other things than the records say."""
    found = content_of(path)
    if found == content or regular.odd_kind(path) is not None:  # which is found among odd files
        return
    fix = Fix("sync", effect="writes it anew from the record")
    if found is None:
        detail = "the file that shows it is gone, or cannot be read"
        yield Finding("missing on disk", name, path, detail, fix=fix)
    else:
        detail = "it is not what was recorded"
        yield Finding("damaged", name, path, detail, fix=fix)


def _verify_result(
    verification: Verification, entry: Entry, record: ResultRecord
) -> Iterator[Finding]:
    yield from _stuck(entry, record)


OF_PREDICTIONS = Kind(_recover, _push_prediction, _verify_prediction, _prediction_waits)
OF_RESULTS = Kind(_recover, _push_result, _verify_result, _result_waits)
