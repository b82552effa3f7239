"""Packages that only some data sets need, imported when they are used."""

import importlib
from types import ModuleType

__all__ = ["require"]

_EXTRAS = {"av": "video", "h5py": "h5"}


def require(module: str) -> ModuleType:
    """Import "av" or "h5py".

    Raises:
        ImportError: If it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"reading these files needs {module} ({error}): pip install 'plasm[{_EXTRAS[module]}]'"
        ) from error
