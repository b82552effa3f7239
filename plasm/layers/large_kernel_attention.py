"""Attention by large kernels that are taken apart: 5x5, then 7x7 with dilation 3, both depthwise, then 1x1.

Paper: Guo et al., Visual Attention Network, arXiv 2202.09741, Section 3.1.

Shapes: N clips, C = dim channels, H x W positions.
"""

from typing import Any

from torch import Tensor, nn


class LargeKernelAttention(nn.Module):
    """x + conv1x1(u * a) with u = gelu(conv1x1(x)) and a = conv1x1(dilated(depthwise(u))): VAN.

    Args:
        dim: Channels in and out.
        kernel_size: Side of the kernel that is taken apart, 21.
        dilation: d: the first kernel is 2 d - 1 wide, the second, of dilation d, kernel_size / d.
    """

    features_per_channel = 1
    """Channels of a, in multiples of ``dim``."""

    def __init__(self, dim: int, kernel_size: int = 21, dilation: int = 3, **dd: Any) -> None:
        super().__init__()
        near = 2 * dilation - 1
        far = kernel_size // dilation - (kernel_size // dilation + 1) % 2
        self.proj_in = nn.Conv2d(dim, dim, 1, **dd)
        self.act = nn.GELU()
        self.dwconv = nn.Conv2d(dim, dim, near, padding=near // 2, groups=dim, **dd)
        self.dwconv_dilated = nn.Conv2d(
            dim, dim, far, padding=dilation * (far - 1) // 2, groups=dim, dilation=dilation, **dd
        )
        self.pwconv = nn.Conv2d(dim, self.features_per_channel * dim, 1, **dd)
        self.proj_out = nn.Conv2d(dim, dim, 1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        u = self.act(self.proj_in(x))
        return x + self.proj_out(self.gate(u, self.pwconv(self.dwconv_dilated(self.dwconv(u)))))

    def gate(self, u: Tensor, a: Tensor) -> Tensor:
        """U (N, C, H, W) and the features a that large kernels saw around each position -> (N, C, H, W)."""
        return u * a
