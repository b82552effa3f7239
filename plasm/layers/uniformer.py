"""The two blocks of UniFormer (Li et al., ICLR 2022, arXiv 2201.09450, Section 3.2): local, and global.

Shapes: N clips, C = dim channels, H x W positions.
"""

from typing import Any

from timm.layers import Mlp
from torch import Tensor, nn

from .metaformer import MetaFormerBlock
from .token_blocks import ViTBlock


class UniFormerBlock(nn.Module):
    """x = x + depthwise(x), its position embedding; then convolutions, or attention over all positions; then an MLP.

    Args:
        dim: Channels in and out; for attention a multiple of 8, the number of heads.
        attention: Mix by attention, with a learned scale of each branch; else by 1x1, 5x5 depthwise and 1x1
            convolutions, with BatchNorm and no scale.
        mlp_ratio: Width of the MLP, in multiples of ``dim``.
        drop: Dropout rate.
        drop_path: Chance that a clip skips a branch in training.

    Raises:
        ValueError: If there is attention, and the heads do not divide ``dim``.
    """

    def __init__(
        self,
        dim: int,
        attention: bool = False,
        mlp_ratio: float = 4.0,
        drop: float = 0.0,
        drop_path: float = 0.0,
        **dd: Any,
    ) -> None:
        super().__init__()
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd)
        self.block: nn.Module
        if attention:
            self.block = ViTBlock(dim, mlp_ratio, drop, drop_path, init_scale=1e-6, **dd)
        else:
            mixer = nn.Sequential(
                nn.Conv2d(dim, dim, 1, **dd),
                nn.Conv2d(dim, dim, 5, padding=2, groups=dim, **dd),
                nn.Conv2d(dim, dim, 1, **dd),
            )
            mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop, use_conv=True, **dd)
            self.block = MetaFormerBlock(dim, mixer, mlp, init_scale=None, drop_path=drop_path, **dd)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return self.block(x + self.pos_embed(x))
