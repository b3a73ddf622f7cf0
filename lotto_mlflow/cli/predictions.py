"""``predictions``, ``record-result``, ``import-results``: what was predicted and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lotto_mlflow.cli import output, terminal
from lotto_mlflow.cli.application import (
    BaseDir,
    Debug,
    Json,
    app,
    calling,
    existing_manager_of,
    manager_of,
    usage,
)
from lotto_mlflow.cli.output import epilog
from lotto_mlflow.records import Prediction
from lotto_mlflow.text import counted


@app.command(
    "predictions",
    short_help="List the recorded predictions, the newest draw first.",
    epilog=epilog("predictions"),
)
def predictions(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME|VERSION", help="Only those of this model."),
    ] = None,
    draw: Annotated[
        int | None, typer.Option("--draw", "-d", min=1, help="Only those for this draw.")
    ] = None,
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the recorded predictions, those for the newest draw first.

    Those that count are marked *: of each save the newest before sales closed. hits/game is how
    many numbers an average game of the prediction hit, best game how many the best one did; - is a
    draw without a result.
    """
    with calling():
        found = manager_of(ctx, base_dir).predictions(model, draw)
    if as_json:
        output.print_json([vars(prediction) for prediction in found])
    elif not found:
        of_model = "" if model is None else f" of {model}"
        for_draw = "" if draw is None else f" for draw {draw}"
        terminal.note(f"there is no prediction{of_model}{for_draw}")
    else:
        _print_predictions(found)


def _print_predictions(found: list[Prediction]) -> None:
    rows = [
        [
            str(prediction.draw_no),
            prediction.model,
            output.NONE if prediction.version is None else str(prediction.version),
            "backtest" if prediction.is_backtest else "late" if prediction.is_late else "live",
            output.moment_as_text(prediction.made_at, "%Y-%m-%d %H:%M"),
            str(len(prediction.games)),
            output.hits_as_text(prediction.hits_per_game),
            output.NONE if prediction.best_hits is None else str(prediction.best_hits),
            output.loss_as_text(prediction.log_loss),
            "*" if prediction.counts else "",
        ]
        for prediction in found
    ]
    headers = ["draw", "model", "version", "kind", "made at", "games", "hits/game", "best game"]
    output.print_table(
        [*headers, "log loss", ""],
        rows,
        right=["draw", "version", "games", "hits/game", "best game", "log loss"],
        marked=[number for number, prediction in enumerate(found) if prediction.counts],
    )


@app.command(
    "record-result",
    short_help="Record a result, and show how good predictions were.",
    epilog=epilog("record-result"),
)
def record_result(
    ctx: typer.Context,
    draw: Annotated[int, typer.Argument(metavar="DRAW", help="Number of the draw.")],
    numbers: Annotated[
        list[int],
        typer.Argument(metavar="N1 N2 N3 N4 N5 N6 BONUS", help="The numbers, the bonus last."),
    ],
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Record what was drawn, and show how good the predictions for the draw were."""
    if len(numbers) != 7:
        raise usage(f"give six numbers and the bonus, not {len(numbers)} numbers", ctx)
    with calling():
        manager = existing_manager_of(ctx, base_dir)
        found = manager.record_result(draw, numbers[:6], numbers[6])
    if as_json:
        output.print_json([vars(prediction) for prediction in found])
    elif found:
        _print_predictions(found)
    else:
        terminal.line(f"recorded the result of draw {draw}; there is no prediction for it")


@app.command(
    "import-results",
    short_help="Record the results in a CSV file; all of them, or none.",
    epilog=epilog("import-results"),
)
def import_results(
    ctx: typer.Context,
    csv: Annotated[
        Path,
        typer.Argument(
            metavar="CSV", help="A file with the columns draw_no, draw_date, n1 to n6, bonus."
        ),
    ],
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Record the results in a CSV file; all of them, or none."""
    with calling():
        recorded = existing_manager_of(ctx, base_dir).import_results(csv)
    if as_json:
        output.print_json({"recorded": recorded})
    else:
        terminal.line(f"recorded {counted(recorded, 'new result')}")
