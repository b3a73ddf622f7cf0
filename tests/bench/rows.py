"""The targets: what is done, what it is held against, and how far it may go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.figures import Target

Measure = Literal["warm", "fresh", "import", "memory", "bytes", "sync", "p99"]


@dataclass(frozen=True)
class Side:
    """One side of a comparison: an operation, on an object, in a folder of some kind.

    Attributes
    ----------
    operation : str
        ``module:function``; for an import, the module.
    object : str or None
        A name in `bench.objects.OBJECTS`.
    folder : str
        ``new``, ``versions_N`` (N models, mirrored, most without their files in MLflow),
        ``mirrored_N`` (N saves of 1 MB, whole in both views), ``copied_N`` (a copy of
        ``versions_N``, to add to) or ``files_N`` (N old files).
    """

    operation: str
    object: str | None = None
    folder: str = "new"


@dataclass(frozen=True)
class Row:
    """One target.

    Attributes
    ----------
    id, work, against : str
        What is done, and what it is held against.
    target : bench.figures.Target
        How far it may go.
    ours, base : Side
        The two sides; without a base the figure stands alone.
    measure : str
        How it is measured.
    rounds : int
        How often both sides take their turn.
    times : int
        How often a side runs in its turn; more than once where one run is too short to time.
    per_model : bool
        Whether the time of one model counts: that of a run, divided by the ``models`` it returns.
    in_readme : bool
        Whether the README shows the ratio.
    """

    id: str
    work: str
    against: str
    target: Target
    ours: Side
    base: Side | None = None
    measure: Measure = "warm"
    rounds: int = 15
    times: int = 1
    per_model: bool = False
    in_readme: bool = False


_BY_HAND = "joblib.dump + fsync, then MLflow's best"
_IN_A_RUN = f"{_BY_HAND} in a run with the same parameters and metrics"
_JSON_AND_SAVE = "two JSON files + fsync, and a save of the same tiny model, mirrored"
_MANY = 10_000


def _save(name: str) -> Side:
    return Side("ours:save", name)


ROWS = (
    Row(
        "P1",
        "save, 100 MB forest, mirrored",
        _BY_HAND,
        Target(0.65),
        _save("forest_100mb"),
        Side("by_hand:dump_and_best", "forest_100mb"),
    ),
    Row(
        "P1",
        "save, 100 MB forest, mirrored",
        _IN_A_RUN,
        Target(0.65),
        _save("forest_100mb"),
        Side("by_hand:dump_and_best_in_run", "forest_100mb"),
        in_readme=True,
    ),
    Row(
        "P1",
        "save, 100 MB array, mirrored",
        _BY_HAND,
        Target(0.65),
        _save("array_100mb"),
        Side("by_hand:dump_and_best", "array_100mb"),
    ),
    Row(
        "P2",
        "save, 1 MB forest, mirrored",
        _IN_A_RUN,
        Target(0.9),
        _save("forest_1mb"),
        Side("by_hand:dump_and_best_in_run", "forest_1mb"),
        rounds=25,
        in_readme=True,
    ),
    Row(
        "P3",
        "save, 100 MB forest, mirrored in the background, until it returns",
        "joblib.dump + fsync",
        Target(1.15),
        Side("ours:save_in_background", "forest_100mb"),
        Side("by_hand:dump_durably", "forest_100mb"),
    ),
    Row(
        "P4",
        "save, 100 MB forest, mirrored",
        "joblib.dump, then MLflow's cloudpickle with inferred requirements",
        Target(0.07),
        _save("forest_100mb"),
        Side("by_hand:dump_and_inferred", "forest_100mb"),
        rounds=5,
    ),
    Row(
        "P5",
        "load of a path, 100 MB forest, verified",
        "SHA-256 of the file, then joblib.load",
        Target(1.1),
        Side("ours:load", "forest_100mb"),
        Side("by_hand:load_verified", "forest_100mb"),
        in_readme=True,
    ),
    Row(
        "P6",
        "load of models:/lotto_model/latest, 1 MB forest, 10,000 versions",
        "the same with 1 version",
        Target(1.2),
        Side("ours:load_latest", folder=f"versions_{_MANY}"),
        Side("ours:load_latest", folder="versions_1"),
        rounds=25,
        times=3,
    ),
    Row(
        "P7",
        "load of models:/lotto_model/latest, 1 MB forest, 10,000 versions",
        "mlflow.pyfunc.load_model of the same",
        Target(0.3),
        Side("ours:load_latest", folder=f"versions_{_MANY}"),
        Side("by_hand:pyfunc_latest", folder=f"versions_{_MANY}"),
        rounds=7,
    ),
    Row(
        "P8",
        "get_latest_model_path(), 100 files",
        "scandir, stat, max",
        Target(1.3),
        Side("ours:newest", folder="files_100"),
        Side("by_hand:newest", folder="files_100"),
        rounds=25,
        times=50,
    ),
    Row(
        "P8",
        "get_latest_model_path(), 10,000 files",
        "scandir, stat, max",
        Target(1.3),
        Side("ours:newest", folder=f"versions_{_MANY}"),
        Side("by_hand:newest", folder=f"versions_{_MANY}"),
        rounds=25,
        times=3,
    ),
    Row(
        "P9",
        'get_latest_model_path(source="registry"), 10,000 versions',
        "the same with 1 version",
        Target(1.3),
        Side("ours:newest_of_registry", folder=f"versions_{_MANY}"),
        Side("ours:newest_of_registry", folder="versions_1"),
        rounds=25,
        times=3,
    ),
    Row(
        "P10",
        "save, 1 MB forest, with 10,000 models and versions there",
        "the same with none",
        Target(1.2),
        Side("ours:save", "forest_1mb", f"copied_{_MANY}"),
        _save("forest_1mb"),
        rounds=25,
        in_readme=True,
    ),
    Row(
        "P11",
        "import lotto_mlflow, whole process",
        "import joblib, whole process",
        Target(0.4),
        Side("lotto_mlflow"),
        Side("joblib"),
        "import",
        rounds=25,
    ),
    Row(
        "P12",
        "fresh process, 1 MB forest: import, save, exit",
        "the same by hand with MLflow's best in a run",
        Target(1.0),
        _save("forest_1mb"),
        Side("by_hand:dump_and_best_in_run", "forest_1mb"),
        "fresh",
        rounds=9,
    ),
    Row(
        "P13",
        "memory that a save adds at its peak, 100 MB forest",
        "that of joblib.dump",
        Target(32, unit="MB more"),
        _save("forest_100mb"),
        Side("by_hand:dump", "forest_100mb"),
        "memory",
        rounds=3,
    ),
    Row(
        "P13",
        "memory that a save adds at its peak, 1 GB array",
        "that of joblib.dump",
        Target(32, unit="MB more"),
        _save("array_1gb"),
        Side("by_hand:dump", "array_1gb"),
        "memory",
        rounds=1,
    ),
    Row(
        "P14",
        "bytes written by a mirrored save, 100 MB forest",
        "the model's file",
        Target(2.05),
        _save("forest_100mb"),
        None,
        "bytes",
        rounds=1,
    ),
    Row(
        "P15",
        "sync of 1,000 old files of 100 kB",
        "nothing",
        Target(12, at_most=False, unit="a second"),
        Side("ours:sync", folder="files_1000"),
        None,
        "sync",
        rounds=1,
    ),
    Row(
        "P16",
        "verify of 1,000 models of 1 MB",
        "hashlib's SHA-256 over the same files, one thread",
        Target(1.2),
        Side("ours:verify", folder="mirrored_1000"),
        Side("by_hand:hash_files", folder="mirrored_1000"),
        rounds=7,
        in_readme=True,
    ),
    Row(
        "P16",
        "verify of 1,000 models of 1 MB, per model",
        "the same with 100",
        Target(1.3),
        Side("ours:verify", folder="mirrored_1000"),
        Side("ours:verify", folder="mirrored_100"),
        rounds=7,
        per_model=True,
    ),
    Row(
        "P17",
        "records() of 10,000 models, per model",
        "the same with 100",
        Target(1.3),
        Side("ours:records", folder=f"versions_{_MANY}"),
        Side("ours:records", folder="versions_100"),
        per_model=True,
    ),
    Row(
        "P17",
        "records() of 10,000 models, per model",
        "nothing",
        Target(0.2, unit="ms"),
        Side("ours:records", folder=f"versions_{_MANY}"),
        per_model=True,
    ),
    Row(
        "P18",
        "get(name), 10,000 models",
        "the same with 10",
        Target(1.3),
        Side("ours:get", folder=f"versions_{_MANY}"),
        Side("ours:get", folder="versions_10"),
        rounds=25,
        times=10,
    ),
    Row(
        "P18",
        "load of a path, forest of 5 trees, 10,000 models",
        "the same with 10",
        Target(1.3),
        Side("ours:load_oldest", folder=f"versions_{_MANY}"),
        Side("ours:load_oldest", folder="versions_10"),
        rounds=25,
        times=10,
    ),
    Row(
        "P19",
        "record_prediction of a draw whose result is known",
        _JSON_AND_SAVE,
        Target(1.0),
        Side("ours:record_prediction", "tiny"),
        Side("by_hand:json_twice_and_save", "tiny"),
        rounds=25,
    ),
    Row(
        "P19",
        "record_result of a draw with a prediction",
        _JSON_AND_SAVE,
        Target(1.0),
        Side("ours:record_result", "tiny"),
        Side("by_hand:json_twice_and_save", "tiny"),
        rounds=25,
    ),
    Row(
        "P20",
        "99th percentile of 10,000 predictions by 8 threads, 1 MB forest, across 50 swaps",
        "the same without swaps",
        Target(1.2),
        Side("serving_live:with_swaps", "forest_1mb"),
        Side("serving_live:without_swaps", "forest_1mb"),
        "p99",
        rounds=7,
    ),
    *(
        Row(
            "P21",
            f"save on disk, {size} forest, signed",
            "the same without a key",
            Target(15, unit="ms more"),
            Side("ours:save_signed", name),
            Side("ours:save_on_disk", name),
            rounds=25,
        )
        for size, name in (("1 MB", "forest_1mb"), ("100 MB", "forest_100mb"))
    ),
    Row(
        "P21",
        "import of model-signing, once a process, beside the dump",
        "import joblib, whole process",
        Target(8.0),
        Side("model_signing.verifying"),
        Side("joblib"),
        "import",
    ),
    *(
        Row(
            "P22",
            f"load of a path, {size} forest, its signature verified",
            "the same without trusted keys",
            Target(15, unit="ms more"),
            Side("ours:load_signed", name),
            Side("ours:load", name),
            rounds=25,
        )
        for size, name in (("1 MB", "forest_1mb"), ("100 MB", "forest_100mb"))
    ),
)


def chosen(ids: str) -> list[Row]:
    """Return the rows that a list such as ``P1,P6`` names, or all; ``none`` for none.

    Raises
    ------
    ValueError
        If there is no such row.
    """
    wanted = {part.strip().upper() for part in ids.split(",") if part.strip()}
    unknown = wanted - {row.id for row in ROWS} - {"NONE"}
    if unknown:
        known = ", ".join(dict.fromkeys(row.id for row in ROWS))
        raise ValueError(f"no such row: {', '.join(sorted(unknown))}; there are {known}")
    return [row for row in ROWS if not wanted or row.id in wanted]
