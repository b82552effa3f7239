"""The two parts of MogaNet's block (Li et al., ICLR 2024, arXiv 2211.03295, Sections 4.2 and 4.3).

Shapes: N clips, C = dim channels, H x W positions.
"""

from typing import Any

import torch
from torch import Tensor, nn


class MultiOrderGatedAggregation(nn.Module):
    """x + conv1x1(silu(gate(y)) * silu(value(y))): at three dilations, each of some channels.

    y = silu(z + s (z - mean(z))) with z = conv1x1(x) moves what is the same everywhere by a learned s of each channel.

    Args:
        dim: Channels in and out, a multiple of 8: 1/8, 3/8 and 1/2 of them see 5x5, then nothing, 5x5 with dilation 2,
            7x7 with dilation 3.

    Raises:
        ValueError: If ``dim`` is no multiple of 8.
    """

    def __init__(self, dim: int, **dd: Any) -> None:
        super().__init__()
        if dim % 8:
            raise ValueError(f"multi-order gated aggregation has a multiple of 8 channels, got {dim}")
        self.dims = (dim // 8, 3 * dim // 8, dim // 2)
        _, middle, far = self.dims
        self.proj_in = nn.Conv2d(dim, dim, 1, **dd)
        self.scale = nn.Parameter(torch.full((dim, 1, 1), 1e-5, **dd))
        self.act = nn.SiLU()
        self.gate = nn.Conv2d(dim, dim, 1, **dd)
        self.dwconv = nn.Conv2d(dim, dim, 5, padding=2, groups=dim, **dd)
        self.dwconv_middle = nn.Conv2d(middle, middle, 5, padding=4, groups=middle, dilation=2, **dd)
        self.dwconv_far = nn.Conv2d(far, far, 7, padding=9, groups=far, dilation=3, **dd)
        self.pwconv = nn.Conv2d(dim, dim, 1, **dd)
        self.proj_out = nn.Conv2d(dim, dim, 1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        z = self.proj_in(x)
        y = self.act(torch.addcmul(z, self.scale, z - z.mean((2, 3), keepdim=True)))
        near, middle, far = self.dwconv(y).split(self.dims, 1)
        value = self.pwconv(torch.cat([near, self.dwconv_middle(middle), self.dwconv_far(far)], 1))
        return x + self.proj_out(self.act(self.gate(y)) * self.act(value))


class ChannelAggregation(nn.Module):
    """An MLP with a 3x3 depthwise convolution, of whose hidden channels a learned share is made their common mean.

    Args:
        dim: Channels in and out.
        hidden_dim: Channels between.
        drop: Dropout rate.
    """

    def __init__(self, dim: int, hidden_dim: int, drop: float = 0.0, **dd: Any) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden_dim, 1, **dd)
        self.dwconv = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim, **dd)
        self.act = nn.GELU()
        self.decompose = nn.Conv2d(hidden_dim, 1, 1, **dd)
        self.scale = nn.Parameter(torch.full((hidden_dim, 1, 1), 1e-5, **dd))
        self.fc2 = nn.Conv2d(hidden_dim, dim, 1, **dd)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        x = self.drop(self.act(self.dwconv(self.fc1(x))))
        x = torch.addcmul(x, self.scale, x - self.act(self.decompose(x)))
        return self.drop(self.fc2(x))
