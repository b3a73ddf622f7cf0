"""Predict: record what a save of a model predicts for a draw, and list what was recorded."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lotto_mlflow import layout as names
from lotto_mlflow import references
from lotto_mlflow.draws import (
    checked_draw_no,
    checked_games,
    checked_scores,
    closes_at,
)
from lotto_mlflow.errors import InvalidPredictionError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.operations import find, recording, restored
from lotto_mlflow.operations.backfill import backfill_record, nanoseconds
from lotto_mlflow.predicted import NamedPredictions, Predictions, score_of
from lotto_mlflow.records import (
    PREDICTION,
    ModelRecord,
    Prediction,
    PredictionPayload,
    PredictionRecord,
    Record,
    SaveRecord,
    new_id,
)
from lotto_mlflow.settings import Settings, Target
from lotto_mlflow.store.predictions import PredictionProtocol

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

Model = str | os.PathLike[str] | int


@dataclass(frozen=True)
class Given:
    """A prediction that has been checked: nothing in it can be refused any more.

    Attributes
    ----------
    saved : PredictionPayload
        What it is and which save made it; the time is still to come where it is no backtest.
    made_at : datetime or None
        When it was made, of a backtest.
    """

    saved: PredictionPayload
    made_at: datetime | None


def record_prediction(
    folder: ModelFolder,
    model: Model,
    draw_no: int,
    numbers: Any,
    scores: Any,
    made_at: datetime | None,
) -> Prediction:
    """Record a prediction, and have its figures sent where its result is known."""
    current = folder.settings()
    target, now = folder.target(current), recording.now()
    folder.check_format()
    number = checked_draw_no(draw_no, now)
    games = checked_games(numbers)
    kept = None if scores is None else list(checked_scores(scores))
    check_made_at(made_at, now)
    saved = payload_of(folder, current, target, find.get(folder, model, with_aliases=False))
    saved = replace(saved, draw_no=number, games=[list(game) for game in games], scores=kept)
    given = Given(saved, made_at)
    with recording.recording(folder, f"the prediction for draw {number}") as protocol:
        record = recording.commit(
            folder, protocol, lambda at, time_ns: build(at, time_ns, given, current, target)
        )
    assert record is not None  # noqa: S101 - for the type checker; it is always built
    recording.push(folder, current, record, f"the prediction of {saved.model} for draw {number}")
    found = Predictions(folder.journal)
    return _as_prediction(folder, target, found, found.named(saved.model, number), record)


def check_made_at(made_at: datetime | None, now: datetime) -> None:
    """See that a time can be that of a backtest.

    Raises
    ------
    InvalidPredictionError
        If it is no moment, or one that has not come.
    """
    if made_at is None:
        return
    if not isinstance(made_at, datetime) or made_at.utcoffset() is None:
        raise InvalidPredictionError(
            f"made_at is {made_at!r:.100}; give a datetime with its time zone", made_at=made_at
        )
    try:
        is_usable = made_at.timestamp() >= 0
    except (OverflowError, ValueError):
        is_usable = False
    if not is_usable:
        raise InvalidPredictionError(
            f"made_at is {made_at}; give a moment after 1970", made_at=made_at
        )
    if made_at > now:
        raise InvalidPredictionError(
            f"made_at is {made_at}, which is in the future; leave it out to record what is "
            "predicted now",
            made_at=made_at,
        )


def payload_of(
    folder: ModelFolder, current: Settings, target: Target, model: ModelRecord
) -> PredictionPayload:
    """Return the payload of a prediction of a save, with everything about the save.

    Raises
    ------
    InvalidPredictionError
        If the file has a name that no save can have.
    """
    if not names.is_name(model.name):
        raise InvalidPredictionError(
            f"{model.name!r:.200} is not the name of a model that can be saved, and predictions "
            "are recorded of those only; save it under another name",
            name=model.name,
        )
    save_id, sha256 = model.save_id, model.sha256
    history, path = folder.history(), model.path
    if path is not None and history.save_with_id(save_id) is None:
        file, asks = history.file(path), current.mirror != "off"
        own, sha256 = restored.find(folder, history, file, asks=asks), file.sha256
        save_id = None if own is None else own.save_id
        if own is None:  # whatever was restored there, these bytes are others
            model = replace(model, version=None, run_id=None, model_id=None)
        if save_id is None:  # it gets a record, of this id, by sync
            earlier = history.earlier_digests(model.name)
            save_id = backfill_record(model.name, file, target, current.timezone, earlier).id
    has_record = folder.journal.with_id(str(save_id)) is not None
    is_elsewhere = not has_record and model.version is not None
    return PredictionPayload(
        model=model.name,
        draw_no=1,
        games=[],
        made_at="",
        made_at_ns=0,
        is_backtest=False,
        is_late=False,
        save_id=str(save_id),
        sha256=sha256,
        registered_model=model.registered_model,
        version=model.version,
        store=target.name if is_elsewhere else None,
        run_id=(model.run_id or "") if is_elsewhere else "",
        model_id=(model.model_id or "") if is_elsewhere else "",
    )


def model_record_of(save: SaveRecord, target: Target) -> ModelRecord:
    """Return what a prediction records of the save that made it."""
    ids, payload = save.mirrored.get(target.name), save.payload
    return ModelRecord(
        name=save.name,
        sha256=payload.sha256,
        registered_model=names.registered_model_of(ids, save.name),
        version=None if ids is None else ids.version,
        save_id=save.id,
    )


def build(
    protocol: PredictionProtocol, time_ns: int, given: Given, current: Settings, target: Target
) -> PredictionRecord:
    """Return the record of a checked prediction; the caller holds the lock."""
    import socket  # imported lazily

    saved, moment = given.saved, given.made_at
    if moment is None:
        made_at_ns = time.time_ns()
        moment = datetime.fromtimestamp(made_at_ns / 10**9, current.timezone)
    else:
        made_at_ns = nanoseconds(moment)
    payload = replace(
        saved,
        made_at=_as_text(moment, current.timezone),
        made_at_ns=made_at_ns,
        is_backtest=given.made_at is not None,
        is_late=made_at_ns >= nanoseconds(closes_at(saved.draw_no)),
    )
    record = Record(
        id=new_id(time_ns),
        kind=PREDICTION,
        host=socket.gethostname(),
        target=target.name,
        payload=payload,
    )
    return replace(record, payload=replace(payload, backup=protocol.backup_for(record)))


def _as_text(moment: datetime, timezone: ZoneInfo) -> str:
    return moment.astimezone(timezone).isoformat(timespec="microseconds")


def predictions(folder: ModelFolder, model: Model | None, draw_no: int | None) -> list[Prediction]:
    """Return the recorded predictions, those for the newest draw first."""
    found = _all(folder, model, draw_no)
    return sorted(found, key=lambda p: (p.draw_no, p.prediction_id), reverse=True)


def _all(folder: ModelFolder, model: Model | None, draw_no: int | None) -> Iterator[Prediction]:
    target, found = folder.target(), Predictions(folder.journal)
    draw_nos = None if draw_no is None else {checked_draw_no(draw_no, recording.now())}
    name, save_id = asked_for(folder, found, model)
    for of_name in found.all_named(name, draw_nos):
        for _, record in of_name.kept:
            if save_id in (None, record.payload.save_id):
                yield _as_prediction(folder, target, found, of_name, record)


def asked_for(
    folder: ModelFolder, found: Predictions, model: Model | None
) -> tuple[str | None, str | None]:
    """Return the name that is asked for, and the save where one of its versions is.

    Raises
    ------
    ModelNotFoundError
        If there is no such model, and no prediction of one.
    """
    if model is None:
        return None, None
    text = model if isinstance(model, str) else ""
    is_name = isinstance(model, str) and not text.startswith(references.SCHEME)
    if is_name and names.is_name(text) and any(True for _ in found.all_named(text)):
        return text, None
    record = find.get(folder, model, with_aliases=False)
    is_version = isinstance(model, int) or not (is_name and record.name == text)
    return record.name, record.save_id if is_version else None


def _as_prediction(
    folder: ModelFolder,
    target: Target,
    found: Predictions,
    of_name: NamedPredictions,
    record: PredictionRecord,
) -> Prediction:
    """Return what is known of a prediction, and how good it was."""
    payload, score = record.payload, score_of(record, found.results())
    ids = found.ids_of_save(payload, target.name)
    shown, path = of_name.shown, None
    if shown is not None and shown.id == record.id:
        path = folder.layout.prediction_path(payload.model, payload.draw_no)
    figures = {} if score is None else vars(score)
    return Prediction(
        prediction_id=record.id,
        model=payload.model,
        registered_model=(ids and ids.registered_model) or payload.registered_model,
        version=ids.version if ids else payload.version,
        save_id=payload.save_id,
        sha256=payload.sha256,
        draw_no=payload.draw_no,
        games=tuple(map(tuple, payload.games)),
        scores=None if payload.scores is None else tuple(payload.scores),
        made_at=payload.made_at,
        is_backtest=payload.is_backtest,
        is_late=payload.is_late,
        counts=record.id in of_name.counting_ids,
        path=path,
        **figures,
    )
