"""Pair-wise Layer Attention (PLA), Section III-D of PLA-SM (arXiv 2311.11289).

Shapes: B clips, dim = heads * d channels, h x w places.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .conv import ConvBlock, init_conv_
from .convnext import ConvNeXtBlock

__all__ = ["Attention", "Block", "PairwiseLayerAttention", "Score"]

Attention = Literal["global", "channel", "spatial", "none"]
Block = Literal["convnext", "conv7x7"]
Score = Literal["sigmoid", "softmax"]

BLOCKS: dict[str, type[nn.Module]] = {"convnext": ConvNeXtBlock, "conv7x7": ConvBlock}


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is one of {', '.join(map(repr, allowed))}, got {value!r}")


def _pool(x: Tensor) -> Tensor:
    """(B, dim, h, w) -> (B, dim, 1, 1), the mean over all places."""
    # The kernel of a pooling is a constant of a graph: h and w would be fixed. Without a graph, the pooling's gradient
    # keeps the memory format of x; that of a mean does not, and is slow to add to others.
    return x.mean((-2, -1), keepdim=True) if torch.compiler.is_compiling() else F.avg_pool2d(x, x.shape[-2:])


class PairwiseLayerAttention(nn.Module):
    """Weighs the features of a high layer by how they agree with those of its low partner.

    The Query comes from the low layer (a ConvNeXt block's output), Key and Value from the high one (the previous PLA
    block's output); Value = DWConv3x3(ConvNeXt(high)), Eq. 3. Three forms of attention, each a head on its own:

    * ``"global"`` (the paper's choice): pooled query and key, one score a head; the output is score * Value.
    * ``"channel"``: pooled query and key, softmax(q k^T / sqrt(d)) mixes the d channels of a head.
    * ``"spatial"``: query and key at every place, scaled dot-product attention mixes the h*w places of a head.
    * ``"none"``: Value alone, with no query and no key, the "without PLA" rows of Table VI.

    The paper calls the form over channels spatial and the one over places channel attention; here each is named by
    the axis attended to. Two more points where the text cannot be followed to the letter: the softmax of one score
    is always 1, so a sigmoid stands in its place (``score="softmax"`` normalises over the heads instead), and each
    head scales by sqrt(dim / heads), which for one head is the paper's sqrt(dim).

    Args:
        dim: Channels of both inputs and of the output (C-hat in the paper).
        num_heads: Heads; groups of channels with a score each (Table XI).
        attention: "global", "channel", "spatial" or "none".
        score: "sigmoid" or "softmax" (over heads); for the global form only.
        residual: Add ``high`` to the output. The paper's text has no such path.
        block: What Value is made with: "convnext", or "conv7x7", the baseline of Table X.
        num_groups: Groups of the GroupNorm inside the block.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Raises:
        ValueError: If ``num_heads`` does not divide ``dim``, an option is unknown, or one head is to be normalised
            over heads.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 2,
        attention: Attention = "global",
        score: Score = "sigmoid",
        residual: bool = False,
        block: Block = "convnext",
        num_groups: int = 8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _one_of("attention", attention, ("global", "channel", "spatial", "none"))
        _one_of("score", score, ("sigmoid", "softmax"))
        _one_of("block", block, tuple(BLOCKS))
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide dim, got {num_heads} heads for {dim} channels")
        if attention == "global" and score == "softmax" and num_heads == 1:
            raise ValueError(
                'score="softmax" normalises over heads: with one head the score is always 1; use "sigmoid"'
            )
        self.num_heads, self.attention, self.score, self.residual = num_heads, attention, score, residual
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        if attention != "none":
            self.query = init_conv_(nn.Conv2d(dim, dim, 1, groups=num_heads, **dd))
            self.key = init_conv_(nn.Conv2d(dim, dim, 1, groups=num_heads, **dd))
        self.value = nn.Sequential(
            BLOCKS[block](dim, num_groups=num_groups, **dd),
            init_conv_(nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd)),
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Attend.

        Args:
            low: (B, dim, h, w), the low layer's features.
            high: (B, dim, h, w), the high layer's features.

        Returns:
            (B, dim, h, w), the enhanced features.
        """
        value = self.value(high)
        if self.attention == "none":
            out = value
        elif self.attention == "spatial":
            out = self._attend_places(low, high, value)
        else:
            out = self._attend_pooled(low, high, value)
        return high + out if self.residual else out

    def _attend_pooled(self, low: Tensor, high: Tensor, value: Tensor) -> Tensor:
        heads = self.num_heads
        q, k = _pool(low), _pool(high)
        q = rearrange(self.query(q), "b (n d) 1 1 -> b n d", n=heads)
        k = rearrange(self.key(k), "b (n d) 1 1 -> b n d", n=heads)
        v = rearrange(value, "b (n d) h w -> b n d (h w)", n=heads)
        scale = math.sqrt(q.shape[-1])
        if self.attention == "channel":
            out = (torch.einsum("b n i, b n j -> b n i j", q, k) / scale).softmax(-1).to(v.dtype) @ v
        else:
            score = torch.einsum("b n d, b n d -> b n", q, k) / scale
            score = score.sigmoid() if self.score == "sigmoid" else score.softmax(-1)
            out = rearrange(score, "b n -> b n 1 1").to(v.dtype) * v
        return rearrange(out, "b n d (h w) -> b (n d) h w", h=value.shape[-2])

    def _attend_places(self, low: Tensor, high: Tensor, value: Tensor) -> Tensor:
        q, k, v = (
            rearrange(x, "b (n d) h w -> b n (h w) d", n=self.num_heads)
            for x in (self.query(low), self.key(high), value)
        )
        # SDPA divides by sqrt(d) by itself.
        out = F.scaled_dot_product_attention(q, k, v)
        return rearrange(out, "b n (h w) d -> b (n d) h w", h=value.shape[-2])

    def extra_repr(self) -> str:
        """What ``print(layer)`` adds to the submodules."""
        return f"num_heads={self.num_heads}, attention={self.attention!r}, score={self.score!r}"
