"""The library's advice, in the words of the command line."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

PROGRAM = "lotto-mlflow"
_COMMANDS = {
    "records": "list",
    "get": "show",
    **{name: name for name in ("latest", "sync", "verify", "restore", "relocate")},
}
_CALL = re.compile(rf"(?:ModelManager\.)?\b({'|'.join(_COMMANDS)})\(([^()]*)\)")
_OPTION = re.compile(r"\b(source|backup)='([^']*)'")


def as_commands(text: str, quote: str = "", base_dir: Path | None = None) -> str:
    """Return a text with the calls that it advises written as commands.

    Parameters
    ----------
    text : str
        Such as ``ModelManager.restore('a', source='registry')``.
    quote : str
        What stands before and after a command in running text.
    base_dir : pathlib.Path, optional
        The folder that was named, for which the commands must name it again.
    """
    folder = [] if base_dir is None else ["--base-dir", shlex.quote(str(base_dir))]

    def replaced(match: re.Match[str]) -> str:
        command = _command(match, folder)
        return f"{quote}{command}{quote}" if command else match[0]

    return _OPTION.sub(r"--\1 \2", _CALL.sub(replaced, text))


def _command(match: re.Match[str], folder: list[str]) -> str | None:
    name, arguments = match.groups()
    try:
        call = ast.parse(f"call({arguments})", mode="eval").body
    except SyntaxError:
        return None
    if not isinstance(call, ast.Call):
        return None
    words = [PROGRAM, _COMMANDS[name], *map(_word, call.args)]
    for keyword in call.keywords:
        words.append(f"--{str(keyword.arg).replace('_', '-')}")
        if _word(keyword.value) != "True":
            words.append(_word(keyword.value))
    return " ".join([*words, *folder])


def _word(node: ast.expr) -> str:
    """Return a value as a shell reads it; a name stands for what the reader puts there."""
    if isinstance(node, ast.Constant):
        return shlex.quote(str(node.value))
    return ast.unparse(node).upper()
