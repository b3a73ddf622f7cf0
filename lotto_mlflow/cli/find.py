"""``list``, ``show``, ``latest``, ``compare``: what there is, without opening any model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lotto_mlflow import settings, text
from lotto_mlflow.cli import output, terminal
from lotto_mlflow.cli.application import (
    BaseDir,
    Debug,
    Json,
    Reference,
    References,
    app,
    base_dir_of,
    calling,
    manager_of,
    usage,
)
from lotto_mlflow.cli.output import epilog
from lotto_mlflow.cli.terminal import bar
from lotto_mlflow.errors import ModelNotFoundError
from lotto_mlflow.layout import Layout, is_lotto_model
from lotto_mlflow.manager import ModelManager
from lotto_mlflow.records import ModelRecord

_SORTS: dict[str, Callable[[ModelRecord], Any]] = {
    "saved_at": lambda record: record.saved_at_ns,
    "name": lambda record: record.name,
    "size": lambda record: record.size,
    "version": lambda record: record.version,
}
_Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", "-m", help="Show this metric, too; may be given several times."),
]
_Sort = Annotated[
    str,
    typer.Option(
        "--sort",
        help="saved_at, size, version or a metric, the largest first, or name from A to Z.",
    ),
]
_Reverse = Annotated[
    bool, typer.Option("--reverse", "-r", help="Turn the order round: the smallest loss first.")
]
_Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Show at most so many.")]
_Source = Annotated[
    Literal["filesystem", "registry"],
    typer.Option(
        "--source",
        help="Which view: the folder, or the registry, which has what all machines saved.",
    ),
]


@app.command(
    "list",
    short_help="List the models in trained/, the newest first.",
    epilog=epilog("list"),
)
def list_models(
    ctx: typer.Context,
    metric: _Metrics = None,
    sort: _Sort = "saved_at",
    reverse: _Reverse = False,
    limit: _Limit = None,
    source: _Source = "filesystem",
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the models in trained/, the newest first.

    The * marks the newest lotto_model_*, which is what latest finds. Aliases are read from the
    registry; where that is a server, MLflow is imported for it, which takes seconds. With --source
    registry, what the registry has is listed: of each name the newest save from each model folder,
    and the host that made it.
    """
    needs_runs = bool(metric) or sort not in _SORTS
    with calling():
        most = limit if (sort, reverse, needs_runs) == ("saved_at", False, False) else None
        records = _found(manager_of(ctx, base_dir), source, most, with_runs=needs_runs)
    newest = next((r for r in records if is_lotto_model(f"{r.name}.pkl")), None)
    for name in metric or []:
        _check_metric(ctx, records, name)
    chosen = _sorted(ctx, records, sort, reverse=reverse)[:limit]
    if as_json:
        output.print_json([output.values_of(record, newest=record is newest) for record in chosen])
    elif not chosen:
        terminal.note(f"there is no model in {_place(ctx, base_dir, source)} yet{_else(source)}")
    else:
        _print_list(chosen, newest, metric or [], has_hosts=source == "registry")


def _found(
    manager: ModelManager, source: Any, most: int | None, *, with_runs: bool
) -> list[ModelRecord]:
    """Return the models of a view; the registry, which knows their order, is asked for the most."""
    limit = most if source == "registry" else None
    return manager.records(limit=limit, source=source, with_runs=with_runs)


def _place(ctx: typer.Context, base_dir: Path | None, source: str) -> str:
    """Return where a view looks for models, in words."""
    is_disk = source == "filesystem"
    return str(base_dir_of(ctx, base_dir) / "trained") if is_disk else "the registry"


def _else(source: str) -> str:
    """Return what else can be asked, where this machine may only read what others save."""
    is_shared = source == "filesystem" and settings.read().tracking_uri is not None
    return "; --source registry asks what other machines saved" if is_shared else ""


def _check_metric(
    ctx: typer.Context, records: list[ModelRecord], name: str, others: Iterable[str] = ()
) -> None:
    known = [metric for record in records for metric in record.metrics]
    if records and name not in known:
        near = text.question(text.nearest(name, [*others, *known]))
        raise usage(f"no model has the metric {name!r}{near}", ctx)


def _sorted(
    ctx: typer.Context, records: list[ModelRecord], by: str, *, reverse: bool
) -> list[ModelRecord]:
    """Return records in order; those without a value come last, whichever way it goes."""
    if by not in _SORTS:
        _check_metric(ctx, records, by, _SORTS)
    key: Callable[[ModelRecord], Any] = _SORTS.get(by, lambda record: record.metrics.get(by))

    known = [record for record in records if key(record) is not None]
    unknown = [record for record in records if key(record) is None]
    is_descending = (by != "name") != reverse
    return [*sorted(known, key=key, reverse=is_descending), *unknown]


