"""The ConvNeXt block of PLA-SM's Translator (Section III-D, Eq. 2; arXiv 2311.11289)."""

from typing import Any, Literal, get_args

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from .conv import NEGATIVE_SLOPE, init_conv_

Norm = Literal["group", "layer"]


class ConvNeXtBlock(nn.Module):
    """x + Conv(LReLU(Conv(GN(DWConv(x))))), Eq. 2: channels go dim -> expansion * dim -> dim.

    It differs from the ConvNeXt of Liu et al. (2022) in GroupNorm for LayerNorm, LeakyReLU for GELU, and no layer
    scale.

    Args:
        dim: Channels in and out.
        kernel_size: Side of the (odd) depthwise kernel.
        expansion: Width of the inverted bottleneck, in multiples of ``dim``.
        num_groups: Groups of the GroupNorm; the paper gives none.
        norm: "group", over groups of channels and all positions; or "layer", over the channels of each position, so
            that what lies far away does not matter.

    Raises:
        ValueError: If ``norm`` is neither.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        expansion: int = 4,
        num_groups: int = 8,
        norm: Norm = "group",
        **dd: Any,
    ) -> None:
        super().__init__()
        if norm not in get_args(Norm):
            raise ValueError(f"norm is one of 'group', 'layer', got {norm!r}")
        self.dwconv = init_conv_(nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, **dd))
        self.norm = nn.GroupNorm(num_groups, dim, **dd) if norm == "group" else LayerNorm2d(dim, **dd)
        self.pwconv1 = init_conv_(nn.Conv2d(dim, expansion * dim, 1, **dd))
        self.act = nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)
        self.pwconv2 = init_conv_(nn.Conv2d(expansion * dim, dim, 1, **dd))

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        return x + self.pwconv2(self.act(self.pwconv1(self.norm(self.dwconv(x)))))
