"""What commands print: JSON for programs; tables, commands and links for people."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import typer

from lotto_mlflow import metadata, settings
from lotto_mlflow.cli import terminal
from lotto_mlflow.errors import POSITIONAL, Fix
from lotto_mlflow.layout import Layout
from lotto_mlflow.records import (
    AliasMove,
    Finding,
    Health,
    MigrateReport,
    ModelAccuracy,
    ModelRecord,
    Prediction,
    PruneReport,
    SignReport,
    SyncReport,
)
from lotto_mlflow.settings import Settings, Target
from lotto_mlflow.text import (
    HIDDEN,
    masked,
    safe_line,
    shell_command,
    size_as_text,
    without_secrets,
)

NONE = "-"
UI_PORT = 5000
"""MLflow's usual port: ``ui`` uses it where it is free, so that links stay true."""
PROGRAM = "lotto-mlflow"
_COMMANDS = {"records": "list", "get": "show", "import_results": "import-results"}
"""Commands that do not have the name of their method."""
_ALWAYS = ("download",)
"""Arguments of methods that commands always give."""
RECORD = (*(field.name for field in fields(ModelRecord)), "mirrored")
FINDING = (*(field.name for field in fields(Finding)), "mend")
PREDICTION = tuple(field.name for field in fields(Prediction))
MOVE = tuple(field.name.rstrip("_") for field in fields(AliasMove))
PRUNED = tuple(field.name for field in fields(PruneReport))
KEYS: dict[str, tuple[str, ...]] = {
    "list": (*RECORD, "newest"),
    "show": (*RECORD, "metadata_path", "tracking_uri", "model_uri", "link"),
    "latest": RECORD,
    "compare": ("models", "params", "metrics"),
    "verify": FINDING,
    "check": tuple(field.name for field in fields(Health)),
    "sync": tuple(field.name for field in fields(SyncReport)),
    "migrate": tuple(field.name for field in fields(MigrateReport)),
    "restore": RECORD,
    "predictions": PREDICTION,
    "record-result": PREDICTION,
    "import-results": ("recorded",),
    "promote": MOVE,
    "rollback": MOVE,
    "history": MOVE,
    "prune": PRUNED,
    "delete": PRUNED,
    "relocate": ("rewritten",),
    "sign": tuple(field.name for field in fields(SignReport)),
    "trust": RECORD,
    "keys": ("private_key", "public_key", "key"),
    "serve": ("link", "model_uri", "name", "save_id", "sha256"),
    "accuracy": tuple(field.name for field in fields(ModelAccuracy)),
    "ui": ("link", "tracking_uri"),
    "env": ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"),
    "version": ("lotto-mlflow", "mlflow", "scikit-learn", "joblib", "python"),
}
"""What ``--json`` prints, by command: these keys stay, and new ones may come."""
ROW = ("name", "values", "differs")
"""Of the parameters and the metrics that ``compare`` prints."""
_WIDEST_NAME = 40
"""Columns up to which a name is not folded while another cell can be."""
_NOT_SHOWN = re.compile(r"[^\n -~]+")
LISTS = frozenset(
    {"accuracy", "history", "list", "predictions", "record-result", "trust", "verify"}
)
"""Commands that print a list of objects with these keys, not one object."""


def epilog(command: str) -> str:
    """Return what the help of a command says of its JSON."""
    kind = "a list of objects" if command in LISTS else "an object"
    return f"--json prints {kind} with the keys {', '.join(KEYS[command])}."


def print_json(value: Any, *, shows_secrets: bool = False) -> None:
    """Print a value as JSON: UTF-8, indented by 2, not a number as null.

    Parameters
    ----------
    value : object
        The value. Texts are data and stay as they are, but secrets are masked.
    shows_secrets : bool
        Whether they are not, because they are what was asked for.

    Notes
    -----
    JSON has an escape for every character that a terminal would obey; they are written so.
    """
    plain = metadata.strict(_plain(value))
    text = json.dumps(plain if shows_secrets else _masked(plain), ensure_ascii=False, indent=2)
    typer.echo(_NOT_SHOWN.sub(lambda found: _in_json(found[0]), text))


