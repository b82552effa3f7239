"""FMI's composites: 8-bit PGM with what they are in comments, gzipped."""

import re
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np

from plasm.data.limits import check_bytes
from plasm.data.reading import reading
from plasm.files import shown

from .frames import Frame, ReadOptions, check_unit, name_time, opened, quantity, to_rate
from .grid import Grid, corner

_ZR = (223.0, 1.53)
"""FMI's, for rain."""
_LONGEST_HEADER = 1 << 16
# FMI's sphere, which the files do not name.
_RADIUS = 6371288


def frames(file: Path, options: ReadOptions) -> list[Frame]:
    """Read the metadata of the file; see ``open_frames``."""
    with reading(file, "a whole PGM file"), opened(file) as handle:
        head = handle.read(_LONGEST_HEADER)
        said, (width, height, missing), start = _header(head, file)
        check_bytes(width * height * 16, str(file), f"a composite of {height} x {width}")
        handle.seek(0, 2)
        if handle.tell() < start + width * height:
            raise ValueError(f"{file} is cut off: {width} x {height} pixels do not fit into its {handle.tell()} bytes")
        if "obstime" in said:
            try:
                time = datetime.strptime(said["obstime"].ljust(14, "0"), "%Y%m%d%H%M%S")
            except ValueError as error:
                raise ValueError(f"{file} has no time in '# obstime {shown(said['obstime'])}'") from error
        else:
            time = name_time(file, options)
        if (param := said.get("param", "CorrectedReflectivity")) != "CorrectedReflectivity" and options.unit is None:
            raise ValueError(f"{file} holds {shown(param)}, wanted CorrectedReflectivity")
        grid = _grid(said, height, width, file)
    zr, unit = options.zr or _ZR, options.unit or "dBZ"
    check_unit(unit, file)
    load = partial(_read, file, start, (height, width), missing, unit, zr)
    return [Frame(file, time, grid, quantity(unit, zr), load)]


def _header(head: bytes, file: Path) -> tuple[dict[str, str], tuple[int, int, int], int]:
    """What the comments say; width, height and largest value; where the pixels begin."""
    said: dict[str, str] = {}
    numbers: list[int] = []
    position = 2
    while len(numbers) < 3:
        match = re.compile(rb"\s*(?:#([^\n]*)\n|(\d{1,9})(?=\s))").match(head, position)
        if match is None:
            raise ValueError(f"{file} is no PGM file: its header does not end in width, height and largest value")
        if match[1] is not None:
            key, _, value = match[1].decode("latin-1").strip().partition(" ")
            said[key] = value.strip()
        else:
            numbers.append(int(match[2]))
        position = match.end()
    width, height, largest = numbers
    if min(width, height) < 1 or not 0 < largest < 256:
        raise ValueError(f"{file} is {width} x {height} with values up to {largest}, wanted 8 bits")
    return said, (width, height, largest), position + 1


def _grid(said: dict[str, str], height: int, width: int, file: Path) -> Grid:
    if said.get("type") != "stereographic":
        return Grid(height, width)
    try:
        west, south = map(float, said["bottomleft"].split())
        dx, dy = (float(said[f"metersperpixel_{axis}"]) for axis in "xy")
        middle, pole, true = (
            float(said[f"{name}"]) for name in ("centrallongitude", "centrallatitude", "truelatitude")
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"{file} does not say its projection whole: {shown(error)}") from error
    projection = f"+proj=stere +lat_0={pole:g} +lon_0={middle:g} +lat_ts={true:g} +R={_RADIUS}"
    left, bottom = corner(projection, west, south, file)
    return Grid(height, width, dx, dy, left, bottom + dy * height, "m", projection)


def _read(
    file: Path, start: int, shape: tuple[int, int], missing: int, unit: str, zr: tuple[float, float]
) -> np.ndarray:
    with reading(file, "a whole PGM file"), opened(file) as handle:
        handle.seek(start)
        raw = np.frombuffer(handle.read(shape[0] * shape[1]), np.uint8).reshape(shape)
    rate = to_rate(raw / 2.0 - 32, unit, file, zr)
    rate[raw == 0] = 0
    rate[raw == missing] = np.nan
    return rate
