"""``serve``: MLflow's own serving, on a verified copy of a version."""

from __future__ import annotations

import math
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lotto_mlflow.cli import output, terminal
from lotto_mlflow.cli.application import BaseDir, Debug, Json, app, calling, sharing_manager_of
from lotto_mlflow.cli.output import epilog
from lotto_mlflow.errors import LoadError, SettingsError

if TYPE_CHECKING:
    from lotto_mlflow.cli.server import Running
    from lotto_mlflow.operations.gate import VerifiedVersion

_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - asked for, not bound
_END_WITH_PARENT = """
import os
import signal
import threading
def end_with_parent():
    try:
        while os.read(0, 1):
            pass
    finally:
        if hasattr(os, "killpg"):
            os.killpg(os.getpgid(0), signal.SIGTERM)
        os._exit(1)
threading.Thread(target=end_with_parent, daemon=True).start()
"""
"""Ends the server where the process that started it is gone, without having been able to."""

Uri = Annotated[
    str,
    typer.Argument(metavar="URI", help="models:/NAME/1, models:/NAME/latest or models:/NAME@ALIAS"),
]
Host = Annotated[
    str,
    typer.Option("--host", metavar="HOST", envvar="MLFLOW_HOST", help="The address to answer at."),
]
Port = Annotated[
    int,
    typer.Option(
        "--port", metavar="PORT", envvar="MLFLOW_PORT", min=1, max=65535, help="The port."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", min=1, help="Processes that answer, instead of MLflow's number."
    ),
]
Timeout = Annotated[
    int | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        min=1,
        help="What a request may take, instead of MLflow's time.",
    ),
]


@app.command(
    "serve",
    short_help="Verify a version, and have MLflow serve it.",
    epilog=epilog("serve"),
)
def serve(
    ctx: typer.Context,
    uri: Uri,
    host: Host = "127.0.0.1",
    port: Port = 5000,
    workers: Workers = None,
    timeout: Timeout = None,
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Verify a version by its signature, and have MLflow serve the verified copy; Ctrl-C ends it.

    What is served is what was verified: a copy in a private folder, removed at the end. It is
    what mlflow models serve --env-manager local does, with the same options; nothing is imported
    from the current folder. Needs LOTTO_TRUSTED_KEYS.
    """
    from lotto_mlflow.cli import server as servers  # imported lazily

    manager = sharing_manager_of(ctx, base_dir)
    options = _options(host=host, port=port, workers=workers, timeout=timeout)
    with servers.ending_on_signals(), ExitStack() as stack:
        with calling():
            verified = stack.enter_context(manager.verified_copy(uri))
        if not verified.predicts or verified.model_dir is None:
            raise LoadError(f"{verified.reference} has no predict method, and cannot be served")
        _check_is_free(host, port)
        server = stack.enter_context(_serving(verified.model_dir, options, _address(host, port)))
        _print(server, verified, as_json=as_json)
        server.wait()


def _print(server: Running, verified: VerifiedVersion, *, as_json: bool) -> None:
    statement = verified.statement
    if as_json:
        said = {"link": server.address, "model_uri": str(verified.reference)}
        facts = {name: getattr(statement, name) for name in ("name", "save_id", "sha256")}
        output.print_json(said | facts)
    else:
        terminal.line(f"{server.address} serves {verified.reference}, {statement.name}")
        terminal.note("press Ctrl-C to end it")


def _check_is_free(host: str, port: int) -> None:
    """See that nothing else listens at an address, whose answers would be taken for MLflow's."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(found[0], found[1]) as probe:
            if os.name != "nt":  # where it would take a port that is in use
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[4])
    except OSError as cause:
        raise SettingsError(
            f"nothing can be served at {host}, port {port}: {cause}; give another --port or --host",
            value=port,
        ) from cause


def _options(**given: str | int | None) -> list[str]:
    """Return the options of MLflow's command, those that were given."""
    named = [(name, value) for name, value in given.items() if value is not None]
    return [word for name, value in named for word in (f"--{name}", str(value))]


def _address(host: str, port: int) -> str:
    """Return where a server on this machine is asked, which answers at an address."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{_EVERY_ADDRESS.get(host, shown)}:{port}"


@contextmanager
def _serving(model_dir: Path, options: list[str], address: str) -> Iterator[Running]:
    """Run ``mlflow models serve`` until the block ends; what it says is not for stdout."""
    from lotto_mlflow.cli import server as servers

    command = [*servers.child_command("mlflow", _END_WITH_PARENT), "models", "serve"]
    process = subprocess.Popen(  # noqa: S603 - a fixed program, no shell
        [*command, "--model-uri", str(model_dir), "--env-manager", "local", *options],
        stdin=subprocess.PIPE,
        stdout=2,
        env=servers.environment_without_current_folder(),
        start_new_session=True,  # Ctrl-C reaches this process, which then ends the group
    )
    server = servers.Running(process, address, "MLflow's serving")
    try:
        server.wait_until_it_answers(math.inf)
        yield server
    finally:
        server.end()
        if process.stdin is not None:
            process.stdin.close()
