"""Names to paths and back.

A name is one, whatever normal form of Unicode it comes in: here it is composed. A file keeps the
form that it has on disk; of a name that is not of ASCII the disk is asked which one that is.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from lotto_mlflow import regular
from lotto_mlflow.errors import InvalidNameError
from lotto_mlflow.records import MlflowIds
from lotto_mlflow.text import composed

PREFIX = "lotto_model_"
"""Files that begin with it are versions of the registered model `REGISTERED_MODEL`."""
REGISTERED_MODEL = "lotto_model"
SUFFIX = ".pkl"
METADATA_SUFFIX = "_metadata.json"
PREDICTION_SUFFIX = ".json"
STATEMENT_SUFFIX = ".json"
SIGNATURE_SUFFIX = ".sig"
MAX_NAME_BYTES = 200
"""A file name holds 255 bytes; the longest one made here adds 55 to the model's name."""

_FORBIDDEN = frozenset('/\\:*?"<>|@#%')
"""Not plain in file names, or not in the URIs by which MLflow names versions and artifacts."""
_LONGEST_NAME_BYTES = 250
"""A file name holds 255 bytes, ``.pkl`` included; other programs leave no room for more."""
_BACKUP_NUMBER = re.compile(r"\.([2-9]|[1-9]\d+)$")


def check_name(name: object) -> str:
    """Return the name in composed form, if both disk and registry can hold it.

    Parameters
    ----------
    name : str
        Name of a model, without ``.pkl``.

    Raises
    ------
    InvalidNameError
        If it is not a plain file name. Nothing has been touched.
    """
    problem = _problem(name)
    if problem:
        shown = f" {name!r:.200}" if isinstance(name, str) else ""
        raise InvalidNameError(
            f"model_name{shown} {problem}; give one plain file name without {SUFFIX}, "
            "such as 'lotto_model_20251103'",
            name=name,
        )
    assert isinstance(name, str)  # noqa: S101 - for the type checker; _problem has seen to it
    return composed(name)


def is_name(name: object) -> bool:
    """Return whether `check_name` would return the name."""
    return _problem(name) is None


def is_plain(name: str) -> bool:
    """Return whether a name is one plain file name, whether or not a save would accept it."""
    is_one_name = bool(name) and not {"/", "\\", "\0"} & set(name) and not name.startswith(".")
    return is_one_name and len(name.encode("utf-8", "surrogatepass")) <= _LONGEST_NAME_BYTES


def _problem(name: object) -> str | None:
    if not isinstance(name, str):
        return f"is {type(name).__name__}, not str"
    if not name.strip():
        return "is empty"
    if name.startswith("."):
        return "begins with a dot"
    if name != name.strip() or name.endswith("."):
        return "begins or ends with a space, or ends with a dot"
    if name.lower().endswith(SUFFIX):
        return f"ends with {SUFFIX}, which is added to the name"
    bad = sorted({c for c in name if c in _FORBIDDEN or unicodedata.category(c) in ("Cc", "Cs")})
    if bad:
        return f"contains {', '.join(map(repr, bad))}"
    if len(composed(name).encode("utf-8")) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes in UTF-8"
    return None


def registered_model(name: str) -> str:
    """Return the registered model that a model of this name is a version of."""
    if name.startswith(PREFIX):
        return REGISTERED_MODEL
    return f"{name}{SUFFIX}" if name == REGISTERED_MODEL else name


def registered_model_of(ids: MlflowIds | None, name: str) -> str:
    """Return the registered model of a save: the one in its record, else the one of its name."""
    recorded = None if ids is None else ids.registered_model
    return recorded or registered_model(name)


def is_lotto_model(file_name: str) -> bool:
    """Return whether a file name matches ``lotto_model_*.pkl``, the specification's pattern."""
    return file_name.startswith(PREFIX) and file_name.endswith(SUFFIX)


def name_of(path: Path) -> str:
    """Return the name of the model in a file of ``trained/``."""
    return composed(path.name.removesuffix(SUFFIX))


def name_of_backup(path: Path) -> str:
    """Return the name of the model in a file of ``backups/``, without the backup's number."""
    return _BACKUP_NUMBER.sub("", name_of(path))


def backup_names(name: str, number: int) -> str:
    """Return the stem of the n-th backup of a model, counted from 1."""
    return name if number == 1 else f"{name}.{number}"


def _in(folder: Path, stem: str, suffix: str) -> Path:
    return regular.as_named(folder / f"{composed(stem)}{suffix}")


