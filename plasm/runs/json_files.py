"""Files of a run in JSON, which may be damaged or of another make: what reads them says so."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plasm.files import parse_json

__all__ = ["is_count", "is_number", "read_rows"]


def read_rows(run: Path, needed: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The lines of a run's ``log.jsonl``, none if there is no log; a last one that was cut by a kill is left out.

    Args:
        run: Folder of the run.
        needed: What every line has besides its epoch and clips.

    Raises:
        ValueError: If another line is not what a run writes.
    """
    file = run / "log.jsonl"
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} is a folder, pipe or device, wanted a log")
    *lines, rest = file.read_bytes().split(b"\n") if file.exists() else [b""]
    needed = ("epoch", "clips", *needed)
    rows = [_row(line, needed, f"line {number} of {file}") for number, line in enumerate(lines, start=1)]
    if not rest.strip(b"\0"):
        return rows
    try:
        return [*rows, _row(rest, needed, f"line {len(rows) + 1} of {file}")]
    except ValueError:
        # What a row that was being written begins with.
        if b'{"epoch": '.startswith(rest[:10]) and not _is_json(rest):
            return rows
        raise


def is_count(value: Any) -> bool:
    """Whether a value is a positive integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_json(content: bytes) -> bool:
    try:
        parse_json(content, "")
    except ValueError:
        return False
    return True


def _row(line: bytes, needed: Sequence[str], name: str) -> dict[str, Any]:
    row: Any = parse_json(line, name)
    if (
        not isinstance(row, dict)
        or not row.keys() >= set(needed)
        or not all(map(is_number, row.values()))
        or not (is_count(row["epoch"]) and is_count(row["clips"]))
    ):
        raise ValueError(
            f"{name} is damaged: wanted numbers by name, {', '.join(needed)} among them. Mend it, or move the log away "
            "and go on without it"
        )
    return row
