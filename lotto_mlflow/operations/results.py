"""Results: record what was drawn, and have every prediction of the draws scored."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lotto_mlflow import regular
from lotto_mlflow.draws import Draw, checked_draw, parse_results, render_results
from lotto_mlflow.errors import InvalidResultError, LottoMlflowError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.metadata import content_of
from lotto_mlflow.operations import predict, recording
from lotto_mlflow.predicted import Predictions
from lotto_mlflow.records import RESULT, Prediction, Record, ResultPayload, ResultRecord, new_id
from lotto_mlflow.store.predictions import PredictionProtocol

_MAX_BYTES = 16 << 20
"""More than a CSV file of the results of a thousand years has."""


def record_result(folder: ModelFolder, draw_no: int, numbers: Any, bonus: int) -> list[Prediction]:
    """Record the result of one draw; return the predictions for it."""
    draw = checked_draw(draw_no, numbers, bonus, recording.now())
    _record(folder, [draw])
    return predict.predictions(folder, None, draw.draw_no)


def import_results(folder: ModelFolder, csv: str | os.PathLike[str]) -> int:
    """Record the results in a CSV file; return how many were not known."""
    if not isinstance(csv, (str, os.PathLike)):
        raise InvalidResultError(f"{csv!r:.100} is no path of a CSV file; nothing was recorded")
    path = Path(csv)
    try:
        content = regular.content_of(regular.real_path(path), _MAX_BYTES)
    except OSError as cause:
        raise InvalidResultError(
            f"{path} could not be read: {cause}. Nothing was recorded", path=path
        ) from cause
    return _record(folder, parse_results(content, path, recording.now()), path)


def _record(folder: ModelFolder, draws: list[Draw], path: Path | None = None) -> int:
    """Record results; return how many were not known."""
    current = folder.settings()
    target, found = folder.target(current), Predictions(folder.journal)
    folder.check_format()
    _check_agreement(folder, draws, found.results(), path)
    if not draws:
        return 0
    what = f"the result of draw {draws[0].draw_no}" if len(draws) == 1 else "the results"
    new: list[Draw] = []

    def build(protocol: PredictionProtocol, time_ns: int) -> ResultRecord | None:
        known = Predictions(folder.journal).results()
        _check_agreement(folder, draws, known, path)
        new.extend(draw for draw in draws if draw.draw_no not in known)
        found = [*new, *_unrecorded(folder, known, new)]
        return _record_of(protocol, time_ns, target.name, found) if found else None

    with recording.recording(folder, what) as protocol:
        record = recording.commit(folder, protocol, build)
        if record is None:
            show_results(folder, protocol)
    if record is not None:
        recording.push(folder, current, record, what)
    return len(new)


def _record_of(
    protocol: PredictionProtocol, time_ns: int, target_name: str, draws: Iterable[Draw]
) -> ResultRecord:
    import socket  # imported lazily

    rows = [[draw.draw_no, *draw.numbers, draw.bonus] for draw in draws]
    record = Record(
        id=new_id(time_ns),
        kind=RESULT,
        host=socket.gethostname(),
        target=target_name,
        payload=ResultPayload(draws=sorted(rows)),
    )
    path = protocol.layout.results_path
    known = Predictions(protocol.journal).results()
    if not os.path.lexists(path) or content_of(path) == render_results(known.values()):
        return record  # the next file has all that is in this one
    return replace(record, payload=replace(record.payload, backup=protocol.free_backup(path)))


def _unrecorded(folder: ModelFolder, known: dict[int, Draw], new: Iterable[Draw]) -> list[Draw]:
    """Return the results in the folder's own file that no record has: somebody put them there.

    Notes
    -----
    A file that contradicts a record is damaged or changed, and nothing in it is believed.
    """
    path = folder.layout.results_path
    content = content_of(path)
    if content is None or content == render_results(known.values()):
        return []
    own = known | {draw.draw_no: draw for draw in new}
    try:
        draws = parse_results(content, path, recording.now())
        _check_agreement(folder, draws, own, path)
    except LottoMlflowError:
        return []
    return [draw for draw in draws if draw.draw_no not in own]


def show_results(folder: ModelFolder, protocol: PredictionProtocol) -> bool:
    """Write the file of results anew where it is not what the records say; return whether."""
    known = Predictions(folder.journal).results()
    path, content = folder.layout.results_path, render_results(known.values())
    if not known or content_of(path) == content:
        return False
    protocol.show(path, content)
    return True


def _check_agreement(
    folder: ModelFolder, draws: list[Draw], known: dict[int, Draw], path: Path | None
) -> None:
    """See that no result differs from the one that is known.

    Raises
    ------
    InvalidResultError
        If one does.
    """
    for draw in draws:
        other = known.get(draw.draw_no)
        if other is not None and other != draw:
            where = "" if path is None else f"{path}, line {draw.line}: "
            record = Predictions(folder.journal).record_of_result(draw.draw_no)
            raise InvalidResultError(
                f"{where}the result of draw {draw.draw_no} is {_shown(draw)}, and "
                f"{_shown(other)} was recorded before; nothing was recorded. If the recorded one "
                f"is wrong, copy {folder.layout.results_path}, correct its line in the copy, move "
                f"its record {record} out of the folder, and import the copy",
                draw_no=draw.draw_no,
                path=path,
                line=draw.line,
            )


def _shown(draw: Draw) -> str:
    return f"{', '.join(map(str, draw.numbers))} + {draw.bonus}"
