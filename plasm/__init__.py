"""plasm: video prediction models for PyTorch.

Importing it registers every model with timm; ``create_model`` is timm's, ``list_models`` lists plasm's.
"""

import os
import sys

# Before anything else is imported: `python -m plasm` puts the current folder before all others, and whatever lies in
# it, a downloaded av.py say, would be taken for the module of that name.
if sys.argv[:1] == ["-m"] and sys.path[:1] == [os.getcwd()] and not getattr(sys.flags, "safe_path", False):
    del sys.path[0]

import contextlib
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Leave the current folder for the root, if no other thread can tell.

    NVIDIA's libraries, which torch loads, look for the driver's libcuda.so.1 in the current folder, where a machine has
    none: whatever lies there by that name would run.
    """
    if sys.platform != "linux" or "torch" in sys.modules or threading.active_count() > 1:
        yield
        return
    with contextlib.ExitStack() as back:
        # One that was deleted, or may not be read, is left as it is.
        with contextlib.suppress(OSError):
            folder = os.open(".", os.O_RDONLY)
            back.callback(os.close, folder)
            back.callback(os.fchdir, folder)
            os.chdir("/")
        yield


with _elsewhere():
    import torch  # noqa: F401

from plasm import models  # noqa: E402
from plasm._version import __version__  # noqa: E402
from plasm.exporting import export, is_exported, load_exported  # noqa: E402
from plasm.models import create_model, list_models  # noqa: E402

models.add_file_format(is_exported, load_exported)

__all__ = ["__version__", "create_model", "export", "list_models", "models"]
