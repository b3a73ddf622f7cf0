"""The command line on a real terminal: colours, bars, Ctrl-C; and the server that ``ui`` starts."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lotto_mlflow import ModelManager

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")

COMMAND = [sys.executable, "-m", "lotto_mlflow"]
ON_TERMINAL = [
    sys.executable,
    "-c",
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))",
]
"""Runs a command on a terminal of its own; what it reads is typed there."""
CTRL_C = b"\x03"
SECONDS = 120.0


class Session:
    """A program, what it has printed so far, and its keyboard."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._read = bytearray()
        self._reader = threading.Thread(target=self._read_all, daemon=True)
        self._reader.start()

    def _read_all(self) -> None:
        assert self.process.stdout is not None
        while chunk := os.read(self.process.stdout.fileno(), 4096):
            self._read += chunk

    @property
    def text(self) -> str:
        return self._read.decode("utf-8", "replace")

    def until(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + SECONDS
        while (found := re.search(pattern, self.text)) is None:
            assert time.monotonic() < deadline, self.text
            assert self.process.poll() is None, self.text
            time.sleep(0.05)
        return found

    def type(self, keys: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(keys)
        self.process.stdin.flush()

    def end(self) -> int:
        code = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        return code


@contextmanager
def started(*arguments: str | Path, terminal: bool = True, **environment: str) -> Iterator[Session]:
    command = [*(ON_TERMINAL if terminal else []), *COMMAND, *map(str, arguments)]
    surroundings = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "DISPLAY")}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=surroundings | {"TERM": "xterm-256color", "COLUMNS": "120"} | environment,
    )
    session = Session(process)
    try:
        yield session
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait(SECONDS)
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


def on_terminal(*arguments: str | Path, **environment: str) -> str:
    with started(*arguments, **environment) as session:
        assert session.end() == 0, session.text
        return session.text


def listeners(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def processes_with(text: str) -> list[str]:
    """Return the command lines and environments, of living processes, that have a text."""
    if not Path("/proc").is_dir():
        return []
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            everything = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            if text.encode() in everything and int(folder.name) != os.getpid():
                found.append(everything.decode("utf-8", "replace"))
    return found


@pytest.fixture
def saved_dir(base_dir: Path, manager: ModelManager, forest: Any) -> Path:
    manager.save_model(forest, "lotto_model_a", {"loss": 0.5})
    assert manager.flush(60)
    return base_dir


def test_bars_with_size_and_rate_are_drawn_on_a_terminal(base_dir: Path, forest: Any) -> None:
    manager = ModelManager(base_dir, mirror="off")
    for number in range(3):
        manager.save_model(forest, f"lotto_model_{number}", {"loss": 0.5})
    at = ("--base-dir", base_dir)
    for arguments, verb, total in (
        (("sync",), "sending", 3),
        (("verify",), "verifying", 6),
        (("restore", "1", "--source", "registry"), "restoring", 1),
    ):
        drawn = on_terminal(*arguments, *at)
        assert re.search(rf"{verb} .*{total}/{total}.* kB .*B/s", drawn), drawn
        # the size of the model that is on its way is told before it has arrived
        assert re.search(rf"{verb} .*m0/{total}.* kB .*lotto_model_", drawn), drawn
    piped = subprocess.run([*COMMAND, "sync", *at], capture_output=True, text=True, check=True)
    assert piped.stdout == "sent 0 saves\n"
    assert "sending" not in piped.stderr


def test_the_answer_can_be_piped_while_a_bar_is_on_the_terminal(saved_dir: Path) -> None:
    script = f'"$0" -m lotto_mlflow verify --json --base-dir {saved_dir} | cat > answer.json'
    command = [*ON_TERMINAL, "sh", "-c", script, sys.executable]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert b"verifying" in done.stdout
    assert json.loads(Path("answer.json").read_text()) == []


def test_colours_are_for_terminals_and_not_where_no_color_is_set(saved_dir: Path) -> None:
    at = ("--base-dir", saved_dir)
    assert "\x1b[" in on_terminal("list", *at)
    assert "\x1b[" not in on_terminal("list", *at, NO_COLOR="1")
    piped = subprocess.run([*COMMAND, "list", *at], capture_output=True, text=True, check=True)
    assert "\x1b" not in piped.stdout
    for columns in ("40", "80"):
        narrow = on_terminal("list", *at, NO_COLOR="1", COLUMNS=columns)
        assert "…" not in narrow
        assert (len(narrow.splitlines()) == 2) == (columns == "80")


def test_ctrl_c_is_exit_code_130_without_a_traceback(base_dir: Path) -> None:
    lock_holder = "from lotto_mlflow.files import *; import pathlib, sys, time\n"
    lock_holder += "with locked(lock_at(pathlib.Path(sys.argv[1]))):\n"
    lock_holder += "    print('held', flush=True); time.sleep(600)"
    (base_dir / "trained").mkdir()
    push_lock = base_dir / "mlflow" / "push.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", lock_holder, str(push_lock)], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with started("sync", "--base-dir", base_dir) as session:  # it waits for the lock
            session.until("sending")
            time.sleep(0.5)
            session.type(CTRL_C)
            assert session.end() == 130, session.text
            assert "Traceback" not in session.text
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.parametrize("way", ["ctrl-c", "SIGTERM"])
def test_ui_opens_the_runs_and_leaves_no_process_behind(
    saved_dir: Path, tmp_path: Path, way: str, forest: Any
) -> None:
    marker = f"{tmp_path.name}-{os.getpid()}-{way}"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    arguments = ("ui", "--base-dir", saved_dir)
    environment = {"LOTTO_TEST_MARKER": marker, "BROWSER": f"{browser} %s"}
    with started(*arguments, terminal=way == "ctrl-c", **environment) as session:
        link = session.until(r"http://127\.0\.0\.1:(\d+)/#/experiments/1/runs\?workflowType=\S+\s")
        session.until("press Ctrl-C")
        assert link[0].strip().endswith("workflowType=machine_learning")
        address = link[0].partition("/#/")[0]
        with urllib.request.urlopen(f"{address}/health", timeout=30) as health:
            assert health.status == 200
        if way == "ctrl-c":
            _a_server_is_told_and_opened(address, saved_dir, tmp_path, forest)
            session.type(CTRL_C)
        else:
            session.process.terminate()
        assert session.end() == 0, session.text
        assert "Traceback" not in session.text
    assert (tmp_path / "opened").read_text() == link[0].strip()
    assert not listeners(int(link[1]))
    assert processes_with(marker) == []


