"""Radar files of any format as frames. A file is known by its first bytes, not by its name."""

from collections.abc import Callable
from pathlib import Path

from plasm.data.reading import reading

from . import geotiff, grib, hdf5, netcdf, pgm
from .frames import Frame, ReadOptions, opened

_MAGIC: dict[bytes, Callable[[Path, ReadOptions], list[Frame]]] = {
    b"\x89HDF": hdf5.frames, b"CDF": netcdf.frames, b"GRIB": grib.frames, b"P5": pgm.frames,
    **dict.fromkeys((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"), geotiff.frames),
}  # fmt: skip
_ENDINGS = {
    ".h5", ".hdf", ".hdf5", ".nc", ".nc4", ".grib", ".grib2", ".grb", ".grb2", ".pgm", ".gz", ".tif", ".tiff",
}  # fmt: skip


def open_frames(file: Path, options: ReadOptions | None = None) -> list[Frame] | None:
    """Read the metadata of a radar file: ODIM or KNMI HDF5, FMI PGM, GRIB, CF NetCDF or GeoTIFF.

    Args:
        file: The file; PGM and GRIB may be gzipped.
        options: Metadata that it may lack.

    Returns:
        Its frames; None if it is of none of these formats.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is damaged, or holds something else than rain.
        ImportError: If reading it needs a package that is not installed.
    """
    options = options or ReadOptions()
    with reading(file, "a radar file"), opened(file) as handle:
        head = handle.read(8)
    kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if kind is None:
        if not head and file.suffix.lower() in _ENDINGS:
            raise ValueError(f"{file} is empty")
        if file.suffix.lower() in _ENDINGS:
            raise ValueError(f"{file} is no whole {file.suffix} file: it does not begin as one")
        return None
    return kind(file, options)
