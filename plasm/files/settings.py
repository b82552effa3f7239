"""Libraries that look for settings in the current folder when they are imported."""

import importlib
import os
import sys
import threading
from types import ModuleType
from typing import Any

__all__ = ["import_without_settings"]

_FILES = {"matplotlibrc": "MATPLOTLIBRC", "pystepsrc": "PYSTEPSRC"}
_lock = threading.RLock()


def import_without_settings(module: str) -> ModuleType:
    """Import matplotlib, pysteps or netCDF4, or what imports them, as if the current folder held no settings for it.

    Whatever lies there is untrusted, and is the first that they would read: it may name a program or a
    module. Settings in the user's own folders, or named by the environment, stay. The folder itself stays the current
    one, since other threads may be at work in it.

    Raises:
        ImportError: If it is not installed.
    """
    # The C library of NetCDF looks for .ncrc, .daprc and .dodsrc there, which are for reading from servers.
    os.environ.setdefault("NCRCENV_IGNORE", "1")
    if module in sys.modules:
        return importlib.import_module(module)
    with _lock:
        ours, exists = threading.get_ident(), os.path.exists

        def exists_elsewhere(path: Any) -> bool:
            if threading.get_ident() == ours and _is_settings(path):
                return False
            return exists(path)

        os.path.exists = exists_elsewhere
        try:
            return importlib.import_module(module)
        finally:
            os.path.exists = exists


def _is_settings(path: Any) -> bool:
    """Whether it is a file of settings in the current folder that the user did not name."""
    if not isinstance(path, (str, os.PathLike)):
        return False
    variable = _FILES.get(os.path.basename(path))
    if variable is None or os.fspath(path) == os.environ.get(variable):
        return False
    return os.path.dirname(os.path.abspath(path)) == os.getcwd()
