"""A server of MLflow as a child: started, waited for, and ended with all its processes."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from lotto_mlflow.cli.output import UI_PORT
from lotto_mlflow.errors import MirrorUnavailableError
from lotto_mlflow.layout import REGISTERED_MODEL

_HOST = "127.0.0.1"
_START_SECONDS = 120.0
_END_SECONDS = 10.0
_ANSWER_SECONDS = 5.0
_POLL_SECONDS = 0.1
_TAIL_BYTES = 8_000
_CHILD = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]
import runpy
import subprocess
code = sys.orig_argv[sys.orig_argv.index("-c") + 1]
start = subprocess.Popen.__init__
def start_likewise(self, args, *others, **named):
    if isinstance(args, list) and args[:2] == [sys.executable, "-m"]:
        args = [sys.executable, "-c", code, *args[2:]]
    start(self, args, *others, **named)
subprocess.Popen.__init__ = start_likewise
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a module as ``python -m`` does, but with nothing from the current folder, and so do the
processes that it starts. Python 3.11 has PYTHONSAFEPATH for that; this goes with Python 3.10."""
_OTHER_SERVERS = ("MLFLOW_GUNICORN_OPTS", "MLFLOW_WAITRESS_OPTS")
_ERROR = re.compile(r"^[\w.]*(Error|Exception)\b|^error\b", re.IGNORECASE)


class Running:
    """A server that was started.

    Parameters
    ----------
    process : subprocess.Popen
        Its process, which began a session.
    address : str
        Its address, without a slash at the end.
    what : str
        What it is, for messages.
    log : binary file, optional
        What it says; without it, that goes to where this process's own errors go.

    Attributes
    ----------
    address : str
        Its address.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        address: str,
        what: str = "the MLflow UI",
        log: IO[bytes] | None = None,
    ) -> None:
        self._process = process
        self._what = what
        self._log = log
        self.address = address

    def wait_until_it_answers(self, seconds: float = _START_SECONDS) -> None:
        """Wait, two minutes at most by default.

        Raises
        ------
        MirrorUnavailableError
            If it ends, or gives no answer in that time; the message has its last words.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise self._gone(f"{self._what} did not start")
            with (
                suppress(OSError),
                urllib.request.urlopen(  # noqa: S310 - an address of this machine
                    f"{self.address}/health", timeout=_ANSWER_SECONDS
                ),
            ):
                return
            time.sleep(_POLL_SECONDS)
        raise self._gone(f"{self._what} gave no answer within {seconds:g} s")

    def wait(self) -> None:
        """Wait until it ends, which it does not by itself.

        Raises
        ------
        MirrorUnavailableError
            If it does.
        """
        self._process.wait()
        raise self._gone(f"{self._what} ended by itself")

    def _gone(self, what: str) -> MirrorUnavailableError:
        """Return the error, with the last line of the server's log that reports one."""
        if self._log is None:
            code = self._process.poll()
            return MirrorUnavailableError(f"{what}, with exit code {code}", error_code=None)
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - _TAIL_BYTES))
        lines = self._log.read().decode("utf-8", "replace").splitlines()
        said = [line.strip() for line in lines if line.strip()]
        errors = [line for line in said if _ERROR.search(line)]
        words = (errors or said or ["it said nothing"])[-1]
        return MirrorUnavailableError(f"{what}: {words}", error_code=None)

    def end(self) -> None:
        """End it and every process that it started; those that do not listen are killed."""
        try:
            self._signal("SIGTERM")
            self._process.wait(_END_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
        finally:
            self._signal("SIGKILL")  # its workers, where it is gone and they are not
            self._process.wait()

    def _signal(self, name: str) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, getattr(signal, name))
            else:
                self._process.kill()


