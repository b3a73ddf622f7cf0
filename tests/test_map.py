"""The map of the house in CONTRIBUTING is the house: its rooms, floors and imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT_DIR = Path(__file__).parents[1]
PACKAGE_DIR = ROOT_DIR / "lotto_mlflow"
CONTRIBUTING = (ROOT_DIR / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
APART = ({"store", "mirror"},)
"""Rooms of one floor that never import each other."""
TRAVELLING = "pyfunc_loader"


def floors_in_contributing(text: str = CONTRIBUTING) -> dict[str, int]:
    """Return the floor of each room in the map.

    Raises
    ------
    ValueError
        If there is no map, or a room stands in it twice.
    """
    floors: dict[str, int] = {}
    for floor, room in re.findall(r"^\| (\d) \| `(\w+)/?` \| [^|]+ \|$", text, re.MULTILINE):
        if room in floors:
            raise ValueError(f"{room} stands on the map twice")
        floors[room] = int(floor)
    if not floors:
        raise ValueError("there is no map")
    return floors


def rooms_in(package_dir: Path) -> dict[str, list[Path]]:
    """Return the modules of each room: a module, or a package with what is inside it."""
    rooms: dict[str, list[Path]] = {}
    for path in sorted(package_dir.rglob("*.py")):
        room = path.relative_to(package_dir).with_suffix("").parts[0]
        rooms.setdefault(room, []).append(path)
    return rooms


def imports_between_rooms(package_dir: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield the module, its room and the imported room of each import across rooms."""
    rooms = rooms_in(package_dir)
    for room, paths in rooms.items():
        for path in paths:
            for name in _imported(path):
                parts = (*name.split("."), "__init__")
                other = parts[1] if parts[1] in rooms else "__init__"
                if parts[0] == package_dir.name and other != room:
                    yield path, room, other


def _imported(path: Path) -> Iterator[str]:
    """Yield each module imported anywhere in a file, ``from a import b`` as ``a.b``.

    Only the loader imports relatively: it travels under another name. It may import itself only.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 1 and path.parent.name == TRAVELLING:
                continue
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def wrong_imports(package_dir: Path, floors: dict[str, int]) -> list[str]:
    """Return the imports that go up, or between rooms that are to stay apart."""
    return sorted(
        f"{path.relative_to(package_dir)} on floor {floors[room]} imports {other} on "
        f"floor {floors[other]}"
        for path, room, other in set(imports_between_rooms(package_dir))
        if floors[other] > floors[room] or {room, other} in APART
    )


def circle_of_rooms(package_dir: Path) -> list[str]:
    """Return rooms that import each other in a circle; empty where there is none."""
    graph: dict[str, set[str]] = {}
    for _, room, other in imports_between_rooms(package_dir):
        graph.setdefault(room, set()).add(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def test_every_room_of_the_package_stands_on_the_map_and_no_other() -> None:
    assert set(floors_in_contributing()) == set(rooms_in(PACKAGE_DIR))


def test_every_import_goes_to_its_own_floor_or_a_lower_one() -> None:
    assert wrong_imports(PACKAGE_DIR, floors_in_contributing()) == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    assert circle_of_rooms(PACKAGE_DIR) == []


def test_the_rooms_named_for_likely_changes_are_there() -> None:
    section = CONTRIBUTING.partition("\n## For a likely change")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| [^|]+ \| (.+) \|$", section, re.MULTILINE)[1:]
    assert len(cells) == 11
    for cell in cells:
        named = [name.rstrip("/") for name in re.findall(r"`([a-z_]+(?:/[a-z_]*)?)`", cell)]
        assert named
        for name in named:
            path = PACKAGE_DIR / name
            assert path.is_dir() or path.with_suffix(".py").is_file(), name


def test_a_map_with_a_room_on_two_floors_is_refused() -> None:
    row = "| 1 | `store/` | keeps files |"
    assert floors_in_contributing(row) == {"store": 1}
    with pytest.raises(ValueError, match="store stands on the map twice"):
        floors_in_contributing(f"{row}\n| 2 | `store` | keeps files |")
    with pytest.raises(ValueError, match="there is no map"):
        floors_in_contributing("")


def test_imports_that_go_up_or_between_rooms_apart_or_in_a_circle_are_found(
    tmp_path: Path,
) -> None:
    """The checks are tried on a package with these faults, as the real one has none."""
    house = tmp_path / "house"
    sources = {
        "__init__.py": "from house.manager import Manager",
        "errors.py": "import os",
        "store/__init__.py": "from house import errors, mirror",
        "store/inside.py": "def lazily():\n    import house.manager",
        "mirror.py": "import house.errors",
        "journal.py": "from house.history import History",
        "history.py": "from house.journal import Journal",
        "manager.py": "from house import __version__\nfrom house.store import inside",
    }
    for name, source in sources.items():
        (house / name).parent.mkdir(parents=True, exist_ok=True)
        (house / name).write_text(source, encoding="utf-8")
    floors = {"errors": 0, "store": 3, "mirror": 3, "journal": 3, "history": 3, "manager": 6}
    assert wrong_imports(house, floors | {"__init__": 7}) == [
        "manager.py on floor 6 imports __init__ on floor 7",
        "store/__init__.py on floor 3 imports mirror on floor 3",
        "store/inside.py on floor 3 imports manager on floor 6",
    ]
    assert circle_of_rooms(house)
    (house / "journal.py").write_text("", encoding="utf-8")
    (house / "manager.py").write_text("import house.store", encoding="utf-8")
    (house / "store" / "inside.py").write_text("", encoding="utf-8")
    assert circle_of_rooms(house) == []
