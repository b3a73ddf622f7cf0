"""``check``: one line for monitoring, with exit codes of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from lotto_mlflow.cli import output, terminal
from lotto_mlflow.cli.application import (
    USAGE_CODES,
    BaseDir,
    Common,
    Debug,
    Json,
    app,
    calling,
    existing_manager_of,
    named_base_dir,
    print_traceback,
    sharing_manager_of,
)
from lotto_mlflow.cli.output import epilog, in_commands
from lotto_mlflow.errors import LottoMlflowError
from lotto_mlflow.operations.health import line
from lotto_mlflow.records import Health
from lotto_mlflow.text import safe_line

CODES = {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}
USAGE_CODES["check"] = CODES["unknown"]


@app.command(
    "check",
    short_help="Say on one line whether the newest model is in order.",
    epilog=epilog("check"),
)
def check(
    ctx: typer.Context,
    max_age: Annotated[
        str | None,
        typer.Option("--max-age", metavar="AGE", help="How old it may be, such as 8d, 36h or 90m."),
    ] = None,
    alias: Annotated[
        str | None,
        typer.Option("--alias", metavar="ALIAS", help="Check the model that has this alias."),
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Check every file, too, as verify does.")
    ] = False,
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say on one line whether the newest model is there, fresh and sound, for monitoring.

    Exit codes of this command: 0 OK; 1 something waits for MLflow for over an hour, another
    scikit-learn is installed, or the disk is nearly full; 2 the model is too old, missing or
    damaged; 3 wrong usage, or something could not be looked at.
    """
    try:
        with calling():
            find_manager = existing_manager_of if alias is None else sharing_manager_of
            health = find_manager(ctx, base_dir).check(max_age, alias, deep)
    except Exception as error:  # noqa: BLE001 - whatever it is, exit code 1 would be a warning
        health = _unknown(ctx, error)
    if as_json:
        output.print_json(output.values_of_health(health, named_base_dir(ctx)))
    else:
        terminal.line(health.message)
    raise typer.Exit(CODES[health.status])


def _unknown(ctx: typer.Context, error: Exception) -> Health:
    """Return that nothing could be looked at; what is no error of ours shows its traceback."""
    is_known = isinstance(error, (LottoMlflowError, OSError))
    if not is_known or (isinstance(ctx.obj, Common) and ctx.obj.debug):
        print_traceback(error)
    fix = error.fix if isinstance(error, LottoMlflowError) else None
    text = str(error) if is_known else f"{type(error).__name__}: {error}"
    said = in_commands(safe_line(text), fix, named_base_dir(ctx), "`")
    return Health("unknown", line("unknown", [said], []))
