"""MSE, MAE, PSNR and SSIM of frames, as the field of video prediction defines them.

Shapes: B clips, T' frames, C channels, H x W pixels in [0, 1].
"""

from typing import Any

import torch
from torch import Tensor

from plasm.files import require
from plasm.tasks.losses import check_shapes

PSNR_CAP = 100.0
"""dB; what a perfect frame scores."""
SSIM_WINDOW = 7
"""Pixels; frames that are lower or narrower have no SSIM."""


def frame_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error summed over each frame: (B, T', C, H, W) twice -> (B, T'); a ValueError if the shapes differ."""
    check_shapes(prediction, target)
    return (prediction - target).square().sum((2, 3, 4))


def frame_mae(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute error summed over each frame: (B, T', C, H, W) twice -> (B, T'); a ValueError if the shapes differ."""
    check_shapes(prediction, target)
    return (prediction - target).abs().sum((2, 3, 4))


def frame_psnr(prediction: Tensor, target: Tensor) -> Tensor:
    """PSNR of each frame in dB, peak 1, at most 100: (B, T', C, H, W) twice -> (B, T'); a ValueError if they differ."""
    check_shapes(prediction, target)
    mse = (prediction.clamp(0, 1) - target).square().mean((2, 3, 4))
    return (-10 * mse.log10()).clamp(max=PSNR_CAP)


def ssim_absence(height: int, width: int) -> str:
    """Why frames of this size have no SSIM."""
    return f"no SSIM: frames of {height}x{width} are smaller than its window of {SSIM_WINDOW}x{SSIM_WINDOW} pixels"


def frame_ssim(prediction: Tensor, target: Tensor, data_range: float = 1.0) -> Tensor:
    """SSIM of each frame by scikit-image, with its default 7x7 uniform window: (B, T', C, H, W) twice -> (B, T').

    Args:
        prediction: Clamped to [0, 1] first.
        target: In [0, 1].
        data_range: 1, or 2 for what papers print.

    Raises:
        ImportError: If scikit-image is not installed.
        ValueError: If the shapes differ, or a frame is smaller than the window.
    """
    check_shapes(prediction, target)
    if min(target.shape[3:]) < SSIM_WINDOW:
        raise ValueError(ssim_absence(target.shape[3], target.shape[4]))
    x, y = (clip.cpu().numpy() for clip in (prediction.clamp(0, 1).float(), target.float()))
    return skimage_ssim(x, y, data_range)


def skimage_ssim(x: Any, y: Any, data_range: float) -> Tensor:
    """SSIM of each frame by scikit-image, of arrays as they are: (B, T', C, H, W) twice -> (B, T')."""
    structural_similarity = require("skimage.metrics").structural_similarity
    ssim = torch.empty(x.shape[:2], dtype=torch.float64)
    for clip in range(x.shape[0]):
        for frame in range(x.shape[1]):
            score = structural_similarity(x[clip, frame], y[clip, frame], data_range=data_range, channel_axis=0)
            ssim[clip, frame] = float(score)
    return ssim
