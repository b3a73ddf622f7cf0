"""``verify``, ``sync``, ``migrate``, ``restore``, ``relocate``: find differences, and fix them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lotto_mlflow import settings
from lotto_mlflow.cli import output, terminal
from lotto_mlflow.cli.application import (
    BaseDir,
    Debug,
    Json,
    Reference,
    app,
    calling,
    existing_manager_of,
    named_base_dir,
    sharing_manager_of,
    usage,
)
from lotto_mlflow.cli.output import epilog
from lotto_mlflow.cli.terminal import bar
from lotto_mlflow.errors import SignatureError
from lotto_mlflow.operations import gate
from lotto_mlflow.records import Finding, MigrateReport, SyncReport
from lotto_mlflow.text import HIDDEN, counted, shell_command


@app.command(
    "verify",
    short_help="Find what differs between disk, records and MLflow.",
    epilog=epilog("verify"),
)
def verify(
    ctx: typer.Context,
    uri: Annotated[
        str | None,
        typer.Argument(
            metavar="[URI]",
            show_default=False,
            help="Verify one version by its signature: models:/NAME/1 or models:/NAME@ALIAS.",
        ),
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Download and check what a tracking server keeps, too.")
    ] = False,
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare disk, records and MLflow, and check every digest; exit code 1 on a difference.

    With a URI, one version is verified by its signature, and all of its files that MLflow would
    run; that needs LOTTO_TRUSTED_KEYS. Changes nothing, and opens no model.
    """
    if uri is not None and deep:
        raise usage("--deep has no meaning with a URI, of which all is checked", ctx)
    if uri is not None:
        agreed, findings = _verify_version(ctx, base_dir, uri)
    else:
        agreed = "both views agree, and every digest holds"
        with calling(), bar("verifying") as progress:
            findings = existing_manager_of(ctx, base_dir).verify(deep=deep, progress=progress)
    _print_findings(findings, agreed, named_base_dir(ctx), as_json=as_json)


def _verify_version(
    ctx: typer.Context, base_dir: Path | None, uri: str
) -> tuple[str, list[Finding]]:
    """Return what to say of a version that is as it was signed, or else what is wrong with it."""
    try:
        with calling():
            found = sharing_manager_of(ctx, base_dir).verify_version(uri)
    except SignatureError as error:
        return "", [gate.finding_of(error, uri)]
    signed = found.statement
    said = f"{found.reference} is {signed.name} of {signed.saved_at}, signed"
    return f"{said}, sha256 {signed.sha256}", []


def _print_findings(
    findings: list[Finding], agreed: str, base: Path | None, *, as_json: bool
) -> None:
    if as_json:
        output.print_json([output.values_of_finding(one, base) for one in findings])
    elif not findings:
        terminal.line(agreed)
    else:
        for finding in findings:
            subject = finding.name or str(finding.path or "")
            terminal.line(f"{finding.kind}: {subject}".rstrip(": "))
            if finding.path is not None and finding.name:
                terminal.line(f"    {finding.path}")
            terminal.line(f"    {finding.detail}")
            output.print_fix(finding.fix, finding.repair, base)
    if findings:
        raise typer.Exit(1)


@app.command(
    "sync",
    short_help="Send MLflow all that the current store lacks.",
    epilog=epilog("sync"),
)
def sync(
    ctx: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be sent.")
    ] = False,
    include_backups: Annotated[
        bool, typer.Option("--include-backups", help="Bring in unknown files of backups/, too.")
    ] = False,
    resend: Annotated[
        bool,
        typer.Option(
            "--resend",
            help="Send again what was deleted or damaged in MLflow, and record what was moved.",
        ),
    ] = False,
    retry_aside: Annotated[
        bool, typer.Option("--retry-aside", help="Try again what MLflow refused.")
    ] = False,
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Send MLflow all that the current store lacks; exit code 1 where it refused a save."""
    with calling(), bar("sending") as progress:
        report = existing_manager_of(ctx, base_dir).sync(
            dry_run=dry_run,
            include_backups=include_backups,
            resend=resend,
            retry_aside=retry_aside,
            progress=progress,
        )
    if as_json:
        output.print_json(vars(report) | {"fixes": {n: vars(f) for n, f in report.fixes.items()}})
    else:
        _print_report(report, named_base_dir(ctx))
    if report.failed:
        raise typer.Exit(1)


def _print_report(report: SyncReport, base_dir: Path | None) -> None:
    verb = "would send" if report.dry_run else "sent"
    if report.dry_run:
        for name in report.sent:
            terminal.line(name)
    details = [
        f"{len(names)} {what}"
        for names, what in (
            (report.backfilled, "from files that no save knew"),
            (report.resent, "again"),
        )
        if names
    ]
    saves = counted(len(report.sent), "save")
    terminal.line(f"{verb} {saves}{f' ({chr(44).join(details)})' if details else ''}")
    if report.found:
        terminal.line("in MLflow already, elsewhere than recorded; nothing is sent for them:")
        for name in report.found:
            terminal.line(f"    {name}")
    if report.predictions:
        terminal.line(f"{verb} the figures of predictions: {len(report.predictions)}")
    if report.recorded:
        verb = "would record" if report.dry_run else "recorded"
        terminal.line(f"{verb} predictions of other programs: {len(report.recorded)}")
    _print_failed(report, base_dir)


def _print_failed(report: SyncReport | MigrateReport, base_dir: Path | None) -> None:
    """Print what was refused, and the commands that help."""
    for name, reason in report.failed.items():
        fix = report.fixes.get(name)
        text = reason if fix is None else reason.removesuffix(f"; {fix.in_words()}")
        terminal.line(f"refused: {name}")
        terminal.line(f"    {text}")
        if fix is not None:
            output.print_fix(fix, "", base_dir)


@app.command(
    "migrate",
    short_help="Bring everything to another store.",
    epilog=epilog("migrate"),
)
def migrate(
    ctx: typer.Context,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="URI",
            help="Address of an MLflow server, http://…, or of a database, postgresql://… or "
            "sqlite:///….",
        ),
    ],
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Bring saves, aliases with their history, and people's tags to another store.

    The current store is only read. What was cut off is finished by the same command; exit code 1
    where something could not be migrated.
    """
    with calling(), bar("migrating") as progress:
        report = existing_manager_of(ctx, base_dir).migrate(to, progress=progress)
    if as_json:
        output.print_json(vars(report) | {"fixes": {n: vars(f) for n, f in report.fixes.items()}})
    else:
        _print_migrated(report, named_base_dir(ctx))
    if report.failed:
        raise typer.Exit(1)


