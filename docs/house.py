"""The drawing of CONTRIBUTING.md: the rooms of plasm, which are its packages and modules, and what imports what.

Usage: python docs/house.py

writes docs/images/house.svg. A room stands above all that it imports. An arrow that others imply is not drawn.
"""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

from figures import BLUE, GRAY, Drawing

ROOT = Path(__file__).parents[1] / "plasm"
FILE = Path(__file__).parent / "images" / "house.svg"
NOT_DRAWN = ("__init__", "__main__", "_version")
"""The face, which imports and is imported by nobody; the command; what all may know."""
WIDTH, HEIGHT, ROW, PASSAGE = 104, 34, 84, 36


def _imported(file: Path) -> Iterator[str]:
    """Dotted names that a file imports, anywhere in it."""
    package = ["plasm", *file.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            yield from (".".join([*start, *filter(None, [node.module]), alias.name]) for alias in node.names)


def imports() -> dict[str, set[str]]:
    """Of each room, the others that it imports; ``__init__`` is the face, ``import plasm`` and what it takes of it."""
    found: dict[str, set[str]] = {entry.stem: set() for entry in sorted(ROOT.iterdir()) if _is_room(entry)}
    for file in ROOT.rglob("*.py"):
        room = file.relative_to(ROOT).with_suffix("").parts[0]
        for name in _imported(file):
            top, _, rest = f"{name}.".partition(".")
            if top == "plasm":
                found[room].add(rest.partition(".")[0] if rest.partition(".")[0] in found else "__init__")
    return {room: others - {room} for room, others in found.items()}


def _is_room(entry: Path) -> bool:
    return entry.suffix == ".py" or (entry / "__init__.py").is_file()


def levels(found: dict[str, set[str]]) -> dict[str, int]:
    """How high each room stands: above all that it imports.

    Raises:
        graphlib.CycleError: If imports lead in a circle.
    """
    heights: dict[str, int] = {}
    for room in TopologicalSorter(found).static_order():
        heights[room] = 1 + max((heights[other] for other in found[room]), default=-1)
    return heights


def arrows(found: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Who imports whom, without what follows from the other arrows."""
    below: dict[str, set[str]] = {}
    for room in TopologicalSorter(found).static_order():
        below[room] = found[room].union(*(below[other] for other in found[room]))
    return [
        (room, other)
        for room, others in sorted(found.items())
        for other in sorted(others)
        if not any(other in below[between] for between in others)
    ]


def draw() -> Drawing:
    """The house, its roof above."""
    found = {room: others.difference(NOT_DRAWN) for room, others in imports().items() if room not in NOT_DRAWN}
    heights, drawn = levels(found), arrows(found)
    rows: list[list[str]] = [[] for _ in range(1 + max(heights.values()))]
    for room, level in sorted(heights.items()):
        rows[level].append(room)
    # Where a long arrow passes a row it has a passage of its own, so that it crosses no room.
    paths = {}
    for room, other in drawn:
        passages = {level: f"{room} > {other} {level}" for level in range(heights[other] + 1, heights[room])}
        for level, passage in passages.items():
            rows[level].append(passage)
        paths[room, other] = [room, *(passages[level] for level in sorted(passages, reverse=True)), other]
    steps = [step for path in paths.values() for step in pairwise(path)]
    near = {each: [a if b == each else b for a, b in steps if each in (a, b)] for row in rows for each in row}
    width = {each: PASSAGE if " > " in each else WIDTH + 24 for each in near}
    widest = max(sum(width[each] for each in row) for row in rows)
    x: dict[str, float] = {}

    def spread(row: list[str]) -> None:
        left, gap = 0.0, (widest - sum(width[each] for each in row)) / len(row)
        for each in row:
            x[each] = left + (width[each] + gap) / 2
            left += width[each] + gap

    for row in rows:
        spread(row)
    for _ in range(12):
        # Each goes to the middle of those that it has an arrow to or from.
        for row in (*rows, *reversed(rows)):
            row.sort(key=lambda each: (sum(x[other] for other in near[each]) / max(1, len(near[each])), each))
            spread(row)
    y = {each: (len(rows) - level - 0.5) * ROW for level, row in enumerate(rows) for each in row}
    drawing = Drawing(int(widest), len(rows) * ROW)
    boxes = {
        room: drawing.box(x[room], y[room], room, BLUE if (ROOT / room).is_dir() else GRAY, width=WIDTH, height=HEIGHT)
        for room in sorted(found)
    }
    for path in paths.values():
        middle = [(x[each], y[each] + side) for each in path[1:-1] for side in (-HEIGHT / 2, HEIGHT / 2)]
        drawing.arrow(boxes[path[0]].bottom, *middle, boxes[path[-1]].top)
    return drawing


def stale() -> bool:
    """Whether the file is not what this program draws."""
    return not FILE.exists() or FILE.read_text(encoding="utf-8") != draw().svg()


def main() -> int:
    """Draw it."""
    FILE.write_text(draw().svg(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
