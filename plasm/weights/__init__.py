"""Published weights: what there is, where it lies, and whether it is what it should be."""

from .card import Card, Paper
from .convert import plain_state_dict, read_checkpoint, read_entry
from .files import (
    check_tensors,
    describe_folder,
    file_sha256,
    half_precision,
    load_folder,
    load_tensors,
    made_as_published,
    read_model_config,
    save_pretrained,
    save_tensors,
    tensors_sha256,
    unwrapped,
)
from .hub import cached_file, cached_sha256, check_cached, fetch, fetch_config, push
from .interface import ModelInterface
from .manifest import Entry, WeightsNotFoundError, describe, entries, entry, markdown_table, tags
from .sources import add_source, find, sources

__all__ = [
    "Card",
    "Entry",
    "ModelInterface",
    "Paper",
    "WeightsNotFoundError",
    "add_source",
    "cached_file",
    "cached_sha256",
    "check_cached",
    "check_tensors",
    "describe",
    "describe_folder",
    "entries",
    "entry",
    "fetch",
    "fetch_config",
    "file_sha256",
    "find",
    "half_precision",
    "load_folder",
    "load_tensors",
    "made_as_published",
    "markdown_table",
    "plain_state_dict",
    "push",
    "read_checkpoint",
    "read_entry",
    "read_model_config",
    "save_pretrained",
    "save_tensors",
    "sources",
    "tags",
    "tensors_sha256",
    "unwrapped",
]
