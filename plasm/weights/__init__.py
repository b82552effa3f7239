"""Published weights: what there is, where it lies, and whether it is what it should be."""

from .files import load_tensors, save_pretrained, save_tensors
from .manifest import Entry, WeightsNotFoundError, entries, find, path, tags

__all__ = [
    "Entry",
    "WeightsNotFoundError",
    "entries",
    "find",
    "load_tensors",
    "path",
    "save_pretrained",
    "save_tensors",
    "tags",
]
