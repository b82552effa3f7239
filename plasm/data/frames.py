"""Decoded frames to what models take: any depth, alpha, colour and size to (T, C, H, W) floats in [0, 1]."""

from dataclasses import dataclass
from numbers import Real
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Fit = Literal["crop", "stretch"]

# ITU-R BT.601, as every reader of video takes gray from colour.
_LUMA = (0.299, 0.587, 0.114)

# By which floats may leave [0, 1]: what arithmetic in half precision does to 1.
_ROUNDING = 1e-3

# What 12 bits reach at most in 16; masks of 0 and 1 stay below.
_BLACK = 1 / 16


@dataclass(frozen=True)
class FrameFormat:
    """The format of frames: channels, size and range of values.

    Attributes:
        channels: C. Colour becomes gray and gray becomes three equal channels where needed; an alpha channel that C
            does not count is blended onto black.
        size: (H, W); None leaves the frames as large as they are.
        fit: "crop" cuts the middle out of the frames at the aspect ratio of ``size`` first; "stretch" does not.
        bounded: Floats outside [0, 1] are an error. False for measurements, which may leave the range they are scaled
            by.
        value_range: The values that become 0 and 1. By default 0 and the largest value of the type for uint8 and
            uint16, and 0 and 1 for floats and booleans; other types have none.

    Raises:
        ValueError: If an attribute is none of these.
    """

    channels: int
    size: tuple[int, int] | None = None
    fit: Fit = "crop"
    bounded: bool = True
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.channels < 1 or (self.size is not None and (len(self.size) != 2 or min(self.size) < 1)):
            raise ValueError(f"wanted at least 1 channel and a size (H, W), got {self.channels} and {self.size}")
        if self.fit not in ("crop", "stretch"):
            raise ValueError(f"fit is crop or stretch, got {self.fit!r}")
        if self.value_range is not None and not (
            isinstance(self.value_range, tuple | list)
            and len(self.value_range) == 2
            and all(isinstance(value, Real) for value in self.value_range)
            and self.value_range[0] < self.value_range[1]
        ):
            raise ValueError(f"value_range is (low, high), such as (0, 4095), got {self.value_range}")

    def __call__(self, frames: np.ndarray, name: str) -> Tensor:
        """Convert frames.

        Args:
            frames: (T, H', W', K), uint8, uint16, booleans, or floats in [0, 1]; any numbers with ``value_range``.
            name: Of where they come from, for errors.

        Returns:
            (T, C, H, W), float32 in [0, 1].

        Raises:
            ValueError: If K does not lead to C, or the values are none of these.
        """
        if self.size is not None and self.fit == "crop":
            frames = _crop(frames, self.size)
        pixels = self._to_channels(_to_unit(frames, name, self.bounded, self.value_range).movedim(3, 1), name)
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


def _to_unit(frames: np.ndarray, name: str, bounded: bool, value_range: tuple[float, float] | None) -> Tensor:
    kind = frames.dtype.newbyteorder("=")
    if value_range is not None and kind.kind in "buif":
        low, high = value_range
        # Integers of 32 bits and more lose digits as float32.
        wide: np.ndarray = frames.astype(np.float32 if kind.itemsize <= 2 else np.float64)
        wide -= low
        wide /= high - low
        frames = wide.astype(np.float32)
    elif kind in (np.uint8, np.uint16):
        # torch knows no arithmetic of uint16.
        return torch.from_numpy(frames.astype(np.float32)).div_(np.iinfo(kind).max)
    elif kind.kind not in "bf":
        raise ValueError(
            f"{name} should hold uint8, uint16, or floats in [0, 1]; it holds {frames.dtype}: say which values become "
            f"0 and 1, as value_range=(low, high)"
        )
    unit = torch.from_numpy(frames.astype(np.float32))
    if not bounded:
        return unit
    low, high = float(frames.min()), float(frames.max())
    if low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return unit.clamp_(0, 1)
    if value_range is not None:
        wide_range = value_range[1] - value_range[0]
        found = f"values from {value_range[0] + low * wide_range:.7g} to {value_range[0] + high * wide_range:.7g}"
        raise ValueError(f"{name} holds {found}, outside value_range={value_range}")
    if not np.isfinite(frames).all():
        found = "some that are not finite (NaN or infinite)"
    else:
        usual = low >= 0 and 2 < high <= 255
        hint = "divide them by 255, as value_range=(0, 255) does" if usual else "give value_range=(low, high)"
        found = f"values from {low:.7g} to {high:.7g}; {hint}"
    raise ValueError(f"{name} should hold floats in [0, 1]; its {frames.dtype} hold {found}")


def nearly_black(pixels: Tensor) -> str | None:
    """A warning of frames, floats in [0, 1], that are nearly black; None of others."""
    largest = float(pixels.max()) if pixels.numel() else 0.0
    if not 0 < largest < _BLACK:
        return None
    return (
        f"comes out nearly black, {largest:.3g} at most where 1 is white; if its values fill another range, say which "
        f"become 0 and 1: value_range=(0, 1) of masks, value_range=(0, 4095) of a camera of 12 bits"
    )