def _print_list(
    records: list[ModelRecord],
    newest: ModelRecord | None,
    metrics: list[str],
    *,
    has_hosts: bool,
) -> None:
    """Print a table; all that the registry has is mirrored, and there the host is of interest."""
    rows = [
        [
            record.name,
            output.time_as_text(record, "%Y-%m-%d %H:%M"),  # so that 80 columns do for the table
            output.size_of(record),
            *(output.number_as_text(record.metrics.get(metric)) for metric in metrics),
            output.NONE if record.version is None else str(record.version),
            output.aliases_as_text(record, "%Y-%m-%d"),
            (record.host or output.NONE)
            if has_hosts
            else ("no" if record.version is None else "yes"),
            "*" if record is newest else "",
        ]
        for record in records
    ]
    last = "host" if has_hosts else "mirrored"
    output.print_table(
        ["name", "saved at", "size", *metrics, "version", "aliases", last, ""],
        rows,
        right=["size", "version", *metrics],
        marked=[number for number, record in enumerate(records) if record is newest],
    )


@app.command(
    "show",
    short_help="Show all that is known of one model.",
    epilog=epilog("show"),
)
def show(
    ctx: typer.Context,
    reference: Reference,
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show all that is known of one model: where it lies, its metadata, parameters and metrics."""
    with calling():
        record = manager_of(ctx, base_dir).get(reference)
    layout = Layout.under(base_dir_of(ctx, base_dir))
    places = output.places_of(record, layout)
    if as_json:
        output.print_json(output.values_of(record, **places))
        return
    output.print_fields(
        [*_main_fields(record), *((k.replace("_", " "), v) for k, v in places.items() if v)]
    )
    for title, values in (
        ("parameters", {name: output.compact(v) for name, v in record.params.items()}),
        ("metrics", {name: output.number_as_text(v) for name, v in record.metrics.items()}),
        ("metadata", {k: output.compact(v) for k, v in (record.metadata or {}).items()}),
    ):
        if values:
            terminal.line()
            terminal.line(title)
            output.print_fields((f"  {name}", value) for name, value in values.items())


def _main_fields(record: ModelRecord) -> list[tuple[str, str]]:
    version = "not mirrored yet"
    if record.version is not None:
        version = f"{record.version} of {record.registered_model}"
    return [
        ("name", record.name),
        ("version", version),
        ("aliases", output.aliases_as_text(record)),
        ("saved at", output.time_as_text(record)),
        ("saved on", record.host or output.NONE),
        ("size", output.size_of(record)),
        ("sha256", record.sha256 or output.NONE),
        ("scikit-learn", record.sklearn_version or output.NONE),
        ("file", str(record.path or output.NONE)),
        ("run", record.run_id or output.NONE),
        ("logged model", record.model_id or output.NONE),
    ]


@app.command(
    "latest",
    short_help="Show the newest model and a file that holds it.",
    epilog=epilog("latest"),
)
def latest(
    ctx: typer.Context,
    source: _Source = "filesystem",
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the newest model, with the path of a file that holds it.

    From the registry, a file that is not in trained/ is downloaded and verified. Where there is no
    model, the exit code is 1.
    """
    with calling(), bar("downloading") as progress:
        record = manager_of(ctx, base_dir).latest(source=source, download=True, progress=progress)
    if record is None:
        where, other = _place(ctx, base_dir, source), _else(source)
        raise ModelNotFoundError(
            f"there is no model in {where} yet{other or '; save one'}", source=source
        )
    if as_json:
        output.print_json(output.values_of(record))
    else:
        output.print_fields(_main_fields(record))


@app.command(
    "compare",
    short_help="Set parameters and metrics of models side by side.",
    epilog=epilog("compare"),
)
def compare(
    ctx: typer.Context,
    references: References,
    base_dir: BaseDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Set models side by side: parameters and metrics, with a * where they differ."""
    if len(references) < 2:
        raise usage("give two models or more", ctx)
    with calling():
        manager = manager_of(ctx, base_dir)
        records = [manager.get(reference) for reference in references]
    params = _compared([record.params for record in records])
    metrics = _compared([record.metrics for record in records])
    if as_json:
        models = [output.values_of(record) for record in records]
        output.print_json({"models": models, "params": params, "metrics": metrics})
        return
    names = _headings(records)
    for title, rows, shown in (
        ("parameter", params, lambda v: output.NONE if v is None else output.compact(v)),
        ("metric", metrics, output.number_as_text),
    ):
        if rows:
            output.print_table(
                ["", title, *names],
                [
                    ["*" if row["differs"] else "", row["name"], *map(shown, row["values"])]
                    for row in rows
                ],
                marked=[number for number, row in enumerate(rows) if row["differs"]],
            )
            terminal.line()


def _headings(records: list[ModelRecord]) -> list[str]:
    """Return the names; where one comes twice, with its version, too."""
    names = [record.name for record in records]
    return [f"{r.name} ({r.version})" if names.count(r.name) > 1 else r.name for r in records]


def _compared(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each name that any model has, with every model's value, and whether they differ."""
    names = sorted({name for values in models for name in values})
    rows = [{"name": name, "values": [values.get(name) for values in models]} for name in names]
    return [row | {"differs": any(v != row["values"][0] for v in row["values"])} for row in rows]
