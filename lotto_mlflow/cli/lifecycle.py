"""``promote``, ``rollback``, ``history``: which model serves, and who decided so."""

from __future__ import annotations

from typing import Annotated

import typer

from lotto_mlflow.cli import output, terminal
from lotto_mlflow.cli.application import (
    BaseDir,
    Debug,
    Json,
    Reference,
    app,
    calling,
    manager_of,
    sharing_manager_of,
    usage,
)
from lotto_mlflow.cli.output import epilog
from lotto_mlflow.layout import REGISTERED_MODEL
from lotto_mlflow.records import AliasHolder, AliasMove
from lotto_mlflow.references import CHAMPION

_LONGEST_REASON = 60
_ALIAS_HELP = "The alias."
Alias = Annotated[str, typer.Argument(metavar="[ALIAS]", help=_ALIAS_HELP)]
RegisteredModel = Annotated[
    str, typer.Option("--registered-model", metavar="NAME", help="Whose alias it is.")
]
Reason = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why; kept in the history.")
]


@app.command(
    "promote",
    short_help="Have an alias stand for a model.",
    epilog=epilog("promote"),
)
def promote(
    ctx: typer.Context,
    reference: Reference,
    alias: Annotated[str, typer.Option("--alias", metavar="ALIAS", help=_ALIAS_HELP)] = CHAMPION,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", "-m", help="Only if the model has more of it than the one in use."
        ),
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="Only if it has less of the metric.")
    ] = False,
    min_gain: Annotated[
        float, typer.Option("--min-gain", min=0.0, help="Only if it is better by so much.")
    ] = 0.0,
    reason: Reason = None,
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Have an alias stand for a model; exit code 1 where it is not better than the one in use.

    A save that still waits for MLflow is pushed first.
    """
    if metric is None and (lower_is_better or min_gain):
        raise usage("--lower-is-better and --min-gain are of a metric; name it with --metric", ctx)
    with calling():
        move = sharing_manager_of(ctx, base_dir).promote(
            reference,
            alias,
            metric=metric,
            higher_is_better=not lower_is_better,
            min_gain=min_gain,
            reason=reason,
        )
    _print_move(move, as_json=as_json)


@app.command(
    "rollback",
    short_help="Have an alias stand for what it stood for before.",
    epilog=epilog("rollback"),
)
def rollback(
    ctx: typer.Context,
    alias: Alias = CHAMPION,
    registered_model: RegisteredModel = REGISTERED_MODEL,
    reason: Reason = None,
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Have an alias stand for what it stood for before; again, for what was before that."""
    with calling():
        move = sharing_manager_of(ctx, base_dir).rollback(
            alias, registered_model=registered_model, reason=reason
        )
    _print_move(move, as_json=as_json)


@app.command(
    "history",
    short_help="List the moves of an alias, the oldest first.",
    epilog=epilog("history"),
)
def history(
    ctx: typer.Context,
    alias: Alias = CHAMPION,
    registered_model: RegisteredModel = REGISTERED_MODEL,
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the moves of an alias, the oldest first, by whichever host."""
    with calling():
        moves = manager_of(ctx, base_dir).history(alias, registered_model=registered_model)
    if as_json:
        output.print_json([output.values_of_move(move) for move in moves])
    elif not moves:
        terminal.note(f"{alias} of {registered_model} never stood for a version")
    else:
        output.print_table(
            ["#", "when", "who", "kind", "from", "to", "metric", "reason"],
            [_row(move) for move in moves],
            right=["#", "from", "to"],
        )


def _row(move: AliasMove) -> list[str]:
    values = ""
    if move.metric is not None:
        before, after = map(output.number_as_text, (move.from_value, move.to_value))
        values = f"{move.metric} {before} -> {after}"
    reason = move.reason or ""
    if len(reason) > _LONGEST_REASON:
        reason = f"{reason[:_LONGEST_REASON]}…"
    return [
        output.NONE if move.number is None else str(move.number),
        output.moment_as_text(move.when),
        move.who or output.NONE,
        _kind(move),
        _version(move.from_),
        _version(move.to),
        values or output.NONE,
        reason or output.NONE,
    ]


def _kind(move: AliasMove) -> str:
    if move.kind == "outside":
        return "changed outside"
    if move.kind == "deleted":
        return "version deleted"
    return move.kind if move.is_done else f"{move.kind}, not seen to end"


def _version(holder: AliasHolder | None) -> str:
    if holder is None:
        return output.NONE
    return str(holder.version) if holder.version else "deleted"


def _print_move(move: AliasMove, *, as_json: bool) -> None:
    if as_json:
        output.print_json(output.values_of_move(move))
        return
    before = "" if move.from_ is None else f", before that for {move.from_.version}"
    terminal.line(
        f"{move.alias} of {move.registered_model} stands for version {_version(move.to)} since "
        f"{output.moment_as_text(move.when)}{before}"
    )
