"""Decoded frames to what models take: any depth, alpha, colour and size to (T, C, H, W) floats in [0, 1]."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Fit", "FrameFormat"]

Fit = Literal["crop", "stretch"]

# ITU-R BT.601, as every reader of video takes gray from colour.
_LUMA = (0.299, 0.587, 0.114)

# By which floats may leave [0, 1]: what arithmetic in half precision does to 1.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class FrameFormat:
    """What frames shall be like.

    Attributes:
        channels: C. Colour becomes gray and gray becomes three equal channels where needed; an alpha channel that C
            does not count is blended onto black.
        size: (H, W); None leaves the frames as large as they are.
        fit: "crop" cuts the middle out of the frames at the aspect ratio of ``size`` first; "stretch" does not.
        bounded: Floats outside [0, 1] are an error. False for measurements, which may leave the range they are scaled
            by.

    Raises:
        ValueError: If an attribute is none of these.
    """

    channels: int
    size: tuple[int, int] | None = None
    fit: Fit = "crop"
    bounded: bool = True

    def __post_init__(self) -> None:
        if self.channels < 1 or (self.size is not None and (len(self.size) != 2 or min(self.size) < 1)):
            raise ValueError(f"wanted at least 1 channel and a size (H, W), got {self.channels} and {self.size}")
        if self.fit not in ("crop", "stretch"):
            raise ValueError(f"fit is crop or stretch, got {self.fit!r}")

    def __call__(self, frames: np.ndarray, name: str) -> Tensor:
        """Convert frames.

        Args:
            frames: (T, H', W', K), uint8, uint16, or floats in [0, 1].
            name: Of where they come from, for errors.

        Returns:
            (T, C, H, W), float32 in [0, 1].

        Raises:
            ValueError: If K does not lead to C, or the values are none of these.
        """
        if self.size is not None and self.fit == "crop":
            frames = _crop(frames, self.size)
        pixels = self._to_channels(_to_unit(frames, name, self.bounded).movedim(3, 1), name)
        if self.size is not None and pixels.shape[2:] != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bilinear", antialias=True, align_corners=False)
        return pixels.contiguous()

    def _to_channels(self, pixels: Tensor, name: str) -> Tensor:
        found = pixels.shape[1]
        if found == 4 != self.channels:
            pixels = pixels[:, :3] * pixels[:, 3:]
        if pixels.shape[1] == self.channels:
            return pixels
        if pixels.shape[1] == 3 and self.channels == 1:
            return (pixels * pixels.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        if pixels.shape[1] == 1 and self.channels == 3:
            return pixels.expand(-1, 3, -1, -1)
        raise ValueError(f"{name} has {found} channel(s), from which {self.channels} cannot be made")


def _crop(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The largest middle part of (T, H', W', K) with the aspect ratio of ``size``."""
    height, width = frames.shape[1:3]
    kept_height = max(1, min(height, round(width * size[0] / size[1])))
    kept_width = max(1, min(width, round(height * size[1] / size[0])))
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return frames[:, top : top + kept_height, left : left + kept_width]


def _to_unit(frames: np.ndarray, name: str, bounded: bool) -> Tensor:
    if frames.dtype in (np.uint8, np.uint16):
        # torch knows no arithmetic of uint16.
        return torch.from_numpy(frames.astype(np.float32)).div_(np.iinfo(frames.dtype).max)
    if frames.dtype.kind != "f":
        raise ValueError(f"{name} should hold uint8, uint16, or floats in [0, 1]; it holds {frames.dtype}")
    unit = torch.from_numpy(frames.astype(np.float32))
    if not bounded:
        return unit
    low, high = float(frames.min()), float(frames.max())
    if low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return unit.clamp_(0, 1)
    if not np.isfinite(frames).all():
        found = "some that are not finite (NaN or infinite)"
    else:
        found = f"values from {low:.7g} to {high:.7g}" + (
            "; divide them by 255" if low >= 0 and 2 < high <= 255 else ""
        )
    raise ValueError(f"{name} should hold floats in [0, 1]; its {frames.dtype} hold {found}")
