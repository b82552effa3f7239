"""Reading and writing weight files: safetensors only, and never half a file."""

import hashlib
import inspect
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn

from .card import Card

__all__ = [
    "check_tensors",
    "describe_folder",
    "file_sha256",
    "load_tensors",
    "save_pretrained",
    "save_tensors",
    "write_beside",
]

WEIGHTS_NAME = "model.safetensors"
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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
        places = [tensor.data_ptr() for tensor in whole.values() if tensor.numel()]
        if len(places) > len(set(places)):
            # It refuses tensors that share their memory, too.
            whole = {name: tensor.clone() for name, tensor in whole.items()}
        try:
            save_file(whole, beside)
        except SafetensorError as error:
            raise OSError(f"{file} cannot be written: {error}") from error


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        OSError: If there is no such file, or it is not a whole safetensors file.
    """
    try:
        return load_file(file)
    except SafetensorError as error:
        raise OSError(f"{file} is not a whole safetensors file: {error}") from error


def file_sha256(file: Path) -> str:
    """Hexadecimal sha256 of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    """Check that tensors are those of a model: names, shapes, a floating data type, and finite.

    Args:
        tensors: From a file.
        expected: State dict of the model, on any device; "meta" will do.
        what: Of what the error speaks.

    Raises:
        ValueError: If they are not; it lists what does not fit.
    """
    problems = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} for {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ],
        "of no floating data type": [
            f"{name} {str(tensor.dtype).removeprefix('torch.')}"
            for name, tensor in tensors.items()
            # A counter, of BatchNorm say, is what it was.
            if tensor.dtype not in _DTYPES and (name not in expected or expected[name].dtype != tensor.dtype)
        ],
        "not finite": [
            name for name, tensor in tensors.items() if tensor.dtype in _DTYPES and not tensor.isfinite().all()
        ],
    }
    found = [f"{len(names)} tensor(s) {kind}: {', '.join(names)}" for kind, names in problems.items() if names]
    if found:
        raise ValueError(f"{what} does not fit the model: {'; '.join(found)}")


def save_pretrained(
    model: nn.Module,
    folder: Path | str,
    config: dict[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    card: Card | None = None,
) -> None:
    """Write a folder in timm's format: "local-dir:FOLDER" then names the model, and ``plasm push`` puts it on the Hub.

    It holds ``model.safetensors``, ``config.json`` (architecture, arguments with the frame counts, normalisation, size
    and sha256 of the weights) and a model card, ``README.md``.

    Args:
        model: Made by ``timm.create_model``, which records the arguments that the config needs.
        folder: Made if it is not there.
        config: More entries for config.json.
        tensors: Written in place of the model's own, as a training run in progress does: without a card, and without
            the sha256, which the next save would belie if it were killed half-way.
        card: What the model card says beyond the model itself.

    Raises:
        ValueError: If the model was not made by ``timm.create_model``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if tensors is not None:
        _save_config(model, folder, config or {})
        save_tensors(tensors, folder / WEIGHTS_NAME)
        return
    save_tensors(model.state_dict(), folder / WEIGHTS_NAME)
    describe_folder(model, folder, config, card)


def describe_folder(
    model: nn.Module, folder: Path, config: dict[str, Any] | None = None, card: Card | None = None
) -> None:
    """Write ``config.json`` and ``README.md`` beside the ``model.safetensors`` of a folder; see ``save_pretrained``."""
    file = folder / WEIGHTS_NAME
    described = {"file": file.name, "size": file.stat().st_size, "sha256": file_sha256(file)}
    _save_config(model, folder, {**(config or {}), "weights": described})
    saved = json.loads((folder / "config.json").read_text())
    picture = None
    if card is not None and card.picture is not None:
        picture = f"prediction{card.picture.suffix}"
        with write_beside(folder / picture) as beside:
            beside.write_bytes(card.picture.read_bytes())
    with write_beside(folder / "README.md") as beside:
        beside.write_text((card or Card()).render(folder, saved, picture), encoding="utf-8")


def _save_config(model: Any, folder: Path, config: dict[str, Any]) -> None:
    if not getattr(model, "pretrained_cfg", None):
        raise ValueError(
            f"a {type(model).__name__} that timm.create_model did not make cannot be saved so that it loads by name"
        )
    # Spelled out, so that no later change of a constructor's default changes a saved model.
    known = inspect.signature(type(model)).parameters
    frames = {name: getattr(model, name) for name in ("in_frames", "out_frames") if name in known}
    # timm takes these from the constructor's own configuration, whatever channels were asked for.
    channels = getattr(model, "in_chans", model.pretrained_cfg["input_size"][0])
    normalisation = {name: model.pretrained_cfg[name][:1] * channels for name in ("mean", "std")}
    config = {**config, "pretrained_cfg": normalisation}
    with write_beside(folder / "config.json") as beside:
        save_config_for_hf(model, str(beside), model_config=config, model_args=frames)
