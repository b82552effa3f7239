"""timm's blocks of tokens, for features that lie in a plane: ViT, MLP-Mixer and Swin.

Shapes: N clips, C = dim channels, H x W positions; a token is a position.
"""

from typing import Any

import torch
from einops import rearrange
from timm.models.mlp_mixer import MixerBlock
from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from .metaformer import init_fan_out_

_NUM_HEADS = 8


class ViTBlock(Block):
    """timm's Transformer block over all positions (Dosovitskiy et al., arXiv 2010.11929), without position embedding.

    Args:
        dim: Channels in and out, a multiple of 8, the number of heads.
        mlp_ratio: Width of the MLP, in multiples of ``dim``.
        drop: Dropout rate.
        drop_path: Chance that a clip skips a branch in training.
        init_scale: What the scales of the branches start from; None leaves them out.

    Raises:
        ValueError: If the heads do not divide ``dim``.
    """

    def __init__(
        self,
        dim: int,
        mlp_ratio: float = 4.0,
        drop: float = 0.0,
        drop_path: float = 0.0,
        init_scale: float | None = None,
        **dd: Any,
    ) -> None:
        _check_heads(dim)
        super().__init__(
            dim, _NUM_HEADS, mlp_ratio, qkv_bias=True, proj_drop=drop, drop_path=drop_path, init_values=init_scale,
            norm_layer=nn.LayerNorm, **dd,
        )  # fmt: skip
        init_fan_out_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return _to_plane(super().forward(_to_tokens(x)), x)


class MLPMixerBlock(MixerBlock):
    """timm's MLP-Mixer block (Tolstikhin et al., arXiv 2105.01601): the MLP over positions fixes how many there are.

    Args:
        dim: Channels in and out.
        size: (H, W).
        mlp_ratio: Width of the MLP over channels, in multiples of ``dim``; that over positions has dim / 2.
        drop: Dropout rate.
        drop_path: Chance that a clip skips a branch in training.
    """

    def __init__(
        self,
        dim: int,
        size: tuple[int, int],
        mlp_ratio: float = 4.0,
        drop: float = 0.0,
        drop_path: float = 0.0,
        **dd: Any,
    ) -> None:
        super().__init__(dim, size[0] * size[1], (0.5, mlp_ratio), drop=drop, drop_path=drop_path, **dd)
        init_fan_out_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return _to_plane(super().forward(_to_tokens(x)), x)


class _WindowAttention(WindowAttention):
    """timm's, without its buffer of indices: a model made on the meta device has no values for what is never loaded."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.relative_position_index

    def init_non_persistent_buffers(self) -> None:
        """There are none."""

    def _get_rel_pos_bias(self) -> Tensor:
        """(1, heads, positions of a window, positions of a window)."""
        table, (height, width) = self.relative_position_bias_table, self.window_size
        rows, columns = (torch.arange(side, device=table.device) for side in (height, width))
        down = (rows[:, None] - rows + height - 1)[:, None, :, None]
        right = (columns[:, None] - columns + width - 1)[:, None, :]
        return rearrange(table[down * (2 * width - 1) + right], "y x v u n -> 1 n (y x) (v u)")


class SwinBlock(SwinTransformerBlock):
    """timm's Swin block (Liu et al., arXiv 2103.14030), without the mask: windows that a shift cut attend to all of it.

    The window has 7 positions a side where 7 divides H, else H / 16, from 4 to 8: OpenSTL's rule.

    Args:
        dim: Channels in and out, a multiple of 8, the number of heads.
        size: (H, W), which chooses the window; others may come in.
        shifted: Shift the windows by half their side.
        mlp_ratio: Width of the MLP, in multiples of ``dim``.
        drop: Dropout rate.
        drop_path: Chance that a clip skips a branch in training.

    Raises:
        ValueError: If the heads do not divide ``dim``.
    """

    def __init__(
        self,
        dim: int,
        size: tuple[int, int],
        shifted: bool = False,
        mlp_ratio: float = 4.0,
        drop: float = 0.0,
        drop_path: float = 0.0,
        **dd: Any,
    ) -> None:
        _check_heads(dim)
        window = 7 if size[0] % 7 == 0 else min(8, max(4, size[0] // 16))
        super().__init__(
            dim, size, _NUM_HEADS, window_size=window, shift_size=window // 2 if shifted else 0, mlp_ratio=mlp_ratio,
            proj_drop=drop, attn_drop=drop, drop_path=drop_path, **dd,
        )  # fmt: skip
        self.attn = _WindowAttention(
            dim, _NUM_HEADS, window_size=self.window_size, attn_drop=drop, proj_drop=drop, **dd
        )  # fmt: skip
        init_fan_out_(self)

    def get_attn_mask(self, *_: Any, **__: Any) -> None:
        """No mask, whatever the shift."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if x.shape[0] == 0:
            # timm's attention cannot tell its heads' width from no clips.
            return x
        return rearrange(super().forward(rearrange(x, "n c h w -> n h w c")), "n h w c -> n c h w")


def _check_heads(dim: int) -> None:
    if dim % _NUM_HEADS:
        raise ValueError(f"attention has {_NUM_HEADS} heads, which do not divide {dim} channels")


def _to_tokens(x: Tensor) -> Tensor:
    return rearrange(x, "n c h w -> n (h w) c")


def _to_plane(tokens: Tensor, like: Tensor) -> Tensor:
    return rearrange(tokens, "n (h w) c -> n c h w", h=like.shape[2])
