"""The files of predictions and results: what differs from the records, and how it is put right.

Files of other programs are brought in where model, draw and numbers can be read; their time is
their own word, so that they are backtests. Others are reported, and left as they are.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotto_mlflow import layout as names
from lotto_mlflow import metadata, regular, run_times
from lotto_mlflow.draws import (
    checked_draw_no,
    checked_games,
    checked_scores,
    render_results,
)
from lotto_mlflow.errors import (
    Fix,
    InvalidPredictionError,
    LottoMlflowError,
    MirrorUnavailableError,
)
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.kinds import push
from lotto_mlflow.kinds.draws import lacking_figures, send_figures, verify_shown
from lotto_mlflow.operations import find, predict, recording, results
from lotto_mlflow.operations.backfill import nanoseconds
from lotto_mlflow.operations.digests import moved_away
from lotto_mlflow.predicted import Predictions, shown_json
from lotto_mlflow.records import PREDICTION, Finding, SyncReport
from lotto_mlflow.settings import Settings, Target
from lotto_mlflow.store.predictions import PredictionProtocol

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror

_MAX_BYTES = 1 << 20
_TIMES = ("made_at", "predicted_at", "created_at", "timestamp", "saved_at", "date")
"""Keys under which other programs say when a prediction was made."""
_NUMBERS = re.compile(r"[\[(]?\s*\d{1,8}(?:[\s,;]+\d{1,8})*\s*[\])]?", re.ASCII)


@dataclass(frozen=True)
class _Old:
    """What a file of another program says."""

    model: str
    draw_no: int
    games: list[list[int]]
    scores: list[float] | None
    made_at: datetime


def findings(folder: ModelFolder) -> Iterator[Finding]:
    """Find files of predictions that no record shows there, and what is no file."""
    layout = folder.layout
    for path in (layout.predictions_dir, layout.prediction_backup_dir):
        kind = regular.odd_kind(path) if not regular.is_folder(path) else None
        if kind is not None or regular.is_file(path):
            fix = moved_away(path)
            yield Finding("damaged", "", path, f"it is {kind or 'a file'}, not a folder", fix=fix)
            return
    found = Predictions(folder.journal)
    known = found.results()
    if known:
        yield from verify_shown(layout.results_path, "", render_results(known.values()))
    elif regular.is_file(layout.results_path):
        detail = "no record has these results"
        fix = Fix("import_results", {"csv": str(layout.results_path)}, effect="records them")
        yield Finding("orphan prediction", "", layout.results_path, detail, fix=fix)
    for path in _odd_files(folder):
        fix = moved_away(path)
        detail = f"it is {regular.odd_kind(path)}, not a file"
        yield Finding("damaged", path.stem, path, detail, fix=fix)
    for path in _unknown(folder, found):
        yield _orphan(folder, path)


def _orphan(folder: ModelFolder, path: Path) -> Finding:
    try:
        old = _read(folder, folder.settings(), path)
    except LottoMlflowError as cause:
        fix = moved_away(path)
        detail = f"no record is of it, and it cannot be brought in: {cause.summary}"
        return Finding("orphan prediction", "", path, detail, fix=fix)
    fix = Fix("sync", effect="brings it in")
    return Finding("orphan prediction", old.model, path, "no record is of it", fix=fix)


def _unknown(folder: ModelFolder, found: Predictions) -> Iterator[Path]:
    """Yield the files of predictions that show no prediction of a record, by name."""
    shown = {path for path, _ in _all_shown(folder, found)}
    for path in _files_in(folder):
        if path not in shown:
            yield path


def _files_in(folder: ModelFolder) -> list[Path]:
    """Return the JSON files among the predictions, by name."""
    return [path for path in _listed(folder) if path.suffix == ".json" and regular.is_file(path)]


def _odd_files(folder: ModelFolder) -> list[Path]:
    """Return what has the name of a file among the predictions, and is none."""
    ours = (".json", folder.layout.results_path.suffix)
    odd = (path for path in _listed(folder) if regular.odd_kind(path) is not None)
    return [path for path in odd if path.suffix in ours]


def _listed(folder: ModelFolder) -> list[Path]:
    found: list[str] = []
    if regular.is_folder(folder.layout.predictions_dir):
        found = sorted(os.listdir(folder.layout.predictions_dir))
    return [folder.layout.predictions_dir / name for name in found if not name.startswith(".")]


def _all_shown(folder: ModelFolder, found: Predictions) -> Iterator[tuple[Path, bytes]]:
    """Yield each file that is to show a prediction, and what it is to hold."""
    for of_name in found.all_named():
        shown = of_name.shown
        if shown is not None:
            payload = shown.payload
            path = folder.layout.prediction_path(payload.model, payload.draw_no)
            yield path, shown_json(shown)


def put_right(folder: ModelFolder, report: SyncReport) -> None:
    """Bring in the files of other programs, and write anew what is not as the records say.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    report : SyncReport
        What was done, or would be.
    """
    layout, current = folder.layout, folder.settings()
    target = folder.target(current)
    for path in list(_unknown(folder, Predictions(folder.journal))):
        try:
            old = _read(folder, current, path)
            if not report.dry_run:
                _bring_in(folder, current, target, old, path)
        except LottoMlflowError as cause:
            report.fail(path.name, f"{path} is left as it is: {cause.summary}", None)
        else:
            report.recorded.append(path.name)
    if report.dry_run or not _differs(folder):
        return
    with recording.recording(folder, "the predictions") as protocol:
        for path, content in _all_shown(folder, Predictions(folder.journal)):
            if metadata.content_of(path) != content:
                _show(protocol, path, content, report)
        try:
            results.show_results(folder, protocol)
        except LottoMlflowError as cause:
            report.fail(layout.results_path.name, cause.summary, cause.fix)


def send(
    folder: ModelFolder, mirror: Mirror, target: Target, report: SyncReport, *, resend: bool
) -> None:
    """Push the predictions and results that wait, and the figures that the store lacks."""
    _push_waiting(folder, mirror, target, report)
    found = Predictions(folder.journal)
    lacking = list(lacking_figures(found, target.name, resend=resend))
    if report.dry_run:
        there = (r for _, r in lacking if found.ids_of_save(r.payload, target.name))
        report.predictions += [record.name for record in there]
    elif lacking:
        with folder.workspace() as work_dir:
            sent = send_figures(folder, mirror, found, lacking, work_dir)
        report.predictions += [record.name for record in sent]


def _push_waiting(folder: ModelFolder, mirror: Mirror, target: Target, report: SyncReport) -> None:
    for entry in folder.journal.waiting():
        record = folder.journal.read(entry)
        if record is None or record.is_of_file or record.target != target.name:
            continue
        try:
            if not report.dry_run:
                push(folder, mirror, entry, record, target)
        except MirrorUnavailableError:
            raise
        except LottoMlflowError as cause:
            report.fail(record.name, str(cause), cause.fix)
        else:
            report.predictions += [record.name] if record.kind == PREDICTION else []


def _differs(folder: ModelFolder) -> bool:
    """Return whether a file is not as the records say; nothing is locked for it."""
    found = Predictions(folder.journal)
    known = found.results()
    if known and metadata.content_of(folder.layout.results_path) != render_results(known.values()):
        return True
    return any(metadata.content_of(path) != content for path, content in _all_shown(folder, found))


def _show(protocol: PredictionProtocol, path: Path, content: bytes, report: SyncReport) -> None:
    try:
        protocol.show(path, content)
    except LottoMlflowError as cause:
        report.fail(path.name, cause.summary, cause.fix)


def _bring_in(
    folder: ModelFolder, current: Settings, target: Target, old: _Old, path: Path
) -> None:
    """Record the prediction in a file; the file itself goes to the backups."""
    saved = _save_meant(folder, current, target, old)
    saved = replace(saved, draw_no=old.draw_no, games=old.games, scores=old.scores)
    given = predict.Given(saved, old.made_at)
    with recording.recording(folder, f"the prediction in {path}") as protocol:

        def build(protocol: PredictionProtocol, time_ns: int) -> Any:
            record = predict.build(protocol, time_ns, given, current, target)
            payload = replace(
                record.payload, source=path.name, source_backup=protocol.free_backup(path)
            )
            if path == folder.layout.prediction_path(old.model, old.draw_no):
                payload = replace(payload, backup=payload.source_backup)
            return replace(record, payload=payload)

        recording.commit(folder, protocol, build)


def _save_meant(folder: ModelFolder, current: Settings, target: Target, old: _Old) -> Any:
    """Return the payload of the save that was the newest of its name when a prediction was made.

    Notes
    -----
    Where none is older, it is the one in place.
    """
    made_at_ns = nanoseconds(old.made_at)
    history = folder.history()
    earlier = (s for s in history.saves_of(old.model) if s.payload.saved_at_ns <= made_at_ns)
    save = next(earlier, None)
    if save is None:
        record = find.get(folder, str(folder.layout.model_path(old.model)), with_aliases=False)
    else:
        record = predict.model_record_of(save, target)
    return predict.payload_of(folder, current, target, record)


def _read(folder: ModelFolder, current: Settings, path: Path) -> _Old:
    """Return what a file says.

    Raises
    ------
    InvalidPredictionError
        If model, draw or numbers cannot be read, or there is no such model.
    StoreError
        If the file cannot be read.
    """
    with folder.disk_errors(f"{path.name} could not be read", "It is left as it is"):
        content = regular.content_of(path, _MAX_BYTES)
        modified = regular.status_of(path)
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as cause:
        raise InvalidPredictionError(f"it is no JSON ({type(cause).__name__})") from cause
    said = _flat(values)
    _check_new(folder, said)
    now = recording.now()
    model = said.get("model_name")
    draw_no = checked_draw_no(_numbers_in(said.get("draw_no")), now)
    games = checked_games(_numbers_in(said.get("numbers")))
    name = str(model).removesuffix(names.SUFFIX)
    if not isinstance(model, str) or not names.is_name(name) or not _is_known(folder, name):
        raise InvalidPredictionError(f"there is no model {model!r:.100}", name=model)
    time_s = now.timestamp() if modified is None else min(modified.st_mtime, now.timestamp())
    written = _time_in(said, current, now)
    made_at = written or datetime.fromtimestamp(max(time_s, 0), current.timezone)
    if made_at > now:
        made_at = datetime.fromtimestamp(max(time_s, 0), current.timezone)
    predict.check_made_at(made_at, now)
    return _Old(name, draw_no, [list(game) for game in games], _scores_in(said), made_at)


def _flat(values: Any) -> dict[str, Any]:
    """Return the values of an object, those of objects inside it after its own."""
    if not isinstance(values, dict):
        raise InvalidPredictionError("it is no JSON object")
    inside = (item for item in values.values() if isinstance(item, dict))
    found: dict[str, Any] = {}
    for part in (values, *inside):
        found = part | found
    return found


def _check_new(folder: ModelFolder, said: dict[str, Any]) -> None:
    """See that a file is no copy of what is recorded; of a damaged record it may be the rest."""
    own, history = said.get("prediction_id"), folder.history()
    same = (entry for entry in folder.journal.of_draws() if entry.id == own)
    if any(history.read(entry) is not None for entry in same):
        raise InvalidPredictionError("it is a copy of a prediction that is recorded")


def _is_known(folder: ModelFolder, name: str) -> bool:
    history: History = folder.history()
    is_in_place = regular.is_file(folder.layout.model_path(name))
    return is_in_place or any(True for _ in history.saves_of(name))


def _numbers_in(value: Any) -> Any:
    """Return whole numbers as such where a text has one or several: ``"7"``, ``"3, 11, 19"``."""
    if isinstance(value, list):
        return [_numbers_in(item) for item in value]
    if not isinstance(value, str) or not _NUMBERS.fullmatch(value):
        return value
    numbers = [int(digits) for digits in re.findall(r"\d+", value)]
    return numbers if len(numbers) > 1 else numbers[0]


def _time_in(said: dict[str, Any], current: Settings, now: datetime) -> datetime | None:
    for key in _TIMES:
        moment_ns = run_times.moment_ns(said.get(key), [current.timezone], nanoseconds(now))
        if moment_ns is not None:
            seconds, rest_ns = divmod(moment_ns, 10**9)
            moment = datetime.fromtimestamp(seconds, current.timezone)
            return moment.replace(microsecond=rest_ns // 1_000)
    return None


def _scores_in(said: dict[str, Any]) -> list[float] | None:
    try:
        return list(checked_scores(said["scores"])) if said.get("scores") is not None else None
    except InvalidPredictionError:
        return None
