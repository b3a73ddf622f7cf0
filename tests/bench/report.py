"""Results: lines on the terminal, JSON, and from the JSON the tables and the plot of documents."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.figures import NOISE, TIMES
from bench.rows import ROWS
from bench.worker import REST

RESULTS_PATH = Path(__file__).with_name("results.json")
"""The figures that the documents show."""
PLOT_PATH = Path(__file__).with_name("results.png")
_HEADER = (
    "| | work | against | target | result (least to most) | medians | |",
    "|---|---|---|---|---|---|---|",
)
_SPEED_HEADER = ("| work | against | ratio of times |", "|---|---|---|")
_PEER_HEADER = (
    "| save and load of 100 MB | save | load | bytes written | fsyncs | renames | digest checked |",
    "|---|---|---|---|---|---|---|",
)
Results = dict[str, Any]


def read(path: Path, machine: dict[str, Any]) -> Results:
    """Return the results in a file, if they are of this machine; else none yet."""
    if path.exists():
        found: Results = json.loads(path.read_text(encoding="utf-8"))
        if found["machine"] == machine:
            return found
    return {"machine": machine, "rows": [], "peers": []}


def write(results: Results, path: Path) -> None:
    text = json.dumps(results, indent=1, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def put(results: Results, told: dict[str, Any]) -> None:
    """Add a row's figures, in place of earlier ones; rows stand in the order of the targets."""
    order = list(dict.fromkeys(row.id for row in ROWS))
    keys = ("id", "work", "against")
    others = [row for row in results["rows"] if any(row[key] != told[key] for key in keys)]
    results["rows"] = sorted([*others, told], key=lambda r: order.index(r["id"]))


def line(told: dict[str, Any]) -> str:
    """Return a row as the terminal shows it."""
    target, result, medians, judged = _cells(told)
    return f"{told['id']:4} {judged:10} {result:26} target {target:16} {medians:20} {told['work']}"


def _cells(told: dict[str, Any]) -> tuple[str, str, str, str]:
    target, result = told["target"], told["result"]
    unit = target["unit"] if target["unit"] == TIMES else f" {target['unit']}"
    sign = "≤" if target["at_most"] else "≥"
    spread = ""
    if result["rounds"] > 1:
        spread = f" ({_number(result['minimum'])} to {_number(result['maximum'])})"
    median = result["median"]
    # one more digit than the target has, so that a narrow miss does not look like a hit
    shown = f"{f'{median:.3f}' if abs(median) < 10 else _number(median)}{unit}{spread}"
    judged = told["verdict"]
    if judged == "too noisy":
        noise = max(side["noise"] for side in (told["ours"], told["base"]) if side)
        shown = f"none: spread {_number(noise)}{TIMES}"
    elif math.isnan(result["median"]):
        shown, judged = "not counted here", "unknown"
    sides = [told["ours"], told["base"]]
    medians = " / ".join(_number(side["median"]) for side in sides if side is not None)
    return f"{sign} {_number(target['limit'])}{unit}", shown, f"{medians} {told['unit']}", judged


def _number(value: float) -> str:
    """Return a number with three digits that count, and no more than two behind the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def tables(results: Results) -> str:
    """Return every result, for the benchmark's own document."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = list(_HEADER)
    for told in results["rows"]:
        target, result, medians, judged = _cells(told)
        work = f"{told['work']} | {told['against']}"
        lines.append(f"| {told['id']} | {work} | {target} | {result} | {medians} | {judged} |")
    if results.get("profile"):
        lines += ["", *_profile_lines(results["profile"])]
    if results["peers"]:
        lines += ["", *_PEER_HEADER, *map(_peer_line, results["peers"])]
    lines += [
        "",
        f"![Save and load of 100 MB]({PLOT_PATH.name})",
        "",
        f"Measured on {machine['cpus']} CPUs ({machine['cpu']}), {machine['system']}, "
        f"{machine['file_system']}, Python {machine['python']}, {versions}.",
    ]
    return "\n".join(lines)


def speed(results: Results) -> str:
    """Return the few ratios that the README shows."""
    shown = {(row.id, row.work, row.against) for row in ROWS if row.in_readme}
    lines = list(_SPEED_HEADER)
    for told in results["rows"]:
        if (told["id"], told["work"], told["against"]) in shown:
            ratio = f"{_number(told['result']['median'])}{TIMES}"
            judged = told["verdict"] if told["verdict"] == "too noisy" else ratio
            lines.append(f"| {told['work']} | {told['against']} | {judged} |")
    return "\n".join(lines)