@dataclass(frozen=True)
class Layout:
    """The folders, and the paths inside them.

    Attributes
    ----------
    trained_dir, metadata_dir, backup_dir : pathlib.Path
        The specification's folders.
    """

    trained_dir: Path
    metadata_dir: Path
    backup_dir: Path

    @classmethod
    def under(cls, base_dir: Path) -> Layout:
        """Return the layout of the folder that holds ``trained/`` and the others."""
        return cls(base_dir / "trained", base_dir / "metadata", base_dir / "backups")

    @property
    def predictions_dir(self) -> Path:
        """Folder of the predictions that are shown, and of the results of the draws."""
        return self.metadata_dir / "predictions"

    @property
    def prediction_backup_dir(self) -> Path:
        """Folder of the predictions that were shown before."""
        return self.backup_dir / "predictions"

    @property
    def results_path(self) -> Path:
        """File of the results of the draws."""
        return self.predictions_dir / "results.csv"

    def prediction_path(self, model: str, draw_no: int) -> Path:
        """File of the prediction of a model for a draw."""
        return self.predictions_dir / f"{model}_{draw_no}{PREDICTION_SUFFIX}"

    @property
    def mlflow_dir(self) -> Path:
        """The adapter's own folder, beside ``trained/``."""
        return self.trained_dir.parent / "mlflow"

    @property
    def format_path(self) -> Path:
        """File that says in which format the folder's records are."""
        return self.mlflow_dir / "format.json"

    @property
    def database_path(self) -> Path:
        """Database of the embedded tracking store."""
        return self.mlflow_dir / "mlflow.db"

    @property
    def aliases_path(self) -> Path:
        """File of what each alias was last seen to stand for."""
        return self.mlflow_dir / "aliases.json"

    @property
    def artifacts_dir(self) -> Path:
        """Artifacts of tracking stores that have no server of their own."""
        return self.mlflow_dir / "artifacts"

    def model_dir(self, model_id: str) -> Path:
        """Folder of a logged model in the embedded store."""
        return self.artifacts_dir / REGISTERED_MODEL / "models" / model_id / "artifacts"

    def run_dir(self, run_id: str) -> Path:
        """Folder of the artifacts of a run in the embedded store."""
        return self.artifacts_dir / REGISTERED_MODEL / run_id / "artifacts"

    @property
    def downloads_dir(self) -> Path:
        """Verified copies of models that lie only in the registry."""
        return self.mlflow_dir / "downloads"

    @property
    def clock_path(self) -> Path:
        """File whose modification time is that of the newest save."""
        return self.mlflow_dir / "clock"

    @property
    def signatures_dir(self) -> Path:
        """What is signed of each save, and the signatures."""
        return self.mlflow_dir / "signatures"

    def statement_path(self, save_id: str) -> Path:
        """File of what is signed of a save."""
        return self.signatures_dir / f"{save_id}{STATEMENT_SUFFIX}"

    def signature_path(self, save_id: str) -> Path:
        """File of the signature of a save."""
        return self.signatures_dir / f"{save_id}{SIGNATURE_SUFFIX}"

    @property
    def own_dirs(self) -> tuple[Path, ...]:
        """Folders that whoever writes models may write to: no key in them is trusted."""
        return self.trained_dir.parent, self.trained_dir, self.metadata_dir, self.backup_dir

    @property
    def aside_dir(self) -> Path:
        """Folder of what is damaged, where no lookup meets it."""
        return self.mlflow_dir / "aside"

    @property
    def tmp_dir(self) -> Path:
        """Workspaces of living processes."""
        return self.mlflow_dir / "tmp"

    @property
    def swept_dirs(self) -> tuple[Path, ...]:
        """Folders in which a dead process may have left a hidden file for one that it replaces."""
        shown = (self.predictions_dir, self.prediction_backup_dir)
        return (self.trained_dir, self.metadata_dir, self.backup_dir, *shown)

    def model_path(self, name: str) -> Path:
        """File of a model in ``trained/``."""
        return _in(self.trained_dir, name, SUFFIX)

    def metadata_path(self, name: str) -> Path:
        """Metadata of a model in ``metadata/``."""
        return _in(self.metadata_dir, name, METADATA_SUFFIX)

    def backup_path(self, stem: str) -> Path:
        """File of a model in ``backups/``."""
        return _in(self.backup_dir, stem, SUFFIX)

    def backup_metadata_path(self, stem: str) -> Path:
        """Metadata of a model in ``backups/``."""
        return _in(self.backup_dir, stem, METADATA_SUFFIX)

    def aside_path(self, stem: str) -> Path:
        """Path of a damaged model that was replaced."""
        return self.aside_dir / f"{stem}{SUFFIX}"

    def aside_metadata_path(self, stem: str) -> Path:
        """Path of the metadata of a damaged model that was replaced."""
        return self.aside_dir / f"{stem}{METADATA_SUFFIX}"
