"""``env`` and ``version``: what other programs need to know."""

from __future__ import annotations

import platform
import shlex

import typer

from lotto_mlflow import settings
from lotto_mlflow.cli import links
from lotto_mlflow.cli import printing as out
from lotto_mlflow.cli.application import app
from lotto_mlflow.cli.keys import epilog
from lotto_mlflow.cli.options import BaseDir, Debug, Json, base_dir_of
from lotto_mlflow.layout import Layout

_DISTRIBUTIONS = ("lotto-mlflow", "mlflow", "scikit-learn", "joblib")


@app.command("env", epilog=epilog("env"))
def env(
    ctx: typer.Context, base_dir: BaseDir = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Print the shell commands by which plain mlflow commands find the store in force.

    Use it as: eval "$(lotto-mlflow env)"
    """
    layout, in_force = Layout.under(base_dir_of(ctx, base_dir)), settings.read()
    variables = {
        "MLFLOW_TRACKING_URI": links.store_uri(in_force, layout),
        "MLFLOW_REGISTRY_URI": in_force.registry_uri,
    }
    path = links.database_path(in_force, layout)
    if path is not None and not path.exists():
        out.note(f"there is no database {path} yet; the first save makes it")
    if as_json:
        out.print_json(variables)
        return
    for name, value in variables.items():
        if value is not None:
            typer.echo(f"export {name}={shlex.quote(value)}")


@app.command("version", epilog=epilog("version"))
def version(as_json: Json = False, base_dir: BaseDir = None, debug: Debug = False) -> None:
    """Print the versions of this package and of what it stands on."""
    from importlib import metadata

    found = {name: metadata.version(name) for name in _DISTRIBUTIONS}
    found["python"] = platform.python_version()
    if as_json:
        out.print_json(found)
    else:
        out.print_fields(found.items())
