"""MSE, MAE, SSIM and PSNR of predicted frames, as the field of video prediction defines them.

Shapes: B clips, T' frames, C channels, H x W pixels in [0, 1].

MSE and MAE are sums over the C * H * W values of a frame, averaged over frames and clips, on raw predictions. SSIM and
PSNR are means over frames and clips, on predictions clamped to [0, 1]. Published SSIMs come from scikit-image before
0.20, which took the range of float images for 2, where it is 1 here: ``ssim`` has the right range, ``ssim_published``
the old one, and only the latter compares with papers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Metrics", "VideoMetrics", "frame_mae", "frame_mse", "frame_psnr", "frame_ssim"]

PSNR_CAP = 100.0
"""dB; what a perfect frame scores."""


def frame_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error summed over each frame: (B, T', C, H, W) twice -> (B, T')."""
    return (prediction - target).square().sum((2, 3, 4))


def frame_mae(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute error summed over each frame: (B, T', C, H, W) twice -> (B, T')."""
    return (prediction - target).abs().sum((2, 3, 4))


def frame_psnr(prediction: Tensor, target: Tensor) -> Tensor:
    """PSNR of each frame in dB, peak 1, at most 100: (B, T', C, H, W) twice -> (B, T')."""
    mse = (prediction.clamp(0, 1) - target).square().mean((2, 3, 4))
    return (-10 * mse.log10()).clamp(max=PSNR_CAP)


def frame_ssim(prediction: Tensor, target: Tensor, data_range: float = 1.0) -> Tensor:
    """SSIM of each frame by scikit-image, with its default 7x7 uniform window: (B, T', C, H, W) twice -> (B, T').

    Args:
        prediction: Clamped to [0, 1] first.
        target: In [0, 1].
        data_range: 1, or 2 for what papers print.

    Raises:
        ImportError: If scikit-image is not installed.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise ImportError("SSIM needs scikit-image: pip install 'plasm[cli]'") from error
    x, y = prediction.clamp(0, 1).float().cpu().numpy(), target.float().cpu().numpy()
    ssim = torch.empty(x.shape[:2], dtype=torch.float64)
    for clip in range(x.shape[0]):
        for frame in range(x.shape[1]):
            score = structural_similarity(x[clip, frame], y[clip, frame], data_range=data_range, channel_axis=0)
            ssim[clip, frame] = float(score)
    return ssim


@dataclass(frozen=True)
class Metrics:
    """What a set of predicted clips scored.

    Attributes:
        means: Each metric, averaged over frames and clips.
        per_frame: Each metric for predicted frames 1 to T', averaged over clips.
        num_clips: How many clips.
    """

    means: dict[str, float]
    per_frame: dict[str, list[float]]
    num_clips: int


class VideoMetrics:
    """Accumulates the metrics batch by batch, in memory that does not grow.

    Args:
        ssim: Compute both SSIMs, which cost more than all the rest.
    """

    def __init__(self, ssim: bool = True) -> None:
        self.ssim = ssim
        self._sums: dict[str, Tensor] = {}
        self._num_clips = 0

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: (B, T', C, H, W).
            target: The same shape, in [0, 1].

        Raises:
            ValueError: If the shapes differ or have not five dimensions.
        """
        if prediction.shape != target.shape or prediction.ndim != 5:
            raise ValueError(
                f"expected two clips of one shape (B, T', C, H, W), got {tuple(prediction.shape)} and "
                f"{tuple(target.shape)}"
            )
        prediction, target = prediction.detach().float(), target.float()
        scores = {
            "mse": frame_mse(prediction, target),
            "mae": frame_mae(prediction, target),
            "psnr": frame_psnr(prediction, target),
        }
        if self.ssim:
            scores["ssim"] = frame_ssim(prediction, target)
            scores["ssim_published"] = frame_ssim(prediction, target, data_range=2.0)
        for name, score in scores.items():
            total = score.double().sum(0).cpu()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._num_clips += len(prediction)

    def add_up(self, add_up: Callable[[Tensor], Tensor]) -> None:
        """Join what several processes accumulated.

        Args:
            add_up: Sums a float64 tensor over the processes. Each of them calls this, and has added a clip at least.
        """
        sums = add_up(torch.stack([*self._sums.values(), torch.full_like(self._sums["mse"], self._num_clips)]))
        self._num_clips = int(sums[-1, 0])
        self._sums = dict(zip(self._sums, sums, strict=False))

    def compute(self) -> Metrics:
        """Average what was accumulated.

        Raises:
            ValueError: If nothing was.
        """
        if not self._num_clips:
            raise ValueError("no clip was added")
        per_frame = {name: (total / self._num_clips).tolist() for name, total in self._sums.items()}
        means = {name: sum(values) / len(values) for name, values in per_frame.items()}
        return Metrics(means, per_frame, self._num_clips)
