"""Forms of PLA that are none of plasm's, in the model of plasm_mmnist_tiny: rows of `forms` in ablations.py.

The authors' form is what their public code computes (github.com/mlvccn/PLA_SM_VideoPred), written out here from its
formulas; all around it, ConvNeXt blocks, encoder, decoder, is ours.

Shapes: B clips, C channels of the translator, heads of d channels, h x w positions.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from plasm.layers import ConvNeXtBlock, PairwiseLayerAttention
from plasm.models import PLASM

__all__ = ["AuthorsAttention", "ConstantHeads", "TextureAttention"]

Form = Literal["gate", "local", "cross"]


class TextureAttention(PairwiseLayerAttention):
    """Forms that can carry texture from the low layer to the high one, which one score a head cannot.

    The first two mix, out = g * Value + (1 - g) * low:

    * ``"local"``: g a number a channel and position, sigmoid(scale * q * k + bias), q and k of unit mean square over
      the d channels of a head.
    * ``"gate"``: g a number a channel, as in ``"local"``, from pooled query and key.
    * ``"cross"``: Value + what the high layer's places find in the low layer by scaled dot-product attention; here the
      query is on high and the key on low.

    Args:
        dim: C.
        num_heads: Heads.
        form: "gate", "local" or "cross".
    """

    def __init__(self, dim: int, num_heads: int = 2, form: Form = "gate") -> None:
        # Which has query, key and value, and nothing else.
        super().__init__(dim, num_heads, attention="spatial")
        self.form = form
        if form != "cross":
            self.logit_scale = nn.Parameter(torch.full((num_heads,), 4.0))
            self.logit_bias = nn.Parameter(torch.zeros(num_heads))

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """(B, C, h, w) both, and out."""
        value = self.value(high)
        if self.form == "cross":
            q, k, v = (
                rearrange(x, "b (n d) h w -> b n (h w) d", n=self.num_heads)
                for x in (self.query(high), self.key(low), low)
            )
            found = F.scaled_dot_product_attention(q, k, v.to(q.dtype))
            return value + rearrange(found, "b n (h w) d -> b (n d) h w", h=value.shape[-2])
        seen = (low, high) if self.form == "local" else [x.mean((-2, -1), keepdim=True) for x in (low, high)]
        q, k = (
            F.rms_norm(rearrange(x, "b (n d) h w -> b h w n d", n=self.num_heads), (self.dim_head,))
            for x in (self.query(seen[0]), self.key(seen[1]))
        )
        gate = (self.logit_scale[:, None] * q * k + self.logit_bias[:, None]).sigmoid()
        return low + rearrange(gate, "b h w n d -> b (n d) h w").to(value.dtype) * (value - low)


class ConstantHeads(PairwiseLayerAttention):
    """Value times a constant of each head that is learned: what is left of PLA if its score does not see the clip.

    Args:
        dim: C.
        num_heads: Heads.
    """

    def __init__(self, dim: int, num_heads: int = 2) -> None:
        super().__init__(dim, num_heads, attention="none")
        self.logit_bias = nn.Parameter(torch.zeros(num_heads))

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """(B, C, h, w) both, and out."""
        constant = self.logit_bias.sigmoid().repeat_interleave(self.dim_head)[:, None, None]
        return constant * super().forward(low, high)


class _SharedAttention(nn.Module):
    """What all levels share: 3-tap convolutions over the pooled channels, V, and the norm.

    q, k = convolutions of the pooled low layer, over its channels; a score is sigmoid(q k^T / sqrt(d)) of each head of
    d = 16 channels; z + GN(score * V + z), with V a 3x3 depthwise convolution of z.
    """

    def __init__(self, dim: int, dim_head: int = 16) -> None:
        super().__init__()
        self.dim_head = dim_head
        self.query = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.key = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.value = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.norm = nn.GroupNorm(8, dim)

    def forward(self, low: Tensor, z: Tensor) -> Tensor:
        pooled = low.mean((-2, -1)).unsqueeze(1)
        q, k = (conv(pooled).unflatten(-1, (-1, self.dim_head)).squeeze(1) for conv in (self.query, self.key))
        score = ((q * k).sum(-1) / math.sqrt(self.dim_head)).sigmoid().to(z.dtype)
        weighed = score.repeat_interleave(self.dim_head, 1)[..., None, None] * self.value(z)
        return z + self.norm(weighed + z)


class AuthorsAttention(nn.Module):
    """A block of the way up: a ConvNeXt block, then what all levels share; the last one has the block alone.

    Args:
        dim: C.
        shared: What all levels share; None in the last.
    """

    def __init__(self, dim: int, shared: nn.Module | None) -> None:
        super().__init__()
        self.block = ConvNeXtBlock(dim)
        # Not a submodule: its weights are of the model, once.
        self.shared = (shared,)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """(B, C, h, w) both, and out."""
        z = self.block(high)
        (shared,) = self.shared
        return z if shared is None else shared(low, z)


class PLASMTextureAttention(PLASM):
    """PLA-SM with ``TextureAttention``; arguments as ``PLASM``, and the form."""

    def __init__(self, form: Form, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "attention": "spatial"})
        blocks: list[Any] = list(self.translator.pla)
        self.translator.pla = nn.ModuleList(
            TextureAttention(self.num_features, block.num_heads, form) for block in blocks
        )
        # What was drawn first is kept: one seed gives all forms of attention the same weights.
        for block, drawn in zip(self.translator.pla, blocks, strict=True):
            block.load_state_dict(drawn.state_dict(), strict=False)


class PLASMConstantHeads(PLASM):
    """PLA-SM with ``ConstantHeads``; arguments as ``PLASM``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "attention": "none"})
        blocks: list[Any] = list(self.translator.pla)
        self.translator.pla = nn.ModuleList(ConstantHeads(self.num_features, block.num_heads) for block in blocks)


