"""Old checkpoints, ``.pth`` and Lightning's ``.ckpt``: their tensors are read, nothing in them is ever run."""

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .files import foreign_content

__all__ = ["plain_state_dict", "read_checkpoint"]

_CONTAINERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("_orig_mod.", "module.", "model.")


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """Read the tensors of an old checkpoint, with ``weights_only=True``.

    Of a dictionary, what it holds as ``state_dict``, ``model_state_dict`` or ``model`` is taken. Leading ``model.``
    (Lightning), ``module.`` (DistributedDataParallel) and ``_orig_mod.`` (torch.compile) fall off the names.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds other Python objects than tensors and plain values, is no checkpoint, or two tensors
            come to bear one name.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there")
    if (foreign := foreign_content(file)) or (foreign := _no_container(file)):
        raise ValueError(f"{file} is no checkpoint of torch: it {foreign}")
    _check_sums(file)
    try:
        # Never with weights_only=False, whatever the file asks for: that runs what it says.
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(_more_than_tensors(file)) from error
    except Exception as error:
        # Of damaged bytes anything may come.
        raise ValueError(f"{file} is no whole checkpoint of torch: {error!r}") from error
    # Tied tensors share memory, which safetensors refuses.
    return {name: tensor.clone() for name, tensor in plain_state_dict(content, str(file)).items()}


def plain_state_dict(content: Any, what: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint that is read, by plain names; see ``read_checkpoint``.

    Args:
        content: A state dict, or what holds one.
        what: Of what the error speaks.

    Raises:
        ValueError: If it holds no tensors, or two come to bear one name.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in _state_dict(content, what).items():
        short = _without_prefixes(name)
        if short in tensors:
            raise ValueError(f"{what} holds two tensors that would be called {short}")
        tensors[short] = tensor
    return tensors


def _no_container(file: Path) -> str | None:
    """Why a file cannot be a zip, tar or pickle, as which torch writes and wrote checkpoints; None if it can."""
    with file.open("rb") as stream:
        head = stream.read(512)
    if head.startswith((b"PK", b"\x80")) or head[257:262] == b"ustar":
        return None
    if head[8:9] == b"{":
        return "is a safetensors file already"
    return f"begins with {head[:16]!r}"


def _check_sums(file: Path) -> None:
    """Compare a zip's contents with their checksums, which torch does not look at.

    Raises:
        ValueError: If one is another: a weight would be another, without a word.
    """
    try:
        if not zipfile.is_zipfile(file):
            return
        with zipfile.ZipFile(file) as archive:
            wrong = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, zlib.error, ValueError) as error:
        raise ValueError(f"{file} is no whole checkpoint of torch: {error!r}") from error
    if wrong is not None:
        raise ValueError(
            f"{file} is no whole checkpoint of torch: {wrong} in it is damaged, its checksum is another (unless it was "
            "written under torch.serialization.set_crc32_options(False))"
        )


def _state_dict(content: Any, what: str) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        content = next((content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{what} holds a {type(content).__name__}, not tensors with names")
    if wrong := [str(name) for name, value in content.items() if not _is_plain(name, value)]:
        raise ValueError(f"{what} holds what is no dense tensor with a name: {', '.join(wrong)}")
    return dict(content)


def _is_plain(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout is torch.strided


def _without_prefixes(name: str) -> str:
    while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name


def _more_than_tensors(file: Path) -> str:
    """What else a checkpoint holds, and how its tensors come out though nothing of the file is run."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except Exception:
        # Of the format before torch 1.6, in which it does not look.
        names = []
    if not names:
        return (
            f"{file} holds Python objects beside tensors, which plasm does not run to read it. Whoever made it and "
            "trusts it can save the tensors alone: torch.save(model.state_dict(), FILE)"
        )
    return f"""{file} holds Python objects beside tensors, which plasm does not run to read it: {", ".join(names)}.
This Python program saves its tensors alone, and runs nothing of it either: an empty class stands for each of those.

import torch

class Empty:
    def __init__(self, *args, **kwargs): pass
    def __setstate__(self, state): pass

with torch.serialization.safe_globals([(Empty, name) for name in {names!r}]):
    content = torch.load({str(file)!r}, weights_only=True)
torch.save(content.get("state_dict", content), {str(file.with_suffix(".tensors.pth"))!r})"""
