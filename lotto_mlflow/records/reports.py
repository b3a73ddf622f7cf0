"""What maintenance answers: findings, the report of a sync, the state of health."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lotto_mlflow.errors import Fix
from lotto_mlflow.text import safe_line


@dataclass
class SyncReport:
    """What a sync did, or would do.

    Attributes
    ----------
    sent : list of str
        Names of the saves that were sent, in save order.
    backfilled : list of str
        Names of the files among them that no save knew.
    resent : list of str
        Names of the saves among them that had been deleted or damaged in MLflow.
    found : list of str
        Names of the saves that were in MLflow already, where their records did not say: renamed,
        copied, or pushed to the same store by another address. Nothing is sent for them.
    failed : dict of str to str
        Reason for each save that MLflow refused, for each file that was changed after it was
        saved, and for each file of a prediction that cannot be read, by name.
    dry_run : bool
        Whether nothing was done.
    fixes : dict of str to Fix
        The call that helps, for each of `failed` where one does.
    predictions : list of str
        Predictions whose figures were sent, as ``NAME@DRAW``.
    recorded : list of str
        Files of predictions, made by other programs, that were brought in.
    """

    sent: list[str] = field(default_factory=list)
    backfilled: list[str] = field(default_factory=list)
    resent: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    dry_run: bool = False
    fixes: dict[str, Fix] = field(default_factory=dict)
    predictions: list[str] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)

    def fail(self, name: str, reason: str, fix: Fix | None) -> None:
        """Note a save or file that was not sent, and what helps."""
        self.failed[name] = safe_line(reason)
        if fix is not None:
            self.fixes[name] = fix


@dataclass
class SignReport:
    """What was signed of a save that was there already.

    Attributes
    ----------
    name : str
        The model.
    path : pathlib.Path
        The file whose bytes were compared with the record of the save.
    save_id : str
        The save.
    sha256 : str
        Digest of its bytes.
    signed_at : str or None
        When it was signed, ISO 8601; ``None`` where that was when it was saved.
    key : str
        The key: SHA-256 of its public key in PEM, by which signatures name it.
    is_new : bool
        Whether it was signed now; false where this key had signed it before.
    stores : list of str
        Tracking stores in which the signature lies beside the model now.
    failed : dict of str to str
        Why it does not in others that have the model, by their names; sign it again then.
    """

    name: str
    path: Path
    save_id: str
    sha256: str
    signed_at: str | None
    key: str
    is_new: bool
    stores: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def fail(self, store: str, reason: str) -> None:
        """Note a store in which the signature does not lie."""
        self.failed[store] = safe_line(reason)


@dataclass(frozen=True)
class MigrateReport:
    """What a migration to another store did.

    Attributes
    ----------
    to : str
        The store, its secrets masked.
    sent : list of str
        Names of the saves that were sent now, in save order.
    backfilled : list of str
        Names of the files among them that no save knew.
    found : list of str
        Names of the saves that were there already, where their records did not say.
    aliases : list of str
        Aliases that were set now, as ``REGISTERED_MODEL@ALIAS``.
    moves : int
        Moves of aliases that were copied now.
    notes : int
        Tags and descriptions of people that were copied now.
    predictions : list of str
        Predictions whose figures were sent now, as ``NAME@DRAW``.
    verified : int
        Versions there whose bytes have the digest of their save.
    left : dict of str to str
        What stays behind, such as an alias of a version that this package did not make, and why.
    failed : dict of str to str
        What could not be migrated, and why, by name of the save, version or alias; the next
        migration tries it again.
    fixes : dict of str to Fix
        The call that helps, for each of `failed` where one does.
    """

    to: str
    sent: list[str] = field(default_factory=list)
    backfilled: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    moves: int = 0
    notes: int = 0
    predictions: list[str] = field(default_factory=list)
    verified: int = 0
    left: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    fixes: dict[str, Fix] = field(default_factory=dict)


FindingKind = Literal[
    "unsigned",
    "bad signature",
    "unknown key",
    "rolled back",
    "damaged",
    "changed",
    "missing on disk",
    "missing in MLflow",
    "orphan metadata",
    "orphan artifact",
    "orphan prediction",
    "stuck record",
    "moved store",
    "moved version",
    "clock in the future",
    "same name",
    "late on top",
    "changed outside",
    "mlflow unavailable",
    "no model",
    "too old",
    "waiting",
    "other scikit-learn",
    "little room",
    "not looked at",
]


@dataclass(frozen=True)
class Finding:
    """One difference between disk, records and MLflow, or what a check warns of.

    Attributes
    ----------
    kind : str
        ``damaged``: bytes that are not the ones saved, or a record that cannot be read.
        ``changed``: metadata that is not the one saved. ``missing on disk``: a save whose bytes
        are in neither folder. ``missing in MLflow``: a save or file that the current store
        lacks. ``orphan metadata``: metadata without its model. ``orphan artifact``: a folder that
        no logged model owns. ``orphan prediction``: a file of a prediction, or of results, that no
        record is of. ``stuck record``: a save that MLflow refused, or one that was deleted from
        another store, and is in this one still. ``moved store``: a database with the paths of
        another folder. ``moved version``: a save whose version has another name or number than its
        record says, renamed or copied with MLflow.
        ``clock in the future``: a file that will stay the latest. ``same name``: a file whose name
        is another's in another form of Unicode. ``late on top``: the highest version is an older
        save. ``changed outside``: an alias that stands for another version than its last recorded
        move says. ``mlflow unavailable``: the other view could not be looked at.
        Where only what is signed is trusted, ``unsigned``: no signature is there; ``bad
        signature``: it does not fit, or bytes, name, metadata or requirements are not those that
        were signed; ``unknown key``: the key of the signature is not trusted; ``rolled back``: the
        latest is older than one that this host has seen.
        Of a check alone are ``no model``: there is none, or none with that alias; ``too old``;
        ``waiting``: a record that has waited for MLflow for over an hour; ``other scikit-learn``:
        another minor version is installed than the model was saved with; ``little room``: the disk
        may have none for another save; ``not looked at``: something could not be checked.
    name : str
        The model, if it is about one.
    path : pathlib.Path or None
        The file or folder.
    detail : str
        What was found.
    repair : str
        What to do, in one sentence; the fix in words, where there is one.
    fix : Fix or None
        The call that fixes it, as data.
    """

    kind: FindingKind
    name: str
    path: Path | None
    detail: str
    repair: str = ""
    fix: Fix | None = None

    def __post_init__(self) -> None:
        repair = safe_line(self.repair) if self.fix is None else self.fix.in_words()
        object.__setattr__(self, "detail", safe_line(self.detail))
        object.__setattr__(self, "repair", repair)


HealthStatus = Literal["ok", "warning", "critical", "unknown"]


@dataclass(frozen=True)
class Health:
    """How a folder of models is, as a check found it.

    Attributes
    ----------
    status : {"ok", "warning", "critical", "unknown"}
        The worst of what was found; ``unknown``, where something could not be looked at, is worse
        than a warning.
    message : str
        The same on one line, in the form in which monitoring plug-ins answer: the status, what is
        the matter, and after ``|`` the figures with their limits.
    findings : tuple of Finding
        What was found, the worst first. Some that a deep check adds need nothing to be done, and
        leave the status as it is.
    metrics : mapping of str to float or None
        ``age_seconds`` of the model, and ``max_age_seconds``, the limit; ``waiting``, how many
        records wait for MLflow, and ``waiting_seconds``, how long the first of them has;
        ``size_bytes`` of the newest model's file, and ``free_bytes`` on the disk. ``None`` is what
        is not known.
    """

    status: HealthStatus
    message: str
    findings: tuple[Finding, ...] = ()
    metrics: Mapping[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", safe_line(self.message))
