"""What the README says is run, and found true; so are the links of the other documents."""

from __future__ import annotations

import builtins
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from matplotlib import image
from serving import environment, free_port, served
from sklearn.linear_model import LogisticRegression

import lotto_mlflow.errors
from lotto_mlflow import ModelManager, settings
from lotto_mlflow.errors import ModelNotFoundError

ROOT = Path(__file__).parents[1]
DOCUMENTS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        "mlruns_example/README.md",
        "tests/bench/README.md",
        "tests/faults/README.md",
        ".github/CONTRIBUTING.md",
        ".github/OPERATIONS.md",
        ".github/COMMANDS.md",
        ".github/CHANGELOG.md",
        ".github/SECURITY.md",
        ".github/RELEASING.md",
    )
}
README = DOCUMENTS["README.md"]


def blocks(language: str, document: str = README) -> list[str]:
    """Return the code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", document, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a reader has run the Python blocks, and then those on operations."""
    folder = tmp_path_factory.mktemp("reader")
    code = [*blocks("python"), *blocks("python", DOCUMENTS[".github/OPERATIONS.md"])]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        cwd=folder,
        env=os.environ | {"HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_its_python_blocks_run_one_after_the_other(followed: Path) -> None:
    assert len(blocks("python")) >= 4
    base_dir = followed / "backend" / "app" / "models" / "ml"
    assert (base_dir / "mlflow" / "mlflow.db").exists()
    (korean,) = (base_dir / "metadata").glob("*_*_*_*_metadata.json")
    assert json.loads(korean.read_text(encoding="utf-8"))["설명"] == "첫 모델"


@pytest.mark.timeout(600)
def test_its_server_saves_and_has_pushed_everything_when_it_ends(tmp_path: Path) -> None:
    """The block is the whole app, but for the model; uvicorn runs it with two workers."""
    (app,) = (block for block in blocks("python") if "FastAPI" in block)
    base_dir = tmp_path / "app" / "models" / "ml"
    model = LogisticRegression().fit([[0.0, 1.0], [1.0, 0.0]], [0, 1])
    ModelManager(base_dir, mirror="off").save_model(model, "lotto_model_first", {"draws": 1})
    imported = "from sklearn.linear_model import LogisticRegression\nmodel = LogisticRegression()\n"
    (tmp_path / "readme_app.py").write_text(imported + app, encoding="utf-8")
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "readme_app:app", "--app-dir", str(tmp_path)]
    command += ["--port", str(port), "--workers", "2", "--log-level", "warning"]
    settings = {"LOTTO_MIRROR": "background", "LOTTO_APP_DIR": str(tmp_path / "app")}
    url, log_path = f"http://127.0.0.1:{port}", tmp_path / "log.txt"
    with served(command, f"{url}/openapi.json", log_path, **settings), httpx.Client() as client:
        assert (base_dir / "mlflow" / "mlflow.db").exists()  # before the first request
        asked = client.post(f"{url}/predict", json=[[0.0, 1.0], [1.0, 0.0]], timeout=120)
        answers = [client.post(f"{url}/models", timeout=120) for _ in range(6)]
    assert asked.json() == {"model": "lotto_model_first", "predictions": [0, 1]}
    assert [answer.status_code for answer in answers] == [200] * 6, log_path.read_text()
    assert os.listdir(base_dir / "mlflow" / "outbox") == [], log_path.read_text()
    versions = {record.path: record.version for record in ModelManager(base_dir).records()}
    assert sorted(versions.values()) == list(range(1, 8))
    first = base_dir / "trained" / "lotto_model_first.pkl"
    assert {str(path) for path in versions} - {str(first)} == {a.json() for a in answers}


