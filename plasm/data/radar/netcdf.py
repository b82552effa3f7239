"""NetCDF by the CF conventions: packed or not, any number of times in a file."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from plasm.data.limits import check_bytes
from plasm.data.netcdf import engine_of
from plasm.data.reading import reading
from plasm.files import listed, require, shown

from .frames import MARSHALL_PALMER, Frame, ReadOptions, check_unit, is_depth, knows, name_time, quantity, to_rate
from .grid import Grid, Unit, axis_of, proj_string

_MOST_FRAMES = 100_000


def frames(file: Path, options: ReadOptions) -> list[Frame]:
    """Read the metadata of the file; see ``open_frames``.

    HDF5 is looked through for links to other files before (``check_alone``).
    """
    engine = engine_of(file)
    with reading(file, "a whole NetCDF file"), _open(file, engine) as content:
        name = _variable(content, file, options)
        variable = content[name]
        unit = options.unit or str(variable.attrs.get("units", "")).strip()
        if variable.ndim not in (2, 3):
            raise ValueError(
                f"{file}: {shown(name)} has axes ({shown(listed(variable.dims), 600)}), wanted (time, y, x) or (y, x)"
            )
        if (count := variable.sizes[variable.dims[0]] if variable.ndim == 3 else 1) > _MOST_FRAMES:
            raise ValueError(f"{file}: {shown(name)} has {count:,} frames, more than {_MOST_FRAMES:,}")
        height, width = variable.shape[-2:]
        check_bytes(height * width * 24, str(file), f"a composite of {height} x {width}")
        times = _times(content, variable, file, options)
        hours = _hours(content, variable, file) if is_depth(unit) else None
        check_unit(unit, file, hours)
        grid, flip = _grid(content, variable, file)
    zr = options.zr or MARSHALL_PALMER
    return [
        Frame(
            file, time, grid, quantity(unit, zr, hours),
            partial(_read, file, engine, name, number, flip, unit, zr, hours),
        )
        for number, time in enumerate(times)
    ]  # fmt: skip


@contextmanager
def _open(file: Path, engine: str) -> Iterator[Any]:
    xarray = require("xarray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Neither a cache nor dask: the chunks of the file do not matter here.
        with xarray.open_dataset(file.resolve(), engine=engine, cache=False, decode_timedelta=False) as content:
            yield content


def _variable(content: Any, file: Path, options: ReadOptions) -> Any:
    if options.array is not None:
        if options.array not in content:
            raise ValueError(f"{file} holds no variable {options.array}; it has {shown(listed(content), 600)}")
        return options.array
    unit = [options.unit] if options.unit else []
    fields = [name for name in content if content[name].ndim in (2, 3) and content[name].dtype.kind in "uif"]
    found = [
        name for name in fields
        if knows(str(content[name].attrs.get("units", "")).strip()) and _may_be_rain(content[name])
    ]  # fmt: skip
    if not found and unit:
        found = fields
    if len(found) != 1:
        held = listed(
            f"{shown(n, 60)} ({shown(content[n].attrs.get('units', 'no unit'), 40)})" for n in found or fields
        )
        raise ValueError(
            f"{file} holds {len(found) or 'no'} variables of rain in a unit of it, wanted one: "
            f"{'give array=NAME of' if found else 'it has'} {shown(held, 600) or 'no field'}"
        )
    return found[0]


def _may_be_rain(variable: Any) -> bool:
    """Whether CF's name of a quantity, where a variable has one, is of rain: wind has a unit of rain rates, too."""
    name = str(variable.attrs.get("standard_name", ""))
    return not name or any(part in name for part in ("rain", "precipitation", "snow", "graupel", "reflectivity"))


def _times(content: Any, variable: Any, file: Path, options: ReadOptions) -> list[datetime]:
    coordinate = None
    if variable.ndim == 3:
        first = variable.dims[0]
        if first not in content.coords or content[first].dtype.kind != "M":
            if variable.shape[0] > 1:
                raise ValueError(f"{file} has {variable.shape[0]} frames and does not say the time of each")
        else:
            coordinate = content[first]
    if coordinate is None:
        alone = [c for c in (content[name] for name in content.variables) if c.dtype.kind == "M" and c.size == 1]
        named = [c for c in alone if c.name in ("time", "valid_time")] or alone
        coordinate = named[0] if len(named) == 1 else None
    if coordinate is None:
        return [name_time(file, options)]
    values = np.atleast_1d(coordinate.values)
    if np.isnat(values).any():
        raise ValueError(f"{file} has times that are missing")
    return [time.item() for time in _to_seconds(values)]


