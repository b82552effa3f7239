"""Small radar files in the formats of weather services, as those write them.

Rates are (H, W) in mm/h with rows from north to south; NaN is missing.
"""

import gzip
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

START = datetime(2021, 7, 14, 12, 0)
STEP = timedelta(minutes=5)
STEREO = "+proj=stere +lat_0=90 +lon_0=10 +lat_ts=60 +a=6378137 +b=6356752 +x_0=0 +y_0=0"


def storm(number: int, height: int = 48, width: int = 40) -> np.ndarray:
    """A round storm that moves a cell a frame to the east and half a cell to the south, seen in all but 6 columns."""
    y, x = np.mgrid[:height, :width]
    rate = 20 * np.exp(-((x - 12 - number) ** 2 + (y - 18 - number / 2) ** 2) / 40)
    rate[rate < 0.1] = 0
    rate[:, -6:] = np.nan
    return rate.astype(np.float32)


def odim(folder: Path, time: datetime, rate: np.ndarray, quantity: str = "RATE", **how: float) -> Path:
    """ODIM: 8 bits of reflectivity, or 16 of a rate."""
    import h5py
    import pyproj

    file = folder / f"composite_{time:%Y%m%d%H%M}.h5"
    height, width = rate.shape
    if quantity == "RATE":
        gain, offset, nodata, undetect, kind = 0.01, 0.0, 65535, 0, np.uint16
        raw = np.round(np.nan_to_num(rate) / gain)
    else:
        a, b = how.get("zr_a", 200.0), how.get("zr_b", 1.6)
        gain, offset, nodata, undetect, kind = 0.5, -32.0, 255, 0, np.uint8
        with np.errstate(divide="ignore"):
            dbz = 10 * np.log10(a * np.nan_to_num(rate) ** b)
        raw = np.where(np.isfinite(dbz), np.round((dbz - offset) / gain).clip(1, 254), undetect)
    raw = np.where(np.isnan(rate), nodata, raw).astype(kind)
    place = pyproj.Proj(STEREO)
    left, bottom = -50_000.0, -4_000_000.0
    with h5py.File(file, "w") as content:
        content.attrs["Conventions"] = np.bytes_("ODIM_H5/V2_2")
        what = content.create_group("what")
        for name, value in {"object": "COMP", "version": "H5rad 2.2", "source": "ORG:000"}.items():
            what.attrs[name] = np.bytes_(value)
        what.attrs["date"], what.attrs["time"] = np.bytes_(f"{time:%Y%m%d}"), np.bytes_(f"{time:%H%M%S}")
        where = content.create_group("where")
        where.attrs["projdef"] = np.bytes_(STEREO)
        where.attrs["xsize"], where.attrs["ysize"] = width, height
        where.attrs["xscale"] = where.attrs["yscale"] = 1000.0
        corners = {"LL": (left, bottom), "UR": (left + width * 1000, bottom + height * 1000)}
        for name, (x, y) in corners.items():
            where.attrs[f"{name}_lon"], where.attrs[f"{name}_lat"] = place(x, y, inverse=True)
        if how:
            content.create_group("how").attrs.update(how)
        data = content.create_dataset("dataset1/data1/data", data=raw, compression="gzip")
        data.attrs["CLASS"] = np.bytes_("IMAGE")
        said = content.create_group("dataset1/data1/what").attrs
        said["quantity"] = np.bytes_(quantity)
        said["gain"], said["offset"], said["nodata"], said["undetect"] = gain, offset, float(nodata), float(undetect)
    return file


def knmi(folder: Path, time: datetime, rate: np.ndarray) -> Path:
    """KNMI: hundredths of a millimetre in five minutes."""
    import h5py

    file = folder / f"RAD_NL25_RAP_5min_{time:%Y%m%d%H%M}.h5"
    height, width = rate.shape
    raw = np.where(np.isnan(rate), 65535, np.round(np.nan_to_num(rate) / 12 * 100)).astype(np.uint16)
    months = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
    with h5py.File(file, "w") as content:
        overview = content.create_group("overview")
        for name, at in (("start", time - STEP), ("end", time)):
            text = f"{at:%d}-{months[at.month - 1]}-{at:%Y;%H:%M:%S}.000"
            overview.attrs[f"product_datetime_{name}"] = np.array([text], "S25")
        geographic = content.create_group("geographic")
        sizes = {"geo_number_columns": width, "geo_number_rows": height, "geo_column_offset": 0.0}
        for name, value in {
            **sizes,
            "geo_row_offset": 3650.0,
            "geo_pixel_size_x": 1.0,
            "geo_pixel_size_y": -1.0,
        }.items():
            geographic.attrs[name] = np.array([value], np.float32)
        geographic.attrs["geo_dim_pixel"] = np.bytes_("KM,KM")
        content.create_group("geographic/map_projection").attrs["projection_proj4_params"] = np.bytes_(
            "+proj=stere +lat_0=90 +lon_0=0.0 +lat_ts=60.0 +a=6378.137 +b=6356.752 +x_0=0 +y_0=0"
        )
        image = content.create_group("image1")
        image.attrs["image_geo_parameter"] = np.bytes_("ACCUMULATED_PRECIPITATION_[MM]")
        image.create_dataset("image_data", data=raw, compression="gzip")
        calibration = image.create_group("calibration")
        calibration.attrs["calibration_formulas"] = np.bytes_("GEO=0.01*PV+0.0")
        calibration.attrs["calibration_missing_data"] = np.array([65535], np.int32)
        calibration.attrs["calibration_out_of_image"] = np.array([65535], np.int32)
    return file


