"""Commands on folders that were named, copied or misspelt: what they advise can be typed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from lotto_mlflow import ModelManager, settings
from lotto_mlflow.cli import app, output
from lotto_mlflow.cli.output import KEYS
from lotto_mlflow.errors import Fix

SETTINGS = Path(settings.__file__)


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def copied_dir(base_dir: Path, forest: Any) -> Path:
    """A copy, in a folder that a shell must quote, with other times."""
    manager = ModelManager(base_dir)
    manager.save_model(forest, "lotto_model_told", {"loss": 0.5})
    manager.save_model({"a": 1}, "lotto_model_untold")
    assert manager.flush(120)  # nothing is at work in what is copied
    copied = base_dir.with_name("복사 본's")
    shutil.copytree(base_dir, copied, copy_function=shutil.copyfile)
    return copied


@pytest.mark.parametrize("is_first", [True, False])
def test_a_mending_command_names_the_folder_that_was_named(
    copied_dir: Path, is_first: bool
) -> None:
    at = ("--base-dir", copied_dir)
    found = call(*(at if is_first else ()), "verify", "--json", *(() if is_first else at))
    (mend,) = {one["mend"] for one in json.loads(found.stdout) if one["kind"] == "moved store"}
    assert shlex.split(mend) == ["lotto-mlflow", "relocate", "--base-dir", str(copied_dir)]
    assert call(*shlex.split(mend)[1:]).exit_code == 0
    assert call("verify", *at).exit_code == 0
    error = call("show", "lotto_model_x", *at).stderr
    assert f"list --base-dir {shlex.quote(str(copied_dir))}" in error


def test_advice_names_a_folder_only_where_one_was_named() -> None:
    assert output.command_of(Fix("sync"), None) == "lotto-mlflow sync"
    assert output.command_of(Fix("sync"), Path("a b")) == "lotto-mlflow sync --base-dir 'a b'"


def test_a_copy_with_other_times_is_known_to_be_mirrored(copied_dir: Path) -> None:
    call("relocate", "--base-dir", copied_dir)
    listed = json.loads(call("list", "--json", "--base-dir", copied_dir).stdout)
    assert {one["name"]: one["version"] for one in listed} == {
        "lotto_model_told": 1,
        "lotto_model_untold": 2,
    }
    assert all(one["sha256"] for one in listed)


def test_paths_are_relative_to_a_folder_that_is_there(copied_dir: Path) -> None:
    database = copied_dir / "mlflow" / "mlflow.db"
    before = database.read_bytes()
    for wrong in (copied_dir / "nowhere", database):
        done = call("relocate", "--relative-to", wrong, "--base-dir", copied_dir)
        assert done.exit_code == 2
    assert database.read_bytes() == before


def test_a_file_in_place_of_a_folder_is_found(base_dir: Path) -> None:
    (base_dir / "trained").write_text("no folder")
    done = call("verify", "--base-dir", base_dir)
    assert done.exit_code == 1
    assert "it is no folder" in done.stdout


@pytest.mark.parametrize("wrong", ["sizee", "lss"])
def test_a_misspelt_order_is_told_the_nearest(copied_dir: Path, wrong: str) -> None:
    done = call("list", "--sort", wrong, "--base-dir", copied_dir)
    assert done.exit_code == 2
    assert f"did you mean { ({'sizee': 'size', 'lss': 'loss'}[wrong])!r}" in done.stderr


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("models:/lotto_model@champoin", "champion"), ("models:/lotto_modl/1", "lotto_model")],
)
def test_a_misspelt_version_is_told_the_nearest(copied_dir: Path, wrong: str, right: str) -> None:
    call("relocate", "--base-dir", copied_dir)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{copied_dir / 'mlflow' / 'mlflow.db'}")
    client.set_registered_model_alias("lotto_model", "champion", "1")
    done = call("restore", wrong, "--source", "registry", "--base-dir", copied_dir)
    assert done.exit_code == 1
    assert right in done.stderr.partition("did you mean")[2]


def test_a_shell_completes_names_of_a_folder_named_before_the_command(base_dir: Path) -> None:
    ModelManager(base_dir, mirror="off").save_model({"a": 1}, "lotto_model_b", {})
    words = f"lotto-mlflow --base-dir {base_dir} show lotto"
    done = subprocess.run(
        [sys.executable, "-m", "lotto_mlflow"],
        env=os.environ
        | {"_LOTTO_MLFLOW_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "4"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["lotto_model_b"]


def test_a_ui_that_does_not_answer_is_an_error(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    done = call("ui", "--no-browser", "--base-dir", base_dir)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "does not answer" in done.stderr


def test_a_model_named_by_a_number_is_restored_and_no_other(base_dir: Path) -> None:
    manager = ModelManager(base_dir)
    path = Path(manager.save_model({"mine": 1}, "2", {"n": 1}))
    for number in range(2):
        manager.save_model({"other": number}, f"lotto_model_{number}", {"n": number})
    path.unlink()
    found = json.loads(call("verify", "--json", "--base-dir", base_dir).stdout)
    (mend,) = {one["mend"] for one in found if one["kind"] == "missing on disk"}
    assert call(*shlex.split(mend)[1:]).exit_code == 0
    assert manager.load_model(path) == {"mine": 1}


def test_each_printed_fix_is_a_command_alone_on_its_line(base_dir: Path) -> None:
    manager = ModelManager(base_dir)
    for name in ("damaged", "gone", "it's a  b"):
        manager.save_model({name: 1}, name, {"n": 1})
    (base_dir / "trained" / "damaged.pkl").write_bytes(b"damaged")
    (base_dir / "trained" / "gone.pkl").unlink()
    (base_dir / "trained" / "it's a  b.pkl").write_bytes(b"damaged")
    printed = call("verify", "--base-dir", base_dir).stdout
    commands = re.findall(r"^ {4}fix: (.*)$", printed, flags=re.MULTILINE)
    in_json = json.loads(call("verify", "--json", "--base-dir", base_dir).stdout)
    assert commands == [one["mend"] for one in in_json]
    assert [one["fix"]["verb"] for one in in_json] == ["restore"] * len(in_json)
    for command in commands:
        assert call(*shlex.split(command)[1:]).exit_code == 0
    for name in ("damaged", "gone", "it's a  b"):
        assert manager.load_model(base_dir / "trained" / f"{name}.pkl") == {name: 1}


def test_a_name_on_disk_forges_no_line_and_commands_nothing(base_dir: Path) -> None:
    ModelManager(base_dir).save_model({"a": 1}, "x", {"n": 1})
    odd = "lotto_model_a\r\x07\x1b[2J\nboth views agree\u202e"
    for place in (f"trained/{odd}.pkl", f"metadata/{odd}2_metadata.json"):
        (base_dir / place).write_bytes(b"{}")
    for command in ("list", "verify", "sync"):
        done = call(command, "--base-dir", base_dir)
        said = done.stdout + done.stderr
        assert not {"\r", "\x07", "\x1b", "\u202e"} & set(said)
        assert "\nboth views agree" not in said


def test_a_sync_prints_the_saves_that_it_found_elsewhere_than_recorded(
    base_dir: Path, forest: Any
) -> None:
    ModelManager(base_dir).save_model(forest, "wanderer", {})
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    client.rename_registered_model("wanderer", "settled")
    title = "in MLflow already, elsewhere than recorded; nothing is sent for them:"
    for options in (("--dry-run",), ()):
        printed = call("sync", "--resend", *options, "--base-dir", base_dir).stdout
        assert printed.splitlines()[-2:] == [title, "    wanderer"]
    assert title not in call("sync", "--resend", "--base-dir", base_dir).stdout


@pytest.mark.parametrize("arguments", [("--help",), *((command, "--help") for command in KEYS)])
def test_no_line_of_the_help_is_cut(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, arguments, terminal_width=80)
    assert done.exit_code == 0
    assert not [line for line in done.stdout.splitlines() if line.rstrip().endswith("...")]


def test_each_command_has_a_line_of_its_own_in_the_help() -> None:
    printed = CliRunner().invoke(app, ["--help"], terminal_width=80).stdout
    lines = printed.partition("\nCommands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines if line[:3] != "   "] == list(
        dict.fromkeys(line.split()[0] for line in lines)
    )
    assert sorted(line.split()[0] for line in lines) == sorted(KEYS)


def test_the_help_names_every_setting_and_all_that_resend_does() -> None:
    printed = call("--help").stdout
    settings_read = set(re.findall(r"LOTTO_[A-Z_]+", SETTINGS.read_text(encoding="utf-8")))
    assert {name for name in settings_read if name not in printed} == set()
    printed = " ".join(call("sync", "--help").stdout.split())
    assert "what was deleted or damaged in MLflow, and record what was moved." in printed