def _a_server_is_told_and_opened(
    address: str, saved_dir: Path, tmp_path: Path, forest: Any
) -> None:
    """With a tracking server, stdout has the JSON alone, and ``ui`` starts nothing."""
    base_dir = tmp_path / "elsewhere"
    ModelManager(base_dir, mirror="off").save_model(forest, "sent", {"loss": 0.5})
    # the server keeps artifacts in a folder of this machine, which has to be named for writing
    roots = {"LOTTO_ARTIFACT_ROOTS": str(saved_dir / "mlflow" / "artifacts")}
    server = os.environ | {"MLFLOW_TRACKING_URI": address} | roots

    def run(*arguments: str) -> str:
        command = [*COMMAND, *arguments, "--base-dir", str(base_dir)]
        done = subprocess.run(command, env=server, capture_output=True, text=True, check=True)
        return done.stdout

    assert json.loads(run("sync", "--json"))["sent"] == ["sent"]
    (found,) = json.loads(run("list", "--json"))
    assert (found["mirrored"], found["aliases"]) == (True, [])
    assert run("env") == f"export MLFLOW_TRACKING_URI={address}\n"
    link = f"{address}/#/experiments/1/runs?workflowType=machine_learning"
    assert run("ui", "--no-browser") == f"{link}\n"
    told = json.loads(run("ui", "--no-browser", "--json"))
    assert told == {"link": link, "tracking_uri": address}
    shown = json.loads(run("show", "sent", "--json"))
    assert shown["link"] == f"{address}/#/models/sent/versions/1"


def test_ui_says_why_the_server_did_not_start(tmp_path: Path) -> None:
    (tmp_path / "ml" / "mlflow").mkdir(parents=True)
    (tmp_path / "ml" / "mlflow" / "mlflow.db").write_bytes(b"no database" * 100)
    done = subprocess.run(
        [*COMMAND, "ui", "--no-browser", "--base-dir", str(tmp_path / "ml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: the MLflow UI did not start: [^\n]*not a database\n", done.stderr)


def test_a_bar_shows_the_bytes_of_a_download(
    base_dir: Path, server_uri: str, tmp_path: Path
) -> None:
    manager = ModelManager(base_dir, tracking_uri=server_uri)
    manager.save_model({"bytes": os.urandom(3_000_000)}, "lotto_model_a", {})
    assert manager.flush(SECONDS)
    at = {"MLFLOW_TRACKING_URI": server_uri}
    for number, command in enumerate(
        (("latest", "--source", "registry"), ("restore", "1", "--source", "registry"))
    ):
        (tmp_path / str(number)).mkdir()
        drawn = on_terminal(*command, "--base-dir", tmp_path / str(number), **at)
        assert re.search(r"3\.0 MB of 3\.0 MB.* MB/s", drawn), drawn
