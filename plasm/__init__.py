"""plasm: video prediction models for PyTorch.

Importing it registers every model with timm; ``create_model`` is timm's, ``list_models`` lists plasm's.
"""

import os
import sys

# Before anything else is imported: `python -m plasm` puts the current folder before all others, and whatever lies in
# it, a downloaded av.py say, would be taken for the module of that name.
if sys.argv[:1] == ["-m"] and sys.path[:1] == [os.getcwd()] and not getattr(sys.flags, "safe_path", False):
    del sys.path[0]

from plasm import models
from plasm._version import __version__
from plasm.exporting import export, is_exported, load_exported
from plasm.models import create_model, list_models

models.add_file_format(is_exported, load_exported)

__all__ = ["__version__", "create_model", "export", "list_models", "models"]
