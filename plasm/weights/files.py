"""Reading and writing weight files: safetensors only, and never half a file."""

import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn

__all__ = ["load_tensors", "save_pretrained", "save_tensors"]


def save_tensors(tensors: dict[str, Tensor], file: Path) -> None:
    """Write tensors beside ``file``, then rename, so that a reader sees the old file or the whole new one."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        # safetensors refuses channels_last tensors and views.
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, beside)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


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
    beside = folder / f".config.json.{os.getpid()}"
    try:
        save_config_for_hf(model, str(beside), model_config=config)
        beside.replace(folder / "config.json")
    finally:
        beside.unlink(missing_ok=True)
    save_tensors(model.state_dict() if tensors is None else tensors, folder / "model.safetensors")
