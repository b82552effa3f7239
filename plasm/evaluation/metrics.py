"""The metrics of clips: those of frames, averaged.

MSE and MAE are sums over the C * H * W values of a frame, averaged over frames and clips, on raw predictions. SSIM and
PSNR are means over frames and clips, on predictions clamped to [0, 1].

Shapes: B clips, T' frames, C channels, H x W pixels in [0, 1].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plasm.data import GREATEST_PIXEL

from .frames import SSIM_WINDOW, frame_mae, frame_mse, frame_psnr, frame_ssim, ssim_absence
from .lpips import frame_lpips
from .published import published_scores


@dataclass(frozen=True)
class Metrics:
    """The scores of a set of predicted clips.

    Attributes:
        means: Each metric, averaged over frames and clips. Frames smaller than SSIM's window have no SSIMs.
        per_frame: Each metric for predicted frames 1 to T', averaged over clips.
        num_clips: How many clips.
        note: Why a metric is not there, if one is not.
    """

    means: dict[str, float]
    per_frame: dict[str, list[float]]
    num_clips: int
    note: str = ""


class VideoMetrics:
    """Accumulates the metrics batch by batch, in memory that does not grow.

    Args:
        ssim: Compute the SSIMs, which cost more than all the rest.
        published: Add the scores of ``published_scores``.
        lpips: Net of ``load_lpips``, for LPIPS too.
    """

    def __init__(self, ssim: bool = True, published: bool = False, lpips: nn.Module | None = None) -> None:
        self.ssim, self.published, self.lpips = ssim, published, lpips
        self._note = ""
        self._sums: dict[str, Tensor] = {}
        self._num_clips = 0

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: (B, T', C, H, W), floats.
            target: The same shape, floats in [0, 1].

        Raises:
            ValueError: If the shapes differ, have not five dimensions or hold nothing; or the values are no floats,
                not finite, or a target's far from [0, 1].
        """
        if prediction.shape != target.shape or prediction.ndim != 5 or not target.numel():
            raise ValueError(
                f"expected two clips of one shape (B, T', C, H, W), got {tuple(prediction.shape)} and "
                f"{tuple(target.shape)}"
            )
        prediction, target = prediction.detach(), target.detach()
        self._check("prediction", prediction)
        self._check("target", target)
        if (greatest := target.abs().max().item()) > GREATEST_PIXEL:
            raise ValueError(f"the target reaches {greatest:g}: the metrics are of pixels in [0, 1]; divide by 255?")
        prediction, target = prediction.float(), target.float()
        scores = {
            "mse": frame_mse(prediction, target),
            "mae": frame_mae(prediction, target),
            "psnr": frame_psnr(prediction, target),
        }
        if self.ssim and min(target.shape[3:]) < SSIM_WINDOW:
            self._note = ssim_absence(target.shape[3], target.shape[4])
        elif self.ssim:
            scores["ssim"] = frame_ssim(prediction, target)
            scores["ssim_published"] = frame_ssim(prediction, target, data_range=2.0)
        if self.published:
            scores |= published_scores(prediction, target, "ssim" in scores)
        if self.lpips is not None:
            scores["lpips"] = frame_lpips(prediction, target, self.lpips)
        if self._sums and (scores.keys() != self._sums.keys() or target.shape[1:2] != self._sums["mse"].shape):
            raise ValueError(
                f"clips of {tuple(target.shape)} cannot be averaged with those before: they have other "
                "frames, or an SSIM where those have none"
            )
        for name, score in scores.items():
            total = score.double().sum(0).cpu()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._num_clips += len(prediction)

    def _check(self, what: str, clips: Tensor) -> None:
        if not clips.is_floating_point():
            kind = str(clips.dtype).removeprefix("torch.")
            raise ValueError(f"the {what} holds {kind}: the metrics are of floats in [0, 1]; divide by 255?")
        finite = clips.float().isfinite().flatten(1).all(1)
        if not finite.all():
            first = self._num_clips + int(finite.logical_not().nonzero()[0])
            raise ValueError(f"the {what} of clip {first:,} of those measured here is not finite (NaN or infinite)")

    def add_up(self, add_up: Callable[[Tensor], Tensor]) -> None:
        """Sum what several processes accumulated.

        Args:
            add_up: Sums a float64 tensor over the processes. Each of them calls this, and has added a clip at least.
        """
        sums = add_up(torch.stack([*self._sums.values(), torch.full_like(self._sums["mse"], self._num_clips)]))
        self._num_clips = int(sums[-1, 0])
        self._sums = dict(zip(self._sums, sums, strict=False))

    def compute(self) -> Metrics:
        """Average what was accumulated.

        Raises:
            ValueError: If nothing was, or predictions are so large that a metric is not finite.
        """
        if not self._num_clips:
            raise ValueError("no clip was added")
        per_frame = {name: (total / self._num_clips).tolist() for name, total in self._sums.items()}
        means = {name: sum(values) / len(values) for name, values in per_frame.items()}
        if wrong := [name for name, value in means.items() if not math.isfinite(value)]:
            raise ValueError(f"{', '.join(wrong)} cannot be given: the predictions are too large to be summed")
        return Metrics(means, per_frame, self._num_clips, self._note)
