"""Train, save, look up and predict, and show where everything went."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from lotto_mlflow import LottoMlflowError, ModelManager
from lotto_mlflow.demo import draws, training

_SIMULATED_DRAWS = 600
_SEED = 645


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lotto_mlflow.demo", description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(".demo"), help="folder to work in")
    parser.add_argument("--draws", type=Path, help=f"CSV with {', '.join(draws.COLUMNS)}")
    arguments = parser.parse_args()
    try:
        return _run(arguments.directory.absolute(), arguments.draws)
    except LottoMlflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(directory: Path, csv_path: Path | None) -> int:
    history = _history(csv_path)
    base_dir = directory / "backend" / "app" / "models" / "ml"
    database_uri = f"sqlite:///{base_dir / 'mlflow' / 'mlflow.db'}"
    manager = ModelManager(base_dir, mirror="sync", tracking_uri=database_uri)
    features, drawn = draws.features(history)
    for name, classifier in training.classifiers(_SEED).items():
        model, metadata = training.evaluated(classifier, features, drawn)
        path = manager.save_model(model, metadata=metadata | {"estimator": name})
        print(
            f"{name:>10}: log loss {metadata['log_loss']:.4f} "
            f"(chance {metadata['log_loss_of_chance']:.4f}), "
            f"{metadata['hits_per_draw']:.2f} hits a draw "
            f"(chance {metadata['hits_per_draw_of_chance']:.2f})  ->  {path}"
        )
    print("No model beats chance here, and none can: what is managed is the models.\n")
    same = _show_both_views(manager)
    _predict(directory, database_uri, features[:3].tolist())
    _show_places(base_dir, database_uri)
    return 0 if same else 1


def _history(csv_path: Path | None) -> draws.Draws:
    if csv_path is not None:
        history = draws.read(csv_path)
        print(f"{len(history)} draws read from {csv_path}\n")
        return history
    print(f"{_SIMULATED_DRAWS} SIMULATED draws, six of 45 with seed {_SEED}: not real results\n")
    return draws.simulated(_SIMULATED_DRAWS, _SEED)


def _show_both_views(manager: ModelManager) -> bool:
    digests = set()
    for source in ("filesystem", "registry"):
        record = manager.latest(source=source)
        path = manager.get_latest_model_path(source=source)
        if record is None or path is None:
            print(f"latest in the {source}: none")
            return False
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        digests.add(digest)
        version = "" if record.version is None else f", version {record.version}"
        print(f"latest in the {source}: {record.name}{version}\n    SHA-256 {digest}")
    print("Both views hold the same bytes.\n" if len(digests) == 1 else "The views DIFFER.\n")
    return len(digests) == 1


def _predict(directory: Path, database_uri: str, rows: list[list[float]]) -> None:
    """Have MLflow's own command predict with the newest version, as anyone could."""
    request_path = directory / "request.json"
    request = {"inputs": rows, "params": {"predict_method": "predict_proba"}}
    request_path.write_text(json.dumps(request, indent=2), encoding="utf-8")
    command = ["mlflow", "models", "predict", "-m", "models:/lotto_model/latest"]
    command += ["-i", str(request_path), "--env-manager", "local"]
    print(f"$ MLFLOW_TRACKING_URI={database_uri} {' '.join(command)}")
    answer = subprocess.run(  # noqa: S603 - fixed arguments, no shell
        [sys.executable, "-m", *command],
        env=os.environ | {"MLFLOW_TRACKING_URI": database_uri},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        print(answer.stderr, file=sys.stderr)
        raise LottoMlflowError("mlflow models predict failed; what it said stands above")
    print(f"{answer.stdout.strip()}\n")


def _show_places(base_dir: Path, database_uri: str) -> None:
    print(f"models     {base_dir / 'trained'}")
    print(f"metadata   {base_dir / 'metadata'}")
    print(f"backups    {base_dir / 'backups'}")
    print(f"MLflow     {base_dir / 'mlflow'}")
    print("\nTo compare the runs, start the MLflow UI and open the link:")
    print(f"    {Path(sys.executable).with_name('mlflow')} ui --backend-store-uri {database_uri}")
    print("    http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning")


if __name__ == "__main__":
    raise SystemExit(main())
