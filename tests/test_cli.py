"""The command line, called in this process and, where the process matters, in one of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import joblib
import pytest
from mlflow import MlflowClient
from typer.main import get_command
from typer.testing import CliRunner, Result

from lotto_mlflow import ModelManager
from lotto_mlflow.cli import app, output
from lotto_mlflow.cli.output import KEYS, LISTS, ROW
from lotto_mlflow.errors import Fix

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / ".github" / "COMMANDS.md").read_text(encoding="utf-8")
COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]
LONG_NAME = "lotto_model_" + "길" * 60


def call(*arguments: str | Path | int, **environment: str) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def answer(*arguments: str | Path, **environment: str) -> Any:
    done = call(*arguments, "--json", **environment)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lotto_mlflow", *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def saved_dir(
    tmp_path_factory: pytest.TempPathFactory, migrated_database: Path, forest: Any
) -> Path:
    """Three saves under two names, mirrored, one of them with an alias; tests only read it."""
    base_dir = tmp_path_factory.mktemp("saved") / "ml"
    (base_dir / "mlflow").mkdir(parents=True)
    shutil.copyfile(migrated_database, base_dir / "mlflow" / "mlflow.db")
    manager = ModelManager(base_dir, mirror="background")
    manager.save_model(forest, LONG_NAME, {"loss": [0.9, 0.3], "note": "first"})
    manager.save_model(forest, "lotto_model_b", {"loss": 0.5, "note": "second"})
    manager.save_model(forest, "lotto_model_b", {"loss": 0.4, "note": "third", "auc": 0.6})
    assert manager.flush(120)
    client = MlflowClient(tracking_uri=f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}")
    client.set_registered_model_alias("lotto_model", "champion", "1")
    return base_dir


@pytest.fixture
def copied_dir(saved_dir: Path, tmp_path: Path) -> Path:
    """The same, moved, so that there is something to fix."""
    copied = tmp_path / "복사본"
    shutil.copytree(saved_dir, copied)
    return copied


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_help_and_stands_on_the_page_with_its_keys(command: str) -> None:
    done = call(command, "--help")
    assert done.exit_code == 0
    flat = " ".join(done.stdout.split())
    assert "--base-dir" in flat
    assert ", ".join(KEYS[command]) in flat
    (row,) = re.findall(rf"^\| `{command}[ `].*$", PAGE, flags=re.MULTILINE)
    options = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", done.stdout)) - {"--no-browser"}
    of_all = {"--base-dir", "--json", "--debug", "--help", "--browser"}
    assert options - of_all == set(re.findall(r"--[a-z]+(?:-[a-z]+)*", row)) - {"--no-browser"}


def test_the_page_names_no_command_that_is_not_there_and_every_key() -> None:
    rows = re.findall(r"^\| `([a-z-]+)[^|]*\|", PAGE, flags=re.MULTILINE)
    assert sorted(rows) == COMMANDS == sorted(KEYS)
    assert all(f"`{key}`" in PAGE for keys in (*KEYS.values(), ROW) for key in keys)


def test_the_readme_names_every_command_and_no_other() -> None:
    section = README.partition("\n## Command line\n")[2].partition("\n## ")[0]
    assert set(COMMANDS) == set(re.findall(r"`([a-z-]+)`", section)) - {"lotto-mlflow", "--json"}


def test_the_json_of_each_command_has_the_keys_that_are_documented(
    copied_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ("--base-dir", copied_dir)
    monkeypatch.setenv("LOTTO_SIGNING_KEY", str(tmp_path / "sign.pem"))
    (copied_dir / "metadata" / "nothing_metadata.json").write_text("{}")
    calls = {
        "list": (), "show": ("lotto_model_b",), "latest": (), "verify": (), "sync": (),
        "compare": ("lotto_model_b", LONG_NAME), "restore": ("lotto_model_b",), "relocate": (),
        "env": (), "version": (), "predictions": (),
        "keys": ("new", tmp_path / "sign.pem"), "sign": ("lotto_model_b",),
        "record-result": (1000, 1, 2, 3, 4, 5, 6, 7), "accuracy": (),
        "import-results": (tmp_path / "draws.csv",), "check": (),
        "prune": ("--keep-last", "9"), "delete": ("lotto_model_b",),
        "promote": ("2", "--alias", "tried"), "history": ("tried",),
        "migrate": ("--to", f"sqlite:///{tmp_path / 'to.db'}"),
    }  # fmt: skip
    columns = "draw_no,draw_date,n1,n2,n3,n4,n5,n6,bonus"
    (tmp_path / "draws.csv").write_text(f"{columns}\n999,,1,2,3,4,5,6,7\n")
    game, made_at = [1, 2, 3, 4, 5, 6], datetime(2020, 1, 1, tzinfo=timezone.utc)
    ModelManager(copied_dir, mirror="off").record_prediction(
        "lotto_model_b", 1000, game, made_at=made_at
    )
    for command, arguments in calls.items():
        printed = json.loads(call(command, *arguments, *at, "--json").stdout)
        assert isinstance(printed, list) == (command in LISTS)
        for found in printed if command in LISTS else [printed]:
            assert tuple(found) == KEYS[command], command
    answer("promote", "3", "--alias", "tried", *at)
    assert tuple(answer("rollback", "tried", *at)) == KEYS["rollback"]
    rows = answer("compare", "lotto_model_b", LONG_NAME, *at)
    assert tuple(rows["metrics"][0]) == ROW
    # test_trust_signed and test_gate have the last two
    assert set(calls) | {"ui", "rollback", "trust", "serve"} == set(KEYS)


def test_list_shows_metrics_versions_aliases_and_which_one_is_newest(saved_dir: Path) -> None:
    done = call("list", "--base-dir", saved_dir, "--metric", "loss", "--metric", "auc")
    assert done.exit_code == 0
    header, first, second = done.stdout.splitlines()
    columns = ["name", "saved", "at", "size", "loss", "auc", "version", "aliases", "mirrored"]
    assert header.split() == columns
    assert first.split()[0] == "lotto_model_b"
    assert first.split()[-6:] == ["0.4", "0.6", "3", "-", "yes", "*"]
    assert second.split()[0] == LONG_NAME  # whole, in a pipe
    assert second.split()[-5:] == ["0.3", "-", "1", "champion", "yes"]


def test_list_sorts_limits_and_says_what_is_not_mirrored(
    saved_dir: Path, disk_manager: ModelManager, tmp_path: Path
) -> None:
    def names(*options: str) -> list[str]:
        return [found["name"] for found in answer("list", "--base-dir", saved_dir, *options)]

    b, long = "lotto_model_b", LONG_NAME
    assert names() == names("--sort", "version") == names("--sort", "loss") == [b, long]
    assert names("--sort", "name") == [b, long]
    assert names("--reverse") == names("--sort", "loss", "--reverse") == [long, b]
    assert names("--sort", "auc") == names("--sort", "auc", "--reverse") == [b, long]
    assert names("--limit", "1", "--reverse") == [long]
    disk_manager.save_model({"a": 1}, "other", {"accuracy": 0.25})
    (found,) = answer("list", "--base-dir", tmp_path / "ml")
    assert (found["mirrored"], found["newest"], found["metrics"]) == (
        False,
        False,
        {"accuracy": 0.25},
    )
    assert (found["version"], found["aliases"], found["size"]) == (
        None,
        [],
        Path(found["path"]).stat().st_size,
    )


def test_times_are_told_in_the_zone_of_the_settings(saved_dir: Path) -> None:
    shown = {
        zone: call("list", "--base-dir", saved_dir, LOTTO_TIMEZONE=zone).stdout
        for zone in ("UTC", "Asia/Seoul")
    }
    hours = {z: int(re.findall(r" (\d\d):\d\d ", text)[0]) for z, text in shown.items()}
    assert (hours["UTC"] + 9) % 24 == hours["Asia/Seoul"]


def test_show_tells_both_views_by_name_version_and_alias(saved_dir: Path) -> None:
    at = ("--base-dir", saved_dir)
    found = answer("show", LONG_NAME, *at)
    assert found == answer("show", "models:/lotto_model@champion", *at)
    assert found == answer("show", "1", *at)
    assert found["params"]["note"] == "first"
    assert found["metrics"] == {"loss": 0.3}
    assert (found["model_uri"], found["aliases"]) == ("models:/lotto_model/1", ["champion"])
    assert found["link"].endswith("/#/models/lotto_model/versions/1")
    shown = call("show", LONG_NAME, *at).stdout
    for text in (found["path"], found["sha256"], found["run_id"], found["link"], "n_estimators"):
        assert text in shown


def test_compare_marks_what_differs(saved_dir: Path) -> None:
    done = call("compare", "2", "lotto_model_b", "--base-dir", saved_dir)
    marked = [line.split() for line in done.stdout.splitlines() if line.startswith("*")]
    assert marked == [
        ["*", "note", "second", "third"], ["*", "auc", "-", "0.6"], ["*", "loss", "0.5", "0.4"]
    ]  # fmt: skip
    assert re.search(r"^ +n_estimators +5 +5$", done.stdout, flags=re.MULTILINE)


def test_a_value_of_several_lines_or_with_an_escape_stays_on_one_line(
    disk_manager: ModelManager, tmp_path: Path
) -> None:
    disk_manager.save_model({"a": 1}, "a", {"note": "one\ntwo\x1b[31m"})
    disk_manager.save_model({"a": 1}, "b", {"note": "한 줄"})
    for arguments in (("show", "a"), ("compare", "a", "b")):
        shown = call(*arguments, "--base-dir", tmp_path / "ml").stdout
        assert r'"one\ntwo\u001b[31m"' in shown
        assert "\x1b" not in shown
    assert "한 줄" in shown


def test_latest_answers_for_both_views_and_says_where_there_is_none(
    saved_dir: Path, base_dir: Path
) -> None:
    for source in ("filesystem", "registry"):
        found = answer("latest", "--source", source, "--base-dir", saved_dir)
        assert (found["name"], found["version"]) == ("lotto_model_b", 3)
        assert Path(found["path"]).is_file()
        nothing = call("latest", "--source", source, "--base-dir", base_dir, "--json")
        assert (nothing.exit_code, nothing.stdout) == (1, "")
        assert nothing.stderr.startswith("error: there is no model in ")
    assert not (base_dir / "trained").exists()  # looking makes nothing


def test_latest_of_the_registry_names_a_file_even_where_the_disk_has_lost_it(
    copied_dir: Path,
) -> None:
    ModelManager(copied_dir).relocate()
    (copied_dir / "trained" / "lotto_model_b.pkl").unlink()
    found = answer("latest", "--source", "registry", "--base-dir", copied_dir)
    assert (found["version"], Path(found["path"]).stat().st_size) == (3, found["size"])


def test_what_verify_finds_is_mended_by_the_commands_that_it_names(copied_dir: Path) -> None:
    at = ("--base-dir", copied_dir)
    model = copied_dir / "trained" / "lotto_model_b.pkl"
    original = model.read_bytes()
    model.write_bytes(b"changed")
    found = call("verify", *at)
    assert found.exit_code == 1
    assert "fix: lotto-mlflow relocate" in found.stdout
    assert "fix: lotto-mlflow restore lotto_model_b --source registry --base-dir " in found.stdout
    assert "damaged: lotto_model_b" in found.stdout
    assert call("relocate", *at).stdout.endswith("paths rewritten\n")
    assert answer("relocate", *at) == {"rewritten": 0}
    restored = answer("restore", "lotto_model_b", "--source", "registry", *at)
    assert restored["sha256"] == ModelManager(copied_dir).get(3).sha256
    assert model.read_bytes() == original
    assert not (copied_dir / "backups" / "lotto_model_b.2.pkl").exists()
    (aside,) = (copied_dir / "mlflow" / "aside").glob("lotto_model_b.*.pkl")
    assert aside.read_bytes() == b"changed"
    assert call("verify", *at).stdout == "both views agree, and every digest holds\n"
    assert answer("verify", *at) == []


def test_sync_sends_what_waits_and_a_dry_run_does_not(base_dir: Path, forest: Any) -> None:
    ModelManager(base_dir, mirror="off").save_model(forest, "waiting")
    at = ("--base-dir", base_dir)
    assert call("sync", "--dry-run", *at).stdout == "waiting\nwould send 1 save\n"
    assert answer("list", *at)[0]["mirrored"] is False
    assert answer("sync", *at)["sent"] == ["waiting"]
    assert answer("list", *at)[0]["mirrored"] is True
    assert call("sync", *at).stdout == "sent 0 saves\n"


def test_a_save_that_mlflow_refuses_is_exit_code_1(base_dir: Path, forest: Any) -> None:
    path = ModelManager(base_dir, mirror="off").save_model(forest, "gone")
    Path(path).unlink()
    done = call("sync", "--base-dir", base_dir)
    assert done.exit_code == 1
    assert "refused: gone" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "lotto_model_c"), "did you mean 'lotto_model_b'"),
        (("show", "models:/lotto_model@champoin"), "did you mean 'models:/lotto_model@champion'?"),
        (("show", "models:/lotto_modle/1"), "did you mean 'models:/lotto_model/1'?"),
        (("compare", "lotto_model_b", "model_b"), "did you mean 'lotto_model_b'"),
        (("restore", "lotto_model_bb"), "did you mean 'lotto_model_b'?"),
        (("restore", "lotto_model_b", "--backup", "model_b.2"), "did you mean 'lotto_model_b'?"),
        (("restore", "lotto_model_bb", "--source", "registry"), "did you mean 'lotto_model_b'"),
        (("restore", "lotto_model_b", "--base-dir", "."), "there is no backup"),
        (("show", "models:/"), "names no version"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(
    saved_dir: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = call("--base-dir", saved_dir, *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr)
    assert message in done.stderr
    assert "ModelManager" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "nothing"),
        (("show",), "NAME|VERSION"),
        (("list", "--limit", "0"), "--limit"),
        (("list", "--metric", "los"), "did you mean 'loss'?"),
        (("list", "--sort", "acu"), "did you mean 'auc'?"),
        (("latest", "--source", "nowhere"), "nowhere"),
        (("compare", "lotto_model_b"), "two models or more"),
        (("list", "--base-dir", "not/there"), "not/there"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    saved_dir: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = call("--base-dir", saved_dir, *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr


def test_debug_shows_the_traceback_wherever_it_stands(saved_dir: Path) -> None:
    for arguments in (("--debug", "show", "x"), ("show", "x", "--debug")):
        done = run("--base-dir", saved_dir, *arguments)
        assert done.returncode == 1
        assert "Traceback" in done.stderr
    quiet = run("--base-dir", saved_dir, "show", "x")
    assert (quiet.returncode, quiet.stdout) == (1, "")
    assert re.fullmatch(r"error: [^\n]+\n", quiet.stderr)


def test_the_folder_comes_from_either_option_or_the_environment(
    saved_dir: Path, tmp_path: Path
) -> None:
    app_dir = tmp_path / "app"
    shutil.copytree(saved_dir, app_dir / "models" / "ml")
    for found in (
        answer("list", "--base-dir", saved_dir),
        answer("--base-dir", saved_dir, "list"),
        answer("list", LOTTO_APP_DIR=str(app_dir)),
        answer("list", "--base-dir", saved_dir, LOTTO_APP_DIR=str(tmp_path)),
    ):
        assert [record["name"] for record in found] == ["lotto_model_b", LONG_NAME]
    nothing = call("list", "--json")
    assert (nothing.exit_code, json.loads(nothing.stdout)) == (0, [])
    for command in ("verify", "sync", "relocate", "ui"):
        done = call(command)
        assert done.exit_code == 1, "a check of the wrong folder must not pass"
        assert str(Path("backend", "app", "models", "ml")) in done.stderr
    assert not Path("backend").exists()


def test_a_setting_that_is_none_is_one_line(saved_dir: Path) -> None:
    for name in ("LOTTO_TIMEZONE", "LOTTO_MIRROR"):
        done = call("list", "--base-dir", saved_dir, **{name: "Nowhere"})
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
        assert f"{name} is 'Nowhere'" in done.stderr


def test_mlflow_out_of_reach_is_one_line(tmp_path: Path, disk_manager: ModelManager) -> None:
    disk_manager.save_model({"a": 1}, "a")
    uri = "http://127.0.0.1:9"  # the discard port, where nobody listens
    for command in ("sync", "latest"):
        arguments = ("--source", "registry") if command == "latest" else ()
        done = call(command, *arguments, "--base-dir", tmp_path / "ml", MLFLOW_TRACKING_URI=uri)
        assert done.exit_code == 1
        assert re.fullmatch(r"error: [^\n]*does not answer[^\n]*\n", done.stderr)


def test_env_is_evaluated_by_a_shell_and_opens_the_store(saved_dir: Path, tmp_path: Path) -> None:
    base_dir = tmp_path / "it's 내 $모델 #1"
    shutil.copytree(saved_dir, base_dir)
    script = (
        'eval "$("$0" -m lotto_mlflow env --base-dir "$1")" && printf %s "$MLFLOW_TRACKING_URI"'
    )
    shell = ["sh", "-c", script, sys.executable, str(base_dir)]
    uri = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
    assert uri == f"sqlite:///{base_dir}/mlflow/mlflow.db"
    assert MlflowClient(tracking_uri=uri).get_experiment_by_name("lotto_model") is not None
    server = {"MLFLOW_TRACKING_URI": "http://a:b@host/", "MLFLOW_REGISTRY_URI": "http://other"}
    command = [sys.executable, "-m", "lotto_mlflow", "env", "--base-dir", str(base_dir)]
    environment = os.environ | server  # in a process of its own, whose MLflow nobody has set up
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == [
        "export MLFLOW_TRACKING_URI=http://a:b@host",
        "export MLFLOW_REGISTRY_URI=http://other",
    ]


class _Trap:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)


def test_no_command_unpickles_anything(base_dir: Path, tmp_path: Path) -> None:
    marker = tmp_path / "unpickled"
    for folder in ("trained", "backups"):
        (base_dir / folder).mkdir()
        joblib.dump(_Trap(str(marker)), base_dir / folder / "lotto_model_x.pkl")
    shutil.copyfile(
        base_dir / "trained" / "lotto_model_x.pkl", base_dir / "trained" / "lotto_model_y.pkl"
    )
    at, x = ("--base-dir", base_dir), "lotto_model_x"
    for arguments in (
        ("sync", "--include-backups"), ("list",), ("show", x), ("show", "1"), ("latest",),
        ("latest", "--source", "registry"), ("compare", x, "lotto_model_y"), ("verify",),
        ("restore", x), ("restore", "1", "--source", "registry"), ("relocate",), ("env",),
        ("version",),
    ):  # fmt: skip
        assert call(*arguments, *at).exit_code == 0, arguments
    assert not marker.exists()
    joblib.load(base_dir / "trained" / "lotto_model_x.pkl")
    assert marker.exists(), "the trap is one"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",), ("version",), ("env",), ("list",), ("list", "--json"), ("latest",),
        ("show", "lotto_model_b"), ("compare", "lotto_model_b", LONG_NAME), ("check",),
        ("check", "--json"),
    ],
    ids=lambda arguments: "-".join(arguments)[:20],
)  # fmt: skip
def test_a_command_that_needs_no_mlflow_imports_nothing_heavy(
    saved_dir: Path, arguments: tuple[str, ...]
) -> None:
    heavy = (
        "mlflow", "sklearn", "joblib", "numpy", "pandas", "sqlalchemy", "requests", "pydantic",
        "filelock", "http", "ssl", "rich",
    )  # fmt: skip
    code = (
        "import atexit, sys; from lotto_mlflow.cli import main\n"
        f"sys.argv = ['lotto-mlflow', *{arguments!r}]\n"
        f"def found(): print([m for m in {heavy} if m in sys.modules], file=sys.stderr)\n"
        "atexit.register(found)\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"LOTTO_APP_DIR": str(saved_dir.parent / "app")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_a_shell_completes_commands_and_names(saved_dir: Path) -> None:
    words = f"lotto-mlflow show --base-dir {saved_dir} lotto_model_"
    completed = run(
        _LOTTO_MLFLOW_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split()) - 1),
    )
    assert completed.stdout.split() == sorted([LONG_NAME, "lotto_model_b"])
    commands = run(
        _LOTTO_MLFLOW_COMPLETE="complete_bash", COMP_WORDS="lotto-mlflow ", COMP_CWORD="1"
    )
    assert sorted(commands.stdout.split()) == COMMANDS


RESTORE = {"name_or_version": "내 모델", "source": "registry"}


@pytest.mark.parametrize(
    ("fix", "call", "command"),
    [
        (Fix("restore", RESTORE), "ModelManager.restore('내 모델', source='registry')",
         "lotto-mlflow restore '내 모델' --source registry"),
        (Fix("sync"), "ModelManager.sync()", "lotto-mlflow sync"),
        (Fix("sync", {"retry_aside": True}), "ModelManager.sync(retry_aside=True)",
         "lotto-mlflow sync --retry-aside"),
        (Fix("records"), "ModelManager.records()", "lotto-mlflow list"),
        (Fix("latest", {"source": "registry", "download": True}),
         "ModelManager.latest(source='registry', download=True)",
         "lotto-mlflow latest --source registry"),
        (Fix("shell", {"command": ("rm", "-r", Path("a 'b"))}), "rm -r 'a '\"'\"'b'",
         "rm -r 'a '\"'\"'b'"),
    ],
)  # fmt: skip
def test_a_fix_is_rendered_as_a_call_and_as_a_command(fix: Fix, call: str, command: str) -> None:
    assert fix.as_call() == call
    assert output.command_of(fix, None) == command


def test_a_fix_keeps_the_words_around_it_in_both_forms() -> None:
    fix = Fix("sync", {"resend": True}, before="delete it, then", effect="sends it")
    assert fix.in_words() == "delete it, then ModelManager.sync(resend=True) sends it"
    text = f"it is damaged; {fix.in_words()}"
    expected = "it is damaged; delete it, then `lotto-mlflow sync --resend` sends it"
    assert output.in_commands(text, fix, None, "`") == expected
    assert output.in_commands("nothing to do", None, None) == "nothing to do"
