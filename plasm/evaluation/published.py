"""Scores that published code computes otherwise than this field defines them.

SimVP, OpenSTL, MAU, PhyDNet and PLA-SM take SSIM of floats by scikit-image before 0.20, which took their range for 2:
``ssim_published`` of ``VideoMetrics``. PredRNN's code clamps before its MSE and scores uint8 (``*_predrnn``). SimVP's
and PLA-SM's PSNR squares a difference of uint8, which wraps modulo 256 (``psnr_simvp``): a black forecast of Moving
MNIST has 41 dB by it, and no other figure compares with it.

Shapes: B clips, T' frames, C channels, H x W pixels in [0, 1].
"""

import math

import torch
from torch import Tensor

from plasm.tasks.losses import check_shapes

from .frames import PSNR_CAP, frame_mse, skimage_ssim


def published_scores(prediction: Tensor, target: Tensor, ssim: bool = True) -> dict[str, Tensor]:
    """Scores of each frame where published code computes others: (B, T', C, H, W) twice -> (B, T') each.

    ``mse_predrnn`` is of the clamped prediction. ``ssim_predrnn`` and ``psnr_predrnn`` are of pixels cut to uint8,
    range 255. ``psnr_simvp`` squares their difference in uint8, where 0 - 255 is 1, and takes the mean for the error.

    Args:
        prediction: Clamped to [0, 1] first.
        target: In [0, 1].
        ssim: Compute the SSIM.

    Raises:
        ValueError: If the shapes differ.
    """
    check_shapes(prediction, target)
    clamped = prediction.clamp(0, 1)
    x, y = ((clip * 255).to(torch.uint8) for clip in (clamped, target))

    def psnr(squared: Tensor) -> Tensor:
        mse = squared.double().mean((2, 3, 4))
        return (20 * math.log10(255) - 10 * mse.log10()).clamp(max=PSNR_CAP)

    scores = {
        "mse_predrnn": frame_mse(clamped, target),
        "psnr_predrnn": psnr((x.int() - y.int()).square()),
        # Torch's uint8 wraps as NumPy's does.
        "psnr_simvp": psnr((x - y).square()),
    }
    if ssim:
        scores["ssim_predrnn"] = skimage_ssim(x.cpu().numpy(), y.cpu().numpy(), 255.0)
    return scores