def _profile_lines(sides: dict[str, dict[str, float]]) -> Iterator[str]:
    """Yield the table of a small save's parts, in shares of doing it by hand."""
    *_, last = sides.values()
    whole = sum(last.values())
    calls = list(dict.fromkeys(name for side in sides.values() for name in side if name != REST))
    yield f"| share of a save of 1 MB by hand, in a run | {' | '.join(sides)} |"
    yield f"|---|{'---|' * len(sides)}"
    for name in (*calls, REST):
        shares = (f"{side[name] / whole:.0%}" if name in side else "" for side in sides.values())
        yield f"| {name if name == REST else f'`{name}`'} | {' | '.join(shares)} |"
    in_all = (f"{sum(side.values()) / whole:.0%}" for side in sides.values())
    yield f"| in all | {' | '.join(in_all)} |"


def _peer_line(peer: dict[str, Any]) -> str:
    name = f"{peer['name']} {peer['version'] or ''}".strip()
    if peer["problem"]:
        return f"| {name} | {peer['problem']} | | | | | |"
    calls = peer["calls"] or {"fsyncs": "not counted", "renames": "not counted"}
    written = peer["written"]
    cells = [
        _timing(peer["save"]),
        _timing(peer["load"]),
        "not counted" if written is None else f"{_number(written)}{TIMES} the file",
        str(calls["fsyncs"]),
        str(calls["renames"]),
        peer["digest"],
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _timing(spread: dict[str, Any]) -> str:
    if spread["noise"] > NOISE:
        return f"too noisy, spread {_number(spread['noise'])}{TIMES}"
    least, most = _number(spread["minimum"]), _number(spread["maximum"])
    return f"{_number(spread['median'])} ms ({least} to {most})"


SECTIONS = {"bench": tables, "speed": speed}
"""What is written between the marks of each name."""


def marked(name: str, text: str) -> str:
    """Return a text between the marks of a section."""
    begin, end = _marks(name)
    return f"{begin}\n{text}\n{end}"


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def publish(results: Results, documents: Iterable[Path]) -> None:
    """Fill the sections of the documents, and put JSON and plot beside the harness."""
    write(results, RESULTS_PATH)
    plot(results, PLOT_PATH)
    for document in documents:
        text = document.read_text(encoding="utf-8")
        for name, section in SECTIONS.items():
            written = marked(name, section(results)).replace("\\", r"\\")
            text = re.sub(".*?".join(_marks(name)), written, text, flags=re.DOTALL)
        document.write_text(text, encoding="utf-8")


def plot(results: Results, path: Path) -> None:
    """Draw what each candidate takes, and how far each ratio is from its target."""
    from matplotlib.figure import Figure

    peers = [peer for peer in results["peers"] if not peer["problem"]]
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    *left, right = figure.subplots(1, 2 if peers else 1, squeeze=False)[0]
    if peers:
        _plot_peers(left[0], peers)
    compared = [r for r in results["rows"] if r["target"]["unit"] == TIMES and r["base"]]
    compared = [r for r in compared if r["verdict"] != "too noisy"]
    shares = [r["result"]["median"] / r["target"]["limit"] for r in compared]
    colours = ["#2ca02c" if r["verdict"] == "met" else "#d62728" for r in compared]
    right.barh(range(len(compared)), shares, color=colours)
    right.set_yticks(range(len(compared)), [_short(r) for r in compared], fontsize=8)
    right.invert_yaxis()
    right.axvline(1, color="black", linewidth=1)
    right.set_xlabel("share of what the target allows")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _plot_peers(axes: Any, peers: list[dict[str, Any]]) -> None:
    places = range(len(peers))
    for offset, key, colour in ((-0.2, "save", "#1f77b4"), (0.2, "load", "#ff7f0e")):
        medians = [peer[key]["median"] for peer in peers]
        axes.barh([p + offset for p in places], medians, 0.38, label=key, color=colour)
    axes.set_yticks(list(places), [peer["name"] for peer in peers])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("ms, 100 MB forest (median)")
    axes.legend()


def _short(told: dict[str, Any]) -> str:
    work = told["work"]
    return f"{told['id']} {work if len(work) < 34 else work[:33] + '…'}"
