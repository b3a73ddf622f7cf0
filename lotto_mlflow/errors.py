"""Every exception that this package raises on purpose.

::

    LottoMlflowError
    ├── SettingsError               (ValueError)   a setting with an unknown value
    ├── InvalidModelError           (ValueError)   None given as the model
    ├── InvalidNameError            (ValueError)   a model name that both views cannot hold
    ├── InvalidReferenceError       (ValueError)   a models:/ URI or version that is not one
    ├── InvalidArtifactError        (ValueError, OSError)  an extra artifact that cannot be written
    ├── InvalidDatasetError         (ValueError, OSError)  a data set that is not one
    ├── InvalidMetadataError        (ValueError, OSError)  metadata that is not strict JSON
    ├── DumpError                   (OSError)      joblib could not write the model
    ├── StoreError                  (OSError)      the disk refused a step of the save
    ├── LoadError                   (OSError)      joblib could not read the model
    │   ├── DigestMismatchError                    the bytes are not the ones that were saved
    │   ├── PickleNotAllowedError                  MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false
    │   └── ForeignModelError                      a version that this package did not make
    ├── ModelNotFoundError          (FileNotFoundError)    no such file, name or version
    ├── SyncRunningError            (OSError)      another sync of the folder is running
    ├── RelocationError             (OSError)      a store that cannot be relocated
    └── MirrorError                 (OSError)      MLflow refused what it was asked
        └── MirrorUnavailableError                 MLflow could not be asked
            └── OtherSchemaError                   its database is of another release
"""

from __future__ import annotations

from typing import Any


class LottoMlflowError(Exception):
    """Base of every error of this package.

    Parameters
    ----------
    message : str
        What happened, to which file, and what to do next.
    **data : object
        Facts about the failure; each becomes an attribute of the error.

    Notes
    -----
    Only the finished message goes to ``super().__init__``, because ``OSError`` reads two
    arguments as an error number and its text.
    """

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data = data
        for name, value in data.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.data)


def _rebuild(kind: type[LottoMlflowError], message: str, data: dict[str, Any]) -> LottoMlflowError:
    return kind(message, **data)


class SettingsError(LottoMlflowError, ValueError):
    """A setting has a value that it does not take."""


class InvalidModelError(LottoMlflowError, ValueError):
    """The model given to a save is ``None``."""


class InvalidNameError(LottoMlflowError, ValueError):
    """A model name that is not one plain file name accepted by disk and registry alike."""


class InvalidReferenceError(LottoMlflowError, ValueError):
    """A ``models:/`` URI, or another reference to a model, that has none of the known forms."""


class InvalidArtifactError(LottoMlflowError, ValueError, OSError):
    """An entry of ``artifacts`` that cannot be written as a file."""


class InvalidDatasetError(LottoMlflowError, ValueError, OSError):
    """A value of ``dataset`` that is no data set, or a name that none can have."""


class InvalidMetadataError(LottoMlflowError, ValueError, OSError):
    """Metadata that cannot be written as strict JSON."""


class DumpError(LottoMlflowError, OSError):
    """``joblib.dump`` failed; the folder is as it was."""


class StoreError(LottoMlflowError, OSError):
    """The file system refused a step of the work; the folder is as it was."""


class LoadError(LottoMlflowError, OSError):
    """A model file could not be turned into an object."""


class DigestMismatchError(LoadError):
    """A file's bytes differ from the ones that were saved; nothing was unpickled."""


class PickleNotAllowedError(LoadError):
    """``MLFLOW_ALLOW_PICKLE_DESERIALIZATION`` forbids opening a mirrored model."""


class ForeignModelError(LoadError):
    """A model version that was not made by this package."""


class ModelNotFoundError(LottoMlflowError, FileNotFoundError):
    """There is no such model file, name, version or alias."""


class SyncRunningError(LottoMlflowError, OSError):
    """Another process is bringing the same folder into MLflow."""


class RelocationError(LottoMlflowError, OSError):
    """The embedded store is not there, or does not hold what can be relocated."""


class MirrorError(LottoMlflowError, OSError):
    """MLflow answered, and refused."""


class MirrorUnavailableError(MirrorError):
    """MLflow could not be reached, or did not answer in time."""


class OtherSchemaError(MirrorUnavailableError):
    """The database was made by another release of MLflow."""