def test_mlflows_commands_print_what_it_says(followed: Path) -> None:
    """The block is typed into a shell as it is, but for the port."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl to ask with")
    (block,) = (block for block in blocks("console") if "mlflow models" in block)
    typed = block.replace("5001", str(free_port())).replace("\\\n", "")
    lines = re.sub(r"\n    ", " ", typed).splitlines()
    script = "\n".join(line[2:] for line in lines if line.startswith("$ "))
    with (followed / "log.txt").open("w") as log:
        shell = subprocess.Popen(
            ["bash", "-e", "-c", f"{script}\nkill $!"],
            cwd=followed,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = shell.communicate(timeout=240)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, 15)
            shell.wait(30)
    assert shell.returncode == 0, (followed / "log.txt").read_text()
    said = re.sub(r"INFO: .*\n", "", said)  # the server's own lines
    assert said.replace("\n", "") == "".join(line for line in lines if not line.startswith("$ "))


def test_a_week_of_retraining_ends_with_the_model_that_was_better(followed: Path) -> None:
    """The commands of the section are typed as they are, after its Python block."""
    (block,) = (block for block in blocks("console") if "lotto-mlflow promote" in block)
    script = "\n".join(line[2:] for line in block.splitlines())
    shell = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=followed,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert shell.returncode == 0, shell.stdout + shell.stderr
    assert "LOTTO_MLFLOW OK" in shell.stdout
    manager = ModelManager(followed / "backend" / "app" / "models" / "ml")
    champion = manager.get("models:/lotto_model@champion")
    assert champion.name == "lotto_model_frequency"
    moves = [(move.kind, move.to and move.to.version) for move in manager.history()]
    assert moves == [("promote", champion.version), ("promote", 1), ("rollback", champion.version)]
    with pytest.raises(ModelNotFoundError, match="of wrong draws"):
        manager.get(1)
    assert {record.version for record in manager.records()} == {2, 3}
    assert manager.verify() == []


def test_its_commands_for_signed_models_have_each_save_signed(tmp_path: Path) -> None:
    """They are typed as they are, but for the serving, before a save and loads."""
    (block,) = (block for block in blocks("console") if "keys new" in block)
    typed = [line[2:] for line in block.splitlines() if "lotto-mlflow serve" not in line]
    saving = (
        "import joblib; from lotto_mlflow import load_model, save_model\n"
        "path = save_model({'a': 1}, metadata={'b': 2}); print(load_model(path))\n"
        "print(load_model('models:/lotto_model/latest')); joblib.dump({'a': 3}, path)\n"
        "try: load_model(path)\n"
        "except OSError as error: print(type(error).__name__)"
    )
    script = "\n".join([*typed, f'{sys.executable} -c "{saving}"'])
    shell = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env=environment() | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shell.returncode == 0, shell.stdout + shell.stderr
    assert shell.stdout.splitlines()[-3:] == ["{'a': 1}", "{'a': 1}", "SignatureError"]
    kept = os.listdir(tmp_path / "backend" / "app" / "models" / "ml" / "mlflow" / "signatures")
    assert sorted(name.rpartition(".")[2] for name in kept) == ["json", "sig"]
    verify = ["lotto-mlflow", "verify", "models:/lotto_model/1"]
    script = "\n".join([*typed[1:], " ".join(verify)])
    subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env=environment() | {"HOME": str(tmp_path)},
        check=True,
    )


def test_its_pictures_are_there_and_are_what_the_tests_take() -> None:
    linked = re.findall(r"^!\[[^\]]+\]\(([^)]+)\)", README, flags=re.MULTILINE)
    takers = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "browser").glob("test_*.py")
    )
    assert linked
    for name in linked:
        path = ROOT / name
        assert path.parent == ROOT / "mlruns_example" / "screenshots"
        assert f'take("{path.stem}"' in takers
        pixels = image.imread(path)[::4, ::4]
        assert pixels.shape[1] >= 200
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 50


def test_it_names_every_setting_with_the_values_it_takes() -> None:
    for name in ("LOTTO_APP_DIR", "LOTTO_TIMEZONE", "LOTTO_MIRROR"):
        assert f"| `{name}` |" in README
    for mode in settings.MIRROR_MODES:
        assert f"`{mode}`" in README


def test_the_errors_that_are_named_exist_and_are_what_is_said() -> None:
    page = DOCUMENTS[".github/OPERATIONS.md"]
    rows = re.findall(r"^\| ((?:`\w+Error`(?:, )?)+) \| ([^|]+) \|", page, flags=re.MULTILINE)
    assert rows
    for names, bases in rows:
        for name in re.findall(r"\w+", names):
            kind = getattr(lotto_mlflow.errors, name)
            for base in re.findall(r"`(\w+)`", bases):
                assert issubclass(kind, getattr(builtins, base))


def test_the_make_targets_that_documents_name_are_listed_by_make_help() -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    targets = {line.split()[0] for line in listed.splitlines()}
    for text in DOCUMENTS.values():
        named = re.findall(r"(?:`|\$ )make ([a-z-]+)", text)
        assert set(named) <= targets


def test_what_ci_installs_from_debian_is_named() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    packages = re.findall(r"missing\+=\((\S+)\)", script)
    assert packages
    for package in packages:
        assert f"`{package}`" in README
        assert f"| `{package}` |" in DOCUMENTS[".github/CONTRIBUTING.md"]


def test_it_is_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) <= 250


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_links_of_a_document_lead_to_files(name: str) -> None:
    folder = (ROOT / name).parent
    for target in re.findall(r"\]\(([^)#:]+)\)", DOCUMENTS[name]):
        assert (folder / target).exists(), target


def test_the_readme_leads_to_every_other_document() -> None:
    linked = set(re.findall(r"\]\(([^)]+\.md)\)", README))
    assert set(DOCUMENTS) - linked == {"README.md", ".github/RELEASING.md"}
    assert "](RELEASING.md)" in DOCUMENTS[".github/CONTRIBUTING.md"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_has_no_private_words(name: str) -> None:
    """Each costs a newcomer a minute; code is left out, as keys and names stay."""
    prose = " ".join(re.sub(r"```.*?```|`[^`]+`", "", DOCUMENTS[name], flags=re.DOTALL).split())
    private = r"in force|told|tells|held|in the way|mends?|settles?|tak(?:es?|en) back|put away"
    assert re.findall(rf"\b(?:{private})\b", prose) == []
