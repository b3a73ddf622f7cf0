"""Real users: a process of root's that becomes another user for each piece of work.

The interpreter's own files may be root's alone. Hence one process imports, as root, whatever the
work will need, and forks: the child gives root up for good, and works with what is in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 120
ROOT_DIR = Path(__file__).parents[1]


@dataclass(frozen=True)
class User:
    """Who works, with which files.

    Attributes
    ----------
    uid, gid : int
        The user, and the group that is first.
    groups : tuple of int
        The other groups.
    umask : int
        What new files are not to allow.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    umask: int = 0o022


class FailedError(Exception):
    """An error in the work of another user.

    Attributes
    ----------
    kind, message : str
        Its class and its text.
    where : str
        Its traceback.
    """

    def __init__(self, kind: str, message: str, where: str) -> None:
        super().__init__(f"{kind}: {message}\n{where}")
        self.kind = kind
        self.message = message
        self.where = where


class Users:
    """The process that forks.

    Parameters
    ----------
    scratch_dir : pathlib.Path
        A folder of root's, with an embedded store, in which everything is done once.
    """

    def __init__(self, scratch_dir: Path) -> None:
        own_dir = scratch_dir.with_name("tmp")
        own_dir.mkdir()
        own_dir.chmod(0o1777)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("LOTTO_", "HOME"))}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(scratch_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env=environment
            | {"HOME": "/nonexistent", "PYTHONPATH": str(ROOT_DIR), "TMPDIR": str(own_dir)},
        )

    def work(
        self, user: User, source: str, /, *, environment: dict[str, str] | None = None, **names: Any
    ) -> Any:
        """Execute a source as a user; return what it calls ``answer``.

        Raises
        ------
        FailedError
            If it raises.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {
            "user": vars(user),
            "source": source,
            "names": {name: _plain(value) for name, value in names.items()},
            "environment": environment or {},
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise FailedError(*answer["error"])
        return answer["answer"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(SECONDS) == 0
        if self._process.stdout is not None:
            self._process.stdout.close()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _warm_up(scratch_dir: str) -> None:
    """Do everything once, so that nothing is left to import."""
    import encodings.idna  # noqa: F401 - what a socket looks for by name
    import getpass
    import pwd

    from lotto_mlflow import ModelManager, push
    from lotto_mlflow.cli import main

    push.WAIT_SECONDS = 60.0  # a busy machine may be slow
    pwd.getpwuid(0)
    getpass.getuser()
    manager = ModelManager(scratch_dir)
    for number in range(2):
        manager.save_model({"n": number}, "lotto_model_x", {"n": number}, artifacts={"a": "b"})
    assert manager.flush(120)
    manager.restore("lotto_model_x")
    manager.restore("lotto_model_x", source="registry")
    manager.sync(resend=True)
    manager.verify()
    manager.records()
    manager.latest(source="registry", download=True)
    manager.load_model("models:/lotto_model/latest")
    (scratch_path := Path(scratch_dir, "trained", "lotto_model_x.pkl")).unlink()
    manager.load_model("models:/lotto_model/latest")
    manager.verify()
    _refused(manager, scratch_path)
    commands = ("list", "show lotto_model_x", "latest", "latest --source registry", "verify",
                "check --deep --alias champion")  # fmt: skip
    for command in commands:
        sys.argv = ["lotto-mlflow", *command.split(), "--base-dir", scratch_dir]
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
            main()


def _refused(manager: Any, path: Path) -> None:
    """Have the errors made, too."""
    from lotto_mlflow import advice

    advice.of_rights([Path("/proc/1/mem"), path])
    with contextlib.suppress(Exception):
        manager.load_model(path)
    for error in (OSError(13, "no", str(path)), OSError(28, "no"), ValueError()):
        advice.of_error(error, path)


def _become(user: dict[str, Any]) -> None:
    os.setgroups(user["groups"])
    os.setgid(user["gid"])
    os.setuid(user["uid"])
    os.umask(user["umask"])


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    names: dict[str, Any] = dict(request["names"])
    try:
        os.environ.update(request["environment"])
        _become(request["user"])
        exec(request["source"], names)
        return {"answer": names.get("answer")}
    except BaseException as cause:  # noqa: BLE001 - handed on
        return {"error": [type(cause).__name__, str(cause), traceback.format_exc()]}


def _in_child(act: Callable[[], dict[str, Any]]) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            with os.fdopen(writing, "w") as pipe:
                pipe.write(json.dumps(act()))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer or json.dumps({"error": ["Died", "the child died", ""]})


def _serve(scratch_dir: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever is printed is no answer
    _warm_up(scratch_dir)
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(_in_child(lambda request=request: _answer(request)) + "\n")  # type: ignore[misc]
        answers.flush()


if __name__ == "__main__":
    _serve(sys.argv[1])
