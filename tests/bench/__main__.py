"""Measure the targets, print each with its result, and write what came out as JSON."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bench import machine, peering, profile, report, rows
from bench.measuring import Rooms, measure
from bench.processes import WorkError

ROOT_DIR = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rows", default="", help="ids such as P1,P6, or none; all by default")
    parser.add_argument("--cache", type=Path, default=ROOT_DIR / ".bench")
    parser.add_argument("--peers", action="store_true", help="install and measure the peers, too")
    parser.add_argument(
        "--write", type=Path, nargs="+", metavar="FILE", help="put the tables there, too"
    )
    arguments = parser.parse_args()
    cache_dir = arguments.cache.absolute()
    cache_dir.mkdir(parents=True, exist_ok=True)
    results_path = cache_dir / "results.json"
    kept = report.read(results_path, machine.described(cache_dir))
    try:
        wanted = rows.chosen(arguments.rows)
    except ValueError as cause:
        parser.error(str(cause))
    for row in wanted:
        for told in _measured(row, Rooms(cache_dir, cache_dir / "work")):
            print(report.line(told), flush=True)
            report.put(kept, told)
            report.write(kept, results_path)
    if any(row.id == "P2" for row in wanted):
        kept["profile"] = profile.measured(Rooms(cache_dir, cache_dir / "work"))
        report.write(kept, results_path)
    if arguments.peers:
        kept["peers"] = peering.measure_all(cache_dir, install=True)
        report.write(kept, results_path)
    if arguments.write is not None:
        report.publish(kept, arguments.write)
    return 0


def _measured(row: rows.Row, rooms: Rooms) -> list[dict[str, Any]]:
    try:
        return measure(row, rooms)
    except WorkError as cause:
        print(f"{row.id} could not be measured: {cause}", file=sys.stderr)
        return []


if __name__ == "__main__":
    sys.exit(main())
