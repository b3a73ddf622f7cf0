"""Results as a CSV file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from lotto_mlflow.draws.checks import checked_draw
from lotto_mlflow.draws.rules import PICKED, Draw, date_of
from lotto_mlflow.errors import InvalidResultError

COLUMNS = ("draw_no", "draw_date", "n1", "n2", "n3", "n4", "n5", "n6", "bonus")


def parse_results(content: bytes, path: Path, now: datetime) -> list[Draw]:
    """Return the results in a CSV file with the columns of `COLUMNS`.

    Parameters
    ----------
    content : bytes
        What the file holds: UTF-8, with or without a mark at its beginning. Columns may stand in
        any order; others are passed over, and ``draw_date`` may be missing or empty.
    path : pathlib.Path
        How the file is called in messages.
    now : datetime.datetime
        The current moment, with its time zone.

    Returns
    -------
    list of Draw
        The results in the order of the draws.

    Raises
    ------
    InvalidResultError
        If a row is not the result of a draw that has been held, if its date is not the one of its
        draw, or if two rows are of one draw; the message names the line.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        line = content.count(b"\n", 0, cause.start) + 1
        raise _bad_row(path, line, "is not UTF-8") from cause
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: dict[int, Draw] = {}
    try:
        places = _places(path, next(reader, []))
        for row in reader:
            if not row:
                continue
            draw = _parsed_row(path, reader.line_num, places, row, now)
            if draw.draw_no in found:
                first = found[draw.draw_no].line
                raise _bad_row(
                    path,
                    reader.line_num,
                    f"is a second result for draw {draw.draw_no}; the first is in line {first}",
                )
            found[draw.draw_no] = replace(draw, line=reader.line_num)
    except csv.Error as cause:
        raise _bad_row(path, max(reader.line_num, 1), f"is not CSV: {cause}") from cause
    return [found[number] for number in sorted(found)]


def render_results(draws: Iterable[Draw]) -> bytes:
    """Return results as CSV with the columns of `COLUMNS`, in the order of the draws.

    Notes
    -----
    ``parse_results(render_results(draws)) == draws`` for sorted results of draws that were held.
    """
    rows = [
        ",".join(map(str, (draw.draw_no, date_of(draw.draw_no), *draw.numbers, draw.bonus)))
        for draw in sorted(draws, key=lambda draw: draw.draw_no)
    ]
    return "".join(f"{row}\n" for row in (",".join(COLUMNS), *rows)).encode()


def _places(path: Path, header: list[str]) -> dict[str, int]:
    names = [name.strip() for name in header]
    missing = [name for name in COLUMNS if name not in names and name != "draw_date"]
    if missing:
        raise _bad_row(path, 1, f"has no column {', '.join(missing)}; give {', '.join(COLUMNS)}")
    double = sorted({name for name in COLUMNS if names.count(name) > 1})
    if double:
        raise _bad_row(path, 1, f"has the column {', '.join(double)} twice")
    return {name: place for place, name in enumerate(names)} | {"": len(names)}


def _parsed_row(
    path: Path, line: int, places: dict[str, int], row: list[str], now: datetime
) -> Draw:
    if len(row) != places[""]:
        raise _bad_row(path, line, f"has {len(row)} fields, not {places['']}")
    fields = {name: row[places[name]].strip() for name in COLUMNS if name in places}
    dated = fields.pop("draw_date", "")
    values = {}
    for name, field in fields.items():
        if not re.fullmatch(r"[0-9]{1,9}", field):
            raise _bad_row(path, line, f"has {field!r:.40} as {name}, not a whole number")
        values[name] = int(field)
    numbers = [values[f"n{place}"] for place in range(1, PICKED + 1)]
    try:
        draw = checked_draw(values["draw_no"], numbers, values["bonus"], now)
    except InvalidResultError as cause:
        raise _bad_row(path, line, f"is refused: {cause.summary}") from cause
    if dated and dated != str(date_of(draw.draw_no)):
        raise _bad_row(
            path,
            line,
            f"has the date {dated!r:.40}, but draw {draw.draw_no} was held on "
            f"{date_of(draw.draw_no)}",
        )
    return draw


def _bad_row(path: Path, line: int, problem: str) -> InvalidResultError:
    return InvalidResultError(
        f"{path}, line {line}, {problem}; nothing of the file was recorded", path=path, line=line
    )
