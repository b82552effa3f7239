"""Packages that are no requirement of the library, imported when they are used."""

from types import ModuleType

from .settings import import_without_settings

_EXTRAS = {
    "av": "video", "PIL": "video", "h5py": "h5", "tifffile": "tiff", "imagecodecs": "tiff", "xarray": "netcdf",
    "h5netcdf": "netcdf", "scipy": "netcdf", "netCDF4": "netcdf", "eccodes": "radar", "rasterio": "radar",
    "pyproj": "radar", "pysteps": "pysteps", "cv2": "pysteps", "skimage": "cli", "tomli": "cli", "tomli_w": "cli",
    "lpips": "lpips", "onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx", "openvino": "openvino",
}  # fmt: skip


def require(module: str) -> ModuleType:
    """Import "av", "h5py", "skimage.metrics" or the like.

    Raises:
        ImportError: If it is not installed; the message says what to install.
    """
    try:
        return import_without_settings(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise ImportError(f"this needs {package} ({error}): pip install 'plasm-video[{_EXTRAS[package]}]'") from error
