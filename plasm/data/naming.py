"""Names of files in the order that people count in."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

# Numbers of so many digits may be times.
_DATES = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
# Fewer names show no rule.
_FEWEST = 3
_CLOCKS = {4: "%H%M", 6: "%H%M%S"}


def natural_key(path: Path | str) -> list[tuple[int, str | int]]:
    """Sort key by which frame 10 comes after frame 9."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def consecutive_runs(names: Sequence[str]) -> list[range]:
    """Parts of a sequence of names between which numbers are missing, or what stands around the numbers changes.

    Names whose numbers follow no rule are left together. Of several numbers the last counts, and where another changes,
    a part ends, unless the last is carried as in dates. Numbers that are times are read as such: 0055 is followed by
    0100.

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
    if not changing:
        return [group]
    *outer, counted = changing
    # Where another number than the last changes, another camera or sequence may begin, or the last one be carried.
    blocks = list(zip(*outer, strict=True)) or [()] * len(group)
    borders = [0, *(i for i in range(1, len(blocks)) if blocks[i] != blocks[i - 1]), len(blocks)]
    if len(set(blocks)) < len(borders) - 1 or min(b - a for a, b in pairwise(borders)) < _FEWEST:
        return [group]
    # Each with where it begins anew, besides at a power of ten: times count seconds.
    readings: list[tuple[list[int] | None, set[int]]] = [
        ([int(text) for text in counted], set()),
        (_seconds(counted, _DATES), set()),
        (_seconds(counted, _CLOCKS), {_DAY}),
    ]
    widths = {len(text) for text in counted}
    positions = {10 ** max(widths)} if len(widths) == 1 else set()
    more = _CALENDAR if max(widths) <= 2 else set()
    splits = (_split(read, borders, bases | positions | more, group) for read, bases in readings if read is not None)
    return min(splits, key=len)


def _split(numbers: list[int], borders: list[int], bases: set[int], group: range) -> list[range]:
    """Split a group where numbers are missing, and at borders of blocks over which they are not carried.

    The borders are the first and last indices of blocks in which no other number changes; the bases are those at which
    a number is carried and begins anew.
    """
    steps = [after - before for before, after in pairwise(numbers)]
    inside = [step for i, step in enumerate(steps, 1) if i not in borders]
    usual, times = Counter(inside).most_common(1)[0]
    if usual < 1 or 2 * times <= len(inside) or min(inside) < 1:
        return [group]
    # Less than half a step is rounding, as of times in milliseconds.
    gaps = [
        i
        for i, step in enumerate(steps, 1)
        if (
            all(2 * abs(step + base - usual) >= usual for base in bases)
            if i in borders
            else 2 * (step - usual) >= usual
        )
    ]
    return [group[first:last] for first, last in pairwise([0, *gaps, len(numbers)])]


def _seconds(texts: Sequence[str], formats: dict[int, str]) -> list[int] | None:
    """Numbers that are times, in seconds; None if they are none."""
    kind = formats.get(len(texts[0]))
    if kind is None or any(len(text) != len(texts[0]) for text in texts):
        return None
    try:
        return [int(datetime.strptime(text, kind).replace(tzinfo=timezone.utc).timestamp()) for text in texts]
    except ValueError:
        return None


_DAY = 24 * 60 * 60
# Of hours, minutes and seconds, days of months, and months, in two digits.
_CALENDAR = {12, 24, 28, 29, 30, 31, 60}