def _print_migrated(report: MigrateReport, base_dir: Path | None) -> None:
    terminal.line(counted(len(report.sent), "save sent", "saves sent"))
    for count, one, many in (
        (len(report.found), "save found there", "saves found there"),
        (
            len(report.predictions),
            "prediction whose figures were sent",
            "predictions whose figures were sent",
        ),
        (report.notes, "tag or description copied", "tags and descriptions copied"),
        (report.moves, "move of an alias copied", "moves of aliases copied"),
        (len(report.aliases), "alias set", "aliases set"),
        (
            report.verified,
            "version compared with the digest of its save",
            "versions compared with the digests of their saves",
        ),
    ):
        if count:
            terminal.line(counted(count, one, many))
    for name, reason in report.left.items():
        terminal.line(f"stays behind: {name}")
        terminal.line(f"    {reason}")
    _print_failed(report, base_dir)
    if not report.failed:
        terminal.line("the current store is as it was; to use the other one from now on:")
        terminal.command(shell_command(["export", f"MLFLOW_TRACKING_URI={report.to}"]), "    ")
        if HIDDEN in report.to:
            terminal.line(f"    with its secrets in the place of {HIDDEN}")
        if settings.read().registry_uri is not None:
            terminal.command("unset MLFLOW_REGISTRY_URI", "    ")


@app.command(
    "restore",
    short_help="Bring a model and its metadata back, verified.",
    epilog=epilog("restore"),
)
def restore(
    ctx: typer.Context,
    reference: Reference,
    source: Annotated[
        Literal["backups", "registry"], typer.Option("--source", help="Where to restore it from.")
    ] = "backups",
    backup: Annotated[
        str | None,
        typer.Option(
            "--backup", help="Which file in backups/, by its name; the newest by default."
        ),
    ] = None,
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Bring a model and its metadata back, verified; the existing file is backed up first.

    The file keeps its own time, so an old model does not become the latest.
    """
    if backup is not None and source == "registry":
        raise usage("--backup names a file in backups/, and has no meaning with the registry", ctx)
    find_manager = sharing_manager_of if source == "registry" else existing_manager_of
    with calling(), bar("restoring") as progress:
        record = find_manager(ctx, base_dir).restore(
            reference, source=source, backup=backup, progress=progress
        )
    if as_json:
        output.print_json(output.values_of(record))
    else:
        saved_at = output.time_as_text(record)
        terminal.line(f"restored {record.path} of {saved_at}, sha256 {record.sha256}")


@app.command(
    "relocate",
    short_help="Give the database of a moved folder the new paths.",
    epilog=epilog("relocate"),
)
def relocate(
    ctx: typer.Context,
    relative_to: Annotated[
        Path | None,
        typer.Option(
            "--relative-to",
            exists=True,
            file_okay=False,
            metavar="FOLDER",
            help="Store paths relative to this folder, for a store that is committed.",
        ),
    ] = None,
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """After the folder was moved or copied, give its database the new paths."""
    with calling():
        rewritten = existing_manager_of(ctx, base_dir).relocate(relative_to=relative_to)
    if as_json:
        output.print_json({"rewritten": rewritten})
    else:
        paths = counted(rewritten, "path")
        terminal.line(f"{paths} rewritten" if rewritten else "nothing had moved")
