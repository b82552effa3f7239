"""Masked pretraining, the first phase of PLA-SM (Section III-F, Eq. 4; arXiv 2311.11289).

Shapes: B clips, T frames, C image channels, H x W pixels, N = B * T frames.
"""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from plasm.layers.conv import pad_to_multiple
from plasm.layers.pixel_mask import random_pixel_mask
from plasm.layers.spatial_masking import SpatialMasking

from ._base import set_grad_checkpointing


class MaskedAutoencoder(nn.Module):
    """Encoder -> Spatial Masking -> Decoder: rebuilds clips of which few pixels are seen.

    It holds the very modules it is given, so what it learns is theirs. The target of its loss is the unmasked clip
    (the authors' code masks the clip in place, and so makes the masked one the target).

    Args:
        encoder: Maps (N, C, H, W) frames and a bool (N, 1, H, W) ``visible``, True = visible, to (N, D, h, w); has
            ``num_features`` = D and, if H and W must be multiples of something, ``reduction``. Any model's will do
            (Table VII).
        decoder: Maps (N, D, h, w) to (N, C, H, W).
        mask_ratio: r0, the ratio of the pixels to hide (Table VIII); 0 leaves the pixels alone.
        attn_mask_ratio: r, the ratio of the attention scores to hide (Table IX); None leaves Spatial Masking out
            (Table VI).
        mask_patch: Side of what is hidden at a time, in pixels: 1 in the text, 4 in the authors' code.

    Raises:
        ValueError: If a ratio is outside [0, 1].
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        mask_ratio: float,
        attn_mask_ratio: float | None = 0.1,
        mask_patch: int = 1,
    ) -> None:
        super().__init__()
        if not 0.0 <= mask_ratio <= 1.0:
            raise ValueError(f"mask_ratio lies in [0, 1], got {mask_ratio}")
        self.encoder, self.decoder = encoder, decoder
        self.mask_ratio, self.mask_patch = mask_ratio, mask_patch
        self.spatial_masking: nn.Module = nn.Identity()
        if attn_mask_ratio is not None:
            weight = next(encoder.parameters())
            dim: Any = encoder.num_features
            self.spatial_masking = SpatialMasking(dim, attn_mask_ratio, device=weight.device, dtype=weight.dtype)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block of encoder and decoder in the backward pass instead of keeping its activations."""
        set_grad_checkpointing(self, enable)

    def forward(self, clip: Tensor, visible: Tensor | None = None) -> Tensor:
        """Rebuild a clip.

        Args:
            clip: (B, T, C, H, W), of any H and W.
            visible: bool, (B * T, 1, H, W), True where a pixel is seen; drawn at random by default. Give it to a
                compiled model, which draws nothing.

        Returns:
            (B, T, C, H, W).

        Raises:
            ValueError: If the clip has not five dimensions, or ``visible`` has another shape or type.
        """
        if clip.ndim != 5:
            raise ValueError(f"expected a clip of shape (B, T, C, H, W), got {tuple(clip.shape)}")
        frames = rearrange(clip, "b t c h w -> (b t) c h w")
        num_frames, _, height, width = frames.shape
        if visible is None and self.mask_ratio > 0:
            visible = random_pixel_mask(num_frames, height, width, self.mask_ratio, self.mask_patch, device=clip.device)
        multiple = int(getattr(self.encoder, "reduction", 1))
        if visible is not None:
            if visible.shape != (num_frames, 1, height, width) or visible.dtype != torch.bool:
                raise ValueError(
                    f"expected visible to be bool, (B * T, 1, H, W) = ({num_frames}, 1, {height}, {width}), got "
                    f"{visible.dtype}, {tuple(visible.shape)}"
                )
            # What the padding adds counts as visible, as it does in the second phase.
            visible = ~pad_to_multiple(~visible, multiple)
        frames = pad_to_multiple(frames, multiple)
        features = self.spatial_masking(self.encoder(frames, visible))
        rebuilt = self.decoder(features)[..., :height, :width]
        return rearrange(rebuilt, "(b t) c h w -> b t c h w", t=clip.shape[1])
