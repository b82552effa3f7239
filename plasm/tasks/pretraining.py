"""Pretraining, phase 1 of PLA-SM (Section III-F; arXiv 2311.11289): masked clips are rebuilt.

Shapes: B clips, T frames, C channels, H x W pixels.
"""

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor, nn

from .losses import mean_squared_error, weigh
from .task import Losses, Outputs, Task

DrawMask = Callable[[Tensor, tuple[int, int, int], float, int | None], Tensor]
"""Of the indices of clips (B,), (T, H, W), the ratio to hide and the epoch (None: validation), which pixels are seen:
bool, (B * T, 1, H, W)."""


class Pretraining(Task):
    """Rebuild T frames from masked ones; the target is the unmasked clip (Eq. 4).

    Args:
        model: ``forward(clip, visible)``, of which the second is None where all pixels are seen.
        in_frames: T, the first frames of each clip.
        draw_mask: What is seen of each clip; the same for the same arguments.
        mask_ratio: r0, the ratio of the pixels to hide.
        mask_ratio_end: Ratio to hide in the last epoch, from r0 to it in equal steps; r0 throughout by default.
        epochs: Of the run.

    Raises:
        ValueError: If a ratio is outside [0, 1].
    """

    name = "pretraining"
    follows = False

    def __init__(
        self,
        model: nn.Module,
        in_frames: int,
        draw_mask: DrawMask,
        mask_ratio: float,
        mask_ratio_end: float | None = None,
        epochs: int = 1,
    ) -> None:
        super().__init__(model)
        for name, ratio in (("mask_ratio", mask_ratio), ("mask_ratio_end", mask_ratio_end or 0)):
            if not 0 <= ratio <= 1:
                raise ValueError(f"{name} lies in [0, 1], got {ratio}")
        self.in_frames, self._draw_mask, self.epochs = in_frames, draw_mask, epochs
        self.first_ratio, self.last_ratio = mask_ratio, mask_ratio_end

    def forward(
        self, clips: Tensor, index: Tensor, epoch: int | None, step: int, weight: Tensor | None = None
    ) -> tuple[Losses, Outputs]:
        """See ``Task``."""
        clip = clips[:, : self.in_frames]
        visible = self.draw_mask(clip, index, epoch)
        rebuilt = self.model(clip, visible).float()
        shown = clip if visible is None else clip * visible.view(*clip.shape[:2], 1, *clip.shape[3:])
        weight = None if weight is None else weight[:, : self.in_frames]
        losses = {"mse": mean_squared_error(weigh(rebuilt, clip, weight), clip)}
        return losses, Outputs(shown, clip, rebuilt if weight is None else torch.where(weight > 0, rebuilt, clip))

    def draw_mask(self, clip: Tensor, index: Tensor, epoch: int | None) -> Tensor | None:
        """Which pixels of a clip (B, T, C, H, W) are seen: bool, (B * T, 1, H, W); None for all of them."""
        if self.first_ratio == 0 and not self.last_ratio:
            return None
        return self._draw_mask(index, (clip.shape[1], clip.shape[-2], clip.shape[-1]), self.mask_ratio(epoch), epoch)

    def mask_ratio(self, epoch: int | None) -> float:
        """Share of the pixels that an epoch hides; of validation, r0."""
        first, last = self.first_ratio, self.last_ratio
        if epoch is None or last is None or self.epochs == 1:
            return first
        # Exact: in binary the last ratio is another, at times outside [0, 1].
        start, end, share = Fraction(repr(float(first))), Fraction(repr(float(last))), Fraction(epoch, self.epochs - 1)
        return float(start + (end - start) * share)