def fmi(folder: Path, time: datetime, rate: np.ndarray) -> Path:
    """FMI: half dBZ above -32 in a gzipped PGM."""
    file = folder / f"{time:%Y%m%d%H%M}_fmi.radar.composite.lowest_FIN_SUOMI1.pgm.gz"
    height, width = rate.shape
    with np.errstate(divide="ignore"):
        raw = 2 * (10 * np.log10(223 * np.nan_to_num(rate) ** 1.53)) + 64
    raw = np.where(np.isnan(rate), 255, np.where(np.isfinite(raw), np.round(raw).clip(1, 254), 0)).astype(np.uint8)
    said = f"""P5
# composite_area FIN
# radar KOR 1 21.6460 60.1280
# obstime {time:%Y%m%d%H%M}
# producttype CAPPI
# param CorrectedReflectivity
# metersperpixel_x 999.674053
# metersperpixel_y 999.62859
# projection radar {{
# type stereographic
# centrallongitude 25
# centrallatitude 90
# truelatitude 60
# bottomleft 18.600000 57.930000
# topright 34.903000 69.005000
# }}
{width} {height}
255
"""
    file.write_bytes(gzip.compress(said.encode() + raw.tobytes()))
    return file


def mrms(folder: Path, time: datetime, rate: np.ndarray) -> Path:
    """MRMS: GRIB2 of NOAA's own table, -3 for what no radar sees."""
    import eccodes

    file = folder / f"PrecipRate_00.00_{time:%Y%m%d-%H%M%S}.grib2"
    height, width = rate.shape
    message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
    keys = {
        "centre": 161, "discipline": 209, "parameterCategory": 6, "parameterNumber": 1,
        "dataDate": int(f"{time:%Y%m%d}"), "dataTime": int(f"{time:%H%M}"), "second": time.second, "Ni": width,
        "Nj": height, "latitudeOfFirstGridPointInDegrees": 54.995, "longitudeOfFirstGridPointInDegrees": 230.005,
        "latitudeOfLastGridPointInDegrees": 54.995 - 0.01 * (height - 1),
        "longitudeOfLastGridPointInDegrees": 230.005 + 0.01 * (width - 1), "iDirectionIncrementInDegrees": 0.01,
        "jDirectionIncrementInDegrees": 0.01, "jScansPositively": 0, "bitsPerValue": 16,
    }  # fmt: skip
    for name, value in keys.items():
        eccodes.codes_set(message, name, value)
    eccodes.codes_set_values(message, np.where(np.isnan(rate), -3, rate).ravel().astype(float))
    with file.open("wb") as handle:
        eccodes.codes_write(message, handle)
    eccodes.codes_release(message)
    return file


def netcdf(folder: Path, time: datetime, rate: np.ndarray) -> Path:
    """CF NetCDF, packed into 16 bits, with a fill value and rows from south to north."""
    import xarray

    file = folder / f"radar_{time:%Y%m%d%H%M}.nc"
    height, width = rate.shape
    y, x = -4_000_000.0 + 1000 * np.arange(height), 1000.0 * np.arange(width)
    content = xarray.Dataset(
        {
            "rr": (("time", "y", "x"), rate[None, ::-1], {"units": "mm h-1", "grid_mapping": "crs"}),
            "crs": ((), 0, {
                "grid_mapping_name": "polar_stereographic", "latitude_of_projection_origin": 90.0,
                "straight_vertical_longitude_from_pole": 10.0, "standard_parallel": 60.0, "false_easting": 0.0,
                "false_northing": 0.0, "semi_major_axis": 6378137.0, "semi_minor_axis": 6356752.0,
            }),
        },
        {"time": [np.datetime64(time)], "y": ("y", y, {"units": "m"}), "x": ("x", x, {"units": "m"})},
    )  # fmt: skip
    packing = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -1, "zlib": True}
    content.to_netcdf(file, engine="h5netcdf", encoding={"rr": packing})
    return file


def geotiff(folder: Path, time: datetime, rate: np.ndarray) -> Path:
    """GeoTIFF of floats, whose time is in its name alone."""
    import rasterio

    file = folder / f"rain_{time:%Y%m%d_%H%M}.tif"
    height, width = rate.shape
    with rasterio.open(
        file, "w", driver="GTiff", height=height, width=width, count=1, dtype="float32", nodata=-9999.0,
        crs="EPSG:3035", transform=rasterio.transform.from_origin(4_000_000, 3_000_000, 1000, 1000),
    ) as content:  # fmt: skip
        content.write(np.where(np.isnan(rate), -9999, rate).astype(np.float32), 1)
        content.units = ["mm/h"]
    return file


FORMATS: dict[str, Callable[[Path, datetime, np.ndarray], Path]] = {
    "odim": odim, "knmi": knmi, "fmi": fmi, "mrms": mrms, "netcdf": netcdf, "geotiff": geotiff,
}  # fmt: skip


def write_event(folder: Path, kind: str = "odim", count: int = 8, **sizes: int) -> list[Path]:
    """The storm in so many files, five minutes apart."""
    folder.mkdir(parents=True, exist_ok=True)
    return [FORMATS[kind](folder, START + number * STEP, storm(number, **sizes)) for number in range(count)]
