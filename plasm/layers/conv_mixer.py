"""The block of ConvMixer (Trockman and Kolter, TMLR 2023, arXiv 2201.09792, Eq. 1 and 2).

Shapes: N clips, C = dim channels, H x W positions.
"""

from typing import Any

from torch import Tensor, nn

from .metaformer import init_fan_out_


class ConvMixerBlock(nn.Module):
    """x = x + norm(gelu(depthwise(x))), then norm(gelu(conv1x1(x))).

    Args:
        dim: Channels in and out.
        kernel_size: Side of the (odd) depthwise kernel.
    """

    def __init__(self, dim: int, kernel_size: int = 11, **dd: Any) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, **dd)
        self.norm1 = nn.BatchNorm2d(dim, **dd)
        self.pwconv = nn.Conv2d(dim, dim, 1, **dd)
        self.norm2 = nn.BatchNorm2d(dim, **dd)
        self.act = nn.GELU()
        init_fan_out_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        x = x + self.norm1(self.act(self.dwconv(x)))
        return self.norm2(self.act(self.pwconv(x)))
