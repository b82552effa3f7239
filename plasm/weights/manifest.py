"""The manifest of published weights: one row a file, read from ``manifest.json`` and written nowhere else."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Entry", "WeightsNotFoundError", "entries", "find", "path", "tags"]

_FOLDER = Path(__file__).parent


class WeightsNotFoundError(LookupError):
    """No such weights are published."""


@dataclass(frozen=True)
class Entry:
    """One published weight.

    Attributes:
        model: Name of the constructor.
        tag: What tells this weight from others of the model.
        file: Name of the safetensors file, beside the manifest.
        size: Bytes of the file.
        sha256: Of the file.
        license: SPDX identifier.
        data: What it was trained on.
        clips: Clips seen in the second phase.
        pretraining: What the first phase was, or None.
        metrics: Measured on the test set, with this very file.
        command: What reproduces the metrics.
        date: Of the training, ISO 8601.
    """

    model: str
    tag: str
    file: str
    size: int
    sha256: str
    license: str
    data: str
    clips: int
    pretraining: str | None
    command: str
    date: str
    metrics: dict[str, Any] = field(default_factory=dict)


@cache
def entries() -> tuple[Entry, ...]:
    """Every row of the manifest; the first of a model is its default."""
    return tuple(Entry(**row) for row in json.loads((_FOLDER / "manifest.json").read_text()))


def tags(model: str) -> list[str]:
    """Tags of the weights of a model, the default first."""
    return [entry.tag for entry in entries() if entry.model == model]


def path(model: str, tag: str) -> Path:
    """Where the file of a weight lies."""
    return _FOLDER / _entry(model, tag).file


def find(model: str, tag: str | None = None) -> Path:
    """Give the file of a weight, after its size and sha256 were checked.

    Args:
        model: Name of the constructor.
        tag: Which weight; the model's default one by default.

    Raises:
        WeightsNotFoundError: If no such weight is published.
        OSError: If the file is missing or is not the one the manifest describes.
    """
    entry = _entry(model, tag)
    file = _FOLDER / entry.file
    content = file.read_bytes()
    if len(content) != entry.size or hashlib.sha256(content).hexdigest() != entry.sha256:
        raise OSError(
            f"{file} is damaged: {len(content)} bytes, where {entry.size} with sha256 {entry.sha256} were published; "
            "install plasm anew"
        )
    return file


def _entry(model: str, tag: str | None) -> Entry:
    for entry in entries():
        if entry.model == model and tag in (None, "", entry.tag):
            return entry
    wanted = f"{model}.{tag}" if tag else model
    published = ", ".join(f"{entry.model}.{entry.tag}" for entry in entries()) or "none yet"
    raise WeightsNotFoundError(f"no weights are published for {wanted}; there are: {published}")
