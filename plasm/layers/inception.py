"""The Inception block of SimVP's translator (Gao et al., CVPR 2022, arXiv 2206.05099, Section 3.2).

Shapes: N clips, C channels, H x W positions.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class GroupConvBlock(nn.Module):
    """Grouped convolution, GroupNorm of as many groups, LeakyReLU of slope 0.2.

    There is one group where ``num_groups`` does not divide the channels.
    """

    def __init__(self, in_dim: int, out_dim: int, kernel_size: int, num_groups: int = 8, **dd: Any) -> None:
        super().__init__()
        groups = num_groups if in_dim % num_groups == out_dim % num_groups == 0 else 1
        self.conv = nn.Conv2d(in_dim, out_dim, kernel_size, padding=kernel_size // 2, groups=groups, **dd)
        self.norm = nn.GroupNorm(groups, out_dim, **dd)
        self.one_a_group = groups == out_dim
        self.act = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_dim, H, W) -> (N, out_dim, H, W)."""
        x = self.conv(x)
        if self.one_a_group and x[:, 0].numel() == 1:
            # torch's refuses a group of one value; of two frames it takes each.
            return self.act(self.norm(x.expand(2, -1, -1, -1))[:1])
        return self.act(self.norm(x))


class InceptionBlock(nn.Module):
    """A 1x1 convolution, then the sum of grouped convolutions of several sizes.

    Args:
        in_dim: Channels in.
        hidden_dim: Channels between.
        out_dim: Channels out.
        kernel_sizes: Sides of the (odd) kernels.
        num_groups: Groups of the convolutions; see ``GroupConvBlock``.
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int,
        out_dim: int,
        kernel_sizes: Sequence[int] = (3, 5, 7, 11),
        num_groups: int = 8,
        **dd: Any,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_dim, hidden_dim, 1, **dd)
        self.branches = nn.ModuleList(
            GroupConvBlock(hidden_dim, out_dim, size, num_groups, **dd) for size in kernel_sizes
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_dim, H, W) -> (N, out_dim, H, W)."""
        x = self.proj(x)
        first, *others = self.branches
        y: Tensor = first(x)
        for branch in others:
            y = y + branch(x)
        return y
