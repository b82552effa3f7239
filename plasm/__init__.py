"""plasm: video prediction models for PyTorch.

Importing it registers every model with timm; ``create_model`` is timm's, ``list_models`` lists plasm's.
"""

from timm.models import create_model
from timm.models import list_models as _list_models

from plasm import models

__version__ = "0.1.0"

__all__ = ["__version__", "create_model", "list_models", "models"]


def list_models(pretrained: bool = False) -> list[str]:
    """Names of plasm's models, for ``create_model``; with ``pretrained``, those that have weights, with tags."""
    return _list_models("plasm*", module="plasm", pretrained=pretrained)
