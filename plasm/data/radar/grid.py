"""Positions of the cells of a composite."""

import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from plasm.files import require, shown

# Of PROJ strings: numbers, and names of its own. Other parameters name files, which PROJ opens.
_PARAMETER = re.compile(
    r"\+?(proj|R|R_(A|V|a|g|h|lat_a|lat_g)|a|alpha|approx|axis|b|datum|e|ellps|es|f|gamma|geoc|h|k|k_0|lat_(0|1|2|ts)|"
    r"lon_(0|1|2|wrap)|lonc|m|n|no_(defs|off|rot|uoff)|o_(alpha|proj|lat_(1|2|c|p)|lon_(1|2|c|p))|over|pm|rf|south|sweep|"
    r"to_meter|towgs84|type|units|vto_meter|vunits|wktext|x_0|y_0|zone)(=[\w.,+-]*)?|\+nadgrids=@null"
)

DEGREE = 111.195
"""Kilometres of a degree of latitude."""

Unit = Literal["m", "degrees", ""]


@dataclass(frozen=True)
class Grid:
    """A regular grid; its rows go from north to south.

    Attributes:
        height: H, rows.
        width: W, columns.
        dx: From one column to the next.
        dy: From one row to the next, above 0.
        left: Western edge of the first column.
        top: Northern edge of the first row.
        unit: Of these: "m" (metres of the projection), "degrees" (longitude and latitude), or "" where the file does
            not say where it lies, and they count cells.
        projection: PROJ string; empty where it is not known.
    """

    height: int
    width: int
    dx: float = 1.0
    dy: float = 1.0
    left: float = 0.0
    top: float = 0.0
    unit: Unit = ""
    projection: str = ""

    def __post_init__(self) -> None:
        numbers = (self.dx, self.dy, self.left, self.top)
        if min(self.height, self.width) < 1 or not all(map(math.isfinite, numbers)) or min(self.dx, self.dy) <= 0:
            raise ValueError(f"its grid is none: {self.height} x {self.width} cells of {self.dx:g} x {self.dy:g}")
        check_projection(self.projection)

    @property
    def x(self) -> np.ndarray:
        """Middles of the columns, (W,)."""
        return self.left + self.dx * (np.arange(self.width) + 0.5)

    @property
    def y(self) -> np.ndarray:
        """Middles of the rows, (H,), falling."""
        return self.top - self.dy * (np.arange(self.height) + 0.5)

    @property
    def km(self) -> float | None:
        """Kilometres from one row to the next, if they are known."""
        return {"m": self.dy / 1000, "degrees": self.dy * DEGREE, "": None}[self.unit]

    def difference(self, other: "Grid") -> str | None:
        """In what another grid differs, in words; None if it is the same one, to a tenth of a cell."""
        if (self.height, self.width) != (other.height, other.width):
            return f"{self.height} x {self.width} cells and {other.height} x {other.width}"
        if (self.unit, self.projection) != (other.unit, other.projection):
            return f"projection {shown(self.projection) or 'unknown'} and {shown(other.projection) or 'unknown'}"
        if any(abs(a - b) > 1e-3 * b for a, b in ((self.dx, other.dx), (self.dy, other.dy))):
            return f"cells of {self.dx:g} x {self.dy:g} and {other.dx:g} x {other.dy:g} {self.unit}"
        if abs(self.left - other.left) > self.dx / 10 or abs(self.top - other.top) > self.dy / 10:
            return f"corner ({self.left:g}, {self.top:g}) and ({other.left:g}, {other.top:g}) {self.unit}"
        return None

    def __str__(self) -> str:
        spacing = f", {self.km:.3g} km" if self.km else ""
        return f"{self.height} x {self.width}{spacing}"


def axis_of(middles: Any, file: Path, name: str) -> tuple[float, float]:
    """(first edge, spacing) of a regular axis, a ValueError of another; the spacing is negative where it falls."""
    values = np.asarray(middles, np.float64)
    if values.ndim != 1 or values.size < 2 or not np.isfinite(values).all():
        raise ValueError(f"{file}: {name} should hold two or more finite coordinates")
    spacing = float(values[-1] - values[0]) / (values.size - 1)
    # float32 coordinates of metres have a few of them as rounding.
    if spacing == 0 or np.abs(np.diff(values) - spacing).max() > 0.05 * abs(spacing):
        raise ValueError(f"{file}: {name} is not evenly spaced")
    return float(values[0]) - spacing / 2, spacing


def check_projection(text: str) -> None:
    """Refuse a projection by which PROJ would open a file that it names: by nadgrids, init and the like.

    Args:
        text: PROJ string, or a code of an authority such as EPSG:3035.

    Raises:
        ValueError: If it is something else, or has another parameter than numbers and names that PROJ knows itself.
    """
    if re.fullmatch(r"[A-Za-z]+:\d+", text):
        return
    for part in text.split():
        if not _PARAMETER.fullmatch(part):
            raise ValueError(f"its projection has {shown(part, 80)!r}, which is not read: it could name another file")


def proj_string(system: Any) -> str:
    """PROJ string of a coordinate reference system: well-known text, or a dictionary of CF's attributes.

    Raises:
        pyproj.exceptions.CRSError, KeyError, TypeError or ValueError: If PROJ does not know it.
    """
    crs = require("pyproj").CRS
    for text in (system.get(key) for key in ("crs_wkt", "spatial_ref")) if isinstance(system, dict) else ():
        if isinstance(text, str) and not re.match(r"\s*[A-Za-z_0-9]+\s*[\[(]", text):
            # It is to be well-known text, which names no file that is opened here, and may be a PROJ string.
            check_projection(text)
    with warnings.catch_warnings():
        # What PROJ strings leave out, names among them, is not needed here.
        warnings.simplefilter("ignore")
        known = crs.from_cf(system) if isinstance(system, dict) else crs.from_user_input(system)
        return str(known.to_proj4()).removesuffix(" +type=crs")


def corner(projection: str, longitude: float, latitude: float, file: Path) -> tuple[float, float]:
    """Position of a point in the metres of a projection; a ValueError if PROJ does not know it, or it is not in it."""
    pyproj = require("pyproj")
    try:
        check_projection(projection)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    try:
        x, y = pyproj.Proj(projection)(longitude, latitude)
    except pyproj.exceptions.ProjError as error:
        raise ValueError(
            f"{file} has a projection that PROJ does not know, {shown(projection)!r}: {shown(error)}"
        ) from error
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"{file}: longitude {longitude}, latitude {latitude} is not in {shown(projection)!r}")
    return float(x), float(y)
