"""Packages that only some data sets need, imported when they are used."""

import importlib
from types import ModuleType

_EXTRAS = {
    "av": "video", "PIL": "video", "h5py": "h5", "tifffile": "tiff", "imagecodecs": "tiff", "xarray": "netcdf",
    "h5netcdf": "netcdf", "scipy": "netcdf", "netCDF4": "netcdf", "eccodes": "radar", "rasterio": "radar",
    "pyproj": "radar", "pysteps": "pysteps", "cv2": "pysteps",
}  # fmt: skip


def require(module: str) -> ModuleType:
    """Import "av", "h5py", "tifffile" or the like.

    Raises:
        ImportError: If it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise ImportError(
            f"reading these files needs {package} ({error}): pip install 'plasm-video[{_EXTRAS[package]}]'"
        ) from error
