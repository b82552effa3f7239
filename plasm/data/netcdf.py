"""NetCDF files of any version, read by xarray: it knows scales, offsets, missing values, and the names of axes."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from plasm.files import require, shown

from .h5 import check_alone, choose_array, find_arrays, open_h5
from .layouts import NO_OPTIONS, ArrayOptions, check_finite, layout_of, select_frames
from .limits import check_bytes
from .reading import reading
from .streams import ClipStream, clips_of

_NETCDF = "a whole NetCDF file"
# What xarray reads each version with, by the first bytes: never guessed, and nothing but a file.
_ENGINES = {b"CDF\x01": "scipy", b"CDF\x02": "scipy", b"CDF\x05": "netcdf4", b"\x89HDF": "h5netcdf"}
_MODULES = {"scipy": "scipy", "netcdf4": "netCDF4", "h5netcdf": "h5netcdf"}
# Attributes by which the values that are stored are not those that are meant.
_VALID = ("valid_range", "valid_min", "valid_max")
_PACKING = {"scale_factor", "add_offset", "_FillValue", "missing_value", *_VALID}
# Bytes of a value while it is unpacked.
_FLOATS = 8
# What dimensions are called, without numbers behind.
_NAMES = {
    "t": {"t", "time", "times", "frame", "frames", "date", "datetime", "valid_time", "forecast_time", "step", "nt"},
    "h": {
        "y", "lat", "latitude", "lats", "rlat", "nlat", "row", "rows", "ny", "yc", "north_south", "south_north", "j",
        "northing", "projection_y_coordinate", "height", "nrows", "azimuth",
    },
    "w": {
        "x", "lon", "longitude", "lons", "rlon", "nlon", "column", "columns", "col", "cols", "nx", "xc", "west_east",
        "i", "easting", "projection_x_coordinate", "width", "ncols", "range",
    },
    "c": {"c", "channel", "channels", "band", "bands", "rgb", "component", "components", "feature", "features"},
    "b": {"b", "clip", "clips", "batch", "sample", "samples", "sequence", "sequences", "case", "cases"},
}  # fmt: skip
_CF_AXES = {"T": "t", "Y": "h", "X": "w"}
_CF_NAMES = {
    "time": "t", "latitude": "h", "longitude": "w", "projection_y_coordinate": "h", "projection_x_coordinate": "w",
    "grid_latitude": "h", "grid_longitude": "w",
}  # fmt: skip
_UNNAMED = re.compile(r"(phony_)?dim_?\d+$")


class NetCDFStream(ClipStream):
    """Frames of a variable of a NetCDF file, in the units that the file states; see ``ClipStream``.

    The key is its name after the groups that it is in.
    """

    def _read(self, rows: slice, count: int) -> np.ndarray:
        group, _, name = (self.key or "").rpartition("/")
        with reading(self.file, _NETCDF), _opened(self.file, group) as content:
            variable = content[name].variable
            values = math.prod((count, *self.size, self.channels))
            needed = max(values, math.prod(variable.encoding.get("chunksizes") or ())) * _FLOATS
            check_bytes(needed, self.name, f"{count:,} frame(s) of {self.size[1]}x{self.size[0]}")
            frames = select_frames(variable, self.layout, self.clip, rows)
            stored = np.dtype(variable.encoding.get("dtype", frames.dtype))
            # NetCDF-3 knows signed integers alone: what they are meant to be stands beside them.
            meant = {"true": "u", "false": "i"}.get(str(variable.encoding.get("_Unsigned", "")).lower())
            if meant and stored.kind in "ui":
                stored = np.dtype(f"{meant}{stored.itemsize}")
            scaled = {"scale_factor", "add_offset"} & set(variable.encoding)
            low, high = _valid_range(variable, stored)
        invalid = (frames < low) | (frames > high)
        if invalid.any():
            frames = np.where(invalid, np.nan, frames)
        if stored.kind in "ui" and frames.dtype.kind == "f" and not scaled:
            # Floats only because some values may be missing.
            frames = check_finite(frames, self.name, rows.start, rows.step, self.fill)
            frames = frames.astype(stored.newbyteorder("="))
        return frames


def _valid_range(variable: Any, stored: np.dtype) -> tuple[float, float]:
    """The lowest and highest valid value; xarray ignores the attributes that state them."""
    scale, offset = (float(variable.encoding.get(k, v)) for k, v in (("scale_factor", 1), ("add_offset", 0)))

    def unpack(name: str) -> list[float]:
        bounds = np.ravel(variable.attrs.get(name, ()))
        if bounds.dtype.kind not in "ui" or stored.kind not in "ui":
            return [float(bound) for bound in bounds] if bounds.dtype.kind in "uif" else []
        # Of the type that is stored: these are of values before they are scaled.
        if str(variable.encoding.get("_Unsigned", "")).lower() == "true":
            bounds = bounds.astype(f"i{stored.itemsize}").view(f"u{stored.itemsize}")
        return [float(bound) * scale + offset for bound in bounds]

    both = sorted(unpack("valid_range"))
    lows, highs = unpack("valid_min"), unpack("valid_max")
    if scale < 0:
        lows, highs = highs, lows
    # Rounding takes no value of the range's end out of it.
    room = abs(scale) / 2 if stored.kind in "ui" else 0.0
    return max([-math.inf, *lows, *both[:1]]) - room, min([math.inf, *highs, *both[1:]]) + room


def is_packed(file: Path) -> bool:
    """Whether an HDF5 file has an array whose values are to be scaled, or may be missing, as in NetCDF."""
    with open_h5(file) as content:
        return any(_PACKING & set(array.attrs) for array in find_arrays(content, file).values())


def netcdf_streams(file: Path, channels: int, options: ArrayOptions = NO_OPTIONS) -> list[NetCDFStream]:
    """The clips of the one variable of frames in a NetCDF file, or of the one that is named; see ``open_source``.

    C is for variables whose dimensions have no names.
    """
    with reading(file, _NETCDF):
        key = options.array
        if engine_of(file) == "h5netcdf":
            # Before another library opens it.
            with open_h5(file) as content:
                check_alone(content, file)
                key = choose_array(list(find_arrays(content, file)), file, key)
        if key is None:
            with _opened(file, "") as content:
                arrays = [n for n, v in content.variables.items() if v.ndim > 2 and v.dtype.kind in "buif"]
            key = choose_array(arrays, file, None)
        group, _, name = key.strip("/").rpartition("/")
        with _opened(file, group) as content:
            if name not in content.variables:
                raise ValueError(f"{file} holds no array {shown(key)}")
            variable = content[name].variable
            shape, dtype = tuple(map(int, variable.shape)), variable.dtype
            attributes = {d: content[d].attrs if d in content.variables else {} for d in variable.dims}
    layout = _layout(attributes, shape, str(file)) if options.axes is None else None
    layout = layout or layout_of(shape, dtype, channels, str(file), options.axes)
    if 0 in shape:
        raise ValueError(f"{file} holds no frames: an array of {shape}")
    clips = clips_of(layout, shape, str(file))
    return [NetCDFStream(file, key.strip("/"), layout, shape, clip, options.fill) for clip in clips]


def engine_of(file: Path) -> str:
    """What xarray reads a NetCDF file with; a ValueError if it is none, an ImportError if that is not installed."""
    with file.open("rb") as content:
        start = content.read(4)
    if start not in _ENGINES:
        raise ValueError(f"{file} is no NetCDF file: it begins with {shown(start)}")
    require(_MODULES[_ENGINES[start]])
    return _ENGINES[start]


@contextmanager
def _opened(file: Path, group: str) -> Iterator[Any]:
    """Open the file as xarray's data set, of which nothing but metadata is read."""
    xarray, engine = require("xarray"), engine_of(file)
    more: dict[str, Any] = {"group": group or None} if engine != "scipy" else {}
    if engine == "h5netcdf":
        more["phony_dims"] = "sort"
    # The whole path: a name alone might read as an address.
    with xarray.open_dataset(
        str(file.absolute()), engine=engine, decode_times=False, decode_timedelta=False, decode_coords=False,
        cache=False, **more,
    ) as content:  # fmt: skip
        yield content


