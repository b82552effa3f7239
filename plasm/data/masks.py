"""Pixel masks for pretraining, as a function of (seed, epoch, index): the same for any batch, device or worker."""

import math

import torch
from torch import Tensor

from plasm.layers.pixel_mask import pixel_mask_from_keys

from .counter_hash import counter_hash

# Keeps the numbers of masks apart from those of clips, whose second counter is a split from 0 to 2.
_STREAM = 3


def pixel_mask(
    index: Tensor,
    num_frames: int,
    height: int,
    width: int,
    mask_ratio: float,
    patch_size: int = 1,
    *,
    seed: int = 0,
    epoch: int = 0,
) -> Tensor:
    """Mask the frames of clips (Section III-F of PLA-SM), each frame on its own.

    Args:
        index: int64, (B,), which clips of the data set; the mask is made on its device.
        num_frames: T.
        height: H, in pixels.
        width: W, in pixels.
        mask_ratio: r0, the ratio of the patches to mask.
        patch_size: Side of a patch, in pixels.
        seed: Of the run.
        epoch: Pass over the data set.

    Returns:
        bool, (B * T, 1, H, W), True where a pixel is visible.
    """
    if patch_size < 1:
        raise ValueError(f"a patch is at least one pixel wide, got {patch_size}")
    patches = math.ceil(height / patch_size) * math.ceil(width / patch_size)
    frame = torch.arange(num_frames, device=index.device)[:, None]
    patch = torch.arange(patches, device=index.device)
    keys = counter_hash(seed, _STREAM, epoch, index[:, None, None], frame, patch)
    return pixel_mask_from_keys(keys.flatten(0, 1), height, width, mask_ratio, patch_size)
