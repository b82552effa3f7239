"""The parts that all radar formats share: frames, the options of reading, times in names, and units of rain."""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np

from plasm.data.limits import check_bytes, read_limit
from plasm.files import reason, shown

from .grid import Grid
from .values import rain_rate

MARSHALL_PALMER = (200.0, 1.6)
"""(a, b) of Z = a R^b, where a file says nothing else (1948)."""

_NAME_TIME = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_.]?(\d\d)[-_.]?(\d\d)[-_.T]?(\d\d)[-_.:]?(\d\d)(?:[-_.:]?(\d\d))?(?!\d)"
)
# Of units, as files write them: what one is in mm/h.
_RATES = {
    "mm/h": 1.0, "mm/hr": 1.0, "mm/hour": 1.0, "kg/m2/h": 1.0, "kg/m2/s": 3600.0, "mm/s": 3600.0, "m/s": 3.6e6,
    "m/h": 1000.0, "mm/day": 1 / 24, "mm/d": 1 / 24,
}  # fmt: skip
_DEPTHS = {"mm": 1.0, "kg/m2": 1.0, "m": 1000.0, "cm": 10.0}


@dataclass(frozen=True)
class ReadOptions:
    """Metadata that a radar file may lack.

    Attributes:
        unit: Of the values: "mm/h", "dBZ", and others that CF knows; overrides what the file says.
        zr: (a, b) of Z = a R^b for reflectivity; overrides what the file says.
        array: The variable of a NetCDF file.
        pattern: How a name tells the time, as of ``strptime``, such as "rain_%Y%m%d_%H%M.tif"; by default the one
            YYYYMMDDHHMM(SS) in it, with or without separators.

    Raises:
        ValueError: If an option is none of these.
    """

    unit: str | None = None
    zr: tuple[float, float] | None = None
    array: str | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        for name in ("unit", "array", "pattern"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"{name} is text, got {getattr(self, name)!r}")
        if self.zr is not None:
            numbers = len(self.zr) == 2 and all(isinstance(z, int | float) and z > 0 for z in self.zr)
            if not isinstance(self.zr, tuple | list) or not numbers:
                raise ValueError(f"zr is (a, b) of Z = a R^b, such as (200, 1.6), got {self.zr!r}")

    @classmethod
    def names(cls) -> list[str]:
        """Of the options."""
        return [f.name for f in fields(cls)]


@dataclass(frozen=True)
class Frame:
    """One composite at one time.

    Attributes:
        file: Where it lies.
        time: When, in UTC; of an accumulation its end.
        grid: Where.
        quantity: What the file holds, in words, before it becomes mm/h.
        load: Reads it: (H, W) float32 in mm/h, NaN where nothing was measured, 0 where it is dry.
    """

    file: Path
    time: datetime
    grid: Grid
    quantity: str
    load: Callable[[], np.ndarray]


@contextmanager
def opened(file: Path) -> Iterator[IO[bytes]]:
    """Open a file, unpacked if it is gzipped; what it unpacks to is limited."""
    with file.open("rb") as packed:
        is_packed = packed.read(2) == b"\x1f\x8b"
    # Opened anew: eccodes goes on where the system is in the file, which has read further than Python.
    with file.open("rb") as packed:
        if not is_packed:
            yield packed
            return
        with gzip.GzipFile(fileobj=packed) as content, TemporaryFile() as whole:
            size = 0
            try:
                while part := content.read(1 << 20):
                    size += len(part)
                    if size > read_limit():
                        check_bytes(size, str(file), "what is packed in it")
                    whole.write(part)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ValueError(f"{file} is no whole gzip file: {reason(error)}") from error
            whole.seek(0)
            yield whole


def name_time(file: Path, options: ReadOptions) -> datetime:
    """The time that a file's name tells; see ``ReadOptions``. A ValueError if it tells none, or several."""
    if options.pattern is not None:
        try:
            return datetime.strptime(file.name, options.pattern)
        except ValueError as error:
            raise ValueError(f"{file}: its name is not as pattern={options.pattern} says: {error}") from error
    found = set()
    for match in _NAME_TIME.finditer(file.name):
        try:
            found.add(datetime(*(int(part or 0) for part in match.groups())))  # type: ignore[arg-type]
        except ValueError:
            continue
    if len(found) != 1:
        raise ValueError(
            f"{file} says no time itself, and its name has {len(found) or 'none'} as YYYYMMDDHHMM: give a pattern of "
            f"strptime, pattern=rain_%Y%m%d_%H%M.tif"
        )
    return found.pop()


def to_rate(
    values: np.ndarray, unit: str, file: Path, zr: tuple[float, float] = MARSHALL_PALMER, hours: float | None = None
) -> np.ndarray:
    """Values of a unit in mm/h; what is not finite becomes NaN, and what is below 0 mm/h becomes 0.

    Args:
        values: In the unit.
        unit: "dBZ", a rate or, with ``hours``, a depth.
        file: For errors.
        zr: (a, b) for dBZ.
        hours: Over which a depth fell.

    Raises:
        ValueError: If it is the unit of something else.
    """
    check_unit(unit, file, hours)
    unit = _spelled(unit)
    if _is_dbz(unit):
        rate = rain_rate(np.where(np.isfinite(values), values, np.nan), *zr)
    else:
        factor = _RATES[unit] if unit in _RATES else _DEPTHS[unit] / (hours or 1)
        rate = (values.astype(np.float64) * factor).astype(np.float32)
    rate[~np.isfinite(rate)] = np.nan
    return np.maximum(rate, 0, out=rate)


def check_unit(unit: str, file: Path, hours: float | None = None) -> None:
    """Refuse, by a ValueError, what is no unit of rain, and a depth without the time over which it fell."""
    if is_depth(unit) and (hours is None or not hours > 0):
        raise ValueError(f"{file} holds an accumulation in {unit} and does not say over how long")
    if not knows(unit):
        raise ValueError(f"{file} holds values in {shown(unit)!r}, which is no unit of rain: wanted mm/h, dBZ or mm")


def quantity(unit: str, zr: tuple[float, float], hours: float | None = None) -> str:
    """The quantity that a file holds, in words."""
    if _is_dbz(unit):
        return f"reflectivity, Z = {zr[0]:g} R^{zr[1]:g}"
    return "rain rate" if _spelled(unit) in _RATES else f"accumulation of {(hours or 0) * 60:g} minutes"


def is_depth(unit: str) -> bool:
    """Whether this is the unit of an accumulation."""
    return _spelled(unit) in _DEPTHS


def knows(unit: Any) -> bool:
    """Whether this is a unit of rain."""
    return isinstance(unit, str) and (_is_dbz(unit) or _spelled(unit) in _RATES or is_depth(unit))


def _is_dbz(unit: str) -> bool:
    return unit.strip().lower() in ("dbz", "db")


def _spelled(unit: str) -> str:
    """A unit in the one spelling that is known here: of "kg m**-2 s**-1" and "kg m^-2.s^-1" it is kg/m2/s."""
    # What is longer is no unit, and could be so long that it takes minutes.
    text = unit.strip()[:64].replace("**", "").replace("^", "").replace(".", " ").replace("*", " ")
    return re.sub(r"\s*([a-z]+)-(\d)", lambda m: f"/{m[1]}{m[2] if m[2] != '1' else ''}", text)
