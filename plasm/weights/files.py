"""Reading and writing weight files: safetensors only, and never half a file."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn

__all__ = ["file_sha256", "load_tensors", "save_pretrained", "save_tensors", "write_beside"]


@contextmanager
def write_beside(file: Path) -> Iterator[Path]:
    """Give a path beside ``file`` to write to, then rename: a reader sees the old file or the whole new one."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        yield beside
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors as safetensors, whole or not at all."""
    with write_beside(file) as beside:
        # safetensors refuses channels_last tensors and views.
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            save_file(whole, beside)
        except SafetensorError as error:
            raise OSError(f"{file} cannot be written: {error}") from error


def file_sha256(file: Path) -> str:
    """Hexadecimal sha256 of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        OSError: If there is no such file, or it is not a whole safetensors file.
    """
    try:
        return load_file(file)
    except SafetensorError as error:
        raise OSError(f"{file} is not a whole safetensors file: {error}") from error


def save_pretrained(
    model: nn.Module, folder: Path, config: dict[str, Any] | None = None, tensors: dict[str, Tensor] | None = None
) -> None:
    """Write ``model.safetensors`` and ``config.json`` in timm's format: "local-dir:FOLDER" then names the model.

    Args:
        model: Made by ``timm.create_model``, which records the arguments that the config needs.
        folder: Made if it is not there.
        config: More entries for config.json.
        tensors: Written in place of the model's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with write_beside(folder / "config.json") as beside:
        save_config_for_hf(model, str(beside), model_config=config)
    save_tensors(model.state_dict() if tensors is None else tensors, folder / "model.safetensors")
