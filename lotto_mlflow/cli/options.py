"""What every command takes, and the manager that it calls."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from lotto_mlflow import settings
from lotto_mlflow.errors import StoreError
from lotto_mlflow.manager import ModelManager


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
        help="Folder that holds trained/, metadata/ and backups/; models/ml in LOTTO_APP_DIR, "
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
    """Return the folder in force: the command's option, the one before it, the environment's."""
    return (given or named_base_dir(ctx) or default_base_dir()).absolute()


def manager_of(ctx: typer.Context, given: Path | None) -> ModelManager:
    """Return the manager of the folder in force."""
    return ModelManager(base_dir_of(ctx, given))


def existing_manager_of(ctx: typer.Context, given: Path | None) -> ModelManager:
    """Return the manager of the folder in force, for a command that works on what is there.

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


@contextmanager
def calling() -> Iterator[None]:
    """Keep what a library prints out of stdout, which is for the answer alone."""
    with redirect_stdout(sys.stderr):
        yield


def usage(message: str, ctx: typer.Context, **where: Any) -> typer.BadParameter:
    """Return the error for a value that makes no sense, with exit code 2."""
    return typer.BadParameter(message, ctx=ctx, **where)
