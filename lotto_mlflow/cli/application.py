"""The application that commands are added to: its options, its manager, its errors."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lotto_mlflow import regular, settings
from lotto_mlflow.cli.output import in_commands
from lotto_mlflow.cli.terminal import SafeStream
from lotto_mlflow.errors import LottoMlflowError, StoreError
from lotto_mlflow.manager import ModelManager
from lotto_mlflow.text import safe_line, traceback_of

EPILOG = (
    "Every command obeys LOTTO_APP_DIR, LOTTO_TIMEZONE, LOTTO_MIRROR, LOTTO_TRUST, "
    "LOTTO_SIGNING_KEY, LOTTO_TRUSTED_KEYS, LOTTO_STATE_DIR, "
    "LOTTO_CACHE_DIR, LOTTO_DOWNLOADS_MAX, LOTTO_ARTIFACT_ROOTS, MLFLOW_TRACKING_URI and "
    "MLFLOW_REGISTRY_URI. "
    "Exit code: 0 done, 1 a problem found or an error, 2 wrong usage, 130 interrupted."
)
_MLFLOW_DEFAULTS = {
    # MLflow prints a link to a run on a server on stdout, which under --json is for JSON alone
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # bars of our own are drawn instead, and only on a terminal
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass
class Common:
    """What was given, before the command or after it.

    Attributes
    ----------
    base_dir : pathlib.Path or None
        The folder of the models, as it was named.
    debug : bool
        Whether an error shows its traceback.
    """

    base_dir: Path | None = None
    debug: bool = False


def _note_debug(ctx: typer.Context, value: bool) -> bool:
    if value and isinstance(ctx.obj, Common):
        ctx.obj.debug = True
    return value


def _note_base_dir(ctx: typer.Context, value: Path | None) -> Path | None:
    if value is not None and isinstance(ctx.obj, Common):
        ctx.obj.base_dir = value
    return value


def _names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of models that a shell may complete."""
    before = ctx.parent.params.get("base_dir") if ctx.parent is not None else None
    base_dir = ctx.params.get("base_dir") or before or default_base_dir()
    found = (path.stem for path in (Path(base_dir) / "trained").glob("*.pkl"))
    return sorted(name for name in found if name.startswith(incomplete))


BaseDir = Annotated[
    Path | None,
    typer.Option(
        "--base-dir",
        callback=_note_base_dir,
        exists=True,
        file_okay=False,
        metavar="FOLDER",
        help="Folder of trained/, metadata/ and backups/; models/ml in LOTTO_APP_DIR, "
        "or in backend/app, by default.",
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_note_debug, help="Show an error with its traceback.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout; see below.")
]
Reference = Annotated[
    str,
    typer.Argument(
        metavar="NAME|VERSION",
        help="A name, a version number of lotto_model, or a models:/ URI.",
        autocompletion=_names,
    ),
]
References = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME NAME ...",
        help="Names, version numbers of lotto_model, or models:/ URIs; two or more.",
        autocompletion=_names,
    ),
]


def named_base_dir(ctx: typer.Context) -> Path | None:
    """Return the folder that the user named, ``None`` where the environment's is meant."""
    return ctx.obj.base_dir if isinstance(ctx.obj, Common) else None


def default_base_dir() -> Path:
    """Return the folder of the models that the environment names."""
    return settings.base_dir_under(settings.app_dir())


def base_dir_of(ctx: typer.Context, given: Path | None) -> Path:
    """Return the current folder: the command's option, the one before it, the environment's."""
    return regular.absolute(given or named_base_dir(ctx) or default_base_dir())


def manager_of(ctx: typer.Context, given: Path | None) -> ModelManager:
    """Return the manager of the current folder."""
    return ModelManager(base_dir_of(ctx, given))


