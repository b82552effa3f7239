"""Random masks over the pixels (or patches) of input frames (PLA-SM, Section III-F; arXiv 2311.11289)."""

import math

import torch
from torch import Tensor

from .selection import floor_ratio, top_mask


def pixel_mask_from_keys(keys: Tensor, height: int, width: int, mask_ratio: float, patch_size: int = 1) -> Tensor:
    """Mask the patches with the lowest keys of each frame, so that random keys give a random mask.

    Args:
        keys: (N, P), one key a patch, P = ceil(height / patch_size) * ceil(width / patch_size), in row-major order.
        height: H of the frames, in pixels.
        width: W of the frames, in pixels.
        mask_ratio: Share of the patches to mask, r0 of Table I, in [0, 1].
        patch_size: Side of a patch in pixels; patches at the bottom and the right edge may be cut.

    Returns:
        bool, (N, 1, H, W), True where a pixel is visible; exactly floor(mask_ratio * P) patches a frame are not.

    Raises:
        ValueError: If ``mask_ratio`` is outside [0, 1], a size is not positive, or there are other keys than (N, P).
    """
    rows, columns = _patch_grid(height, width, patch_size)
    patches = rows * columns
    if keys.ndim != 2 or keys.shape[1] != patches:
        # Of a multiple, they would be taken for those of more frames.
        raise ValueError(f"keys are (N, {patches}), one for each of {rows}x{columns} patches, got {tuple(keys.shape)}")
    visible = top_mask(keys, patches - floor_ratio(mask_ratio, patches)).view(-1, 1, rows, columns)
    if patch_size > 1:
        visible = visible.repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)[..., :height, :width]
    return visible


def random_pixel_mask(
    num_frames: int,
    height: int,
    width: int,
    mask_ratio: float,
    patch_size: int = 1,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw a mask for each frame on its own (Section III-F: "randomly masked at the pixel level").

    The paper's text masks pixels, its authors' code 4x4 patches: hence ``patch_size``, 1 as in the text.

    Args:
        num_frames: N.
        height: H, in pixels.
        width: W, in pixels.
        mask_ratio: Share of the patches to mask, r0 of Table I, in [0, 1].
        patch_size: Side of a patch, in pixels.
        generator: Source of randomness, on ``device``; torch's global one by default.
        device: Where the mask is made.

    Returns:
        bool, (N, 1, H, W), True where a pixel is visible; exactly floor(mask_ratio * number of patches) patches of
        each frame are masked.

    Raises:
        ValueError: If ``mask_ratio`` is outside [0, 1] or a size is not positive.
    """
    keys = torch.rand(num_frames, math.prod(_patch_grid(height, width, patch_size)), generator=generator, device=device)
    return pixel_mask_from_keys(keys, height, width, mask_ratio, patch_size)


def _patch_grid(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches, cut ones at the edges too; a ValueError if a size is not positive."""
    if min(height, width, patch_size) < 1:
        raise ValueError(f"sizes must be positive, got {height}x{width} pixels in patches of {patch_size}")
    return math.ceil(height / patch_size), math.ceil(width / patch_size)
