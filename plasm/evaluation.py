"""Measuring forecasts on a data set, beside the two that need no model.

Shapes: B clips, T input frames, T' output frames, C channels, H x W pixels.
"""

import time
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from plasm.config import Config, option
from plasm.data import clip_batches
from plasm.distributed import ALONE, World
from plasm.metrics import Metrics, VideoMetrics
from plasm.models.forecasting import forecasting

__all__ = ["TRIVIAL_FORECASTS", "EvaluateConfig", "Forecast", "TimedForecast", "evaluate", "forecast"]

Forecast = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Config):
    """What to measure, and on what."""

    command = "evaluate"
    model: str | None = option(None, "Constructor; taken from the weights' config if that is there.")
    weights: str | None = option(
        None,
        "Run, folder, hf-hub:OWNER/NAME, published name, .safetensors or exported file (.onnx, .pt2); the model's "
        "published ones if not given.",
    )
    data: str = option("mmnist", "Data set: a name as for training, or MODULE:NAME for your own.")
    data_dir: str = option(MISSING, "Folder of the data set's files.")
    num_clips: int = option(10_000, "Use the first so many clips of the test set.", at_least=1)
    frames: int | None = option(
        None,
        "Frames to predict of each clip; the model's T' by default. For more it feeds its forecasts back.",
        at_least=1,
    )
    batch_size: int = option(10, "Clips at a time.", at_least=1)
    workers: int = option(0, "Processes that load clips, for each that measures; 0 loads them in that one.", at_least=0)
    device: str = option("auto", "cpu, cuda, ..., or auto: a GPU if there is one.")
    per_frame: bool = option(False, "Print every metric for each predicted frame, too.")
    published: bool = option(
        False, "Add the scores that compare with papers where their code computes others, by the names of those papers."
    )
    lpips: str | None = option(
        None,
        "Add LPIPS, with torchvision's ImageNet weights of AlexNet: a file, or `download`. Needs the extra lpips.",
    )
    trust: bool = option(
        False, "Run an exported file that was not exported on this machine: it is a program, so know its author."
    )
    out: str = option("scores", "Folder for the tables and pictures of radar.")
    data_args: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "Option of the data set, NAME=VALUE, such as on_error=skip. May be repeated."},
    )


def predict_black(clip: Tensor, num_frames: int) -> Tensor:
    """(B, T, C, H, W) -> (B, num_frames, C, H, W) of zeros."""
    return torch.zeros_like(clip[:, :1]).expand(-1, num_frames, -1, -1, -1)


def repeat_last_frame(clip: Tensor, num_frames: int) -> Tensor:
    """(B, T, C, H, W) -> (B, num_frames, C, H, W), each the last of the T."""
    return clip[:, -1:].expand(-1, num_frames, -1, -1, -1)


TRIVIAL_FORECASTS: dict[str, Forecast] = {"black": predict_black, "last frame": repeat_last_frame}


def forecast(model: nn.Module) -> Forecast:
    """A model as a forecast of any number of frames, in eval mode and without gradient; its own mode is restored.

    A model without ``predict(clip, num_frames)`` forecasts its T' frames or fewer; more are a ValueError.
    """

    def predict(clip: Tensor, num_frames: int) -> Tensor:
        with forecasting(model):
            if hasattr(model, "predict"):
                predicted: Tensor = model.predict(clip, num_frames)  # type: ignore[operator]
                return predicted
            frames: Tensor = model(clip)
        if frames.shape[1] < num_frames:
            raise ValueError(
                f"{type(model).__name__} gives {frames.shape[1]} frames and has no predict(clip, num_frames) for "
                f"{num_frames}"
            )
        return frames[:, :num_frames]

    return predict


class TimedForecast:
    """A forecast that measures its speed: not the loading of clips, nor the scoring.

    Args:
        forecast: What to measure.
        device: Where it computes.
    """

    def __init__(self, forecast: Forecast, device: torch.device) -> None:
        self.forecast, self.device = forecast, device
        self._times: list[tuple[int, float]] = []

    def __call__(self, clip: Tensor, num_frames: int) -> Tensor:
        """Forecast; see ``forecast``."""
        self._wait()
        started = time.perf_counter()
        frames = self.forecast(clip, num_frames)
        self._wait()
        self._times.append((frames.shape[0] * frames.shape[1], time.perf_counter() - started))
        return frames

    @property
    def frames_per_second(self) -> float:
        """Predicted frames of all clips a second; without the first batch, which warms up, where there are others."""
        counts, seconds = zip(*(self._times[1:] or self._times), strict=True)
        return float(sum(counts) / sum(seconds))

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def evaluate(
    forecasts: dict[str, Forecast],
    dataset: Dataset[Tensor],
    in_frames: int,
    out_frames: int,
    *,
    num_clips: int | None = None,
    batch_size: int = 10,
    world: World = ALONE,
    workers: int = 0,
    ssim: bool = True,
    published: bool = False,
    lpips: nn.Module | None = None,
) -> dict[str, Metrics]:
    """Measure forecasts on the same clips, each clip in one process.

    Args:
        forecasts: Each maps (B, T, C, H, W) and T' to (B, T', C, H, W), like ``model.predict``.
        dataset: Clips of at least T + T' frames.
        in_frames: T.
        out_frames: T'.
        num_clips: Use the first so many clips; all by default.
        batch_size: B.
        world: The processes that measure together, and where the forecasts compute; by default this one, on the CPU.
        workers: Processes that load clips, for each that measures; 0 loads them in that one.
        ssim: Compute the SSIMs.
        published: Add the scores that published code computes otherwise; see ``plasm.metrics.published_scores``.
        lpips: Net of ``plasm.metrics.load_lpips``, for LPIPS too.

    Returns:
        The metrics of each forecast, over the clips of all processes.

    Raises:
        ValueError: If there are fewer clips than processes.
    """
    total = len(dataset) if num_clips is None else min(num_clips, len(dataset))  # type: ignore[arg-type]
    if total < world.size:
        raise ValueError(f"{total} clips are too few for {world.size} processes")
    index = world.share(list(range(total)))
    batches = [index[i : i + batch_size] for i in range(0, len(index), batch_size)]
    metrics = {name: VideoMetrics(ssim, published, lpips) for name in forecasts}
    quiet = None if world.is_first else True
    # A model's own predict, given as it is, leaves the model's mode to us.
    models = [owner for f in forecasts.values() if isinstance(owner := getattr(f, "__self__", f), nn.Module)]
    with (
        forecasting(*models),
        tqdm(total=len(index), desc="evaluate", unit="clip", leave=False, disable=quiet) as progress,
    ):
        for clips in clip_batches(dataset, batches, workers):
            clips = clips.to(world.device)
            clip, target = clips[:, :in_frames], clips[:, in_frames : in_frames + out_frames]
            for name, forecast in forecasts.items():
                metrics[name].update(forecast(clip, out_frames), target)
            progress.update(len(clips))
    for metric in metrics.values():
        metric.add_up(world.sum)
    return {name: metric.compute() for name, metric in metrics.items()}
