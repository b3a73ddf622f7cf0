"""The application that commands are added to, and what becomes of their errors."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from lotto_mlflow.cli.options import BaseDir, Common, Debug, named_base_dir
from lotto_mlflow.cli.wording import as_commands
from lotto_mlflow.errors import LottoMlflowError

EPILOG = (
    "Every command obeys LOTTO_APP_DIR, LOTTO_TIMEZONE, LOTTO_MIRROR, MLFLOW_TRACKING_URI and "
    "MLFLOW_REGISTRY_URI. Exit code: 0 done, 1 a problem found or an error, 2 wrong usage, "
    "130 interrupted."
)
_QUIET = {
    # a run that ends on a server is told on stdout, where --json has nothing but the JSON
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # bars of our own are drawn instead, and only on a terminal
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


class _Commands(TyperGroup):
    """The group of all commands, in which an error of the library is one line and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except (LottoMlflowError, OSError) as error:
            if getattr(error, "errno", None) == errno.EPIPE:
                raise  # who reads the output has seen enough
            if isinstance(ctx.obj, Common) and ctx.obj.debug:
                raise
            line = " ".join(as_commands(str(error), "`", named_base_dir(ctx)).split())
            typer.echo(f"error: {line}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    name="lotto-mlflow",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help starts in half the time
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)


@app.callback()
def everything(ctx: typer.Context, base_dir: BaseDir = None, debug: Debug = False) -> None:
    """Look at, compare, check and mend the models of a lotto backend, on disk and in MLflow."""
    ctx.obj = Common(base_dir=base_dir, debug=debug)


def main() -> None:
    """Run the command line; the exit code is the process's."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # where the encoding has no Korean
    app(prog_name="lotto-mlflow")
