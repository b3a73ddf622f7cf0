"""Make a copy of the example store that can be looked at and changed.

Run by ``make ui``; the tests use it, too. A clone gives every file the time of the checkout, and
the newest model on disk is the one with the newest time: the copy's models get their times back.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
from pathlib import Path

from lotto_mlflow import ModelManager, records

EXAMPLE_DIR = Path(__file__).resolve().parent
FOLDERS = ("trained", "metadata", "backups", "mlflow")


def prepare(target_dir: Path, source_dir: Path = EXAMPLE_DIR) -> ModelManager:
    """Copy the store, and make the copy one that was never moved.

    Parameters
    ----------
    target_dir : pathlib.Path
        Folder of the copy; a copy that is there is replaced.
    source_dir : pathlib.Path
        The store.

    Returns
    -------
    ModelManager
        Of the copy. Its database has the paths of where it lies, and the schema of the installed
        MLflow; its models have the times of their saves.
    """
    for folder in FOLDERS:
        shutil.rmtree(target_dir / folder, ignore_errors=True)
        shutil.copytree(source_dir / folder, target_dir / folder)
    give_times(target_dir)
    manager = manager_of(target_dir)
    manager.relocate()
    manager.sync()  # sends nothing, and upgrades the database on its way
    return manager


def manager_of(base_dir: Path) -> ModelManager:
    """Return a manager of a folder's own store, whatever store the environment names."""
    uri = f"sqlite:///{base_dir.absolute() / 'mlflow' / 'mlflow.db'}"
    return ModelManager(base_dir, mirror="sync", tracking_uri=uri, registry_uri=uri)


def give_times(base_dir: Path) -> int:
    """Give each model file the time at which it was saved; return how many there are."""
    found = (base_dir / "mlflow" / "sent").glob("*.json")
    saves = [record for path in found if (record := records.parse(path.read_bytes())).is_save]
    times = {save.payload.sha256: save.payload.file_time_ns for save in saves}
    paths = [*(base_dir / "trained").glob("*.pkl"), *(base_dir / "backups").glob("*.pkl")]
    for path in paths:
        time_ns = times[hashlib.sha256(path.read_bytes()).hexdigest()]
        os.utime(path, ns=(time_ns, time_ns))
    return len(paths)


def main() -> None:
    """Prepare the copy that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target_dir", type=Path)
    prepare(parser.parse_args().target_dir.absolute())


if __name__ == "__main__":
    main()
