"""Facts of live values as strict JSON: what is recorded of an input example and of a data set.

`lotto_mlflow.mirror.rebuilding` makes values of them again. Nothing here imports numpy, pandas or
scipy where the value is of none of them.
"""

from __future__ import annotations

from lotto_mlflow.facts.tables import ROWS, of
from lotto_mlflow.facts.values import instance_of

__all__ = ["ROWS", "instance_of", "of"]
