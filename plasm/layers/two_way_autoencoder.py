"""The two-way autoencoder of CrevNet (Yu, Lu, Easterbrook, Fidler, ICLR 2020), which loses nothing of its input.

Shapes: N windows of V frames, C channels of a frame, H x W pixels; D channels of one half, h x w positions.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from .folded_conv3d import FoldedConv3d

Halves = tuple[Tensor, Tensor]


def unshuffle_pixels(x: Tensor) -> Tensor:
    """(N, C, V, 2 h, 2 w) to (N, 4 C, V, h, w): row in a square of four, then column, then channel."""
    return rearrange(x, "n c t (h p) (w q) -> n (p q c) t h w", p=2, q=2)


def shuffle_pixels(x: Tensor) -> Tensor:
    """The inverse of ``unshuffle_pixels``."""
    return rearrange(x, "n (p q c) t h w -> n c t (h p) (w q)", p=2, q=2)


class CouplingBlock(nn.Module):
    """An additive coupling of two halves, as in i-RevNet (Jacobsen et al., ICLR 2018), on windows of frames.

        (a, b) -> (b, a + F(b)), and back: (b, y) -> (y - F(b), b)

    F is three convolutions, GroupNorm of one group and ReLU before each. Where the block halves H and W, the first of
    them has stride 2, and the squares of four pixels of both halves become channels.

    The paper does not say how F is built; three convolutions in each of twelve blocks make its autoencoder of 36
    layers. GroupNorm is that of the authors' code for Traffic4cast: BatchNorm would not do, since an inverse must see
    what the way there saw.

    Args:
        in_dim: Channels of each half before.
        dim: Channels of each half after: 4 ``in_dim`` where the block halves H and W, else the same.
        kernel_frames: Frames that a kernel spans; 3 x 3 pixels in space.
        first: Leave out the norm and ReLU before the first convolution, which sees pixels.
    """

    def __init__(self, in_dim: int, dim: int, kernel_frames: int = 3, first: bool = False, **dd: Any) -> None:
        super().__init__()
        self.halves_size = dim != in_dim
        middle = max(1, dim // 2)
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise((in_dim, middle, middle, dim))):
            if index or not first:
                layers += [nn.GroupNorm(1, before, **dd), nn.ReLU()]
            stride = 2 if self.halves_size and index == 0 else 1
            layers.append(FoldedConv3d(before, after, 3, kernel_frames, stride, bias=False, **dd))
        self.residual = nn.Sequential(*layers)

    def forward(self, a: Tensor, b: Tensor) -> Halves:
        """Two halves (N, in_dim, V, H, W) to two (N, dim, V, h, w)."""
        added = self.residual(b)
        if self.halves_size:
            a, b = unshuffle_pixels(a), unshuffle_pixels(b)
        return b, a + added

    def inverse(self, b: Tensor, y: Tensor) -> Halves:
        """What ``forward`` was given, from what it gave."""
        if self.halves_size:
            b = shuffle_pixels(b)
        a = y - self.residual(b)
        return (shuffle_pixels(a) if self.halves_size else a), b


class TwoWayAutoencoder(nn.Module):
    """An invertible network: the encoder forwards, the decoder backwards, with the same weights (Section 3.1).

    Squares of four pixels become channels, which are cut into two halves; stages of coupling blocks follow, and the
    first block of each but the first halves H and W again. There are as many numbers after as before.

    Args:
        in_chans: C.
        depths: Blocks of each stage; H and W are divided by 2 to the power of their number.
        kernel_frames: See ``CouplingBlock``.

    Attributes:
        num_features: D, that is, C r^2 / 2.
        reduction: r, what H and W are divided by.

    Raises:
        ValueError: If there is no stage, or one without a block.
    """

    def __init__(self, in_chans: int, depths: Sequence[int] = (4, 5, 3), kernel_frames: int = 3, **dd: Any) -> None:
        super().__init__()
        if not depths or min(depths) < 1:
            raise ValueError(f"depths has a number of blocks, 1 or more, for each stage, got {list(depths)}")
        self.reduction = 2 ** len(depths)
        self.num_features = in_chans * self.reduction**2 // 2
        dims = [2 * in_chans * 4**stage for stage, depth in enumerate(depths) for _ in range(depth)]
        self.blocks = nn.ModuleList(
            CouplingBlock(before, dim, kernel_frames, index == 0, **dd)
            for index, (before, dim) in enumerate(pairwise([dims[0], *dims]))
        )

    def forward(self, frames: Tensor) -> Halves:
        """Encode windows: (N, C, V, H, W) to two halves, (N, D, V, h, w) each."""
        halves: Any = unshuffle_pixels(frames).chunk(2, 1)
        for block in self.blocks:
            halves = block(*halves)
        return halves[0], halves[1]

    def inverse(self, a: Tensor, b: Tensor) -> Tensor:
        """Decode: what ``forward`` was given, from what it gave."""
        halves: Any = (a, b)
        for block in reversed(self.blocks):
            coupling: Any = block
            halves = coupling.inverse(*halves)
        return shuffle_pixels(torch.cat(halves, 1))
