"""What a kind of record is: its three functions, and what the verification of one may ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotto_mlflow.draws import Draw
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.journal import Entry, State
from lotto_mlflow.predicted import NamedPredictions, Predictions
from lotto_mlflow.records import PRUNE, Finding, MlflowIds, Note, Record
from lotto_mlflow.settings import Target

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Mirror


UNDER_WAY: tuple[State, ...] = ("pending", "committed", "begun", "aside")
"""States of records whose work is not done."""


def going(history: History) -> set[str]:
    """Return the ids of the saves that were decided to go, and are not gone yet."""
    found = (history.read(entry) for entry in history.entries() if entry.state in UNDER_WAY)
    return {r.payload.save_id for r in found if r is not None and r.kind == PRUNE}


class Verification:
    """What the verification of one record may ask.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    history : History
        Its records.
    target : Target
        The current tracking store.
    mirror : Mirror or None
        The MLflow view there, ``None`` where MLflow cannot be asked.
    """

    def __init__(
        self, folder: ModelFolder, history: History, target: Target, mirror: Mirror | None
    ) -> None:
        self.folder = folder
        self.history = history
        self.target = target
        self.mirror = mirror
        self.survey = None if mirror is None else mirror.survey()

    @cached_property
    def going(self) -> set[str]:
        """The ids of the saves that were decided to go, and are not gone yet."""
        return going(self.history)

    @cached_property
    def found_predictions(self) -> Predictions:
        """The predictions and results."""
        return Predictions(self.folder.journal)

    @cached_property
    def results(self) -> dict[int, Draw]:
        """What was drawn, by draw."""
        return self.found_predictions.results()

    @cached_property
    def predictions(self) -> dict[str, NamedPredictions]:
        """The predictions of each model for each draw, by the name of their records."""
        found = self.found_predictions.all_named()
        return {of_name.kept[0][1].name: of_name for of_name in found}


@dataclass(frozen=True)
class Kind:
    """The three functions of one kind of record.

    Attributes
    ----------
    recover : callable
        ``recover(folder, entry, record, work_dir)`` finishes or drops what a dead process left.
    push : callable or None
        ``push(folder, mirror, record, is_begun, note, work_dir)`` brings it to MLflow and returns
        the ids there, ``None`` where there is nothing to bring. ``is_begun`` says whether an
        earlier push of the record may have got somewhere; ``note`` writes into the record what a
        push created.
    verify : callable
        ``verify(verification, entry, record)`` yields the findings about it.
    waits : callable or None
        ``waits(folder, record, target_name)`` says whether a push has to wait for another record.
    leaves_record : bool
        Whether the record stays in ``sent/`` once it is pushed.
    """

    recover: Callable[[ModelFolder, Entry, Record[Any], Path], None]
    push: Callable[[ModelFolder, Mirror, Record[Any], bool, Note, Path], MlflowIds | None] | None
    verify: Callable[[Verification, Entry, Record[Any]], Iterator[Finding]]
    waits: Callable[[ModelFolder, Record[Any], str], bool] | None = None
    leaves_record: bool = True
