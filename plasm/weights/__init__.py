"""Published weights: what there is, where it lies, and whether it is what it should be."""

from .files import file_sha256, load_tensors, save_pretrained, save_tensors, write_beside
from .manifest import Entry, WeightsNotFoundError, entries, find, path, tags

__all__ = [
    "Entry",
    "WeightsNotFoundError",
    "entries",
    "file_sha256",
    "find",
    "load_tensors",
    "path",
    "save_pretrained",
    "save_tensors",
    "tags",
    "write_beside",
]
