"""HDF5: composites of EUMETNET OPERA's information model (ODIM) and of KNMI; other files are NetCDF.

ODIM: D. B. Michelson et al., "EUMETNET OPERA weather radar information model for implementation with the HDF5 file
format". KNMI: H. Roozekrans and I. Holleman, "KNMI HDF5 data format specification".
"""

import re
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from plasm.data.h5 import check_alone, h5_dataset, h5_values, open_h5
from plasm.data.limits import check_bytes
from plasm.data.naming import natural_key
from plasm.files import listed, shown

from . import netcdf
from .frames import MARSHALL_PALMER, Frame, ReadOptions, check_unit, is_depth, quantity, to_rate
from .grid import Grid, corner

# In the order of preference.
_ODIM = {"RATE": "mm/h", "ACRR": "mm", "DBZH": "dBZ", "TH": "dBZ", "DBZV": "dBZ"}
_KNMI = {"ACCUMULATED_PRECIPITATION_[MM]": "mm", "REFLECTIVITY_[DBZ]": "dBZ", "PRECIPITATION_[MM/H]": "mm/h"}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def frames(file: Path, options: ReadOptions) -> list[Frame]:
    """Read the metadata of the file; see ``open_frames``."""
    with open_h5(file) as content:
        check_alone(content, file)
        if "overview" in content and "image1" in content:
            return [_knmi(content, file, options)]
        if "what" in content and "dataset1" in content:
            return [_odim(content, file, options)]
    return netcdf.frames(file, options)


def _attribute(content: Any, group: str, name: str, file: Path, default: Any = None) -> Any:
    """A number or text of a group; a ValueError without a default."""
    value = content[group].attrs.get(name) if group in content else None
    if value is None:
        if default is None:
            raise ValueError(f"{file} has no {group}/{name}")
        return default
    value = np.ravel(value)[0]
    return value.decode("latin-1").strip("\x00 ") if isinstance(value, bytes) else value


def _number(content: Any, group: str, name: str, file: Path, default: float | None = None) -> float:
    value = _attribute(content, group, name, file, default)
    try:
        return float(value)
    except ValueError as error:
        raise ValueError(f"{file} has no number in {group}/{name}: {shown(value)!r}") from error


def _odim(content: Any, file: Path, options: ReadOptions) -> Frame:
    kind = str(_attribute(content, "what", "object", file))
    if kind not in ("COMP", "IMAGE"):
        raise ValueError(f"{file} is an ODIM {shown(kind)}, wanted a composite (COMP) or IMAGE on a grid")
    time = _odim_time(_attribute(content, "what", "date", file), _attribute(content, "what", "time", file), file)
    found: dict[str, str] = {}
    for dataset in sorted((name for name in content if re.fullmatch(r"dataset\d+", name)), key=natural_key):
        for data in sorted((name for name in content[dataset] if re.fullmatch(r"data\d+", name)), key=natural_key):
            group = f"{dataset}/{data}"
            found.setdefault(str(_what(content, group, "quantity", file)), group)
    name = next((name for name in _ODIM if name in found), None)
    if name is None:
        raise ValueError(f"{file} holds {shown(listed(found), 600) or 'nothing'}, wanted one of {', '.join(_ODIM)}")
    group = found[name]
    hours = None
    if name == "ACRR":
        start, end = (
            _odim_time(_what(content, group, f"{side}date", file), _what(content, group, f"{side}time", file), file)
            for side in ("start", "end")
        )
        hours, time = (end - start).total_seconds() / 3600, end
    zr = options.zr or (
        _number(content, "how", "zr_a", file, MARSHALL_PALMER[0]),
        _number(content, "how", "zr_b", file, MARSHALL_PALMER[1]),
    )
    unit = options.unit or _ODIM[name]
    check_unit(unit, file, hours)
    scale = tuple(float(_what(content, group, key, file)) for key in ("gain", "offset", "nodata", "undetect"))
    shape = h5_dataset(content, f"{group}/data", file).shape
    where = "where" if "xsize" in getattr(content.get("where"), "attrs", {}) else f"{group.split('/')[0]}/where"
    grid = _odim_grid(content, where, shape, file)
    return Frame(file, time, grid, quantity(unit, zr, hours), partial(_read_odim, file, group, scale, unit, zr, hours))


def _what(content: Any, group: str, name: str, file: Path) -> Any:
    """Of the data, or else of the data set that it is in."""
    for path in (group, group.split("/")[0]):
        if f"{path}/what" in content and name in content[f"{path}/what"].attrs:
            return _attribute(content, f"{path}/what", name, file)
    raise ValueError(f"{file} has no {group}/what/{name}")


def _odim_time(date: Any, clock: Any, file: Path) -> datetime:
    try:
        return datetime.strptime(f"{date}{clock}", "%Y%m%d%H%M%S")
    except ValueError as error:
        raise ValueError(f"{file} has no time YYYYMMDD HHMMSS in what: {shown(date)!r} {shown(clock)!r}") from error


