"""Forecasts as CF NetCDF, which xarray and pysteps' ``import_netcdf_pysteps`` read."""

import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from plasm.data.radar import Grid
from plasm.files import atomic_write, require


def write_forecast(
    rates: np.ndarray, grid: Grid, start: datetime, minutes: float, attributes: Mapping[str, Any], file: Path
) -> None:
    """Write rates with times, coordinates, projection and mask; nothing stays half-written.

    Args:
        rates: (T', H, W) in mm/h, NaN where missing.
        grid: Of the rates.
        start: Time of the last observed frame.
        minutes: From lead time to lead time.
        attributes: Of the whole file.
        file: .nc.
    """
    xarray = require("xarray")
    require("h5netcdf")
    seconds = np.round(60 * minutes * np.arange(1, len(rates) + 1)).astype(np.int64)
    mapping, system = _mapping(grid)
    said = {"units": "mm h-1", "long_name": "instantaneous precipitation rate", "standard_name": "rainfall_rate"}
    # A mapping that a file names and does not hold would break it.
    link = {"grid_mapping": mapping} if mapping else {}
    content = xarray.Dataset(
        {
            "precip_intensity": (("time", "y", "x"), rates, {**said, **link}),
            "covered": (
                ("y", "x"),
                np.isfinite(rates).all(0).astype(np.int8),
                {"long_name": "whether a radar saw the cell", "flag_values": np.array([0, 1], np.int8),
                 "flag_meanings": "missing covered", **link},
            ),
        },
        {
            "time": ("time", seconds, {"standard_name": "time", "axis": "T", "long_name": "forecast time",
                                       "units": f"seconds since {start:%Y-%m-%d %H:%M:%S}", "calendar": "standard"}),
            "forecast_reference_time": ((), 0, {"standard_name": "forecast_reference_time", "calendar": "standard",
                                                "units": f"seconds since {start:%Y-%m-%d %H:%M:%S}"}),
            **_axes(grid),
        },
        {"Conventions": "CF-1.7", "title": "forecast of rain", **attributes},
    )  # fmt: skip
    if mapping:
        content[mapping] = ((), np.int32(0), system)
    if grid.projection:
        content.attrs["projection"] = grid.projection
    encoding = {"precip_intensity": {"dtype": "float32", "_FillValue": np.float32(-9999), "zlib": True}}
    plain = {name: {"_FillValue": None} for name in content.variables if name != "precip_intensity"}
    with atomic_write(file) as beside:
        content.to_netcdf(beside, engine="h5netcdf", encoding={**encoding, **plain})


def _axes(grid: Grid) -> dict[str, tuple[str, np.ndarray, dict[str, str]]]:
    kinds = {
        "m": (("projection_x_coordinate", "m"), ("projection_y_coordinate", "m")),
        "degrees": (("longitude", "degrees_east"), ("latitude", "degrees_north")),
        "": (("", "1"), ("", "1")),
    }[grid.unit]
    values = {"x": (grid.x, *kinds[0]), "y": (grid.y, *kinds[1])}
    return {
        name: (name, positions, {"axis": name.upper(), "units": unit, **({"standard_name": title} if title else {})})
        for name, (positions, title, unit) in values.items()
    }


def _mapping(grid: Grid) -> tuple[str, dict[str, Any]]:
    """Name and attributes of CF's mapping; the name is its kind, by which pysteps looks for it."""
    if not grid.projection:
        return "", {}
    pyproj = require("pyproj")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            system = pyproj.CRS.from_user_input(grid.projection).to_cf()
    except pyproj.exceptions.CRSError:
        return "", {}
    name = system.get("grid_mapping_name")
    if name == "polar_stereographic":
        # CF asks for it, and PROJ gives the standard parallel alone.
        pole = -90.0 if system.get("standard_parallel", 90.0) < 0 else 90.0
        system.setdefault("latitude_of_projection_origin", pole)
    return (str(name), {key: value for key, value in system.items() if value is not None}) if name else ("", {})