def _in_json(text: str) -> str:
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def values_of(record: ModelRecord, **more: Any) -> dict[str, Any]:
    """Return a record as JSON has it: its attributes, and whether MLflow has it."""
    return vars(record) | {"mirrored": record.version is not None} | more


def values_of_finding(finding: Finding, base_dir: Path | None) -> dict[str, Any]:
    """Return a finding as JSON has it: its attributes, and the fix as a command."""
    fix = None if finding.fix is None else vars(finding.fix)
    command = finding.repair if finding.fix is None else command_of(finding.fix, base_dir)
    return vars(finding) | {"fix": fix, "mend": command}


def values_of_prune(report: PruneReport) -> dict[str, Any]:
    """Return the report of a prune as JSON has it."""
    saves = {"pruned": list(map(vars, report.pruned)), "kept": list(map(vars, report.kept))}
    return vars(report) | saves


def values_of_move(move: AliasMove) -> dict[str, Any]:
    """Return a move of an alias as JSON has it."""
    holders = {key: value and vars(value) for key, value in (("from", move.from_), ("to", move.to))}
    return {key.rstrip("_"): value for key, value in vars(move).items()} | holders


def values_of_health(health: Health, base_dir: Path | None) -> dict[str, Any]:
    """Return the state of health as JSON has it."""
    findings = [values_of_finding(one, base_dir) for one in health.findings]
    return vars(health) | {"findings": findings}


def print_fix(fix: Fix | None, otherwise: str, base_dir: Path | None) -> None:
    """Print the command of a fix alone on its line, to be pasted, or what to do without one."""
    if fix is not None and fix.before:
        terminal.line(f"    {fix.before}")
    if fix is None:
        terminal.line(f"    fix: {otherwise}")
    else:
        terminal.command(command_of(fix, base_dir), before="    fix: ")


def command_of(fix: Fix, base_dir: Path | None) -> str:
    """Return the command that does what a fix calls for, quoted for a shell.

    Parameters
    ----------
    fix : Fix
        A method and its arguments, or a command of the system.
    base_dir : pathlib.Path or None
        The folder that was named, which the command must name again.
    """
    if fix.verb == "shell":
        return shell_command(str(word) for word in fix.arguments["command"])
    words, positional, options = [PROGRAM, _COMMANDS.get(fix.verb, fix.verb)], [], []
    for name, value in fix.arguments.items():
        if name in POSITIONAL:
            positional.append(str(value))
        elif name not in _ALWAYS:
            options.append(f"--{name.replace('_', '-')}")
            options += [] if value is True else [str(value)]
    options += [] if base_dir is None else ["--base-dir", str(base_dir)]
    if any(word.startswith("-") for word in positional):
        return shell_command([*words, *options, "--", *positional])
    return shell_command([*words, *positional, *options])


def in_commands(text: str, fix: Fix | None, base_dir: Path | None, quote: str = "") -> str:
    """Return a text that ends with a fix, with the fix as a command in the place of the call."""
    if fix is None:
        return text
    command = f"{quote}{command_of(fix, base_dir)}{quote}"
    return text.removesuffix(fix.in_words()) + fix.in_words(command)


def is_server(uri: str | None) -> bool:
    """Return whether a tracking URI is a server's, with a UI of its own."""
    return uri is not None and uri.startswith(("http://", "https://"))


def store_uri(current: Settings, layout: Layout) -> str:
    """Return the tracking URI that plain ``mlflow`` commands need for the current store."""
    return Target.from_settings(current, layout.database_path).tracking_uri


def database_path(current: Settings, layout: Layout) -> Path | None:
    """Return the database file of the current store, ``None`` where that is on a server."""
    return Target.from_settings(current, layout.database_path).database_path


def ui_address(current: Settings) -> str:
    """Return the address of the UI: the server's, without credentials, or that of ``ui``."""
    if not is_server(current.tracking_uri):
        return f"http://127.0.0.1:{UI_PORT}"
    return masked(str(current.tracking_uri)).replace(f"{HIDDEN}@", "").partition("?")[0].rstrip("/")


def runs_page(address: str, experiment_id: str | None) -> str:
    """Return the page of an experiment's training runs; the UI would open on traces."""
    page = "experiments" if experiment_id is None else f"experiments/{experiment_id}/runs"
    return f"{address}/#/{page}?workflowType=machine_learning"