def _role(name: str, attributes: Mapping[str, Any]) -> str | None:
    """What a dimension is, by what its variable says, or else by its name."""
    axis = _CF_AXES.get(str(attributes.get("axis", "")).upper())
    standard = _CF_NAMES.get(str(attributes.get("standard_name", "")))
    since = "t" if " since " in str(attributes.get("units", "")) else None
    plain_name = re.sub(r"[_-]?\d{1,20}$", "", name.lower())
    known = (role for role, names in _NAMES.items() if name.lower() in names or plain_name in names)
    return axis or standard or since or next(known, None)


def _layout(dimensions: Mapping[str, Mapping[str, Any]], shape: tuple[int, ...], name: str) -> str | None:
    """The layout that the dimensions' names tell; None if they have no names, a ValueError if it is ambiguous."""
    if all(_UNNAMED.match(dimension) for dimension in dimensions):
        return None
    letters = [_role(dimension, attributes) for dimension, attributes in dimensions.items()]
    letters = [
        "_" if size == 1 and letter not in ("t", "h", "w") else letter
        for letter, size in zip(letters, shape, strict=True)
    ]
    open_positions = [position for position, letter in enumerate(letters) if letter is None]
    if "t" in letters and not {"h", "w"} & set(letters) and len(open_positions) == 2:
        # Time is known, and of two others rows come first.
        letters[open_positions[0]], letters[open_positions[1]] = "h", "w"
    named = [letter for letter in letters if letter != "_"]
    if None in letters or len(set(named)) < len(named) or not {"h", "w"} <= set(named) or not {"t", "b"} & set(named):
        found = ", ".join(f"{shown(d)} ({size})" for d, size in zip(dimensions, shape, strict=True))
        raise ValueError(
            f"{name} has the dimensions {found}: say what each is, in this order, of T frames, C channels, Y rows, X "
            f"columns and B clips, such as axes={'TYX' if len(named) == 3 else 'TCYX'}"
        )
    return "".join(str(letter) for letter in letters)