def _odim_grid(content: Any, where: str, shape: tuple[int, ...], file: Path) -> Grid:
    if len(shape) != 2:
        raise ValueError(f"{file} holds data of {shape}, wanted (H, W)")
    if not {"projdef", "LL_lon", "UR_lon"} & set(content[where].attrs if where in content else ()):
        return Grid(*shape)
    projection = str(_attribute(content, where, "projdef", file))
    number = partial(_number, content, where, file=file)
    low, high = ((number(f"{name}_lon"), number(f"{name}_lat")) for name in ("LL", "UR"))
    degrees = "longlat" in projection or "latlong" in projection
    (left, bottom), (right, top) = (p if degrees else corner(projection, *p, file) for p in (low, high))
    # Of two corners the spacing follows where a rotated grid gives none.
    dx, dy = (right - left) / shape[1], (top - bottom) / shape[0]
    if not degrees:
        dx, dy = number("xscale", default=dx), number("yscale", default=dy)
    if not (dx > 0 and dy > 0):
        raise ValueError(f"{file} has corners or scales that make no grid: cells of {dx:g} x {dy:g}")
    return Grid(shape[0], shape[1], dx, dy, left, bottom + dy * shape[0], "degrees" if degrees else "m", projection)


def _read_odim(
    file: Path, group: str, scale: tuple[float, ...], unit: str, zr: tuple[float, float], hours: float | None
) -> np.ndarray:
    gain, offset, nodata, undetect = scale
    with open_h5(file) as content:
        raw = h5_values(content, f"{group}/data", file)
    rate = to_rate(_scaled(raw, gain, offset, file), unit, file, zr, hours)
    rate[raw == undetect] = 0
    rate[raw == nodata] = np.nan
    return rate


def _scaled(raw: np.ndarray, gain: float, offset: float, file: Path) -> np.ndarray:
    if raw.dtype.kind not in "uif":
        raise ValueError(f"{file} holds {raw.dtype}, wanted numbers")
    check_bytes(raw.size * 16, str(file), f"a composite of {raw.shape}")
    values: np.ndarray = raw * gain + offset
    return values


def _knmi(content: Any, file: Path, options: ReadOptions) -> Frame:
    start, end = (
        _knmi_time(str(_attribute(content, "overview", f"product_datetime_{side}", file)), file)
        for side in ("start", "end")
    )
    name = str(_attribute(content, "image1", "image_geo_parameter", file))
    if name not in _KNMI and options.unit is None:
        raise ValueError(f"{file} holds {shown(name)}, wanted one of {', '.join(_KNMI)}")
    unit, zr = options.unit or _KNMI[name], options.zr or MARSHALL_PALMER
    hours = (end - start).total_seconds() / 3600 if is_depth(unit) else None
    check_unit(unit, file, hours)
    formula = str(_attribute(content, "image1/calibration", "calibration_formulas", file))
    match = re.fullmatch(r"GEO\s*=\s*([-+.\deE]+)\s*\*\s*PV\s*([-+]\s*[.\deE]+(?:[-+]\d+)?)?", formula.strip())
    if match is None:
        raise ValueError(f"{file} has calibration_formulas {shown(formula)!r}, wanted GEO=a*PV+b")
    try:
        gain, offset = float(match[1]), float((match[2] or "0").replace(" ", ""))
    except ValueError as error:
        raise ValueError(f"{file} has calibration_formulas {shown(formula)!r}, wanted GEO=a*PV+b") from error
    none = tuple(
        _number(content, "image1/calibration", f"calibration_{name}", file, -1.0)
        for name in ("missing_data", "out_of_image")
    )
    shape = h5_dataset(content, "image1/image_data", file).shape
    grid = _knmi_grid(content, shape, file)
    load = partial(_read_knmi, file, (gain, offset), none, unit, zr, hours)
    return Frame(file, end, grid, quantity(unit, zr, hours), load)


def _knmi_time(text: str, file: Path) -> datetime:
    """Of "26-AUG-2010;00:05:00.000", in English, whatever the locale."""
    match = re.match(r"(\d\d)-([A-Z]{3})-(\d{4});(\d\d):(\d\d):(\d\d)", text.upper())
    try:
        if match is None:
            raise ValueError
        day, month, year, hour, minute, second = match.groups()
        return datetime(int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second))
    except ValueError as error:
        raise ValueError(f"{file} has no time DD-MON-YYYY;HH:MM:SS in overview: {shown(text)!r}") from error


def _knmi_grid(content: Any, shape: tuple[int, ...], file: Path) -> Grid:
    if len(shape) != 2:
        raise ValueError(f"{file} holds data of {shape}, wanted (H, W)")
    if "geographic" not in content:
        return Grid(*shape)
    geo = partial(_number, content, "geographic", file=file)
    metres = 1000.0 if str(_attribute(content, "geographic", "geo_dim_pixel", file)).upper().startswith("KM") else 1.0
    dx, dy = (geo(f"geo_pixel_size_{axis}") * metres for axis in "xy")
    if not dy < 0 < dx:
        raise ValueError(f"{file} has pixels of {dx:g} x {dy:g} m, wanted columns to the east and rows to the south")
    projection = str(_attribute(content, "geographic/map_projection", "projection_proj4_params", file))
    # The ellipsoid's axes are in the unit of the pixels, too.
    projection = re.sub(
        r"\+(a|b)=([\d.]+)", lambda m: f"+{m[1]}={float(m[2]) * (1000 if float(m[2]) < 1e5 else 1):.12g}", projection
    )
    left, top = geo("geo_column_offset") * dx, geo("geo_row_offset") * dy
    return Grid(shape[0], shape[1], dx, -dy, left, top, "m", projection)


def _read_knmi(
    file: Path, scale: tuple[float, float], none: tuple[float, ...], unit: str, zr: tuple[float, float],
    hours: float | None,
) -> np.ndarray:  # fmt: skip
    with open_h5(file) as content:
        raw = h5_values(content, "image1/image_data", file)
    rate = to_rate(_scaled(raw, *scale, file), unit, file, zr, hours)
    rate[np.isin(raw, none)] = np.nan
    return rate
