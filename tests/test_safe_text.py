"""Text of other people is one safe line wherever it is shown, and commands survive pasting."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lotto_mlflow import Finding, Fix, LottoMlflowError, ModelManager, SyncReport
from lotto_mlflow.cli import app, output
from lotto_mlflow.text import one_line, safe_line, shell_command

PACKAGE_DIR = Path(__file__).parents[1] / "lotto_mlflow"
NASTY = [
    "two\nlines", "ends\n", "\r\rback", "\x1b[31mred", "\x1b]0;title\x07", "c1 \x9b31m \x85",
    "rtl \u202eexe.fdp\u2069", "zero\u200bwidth\ufeff", "line\u2028\u2029", "no utf-8 \udcff\udc80",
    "'quoted' \"twice\" `id` $(id) $HOME !!", "\\x1b back\\slash %s %% \\101", "-rf", "--help", "~",
    "*?[a]", "a;b|c&d#e", "tab\tand\x7f", "[bold]markup[red]", "내 모델\u3000이름 é", " lead",
    "a" * 250,
]  # fmt: skip
"""Names that a file can have, and people who mean ill can give it."""


def is_safe(text: str) -> bool:
    return all(c.isprintable() for c in text) and text.encode("utf-8") is not None


@pytest.mark.parametrize("name", NASTY)
def test_foreign_text_becomes_one_safe_line_and_stays_so(name: str) -> None:
    shown = safe_line(name)
    assert is_safe(shown)
    assert one_line(shown) == shown
    if is_safe(name):
        assert shown == name


def test_no_character_at_all_is_shown_raw_that_a_terminal_obeys() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = one_line(everything)
    assert is_safe(shown)
    assert not re.search(
        r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f]", shown
    )
    assert "가힣漢é😀" in one_line("가힣漢é😀")


@pytest.mark.parametrize("name", NASTY)
def test_every_message_of_ours_is_one_safe_line(name: str) -> None:
    """Errors, findings and reports make it so themselves, whoever builds them."""
    fix = Fix("restore", {"name_or_version": name}, before=f"move {name}, then", effect=name)
    command = Fix("shell", {"command": ("rm", "-r", Path(name))})
    report = SyncReport()
    report.fail("x", name, fix)
    for text in (
        str(LottoMlflowError(name)),
        str(LottoMlflowError(f"{name} is damaged", fix=fix)),
        str(LottoMlflowError(name, fix=command, path=Path(name))),
        repr(LottoMlflowError(name)),
        Finding("damaged", "x", None, name).detail,
        Finding("damaged", "x", None, name, fix=fix).repair,
        report.failed["x"],
    ):
        assert is_safe(text)
    assert LottoMlflowError(name, path=name).data == {"path": name}, "facts stay what they are"


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("name", NASTY)
def test_a_pasted_command_has_the_very_words(name: str, shell: str, tmp_path: Path) -> None:
    """It is run as printed, on one line, by both shells; the program notes what it is given."""
    program = tmp_path / "bin" / "lotto-mlflow"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"given = open({str(tmp_path / 'given')!r}, 'wb')\n"
        "given.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))\n"
    )
    program.chmod(0o755)
    fix = Fix("restore", {"name_or_version": name, "source": "registry"})
    base_dir = tmp_path / f"{name[:40]}x"
    line = output.command_of(fix, base_dir)
    assert is_safe(line)
    subprocess.run(
        [shell, "-c", line],
        env={"PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": "/nowhere"},
        check=True,
    )
    given = (tmp_path / "given").read_bytes().split(b"\0")
    expected = [b"restore", os.fsencode(name), b"--source", b"registry", b"--base-dir",
                os.fsencode(base_dir)]  # fmt: skip
    if name.startswith("-"):
        expected = [expected[0], *expected[2:], b"--", expected[1]]
    assert given == expected


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("name", NASTY)
def test_a_pasted_command_of_the_system_reaches_the_right_file(
    name: str, shell: str, tmp_path: Path
) -> None:
    for other in ("bystander", "x"):
        (tmp_path / other).write_text("stays")
    path = tmp_path / name
    path.write_text("goes")
    for line in (
        Fix("shell", {"command": ("rm", "-r", path)}).as_call(),
        output.command_of(Fix("shell", {"command": ("rm", "-r", path)}), None),
    ):
        path.write_text("goes")
        assert is_safe(line)
        subprocess.run([shell, "-c", line], check=True, cwd=tmp_path)
        assert not path.exists()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["bystander", "current", "x"]


@pytest.mark.skipif(os.name == "nt", reason="there are no such file names")
def test_what_is_printed_about_foreign_files_is_safe(base_dir: Path, manager: ModelManager) -> None:
    manager.save_model({"a": 1}, "lotto_model_a", {"n": 1})
    for name in NASTY:
        for path in (
            base_dir / "metadata" / f"{name[:200]}_metadata.json",
            base_dir / "trained" / f"{name[:200]}.pkl",
            base_dir / "mlflow" / "artifacts" / "lotto_model" / name[:200],
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
    for arguments in (("verify",), ("verify", "--json"), ("list",), ("list", "--json"), ("sync",)):
        done = CliRunner().invoke(app, [*arguments, "--base-dir", str(base_dir)])
        assert done.exit_code in (0, 1), done.exception
        assert len(done.output.split("\n")) > len(NASTY) or arguments == ("sync",)
        assert all(map(is_safe, done.output.split("\n"))), arguments
        if "--json" in arguments:
            json.loads(done.stdout)


@pytest.mark.parametrize("name", NASTY)
def test_json_has_the_text_itself_and_nothing_a_terminal_obeys(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output.print_json({name: [name, {"path": Path(name)}]})
    printed = capsys.readouterr().out
    assert all(map(is_safe, printed.split("\n")))
    assert json.loads(printed) == {name: [name, {"path": name}]}


@pytest.mark.parametrize("name", NASTY)
def test_an_argument_that_is_wrong_is_quoted_safely(name: str, tmp_path: Path) -> None:
    for arguments in (
        ["show", "--", name], ["list", "--base-dir", name], [f"x{name}"], ["list", f"--x{name}"],
        ["list", "--sort", name], ["list", "--limit", name], ["latest", "--source", name],
        ["restore", "--base-dir", str(tmp_path), "--backup", name, "--", name],
    ):  # fmt: skip
        done = CliRunner().invoke(app, arguments)
        assert all(map(is_safe, done.output.split("\n"))), (arguments, done.output)


def test_a_table_on_a_terminal_reads_no_markup(manager: ModelManager, base_dir: Path) -> None:
    manager.save_model({"a": 1}, "a", {"[red]note[/red]": "[bold]x[/bold] :smile:", "n": 1})
    script = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    command = [
        sys.executable,
        "-m",
        "lotto_mlflow",
        "compare",
        "a",
        "a",
        "--base-dir",
        str(base_dir),
    ]
    done = subprocess.run(
        [sys.executable, "-c", script, *command],
        stdin=subprocess.DEVNULL, capture_output=True, check=True,
        env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    assert b"[red]note[/red]" in done.stdout
    assert b"[bold]x[/bold] :smile:" in done.stdout


def test_a_command_without_odd_characters_stays_readable() -> None:
    assert shell_command(["lotto-mlflow", "restore", "it's 내 모델"]) == (
        "lotto-mlflow restore 'it'\"'\"'s 내 모델'"
    )
    odd = shell_command(["rm", "내\x1b[m"])
    assert odd == "eval \"$(printf 'rm \\047내\\033\\133m\\047')\""


def calls_of(path: Path, name: str) -> list[ast.Call]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == name]


def test_only_the_functions_that_make_text_safe_print_it() -> None:
    """Elsewhere in the command line nothing is printed but by them."""
    printers = {"terminal.py", "output.py", "application.py"}
    for path in (PACKAGE_DIR / "cli").glob("*.py"):
        for name in ("print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write"):
            assert not calls_of(path, name) or path.name in printers, path


def test_all_that_is_logged_passes_the_one_logger_that_makes_it_safe() -> None:
    for path in PACKAGE_DIR.rglob("*.py"):
        for call in calls_of(path, "logging.getLogger"):
            name = ast.unparse(call.args[0])
            is_only_filtered = (path.name, name) == ("database.py", "name")
            assert name == "'lotto_mlflow'" or is_only_filtered, path
        assert not calls_of(path, "warnings.warn"), path
