"""Clips that users have as arrays."""

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
    # Pickled objects, which these files can hold, are refused by numpy's default.
    content = np.load(file, allow_pickle=False)
    if isinstance(content, np.lib.npyio.NpzFile):
        if len(content.files) != 1:
            raise ValueError(f"{file} holds {len(content.files)} arrays, wanted one")
        content = content[content.files[0]]
    clips = torch.from_numpy(content)
    if clips.dtype == torch.uint8:
        clips = clips.float() / 255
    elif not clips.is_floating_point() or clips.min() < 0 or clips.max() > 1:
        raise ValueError(f"{file} should hold uint8, or floats in [0, 1]; it holds {content.dtype}")
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
    return clips.float()
