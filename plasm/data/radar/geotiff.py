"""GeoTIFF, one frame a file, its first band; read by GDAL's driver of that name alone, which opens no other file."""

import logging
import math
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from plasm.data.limits import check_bytes
from plasm.data.reading import reading
from plasm.files import require

from .frames import MARSHALL_PALMER, Frame, ReadOptions, check_unit, knows, name_time, quantity, to_rate
from .grid import Grid, proj_string

_LOG = logging.getLogger(__name__)


def frames(file: Path, options: ReadOptions) -> list[Frame]:
    """Read the metadata of the file; see ``open_frames``."""
    with reading(file, "a whole GeoTIFF file"), _env(), _open(file) as content:
        check_bytes(content.height * content.width * 16, str(file), f"a composite of {content.height}x{content.width}")
        # GDAL unpacks whole blocks, those of all bands where their values alternate.
        bands = content.count if str(content.interleaving).lower().endswith("pixel") else 1
        block = math.prod(content.block_shapes[0]) * np.dtype(content.dtypes[0]).itemsize * bands
        check_bytes(block, str(file), f"a block of {' x '.join(map(str, content.block_shapes[0]))}")
        tags = {**content.tags(), **content.tags(1)}
        unit = options.unit or next((u for u in (content.units[0], tags.get("units"), tags.get("unit")) if u), None)
        if unit is None:
            unit = next((word for word in (content.descriptions[0],) if knows(word)), None)
        if unit is None:
            _LOG.warning("%s does not say the unit of its values: taken for mm/h; else give unit=dBZ", file)
            unit = "mm/h"
        grid = _grid(content, file)
        stamp = tags.get("TIFFTAG_DATETIME", "")
    try:
        time = datetime.strptime(stamp, "%Y:%m:%d %H:%M:%S")
    except ValueError:
        time = name_time(file, options)
    check_unit(unit, file)
    zr = options.zr or MARSHALL_PALMER
    return [Frame(file, time, grid, quantity(unit, zr), partial(_read, file, unit, zr))]


def _env() -> Any:
    # Neither what lies beside the file nor what it names.
    return require("rasterio").Env(
        GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO", GDAL_TIFF_INTERNAL_MASK="YES",
        CPL_VSIL_CURL_ALLOWED_EXTENSIONS="none",
    )  # fmt: skip


def _open(file: Path) -> Any:
    # Absolute: a relative name could begin as one of GDAL's virtual file systems does.
    return require("rasterio").open(file.resolve(), driver="GTiff", sharing=False)


def _grid(content: Any, file: Path) -> Grid:
    size, transform = (content.height, content.width), content.transform
    if transform.is_identity or content.crs is None:
        return Grid(*size)
    if transform.b or transform.d or transform.a <= 0 or transform.e == 0:
        raise ValueError(f"{file} is rotated or mirrored: its columns do not lead to the east")
    unit = "degrees" if content.crs.is_geographic else "m"
    metres = 1.0 if unit == "degrees" else content.crs.linear_units_factor[1]
    projection = proj_string(content.crs.to_wkt())
    if metres != 1.0:
        raise ValueError(f"{file} is in {content.crs.linear_units}, wanted metres or degrees")
    top = transform.f if transform.e < 0 else transform.f + transform.e * size[0]
    return Grid(*size, transform.a, abs(transform.e), transform.c, top, unit, projection)  # type: ignore[arg-type]


def _read(file: Path, unit: str, zr: tuple[float, float]) -> np.ndarray:
    with reading(file, "a whole GeoTIFF file"), _env(), _open(file) as content:
        values = content.read(1, masked=True)
        rows_rise = content.transform.e > 0 and not content.transform.is_identity
        scale, offset = content.scales[0], content.offsets[0]
    values = np.ma.filled(values.astype(np.float64) * scale + offset, np.nan)
    return to_rate(values[::-1] if rows_rise else values, unit, file, zr)
