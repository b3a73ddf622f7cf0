"""Facts as JSON for programs, and as tables for people."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lotto_mlflow import metadata, settings
from lotto_mlflow.records import ModelRecord
from lotto_mlflow.text import size_as_text

if TYPE_CHECKING:
    from rich.console import Console

NONE = "-"


def print_json(value: Any) -> None:
    """Print a value as JSON: UTF-8, indented by 2, not a number as null."""
    text = json.dumps(metadata.strict(_plain(value)), ensure_ascii=False, indent=2)
    typer.echo(text.encode("utf-8", "backslashreplace"))  # half a character as JSON escapes it


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def values_of(record: ModelRecord, **more: Any) -> dict[str, Any]:
    """Return a record as JSON has it: its attributes, and whether MLflow has it."""
    return vars(record) | {"mirrored": record.version is not None} | more


def console(*, stderr: bool = False) -> Console:
    """Return a terminal's console, which obeys ``NO_COLOR``."""
    from rich.console import Console

    return Console(
        stderr=stderr,
        highlight=False,
        markup=False,
        emoji=False,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
    )


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Iterable[str] = (),
    marked: Iterable[int] = (),
) -> None:
    """Print rows under headers.

    Parameters
    ----------
    headers : sequence of str
        The columns.
    rows : iterable of sequences of str
        The cells.
    right : iterable of str
        Columns that are aligned to the right.
    marked : iterable of int
        Rows that stand out on a terminal.
    """
    to_the_right, standing_out, lines = set(right), set(marked), list(rows)
    if not sys.stdout.isatty():
        _print_plainly(headers, lines, to_the_right)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(
            header, justify="right" if header in to_the_right else "left", overflow="fold"
        )
    for number, row in enumerate(lines):
        table.add_row(*row, style="bold green" if number in standing_out else None)
    console().print(table)


def _print_plainly(headers: Sequence[str], rows: list[Sequence[str]], right: set[str]) -> None:
    """Print the same for a pipe, where nothing is cut, folded or coloured."""
    widths = [max(map(_cells, column)) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        cells = []
        for header, cell, width in zip(headers, row, widths, strict=True):
            space = " " * (width - _cells(cell))
            cells.append(space + cell if header in right else cell + space)
        typer.echo("  ".join(cells).rstrip())


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one a line, the values below each other."""
    lines = list(fields)
    width = max((_cells(name) for name, _ in lines), default=0)
    for name, value in lines:
        typer.echo(f"{name}{' ' * (width - _cells(name))}  {value}")


def _cells(text: str) -> int:
    """Return the columns that a text takes on a terminal; a Korean letter takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def note(text: str) -> None:
    """Say something to a person beside the answer, on stderr."""
    typer.echo(text, err=True)


def size_of(record: ModelRecord) -> str:
    """Return the size of a model's file."""
    return NONE if record.size is None else size_as_text(record.size)


def time_as_text(record: ModelRecord, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return the time of a save in the zone of the settings."""
    if record.saved_at_ns is None:
        return record.saved_at or NONE
    moment = datetime.fromtimestamp(record.saved_at_ns // 10**9, settings.read().timezone)
    return moment.strftime(form)


def number_as_text(value: float | None) -> str:
    """Return a metric to six digits."""
    return NONE if value is None else f"{value:.6g}"


def compact(value: Any) -> str:
    """Return a value on one line: a text as it is where a terminal can show it, else as JSON."""
    is_shown = isinstance(value, str) and value.isprintable()
    return str(value) if is_shown else json.dumps(value, ensure_ascii=False)