@contextmanager
def running(tracking_uri: str, registry_uri: str | None) -> Iterator[Running]:
    """Run ``mlflow server`` until the block ends.

    Parameters
    ----------
    tracking_uri, registry_uri : str
        The stores that it shows.

    Yields
    ------
    Running
        The server, which answers.
    """
    port = _free_port()
    command = [*child_command("mlflow"), "server", "--host", _HOST, "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603 - fixed arguments, no shell
            [*command, "--workers", "1"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(tracking_uri, registry_uri),
            start_new_session=True,  # Ctrl-C reaches this process, which then ends the group
        )
        server = Running(process, f"http://{_HOST}:{port}", log=log)
        try:
            server.wait_until_it_answers()
            yield server
        finally:
            server.end()


def child_command(module: str, before: str = "") -> list[str]:
    """Return the command that runs a module, and imports nothing from the current folder.

    Parameters
    ----------
    module : str
        What is run.
    before : str, optional
        Code to run before it.
    """
    return [sys.executable, "-c", f"{before}{_CHILD}", module]


def environment_without_current_folder() -> dict[str, str]:
    """Return this process's environment, for programs that import nothing from the current folder.

    Notes
    -----
    They start ``uvicorn`` by its name, which need not be on the PATH. Uvicorn puts a folder first
    on the path of modules, the current one by default; here it is one that is there anyway. The
    current folder stays what it is, because paths may be relative to it.

    References
    ----------
    Uvicorn 0.30, ``--app-dir``. Python 3.11, PYTHONSAFEPATH.
    """
    found = dict(os.environ)
    found["PYTHONSAFEPATH"] = "1"
    folders = found.pop("PYTHONPATH", "").split(os.pathsep)
    if named := [folder for folder in folders if folder not in ("", os.curdir)]:
        found["PYTHONPATH"] = os.pathsep.join(named)
    found["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), found.get("PATH", "")])
    found["UVICORN_APP_DIR"] = sysconfig.get_path("stdlib")
    return found


def _environment(tracking_uri: str, registry_uri: str | None) -> dict[str, str]:
    """Return the environment of a tracking server.

    Notes
    -----
    URIs go there and not among the arguments, which every user of the machine can read:
    they may contain a password.

    References
    ----------
    MLflow 3.17, ``mlflow server --help``: the variables of its options; the list of environment
    variables: MLFLOW_SERVER_ENABLE_JOB_EXECUTION.
    """
    found = environment_without_current_folder()
    for name in _OTHER_SERVERS:
        found.pop(name, None)
    app_dir = f"--app-dir {shlex.quote(sysconfig.get_path('stdlib'))}"
    found["MLFLOW_UVICORN_OPTS"] = f"{found.get('MLFLOW_UVICORN_OPTS', '')} {app_dir}".strip()
    found["MLFLOW_BACKEND_STORE_URI"] = tracking_uri
    found.pop("MLFLOW_REGISTRY_STORE_URI", None)
    if registry_uri is not None:
        found["MLFLOW_REGISTRY_STORE_URI"] = registry_uri
    found.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    return found


def _free_port() -> int:
    for wanted in (UI_PORT, 0):
        with suppress(OSError), socket.socket() as probe:
            if os.name != "nt":  # where it would take a port that is in use
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((_HOST, wanted))
            return int(probe.getsockname()[1])
    raise MirrorUnavailableError(f"there is no free port at {_HOST}", error_code=None)


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """End the block, as something that was asked for, on Ctrl-C and where the process is ended.

    Notes
    -----
    A library that is interrupted while it is imported may make an error of its own of that.
    """
    asked = []

    def interrupt(*_: Any) -> None:
        asked.append(True)
        raise KeyboardInterrupt

    # Ctrl-C too: a shell starts what runs in the background without Python's own handler
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    before = {n: signal.signal(n, interrupt) for n in numbers if n is not None}
    try:
        yield
    except KeyboardInterrupt:
        pass
    except Exception:
        if not asked:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def experiment_id_at(address: str) -> str | None:
    """Return the id of the experiment, ``None`` where the server does not say.

    Raises
    ------
    MirrorUnavailableError
        If there is no answer at all.

    References
    ----------
    MLflow 3.17, REST API: get experiment by name.
    """
    url = f"{address}/api/2.0/mlflow/experiments/get-by-name?experiment_name={REGISTERED_MODEL}"
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310
            return str(json.load(answer)["experiment"]["experiment_id"])
    except (urllib.error.HTTPError, ValueError, KeyError, TypeError):
        return None
    except OSError as cause:
        reason = getattr(cause, "reason", cause)
        raise MirrorUnavailableError(
            f"{address} does not answer: {reason}; start the server, or correct "
            "MLFLOW_TRACKING_URI",
            error_code=None,
        ) from cause


def open_in_browser(link: str) -> None:
    """Open a link, where there is a screen or the user named a browser.

    Notes
    -----
    Without a screen Python would open a browser of the terminal, in the place of the command.
    """
    import webbrowser

    has_screen = sys.platform in ("win32", "darwin") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    if has_screen:
        threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()
