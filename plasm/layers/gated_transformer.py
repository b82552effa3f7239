"""The gated transformer block of PredFormer (Tang et al., arXiv 2410.04733), and its fixed positions.

Shapes: N sequences of L tokens of D channels.
"""

from typing import Any

import torch
from timm.layers import DropPath, SwiGLU
from torch import Tensor, nn

from .attention import attend


class GatedTransformerBlock(nn.Module):
    """Self-attention, then a SwiGLU in place of the usual MLP: Section 3.2.

        y = MSA(LN(z)) + z          z' = SwiGLU(LN(y)) + y

    Args:
        dim: D.
        num_heads: Heads, which divide D.
        expansion: Width of the SwiGLU, in multiples of D.
        drop: Dropout rate of both branches' outputs.
        drop_path: Chance that a sequence skips a branch in training.

    Raises:
        ValueError: If the heads do not divide D.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        expansion: int = 4,
        drop: float = 0.0,
        drop_path: float = 0.0,
        **dd: Any,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"{num_heads} heads do not divide {dim} channels")
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim, **dd)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False, **dd)
        self.proj = nn.Linear(dim, dim, **dd)
        self.norm2 = nn.LayerNorm(dim, **dd)
        self.mlp = SwiGLU(dim, expansion * dim, **dd)
        self.drop, self.drop_path = nn.Dropout(drop), DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.num_heads, -1)).transpose(1, 3).unbind(2)
        attended = attend(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.drop_path(self.drop(self.proj(attended)))
        return x + self.drop_path(self.drop(self.mlp(self.norm2(x))))


def sinusoid(length: int, dim: int, device: torch.device | str | None = None) -> Tensor:
    """Positions of Vaswani et al. (2017), Section 3.5: sines, then cosines, of wavelengths from 2 pi to 20,000 pi.

    They are (length, dim), fp32; the channels are even.
    """
    steps = torch.arange(dim // 2, device=device, dtype=torch.float32) / (dim // 2)
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * 10_000.0**-steps
    return torch.cat([angles.sin(), angles.cos()], 1)
