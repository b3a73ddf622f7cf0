"""``ui``: the MLflow UI on the right store."""

from __future__ import annotations

from typing import Annotated

import typer

from lotto_mlflow import settings
from lotto_mlflow.cli import links
from lotto_mlflow.cli import printing as out
from lotto_mlflow.cli.application import app
from lotto_mlflow.cli.keys import epilog
from lotto_mlflow.cli.options import (
    BaseDir,
    Debug,
    Json,
    base_dir_of,
)
from lotto_mlflow.errors import StoreError
from lotto_mlflow.layout import Layout
from lotto_mlflow.text import masked


@app.command("ui", epilog=epilog("ui"))
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
    from lotto_mlflow.cli import server  # here, because no other command needs its libraries

    layout, in_force = Layout.under(base_dir_of(ctx, base_dir)), settings.read()
    if links.is_server(in_force.tracking_uri):
        address = links.ui_address(in_force)
        _tell(address, str(in_force.tracking_uri), browser=browser, as_json=as_json)
        return
    uri = links.store_uri(in_force, layout)
    path = links.database_path(in_force, layout)
    if path is not None and not path.exists():
        raise StoreError(f"there is no database {path} yet; save a model, or call sync()")
    with server.ending_on_signals(), server.running(uri, in_force.registry_uri) as running:
        _tell(running.address, uri, browser=browser, as_json=as_json)
        if not as_json:
            out.note("press Ctrl-C to end it")
        running.wait()


def _tell(address: str, tracking_uri: str, *, browser: bool, as_json: bool) -> None:
    """Print the link, and open it where there is a browser to open it in."""
    from lotto_mlflow.cli import server

    link = links.runs_page(address, server.experiment_id_at(address))
    if as_json:
        out.print_json({"link": link, "tracking_uri": masked(tracking_uri)})
    else:
        typer.echo(link)
    if browser:
        server.open_in_browser(link)
