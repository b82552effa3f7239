"""Spatial Masking (SM), Section III-F of PLA-SM (arXiv 2311.11289).

Shapes: N frames, C = dim channels, h x w positions.
"""

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from .autocast import without_autocast
from .conv import init_conv_
from .selection import floor_ratio, top_mask


class SpatialMasking(nn.Module):
    """Attention over channels whose highest scores are masked: stands in for the Translator in pretraining.

    A = q k^T / sqrt(C) with q, k: 1x1 convolutions of the pooled frame; the floor(r C^2) highest entries of A become
    -inf; output = softmax(A) V with V a 3x3 depthwise convolution of the frame. Each frame on its own.

    q k^T has rank 1, so its highest entries share rows and whole rows can be masked (with r = 0.1 and keys of one
    sign, about five of 64): their softmax does not exist. Such a row gives zeros, and no NaN reaches a gradient. The
    scores are computed in float32 even under autocast, because in bfloat16 many tie at the cut; what ties remain
    break by index, so exactly floor(r C^2) entries are masked, always.

    Args:
        dim: Channels C (C-tilde in the paper).
        mask_ratio: r in [0, 1], the ratio of the entries of A to mask (Table IX; 0.1 in the paper).

    Raises:
        ValueError: If ``mask_ratio`` is outside [0, 1].
    """

    def __init__(self, dim: int, mask_ratio: float = 0.1, **dd: Any) -> None:
        super().__init__()
        self.mask_ratio, self.num_masked = mask_ratio, floor_ratio(mask_ratio, dim * dim)
        self.query = init_conv_(nn.Conv2d(dim, dim, 1, **dd))
        self.key = init_conv_(nn.Conv2d(dim, dim, 1, **dd))
        self.value = init_conv_(nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd))

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, h, w) -> (N, dim, h, w)."""
        attention = self._masked_attention(x)
        value = self.value(x)
        out = attention.to(value.dtype) @ rearrange(value, "n c h w -> n c (h w)")
        return rearrange(out, "n c (h w) -> n c h w", h=x.shape[-2])

    def _masked_attention(self, x: Tensor) -> Tensor:
        """softmax(masked(q k^T / sqrt(C))): (N, C, h, w) -> (N, C, C), float32 or wider."""
        with without_autocast(x):
            pooled = x.mean((2, 3), keepdim=True, dtype=next(self.query.parameters()).dtype)
            q, k = (rearrange(project(pooled), "n c 1 1 -> n c") for project in (self.query, self.key))
            wide = torch.promote_types(q.dtype, torch.float32)
            scores = torch.einsum("n i, n j -> n i j", q.to(wide), k.to(wide)) / math.sqrt(q.shape[-1])
            masked = top_mask(scores.detach().flatten(1), self.num_masked).view_as(scores)
            # A row of -inf alone has no softmax: keep it finite here, the last line zeroes it with the other entries.
            whole_row = masked.all(-1, keepdim=True)
            scores = scores.masked_fill(masked & ~whole_row, -math.inf)
            return scores.softmax(-1).masked_fill(masked, 0.0)

    def extra_repr(self) -> str:
        """What ``print(layer)`` adds to the submodules."""
        return f"mask_ratio={self.mask_ratio}"
