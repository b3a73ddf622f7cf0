"""``prune``, ``delete``: remove what is old, or bad, from disk and MLflow at once."""

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
    existing_manager_of,
    usage,
)
from lotto_mlflow.cli.output import epilog
from lotto_mlflow.cli.terminal import bar
from lotto_mlflow.records import PrunedSave, PruneReport
from lotto_mlflow.text import counted, size_as_text

Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this, only print what would go.")]


@app.command(
    "prune",
    short_help="Remove old saves from disk and MLflow, or print which.",
    epilog=epilog("prune"),
)
def prune(
    ctx: typer.Context,
    keep_last: Annotated[
        int | None,
        typer.Option(
            "--keep-last", metavar="N", min=0, help="How many saves of a registered model stay."
        ),
    ] = None,
    keep_days: Annotated[
        float | None,
        typer.Option(
            "--keep-days", metavar="N", min=0.0, help="Saves that are not older than this stay."
        ),
    ] = None,
    yes: Yes = False,
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove old saves from disk and MLflow, or print which would go; either limit keeps.

    What is the newest, in use by an alias or by another version, or still waits for MLflow stays.
    """
    if keep_last is None and keep_days is None:
        raise usage("give a limit: --keep-last or --keep-days", ctx)
    with calling(), bar("pruning") as progress:
        report = existing_manager_of(ctx, base_dir).prune(
            keep_last=keep_last, keep_days=keep_days, dry_run=not yes, progress=progress
        )
    _print(report, as_json=as_json)


@app.command(
    "delete",
    short_help="Remove one bad save from disk and MLflow.",
    epilog=epilog("delete"),
)
def delete(
    ctx: typer.Context,
    reference: Reference,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why; show says it later.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Even where an alias stands for it, which goes, too.")
    ] = False,
    yes: Yes = False,
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove one bad save from disk and MLflow, or print what would go."""
    with calling():
        report = existing_manager_of(ctx, base_dir).delete(
            reference, reason=reason, force=force, dry_run=not yes
        )
    _print(report, as_json=as_json)


def _print(report: PruneReport, *, as_json: bool) -> None:
    if as_json:
        output.print_json(output.values_of_prune(report))
    else:
        _print_for_people(report)
    if report.failed:
        raise typer.Exit(1)


def _print_for_people(report: PruneReport) -> None:
    if report.pruned:
        output.print_table(
            ["name", "version", "saved at", "size", "why"],
            [_row(one) for one in report.pruned],
            right=["version", "size"],
        )
    for one in report.kept:
        terminal.line(f"stays: {_label(one)}, {one.why}")
    for one in report.pruned:
        if one.aliases:
            verb = "would go with it" if report.dry_run else "went with it"
            terminal.line(f"{_label(one)}: the alias {', '.join(one.aliases)} {verb}")
    for reason in report.failed.values():
        terminal.line(f"refused: {reason}")
    for text in report.left:
        terminal.line(f"left in MLflow: {text}")
    verb, saves = (
        "would remove" if report.dry_run else "removed",
        counted(len(report.pruned), "save"),
    )
    terminal.line(f"{verb} {saves}, {size_as_text(report.size)}")
    if report.dry_run and report.pruned:
        terminal.note("nothing was removed; --yes does it")


def _row(one: PrunedSave) -> list[str]:
    version = output.NONE if one.version is None else str(one.version)
    return [one.name, version, output.moment_as_text(one.saved_at), size_as_text(one.size), one.why]


def _label(one: PrunedSave) -> str:
    if one.version is None:
        return f"{one.name} of {output.moment_as_text(one.saved_at)}"
    return f"{one.name}, version {one.version} of {one.registered_model}"
