"""What a person sees beside tables: lines, bars, and a standard error stream that is safe."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, Any, TextIO

import typer

from lotto_mlflow.records import Arrived, Progress
from lotto_mlflow.text import one_line, safe_line, size_as_text, without_secrets

if TYPE_CHECKING:
    from rich.console import Console

_COLOURS = re.compile(r"\x1b\[[\d;]*m")


def line(text: str = "") -> None:
    """Print a text on one line of the answer, whatever others wrote into it."""
    typer.echo(safe_line(text))


def note(text: str) -> None:
    """Say something to a person beside the answer, on stderr."""
    typer.echo(safe_line(text), err=True)


def command(text: str, before: str = "") -> None:
    """Print a command as it is, to be pasted: `shell_command` quoted it."""
    typer.echo(f"{before}{text}")


class SafeStream:
    """A text stream that passes on what is written to it with secrets masked and escapes escaped.

    Parameters
    ----------
    stream : text stream
        Where the text goes. Line ends and tabs pass; colours are taken out.

    Notes
    -----
    Other libraries write there what they please: warnings, logs, tracebacks.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        if not isinstance(text, str):
            raise TypeError(f"text is written here, no {type(text).__name__}")
        plain = without_secrets(_COLOURS.sub("", text))
        self._stream.write("".join(c if c in "\n\t" else one_line(c) for c in plain))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def console(*, stderr: bool = False) -> Console:
    """Return a terminal's console, which obeys ``NO_COLOR`` and reads no markup."""
    from rich.console import Console

    return Console(
        file=_unguarded(sys.stderr) if stderr else None,
        highlight=False,
        markup=False,
        emoji=False,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
    )


def _unguarded(stream: TextIO) -> TextIO:
    """Return the stream itself, to which a bar writes the escapes that move it."""
    own: TextIO = vars(stream)["_stream"] if isinstance(stream, SafeStream) else stream
    return own


def _columns() -> list[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    return [
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[size]}  {task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[model]}", markup=False),
    ]


def _rate(count: int, start: float) -> str:
    """Return how many bytes came in a second since a moment, as people read it."""
    return f"{size_as_text(int(count / max(time.monotonic() - start, 1e-6)))}/s"


class _Reports:
    """A `Progress` that also hears of the bytes of a download."""

    def __init__(self, report: Progress, arrived: Arrived) -> None:
        self._report = report
        self.arrived = arrived

    def __call__(self, done: int, total: int, size_bytes: int, name: str) -> None:
        self._report(done, total, size_bytes, name)


@contextmanager
def bar(verb: str) -> Iterator[Progress | None]:
    """Draw a bar until the block ends.

    Parameters
    ----------
    verb : str
        What is done, such as ``sending``.

    Yields
    ------
    callable or None
        What the library's ``progress`` accepts; ``None`` where nobody would see a bar.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress as Bars

    drawn = console(stderr=True)
    # what others write meanwhile is printed above the bar, which rich's own stream does
    with (
        Bars(*_columns(), console=drawn, redirect_stdout=False) as bars,
        redirect_stderr(SafeStream(sys.stderr)),
    ):
        task = bars.add_task(verb, total=None, size="", rate="", model="")
        start, moved, moving = 0.0, 0, 0

        def report(done: int, total: int, size_bytes: int, name: str) -> None:
            nonlocal start, moved, moving
            start = start or time.monotonic()  # importing MLflow moves nothing
            moved, moving = moved + moving, size_bytes
            bars.update(
                task,
                completed=done,
                total=total,
                size=size_as_text(moved + moving),  # with the model that is on its way
                rate=_rate(moved, start) if moved else "",
                model=safe_line(name),
                refresh=done == 0,  # the first may take long, or be over before the next drawing
            )

        def arrived(count: int, size: int) -> None:
            bars.update(
                task,
                completed=count / size if size else 0,  # the part of this model that is there
                size=f"{size_as_text(count)}{f' of {size_as_text(size)}' if size else ''}",
                rate=_rate(count, start),
                refresh=True,  # it may be over before the next drawing
            )

        yield _Reports(report, arrived)
