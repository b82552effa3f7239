"""Checkpoints of a run in progress: tensors as safetensors, the rest as JSON, written whole or not at all.

A checkpoint is a folder, ``RUN/checkpoints/step_NNNNNNNN``, with ``state.safetensors`` and ``state.json``, which holds
the sha256 of both. The last two are kept: should the newest be damaged, there is another.
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from plasm import weights
from plasm.files import parse_json

_KEPT = 2
# What systems say that flush no folders.
_NO_FOLDERS = {errno.EBADF, errno.EACCES, errno.EPERM, errno.EINVAL, errno.EISDIR, errno.ENOTSUP}
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """State of a run.

    Attributes:
        tensors: By name.
        values: Whatever JSON can hold.
    """

    tensors: dict[str, Tensor]
    values: dict[str, Any]


def save(tensors: Mapping[str, Tensor], values: Mapping[str, Any], folder: Path, step: int) -> None:
    """Write a checkpoint, through to the disk, and delete all but the last two.

    The values are whatever JSON can hold, and numbers stay exact. The folder is ``RUN/checkpoints``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final, beside = folder / _name(step), folder / f".{_name(step)}"
    for remains in folder.glob(".step_*"):
        shutil.rmtree(remains)
    beside.mkdir()
    try:
        weights.save_tensors(tensors, beside / "state.safetensors")
        # As it is read again: keys of JSON are text.
        plain = json.loads(json.dumps(values))
        state = {**plain, "sha256": _sha256(plain, weights.file_sha256(beside / "state.safetensors"))}
        (beside / "state.json").write_text(json.dumps(state, sort_keys=True), encoding="utf-8")
        for path in (beside / "state.safetensors", beside / "state.json", beside):
            _flush(path)
        if final.exists():
            # A run that went on from an older checkpoint, the newest being damaged, comes by here again.
            shutil.rmtree(final)
        beside.rename(final)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    _flush(folder)
    for old in _all(folder)[_KEPT:]:
        shutil.rmtree(old)


def load_newest(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint that is whole; a damaged one is reported and skipped. None where there is none at all.

    Raises:
        OSError: If there are checkpoints, and every one is damaged.
    """
    found = _all(folder)
    for path in found:
        try:
            return _load(path)
        except (OSError, ValueError) as error:
            _logger.warning("checkpoint %s is damaged (%s): trying the one before", path, error)
    if found:
        raise OSError(f"every checkpoint in {folder} is damaged; start anew with another --out")
    return None


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint; None where there is none."""
    return next(map(_step, _all(folder)), None)


def keep_last(folder: Path, step: int) -> None:
    """Delete all but the last two checkpoints up to a step.

    Those after it are damaged, and would pass for the newest; a process that was killed while it saved leaves a third.
    """
    later = [path for path in _all(folder) if _step(path) > step]
    for path in [*later, *_all(folder)[len(later) + _KEPT :]]:
        shutil.rmtree(path)


def _name(step: int) -> str:
    return f"step_{step:08d}"


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def _load(path: Path) -> Checkpoint:
    for name in ("state.json", "state.safetensors"):
        if not (path / name).is_file():
            # A pipe would be waited for.
            raise FileNotFoundError(f"{name} is not there, or no file")
    values = parse_json((path / "state.json").read_bytes(), "state.json")
    if not isinstance(values, dict):
        raise ValueError("state.json is damaged: wanted an object")
    if values.pop("sha256", None) != _sha256(values, weights.file_sha256(path / "state.safetensors")):
        raise ValueError("state.json and state.safetensors are not those that were saved: their sha256 is another")
    return Checkpoint(weights.load_tensors(path / "state.safetensors"), values)


def _sha256(values: Mapping[str, Any], tensors: str) -> str:
    """Of what state.json says, and of the file of the tensors, whose own is given."""
    return hashlib.sha256(f"{tensors} {json.dumps(values, sort_keys=True)}".encode()).hexdigest()


def _all(folder: Path) -> list[Path]:
    """Newest first. What else lies there, a copy that somebody made, say, is none of them."""
    found = (path for path in folder.glob("step_*") if re.fullmatch(r"step_\d{8,}", path.name) and path.is_dir())
    return sorted(found, key=_step, reverse=True)


def _flush(path: Path) -> None:
    """Write a file or folder through to the disk; a folder where the system can: Windows cannot."""
    is_folder = path.is_dir()
    try:
        # Windows flushes only what may be written; nobody opens a folder for writing.
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not is_folder or error.errno not in _NO_FOLDERS:
            raise
