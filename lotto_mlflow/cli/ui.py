"""``ui``, ``env``, ``version``: the MLflow UI, and what other programs need to know."""

from __future__ import annotations

import platform
from typing import Annotated

import typer

from lotto_mlflow import settings
from lotto_mlflow.cli import output, terminal
from lotto_mlflow.cli.application import BaseDir, Debug, Json, app, base_dir_of
from lotto_mlflow.cli.output import epilog
from lotto_mlflow.distributions import version_of
from lotto_mlflow.errors import Fix, StoreError
from lotto_mlflow.layout import Layout
from lotto_mlflow.text import masked, shell_command

_DISTRIBUTIONS = ("lotto-mlflow", "mlflow", "scikit-learn", "joblib")


@app.command(
    "ui",
    short_help="Start the MLflow UI, and open the link to the runs.",
    epilog=epilog("ui"),
)
def ui(
    ctx: typer.Context,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the link in a browser.")
    ] = True,
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Start the MLflow UI at 127.0.0.1, print and open the link to the runs; Ctrl-C ends it.

    The port is 5000 where that is free. Where MLFLOW_TRACKING_URI is a server, its own UI is
    opened, and nothing is started.
    """
    from lotto_mlflow.cli import server  # imported lazily

    layout, current = Layout.under(base_dir_of(ctx, base_dir)), settings.read()
    if output.is_server(current.tracking_uri):
        address = output.ui_address(current)
        _print_link(address, str(current.tracking_uri), browser=browser, as_json=as_json)
        return
    uri = output.store_uri(current, layout)
    path = output.database_path(current, layout)
    if path is not None and not path.exists():
        raise StoreError(
            f"there is no database {path} yet", fix=Fix("sync", before="save a model, or call")
        )
    with server.ending_on_signals(), server.running(uri, current.registry_uri) as running:
        _print_link(running.address, uri, browser=browser, as_json=as_json)
        if not as_json:
            terminal.note("press Ctrl-C to end it")
        running.wait()


def _print_link(address: str, tracking_uri: str, *, browser: bool, as_json: bool) -> None:
    """Print the link, and open it where there is a browser to open it in."""
    from lotto_mlflow.cli import server

    link = output.runs_page(address, server.experiment_id_at(address))
    if as_json:
        output.print_json({"link": link, "tracking_uri": masked(tracking_uri)})
    else:
        terminal.line(link)
    if browser:
        server.open_in_browser(link)


@app.command(
    "env",
    short_help="Print the settings by which mlflow finds the store.",
    epilog=epilog("env"),
)
def env(
    ctx: typer.Context, base_dir: BaseDir = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Print the shell commands by which plain mlflow commands find the current store.

    Use it as: eval "$(lotto-mlflow env)"
    """
    layout, current = Layout.under(base_dir_of(ctx, base_dir)), settings.read()
    variables = {
        "MLFLOW_TRACKING_URI": output.store_uri(current, layout),
        "MLFLOW_REGISTRY_URI": current.registry_uri,
    }
    path = output.database_path(current, layout)
    if path is not None and not path.exists():
        terminal.note(f"there is no database {path} yet; the first save makes it")
    if as_json:
        output.print_json(variables, shows_secrets=True)
        return
    for name, value in variables.items():
        if value is not None:
            terminal.command(shell_command(["export", f"{name}={value}"]))


@app.command(
    "version",
    short_help="Print the versions of this package and its dependencies.",
    epilog=epilog("version"),
)
def version(as_json: Json = False, base_dir: BaseDir = None, debug: Debug = False) -> None:
    """Print the versions of this package and of what it stands on."""
    found = {name: version_of(name, imports=True) for name in _DISTRIBUTIONS}
    found["python"] = platform.python_version()
    if as_json:
        output.print_json(found)
    else:
        output.print_fields((name, number or output.NONE) for name, number in found.items())
