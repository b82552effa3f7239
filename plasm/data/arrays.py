"""Clips that users have as arrays."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

__all__ = ["read_clips"]


def read_clips(file: Path, channels: int) -> Tensor:
    """Read clips from a ``.npy`` file, or from an ``.npz`` file with one array.

    Args:
        file: Array of (T, H, W), (T, C, H, W), (T, H, W, C), (B, T, C, H, W) or (B, T, H, W, C); uint8, or floats
            in [0, 1].
        channels: C.

    Returns:
        (B, T, C, H, W), floats in [0, 1].

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the array is none of these.
    """
    if file.suffix not in (".npy", ".npz"):
        raise ValueError(f"{file} is not a .npy or .npz file")
    content = _load_array(file)
    if content.size == 0 or (content.dtype != np.uint8 and content.dtype.kind != "f"):
        raise ValueError(f"{file} should hold uint8, or floats in [0, 1]; it holds {content.dtype}, {content.shape}")
    clips = torch.from_numpy(content).float()
    if content.dtype == np.uint8:
        clips = clips / 255
    if not (clips.min() >= 0 and clips.max() <= 1):  # NaN fails both
        raise ValueError(f"{file} should hold floats in [0, 1]; it holds {content.min()} to {content.max()}")
    if clips.ndim == 3 and channels == 1:
        clips = rearrange(clips, "t h w -> 1 t 1 h w")
    elif clips.ndim == 4:
        clips = clips.unsqueeze(0)
    if clips.ndim == 5 and clips.shape[2] != channels and clips.shape[4] == channels:
        clips = rearrange(clips, "b t h w c -> b t c h w")
    if clips.ndim != 5 or clips.shape[2] != channels:
        raise ValueError(
            f"{file} holds an array of {tuple(content.shape)}; wanted (T, C, H, W), (T, H, W, C) or (B, T, C, H, W) "
            f"with C = {channels}" + (", or (T, H, W)" if channels == 1 else "")
        )
    return clips


def _load_array(file: Path) -> np.ndarray:
    # Pickled objects, which these files can hold, are refused by numpy's default.
    try:
        content = np.load(file, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            return content
        if len(content.files) == 1:
            return content[content.files[0]]
    except (EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    raise ValueError(f"{file} holds {len(content.files)} arrays, wanted one")
