"""``accuracy``: how good the predictions of each save were, beside what chance would have done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lotto_mlflow import chance, files
from lotto_mlflow.cli import output, terminal
from lotto_mlflow.cli.application import BaseDir, Debug, Json, app, calling, existing_manager_of
from lotto_mlflow.cli.output import NONE, epilog
from lotto_mlflow.draws import CHANCE_LOG_LOSS
from lotto_mlflow.errors import StoreError
from lotto_mlflow.manager import ModelManager
from lotto_mlflow.records import ModelAccuracy

_HEADERS = (
    "model",
    "version",
    "kind",
    "draws",
    "games",
    "hits/game",
    "95 % interval",
    "p",
    "adjusted p",
    "prizes",
    "log loss",
)
_HELP = f"""Show how good the predictions of each save were, and whether any differs from chance.

A row is of one save, live or backtest. Chance hits {chance.HITS_PER_GAME:g} numbers a game and has
the log loss {CHANCE_LOG_LOSS:g}. The interval holds the expected hits in 95 % of all cases; p is
the probability that chance is as far from {chance.HITS_PER_GAME:g}, and is adjusted for the number
of saves. Prizes are ranks, and how many games won each.
"""


def _check_picture(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() != ".png":
        raise typer.BadParameter("the picture is a PNG: give a name that ends in .png")
    return path


@app.command(
    "accuracy",
    help=_HELP,
    short_help="Show how good predictions were, beside chance.",
    epilog=epilog("accuracy"),
)
def accuracy(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|VERSION]",
            help="A name, a version number of lotto_model, or a models:/ URI; all by default.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            callback=_check_picture,
            help="Draw the hits by draw, too, with the band of chance; needs matplotlib.",
        ),
    ] = None,
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print how good the predictions of each save were."""
    with calling():
        manager = existing_manager_of(ctx, base_dir)
        if plot is not None:
            from lotto_mlflow.cli.accuracy_plot import check_matplotlib  # imported lazily

            check_matplotlib()
        rows = manager.accuracy(model)
        if plot is not None:
            _draw(manager, model, plot)
    if as_json:
        output.print_json([vars(row) for row in rows])
        return
    _print_rows(rows)


def _draw(manager: ModelManager, model: str | None, path: Path) -> None:
    from lotto_mlflow.cli.accuracy_plot import picture_of  # imported lazily
    from lotto_mlflow.operations.accuracy import measured

    asked = None if model is None else manager.predictions(model)
    panels = measured(manager.predictions(), asked)
    if not panels:
        terminal.note(f"{path} was not written, as there is nothing to draw")
        return
    content, notes = picture_of(panels)
    try:
        files.replace_content(path, content, path.parent)
    except OSError as cause:
        raise StoreError(f"{path} could not be written: {cause}", path=path) from cause
    for note in notes:
        terminal.note(note)
    terminal.note(f"the picture is {path}")


def _print_rows(rows: list[ModelAccuracy]) -> None:
    from lotto_mlflow.operations.accuracy import summary  # imported lazily

    if rows:
        output.print_table(
            _HEADERS,
            map(_cells_of, rows),
            right=[name for name in _HEADERS if name not in ("model", "kind", "prizes")],
        )
        terminal.line()
    terminal.line(summary(rows))


def _cells_of(row: ModelAccuracy) -> list[str]:
    from lotto_mlflow.operations.accuracy import p_as_text  # imported lazily

    won = [f"{rank}: {count}" for rank, count in row.prizes.items() if count]
    return [
        row.model,
        NONE if row.version is None else str(row.version),
        "backtest" if row.is_backtest else "live",
        str(row.draws),
        str(row.games),
        output.hits_as_text(row.hits_per_game),
        NONE if row.interval is None else "{:.3f} to {:.3f}".format(*row.interval),
        p_as_text(row.p_value),
        p_as_text(row.p_adjusted),
        ", ".join(won) or NONE,
        output.loss_as_text(row.log_loss),
    ]
