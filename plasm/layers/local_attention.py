"""Pair-wise Layer Attention with a score for each position: PLA-SM's (arXiv 2311.11289), but for its score.

Shapes: B clips, dim = heads * d channels, h x w positions.
"""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .conv import init_conv_
from .convnext import ConvNeXtBlock


class LocalLayerAttention(nn.Module):
    """Mixes a high layer's Value with its low partner, by a number for each channel and position.

    The paper's score is one for a head and the whole feature map, which cannot carry texture from the low layer to the
    high one, and changes with what lies far away. Here the output is g * Value + (1 - g) * low, with
    g = sigmoid(scale * q * k + bias), q of the low layer and k of the high one, both of unit mean square over the d
    channels of a head. Value = DWConv3x3(ConvNeXt(high)), as in Eq. 3.

    Args:
        dim: Channels of both inputs and of the output.
        num_heads: Heads, each with a scale and a bias.

    Raises:
        ValueError: If ``num_heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, num_heads: int = 2, **dd: Any) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide dim, got {num_heads} heads for {dim} channels")
        self.num_heads, self.dim_head = num_heads, dim // num_heads
        self.query = init_conv_(nn.Conv2d(dim, dim, 1, groups=num_heads, **dd))
        self.key = init_conv_(nn.Conv2d(dim, dim, 1, groups=num_heads, **dd))
        self.logit_scale = nn.Parameter(torch.full((num_heads,), 4.0, **dd))
        self.logit_bias = nn.Parameter(torch.zeros(num_heads, **dd))
        self.value = nn.Sequential(
            ConvNeXtBlock(dim, norm="layer", **dd), init_conv_(nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd))
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """(B, dim, h, w) of the low layer and of the high one, to (B, dim, h, w)."""
        value = self.value(high)
        q, k = (
            F.rms_norm(rearrange(x, "b (n d) h w -> b h w n d", n=self.num_heads), (self.dim_head,))
            for x in (self.query(low), self.key(high))
        )
        gate = (self.logit_scale[:, None] * q * k + self.logit_bias[:, None]).sigmoid()
        mixed: Tensor = low + rearrange(gate, "b h w n d -> b (n d) h w").to(value.dtype) * (value - low)
        return mixed
