"""Names of files in the order that people count in."""

import re
from pathlib import Path

__all__ = ["natural_key"]


def natural_key(path: Path | str) -> list[tuple[int, str | int]]:
    """Sort key by which frame 10 comes after frame 9."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]
