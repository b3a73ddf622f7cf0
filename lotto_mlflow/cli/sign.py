"""``keys``, ``sign``, ``trust``: make keys, sign what was saved without one, accept a step back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lotto_mlflow.cli import output, terminal
from lotto_mlflow.cli.application import (
    BaseDir,
    Debug,
    Json,
    app,
    base_dir_of,
    calling,
    existing_manager_of,
    sharing_manager_of,
)
from lotto_mlflow.cli.output import epilog
from lotto_mlflow.text import shell_command


@app.command(
    "keys",
    short_help="Make the keys that sign models and that trust them.",
    epilog=epilog("keys"),
)
def keys(
    ctx: typer.Context,
    action: Annotated[
        Literal["new"], typer.Argument(metavar="new", help="Make a new pair of keys.")
    ],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="File of the private key; the public one is FILE.pub beside it."
        ),
    ],
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a private key, which signs models, and a public one, by which they are trusted.

    Neither replaces a file, and neither is made in a folder of models.
    """
    with calling():
        from lotto_mlflow.signing import check_signing_key, new_key  # imported lazily

        public_path = new_key(file, base_dir_of(ctx, base_dir))
        key = check_signing_key(public_path.with_suffix(""))
    if as_json:
        found = {"private_key": key.path, "public_key": public_path, "key": key.hint}
        output.print_json(found)
        return
    terminal.line("the private key, which signs; keep it from everybody else, and keep a copy:")
    terminal.command(shell_command(["export", f"LOTTO_SIGNING_KEY={key.path}"]), "    ")
    terminal.line("the public key; where models are loaded, put it in a folder of trusted keys:")
    terminal.command(shell_command(["export", f"LOTTO_TRUSTED_KEYS={public_path}"]), "    ")
    terminal.note("a host that only loads models needs no private key")


@app.command(
    "sign",
    short_help="Sign a save that is there already.",
    epilog=epilog("sign"),
)
def sign(
    ctx: typer.Context,
    reference: Annotated[
        str,
        typer.Argument(
            metavar="NAME|VERSION",
            help="A name, a path in trained/ or backups/, a version number of lotto_model, or a "
            "models:/ URI.",
        ),
    ],
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Sign a save that was made without a key, or with another one, with LOTTO_SIGNING_KEY.

    It is said to be signed later. Exit code 1 where MLflow has the model and not the signature.
    """
    with calling():
        report = existing_manager_of(ctx, base_dir).sign(reference)
    if as_json:
        output.print_json(vars(report))
    else:
        when = "when it was saved" if report.signed_at is None else f"at {report.signed_at}"
        done = "signed" if report.is_new else "signed already"
        terminal.line(f"{done}: {report.name}, save {report.save_id}, {when}, key {report.key}")
        for name in report.stores:
            terminal.line(f"    beside its version in {name}, too")
        for name, reason in report.failed.items():
            terminal.line(f"refused: {name}")
            terminal.line(f"    {reason}")
    if report.failed:
        raise typer.Exit(1)


@app.command(
    "trust",
    short_help="Accept that the latest is older than one seen before.",
    epilog=epilog("trust"),
)
def trust(
    ctx: typer.Context,
    accept: Annotated[
        str,
        typer.Option("--accept", metavar="NAME", help="The registered model, such as lotto_model."),
    ],
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Accept on purpose that the latest is older than one that this host has seen.

    Where keys are trusted, such a latest is refused: it may be an earlier copy of the models.
    """
    with calling():
        accepted = sharing_manager_of(ctx, base_dir).trust(accept)
    if as_json:
        output.print_json([output.values_of(record) for record in accepted])
        return
    for record in accepted:
        version = "on disk" if record.path is not None else f"version {record.version}"
        terminal.line(f"accepted as the latest: {record.name}, {version}, of {record.saved_at}")
