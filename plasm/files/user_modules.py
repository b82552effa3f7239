"""Modules that users name, as MODULE:NAME, in which their models and data sets are."""

import importlib
import os
import sys
from types import ModuleType
from typing import Any

_named: dict[str, None] = {}


def import_named(module: str) -> ModuleType:
    """Import the module of a user's MODULE:NAME, also from the current folder, which is not on the path.

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
