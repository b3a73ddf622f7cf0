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
    ├── InvalidPredictionError      (ValueError)   a draw, games or scores that are none
    ├── InvalidResultError          (ValueError, OSError)  a result, or a file of them, that is none
    ├── NotPicklableError           (TypeError)    a LiveModel given to pickle or copy
    ├── DumpError                   (OSError)      joblib could not write the model
    ├── StoreError                  (OSError)      the disk refused a step of the save
    ├── LoadError                   (OSError)      joblib could not read the model
    │   ├── UntrustedModelError                    nothing that is trusted knows its digest
    │   ├── SignatureError                         a signature that is missing, or not trusted
    │   ├── DigestMismatchError                    the bytes are not the ones that were saved
    │   ├── PickleNotAllowedError                  MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false
    │   └── ForeignModelError                      a version that this package did not make
    ├── ModelNotFoundError          (FileNotFoundError)    no such file, name or version
    ├── ModelInUseError             (OSError)      a version that an alias, or another one, needs
    ├── SyncRunningError            (OSError)      another sync of the folder is running
    ├── PromotionRefusedError                      a model that is not better than the one in use
    ├── AliasMovedError                            somebody else moved the alias meanwhile
    ├── LaterReleaseError           (OSError)      the folder is kept by a later release
    ├── LaterFormatError            (ValueError)   a record that a later release wrote
    ├── MissingExtraError           (ImportError)  a library of an extra that is not installed
    ├── RelocationError             (OSError)      a store that cannot be relocated
    └── MirrorError                 (OSError)      MLflow refused what it was asked
        └── MirrorUnavailableError                 MLflow could not be asked
            └── OtherSchemaError                   its database is of another release
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lotto_mlflow.text import safe_line, shell_command

POSITIONAL = ("name_or_version", "reference", "model", "csv")
"""Arguments of methods that are given without their name, to a method and to a command alike."""


@dataclass(frozen=True)
class Fix:
    """What helps against an error or a finding, as data that each surface renders.

    Attributes
    ----------
    verb : str
        Method of `lotto_mlflow.ModelManager`, or ``shell`` for a command of the system.
    arguments : mapping of str to object
        The method's arguments by name; of ``shell``, the words of the ``command``.
    before : str
        Words before the call, such as what has to be done first, by hand.
    effect : str
        Words after it, such as what it does.
    """

    verb: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    before: str = ""
    effect: str = ""

    def as_call(self) -> str:
        """Return the call in Python, or the command of the system."""
        if self.verb == "shell":
            return shell_command(str(word) for word in self.arguments["command"])
        given = [
            repr(value) if name in POSITIONAL else f"{name}={value!r}"
            for name, value in self.arguments.items()
        ]
        return f"ModelManager.{self.verb}({', '.join(given)})"

    def in_words(self, call: str | None = None) -> str:
        """Return the sentence around the call, which a surface may give in words of its own."""
        before, effect = safe_line(self.before), safe_line(self.effect)
        return f"{before} {call or self.as_call()} {effect}".strip()


class LottoMlflowError(Exception):
    """Base of every error of this package.

    Parameters
    ----------
    summary : str
        What happened, and to which file.
    fix : Fix, optional
        What to do next; without it the summary says so, where there is something to do.
    **data : object
        Facts about the failure; each becomes an attribute of the error.

    Attributes
    ----------
    message : str
        The summary and the fix.

    Notes
    -----
    The message is one safe line, whatever it quotes: names, paths, what another library said. The
    facts are as they were given, and so is an error that caused this one.

    Only the finished message goes to ``super().__init__``, because ``OSError`` reads two
    arguments as an error number and its text.
    """

    def __init__(self, summary: str, *, fix: Fix | None = None, **data: Any) -> None:
        summary = safe_line(summary)
        joint = "" if summary.endswith("?") else ";"
        message = summary if fix is None else f"{summary}{joint} {fix.in_words()}"
        super().__init__(message)
        self.summary = summary
        self.fix = fix
        self.message = message
        self.data = data
        for name, value in data.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.summary, self.fix, self.data)


