"""Modules that are imported when they are used: packages that only some data sets need, and those that users name."""

import importlib
import os
import sys
from types import ModuleType
from typing import Any

__all__ = ["UserModules", "import_named", "require"]

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


_named: dict[str, None] = {}


def import_named(module: str) -> ModuleType:
    """Import what a user named, of MODULE:NAME. It may lie in the current folder, which is on the path no longer.

    Raises:
        ImportError: If there is no such module.
    """
    if not all(part.isidentifier() for part in module.split(".")):
        raise ImportError(f"{module!r} is no name of a module")
    folder = os.getcwd()
    importlib.invalidate_caches()
    # Last, so that nothing in it stands for a module that is installed.
    sys.path.append(folder)
    try:
        found = importlib.import_module(module)
    finally:
        if folder in sys.path:
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(folder)]
    _named[module] = None
    return found


class UserModules:
    """The modules that ``import_named`` gave: unpickled in another process, it imports them there."""

    def __reduce__(self) -> Any:
        """Names alone."""
        return _import_all, (tuple(_named),)


def _import_all(names: tuple[str, ...]) -> UserModules:
    for name in names:
        import_named(name)
    return UserModules()
