"""Forecasts of rain: (T, H, W) observed rates to (T', H, W), NaN where a cell is missing."""

import contextlib
import importlib.util
import io
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from plasm.data.radar import FLOOR, denormalize, normalize
from plasm.files import require

Forecast = Callable[[np.ndarray, int], np.ndarray]

_FLOW_FRAMES = 3
# In dB of mm/h, as pysteps' examples have it.
_DRY = -15.0
_WHOLE = 1_000_000
"""Cells that are forecast in one piece: FMI's whole composite."""
_TILE, _OVERLAP = 1024, 256


def persistence(observed: np.ndarray, leads: int) -> np.ndarray:
    """The last frame, at each lead time."""
    return np.repeat(observed[-1:], leads, 0)


def has_optical_flow() -> bool:
    """Whether pysteps and OpenCV are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("pysteps", "cv2"))


def optical_flow(observed: np.ndarray, leads: int) -> np.ndarray:
    """The last frame moved along by pysteps: Lucas-Kanade's motion of the last three, semi-Lagrangian extrapolation.

    What comes in over the edge is missing.

    Raises:
        ImportError: If pysteps or OpenCV is not installed.
    """
    # It says on its first import which settings it read.
    with contextlib.redirect_stdout(io.StringIO()):
        pysteps = require("pysteps")
    require("cv2")
    recent = observed[-_FLOW_FRAMES:].astype(np.float64)
    if len(recent) < 2:
        raise ValueError("optical flow needs two frames at least")
    # Printed, not logged, are hints of pysteps' own.
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        decibels, _ = pysteps.utils.transformation.dB_transform(recent, threshold=FLOOR, zerovalue=_DRY)
        motion = pysteps.motion.get_method("LK")(np.ma.masked_invalid(decibels))
        moved = pysteps.nowcasts.get_method("extrapolation")(recent[-1], motion, leads)
    rates: np.ndarray = np.asarray(moved, np.float32)
    return np.maximum(rates, 0, out=rates)


def model_forecast(predict: Callable[[Tensor, int], Tensor], in_frames: int, device: torch.device) -> Forecast:
    """A model of pixels, ``predict(clip, num_frames)``, as a forecast of rates from the last T frames.

    Missing cells are dry to it; those of the last frame are missing in the forecast. More than a million cells are
    forecast in tiles of 1024 that overlap by 256 and are blended there.
    """

    def forecast(observed: np.ndarray, leads: int) -> np.ndarray:
        if len(observed) < in_frames:
            raise ValueError(f"{len(observed)} frames are observed; the model needs {in_frames}")
        clip = normalize(torch.from_numpy(observed[-in_frames:]))[None, :, None]
        side = None if clip.shape[-1] * clip.shape[-2] <= _WHOLE else _TILE
        pixels = tiled(lambda part: predict(part.to(device), leads).float().cpu(), clip, side, _OVERLAP)
        rates = denormalize(pixels[0, :, 0]).numpy()
        if not np.isfinite(rates).all():
            raise FloatingPointError("the model's forecast is not finite")
        rates[:, np.isnan(observed[-1])] = np.nan
        return rates

    return forecast


def tiled(predict: Callable[[Tensor], Tensor], clip: Tensor, side: int | None, overlap: int) -> Tensor:
    """Predict a clip (B, T, C, H, W) in tiles, and blend them where they overlap, so that no seam shows.

    Tiles have ``side`` cells, or the whole is one, and neighbours overlap by ``overlap`` cells at least.
    """
    height, width = clip.shape[-2:]
    if side is None or (height <= side and width <= side):
        return predict(clip)
    total: Tensor | None = None
    weights = torch.zeros(height, width)
    for top in _positions(height, side, overlap):
        for left in _positions(width, side, overlap):
            rows, columns = slice(top, min(top + side, height)), slice(left, min(left + side, width))
            part = predict(clip[..., rows, columns])
            weight = _ramp(rows, height, overlap)[:, None] * _ramp(columns, width, overlap)
            if total is None:
                total = part.new_zeros(*part.shape[:3], height, width)
            total[..., rows, columns] += part * weight
            weights[rows, columns] += weight
    assert total is not None
    return total / weights


def _positions(length: int, side: int, overlap: int) -> list[int]:
    """Where tiles begin: evenly, with this overlap at least."""
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    return [round(number * (length - side) / (count - 1)) for number in range(count)]


def _ramp(position: slice, length: int, overlap: int) -> Tensor:
    """Weights along a side of a tile: rising over the middle of the overlap, but not at the edge of the whole.

    The outer quarter counts nothing: a network sees no neighbours there.
    """
    steps = torch.arange(position.stop - position.start, dtype=torch.float32) + 0.5
    ramp = (2 * steps / overlap - 0.5).clamp(0, 1)
    rising = ramp if position.start > 0 else torch.ones_like(steps)
    falling = ramp.flip(0) if position.stop < length else torch.ones_like(steps)
    return torch.minimum(rising, falling)