def existing_manager_of(ctx: typer.Context, given: Path | None) -> ModelManager:
    """Return the manager of the current folder, for a command that works on what is there.

    Raises
    ------
    StoreError
        If the folder is not there: a check of the wrong folder must not pass.
    """
    base_dir = base_dir_of(ctx, given)
    if not base_dir.is_dir():
        raise StoreError(
            f"there is no folder {base_dir}; name the right one with --base-dir or LOTTO_APP_DIR, "
            "or make it",
            path=base_dir,
        )
    return ModelManager(base_dir)


def sharing_manager_of(ctx: typer.Context, given: Path | None) -> ModelManager:
    """Return the manager of the current folder, for a command that works on what a server has.

    Notes
    -----
    On a host that shares a tracking server, the folder need not be there yet.
    """
    is_shared = settings.read().tracking_uri is not None
    return manager_of(ctx, given) if is_shared else existing_manager_of(ctx, given)


@contextmanager
def calling() -> Iterator[None]:
    """Keep what a library prints out of stdout, which is for the answer alone."""
    with redirect_stdout(sys.stderr):
        yield


def usage(message: str, ctx: typer.Context, **where: Any) -> typer.BadParameter:
    """Return the error for a value that makes no sense, with exit code 2."""
    return typer.BadParameter(message, ctx=ctx, **where)


USAGE_CODES: dict[str, int] = {}
"""Exit codes of wrong usage, for the commands in which 2 means something else."""


class _Commands(TyperGroup):
    """The group of all commands, in which an error of the library is one line and exit code 1."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        command = _command_in(args)
        # without any argument, help is the error
        with _safe_usage_errors(lambda: command) if args else nullcontext():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _safe_usage_errors(lambda: ctx.invoked_subcommand):
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except (LottoMlflowError, OSError) as error:
            if getattr(error, "errno", None) == errno.EPIPE:
                raise  # who reads the output has seen enough
            shows_traceback = isinstance(ctx.obj, Common) and ctx.obj.debug
            typer.echo(traceback_of(error) if shows_traceback else _line_of(ctx, error), err=True)
            raise typer.Exit(1) from None
        except Exception as error:
            if hasattr(error, "exit_code") or isinstance(error, (typer.Abort, EOFError)):
                raise  # how commands end
            print_traceback(error)
            raise typer.Exit(1) from None


def print_traceback(error: Exception) -> None:
    """Print where an error comes from, with nothing in it that a terminal obeys."""
    typer.echo(traceback_of(error), err=True)


def _line_of(ctx: typer.Context, error: Exception) -> str:
    """Return an error on one line, with what helps as a command."""
    fix = error.fix if isinstance(error, LottoMlflowError) else None
    return f"error: {in_commands(safe_line(str(error)), fix, named_base_dir(ctx), '`')}"


def _command_in(args: list[str]) -> str | None:
    """Return the command among the arguments, before they are parsed."""
    words = iter(args)
    for word in words:
        if word == "--base-dir":
            next(words, None)
        elif not word.startswith("-"):
            return word
    return None


@contextmanager
def _safe_usage_errors(command: Callable[[], str | None]) -> Iterator[None]:
    """Make the message of an error in the arguments, which quotes them, one safe line."""
    try:
        yield
    except Exception as error:
        message = getattr(error, "message", None)
        if hasattr(error, "exit_code") and isinstance(message, str):
            vars(error)["message"] = safe_line(message)
            vars(error)["exit_code"] = USAGE_CODES.get(command() or "", error.exit_code)
        raise


app = typer.Typer(
    name="lotto-mlflow",
    cls=_Commands,
    no_args_is_help=True,
    subcommand_metavar="COMMAND [ARGS]",  # so that what ends with dots was cut
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help starts in half the time
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)


@app.callback()
def everything(ctx: typer.Context, base_dir: BaseDir = None, debug: Debug = False) -> None:
    """Look at, compare, check and fix the models of a lotto backend, on disk and in MLflow."""
    ctx.obj = Common(base_dir=base_dir, debug=debug)


def main() -> None:
    """Run the command line; the exit code is the process's."""
    for name, value in _MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # where the encoding has no Korean
    sys.stderr = SafeStream(sys.stderr)
    app(prog_name="lotto-mlflow")
