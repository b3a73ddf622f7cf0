"""Print what the tests with servers measured, as tables, and put them into the README."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

SECTIONS = {
    "measured": ("| measured on this set-up | figure |", "|---|---|"),
    "counted": ("| counted | figure |", "|---|---|"),
}


def tables(folder: Path) -> dict[str, str]:
    """Return the figures in a folder as Markdown tables, by section."""
    rows = {section: list(header) for section, header in SECTIONS.items()}
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        rows[found["section"]].append(f"| {found['what']} | {found['figure']} |")
    return {section: "\n".join(lines) for section, lines in rows.items()}


def write(texts: dict[str, str], path: Path) -> None:
    """Put the tables between their marks in a document."""
    document = path.read_text(encoding="utf-8")
    for section, text in texts.items():
        begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
        assert begin in document, f"{path} has no place for {section}"
        between = f"{re.escape(begin)}.*?{re.escape(end)}"
        put = f"{begin}\n{text}\n{end}"
        document = re.sub(between, lambda _, put=put: put, document, flags=re.DOTALL)
    path.write_text(document, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables there, too")
    arguments = parser.parse_args()
    texts = tables(arguments.folder)
    print("\n\n".join(texts.values()))
    if arguments.write is not None:
        write(texts, arguments.write)


if __name__ == "__main__":
    main()