def places_of(record: ModelRecord, layout: Layout) -> dict[str, str | None]:
    """Return where a model lies in both views, under the keys of ``show --json``."""
    current = settings.read()
    metadata_path = layout.metadata_path(record.name)
    is_mirrored = record.version is not None
    model, version = record.registered_model, record.version
    page = f"{ui_address(current)}/#/models/{quote(model)}/versions/{version}"
    return {
        "metadata_path": str(metadata_path)
        if record.path is not None and metadata_path.exists()
        else None,
        "tracking_uri": masked(store_uri(current, layout)),
        "model_uri": f"models:/{model}/{version}" if is_mirrored else None,
        "link": page if is_mirrored else None,
    }


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Iterable[str] = (),
    marked: Iterable[int] = (),
) -> None:
    """Print rows under headers.

    Parameters
    ----------
    headers : sequence of str
        The columns.
    rows : iterable of sequences of str
        The cells.
    right : iterable of str
        Columns that are aligned to the right.
    marked : iterable of int
        Rows that stand out on a terminal.
    """
    headers = [safe_line(header) for header in headers]
    to_the_right, standing_out = set(map(safe_line, right)), set(marked)
    lines = [[safe_line(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _print_plainly(headers, lines, to_the_right)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    names = [_cells(line[0]) for line in lines]
    for header in headers:
        table.add_column(
            header,
            justify="right" if header in to_the_right else "left",
            overflow="fold",  # of the names, which come first, the last
            min_width=None if table.columns else min(max(names, default=0), _WIDEST_NAME),
        )
    for number, row in enumerate(lines):
        table.add_row(*row, style="bold green" if number in standing_out else None)
    terminal.console().print(table)


def _print_plainly(headers: Sequence[str], rows: list[list[str]], right: set[str]) -> None:
    """Print the same for a pipe, where nothing is cut, folded or coloured."""
    widths = [max(map(_cells, column)) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        cells = []
        for header, cell, width in zip(headers, row, widths, strict=True):
            space = " " * (width - _cells(cell))
            cells.append(space + cell if header in right else cell + space)
        typer.echo("  ".join(cells).rstrip())


def print_fields(named: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one a line, the values below each other."""
    lines = [(safe_line(name), safe_line(value)) for name, value in named]
    width = max((_cells(name) for name, _ in lines), default=0)
    for name, value in lines:
        typer.echo(f"{name}{' ' * (width - _cells(name))}  {value}")


def _cells(text: str) -> int:
    """Return the columns that a text needs on a terminal; a Korean letter needs two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def size_of(record: ModelRecord) -> str:
    """Return the size of a model's file."""
    return NONE if record.size is None else size_as_text(record.size)


def time_as_text(record: ModelRecord, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return the time of a save in the zone of the settings."""
    if record.saved_at_ns is None:
        return record.saved_at or NONE
    moment = datetime.fromtimestamp(record.saved_at_ns // 10**9, settings.read().timezone)
    return moment.strftime(form)


def moment_as_text(when: str | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a moment of ISO 8601 in the zone of the settings; another text as it is."""
    try:
        moment = datetime.fromisoformat(when or "").astimezone(settings.read().timezone)
    except (ValueError, OverflowError, OSError):
        return when or NONE
    return moment.strftime(form)


def aliases_as_text(record: ModelRecord, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return the aliases of a version, with the time since when it has them."""
    since = record.aliases_since
    named = (
        f"{alias} since {moment_as_text(since[alias], form)}" if alias in since else alias
        for alias in record.aliases
    )
    return ", ".join(named) or NONE


def number_as_text(value: float | None) -> str:
    """Return a metric to six digits."""
    return NONE if value is None else f"{value:.6g}"


def hits_as_text(hits_per_game: float | None) -> str:
    """Return the numbers that an average game hit."""
    return NONE if hits_per_game is None else f"{hits_per_game:.3f}"


def loss_as_text(log_loss: float | None) -> str:
    """Return a log loss."""
    return NONE if log_loss is None else f"{log_loss:.4f}"


def compact(value: Any) -> str:
    """Return a value on one line: a text as it is where a terminal can show it, else as JSON."""
    is_shown = isinstance(value, str) and value.isprintable()
    return str(value) if is_shown else json.dumps(value, ensure_ascii=False)