class PLASMAuthorsAttention(PLASM):
    """PLA-SM with ``AuthorsAttention``; arguments as ``PLASM``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "attention": "none"})
        depth, dim = len(self.translator.pla), self.num_features
        self.translator.shared = _SharedAttention(dim)
        self.translator.pla = nn.ModuleList(
            AuthorsAttention(dim, self.translator.shared if index < depth - 1 else None) for index in range(depth)
        )


# Arguments of plasm_mmnist_tiny.
_ARGS: dict[str, Any] = {
    "in_frames": 10, "out_frames": 10, "encoder_dim": 16, "translator_dim": 256, "translator_depth": 3, "skip": True,
}  # fmt: skip

default_cfgs = generate_default_cfgs({
    name: {"input_size": (1, 64, 64)}
    for name in ("plasm_authors_attention", "plasm_constant_heads", "plasm_cross", "plasm_gate", "plasm_local")
})  # fmt: skip


def _make(model_cls: type[PLASM], name: str, pretrained: bool, kwargs: dict[str, Any]) -> PLASM:
    model: PLASM = build_model_with_cfg(
        model_cls, name, pretrained, kwargs_filter=("num_classes", "global_pool"), **{**_ARGS, **kwargs}
    )
    return model


@register_model
def plasm_constant_heads(pretrained: bool = False, **kwargs: Any) -> PLASM:
    """``plasm_mmnist_tiny`` with a learned constant a head in place of PLA's score."""
    return _make(PLASMConstantHeads, "plasm_constant_heads", pretrained, kwargs)


@register_model
def plasm_authors_attention(pretrained: bool = False, **kwargs: Any) -> PLASM:
    """``plasm_mmnist_tiny`` with PLA as its authors' code has it."""
    return _make(PLASMAuthorsAttention, "plasm_authors_attention", pretrained, kwargs)


@register_model
def plasm_gate(pretrained: bool = False, **kwargs: Any) -> PLASM:
    """``plasm_mmnist_tiny`` with a gate of each channel in place of PLA's score."""
    return _make(PLASMTextureAttention, "plasm_gate", pretrained, {**kwargs, "form": "gate"})


@register_model
def plasm_local(pretrained: bool = False, **kwargs: Any) -> PLASM:
    """``plasm_mmnist_tiny`` with a gate of each channel and position in place of PLA's score."""
    return _make(PLASMTextureAttention, "plasm_local", pretrained, {**kwargs, "form": "local"})


@register_model
def plasm_cross(pretrained: bool = False, **kwargs: Any) -> PLASM:
    """``plasm_mmnist_tiny`` with attention of the high layer's places to the low layer's."""
    return _make(PLASMTextureAttention, "plasm_cross", pretrained, {**kwargs, "form": "cross"})
