"""Add up the figures that the fault tests left, and print them as a table."""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
HEADER = (
    "| fault | tried | lost here | the same with `joblib.dump` and MLflow alone |",
    "|---|---|---|---|",
)


def added_up(folder: Path) -> dict[str, dict[str, int]]:
    """Return the sums of the figures in a folder, by title."""
    sums: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for path in sorted(folder.glob("*.json")):
        numbers = json.loads(path.read_text(encoding="utf-8"))
        title = numbers.pop("title")
        for name, number in numbers.items():
            sums[title][name] += number
    return sums


def table(sums: dict[str, dict[str, int]]) -> str:
    """Return the sums as a Markdown table."""
    rows = list(HEADER)
    for title in sorted(sums):
        numbers = sums[title]
        plain = "does not apply"
        if numbers.get("plain_tried"):
            plain = f"{numbers.get('plain_lost', 0):,} of {numbers['plain_tried']:,} lost"
        steps = f" ({numbers['steps']:,} steps)" if "steps" in numbers else ""
        tried = f"{numbers['tried']:,}{steps}"
        rows.append(f"| {title} | {tried} | {numbers['lost']:,} | {plain} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table there, too")
    arguments = parser.parse_args()
    text = table(added_up(arguments.folder))
    print(text)
    if arguments.write is not None:
        document = arguments.write.read_text(encoding="utf-8")
        between = f"{re.escape(BEGIN)}.*?{re.escape(END)}"
        written = re.sub(between, f"{BEGIN}\n{text}\n{END}", document, flags=re.DOTALL)
        arguments.write.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
