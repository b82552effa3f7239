"""GRIB, of one or several messages: NOAA's MRMS, and rates of rain as the WMO tables name them."""

import os
from collections.abc import Generator
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from plasm.data.limits import check_bytes
from plasm.data.reading import reading
from plasm.files import listed, require, shown

from .frames import MARSHALL_PALMER, Frame, ReadOptions, check_unit, opened, quantity, to_rate
from .grid import Grid

# "discipline/category/number", of MRMS's own table and of the WMO's.
_UNITS = {"209/6/1": "mm/h", "0/1/7": "kg m-2 s-1", "0/1/52": "kg m-2 s-1", "0/1/65": "kg m-2 s-1",
          "209/9/0": "dBZ", "209/10/0": "dBZ", "0/15/1": "dBZ", "0/16/4": "dBZ", "0/16/5": "dBZ"}  # fmt: skip
# What MRMS writes for what no radar sees, and for what was not measured. -99 is below detection.
_MRMS_NONE = (-3.0, -1.0, -999.0)
# Bytes that are searched for a message at a time.
_BLOCK = 1 << 16


def frames(file: Path, options: ReadOptions) -> list[Frame]:
    """Read the metadata of the file; see ``open_frames``. Messages of other quantities are left out."""
    found, others = [], []
    with reading(file, "a whole GRIB file"), opened(file) as handle:
        for position, message in _messages(handle, file):
            if (frame := _frame(message, position, file, options)) is not None:
                found.append(frame)
            else:
                name = str(_get(message, "shortName"))
                others.append(name if name != "unknown" else _parameter(message))
        if not found:
            held = shown(listed(dict.fromkeys(others)), 600) or "no message"
            raise ValueError(f"{file} holds {held}, wanted a rain rate or reflectivity")
    return found


def _messages(handle: IO[bytes], file: Path) -> Generator[tuple[int, int], None, None]:
    """(offset, handle) of each message, whose declared length is checked before it is read into memory."""
    eccodes = require("eccodes")
    while True:
        check_bytes(_next_length(handle.fileno()), str(file), "a message in it")
        if (message := eccodes.codes_grib_new_from_file(handle)) is None:
            return
        try:
            yield eccodes.codes_get_message_offset(message), message
        finally:
            eccodes.codes_release(message)


def _next_length(descriptor: int) -> int:
    """Bytes that the next message says it has, 0 if there is none; the system stays where it is in the file.

    Junk may lie before it.
    """
    start = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        position, head = start, b""
        while part := os.read(descriptor, _BLOCK):
            head += part
            if (found := head.find(b"GRIB")) >= 0:
                os.lseek(descriptor, position + found, os.SEEK_SET)
                return _length(os.read(descriptor, 16))
            # The mark may lie across two blocks.
            position, head = position + len(head) - len(head[-3:]), head[-3:]
        return 0
    finally:
        os.lseek(descriptor, start, os.SEEK_SET)


def _length(head: bytes) -> int:
    if head[7:8] == b"\2":
        return int.from_bytes(head[8:16], "big")
    length = int.from_bytes(head[4:7], "big")
    # GRIB 1 counts long messages in units of 120 bytes.
    return 120 * (length & 0x7FFFFF) if length & 0x800000 else length


def _get(message: int, key: str, kind: Any = None) -> Any:
    return require("eccodes").codes_get(message, key, kind)


def _parameter(message: int) -> str:
    """Its position in the tables; GRIB 1 has others."""
    if _get(message, "edition", int) != 2:
        return ""
    return "/".join(str(_get(message, key, int)) for key in ("discipline", "parameterCategory", "parameterNumber"))


def _frame(message: int, position: int, file: Path, options: ReadOptions) -> Frame | None:
    parameter = _parameter(message)
    unit = options.unit or _UNITS.get(parameter)
    if unit is None and _get(message, "shortName") in ("prate", "tprate", "crr", "lsrr", "rprate"):
        unit = "kg m-2 s-1"
    if unit is None:
        return None
    check_unit(unit, file)
    grid = _grid(message, file)
    date, clock = (_get(message, key, int) for key in ("validityDate", "validityTime"))
    time = datetime.strptime(f"{date:08d}{clock:04d}", "%Y%m%d%H%M")
    if _get(message, "edition", int) == 2:
        # The time of validity has no seconds.
        time += timedelta(seconds=_get(message, "second", int))
    zr = options.zr or MARSHALL_PALMER
    return Frame(
        file, time, grid, quantity(unit, zr), partial(_read, file, position, unit, zr, parameter.startswith("209/"))
    )


def _grid(message: int, file: Path) -> Grid:
    if (kind := _get(message, "gridType")) != "regular_ll":
        raise ValueError(f"{file} has a grid of type {kind}, wanted regular_ll: longitudes and latitudes")
    width, height = (_get(message, key, int) for key in ("Ni", "Nj"))
    check_bytes(width * height * 24, str(file), f"a composite of {height} x {width}")
    if _get(message, "numberOfDataPoints", int) != width * height or min(width, height) < 2:
        raise ValueError(f"{file} declares {height} x {width} cells and holds others")
    if _get(message, "jPointsAreConsecutive", int) or _get(message, "alternativeRowScanning", int):
        raise ValueError(f"{file} is not written row by row from west to east")
    west, east, first, last = (
        _get(message, f"{axis}Of{end}GridPointInDegrees", float)
        for axis, end in (("longitude", "First"), ("longitude", "Last"), ("latitude", "First"), ("latitude", "Last"))
    )
    if _get(message, "iScansNegatively", int):
        west, east = east, west
    dx, dy = ((east - west) % 360) / (width - 1), abs(first - last) / (height - 1)
    west = (west + 180) % 360 - 180
    return Grid(height, width, dx, dy, west - dx / 2, max(first, last) + dy / 2, "degrees", "+proj=longlat +R=6371229")


def _read(file: Path, position: int, unit: str, zr: tuple[float, float], mrms: bool) -> np.ndarray:
    eccodes = require("eccodes")
    with reading(file, "a whole GRIB file"), opened(file) as handle:
        handle.seek(position)
        with closing(_messages(handle, file)) as messages:
            _, message = next(messages)
            eccodes.codes_set(message, "missingValue", 1e30)
            values = eccodes.codes_get_values(message).astype(np.float32)
            height, width = (_get(message, key, int) for key in ("Nj", "Ni"))
            values = values.reshape(height, width)
            north_first = not _get(message, "jScansPositively", int)
            west_first = not _get(message, "iScansNegatively", int)
    values = values[:: 1 if north_first else -1, :: 1 if west_first else -1]
    none = values > 1e29
    if mrms:
        none |= np.isin(values, np.array(_MRMS_NONE, np.float32))
    rate = to_rate(values, unit, file, zr)
    rate[none] = np.nan
    return rate
