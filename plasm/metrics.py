"""MSE, MAE, SSIM and PSNR of predicted frames, as the field of video prediction defines them.

Shapes: B clips, T' frames, C channels, H x W pixels in [0, 1].

MSE and MAE are sums over the C * H * W values of a frame, averaged over frames and clips, on raw predictions. SSIM and
PSNR are means over frames and clips, on predictions clamped to [0, 1].

Published code scores otherwise. SimVP, OpenSTL, MAU, PhyDNet and PLA-SM take SSIM of floats by scikit-image before
0.20, which took their range for 2: ``ssim_published``. PredRNN's code clamps before its MSE and scores uint8
(``*_predrnn``). SimVP's and PLA-SM's PSNR squares a difference of uint8, which wraps modulo 256 (``psnr_simvp``): a
black forecast of Moving MNIST has 41 dB by it, and no such figure compares with anybody's.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from plasm.weights import load_tensors
from plasm.weights.convert import read_checkpoint

__all__ = ["Metrics", "VideoMetrics", "frame_lpips", "frame_mae", "frame_mse", "frame_psnr", "frame_ssim", "load_lpips"]

LPIPS_LEAST = 32
"""Pixels: below, a layer of AlexNet has nothing left."""
PSNR_CAP = 100.0
"""dB; what a perfect frame scores."""
SSIM_WINDOW = 7
"""Pixels; frames that are lower or narrower have no SSIM."""
# Pixels are in [0, 1], and measurements scaled by those of other days not far from it; 255 is no such value.
_GREATEST_TARGET = 10.0


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
        ValueError: If a frame is smaller than the window.
    """
    if min(target.shape[3:]) < SSIM_WINDOW:
        raise ValueError(ssim_absence(target.shape[3], target.shape[4]))
    try:
        import skimage.metrics  # noqa: F401
    except ImportError as error:
        raise ImportError("SSIM needs scikit-image: pip install 'plasm-video[cli]'") from error
    x, y = (clip.cpu().numpy() for clip in (prediction.clamp(0, 1).float(), target.float()))
    return _ssim(x, y, data_range)


def _ssim(x: Any, y: Any, data_range: float) -> Tensor:
    from skimage.metrics import structural_similarity

    ssim = torch.empty(x.shape[:2], dtype=torch.float64)
    for clip in range(x.shape[0]):
        for frame in range(x.shape[1]):
            score = structural_similarity(x[clip, frame], y[clip, frame], data_range=data_range, channel_axis=0)
            ssim[clip, frame] = float(score)
    return ssim


def published_scores(prediction: Tensor, target: Tensor, ssim: bool = True) -> dict[str, Tensor]:
    """Scores of each frame where published code computes others: (B, T', C, H, W) twice -> (B, T') each.

    ``mse_predrnn`` is of the clamped prediction. ``ssim_predrnn`` and ``psnr_predrnn`` are of pixels cut to uint8,
    range 255. ``psnr_simvp`` squares their difference in uint8, where 0 - 255 is 1, and takes the mean for the error.

    Args:
        prediction: Clamped to [0, 1] first.
        target: In [0, 1].
        ssim: Compute the SSIM.
    """
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
        scores["ssim_predrnn"] = _ssim(x.cpu().numpy(), y.cpu().numpy(), 255.0)
    return scores


def load_lpips(backbone: str | Path | None = None) -> nn.Module:
    """LPIPS with AlexNet, version 0.1, of the library ``lpips``, as OpenSTL prints it (Zhang et al., arXiv 1801.03924).

    Args:
        backbone: File of torchvision's AlexNet weights for ImageNet, a safetensors file or a state dict of torch's
            (``alexnet-owt-7be5be79.pth``), which is read without unpickling. By default torchvision's, downloaded.

    Raises:
        ImportError: If lpips is not installed.
        OSError: If the file is not there or damaged, or the download fails.
        ValueError: If it holds no AlexNet.
    """
    try:
        import lpips
    except ImportError as error:
        raise ImportError("LPIPS needs the library lpips: pip install 'plasm-video[lpips]'") from error
    if backbone is None:
        url = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.url
        try:
            state = torch.hub.load_state_dict_from_url(url, check_hash=True, weights_only=True, map_location="cpu")
        except OSError as error:
            raise OSError(f"AlexNet's weights cannot be had from {url}: {error}; give a file of them") from error
    else:
        file = Path(backbone)
        state = load_tensors(file) if file.suffix == ".safetensors" else read_checkpoint(file)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Torchvision warns of arguments that the library gives it.
        warnings.simplefilter("ignore", UserWarning)
        net = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval().requires_grad_(False)
    # The library keeps the layers of torchvision's ``features`` in slices, under their own numbers.
    layers = {name.partition(".")[2]: name for name, _ in net.net.named_parameters()}
    wanted = {f"features.{layer}": f"net.{name}" for layer, name in layers.items()}
    if missing := [name for name in wanted if name not in state]:
        raise ValueError(f"{backbone} holds no AlexNet of torchvision: it has no {missing[0]}")
    net.load_state_dict({**net.state_dict(), **{ours: state[theirs] for theirs, ours in wanted.items()}})
    return net


def frame_lpips(prediction: Tensor, target: Tensor, net: nn.Module) -> Tensor:
    """LPIPS of each frame: (B, T', C, H, W) twice, C of 1 or 3 -> (B, T').

    Args:
        prediction: Clamped to [0, 1], then scaled to [-1, 1]; one channel counts as three.
        target: In [0, 1].
        net: Of ``load_lpips``, on the same device.

    Raises:
        ValueError: If C is neither 1 nor 3, or the frames are smaller than AlexNet takes.
    """
    channels, height, width = target.shape[2:]
    if channels not in (1, 3) or min(height, width) < LPIPS_LEAST:
        raise ValueError(
            f"LPIPS is of frames of 1 or 3 channels, {LPIPS_LEAST} x {LPIPS_LEAST} or more; got "
            f"{channels} x {height} x {width}"
        )
    x, y = ((2 * clip.float().clamp(0, 1) - 1).flatten(0, 1).expand(-1, 3, -1, -1) for clip in (prediction, target))
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        scores: Tensor = net(x, y)
    return scores.view(target.shape[:2])


@dataclass(frozen=True)
class Metrics:
    """What a set of predicted clips scored.

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
        if (greatest := target.abs().max().item()) > _GREATEST_TARGET:
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
            ValueError: If nothing was, or predictions are so large that a metric is not finite.
        """
        if not self._num_clips:
            raise ValueError("no clip was added")
        per_frame = {name: (total / self._num_clips).tolist() for name, total in self._sums.items()}
        means = {name: sum(values) / len(values) for name, values in per_frame.items()}
        if wrong := [name for name, value in means.items() if not math.isfinite(value)]:
            raise ValueError(f"{', '.join(wrong)} cannot be given: the predictions are too large to be summed")
        return Metrics(means, per_frame, self._num_clips, self._note)
