"""Convolution that sees visible pixels only, with the parameters of the ordinary layers (PLA-SM, Section III-C).

Shapes: N frames, C channels, H x W pixels, n visible sites of all frames together.
"""

from collections.abc import Callable
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import NEGATIVE_SLOPE, init_conv_

__all__ = ["SparseConv2d", "SparseConvBlock", "SparseEncoder", "SparseGroupNorm", "SparseTensor"]


class SparseTensor:
    """Features of the visible sites of N frames, and where they are.

    Attributes:
        features: (n, C), one row a visible site, in row-major order of (frame, row, column).
        visible: bool, (N, 1, H, W).
    """

    def __init__(self, features: Tensor, visible: Tensor) -> None:
        self.features, self.visible = features, visible

    @classmethod
    def from_dense(cls, x: Tensor, visible: Tensor) -> "SparseTensor":
        """Gather the visible sites of (N, C, H, W); what lies at the others is never read."""
        return cls(x.permute(0, 2, 3, 1)[visible[:, 0]], visible)

    def to_dense(self) -> Tensor:
        """(N, C, H, W), zero at the sites that are not visible."""
        frames, _, height, width = self.visible.shape
        dense = self.features.new_zeros(frames, height, width, self.features.shape[1])
        return dense.masked_scatter(self.visible[:, 0, :, :, None], self.features).permute(0, 3, 1, 2)

    def map(self, fn: Callable[[Tensor], Tensor]) -> "SparseTensor":
        """Apply a pointwise function to the features."""
        return SparseTensor(fn(self.features), self.visible)


def sparse_conv2d(x: SparseTensor, weight: Tensor, bias: Tensor | None, stride: int) -> SparseTensor:
    out = F.conv2d(x.to_dense(), weight, bias, stride, padding=weight.shape[-1] // 2)
    visible = x.visible
    if stride == 2:
        visible = F.max_pool2d(visible.float(), 2, ceil_mode=True).bool()
    return SparseTensor.from_dense(out, visible)


def sparse_group_norm(x: SparseTensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> SparseTensor:
    dense = x.to_dense().float().unflatten(1, (groups, -1))
    m = x.visible[:, :, None].float()
    count = (m.sum((3, 4), keepdim=True) * dense.shape[2]).clamp(min=1)
    mean = dense.sum((2, 3, 4), keepdim=True) / count
    var = (((dense - mean) * m) ** 2).sum((2, 3, 4), keepdim=True) / count
    dense = ((dense - mean) * (var + eps).rsqrt()).flatten(1, 2)
    return SparseTensor.from_dense(dense * weight[:, None, None] + bias[:, None, None], x.visible)


class SparseConv2d(nn.Conv2d):
    @overload
    def forward(self, input: Tensor) -> Tensor: ...
    @overload
    def forward(self, input: SparseTensor) -> SparseTensor: ...
    def forward(self, input: Tensor | SparseTensor) -> Tensor | SparseTensor:
        if isinstance(input, SparseTensor):
            return sparse_conv2d(input, self.weight, self.bias, self.stride[0])
        return super().forward(input)


class SparseGroupNorm(nn.GroupNorm):
    @overload
    def forward(self, input: Tensor) -> Tensor: ...
    @overload
    def forward(self, input: SparseTensor) -> SparseTensor: ...
    def forward(self, input: Tensor | SparseTensor) -> Tensor | SparseTensor:
        if isinstance(input, SparseTensor):
            return sparse_group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
        return super().forward(input)


class SparseConvBlock(nn.Module):
    def __init__(self, in_chans: int, dim: int, stride: int, num_groups: int, **dd: Any) -> None:
        super().__init__()
        self.conv = init_conv_(SparseConv2d(in_chans, dim, 3, stride, 1, **dd))
        self.norm = SparseGroupNorm(num_groups, dim, **dd)
        self.act = nn.LeakyReLU(NEGATIVE_SLOPE)

    def forward(self, x: Any) -> Any:
        x = self.norm(self.conv(x))
        return x.map(self.act) if isinstance(x, SparseTensor) else self.act(x)


class SparseEncoder(nn.Module):
    def __init__(self, in_chans: int = 1, dim: int = 64, depth: int = 4, num_groups: int = 2, device=None, dtype=None):
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.num_features, self.reduction = dim, 2 ** (depth // 2)
        self.blocks = nn.ModuleList(
            SparseConvBlock(in_chans if i == 0 else dim, dim, 1 + i % 2, num_groups, **dd) for i in range(depth)
        )

    def forward(self, frames: Tensor, visible: Tensor | None = None) -> Tensor:
        x = frames if visible is None else SparseTensor.from_dense(frames, visible)
        for block in self.blocks:
            x = block(x)
        return x.to_dense() if isinstance(x, SparseTensor) else x
