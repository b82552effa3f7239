"""Names of files in the order that people count in."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

__all__ = ["consecutive_runs", "natural_key"]

# Numbers of so many digits may be times.
_DATES = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
# Of fewer names nothing can be told.
_FEWEST = 3
_CLOCKS = {4: "%H%M", 6: "%H%M%S"}


def natural_key(path: Path | str) -> list[tuple[int, str | int]]:
    """Sort key by which frame 10 comes after frame 9."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def consecutive_runs(names: Sequence[str]) -> list[range]:
    """Parts of a sequence of names between which numbers are missing, or what stands around the numbers changes.

    Names whose numbers follow no rule, or that have several numbers that change, are left together. Numbers that are
    times are read as such: 0055 is followed by 0100.

    Args:
        names: Of frames, in order, without endings.

    Returns:
        Of each part the range of its indices; together they are all.
    """
    whole = [range(len(names))]
    parts = [re.split(r"(\d+)", name) for name in names]
    kinds = [tuple(part[::2]) for part in parts]
    if not names or len(names) < _FEWEST:
        return whole
    borders = [0, *(i for i in range(1, len(kinds)) if kinds[i] != kinds[i - 1]), len(kinds)]
    groups = [range(first, last) for first, last in pairwise(borders)]
    if len(set(kinds)) < len(groups) or min(map(len, groups)) < _FEWEST:
        return whole
    return [run for group in groups for run in _numbered_runs([parts[i][1::2] for i in group], group)]


def _numbered_runs(numbers: list[list[str]], group: range) -> list[range]:
    changing = [texts for texts in zip(*numbers, strict=True) if len(set(texts)) > 1]
    if len(changing) != 1:
        return [group]
    readings = [reading for read in _READERS if (reading := read(changing[0])) is not None]
    return min((_split(reading, group) for reading in readings), key=len)


def _split(numbers: list[int], group: range) -> list[range]:
    steps = [after - before for before, after in pairwise(numbers)]
    usual, times = Counter(steps).most_common(1)[0]
    if usual < 1 or 2 * times <= len(steps) or any(step % usual for step in steps):
        return [group]
    borders = [0, *(i + 1 for i, step in enumerate(steps) if step != usual), len(numbers)]
    return [group[first:last] for first, last in pairwise(borders)]


def _times(formats: dict[int, str]) -> Callable[[Sequence[str]], list[int] | None]:
    def read(texts: Sequence[str]) -> list[int] | None:
        kind = formats.get(len(texts[0]))
        if kind is None or any(len(text) != len(texts[0]) for text in texts):
            return None
        try:
            return [int(datetime.strptime(text, kind).replace(tzinfo=timezone.utc).timestamp()) for text in texts]
        except ValueError:
            return None

    return read


_READERS = (lambda texts: [int(text) for text in texts], _times(_DATES), _times(_CLOCKS))
