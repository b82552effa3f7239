"""The encoder and the decoder of SimVP: convolution, GroupNorm of two groups, activation, over and over.

Paper: Gao et al., CVPR 2022, arXiv 2206.05099, Section 3.2.

Shapes: N frames, C image channels, D features, H x W pixels, h = ceil(H / reduction), w likewise.
"""

from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn

from .conv import NEGATIVE_SLOPE, run_block
from .sparse import SparseConv2d, SparseGroupNorm, SparseStack, SparseTensor

Coder = Literal["openstl", "original"]
"""OpenSTL's: SiLU, pixel shuffles, the first features added. The original code's: LeakyReLU of slope 0.2, transposed
convolutions, the first features joined as channels."""

_X = TypeVar("_X", Tensor, SparseTensor)


def _activate(x: Tensor, coder: Coder) -> Tensor:
    return F.silu(x) if coder == "openstl" else F.leaky_relu(x, NEGATIVE_SLOPE)


class _EncoderBlock(nn.Module):
    """Convolution, GroupNorm of two groups, activation; see ``SimVPEncoder``."""

    def __init__(
        self,
        in_dim: int,
        dim: int,
        stride: int,
        kernel_size: int,
        coder: Coder,
        **dd: Any,
    ) -> None:
        super().__init__()
        self.coder: Coder = coder
        padding = (kernel_size - stride + 1) // 2
        self.conv = _init_(SparseConv2d(in_dim, dim, kernel_size, stride, padding, **dd))
        self.norm = SparseGroupNorm(2, dim, **dd)

    def forward(self, x: _X) -> _X:
        """(N, in_dim, H, W) to (N, dim, H / stride, W / stride), rounded up; dense or sparse as ``x`` is."""
        if isinstance(x, Tensor):
            return _activate(self.norm(self.conv(x)), self.coder)
        return self.norm(self.conv(x)).map(lambda features: _activate(features, self.coder))


class SimVPEncoder(SparseStack):
    """Blocks of strides 1, 2, 1, 2, ...: SimVP's ConvSC stack.

    Args:
        in_chans: C.
        dim: D.
        depth: Blocks; an odd one is rounded down, as OpenSTL does.
        kernel_size: Side of the (odd) kernels; 1 or 3 where there is a mask.
        coder: Whose.
    """

    def __init__(
        self, in_chans: int, dim: int, depth: int, kernel_size: int = 3, coder: Coder = "openstl", **dd: Any
    ) -> None:
        blocks = (
            _EncoderBlock(dim if i else in_chans, dim, 1 + i % 2, kernel_size, coder, **dd)
            for i in range(depth // 2 * 2)
        )
        super().__init__(blocks, dim, kernel_size)


class _DecoderBlock(nn.Module):
    """Convolution, pixel shuffle where the size doubles, GroupNorm of two groups, activation; see ``SimVPDecoder``.

    The original doubles by a transposed convolution.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        upsample: bool,
        kernel_size: int,
        coder: Coder,
        **dd: Any,
    ) -> None:
        super().__init__()
        self.coder: Coder = coder
        shuffles = upsample and coder == "openstl"
        padding, conv = kernel_size // 2, None
        if upsample and not shuffles:
            conv = nn.ConvTranspose2d(in_dim, dim, kernel_size, 2, padding, output_padding=1, **dd)
        self.conv = _init_(conv or nn.Conv2d(in_dim, 4 * dim if shuffles else dim, kernel_size, padding=padding, **dd))
        self.shuffle = nn.PixelShuffle(2) if shuffles else nn.Identity()
        self.norm = nn.GroupNorm(2, dim, **dd)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_dim, H, W) -> (N, dim, H, W), or twice as high and wide."""
        return _activate(self.norm(self.shuffle(self.conv(x))), self.coder)


class SimVPDecoder(nn.Module):
    """The Encoder's blocks in reverse, and a 1x1 convolution.

    Args:
        dim: D.
        out_chans: Channels of the frames.
        depth: Blocks; an odd one is rounded down.
        kernel_size: Side of the (odd) kernels.
        coder: Whose.
    """

    def __init__(
        self,
        dim: int,
        out_chans: int,
        depth: int,
        kernel_size: int = 3,
        coder: Coder = "openstl",
        **dd: Any,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.coder: Coder = coder
        self.blocks = nn.ModuleList()
        for i in range(depth // 2 * 2):
            joined = coder == "original" and i == depth // 2 * 2 - 1
            self.blocks.append(_DecoderBlock(2 * dim if joined else dim, dim, i % 2 == 0, kernel_size, coder, **dd))
        self.readout = nn.Conv2d(dim, out_chans, 1, **dd)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Decode features.

        Args:
            x: (N, D, h, w).
            skip: (N, D, H, W), joined to the input of the last block. There is none in phase 1: of masked frames it
                would show the Decoder the very pixels that are to be rebuilt from features.

        Returns:
            (N, out_chans, H, W).
        """
        for index, block in enumerate(self.blocks):
            if index == len(self.blocks) - 1:
                x = self._join(x, skip)
            x = run_block(block, x, recompute=self.grad_checkpointing)
        return self.readout(x)

    def _join(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """What the last block takes; without first features, zeros stand for them where they would be channels."""
        if self.coder == "original":
            return torch.cat([x, torch.zeros_like(x) if skip is None else skip], 1)
        return x if skip is None else x + skip


def _init_(conv: nn.Conv2d | nn.ConvTranspose2d) -> Any:
    """As SimVP's encoder and decoder start: N(0, .02^2), cut at 2, and no bias."""
    trunc_normal_(conv.weight, std=0.02)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
