"""plasm: video prediction models for PyTorch.

Importing it registers every model with timm; ``create_model`` is timm's, ``list_models`` lists plasm's.
"""

import os
import sys

# Before anything else is imported: `python -m plasm` puts the current folder before all others, and whatever lies in
# it, a downloaded av.py say, would be taken for the module of that name.
if sys.argv[:1] == ["-m"] and sys.path[:1] == [os.getcwd()] and not getattr(sys.flags, "safe_path", False):
    del sys.path[0]

from pathlib import Path
from typing import Any

from timm.models import create_model as _create_model
from timm.models import list_models as _list_models

from plasm import models, weights
from plasm.exporting import export

__version__ = "0.1.0"

__all__ = ["__version__", "create_model", "export", "list_models", "models"]


def create_model(model_name: str, *args: Any, **kwargs: Any) -> Any:
    """``timm.create_model``, which knows every model of plasm as well.

    With this one, a Hub that does not answer for "hf-hub:OWNER/NAME" is an error within seconds, where timm asks on and
    on; a config.json that came damaged is removed from the cache before timm reads it; and of the Hub and of folders,
    no model of timm's own is made, whose arguments and files nothing checks.

    Raises:
        ConnectionError: If the Hub does not answer, and the cache has no such model.
        plasm.weights.WeightsNotFoundError: If the Hub has no such model.
        ValueError: If its config.json, or that of "local-dir:FOLDER", is not the configuration of a model of plasm or
            of the user.
    """
    source, _, name = model_name.partition(":")
    if source in ("hf-hub", "local-dir"):
        if source == "hf-hub":
            config = weights.fetch_config(name, kwargs.get("cache_dir"))
        else:
            config = weights.read_model_config(Path(name) / "config.json")
        if models.is_timm_model(config["architecture"]):
            raise ValueError(f"{model_name} holds a {config['architecture']}, which is timm's and no model of plasm")
    return _create_model(model_name, *args, **kwargs)


def list_models(pretrained: bool = False) -> list[str]:
    """Names of plasm's models, for ``create_model``; with ``pretrained``, those that have weights, with tags."""
    return [name for name in _list_models(pretrained=pretrained) if models.is_plasm_model(name)]