def _rebuild(
    kind: type[LottoMlflowError], summary: str, fix: Fix | None, data: dict[str, Any]
) -> LottoMlflowError:
    return kind(summary, fix=fix, **data)


class SettingsError(LottoMlflowError, ValueError):
    """A setting has a value that is not allowed."""


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


class InvalidPredictionError(LottoMlflowError, ValueError):
    """A draw number, games, scores or a time that no prediction can have; nothing was recorded."""


class InvalidResultError(LottoMlflowError, ValueError, OSError):
    """A result that no draw can have, or a file of results with one; nothing was recorded."""


class NotPicklableError(LottoMlflowError, TypeError):
    """A `lotto_mlflow.LiveModel` is of its process, and is neither pickled nor copied."""


class DumpError(LottoMlflowError, OSError):
    """``joblib.dump`` failed; the folder is as it was."""


class StoreError(LottoMlflowError, OSError):
    """The file system refused a step of the work; the message says what is in place."""


class LoadError(LottoMlflowError, OSError):
    """A model file could not be turned into an object."""


class UntrustedModelError(LoadError):
    """Nothing that the settings trust knows the digest of a file; nothing was unpickled."""


class SignatureError(LoadError):
    """No trusted key signed a model, its name, or what comes with it; nothing was unpickled."""


class DigestMismatchError(LoadError):
    """A file's bytes differ from the ones that were saved; nothing was unpickled."""

    @classmethod
    def of_file(
        cls,
        path: Path,
        expected: Iterable[str],
        found: str,
        outcome: str,
        fix: Fix | None,
    ) -> DigestMismatchError:
        """Return the error for a file.

        Parameters
        ----------
        path : pathlib.Path
            The file.
        expected : iterable of str
            The digests that it may have.
        found : str
            The digest that it has.
        outcome : str
            What was not done because of it.
        fix : Fix or None
            What helps.
        """
        digests = " or ".join(sorted(expected))
        return cls(
            f"{path} is damaged, it was changed after it was saved: expected SHA-256 {digests}, "
            f"found {found}; {outcome}",
            fix=fix,
            path=path,
            expected=digests,
            found=found,
        )


class PickleNotAllowedError(LoadError):
    """``MLFLOW_ALLOW_PICKLE_DESERIALIZATION`` forbids opening a mirrored model."""


class ForeignModelError(LoadError):
    """A model version that was not made by this package."""


class ModelNotFoundError(LottoMlflowError, FileNotFoundError):
    """There is no such model file, name, version or alias."""


class ModelInUseError(LottoMlflowError, OSError):
    """A save cannot be removed: an alias stands for its version, or another version needs it."""


class SyncRunningError(LottoMlflowError, OSError):
    """Another process is bringing the same folder into MLflow."""


class PromotionRefusedError(LottoMlflowError):
    """A model is not as much better than the holder of an alias as was asked for."""


class AliasMovedError(LottoMlflowError):
    """Somebody else moved an alias between a decision and its move; this one was not made."""


class LaterReleaseError(LottoMlflowError, OSError):
    """The folder's records are of a format that only a later release may change."""


class LaterFormatError(LottoMlflowError, ValueError):
    """A record is of a format or a kind that only a later release reads; it is left alone."""


class MissingExtraError(LottoMlflowError, ImportError):
    """A library that an extra of this package brings is not installed; nothing was done."""


class RelocationError(LottoMlflowError, OSError):
    """The embedded store is not there, or does not hold what can be relocated."""


class MirrorError(LottoMlflowError, OSError):
    """MLflow answered, and refused."""


class MirrorUnavailableError(MirrorError):
    """MLflow could not be reached, or did not answer in time."""


class OtherSchemaError(MirrorUnavailableError):
    """The database was made by another release of MLflow."""
