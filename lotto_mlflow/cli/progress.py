"""Progress bars with size and rate, where stderr is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lotto_mlflow.records import Progress
from lotto_mlflow.text import size_as_text


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
        What the library's ``progress`` takes; ``None`` where nobody would see a bar.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    from lotto_mlflow.cli.printing import console

    columns = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[size]}  {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[model]}"),
    ]
    with Bars(*columns, console=console(stderr=True), redirect_stdout=False) as bars:
        task = bars.add_task(verb, total=None, size="", rate="", model="")
        start, moved, moving = 0.0, 0, 0

        def report(done: int, total: int, size_bytes: int, name: str) -> None:
            nonlocal start, moved, moving
            start = start or time.monotonic()  # importing MLflow moves nothing
            moved, moving = moved + moving, size_bytes
            rate = moved / max(time.monotonic() - start, 1e-6)
            bars.update(
                task,
                completed=done,
                total=total,
                size=size_as_text(moved + moving),  # with the model that is on its way
                rate=f"{size_as_text(int(rate))}/s" if moved else "",
                model=name,
                refresh=done == 0,  # the first may take long, or be over before the next drawing
            )

        yield report
