"""Pair-wise Layer Attention (PLA), Section III-D of PLA-SM (arXiv 2311.11289).

Shapes: B clips, dim = heads * d channels, h x w positions.
"""

import math
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attention import attend
from .autocast import without_autocast
from .conv import ConvBlock, init_conv_
from .convnext import ConvNeXtBlock

Attention = Literal["global", "channel", "spatial", "none"]
Block = Literal["convnext", "conv7x7"]
Score = Literal["cosine", "sigmoid", "softmax"]

# Below it a query or key counts as zero, as in F.cosine_similarity.
_EPS = 1e-8

BLOCKS: dict[str, type[nn.Module]] = {"convnext": ConvNeXtBlock, "conv7x7": ConvBlock}


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is one of {', '.join(map(repr, allowed))}, got {value!r}")


def _pool(x: Tensor) -> Tensor:
    """(B, dim, h, w) -> (B, dim, 1, 1), the mean over all positions."""
    # The kernel of a pooling is a constant of a graph: h and w would be fixed. Without a graph, the pooling's gradient
    # keeps the memory format of x; that of a mean does not, and is slow to add to others.
    return x.mean((-2, -1), keepdim=True) if torch.compiler.is_compiling() else F.avg_pool2d(x, x.shape[-2:])


class PairwiseLayerAttention(nn.Module):
    """Weighs the features of a high layer by how they agree with those of its low partner.

    The Query comes from the low layer (a ConvNeXt block's output), Key and Value from the high one (the previous PLA
    block's output); Value = DWConv3x3(ConvNeXt(high)), Eq. 3. Three forms of attention, each a head on its own:

    * ``"global"`` (the paper's choice): pooled query and key, one score a head; the output is score * Value.
    * ``"channel"``: pooled query and key, softmax(q k^T / sqrt(d)) mixes the d channels of a head.
    * ``"spatial"``: query and key at every position, scaled dot-product attention mixes the h*w positions of a head.
    * ``"none"``: Value alone, with no query and no key, the "without PLA" rows of Table VI.

    The paper calls the form over channels spatial and the one over positions channel attention; here each is named by
    the axis attended to. One score a head cannot carry texture from the low layer to the high one, as the text intends.

    The score of the global form. The text has softmax(q k^T / sqrt(dim)); of one number that is always 1, and nothing
    bounds q and k, so that a step at the paper's rate moves their product by thousands:

    * ``"cosine"``: sigmoid(scale * cos(q, k) + bias), scale (from 4) and bias (from 0) learned for each head. The
      product stays small whatever the weights, which is what the text divides for ("to avoid too large value").
    * ``"sigmoid"``: sigmoid(q k^T / sqrt(d)). The authors' code takes a sigmoid, too, of a q and a k that are both of
      the low layer. It runs away within a few steps.
    * ``"softmax"``: softmax(q k^T / sqrt(d)) over the heads.

    Each head scales by sqrt(d), d = dim / heads, which for one head is the paper's sqrt(dim).

    Args:
        dim: Channels of both inputs and of the output (C-hat in the paper).
        num_heads: Heads; groups of channels with a score each (Table XI).
        attention: "global", "channel", "spatial" or "none".
        score: "cosine", "sigmoid" or "softmax" (over heads); for the global form only.
        residual: Add ``high`` to the output. The paper's text has no such path.
        block: What Value is made with: "convnext", or "conv7x7", the baseline of Table X.
        num_groups: Groups of the GroupNorm inside the block.

    Raises:
        ValueError: If ``num_heads`` does not divide ``dim``, an option is unknown, or one head is to be normalised
            over heads.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 2,
        attention: Attention = "global",
        score: Score = "cosine",
        residual: bool = False,
        block: Block = "convnext",
        num_groups: int = 8,
        **dd: Any,
    ) -> None:
        super().__init__()
        _one_of("attention", attention, get_args(Attention))
        _one_of("score", score, get_args(Score))
        _one_of("block", block, tuple(BLOCKS))
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide dim, got {num_heads} heads for {dim} channels")
        if attention == "global" and score == "softmax" and num_heads == 1:
            raise ValueError('score="softmax" normalises over heads: with one head the score is always 1; use "cosine"')
        self.num_heads, self.attention, self.score, self.residual = num_heads, attention, score, residual
        self.dim_head = dim // num_heads
        if attention != "none":
            self.query = init_conv_(nn.Conv2d(dim, dim, 1, groups=num_heads, **dd))
            self.key = init_conv_(nn.Conv2d(dim, dim, 1, groups=num_heads, **dd))
        if attention == "global" and score == "cosine":
            self.logit_scale = nn.Parameter(torch.full((num_heads,), 4.0, **dd))
            self.logit_bias = nn.Parameter(torch.zeros(num_heads, **dd))
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
            out = self._attend_positions(low, high, value)
        elif self.attention == "channel":
            out = self._attend_channels(low, high, value)
        else:
            out = self.scores(low, high).to(value.dtype).repeat_interleave(self.dim_head, 1)[:, :, None, None] * value
        return high + out if self.residual else out

    def _project_pooled(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Query and key of whole feature maps, (B, heads, d) each."""
        q, k = (
            rearrange(project(_pool(x)), "b (n d) 1 1 -> b n d", n=self.num_heads)
            for project, x in ((self.query, low), (self.key, high))
        )
        return q, k

    def scores(self, low: Tensor, high: Tensor) -> Tensor:
        """The global form's weight of each head's Value, by ``score``.

        Args:
            low: (B, dim, h, w).
            high: (B, dim, h, w).

        Returns:
            (B, heads), from 0 to 1.
        """
        if self.score == "cosine":
            # In bf16 clips that differ by a few per cent would have the same score.
            with without_autocast(low):
                weight = next(self.query.parameters()).dtype
                q, k = self._project_pooled(low.to(weight), high.to(weight))
                # In float16 _EPS is 0, and the norm of large numbers infinite.
                wide = torch.promote_types(weight, torch.float32)
                # Not F.cosine_similarity: OpenVINO fuses the scale into its sum, wrongly for more than one clip.
                unit_q, unit_k = (F.normalize(x.to(wide), dim=-1, eps=_EPS) for x in (q, k))
                cosine = torch.einsum("b n d, b n d -> b n", unit_q, unit_k)
                return (self.logit_scale * cosine + self.logit_bias).sigmoid()
        q, k = self._project_pooled(low, high)
        products = torch.einsum("b n d, b n d -> b n", q, k) / math.sqrt(self.dim_head)
        return products.sigmoid() if self.score == "sigmoid" else products.softmax(-1)

    def _attend_channels(self, low: Tensor, high: Tensor, value: Tensor) -> Tensor:
        q, k = self._project_pooled(low, high)
        v = rearrange(value, "b (n d) h w -> b n d (h w)", n=self.num_heads)
        mixed = (torch.einsum("b n i, b n j -> b n i j", q, k) / math.sqrt(self.dim_head)).softmax(-1).to(v.dtype) @ v
        return rearrange(mixed, "b n d (h w) -> b (n d) h w", h=value.shape[-2])

    def _attend_positions(self, low: Tensor, high: Tensor, value: Tensor) -> Tensor:
        q, k, v = (
            rearrange(x, "b (n d) h w -> b n (h w) d", n=self.num_heads)
            for x in (self.query(low), self.key(high), value)
        )
        # This divides by sqrt(d) by itself.
        out = attend(q, k, v.to(q.dtype))
        return rearrange(out, "b n (h w) d -> b (n d) h w", h=value.shape[-2])

    def extra_repr(self) -> str:
        """What ``print(layer)`` adds to the submodules."""
        return f"num_heads={self.num_heads}, attention={self.attention!r}, score={self.score!r}"
