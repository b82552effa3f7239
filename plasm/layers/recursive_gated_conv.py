"""Recursive gated convolution, gnConv, the mixer of HorNet (Rao et al., NeurIPS 2022, arXiv 2207.14284, Section 3.1).

Shapes: N clips, C = dim channels, H x W positions.
"""

from typing import Any

from torch import Tensor, nn


class RecursiveGatedConv(nn.Module):
    """``p[k+1] = g[k](p[k]) * f(q)[k]``, for k = 0 ... order - 1: positions interact up to ``order`` times (Eq. 3.3).

    p[k] has C / 2^(order - 1 - k) channels, f is one 7x7 depthwise convolution of all q, g[k] a 1x1 convolution.

    Args:
        dim: Channels in and out, a multiple of 2^(order - 1).
        order: How often.

    Raises:
        ValueError: If ``dim`` is no such multiple.
    """

    def __init__(self, dim: int, order: int = 4, **dd: Any) -> None:
        super().__init__()
        if dim % 2 ** (order - 1):
            raise ValueError(f"a gnConv of order {order} has a multiple of {2 ** (order - 1)} channels, got {dim}")
        self.dims = [dim // 2**k for k in reversed(range(order))]
        self.proj_in = nn.Conv2d(dim, 2 * dim, 1, **dd)
        width = sum(self.dims)
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width, **dd)
        self.pwconvs = nn.ModuleList(
            nn.Conv2d(few, more, 1, **dd) for few, more in zip(self.dims[:-1], self.dims[1:], strict=True)
        )
        self.proj_out = nn.Conv2d(dim, dim, 1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        p, q = self.proj_in(x).split((self.dims[0], sum(self.dims)), 1)
        first, *others = self.dwconv(q).split(self.dims, 1)
        p = p * first
        for pwconv, gate in zip(self.pwconvs, others, strict=True):
            p = pwconv(p) * gate
        return self.proj_out(p)