def _to_seconds(times: np.ndarray) -> np.ndarray:
    """Times to the nearest second: those that a file counts in parts of days or hours lie a little beside it."""
    return (times + np.timedelta64(500, "ms")).astype("datetime64[s]")


def _hours(content: Any, variable: Any, file: Path) -> float:
    """Over how long the depths of a variable fell: the bounds of its times, else the step between them."""
    first = variable.dims[0] if variable.ndim == 3 else "time"
    if first in content.coords:
        time = content[first]
        bounds = time.attrs.get("bounds") or time.encoding.get("bounds")
        if bounds in content.variables:
            edges = _to_seconds(np.atleast_2d(content[bounds].values))
            seconds = (edges[:, 1] - edges[:, 0]) / np.timedelta64(1, "s")
        else:
            seconds = np.diff(_to_seconds(np.atleast_1d(time.values))) / np.timedelta64(1, "s")
        if seconds.size and (seconds == seconds[0]).all() and seconds[0] > 0:
            return float(seconds[0]) / 3600
    raise ValueError(f"{file} holds an accumulation and does not say over how long: no bounds of time")


def _grid(content: Any, variable: Any, file: Path) -> tuple[Grid, tuple[int, int]]:
    """The grid, and the steps (1 or -1) by which rows and columns lead south and east."""
    rows, columns = variable.dims[-2:]
    size = variable.shape[-2:]
    if not all(name in content.coords and content[name].dtype.kind in "iuf" for name in (rows, columns)):
        return Grid(*size), (1, 1)
    edges = [axis_of(content[name].values, file, str(name)) for name in (rows, columns)]
    units = {str(content[name].attrs.get("units", "")).lower() for name in (rows, columns)}
    degrees = all(unit.startswith("degree") for unit in units)
    metres = {"m": 1.0, "metre": 1.0, "meter": 1.0, "metres": 1.0, "meters": 1.0, "km": 1000.0}
    projection = _projection(content, variable, file)
    unit: Unit = "degrees" if degrees else "m"
    if degrees:
        factor = 1.0
        projection = projection or "+proj=longlat +R=6371229"
    elif len(units) == 1 and (known := units.pop()) in metres:
        factor = metres[known]
    else:
        return Grid(*size), (-1 if edges[0][1] > 0 else 1, 1 if edges[1][1] > 0 else -1)
    (top, dy), (left, dx) = ((edge * factor, step * factor) for edge, step in edges)
    flip = (-1 if dy > 0 else 1, 1 if dx > 0 else -1)
    top = top + dy * size[0] if dy > 0 else top
    left = left + dx * size[1] if dx < 0 else left
    return Grid(size[0], size[1], abs(dx), abs(dy), left, top, unit, projection), flip


def _projection(content: Any, variable: Any, file: Path) -> str:
    mapping = variable.attrs.get("grid_mapping") or variable.encoding.get("grid_mapping")
    if mapping in content.variables:
        pyproj = require("pyproj")
        attributes = dict(content[mapping].attrs)
        for key in ("proj4", "proj4_params", "proj4_string"):
            if isinstance(attributes.get(key), str):
                return str(attributes[key])
        try:
            return proj_string(attributes)
        except (pyproj.exceptions.CRSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: {shown(mapping)} is no projection that PROJ knows: {shown(error)}") from error
    text = str(content.attrs.get("projection", ""))
    # Others call it by words.
    return text if re.search(r"(proj|init)=|^\w+:\d+$", text) else ""


def _read(
    file: Path, engine: str, name: Any, number: int, flip: tuple[int, int], unit: str, zr: tuple[float, float],
    hours: float | None,
) -> np.ndarray:  # fmt: skip
    with reading(file, "a whole NetCDF file"), _open(file, engine) as content:
        variable = content[name]
        values = np.asarray((variable[number] if variable.ndim == 3 else variable).values)
    return to_rate(values[:: flip[0], :: flip[1]], unit, file, zr, hours)
